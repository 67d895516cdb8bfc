//! Puts the parts together and runs them: listener, workers, timers, admin port. The only place that constructs them.

use crate::admin::{self, Admin, Page, Readiness};
use crate::clock::Clock;
use crate::config::{self, Breaker, Config, QUEUED_OVERHEAD_BYTES};
use crate::drain::{self, Left};
use crate::grpc::{self, Service, SessionBounds};
use crate::insight;
use crate::listener::{self, Counts};
use crate::metrics::Metrics;
use crate::overflow;
use crate::parts::{Parts, Task};
use crate::stop::{self, Interrupt, Interrupts, Stopped};
use crate::worker;
use ::overflow::Overflow;
use engine::breaker::Rules;
use engine::hub::Hub;
use engine::limits::{Limits, OverflowLimits, RECENT_IDS_PER_SET};
use futures_util::stream::Stream;
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore, watch};
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_reflection::server::v1::{ServerReflection, ServerReflectionServer};

/// A router that listens and is not yet running.
#[derive(Debug)]
pub struct App {
    config: Config,
    listener: TcpListener,
    admin: TcpListener,
    service: Arc<Service>,
    store: Option<Arc<dyn Overflow>>,
    /// Tells this life of the router from others.
    life: u64,
    parts: Parts,
}

/// How often memory is given back.
const CARE_INTERVAL: Duration = Duration::from_secs(1);
/// How long connections, and then the store, may take to close where the router ends at once.
const CLOSING_AT_ONCE: Duration = Duration::from_millis(100);
/// How long connections without streams of ours may take to close. Those that watch the health never do.
const CLOSING_TIMEOUT: Duration = Duration::from_secs(1);
/// How often to look whether they have.
const CLOSING_INTERVAL: Duration = Duration::from_millis(20);
/// Timers of each wheel that are worked on before other tasks get their turn.
const TIMERS_AT_ONCE: usize = 256;

