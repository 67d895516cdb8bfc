//! The pipe: a bare server on the same transport that forwards the same frames with no queue, no table, no credits. What it
//! reaches is the limit of what a router on this transport could reach.
//!
//! Promise: none. Settings: the router's own, with the same workers, listener, frames, batching and allocator. A controller's number
//! stands in the first four bytes of an id, and container `i` runs action `i`, so nothing has to be looked up.

use bytes::Bytes;
use futures_util::Stream;
use parking_lot::{Mutex, RwLock};
use proto::v1;
use proto::v1::router_server::{Router, RouterServer};
use router::config::Config;
use router::listener;
use router::parts::Parts;
use router::worker;
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use tokio::sync::Semaphore;
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};

/// Serves a pipe on `config.listen` until `stop` resolves; `listening` is told the address.
pub(crate) async fn serve(
    config: &Config,
    listening: impl FnOnce(std::net::SocketAddr),
    stop: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let socket = listener::bind(config.listen)?;
    let address = socket.local_addr()?;
    let frame_bytes_max = config.limits.frame_bytes_max as usize;
    let service = RouterServer::new(Pipe::default()).max_decoding_message_size(frame_bytes_max);
    let routes = Routes::new(service);
    let workers = worker::start_all(config, &routes, &Parts::default())?;
    let permits = Arc::new(Semaphore::new(config.limits.connections_max));
    let accepting = tokio::spawn(listener::accept_loop(socket, workers, permits, Arc::default()));
    listening(address);
    stop.await;
    accepting.abort();
    Ok(())
}

/// Everything the pipe knows: its streams.
#[derive(Debug, Clone, Default)]
struct Pipe {
    /// By controller number.
    controllers: Arc<RwLock<Vec<Arc<Line<v1::Answer>>>>>,
    invokers: Arc<RwLock<Vec<Arc<Line<v1::Dispatch>>>>>,
    next: Arc<AtomicUsize>,
}

/// What waits to be written on one stream.
#[derive(Debug)]
struct Line<T> {
    waiting: Mutex<(VecDeque<T>, Option<Waker>)>,
}

impl<T> Default for Line<T> {
    fn default() -> Self {
        Self { waiting: Mutex::new((VecDeque::new(), None)) }
    }
}

impl<T> Line<T> {
    fn extend(&self, entries: impl Iterator<Item = T>) {
        let mut waiting = self.waiting.lock();
        waiting.0.extend(entries);
        let waker = waiting.1.take();
        drop(waiting);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// The writing half of a stream: as the router's, up to 1,024 entries or 64 KiB of what is there.
struct Frames<T, F> {
    line: Arc<Line<T>>,
    hands: VecDeque<T>,
    welcome: Option<F>,
    bytes: fn(&T) -> usize,
    frame: fn(Vec<T>) -> F,
}

impl<T: Unpin, F: Unpin> Stream for Frames<T, F> {
    type Item = Result<F, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if let Some(welcome) = this.welcome.take() {
            return Poll::Ready(Some(Ok(welcome)));
        }
        if this.hands.is_empty() {
            let mut waiting = this.line.waiting.lock();
            if waiting.0.is_empty() {
                waiting.1 = Some(cx.waker().clone());
                return Poll::Pending;
            }
            std::mem::swap(&mut this.hands, &mut waiting.0);
        }
        let (mut bytes, mut entries) = (0, Vec::new());
        while bytes < 64 * 1024 && entries.len() < 1024 {
            let Some(entry) = this.hands.pop_front() else { break };
            bytes += (this.bytes)(&entry);
            entries.push(entry);
        }
        Poll::Ready(Some(Ok((this.frame)(entries))))
    }
}

fn welcome() -> v1::Welcome {
    let bytes_max = 4 << 20;
    v1::Welcome {
        router_id: Bytes::from_static(b"pipe"),
        payload_bytes_max: bytes_max,
        frame_entries_max: 4096,
        frame_bytes_max: bytes_max,
        ..Default::default()
    }
}

#[tonic::async_trait]
impl Router for Pipe {
    type PushStream = Pin<Box<dyn Stream<Item = Result<v1::PushResponse, Status>> + Send>>;
    type PullStream = Pin<Box<dyn Stream<Item = Result<v1::PullResponse, Status>> + Send>>;

    async fn push(&self, request: Request<Streaming<v1::PushRequest>>) -> Result<Response<Self::PushStream>, Status> {
        let mut inbound = request.into_inner();
        let line = Arc::new(Line::default());
        self.controllers.write().push(line.clone());
        let pipe = self.clone();
        tokio::spawn(async move {
            while let Ok(Some(frame)) = inbound.message().await {
                if !frame.activations.is_empty() {
                    pipe.invoker().extend(frame.activations.into_iter().map(dispatch));
                }
            }
        });
        Ok(Response::new(Box::pin(Frames {
            line,
            hands: VecDeque::new(),
            welcome: Some(v1::PushResponse { welcome: Some(welcome()), ..Default::default() }),
            bytes: |answer: &v1::Answer| answer.result.len() + 64,
            frame: |answers| v1::PushResponse { answers, ..Default::default() },
        })))
    }

    async fn pull(&self, request: Request<Streaming<v1::PullRequest>>) -> Result<Response<Self::PullStream>, Status> {
        let mut inbound = request.into_inner();
        let line = Arc::new(Line::default());
        self.invokers.write().push(line.clone());
        let pipe = self.clone();
        tokio::spawn(async move {
            while let Ok(Some(frame)) = inbound.message().await {
                pipe.answer(frame.completions);
            }
        });
        Ok(Response::new(Box::pin(Frames {
            line,
            hands: VecDeque::new(),
            welcome: Some(v1::PullResponse { welcome: Some(welcome()), ..Default::default() }),
            bytes: |dispatch: &v1::Dispatch| dispatch.payload.len() + 64,
            frame: |dispatches| v1::PullResponse { dispatches, ..Default::default() },
        })))
    }

    async fn invoke(&self, _: Request<v1::InvokeRequest>) -> Result<Response<v1::InvokeResponse>, Status> {
        Err(Status::unimplemented("the pipe has streams only"))
    }
}

impl Pipe {
    fn invoker(&self) -> Arc<Line<v1::Dispatch>> {
        let invokers = self.invokers.read();
        invokers[self.next.fetch_add(1, Ordering::Relaxed) % invokers.len()].clone()
    }

    fn answer(&self, completions: Vec<v1::Completion>) {
        let controllers = self.controllers.read();
        let mut completions = completions.into_iter().peekable();
        while let Some(first) = completions.next() {
            let controller = controller_of(&first);
            let alike = std::iter::from_fn(|| completions.next_if(|next| controller_of(next) == controller));
            if let Some(line) = controllers.get(controller) {
                line.extend(std::iter::once(first).chain(alike).map(answer));
            }
        }
    }
}

fn controller_of(completion: &v1::Completion) -> usize {
    let number = completion.id.get(0..4).and_then(|id| id.try_into().ok());
    number.map_or(usize::MAX, |id| u32::from_be_bytes(id) as usize)
}

fn dispatch(activation: v1::Activation) -> v1::Dispatch {
    let v1::Activation { id, action, time_left_ms, payload, .. } = activation;
    v1::Dispatch { container: action, id, time_left_ms, payload, attempt: 1, ..Default::default() }
}

fn answer(completion: v1::Completion) -> v1::Answer {
    let v1::Completion { id, result, run_us, .. } = completion;
    v1::Answer { id, outcome: v1::Outcome::Completed as i32, result, run_us, ..Default::default() }
}
