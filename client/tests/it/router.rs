//! A router that decides nothing: it hands the test every stream that is opened, and the test speaks for it.

use futures_util::StreamExt;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use proto::v1;
use proto::v1::router_server::{Router, RouterServer};
use std::future::ready;
use std::io;
use std::sync::Arc;
use tokio::io::DuplexStream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::{JoinHandle, JoinSet};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::transport::{Channel, Endpoint, Server, Uri};
use tonic::{Request, Response, Status, Streaming};

/// What a test holds of it.
pub(crate) struct Scripted {
    channel: Channel,
    pushes: UnboundedReceiver<PushPeer>,
    pulls: UnboundedReceiver<PullPeer>,
    server: JoinHandle<()>,
    relays: Arc<Mutex<JoinSet<()>>>,
}

pub(crate) type PushPeer = Peer<v1::PushRequest, v1::PushResponse>;
pub(crate) type PullPeer = Peer<v1::PullRequest, v1::PullResponse>;

impl Scripted {
    pub(crate) fn start() -> Self {
        let ((pushed, pushes), (pulled, pulls)) = (unbounded_channel(), unbounded_channel());
        let (connected, connections) = unbounded_channel();
        let incoming = UnboundedReceiverStream::new(connections).map(Ok::<_, io::Error>);
        let service = RouterServer::new(Doors { pushed, pulled }).max_decoding_message_size(16 << 20);
        // A small window, so that a test can fill it.
        let server = Server::builder().initial_stream_window_size(WINDOW_BYTES).add_service(service);
        let server = tokio::spawn(async move { server.serve_with_incoming(incoming).await.unwrap() });
        let relays = Arc::default();
        let wire = wire(connected, Arc::clone(&relays));
        let channel = Endpoint::from_static("http://scripted").connect_with_connector_lazy(wire);
        Self { channel, pushes, pulls, server, relays }
    }

    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// The next Push stream that is opened, welcomed; and its first frame.
    pub(crate) async fn push(&mut self) -> (PushPeer, v1::PushRequest) {
        self.push_with(welcome()).await
    }

    /// As [`push`](Self::push), welcomed with other words.
    pub(crate) async fn push_with(&mut self, welcome: v1::Welcome) -> (PushPeer, v1::PushRequest) {
        let mut peer = self.silent_push().await;
        peer.say(v1::PushResponse { welcome: Some(welcome), ..Default::default() });
        let first = peer.frame().await;
        (peer, first)
    }

    /// The next Pull stream that is opened, left without a word.
    pub(crate) async fn silent_pull(&mut self) -> PullPeer {
        self.pulls.recv().await.expect("a stream is opened")
    }

    /// As [`pull`](Self::pull), welcomed with other words.
    pub(crate) async fn pull_with(&mut self, welcome: v1::Welcome) -> (PullPeer, v1::PullRequest) {
        let mut peer = self.silent_pull().await;
        peer.say(v1::PullResponse { welcome: Some(welcome), ..Default::default() });
        let first = peer.frame().await;
        (peer, first)
    }

    /// The next Push stream that is opened, left without a word.
    pub(crate) async fn silent_push(&mut self) -> PushPeer {
        self.pushes.recv().await.expect("a stream is opened")
    }

    /// The next Pull stream that is opened, welcomed; and its first frame.
    pub(crate) async fn pull(&mut self) -> (PullPeer, v1::PullRequest) {
        self.pull_with(welcome()).await
    }

    /// Breaks every connection, as a router that dies does.
    pub(crate) fn die(&self) {
        self.server.abort();
        self.relays.lock().abort_all();
    }
}

/// Most bytes of a payload that the scripted router says it takes.
pub(crate) const PAYLOAD_BYTES_MAX: u32 = 1 << 20;
/// What a stream may have under way before the router reads.
pub(crate) const WINDOW_BYTES: u32 = 64 << 10;

