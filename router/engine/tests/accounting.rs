//! Random interleavings of everything that can happen, against a model that does the same with plain lists and scans: what
//! the engine asks to be done must be the same to the letter, the counts must balance after each step, and when all have left
//! nothing may remain.
//!
//! Beside the model an [`Audit`] looks at the effects alone, so that model and engine cannot be wrong together about what
//! matters most: one answer for each push, one dispatch unless returned, none after the deadline.

use bytes::Bytes;
use engine::breaker::{Breaker, Cause, Rules, State, Verdict};
use engine::container::{ContainerKey, Registration, Room};
use engine::effect::{Effect, Entry, Perform};
use engine::hub::{Action, Hub, Pass};
use engine::id::{ActionKey, ActivationId, StreamId};
use engine::input::{Completion, Input, Push, Rejoin};
use engine::limits::{Limits, REVISIONS_REMEMBERED};
use engine::outcome::{Outcome, Reply, RunStatus};
use engine::tally::Count;
use engine::time::Timestamp;
use proptest::prelude::*;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_interleaving_adds_up(limits in limits(), steps in prop::collection::vec(step(), 1..200)) {
        let mut pair = Pair::new(limits);
        (0..NAMES).for_each(|name| pair.take(&Step::Declare { name, revision: 0 }));
        steps.iter().for_each(|step| pair.take(step));
        pair.end();
    }
}

/// One thing that happens. Numbers that choose among what is there wrap around.
#[derive(Debug, Clone)]
enum Step {
    Declare {
        name: u8,
        revision: u8,
    },
    Push {
        handle: u8,
        id: u8,
        controller: u8,
        ticks_left: u8,
        bytes: u8,
        acknowledge: bool,
    },
    /// A container of the current revision, or of any.
    Register {
        name: u8,
        revision: Option<u8>,
        stream: u8,
        concurrency: u32,
        credits: u32,
        warm: bool,
    },
    Credit {
        container: u8,
        credits: u32,
    },
    Complete {
        container: u8,
        which: Which,
        status: u8,
        credits: u32,
    },
    Return {
        container: u8,
        which: Which,
    },
    Retire {
        container: u8,
    },
    Gone {
        container: u8,
    },
    Suspend {
        container: u8,
    },
    Unsent {
        container: u8,
        which: Which,
    },
    /// Bit by bit, which of what it has in flight it holds.
    Rejoin {
        container: u8,
        credits: u32,
        held: u8,
    },
    /// It states that many credits, and that so many dispatches did not reach it.
    Compare {
        container: u8,
        credits: u32,
        missing: u32,
    },
    Full {
        stream: u8,
    },
    Room {
        stream: u8,
    },
    /// Time passes, and the timers are looked at or not.
    Pass {
        micros: u64,
        look: bool,
    },
}

/// An activation on a container: one of those it has, or any.
#[derive(Debug, Clone)]
enum Which {
    Own(u8),
    Any(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let which = prop_oneof![4 => any::<u8>().prop_map(Which::Own), 1 => (0..IDS).prop_map(Which::Any)];
    let container = any::<u8>();
    // Whole ticks too, to meet deadlines exactly.
    let micros = prop_oneof![0..3 * TICK_US, (0..3u64).prop_map(|ticks| ticks * TICK_US)];
    let revision = prop_oneof![4 => Just(None), 1 => (0..4u8).prop_map(Some)];
    prop_oneof![
        1 => (0..NAMES, 0..14u8).prop_map(|(name, revision)| Step::Declare { name, revision }),
        8 => (any::<u8>(), 0..IDS, 0..2u8, 0..12u8, 0..4u8, any::<bool>()).prop_map(
            |(handle, id, controller, ticks_left, bytes, acknowledge)| Step::Push {
                handle, id, controller, ticks_left, bytes, acknowledge,
            }
        ),
        2 => (0..NAMES, revision, 0..STREAMS, 1..4u32, 0..4u32, any::<bool>()).prop_map(
            |(name, revision, stream, concurrency, credits, warm)| Step::Register {
                name, revision, stream, concurrency, credits, warm,
            }
        ),
        4 => (container, 0..3u32).prop_map(|(container, credits)| Step::Credit { container, credits }),
        5 => (container, which.clone(), 0..3u8, 0..3u32).prop_map(
            |(container, which, status, credits)| Step::Complete { container, which, status, credits }
        ),
        3 => (container, which.clone()).prop_map(|(container, which)| Step::Return { container, which }),
        1 => container.prop_map(|container| Step::Suspend { container }),
        2 => (container, which).prop_map(|(container, which)| Step::Unsent { container, which }),
        2 => (container, 0..4u32, any::<u8>()).prop_map(
            |(container, credits, held)| Step::Rejoin { container, credits, held }
        ),
        2 => (container, 0..4u32, 0..3u32).prop_map(
            |(container, credits, missing)| Step::Compare { container, credits, missing }
        ),
        1 => container.prop_map(|container| Step::Retire { container }),
        1 => container.prop_map(|container| Step::Gone { container }),
        1 => (0..STREAMS).prop_map(|stream| Step::Full { stream }),
        2 => (0..STREAMS).prop_map(|stream| Step::Room { stream }),
        2 => (micros, any::<bool>()).prop_map(|(micros, look)| Step::Pass { micros, look }),
    ]
}

fn limits() -> impl Strategy<Value = Limits> {
    (1..4u64, 2..8u64, 1..6u64, 4..12u64, 4..24u64, 0..2usize, 0..4u64, 0..3u32).prop_map(
        |(count, bytes, all, all_bytes, actions, recent_ids, grace, probes)| Limits {
            recent_ids,
            action_queued_max: count,
            action_queued_bytes_max: bytes,
            router_queued_max: all,
            router_queued_bytes_max: all_bytes,
            actions_max: actions,
            idle_grace: GRACE,
            breaker: (probes > 0).then(|| rules(probes)),
            overdue_grace: Duration::from_micros(grace * TICK_US / 2),
            queued_overhead_bytes: 0,
            ..Limits::default()
        },
    )
}

/// Breakers that open soon, and for so short that no jitter shows: until the clock moves on.
fn rules(probes: u32) -> Rules {
    let open = Duration::from_micros(2);
    Rules { strikes: 2, window: Duration::from_micros(4 * TICK_US), open_first: open, open_max: open, probes }
}

/// The engine and the model, side by side.
struct Pair {
    hub: Hub,
    pass: Pass<Recorder>,
    model: Model,
    audit: Audit,
    handles: Vec<Arc<Action>>,
    containers: Vec<(Arc<Action>, ContainerKey)>,
    rooms: Vec<Arc<Room>>,
    awaiting: Vec<(StreamId, Arc<Action>, ContainerKey)>,
}

/// More than all dispatches of a test take together.
const LOTS: usize = 1 << 40;

impl Pair {
    fn new(limits: Limits) -> Self {
        Self {
            hub: Hub::new(limits.clone(), 7, 1, Timestamp::ZERO),
            pass: Pass::new(Recorder::default()),
            model: Model { limits, full: vec![false; STREAMS.into()], ..Model::default() },
            audit: Audit::default(),
            handles: Vec::new(),
            containers: Vec::new(),
            rooms: (0..STREAMS).map(|_| Arc::new(Room::new(LOTS / 2))).collect(),
            awaiting: Vec::new(),
        }
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Declare { name, revision } => self.declare(name, revision),
            Step::Push { handle, .. } => {
                if let Some(at) = pick(handle, self.handles.len()) {
                    self.push(at, step);
                }
            }
            Step::Register { .. } => self.register(step),
            Step::Full { stream } => self.set_full(stream, true),
            Step::Room { stream } => self.make_room(stream),
            Step::Pass { micros, look } => self.let_pass(micros, look),
            Step::Credit { container, .. }
            | Step::Complete { container, .. }
            | Step::Return { container, .. }
            | Step::Suspend { container }
            | Step::Unsent { container, .. }
            | Step::Rejoin { container, .. }
            | Step::Compare { container, .. }
            | Step::Retire { container }
            | Step::Gone { container } => {
                // Most of what is said comes from the last ones; earlier ones are gone as a rule.
                let earlier = if container < 220 { self.containers.len().saturating_sub(4) } else { 0 };
                if let Some(at) = pick(container, self.containers.len() - earlier) {
                    self.tell(earlier + at, step);
                }
            }
        }
        self.compare();
    }

