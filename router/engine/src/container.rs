//! The containers of an action: their credits, and which one gets the next activation.
//!
//! Warm before cold, then the most recently used, so that the idle ones stay idle and can go away. Two lists hold the
//! containers that can take one now; the choice is the head of one of them, never a scan.
//!
//! ```text
//!               credits > 0, open, room in its stream's outbox
//!   warm  ─▶ most recent ─▶ … ─▶ least recent       a container enters at the head: when it completes, and when its
//!   cold  ─▶ most recent ─▶ … ─▶ least recent       first credit comes; it leaves with its last credit
//! ```

use crate::audit::Audit;
use crate::breaker::{Breaker, State};
use crate::guard::Tripped;
use crate::id::{NodeName, StreamId};
use crate::list::{Linked, Links, List};
use crate::mutant::{Mutant, is};
use crate::outcome::{Reason, Rejection};
use crate::slab::{Key, Slab};
use crate::sync::{AtomicUsize, Ordering};
use crate::time::Timestamp;
use crate::wheel::Armed;
use crate::withheld::{Because, Withheld};
use bytes::Bytes;
use std::sync::Arc;

/// A container within its action. Stale once the container has left, and then recognised as such.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContainerKey(Key);

/// Room for dispatches in a stream's outbox. The engine takes it with each dispatch, so that even one turn over a long backlog
/// stops in time; the driver gives it back when the stream's writer has taken them.
#[derive(Debug)]
pub struct Room {
    taken: AtomicUsize,
    bytes_max: usize,
}

impl Room {
    /// All free. It may be overdrawn by one dispatch.
    pub fn new(bytes_max: usize) -> Self {
        Self { taken: AtomicUsize::new(0), bytes_max }
    }

    /// What a dispatch takes: its payload and a little for what goes with it.
    pub fn cost(payload: &Bytes) -> usize {
        payload.len() + 128
    }

    /// True: dispatch nothing more to this stream for now.
    pub fn is_full(&self) -> bool {
        // Relaxed, as below: it counts a quantity and guards no other memory; a late look costs one more dispatch.
        self.taken.load(Ordering::Relaxed) > self.bytes_max
    }

