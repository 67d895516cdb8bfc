//! The router as its promises describe it, in the plainest way: counts, a line per action, a list per container. Whatever the
//! engine does is held against this.

use super::books::{ContainerBook, Place, SessionBook, Sums};
use super::{Call, Checker, Invariant, Said, Seen, TICK_US, clear_action, is_about_id};
use engine::audit::Audit;
use engine::limits::Limits;
use engine::outcome::Reason;

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

    /// The router stood still until then, on its own clock.
    pub fn router_stopped_until(&mut self, local: u64) {
        self.stopped_until = local;
    }

    /// A peer's session begins; sessions are numbered from 0 in each life.
    pub fn session_began(&mut self, session: u32) {
        self.note(Seen::SessionBegan { session });
        self.sessions.resize_with(session as usize + 1, SessionBook::default);
    }

    /// A peer's session is over.
    pub fn session_over(&mut self, session: u32) {
        self.note(Seen::SessionOver { session });
        self.sessions[session as usize].over = true;
    }

    /// What the router's clock shows from now on.
    pub fn router_shows(&mut self, local: u64) {
        self.local = local;
    }

    // Activations come in.

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
        book.came_at = now;
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
        self.sums.timed_out += 1;
        self.strike(container);
        if now < due {
            self.fail(Invariant::I5, Some(call), "timed out too early");
        }
    }

    /// Something in flight is heard of, or given up: that must have been said in time.
    fn judge_silence(&mut self, call: Call) {
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

    // Activations go out.

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
            return self.fail(
                Invariant::I1,
                Some(call),
                format!("dispatched to container {number}, which is not there"),
            );
        };
        let place = self.calls[call as usize].place;
        if self.calls[call as usize].life != self.life || !matches!(place, Place::Reading | Place::Queued) {
            return self.fail(Invariant::I1, Some(call), format!("dispatched while {place:?}"));
        }
        self.judge_order(now, call);
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
        let (action, deadline, expected) = (book.action, book.deadline, book.attempt);
        let bytes = book.bytes;
        self.judge_container(call, at, action, epoch);
        let container = &mut self.containers[at as usize];
        container.credits = container.credits.saturating_sub(1);
        container.in_flight.push(call);
        container.received = container.received.wrapping_add(1);
        let waiting = &mut self.sessions[session as usize].waiting_bytes;
        let before = std::mem::replace(waiting, *waiting + bytes + DISPATCH_BYTES);
        if before > self.outbox_bytes_max {
            self.fail(Invariant::I4, Some(call), "dispatched to a stream whose outbox is full");
        }
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

    fn judge_order(&mut self, now: u64, call: Call) {
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
                    self.fail(
                        Invariant::I3,
                        Some(call),
                        format!("dispatched before activation {first}, which came first"),
                    );
                }
                return;
            }
            self.actions[action].queue.remove(at);
        }
    }

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

    /// All dispatches were taken out of a session's mailbox.
    pub fn taken(&mut self, session: u32) {
        self.sessions[session as usize].waiting_bytes = 0;
    }

    /// A writer has taken an answer out of a session's mailbox.
    pub fn answer_taken(&mut self, call: Call, session: u32) {
        let answers = &mut self.sessions[session as usize].answers;
        *answers = answers.saturating_sub(1);
        self.calls[call as usize].answer_mailed = false;
    }

    /// A stream ends because all that was owed on it is written.
    pub fn session_finished(&mut self, session: u32) {
        let life = self.life;
        let owed = (0..).zip(&self.calls).find(|(_, book)| {
            book.life == life
                && book.session == session
                && !book.quiet
                && matches!(book.place, Place::Queued | Place::Spilling | Place::Stored | Place::InFlight(_))
        });
        if let Some((call, _)) = owed {
            self.fail(Invariant::I2, Some(call), "its stream was ended as if all were said, and its answer is owed");
        }
    }

    /// A writer has taken a dispatch of that many bytes out of a session's mailbox.
    pub fn dispatch_taken(&mut self, call: Call, session: u32, bytes: u64) {
        self.calls[call as usize].mailed = false;
        let waiting = &mut self.sessions[session as usize].waiting_bytes;
        *waiting = waiting.saturating_sub(bytes + DISPATCH_BYTES);
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

    /// The engine says that a container waits for room.
    pub fn awaits_room(&mut self, container: u32) {
        self.note(Seen::AwaitsRoom { container });
        let book = &mut self.containers[container as usize];
        book.awaiting = true;
        let waiting = self.sessions[book.session as usize].waiting_bytes;
        if waiting <= self.outbox_bytes_max {
            self.fail(Invariant::I8, None, format!("container {container} waits for room, and there is"));
        }
    }

    /// The router tells the engine that there is room again.
    pub fn room_again(&mut self, container: u32) {
        self.note(Seen::RoomAgain { container });
        self.containers[container as usize].awaiting = false;
        self.touch_of(container);
    }

    // Containers.

    /// A container is registered. Returns the number it goes under here.
    #[allow(clippy::too_many_arguments)]
    pub fn registered(
        &mut self,
        session: u32,
        number: u32,
        epoch: u32,
        action: u16,
        concurrency: u32,
        credits: u32,
    ) -> u32 {
        let at = u32::try_from(self.containers.len()).unwrap_or(u32::MAX);
        self.note(Seen::Registered { container: at, session, number, epoch, action, concurrency, credits });
        self.containers.push(ContainerBook {
            session,
            number,
            epoch,
            action,
            concurrency,
            credits,
            in_flight: Vec::new(),
            open: true,
            gone: false,
            suspended: false,
            awaiting: false,
            strikes: 0,
            received: 0,
        });
        let of_session = &mut self.sessions[session as usize].containers;
        of_session.retain(|(other, _)| *other != number);
        of_session.push((number, at));
        self.actions[usize::from(action)].containers.push(at);
        self.touch(action);
        at
    }

    /// An entry of a node is taken to be about that container.
    #[inline]
    pub fn named(&mut self, container: u32, number: u32, epoch: u32) {
        let book = &self.containers[container as usize];
        if book.gone || (book.number, book.epoch) != (number, epoch) {
            let what =
                format!("an entry about container {number} of epoch {epoch} was taken for one of epoch {}", book.epoch);
            self.fail(Invariant::I1, None, what);
        }
    }

    /// A container grants credits.
    pub fn credited(&mut self, container: u32, credits: u32) {
        self.note(Seen::Credited { container, credits });
        self.grant(container, credits);
        self.touch_of(container);
    }

    fn grant(&mut self, container: u32, credits: u32) {
        let book = &mut self.containers[container as usize];
        let busy = book.in_flight.len() as u64;
        if book.open && u64::from(book.credits) + busy + u64::from(credits) <= book.concurrency.into() {
            book.credits += credits;
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

    /// The stream that carries a container broke.
    pub fn suspended(&mut self, container: u32) {
        self.note(Seen::Suspended { container });
        self.containers[container as usize].suspended = true;
    }

    /// A container is back, with these credits, and holding these.
    pub fn rejoined(&mut self, container: u32, credits: u32, held: &[Call]) {
        self.note(Seen::Rejoined { container, credits, held: u32::try_from(held.len()).unwrap_or(u32::MAX) });
        let book = &mut self.containers[container as usize];
        (book.suspended, book.awaiting, book.received) = (false, false, 0);
        let mut lost = Vec::new();
        book.in_flight.retain(|call| {
            let holds = held.contains(call);
            if !holds {
                lost.push(*call);
            }
            holds
        });
        book.credits = 0;
        lost.into_iter().for_each(|call| self.lose(call, true));
        self.grant(container, credits);
        self.touch_of(container);
    }

    /// A container states what it believes to have.
    pub fn audited(&mut self, container: u32, credits: u32, received: u32) {
        self.note(Seen::Audited { container, credits, received });
        let book = &mut self.containers[container as usize];
        if !book.open {
            return;
        }
        // Modulo 2^32, as it is stated.
        let here = book.credits.wrapping_add(book.received.wrapping_sub(received));
        let surplus = i64::from(here.wrapping_sub(credits).cast_signed());
        let places = i64::from(book.concurrency) - i64::from(book.credits) - book.in_flight.len() as i64;
        let change = if surplus > 0 { -surplus.min(book.credits.into()) } else { (-surplus).min(places) };
        book.credits = book.credits.saturating_add_signed(i32::try_from(change).unwrap_or(0));
        self.touch_of(container);
        if surplus != 0 && self.honest {
            let what = format!("container {container} has {credits} credits, the router believes in {here}");
            self.fail(Invariant::I12, None, what);
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
        } else if book.session == session
            && (!book.quiet || book.place == Place::Spilling)
            && !matches!(book.place, Place::Overdue(_))
        {
            let place = book.place;
            self.fail(Invariant::I2, Some(call), format!("told that it is lost while {place:?}"));
        }
    }

    /// An activation takes its old place in the line.
    fn come_back(&mut self, call: Call) {
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

    /// A container takes no more.
    pub fn retire_read(&mut self, container: u32) {
        self.note(Seen::RetireRead { container });
        self.close(container);
    }

    /// A container is gone: all that is on it is lost, at once.
    pub fn gone(&mut self, container: u32) {
        self.note(Seen::Gone { container });
        self.close(container);
        let book = &mut self.containers[container as usize];
        book.gone = true;
        let away = book.suspended;
        let (session, number) = (book.session, book.number);
        let in_flight = std::mem::take(&mut book.in_flight);
        if !in_flight.is_empty() {
            self.strike_node(container);
        }
        for call in in_flight {
            self.lose(call, away);
        }
        self.sessions[session as usize].containers.retain(|(other, at)| *other != number || *at != container);
        let action = usize::from(self.containers[container as usize].action);
        self.actions[action].containers.retain(|other| *other != container);
    }

    fn close(&mut self, container: u32) {
        let book = &mut self.containers[container as usize];
        book.open = false;
        book.credits = 0;
        self.touch_of(container);
    }

    fn lose(&mut self, call: Call, away: bool) {
        self.judge_silence(call);
        if away && self.calls[call as usize].mailed {
            self.fail(
                Invariant::I2,
                Some(call),
                "lost with its container's stream, though it had never left the router",
            );
        }
        let book = &mut self.calls[call as usize];
        if matches!(book.place, Place::InFlight(_)) {
            self.sums.lost += 1;
            if !book.quiet {
                book.owed = Some(Said::Lost);
                self.owing += 1;
            }
        }
        book.place = Place::Ended;
    }

    /// Something that a container's own breaker may hold against it.
    fn strike(&mut self, container: u32) {
        self.containers[container as usize].strikes += 1;
    }

    /// Something that the breaker of its node may hold against the node, for that action.
    fn strike_node(&mut self, container: u32) {
        let (action, session) =
            (self.containers[container as usize].action, self.containers[container as usize].session);
        let strikes = &mut self.sessions[session as usize].strikes;
        match strikes.iter_mut().find(|(of, _)| *of == action) {
            Some((_, count)) => *count += 1,
            None => strikes.push((action, 1)),
        }
    }

    fn is_struck(&self, container: u32) -> bool {
        let Some(rules) = &self.limits.breaker else { return false };
        let book = &self.containers[container as usize];
        let mut on_node = self.sessions[book.session as usize].strikes.iter();
        book.strikes >= rules.strikes || on_node.any(|(of, count)| *of == book.action && *count >= rules.strikes)
    }

    // After each input.

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

    /// It was read and nothing was said of it: it waits.
    fn join_queue(&mut self, call: Call) {
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

    fn leave_queue(&mut self, call: Call) {
        let book = &mut self.calls[call as usize];
        let action = &mut self.actions[usize::from(book.action)];
        action.refilled -= u64::from(std::mem::take(&mut book.refilled));
        action.queued -= 1;
        action.queued_bytes -= book.bytes;
        self.queued -= 1;
        self.queued_bytes -= book.bytes;
    }

    /// Those who asked only whether they are taken are told nothing when they expire: the router's own count says that they went.
    #[cold]
    fn expire_unheard(&mut self, now: u64, queued: u64, queued_bytes: u64) {
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

    #[cold]
    fn find_owed(&mut self) {
        let life = self.life;
        let owed = (0..)
            .zip(&self.calls)
            .find(|(_, book)| book.life == life && (book.owed.is_some() || book.refusals_owed > 0));
        let Some((call, book)) = owed else { return };
        let what = format!("{:?} was due at once and was not said", book.owed);
        self.fail(Invariant::I2, Some(call), what);
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

    fn judge_stranded(&mut self, action: u16) {
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

    pub(super) fn touch(&mut self, action: u16) {
        if !std::mem::replace(&mut self.actions[usize::from(action)].dirty, true) {
            self.dirty.push(action);
        }
    }

    fn touch_of(&mut self, container: u32) {
        self.touch(self.containers[container as usize].action);
    }

    fn find_container(&self, session: u32, number: u32) -> Option<u32> {
        let of_session = &self.sessions.get(session as usize)?.containers;
        of_session.iter().find(|(other, _)| *other == number).map(|(_, at)| *at)
    }

    // Quiet moments.

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

    /// A drain has come to its end, in time or not.
    pub fn drain_over(&mut self, held: usize, in_time: bool) {
        self.note(Seen::RouterDone { held: u32::try_from(held).unwrap_or(u32::MAX) });
        if in_time && held > 0 {
            self.fail(Invariant::I11, None, format!("the drained router still holds {held} activations"));
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

fn micros(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// What a dispatch takes of an outbox besides its payload.
const DISPATCH_BYTES: u64 = 128;