impl App {
    /// Opens the store and the ports of a valid configuration.
    ///
    /// # Errors
    /// If the store or a port cannot be opened; the message names it.
    pub async fn bind(config: Config) -> std::io::Result<Self> {
        let parts = Parts::default();
        // A fault from here on closes the store again, and the store's threads return.
        parts.may_return();
        let store = overflow::open(&config.overflow, config.limits.payload_bytes_max, &parts)?;
        let bind = |setting: &str, address| {
            listener::bind(address).map_err(|error| std::io::Error::new(error.kind(), format!("{setting} {error}")))
        };
        let listener = bind("listen", config.listen)?;
        let admin = bind("admin_listen", config.admin_listen)?;
        parts.may_not_return();
        let clock = Clock::start();
        let random = RandomState::new();
        let hub = Hub::new(engine_limits(&config), random.hash_one("hub"), config.workers_chosen(), clock.now());
        let sessions = SessionBounds {
            controller_grace: Duration::from_millis(config.controller_grace_ms),
            invoker_grace: Duration::from_millis(config.invoker_grace_ms),
            sessions_max: config.limits.sessions_max,
        };
        let router_id = config.router_id.clone();
        let service = Service::new(hub, clock, config.limits.clone(), sessions, router_id, &random);
        let life = random.hash_one("overflow");
        Ok(Self { config, listener, admin, service: Arc::new(service), store, life, parts })
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

    /// Its tasks and threads.
    pub fn parts(&self) -> Parts {
        self.parts.clone()
    }

    /// Serves until `stop` has an item or an operator says so, then drains: it is not ready any more, controllers are told, nothing
    /// new is taken, what is queued is handed out and what is in flight awaited, nodes are told, streams end. All that at most
    /// for the configured time, and a second for connections to close. A second item of `stop` ends it at once. So does a part that ends
    /// although it never should; then `/live` names it, for half a second.
    ///
    /// # Errors
    /// If a thread cannot be started.
    pub async fn run(self, stop: impl Stream<Item = ()>) -> std::io::Result<Stopped> {
        let Self { config, listener, admin, service, store, life, parts } = self;
        let (ready, readiness) = watch::channel(Readiness::Ready);
        let (reporter, health) = tonic_health::server::health_reporter();
        reporter.set_serving::<DataPlane>().await;
        let counts = Arc::new(Counts::default());
        let metrics = Arc::new(Metrics { service: service.clone(), connections: counts.clone(), store: store.clone() });
        let overflowing = store.map(|store| overflow::Threads::start(&service, store, life, &parts)).transpose()?;
        let told_to_drain = Arc::new(Notify::new());
        let operators = Admin {
            readiness,
            parts: parts.clone(),
            metrics: page(&service, move |_| metrics.text()),
            breakers: page(&service, insight::breakers_json),
            drain: told_to_drain.clone(),
        };

        let mut routes = Routes::new(health);
        routes = routes.add_service(worker::with_limits(grpc::Routes(service.clone()), &config.limits));
        if config.reflection {
            routes = routes.add_service(reflection());
        }
        let workers = worker::start_all(&config, &routes, &parts)?;
        start_sampler(&service, &parts)?;
        let permits = Arc::new(Semaphore::new(config.limits.connections_max));
        let write_stall = Duration::from_millis(config.http2.write_stall_ms);
        // A worker returns without senders. With these here, an accept loop that dies takes no worker along.
        let dealing = workers.clone();
        let accepting = parts.spawn("accept", listener::accept_loop(listener, workers, permits.clone(), counts));
        let tasks = [
            parts.spawn("admin", async { admin::serve(admin, operators, std::future::pending()).await.unwrap_or(()) }),
            parts.spawn("timers", keep_time(service.clone())),
            parts.spawn("maintenance", take_care(service.clone(), write_stall)),
        ];

        let mut interrupts = Interrupts::new(stop, parts.clone());
        let mut interrupt = tokio::select! {
            interrupt = interrupts.next() => interrupt,
            () = told_to_drain.notified() => Interrupt::Told,
        };
        reporter.set_not_serving::<DataPlane>().await;
        reporter.set_service_status("", ServingStatus::NotServing).await;
        ready.send_replace(Readiness::NotReady("draining".to_owned()));
        let mut left = Left::default();
        if let Interrupt::Told = interrupt {
            tracing::info!(held = service.hub.unanswered(), "draining");
            tokio::select! {
                drained = drain::drain(&service, Duration::from_millis(config.drain_timeout_ms)) => left = drained,
                cut = interrupts.cut() => interrupt = cut,
            }
        }
        let since = tokio::time::Instant::now();
        if !matches!(interrupt, Interrupt::Told) {
            left = stop::end_at_once(&service).await;
        }
        if let Interrupt::PartEnded(_) = interrupt {
            stop::be_seen(since).await;
        }
        // Without the accept loop the workers return once their connections are closed.
        parts.may_return();
        accepting.stop();
        drop(dealing);
        let closing = if matches!(interrupt, Interrupt::Told) { CLOSING_TIMEOUT } else { CLOSING_AT_ONCE };
        close(&permits, config.limits.connections_max, closing).await;
        tasks.iter().for_each(Task::stop);
        service.sampler.stop();
        if let Some(threads) = overflowing {
            interrupt = close_store(threads, interrupt, &mut interrupts).await;
        }
        // One of the threads of overflow may have panicked while it wrote what was left.
        Ok(match (parts.first_ended(), interrupt) {
            (Some(ended), _) | (None, Interrupt::PartEnded(ended)) => Stopped::PartEnded(ended),
            (None, Interrupt::ToldAgain) => Stopped::Cut { left },
            (None, Interrupt::Told) => Stopped::Drained { left },
        })
    }
}

/// Writes what is left for the store and closes it. Whatever that takes is not part of the drain's time; an interrupt leaves it a
/// moment. Returns the last interrupt.
async fn close_store(
    threads: overflow::Threads,
    mut interrupt: Interrupt,
    interrupts: &mut Interrupts<impl Stream<Item = ()>>,
) -> Interrupt {
    let mut closed = tokio::task::spawn_blocking(|| threads.stop());
    if let Interrupt::Told = interrupt {
        tokio::select! {
            _ = &mut closed => return interrupt,
            cut = interrupts.cut() => interrupt = cut,
        }
    }
    let _ = tokio::time::timeout(CLOSING_AT_ONCE, closed).await;
    interrupt
}

/// A page that is as of now or 0.1 s ago.
fn page(service: &Arc<Service>, text: impl Fn(&Service) -> String + Send + Sync + 'static) -> Page {
    let (service, text) = (service.clone(), Arc::new(text));
    Arc::new(move || {
        let (service, text) = (service.clone(), text.clone());
        Box::pin(async move {
            service.sampler.refresh().await;
            text(&service)
        })
    })
}

fn start_sampler(service: &Arc<Service>, parts: &Parts) -> std::io::Result<()> {
    let (service, part) = (service.clone(), parts.begin("sampler"));
    let look = move || insight::run(&service, &part);
    std::thread::Builder::new().name("sampler".into()).spawn(look).map(drop)
}

/// What health checks ask about.
type DataPlane = grpc::Door;

/// Lets clients ask what is served here.
fn reflection() -> ServerReflectionServer<impl ServerReflection> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(proto::FILE_DESCRIPTOR_SET)
        .build_v1()
        .expect("the descriptors were written by the build")
}

