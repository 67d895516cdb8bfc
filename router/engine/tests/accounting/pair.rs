//! Engine and model side by side: each step is taken by both, and what both say is compared.

use crate::audit::Audit;
use crate::model::{Container, Model};
use crate::step::{Step, Which};
use crate::written::{drained_by_name, written};
use crate::{GRACE, STREAMS, TICK_US, activation, key, node_of, pick, stream_id};
use bytes::Bytes;
use engine::breaker::State;
use engine::container::{ContainerKey, Registration, Room};
use engine::effect::{Effect, Perform};
use engine::hub::{Action, Hub, Pass};
use engine::id::{NodeName, StreamId};
use engine::input::{Completion, Input, Push, Rejoin};
use engine::limits::Limits;
use engine::outcome::{Reply, RunStatus};
use engine::tally::Count;
use engine::time::Timestamp;
use std::sync::Arc;
use std::time::Duration;

/// The engine and the model, side by side.
pub(crate) struct Pair {
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
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            hub: Hub::new(limits.clone(), 7, 1, Timestamp::ZERO),
            pass: Pass::new(Recorder::default()),
            model: Model::new(limits),
            audit: Audit::default(),
            handles: Vec::new(),
            containers: Vec::new(),
            rooms: (0..STREAMS).map(|_| Arc::new(Room::new(LOTS / 2))).collect(),
            awaiting: Vec::new(),
        }
    }

    pub(crate) fn take(&mut self, step: &Step) {
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
            refilled: false,
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
        let node = NodeName::new(&format!("node{}", node_of(stream)));
        let new =
            Registration { stream: stream_id(stream), node, number, epoch: number, concurrency, credits, warm, room };
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
    pub(crate) fn end(mut self) {
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
