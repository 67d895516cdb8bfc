//! A controller's stream: activations come in, answers go out.

use super::batch::Batch;
use super::convert::{self, status};
use super::frames::{Ending, Frames};
use super::wire::{self, Activation, Inbound, Incoming};
use super::{Allowance, Service, check_peer, first};
use crate::controllers::{Controller, Desk, Opened};
use crate::driver::Driver;
use crate::outbox::Line;
use bytes::Bytes;
use engine::effect::{Effect, Entry, Perform};
use engine::hub::Pass;
use engine::id::{ActivationId, StreamId};
use engine::input::{Input, Push};
use engine::numbered::NUMBERS;
use engine::outcome::{Answer, Reason, Refusal, Rejection};
use engine::sessions::End;
use engine::time::Timestamp;
use proto::v1;
use std::sync::Arc;
use tonic::Status;

/// What comes in on a Push stream.
pub(super) type In = Incoming<v1::PushRequest>;
/// One frame of that.
type Frame = Inbound<v1::PushRequest>;
/// What goes out on it.
pub(super) type Answers = Frames<v1::PushResponse>;

/// Opens a controller's stream: reads its first frame, then leaves a reader to the runtime.
pub(super) async fn open(service: Arc<Service>, mut inbound: In) -> Result<Answers, Status> {
    let mut frame = first(&mut inbound).await?;
    let Some(hello) = frame.rest.hello.take() else {
        return Err(status(&Rejection::new(Reason::HelloMissing, "hello", 0)));
    };
    check_peer("hello.controller_id", &hello.controller_id)?;
    service.check_ending(&hello.session).map_err(|rejection| status(&rejection))?;
    let opened = service.controllers.hello(&hello.controller_id, &hello.session);
    let Opened { controller, line, token, resumed } = opened.map_err(|rejection| status(&rejection))?;
    // The stream is open: if the drain begins only now, it will be told like all others.
    let draining = service.is_draining();
    let welcome = service.welcome(token, resumed, service.controllers.grace());
    let welcome = v1::PushResponse { welcome: Some(welcome), draining, ..Default::default() };
    let ending = Ending::default();
    let answers = Frames::new(service.clone(), controller.outbox.clone(), line.clone(), ending.clone(), &welcome);
    let mut reader = Reader {
        pass: service.pass(),
        controller_id: hello.controller_id.clone(),
        knows_this_life: service.controllers.is_of_this_life(&hello.session),
        asking: if resumed { Asking::Open } else { Asking::NotResumed },
        how: End::Broke,
        batch: Batch::default(),
        service,
        controller,
        line,
        ending,
    };
    // Before anything is written, so that what it asks for has not been answered on this stream.
    reader.handle(frame, true);
    tokio::spawn(reader.run(inbound));
    Ok(answers)
}

/// The reading half of a controller's stream. When it is dropped, the stream has ended.
struct Reader {
    service: Arc<Service>,
    controller: Arc<Controller>,
    line: Arc<Line>,
    ending: Ending,
    controller_id: Bytes,
    /// It named a session of this router's life: what it may have sent before, it sent here.
    knows_this_life: bool,
    asking: Asking,
    how: End,
    pass: Pass<Driver>,
    batch: Batch,
}

/// Whether a controller may ask what became of activations that it pushed on an earlier stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asking {
    /// The stream resumed no session: what an earlier one pushed is not known here.
    NotResumed,
    /// It may: no frame but the first has come without a question.
    Open,
    /// It has. What it pushes may have been answered since, and that is not remembered.
    Over,
}

impl Asking {
    /// Why it may not ask, if so.
    fn refusal(self) -> Option<Rejection> {
        match self {
            Self::Open => None,
            Self::NotResumed => Some(Rejection::new(Reason::OutcomeUnknown, "outstanding", 0)),
            Self::Over => Some(Rejection::new(Reason::Repeated, "outstanding", 0)),
        }
    }
}

