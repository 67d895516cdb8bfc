//! The breakers of a controller's actions. It may not judge: what counts as a strike is here, when strikes open a breaker is
//! `engine::breaker`'s to say.

use crate::action::ActionKey;
use crate::config::BreakerPolicy;
use crate::outcome::Outcome;
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
    /// What the next random number is made of.
    random: u64,
}

impl Circuits {
    pub(crate) fn new(policy: Option<BreakerPolicy>, seed: u64) -> Self {
        Self { policy, breakers: HashMap::new(), random: seed }
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

    /// An activation sent at `began` ended; none: nobody waits for its outcome any more.
    pub(crate) fn on_ended(&mut self, now: Timestamp, key: &ActionKey, began: Timestamp, outcome: Option<&Outcome>) {
        let Some(policy) = &self.policy else { return };
        let verdict =
            outcome.map_or(Verdict::Undecided, |outcome| verdict(outcome, began.until(now), policy.slow_after));
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

/// What an outcome says of the action's way through the platform. The action's own failure is a good sign, saturation none.
fn verdict(outcome: &Outcome, took: Duration, slow_after: Option<Duration>) -> Verdict {
    match outcome {
        Outcome::Completed(_) | Outcome::ActionFailed(_) if slow_after.is_some_and(|slow| took > slow) => {
            Verdict::Strike(Cause::Slow)
        }
        Outcome::Completed(_) | Outcome::ActionFailed(_) | Outcome::Accepted(_) => Verdict::Good,
        Outcome::PlatformFailed(_) | Outcome::Lost => Verdict::Strike(Cause::Failed),
        Outcome::TimedOut => Verdict::Strike(Cause::TimedOut),
        Outcome::Expired | Outcome::Rejected(_) | Outcome::CircuitOpen { .. } | Outcome::Unreachable { .. } => {
            Verdict::Undecided
        }
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

    /// Sends and ends one at once. True if it was let through.
    fn run(circuits: &mut Circuits, now: Timestamp, key: &ActionKey, outcome: &Outcome) -> bool {
        let admitted = circuits.admit(now, key).is_ok();
        if admitted {
            circuits.on_ended(now, key, now, Some(outcome));
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
            assert_eq!(verdict(&outcome, 9 * SECOND, None), expected, "{outcome:?}");
        }
    }

    #[test]
    fn what_is_slow_is_the_authors_to_say() {
        let completed = Outcome::Completed(Bytes::new());
        let of = |took| verdict(&completed, took, Some(SECOND));
        assert_eq!([of(SECOND), of(SECOND + Duration::from_micros(1))], [Verdict::Good, Verdict::Strike(Cause::Slow)]);
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
        circuits.on_ended(now, &a, now, Some(&Outcome::Completed(Bytes::new())));
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
            circuits.on_ended(now, &a, now, None);
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
