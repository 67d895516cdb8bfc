//! The breakers of a controller's actions. It may not judge: what counts as a strike is here, when strikes open a breaker is
//! `engine::breaker`'s to say.

use crate::action::ActionKey;
use crate::config::BreakerPolicy;
use crate::id::ActivationId;
use crate::outcome::{Answer, Outcome, Stages};
use engine::breaker::{Breaker, Cause, State, Verdict};
use engine::time::Timestamp;
use std::collections::HashMap;
use std::time::Duration;

/// How an action's breaker stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Circuit {
    /// Whether activations are sent.
    pub state: State,
    /// What it opened for; while it was never open: its last strike.
    pub cause: Cause,
    /// How long it has been in that state.
    pub age: Duration,
    /// If it is open: when an activation is let through again, to see.
    pub retry_after: Option<Duration>,
}

/// The actions that had strikes of late. None of the others costs anything.
#[derive(Debug)]
pub(crate) struct Circuits {
    /// None: nothing is ever kept back.
    policy: Option<BreakerPolicy>,
    /// Never iterated over but to forget, so its order decides nothing.
    breakers: HashMap<ActionKey, Breaker>,
    /// Those whose callers had waited long enough before the router said anything of them.
    unheard: Unheard,
    /// What the next random number is made of.
    random: u64,
}

/// When an activation was submitted, and how much time its action was given.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sent {
    pub(crate) began: Timestamp,
    pub(crate) allowed: Duration,
}

/// Activations of which only a late answer says whether their action had a fair time. At the bound the oldest makes room.
#[derive(Debug, Default)]
struct Unheard {
    ring: Vec<(ActivationId, ActionKey, Sent)>,
    /// Where the next one goes once the ring is full.
    next: usize,
    places: HashMap<ActivationId, usize>,
}

impl Circuits {
    pub(crate) fn new(policy: Option<BreakerPolicy>, seed: u64) -> Self {
        Self { policy, breakers: HashMap::new(), unheard: Unheard::default(), random: seed }
    }

    /// Whether an activation may be sent. Each that may is followed by one [`on_ended`](Self::on_ended).
    pub(crate) fn admit(&mut self, now: Timestamp, key: &ActionKey) -> Result<(), Outcome> {
        if self.breakers.is_empty() {
            return Ok(());
        }
        let Some(breaker) = self.breakers.get_mut(key) else { return Ok(()) };
        if breaker.begin(now) {
            return Ok(());
        }
        let retry_after = breaker.until().map_or(PROBED_WITHIN, |until| now.until(until));
        Err(Outcome::CircuitOpen { cause: breaker.cause(), retry_after })
    }

    /// An activation ended with that answer; none: nobody waits for it any more.
    pub(crate) fn on_ended(&mut self, now: Timestamp, key: &ActionKey, sent: Sent, answer: Option<&Answer>) {
        let Some(policy) = &self.policy else { return };
        let verdict = answer.map_or(Verdict::Undecided, |answer| verdict(answer, sent, now, policy.slow_after));
        self.judge(now, key, sent.began, verdict);
    }

    /// The time of an activation is over, and the router has said nothing of it: that may come yet.
    pub(crate) fn on_unheard(&mut self, now: Timestamp, id: ActivationId, key: &ActionKey, sent: Sent) {
        if self.policy.is_some() {
            self.unheard.insert(id, key.clone(), sent);
            self.judge(now, key, sent.began, Verdict::Undecided);
        }
    }

    /// An answer came that nobody waits for.
    pub(crate) fn on_late(&mut self, now: Timestamp, answer: &Answer) {
        let Some(policy) = &self.policy else { return };
        let Some((key, sent)) = self.unheard.take(answer.id) else { return };
        let Stages { dispatch, run, .. } = answer.stages;
        let verdict = match verdict(answer, sent, now, policy.slow_after) {
            // It was late though its action took a fair time: the rest it waited.
            Verdict::Good if dispatch + run <= sent.allowed / 2 => Verdict::GoodLate,
            Verdict::Good => return,
            verdict => verdict,
        };
        self.judge(now, &key, sent.began, verdict);
    }

