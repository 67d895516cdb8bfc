//! What goes out, and what becomes of it: to whom it may go, what its container says of it, and what never left the router.

use super::micros;
use crate::check::books::Place;
use crate::check::{Call, Checker, Invariant, Said, Seen};

impl Checker {
    /// The engine dispatches; `intact` says whether the payload is what was pushed.
    #[allow(clippy::too_many_arguments)]
    pub fn dispatched(
        &mut self,
        now: u64,
        call: Call,
        session: u32,
        number: u32,
        epoch: u32,
        attempt: u32,
        left_ms: u32,
        intact: bool,
    ) {
        self.note(Seen::Dispatched { call, session, number, epoch, attempt });
        let Some(at) = self.find_container(session, number) else {
            let what = format!("dispatched to container {number}, which is not there");
            return self.fail(Invariant::I1, Some(call), what);
        };
        let place = self.calls[call as usize].place;
        if self.calls[call as usize].life != self.life || !matches!(place, Place::Reading | Place::Queued) {
            return self.fail(Invariant::I1, Some(call), format!("dispatched while {place:?}"));
        }
        self.judge_order(now, call);
        self.judge_node(now, call, at);
        match place {
            Place::Queued => self.leave_queue(call),
            _ => {
                self.sums.accepted += 1;
                self.reading = None;
            }
        }
        self.sums.dispatched += 1;
        let book = &mut self.calls[call as usize];
        book.place = Place::InFlight(at);
        book.dispatched_at = now;
        book.mailed = true;
        let (action, bytes) = (book.action, book.bytes);
        self.judge_container(call, at, action, epoch);
        self.occupy(call, at, bytes);
        self.judge_words(now, call, attempt, left_ms, intact);
    }

    /// A dispatch takes a credit, a place on its container, and room in the outbox of its stream.
    fn occupy(&mut self, call: Call, at: u32, bytes: u64) {
        let container = &mut self.containers[at as usize];
        container.credits = container.credits.saturating_sub(1);
        container.in_flight.push(call);
        container.received = container.received.wrapping_add(1);
        let waiting = &mut self.sessions[container.session as usize].waiting_bytes;
        let before = std::mem::replace(waiting, *waiting + bytes + DISPATCH_BYTES);
        if before > self.outbox_bytes_max {
            self.fail(Invariant::I4, Some(call), "dispatched to a stream whose outbox is full");
        }
    }

    /// What a dispatch says of its activation.
    fn judge_words(&mut self, now: u64, call: Call, attempt: u32, left_ms: u32, intact: bool) {
        let (deadline, expected) = (self.calls[call as usize].deadline, self.calls[call as usize].attempt);
        if now >= deadline {
            self.fail(Invariant::I5, Some(call), format!("dispatched {} us after its deadline", now - deadline));
        }
        if u64::from(left_ms) > (deadline.saturating_sub(now) / 1000).max(1) {
            self.fail(Invariant::I5, Some(call), format!("dispatched with {left_ms} ms left, more than there are"));
        }
        if attempt != expected {
            self.fail(Invariant::I2, Some(call), format!("dispatched as attempt {attempt}, not {expected}"));
        }
        if !intact {
            self.fail(Invariant::I2, Some(call), "dispatched with another payload");
        }
    }

    /// Who it goes to.
    fn judge_container(&mut self, call: Call, at: u32, action: u16, epoch: u32) {
        let container = &self.containers[at as usize];
        let what = if container.action != action {
            "dispatched to a container of another action"
        } else if container.gone {
            "dispatched to a container that is gone"
        } else if !container.open {
            "dispatched to a container that takes no more"
        } else if container.suspended {
            "dispatched to a container whose node is away"
        } else if container.credits == 0 {
            "dispatched without a credit"
        } else if container.in_flight.len() >= container.concurrency as usize {
            "dispatched beyond the container's concurrency"
        } else if container.epoch != epoch {
            "dispatched under another epoch than the container's"
        } else {
            return;
        };
        self.fail(Invariant::I4, Some(call), what);
    }

    /// A writer has taken a dispatch of that many bytes out of a session's mailbox.
    pub fn dispatch_taken(&mut self, call: Call, session: u32, bytes: u64) {
        self.calls[call as usize].mailed = false;
        let waiting = &mut self.sessions[session as usize].waiting_bytes;
        *waiting = waiting.saturating_sub(bytes + DISPATCH_BYTES);
    }

