//! A router of the test's own, on free ports and threads of its own.

use crate::peers::within;
use router::app::App;
use router::config::Config;
use router::drain::Left;
use router::parts::Parts;
use router::stop::{self, Stopped};
use std::net::{Ipv4Addr, SocketAddr};
use std::thread::JoinHandle;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

/// A running router. Dropped, it is stopped and waited for.
pub(crate) struct Router {
    /// Where controllers and invokers connect.
    pub(crate) address: SocketAddr,
    /// Where operators look.
    pub(crate) admin: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    running: Option<JoinHandle<Stopped>>,
    /// Its tasks and threads.
    pub(crate) parts: Parts,
}

impl Router {
    /// Starts one with the defaults of the tests, changed so.
    pub(crate) fn start(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = config();
        change(&mut config);
        config.validate().unwrap();
        let (stop, told) = oneshot::channel::<()>();
        let (bound, addresses) = std::sync::mpsc::channel();
        let running = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let stopped = runtime.block_on(async {
                let app = App::bind(config).await.unwrap();
                bound.send((app.address().unwrap(), app.admin_address().unwrap(), app.parts())).unwrap();
                let told = async { told.await.unwrap_or(()) };
                app.run(stop::once(told)).await.unwrap()
            });
            // A store that does not close must not keep this thread: `router::serve` does the same.
            runtime.shutdown_background();
            stopped
        });
        let (address, admin, parts) = addresses.recv().unwrap();
        Self { address, admin, stop: Some(stop), running: Some(running), parts }
    }

    /// Tells it to stop, and does not wait.
    pub(crate) fn stop(&mut self) {
        drop(self.stop.take());
    }

    /// Whether it has stopped.
    pub(crate) fn is_stopped(&self) -> bool {
        self.running.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Waits until its drain is over; what was left.
    pub(crate) async fn stopped(self) -> Left {
        match self.ended().await {
            Stopped::Drained { left } => left,
            other => panic!("{other:?}"),
        }
    }

    /// Waits until it has stopped; how that was.
    pub(crate) async fn ended(mut self) -> Stopped {
        let running = self.running.take().unwrap();
        within("the router's end", tokio::task::spawn_blocking(|| running.join().unwrap())).await.unwrap()
    }

    /// A page of the operator's port: its status line and its text.
    pub(crate) async fn page(&self, path: &str) -> (String, String) {
        self.ask("GET", path).await
    }

    /// What the operator's port answers: its status line and its text.
    pub(crate) async fn ask(&self, method: &str, path: &str) -> (String, String) {
        let mut socket = TcpStream::connect(self.admin).await.unwrap();
        socket.write_all(format!("{method} {path} HTTP/1.1\r\nHost: it\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        within(path, socket.read_to_string(&mut answer)).await.unwrap();
        let (head, text) = answer.split_once("\r\n\r\n").unwrap();
        (head.lines().next().unwrap().to_owned(), text.to_owned())
    }

    /// The number that the metrics page gives for that name and these labels.
    pub(crate) async fn metric(&self, name: &str) -> u64 {
        metric(&self.page("/metrics").await.1, name)
    }

    /// Waits until the metric is as wanted.
    pub(crate) async fn metric_is(&self, name: &str, wanted: impl Fn(u64) -> bool) {
        let becomes = async {
            while !wanted(self.metric(name).await) {
                tokio::task::yield_now().await;
            }
        };
        within(name, becomes).await;
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        self.stop();
        if let Some(running) = self.running.take() {
            let _ = running.join();
        }
    }
}

/// The number of one line of a metrics page.
pub(crate) fn metric(page: &str, name: &str) -> u64 {
    let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("no metric {name}")).parse().unwrap()
}

/// The defaults of the tests: free ports, two workers, no waiting for what a finished test leaves behind.
pub(crate) fn config() -> Config {
    let free = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    Config { listen: free, admin_listen: free, workers: 2, drain_timeout_ms: 0, ..Config::default() }
}
