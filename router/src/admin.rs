//! The operator's port: is it alive, is it ready, what does it measure; and the word to drain.
//!
//! Apart from the data port, so that a full router can still be asked why. This file may not touch the
//! engine: readiness and pages are handed in, the word to drain is handed out. Each connection serves one request; `seats` sees to it
//! that nobody can keep the operator out by sitting on them.

use std::fmt;
use std::future::Future;
use std::io;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{CONNECTION, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures_util::future::BoxFuture;
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};

use crate::parts::Parts;
use seats::Seated;

mod seats;

pub(crate) use seats::CONNECTIONS_MAX;

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
    /// The parts of the router: when one has ended, it is neither alive nor ready.
    pub parts: Parts,
    /// The metrics in Prometheus's text format.
    pub metrics: Page,
    /// The breakers that are not closed, as JSON.
    pub breakers: Page,
    /// Told when an operator wants the router to drain and end.
    pub drain: Arc<Notify>,
}

/// A page's text. Asked for once per request, on the admin port's thread; must not block.
pub type Page = Arc<dyn Fn() -> BoxFuture<'static, String> + Send + Sync>;

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
    axum::serve(Seated::new(listener), routes(admin)).with_graceful_shutdown(stop).await
}

/// The port's pages: `/`, `/live`, `/ready`, `/metrics`, `/breakers`. All answer GET and HEAD, and end the connection. A POST to `/drain` does
/// what SIGTERM does.
pub fn routes(admin: Admin) -> Router {
    Router::new()
        .route("/", get(|| async { "activation router: /live /ready /metrics /breakers, POST /drain\n" }))
        .route("/live", get(live))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .route("/breakers", get(breakers))
        .route("/drain", post(drain))
        .with_state(admin)
        .layer(axum::middleware::map_response(last))
}

async fn live(State(admin): State<Admin>) -> Response {
    match admin.parts.first_ended() {
        None => "live\n".into_response(),
        Some(ended) => (StatusCode::SERVICE_UNAVAILABLE, format!("{ended}\n")).into_response(),
    }
}

async fn ready(State(admin): State<Admin>) -> Response {
    if let Some(ended) = admin.parts.first_ended() {
        return (StatusCode::SERVICE_UNAVAILABLE, format!("{ended}\n")).into_response();
    }
    match &*admin.readiness.borrow() {
        Readiness::Ready => "ready\n".into_response(),
        Readiness::NotReady(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    }
}

async fn metrics(State(admin): State<Admin>) -> impl IntoResponse {
    ([(CONTENT_TYPE, "text/plain; version=0.0.4")], (admin.metrics)().await)
}

async fn breakers(State(admin): State<Admin>) -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json")], (admin.breakers)().await)
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

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::sync::oneshot;
    use tokio::task::JoinHandle;
    use tokio::time::Instant;

    use super::seats::LIFETIME;
    use super::*;
    use crate::listener;

    /// A port being served.
    struct Served {
        address: SocketAddr,
        readiness: watch::Sender<Readiness>,
        parts: Parts,
        drain: Arc<Notify>,
        stop: oneshot::Sender<()>,
        served: JoinHandle<io::Result<()>>,
    }

    fn served() -> Served {
        let listener = listener::bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let address = listener.local_addr().unwrap();
        let (readiness, receiver) = watch::channel(Readiness::NotReady("starting".to_owned()));
        let page = |text: &'static str| -> Page { Arc::new(move || Box::pin(async move { text.to_owned() })) };
        let (metrics, breakers) = (page("router_queue_depth 3\n"), page("[]\n"));
        let (drain, parts) = (Arc::new(Notify::new()), Parts::default());
        let admin = Admin { readiness: receiver, parts: parts.clone(), metrics, breakers, drain: drain.clone() };
        let (stop, stopped) = oneshot::channel::<()>();
        let served = tokio::spawn(serve(listener, admin, async { stopped.await.unwrap_or_default() }));
        Served { address, readiness, parts, drain, stop, served }
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

    #[tokio::test]
    async fn a_part_that_ended_is_named_by_both() {
        let port = served();
        port.readiness.send_replace(Readiness::Ready);
        drop(port.parts.begin("timers"));
        port.check("/live", "HTTP/1.1 503 Service Unavailable", "timers ended\n").await;
        port.check("/ready", "HTTP/1.1 503 Service Unavailable", "timers ended\n").await;
    }

    /// Connects and sends that much of a request.
    async fn sitter(port: &Served, request: &str) -> TcpStream {
        let mut sitter = TcpStream::connect(port.address).await.unwrap();
        sitter.write_all(request.as_bytes()).await.unwrap();
        sitter
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_lives_no_longer_than_it_needs() {
        let port = served();
        let start = Instant::now();
        let mut sitter = sitter(&port, "GET /live HTT").await;
        sitter.read_to_end(&mut Vec::new()).await.ok();
        assert_eq!(start.elapsed().as_secs(), LIFETIME.as_secs());
    }

    #[tokio::test]
    async fn the_silent_give_way_the_longest_seated_first() {
        let port = served();
        let mut sitters = Vec::new();
        for number in 0..CONNECTIONS_MAX + 16 {
            sitters.push(sitter(&port, if number % 2 == 0 { "" } else { "GET /live HTTP/1.1\r\nhost: x\r\n" }).await);
        }
        port.check("/live", "HTTP/1.1 200 OK", "live\n").await;
        for sitter in &mut sitters[..17] {
            assert!(matches!(sitter.read(&mut [0]).await, Ok(0) | Err(_)), "it gave way");
        }
        let mut last = sitters.pop().unwrap();
        last.write_all(b"\r\n").await.unwrap();
        let mut answer = String::new();
        last.read_to_string(&mut answer).await.unwrap();
        assert!(answer.ends_with("live\n"), "{answer}");
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
