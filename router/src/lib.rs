//! The activation router's shell: sockets, streams, time and configuration around the [`engine`],
//! which decides.
//!
//! Start reading at [`app`] (what runs), then [`grpc`] (what comes in), [`driver`] and [`outbox`]
//! (what goes out).

pub mod admin;
#[cfg(feature = "jemalloc")]
mod allocator;
pub mod app;
pub mod cli;
pub mod clock;
pub mod config;
pub mod controllers;
mod descriptors;
pub mod drain;
pub mod driver;
pub mod grpc;
pub mod insight;
pub mod listener;
mod lookout;
mod memory;
mod metrics;
pub mod nodes;
pub mod outbox;
pub mod output;
mod overflow;
pub mod parts;
mod read;
pub mod stop;
pub mod worker;

use config::Config;
use output::Log;
use parts::Parts;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::mpsc;
use std::time::Duration;
use stop::{EXIT_PART_ENDED, Stopped};
use tokio::runtime::{Builder, Handle};

/// Runs a router with a valid configuration until SIGTERM, SIGINT or a POST to `/drain`, then
/// drains it. The whole of `activation-router serve`: says on standard output where it listens,
/// logs to standard error. A second SIGTERM or SIGINT ends it at once.
///
/// Exit code 0 if nothing was left at the end of the drain; 1 if the store or a port cannot be
/// opened; [`stop::EXIT_LEFT`] if activations were left (the log says how many), or it was told
/// twice; [`EXIT_PART_ENDED`] if a part of it ended (the log says which). 2 is that of a bad
/// configuration.
pub fn serve(config: Config) -> ExitCode {
    let log = output::start_log(&config.log);
    let code = match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => {
            let served = catch_unwind(AssertUnwindSafe(|| runtime.block_on(serve_until_told(config, &log))));
            // A store that does not close must not keep the process.
            runtime.shutdown_background();
            served.map_or(EXIT_PART_ENDED, |stopped| exit_code(stopped, &log))
        }
        Err(error) => exit_code(Err(error), &log),
    };
    log.flush(FLUSH);
    ExitCode::from(code)
}

/// How long the log may take to be written at the end.
const FLUSH: Duration = Duration::from_millis(100);

async fn serve_until_told(config: Config, log: &Log) -> std::io::Result<Stopped> {
    let withstanding = stop::withstand_signals()?;
    descriptors::raise(&config);
    memory::check(&config);
    let app = app::App::bind(config).await?;
    let told = stop::signals()?;
    let parts = app.parts();
    end_after_parts(parts.clone(), Handle::current(), log.clone())?;
    let _withstanding = tokio::spawn(withstanding);
    output::say_without_waiting(format!("listening on {} (admin on {})\n", app.address()?, app.admin_address()?));
    app.run(told).await
}

/// The last resort, a thread of its own: ends the process if a part ended and the process does not,
/// because its main thread is stuck.
fn end_after_parts(parts: Parts, runtime: Handle, log: Log) -> std::io::Result<()> {
    let end = move || {
        runtime.block_on(parts.ended());
        // Nobody sends: this sleeps.
        let (_nobody, never) = mpsc::channel::<()>();
        let _ = never.recv_timeout(STUCK);
        log.flush(FLUSH);
        std::process::exit(EXIT_PART_ENDED.into());
    };
    std::thread::Builder::new().name("last-resort".into()).spawn(end).map(drop)
}

/// How long a router may take to end after one of its parts.
const STUCK: Duration = Duration::from_millis(850);

/// Logs how the router stopped.
fn exit_code(stopped: std::io::Result<Stopped>, log: &Log) -> u8 {
    match stopped {
        Ok(stopped) => {
            match &stopped {
                Stopped::Drained { left } if left.is_nothing() => {}
                Stopped::Drained { left } => tracing::error!(%left, "the drain's time is over"),
                Stopped::Cut { left } => {
                    tracing::error!(%left, "told again to stop: ended without the rest of the drain")
                }
                Stopped::PartEnded(ended) => tracing::error!(part = %ended.part, "ended, because a part did"),
            }
            stopped.exit_code()
        }
        Err(error) => {
            log.line(&format!("activation-router: {error}"));
            1
        }
    }
}
