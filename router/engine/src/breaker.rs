//! A circuit breaker: keeps work from whoever fails at it, and finds out with single probes whether it still does. Pure: time
//! and randomness are passed in. Saturation and an action's own errors are none of its business.
//!
//! ```text
//!             enough strikes within the window, and at least half of what ended in it
//!   closed ───────────────────────────────────────────────────────────▶ open ◀──────┐
//!      ▲                                                                  │ its time  │ a strike, and the
//!      │ enough good probes                                               ▼ is over   │ time is longer
//!      └─────────────────────────────────────────────────────────────  half-open ─────┘
//!                                                                     one probe at a time
//! ```
//!
//! Made at the first strike and forgotten when [over](Breaker::is_over), it costs those who do well nothing. In the other
//! states only what began in that state counts: what was underway when it opened says nothing new.

use crate::backoff::Backoff;
use crate::mutant::{Mutant, is};
use crate::time::Timestamp;
use std::time::Duration;

/// When a breaker opens, and for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// Strikes within a window that open it, if they are at least half of what ended in it.
    pub strikes: u32,
    /// How long a window lasts; it begins with its first strike.
    pub window: Duration,
    /// Most time it is open first; each time it opens again before it was closed for a window, twice as long. Drawn from
    /// the upper half, so that many that opened together are not tried together.
    pub open_first: Duration,
    /// Most time it is open ever.
    pub open_max: Duration,
    /// Good probes that close it.
    pub probes: u32,
}

impl Default for Rules {
    /// Three strikes in 10 s; open for 1 s at first and 60 s at most; two good probes.
    fn default() -> Self {
        Self {
            strikes: 3,
            window: Duration::from_secs(10),
            open_first: Duration::from_secs(1),
            open_max: Duration::from_secs(60),
            probes: 2,
        }
    }
}

/// Whether work flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It does.
    Closed,
    /// It does not.
    Open,
    /// One at a time, to see.
    HalfOpen,
}

impl State {
    /// In snake case, as the admin port writes it.
    pub fn label(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

/// What a strike was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// It was not started, or not taken.
    Refused,
    /// Nothing was heard of it in time.
    TimedOut,
    /// The platform failed at it, or it was lost.
    Failed,
    /// It took longer than it may.
    Slow,
}

impl Cause {
    /// Every cause.
    pub const ALL: [Self; 4] = [Self::Refused, Self::TimedOut, Self::Failed, Self::Slow];

    /// In snake case, as metrics label it.
    pub fn label(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::TimedOut => "timed_out",
            Self::Failed => "failed",
            Self::Slow => "slow",
        }
    }
}

/// What the end of one piece of work says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It went well, or failed by its own doing.
    Good,
    /// It went well after it had ended as undecided, so it holds no probe's place any more.
    GoodLate,
    /// It did not.
    Strike(Cause),
    /// Nothing: it was called off, or the way there broke. A probe's place is free again.
    Undecided,
}

/// A breaker.
#[derive(Debug, Clone)]
pub struct Breaker {
    state: State,
    since: Timestamp,
    /// Of the last strike that opened it, or else of the last.
    cause: Cause,
    /// In the window, or good probes: of this state.
    strikes: u32,
    ended: u32,
    good: u32,
    window: Timestamp,
    /// When it stops being open.
    until: Timestamp,
    probing: bool,
    /// Since when nobody has tried it, while it is half-open and not probing.
    idle_since: Timestamp,
    backoff: Backoff,
}

impl Breaker {
    /// Closed, without a strike.
    pub fn new(now: Timestamp, rules: &Rules) -> Self {
        Self {
            state: State::Closed,
            since: now,
            cause: Cause::Failed,
            strikes: 0,
            ended: 0,
            good: 0,
            window: now,
            until: now,
            probing: false,
            idle_since: now,
            backoff: Backoff::new(rules.open_first, rules.open_max),
        }
    }

    /// Its state, as of the last call.
    pub fn state(&self) -> State {
        self.state
    }

    /// Since when it has been in it.
    pub fn since(&self) -> Timestamp {
        self.since
    }

    /// While it is closed: strikes of the window, and when that began.
    pub(crate) fn strikes_since(&self) -> (u32, Timestamp) {
        (self.strikes, self.window)
    }

    /// What opened it, if it ever was; else its last strike.
    pub fn cause(&self) -> Cause {
        self.cause
    }

    /// When to [`look`](Self::look) at it, while it is open.
    pub fn until(&self) -> Option<Timestamp> {
        (self.state == State::Open).then_some(self.until)
    }

    /// While it is not closed: what opened it, and since when it is in its state.
    pub(crate) fn tripped(&self) -> Option<(Cause, Timestamp)> {
        (self.state != State::Closed).then_some((self.cause, self.since))
    }

    /// Whether work may [begin](Self::begin), as of the last call.
    pub fn allows(&self) -> bool {
        match self.state {
            State::Closed => true,
            State::Open => false,
            State::HalfOpen => !self.probing,
        }
    }

