//! The controllers' sessions: who is there, who may come back, and what becomes of a session when its stream ends. A session is
//! a stream id of the engine's and an outbox; both stay while its controller is away.
//!
//! Only the reader of a stream says that the stream ended, after it has handled all that came: the writer and the outbox tell
//! the reader.

use crate::driver::{Driver, Streams};
use crate::outbox::{Line, Outbox};
use engine::hub::{Action, Hub, Pass};
use engine::id::{ActivationId, StreamId};
use engine::numbered::Numbered;
use engine::outcome::{Answer, Outcome, Reason, Rejection, Stages};
use engine::sessions::{Attachment, Bounds, Counts, End, Ended, Hello, Sessions, Token};
use engine::time::Timestamp;
use parking_lot::Mutex;
use std::hash::BuildHasher;
use std::sync::Arc;

/// All of them.
#[derive(Debug)]
pub struct Controllers {
    sessions: Mutex<Sessions<Arc<Controller>>>,
    streams: Arc<Streams>,
    outbox_bytes_max: usize,
    /// Draws the tokens' secrets: a keyed hash of numbers that are used once.
    secrets: std::hash::RandomState,
}

/// One session.
#[derive(Debug)]
pub struct Controller {
    /// The engine's name for it.
    pub stream: StreamId,
    /// What waits for its writer.
    pub outbox: Arc<Outbox>,
    /// Held while a frame is handled, so that a stream that takes the session over begins behind the last frame of the one
    /// before.
    pub desk: Mutex<Desk>,
}

/// What the session's stream has declared.
#[derive(Debug)]
pub struct Desk {
    /// The stream whose frames count.
    pub attachment: Attachment,
    /// Actions by the numbers that this stream gave them.
    pub actions: Numbered<Arc<Action>>,
    /// Those of the streams before, while the controller asks what became of its activations.
    earlier: Vec<Arc<Action>>,
}

/// An open stream of a session.
#[derive(Debug)]
pub struct Opened {
    /// The session.
    pub controller: Arc<Controller>,
    /// The stream.
    pub line: Arc<Line>,
    /// What names the session.
    pub token: Token,
    /// It went on.
    pub resumed: bool,
}

impl Controllers {
    /// None yet. `life` is drawn at random.
    pub fn new(life: u64, bounds: Bounds, streams: Arc<Streams>, outbox_bytes_max: usize) -> Self {
        let secrets = std::hash::RandomState::new();
        Self { sessions: Mutex::new(Sessions::new(life, bounds)), streams, outbox_bytes_max, secrets }
    }

    /// A controller of that name opens a stream, with the token of the session it wants back, or none.
    ///
    /// # Errors
    /// [`Reason::ControllerConnected`], [`Reason::RouterFull`] with `sessions_max`
    pub fn hello(&self, name: &[u8], token: &[u8]) -> Result<Opened, Rejection> {
        loop {
            let fresh = self.streams.reserve();
            let secret = self.secrets.hash_one(fresh.0);
            let hello = self.sessions.lock().hello(name, token, fresh, secret, || self.open(fresh));
            match hello {
                Hello::New { token, held: controller, replaced, .. } => {
                    if let Some(replaced) = replaced {
                        self.streams.close(replaced.stream);
                    }
                    let line = controller.outbox.line();
                    return Ok(Opened { controller, line, token, resumed: false });
                }
                Hello::Resumed { token, held: controller, attachment, .. } => {
                    if let Some(line) = controller.attach(attachment) {
                        return Ok(Opened { controller, line, token, resumed: true });
                    }
                    if !controller.outbox.is_closed() {
                        // Yet another stream took it over just now.
                        return Err(Rejection::new(Reason::ControllerConnected, "hello.controller_id", 0));
                    }
                    // More piled up than it may hold.
                    self.forget(controller.stream);
                }
                Hello::Refused(rejection) => return Err(rejection),
            }
        }
    }

    /// Whether a token was given out in this life of the router.
    pub fn is_of_this_life(&self, token: &[u8]) -> bool {
        self.sessions.lock().is_of_this_life(token)
    }

    /// A session's stream ended. True if the session waits for its controller now.
    pub fn ended(&self, controller: &Controller, line: &Line, how: End, now: Timestamp) -> bool {
        let attachment = line.attachment();
        let ended = self.sessions.lock().ended(controller.stream, attachment, how, now);
        match ended {
            // Unless the next stream was quicker.
            Ended::Parked(_) => controller.outbox.park(attachment),
            Ended::Over => {
                self.streams.close(controller.stream);
                false
            }
            Ended::Stale => false,
        }
    }

    /// Ends the sessions whose grace is over. Returns how many.
    pub fn end_due(&self, now: Timestamp) -> usize {
        let due = self.sessions.lock().due(now);
        due.iter().for_each(|(stream, _)| self.streams.close(*stream));
        due.len()
    }

