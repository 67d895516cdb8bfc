//! What a caller asks for. It may not be sent twice: asking takes it.

use crate::action::ActionKey;
use bytes::Bytes;
use proto::v1;
use std::time::Duration;

/// One activation to be: of which action, with what, and how long its answer is worth something.
///
/// ```
/// # use client::{ActionKey, Invocation};
/// # use std::time::Duration;
/// # let key = ActionKey::new("guest", "hello", "1").unwrap();
/// // The action may run for 5 min; the caller waits for 1 min at most.
/// let invocation = Invocation::new(&key, "payload")
///     .action_timeout(Duration::from_secs(300))
///     .deadline(Duration::from_secs(60));
/// ```
#[derive(Debug, Clone)]
pub struct Invocation {
    pub(crate) key: ActionKey,
    pub(crate) payload: Bytes,
    pub(crate) deadline: Option<Duration>,
    pub(crate) action_timeout: Option<Duration>,
    pub(crate) reply: v1::Reply,
}

impl Invocation {
    /// Of the action `key`. `payload` is opaque, at most as long as the router takes (1 MiB by default).
    ///
    /// Says neither how long the action may run nor how long the caller waits: both are as in the controller's
    /// [`ForcedCompletion`](crate::ForcedCompletion).
    pub fn new(key: &ActionKey, payload: impl Into<Bytes>) -> Self {
        let (key, payload) = (key.clone(), payload.into());
        Self { key, payload, deadline: None, action_timeout: None, reply: v1::Reply::Outcome }
    }

    /// The caller waits that long, counted from the moment it is submitted: 1 ms to a day, else rejected. The router dispatches
    /// nothing at or after that point.
    #[must_use]
    pub fn deadline(self, after: Duration) -> Self {
        Self { deadline: Some(after), ..self }
    }

    /// The action may run that long: the caller is answered at the forced completion at the latest.
    #[must_use]
    pub fn action_timeout(self, timeout: Duration) -> Self {
        Self { action_timeout: Some(timeout), ..self }
    }

    /// The caller wants to hear only that it was taken, or why not.
    #[must_use]
    pub fn fire(self) -> Self {
        Self { reply: v1::Reply::Accepted, ..self }
    }
}
