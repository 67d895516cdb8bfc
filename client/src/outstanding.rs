//! The activations that wait for their answer. Each is answered at most once, because answering takes it out. It may not hold
//! a timer: that is with the caller who waits.

use crate::id::{ActivationId, IdSource};
use crate::outcome::Answer;
use std::collections::HashMap;
use tokio::sync::oneshot;

/// Where the answer to one activation goes.
pub(crate) type Waiting = (ActivationId, oneshot::Sender<Answer>);

/// All of them, by the count in their ids.
#[derive(Debug)]
pub(crate) struct Outstanding {
    ids: IdSource,
    waiting: HashMap<u64, Waiting>,
    max: usize,
}

impl Outstanding {
    /// None yet, and never more than `max`.
    pub(crate) fn new(max: usize) -> Self {
        Self { ids: IdSource::new(), waiting: HashMap::new(), max }
    }

    /// A new id, for an activation that is perhaps not to be sent.
    pub(crate) fn id(&mut self) -> ActivationId {
        self.ids.next().0
    }

    /// `id`, made here, waits for its answer from now on; none if too many do.
    pub(crate) fn add(&mut self, id: ActivationId) -> Option<oneshot::Receiver<Answer>> {
        if self.waiting.len() >= self.max {
            return None;
        }
        let count = self.ids.count_of(&id.bytes()).expect("made here");
        let (sender, answer) = oneshot::channel();
        self.waiting.insert(count, (id, sender));
        Some(answer)
    }

    /// Takes one out; none if it was answered or given up before, or is nobody's here.
    pub(crate) fn take(&mut self, id: &[u8]) -> Option<Waiting> {
        let count = self.ids.count_of(id)?;
        let taken = self.waiting.remove(&count);
        if self.waiting.is_empty() && self.waiting.capacity() > IDLE_CAPACITY_KEPT {
            self.waiting.shrink_to(IDLE_CAPACITY_KEPT);
        }
        taken
    }

    /// Takes out all of them.
    pub(crate) fn take_all(&mut self) -> Vec<Waiting> {
        std::mem::take(&mut self.waiting).into_values().collect()
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }
}

/// Room for this many is kept after a burst.
const IDLE_CAPACITY_KEPT: usize = 8192;