impl Reader {
    async fn run(mut self, mut inbound: In) {
        loop {
            // What came is handled before the end of the stream is.
            let message = tokio::select! {
                biased;
                message = inbound.message() => message,
                () = self.over() => return self.conclude(),
            };
            match message {
                Ok(Some(frame)) => self.handle(frame, false),
                // It has said all it had to say and may still want the answers. A reset and a dead connection look the same
                // here; then the writer ends before it has written all.
                Ok(None) => {
                    self.has_said_all();
                    self.over().await;
                    return self.conclude();
                }
                Err(status) => {
                    tracing::debug!(controller = ?self.controller_id, %status, "push stream broke");
                    // Only this sets it.
                    let _ = self.ending.set(Err(status));
                    return;
                }
            }
        }
    }

    /// The writer is done or gone, or the outbox closed. A last frame may have been answered since the writer was done, and wakes it
    /// again.
    async fn over(&self) {
        self.line.over().await;
        while self.line.is_finished() && self.controller.outbox.keeps_busy(&self.line) {
            self.line.over().await;
        }
    }

    /// Nothing if another stream has taken the session over: that one may have more to say.
    fn has_said_all(&self) {
        let desk = self.controller.desk.lock();
        if desk.attachment == self.line.attachment() {
            self.controller.outbox.finish();
        }
    }

    /// The writer is gone, or the outbox closed.
    fn conclude(&mut self) {
        if self.line.is_finished() || self.controller.outbox.is_closed() {
            self.how = End::Over;
        }
    }

    fn handle(&mut self, frame: Frame, first: bool) {
        let Frame { bytes, entries, rest } = frame;
        let controller = self.controller.clone();
        let desk = &mut *controller.desk.lock();
        if desk.attachment != self.line.attachment() {
            return; // Another stream has taken the session over; this one ends.
        }
        self.service.begin(&mut self.pass);
        let mut allowance = Allowance::new(self.service.limits.frame_entries_max);
        if rest.hello.is_some() {
            self.refuse(Refusal::new(Rejection::new(Reason::Repeated, "hello", 1), 0, &[]));
        }
        let (standing, too_long) = allowance.take("declares", rest.declares.len());
        for (at, declare) in rest.declares.into_iter().enumerate() {
            let number = declare.number;
            let declared = if at < standing { self.declare(desk, declare) } else { Err(too_long) };
            if let Err(rejection) = declared {
                self.refuse(Refusal::new(rejection, number, &[]));
            }
        }
        let (standing, too_long) = allowance.take("activations", entries.len());
        self.service.hub.foresee(entries.iter().filter_map(|activation| wire::id(activation.id, &bytes)));
        let mut owed = 0;
        for (at, activation) in entries.iter().enumerate() {
            owed += i64::from(self.push(desk, &bytes, activation, if at < standing { Ok(()) } else { Err(too_long) }));
        }
        self.batch.hand_in(&self.service, &mut self.pass);
        controller.outbox.owe(owed);
        if !rest.outstanding.is_empty() {
            self.answer_outstanding(desk, rest.outstanding, allowance);
        } else if self.asking == Asking::Open && !first {
            self.asking = Asking::Over;
            desk.forget_earlier();
            controller.outbox.forget_answered();
        }
        self.service.hub.settle(&mut self.pass);
    }

    fn declare(&mut self, desk: &mut Desk, declare: v1::DeclareAction) -> Result<(), Rejection> {
        if declare.number >= NUMBERS {
            return Err(Rejection::new(Reason::TooManyActions, "number", NUMBERS.into()));
        }
        // Whatever it stood for before, it does not stand for that any more.
        desk.actions.remove(declare.number);
        // Without a key the number is given back.
        let Some(v1::ActionKey { namespace, action, revision }) = declare.key else { return Ok(()) };
        let key = self.service.hub.limits().check_key(&namespace, &action, &revision)?;
        let action = self.service.hub.declare(&key, &mut self.pass)?;
        desk.actions.insert(declare.number, action);
        Ok(())
    }

