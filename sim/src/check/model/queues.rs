//! The line of each action: who comes before whom, what may be in it, and that nobody stands in it beside a free credit.

use crate::check::books::Place;
use crate::check::{Call, Checker, Invariant, TICK_US};

impl Checker {
    /// It was read and nothing was said of it: it waits.
    pub(super) fn join_queue(&mut self, call: Call) {
        let book = &mut self.calls[call as usize];
        book.place = Place::Queued;
        let (bytes, at) = (book.bytes, book.action);
        self.sums.accepted += 1;
        let action = &mut self.actions[usize::from(at)];
        action.queue.push_back((book.sequence, call));
        let over = action.queued >= self.limits.action_queued_max
            || action.queued_bytes + bytes > self.limits.action_queued_bytes_max
            || self.queued >= self.limits.router_queued_max
            || self.queued_bytes + bytes > self.limits.router_queued_bytes_max;
        action.queued += 1;
        action.queued_bytes += bytes;
        self.queued += 1;
        self.queued_bytes += bytes;
        self.touch(at);
        if over {
            self.fail(Invariant::I4, Some(call), "queued beyond a limit");
        }
    }

    pub(super) fn leave_queue(&mut self, call: Call) {
        let book = &mut self.calls[call as usize];
        let action = &mut self.actions[usize::from(book.action)];
        action.refilled -= u64::from(std::mem::take(&mut book.refilled));
        action.queued -= 1;
        action.queued_bytes -= book.bytes;
        self.queued -= 1;
        self.queued_bytes -= book.bytes;
    }

    /// An activation takes its old place in the line.
    pub(super) fn come_back(&mut self, call: Call) {
        let book = &mut self.calls[call as usize];
        book.mailed = false;
        book.place = Place::Queued;
        book.came_at = self.local;
        let (sequence, action, bytes) = (book.sequence, usize::from(book.action), book.bytes);
        let (queue, recovered) = (&mut self.actions[action].queue, book.recovered);
        let at = queue.partition_point(|(other, _)| *other < sequence);
        if !recovered && queue.get(at).is_none_or(|(other, _)| *other != sequence) {
            queue.insert(at, (sequence, call));
        }
        self.actions[action].queued += 1;
        self.actions[action].queued_bytes += bytes;
        self.queued += 1;
        self.queued_bytes += bytes;
    }

    /// Nothing that waits came before it.
    pub(super) fn judge_order(&mut self, now: u64, call: Call) {
        let (sequence, action) = (self.calls[call as usize].sequence, usize::from(self.calls[call as usize].action));
        let life = self.life;
        if self.calls[call as usize].recovered {
            // Between those of two lives there is no order.
            return;
        }
        let mut at = 0;
        while let Some(&(queued, first)) = self.actions[action].queue.get(at) {
            let book = &mut self.calls[first as usize];
            if book.is_in_line(life, queued) {
                if book.hit && book.place == Place::Stored {
                    // It may never come.
                    at += 1;
                    continue;
                }
                if book.place == Place::Queued && book.quiet && book.deadline <= now {
                    // It expired, and nobody was to be told.
                    book.place = Place::Ended;
                    self.sums.expired += 1;
                    self.leave_queue(first);
                    continue;
                }
                if queued < sequence {
                    let what = format!("dispatched before activation {first}, which came first");
                    self.fail(Invariant::I3, Some(call), what);
                }
                return;
            }
            self.actions[action].queue.remove(at);
        }
    }

    /// Those who asked only whether they are taken are told nothing when they expire: the router's own count says that they went.
    #[cold]
    pub(super) fn expire_unheard(&mut self, now: u64, queued: u64, queued_bytes: u64) {
        let Some(many) = self.queued.checked_sub(queued).filter(|many| *many > 0) else { return };
        let life = self.life;
        let all = (0..).zip(&self.calls);
        let over = all
            .filter(|(_, book)| book.life == life && book.quiet && book.place == Place::Queued && book.deadline <= now);
        let mut over: Vec<(Call, u64)> = over.map(|(call, book)| (call, book.bytes)).collect();
        // First those of the action that something came for, those whose timer is due, those that were next in line.
        over.sort_by_key(|(call, _)| {
            let book = &self.calls[*call as usize];
            let elsewhere = !self.actions[usize::from(book.action)].dirty;
            (elsewhere, book.deadline.next_multiple_of(TICK_US) > now, book.sequence)
        });
        let mut gone = Vec::new();
        let mut looks = 10_000;
        if !subset(&over, many, self.queued_bytes.wrapping_sub(queued_bytes), &mut gone, &mut looks) {
            return;
        }
        for call in gone {
            self.calls[call as usize].place = Place::Ended;
            self.sums.expired += 1;
            self.leave_queue(call);
        }
    }

    /// Nobody waits who could go.
    pub(super) fn judge_stranded(&mut self, action: u16) {
        if self.actions[usize::from(action)].queued == 0 || self.all_are_blocked(action) {
            return;
        }
        let book = &self.actions[usize::from(action)];
        let free = book.containers.iter().find(|at| {
            let container = &self.containers[**at as usize];
            container.credits > 0
                && container.open
                && !container.suspended
                && !container.awaiting
                && !self.is_struck(**at)
        });
        if let Some(&container) = free {
            let credits = self.containers[container as usize].credits;
            let what =
                format!("action {action}: {} wait while container {container} has {credits} credits", book.queued);
            self.fail(Invariant::I8, None, what);
        }
    }

    /// All that are queued wait for others that came before them and are outside of memory, or may.
    fn all_are_blocked(&mut self, action: u16) -> bool {
        let (life, book) = (self.life, &mut self.actions[usize::from(action)]);
        if book.hurt {
            return true;
        }
        if book.out == 0 {
            return false;
        }
        while let Some(&(sequence, first)) = book.queue.front() {
            let first = &self.calls[first as usize];
            if first.is_in_line(life, sequence) {
                return first.place != Place::Queued;
            }
            book.queue.pop_front();
        }
        false
    }

    /// Something happened that may let one of its line go: it is looked at after this input.
    pub(in crate::check) fn touch(&mut self, action: u16) {
        if !std::mem::replace(&mut self.actions[usize::from(action)].dirty, true) {
            self.dirty.push(action);
        }
    }
}

/// Finds that many of them with that many bytes together, the first ones if it can.
fn subset(of: &[(Call, u64)], many: u64, bytes: u64, found: &mut Vec<Call>, looks: &mut u32) -> bool {
    if many == 0 {
        return bytes == 0;
    }
    *looks = looks.saturating_sub(1);
    for (at, (call, own)) in of.iter().enumerate() {
        if *own <= bytes && *looks > 0 {
            found.push(*call);
            if subset(&of[at + 1..], many - 1, bytes - own, found, looks) {
                return true;
            }
            found.pop();
        }
    }
    false
}
