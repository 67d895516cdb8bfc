//! What comes in, and what is said of it: each push is answered once, truthfully and in time.

use super::micros;
use crate::check::books::Place;
use crate::check::{Call, Checker, Invariant, Said, Seen, TICK_US, is_about_id};
use engine::outcome::Reason;

impl Checker {
    /// The router reads a push.
    pub fn read(&mut self, now: u64, call: Call, session: u32, action: u16, left_ms: u32, bytes: u64) {
        self.note(Seen::Read { call, session, action, left_ms });
        self.sequence += 1;
        let (life, sequence) = (self.life, self.sequence);
        let book = &mut self.calls[call as usize];
        if book.life == life && book.place != Place::Outside {
            book.refusals_owed += 1;
            self.owing += 1;
            return;
        }
        book.life = life;
        book.place = Place::Reading;
        (book.read_at, book.came_at) = (now, now);
        book.session = session;
        book.sequence = sequence;
        book.attempt = 1;
        book.deadline = now + u64::from(left_ms) * 1000;
        (book.quiet, book.recovered, book.refilled, book.void) = (book.only_accept, false, false, false);
        book.bytes = bytes;
        book.refusals_owed = 0;
        book.owed = book.quiet.then_some(Said::Accepted);
        self.owing += u32::from(book.owed.is_some());
        self.reading = Some(call);
    }

    /// The engine answers.
    pub fn answered(&mut self, now: u64, call: Call, session: u32, said: Said) {
        self.note(Seen::Answered { call, session, said });
        if let Some(session) = self.sessions.get_mut(session as usize) {
            session.answers += 1;
        }
        let book = &mut self.calls[call as usize];
        book.answer_mailed = !matches!(said, Said::Rejected(_));
        if book.life != self.life {
            return self.fail(Invariant::I2, Some(call), format!("answered {said:?} by a router that never read it"));
        }
        if matches!(said, Said::Rejected(_)) && book.refusals_owed > 0 {
            book.refusals_owed -= 1;
            self.owing -= 1;
            self.sums.rejected += u64::from(!is_about_id(said));
            return;
        }
        if is_about_id(said) && said.reason() != Some(Reason::OutcomeUnknown) {
            return self.fail(Invariant::I2, Some(call), format!("answered {said:?} though it came once"));
        }
        if book.session != session {
            return self.fail(Invariant::I2, Some(call), format!("answered {said:?} to another than who asked"));
        }
        match said {
            Said::Rejected(_) if said.reason() == Some(Reason::RecordDamaged) => self.damaged(call, said),
            Said::Rejected(_) if self.draining && book.place == Place::Queued => {
                self.cut_off(call, said);
            }
            Said::Accepted if self.draining && book.owed.is_none() => self.parted(call),
            Said::Rejected(_) => self.rejected(call, said),
            Said::Expired => self.expired(now, call),
            Said::TimedOut => self.overdue(now, call),
            _ if book.owed == Some(said) => {
                book.owed = None;
                self.owing -= 1;
            }
            _ => {
                let (owed, place) = (book.owed, book.place);
                let what = format!("answered {said:?} where {owed:?} was owed, while {place:?}");
                self.fail(Invariant::I2, Some(call), what);
            }
        }
    }

    /// Its record is damaged.
    fn damaged(&mut self, call: Call, said: Said) {
        let book = &mut self.calls[call as usize];
        if book.owed == Some(said) {
            book.owed = None;
            self.owing -= 1;
        } else if self.draining && book.place == Place::Stored && book.hit && book.noted && !book.quiet && !book.void {
            // The router ends, and consumes nothing any more.
            book.place = Place::Ended;
            self.sums.spill_damaged += 1;
            self.actions[usize::from(book.action)].out -= 1;
        } else {
            let place = book.place;
            self.fail(Invariant::I2, Some(call), format!("said to be damaged while {place:?}"));
        }
    }

    /// The time of a drain is over, and it never started.
    fn cut_off(&mut self, call: Call, said: Said) {
        self.leave_queue(call);
        self.calls[call as usize].place = Place::Ended;
        self.sums.cut_off += 1;
        if said.reason() != Some(Reason::Draining) {
            self.fail(Invariant::I2, Some(call), format!("answered {said:?} while queued"));
        }
    }

    /// The router ends, and it stays in the store.
    fn parted(&mut self, call: Call) {
        let book = &mut self.calls[call as usize];
        let fits = book.place == Place::Stored && !book.quiet && !book.hit && !book.parted;
        book.parted = true;
        if !fits {
            let place = book.place;
            self.fail(Invariant::I2, Some(call), format!("told that it stays in the store while {place:?}"));
        }
    }

    fn rejected(&mut self, call: Call, said: Said) {
        let book = &mut self.calls[call as usize];
        let unkept = book.place == Place::Unkept && book.owed == Some(said);
        if book.place != Place::Reading && !unkept {
            let place = book.place;
            return self.fail(Invariant::I2, Some(call), format!("answered {said:?} while {place:?}"));
        }
        // It may try again.
        book.place = Place::Outside;
        self.owing -= u32::from(book.owed.take().is_some());
        let (bytes, action) = (book.bytes, &self.actions[usize::from(book.action)]);
        let (queued, queued_bytes) = (action.queued, action.queued_bytes);
        self.reading = None;
        self.sums.rejected += u64::from(!is_about_id(said));
        let fair = match said.reason() {
            _ if unkept => true,
            Some(Reason::OverflowUnavailable) => self.may_refuse_overflow(call),
            // There is another place for it.
            Some(Reason::QueueFull | Reason::RouterFull) if self.flow.open => false,
            Some(Reason::QueueFull) => {
                queued >= self.limits.action_queued_max || queued_bytes + bytes > self.limits.action_queued_bytes_max
            }
            Some(Reason::RouterFull) => {
                self.queued >= self.limits.router_queued_max
                    || self.queued_bytes + bytes > self.limits.router_queued_bytes_max
            }
            Some(Reason::Draining) => self.draining,
            _ => true,
        };
        if !fair {
            let (all, all_bytes) = (self.queued, self.queued_bytes);
            let what = format!("{said:?} with {queued} ({queued_bytes} B) queued of {all} ({all_bytes} B) in all");
            self.fail(Invariant::I4, Some(call), what);
        }
    }

