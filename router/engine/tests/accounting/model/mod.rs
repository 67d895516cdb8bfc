//! The engine's rules, the obvious way: plain lists, and scans of them. Here is what there is, and what may be asked of it.

mod breakers;
mod containers;
mod queues;
mod revisions;
mod timers;

pub(crate) use containers::Container;

use crate::step::Which;
use crate::{IDS, STREAMS, activation, key, pick};
use bytes::Bytes;
use engine::breaker::Breaker;
use engine::id::{ActionKey, ActivationId};
use engine::input::Push;
use engine::limits::Limits;
use engine::time::Timestamp;
use std::collections::{BTreeMap, VecDeque};

/// The engine's rules, the obvious way.
#[derive(Default)]
pub(crate) struct Model {
    pub(crate) limits: Limits,
    pub(crate) now: Timestamp,
    pub(crate) revisions: Vec<Revision>,
    /// By index of `revisions`.
    pub(crate) handles: Vec<usize>,
    current: BTreeMap<u8, usize>,
    superseded: BTreeMap<u8, VecDeque<u8>>,
    pub(crate) containers: Vec<Container>,
    pub(crate) live: BTreeMap<ActivationId, Activation>,
    /// By revision and node.
    pub(crate) nodes: BTreeMap<(usize, u8), Breaker>,
    /// Ids that ended lately: what fits into the only set.
    ended: VecDeque<ActivationId>,
    pub(crate) full: Vec<bool>,
    /// Who was told to wait for room, in order.
    asked: Vec<usize>,
    /// Orders admissions, armings and uses.
    clock: u64,
    refused_numbers: u32,
    pub(crate) effects: Vec<String>,
}

pub(crate) struct Revision {
    name: u8,
    revision: u8,
    newer: Option<usize>,
    queue: Vec<ActivationId>,
}

pub(crate) struct Activation {
    push: Push,
    admitted: u64,
    armed: u64,
    /// It was overdue.
    pub(crate) answered: bool,
    dispatched_at: Timestamp,
}

impl Model {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { limits, full: vec![false; STREAMS.into()], ..Self::default() }
    }

    pub(crate) fn queued(&self) -> (u64, u64) {
        let queues = || self.revisions.iter().map(|revision| &revision.queue);
        (queues().map(|queue| queue.len() as u64).sum(), queues().map(|queue| self.bytes(queue)).sum())
    }

    fn bytes(&self, queue: &[ActivationId]) -> u64 {
        queue.iter().map(|id| self.live[id].push.payload.len() as u64).sum()
    }

    pub(crate) fn which(&self, at: usize, which: &Which) -> ActivationId {
        let own = &self.containers[at].in_flight;
        match *which {
            Which::Own(n) => pick(n, own.len()).map_or(activation(n % IDS), |place| own[place]),
            Which::Any(id) => activation(id),
        }
    }

    pub(crate) fn payload(&self, id: ActivationId) -> Bytes {
        self.live.get(&id).map(|activation| activation.push.payload.clone()).unwrap_or_default()
    }

    /// Those of its activations that the mask names, and one that it never had.
    pub(crate) fn held(&self, at: usize, mask: u8) -> Vec<ActivationId> {
        let own = self.containers[at].in_flight.iter().zip(0..);
        own.filter(|(_, bit)| mask >> bit & 1 == 1).map(|(id, _)| *id).chain([activation(IDS)]).collect()
    }

    pub(crate) fn key(&self, at: usize) -> ActionKey {
        key(self.revisions[at].name, self.revisions[at].revision)
    }

    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }
}