    fn declare(&mut self, name: u8, revision: u8) {
        let declared = self.hub.declare(&key(name, revision), &mut self.pass);
        let expected = self.model.declare(name, revision);
        assert_eq!(declared.as_ref().ok().map(|action| action.key().clone()), expected.map(|at| self.model.key(at)));
        if let (Ok(action), Some(at)) = (declared, expected) {
            self.handles.push(action);
            self.model.handles.push(at);
        }
    }

    fn push(&mut self, at: usize, step: &Step) {
        let Step::Push { id, controller, ticks_left, bytes, acknowledge, .. } = *step else { unreachable!() };
        let push = || Push {
            id: activation(id),
            controller: StreamId(100 + u64::from(controller)),
            reply: if acknowledge { Reply::Accepted } else { Reply::Outcome },
            attempt: 1,
            accepted_at: self.pass.now,
            deadline: self.pass.now + Duration::from_micros(u64::from(ticks_left) * TICK_US),
            payload: Bytes::from(vec![id; bytes.into()]),
            accepted: false,
        };
        let (sent, same) = (push(), push());
        self.audit.pushed(&sent);
        self.hub.enter(&self.handles[at], &mut vec![Input::Push(sent)], &mut self.pass);
        self.model.push(self.model.handles[at], same);
    }

    fn register(&mut self, step: &Step) {
        let Step::Register { name, revision, stream, concurrency, credits, warm } = *step else { unreachable!() };
        let revision = revision.unwrap_or_else(|| self.model.current(name));
        let number = self.model.next_number();
        let room = self.rooms[usize::from(stream)].clone();
        let new = Registration { stream: stream_id(stream), number, epoch: number, concurrency, credits, warm, room };
        let registered = self.hub.register(&key(name, revision), new, &mut self.pass);
        let container = Container { stream, number, concurrency, credits, warm, ..Container::default() };
        assert_eq!(registered.is_ok(), self.model.register(name, revision, container), "registered");
        self.containers.extend(registered);
    }

    /// What a container says, registered or gone.
    fn tell(&mut self, at: usize, step: &Step) {
        let (action, key) = self.containers[at].clone();
        let input = match step {
            Step::Credit { credits, .. } => Input::Credit(key, *credits),
            Step::Complete { which, status, credits, .. } => {
                Input::Complete(key, self.completion(at, which, *status, *credits))
            }
            Step::Return { which, .. } => {
                let id = self.model.which(at, which);
                self.audit.returned(id);
                Input::Return(key, id, self.model.payload(id))
            }
            Step::Suspend { .. } => Input::Suspend(key),
            Step::Unsent { which, .. } => {
                let id = self.model.which(at, which);
                self.audit.returned(id);
                Input::Unsent(key, id, self.model.payload(id))
            }
            Step::Rejoin { credits, held, .. } => {
                Input::Rejoin(key, Rejoin { credits: *credits, held: self.model.held(at, *held) })
            }
            Step::Compare { credits, missing, .. } => {
                Input::Audit(key, *credits, self.model.containers[at].dispatched.wrapping_sub(*missing))
            }
            Step::Retire { .. } => Input::Retire(key),
            Step::Gone { .. } => Input::Gone(key),
            _ => unreachable!("not said by a container"),
        };
        match &input {
            Input::Credit(_, credits) => self.model.credit(at, *credits),
            Input::Complete(_, completion) => {
                self.model.complete(at, completion.id, completion.status, completion.credits)
            }
            Input::Return(_, id, payload) => self.model.take_back(at, *id, payload.clone()),
            Input::Suspend(_) => self.model.suspend(at),
            Input::Unsent(_, id, _) => self.model.unsent(at, *id),
            Input::Rejoin(_, rejoin) => self.model.rejoin(at, rejoin),
            Input::Audit(_, credits, received) => self.model.compare(at, *credits, *received),
            Input::Retire(_) => self.model.retire(at),
            _ => self.model.gone(at),
        }
        self.hub.enter(&action, &mut vec![input], &mut self.pass);
    }

