//! Accepting connections and handing them to the workers.
//!
//! One loop accepts, sets the sockets up and deals them out in turn; each worker makes [`Connection`]s of what it is
//! dealt and serves them. What the server library leaves open is closed here: a cap on connections, errors of `accept`,
//! and clients that connect and say nothing. This file may not know what is spoken on a connection beyond the length of
//! its opening, and adds nothing to a byte's way but a branch and a count.

use crate::lookout;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{Receiver, Sender};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::{Connected, TcpConnectInfo};

/// A listening socket on `address`; port 0 is any free one.
///
/// # Errors
/// Those of the operating system, with the address in front: in use, not available, not permitted.
///
/// # Panics
/// Outside of a Tokio runtime.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let listen = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // A restart must not wait for the old process's connections to time out.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    listen().map_err(|error| io::Error::new(error.kind(), format!("{address}: {error}")))
}

/// Accepts from `listener` and deals the connections to `workers` in turn, each with a permit of `connections`.
///
/// A connection is closed at once if there is no permit for it: a client learns more from that than from silence. A worker's
/// channel has room for every permit, so no herd is turned away below that. Errors of one connection are passed over;
/// others (no more file descriptors) pause the loop for 100 ms. Returns when every worker has dropped its receiver, once the
/// next connection shows that.
///
/// Cancel safe: drop it to accept no more; it holds no connection across an await.
pub async fn accept_loop(
    listener: TcpListener,
    workers: Vec<Sender<Accepted>>,
    connections: Arc<Semaphore>,
    counts: Arc<Counts>,
) {
    let (mut turn, mut complaints) = (0, Complaints::default());
    while workers.iter().any(|worker| !worker.is_closed()) {
        let accepted = accept(&listener, &connections, &counts, &mut complaints).await;
        // Each connection is counted once.
        match deal(accepted, &workers, turn) {
            Ok(()) => Counts::add(&counts.accepted),
            Err(_closed) => Counts::add(&counts.refused),
        }
        turn = (turn + 1) % workers.len();
    }
}

/// What a worker serves: the connections it is dealt, until its sender is dropped.
///
/// An item is an error if the socket could not be registered with this worker's runtime; the stream goes on behind it.
/// Dropping the stream closes what is still in the channel.
pub fn incoming(receiver: Receiver<Accepted>) -> impl Stream<Item = io::Result<Connection>> {
    ReceiverStream::new(receiver).map(|accepted| Connection::opening(accepted, PREFACE_BYTES, PREFACE_TIMEOUT))
}

/// What became of connections since the process began.
#[derive(Debug, Default)]
pub struct Counts {
    accepted: AtomicU64,
    refused: AtomicU64,
    failed: AtomicU64,
}

impl Counts {
    /// Connections that were taken.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Connections closed at once: no permit, or no worker that lives.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Calls of `accept` that failed, or gave a socket that could not be set up.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// Relaxed: a count orders nothing.
    fn add(count: &AtomicU64) {
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// A connection between two runtimes: its socket, set up and non-blocking, and its permit.
#[derive(Debug)]
pub struct Accepted {
    socket: std::net::TcpStream,
    permit: OwnedSemaphorePermit,
}

/// An accepted connection on its worker's runtime.
///
/// Until the client has sent its opening (24 bytes, the HTTP/2 preface) reads and writes fail with `TimedOut` 5 s after
/// the connection was dealt; from then on keep-alive watches over it. The permit returns when this is dropped.
#[derive(Debug)]
pub struct Connection {
    socket: TcpStream,
    opening: Option<Opening>,
    /// Set once it is shut down: until then what its client still sends is read and dropped.
    lingering: Option<Pin<Box<Sleep>>>,
    _permit: OwnedSemaphorePermit,
}

impl Connection {
    /// The connection on this runtime; the client must send that many bytes in that time.
    ///
    /// # Errors
    /// If the socket cannot be registered with this runtime.
    pub(crate) fn opening(accepted: Accepted, bytes: usize, within: Duration) -> io::Result<Self> {
        let socket = TcpStream::from_std(accepted.socket)?;
        let opening = Some(Opening { bytes_left: bytes, deadline: Box::pin(sleep(within)) });
        Ok(Self { socket, opening, lingering: None, _permit: accepted.permit })
    }

    /// The client's address.
    ///
    /// # Errors
    /// If the client is gone already.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.socket.peer_addr()
    }

    /// Fails if the opening is overdue; else its timer wakes the task again.
    fn poll_overdue<T>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        let Some(opening) = &mut self.opening else { return Poll::Pending };
        ready!(opening.deadline.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client did not open the connection in time")))
    }
}

/// What is still to come before a connection counts as opened. Boxed away, so that an opened one is small.
#[derive(Debug)]
struct Opening {
    bytes_left: usize,
    deadline: Pin<Box<Sleep>>,
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.socket).poll_read(cx, buf);
        if read.is_ready() {
            lookout::note();
        }
        let Some(opening) = &mut self.opening else { return read };
        opening.bytes_left = opening.bytes_left.saturating_sub(buf.filled().len() - before);
        if opening.bytes_left == 0 {
            self.opening = None;
        }
        if read.is_pending() { self.poll_overdue(cx) } else { read }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write(cx, buf);
        if written.is_pending() { self.poll_overdue(cx) } else { written }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write_vectored(cx, bufs);
        if written.is_ready() {
            lookout::note();
        }
        if written.is_pending() { self.poll_overdue(cx) } else { written }
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    /// Ends the writing half, and waits a moment for the client to end its own. A socket that is closed with something unread in it
    /// resets the connection, and the client's system drops what the client has not read: the last words of a router that drains.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.lingering.is_none() {
            ready!(Pin::new(&mut self.socket).poll_shutdown(cx))?;
        }
        let Self { socket, lingering, .. } = &mut *self;
        let until = lingering.get_or_insert_with(|| Box::pin(sleep(LINGER)));
        let mut bytes = [0; LINGER_BYTES];
        loop {
            let mut read = ReadBuf::new(&mut bytes);
            match Pin::new(&mut *socket).poll_read(cx, &mut read) {
                Poll::Ready(Ok(())) if !read.filled().is_empty() => {}
                // It ended, or broke.
                Poll::Ready(_) => return Poll::Ready(Ok(())),
                Poll::Pending => return until.as_mut().poll(cx).map(Ok),
            }
        }
    }
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.socket.connect_info()
    }
}

