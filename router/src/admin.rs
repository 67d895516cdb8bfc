//! The operator's port: is it alive, is it ready, what does it measure; and the word to drain.
//!
//! Apart from the data port, so that a full router can still be asked why. This file may not touch the
//! engine: readiness and metrics are handed in, the word to drain is handed out. Each connection serves one request and lives 10 s at most, so nobody
//! can keep the operator out by sitting on them.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{CONNECTION, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore, watch};

use crate::listener::{self, Connection, Counts};

/// Whether controllers and invokers should come here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// They should.
    Ready,
    /// They should not, and why in one line: `starting`, `draining`.
    NotReady(String),
}

/// What the port shows. Clones show the same.
#[derive(Clone)]
pub struct Admin {
    /// Whether `/ready` says so; a dropped sender leaves its last word.
    pub readiness: watch::Receiver<Readiness>,
    /// The metrics in Prometheus's text format. Called once per request, on the admin port's thread; must not block.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
    /// The breakers that are not closed, as JSON. Called as `metrics` is.
    pub breakers: Arc<dyn Fn() -> String + Send + Sync>,
    /// Told when an operator wants the router to drain and end.
    pub drain: Arc<Notify>,
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin").field("readiness", &self.readiness).finish_non_exhaustive()
    }
}

/// Serves the port until `stop` is done and the requests in hand are answered, at most 10 s later.
///
/// # Errors
/// If `listener` has no address any more. Errors of connections are passed over.
///
/// Cancel safe: dropping it accepts no more; requests in hand are still answered.
pub async fn serve(
    listener: TcpListener,
    admin: Admin,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let door = Door { listener, connections: Arc::new(Semaphore::new(CONNECTIONS_MAX)), counts: Counts::default() };
    axum::serve(door, routes(admin)).with_graceful_shutdown(stop).await
}

/// The port's pages: `/`, `/live`, `/ready`, `/metrics`, `/breakers`. All answer GET and HEAD, and end the connection. A POST to `/drain` does
/// what SIGTERM does.
pub fn routes(admin: Admin) -> Router {
    Router::new()
        .route("/", get(|| async { "activation router: /live /ready /metrics /breakers, POST /drain\n" }))
        .route("/live", get(|| async { "live\n" }))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .route("/breakers", get(breakers))
        .route("/drain", post(drain))
        .with_state(admin)
        .layer(axum::middleware::map_response(last))
}

async fn ready(State(admin): State<Admin>) -> Response {
    match &*admin.readiness.borrow() {
        Readiness::Ready => "ready\n".into_response(),
        Readiness::NotReady(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    }
}

async fn metrics(State(admin): State<Admin>) -> impl IntoResponse {
    ([(CONTENT_TYPE, "text/plain; version=0.0.4")], (admin.metrics)())
}

async fn breakers(State(admin): State<Admin>) -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json")], (admin.breakers)())
}

/// Answers at once; `/ready` and the end of the process tell how far it is.
async fn drain(State(admin): State<Admin>) -> impl IntoResponse {
    admin.drain.notify_one();
    (StatusCode::ACCEPTED, "draining\n")
}

/// Marks the answer as its connection's last.
async fn last(mut response: Response) -> Response {
    response.headers_mut().insert(CONNECTION, axum::http::HeaderValue::from_static("close"));
    response
}

/// The listener with a cap, and a time in which each connection must be over.
struct Door {
    listener: TcpListener,
    connections: Arc<Semaphore>,
    counts: Counts,
}