    fn completion(&self, at: usize, which: &Which, status: u8, credits: u32) -> Completion {
        let status = [RunStatus::Succeeded, RunStatus::ActionFailed, RunStatus::PlatformFailed][usize::from(status)];
        let (result, arrived_at) = (Bytes::new(), Timestamp::ZERO);
        Completion { id: self.model.which(at, which), status, result, run_us: 0, arrived_at, credits }
    }

    fn set_full(&mut self, stream: u8, full: bool) {
        let room = &self.rooms[usize::from(stream)];
        if full != room.is_full() {
            if full { room.take(LOTS) } else { room.give_back(LOTS) }
        }
        self.model.full[usize::from(stream)] = full;
    }

    fn make_room(&mut self, stream: u8) {
        self.set_full(stream, false);
        for (_, action, key) in self.awaiting.extract_if(.., |(of, ..)| *of == stream_id(stream)).collect::<Vec<_>>() {
            self.hub.enter(&action, &mut vec![Input::Resume(key)], &mut self.pass);
        }
        self.model.resume(stream);
    }

    fn let_pass(&mut self, micros: u64, look: bool) {
        self.pass.now = self.pass.now + Duration::from_micros(micros);
        self.model.now = self.pass.now;
        if look {
            assert!(!self.hub.advance(usize::MAX, &mut self.pass), "there is nothing more");
            self.model.advance();
        }
    }

    fn compare(&mut self) {
        let effects = std::mem::take(&mut self.pass.performer.0);
        let told = effects.iter().filter_map(written).collect();
        let expected = std::mem::take(&mut self.model.effects);
        assert_eq!(drained_by_name(told), drained_by_name(expected), "what the engine asked for, and the model");
        effects.iter().for_each(|effect| self.audit.see(effect, self.pass.now));
        self.awaiting.extend(effects.into_iter().filter_map(|effect| match effect {
            Effect::AwaitRoom(stream, action, key) => Some((stream, action, key)),
            _ => None,
        }));
        self.balance();
        self.look_into_all();
    }

    /// What holds between any two steps.
    fn balance(&mut self) {
        self.hub.settle(&mut self.pass);
        let totals = self.hub.totals();
        let (queued, bytes) = self.model.queued();
        assert_eq!((self.hub.budget().queued(), self.hub.budget().queued_bytes()), (queued, bytes));
        assert_eq!(self.hub.held(), self.model.live.len());
        assert_eq!(self.hub.actions(), self.model.revisions.len() as u64);
        let in_flight: usize = self.model.containers.iter().map(|container| container.in_flight.len()).sum();
        let overdue = self.model.live.values().filter(|activation| activation.answered).count() as u64;
        assert_eq!(totals.overdue(), overdue);
        assert_eq!(
            totals.of(Count::Accepted) + overdue,
            totals.ended() + queued + in_flight as u64,
            "accepted = ended + held"
        );
        let spent = totals.of(Count::Dispatched) - totals.of(Count::Unsent) + totals.of(Count::CreditsRevoked);
        let credits: u64 = self.model.containers.iter().map(|container| u64::from(container.credits)).sum();
        assert_eq!(totals.of(Count::CreditsGranted), spent + credits, "granted = spent + revoked + left");
    }

    /// What is found by looking at every container.
    fn look_into_all(&mut self) {
        let found = self.hub.audit(&mut self.pass);
        let there = || self.model.containers.iter().filter(|one| !one.gone);
        let open = || there().filter(|one| !one.retired);
        let sum = |of: fn(&Container) -> usize| open().map(of).sum::<usize>() as u64;
        let expected = engine::audit::Audit {
            containers: there().count() as u64,
            suspended: there().filter(|one| one.suspended).count() as u64,
            tripped: open().filter(|one| one.blocked || one.node_blocked).count() as u64,
            slots: sum(|one| one.concurrency as usize),
            in_flight: sum(|one| one.in_flight.len()),
            credits: sum(|one| one.credits as usize),
            retired_in_flight: there().filter(|one| one.retired).map(|one| one.in_flight.len() as u64).sum(),
        };
        assert_eq!(found, expected);
        assert!(found.credits + found.in_flight <= found.slots, "credits and what is in flight never exceed the slots");
        let own = there().filter(|one| one.breaker.as_ref().is_some_and(|one| one.state() != State::Closed)).count();
        let nodes = self.model.nodes.values().filter(|one| one.state() != State::Closed).count();
        assert_eq!(self.hub.breakers(usize::MAX, &mut self.pass).len(), own + nodes);
        assert!(self.hub.breakers(1, &mut self.pass).len() <= 1);
    }

    /// All leave, all time passes.
    fn end(mut self) {
        (0..self.containers.len()).for_each(|at| self.tell(at, &Step::Gone { container: 0 }));
        self.compare();
        self.let_pass(100 * TICK_US, true);
        self.compare();
        assert_eq!(self.hub.held(), 0, "nothing is queued or in flight");
        self.audit.end();
        (self.handles, self.containers, self.awaiting) = Default::default();
        for _ in 0..=self.hub.actions() {
            self.pass.now = self.pass.now + GRACE + Duration::from_millis(2);
            self.hub.advance(usize::MAX, &mut self.pass);
        }
        assert_eq!((self.hub.actions(), self.hub.next_wake()), (0, None), "no action and no timer is left");
    }
}

