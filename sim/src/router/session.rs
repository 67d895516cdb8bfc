//! Sessions as the router's shell keeps them: who comes, who comes back, what becomes of what a peer left.

use super::{Member, Router, number};
use crate::check::Seen;
use crate::ctx::{Ctx, Event};
use crate::net::{Down, Peer};
use bytes::Bytes;
use engine::container::ContainerKey;
use engine::effect::Entry;
use engine::hub::Action;
use engine::id::StreamId;
use engine::input::Input;
use engine::mailbox::Mailbox;
use engine::roster::Roster;
use engine::sessions::{Attachment, End, Ended, Hello};
use std::collections::VecDeque;
use std::sync::Arc;

/// A peer as the router knows it, while it is there or awaited.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) peer: Peer,
    pub(super) conn: Option<u32>,
    pub(super) attachment: Attachment,
    pub(super) mailbox: Mailbox,
    /// Taken from the mailbox and not yet written.
    pub(super) hands: VecDeque<Entry>,
    /// Its writer will look soon.
    pub(super) writing: bool,
    /// Declared on its stream.
    pub(super) actions: Vec<Option<Arc<Action>>>,
    /// Of the streams before.
    pub(super) earlier: Vec<Arc<Action>>,
    pub(super) roster: Roster<Member>,
    /// The hello of its stream named a session of this life of the router.
    pub(super) knows_us: bool,
    pub(super) over: bool,
}

impl Router {
    /// A stream's first word. The session, unless the peer cannot come.
    pub(super) fn hello(&mut self, conn: u32, token: &Bytes, ctx: &mut Ctx) -> Option<usize> {
        let peer = ctx.net.conn(conn).peer;
        let name = name(peer);
        let knows_us = self.sessions_of(peer).is_of_this_life(token);
        loop {
            let fresh = self.sessions.len();
            let secret = ctx.dice.roll();
            let (stream, attachment, resumed, named) =
                match self.sessions_of(peer).hello(&name, token, StreamId(fresh as u64), secret, || fresh) {
                    Hello::New { .. } if self.ending => {
                        // It drains, and begins nothing new.
                        self.sessions_of(peer).forget(StreamId(fresh as u64));
                        let learns = ctx.latency();
                        ctx.cut(conn, 0, learns);
                        return None;
                    }
                    Hello::New { token, replaced, .. } => {
                        if let Some(replaced) = replaced {
                            self.close(replaced, ctx);
                        }
                        self.begin_session(peer, ctx);
                        if let Peer::Node { .. } = peer {
                            let parked = self.sessions_of(peer).forget_parked(&name);
                            parked.into_iter().for_each(|before| self.remove(before, ctx));
                        }
                        (fresh, Attachment::FIRST, false, token)
                    }
                    Hello::Resumed { token, held, attachment, .. } => {
                        if !self.attach(held, attachment, ctx) {
                            self.sessions_of(peer).forget(StreamId(held as u64));
                            self.remove(held, ctx);
                            continue;
                        }
                        (held, attachment, true, token)
                    }
                    Hello::Refused(_) => {
                        let learns = ctx.latency();
                        ctx.cut(conn, 0, learns);
                        return None;
                    }
                };
            let session = &mut self.sessions[stream];
            session.conn = Some(conn);
            session.attachment = attachment;
            session.knows_us = knows_us;
            let conns = conn as usize + 1;
            self.of_conn.resize(self.of_conn.len().max(conns), u32::MAX);
            self.of_conn[conns - 1] = number(stream);
            let mut frame = ctx.net.down_frame();
            frame.push(Down::Welcome { session: Bytes::copy_from_slice(&named.to_bytes()), resumed });
            ctx.send_down(conn, frame);
            if self.draining {
                self.fill(stream, Entry::Draining, ctx);
            }
            self.plan_write(stream, ctx);
            return Some(stream);
        }
    }

    fn begin_session(&mut self, peer: Peer, ctx: &mut Ctx) {
        let at = self.sessions.len();
        self.sessions.push(Session {
            peer,
            conn: None,
            attachment: Attachment::FIRST,
            mailbox: Mailbox::new(ctx.plan.outbox_bytes_max),
            hands: VecDeque::new(),
            writing: false,
            actions: Vec::new(),
            earlier: Vec::new(),
            roster: Roster::new(CONTAINERS_MAX),
            knows_us: false,
            over: false,
        });
        let node = if let Peer::Node { index } = peer { Some(index) } else { None };
        ctx.checker.session_began(number(at), node);
    }

    /// Attaches the stream of a peer that came back; the one before is over. False if the session was closed meanwhile.
    fn attach(&mut self, at: usize, attachment: Attachment, ctx: &mut Ctx) -> bool {
        let session = &mut self.sessions[at];
        if !session.mailbox.attach(attachment) {
            return false;
        }
        ctx.checker.note(Seen::SessionResumed { session: number(at) });
        session.hands.clear();
        session.writing = false;
        session.earlier.extend(session.actions.drain(..).flatten());
        if let Some(before) = session.conn.take() {
            let learns = ctx.latency();
            ctx.cut(before, 0, learns);
        }
        if let Peer::Node { .. } = self.sessions[at].peer {
            self.sessions[at].mailbox.forget_answered();
            self.take_back(at, ctx);
        }
        true
    }