    fn expired(&mut self, now: u64, call: Call) {
        let (place, deadline) = (self.calls[call as usize].place, self.calls[call as usize].deadline);
        match place {
            Place::Queued => self.leave_queue(call),
            // It counts as taken and is told so first.
            Place::Reading => {
                self.reading = None;
                self.sums.accepted += 1;
            }
            _ => return self.fail(Invariant::I2, Some(call), format!("expired while {place:?}")),
        }
        self.calls[call as usize].place = Place::Ended;
        self.sums.expired += 1;
        if now < deadline {
            self.fail(Invariant::I5, Some(call), format!("expired {} us before its deadline", deadline - now));
        }
        // One that came back at its very end expires then.
        let due = deadline.max(self.calls[call as usize].came_at);
        let by = due.max(self.stopped_until) + 2 * TICK_US;
        if now > by {
            self.fail(Invariant::I5, Some(call), format!("expired {} us too late", now - by));
        }
    }

    fn overdue(&mut self, now: u64, call: Call) {
        let book = &mut self.calls[call as usize];
        let Place::InFlight(container) = book.place else {
            let place = book.place;
            return self.fail(Invariant::I2, Some(call), format!("timed out while {place:?}"));
        };
        book.place = Place::Overdue(container);
        let due = book.deadline + micros(self.limits.overdue_grace);
        // Half of its time was left at its dispatch, as far as is known what it came with.
        let left = book.deadline.saturating_sub(book.dispatched_at);
        let fair = !book.recovered && 2 * left >= book.deadline - book.read_at;
        self.sums.timed_out += 1;
        if fair {
            self.strike(container);
        }
        if now < due {
            self.fail(Invariant::I5, Some(call), "timed out too early");
        }
    }

    /// Something in flight is heard of, or given up: that must have been said in time.
    pub(super) fn judge_silence(&mut self, call: Call) {
        let book = &self.calls[call as usize];
        let due = book.deadline + micros(self.limits.overdue_grace);
        if !matches!(book.place, Place::InFlight(_)) || self.local < due {
            return;
        }
        if book.quiet {
            // It timed out, and nobody was to be told.
            self.vague = true;
        } else if self.local > due.max(self.stopped_until) + 2 * TICK_US {
            self.fail(Invariant::I5, Some(call), "overdue for long, and not answered as timed out");
        }
    }

    /// The router tells a controller that came back once more that the activation was taken.
    pub fn told_accepted(&mut self, call: Call, session: u32) {
        self.note(Seen::Answered { call, session, said: Said::Accepted });
        self.sessions[session as usize].answers += 1;
        let book = &self.calls[call as usize];
        let held =
            !matches!(book.place, Place::Outside | Place::Reading | Place::Spilling | Place::Unkept | Place::Ended);
        // The router keeps no session with a stored activation: it is taken, whoever asks.
        let own = book.session == session || book.place == Place::Stored;
        if book.life != self.life || !own || !book.quiet || !held || book.answer_mailed {
            let place = book.place;
            self.fail(Invariant::I2, Some(call), format!("told once more that it was taken while {place:?}"));
        }
    }

    /// The router tells a controller that came back that nothing is known of that activation.
    pub fn told_lost(&mut self, call: Call, session: u32) {
        self.note(Seen::Answered { call, session, said: Said::Lost });
        self.sessions[session as usize].answers += 1;
        let life = self.life;
        let book = &mut self.calls[call as usize];
        if book.life == life && book.session == session && book.answer_mailed {
            return self.fail(Invariant::I2, Some(call), "told that it is lost though its answer waits in the mailbox");
        }
        let here = book.life == life
            && matches!(
                book.place,
                Place::Queued | Place::Spilling | Place::Stored | Place::InFlight(_) | Place::Overdue(_)
            );
        if !here {
            // Its id counts as ended from now on.
            (book.life, book.place, book.session) = (life, Place::Ended, session);
        } else if book.place == Place::Spilling && book.session != session {
            // Should it come back, it is dropped.
            book.void = true;
        } else if book.session == session && (book.quiet || !matches!(book.place, Place::Overdue(_))) {
            let place = book.place;
            self.fail(Invariant::I2, Some(call), format!("told that it is lost while {place:?}"));
        }
    }

    /// A writer has taken an answer out of a session's mailbox.
    pub fn answer_taken(&mut self, call: Call, session: u32) {
        let answers = &mut self.sessions[session as usize].answers;
        *answers = answers.saturating_sub(1);
        self.calls[call as usize].answer_mailed = false;
    }

    #[cold]
    pub(super) fn find_owed(&mut self) {
        let life = self.life;
        let owed = (0..)
            .zip(&self.calls)
            .find(|(_, book)| book.life == life && (book.owed.is_some() || book.refusals_owed > 0));
        let Some((call, book)) = owed else { return };
        let what = format!("{:?} was due at once and was not said", book.owed);
        self.fail(Invariant::I2, Some(call), what);
    }
}