#[derive(Debug, Default)]
struct Recorder(Vec<Effect>);

impl Perform for Recorder {
    fn perform(&mut self, effects: &mut Vec<Effect>) {
        self.0.append(effects);
    }
}

/// Promises that can be checked without knowing how they are kept.
#[derive(Default)]
struct Audit {
    /// Pushes that wait for an answer.
    waiting: BTreeMap<(StreamId, ActivationId), u32>,
    /// Dispatches that each id has left, and its deadline, by its last push that was not refused.
    dispatches_left: BTreeMap<ActivationId, u32>,
    deadlines: BTreeMap<ActivationId, Vec<Timestamp>>,
}

impl Audit {
    fn pushed(&mut self, push: &Push) {
        *self.waiting.entry((push.controller, push.id)).or_default() += 1;
        *self.dispatches_left.entry(push.id).or_default() += 1;
        self.deadlines.entry(push.id).or_default().push(push.deadline);
    }

    fn returned(&mut self, id: ActivationId) {
        *self.dispatches_left.entry(id).or_default() += 1;
    }

    fn see(&mut self, effect: &Effect, now: Timestamp) {
        match effect {
            Effect::Write(_, Entry::Dispatch(dispatch)) => {
                let left = self.dispatches_left.get_mut(&dispatch.id).expect("pushed");
                *left = left.checked_sub(1).expect("dispatched once, and once more for each return");
                assert!(self.deadlines[&dispatch.id].iter().any(|deadline| *deadline > now), "dispatched in time");
            }
            Effect::Write(controller, Entry::Answer(answer)) => {
                let waiting = self.waiting.get_mut(&(*controller, answer.id)).expect("pushed");
                *waiting = waiting.checked_sub(1).expect("answered once");
                if matches!(answer.outcome, Outcome::Rejected(_)) {
                    *self.dispatches_left.get_mut(&answer.id).expect("pushed") -= 1;
                }
            }
            _ => {}
        }
    }

    fn end(&self) {
        assert!(self.waiting.values().all(|waiting| *waiting == 0), "every push was answered");
    }
}

/// The engine's rules, the obvious way.
#[derive(Default)]
struct Model {
    limits: Limits,
    now: Timestamp,
    revisions: Vec<Revision>,
    /// By index of `revisions`.
    handles: Vec<usize>,
    current: BTreeMap<u8, usize>,
    superseded: BTreeMap<u8, VecDeque<u8>>,
    containers: Vec<Container>,
    live: BTreeMap<ActivationId, Activation>,
    /// By revision and stream.
    nodes: BTreeMap<(usize, u8), Breaker>,
    /// Ids that ended lately: what fits into the only set.
    ended: VecDeque<ActivationId>,
    full: Vec<bool>,
    /// Who was told to wait for room, in order.
    asked: Vec<usize>,
    /// Orders admissions, armings and uses.
    clock: u64,
    refused_numbers: u32,
    effects: Vec<String>,
}

struct Revision {
    name: u8,
    revision: u8,
    newer: Option<usize>,
    queue: Vec<ActivationId>,
}

#[derive(Debug, Default)]
struct Container {
    revision: usize,
    stream: u8,
    number: u32,
    concurrency: u32,
    credits: u32,
    warm: bool,
    in_flight: Vec<ActivationId>,
    awaiting: bool,
    suspended: bool,
    dispatched: u32,
    retired: bool,
    gone: bool,
    used: u64,
    /// When it is looked at, and when that was decided.
    watched: Option<(Timestamp, u64)>,
    breaker: Option<Breaker>,
    /// By its breaker, and by its node's.
    blocked: bool,
    node_blocked: bool,
}

struct Activation {
    push: Push,
    admitted: u64,
    armed: u64,
    /// It was overdue.
    answered: bool,
    dispatched_at: Timestamp,
}

impl Container {
    fn takes(&self) -> bool {
        !(self.retired || self.awaiting || self.suspended || self.blocked || self.node_blocked) && self.credits > 0
    }

    fn room(&self) -> u32 {
        self.concurrency - self.credits - u32::try_from(self.in_flight.len()).expect("few")
    }
}

impl Model {
    fn declare(&mut self, name: u8, revision: u8) -> Option<usize> {
        let current = self.current.get(&name).copied();
        let superseded = self.superseded.entry(name).or_default();
        let known = self.revisions.iter().position(|known| (known.name, known.revision) == (name, revision));
        let drains = known.is_some_and(|at| self.revisions[at].newer.is_some());
        if let Some(current) = current.filter(|at| drains || known == Some(*at) || superseded.contains(&revision)) {
            return Some(current);
        }
        let at = known.or_else(|| self.add(name, revision))?;
        self.current.insert(name, at);
        if let Some(old) = current {
            let superseded = self.superseded.entry(name).or_default();
            superseded.push_back(self.revisions[old].revision);
            superseded.drain(..superseded.len().saturating_sub(REVISIONS_REMEMBERED));
            self.supersede(old, at);
        }
        Some(at)
    }

    fn current(&self, name: u8) -> u8 {
        self.current.get(&name).map_or(0, |at| self.revisions[*at].revision)
    }

    fn add(&mut self, name: u8, revision: u8) -> Option<usize> {
        if self.revisions.len() as u64 == self.limits.actions_max {
            return None;
        }
        self.revisions.push(Revision { name, revision, newer: None, queue: Vec::new() });
        Some(self.revisions.len() - 1)
    }

    fn supersede(&mut self, old: usize, newer: usize) {
        self.revisions[old].newer = Some(newer);
        self.settle(old);
    }

