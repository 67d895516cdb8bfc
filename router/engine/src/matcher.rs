//! One action's matcher: who waits, who has room, who gets what. Plain sequential code behind the single-file intake.
//!
//! ```text
//!             push, a credit is waiting                      complete
//!   (new) ──────────────────────────────────▶ in flight ───────────────▶ completed / failed
//!     │                                        ▲     │ │ │ container gone, or back without it
//!     │ push, none is      match               │     │ │ └────────────────▶ lost
//!     └──────────────▶ queued ─────────────────┘     │ │ deadline and a grace
//!                       │ ▲   returned or unsent     │ └──────────────────▶ timed out, and on its container for now
//!                       │ └──────────────────────────┘
//!                       └─ deadline ─▶ expired          (rejected: never enters)
//! ```

use crate::container::{Choice, ContainerKey, Containers, Registration, Room};
use crate::effect::{Dispatch, Effect, Entry};
use crate::id::{ActivationId, StreamId};
use crate::input::{Input, Push};
use crate::limits::Limits;
use crate::list::{Linked, Links, List};
use crate::mutant::{Mutant, is};
use crate::nodes::Nodes;
use crate::outcome::{Refusal, Rejection, Reply};
use crate::pace::Pace;
use crate::slab::{Key, Slab};
use crate::spill::Overflowing;
use crate::succession::Succession;
use crate::tally::Count;
use crate::time::Timestamp;
use crate::turn::Turn;
use crate::wheel::Armed;
use bytes::Bytes;
use std::time::Duration;

/// Queue, containers and activations in flight of one action.
#[derive(Debug, Default)]
pub(crate) struct Matcher {
    /// Every accepted activation, queued or in flight.
    pub(crate) slots: Slab<Slot>,
    /// The queued ones, first in, first out.
    pub(crate) queue: List,
    pub(crate) queued: u64,
    pub(crate) queued_bytes: u64,
    /// Once there was a refusal.
    pub(crate) pace: Option<Box<Pace>>,
    pub(crate) containers: Containers,
    /// The breakers of nodes, once there was a strike.
    pub(crate) nodes: Option<Box<Nodes>>,
    /// Of the next activation; wraps.
    pub(crate) sequence: u32,
    /// An offer of another lane than its own stands: the records did not come yet.
    pub(crate) offered: bool,
    /// What it has outside of memory.
    pub(crate) overflowing: Option<Box<Overflowing>>,
    /// Other revisions of the action, once it has to do with them.
    pub(crate) succession: Option<Box<Succession>>,
    /// The latest time it was told.
    latest: Timestamp,
}

#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) id: ActivationId,
    pub(crate) controller: StreamId,
    pub(crate) reply: Reply,
    /// Order of admission: a returned activation finds its place by it.
    pub(crate) sequence: u32,
    pub(crate) attempt: u32,
    /// Bytes that are reserved for it on its way out of memory; 0: it is not on it. It is queued nowhere then, and not accepted yet.
    pub(crate) spilling: u32,
    /// It came back from the store and has not left the queue since.
    pub(crate) refilled: bool,
    pub(crate) accepted_at: Timestamp,
    pub(crate) deadline: Timestamp,
    pub(crate) place: Place,
    pub(crate) links: Links,
}

#[derive(Debug)]
pub(crate) enum Place {
    Queued {
        payload: Bytes,
        armed: Option<Armed>,
    },
    InFlight {
        container: ContainerKey,
        dispatched_at: Timestamp,
        /// It was overdue.
        answered: bool,
    },
}

/// What a controller that came back is to hear of an activation that is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owed {
    /// Its answer, which is to come.
    Answer,
    /// Once more that it was taken: it wanted to hear no more, and may not have heard that.
    Acknowledgement,
    /// Nothing: it is another session's, or was answered.
    Nothing,
}

/// What a container gets. It is made before the slot of a new activation is written: what is read behind that waits until it has
/// reached the cache.
struct Parcel {
    id: ActivationId,
    attempt: u32,
    deadline: Timestamp,
    payload: Bytes,
}

impl Linked for Slot {
    fn links(&self) -> &Links {
        &self.links
    }

    fn links_mut(&mut self) -> &mut Links {
        &mut self.links
    }
}

impl Slot {
    /// Whether its controller has heard of it already, though it is still in flight.
    pub(crate) fn is_answered(&self) -> bool {
        matches!(self.place, Place::InFlight { answered: true, .. })
    }

    pub(crate) fn is_spilling(&self) -> bool {
        self.spilling > 0
    }

