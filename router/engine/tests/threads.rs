//! The engine between threads: what another thread does in the middle of a turn, and many threads at once.

use bytes::Bytes;
use engine::audit::Audit;
use engine::container::Registration;
use engine::effect::{Effect, Entry, Perform};
use engine::hub::{Hub, Pass};
use engine::id::{ActionKey, ActivationId, NodeName, StreamId};
use engine::input::{Completion, Input, Push};
use engine::limits::Limits;
use engine::outcome::{Outcome, Reason, Reply, RunStatus};
use engine::tally::Count;
use engine::time::Timestamp;
use parking_lot::Mutex;
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Records what is asked for, and once lets another thread do something at that very moment: it runs here, on a pass of its
/// own, and stays away from the action that is held.
struct Interrupted<'a> {
    effects: Vec<Effect>,
    other_thread: Option<Box<dyn FnOnce() + 'a>>,
}

impl Perform for Interrupted<'_> {
    fn perform(&mut self, effects: &mut Vec<Effect>) {
        self.effects.append(effects);
        if let Some(act) = self.other_thread.take() {
            act();
        }
    }
}

#[test]
fn an_id_that_moves_on_to_a_newer_revision_cannot_be_taken_on_its_way() {
    let hub = Hub::new(Limits::default(), 7, 1, Timestamp::ZERO);
    let mut setup = Pass::new(Recorder::default());
    let old = hub.declare(&revision("1"), &mut setup).unwrap();
    let (_, container) = hub.register(&revision("1"), registration(1, 0), &mut setup).unwrap();
    hub.enter(&old, &mut vec![push(1, setup.now)], &mut setup);
    let new = hub.declare(&revision("2"), &mut setup).unwrap();

    let second = RefCell::new(Pass::new(Recorder::default()));
    let other_thread = || hub.enter(&new, &mut vec![push(1, Timestamp::ZERO)], &mut second.borrow_mut());
    let mut pass = Pass::new(Interrupted { effects: Vec::new(), other_thread: Some(Box::new(other_thread)) });
    hub.enter(&old, &mut vec![Input::Gone(container)], &mut pass);

    assert_eq!(rejections(&second.borrow().performer.0), [Reason::IdInFlight], "the second push");
    assert_eq!(rejections(&pass.performer.effects), [], "the first was accepted");
    assert_eq!((hub.held(), hub.budget().queued()), (1, 1));
}

/// Controllers push to a few actions and invokers run what comes, return some of it, leave and come again, all at once on
/// small queues, while time passes and newer and newer revisions are declared.
#[test]
fn every_push_is_answered_once_and_nothing_is_dispatched_twice() {
    let limits = Limits { action_queued_max: 500, router_queued_max: 800, ..Limits::default() };
    let (hub, post) = (Hub::new(limits, 7, 2, Timestamp::ZERO), Post::default());
    let finished = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for controller in 0..CONTROLLERS {
            let (hub, post, finished) = (&hub, &post, &finished);
            scope.spawn(move || {
                control(controller, hub, post);
                finished.fetch_add(1, Ordering::SeqCst);
            });
        }
        for invoker in 0..INVOKERS {
            let (hub, post, finished) = (&hub, &post, &finished);
            scope.spawn(move || invoke(invoker, hub, post, || finished.load(Ordering::SeqCst) == CONTROLLERS));
        }
    });
    let mut pass = Pass::new(post.of_its_own());
    pass.now = post.now() + Duration::from_secs(1);
    while hub.advance(usize::MAX, &mut pass) {}
    hub.settle(&mut pass);
    assert_eq!(hub.audit(&mut pass), Audit::default(), "no container is left");
    drop(pass);

    let pushed = CONTROLLERS * PUSHES;
    let answers = post.answers.lock();
    assert_eq!(answers.len() as u64, pushed, "each push was answered");
    assert!(answers.values().all(|times| *times == 1), "once");
    let (dispatched, returned) = (post.dispatched.lock(), post.returned.lock());
    assert!(dispatched.iter().all(|(id, times)| *times <= 1 + returned.get(id).unwrap_or(&0)), "dispatched once");

    let of = |count| hub.totals().of(count);
    assert_eq!(of(Count::Accepted), hub.totals().ended());
    assert_eq!(
        of(Count::Accepted) + hub.totals().rejected(Reason::QueueFull) + hub.totals().rejected(Reason::RouterFull),
        pushed
    );
    assert_eq!(of(Count::CreditsGranted), of(Count::Dispatched) + of(Count::CreditsRevoked));
    let late = of(Count::Late) + of(Count::LateLost);
    assert_eq!(of(Count::TimedOut), late, "what timed out left its container all the same");
    assert_eq!(of(Count::Dispatched), of(Count::Completed) + of(Count::Lost) + of(Count::Returned) + late);
    assert_eq!(of(Count::ContainersRegistered), of(Count::ContainersLeft));
    assert!(of(Count::Completed) > 0 && of(Count::Returned) > 0, "invokers got something to do");
    assert_eq!((hub.held(), hub.budget().queued(), hub.budget().queued_bytes()), (0, 0, 0));
}