    fn register(&mut self, name: u8, revision: u8, mut container: Container) -> bool {
        let known = self.revisions.iter().position(|known| (known.name, known.revision) == (name, revision));
        let Some(at) = known.or_else(|| self.add(name, revision)) else { return self.refuse_number() };
        let superseded = self.superseded.get(&name).is_some_and(|superseded| superseded.contains(&revision));
        if known.is_none() && superseded {
            self.supersede(at, self.current[&name]);
        }
        if container.credits > container.concurrency {
            return self.refuse_number();
        }
        (container.revision, container.used) = (at, self.tick());
        let stream = container.stream;
        self.containers.push(container);
        if let Some(breaker) = self.nodes.get_mut(&(at, stream)) {
            breaker.look(self.now);
            self.follow(at, stream);
        }
        self.settle(at);
        true
    }

    fn refuse_number(&mut self) -> bool {
        self.refused_numbers += 1;
        false
    }

    fn next_number(&self) -> u32 {
        u32::try_from(self.containers.len()).expect("few") + self.refused_numbers
    }

    fn push(&mut self, mut to: usize, push: Push) {
        while let Some(newer) = self.revisions[to].newer {
            to = newer;
        }
        let taken = self.live.contains_key(&push.id).then_some("id_in_flight");
        let known = taken.or(self.ended.contains(&push.id).then_some("id_ended")).filter(|_| !push.accepted);
        if push.deadline <= self.now {
            if let Some(reason) = known {
                return self.effects.push(format!("answer {} to {:?} {reason}", push.id, push.controller));
            }
            self.acknowledge(&push);
            self.end(push.id);
            return self.answer(&push, "expired");
        }
        let chosen = if self.revisions[to].queue.is_empty() { self.choose(to) } else { None };
        let refused = if chosen.is_none() { self.is_full(to, &push) } else { None };
        if let Some(reason) = known.or(refused) {
            return self.effects.push(format!("answer {} to {:?} {reason}", push.id, push.controller));
        }
        self.acknowledge(&push);
        let (id, clock) = (push.id, self.tick());
        self.live
            .insert(id, Activation { push, admitted: clock, armed: clock, answered: false, dispatched_at: self.now });
        self.revisions[to].queue.push(id);
        if let Some(container) = chosen {
            self.dispatch(to, container);
        }
    }

