//! A hub, who carries out its effects, and what must hold when all threads are through.

use bytes::Bytes;
use engine::container::{ContainerKey, Registration, Room};
use engine::effect::{Effect, Entry, Perform};
use engine::hub::{Action, Hub, Pass};
use engine::id::{ActionKey, ActivationId, NodeName, StreamId};
use engine::input::{Completion, Input, Push};
use engine::limits::Limits;
use engine::outcome::{Outcome, Reply, RunStatus};
use engine::tally::Count;
use engine::time::Timestamp;
use parking_lot::{Mutex, MutexGuard};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// Every activation's time left.
pub(crate) const TIME_LEFT: Duration = Duration::from_secs(10);

pub(crate) struct World {
    pub(crate) hub: Hub,
    book: Mutex<Book>,
}

/// The book is held for no step that shuttle knows of: a thread of a scene is never put aside with it.
const NEVER_TAKEN: &str = "held by this thread only";

/// What happened.
#[derive(Default)]
struct Book {
    /// How often each id was pushed.
    pushed: BTreeMap<u128, usize>,
    answers: BTreeMap<u128, Vec<Outcome>>,
    /// In order.
    dispatched: Vec<u128>,
    /// Dispatches that came back, and may go out again.
    came_back: Vec<u128>,
    containers: Vec<Container>,
    /// Dispatched to a container whose registration has not returned yet.
    early: BTreeMap<u32, VecDeque<(ActivationId, Bytes)>>,
}

/// A container and its outbox.
#[derive(Clone)]
pub(crate) struct Container {
    pub(crate) number: u32,
    pub(crate) action: Arc<Action>,
    pub(crate) key: ContainerKey,
    room: Arc<Room>,
    waits_for_room: bool,
    outbox: VecDeque<(ActivationId, Bytes)>,
}

/// What one thread works with.
pub(crate) type Hand<'a> = Pass<Courier<'a>>;

/// What one thread does.
pub(crate) type Thread<'a> = Box<dyn FnOnce(&mut Hand<'a>) + Send + 'a>;

/// Names it.
pub(crate) fn thread<'a>(thread: impl FnOnce(&mut Hand<'a>) + Send + 'a) -> Thread<'a> {
    Box::new(thread)
}

pub(crate) struct Courier<'a>(&'a Mutex<Book>);

impl Perform for Courier<'_> {
    fn perform(&mut self, effects: &mut Vec<Effect>) {
        let mut book = self.0.try_lock().expect(NEVER_TAKEN);
        for effect in effects.drain(..) {
            match effect {
                Effect::Write(_, Entry::Dispatch(dispatch)) => {
                    let id = u128::from_be_bytes(dispatch.id.0);
                    book.dispatched.push(id);
                    assert!(
                        times(&book.dispatched, id) <= 1 + times(&book.came_back, id),
                        "{id:x} is dispatched twice"
                    );
                    let content = (dispatch.id, dispatch.payload);
                    match book.containers.iter_mut().find(|container| container.number == dispatch.container) {
                        Some(container) => container.outbox.push_back(content),
                        None => book.early.entry(dispatch.container).or_default().push_back(content),
                    }
                }
                Effect::Write(_, Entry::Answer(answer)) => {
                    book.answers.entry(u128::from_be_bytes(answer.id.0)).or_default().push(answer.outcome);
                }
                Effect::AwaitRoom(stream, ..) => {
                    let number = u32::try_from(stream.0).unwrap();
                    let waiting = book.containers.iter_mut().find(|container| container.number == number);
                    waiting.expect("it registered before").waits_for_room = true;
                }
                Effect::Write(_, Entry::Refuse(refusal)) => panic!("nothing wrong was said: {refusal:?}"),
                Effect::Spill(_) | Effect::Refill(_) => panic!("nothing overflows"),
                Effect::Write(_, Entry::Drain(..) | Entry::Draining) | Effect::WakeAt(_) => {}
            }
        }
    }
}

fn times(ids: &[u128], id: u128) -> usize {
    ids.iter().filter(|other| **other == id).count()
}

/// A revision of the action that most scenes are about.
pub(crate) fn key(revision: &str) -> ActionKey {
    ActionKey::new("tenant", "action", revision)
}

