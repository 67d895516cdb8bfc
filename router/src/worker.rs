//! Workers: threads with a single-threaded runtime each. A connection stays on the worker it was dealt to, so nothing of its
//! way from socket to engine and back crosses threads.

use crate::config::{Config, Http2, Limits};
use crate::grpc::{self, Door};
use crate::listener::{self, Accepted};
use crate::lookout;
use crate::parts::Parts;
use std::time::Duration;
use tokio::sync::mpsc;
use tonic::service::Routes;
use tonic::transport::Server;

/// A frame the router writes may pass the limit by what it holds besides payloads, which is below this.
const FRAME_SLACK: usize = 1 << 20;

/// Starts as many workers as the configuration says; they serve `routes` on the connections sent to them. When the senders
/// are dropped they let these connections finish their streams, and end with them. Each is a part, `worker-0` and so on.
///
/// # Errors
/// If a thread or its runtime cannot be started.
pub fn start_all(config: &Config, routes: &Routes, parts: &Parts) -> std::io::Result<Vec<mpsc::Sender<Accepted>>> {
    (0..config.workers_chosen()).map(|number| start(number, config, routes.clone(), parts)).collect()
}

/// A service of the data plane, with the limits of frames set.
pub fn with_limits(service: grpc::Routes, limits: &Limits) -> Door {
    let frame_bytes_max = limits.frame_bytes_max as usize;
    let frame_entries_max = limits.frame_entries_max as usize;
    Door::new(service, frame_bytes_max, frame_entries_max, frame_bytes_max + FRAME_SLACK)
}

fn start(number: usize, config: &Config, routes: Routes, parts: &Parts) -> std::io::Result<mpsc::Sender<Accepted>> {
    // A connection is dealt with its permit, so a herd that has permits finds room here too.
    let (dealt, receiver) = mpsc::channel(config.limits.connections_max);
    let runtime = lookout::runtime(Duration::from_micros(config.lookout_us_max))?;
    // The end of `incoming` is the signal to stop; given any signal, the server then lets its connections finish.
    let serving = server(&config.http2)
        .add_routes(routes)
        .serve_with_incoming_shutdown(listener::incoming(receiver), std::future::pending());
    let name = format!("worker-{number}");
    let part = parts.begin(name.clone());
    let serving = async move {
        if let Err(error) = serving.await {
            tracing::error!(%error, number, "a worker ended");
        }
    };
    std::thread::Builder::new().name(name).spawn(move || runtime.block_on(part.run(serving)))?;
    Ok(dealt)
}

fn server(http2: &Http2) -> Server {
    Server::builder()
        .http2_keepalive_interval(Some(Duration::from_millis(http2.keepalive_interval_ms)))
        .http2_keepalive_timeout(Some(Duration::from_millis(http2.keepalive_timeout_ms)))
        .max_concurrent_streams(http2.max_concurrent_streams)
        .initial_stream_window_size(http2.stream_window_bytes)
        .initial_connection_window_size(http2.connection_window_bytes)
        .max_frame_size(http2.data_frame_bytes_max)
        .http2_max_pending_accept_reset_streams(Some(http2.pending_accept_resets_max))
        .http2_max_local_error_reset_streams(Some(http2.local_error_resets_max))
        .http2_max_header_list_size(http2.header_list_bytes_max)
}
