//! The connection to a router and how it is tuned. It may not open a stream: that is for `push` and `pull`.

use std::time::Duration;
use tonic::transport::{Channel, Endpoint, Error};

/// Connects to the router at `endpoint`: `host:port`, or `http://host:port`.
///
/// Gives up after 5 s. The connection lives in a task of the current runtime, and is probed while idle: a router that went
/// away without a word is noticed within 20 s. Calls on a broken channel connect again by themselves.
///
/// # Cancel safety
/// Dropping it half-way leaves nothing behind.
pub async fn connect(endpoint: &str) -> Result<Channel, ConnectError> {
    let unreachable = |source| ConnectError::Unreachable { endpoint: endpoint.to_owned(), source };
    tuned(endpoint)?.connect().await.map_err(unreachable)
}

/// As [`connect`], but connects with the first call and so never fails for want of a router. Must be called inside a runtime.
pub fn connect_lazy(endpoint: &str) -> Result<Channel, ConnectError> {
    Ok(tuned(endpoint)?.connect_lazy())
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The endpoint cannot be read: no later attempt will succeed.
    #[error("`{endpoint}` is not an endpoint: expected host:port or http://host:port")]
    Malformed {
        /// What was given.
        endpoint: String,
        /// What is wrong with it.
        source: Error,
    },
    /// Nobody answers there: it may be worth another attempt.
    #[error("no router answers at {endpoint}")]
    Unreachable {
        /// What was given.
        endpoint: String,
        /// How it failed.
        source: Error,
    },
}

fn tuned(endpoint: &str) -> Result<Endpoint, ConnectError> {
    let uri = if endpoint.contains("://") { endpoint.to_owned() } else { format!("http://{endpoint}") };
    let malformed = |source| ConnectError::Malformed { endpoint: endpoint.to_owned(), source };
    let tuned = Endpoint::from_shared(uri)
        .map_err(malformed)?
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(DATA_FRAME_BYTES_MAX)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .buffer_size(CALLS_WAITING_MAX);
    Ok(tuned)
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// One stream of several may have this much unread.
const STREAM_WINDOW_BYTES: u32 = 2 << 20;
/// h2 closes a connection with too many small frames unread, and derives how many from this window: answers and dispatches
/// can be small, so it is large.
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;
/// A frame of entries is 64 KiB long or little more: in one piece it costs one write and one read, in pieces of 16 KiB, as HTTP/2 has
/// it by default, five.
const DATA_FRAME_BYTES_MAX: u32 = 128 << 10;
/// Calls that wait for the connection. Streams are few.
const CALLS_WAITING_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_read_with_and_without_a_scheme() {
        for endpoint in ["127.0.0.1:7400", "http://127.0.0.1:7400", "router.local:7400", "[::1]:7400"] {
            assert!(tuned(endpoint).is_ok(), "{endpoint}");
        }
    }

    #[test]
    fn a_malformed_endpoint_is_named() {
        let error = tuned("not an endpoint").unwrap_err();
        assert!(matches!(error, ConnectError::Malformed { .. }));
        assert!(error.to_string().contains("`not an endpoint`"), "{error}");
    }

    #[tokio::test]
    async fn a_silent_port_is_named() {
        // Bound and closed again: nobody listens there.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let error = connect(&format!("127.0.0.1:{port}")).await.unwrap_err();
        assert_eq!(error.to_string(), format!("no router answers at 127.0.0.1:{port}"));
    }
}
