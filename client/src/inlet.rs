//! What comes in on one stream: its `Welcome`, its frames, its end. It may not look into the frames beyond their `Welcome`.

use crate::wire::{DownFrame, Incoming};
use proto::v1;
use std::future::Future;
use std::time::Duration;
use tonic::{Code, Status};

/// Why a stream did not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No router could be reached, or it takes no streams now: worth another attempt after a pause.
    #[error("no stream to the router")]
    Unreachable(#[source] Status),
    /// The router refused this caller. `INVALID_ARGUMENT`: the id is bad. `ALREADY_EXISTS`: a live stream has that id; if it
    /// is one's own, broken but not yet noticed by the router, another attempt after a pause will do.
    #[error("the router refused the stream")]
    Refused(#[source] Status),
    /// Whoever answered did not say `Welcome`: it is not an activation router.
    #[error("the router ended the stream without a word")]
    NoWelcome,
    /// No `Welcome` within 10 s: worth another attempt after a pause.
    #[error("the router did not answer within {} s", OPEN_TIMEOUT.as_secs())]
    TimedOut,
}

/// Why an open stream ended out of turn.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The connection broke. What was sent may have arrived.
    #[error("the connection to the router broke")]
    Broken(#[source] Status),
    /// The router ended the call, and its status says why: something was sent that the protocol does not allow.
    #[error("the router ended the stream")]
    Ended(#[source] Status),
}

/// A frame that may say `Welcome`.
pub(crate) trait Greeting: DownFrame + PartialEq {
    /// Takes it out.
    fn take_welcome(&mut self) -> Option<v1::Welcome>;
}

/// The receiving half of a stream.
#[derive(Debug)]
pub(crate) struct Inlet<R> {
    frames: Incoming<R>,
    welcome: v1::Welcome,
    /// What else the first frame held.
    first: Option<R>,
}

impl<R: Greeting> Inlet<R> {
    /// Waits for the call to be answered and for its `Welcome`. Dropping it half-way resets the stream.
    pub(crate) async fn open(call: impl Future<Output = Result<Incoming<R>, Status>>) -> Result<Self, OpenError> {
        let greeted = async {
            let mut frames = call.await.map_err(OpenError::of)?;
            let mut first = frames.message().await.map_err(OpenError::of)?.ok_or(OpenError::NoWelcome)?;
            let welcome = first.take_welcome().ok_or(OpenError::NoWelcome)?;
            let first = Some(first).filter(|first| *first != R::default());
            Ok(Self { frames, welcome, first })
        };
        tokio::time::timeout(OPEN_TIMEOUT, greeted).await.unwrap_or(Err(OpenError::TimedOut))
    }

    /// What the router said of itself.
    pub(crate) fn welcome(&self) -> &v1::Welcome {
        &self.welcome
    }

    /// The next frame; `None` once the router has ended the stream in order. May be dropped half-way: no frame is lost.
    pub(crate) async fn next(&mut self) -> Result<Option<R>, StreamError> {
        match self.first.take() {
            Some(first) => Ok(Some(first)),
            None => self.frames.message().await.map_err(StreamError::of),
        }
    }
}

impl OpenError {
    fn of(status: Status) -> Self {
        if is_the_connections(&status) { Self::Unreachable(status) } else { Self::Refused(status) }
    }
}

impl StreamError {
    fn of(status: Status) -> Self {
        if is_the_connections(&status) { Self::Broken(status) } else { Self::Ended(status) }
    }
}

/// Told apart from the router's own words by the code: the router uses none of these for a caller's mistake.
fn is_the_connections(status: &Status) -> bool {
    matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Internal)
}

/// From opening a stream to its `Welcome`.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
/// Most bytes of a frame that is taken from the router; it sends about a payload or 64 KiB at a time, whichever is longer.
pub(crate) const FRAME_READ_BYTES_MAX: usize = 8 << 20;