    fn judge(&mut self, now: Timestamp, key: &ActionKey, began: Timestamp, verdict: Verdict) {
        let Some(policy) = &self.policy else { return };
        let strike = matches!(verdict, Verdict::Strike(_));
        if !strike && self.breakers.is_empty() {
            return;
        }
        if strike && !self.breakers.contains_key(key) {
            if self.breakers.len() >= policy.actions_max {
                self.breakers.retain(|_, breaker| !breaker.is_over(now, &policy.rules));
            }
            if self.breakers.len() < policy.actions_max {
                self.breakers.insert(key.clone(), Breaker::new(now, &policy.rules));
            }
        }
        let Some(breaker) = self.breakers.get_mut(key) else { return };
        if let Some(state) = breaker.ended(verdict, began, now, next_random(&mut self.random), &policy.rules) {
            tracing::warn!(action = %key, state = state.label(), cause = breaker.cause().label(), "the breaker turned");
        }
        if breaker.is_over(now, &policy.rules) {
            self.breakers.remove(key);
        }
    }

    pub(crate) fn of(&self, now: Timestamp, key: &ActionKey) -> Option<Circuit> {
        let breaker = self.breakers.get(key)?;
        let retry_after = breaker.until().map(|until| now.until(until));
        Some(Circuit { state: breaker.state(), cause: breaker.cause(), age: breaker.since().until(now), retry_after })
    }
}

impl Unheard {
    fn insert(&mut self, id: ActivationId, key: ActionKey, sent: Sent) {
        let at = if self.ring.len() < UNHEARD_MAX {
            self.ring.push((id, key, sent));
            self.ring.len() - 1
        } else {
            let at = self.next;
            self.next = (at + 1) % UNHEARD_MAX;
            let (oldest, ..) = std::mem::replace(&mut self.ring[at], (id, key, sent));
            self.places.remove(&oldest);
            at
        };
        self.places.insert(id, at);
    }

    fn take(&mut self, id: ActivationId) -> Option<(ActionKey, Sent)> {
        let at = self.places.remove(&id)?;
        let (_, key, sent) = &self.ring[at];
        Some((key.clone(), *sent))
    }
}

/// What an answer says of the action's way through the platform. The action's own failure is a good sign, saturation none. So what it
/// waited in the router's queue makes nothing slow, and a timeout counts only if at least half of its time was its container's.
fn verdict(answer: &Answer, sent: Sent, now: Timestamp, slow_after: Option<Duration>) -> Verdict {
    let Stages { queue, dispatch, .. } = answer.stages;
    let took = sent.began.until(now).saturating_sub(queue);
    let half = sent.allowed / 2;
    match &answer.outcome {
        Outcome::Completed(_) | Outcome::ActionFailed(_) if slow_after.is_some_and(|slow| took > slow) => {
            Verdict::Strike(Cause::Slow)
        }
        Outcome::Completed(_) | Outcome::ActionFailed(_) | Outcome::Accepted(_) => Verdict::Good,
        Outcome::PlatformFailed(_) | Outcome::Lost => Verdict::Strike(Cause::Failed),
        // Stages are told up to a bound; what reaches it was that long at least.
        Outcome::TimedOut if queue <= half && (dispatch >= half || dispatch >= STAGE_MAX) => {
            Verdict::Strike(Cause::TimedOut)
        }
        Outcome::TimedOut
        | Outcome::Expired
        | Outcome::Rejected(_)
        | Outcome::CircuitOpen { .. }
        | Outcome::Unreachable { .. } => Verdict::Undecided,
    }
}

