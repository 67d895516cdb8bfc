//! Counts of everything that happens, by closed name. A pass counts into its own [`Tally`] and adds it to the shared
//! [`Totals`] when it ends, so that the hot path touches no shared counter per activation.

use crate::outcome::Reason;
use crate::sync::{AtomicU64, Ordering};

macro_rules! counts {
    ($($(#[$doc:meta])* $name:ident = $label:literal,)*) => {
        /// What is counted.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Count { $($(#[$doc])* $name,)* }

        impl Count {
            /// Every count, in order of declaration: `ALL[count as usize] == count`.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The count in snake case, as metrics name it.
            pub fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)* }
            }
        }
    };
}

counts! {
    /// Activations taken. Each ends as exactly one of completed, action failed, platform failed, expired, lost, timed out,
    /// cut off, repeated or spill damaged; until then it is queued, stored or in flight.
    Accepted = "accepted",
    /// Matched at once: a container's credit was waiting.
    Matched = "matched",
    /// Queued: the action has no container.
    NoContainer = "no_container",
    /// Queued: no container of the action has a credit, or room in its stream.
    NoCredit = "no_credit",
    /// Queued: no container of the action has a credit but those that breakers withhold from it.
    BreakerOpen = "breaker_open",
    /// Queued behind a backlog.
    BacklogFirst = "backlog_first",
    /// Dispatches. Accepted activations and dispatches differ by those returned, unsent, queued and expired.
    Dispatched = "dispatched",
    /// Ended well.
    Completed = "completed",
    /// Failed by the action's own doing.
    ActionFailed = "action_failed",
    /// Failed by the container or its invoker.
    PlatformFailed = "platform_failed",
    /// Out of time before dispatch.
    Expired = "expired",
    /// In flight on a container that went away.
    Lost = "lost",
    /// In flight past its deadline and the grace after it. It is counted when it is answered, and though it stays on its
    /// container, whatever comes of it there counts as late and as nothing else.
    TimedOut = "timed_out",
    /// Timed out, and then its container completed it or handed it back, or it turned out never to have been sent.
    Late = "late",
    /// Timed out, and then its container went away with it, or did not hold it when it rejoined.
    LateLost = "late_lost",
    /// Queued when the time of a drain was over: it never started, and is rejected.
    CutOff = "cut_off",
    /// Handed back unstarted.
    Returned = "returned",
    /// Dispatches that never left the router and were queued again.
    Unsent = "unsent",
    /// Pushed for an earlier revision, handed to the current one.
    Redirected = "redirected",
    /// Accepted, and stored outside of memory. Those of them that did not come back yet are still there.
    Spilled = "spilled",
    /// Came back from the store, those that had expired there among them.
    Refilled = "refilled",
    /// Came back from the store, of this life or an earlier one, and left the queue again: dispatched, expired or dropped.
    RefillLeft = "refill_left",
    /// Stored by an earlier life of the router, and accepted again in this one.
    Recovered = "recovered",
    /// Stored by an earlier life of the router and expired before they came back; counted as nothing else.
    RecoveredExpired = "recovered_expired",
    /// Came back from the store after another of the same id, or after nobody knew whether it was stored: dropped.
    Repeated = "repeated",
    /// Not stored: the store refused it. Rejected.
    SpillRefused = "spill_refused",
    /// Perhaps not stored. Accepted and lost.
    SpillUnknown = "spill_unknown",
    /// Stored in this life of the router, and then damaged or missing in the store: it never started. Rejected where it is
    /// known whose it was; else its controller's timer answers.
    SpillDamaged = "spill_damaged",
    /// Starts at which stored records showed that the wall clock had been set back since they were written.
    ClockSetBack = "clock_set_back",
    /// Starts at which they showed that it had been set forward; that shows within one boot of the machine only.
    ClockSetForward = "clock_set_forward",
    /// Times an action began to overflow.
    SpillBegan = "spill_began",
    /// Times it was back in memory.
    SpillEnded = "spill_ended",
    /// Credits granted.
    CreditsGranted = "credits_granted",
    /// Credits revoked: the container left, retired or rejoined, or did not know of them. Credits granted are those that
    /// were spent on dispatches (less those unsent), revoked, or are there.
    CreditsRevoked = "credits_revoked",
    /// Credits that only the router knew; revoked.
    CreditsPhantom = "credits_phantom",
    /// Credits that only the container knew; granted.
    CreditsLeaked = "credits_leaked",
    /// Comparisons of credits with what a container states.
    Audits = "audits",
    /// Containers registered.
    ContainersRegistered = "containers_registered",
    /// Containers that left.
    ContainersLeft = "containers_left",
    /// Containers that came back after their stream broke.
    Rejoined = "rejoined",
    /// Times a breaker opened because work came back unstarted.
    BreakerRefused = "breaker_refused",
    /// Because work timed out.
    BreakerTimedOut = "breaker_timed_out",
    /// Because the platform failed at it, or it was lost.
    BreakerFailed = "breaker_failed",
    /// Because it took too long.
    BreakerSlow = "breaker_slow",
    /// Probes that half-open breakers let through.
    BreakerProbed = "breaker_probed",
    /// Times a breaker closed again.
    BreakerClosed = "breaker_closed",
    /// Actions made known.
    ActionsAdded = "actions_added",
    /// Actions forgotten after their grace period.
    ActionsRemoved = "actions_removed",
    /// Times a container had credits and no room in its stream's outbox.
    AwaitedRoom = "awaited_room",
}

