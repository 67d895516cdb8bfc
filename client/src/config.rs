//! What a controller's author may choose, and how long an activation may take. It may not read a clock: lengths only.

use crate::invocation::Invocation;
use engine::breaker::Rules;
use std::time::Duration;

/// How a controller keeps its callers. The default suits most; each field says when another does.
///
/// ```
/// # use client::ControllerConfig;
/// # use std::time::Duration;
/// let config = ControllerConfig { answer_grace: Duration::from_millis(20), ..ControllerConfig::default() };
/// ```
#[derive(Debug, Clone)]
pub struct ControllerConfig {
    /// Most activations that wait for their answer at a time; at it, [`Reason::OutstandingFull`](crate::Reason::OutstandingFull).
    /// Each takes less than 300 bytes besides its payload. At most 2^31. Default: 1,048,576.
    pub outstanding_max: usize,
    /// How long after its deadline an activation may still be answered: time for the router's word that it never started, which
    /// makes it safe to retry. At zero callers hear at the deadline, and mostly `TimedOut`. Default: 100 ms.
    pub answer_grace: Duration,
    /// The longest that callers wait for a stream that broke to be resumed; less if the router keeps its answers for less. At zero
    /// they hear `Unreachable` at once. Default: 60 s.
    pub resume_within: Duration,
    /// When an invocation that states no deadline of its own is given up.
    pub forced: ForcedCompletion,
    /// When activations of an action are kept back; none: never. Default: see [`BreakerPolicy`].
    pub breaker: Option<BreakerPolicy>,
}

impl Default for ControllerConfig {
    fn default() -> Self {
        Self {
            outstanding_max: OUTSTANDING_MAX,
            answer_grace: ANSWER_GRACE,
            resume_within: Duration::from_secs(60),
            forced: ForcedCompletion::default(),
            breaker: Some(BreakerPolicy::default()),
        }
    }
}

impl ControllerConfig {
    /// How long from now until the answer is worthless: the sooner of the caller's deadline and the forced completion. A caller that
    /// states a deadline and no action timeout means its deadline.
    pub(crate) fn time_allowed(&self, invocation: &Invocation) -> Duration {
        match (invocation.deadline, invocation.action_timeout) {
            (Some(deadline), None) => deadline,
            (None, timeout) => self.forced.after(timeout.unwrap_or(self.forced.action_timeout)),
            (Some(deadline), Some(timeout)) => deadline.min(self.forced.after(timeout)),
        }
    }
}

/// The point at which nobody believes in an answer any more: `max(action timeout, minimum) * factor + addition`. The default is
/// OpenWhisk's: an action of up to 60 s is given 180 s, one of 5 min 660 s.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ForcedCompletion {
    /// What counts as the action's timeout where an invocation states none. Default: 60 s.
    pub action_timeout: Duration,
    /// An action's timeout counts as at least this. Default: 60 s.
    pub minimum: Duration,
    /// Times this. Default: 2.
    pub factor: u32,
    /// And this on top. Default: 60 s.
    pub addition: Duration,
}

impl ForcedCompletion {
    /// How long an activation of an action with that timeout may take.
    pub fn after(&self, action_timeout: Duration) -> Duration {
        action_timeout.max(self.minimum).saturating_mul(self.factor).saturating_add(self.addition)
    }
}

impl Default for ForcedCompletion {
    fn default() -> Self {
        let minute = Duration::from_secs(60);
        Self { action_timeout: minute, minimum: minute, factor: 2, addition: minute }
    }
}

/// When activations of an action are kept back. Strikes are: failed by the platform, lost, timed out, and, if wanted, slow. What the
/// action itself says, saturation (rejected, expired in the queue, timed out with less than half of its time left when it was
/// dispatched) and the connection (unreachable) never are. A timeout counts when the router says that it was one, which is mostly
/// after the caller has heard of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BreakerPolicy {
    /// How many strikes open it, for how long. Default: three within 10 s that are at least half of what ended; 1 s at first.
    pub rules: Rules,
    /// An answer that took longer than this from [`submit`](crate::Controller::submit), less its time in the router's queue, is a
    /// strike; none: none is. Default: none.
    pub slow_after: Option<Duration>,
    /// Most actions watched at a time. Only those with strikes of late are; at the limit no further ones. Default: 4,096.
    pub actions_max: usize,
}

impl Default for BreakerPolicy {
    fn default() -> Self {
        Self { rules: Rules::default(), slow_after: None, actions_max: 4096 }
    }
}

pub(crate) const OUTSTANDING_MAX: usize = 1 << 20;
pub(crate) const ANSWER_GRACE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::action::ActionKey;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn forced_completion_is_that_of_openwhisk() {
        let forced = ForcedCompletion::default();
        for (action_timeout, after) in [(0, 180), (1, 180), (60, 180), (61, 182), (300, 660)] {
            assert_eq!(forced.after(action_timeout * SECOND), after * SECOND, "{action_timeout} s");
        }
        assert_eq!(forced.after(Duration::MAX), Duration::MAX);
    }

    #[test]
    fn forced_completion_can_be_milliseconds() {
        let ms = Duration::from_millis;
        let forced = ForcedCompletion { action_timeout: ms(1), minimum: ms(2), factor: 3, addition: ms(4) };
        assert_eq!([forced.after(ms(1)), forced.after(ms(5))], [ms(10), ms(19)]);
    }

    #[test]
    fn the_sooner_of_deadline_and_forced_completion_counts() {
        let config = ControllerConfig::default();
        let of = || Invocation::new(&ActionKey::new("n", "a", "").unwrap(), "");
        for (invocation, allowed) in [
            (of(), 180),
            (of().action_timeout(300 * SECOND), 660),
            (of().deadline(5 * SECOND), 5),
            (of().deadline(5 * SECOND).action_timeout(300 * SECOND), 5),
            (of().deadline(7000 * SECOND).action_timeout(300 * SECOND), 660),
            (of().deadline(7000 * SECOND), 7000),
        ] {
            assert_eq!(config.time_allowed(&invocation), allowed * SECOND, "{invocation:?}");
        }
    }
}
