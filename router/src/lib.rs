//! The activation router's shell: sockets, streams, time and configuration around the [`engine`], which decides.
//!
//! Start reading at [`app`] (what runs), then [`grpc`] (what comes in), [`driver`] and [`outbox`] (what goes out).

pub mod admin;
#[cfg(feature = "jemalloc")]
mod allocator;
pub mod app;
pub mod cli;
pub mod clock;
pub mod config;
pub mod controllers;
pub mod drain;
pub mod driver;
pub mod grpc;
pub mod insight;
pub mod listener;
mod lookout;
mod metrics;
pub mod nodes;
pub mod outbox;
pub mod output;
mod overflow;
mod read;
pub mod worker;

use config::Config;
use std::process::ExitCode;

/// Runs a router with a valid configuration until SIGTERM, SIGINT or a POST to `/drain`, then drains it. The whole of `activation-router serve`:
/// says on standard output where it listens, logs to standard error. Exit code 0 if nothing was left at the end of the drain,
/// [`EXIT_LEFT`] if activations were (the log says how many), 1 if a port cannot be opened.
pub fn serve(config: Config) -> ExitCode {
    let log = output::start_log(&config.log);
    let served = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .and_then(|runtime| runtime.block_on(serve_until_told(config)));
    let code = match served {
        Ok(left) if left.is_nothing() => ExitCode::SUCCESS,
        Ok(left) => {
            tracing::error!(%left, "the drain's time is over");
            ExitCode::from(EXIT_LEFT)
        }
        Err(error) => {
            log.line(&format!("activation-router: {error}"));
            ExitCode::FAILURE
        }
    };
    log.flush(FLUSH);
    code
}

/// How long the log may take to be written at the end.
const FLUSH: std::time::Duration = std::time::Duration::from_millis(100);

/// The exit code of a router that stopped with activations in hand. 2 is that of a bad configuration.
pub const EXIT_LEFT: u8 = 3;

async fn serve_until_told(config: Config) -> std::io::Result<drain::Left> {
    let app = app::App::bind(config).await?;
    output::say_without_waiting(format!("listening on {} (admin on {})\n", app.address()?, app.admin_address()?));
    app.run(told_to_stop()?).await
}

fn told_to_stop() -> std::io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
    })
}