    /// All dispatches were taken out of a session's mailbox.
    pub fn taken(&mut self, session: u32) {
        self.sessions[session as usize].waiting_bytes = 0;
    }

    /// A dispatch goes onto the wire.
    pub fn written(&mut self, call: Call, session: u32) {
        self.note(Seen::Written { call, session });
        let book = &mut self.calls[call as usize];
        book.on_the_wire += 1;
        if book.on_the_wire > 1 {
            self.fail(Invariant::I1, Some(call), "sent a second time, and the first was never given back");
        }
    }

    /// A container says how an activation ended. What it does not have, it cannot end.
    pub fn completion_read(&mut self, container: u32, call: Call, said: Said, credits: u32) {
        self.note(Seen::CompletionRead { container, call, said, credits });
        let life = self.life;
        let Some(book) = self.calls.get_mut(call as usize).filter(|book| book.life == life) else { return };
        if book.place == Place::InFlight(container) {
            self.judge_silence(call);
            let book = &mut self.calls[call as usize];
            match said {
                Said::Completed => self.sums.completed += 1,
                Said::ActionFailed => self.sums.action_failed += 1,
                _ => self.sums.platform_failed += 1,
            }
            if !book.quiet {
                book.owed = Some(said);
                self.owing += 1;
            }
        } else if book.place != Place::Overdue(container) {
            return;
        }
        self.calls[call as usize].place = Place::Ended;
        self.containers[container as usize].in_flight.retain(|other| *other != call);
        self.judge_run(container, call, said);
        self.node_told(container);
        self.grant(container, credits);
        self.touch_of(container);
    }

    fn judge_run(&mut self, container: u32, call: Call, said: Said) {
        if said == Said::PlatformFailed {
            self.strike(container);
            self.strike_node(container);
        } else if let Some(after) = self.limits.slow_after
            && self.calls[call as usize].dispatched_at + micros(after) < self.local
        {
            self.strike(container);
        }
    }

    /// A container hands an activation back.
    pub fn return_read(&mut self, container: u32, call: Call) {
        self.note(Seen::ReturnRead { container, call });
        let life = self.life;
        let Some(book) = self.calls.get_mut(call as usize).filter(|book| book.life == life) else { return };
        if book.place != Place::InFlight(container) && book.place != Place::Overdue(container) {
            return;
        }
        self.containers[container as usize].in_flight.retain(|other| *other != call);
        self.touch_of(container);
        if self.end_if_overdue(call) {
            return;
        }
        self.strike(container);
        self.calls[call as usize].attempt += 1;
        self.sums.returned += 1;
        self.come_back(call);
    }

    /// A dispatch never left the router, and comes back.
    pub fn unsent(&mut self, call: Call, session: u32, container: u32) {
        self.note(Seen::Unsent { call, session });
        let life = self.life;
        let Some(book) = self.calls.get(call as usize).filter(|book| book.life == life) else { return };
        if book.place != Place::InFlight(container) && book.place != Place::Overdue(container) {
            return;
        }
        if book.on_the_wire > 0 {
            self.fail(Invariant::I1, Some(call), "taken back as never sent, but it was");
        }
        let of = &mut self.containers[container as usize];
        of.in_flight.retain(|other| *other != call);
        of.received = of.received.wrapping_sub(1);
        if of.open {
            of.credits += 1;
        }
        self.touch_of(container);
        // One that was answered counts as late and as nothing else.
        if self.end_if_overdue(call) {
            return;
        }
        self.sums.unsent += 1;
        self.come_back(call);
    }

    /// One that was answered as timed out, or would have been, does not come back.
    fn end_if_overdue(&mut self, call: Call) -> bool {
        self.judge_silence(call);
        let due = self.calls[call as usize].deadline + micros(self.limits.overdue_grace);
        let book = &mut self.calls[call as usize];
        let over = matches!(book.place, Place::Overdue(_)) || book.quiet && self.local >= due;
        if over {
            book.place = Place::Ended;
        }
        over
    }
}

/// What a dispatch takes of an outbox besides its payload.
const DISPATCH_BYTES: u64 = 128;