/// The next connection there is a permit for. Cancel safe: it holds none across an await.
pub(crate) async fn accept(
    source: &impl Source,
    connections: &Arc<Semaphore>,
    counts: &Counts,
    complaints: &mut Complaints,
) -> Accepted {
    loop {
        let socket = match source.accept().await.and_then(set_up) {
            Ok(socket) => socket,
            Err(error) => {
                Counts::add(&counts.failed);
                if !is_of_one_connection(&error) {
                    complaints.complain("the data port", &error);
                    sleep(ACCEPT_PAUSE).await;
                }
                continue;
            }
        };
        if let Ok(permit) = connections.clone().try_acquire_owned() {
            return Accepted { socket, permit };
        }
        Counts::add(&counts.refused);
    }
}

/// What a port logs when it cannot accept: the first time, when the reason changes, and else once a second with how often.
#[derive(Debug, Default)]
pub(crate) struct Complaints {
    last: Option<(Instant, io::ErrorKind)>,
    /// Since that.
    unsaid: u64,
}

impl Complaints {
    /// Notes an error of a port, and logs it if it is time to.
    pub(crate) fn complain(&mut self, port: &str, error: &io::Error) {
        if let Some(times) = self.note(Instant::now(), error.kind()) {
            tracing::warn!(%error, times, "{port} cannot accept connections");
        }
    }

    /// How many there were since one was said, this one among them, if this one is to be said.
    fn note(&mut self, now: Instant, kind: io::ErrorKind) -> Option<u64> {
        self.unsaid += 1;
        if self.last.is_some_and(|(at, of)| of == kind && now.duration_since(at) < COMPLAINTS_INTERVAL) {
            return None;
        }
        self.last = Some((now, kind));
        Some(std::mem::take(&mut self.unsaid))
    }
}

const COMPLAINTS_INTERVAL: Duration = Duration::from_secs(1);

/// Where sockets come from: a listener, or a test's fake.
pub(crate) trait Source: Sync {
    /// The next socket. Cancel safe.
    fn accept(&self) -> impl Future<Output = io::Result<TcpStream>> + Send;
}

impl Source for TcpListener {
    async fn accept(&self) -> io::Result<TcpStream> {
        Self::accept(self).await.map(|(socket, _)| socket)
    }
}

/// Sets the socket's options, and takes it off this runtime.
pub(crate) fn set_up(socket: TcpStream) -> io::Result<std::net::TcpStream> {
    socket.set_nodelay(true)?;
    let options = SockRef::from(&socket);
    options.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL))?;
    #[cfg(target_os = "linux")]
    options.set_tcp_user_timeout(Some(UNACKNOWLEDGED_MAX))?;
    socket.into_std()
}

/// An error of one connection costs nothing. Any other would come again at once: file descriptors are free only once a
/// connection ends.
pub(crate) fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// Gives the connection to the first worker from `turn` on that lives and has room, or back if none has.
fn deal(accepted: Accepted, workers: &[Sender<Accepted>], turn: usize) -> Result<(), Accepted> {
    let (behind, ahead) = workers.split_at(turn);
    ahead
        .iter()
        .chain(behind)
        .try_fold(accepted, |accepted, worker| match worker.try_send(accepted) {
            Ok(()) => Err(()),
            Err(TrySendError::Full(back) | TrySendError::Closed(back)) => Ok(back),
        })
        .map_or(Ok(()), Err)
}

