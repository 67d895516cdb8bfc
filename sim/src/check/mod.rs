//! The judge. It knows nothing of how the engine works: it is shown what goes into the router and what comes out, what peers do
//! and what callers hear, and holds that against the promises. It judges as it goes and keeps no history.
//!
//! | promise | judged at |
//! | --- | --- |
//! | I1 at most once | each start, each dispatch that is written |
//! | I2 always answered, once, in time, truthfully | each answer, each word to a caller, the end |
//! | I3 first in, first out per action | each dispatch |
//! | I4 bounds | each admission, refusal, dispatch, credit |
//! | I5 nothing is dispatched late, what expires leaves in time | each dispatch, each expiry |
//! | I6 what was acknowledged as durable comes back, or is known to be lost | each consume mark, the end |
//! | I7 conservation | quiet moments: the engine's counts against those made here |
//! | I8 no activation waits beside a free credit, and overload withholds none | after each input, in the same instant |
//! | I11 a drain loses nothing | the end of each drain |
//! | I12 all is well after the faults | the end |
//! | I13 a node that dies each time is held back | each dispatch |

mod books;
mod model;
mod overflow;
mod seen;
#[cfg(test)]
mod tests;

pub use books::Sums;
pub use overflow::{Moved, Told};
pub use seen::{Call, Digest, Said, Seen};

use crate::agenda::Instant;
use books::{ActionBook, CallBook, ContainerBook, NodeBook, Place, SessionBook};
use engine::limits::Limits;
use engine::outcome::Reason;
use std::collections::BTreeMap;
use std::fmt;

/// A promise, by the number it goes under.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Invariant {
    /// No activation starts twice.
    I1,
    /// Each is answered once, in time, with the truth.
    I2,
    /// First in, first out.
    I3,
    /// Nothing passes its bound.
    I4,
    /// Nothing is dispatched at or after its deadline; what expires leaves in time.
    I5,
    /// What is durable comes back once, or is counted.
    I6,
    /// What came in is what went out and what is there.
    I7,
    /// Nobody waits for another's sake.
    I8,
    /// A drain loses nothing.
    I11,
    /// After the faults all is as before.
    I12,
    /// A node that dies with its work each time gets no more than probes.
    I13,
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let promise = match self {
            Self::I1 => "I1 at most once",
            Self::I2 => "I2 always answered",
            Self::I3 => "I3 in order",
            Self::I4 => "I4 bounded",
            Self::I5 => "I5 deadlines",
            Self::I6 => "I6 durable",
            Self::I7 => "I7 conservation",
            Self::I8 => "I8 isolation",
            Self::I11 => "I11 clean drain",
            Self::I12 => "I12 alive after the faults",
            Self::I13 => "I13 held back",
        };
        f.write_str(promise)
    }
}

/// A broken promise.
#[derive(Debug, Clone)]
pub struct Violation {
    /// Which.
    pub invariant: Invariant,
    /// True time.
    pub at: Instant,
    /// Of which activation, if of one.
    pub call: Option<Call>,
    /// What is wrong.
    pub what: String,
}

/// The longest a timer of the engine may be late: one tick of its wheel.
pub const TICK_US: u64 = 1024;

/// The judge of one world at a time. Its memory is used again for the next.
#[derive(Debug, Default)]
pub struct Checker {
    now: Instant,
    calls: Vec<CallBook>,
    actions: Vec<ActionBook>,
    containers: Vec<ContainerBook>,
    sessions: Vec<SessionBook>,
    /// By node and action.
    nodes: BTreeMap<(u16, u16), NodeBook>,
    limits: Limits,
    life: u32,
    router_up: bool,
    draining: bool,
    /// Timers may be as late as this: the router was stopped until then, on its own clock.
    stopped_until: u64,
    /// Nodes say nothing but the truth, so that a comparison of credits finds no difference.
    honest: bool,
    /// Things happened of which nobody is told what exactly.
    vague: bool,
    /// The router's clock.
    local: u64,
    sequence: u64,
    queued: u64,
    queued_bytes: u64,
    /// Of them, those that came back; they are not refused for want of room.
    came_back: u64,
    reading: Option<Call>,
    /// Answers that are owed in this very step.
    owing: u32,
    dirty: Vec<u16>,
    unresolved: u32,
    outbox_bytes_max: u64,
    sums: Sums,
    flow: overflow::Flow,
    digest: Digest,
    violation: Option<Violation>,
    story: Option<Vec<(Instant, Seen)>>,
    seen: u64,
}

