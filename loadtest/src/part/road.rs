//! The road between a controller and a server: activations go up, answers come down. The generator is the same whatever lies
//! at the other end; only this differs between the router and its peers.

use client::{AppendError, PushReceiver, PushSender};
use proto::v1;

/// The way up. Clones send on the same one.
pub(crate) trait Up: Clone + Send + Sync + 'static {
    /// Sends them in their order and never waits. Gives back those for which there is no room; a road that is over takes all, and
    /// they are never answered.
    fn push_all(&self, batch: Vec<v1::Activation>) -> Vec<v1::Activation>;
}

/// The way down.
pub(crate) trait Down: Send + 'static {
    /// The answers that have come, at least one; none once the road is over.
    fn next(&mut self) -> impl Future<Output = Option<Vec<v1::Answer>>> + Send;
}

impl Up for PushSender {
    fn push_all(&self, batch: Vec<v1::Activation>) -> Vec<v1::Activation> {
        let mut rest = batch.into_iter();
        match PushSender::push_all(self, &mut rest) {
            Err(AppendError::Full(refused)) => std::iter::once(refused).chain(rest).collect(),
            Ok(()) | Err(AppendError::TooLarge { .. } | AppendError::Closed(_)) => Vec::new(),
        }
    }
}

impl Down for PushReceiver {
    async fn next(&mut self) -> Option<Vec<v1::Answer>> {
        Some(PushReceiver::next(self).await.ok()??.answers)
    }
}
