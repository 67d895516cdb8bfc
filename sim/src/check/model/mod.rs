//! The router as its promises describe it, in the plainest way: counts, a line per action, a list per container. Whatever the
//! engine does is held against this. Here: a router's lives, its sessions, and what holds after each input and in quiet moments.

mod answers;
mod containers;
mod dispatches;
mod nodes;
mod queues;

use super::books::{Place, SessionBook, Sums};
use super::{Checker, Invariant, Seen, clear_action};
use engine::audit::Audit;
use engine::limits::Limits;

impl Checker {
    /// A router comes up: a new life, without memory.
    pub fn router_began(&mut self, limits: &Limits) {
        self.life += 1;
        self.note(Seen::RouterBegan { life: self.life });
        self.limits = limits.clone();
        self.router_up = true;
        self.vague = false;
        self.forget_router();
    }

    /// The router is gone.
    pub fn router_died(&mut self) {
        self.note(Seen::RouterDied);
        self.router_up = false;
        self.forget_router();
    }

    fn forget_router(&mut self) {
        self.draining = false;
        self.containers.clear();
        self.sessions.clear();
        self.nodes.clear();
        self.actions.iter_mut().for_each(clear_action);
        (self.queued, self.queued_bytes, self.came_back, self.owing) = (0, 0, 0, 0);
        self.dirty.clear();
        self.reading = None;
        self.flow.forget_router();
        self.sums = Sums::default();
    }

    /// The router takes nothing new from now on.
    pub fn router_drains(&mut self) {
        self.note(Seen::RouterDrains);
        self.draining = true;
    }

    /// A drain has come to its end, in time or not.
    pub fn drain_over(&mut self, held: usize, in_time: bool, parted: bool) {
        self.note(Seen::RouterDone { held: u32::try_from(held).unwrap_or(u32::MAX) });
        self.judge_parted(parted);
        if in_time && held > 0 {
            self.fail(Invariant::I11, None, format!("the drained router still holds {held} activations"));
        }
    }

    /// Everybody has heard something, unless what is stored could not be told of in time.
    fn judge_parted(&mut self, parted: bool) {
        let life = self.life;
        let silent = (0..).zip(&self.calls).find(|(_, book)| {
            let waits = book.life == life && !book.quiet && !book.void;
            let stays = parted && book.place == Place::Stored && !book.parted && !book.hit;
            waits && (stays || matches!(book.place, Place::Queued | Place::InFlight(_)))
        });
        if let Some((call, book)) = silent {
            let what = format!("the router ends, and its caller has heard nothing while {:?}", book.place);
            self.fail(Invariant::I11, Some(call), what);
        }
    }

    /// The time of a drain is over: what is in flight is given up.
    pub fn gives_up(&mut self) {
        for container in 0..self.containers.len() {
            let container = u32::try_from(container).unwrap_or(u32::MAX);
            self.give_up(container);
        }
        // Who only wanted to hear that it was taken hears nothing more.
        for call in 0..u32::try_from(self.calls.len()).unwrap_or(u32::MAX) {
            let book = &self.calls[call as usize];
            if book.life == self.life && book.quiet && book.place == Place::Queued {
                self.calls[call as usize].place = Place::Ended;
                self.sums.cut_off += 1;
                self.leave_queue(call);
            }
        }
    }

    /// The router stood still until then, on its own clock.
    pub fn router_stopped_until(&mut self, local: u64) {
        self.stopped_until = local;
    }

    /// What the router's clock shows from now on.
    pub fn router_shows(&mut self, local: u64) {
        self.local = local;
    }

    /// A peer's session begins, a node's or a controller's; sessions are numbered from 0 in each life.
    pub fn session_began(&mut self, session: u32, node: Option<u16>) {
        self.note(Seen::SessionBegan { session });
        self.sessions.resize_with(session as usize + 1, SessionBook::default);
        self.sessions[session as usize].node = node;
    }

    /// A peer's session is over.
    pub fn session_over(&mut self, session: u32) {
        self.note(Seen::SessionOver { session });
        self.sessions[session as usize].over = true;
    }