impl Checker {
    /// Ready for a world.
    pub fn begin(&mut self, actions: usize, outbox_bytes_max: u64, honest: bool, tell: bool) {
        self.now = 0;
        self.calls.clear();
        self.actions.iter_mut().for_each(clear_action);
        self.actions.resize_with(actions, ActionBook::default);
        self.containers.clear();
        self.sessions.clear();
        self.nodes.clear();
        self.life = 0;
        self.router_up = false;
        self.draining = false;
        self.stopped_until = 0;
        self.sequence = 0;
        (self.queued, self.queued_bytes, self.came_back) = (0, 0, 0);
        self.reading = None;
        self.owing = 0;
        self.dirty.clear();
        self.unresolved = 0;
        self.outbox_bytes_max = outbox_bytes_max;
        (self.honest, self.vague) = (honest, false);
        self.sums = Sums::default();
        self.flow.clear();
        self.digest = Digest::default();
        self.violation = None;
        self.story = tell.then(Vec::new);
        self.seen = 0;
    }

    /// The time of what is seen next.
    #[inline]
    pub fn at(&mut self, now: Instant) {
        self.now = now;
    }

    /// The first broken promise.
    pub fn violation(&self) -> Option<&Violation> {
        self.violation.as_ref()
    }

    /// The hash of all that was seen.
    pub fn digest(&self) -> u64 {
        std::hash::Hasher::finish(&self.digest)
    }

    /// How much was seen.
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// All that was seen, if it was asked for.
    pub fn story(&self) -> &[(Instant, Seen)] {
        self.story.as_deref().unwrap_or_default()
    }

    /// Callers that wait.
    pub fn unresolved(&self) -> u32 {
        self.unresolved
    }

    /// Notes what needs no judging.
    #[inline]
    pub fn note(&mut self, seen: Seen) {
        self.seen += 1;
        self.digest.add(self.now, &seen);
        if let Some(story) = &mut self.story {
            story.push((self.now, seen));
        }
    }

    #[cold]
    fn fail(&mut self, invariant: Invariant, call: Option<Call>, what: impl Into<String>) {
        if self.violation.is_none() {
            self.violation = Some(Violation { invariant, at: self.now, call, what: what.into() });
        }
    }

    // Callers and controllers.

    /// A caller asks its controller. `answer_by` is on the controller's clock.
    pub fn submitted(
        &mut self,
        controller: u16,
        action: u16,
        timeout_ms: u32,
        answer_by: u64,
        only_accept: bool,
    ) -> Call {
        let call = Call::try_from(self.calls.len()).unwrap_or(Call::MAX);
        self.note(Seen::Submitted { call, controller, action, timeout_ms });
        self.unresolved += 1;
        self.calls.push(CallBook {
            controller,
            action,
            only_accept,
            answer_by,
            resolved: None,
            orphan: false,
            starts: 0,
            finished: None,
            on_the_wire: 0,
            written: 0,
            handed: 0,
            kept_at: None,
            hit: false,
            noted: false,
            parted: false,
            stamps: Vec::new(),
            worthless_at: None,
            wall_deadline: 0,
            spilled_at: 0,
            life: 0,
            place: Place::Outside,
            quiet: false,
            recovered: false,
            refilled: false,
            void: false,
            session: 0,
            sequence: 0,
            attempt: 1,
            deadline: 0,
            read_at: 0,
            came_at: 0,
            bytes: 0,
            dispatched_at: 0,
            mailed: false,
            answer_mailed: false,
            owed: None,
            refusals_owed: 0,
        });
        call
    }

    /// A caller is told. `local` is its controller's clock, `stopped_until` until when the controller's process last stood still.
    pub fn resolved(&mut self, call: Call, said: Said, local: u64, stopped_until: u64) {
        let book = &mut self.calls[call as usize];
        let (controller, answer_by, starts, finished) = (book.controller, book.answer_by, book.starts, book.finished);
        let before = book.resolved.replace(said);
        self.note(Seen::Resolved { call, controller, said });
        if let Some(before) = before {
            return self.fail(Invariant::I2, Some(call), format!("its caller was told {said:?} after {before:?}"));
        }
        self.unresolved -= 1;
        let by = answer_by.max(stopped_until) + TICK_US;
        if local > by {
            let late = local - by;
            self.fail(Invariant::I2, Some(call), format!("its caller was told {said:?} {late} us too late"));
        }
        match said {
            Said::Completed | Said::ActionFailed | Said::PlatformFailed if finished != Some(said) => {
                self.fail(Invariant::I2, Some(call), format!("told {said:?}, but its run ended as {finished:?}"));
            }
            _ if never_started(said) && starts > 0 => {
                self.fail(Invariant::I2, Some(call), format!("told {said:?}, but it was started"));
            }
            _ => {}
        }
    }