    /// Half of the time the activation came with: the least that is fair to the container it goes to. None: it was stored by
    /// an earlier life of the router, which does not say how much time it came with.
    pub(crate) fn fair_time(&self) -> Option<Duration> {
        let known = self.controller != StreamId::NOBODY || is(Mutant::TimeoutAlwaysStrikes);
        known.then(|| self.accepted_at.until(self.deadline) / 2)
    }

    /// Whether its container had a fair time for it, as of its dispatch: only then is a timeout the container's fault.
    pub(crate) fn had_fair_time(&self) -> bool {
        let left = self.dispatched_at().until(self.deadline);
        is(Mutant::TimeoutAlwaysStrikes) || self.fair_time().is_some_and(|fair| left >= fair)
    }

    /// When it was dispatched; it is in flight.
    pub(crate) fn dispatched_at(&self) -> Timestamp {
        let Place::InFlight { dispatched_at, .. } = self.place else { unreachable!("it is in flight") };
        dispatched_at
    }
}

impl Matcher {
    pub(crate) fn handle(&mut self, input: Input, turn: &mut Turn<'_>) {
        self.catch_up(&input, turn);
        match input {
            Input::Push(push) => self.push(push, turn),
            Input::Credit(container, credits) => self.credit(container, credits, turn),
            Input::Complete(container, completion) => self.complete(container, completion, turn),
            Input::Return(container, id, payload) => self.take_back(container, id, payload, turn),
            Input::Suspend(container) => self.suspend(container),
            Input::Unsent(container, id, payload) => self.unsent(container, id, payload, turn),
            Input::Rejoin(container, rejoin) => self.rejoin(container, rejoin, turn),
            Input::Audit(container, credits, received) => self.audit(container, credits, received, turn),
            Input::Retire(container) => self.retire(container, turn),
            Input::Gone(container) => self.gone(container, turn),
            Input::Resume(container) => self.resume(container, turn),
            Input::Expire(key) => self.deadline_has_come(key, turn),
            Input::Look(container) => self.look(container, turn),
            Input::Stored(slot, how) => self.stored(slot, how, turn),
            Input::Refilled(refilled) => self.refilled(*refilled, turn),
            Input::Recall(lane, end) => self.recall(lane, end, turn),
            Input::Supersede(newer) => self.supersede(newer, turn),
            Input::Behind(older) => self.let_wait(older, turn),
            Input::MoveOn => self.may_move_on(turn),
        }
    }

    pub(crate) fn register(&mut self, new: Registration, turn: &mut Turn<'_>) -> Result<ContainerKey, Rejection> {
        turn.now = self.latest.max(turn.now);
        let credits = new.credits;
        let key = self.containers.register(new)?;
        turn.tally.count(Count::ContainersRegistered);
        turn.tally.add(Count::CreditsGranted, credits.into());
        self.guard(key, turn);
        self.settle(turn);
        Ok(key)
    }

    /// A thread may be at it for others long after its pass began, and another come whose pass began earlier. Time goes on
    /// meanwhile, and pushes and completions tell how far.
    fn catch_up(&mut self, input: &Input, turn: &mut Turn<'_>) {
        let arrived = match input {
            Input::Push(push) => push.accepted_at,
            Input::Complete(_, completion) => completion.arrived_at,
            _ => Timestamp::ZERO,
        };
        self.latest = self.latest.max(turn.now).max(arrived);
        turn.now = self.latest;
    }

    /// What the controller of that session is to hear of the activation in that slot; None: another one is there, or none.
    pub(crate) fn owes(&self, slot: Key, id: &ActivationId, session: StreamId) -> Option<Owed> {
        let slot = self.slots.get(slot).filter(|slot| slot.id == *id)?;
        // One on its way into the store has not been acknowledged yet.
        let spilling = slot.is_spilling() && !is(Mutant::SpillingTakenForLost);
        Some(match slot.reply {
            _ if slot.controller != session => Owed::Nothing,
            Reply::Accepted if !spilling => Owed::Acknowledgement,
            _ if slot.is_answered() => Owed::Nothing,
            Reply::Outcome | Reply::Accepted => Owed::Answer,
        })
    }

    /// Since when it has had nothing to do, as far as it knows: nothing queued, nothing in flight, no containers, and nothing to
    /// remember of nodes that are gone.
    pub(crate) fn idle_since(&self, limits: &Limits) -> Option<Timestamp> {
        let nodes = self.nodes.as_ref().and(limits.breaker.as_ref());
        let known_until = nodes.map_or(self.latest, |rules| self.latest + rules.window + rules.open_max);
        (self.is_quiet() && self.containers.is_empty()).then_some(known_until)
    }

