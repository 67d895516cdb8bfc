//! The desk beside a naive model: whatever comes in whatever order, every caller gets exactly one answer, in time, and nothing that
//! may have left is sent again.

use bytes::Bytes;
use client::breaker::State;
use client::desk::{Desk, Effect, End, Entry, Unsent};
use client::{ActionKey, ActivationId, Answer, BreakerPolicy, ControllerConfig, Invocation, Outcome, Reason};
use engine::time::Timestamp;
use proptest::prelude::*;
use proto::v1;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
/// Deadlines round up to the wheel's tick.
const TICK: Duration = Duration::from_micros(1024);
const GRACE: Duration = Duration::from_millis(7);

fn key(action: u8) -> ActionKey {
    ActionKey::new("n", &action.to_string(), "").unwrap()
}

fn welcome(resumed: bool, grace_ms: u32) -> v1::Welcome {
    let session = Bytes::from_static(b"session");
    v1::Welcome { frame_entries_max: 3, session, resumed, grace_ms, ..Default::default() }
}

fn outcome(number: u8) -> v1::Outcome {
    use v1::Outcome::{Accepted, ActionFailed, Completed, Expired, Lost, PlatformFailed, Rejected, TimedOut};
    [Completed, ActionFailed, PlatformFailed, Expired, Rejected, Lost, Accepted, TimedOut][usize::from(number % 8)]
}

#[derive(Debug, Clone)]
enum Step {
    Submit {
        action: u8,
        deadline_ms: u16,
    },
    /// So many of those that wait to be sent leave.
    Leave(u8),
    /// The answer to any that ever left, be it the second one.
    Answer(prop::sample::Index, u8),
    /// To an id that was never given out.
    AnswerNobody([u8; 16]),
    GiveUp(prop::sample::Index),
    /// What is sent next cannot be taken.
    Refuse(u8),
    Drain,
    End {
        broken: bool,
    },
    Open {
        resumed: bool,
        grace_ms: u8,
    },
    Advance {
        by_ms: u16,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let any_index = any::<prop::sample::Index>;
    prop_oneof![
        8 => (0_u8..4, 0_u16..400).prop_map(|(action, deadline_ms)| Step::Submit { action, deadline_ms }),
        5 => (1_u8..6).prop_map(Step::Leave),
        5 => (any_index(), any::<u8>()).prop_map(|(which, outcome)| Step::Answer(which, outcome)),
        1 => any::<[u8; 16]>().prop_map(Step::AnswerNobody),
        2 => any_index().prop_map(Step::GiveUp),
        1 => (0_u8..3).prop_map(Step::Refuse),
        1 => Just(Step::Drain),
        2 => prop::bool::weighted(0.8).prop_map(|broken| Step::End { broken }),
        4 => (any::<bool>(), any::<u8>()).prop_map(|(resumed, grace_ms)| Step::Open { resumed, grace_ms }),
        3 => (0_u16..200).prop_map(|by_ms| Step::Advance { by_ms }),
    ]
}

/// What is known of one invocation without looking at the desk.
#[derive(Debug)]
struct Asked {
    id: ActivationId,
    action: u8,
    deadline: Timestamp,
    /// Was handed to the stream, and not back.
    waits: bool,
    /// Is on its way, or was.
    left: bool,
    done: bool,
}

struct World {
    desk: Desk<usize>,
    now: Timestamp,
    asked: Vec<Asked>,
    by_id: BTreeMap<Vec<u8>, usize>,
    /// Waits to be sent on the stream there is.
    outlet: Vec<v1::Activation>,
    declared: BTreeMap<u32, ActionKey>,
    refuse: Option<Unsent>,
    up: bool,
    late: u64,
}

impl World {
    fn new(breaker: Option<BreakerPolicy>) -> Self {
        let config =
            ControllerConfig { outstanding_max: 12, answer_grace: GRACE, breaker, ..ControllerConfig::default() };
        let desk = Desk::new(config, 7, Timestamp::ZERO);
        let (asked, by_id, outlet, declared) = Default::default();
        Self { desk, now: Timestamp::ZERO, asked, by_id, outlet, declared, refuse: None, up: false, late: 0 }
    }

    fn waiting(&self) -> usize {
        self.asked.iter().filter(|asked| !asked.done).count()
    }