    /// Takes that many bytes.
    pub fn take(&self, bytes: usize) {
        self.taken.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Gives back what was taken.
    pub fn give_back(&self, bytes: usize) {
        self.taken.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// A container as its invoker registers it.
#[derive(Debug)]
pub struct Registration {
    /// The stream that carries it.
    pub stream: StreamId,
    /// The node it is on.
    pub node: NodeName,
    /// Its number on that stream.
    pub number: u32,
    /// Tells its registrations under that number apart. The engine hands it back with each dispatch and looks at it no further.
    pub epoch: u32,
    /// How many activations it runs at once.
    pub concurrency: u32,
    /// Its first credits, at most `concurrency`.
    pub credits: u32,
    /// Initialised already.
    pub warm: bool,
    /// Whether the stream's outbox has room.
    pub room: Arc<Room>,
}

/// A registered container.
#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) stream: StreamId,
    pub(crate) node: NodeName,
    pub(crate) number: u32,
    pub(crate) epoch: u32,
    concurrency: u32,
    credits: u32,
    in_flight: u32,
    /// Dispatches since it was registered or rejoined, less those unsent; wraps.
    dispatched: u32,
    warm: bool,
    withheld: Withheld,
    /// In one of the two lists.
    listed: bool,
    pub(crate) room: Arc<Room>,
    /// When it is looked at whether something is overdue, and the timer for that.
    pub(crate) watched_at: Timestamp,
    pub(crate) watch: Option<Armed>,
    /// Made at its first strike.
    pub(crate) breaker: Option<Box<Breaker>>,
    /// What it has in flight; links of the action's slots.
    pub(crate) activations: List,
    links: Links,
}

impl Linked for Container {
    fn links(&self) -> &Links {
        &self.links
    }

    fn links_mut(&mut self) -> &mut Links {
        &mut self.links
    }
}

impl Container {
    fn is_retired(&self) -> bool {
        self.withheld.is(Because::Retired)
    }

    pub(crate) fn add_to(&self, audit: &mut Audit) {
        audit.containers += 1;
        audit.suspended += u64::from(self.withheld.is(Because::Suspended));
        audit.tripped += u64::from(self.withheld.is_tripped());
        if self.is_retired() {
            audit.retired_in_flight += u64::from(self.in_flight);
        } else {
            audit.slots += u64::from(self.concurrency);
            audit.in_flight += u64::from(self.in_flight);
            audit.credits += u64::from(self.credits);
        }
    }

    /// How many more credits it may have.
    fn places(&self) -> u32 {
        self.concurrency - self.credits - self.in_flight
    }

    /// Adds credits. A retired one's are worth nothing and are let go.
    fn grant(&mut self, credits: u32) -> Result<u32, Rejection> {
        if self.is_retired() {
            return Ok(0);
        }
        if credits > self.places() {
            return Err(credit_overflow(self.concurrency));
        }
        self.credits += credits;
        Ok(credits)
    }
}

/// By how many credits router and container differed.
#[derive(Debug, Default)]
pub(crate) struct Compared {
    /// Only the router knew them; they are revoked.
    pub(crate) phantom: u32,
    /// Only the container knew them; they are granted.
    pub(crate) leaked: u32,
}

/// All containers of an action.
#[derive(Debug, Default)]
pub(crate) struct Containers {
    all: Slab<Container>,
    warm: List,
    cold: List,
    /// Those not retired.
    open: u32,
    /// Those of them that breakers withhold activations from.
    tripped: u32,
}

/// What became of the choice of a container.
pub(crate) enum Choice {
    /// This one; a credit of it is spent.
    Chosen(ContainerKey),
    /// This one would be next, but its stream's outbox is full. It is off the lists until it is resumed.
    AwaitsRoom(ContainerKey),
    /// None has a credit.
    None,
}

impl Containers {
    /// Bytes one container takes.
    #[cfg(test)]
    pub(crate) const CONTAINER_BYTES: usize = Slab::<Container>::ENTRY_BYTES;

    pub(crate) fn register(&mut self, new: Registration) -> Result<ContainerKey, Rejection> {
        if new.credits > new.concurrency {
            return Err(credit_overflow(new.concurrency));
        }
        let node =
            if is(Mutant::NodeBreakerBySession) { NodeName::new(&new.stream.0.to_string()) } else { new.node.clone() };
        let Registration { stream, number, epoch, concurrency, credits, warm, room, .. } = new;
        let container = Container {
            stream,
            node,
            number,
            epoch,
            concurrency,
            credits,
            in_flight: 0,
            dispatched: 0,
            warm,
            withheld: Withheld::default(),
            listed: false,
            room,
            watched_at: Timestamp::NEVER,
            watch: None,
            breaker: None,
            activations: List::default(),
            links: Links::default(),
        };
        let key = ContainerKey(self.all.insert(container));
        self.open += 1;
        self.list(key);
        Ok(key)
    }

    pub(crate) fn get(&self, key: ContainerKey) -> Option<&Container> {
        self.all.get(key.0)
    }

    pub(crate) fn get_mut(&mut self, key: ContainerKey) -> Option<&mut Container> {
        self.all.get_mut(key.0)
    }

    /// Whether the action has no container that takes activations.
    pub(crate) fn none_open(&self) -> bool {
        self.open == 0
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Chooses the container for the next activation and spends a credit of it.
    pub(crate) fn choose(&mut self) -> Choice {
        let Some(key) = self.warm.first().or(self.cold.first()).map(ContainerKey) else { return Choice::None };
        let container = &mut self.all[key.0];
        if container.room.is_full() && !is(Mutant::RoomIgnored) {
            container.withheld.add(Because::Room);
            self.unlist(key);
            return Choice::AwaitsRoom(key);
        }
        container.credits -= 1;
        container.in_flight += 1;
        container.dispatched = container.dispatched.wrapping_add(1);
        if container.credits == 0 {
            self.unlist(key);
        }
        Choice::Chosen(key)
    }

    /// Takes back a choice that came to nothing.
    pub(crate) fn unchoose(&mut self, key: ContainerKey) {
        self.undo(key);
    }

    /// Takes back a dispatch that never left. False if its credit is worth nothing, as the container has retired.
    pub(crate) fn unsent(&mut self, key: ContainerKey) -> bool {
        self.undo(key);
        let container = &mut self.all[key.0];
        if container.is_retired() {
            container.credits = 0;
            return false;
        }
        true
    }

    fn undo(&mut self, key: ContainerKey) {
        let container = &mut self.all[key.0];
        container.in_flight -= 1;
        container.dispatched = container.dispatched.wrapping_sub(1);
        container.credits += 1;
        self.list(key);
    }

    /// Adds credits. A retired container's are worth nothing and are let go.
    pub(crate) fn grant(&mut self, key: ContainerKey, credits: u32) -> Result<u32, Rejection> {
        let Some(container) = self.all.get_mut(key.0) else { return Ok(0) };
        let granted = container.grant(credits);
        self.list(key);
        granted
    }

    /// An activation on it ended, and that many credits came with the news: it is warm, and the most recently used. As for
    /// [`grant`](Self::grant).
    pub(crate) fn completed(&mut self, key: ContainerKey, credits: u32) -> Result<u32, Rejection> {
        let container = &mut self.all[key.0];
        container.in_flight -= 1;
        let granted = container.grant(credits);
        if self.warm.first() != Some(key.0) {
            self.unlist(key);
            self.all[key.0].warm = true;
            self.list(key);
        }
        granted
    }

    /// For a planted bug.
    pub(crate) fn free_place(&mut self, key: ContainerKey) {
        let container = &mut self.all[key.0];
        container.in_flight = container.in_flight.saturating_sub(1);
    }

    /// An activation is not on it any more, and not because it ran there.
    pub(crate) fn left(&mut self, key: ContainerKey) {
        self.all[key.0].in_flight -= 1;
    }

    /// Its stream's outbox has room again.
    pub(crate) fn resume(&mut self, key: ContainerKey) {
        if let Some(container) = self.all.get_mut(key.0)
            && container.withheld.lift(Because::Room)
        {
            self.list(key);
        }
    }

    /// Whether breakers withhold activations from any that is not retired.
    pub(crate) fn any_tripped(&self) -> bool {
        self.tripped > 0
    }

    /// Adds or lifts a breaker's reason.
    pub(crate) fn set(&mut self, key: ContainerKey, because: Because, withheld: bool) {
        let Some(container) = self.all.get_mut(key.0) else { return };
        let was = container.withheld.is_tripped();
        let changed = if withheld { container.withheld.add(because) } else { container.withheld.lift(because) };
        if changed {
            self.tripped += u32::from(container.withheld.is_tripped());
            self.tripped -= u32::from(was);
            if withheld { self.unlist(key) } else { self.list(key) }
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Container> {
        self.all.iter().map(|(_, container)| container)
    }

    /// Those of a node, in order of sessions and of their numbers: the last one becomes the most recent.
    pub(crate) fn of(&self, node: &NodeName) -> Vec<ContainerKey> {
        let own = self.all.iter().filter(|(_, container)| container.node == *node);
        let place = |container: &Container| (container.stream, container.number);
        let mut own: Vec<_> = own.map(|(key, container)| (place(container), ContainerKey(key))).collect();
        own.sort_unstable_by_key(|(place, _)| *place);
        own.into_iter().map(|(_, key)| key).collect()
    }

    /// Their breakers that are not closed.
    pub(crate) fn tripped(&self) -> impl Iterator<Item = Tripped> {
        self.all.iter().filter_map(|(_, container)| {
            let breaker = container.breaker.as_ref().filter(|breaker| breaker.state() != State::Closed)?;
            Some(Tripped::new(&container.node, Some((container.stream, container.number)), breaker))
        })
    }

    /// Its stream broke.
    pub(crate) fn suspend(&mut self, key: ContainerKey) {
        if let Some(container) = self.all.get_mut(key.0) {
            container.withheld.add(Because::Suspended);
            if !is(Mutant::SuspendedGetsWork) {
                self.unlist(key);
            }
        }
    }

    /// It is back, with that many credits in place of those it had. Returns how many it had, and how many were granted;
    /// nothing if it has retired.
    pub(crate) fn rejoin(&mut self, key: ContainerKey, credits: u32) -> Option<(u32, Result<u32, Rejection>)> {
        let container = &mut self.all[key.0];
        container.dispatched = 0;
        container.withheld.lift(Because::Suspended);
        // Whether there is room is seen with the next dispatch; who was told to wait for it may be forgotten.
        container.withheld.lift(Because::Room);
        let revoked = if is(Mutant::RejoinAddsCredits) { 0 } else { std::mem::take(&mut container.credits) };
        let retired = container.is_retired();
        self.unlist(key);
        (!retired).then(|| (revoked, self.grant(key, credits)))
    }

    /// Makes a container's credits what it states, and tells by how much they differed.
    pub(crate) fn compare(&mut self, key: ContainerKey, stated: u32, received: u32) -> Compared {
        let Some(container) = self.all.get_mut(key.0).filter(|container| !container.is_retired()) else {
            return Compared::default();
        };
        // What is still on its way was spent here and not yet there.
        let underway = if is(Mutant::AuditForgetsUnderway) { 0 } else { container.dispatched.wrapping_sub(received) };
        let here = container.credits.wrapping_add(underway);
        // Differences are far smaller than half of what the counts wrap at.
        let surplus = here.wrapping_sub(stated).cast_signed();
        if surplus < 0 {
            let leaked = surplus.unsigned_abs().min(container.places());
            container.credits += leaked;
            self.list(key);
            return Compared { leaked, phantom: 0 };
        }
        let phantom = surplus.unsigned_abs().min(container.credits);
        container.credits -= phantom;
        if container.credits == 0 {
            self.unlist(key);
        }
        Compared { leaked: 0, phantom }
    }

    /// It takes no more. Returns the credits it had, or nothing if it had retired before or left.
    pub(crate) fn retire(&mut self, key: ContainerKey) -> Option<u32> {
        let container = self.all.get_mut(key.0)?;
        let was_tripped = container.withheld.is_tripped();
        if !container.withheld.add(Because::Retired) {
            return None;
        }
        self.tripped -= u32::from(was_tripped);
        let credits = std::mem::take(&mut container.credits);
        self.open -= 1;
        self.unlist(key);
        Some(credits)
    }

    /// Forgets a retired container that has nothing in flight any more. False if it was forgotten before.
    pub(crate) fn remove(&mut self, key: ContainerKey) -> bool {
        let removed = self.all.remove(key.0);
        debug_assert!(removed.as_ref().is_none_or(|container| !container.listed && container.activations.is_empty()));
        removed.is_some()
    }

    /// All of them.
    pub(crate) fn keys(&self) -> Vec<ContainerKey> {
        self.all.iter().map(|(key, _)| ContainerKey(key)).collect()
    }

    /// Those not retired.
    pub(crate) fn open(&self) -> Vec<ContainerKey> {
        let open = self.all.iter().filter(|(_, container)| !container.is_retired());
        open.map(|(key, _)| ContainerKey(key)).collect()
    }

    fn list(&mut self, key: ContainerKey) {
        let container = &mut self.all[key.0];
        if container.listed || container.credits == 0 || !container.withheld.takes() {
            return;
        }
        container.listed = true;
        let list = if container.warm { &mut self.warm } else { &mut self.cold };
        list.push_front(&mut self.all, key.0);
    }

    fn unlist(&mut self, key: ContainerKey) {
        let container = &mut self.all[key.0];
        if std::mem::take(&mut container.listed) {
            let list = if container.warm { &mut self.warm } else { &mut self.cold };
            list.remove(&mut self.all, key.0);
        }
    }
}

fn credit_overflow(concurrency: u32) -> Rejection {
    Rejection::new(Reason::CreditOverflow, "credits", concurrency.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables;

    const REASONS: [(&str, Because); 5] = [
        ("retired", Because::Retired),
        ("suspended", Because::Suspended),
        ("room", Because::Room),
        ("breaker", Because::Breaker),
        ("node", Because::Node),
    ];

    /// With one of two credits spent, and all reasons of the mask.
    fn withheld(mask: usize) -> (Containers, ContainerKey) {
        let mut containers = Containers::default();
        let room = Arc::new(Room::new(usize::MAX));
        let (stream, node) = (StreamId(1), NodeName::new("node"));
        let new = Registration { stream, node, number: 1, epoch: 0, concurrency: 3, credits: 2, warm: true, room };
        let key = containers.register(new).unwrap();
        assert!(matches!(containers.choose(), Choice::Chosen(_)));
        for (bit, (_, because)) in REASONS.iter().enumerate().filter(|(bit, _)| mask >> bit & 1 == 1) {
            match because {
                Because::Retired => _ = containers.retire(key),
                Because::Suspended => containers.suspend(key),
                Because::Room => {
                    containers.unlist(key);
                    containers.all[key.0].withheld.add(Because::Room);
                }
                Because::Breaker | Because::Node => containers.set(key, REASONS[bit].1, true),
            }
        }
        (containers, key)
    }

    fn described(containers: &Containers, key: ContainerKey) -> String {
        let container = containers.get(key).unwrap();
        let reasons = REASONS.iter().filter(|(_, because)| container.withheld.is(*because));
        let reasons: Vec<&str> = reasons.map(|(name, _)| *name).collect();
        let (credits, in_flight) = (container.credits, container.in_flight);
        assert_eq!(container.listed, reasons.is_empty() && credits > 0, "listed, if and only if it takes activations");
        assert_eq!(containers.tripped, u32::from(container.withheld.is_tripped()), "counted while a breaker withholds");
        assert_eq!(containers.open, u32::from(!container.is_retired()));
        let standing = if reasons.is_empty() { "takes".to_owned() } else { reasons.join(" + ") };
        format!("{standing}, credits {credits} in flight {in_flight}")
    }

    #[test]
    fn every_change_of_standing_is_as_written() {
        type Event = fn(&mut Containers, ContainerKey);
        let events: [(&str, Event); 14] = [
            ("grant 1", |all, key| _ = all.grant(key, 1)),
            ("complete", |all, key| _ = all.completed(key, 0)),
            ("complete, credit", |all, key| _ = all.completed(key, 1)),
            ("return", |all, key| all.left(key)),
            ("unsent", |all, key| _ = all.unsent(key)),
            ("suspend", |all, key| all.suspend(key)),
            ("rejoin, credits 1", |all, key| _ = all.rejoin(key, 1)),
            ("audit, credits 0", |all, key| _ = all.compare(key, 0, 1)),
            ("audit, credits 2", |all, key| _ = all.compare(key, 2, 1)),
            ("room", |all, key| all.resume(key)),
            ("breaker opens", |all, key| all.set(key, Because::Breaker, true)),
            ("breaker allows", |all, key| all.set(key, Because::Breaker, false)),
            ("node's allows", |all, key| all.set(key, Because::Node, false)),
            ("retire", |all, key| _ = all.retire(key)),
        ];
        let mut table = String::new();
        for mask in 0..1 << REASONS.len() {
            for (name, event) in events {
                let (mut containers, key) = withheld(mask);
                let before = described(&containers, key);
                event(&mut containers, key);
                let after = described(&containers, key);
                // Combined reasons are checked; the table shows them one by one.
                if mask.count_ones() < 2 {
                    table += &format!("{before:34} {name:18} -> {after}\n");
                }
            }
        }
        tables::check("container.txt", &table);
    }
}