    /// Sees whether it has been open for long enough. True if it is half-open from now on.
    pub fn look(&mut self, now: Timestamp) -> bool {
        let due = self.state == State::Open && self.until <= now;
        if due {
            self.enter(State::HalfOpen, now);
        }
        due
    }

    /// Begins a piece of work, if it may: each true is followed by one [`ended`](Self::ended). After one that was undecided, a
    /// late word may follow: [`Verdict::GoodLate`] or a strike.
    pub fn begin(&mut self, now: Timestamp) -> bool {
        self.look(now);
        let allowed = self.allows();
        self.probing |= allowed && self.state == State::HalfOpen;
        allowed
    }

    /// A piece of work ended that began then. `random` is any 64 bits, evenly distributed. Returns the state it is in from now
    /// on, if that is another.
    pub fn ended(
        &mut self,
        verdict: Verdict,
        began: Timestamp,
        now: Timestamp,
        random: u64,
        rules: &Rules,
    ) -> Option<State> {
        let before = self.state;
        match self.state {
            State::Closed => self.ended_while_closed(verdict, now, random, rules),
            State::HalfOpen if began >= self.since => self.probed(verdict, now, random, rules),
            State::Open | State::HalfOpen => {}
        }
        (self.state != before).then_some(self.state)
    }

    /// Whether there is nothing left to remember: it has been closed for a window, without strikes in the last one, or lets a
    /// probe through and for long nobody has come for one.
    pub fn is_over(&self, now: Timestamp, rules: &Rules) -> bool {
        match self.state {
            State::Closed => {
                self.since + rules.window <= now && (self.strikes == 0 || self.window + rules.window <= now)
            }
            State::Open => false,
            State::HalfOpen => !self.probing && self.idle_since + rules.open_max <= now,
        }
    }

    fn ended_while_closed(&mut self, verdict: Verdict, now: Timestamp, random: u64, rules: &Rules) {
        if verdict == Verdict::Undecided {
            return;
        }
        if self.window + rules.window <= now {
            (self.strikes, self.ended) = (0, 0);
        }
        let Verdict::Strike(cause) = verdict else {
            self.ended = self.ended.saturating_add(u32::from(self.strikes > 0));
            return;
        };
        if self.strikes == 0 {
            self.window = now;
            if self.since + rules.window <= now {
                self.backoff.reset();
            }
        }
        self.cause = cause;
        self.strikes = self.strikes.saturating_add(1);
        self.ended = self.ended.saturating_add(1);
        if (self.strikes >= rules.strikes || is(Mutant::BreakerTooQuick)) && self.strikes >= self.ended.div_ceil(2) {
            self.open(now, random);
        }
    }

    fn probed(&mut self, verdict: Verdict, now: Timestamp, random: u64, rules: &Rules) {
        // A late word is not about the probe that is underway now.
        self.probing &= verdict == Verdict::GoodLate;
        self.idle_since = now;
        match verdict {
            Verdict::Undecided => {}
            Verdict::Strike(cause) => {
                self.cause = cause;
                self.open(now, random);
            }
            Verdict::Good | Verdict::GoodLate => {
                self.good += 1;
                if self.good >= rules.probes {
                    self.enter(State::Closed, now);
                }
            }
        }
    }

    fn open(&mut self, now: Timestamp, random: u64) {
        let most = self.backoff.most();
        self.until = now + most / 2 + self.backoff.next(random) / 2;
        self.enter(State::Open, now);
    }

