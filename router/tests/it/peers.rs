//! Controllers and invokers, frame by frame: they send what they are told to, right or wrong.

use crate::router::Router;
use bytes::Bytes;
use proto::v1;
use proto::v1::router_client::RouterClient;
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, Streaming};

/// Far above what anything here takes.
const PATIENCE: Duration = Duration::from_secs(10);

/// Waits for something, by name.
pub(crate) async fn within<T>(awaited: &str, future: impl Future<Output = T>) -> T {
    let patient = tokio::time::timeout(PATIENCE, future).await;
    patient.unwrap_or_else(|_| panic!("waited {PATIENCE:?} in vain for {awaited}"))
}

/// A connection of its own.
pub(crate) async fn connect(router: &Router) -> Channel {
    within("a connection", endpoint(router).connect()).await.unwrap()
}

/// A connection whose streams take in little ahead of their reader.
pub(crate) async fn connect_narrow(router: &Router) -> Channel {
    within("a connection", endpoint(router).initial_stream_window_size(65_535).connect()).await.unwrap()
}

fn endpoint(router: &Router) -> Endpoint {
    Endpoint::from_shared(format!("http://{}", router.address)).unwrap()
}

/// One end of an open stream.
pub(crate) struct Peer<Q, F> {
    up: Option<UnboundedSender<Q>>,
    down: Streaming<F>,
    /// What came and was not asked for yet.
    heard: F,
}

/// A controller's end of a Push stream.
pub(crate) type Controller = Peer<v1::PushRequest, v1::PushResponse>;
/// An invoker's end of a Pull stream.
pub(crate) type Invoker = Peer<v1::PullRequest, v1::PullResponse>;

/// A frame that can be put behind another.
pub(crate) trait Frame: Default {
    fn append(&mut self, next: Self);
}

impl Frame for v1::PushResponse {
    fn append(&mut self, next: Self) {
        self.welcome = self.welcome.take().or(next.welcome);
        self.answers.extend(next.answers);
        self.refusals.extend(next.refusals);
        self.draining |= next.draining;
    }
}

impl Frame for v1::PullResponse {
    fn append(&mut self, next: Self) {
        self.welcome = self.welcome.take().or(next.welcome);
        self.dispatches.extend(next.dispatches);
        self.refusals.extend(next.refusals);
        self.drains.extend(next.drains);
    }
}

impl<Q, F: Frame> Peer<Q, F> {
    /// Sends a frame.
    pub(crate) fn send(&self, frame: Q) {
        let sent = self.up.as_ref().expect("not finished").send(frame);
        assert!(sent.is_ok(), "the router has ended the stream");
    }

    /// Sends no more.
    pub(crate) fn finish(&mut self) {
        self.up = None;
    }

    /// What came first of a kind and was not asked for yet.
    async fn next<T>(&mut self, awaited: &str, list: fn(&mut F) -> &mut Vec<T>) -> T {
        while list(&mut self.heard).is_empty() {
            match within(awaited, self.down.message()).await {
                Ok(Some(frame)) => self.heard.append(frame),
                end => panic!("instead of {awaited} came the end of the stream: {:?}", end.map(|_| ())),
            }
        }
        list(&mut self.heard).remove(0)
    }

    /// Waits until the router has ended the stream, and how.
    pub(crate) async fn end(&mut self) -> Result<(), Status> {
        while let Some(frame) = within("the end of the stream", self.down.message()).await? {
            self.heard.append(frame);
        }
        Ok(())
    }
}

impl Controller {
    /// Connects and opens a stream.
    pub(crate) async fn open(router: &Router, controller_id: &'static str) -> Self {
        Self::open_with(connect(router).await, push_hello(controller_id)).await.unwrap()
    }

    /// Opens a stream with that first frame.
    pub(crate) async fn open_with(channel: Channel, first: v1::PushRequest) -> Result<Self, Status> {
        let (up, frames) = unbounded_channel();
        up.send(first).unwrap();
        let call = async { RouterClient::new(channel).push(UnboundedReceiverStream::new(frames)).await };
        let down = within("the opening of a Push stream", call).await?.into_inner();
        Ok(Self { up: Some(up), down, heard: v1::PushResponse::default() })
    }