fn welcome() -> v1::Welcome {
    v1::Welcome {
        router_id: "scripted".into(),
        payload_bytes_max: PAYLOAD_BYTES_MAX,
        frame_entries_max: 4096,
        frame_bytes_max: 16 << 20,
        ..Default::default()
    }
}

/// The welcome of a router that keeps what is owed for `grace_ms` after a stream breaks.
pub(crate) fn session(name: &'static str, resumed: bool, grace_ms: u32) -> v1::Welcome {
    v1::Welcome { session: name.into(), resumed, grace_ms, ..welcome() }
}

/// The router's end of one stream. Dropping it ends the stream in order.
pub(crate) struct Peer<I, O> {
    frames: Streaming<I>,
    says: UnboundedSender<Result<O, Status>>,
}

impl<I, O> Peer<I, O> {
    /// The next frame of a stream that goes on.
    pub(crate) async fn frame(&mut self) -> I {
        self.frames.message().await.expect("the stream lives").expect("the stream goes on")
    }

    /// Reads until the other side says it has no more to say.
    pub(crate) async fn finished(&mut self) {
        assert!(self.frames.message().await.expect("the stream lives").is_none(), "there was another frame");
    }

    /// Waits until the other side is gone.
    pub(crate) async fn gone(&mut self) {
        while let Ok(Some(_)) = self.frames.message().await {}
    }

    /// Waits until the other side reads no more.
    pub(crate) async fn hung_up(&mut self) {
        self.says.closed().await;
    }

    pub(crate) fn say(&self, frame: O) {
        // The client may have gone, which is the test's to judge.
        let _ = self.says.send(Ok(frame));
    }

    /// As if the connection had broken.
    pub(crate) fn cut(self) {
        self.end(Status::unavailable("cut"));
    }

    pub(crate) fn end(self, status: Status) {
        let _ = self.says.send(Err(status));
    }
}

struct Doors {
    pushed: UnboundedSender<PushPeer>,
    pulled: UnboundedSender<PullPeer>,
}

type Says<O> = UnboundedReceiverStream<Result<O, Status>>;

fn open<I, O>(frames: Streaming<I>, opened: &UnboundedSender<Peer<I, O>>) -> Result<Response<Says<O>>, Status> {
    let (says, said) = unbounded_channel();
    let given = opened.send(Peer { frames, says });
    given.map_err(|_| Status::unavailable("the test is over"))?;
    Ok(Response::new(UnboundedReceiverStream::new(said)))
}

#[tonic::async_trait]
impl Router for Doors {
    type PushStream = Says<v1::PushResponse>;
    type PullStream = Says<v1::PullResponse>;

    async fn push(&self, request: Request<Streaming<v1::PushRequest>>) -> Result<Response<Self::PushStream>, Status> {
        open(request.into_inner(), &self.pushed)
    }

    async fn pull(&self, request: Request<Streaming<v1::PullRequest>>) -> Result<Response<Self::PullStream>, Status> {
        open(request.into_inner(), &self.pulled)
    }

    async fn invoke(&self, _: Request<v1::InvokeRequest>) -> Result<Response<v1::InvokeResponse>, Status> {
        Err(Status::unimplemented("the client has no use for it"))
    }
}

/// Connects by way of a relay to a pipe whose other end the server gets; fails once the server is gone.
fn wire(
    connected: UnboundedSender<DuplexStream>,
    relays: Arc<Mutex<JoinSet<()>>>,
) -> impl tower::Service<Uri, Response = TokioIo<DuplexStream>, Error = io::Error, Future: Send> + Send + 'static {
    tower::service_fn(move |_| {
        let ((client, mut near), (mut far, server)) = (tokio::io::duplex(1 << 16), tokio::io::duplex(1 << 16));
        let gone = connected.send(server).map_err(|_| io::Error::from(io::ErrorKind::ConnectionRefused));
        relays.lock().spawn(async move { drop(tokio::io::copy_bidirectional(&mut near, &mut far).await) });
        ready(gone.map(|()| TokioIo::new(client)))
    })
}