    fn enter(&mut self, state: State, now: Timestamp) {
        (self.state, self.since, self.idle_since) = (state, now, now);
        (self.strikes, self.ended, self.good, self.probing) = (0, 0, 0, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables;

    const LOW: u64 = 0;
    const HIGH: u64 = u64::MAX;

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_micros(ms * 1000)
    }

    /// A breaker and its rules.
    struct Tried(Breaker, Rules);

    impl Tried {
        fn new() -> Self {
            let rules = Rules::default();
            Self(Breaker::new(at(0), &rules), rules)
        }

        fn ended(&mut self, verdict: Verdict, began: u64, now: u64) -> Option<State> {
            self.0.ended(verdict, at(began), at(now), LOW, &self.1)
        }

        fn strike(&mut self, now: u64) -> Option<State> {
            self.ended(Verdict::Strike(Cause::Failed), now, now)
        }

        fn open() -> Self {
            let mut tried = Self::new();
            (0..3).for_each(|now| _ = tried.strike(now));
            tried
        }
    }

    #[test]
    fn every_transition_is_as_written() {
        let half_open = |good: usize, probing: bool| {
            let mut tried = Tried::open();
            tried.0.look(at(502));
            for _ in 0..good {
                tried.0.begin(at(502));
                tried.ended(Verdict::Good, 502, 502);
            }
            if probing {
                tried.0.begin(at(502));
            }
            tried
        };
        let struck = || {
            let mut tried = Tried::new();
            (0..2).for_each(|now| _ = tried.strike(now));
            tried
        };
        type Make<'a> = &'a dyn Fn() -> Tried;
        let states: [(&str, Make<'_>, u64); 8] = [
            ("closed", &Tried::new, 600),
            ("closed, 2 strikes", &struck, 600),
            ("closed, 2 strikes, window over", &struck, 10_000),
            ("open", &Tried::open, 501),
            ("open, time over", &Tried::open, 502),
            ("half-open", &|| half_open(0, false), 600),
            ("half-open, probing", &|| half_open(0, true), 600),
            ("half-open, probing, 1 good", &|| half_open(1, true), 600),
        ];
        let events = [
            "look",
            "begin",
            "good",
            "good, late",
            "good, began before",
            "strike",
            "strike, began before",
            "undecided",
        ];
        let mut table = String::new();
        for (name, make, now) in states {
            for event in events {
                let mut tried = make();
                match event {
                    "look" => _ = tried.0.look(at(now)),
                    "begin" => _ = tried.0.begin(at(now)),
                    "good" => _ = tried.ended(Verdict::Good, now, now),
                    "good, late" => _ = tried.ended(Verdict::GoodLate, now, now),
                    "good, began before" => _ = tried.ended(Verdict::Good, 0, now),
                    "strike" => _ = tried.strike(now),
                    "strike, began before" => _ = tried.ended(Verdict::Strike(Cause::Slow), 0, now),
                    _ => _ = tried.ended(Verdict::Undecided, now, now),
                }
                let Breaker { state, strikes, good, .. } = tried.0;
                let allows = if tried.0.allows() { "allows" } else { "blocks" };
                let line = format!("{} strikes {strikes} good {good} {allows}", state.label());
                table += &format!("{name:30} {event:20} -> {line}\n");
            }
        }
        tables::check("breaker.txt", &table);
    }

    /// The end of a long probe may be told in two steps, first that it frees its place: see `rejoin`.
    #[test]
    fn a_probe_that_took_long_is_not_nobody_that_came() {
        let mut tried = Tried::open();
        assert!(tried.0.begin(at(502)));
        let ended = 502 + 60_000;
        assert_eq!(tried.ended(Verdict::Undecided, 502, ended), None);
        assert!(!tried.0.is_over(at(ended), &tried.1));
        assert_eq!(tried.ended(Verdict::Strike(Cause::Failed), 502, ended), Some(State::Open));
        assert!(tried.0.look(at(ended + 2_000)));
        assert_eq!([59_999, 60_000].map(|later| tried.0.is_over(at(ended + 2_000 + later), &tried.1)), [false, true]);
    }

    #[test]
    fn two_strikes_are_none_and_three_in_two_windows_neither() {
        let mut tried = Tried::new();
        let changes = [0, 1, 10_000, 10_001, 20_001].map(|now| tried.strike(now));
        assert_eq!(changes, [None; 5]);
        assert_eq!(tried.strike(20_002), None);
        assert_eq!(tried.strike(20_003), Some(State::Open));
    }

    #[test]
    fn strikes_must_be_half_of_what_ended_since_the_first() {
        for (good, opens) in [(3, true), (4, false)] {
            let mut tried = Tried::new();
            tried.strike(0);
            (0..good).for_each(|_| _ = tried.ended(Verdict::Good, 0, 0));
            tried.strike(1);
            assert_eq!(tried.strike(1).is_some(), opens, "3 strikes beside {good} good ones");
        }
    }

    #[test]
    fn it_is_open_for_longer_each_time_up_to_the_most_and_jittered() {
        for (random, first) in [(LOW, 500), (HIGH, 999)] {
            let rules = Rules { open_max: Duration::from_secs(3), ..Rules::default() };
            let mut breaker = Breaker::new(at(0), &rules);
            let strike = Verdict::Strike(Cause::Refused);
            (0..3).for_each(|_| _ = breaker.ended(strike, at(0), at(0), random, &rules));
            let mut now = at(0);
            let mut times = Vec::new();
            for _ in 0..4 {
                let until = breaker.until().unwrap();
                times.push(now.until(until).as_millis());
                now = until;
                assert!(breaker.begin(now));
                assert!(!breaker.begin(now), "one probe at a time");
                assert_eq!(breaker.ended(strike, now, now, random, &rules), Some(State::Open));
            }
            let last = if random == LOW { 1500 } else { 2999 };
            assert_eq!(times, [first, 2 * first + u128::from(random == HIGH), last, last]);
        }
    }

    #[test]
    fn it_remembers_how_long_it_was_open_until_it_was_closed_for_a_window() {
        let reopened_after = |pause: u64| {
            let mut tried = Tried::open();
            let closed_at = 10_000;
            for _ in 0..2 {
                assert!(tried.0.begin(at(closed_at)));
                tried.ended(Verdict::Good, closed_at, closed_at);
            }
            assert_eq!(tried.0.state(), State::Closed);
            let now = closed_at + pause;
            assert_eq!(tried.0.is_over(at(now), &tried.1), pause >= 10_000);
            (0..3).for_each(|_| _ = tried.strike(now));
            at(now).until(tried.0.until().unwrap()).as_millis()
        };
        assert_eq!((reopened_after(9_999), reopened_after(10_000)), (1000, 500));
    }
}