    /// Ends the sessions that wait for their controllers and have nothing to tell them.
    pub fn end_vain(&self) {
        let vain: Vec<StreamId> = {
            let sessions = self.sessions.lock();
            sessions.iter().filter(|(_, held)| held.outbox.is_parked_in_vain()).map(|(stream, _)| stream).collect()
        };
        vain.into_iter().for_each(|stream| self.forget(stream));
    }

    /// When the next session's grace is over.
    pub fn next_due(&self) -> Option<Timestamp> {
        self.sessions.lock().next_due()
    }

    /// Returns once every frame is handled that is being handled now.
    pub fn pass_by(&self) {
        let all: Vec<Arc<Controller>> = self.sessions.lock().iter().map(|(_, held)| held.clone()).collect();
        all.iter().for_each(|controller| drop(controller.desk.lock()));
    }

    /// Sessions there are, those of them parked, and what became of all.
    pub fn counts(&self) -> (usize, usize, Counts) {
        let sessions = self.sessions.lock();
        (sessions.len(), sessions.parked(), sessions.counts())
    }

    /// How long a session waits for its controller.
    pub fn grace(&self) -> std::time::Duration {
        self.sessions.lock().bounds().grace
    }

    fn open(&self, stream: StreamId) -> Arc<Controller> {
        let outbox = self.streams.open_as(stream, self.outbox_bytes_max);
        let (attachment, actions, earlier) = (Attachment::FIRST, Numbered::new(), Vec::new());
        Arc::new(Controller { stream, outbox, desk: Mutex::new(Desk { attachment, actions, earlier }) })
    }

    fn forget(&self, stream: StreamId) {
        self.sessions.lock().forget(stream);
        self.streams.close(stream);
    }
}

impl Controller {
    /// Attaches the stream of a controller that came back.
    fn attach(&self, attachment: Attachment) -> Option<Arc<Line>> {
        let mut desk = self.desk.lock();
        let line = self.outbox.attach(attachment)?;
        desk.begin_stream(attachment);
        Some(line)
    }

    /// What the controller is told at once of these activations, each named once, which it pushed on an earlier stream: lost, if they
    /// are neither held nor have an answer, and accepted, if it wanted to hear no more and they are held. Of the others it hears as
    /// ever. Should one that is lost still come, it is refused. None: nobody knows any more what it has heard.
    pub fn answers(
        &self,
        desk: &Desk,
        mut ids: Vec<ActivationId>,
        hub: &Hub,
        pass: &mut Pass<Driver>,
    ) -> Option<Vec<Answer>> {
        if !self.outbox.drop_answered(&mut ids) {
            return None;
        }
        if ids.is_empty() {
            return Some(Vec::new());
        }
        // A push may be on its way into the engine: what was left in an intake is worked on first.
        let actions = hub.settle_successions(&desk.earlier, pass);
        let mut taken = hub.drop_owed(&mut ids, self.stream, &actions, pass);
        ids.iter().for_each(|id| hub.end(id));
        taken.extend(hub.drop_owed(&mut ids, self.stream, &actions, pass));
        // An answer may be on its way into the outbox: whoever freed the id has performed his effects after this.
        hub.settle_successions(&desk.earlier, pass);
        let mut acknowledged = taken.iter().map(|(id, _)| *id).collect();
        if !self.outbox.drop_answered(&mut ids) || !self.outbox.drop_answered(&mut acknowledged) {
            return None;
        }
        taken.retain(|(id, _)| acknowledged.contains(id));
        let lost = ids.into_iter().map(|id| (id, Outcome::Lost));
        let told = lost.chain(taken.into_iter().map(|(id, durability)| (id, Outcome::Accepted(durability))));
        Some(told.map(|(id, outcome)| Answer { id, outcome, stages: Stages::default() }).collect())
    }
}

impl Desk {
    fn begin_stream(&mut self, attachment: Attachment) {
        self.attachment = attachment;
        self.earlier.extend(std::mem::take(&mut self.actions).into_values());
        // Each once, however often a controller comes back and breaks off before it has asked.
        self.earlier.sort_unstable_by_key(Arc::as_ptr);
        self.earlier.dedup_by(|one, other| Arc::ptr_eq(one, other));
    }

    /// The controller has asked what it wanted to know of earlier streams.
    pub fn forget_earlier(&mut self) {
        self.earlier = Vec::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::limits::Limits;

    #[test]
    fn of_streams_that_break_before_they_ask_each_action_is_kept_once() {
        let limits = Limits::default();
        let keys = [b"one", b"two"].map(|action| limits.check_key(b"tenant", action, b"").expect("a good name"));
        let hub = Hub::new(limits, 7, 1, Timestamp::ZERO);
        let mut pass = Pass::new(Driver::new(Arc::default(), Arc::default()));
        let (actions, earlier) = (Numbered::new(), Vec::new());
        let mut desk = Desk { attachment: Attachment::FIRST, actions, earlier };
        for _ in 0..10 {
            for (number, key) in (0..).zip(&keys) {
                desk.actions.insert(number, hub.declare(key, &mut pass).expect("room for two actions"));
            }
            desk.begin_stream(desk.attachment);
        }
        assert_eq!(desk.earlier.len(), 2);
    }
}