    fn apply(&mut self, step: Step) {
        let mut effects = Vec::new();
        match step {
            Step::Submit { action, deadline_ms } => {
                let after = u32::from(deadline_ms) * MS;
                let invocation = Invocation::new(&key(action), vec![action]).deadline(after);
                let caller = self.asked.len();
                let id = self.desk.submit(self.now, invocation, caller, &mut effects);
                assert!(self.by_id.insert(id.bytes().to_vec(), caller).is_none(), "an id came twice");
                let deadline = self.now + after;
                self.asked.push(Asked { id, action, deadline, waits: false, left: false, done: false });
            }
            Step::Leave(count) => {
                let leaving = self.outlet.len().min(count.into());
                for activation in self.outlet.drain(..leaving) {
                    let asked = &mut self.asked[self.by_id[&activation.id[..]]];
                    (asked.waits, asked.left) = (false, true);
                }
            }
            Step::Answer(which, number) => {
                let left: Vec<_> = self.asked.iter().filter(|asked| asked.left).collect();
                if !self.up || left.is_empty() {
                    return;
                }
                let asked = left[which.index(left.len())];
                self.late += u64::from(asked.done);
                self.answer(&asked.id.bytes(), outcome(number), &mut effects);
            }
            Step::AnswerNobody(id) => {
                self.late += 1;
                self.answer(&id, v1::Outcome::Completed, &mut effects);
            }
            Step::GiveUp(which) => {
                let some = which.index(self.asked.len().max(1));
                let Some(asked) = self.asked.get_mut(some) else { return };
                let waited = self.desk.give_up(self.now, asked.id);
                assert_eq!(waited, (!asked.done).then_some(some));
                asked.done = true;
            }
            Step::Refuse(why) => {
                let too_large = Unsent::TooLarge { payload_bytes_max: 7 };
                self.refuse = Some([Unsent::Full, too_large, Unsent::Closed][usize::from(why % 3)]);
            }
            Step::Drain => {
                let frame = v1::PushResponse { draining: true, ..Default::default() };
                self.desk.handle_frame(self.now, frame, &mut effects);
            }
            Step::End { broken } if self.up => {
                self.up = false;
                self.declared.clear();
                let unsent = std::mem::take(&mut self.outlet);
                for activation in &unsent {
                    self.asked[self.by_id[&activation.id[..]]].waits = false;
                }
                let end = if broken { End::Broken } else { End::Over };
                self.desk.handle_ended(self.now, end, unsent, &mut effects);
            }
            Step::Open { resumed, grace_ms } if !self.up => {
                self.up = true;
                let expected: BTreeSet<_> = self.asked.iter().filter(|asked| !asked.done && asked.left).collect_ids();
                self.desk.handle_opened(self.now, &welcome(resumed, grace_ms.into()), &mut effects);
                let stated = stated(&effects);
                assert_eq!(stated, if resumed { expected } else { BTreeSet::new() });
            }
            Step::End { .. } | Step::Open { .. } => {}
            Step::Advance { by_ms } => self.advance(u32::from(by_ms) * MS),
        }
        self.carry_out(effects);
        self.check();
    }

    fn answer(&mut self, id: &[u8], outcome: v1::Outcome, effects: &mut Vec<Effect<usize>>) {
        let answer = v1::Answer { id: Bytes::copy_from_slice(id), outcome: outcome.into(), ..Default::default() };
        let frame = v1::PushResponse { answers: vec![answer], ..Default::default() };
        self.desk.handle_frame(self.now, frame, effects);
    }

    /// Lets time pass as the shell does: it calls whenever the desk wants to be called.
    fn advance(&mut self, by: Duration) {
        let end = self.now + by;
        loop {
            let mut effects = Vec::new();
            while self.desk.advance(self.now, 2, &mut effects) {}
            self.carry_out(effects);
            match self.desk.next_wake() {
                Some(next) if next <= end => self.now = self.now.max(next),
                _ => break,
            }
        }
        self.now = end;
        let mut effects = Vec::new();
        while self.desk.advance(self.now, 2, &mut effects) {}
        self.carry_out(effects);
    }