    /// Nothing queued, nothing in flight, nothing outside of memory.
    pub(crate) fn is_quiet(&self) -> bool {
        self.slots.is_empty() && self.overflowing.is_none()
    }

    // Activations come in.

    fn push(&mut self, push: Push, turn: &mut Turn<'_>) {
        if let Some(newer) = self.newer() {
            turn.tally.count(Count::Redirected);
            return turn.elsewhere.push_back((newer.clone(), Input::Push(push)));
        }
        let (controller, id) = (push.controller, push.id);
        let admitted = if push.deadline <= turn.now {
            self.too_late(&push, turn)
        } else {
            let first = self.queue.is_empty() && self.overflowing.is_none();
            let container = if first { self.choose(turn) } else { None };
            match container {
                Some(container) => self.start(push, container, turn),
                None => self.enqueue(push, turn),
            }
        };
        if let Err(rejection) = admitted {
            // A repetition is told that it is one, also where there is no room: else its controller takes it for never started.
            let known = turn.shared.known(&id).filter(|_| !is(Mutant::RepetitionTakenForNew));
            let rejection = known.unwrap_or(rejection);
            turn.reject(controller, id, rejection);
        }
    }

    /// Hands a new activation straight to the container chosen for it.
    fn start(&mut self, mut push: Push, container: ContainerKey, turn: &mut Turn<'_>) -> Result<(), Rejection> {
        let Push { id, attempt, deadline, .. } = push;
        let parcel = Parcel { id, attempt, deadline, payload: std::mem::take(&mut push.payload) };
        let place = Place::InFlight { container, dispatched_at: turn.now, answered: false };
        let admitted = self.admit(&push, place, turn);
        let key = admitted.inspect_err(|_| self.containers.unchoose(container))?;
        turn.tally.count(Count::Matched);
        if push.refilled {
            self.slots[key].refilled = false;
            turn.tally.count(Count::RefillLeft);
        }
        self.send(key, container, parcel, turn);
        Ok(())
    }

    // Containers have room.

    fn credit(&mut self, key: ContainerKey, credits: u32, turn: &mut Turn<'_>) {
        self.grant(key, credits, turn);
        self.settle(turn);
    }

    fn resume(&mut self, key: ContainerKey, turn: &mut Turn<'_>) {
        if !is(Mutant::RoomForgotten) {
            self.containers.resume(key);
        }
        self.settle(turn);
    }

    pub(crate) fn grant(&mut self, key: ContainerKey, credits: u32, turn: &mut Turn<'_>) {
        let granted = self.containers.grant(key, credits);
        self.granted(key, granted, turn);
    }

    /// Counts credits that were granted, or refuses them.
    #[inline]
    pub(crate) fn granted(&self, key: ContainerKey, granted: Result<u32, Rejection>, turn: &mut Turn<'_>) {
        match granted {
            Ok(granted) => turn.tally.add(Count::CreditsGranted, granted.into()),
            Err(rejection) => self.refuse(key, rejection, &[], turn),
        }
    }

    /// Matches what is queued with who has room, then sees whether a superseded revision is done.
    pub(crate) fn settle(&mut self, turn: &mut Turn<'_>) {
        self.match_queued(turn);
        while self.overflowing.is_some() && self.tend(turn) {
            self.match_queued(turn);
        }
        if self.succession.is_some() {
            self.hand_over(turn);
        }
    }

    fn match_queued(&mut self, turn: &mut Turn<'_>) {
        while let Some(key) = self.queue.first().filter(|key| !self.is_blocked(*key)) {
            let late = if is(Mutant::DeadlineOffByOne) {
                turn.now > self.slots[key].deadline
            } else {
                turn.now >= self.slots[key].deadline
            };
            if late && !is(Mutant::DeadlineNotChecked) {
                self.expire(key, turn);
                continue;
            }
            let Some(container) = self.choose(turn) else { break };
            let payload = self.dequeue(key, turn);
            let slot = &mut self.slots[key];
            slot.place = Place::InFlight { container, dispatched_at: turn.now, answered: false };
            let Slot { id, attempt, deadline, .. } = *slot;
            self.send(key, container, Parcel { id, attempt, deadline, payload }, turn);
        }
    }

    fn choose(&mut self, turn: &mut Turn<'_>) -> Option<ContainerKey> {
        loop {
            match self.containers.choose() {
                Choice::Chosen(key) => return Some(key),
                Choice::None => return None,
                Choice::AwaitsRoom(key) => {
                    turn.tally.count(Count::AwaitedRoom);
                    let stream = self.containers.get(key).expect("just chosen").stream;
                    turn.effects.push(Effect::AwaitRoom(stream, turn.action.clone(), key));
                }
            }
        }
    }