    /// Declares the action of that name, in its first revision.
    pub(crate) fn declare(&self, number: u32, action: &'static str) {
        self.declare_key(number, key(action));
    }

    /// Declares an action.
    pub(crate) fn declare_key(&self, number: u32, key: v1::ActionKey) {
        let declares = vec![v1::DeclareAction { number, key: Some(key) }];
        self.send(v1::PushRequest { declares, ..Default::default() });
    }

    /// Pushes activations in one frame.
    pub(crate) fn push(&self, activations: impl IntoIterator<Item = v1::Activation>) {
        self.send(v1::PushRequest { activations: activations.into_iter().collect(), ..Default::default() });
    }

    /// The next answer.
    pub(crate) async fn answer(&mut self) -> v1::Answer {
        self.next("an answer", |heard| &mut heard.answers).await
    }

    /// The next refusal.
    pub(crate) async fn refusal(&mut self) -> v1::Refusal {
        self.next("a refusal", |heard| &mut heard.refusals).await
    }

    /// Waits until the router says that it drains.
    pub(crate) async fn draining(&mut self) {
        while !self.heard.draining {
            let frame = within("word of the drain", self.down.message()).await.unwrap();
            self.heard.append(frame.expect("word of the drain"));
        }
    }

    /// What the router said first.
    pub(crate) async fn welcome(&mut self) -> v1::Welcome {
        if self.heard.welcome.is_none() {
            let first = within("the welcome", self.down.message()).await.unwrap().unwrap();
            self.heard.append(first);
        }
        self.heard.welcome.clone().expect("the first frame welcomes")
    }
}

impl Invoker {
    /// What the router said first.
    pub(crate) async fn welcome(&mut self) -> v1::Welcome {
        if self.heard.welcome.is_none() {
            let first = within("the welcome", self.down.message()).await.unwrap().unwrap();
            self.heard.append(first);
        }
        self.heard.welcome.clone().expect("the first frame welcomes")
    }

    /// Connects and opens a stream.
    pub(crate) async fn open(router: &Router, invoker_id: &'static str) -> Self {
        Self::open_with(connect(router).await, pull_hello(invoker_id)).await.unwrap()
    }

    /// Opens a stream with that first frame.
    pub(crate) async fn open_with(channel: Channel, first: v1::PullRequest) -> Result<Self, Status> {
        let (up, frames) = unbounded_channel();
        up.send(first).unwrap();
        let call = async { RouterClient::new(channel).pull(UnboundedReceiverStream::new(frames)).await };
        let down = within("the opening of a Pull stream", call).await?.into_inner();
        Ok(Self { up: Some(up), down, heard: v1::PullResponse::default() })
    }

    /// Registers a container with as many credits as it has concurrency.
    pub(crate) fn register(&self, container: u32, action: &'static str, concurrency: u32) {
        self.send(v1::PullRequest {
            registers: vec![container_of(container, action, concurrency)],
            ..Default::default()
        });
    }

    /// Grants credits.
    pub(crate) fn credit(&self, container: u32, credits: u32) {
        self.send(v1::PullRequest {
            credits: vec![v1::Credit { container, credits, ..Default::default() }],
            ..Default::default()
        });
    }

    /// Completes.
    pub(crate) fn complete(&self, completion: v1::Completion) {
        self.send(v1::PullRequest { completions: vec![completion], ..Default::default() });
    }

    /// Hands back unstarted.
    pub(crate) fn give_back(&self, dispatch: v1::Dispatch) {
        let v1::Dispatch { container, id, payload, .. } = dispatch;
        self.send(v1::PullRequest {
            returns: vec![v1::Return { container, id, payload, ..Default::default() }],
            ..Default::default()
        });
    }

    /// Takes a container away.
    pub(crate) fn leave(&self, container: u32, gone: bool) {
        self.send(v1::PullRequest {
            leaves: vec![v1::Leave { container, gone, ..Default::default() }],
            ..Default::default()
        });
    }

    /// The next piece of work.
    pub(crate) async fn dispatch(&mut self) -> v1::Dispatch {
        self.next("a dispatch", |heard| &mut heard.dispatches).await
    }