    fn carry_out(&mut self, effects: Vec<Effect<usize>>) {
        let mut consequences = Vec::new();
        let mut refused = None;
        for effect in effects {
            match effect {
                Effect::Answer(caller, answer) => self.on_answer(caller, &answer),
                Effect::Send(Entry::Outstanding(ids)) => assert!((1..=3).contains(&ids.len()), "it fits in a frame"),
                Effect::Send(entry) => {
                    // No declaration is too large.
                    let too_large = |why: &Unsent| matches!(why, Unsent::TooLarge { .. });
                    let why = refused.or_else(|| match entry {
                        Entry::Declare(_) => self.refuse.take_if(|why| !too_large(why)),
                        _ => self.refuse.take(),
                    });
                    refused = why.filter(|why| !too_large(why));
                    match why {
                        Some(why) => self.desk.handle_unsent(self.now, entry, why, &mut consequences),
                        None => self.on_send(entry),
                    }
                }
            }
        }
        for effect in consequences {
            let Effect::Answer(caller, answer) = effect else { panic!("nothing is sent instead: {effect:?}") };
            self.on_answer(caller, &answer);
        }
    }

    fn on_send(&mut self, entry: Entry) {
        assert!(self.up, "nothing is sent without a stream");
        match entry {
            Entry::Declare(declare) => {
                let named = declare.key.as_ref().unwrap().action.clone();
                let key = key(std::str::from_utf8(&named).unwrap().parse().unwrap());
                self.declared.insert(declare.number, key);
            }
            Entry::Activation(activation) => {
                let asked = &mut self.asked[self.by_id[&activation.id[..]]];
                assert!(!asked.left && !asked.waits && !asked.done, "sent again: {asked:?}");
                assert_eq!(self.declared.get(&activation.action), Some(&key(asked.action)));
                assert_eq!(activation.payload, [asked.action][..]);
                let left = self.now.until(asked.deadline);
                assert_eq!(u128::from(activation.time_left_ms), left.as_millis().max(1));
                asked.waits = true;
                self.outlet.push(activation);
            }
            Entry::Outstanding(_) => unreachable!("taken whatever waits"),
        }
    }

    fn on_answer(&mut self, caller: usize, answer: &Answer) {
        let asked = &mut self.asked[caller];
        assert_eq!(answer.id, asked.id);
        assert!(!asked.done, "a second answer: {answer:?}");
        asked.done = true;
        assert!(self.now <= asked.deadline + GRACE + TICK, "{:?} late: {answer:?}", self.now);
        match &answer.outcome {
            Outcome::TimedOut => assert!(asked.left || self.now >= asked.deadline + GRACE, "early"),
            Outcome::Unreachable { maybe_sent } => {
                assert_eq!(*maybe_sent, asked.left, "{asked:?}");
                assert!(!asked.waits);
            }
            Outcome::CircuitOpen { retry_after, .. } => assert!(!asked.left && !retry_after.is_zero()),
            outcome => assert!(asked.left || matches!(outcome, Outcome::Rejected(_)), "{outcome:?} from nowhere"),
        }
    }

    fn check(&self) {
        assert_eq!(self.desk.outstanding(), self.waiting());
        assert_eq!(self.desk.late_answers(), self.late);
        assert_eq!(self.desk.is_connected(), self.up);
    }