impl World {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { hub: Hub::new(limits, 7, 1, Timestamp::ZERO), book: Mutex::default() }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.try_lock().expect(NEVER_TAKEN)
    }

    pub(crate) fn hand(&self) -> Hand<'_> {
        Pass::new(Courier(&self.book))
    }

    /// Pushes one activation of a controller.
    pub(crate) fn push(&self, action: &Arc<Action>, controller: u64, n: u64, hand: &mut Hand<'_>) {
        let id = u128::from(controller << 32 | n);
        *self.book().pushed.entry(id).or_default() += 1;
        let push = Push {
            id: ActivationId(id.to_be_bytes()),
            controller: StreamId(controller),
            reply: Reply::Outcome,
            attempt: 1,
            accepted_at: hand.now,
            deadline: hand.now + TIME_LEFT,
            payload: Bytes::from_static(b"payload"),
            accepted: false,
            refilled: false,
        };
        self.hub.enter(action, &mut vec![Input::Push(push)], hand);
    }

    /// Registers a container for as many at once as it has credits, or four.
    pub(crate) fn register(&self, key: &ActionKey, number: u32, credits: u32, hand: &mut Hand<'_>) -> Container {
        self.register_with(key, number, credits, Room::new(usize::MAX), hand)
    }

    pub(crate) fn register_with(
        &self,
        key: &ActionKey,
        number: u32,
        credits: u32,
        room: Room,
        hand: &mut Hand<'_>,
    ) -> Container {
        let room = Arc::new(room);
        let new = Registration {
            stream: StreamId(number.into()),
            node: NodeName::new("node"),
            number,
            epoch: 1,
            concurrency: credits.max(4),
            credits,
            warm: false,
            room: room.clone(),
        };
        let (action, key) = self.hub.register(key, new, hand).unwrap();
        let mut book = self.book();
        let outbox = book.early.remove(&number).unwrap_or_default();
        let container = Container { number, action, key, room, waits_for_room: false, outbox };
        book.containers.push(container.clone());
        container
    }

    /// What the container was sent and has not taken.
    pub(crate) fn take(&self, number: u32) -> Option<(ActivationId, Bytes)> {
        let (taken, room) = {
            let mut book = self.book();
            let container = book.containers.iter_mut().find(|container| container.number == number)?;
            (container.outbox.pop_front()?, container.room.clone())
        };
        room.give_back(Room::cost(&taken.1));
        Some(taken)
    }

    /// Completes one that the container was sent, with a new credit. False if there is none.
    pub(crate) fn complete_one(&self, container: &Container, hand: &mut Hand<'_>) -> bool {
        let Some((id, _)) = self.take(container.number) else { return false };
        let (status, result) = (RunStatus::Succeeded, Bytes::new());
        let completion = Completion { id, status, result, run_us: 1, arrived_at: Timestamp::ZERO, credits: 1 };
        self.enter(container, Input::Complete(container.key, completion), hand);
        true
    }

    /// Hands one back that the container was sent, with a new credit.
    pub(crate) fn return_one(&self, container: &Container, hand: &mut Hand<'_>) {
        if let Some((id, payload)) = self.take(container.number) {
            self.book().came_back.push(u128::from_be_bytes(id.0));
            let inputs = [Input::Return(container.key, id, payload), Input::Credit(container.key, 1)];
            self.hub.enter(&container.action, &mut Vec::from(inputs), hand);
        }
    }

    /// The container's stream breaks with what was not sent, and it comes back: the router's order of things.
    pub(crate) fn break_and_rejoin(&self, container: &Container, credits: u32, hand: &mut Hand<'_>) {
        self.hub.enter_and_wait(&container.action, &mut vec![Input::Suspend(container.key)], hand);
        self.take_back_and_rejoin(container, credits, hand);
    }

    /// What was not sent to a suspended container goes back, and the container comes back without having received anything.
    pub(crate) fn take_back_and_rejoin(&self, container: &Container, credits: u32, hand: &mut Hand<'_>) {
        let mut unsent = Vec::new();
        while let Some((id, payload)) = self.take(container.number) {
            self.book().came_back.push(u128::from_be_bytes(id.0));
            unsent.push(Input::Unsent(container.key, id, payload));
        }
        self.hub.enter(&container.action, &mut unsent, hand);
        let rejoin = engine::input::Rejoin { credits, held: Vec::new() };
        self.enter(container, Input::Rejoin(container.key, rejoin), hand);
    }

    /// If the container waits for room, there is some. False if it does not.
    pub(crate) fn make_room(&self, container: &Container, hand: &mut Hand<'_>) -> bool {
        let waited = {
            let mut book = self.book();
            let waiting = book.containers.iter_mut().find(|other| other.number == container.number).unwrap();
            std::mem::take(&mut waiting.waits_for_room)
        };
        if waited {
            self.enter(container, Input::Resume(container.key), hand);
        }
        waited
    }

    pub(crate) fn enter(&self, container: &Container, input: Input, hand: &mut Hand<'_>) {
        self.hub.enter(&container.action, &mut vec![input], hand);
    }

    /// Runs all threads, then lets all that is left end, and checks that everything adds up.
    pub(crate) fn play<'a>(&'a self, threads: impl IntoIterator<Item = Thread<'a>>) {
        let mut hand = self.hand();
        shuttle::thread::scope(|scope| {
            let spawn = |thread: Thread<'a>| {
                scope.spawn(move || {
                    let mut hand = self.hand();
                    thread(&mut hand);
                    hand
                })
            };
            let threads: Vec<_> = threads.into_iter().map(spawn).collect();
            for thread in threads {
                let mut other = thread.join().unwrap();
                self.hub.settle(&mut other);
                hand.now = hand.now.max(other.now);
            }
        });
        self.check_none_stranded(&mut hand);
        self.end(&mut hand);
        self.hub.settle(&mut hand);
        drop(hand);
        self.check_sums();
    }

    /// Nothing is in an intake, and nothing is queued while a container could take it: one more look at each changes nothing.
    fn check_none_stranded(&self, hand: &mut Hand<'_>) {
        // Threads differ in how late it is; the deadlines that were behind one and before another come first, by a tick.
        hand.now = hand.now + Duration::from_millis(2);
        while self.hub.advance(usize::MAX, hand) {}
        let containers = self.book().containers.clone();
        let dispatched = self.book().dispatched.len();
        let answers = self.book().answers.len();
        for container in containers.iter().filter(|container| !container.waits_for_room) {
            self.enter(container, Input::Resume(container.key), hand);
        }
        let book = self.book();
        assert_eq!((book.dispatched.len(), book.answers.len()), (dispatched, answers), "something was left behind");
    }

    /// All that is on containers completes, then they go, and what is queued then expires.
    fn end(&self, hand: &mut Hand<'_>) {
        let containers = self.book().containers.clone();
        loop {
            let mut any = false;
            for container in &containers {
                any |= self.complete_one(container, hand);
                any |= self.make_room(container, hand);
            }
            if !any {
                break;
            }
        }
        containers.iter().for_each(|container| self.enter(container, Input::Gone(container.key), hand));
        hand.now = hand.now + 10 * TIME_LEFT;
        while self.hub.advance(usize::MAX, hand) {}
    }

    fn check_sums(&self) {
        let book = self.book();
        for (id, times) in &book.pushed {
            let answers = book.answers.get(id).map_or(0, Vec::len);
            assert_eq!(answers, *times, "{id:x} was pushed {times} times and answered {answers} times");
        }
        assert_eq!(book.pushed.len(), book.answers.len(), "answers to what nobody asked");

        let of = |count| self.hub.totals().of(count);
        assert_eq!(of(Count::Accepted), self.hub.totals().ended());
        let back = of(Count::Returned) + of(Count::Unsent);
        let late = of(Count::Late) + of(Count::LateLost);
        assert_eq!(of(Count::Dispatched), of(Count::Completed) + of(Count::Lost) + back + late);
        assert_eq!(of(Count::CreditsGranted) + of(Count::Unsent), of(Count::Dispatched) + of(Count::CreditsRevoked));
        assert_eq!(of(Count::ContainersRegistered), of(Count::ContainersLeft));
        let held = (self.hub.held(), self.hub.budget().queued(), self.hub.budget().queued_bytes());
        assert_eq!(held, (0, 0, 0), "something stayed");
    }

    /// Ids of dispatches, in order.
    pub(crate) fn dispatched(&self) -> Vec<u128> {
        self.book().dispatched.clone()
    }

    /// Each controller's activations went out in the order it pushed them.
    pub(crate) fn check_order(&self) {
        let dispatched = self.dispatched();
        for controller in 0..8 {
            let own: Vec<u128> = dispatched.iter().copied().filter(|id| id >> 32 == controller).collect();
            assert!(own.is_sorted(), "controller {controller} was served out of order: {own:x?}");
        }
    }

    /// How the pushes of that id ended.
    pub(crate) fn outcomes(&self, id: u128) -> Vec<Outcome> {
        self.book().answers.get(&id).cloned().unwrap_or_default()
    }
}