/// Number of distinct counts: events, then rejections and refusals by reason.
const COUNTS: usize = Count::ALL.len() + 2 * Reason::ALL.len();

/// Counts of one pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tally {
    counts: [u64; COUNTS],
    /// Which of them are more than zero, a bit each: a pass touches few, and none of the others need a look when it ends.
    touched: [u64; COUNTS.div_ceil(BITS)],
}

const BITS: usize = u64::BITS as usize;

impl Default for Tally {
    fn default() -> Self {
        Self { counts: [0; COUNTS], touched: [0; COUNTS.div_ceil(BITS)] }
    }
}

impl Tally {
    /// Counts one event.
    pub fn count(&mut self, count: Count) {
        self.add(count, 1);
    }

    /// Counts several.
    pub fn add(&mut self, count: Count, n: u64) {
        self.add_at(count as usize, n);
    }

    /// Counts an activation that was not taken.
    pub fn rejected(&mut self, reason: Reason) {
        self.add_at(Count::ALL.len() + reason as usize, 1);
    }

    /// Counts another entry that was refused.
    pub fn refused(&mut self, reason: Reason) {
        self.add_at(Count::ALL.len() + Reason::ALL.len() + reason as usize, 1);
    }

    fn add_at(&mut self, at: usize, n: u64) {
        self.counts[at] += n;
        self.touched[at / BITS] |= u64::from(n > 0) << (at % BITS);
    }
}

/// Counts of the whole process.
#[derive(Debug)]
pub struct Totals([AtomicU64; COUNTS]);

impl Default for Totals {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl Totals {
    /// Adds a pass's counts and clears them.
    pub fn take(&self, tally: &mut Tally) {
        for (word, first) in tally.touched.iter_mut().zip((0..).step_by(BITS)) {
            let mut left = std::mem::take(word);
            while left > 0 {
                let at = first + left.trailing_zeros() as usize;
                // Counters only: nothing is published by them.
                self.0[at].fetch_add(std::mem::take(&mut tally.counts[at]), Ordering::Relaxed);
                left &= left - 1;
            }
        }
    }

    /// How often that happened.
    pub fn of(&self, count: Count) -> u64 {
        self.0[count as usize].load(Ordering::Relaxed)
    }

    /// Activations not taken for that reason.
    pub fn rejected(&self, reason: Reason) -> u64 {
        self.0[Count::ALL.len() + reason as usize].load(Ordering::Relaxed)
    }

    /// Other entries refused for that reason.
    pub fn refused(&self, reason: Reason) -> u64 {
        self.0[Count::ALL.len() + Reason::ALL.len() + reason as usize].load(Ordering::Relaxed)
    }

    /// Accepted activations that have ended, each counted once.
    pub fn ended(&self) -> u64 {
        use Count::{ActionFailed, Completed, CutOff, Expired, Lost, PlatformFailed, Repeated, SpillDamaged, TimedOut};
        [Completed, ActionFailed, PlatformFailed, Expired, Lost, TimedOut, CutOff, Repeated, SpillDamaged]
            .into_iter()
            .map(|count| self.of(count))
            .sum()
    }

    /// Activations of this life that are in the store.
    pub fn stored(&self) -> u64 {
        self.of(Count::Spilled).saturating_sub(self.of(Count::Refilled) + self.of(Count::SpillDamaged))
    }

    /// Activations that have ended as timed out and are still on their containers. With nothing under way,
    /// `accepted = ended + held - overdue + stored`, where `held` is [`Hub::held`](crate::hub::Hub::held).
    pub fn overdue(&self) -> u64 {
        // Passes settle in any order, so that the sum may come before its part.
        self.of(Count::TimedOut).saturating_sub(self.of(Count::Late) + self.of(Count::LateLost))
    }
}