    /// Everybody hears, and nothing is left.
    fn finish(mut self) {
        self.advance(SECOND);
        assert_eq!(self.waiting(), 0, "{:?}", self.asked);
        self.check();
        assert_eq!(self.desk.next_wake(), None, "a timer was left");
    }
}

trait CollectIds {
    fn collect_ids(self) -> BTreeSet<Vec<u8>>;
}

impl<'a, I: Iterator<Item = &'a Asked>> CollectIds for I {
    fn collect_ids(self) -> BTreeSet<Vec<u8>> {
        self.map(|asked| asked.id.bytes().to_vec()).collect()
    }
}

fn stated(effects: &[Effect<usize>]) -> BTreeSet<Vec<u8>> {
    let ids = effects.iter().filter_map(|effect| match effect {
        Effect::Send(Entry::Outstanding(ids)) => Some(ids),
        _ => None,
    });
    ids.flatten().map(|id| id.to_vec()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn whatever_happens_each_caller_hears_once_in_time(
        steps in prop::collection::vec(step(), 1..120),
        breakers in any::<bool>(),
    ) {
        let mut world = World::new(breakers.then(BreakerPolicy::default));
        world.apply(Step::Open { resumed: false, grace_ms: 50 });
        steps.into_iter().for_each(|step| world.apply(step));
        world.finish();
    }
}

/// A world with a stream whose router keeps answers for 50 ms.
fn connected() -> World {
    let mut world = World::new(Some(BreakerPolicy::default()));
    world.apply(Step::Open { resumed: false, grace_ms: 50 });
    world
}

fn submit(world: &mut World, deadline_ms: u16) -> usize {
    world.apply(Step::Submit { action: 1, deadline_ms });
    world.asked.len() - 1
}

#[test]
fn callers_wait_for_a_stream_that_breaks_until_the_grace_is_over() {
    let mut world = connected();
    let (left, kept) = (submit(&mut world, 300), submit(&mut world, 300));
    world.apply(Step::Leave(1));
    world.apply(Step::End { broken: true });
    world.advance(49 * MS);
    assert_eq!(world.waiting(), 2);
    world.advance(3 * MS);
    assert!(world.asked[left].done && world.asked[kept].done);
    assert!(world.asked[left].left && !world.asked[kept].left, "and heard which of them may have left");
    world.finish();
}

#[test]
fn what_never_left_is_sent_on_the_next_stream_with_the_time_it_has_left() {
    for resumed in [true, false] {
        let mut world = connected();
        submit(&mut world, 300);
        world.apply(Step::End { broken: true });
        world.advance(20 * MS);
        world.apply(Step::Open { resumed, grace_ms: 50 });
        let sent: Vec<_> = world.outlet.iter().map(|activation| activation.time_left_ms).collect();
        assert_eq!(sent, [280], "resumed: {resumed}");
        world.finish();
    }
}

#[test]
fn one_that_the_next_router_finds_too_large_takes_no_others_along() {
    let mut world = connected();
    (0..3).for_each(|_| _ = submit(&mut world, 300));
    world.apply(Step::End { broken: true });
    world.refuse = Some(Unsent::TooLarge { payload_bytes_max: 0 });
    world.apply(Step::Open { resumed: false, grace_ms: 50 });
    let done: Vec<_> = world.asked.iter().map(|asked| asked.done).collect();
    assert_eq!((done, world.outlet.len()), (vec![true, false, false], 2));
    world.finish();
}

#[test]
fn what_has_no_time_left_is_not_sent_late() {
    let mut world = connected();
    let kept = submit(&mut world, 20);
    world.apply(Step::End { broken: true });
    // Past its deadline, within its grace.
    world.advance(22 * MS);
    world.apply(Step::Open { resumed: true, grace_ms: 50 });
    assert!(world.outlet.is_empty() && !world.asked[kept].done);
    world.finish();
}

#[test]
fn nobody_waits_for_a_stream_that_the_router_ended() {
    let mut world = connected();
    submit(&mut world, 300);
    world.apply(Step::Leave(1));
    world.apply(Step::End { broken: false });
    assert_eq!((world.waiting(), world.desk.next_wake()), (0, None));
}

#[test]
fn an_action_that_is_lost_three_times_is_kept_back_for_a_while() {
    let mut world = connected();
    for _ in 0..3 {
        let caller = submit(&mut world, 300);
        world.apply(Step::Leave(1));
        let (id, mut effects) = (world.asked[caller].id.bytes(), Vec::new());
        world.answer(&id, v1::Outcome::Lost, &mut effects);
        world.carry_out(effects);
    }
    let circuit = world.desk.breaker(world.now, &key(1)).unwrap();
    assert_eq!(circuit.state, State::Open);
    let mut effects = Vec::new();
    world.desk.submit(world.now, Invocation::new(&key(1), ""), 99, &mut effects);
    world.desk.submit(world.now, Invocation::new(&key(2), ""), 99, &mut effects);
    let [Effect::Answer(99, answer), Effect::Send(_), Effect::Send(_)] = &effects[..] else { panic!("{effects:?}") };
    assert!(matches!(answer.outcome, Outcome::CircuitOpen { .. }));
    assert_eq!(answer.outcome.retry_after(), circuit.retry_after);
}

#[test]
fn as_many_wait_as_may_and_no_more() {
    let mut world = connected();
    (0..12).for_each(|_| _ = submit(&mut world, 300));
    let mut effects = Vec::new();
    world.desk.submit(world.now, Invocation::new(&key(1), ""), 99, &mut effects);
    let [Effect::Answer(99, answer)] = &effects[..] else { panic!("{effects:?}") };
    let Outcome::Rejected(rejection) = &answer.outcome else { panic!("{answer:?}") };
    assert_eq!((rejection.reason, rejection.limit), (Reason::OutstandingFull, 12));
    assert!(rejection.retry_after.is_some());
    world.finish();
}
