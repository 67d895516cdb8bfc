//! What the writers of streams do: take what waits in a session's mailbox and make frames of it, as fast as the peer reads.

use super::{Router, number};
use crate::ctx::{Ctx, Event};
use crate::net::Down;
use engine::effect::Entry;
use engine::input::Input;
use engine::mailbox::Taken;
use engine::sessions::End;

impl Router {
    pub(super) fn fill(&mut self, at: usize, entry: Entry, ctx: &mut Ctx) {
        // Closed or not, the writer sees. Of those of an earlier life nobody is there to be told.
        if at >= self.sessions.len() {
            return;
        }
        self.sessions[at].mailbox.fill(std::iter::once(entry));
        self.plan_write(at, ctx);
    }

    pub(super) fn plan_write(&mut self, at: usize, ctx: &mut Ctx) {
        let session = &mut self.sessions[at];
        if let Some(conn) = session.conn.filter(|_| !session.writing) {
            session.writing = true;
            let wait = if ctx.plan.writer_us == 0 { 0 } else { ctx.dice.below(ctx.plan.writer_us) };
            ctx.after(wait, Event::Write { conn });
        }
    }

    /// The peer has read something: there may be room to write.
    pub fn was_read(&mut self, conn: u32, ctx: &mut Ctx) {
        if let Some(at) = self.at(conn)
            && (!self.sessions[at].hands.is_empty() || self.sessions[at].mailbox.keeps_writer_busy())
        {
            self.plan_write(at, ctx);
        }
    }

    /// The writer of a connection has its turn.
    pub fn write(&mut self, conn: u32, ctx: &mut Ctx) {
        let Some(at) = self.at(conn) else { return };
        self.sessions[at].writing = false;
        self.begin(ctx);
        while self.sessions[at].conn == Some(conn) && ctx.net.conn(conn).down.unread < ctx.plan.window_bytes {
            if self.sessions[at].hands.is_empty() && !self.take_mail(at, ctx) {
                break;
            }
            if !self.sessions[at].hands.is_empty() {
                self.write_frame(at, conn, ctx);
            }
        }
        if self.sessions[at].mailbox.is_closed() && self.sessions[at].conn == Some(conn) {
            self.ended(at, End::Over, ctx);
        }
        self.hub.settle(&mut self.pass);
    }

    /// Takes what waits. False if the writer is to wait, or its stream has come to an end.
    fn take_mail(&mut self, at: usize, ctx: &mut Ctx) -> bool {
        let session = &mut self.sessions[at];
        let attachment = session.attachment;
        match session.mailbox.take(attachment, &mut session.hands) {
            Taken::Nothing => false,
            // It let more pile up than it may.
            Taken::Over => false,
            Taken::Finished => {
                ctx.checker.session_finished(number(at));
                if let Some(conn) = session.conn.take() {
                    ctx.finish(conn, false);
                }
                self.ended(at, End::Over, ctx);
                false
            }
            Taken::Entries(awaiting) => {
                self.note_taken(at, ctx);
                for (action, key) in awaiting {
                    if let Some(judged) = self.judged(at, key, &action) {
                        ctx.checker.room_again(judged);
                    }
                    self.enter(&action, Input::Resume(key), ctx);
                }
                true
            }
        }
    }

    fn note_taken(&mut self, at: usize, ctx: &mut Ctx) {
        for entry in &self.sessions[at].hands {
            match entry {
                Entry::Dispatch(dispatch) => {
                    if let Some(call) = ctx.call(dispatch.id) {
                        ctx.checker.dispatch_taken(call, number(at), dispatch.payload.len() as u64);
                    }
                }
                Entry::Answer(answer) => {
                    if let Some(call) = ctx.call(answer.id) {
                        ctx.checker.answer_taken(call, number(at));
                    }
                }
                _ => {}
            }
        }
    }

    fn write_frame(&mut self, at: usize, conn: u32, ctx: &mut Ctx) {
        let mut frame = ctx.net.down_frame();
        while frame.len() < ctx.plan.frame_entries_max
            && let Some(entry) = self.sessions[at].hands.pop_front()
        {
            if let Entry::Dispatch(dispatch) = &entry
                && let Some(call) = ctx.call(dispatch.id)
            {
                ctx.checker.written(call, number(at));
            }
            frame.push(Down::Entry(entry));
        }
        ctx.send_down(conn, frame);
    }
}