    /// Checks an activation and adds it to the batch, or answers it at once. False if its id cannot be told: then it is
    /// refused, and no answer is owed.
    fn push(&mut self, desk: &Desk, frame: &Bytes, activation: &Activation, standing: Result<(), Rejection>) -> bool {
        let id = activation.id.of(frame);
        match self.service.hub.limits().check_id(id) {
            Ok(id) => {
                let added = standing.and_then(|()| self.add(desk, id, frame, activation));
                if let Err(rejection) = added {
                    self.pass.tally.rejected(rejection.reason);
                    let answer = Answer::rejected(id, rejection);
                    self.pass
                        .performer
                        .perform(&mut vec![Effect::Write(self.controller.stream, Entry::Answer(answer))]);
                }
                true
            }
            Err(rejection) => {
                self.refuse(Refusal::new(rejection, activation.action, id));
                false
            }
        }
    }

    fn add(&mut self, desk: &Desk, id: ActivationId, frame: &Bytes, activation: &Activation) -> Result<(), Rejection> {
        let Activation { action: number, time_left_ms, payload, reply, maybe_sent, .. } = *activation;
        if maybe_sent && !self.knows_this_life {
            return Err(Rejection::new(Reason::OutcomeUnknown, "maybe_sent", 0));
        }
        let action = desk.actions.get(number).ok_or(Rejection::new(Reason::ActionUnknown, "action", 0))?;
        let payload = payload.share(frame);
        let call = Call { id, controller: self.controller.stream, time_left_ms, payload, reply };
        let push = call.check(&self.service, self.pass.now)?;
        self.batch.add(action, Input::Push(push), &self.service, &mut self.pass);
        Ok(())
    }

    /// Answers what can be answered at once of the activations that the controller pushed on earlier streams and still waits for.
    fn answer_outstanding(&mut self, desk: &Desk, outstanding: Vec<Bytes>, mut allowance: Allowance) {
        let (standing, too_long) = allowance.take("outstanding", outstanding.len());
        let mut ids = Vec::with_capacity(standing);
        for (at, id) in outstanding.into_iter().enumerate() {
            match if at < standing { self.check_outstanding(&id) } else { Err(too_long) } {
                Ok(id) => ids.push(id),
                Err(rejection) => self.refuse(Refusal::new(rejection, 0, &id)),
            }
        }
        // Each once, however often it is named.
        ids.sort_unstable();
        ids.dedup();
        let asked = ids.clone();
        match self.controller.answers(desk, ids, &self.service.hub, &mut self.pass) {
            Some(answers) => {
                // They may have been answered before, on a stream that broke, or never have come.
                self.controller.outbox.owe(answers.len().try_into().expect("a frame's"));
                self.controller.outbox.fill(answers.into_iter().map(Entry::Answer));
            }
            None => {
                let unknown = Rejection::new(Reason::OutcomeUnknown, "outstanding", 0);
                asked.iter().for_each(|id| self.refuse(Refusal::new(unknown, 0, &id.0)));
            }
        }
    }

    fn check_outstanding(&self, id: &[u8]) -> Result<ActivationId, Rejection> {
        self.asking.refusal().map_or(Ok(()), Err)?;
        self.service.hub.limits().check_id_in("outstanding", id)
    }

    fn refuse(&mut self, refusal: Refusal) {
        self.pass.tally.refused(refusal.rejection.reason);
        self.pass.performer.perform(&mut vec![Effect::Write(self.controller.stream, Entry::Refuse(refusal))]);
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let Self { service, controller, line, how, .. } = self;
        if service.controllers.ended(controller, line, *how, service.clock.now()) {
            service.streams.wake_timer();
        }
    }
}

/// The fields of an activation that are alike on every way it can come.
pub(super) struct Call {
    pub(super) id: ActivationId,
    pub(super) controller: StreamId,
    pub(super) time_left_ms: u32,
    pub(super) payload: Bytes,
    pub(super) reply: i32,
}

impl Call {
    /// Checks them.
    pub(super) fn check(self, service: &Service, now: Timestamp) -> Result<Push, Rejection> {
        let Self { id, controller, time_left_ms, payload, reply } = self;
        service.check_open()?;
        let limits = service.hub.limits();
        let deadline = now + limits.check_time_left(time_left_ms)?;
        limits.check_payload("payload", payload.len())?;
        let reply = convert::reply(reply)?;
        Ok(Push {
            id,
            controller,
            reply,
            attempt: 1,
            accepted_at: now,
            deadline,
            payload,
            accepted: false,
            refilled: false,
        })
    }
}
