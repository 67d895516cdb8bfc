//! Containers: their credits, the streams that carry them, what a breaker may hold against them.

use crate::check::books::{ContainerBook, Place};
use crate::check::{Call, Checker, Invariant, Said, Seen};

impl Checker {
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

    pub(super) fn grant(&mut self, container: u32, credits: u32) {
        let book = &mut self.containers[container as usize];
        let busy = book.in_flight.len() as u64;
        if book.open && u64::from(book.credits) + busy + u64::from(credits) <= book.concurrency.into() {
            book.credits += credits;
        }
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
        if !lost.is_empty() {
            self.died(container, &lost);
            self.strike_node(container);
        }
        lost.into_iter().for_each(|call| self.lose(call, true));
        self.grant(container, credits);
        self.touch_of(container);
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
        // One that goes while its breaker may be open is a strike for its node.
        let tripped = self.may_be_tripped(container);
        self.died(container, &in_flight);
        if !in_flight.is_empty() || tripped {
            self.strike_node(container);
        }
        if tripped {
            self.forget_probe(container);
        }
        for call in in_flight {
            self.lose(call, away);
        }
        self.sessions[session as usize].containers.retain(|(other, at)| *other != number || *at != container);
        let action = usize::from(self.containers[container as usize].action);
        self.actions[action].containers.retain(|other| *other != container);
    }

    /// It gets nothing any more, and what it has in flight is given up.
    pub(super) fn give_up(&mut self, container: u32) {
        self.close(container);
        for call in std::mem::take(&mut self.containers[container as usize].in_flight) {
            self.lose(call, false);
        }
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
            let what = "lost with its container's stream, though it had never left the router";
            self.fail(Invariant::I2, Some(call), what);
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
    pub(super) fn strike(&mut self, container: u32) {
        self.containers[container as usize].strikes += 1;
    }

    fn may_be_tripped(&self, container: u32) -> bool {
        self.limits.breaker.as_ref().is_some_and(|rules| self.containers[container as usize].strikes >= rules.strikes)
    }

    /// A breaker may hold it back.
    pub(in crate::check) fn is_struck(&self, container: u32) -> bool {
        let Some(rules) = &self.limits.breaker else { return false };
        let book = &self.containers[container as usize];
        let of_node =
            |node: u16| self.nodes.get(&(node, book.action)).is_some_and(|node| node.strikes >= rules.strikes);
        book.strikes >= rules.strikes || self.sessions[book.session as usize].node.is_some_and(of_node)
    }

    pub(super) fn touch_of(&mut self, container: u32) {
        self.touch(self.containers[container as usize].action);
    }

    pub(super) fn find_container(&self, session: u32, number: u32) -> Option<u32> {
        let of_session = &self.sessions.get(session as usize)?.containers;
        of_session.iter().find(|(other, _)| *other == number).map(|(_, at)| *at)
    }
}