    /// A stream ends because all that was owed on it is written.
    pub fn session_finished(&mut self, session: u32) {
        let life = self.life;
        let owed = (0..).zip(&self.calls).find(|(_, book)| {
            book.life == life
                && book.session == session
                && !book.quiet
                && !book.parted
                // Nobody knows whose a damaged record was that has no note.
                && (!book.hit || book.noted)
                && matches!(book.place, Place::Queued | Place::Spilling | Place::Stored | Place::InFlight(_))
        });
        if let Some((call, _)) = owed {
            self.fail(Invariant::I2, Some(call), "its stream was ended as if all were said, and its answer is owed");
        }
    }

    /// The engine has worked on an input, and its effects are seen. `queued` and `queued_bytes` are what it says of itself.
    pub fn settled(&mut self, now: u64, queued: u64, queued_bytes: u64) {
        if let Some(call) = self.reading.take() {
            self.join_queue(call);
        }
        if self.owing != 0 {
            self.find_owed();
        }
        if (queued, queued_bytes) != (self.queued, self.queued_bytes) {
            self.expire_unheard(now, queued, queued_bytes);
        }
        if (queued, queued_bytes) != (self.queued, self.queued_bytes) {
            let (here, bytes) = (self.queued, self.queued_bytes);
            let what = format!("the router counts {queued} queued ({queued_bytes} B), there are {here} ({bytes} B)");
            self.fail(Invariant::I7, None, what);
        }
        while let Some(action) = self.dirty.pop() {
            self.actions[usize::from(action)].dirty = false;
            self.judge_stranded(action);
        }
    }

    /// What happened in this life of the router.
    pub fn sums(&self) -> Sums {
        self.sums
    }

    /// A quiet moment: what the engine counts is held against what was seen here. `held` is what it says it holds.
    pub fn quiet(&mut self, engine: &Sums, held: usize) {
        if *engine != self.sums && !self.vague {
            let what = format!("the engine counts {engine:?}, seen were {:?}", self.sums);
            self.fail(Invariant::I7, None, what);
        }
        let here = self.calls.iter().filter(|book| book.life == self.life).filter(|book| {
            matches!(book.place, Place::Queued | Place::Spilling | Place::InFlight(_) | Place::Overdue(_))
        });
        let here = here.count();
        if held != here {
            self.fail(Invariant::I7, None, format!("the engine holds {held} activations, it should hold {here}"));
        }
    }

    /// All faults are over, nobody waits: nothing may be left behind.
    pub fn rested(&mut self, held: usize, mailboxes: usize, parked: usize, audit: &Audit) {
        if parked != 0 || audit.suspended != 0 {
            let what = format!("{parked} sessions are still awaited, {} containers suspended", audit.suspended);
            self.fail(Invariant::I12, None, what);
        }
        let here: u64 = self.containers.iter().map(|container| u64::from(container.credits)).sum();
        let in_flight: usize = self.containers.iter().map(|container| container.in_flight.len()).sum();
        if (audit.credits, audit.in_flight + audit.retired_in_flight) != (here, in_flight as u64) {
            let what = format!("{audit:?}, but there are {here} credits, {in_flight} in flight");
            self.fail(Invariant::I12, None, what);
        }
        if self.honest && audit.credits + audit.in_flight != audit.slots {
            self.fail(Invariant::I12, None, format!("credits were lost: {audit:?}"));
        }
        if held != 0 || self.queued != 0 {
            let what = format!("nobody waits any more, but {held} activations are held, {} queued", self.queued);
            self.fail(Invariant::I12, None, what);
        }
        let vanished = self.sessions.iter().filter(|session| !session.over && session.answers > 0).count();
        if vanished != 0 {
            self.fail(Invariant::I12, None, format!("answers vanished from {vanished} mailboxes"));
        }
        if mailboxes != 0 {
            self.fail(Invariant::I12, None, format!("{mailboxes} entries were never written"));
        }
    }
}

fn micros(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
