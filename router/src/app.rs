//! Puts the parts together and runs them: listener, workers, timers, admin port. The only place that constructs them.
//!
//! Each worker is a thread with its own single-threaded runtime; a connection stays on the worker it was dealt to. Between
//! workers there is only the engine. Measured against one work-stealing pool: see ARCHITECTURE.md.

use crate::admin::{self, Admin, Readiness};
use crate::clock::Clock;
use crate::config::{self, Config};
use crate::grpc::{Routes, Service};
use crate::listener::{self, Accepted, Counts};
use crate::metrics::Metrics;
use engine::hub::Hub;
use engine::limits::Limits;
use proto::v1::router_server::RouterServer;
use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::sync::{Semaphore, mpsc, watch};
use tonic::transport::Server;
use tonic_health::server::HealthReporter;

/// A router that listens and is not yet running.
#[derive(Debug)]
pub struct App {
    config: Config,
    listener: TcpListener,
    admin: TcpListener,
    service: Arc<Service>,
}

/// Connections that may wait for a worker to take them up.
const DEALT_MAX: usize = 64;
/// How often memory, stalled streams and the drain are looked after.
const CARE_INTERVAL: Duration = Duration::from_secs(1);
/// Timers of each wheel that are worked on before other tasks get their turn.
const TIMERS_AT_ONCE: usize = 256;

impl App {
    /// Opens the ports of a valid configuration.
    ///
    /// # Errors
    /// If a port cannot be opened; the message names it.
    pub async fn bind(config: Config) -> std::io::Result<Self> {
        let listener = listener::bind(config.listen)?;
        let admin = listener::bind(config.admin_listen)?;
        let clock = Clock::start();
        let random = RandomState::new();
        let hub = Hub::new(engine_limits(&config), random.hash_one("hub"), config.workers_chosen(), clock.now());
        let router_id = config.router_id.clone();
        let service = Service::new(hub, clock, config.limits.clone(), router_id, random.hash_one("ids"));
        Ok(Self { config, listener, admin, service: Arc::new(service) })
    }

    /// Where controllers and invokers connect.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Where operators look.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn admin_address(&self) -> std::io::Result<SocketAddr> {
        self.admin.local_addr()
    }

    /// Serves until `stop` resolves, then drains: nothing new is taken, what is held is finished, at most for the
    /// configured time. Returns how many activations were left.
    ///
    /// # Errors
    /// If a thread cannot be started.
    pub async fn run(self, stop: impl Future<Output = ()>) -> std::io::Result<usize> {
        let Self { config, listener, admin, service } = self;
        let (ready, readiness) = watch::channel(Readiness::Ready);
        let (reporter, health) = tonic_health::server::health_reporter();
        reporter.set_serving::<RouterServer<Routes>>().await;
        let counts = Arc::new(Counts::default());
        let metrics = Metrics { service: service.clone(), connections: counts.clone() };
        let admin_state = Admin { readiness, metrics: Arc::new(move || metrics.text()) };

        let workers = (0..config.workers_chosen())
            .map(|number| start_worker(number, &config, &service, health.clone()))
            .collect::<std::io::Result<Vec<_>>>()?;
        let permits = Arc::new(Semaphore::new(config.limits.connections_max));
        let accepting = tokio::spawn(listener::accept_loop(listener, workers, permits, counts));
        let serving_admin = tokio::spawn(admin::serve(admin, admin_state, std::future::pending()));
        let timing = tokio::spawn(keep_time(service.clone()));
        let caring = tokio::spawn(take_care(service.clone(), Duration::from_millis(config.http2.write_stall_ms)));

        stop.await;
        ready.send_replace(Readiness::NotReady("draining".to_owned()));
        reporter.set_not_serving::<RouterServer<Routes>>().await;
        let left = drain(&service, &reporter, Duration::from_millis(config.drain_timeout_ms)).await;
        for task in [accepting, timing, caring] {
            task.abort();
        }
        serving_admin.abort();
        Ok(left)
    }
}

