//! How the store stands: one state which all its parts set and go by. It talks to nobody.
//!
//! ```text
//!  Starting ──▶ Up ◀──▶ Down        any ──▶ Closed
//!               └──▶ Lost ◀──┘
//! ```

use parking_lot::{Condvar, Mutex};
use std::time::{Duration, Instant};

/// Where the store is in its life, and why it is not further.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum State {
    /// The topic was never reached yet, so nothing is known of what is in it.
    Starting(String),
    /// Open for all.
    Up,
    /// Something took too long or went wrong; the keeper looks into it.
    Down(String),
    /// The topic lost records it had: nothing more may be put there until somebody looked at it and opened the store again.
    Lost(String),
    /// By `close`.
    Closed,
}

/// Why a call cannot be carried out now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    Closed,
    Unavailable(String),
    Lost(String),
}

/// The state, and a bell for who waits for another one.
#[derive(Debug)]
pub(super) struct Health {
    state: Mutex<State>,
    changed: Condvar,
}

impl Health {
    pub(super) fn new() -> Self {
        Self { state: Mutex::new(State::Starting("no broker was reached yet".to_owned())), changed: Condvar::new() }
    }

    pub(super) fn state(&self) -> State {
        self.state.lock().clone()
    }

    pub(super) fn is_closed(&self) -> bool {
        *self.state.lock() == State::Closed
    }

    /// Whether the store is up, and if not, what to tell the caller.
    pub(super) fn check(&self) -> Result<(), Refusal> {
        match &*self.state.lock() {
            State::Up => Ok(()),
            State::Closed => Err(Refusal::Closed),
            State::Lost(why) => Err(Refusal::Lost(why.clone())),
            State::Starting(why) | State::Down(why) => Err(Refusal::Unavailable(why.clone())),
        }
    }

    /// From `Starting` or `Down`: the topic is as it should be.
    pub(super) fn up(&self) {
        self.turn(|state| matches!(state, State::Starting(_) | State::Down(_)).then_some(State::Up));
    }

    /// From `Up`: something went wrong, so nobody else should wait for it.
    pub(super) fn suspect(&self, why: &str) {
        self.turn(|state| matches!(state, State::Up).then(|| State::Down(why.to_owned())));
    }

    /// The topic cannot be reached, still.
    pub(super) fn wait_on(&self, why: &str) {
        self.turn(|state| match state {
            State::Starting(_) => Some(State::Starting(why.to_owned())),
            State::Up | State::Down(_) => Some(State::Down(why.to_owned())),
            State::Lost(_) | State::Closed => None,
        });
    }

    /// From `Up` or `Down`: records are gone that were there.
    pub(super) fn lose(&self, why: &str) {
        self.turn(|state| matches!(state, State::Up | State::Down(_)).then(|| State::Lost(why.to_owned())));
    }

    /// Says whether it was open.
    pub(super) fn close(&self) -> bool {
        self.turn(|state| (*state != State::Closed).then_some(State::Closed))
    }

    /// Until the state is of another kind than `seen`, but no longer than `most`.
    pub(super) fn wait(&self, seen: &State, most: Duration) {
        let mut state = self.state.lock();
        let seen = std::mem::discriminant(seen);
        let until = Instant::now() + most;
        while std::mem::discriminant(&*state) == seen && !self.changed.wait_until(&mut state, until).timed_out() {}
    }

    fn turn(&self, next: impl FnOnce(&State) -> Option<State>) -> bool {
        let mut state = self.state.lock();
        let Some(next) = next(&state) else { return false };
        *state = next;
        self.changed.notify_all();
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_up_is_lost_and_what_is_lost_stays_so() {
        let health = Health::new();
        health.lose("never");
        assert!(matches!(health.check(), Err(Refusal::Unavailable(_))));
        health.up();
        assert_eq!(health.check(), Ok(()));
        health.lose("gone");
        health.up();
        health.suspect("late");
        health.wait_on("late");
        assert_eq!(health.check(), Err(Refusal::Lost("gone".to_owned())));
        assert!(health.close());
        assert!(!health.close());
        assert_eq!(health.check(), Err(Refusal::Closed));
    }

    #[test]
    fn a_doubt_ends_with_up() {
        let health = Health::new();
        health.suspect("not yet");
        assert!(matches!(health.state(), State::Starting(_)));
        health.up();
        health.suspect("slow");
        assert_eq!(health.check(), Err(Refusal::Unavailable("slow".to_owned())));
        health.up();
        assert_eq!(health.check(), Ok(()));
    }
}