    /// A controller hears from the router.
    pub fn heard(&mut self, call: Call, controller: u16, said: Said) {
        self.note(Seen::Heard { call, controller, said });
        if self.calls[call as usize].controller != controller {
            self.fail(Invariant::I2, Some(call), format!("another controller hears {said:?}"));
        }
    }

    /// An answer carries what another run returned.
    pub fn wrong_result(&mut self, call: Call) {
        self.fail(Invariant::I2, Some(call), "its answer carries what another run returned");
    }

    /// A controller's process is gone, and its callers with it.
    pub fn orphaned(&mut self, controller: u16) {
        let waiting = self.calls.iter_mut().filter(|call| call.controller == controller);
        for book in waiting.filter(|book| !book.orphan && book.resolved.is_none()) {
            book.orphan = true;
            self.unresolved -= 1;
        }
    }

    // Nodes.

    /// A node has received a dispatch.
    pub fn arrived(&mut self, call: Call, node: u16, number: u32) {
        self.note(Seen::Arrived { call, node, number });
    }

    /// A container begins to run it.
    pub fn started(&mut self, call: Call, node: u16, number: u32) {
        self.note(Seen::Started { call, node, number });
        let book = &mut self.calls[call as usize];
        book.starts += 1;
        let (starts, resolved) = (book.starts, book.resolved);
        if starts > 1 {
            self.fail(Invariant::I1, Some(call), "it was started a second time");
        }
        if let Some(said) = resolved.filter(|said| never_started(*said)) {
            self.fail(Invariant::I2, Some(call), format!("it was started after its caller was told {said:?}"));
        }
    }

    /// Its run ended.
    pub fn finished(&mut self, call: Call, node: u16, said: Said) {
        self.note(Seen::Finished { call, node, said });
        self.calls[call as usize].finished = Some(said);
    }

    /// A container hands it back unstarted.
    pub fn given_back(&mut self, call: Call, node: u16) {
        self.note(Seen::GivenBack { call, node });
        let book = &mut self.calls[call as usize];
        book.on_the_wire = book.on_the_wire.saturating_sub(1);
    }

    // The end.

    /// It goes on and on.
    pub fn restless(&mut self) {
        self.fail(Invariant::I12, None, "it does not come to rest");
    }

    /// All faults are over and everything has had its time: nobody may be waiting.
    pub fn ended(&mut self) {
        let waiting = (0..).zip(&self.calls).find(|(_, book)| book.resolved.is_none() && !book.orphan);
        if let Some((call, _)) = waiting {
            self.fail(Invariant::I2, Some(call), "its caller was never told");
        }
        let owed = (0..).zip(&self.calls).find(|(_, book)| {
            self.router_up && book.life == self.life && (book.owed.is_some() || book.refusals_owed > 0)
        });
        if let Some((call, _)) = owed {
            self.fail(Invariant::I2, Some(call), "the router never answered it");
        }
    }
}

/// The session of those whose controllers are gone with an earlier life of the router.
const NOBODY: u32 = u32::MAX;

/// Words that promise it never started.
fn never_started(said: Said) -> bool {
    match said {
        Said::Expired | Said::Unreachable(false) | Said::CircuitOpen => true,
        // Of this push; an earlier one of the same id may have.
        Said::Rejected(_) => !is_about_id(said),
        _ => false,
    }
}

/// A refusal for the sake of an id that is known, or may be.
fn is_about_id(said: Said) -> bool {
    said.reason().is_some_and(|reason| ID_REASONS.contains(&reason))
}

const ID_REASONS: &[Reason] = &[Reason::IdInFlight, Reason::IdEnded, Reason::OutcomeUnknown];

fn clear_action(action: &mut ActionBook) {
    action.queue.clear();
    action.containers.clear();
    (action.queued, action.queued_bytes, action.dirty) = (0, 0, false);
    (action.refilled, action.out, action.kept) = (0, 0, 0);
    (action.hurt, action.starved_since) = (false, None);
}