    fn is_full(&self, to: usize, push: &Push) -> Option<&'static str> {
        let bytes = push.payload.len() as u64;
        let (queued, queued_bytes) = self.queued();
        let own = &self.revisions[to].queue;
        let full = own.len() as u64 >= self.limits.action_queued_max
            || self.bytes(own) + bytes > self.limits.action_queued_bytes_max;
        let all_full =
            queued >= self.limits.router_queued_max || queued_bytes + bytes > self.limits.router_queued_bytes_max;
        let reason = if full { Some("queue_full") } else { all_full.then_some("router_full") };
        reason.filter(|_| !push.accepted)
    }

    fn credit(&mut self, at: usize, credits: u32) {
        self.grant(at, credits);
        self.settle(self.containers[at].revision);
    }

    fn grant(&mut self, at: usize, credits: u32) {
        if self.containers[at].retired {
            return;
        }
        if credits > self.containers[at].room() {
            return self.effects.push(format!("refuse {} credit_overflow", self.containers[at].number));
        }
        self.change(at, |container| container.credits += credits);
    }

    /// Whoever comes to take activations is the most recent.
    fn change(&mut self, at: usize, change: impl FnOnce(&mut Container)) {
        let clock = self.tick();
        let container = &mut self.containers[at];
        let took = container.takes();
        change(container);
        if !took {
            container.used = clock;
        }
    }

    fn suspend(&mut self, at: usize) {
        self.containers[at].suspended = true;
    }

    fn unsent(&mut self, at: usize, id: ActivationId) {
        if !self.containers[at].in_flight.contains(&id) {
            return;
        }
        self.change(at, |container| {
            container.in_flight.retain(|own| *own != id);
            container.dispatched = container.dispatched.wrapping_sub(1);
            container.credits += u32::from(!container.retired);
        });
        self.undecided(at, id);
        self.come_back(self.containers[at].revision, id);
    }

    fn rejoin(&mut self, at: usize, rejoin: &Rejoin) {
        let container = &mut self.containers[at];
        if container.gone {
            return;
        }
        container.dispatched = 0;
        let lost: Vec<_> = container.in_flight.extract_if(.., |id| !rejoin.held.contains(id)).collect();
        for id in lost {
            self.undecided(at, id);
            self.lose(id);
        }
        self.containers[at].credits = 0;
        self.change(at, |container| (container.suspended, container.awaiting) = (false, false));
        if self.containers[at].retired {
            self.effects.push(format!("drain {}", self.containers[at].number));
        } else {
            self.grant(at, rejoin.credits);
        }
        self.settle(self.containers[at].revision);
    }

    fn compare(&mut self, at: usize, credits: u32, received: u32) {
        let revision = self.containers[at].revision;
        let container = &self.containers[at];
        let underway = i64::from(container.dispatched.wrapping_sub(received));
        let leaked = i64::from(credits) - underway - i64::from(container.credits);
        let least = -i64::from(container.credits);
        let leaked = leaked.clamp(least, container.room().into());
        if !container.retired {
            self.change(at, |container| {
                container.credits = u32::try_from(i64::from(container.credits) + leaked).expect("never below zero");
            });
        }
        self.settle(revision);
    }

    /// Those of its activations that the mask names, and one that it never had.
    fn held(&self, at: usize, mask: u8) -> Vec<ActivationId> {
        let own = self.containers[at].in_flight.iter().zip(0..);
        own.filter(|(_, bit)| mask >> bit & 1 == 1).map(|(id, _)| *id).chain([activation(IDS)]).collect()
    }

    fn complete(&mut self, at: usize, id: ActivationId, status: RunStatus, credits: u32) {
        let Some(ended) = self.take_in_flight(at, id) else { return };
        let Activation { push, answered, dispatched_at, .. } = self.end(id).expect("in flight");
        let clock = self.tick();
        let container = &mut self.containers[at];
        (container.warm, container.used) = (true, clock);
        if !answered {
            self.answer(&push, &format!("{status:?}"));
            let failed = status == RunStatus::PlatformFailed;
            let verdict = if failed { Verdict::Strike(Cause::Failed) } else { Verdict::Good };
            self.judge(at, verdict, dispatched_at);
        }
        if credits > 0 {
            self.grant(at, credits);
        }
        self.settle(ended);
    }

    fn take_back(&mut self, at: usize, id: ActivationId, payload: Bytes) {
        let Some(revision) = self.take_in_flight(at, id) else { return };
        let activation = self.live.get_mut(&id).expect("in flight");
        activation.push.attempt += 1;
        activation.push.payload = payload;
        let (answered, dispatched_at) = (activation.answered, activation.dispatched_at);
        if !answered {
            self.judge(at, Verdict::Strike(Cause::Refused), dispatched_at);
        }
        self.come_back(revision, id);
    }

    fn come_back(&mut self, revision: usize, id: ActivationId) {
        let clock = self.tick();
        let activation = self.live.get_mut(&id).expect("in flight");
        if activation.answered {
            self.end(id);
            return self.settle(revision);
        }
        activation.armed = clock;
        let admitted = activation.admitted;
        let queue = &self.revisions[revision].queue;
        let place = queue.iter().position(|other| self.live[other].admitted > admitted).unwrap_or(queue.len());
        self.revisions[revision].queue.insert(place, id);
        self.settle(revision);
    }

    /// The revision it was in flight in, if it was.
    fn take_in_flight(&mut self, at: usize, id: ActivationId) -> Option<usize> {
        let known = self.live.contains_key(&id);
        let container = &mut self.containers[at];
        if let Some(place) = container.in_flight.iter().position(|own| *own == id) {
            container.in_flight.remove(place);
            return Some(container.revision);
        }
        if !container.gone {
            let reason = if known { "not_dispatched_here" } else { "not_in_flight" };
            self.effects.push(format!("refuse {} {reason}", container.number));
        }
        None
    }

    fn retire(&mut self, at: usize) {
        let container = &mut self.containers[at];
        (container.retired, container.credits) = (true, 0);
        if !container.gone {
            self.effects.push(format!("drain {}", self.containers[at].number));
        }
        self.settle(self.containers[at].revision);
    }

    fn gone(&mut self, at: usize) {
        let container = &mut self.containers[at];
        let was_gone = std::mem::replace(&mut container.gone, true);
        (container.retired, container.credits) = (true, 0);
        let (revision, stream) = (container.revision, container.stream);
        let lost = std::mem::take(&mut container.in_flight);
        let unanswered = lost.iter().map(|id| &self.live[id]).filter(|one| !one.answered);
        let began = unanswered.map(|one| one.dispatched_at).next_back().filter(|_| !was_gone);
        lost.into_iter().for_each(|id| self.lose(id));
        if let Some(began) = began {
            self.judge_node(revision, stream, Verdict::Strike(Cause::Failed), began);
        }
        self.containers[at].watched = None;
        self.settle(revision);
    }

    fn lose(&mut self, id: ActivationId) {
        let Activation { push, answered, .. } = self.end(id).expect("in flight");
        if !answered {
            self.answer(&push, "lost");
        }
    }

    fn resume(&mut self, stream: u8) {
        let containers = &self.containers;
        let awaiting: Vec<usize> = self.asked.extract_if(.., |at| containers[*at].stream == stream).collect();
        for at in awaiting {
            self.change(at, |container| container.awaiting = false);
            self.settle(self.containers[at].revision);
        }
    }

    /// Whose timers came out, as they were armed in each tick.
    fn advance(&mut self) {
        let tick = |at: Timestamp| at.as_micros().div_ceil(TICK_US);
        let now = self.now.as_micros() / TICK_US;
        let queued = self.revisions.iter().flat_map(|revision| &revision.queue);
        let mut due: Vec<_> = queued.copied().filter(|id| tick(self.live[id].push.deadline) <= now).collect();
        due.sort_by_key(|id| (tick(self.live[id].push.deadline), self.live[id].armed));
        for id in due {
            if let Some(at) = self.revisions.iter().position(|revision| revision.queue.contains(&id)) {
                self.expire(at, id);
                self.settle(at);
            }
        }
        let watched = |at: &usize| self.containers[*at].watched.map(|(due, armed)| (tick(due), armed));
        let mut due: Vec<_> = (0..self.containers.len()).collect();
        due.retain(|at| watched(at).is_some_and(|(due, _)| due <= now));
        due.sort_by_key(watched);
        due.into_iter().for_each(|at| self.look(at));
    }

    /// Answers what is overdue on a container.
    fn look(&mut self, at: usize) {
        self.containers[at].watched = None;
        for id in self.containers[at].in_flight.clone() {
            let activation = self.live.get_mut(&id).expect("in flight");
            let due = activation.push.deadline + self.limits.overdue_grace;
            if activation.answered {
                continue;
            }
            if due <= self.now {
                activation.answered = true;
                let began = activation.dispatched_at;
                let (reply, controller) = (activation.push.reply, activation.push.controller);
                if reply == Reply::Outcome {
                    self.effects.push(format!("answer {id} to {controller:?} timed_out"));
                }
                self.judge(at, Verdict::Strike(Cause::TimedOut), began);
            }
        }
        let own = self.containers[at].in_flight.iter().map(|id| &self.live[id]);
        let next = own.filter(|activation| !activation.answered).map(|activation| activation.push.deadline).min();
        let overdue = next.map(|deadline| deadline + self.limits.overdue_grace);
        let tripped = self.look_at_breakers(at);
        if let Some(next) = overdue.into_iter().chain(tripped).min() {
            self.watch(at, next);
        }
        self.settle(self.containers[at].revision);
    }

    fn look_at_breakers(&mut self, at: usize) -> Option<Timestamp> {
        let now = self.now;
        let (revision, stream) = (self.containers[at].revision, self.containers[at].stream);
        let mut next = None;
        if let Some(breaker) = &mut self.containers[at].breaker {
            breaker.look(now);
            next = breaker.until();
            let blocked = !breaker.allows();
            self.change(at, |container| container.blocked = blocked);
        }
        let Some(breaker) = self.nodes.get_mut(&(revision, stream)) else {
            self.change(at, |container| container.node_blocked = false);
            return next;
        };
        let due = breaker.look(now);
        next = next.into_iter().chain(breaker.until()).min();
        if due {
            self.follow(revision, stream);
        }
        next
    }

    fn undecided(&mut self, at: usize, id: ActivationId) {
        if !self.live[&id].answered {
            self.judge(at, Verdict::Undecided, self.live[&id].dispatched_at);
        }
    }

    /// How a run on a container ended, for its breaker and its node's.
    fn judge(&mut self, at: usize, verdict: Verdict, began: Timestamp) {
        let Some(rules) = self.limits.breaker.clone() else { return };
        let now = self.now;
        let container = &mut self.containers[at];
        let (revision, stream) = (container.revision, container.stream);
        if let Verdict::Strike(_) = verdict {
            container.breaker.get_or_insert_with(|| Breaker::new(now, &rules));
        }
        if let Some(breaker) = &mut container.breaker {
            breaker.ended(verdict, began, now, 0, &rules);
            let (allows, until) = (breaker.allows(), breaker.until());
            container.breaker.take_if(|breaker| breaker.is_over(now, &rules));
            self.change(at, |container| container.blocked = !allows);
            until.into_iter().for_each(|until| self.watch(at, until));
        }
        let verdict = match verdict {
            Verdict::Good | Verdict::Strike(Cause::Failed) => verdict,
            _ => Verdict::Undecided,
        };
        self.judge_node(revision, stream, verdict, began);
    }

    fn judge_node(&mut self, revision: usize, stream: u8, verdict: Verdict, began: Timestamp) {
        let Some(rules) = self.limits.breaker.clone() else { return };
        let (now, key) = (self.now, (revision, stream));
        let standing =
            |model: &Self| model.nodes.get(&key).map_or((true, State::Closed), |one| (one.allows(), one.state()));
        let before = standing(self);
        self.nodes.retain(|(of, _), breaker| {
            let abandoned = breaker.until().is_some_and(|until| until + rules.open_max <= now);
            *of != revision || !breaker.is_over(now, &rules) && !abandoned
        });
        if let Verdict::Strike(_) = verdict {
            self.nodes.entry(key).or_insert_with(|| Breaker::new(now, &rules));
        }
        if let Some(breaker) = self.nodes.get_mut(&key) {
            breaker.ended(verdict, began, now, 0, &rules);
        }
        if before != standing(self) {
            self.follow(revision, stream);
        }
    }

    /// The containers of a node take activations or do not, as its breaker says.
    fn follow(&mut self, revision: usize, stream: u8) {
        let breaker = self.nodes.get(&(revision, stream));
        let (allows, until) = breaker.map_or((true, None), |one| (one.allows(), one.until()));
        for at in 0..self.containers.len() {
            let container = &self.containers[at];
            if (container.revision, container.stream, container.gone) == (revision, stream, false) {
                self.change(at, |container| container.node_blocked = !allows);
                until.into_iter().for_each(|until| self.watch(at, until));
            }
        }
    }

    /// What is dispatched may be a probe.
    fn begin(&mut self, at: usize) {
        let now = self.now;
        let container = &mut self.containers[at];
        let (revision, stream) = (container.revision, container.stream);
        if let Some(breaker) = container.breaker.as_mut().filter(|one| one.state() == State::HalfOpen) {
            assert!(breaker.begin(now), "one probe at a time");
            container.blocked = true;
        }
        if let Some(breaker) = self.nodes.get_mut(&(revision, stream)).filter(|one| one.state() == State::HalfOpen) {
            assert!(breaker.begin(now), "one probe at a time");
            self.follow(revision, stream);
        }
    }

    fn watch(&mut self, at: usize, due: Timestamp) {
        let clock = self.tick();
        let watched = &mut self.containers[at].watched;
        if watched.is_none_or(|(earlier, _)| due < earlier) {
            *watched = Some((due, clock));
        }
    }

    fn expire(&mut self, at: usize, id: ActivationId) {
        self.revisions[at].queue.retain(|other| *other != id);
        let Activation { push, .. } = self.end(id).expect("queued");
        self.answer(&push, "expired");
    }

    /// An id is free, and remembered for a while.
    fn end(&mut self, id: ActivationId) -> Option<Activation> {
        self.ended.push_back(id);
        let most = 7 * self.limits.recent_ids;
        self.ended.drain(..self.ended.len().saturating_sub(most));
        self.live.remove(&id)
    }

    fn settle(&mut self, at: usize) {
        while let Some(&id) = self.revisions[at].queue.first() {
            if self.live[&id].push.deadline <= self.now {
                self.expire(at, id);
                continue;
            }
            let Some(container) = self.choose(at) else { break };
            self.dispatch(at, container);
        }
        let Some(newer) = self.revisions[at].newer else { return };
        let open = self.containers.iter_mut().filter(|container| container.revision == at && !container.retired);
        if self.revisions[at].queue.is_empty() {
            for container in open {
                (container.retired, container.credits) = (true, 0);
                self.effects.push(format!("drain {}", container.number));
            }
        } else if open.count() == 0 {
            for id in std::mem::take(&mut self.revisions[at].queue) {
                let Push { controller, reply, attempt, accepted_at, deadline, ref payload, .. } = self.live[&id].push;
                let payload = payload.clone();
                self.push(
                    newer,
                    Push { id, controller, reply, attempt, accepted_at, deadline, payload, accepted: true },
                );
            }
        }
    }

    fn choose(&mut self, at: usize) -> Option<usize> {
        loop {
            let takes = self.containers.iter().enumerate().filter(|(_, one)| one.revision == at && one.takes());
            let (best, container) = takes.max_by_key(|(_, one)| (one.warm, one.used))?;
            if !self.full[usize::from(container.stream)] {
                return Some(best);
            }
            self.effects.push(format!("await_room {}", container.stream));
            self.containers[best].awaiting = true;
            self.asked.push(best);
        }
    }

    /// The head of the queue goes to a container.
    fn dispatch(&mut self, at: usize, to: usize) {
        let id = self.revisions[at].queue.remove(0);
        let container = &mut self.containers[to];
        container.credits -= 1;
        container.dispatched = container.dispatched.wrapping_add(1);
        container.in_flight.push(id);
        let Push { attempt, payload, deadline, .. } = &self.live[&id].push;
        let left = (self.now.until(*deadline).as_millis()).max(1);
        let number = container.number;
        let due = *deadline + self.limits.overdue_grace;
        self.effects.push(format!("dispatch {id} to {number} left {left} attempt {attempt} {} bytes", payload.len()));
        self.watch(to, due);
        self.live.get_mut(&id).expect("just dispatched").dispatched_at = self.now;
        self.begin(to);
    }

    fn acknowledge(&mut self, push: &Push) {
        if push.reply == Reply::Accepted && !push.accepted {
            self.effects.push(format!("answer {} to {:?} accepted", push.id, push.controller));
        }
    }

    fn answer(&mut self, push: &Push, outcome: &str) {
        if push.reply == Reply::Outcome {
            self.effects.push(format!("answer {} to {:?} {outcome}", push.id, push.controller));
        }
    }

    fn queued(&self) -> (u64, u64) {
        let queues = || self.revisions.iter().map(|revision| &revision.queue);
        (queues().map(|queue| queue.len() as u64).sum(), queues().map(|queue| self.bytes(queue)).sum())
    }

    fn bytes(&self, queue: &[ActivationId]) -> u64 {
        queue.iter().map(|id| self.live[id].push.payload.len() as u64).sum()
    }

    fn which(&self, at: usize, which: &Which) -> ActivationId {
        let own = &self.containers[at].in_flight;
        match *which {
            Which::Own(n) => pick(n, own.len()).map_or(activation(n % IDS), |place| own[place]),
            Which::Any(id) => activation(id),
        }
    }

    fn payload(&self, id: ActivationId) -> Bytes {
        self.live.get(&id).map(|activation| activation.push.payload.clone()).unwrap_or_default()
    }

    fn key(&self, at: usize) -> ActionKey {
        key(self.revisions[at].name, self.revisions[at].revision)
    }

    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }
}

