//! A controller's stream: activations come in, answers go out.

use super::batch::Batch;
use super::convert::{self, status};
use super::frames::{Ending, Frame, Frames};
use super::{Allowance, Service, check_peer, first};
use crate::driver::Driver;
use crate::outbox::{Entry, Line, Outbox};
use bytes::Bytes;
use engine::effect::{Effect, Perform};
use engine::hub::{Action, Pass};
use engine::id::{ActivationId, StreamId};
use engine::input::{Input, Push};
use engine::outcome::{Answer, Reason, Refusal, Rejection};
use engine::time::Timestamp;
use foldhash::fast::RandomState;
use proto::v1;
use std::collections::HashMap;
use std::sync::Arc;
use tonic::{Status, Streaming};

/// What goes out on a Push stream.
pub(super) type Answers = Frames<v1::PushResponse>;

impl Frame for v1::PushResponse {
    fn with_room(entries: usize) -> Self {
        Self { answers: Vec::with_capacity(entries), ..Self::default() }
    }

    fn put(&mut self, entry: Entry) {
        match entry {
            Entry::Answer(answer) => self.answers.push(convert::answer(answer)),
            Entry::Refuse(refusal) => self.refusals.push(convert::refusal(refusal)),
            Entry::Draining => self.draining = true,
            Entry::Dispatch(_) | Entry::Drain(..) => unreachable!("controllers run nothing"),
        }
    }
}

/// Opens a controller's stream: reads its first frame, then leaves a reader to the runtime.
pub(super) async fn open(service: Arc<Service>, mut inbound: Streaming<v1::PushRequest>) -> Result<Answers, Status> {
    let frame = first(&mut inbound).await?;
    let Some(hello) = &frame.hello else {
        return Err(status(&Rejection::new(Reason::HelloMissing, "hello", 0)));
    };
    check_peer("hello.controller_id", &hello.controller_id)?;
    let mut reader = Reader::new(service, hello.controller_id.clone())?;
    // The stream is open: if the drain begins only now, it will be told like all others.
    let draining = reader.service.is_draining();
    let welcome = v1::PushResponse { welcome: Some(reader.service.welcome()), draining, ..Default::default() };
    let ending = reader.ending.clone();
    let answers = Frames::new(reader.service.clone(), reader.stream, reader.outbox.clone(), ending, welcome);
    reader.handle(v1::PushRequest { hello: None, ..frame });
    tokio::spawn(reader.run(inbound));
    Ok(answers)
}

/// The reading half of a controller's stream.
struct Reader {
    service: Arc<Service>,
    stream: StreamId,
    outbox: Arc<Outbox>,
    line: Arc<Line>,
    ending: Ending,
    controller_id: Bytes,
    pass: Pass<Driver>,
    /// Actions declared on this stream.
    actions: HashMap<u32, Arc<Action>, RandomState>,
    batch: Batch,
}

/// Numbers of declared actions are below this.
const ACTION_NUMBERS: u32 = 1_000_000;

impl Reader {
    /// Opens the stream, unless another has this controller's id.
    fn new(service: Arc<Service>, controller_id: Bytes) -> Result<Self, Status> {
        let (stream, outbox) = service.streams.open(service.outbox_bytes_max());
        let holder = *service.controllers.entry(controller_id.clone()).or_insert(stream);
        if holder != stream {
            service.streams.close(stream);
            return Err(status(&Rejection::new(Reason::ControllerConnected, "hello.controller_id", 0)));
        }
        let pass = service.pass();
        let ending = Ending::default();
        let (actions, batch) = (HashMap::default(), Batch::default());
        Ok(Self { service, stream, line: outbox.line(), outbox, ending, controller_id, pass, actions, batch })
    }