impl axum::serve::Listener for Door {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        loop {
            let accepted = listener::accept(&self.listener, &self.connections, &self.counts).await;
            // An opening without end: the time for it is the time for the whole connection.
            if let Ok(connection) = Connection::opening(accepted, usize::MAX, LIFETIME)
                && let Ok(peer) = connection.peer_addr()
            {
                return (connection, peer);
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// Scrapers and probes need two or three.
const CONNECTIONS_MAX: usize = 64;
/// Ample for one request on a loopback address.
const LIFETIME: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::sync::oneshot;
    use tokio::task::JoinHandle;
    use tokio::time::Instant;

    use super::*;

    /// A port being served.
    struct Served {
        address: SocketAddr,
        readiness: watch::Sender<Readiness>,
        drain: Arc<Notify>,
        stop: oneshot::Sender<()>,
        served: JoinHandle<io::Result<()>>,
    }

    fn served() -> Served {
        let listener = listener::bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let address = listener.local_addr().unwrap();
        let (readiness, receiver) = watch::channel(Readiness::NotReady("starting".to_owned()));
        let metrics = Arc::new(|| "router_queue_depth 3\n".to_owned());
        let drain = Arc::new(Notify::new());
        let breakers = Arc::new(|| "[]\n".to_owned());
        let admin = Admin { readiness: receiver, metrics, breakers, drain: drain.clone() };
        let (stop, stopped) = oneshot::channel::<()>();
        let served = tokio::spawn(serve(listener, admin, async { stopped.await.unwrap_or_default() }));
        Served { address, readiness, drain, stop, served }
    }

    impl Served {
        /// Status and body of a GET, the headers between them; read until the connection ends.
        async fn get(&self, path: &str) -> (String, String, String) {
            self.ask("GET", path).await
        }

        async fn ask(&self, method: &str, path: &str) -> (String, String, String) {
            let mut client = TcpStream::connect(self.address).await.unwrap();
            client.write_all(format!("{method} {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.unwrap();
            let mut answer = String::new();
            client.read_to_string(&mut answer).await.unwrap();
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            let (status, headers) = head.split_once("\r\n").unwrap();
            (status.to_owned(), headers.to_owned(), body.to_owned())
        }

        async fn check(&self, path: &str, status: &str, body: &str) {
            let (got, _, text) = self.get(path).await;
            assert_eq!((got.as_str(), text.as_str()), (status, body), "{path}");
        }
    }

    #[tokio::test]
    async fn pages_answer() {
        let port = served();
        port.check("/", "HTTP/1.1 200 OK", "activation router: /live /ready /metrics /breakers, POST /drain\n").await;
        port.check("/live", "HTTP/1.1 200 OK", "live\n").await;
        port.check("/nothing", "HTTP/1.1 404 Not Found", "").await;
    }

    #[tokio::test]
    async fn readiness_follows_its_sender() {
        let port = served();
        port.check("/ready", "HTTP/1.1 503 Service Unavailable", "starting\n").await;
        port.readiness.send_replace(Readiness::Ready);
        port.check("/ready", "HTTP/1.1 200 OK", "ready\n").await;
        port.readiness.send_replace(Readiness::NotReady("draining".to_owned()));
        port.check("/ready", "HTTP/1.1 503 Service Unavailable", "draining\n").await;
        port.check("/live", "HTTP/1.1 200 OK", "live\n").await;
    }

    #[tokio::test]
    async fn only_a_post_drains() {
        let port = served();
        assert_eq!(port.get("/drain").await.0, "HTTP/1.1 405 Method Not Allowed");
        assert!(tokio::time::timeout(Duration::ZERO, port.drain.notified()).await.is_err());
        let (status, _, body) = port.ask("POST", "/drain").await;
        assert_eq!((status.as_str(), body.as_str()), ("HTTP/1.1 202 Accepted", "draining\n"));
        port.drain.notified().await;
    }

    #[tokio::test]
    async fn metrics_say_their_format() {
        let (status, headers, body) = served().get("/metrics").await;
        assert_eq!((status.as_str(), body.as_str()), ("HTTP/1.1 200 OK", "router_queue_depth 3\n"));
        assert!(headers.contains("content-type: text/plain; version=0.0.4\r\n"), "{headers}");
    }

    #[tokio::test(start_paused = true)]
    async fn sitting_on_connections_does_not_last() {
        let port = served();
        let start = Instant::now();
        let mut sitters = Vec::new();
        for _ in 0..CONNECTIONS_MAX {
            let mut sitter = TcpStream::connect(port.address).await.unwrap();
            sitter.write_all(b"GET /live HTT").await.unwrap();
            sitters.push(sitter);
        }
        for mut sitter in sitters {
            sitter.read_to_end(&mut Vec::new()).await.ok();
        }
        assert!(start.elapsed() >= LIFETIME);
        port.check("/live", "HTTP/1.1 200 OK", "live\n").await;
    }

    #[tokio::test(start_paused = true)]
    async fn stopping_waits_for_nobody_longer_than_a_connection_lives() {
        let port = served();
        let mut sitter = TcpStream::connect(port.address).await.unwrap();
        sitter.write_all(b"GET /live HTT").await.unwrap();
        let start = Instant::now();
        port.stop.send(()).unwrap();
        port.served.await.unwrap().unwrap();
        assert!(start.elapsed() <= LIFETIME + Duration::from_secs(1));
    }
}
