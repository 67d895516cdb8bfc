//! A hub and one thread that drives it, as the router's readers do: frames of inputs for one action, then the pass settles.
//! Effects go to a performer that keeps just enough of them to go on. Payloads have 256 bytes. It reads no clock and draws
//! nothing at random: ids come from a counter, and time stands still unless a benchmark moves it.

use bytes::Bytes;
use engine::container::{ContainerKey, Registration, Room};
use engine::effect::{Effect, Entry, Perform};
use engine::hub::{Action, Hub, Pass};
use engine::id::{ActionKey, ActivationId, StreamId};
use engine::input::{Completion, Input, Push};
use engine::limits::Limits;
use engine::outcome::{Reply, RunStatus};
use engine::time::Timestamp;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

/// A hub, and one thread that drives it: alone, or beside others with a world each.
pub struct World {
    /// The engine.
    pub hub: Arc<Hub>,
    pass: Pass<Dispatched>,
    payload: Bytes,
    inputs: Vec<Input>,
    next_id: u128,
}

/// An action and its containers by number.
pub struct Declared {
    action: Arc<Action>,
    /// Those that were added, in their order.
    pub containers: Vec<ContainerKey>,
}

impl Default for World {
    fn default() -> Self {
        Self::with_wheels(1)
    }
}

impl World {
    /// A hub with so many timing wheels.
    pub fn with_wheels(wheels: usize) -> Self {
        Self::driving(Arc::new(Hub::new(Limits::default(), 7, wheels, Timestamp::ZERO)), 0)
    }

    /// The same hub, driven by another thread, with ids of its own by that thread's number. The first world has those of 0.
    pub fn beside(&self, thread: u64) -> Self {
        Self::driving(self.hub.clone(), u128::from(thread) << 64)
    }

    fn driving(hub: Arc<Hub>, next_id: u128) -> Self {
        Self {
            hub,
            pass: Pass::new(Dispatched::default()),
            payload: vec![7; PAYLOAD_BYTES].into(),
            inputs: Vec::new(),
            next_id,
        }
    }

    /// Declares an action of that number.
    pub fn action(&mut self, number: usize) -> Declared {
        let key = ActionKey::new("tenant", &format!("action-{number}"), "");
        let action = self.hub.declare(&key, &mut self.pass).expect("within the limits");
        Declared { action, containers: Vec::new() }
    }

    /// The same, with a container for one activation at a time.
    pub fn action_with_container(&mut self, number: usize) -> Declared {
        self.action_with_containers(number, 1, 1)
    }

    /// The same, with so many containers for so many activations at a time each, and credits for all of them.
    pub fn action_with_containers(&mut self, number: usize, containers: u32, concurrency: u32) -> Declared {
        let mut one = self.action(number);
        (0..containers).for_each(|number| self.add_container(&mut one, number, concurrency, concurrency));
        one
    }

    /// Registers a container.
    pub fn add_container(&mut self, to: &mut Declared, number: u32, concurrency: u32, credits: u32) {
        let room = Arc::new(Room::new(usize::MAX));
        let node = engine::id::NodeName::new("node");
        let new = Registration { stream: INVOKER, node, number, epoch: 0, concurrency, credits, warm: true, room };
        let registered = self.hub.register(to.action.key(), new, &mut self.pass);
        to.containers.push(registered.expect("within the limits").1);
    }

    /// Hands in a frame of activations, and completes those that this thread dispatched: where threads share an action, others'
    /// among them.
    pub fn round_trip(&mut self, on: &Declared, frame: u32) {
        self.push(on, frame);
        self.complete(on, 1);
    }

    /// Completes what is left after the last push.
    pub fn finish(&mut self, on: &Declared) {
        while !self.pass.performer.0.is_empty() {
            self.complete(on, 1);
        }
    }

    /// Hands in a frame of activations.
    pub fn push(&mut self, to: &Declared, frame: u32) {
        for _ in 0..frame {
            let push = self.activation();
            self.inputs.push(Input::Push(push));
        }
        self.hand_in(to);
    }

    fn activation(&mut self) -> Push {
        self.next_id += 1;
        Push {
            id: ActivationId(self.next_id.to_le_bytes()),
            controller: CONTROLLER,
            reply: Reply::Outcome,
            attempt: 1,
            accepted_at: self.pass.now,
            deadline: self.pass.now + TIME_LEFT,
            payload: self.payload.clone(),
            accepted: false,
            refilled: false,
        }
    }

    /// Completes all that was dispatched, in frames of at most 64 that grant so many credits with each. What is dispatched
    /// for them is left for the next call.
    pub fn complete(&mut self, on: &Declared, credits: u32) {
        let mut dispatched = std::mem::take(&mut self.pass.performer.0);
        for frame in dispatched.chunks(64) {
            for (container, id) in frame {
                let (result, status) = (self.payload.clone(), RunStatus::Succeeded);
                let completion =
                    Completion { id: *id, status, result, run_us: 0, arrived_at: Timestamp::ZERO, credits };
                self.inputs.push(Input::Complete(on.containers[*container as usize], completion));
            }
            self.hand_in(on);
        }
        dispatched.clear();
        dispatched.append(&mut self.pass.performer.0);
        self.pass.performer.0 = dispatched;
    }

    /// Hands in one input.
    pub fn enter(&mut self, action: &Declared, input: Input) {
        self.inputs.push(input);
        self.hand_in(action);
    }

    /// Moves time on, without a look at what is due.
    pub fn pass_time(&mut self, by: Duration) {
        self.pass.now = self.pass.now + by;
    }

    /// Lets the deadlines of all that was pushed come, and works on what is due, as the router's timer task does.
    pub fn expire_all(&mut self) {
        self.pass_time(TIME_LEFT + Duration::from_secs(1));
        while self.hub.advance(TIMERS_AT_ONCE, &mut self.pass) {}
        self.hub.settle(&mut self.pass);
        assert_eq!(self.hub.held(), 0);
    }

    fn hand_in(&mut self, to: &Declared) {
        self.hub.enter(&to.action, &mut self.inputs, &mut self.pass);
        self.hub.settle(&mut self.pass);
    }
}

/// Keeps what was dispatched, so that it can be completed.
#[derive(Default)]
struct Dispatched(Vec<(u32, ActivationId)>);

impl Perform for Dispatched {
    fn perform(&mut self, effects: &mut Vec<Effect>) {
        for effect in effects.drain(..) {
            match effect {
                Effect::Write(_, Entry::Dispatch(dispatch)) => self.0.push((dispatch.container, dispatch.id)),
                other => drop(black_box(other)),
            }
        }
    }
}

/// OpenWhisk's usual limit on the time of an activation.
const TIME_LEFT: Duration = Duration::from_secs(60);
const PAYLOAD_BYTES: usize = 256;
const CONTROLLER: StreamId = StreamId(1);
const INVOKER: StreamId = StreamId(2);
/// What the router's timer task works on at once.
const TIMERS_AT_ONCE: usize = 256;