    /// The next piece of work; none once the stream has ended, however that was.
    pub(crate) async fn dispatch_or_end(&mut self) -> Option<v1::Dispatch> {
        while self.heard.dispatches.is_empty() {
            let frame = within("a dispatch or the end", self.down.message()).await.ok()??;
            self.heard.append(frame);
        }
        Some(self.heard.dispatches.remove(0))
    }

    /// The next refusal.
    pub(crate) async fn refusal(&mut self) -> v1::Refusal {
        self.next("a refusal", |heard| &mut heard.refusals).await
    }

    /// The next container that may go.
    pub(crate) async fn drain(&mut self) -> u32 {
        self.next("a drain", |heard| &mut heard.drains).await.container
    }

    /// Runs whatever comes, as if it took no time, until the stream ends: the result is the payload.
    pub(crate) async fn run_all(mut self) {
        while let Ok(Some(frame)) = self.down.message().await {
            let completions = frame.dispatches.iter().map(completion).collect();
            let Some(up) = &self.up else { return };
            if up.send(v1::PullRequest { completions, ..Default::default() }).is_err() {
                return;
            }
        }
    }
}

/// The first frame of a controller.
pub(crate) fn push_hello(controller_id: impl Into<Bytes>) -> v1::PushRequest {
    let hello = Some(v1::ControllerHello { controller_id: controller_id.into(), ..Default::default() });
    v1::PushRequest { hello, ..Default::default() }
}

/// The first frame of an invoker.
pub(crate) fn pull_hello(invoker_id: impl Into<Bytes>) -> v1::PullRequest {
    let hello = Some(v1::InvokerHello { invoker_id: invoker_id.into(), ..Default::default() });
    v1::PullRequest { hello, ..Default::default() }
}

/// The action of that name, in its first revision.
pub(crate) fn key(action: &'static str) -> v1::ActionKey {
    revision_of(action, "1")
}

/// The action of that name in that revision.
pub(crate) fn revision_of(action: &'static str, revision: &'static str) -> v1::ActionKey {
    v1::ActionKey { namespace: "it".into(), action: action.into(), revision: revision.into() }
}

/// A container with as many credits as it has concurrency.
pub(crate) fn container_of(container: u32, action: &'static str, concurrency: u32) -> v1::Register {
    v1::Register {
        container,
        key: Some(key(action)),
        concurrency,
        credits: concurrency,
        warm: false,
        ..Default::default()
    }
}

/// The id with that number.
pub(crate) fn id(number: u64) -> Bytes {
    Bytes::copy_from_slice(&u128::from(number).to_be_bytes())
}

/// An activation with a minute left; its payload is its id.
pub(crate) fn activation(number: u64, action: u32) -> v1::Activation {
    v1::Activation {
        id: id(number),
        action,
        time_left_ms: 60_000,
        payload: id(number),
        reply: v1::Reply::Outcome as i32,
        ..Default::default()
    }
}

/// An activation with a payload of that many bytes.
pub(crate) fn heavy(number: u64, action: u32, bytes: usize) -> v1::Activation {
    v1::Activation { payload: vec![0; bytes].into(), ..activation(number, action) }
}

/// Success, with the payload for a result and its credit granted again.
pub(crate) fn completion(of: &v1::Dispatch) -> v1::Completion {
    let v1::Dispatch { container, id, payload, epoch, .. } = of.clone();
    v1::Completion {
        container,
        epoch,
        id,
        status: v1::RunStatus::Succeeded as i32,
        result: payload,
        run_us: 7,
        credits: 1,
    }
}

/// Reason, field and limit of a rejected activation.
pub(crate) fn rejection(answer: &v1::Answer) -> (v1::Reason, String, u64) {
    assert_eq!(answer.outcome(), v1::Outcome::Rejected, "{answer:?}");
    let rejection = answer.rejection.as_ref().expect("a rejected one says why");
    (rejection.reason(), text(&rejection.field), rejection.limit)
}

/// Reason, field and limit of a refusal.
pub(crate) fn refused(refusal: &v1::Refusal) -> (v1::Reason, String, u64) {
    (refusal.reason(), text(&refusal.field), refusal.limit)
}

fn text(field: &Bytes) -> String {
    String::from_utf8(field.to_vec()).unwrap()
}