/// An effect as the model writes it.
fn written(effect: &Effect) -> Option<String> {
    Some(match effect {
        Effect::Write(_, Entry::Dispatch(dispatch)) => {
            let engine::effect::Dispatch { container, epoch, id, time_left_ms, payload, attempt } = dispatch;
            assert_eq!(container, epoch, "the epoch of its registration");
            format!("dispatch {id} to {container} left {time_left_ms} attempt {attempt} {} bytes", payload.len())
        }
        Effect::Write(controller, Entry::Answer(answer)) => {
            format!("answer {} to {controller:?} {}", answer.id, ended(&answer.outcome))
        }
        Effect::Write(_, Entry::Refuse(refusal)) => {
            format!("refuse {} {}", refusal.number, refusal.rejection.reason.label())
        }
        Effect::Write(_, Entry::Drain(number, _)) => format!("drain {number}"),
        Effect::Write(_, Entry::Draining) => unreachable!("the engine never says that the router drains"),
        Effect::AwaitRoom(stream, ..) => format!("await_room {}", stream.0),
        Effect::Spill(_) | Effect::Refill(_) => unreachable!("nothing overflows here"),
        Effect::WakeAt(_) => return None,
    })
}

/// Containers that drain at one moment do so in no order.
fn drained_by_name(mut effects: Vec<String>) -> Vec<String> {
    let drains = |effect: &String| effect.starts_with("drain");
    effects.chunk_by_mut(|a, b| drains(a) && drains(b)).for_each(<[String]>::sort);
    effects
}