/// The HTTP/2 client preface, `PRI * HTTP/2.0…`.
const PREFACE_BYTES: usize = 24;
/// Ample for a slow network; a socket that says nothing is worth no more.
const PREFACE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a client may take to end a connection that is shut down, and how much of what it sends is dropped at a time.
const LINGER: Duration = Duration::from_millis(300);
const LINGER_BYTES: usize = 4096;
/// Connections the kernel holds while the loop is busy or paused: as many as are open at a time by default, if the kernel's own bound
/// (`net.core.somaxconn`) allows.
const BACKLOG: u32 = 4_096;
/// Long enough to let connections end, short enough not to be noticed.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Quiet time before the kernel asks whether the peer is still there, and between questions. HTTP/2's own pings are as
/// frequent; these see to connections whose pings are not answered because nothing reads them.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// How long sent bytes may stay unacknowledged before the kernel gives the connection up; by itself it takes 15
/// minutes.
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(15);

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::mpsc;
    use tonic::transport::{Endpoint, Server};
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_client::HealthClient;

    use super::*;

    const PREFACE: &[u8; PREFACE_BYTES] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

    /// A loop with workers whose channels hold `room` connections each, and a cap of `cap`.
    struct Door {
        address: SocketAddr,
        connections: Arc<Semaphore>,
        counts: Arc<Counts>,
        workers: Vec<Receiver<Accepted>>,
    }

    fn door(workers: usize, room: usize, cap: usize) -> Door {
        let listener = bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let address = listener.local_addr().unwrap();
        let (senders, workers) = (0..workers).map(|_| mpsc::channel(room)).unzip();
        let (connections, counts) = (Arc::new(Semaphore::new(cap)), Arc::new(Counts::default()));
        tokio::spawn(accept_loop(listener, senders, connections.clone(), counts.clone()));
        Door { address, connections, counts, workers }
    }

    impl Door {
        async fn connect(&self) -> TcpStream {
            TcpStream::connect(self.address).await.unwrap()
        }

        /// A client and the connection that worker 0 makes of it.
        async fn pair(&mut self) -> (TcpStream, Connection) {
            let client = self.connect().await;
            let accepted = self.workers[0].recv().await.unwrap();
            (client, Connection::opening(accepted, PREFACE_BYTES, PREFACE_TIMEOUT).unwrap())
        }
    }

    /// Whether the other side has closed; waits until it says or does something.
    async fn is_closed(client: &mut TcpStream) -> bool {
        matches!(client.read(&mut [0]).await, Ok(0) | Err(_))
    }

    #[tokio::test]
    async fn an_address_in_use_is_named() {
        let first = bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let address = first.local_addr().unwrap();
        let error = bind(address).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert!(error.to_string().starts_with(&address.to_string()), "{error}");
    }

    #[tokio::test]
    async fn connections_are_dealt_in_turn() {
        let mut door = door(3, 2, 6);
        let mut clients = Vec::new();
        for turn in 0..6 {
            clients.push(door.connect().await);
            let accepted = door.workers[turn % 3].recv().await.unwrap();
            assert_eq!(accepted.socket.peer_addr().unwrap(), clients[turn].local_addr().unwrap());
        }
        assert_eq!((door.counts.accepted(), door.counts.refused(), door.counts.failed()), (6, 0, 0));
    }

    #[tokio::test]
    async fn a_worker_without_room_is_passed_over_and_each_connection_is_counted_once() {
        let mut door = door(2, 1, 9);
        door.workers[0].close();
        let _kept = door.connect().await;
        let mut refused = door.connect().await;
        assert!(is_closed(&mut refused).await);
        assert!(door.workers[1].recv().await.is_some());
        assert_eq!((door.counts.accepted(), door.counts.refused()), (1, 1));
    }

    #[tokio::test]
    async fn the_loop_ends_with_its_workers() {
        let listener = bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let (sender, receiver) = mpsc::channel(1);
        drop(receiver);
        accept_loop(listener, vec![sender], Arc::new(Semaphore::new(1)), Arc::default()).await;
    }

    #[tokio::test]
    async fn the_cap_holds_until_a_connection_is_dropped() {
        let mut door = door(1, 4, 1);
        let (_first, connection) = door.pair().await;
        let mut second = door.connect().await;
        assert!(is_closed(&mut second).await);
        assert_eq!((door.connections.available_permits(), door.counts.refused()), (0, 1));
        drop(connection);
        assert_eq!(door.connections.available_permits(), 1);
        door.pair().await;
    }

    #[tokio::test]
    async fn sockets_are_set_up() {
        let (_client, connection) = door(1, 1, 1).pair().await;
        let socket = SockRef::from(&connection.socket);
        assert!(socket.tcp_nodelay().unwrap() && socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), KEEPALIVE_IDLE);
        #[cfg(target_os = "linux")]
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(UNACKNOWLEDGED_MAX));
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_client_times_out() {
        let (_client, mut connection) = door(1, 1, 1).pair().await;
        let start = Instant::now();
        let error = connection.read_u8().await.unwrap_err();
        assert_eq!((error.kind(), start.elapsed().as_secs()), (io::ErrorKind::TimedOut, 5));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_stops_within_its_opening_times_out() {
        let (mut client, mut connection) = door(1, 1, 1).pair().await;
        client.write_all(&PREFACE[1..]).await.unwrap();
        connection.read_exact(&mut [0; PREFACE_BYTES - 1]).await.unwrap();
        assert_eq!(connection.read_u8().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_reads_nothing_times_out_too() {
        let (_client, mut connection) = door(1, 1, 1).pair().await;
        let error = connection.write_all(&vec![0; 64 << 20]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn an_opened_connection_may_be_silent() {
        let (mut client, mut connection) = door(1, 1, 1).pair().await;
        client.write_all(PREFACE).await.unwrap();
        connection.read_exact(&mut [0; PREFACE_BYTES]).await.unwrap();
        let hour = tokio::time::timeout(Duration::from_secs(3_600), connection.read_u8()).await;
        assert!(hour.is_err(), "an hour passed without an end");
        connection.write_all(b"still here").await.unwrap();
        drop(connection);
        let mut heard = String::new();
        client.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "still here");
    }

    /// Fails as often as told, then gives sockets.
    struct Failing {
        error: fn() -> io::Error,
        times: AtomicU64,
        listener: TcpListener,
    }

    impl Source for Failing {
        async fn accept(&self) -> io::Result<TcpStream> {
            let left = self.times.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |times| times.checked_sub(1));
            if left.is_ok() { Err((self.error)()) } else { Source::accept(&self.listener).await }
        }
    }

    /// Virtual time that a hundred of these errors cost.
    async fn cost_of_a_hundred(error: fn() -> io::Error) -> Duration {
        let listener = bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let source = Failing { error, times: AtomicU64::new(100), listener };
        let (start, counts) = (Instant::now(), Counts::default());
        let mut complaints = Complaints::default();
        accept(&source, &Arc::new(Semaphore::new(1)), &counts, &mut complaints).await;
        assert_eq!(counts.failed(), 100);
        start.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn the_loop_pauses_without_file_descriptors_and_not_for_a_reset() {
        const EMFILE: i32 = 24;
        let cost = cost_of_a_hundred(|| io::Error::from_raw_os_error(EMFILE)).await;
        assert!(cost >= ACCEPT_PAUSE * 100, "{cost:?}");
        assert_eq!(cost_of_a_hundred(|| io::ErrorKind::ConnectionReset.into()).await, Duration::ZERO);
    }

    #[test]
    fn a_port_complains_at_first_at_a_change_and_once_a_second() {
        let (mut complaints, start) = (Complaints::default(), Instant::now());
        let mut note = |ms, kind| complaints.note(start + Duration::from_millis(ms), kind);
        assert_eq!(note(0, io::ErrorKind::Other), Some(1));
        assert_eq!((note(100, io::ErrorKind::Other), note(900, io::ErrorKind::Other)), (None, None));
        assert_eq!(note(1_000, io::ErrorKind::Other), Some(3));
        assert_eq!((note(1_100, io::ErrorKind::Other), note(1_200, io::ErrorKind::OutOfMemory)), (None, Some(2)));
    }

    /// Serves health on the first worker of a new door; gives the door's address and cap.
    fn serve_health() -> (SocketAddr, Arc<Semaphore>) {
        let mut door = door(1, 4, 4);
        let (_, health) = tonic_health::server::health_reporter();
        let incoming = incoming(door.workers.remove(0));
        tokio::spawn(Server::builder().serve_with_incoming(health, incoming));
        (door.address, door.connections)
    }

    #[tokio::test]
    async fn grpc_is_served_on_what_comes_in() {
        let (address, _) = serve_health();
        let channel = Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
        let answer = HealthClient::new(channel).check(HealthCheckRequest::default()).await.unwrap();
        assert_eq!(answer.into_inner().status, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn the_grpc_server_drops_a_silent_client() {
        let (address, connections) = serve_health();
        let mut client = TcpStream::connect(address).await.unwrap();
        // The server greets first; then, hearing nothing, it hangs up and the permit is free again.
        let start = Instant::now();
        client.read_to_end(&mut Vec::new()).await.ok();
        assert_eq!(start.elapsed().as_secs(), 5);
        let _all = connections.acquire_many(4).await.unwrap();
    }
}