const CONTROLLERS: u64 = 3;
const INVOKERS: u64 = 3;
const PUSHES: u64 = 10_000;
const ACTIONS: u64 = 3;
const REVISIONS: u64 = 5;
/// Some hundred pushes to a deadline, so that some expire.
const PUSH_US: u64 = 200;
const CONCURRENCY: u32 = 4;

/// Pushes to one action after another, and now and then declares a revision that is new.
fn control(controller: u64, hub: &Hub, post: &Post) {
    let mut pass = Pass::new(post.of_its_own());
    for n in 0..PUSHES {
        post.clock_us.fetch_add(PUSH_US, Ordering::SeqCst);
        pass.now = post.now();
        let revision = n / (PUSHES / REVISIONS);
        let action = hub.declare(&action(n % ACTIONS, revision), &mut pass).expect("few actions");
        hub.enter(&action, &mut vec![push(u128::from(controller << 32 | n), pass.now)], &mut pass);
        if n % 64 == 0 {
            hub.advance(64, &mut pass);
            std::thread::yield_now();
        }
    }
    hub.settle(&mut pass);
}

/// Runs what is dispatched to its container, until it has done enough and leaves; then comes again with another.
fn invoke(invoker: u64, hub: &Hub, post: &Post, finished: impl Fn() -> bool) {
    let mut pass = Pass::new(post.of_its_own());
    for life in 0..u32::MAX {
        // Seen before it registers: so the last one finds all that was pushed.
        let last = finished();
        let revision = if last { REVISIONS - 1 } else { u64::from(life) % REVISIONS };
        for a in 0..ACTIONS {
            live(action(a, revision), u64::from(life) * INVOKERS + invoker, hub, post, &mut pass);
        }
        hub.settle(&mut pass);
        if last {
            return;
        }
    }
}

/// One container's life. It returns every seventh activation and leaves with some in flight.
fn live(key: ActionKey, life: u64, hub: &Hub, post: &Post, pass: &mut Pass<Courier<'_>>) {
    let number = u32::try_from(post.containers.fetch_add(1, Ordering::SeqCst)).expect("few containers");
    let (action, container) = hub.register(&key, registration(number, CONCURRENCY), pass).expect("few actions");
    for n in 0..40 + life % 20 {
        let Some((id, payload)) = post.take(number) else {
            std::thread::yield_now();
            continue;
        };
        let mut inputs = if n % 7 == 6 {
            *post.returned.lock().entry(id).or_default() += 1;
            vec![Input::Return(container, id, payload), Input::Credit(container, 1)]
        } else {
            let status = RunStatus::Succeeded;
            let (result, arrived_at) = (Bytes::new(), Timestamp::ZERO);
            vec![Input::Complete(container, Completion { id, status, result, run_us: 1, arrived_at, credits: 1 })]
        };
        pass.now = post.now();
        hub.enter(&action, &mut inputs, pass);
    }
    hub.enter(&action, &mut vec![Input::Gone(container)], pass);
}

/// What goes between the threads: dispatches by container, and a record of everything.
#[derive(Default)]
struct Post {
    /// Time goes on with each push.
    clock_us: AtomicU64,
    containers: AtomicU64,
    boxes: Mutex<BTreeMap<u32, VecDeque<(ActivationId, Bytes)>>>,
    answers: Mutex<BTreeMap<ActivationId, u32>>,
    dispatched: Mutex<BTreeMap<ActivationId, u32>>,
    returned: Mutex<BTreeMap<ActivationId, u32>>,
}

impl Post {
    fn of_its_own(&self) -> Courier<'_> {
        Courier(self)
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.clock_us.load(Ordering::SeqCst))
    }

    fn take(&self, container: u32) -> Option<(ActivationId, Bytes)> {
        self.boxes.lock().get_mut(&container)?.pop_front()
    }
}