    /// Sends an activation that is in flight from now on. It is never taken back from here; only its container can.
    fn send(&mut self, key: Key, container: ContainerKey, parcel: Parcel, turn: &mut Turn<'_>) {
        turn.tally.count(Count::Dispatched);
        let Parcel { id, attempt, deadline, payload } = parcel;
        debug_assert!(deadline > turn.now, "nothing is dispatched at or after its deadline");
        let due = deadline + turn.shared.limits.overdue_grace;
        let time_left_ms = u32::try_from(turn.now.millis_until(deadline).max(1)).unwrap_or(u32::MAX);
        let to = self.containers.get_mut(container).expect("a chosen container is registered");
        to.room.take(Room::cost(&payload));
        to.activations.push_back(&mut self.slots, key);
        let dispatch = Dispatch { container: to.number, epoch: to.epoch, id, time_left_ms, payload, attempt };
        turn.effects.push(Effect::Write(to.stream, Entry::Dispatch(dispatch)));
        if due < to.watched_at {
            self.watch(container, due, turn);
        }
        if self.is_guarded(container) {
            self.begin(container, turn);
        }
    }

    /// Frees a slot and its id.
    pub(crate) fn forget(&mut self, key: Key, turn: &Turn<'_>) -> Slot {
        let slot = self.slots.remove(key).expect("the key was just looked up");
        turn.shared.free_id(&slot.id);
        slot
    }

    pub(crate) fn refuse(&self, key: ContainerKey, rejection: Rejection, id: &[u8], turn: &mut Turn<'_>) {
        turn.tally.refused(rejection.reason);
        if let Some(container) = self.containers.get(key) {
            let refusal = Refusal::new(rejection, container.number, id);
            turn.effects.push(Effect::Write(container.stream, Entry::Refuse(refusal)));
        }
    }
}

/// A payload of its own: one that waits must not keep the frame it came in alive, or more is held than is counted.
pub(crate) fn compact(payload: &Bytes) -> Bytes {
    Bytes::copy_from_slice(payload)
}