/// Splitmix64: each state differs, and so does what comes of it.
fn next_random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// What a caller is told to wait while another's activation is underway to see how the action fares.
const PROBED_WITHIN: Duration = Duration::from_millis(100);
/// Activations that a late answer may still say something of.
const UNHEARD_MAX: usize = 4096;
/// The longest stage that is told.
const STAGE_MAX: Duration = Duration::from_micros(u32::MAX as u64);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::{Durability, Rejection};
    use bytes::Bytes;
    use proto::v1;

    const SECOND: Duration = Duration::from_secs(1);

    fn key(action: &str) -> ActionKey {
        ActionKey::new("n", action, "").unwrap()
    }

    fn circuits(policy: BreakerPolicy) -> Circuits {
        Circuits::new(Some(policy), 7)
    }

    fn id(number: u8) -> ActivationId {
        ActivationId::from_wire(&[number; 16]).unwrap()
    }

    fn sent(began: Timestamp) -> Sent {
        Sent { began, allowed: 10 * SECOND }
    }

    /// The answer to one that waited in the queue for so long and was its container's for so long.
    fn answer(outcome: &Outcome, queue: Duration, dispatch: Duration) -> Answer {
        Answer { id: id(1), outcome: outcome.clone(), stages: Stages { queue, dispatch, run: Duration::ZERO } }
    }

    /// Sends and ends one at once, all of its time its container's. True if it was let through.
    fn run(circuits: &mut Circuits, now: Timestamp, key: &ActionKey, outcome: &Outcome) -> bool {
        let admitted = circuits.admit(now, key).is_ok();
        if admitted {
            circuits.on_ended(now, key, sent(now), Some(&answer(outcome, Duration::ZERO, 10 * SECOND)));
        }
        admitted
    }

    #[test]
    fn strikes_are_the_platforms_and_no_others() {
        let (failed, timed_out) = (Verdict::Strike(Cause::Failed), Verdict::Strike(Cause::TimedOut));
        let rejected = Rejection::known(v1::Reason::QueueFull, "", 1);
        for (outcome, expected) in [
            (Outcome::Completed(Bytes::new()), Verdict::Good),
            (Outcome::ActionFailed(Bytes::new()), Verdict::Good),
            (Outcome::Accepted(Durability::Memory), Verdict::Good),
            (Outcome::PlatformFailed(Bytes::new()), failed),
            (Outcome::Lost, failed),
            (Outcome::TimedOut, timed_out),
            (Outcome::Expired, Verdict::Undecided),
            (Outcome::Rejected(rejected), Verdict::Undecided),
            (Outcome::Unreachable { maybe_sent: true }, Verdict::Undecided),
            (Outcome::Unreachable { maybe_sent: false }, Verdict::Undecided),
        ] {
            let (now, sent) = (Timestamp::ZERO + 9 * SECOND, sent(Timestamp::ZERO));
            let answer = answer(&outcome, Duration::ZERO, 9 * SECOND);
            assert_eq!(verdict(&answer, sent, now, None), expected, "{outcome:?}");
        }
    }

    #[test]
    fn what_is_slow_is_the_authors_to_say() {
        let completed = Outcome::Completed(Bytes::new());
        let of = |took: Duration, queue| {
            verdict(&answer(&completed, queue, SECOND), sent(Timestamp::ZERO), Timestamp::ZERO + took, Some(SECOND))
        };
        let (no, slow) = (Duration::ZERO, Verdict::Strike(Cause::Slow));
        assert_eq!([of(SECOND, no), of(SECOND + Duration::from_micros(1), no)], [Verdict::Good, slow]);
        assert_eq!(of(9 * SECOND, 8 * SECOND), Verdict::Good, "what waits in a queue is not slow");
    }

    #[test]
    fn a_timeout_counts_only_if_half_of_the_time_was_its_containers() {
        let of = |queue: u32, dispatch: u32| {
            let answer = answer(&Outcome::TimedOut, queue * SECOND, dispatch * SECOND);
            verdict(&answer, sent(Timestamp::ZERO), Timestamp::ZERO + 10 * SECOND, None)
        };
        let strike = Verdict::Strike(Cause::TimedOut);
        assert_eq!([of(5, 5), of(6, 5), of(0, 4)], [strike, Verdict::Undecided, Verdict::Undecided]);
        let answer = answer(&Outcome::TimedOut, Duration::ZERO, STAGE_MAX);
        let day = Sent { began: Timestamp::ZERO, allowed: 24 * 3600 * SECOND };
        assert_eq!(verdict(&answer, day, Timestamp::ZERO, None), strike, "longer than can be told");
    }

    #[test]
    fn whoever_stops_waiting_learns_late_what_it_was() {
        let (a, end) = (key("a"), Timestamp::ZERO + 11 * SECOND);
        let opened_by = |outcome: &Outcome, queue: u32, dispatch: u32| {
            let mut circuits = circuits(BreakerPolicy::default());
            for number in 0..3 {
                circuits.on_unheard(end, id(number), &a, sent(Timestamp::ZERO));
            }
            assert_eq!(circuits.of(end, &a), None, "silence says nothing");
            for number in 0..3 {
                let late = Answer { id: id(number), ..answer(outcome, queue * SECOND, dispatch * SECOND) };
                circuits.on_late(end, &late);
                circuits.on_late(end, &late);
            }
            circuits.of(end, &a).map(|circuit| circuit.cause)
        };
        assert_eq!(opened_by(&Outcome::TimedOut, 0, 10), Some(Cause::TimedOut));
        assert_eq!(opened_by(&Outcome::TimedOut, 9, 1), None, "overload");
        assert_eq!(opened_by(&Outcome::Lost, 9, 1), Some(Cause::Failed));
        assert_eq!(opened_by(&Outcome::Completed(Bytes::new()), 9, 1), None);
    }

    #[test]
    fn a_half_open_one_closes_by_late_answers_too() {
        let (mut circuits, a, mut now) = (circuits(BreakerPolicy::default()), key("a"), Timestamp::ZERO);
        while run(&mut circuits, now, &a, &Outcome::Lost) {}
        now = now + 60 * SECOND;
        for number in 0..2 {
            assert!(circuits.admit(now, &a).is_ok());
            circuits.on_unheard(now + 10 * SECOND, id(number), &a, sent(now));
            let late = answer(&Outcome::Completed(Bytes::new()), 9 * SECOND, 2 * SECOND);
            now = now + 11 * SECOND;
            circuits.on_late(now, &Answer { id: id(number), ..late });
        }
        assert_eq!(circuits.of(now, &a).map(|circuit| circuit.state), Some(State::Closed));
    }

    #[test]
    fn the_oldest_of_too_many_is_forgotten() {
        let mut unheard = Unheard::default();
        let numbered = |number: usize| {
            let mut bytes = [0; 16];
            bytes[..8].copy_from_slice(&number.to_le_bytes());
            ActivationId::from_wire(&bytes).unwrap()
        };
        for number in 0..UNHEARD_MAX + 2 {
            unheard.insert(numbered(number), key("a"), sent(Timestamp::ZERO));
        }
        let known = [0, 1, 2, UNHEARD_MAX, UNHEARD_MAX + 1].map(|number| unheard.take(numbered(number)).is_some());
        assert_eq!(known, [false, false, true, true, true]);
        assert!(unheard.ring.len() == UNHEARD_MAX && unheard.places.len() == UNHEARD_MAX - 3);
    }

    #[test]
    fn three_strikes_open_it_and_two_good_probes_close_it() {
        let (mut circuits, a, mut now) = (circuits(BreakerPolicy::default()), key("a"), Timestamp::ZERO);
        for _ in 0..3 {
            assert!(run(&mut circuits, now, &a, &Outcome::Lost));
        }
        let Err(Outcome::CircuitOpen { cause: Cause::Failed, retry_after }) = circuits.admit(now, &a) else {
            panic!("it is open")
        };
        assert!(circuits.admit(now, &key("b")).is_ok(), "of that action only");
        let open = circuits.of(now, &a).unwrap();
        assert_eq!((open.state, open.cause, open.retry_after), (State::Open, Cause::Failed, Some(retry_after)));

        now = now + retry_after;
        assert!(circuits.admit(now, &a).is_ok());
        assert!(circuits.admit(now, &a).is_err(), "one at a time");
        let completed = answer(&Outcome::Completed(Bytes::new()), Duration::ZERO, SECOND);
        circuits.on_ended(now, &a, sent(now), Some(&completed));
        assert!(run(&mut circuits, now, &a, &Outcome::Completed(Bytes::new())));
        assert_eq!(circuits.of(now, &a).map(|circuit| circuit.state), Some(State::Closed));
    }

    #[test]
    fn a_probe_whose_caller_went_makes_room_for_another() {
        let (mut circuits, a, mut now) = (circuits(BreakerPolicy::default()), key("a"), Timestamp::ZERO);
        while run(&mut circuits, now, &a, &Outcome::TimedOut) {}
        now = now + 60 * SECOND;
        for _ in 0..3 {
            assert!(circuits.admit(now, &a).is_ok());
            circuits.on_ended(now, &a, sent(now), None);
        }
    }

    #[test]
    fn there_are_never_more_breakers_than_allowed() {
        let mut circuits = circuits(BreakerPolicy { actions_max: 2, ..BreakerPolicy::default() });
        let keys = ["a", "b", "c", "d"].map(key);
        let lost =
            |circuits: &mut Circuits, now| keys.iter().for_each(|key| _ = run(circuits, now, key, &Outcome::Lost));
        lost(&mut circuits, Timestamp::ZERO);
        assert!(circuits.of(Timestamp::ZERO, &keys[1]).is_some() && circuits.of(Timestamp::ZERO, &keys[2]).is_none());
        // Those of old make room, and one that is good again leaves nothing.
        let later = Timestamp::ZERO + 60 * SECOND;
        run(&mut circuits, later, &keys[3], &Outcome::Lost);
        assert!(circuits.of(later, &keys[3]).is_some());
        assert_eq!(circuits.breakers.len(), 1);
        let last = later + 60 * SECOND;
        run(&mut circuits, last, &keys[3], &Outcome::Completed(Bytes::new()));
        assert!(circuits.breakers.is_empty());
    }

    #[test]
    fn without_a_policy_nothing_is_kept_back() {
        let mut circuits = Circuits::new(None, 7);
        for _ in 0..100 {
            assert!(run(&mut circuits, Timestamp::ZERO, &key("a"), &Outcome::Lost));
        }
    }
}