fn engine_limits(config: &Config) -> Limits {
    let limits = &config.limits;
    Limits {
        payload_bytes_max: limits.payload_bytes_max as usize,
        time_left_max: Duration::from_millis(limits.time_left_ms_max.into()),
        action_queued_max: limits.action_queued_max.into(),
        action_queued_bytes_max: limits.action_queued_bytes_max,
        tenant_queued_max: limits.tenant_queued_max.into(),
        tenant_queued_bytes_max: limits.tenant_queued_bytes_max,
        router_queued_max: limits.router_queued_max.into(),
        router_queued_bytes_max: limits.router_queued_bytes_max,
        queued_overhead_bytes: QUEUED_OVERHEAD_BYTES,
        actions_max: limits.actions_max.into(),
        container_concurrency_max: limits.container_concurrency_max,
        idle_grace: Duration::from_millis(config.idle_grace_ms),
        overdue_grace: Duration::from_millis(config.overdue_grace_ms),
        breaker: (config.breaker.strikes > 0).then(|| breaker_rules(&config.breaker)),
        slow_after: (config.breaker.slow_after_ms > 0).then(|| Duration::from_millis(config.breaker.slow_after_ms)),
        overflow: (config.overflow.store != "none").then(|| overflow_limits(&config.overflow)),
        recent_sets: config.limits.recent_ids.div_ceil(RECENT_IDS_PER_SET),
    }
}

fn overflow_limits(overflow: &config::Overflow) -> OverflowLimits {
    OverflowLimits {
        lanes: overflow.lanes,
        pending_bytes_max: overflow.pending_bytes_max,
        refill_records: overflow.refill_records,
        refill_bytes: overflow.refill_bytes,
    }
}

fn breaker_rules(breaker: &Breaker) -> Rules {
    Rules {
        strikes: breaker.strikes,
        window: Duration::from_millis(breaker.window_ms),
        open_first: Duration::from_millis(breaker.open_first_ms),
        open_max: Duration::from_millis(breaker.open_max_ms),
        probes: breaker.probes,
    }
}

/// Works on timers when they are due, and ends sessions. Never returns.
async fn keep_time(service: Arc<Service>) {
    let mut pass = service.pass();
    loop {
        service.begin(&mut pass);
        let more = service.hub.advance(TIMERS_AT_ONCE, &mut pass);
        service.end_due(&mut pass);
        service.hub.settle(&mut pass);
        if more {
            // A million deadlines in one moment must not keep the streams of this thread waiting.
            tokio::task::yield_now().await;
            continue;
        }
        let next = service.hub.next_wake().into_iter().chain(service.next_due()).min();
        let next = next.map(|at| service.clock.instant(at));
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
    let mut stall_tick = tokio::time::interval(stall_interval(write_stall));
    loop {
        tokio::select! {
            _ = tick.tick() => service.hub.shrink(),
            _ = stall_tick.tick() => close_stalled(&service, write_stall),
        }
    }
}

/// How often streams are looked at. A stall is seen to begin up to one interval late and to be over its time up to another late: with this
/// a stream is cut within a tenth of that time behind it.
fn stall_interval(write_stall: Duration) -> Duration {
    (write_stall / 20).min(CARE_INTERVAL)
}

fn close_stalled(service: &Service, write_stall: Duration) {
    let stalled = service.streams.close_stalled(service.clock.now(), write_stall);
    if stalled > 0 {
        tracing::warn!(stalled, "closed streams whose peers do not read");
    }
}

/// Waits a moment for connections to close.
async fn close(connections: &Semaphore, connections_max: usize, within: Duration) {
    let mut tick = tokio::time::interval(CLOSING_INTERVAL);
    let closed = async {
        while connections.available_permits() < connections_max {
            tick.tick().await;
        }
    };
    let _ = tokio::time::timeout(within, closed).await;
}