fn engine_limits(config: &Config) -> Limits {
    let limits = &config.limits;
    Limits {
        payload_bytes_max: limits.payload_bytes_max as usize,
        time_left_max: Duration::from_millis(limits.time_left_ms_max.into()),
        action_queued_max: limits.action_queued_max.into(),
        action_queued_bytes_max: limits.action_queued_bytes_max,
        router_queued_max: limits.router_queued_max.into(),
        router_queued_bytes_max: limits.router_queued_bytes_max,
        actions_max: limits.actions_max.into(),
        container_concurrency_max: limits.container_concurrency_max,
        idle_grace: Duration::from_millis(config.idle_grace_ms),
    }
}

/// Starts a thread that serves the connections sent to it.
fn start_worker<H>(
    number: usize,
    config: &Config,
    service: &Arc<Service>,
    health: H,
) -> std::io::Result<mpsc::Sender<Accepted>>
where
    H: tonic::codegen::Service<
            tonic::codegen::http::Request<tonic::body::Body>,
            Error = std::convert::Infallible,
            Response = tonic::codegen::http::Response<tonic::body::Body>,
            Future: Send,
        > + tonic::server::NamedService
        + Clone
        + Send
        + Sync
        + 'static,
{
    let (dealt, receiver) = mpsc::channel(DEALT_MAX);
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let frame_bytes_max = config.limits.frame_bytes_max as usize;
    let router = RouterServer::new(Routes(service.clone()))
        .max_decoding_message_size(frame_bytes_max)
        .max_encoding_message_size(frame_bytes_max + FRAME_SLACK);
    let reflection = config.reflection.then(reflection);
    let serving = server(&config.http2)
        .add_service(router)
        .add_service(health)
        .add_optional_service(reflection)
        .serve_with_incoming(listener::incoming(receiver));
    std::thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
        if let Err(error) = runtime.block_on(serving) {
            tracing::error!(%error, number, "a worker ended");
        }
    })?;
    Ok(dealt)
}

/// A frame the router writes may pass the limit by its last entry; what it holds besides payloads is far below this.
const FRAME_SLACK: usize = 4 << 20;

fn server(http2: &config::Http2) -> Server {
    Server::builder()
        .http2_keepalive_interval(Some(Duration::from_millis(http2.keepalive_interval_ms)))
        .http2_keepalive_timeout(Some(Duration::from_millis(http2.keepalive_timeout_ms)))
        .max_concurrent_streams(http2.max_concurrent_streams)
        .initial_stream_window_size(http2.stream_window_bytes)
        .initial_connection_window_size(http2.connection_window_bytes)
        .http2_max_pending_accept_reset_streams(Some(http2.pending_accept_resets_max))
        .http2_max_local_error_reset_streams(Some(http2.local_error_resets_max))
        .http2_max_header_list_size(http2.header_list_bytes_max)
}

fn reflection()
-> tonic_reflection::server::v1::ServerReflectionServer<impl tonic_reflection::server::v1::ServerReflection> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(proto::FILE_DESCRIPTOR_SET)
        .build_v1()
        .expect("the descriptors were written by the build")
}

/// Works on timers when they are due. Never returns.
async fn keep_time(service: Arc<Service>) {
    let mut pass = service.pass();
    loop {
        service.begin(&mut pass);
        let more = service.hub.advance(TIMERS_AT_ONCE, &mut pass);
        service.hub.settle(&mut pass);
        if more {
            // A million deadlines in one moment must not keep the streams of this thread waiting.
            tokio::task::yield_now().await;
            continue;
        }
        let next = service.hub.next_wake().map(|at| service.clock.instant(at));
        let due = async {
            match next {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = due => {}
            () = service.streams.sooner() => {}
        }
    }
}

/// Gives memory back and cuts off peers that do not read. Never returns.
async fn take_care(service: Arc<Service>, write_stall: Duration) {
    let mut tick = tokio::time::interval(CARE_INTERVAL);
    loop {
        tick.tick().await;
        service.hub.shrink();
        let stalled = service.streams.close_stalled(service.clock.now(), write_stall);
        if stalled > 0 {
            tracing::warn!(stalled, "closed streams whose peers do not read");
        }
    }
}

/// Takes nothing new and waits until nothing is held, or for `at_most`. Returns what is left.
async fn drain(service: &Service, _reporter: &HealthReporter, at_most: Duration) -> usize {
    service.drain();
    let finished = async {
        let mut tick = tokio::time::interval(Duration::from_millis(20));
        while service.hub.held() > 0 {
            tick.tick().await;
        }
    };
    let _ = tokio::time::timeout(at_most, finished).await;
    service.hub.held()
}