    async fn run(mut self, mut inbound: Streaming<v1::PushRequest>) {
        loop {
            let message = tokio::select! {
                biased;
                message = inbound.message() => message,
                () = self.line.over() => return,
            };
            match message {
                Ok(Some(frame)) => self.handle(frame),
                // It has said all it had to say and may still want the answers.
                Ok(None) => {
                    self.outbox.finish();
                    return self.line.over().await;
                }
                Err(status) => {
                    tracing::debug!(controller = ?self.controller_id, %status, "push stream broke");
                    // Only this sets it.
                    let _ = self.ending.set(Err(status));
                    return self.service.streams.close(self.stream);
                }
            }
        }
    }

    fn handle(&mut self, frame: v1::PushRequest) {
        self.service.begin(&mut self.pass);
        let mut allowance = Allowance::new(self.service.limits.frame_entries_max);
        if frame.hello.is_some() {
            self.refuse(Refusal::new(Rejection::new(Reason::Repeated, "hello", 1), 0, &[]));
        }
        let (standing, too_long) = allowance.take("declares", frame.declares.len());
        for (at, declare) in frame.declares.into_iter().enumerate() {
            let number = declare.number;
            let declared = if at < standing { self.declare(declare) } else { Err(too_long) };
            if let Err(rejection) = declared {
                self.refuse(Refusal::new(rejection, number, &[]));
            }
        }
        let (standing, too_long) = allowance.take("activations", frame.activations.len());
        let mut owed = 0;
        for (at, activation) in frame.activations.into_iter().enumerate() {
            owed += i64::from(self.push(activation, if at < standing { Ok(()) } else { Err(too_long) }));
        }
        self.batch.hand_in(&self.service, &mut self.pass);
        self.outbox.owe(owed);
        self.service.hub.settle(&mut self.pass);
    }

    fn declare(&mut self, declare: v1::DeclareAction) -> Result<(), Rejection> {
        if declare.number >= ACTION_NUMBERS {
            return Err(Rejection::new(Reason::TooManyActions, "number", ACTION_NUMBERS.into()));
        }
        // Whatever it stood for before, it does not stand for that any more.
        self.actions.remove(&declare.number);
        let v1::ActionKey { namespace, action, revision } = declare.key.unwrap_or_default();
        let key = self.service.hub.limits().check_key(&namespace, &action, &revision)?;
        let action = self.service.hub.declare(&key, &mut self.pass)?;
        self.actions.insert(declare.number, action);
        Ok(())
    }

    /// Checks an activation and adds it to the batch, or answers it at once. False if its id cannot be told: then it is
    /// refused, and no answer is owed.
    fn push(&mut self, activation: v1::Activation, standing: Result<(), Rejection>) -> bool {
        match self.service.hub.limits().check_id(&activation.id) {
            Ok(id) => {
                let added = standing.and_then(|()| self.add(id, activation));
                if let Err(rejection) = added {
                    self.pass.tally.rejected(rejection.reason);
                    let answer = Answer::rejected(id, rejection);
                    self.pass.performer.perform(&mut vec![Effect::Answer(self.stream, answer)]);
                }
                true
            }
            Err(rejection) => {
                self.refuse(Refusal::new(rejection, activation.action, &activation.id));
                false
            }
        }
    }

    fn add(&mut self, id: ActivationId, activation: v1::Activation) -> Result<(), Rejection> {
        let v1::Activation { action: number, time_left_ms, payload, reply, .. } = activation;
        let action = self.actions.get(&number).ok_or(Rejection::new(Reason::ActionUnknown, "action", 0))?;
        let call = Call { id, controller: self.stream, time_left_ms, payload, reply };
        let push = call.check(&self.service, self.pass.now)?;
        self.batch.add(action, Input::Push(push), &self.service, &mut self.pass);
        Ok(())
    }

    fn refuse(&mut self, refusal: Refusal) {
        self.pass.tally.refused(refusal.rejection.reason);
        self.pass.performer.perform(&mut vec![Effect::Refuse(self.stream, refusal)]);
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.service.streams.close(self.stream);
        self.service.controllers.remove_if(&self.controller_id, |_, holder| *holder == self.stream);
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
        Ok(Push { id, controller, reply, attempt: 1, accepted_at: now, deadline, payload, accepted: false })
    }
}