    /// A session's stream ended.
    pub(super) fn ended(&mut self, at: usize, how: End, ctx: &mut Ctx) {
        self.begin(ctx);
        let (peer, attachment, now) = (self.sessions[at].peer, self.sessions[at].attachment, self.pass.now);
        if let Some(conn) = self.sessions[at].conn.take() {
            let learns = ctx.latency();
            ctx.cut(conn, 0, learns);
        }
        self.sessions[at].hands.clear();
        match self.sessions_of(peer).ended(StreamId(at as u64), attachment, how, now) {
            Ended::Parked(_) => {
                if self.sessions[at].mailbox.park(attachment) {
                    ctx.checker.note(Seen::SessionParked { session: number(at) });
                    self.take_back(at, ctx);
                }
                self.plan_grace(ctx);
            }
            Ended::Over => self.remove(at, ctx),
            Ended::Stale => {}
        }
    }

    /// Ends the sessions whose grace is over.
    pub fn end_due(&mut self, ctx: &mut Ctx) {
        self.begin(ctx);
        let now = self.pass.now;
        for (_, at) in self.controllers.due(now) {
            self.remove(at, ctx);
        }
        for (_, at) in self.nodes.due(now) {
            self.remove(at, ctx);
        }
        self.plan_grace(ctx);
    }

    fn plan_grace(&mut self, ctx: &mut Ctx) {
        let next = [self.controllers.next_due(), self.nodes.next_due()].into_iter().flatten().min();
        if let Some(next) = next {
            let at = self.clock.when(next.as_micros()).max(ctx.now + 1);
            ctx.agenda.plan(at, Event::GraceDue { life: self.life });
        }
    }

    /// Suspends the containers of a node that is away, and queues again what has not left the router.
    fn take_back(&mut self, at: usize, ctx: &mut Ctx) {
        let suspend: Vec<(Arc<Action>, ContainerKey, u32)> = self.sessions[at]
            .roster
            .suspend_all()
            .map(|member| (member.action.clone(), member.key, member.judged))
            .collect();
        for (action, key, judged) in suspend {
            ctx.checker.suspended(judged);
            self.enter(&action, Input::Suspend(key), ctx);
        }
        ctx.checker.taken(number(at));
        for dispatch in self.sessions[at].mailbox.unsent() {
            if let Ok(member) = self.sessions[at].roster.find(dispatch.container, dispatch.epoch) {
                let (action, key, judged) = (member.action.clone(), member.key, member.judged);
                if let Some(call) = ctx.call(dispatch.id) {
                    ctx.checker.unsent(call, number(at), judged);
                }
                self.enter(&action, Input::Unsent(key, dispatch.id, dispatch.payload), ctx);
            }
        }
    }

    /// Takes a peer off whose session is over.
    pub(super) fn remove(&mut self, at: usize, ctx: &mut Ctx) {
        if self.sessions[at].over {
            return;
        }
        self.begin(ctx);
        let attachment = self.sessions[at].attachment;
        self.sessions[at].mailbox.park(attachment);
        self.take_back(at, ctx);
        for member in self.sessions[at].roster.clear() {
            ctx.checker.gone(member.judged);
            self.enter(&member.action, Input::Gone(member.key), ctx);
        }
        self.close(at, ctx);
    }

    fn close(&mut self, at: usize, ctx: &mut Ctx) {
        let session = &mut self.sessions[at];
        session.over = true;
        session.mailbox.close();
        session.hands.clear();
        if let Some(conn) = session.conn.take() {
            let learns = ctx.latency();
            ctx.cut(conn, 0, learns);
        }
        ctx.checker.session_over(number(at));
    }

    /// Tells nodes of each container that nothing can come for, as a drain does.
    pub(super) fn retire_quiet(&mut self, ctx: &mut Ctx) {
        self.begin(ctx);
        for at in 0..self.sessions.len() {
            for member in self.sessions[at].roster.iter_mut().filter(|member| !member.told_of_drain) {
                member.told_of_drain = self.hub.retire_if_quiet(&member.action, member.key, &mut self.pass);
                if member.told_of_drain {
                    ctx.checker.retire_read(member.judged);
                }
            }
        }
        self.carry_out(ctx);
        self.hub.settle(&mut self.pass);
    }

    /// Ends the sessions of controllers that are away and have nothing to hear, and of nodes that are away, as a drain does.
    pub(super) fn end_vain(&mut self, ctx: &mut Ctx) {
        for at in 0..self.sessions.len() {
            let session = &self.sessions[at];
            let vain = match session.peer {
                Peer::Controller { .. } => session.mailbox.is_parked_in_vain(),
                Peer::Node { .. } => session.conn.is_none(),
            };
            if !session.over && vain {
                let peer = session.peer;
                self.sessions_of(peer).forget(StreamId(at as u64));
                self.remove(at, ctx);
            }
        }
    }

    fn sessions_of(&mut self, peer: Peer) -> &mut engine::sessions::Sessions<usize> {
        match peer {
            Peer::Controller { .. } => &mut self.controllers,
            Peer::Node { .. } => &mut self.nodes,
        }
    }
}

pub(super) fn name(peer: Peer) -> [u8; 4] {
    match peer {
        Peer::Controller { index, line } => [b'c', index.to_le_bytes()[0], index.to_le_bytes()[1], line],
        Peer::Node { index } => [b'n', index.to_le_bytes()[0], index.to_le_bytes()[1], 0],
    }
}

const CONTAINERS_MAX: u32 = 10_000;