/// Brings one thread's effects to the post.
struct Courier<'a>(&'a Post);

impl Perform for Courier<'_> {
    fn perform(&mut self, effects: &mut Vec<Effect>) {
        for effect in effects.drain(..) {
            match effect {
                Effect::Write(_, Entry::Dispatch(dispatch)) => {
                    *self.0.dispatched.lock().entry(dispatch.id).or_default() += 1;
                    let content = (dispatch.id, dispatch.payload);
                    self.0.boxes.lock().entry(dispatch.container).or_default().push_back(content);
                }
                Effect::Write(_, Entry::Answer(answer)) => *self.0.answers.lock().entry(answer.id).or_default() += 1,
                Effect::Write(_, Entry::Refuse(refusal)) => panic!("nothing wrong was said: {refusal:?}"),
                Effect::Write(_, Entry::Drain(..) | Entry::Draining) | Effect::WakeAt(_) => {}
                Effect::AwaitRoom(..) => panic!("there is always room"),
                Effect::Spill(_) | Effect::Refill(_) => panic!("nothing overflows"),
            }
        }
    }
}

#[derive(Debug, Default)]
struct Recorder(Vec<Effect>);

impl Perform for Recorder {
    fn perform(&mut self, effects: &mut Vec<Effect>) {
        self.0.append(effects);
    }
}

fn rejections(effects: &[Effect]) -> Vec<Reason> {
    let reason = |effect: &Effect| match effect {
        Effect::Write(_, Entry::Answer(answer)) => match &answer.outcome {
            Outcome::Rejected(rejection) => Some(rejection.reason),
            _ => None,
        },
        _ => None,
    };
    effects.iter().filter_map(reason).collect()
}

/// Who was dispatched with how much time left, or answered.
fn fates(effects: &[Effect]) -> Vec<(u128, Option<u32>)> {
    let fate = |effect: &Effect| match effect {
        Effect::Write(_, Entry::Dispatch(dispatch)) => {
            Some((u128::from_be_bytes(dispatch.id.0), Some(dispatch.time_left_ms)))
        }
        Effect::Write(_, Entry::Answer(answer)) => Some((u128::from_be_bytes(answer.id.0), None)),
        _ => None,
    };
    effects.iter().filter_map(fate).collect()
}

fn action(action: u64, revision: u64) -> ActionKey {
    ActionKey::new("tenant", &action.to_string(), &revision.to_string())
}

fn revision(revision: &str) -> ActionKey {
    ActionKey::new("tenant", "action", revision)
}

fn registration(number: u32, credits: u32) -> Registration {
    let stream = StreamId(1000 + u64::from(number));
    Registration {
        stream,
        node: NodeName::new("node"),
        number,
        epoch: 0,
        concurrency: 4,
        credits,
        warm: false,
        room: Arc::new(engine::container::Room::new(usize::MAX)),
    }
}

fn push(id: u128, now: Timestamp) -> Input {
    Input::Push(Push {
        id: ActivationId(id.to_be_bytes()),
        controller: StreamId(1),
        reply: Reply::Outcome,
        attempt: 1,
        accepted_at: now,
        deadline: now + Duration::from_millis(100),
        payload: Bytes::from_static(b"payload"),
        accepted: false,
        refilled: false,
    })
}

#[test]
fn what_is_done_for_another_thread_is_done_at_its_time() {
    let hub = Hub::new(Limits::default(), 7, 1, Timestamp::ZERO);
    let mut pass = Pass::new(Recorder::default());
    let action = hub.declare(&revision("1"), &mut pass).unwrap();
    let (_, container) = hub.register(&revision("1"), registration(1, 0), &mut pass).unwrap();
    let later = pass.now + Duration::from_millis(100);
    hub.enter(&action, &mut vec![push(1, pass.now)], &mut pass);

    // As if another thread had left these in the intake: this pass's own time is still zero.
    hub.enter(&action, &mut vec![push(2, later), Input::Credit(container, 1)], &mut pass);
    assert_eq!(
        fates(&pass.performer.0),
        [(1, None), (2, Some(100))],
        "the first expired just then, the second has all its time"
    );

    // And the other way round: time does not go back for an action when a thread comes that is behind.
    pass.performer.0.clear();
    hub.enter(&action, &mut vec![push(3, later), push(4, Timestamp::ZERO)], &mut pass);
    hub.enter(&action, &mut vec![Input::Credit(container, 2)], &mut pass);
    assert_eq!(fates(&pass.performer.0), [(4, None), (3, Some(100))]);
}