fn ended(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Completed(_) => format!("{:?}", RunStatus::Succeeded),
        Outcome::ActionFailed(_) => format!("{:?}", RunStatus::ActionFailed),
        Outcome::PlatformFailed(_) => format!("{:?}", RunStatus::PlatformFailed),
        Outcome::Expired => "expired".to_owned(),
        Outcome::Lost => "lost".to_owned(),
        Outcome::TimedOut => "timed_out".to_owned(),
        Outcome::Accepted(_) => "accepted".to_owned(),
        Outcome::Rejected(rejection) => rejection.reason.label().to_owned(),
    }
}

fn pick(n: u8, of: usize) -> Option<usize> {
    usize::from(n).checked_rem(of)
}

fn key(name: u8, revision: u8) -> ActionKey {
    ActionKey::new("tenant", &name.to_string(), &revision.to_string())
}

fn activation(id: u8) -> ActivationId {
    ActivationId([id; ActivationId::LEN])
}

fn stream_id(stream: u8) -> StreamId {
    StreamId(stream.into())
}

const NAMES: u8 = 2;
const STREAMS: u8 = 2;
const IDS: u8 = 12;
const TICK_US: u64 = 1024;
/// Longer than any run of steps, so that the model need not forget actions.
const GRACE: Duration = Duration::from_secs(3600);