/// Whether sequence number `a` was given before `b`, across the wrap-around: they are never 2^31 apart.
pub(crate) fn is_earlier(a: u32, b: u32) -> bool {
    a != b && b.wrapping_sub(a) < 1 << 31
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::effect::Perform;
    use crate::hub::{Action, Hub, Pass};
    use crate::id::{ActionKey, NodeName};
    use crate::input::{Completion, Rejoin};
    use crate::outcome::{Outcome, RunStatus};
    use crate::tables;
    use std::sync::Arc;
    use std::time::Duration;

    #[test]
    fn sizes() {
        let bytes = (Slab::<Slot>::ENTRY_BYTES, Containers::CONTAINER_BYTES, size_of::<Matcher>(), size_of::<Input>());
        assert_eq!(bytes, (120, 128, 216, 88), "a slot, a container, a matcher, an input");
    }

    #[derive(Debug, Default)]
    struct Recorder(Vec<Effect>);

    impl Perform for Recorder {
        fn perform(&mut self, effects: &mut Vec<Effect>) {
            self.0.append(effects);
        }
    }

    const ID: ActivationId = ActivationId([1; ActivationId::LEN]);
    const TIME_LEFT: Duration = Duration::from_millis(100);
    const STATES: [&str; 5] = ["new", "queued", "in flight", "timed out", "ended"];
    const EVENTS: [&str; 14] = [
        "push",
        "push, too late",
        "credit",
        "complete",
        "complete, failed",
        "return",
        "unsent",
        "suspend",
        "rejoin with it",
        "rejoin without",
        "retire",
        "gone",
        "deadline",
        "deadline and grace",
    ];

    /// One action, one container with room for one, one activation.
    struct World {
        hub: Hub,
        pass: Pass<Recorder>,
        action: Arc<Action>,
        container: ContainerKey,
    }

    impl World {
        fn new() -> Self {
            let hub = Hub::new(Limits { recent_sets: 1, breaker: None, ..Limits::default() }, 7, 1, Timestamp::ZERO);
            let (key, mut pass) = (ActionKey::new("tenant", "action", ""), Pass::new(Recorder::default()));
            let room = Arc::new(Room::new(usize::MAX));
            let stream = StreamId(2);
            let node = NodeName::new("node");
            let new = Registration { stream, node, number: 1, epoch: 0, concurrency: 1, credits: 0, warm: true, room };
            let (action, container) = hub.register(&key, new, &mut pass).unwrap();
            Self { hub, pass, action, container }
        }

        fn at(state: &str) -> Self {
            let mut world = Self::new();
            let way: &[&str] = match state {
                "new" => &[],
                "queued" => &["push"],
                "in flight" => &["push", "credit"],
                "timed out" => &["push", "credit", "deadline and grace"],
                _ => &["push", "credit", "complete"],
            };
            way.iter().for_each(|event| world.take(event));
            world.pass.performer.0.clear();
            assert_eq!(world.state(), state);
            world
        }

        fn take(&mut self, event: &str) {
            let (on, now) = (self.container, self.pass.now);
            let push = |deadline| {
                let (payload, reply) = (Bytes::from_static(b"payload"), Reply::Outcome);
                let controller = StreamId(1);
                Input::Push(Push {
                    id: ID,
                    controller,
                    reply,
                    attempt: 1,
                    accepted_at: now,
                    deadline,
                    payload,
                    accepted: false,
                    refilled: false,
                })
            };
            let complete = |status| {
                let arrived_at = Timestamp::ZERO;
                Input::Complete(
                    on,
                    Completion { id: ID, status, result: Bytes::new(), run_us: 0, arrived_at, credits: 0 },
                )
            };
            let input = match event {
                "push" => push(now + TIME_LEFT),
                "push, too late" => push(now),
                "credit" => Input::Credit(on, 1),
                "complete" => complete(RunStatus::Succeeded),
                "complete, failed" => complete(RunStatus::PlatformFailed),
                "return" => Input::Return(on, ID, Bytes::new()),
                "unsent" => Input::Unsent(on, ID, Bytes::new()),
                "suspend" => Input::Suspend(on),
                "rejoin with it" => Input::Rejoin(on, Rejoin { credits: 0, held: vec![ID] }),
                "rejoin without" => Input::Rejoin(on, Rejoin { credits: 0, held: Vec::new() }),
                "retire" => Input::Retire(on),
                "gone" => Input::Gone(on),
                "deadline" => return self.let_pass(TIME_LEFT),
                _ => return self.let_pass(TIME_LEFT + self.hub.limits().overdue_grace),
            };
            self.hub.enter(&self.action, &mut vec![input], &mut self.pass);
        }

        fn let_pass(&mut self, time: Duration) {
            // A tick more: the wheel rounds up.
            self.pass.now = self.pass.now + time + Duration::from_millis(2);
            while self.hub.advance(1, &mut self.pass) {}
        }

        fn state(&mut self) -> &'static str {
            self.hub.settle(&mut self.pass);
            let (totals, held) = (self.hub.totals(), self.hub.held());
            assert_eq!(totals.of(Count::Accepted) + totals.overdue(), totals.ended() + held as u64);
            match (held, self.hub.budget().queued(), totals.overdue()) {
                (0, 0, 0) if totals.of(Count::Accepted) == 0 => "new",
                (0, 0, 0) => "ended",
                (1, 1, 0) => "queued",
                (1, 0, 0) => "in flight",
                (1, 0, 1) => "timed out",
                other => unreachable!("no such state: {other:?}"),
            }
        }
    }

    #[test]
    fn every_transition_of_an_activation_is_as_written() {
        let mut table = String::new();
        for (state, event) in STATES.iter().flat_map(|state| EVENTS.iter().map(move |event| (state, event))) {
            let mut world = World::at(state);
            world.take(event);
            let to = world.state();
            let said = world.pass.performer.0.iter().filter_map(|effect| match effect {
                Effect::Write(_, Entry::Dispatch(dispatch)) => Some(format!("dispatch, attempt {}", dispatch.attempt)),
                Effect::Write(_, Entry::Answer(answer)) => Some(match answer.outcome {
                    Outcome::Rejected(rejection) => format!("rejected {}", rejection.reason.label()),
                    ref outcome => format!("{outcome:?}"),
                }),
                Effect::Write(_, Entry::Refuse(refusal)) => {
                    Some(format!("refused {}", refusal.rejection.reason.label()))
                }
                Effect::Write(_, Entry::Drain(..)) => Some("drain".to_owned()),
                Effect::Write(_, Entry::Draining) => unreachable!("the engine never says that the router drains"),
                Effect::AwaitRoom(..) | Effect::Spill(_) | Effect::Refill(_) | Effect::WakeAt(_) => None,
            });
            let said = said.collect::<Vec<_>>().join(", ");
            table += format!("{state:10} {event:20} -> {to:10} {said}").trim_end();
            table.push('\n');
        }
        tables::check("activation.txt", &table);
    }
}
