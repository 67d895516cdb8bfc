//! An invoker node's stream: containers, credits and completions come in, work goes out.

use super::batch::Batch;
use super::convert::{self, status};
use super::frames::{Ending, Frame, Frames};
use super::{Allowance, Service, check_peer, first};
use crate::driver::Driver;
use crate::outbox::{Entry, Line, Outbox};
use bytes::Bytes;
use engine::container::{ContainerKey, Registration};
use engine::effect::{Effect, Perform};
use engine::hub::{Action, Pass};
use engine::id::StreamId;
use engine::input::{Completion, Input};
use engine::outcome::{Reason, Refusal, Rejection};
use foldhash::fast::RandomState;
use proto::v1;
use std::collections::HashMap;
use std::sync::Arc;
use tonic::{Status, Streaming};

/// What goes out on a Pull stream.
pub(super) type Work = Frames<v1::PullResponse>;

impl Frame for v1::PullResponse {
    fn with_room(entries: usize) -> Self {
        Self { dispatches: Vec::with_capacity(entries), ..Self::default() }
    }

    fn put(&mut self, entry: Entry) {
        match entry {
            Entry::Dispatch(dispatch) => self.dispatches.push(convert::dispatch(dispatch)),
            Entry::Refuse(refusal) => self.refusals.push(convert::refusal(refusal)),
            Entry::Drain(container, epoch) => self.drains.push(v1::Drain { container, epoch }),
            // The router finishes what it has; its containers are told one by one when they are done with.
            Entry::Draining => {}
            Entry::Answer(_) => unreachable!("invokers ask for nothing"),
        }
    }
}

/// Opens an invoker node's stream: reads its first frame, then leaves a reader to the runtime.
pub(super) async fn open(service: Arc<Service>, mut inbound: Streaming<v1::PullRequest>) -> Result<Work, Status> {
    let frame = first(&mut inbound).await?;
    let Some(hello) = &frame.hello else {
        return Err(status(&Rejection::new(Reason::HelloMissing, "hello", 0)));
    };
    check_peer("hello.invoker_id", &hello.invoker_id)?;
    let mut reader = Reader::new(service);
    let welcome = v1::PullResponse { welcome: Some(reader.service.welcome()), ..Default::default() };
    let ending = reader.ending.clone();
    let work = Frames::new(reader.service.clone(), reader.stream, reader.outbox.clone(), ending, welcome);
    reader.handle(v1::PullRequest { hello: None, ..frame });
    tokio::spawn(reader.run(inbound));
    Ok(work)
}

/// The reading half of an invoker node's stream. When it is dropped, its containers are gone.
struct Reader {
    service: Arc<Service>,
    stream: StreamId,
    outbox: Arc<Outbox>,
    line: Arc<Line>,
    ending: Ending,
    pass: Pass<Driver>,
    /// Containers registered on this stream, by number.
    containers: HashMap<u32, (Arc<Action>, ContainerKey), RandomState>,
    batch: Batch,
}

/// Numbers of containers are below this.
const CONTAINER_NUMBERS: u32 = 1_000_000;

impl Reader {
    fn new(service: Arc<Service>) -> Self {
        let (stream, outbox) = service.streams.open(service.outbox_bytes_max());
        let (pass, ending) = (service.pass(), Ending::default());
        Self {
            service,
            stream,
            line: outbox.line(),
            outbox,
            ending,
            pass,
            containers: HashMap::default(),
            batch: Batch::default(),
        }
    }

    async fn run(mut self, mut inbound: Streaming<v1::PullRequest>) {
        loop {
            let message = tokio::select! {
                biased;
                message = inbound.message() => message,
                () = self.line.over() => return,
            };
            let ended = match message {
                Ok(Some(frame)) => {
                    self.handle(frame);
                    continue;
                }
                // A node that can say nothing more can complete nothing more.
                Ok(None) => Ok(()),
                Err(status) => {
                    tracing::debug!(stream = ?self.stream, %status, "pull stream broke");
                    Err(status)
                }
            };
            // Only this sets it.
            let _ = self.ending.set(ended);
            return;
        }
    }

    fn handle(&mut self, frame: v1::PullRequest) {
        self.service.begin(&mut self.pass);
        let v1::PullRequest { hello, registers, credits, completions, returns, leaves, .. } = frame;
        if hello.is_some() {
            self.refuse(Rejection::new(Reason::Repeated, "hello", 1), 0, &[]);
        }
        let mut allowance = Allowance::new(self.service.limits.frame_entries_max);
        self.each(allowance.take("registers", registers.len()), registers, Self::register);
        self.each(allowance.take("credits", credits.len()), credits, Self::credit);
        self.each(allowance.take("completions", completions.len()), completions, Self::complete);
        self.each(allowance.take("returns", returns.len()), returns, Self::take_back);
        self.each(allowance.take("leaves", leaves.len()), leaves, Self::leave);
        self.batch.hand_in(&self.service, &mut self.pass);
        self.service.hub.settle(&mut self.pass);
    }

    /// Handles the entries of a list that may stand, and refuses the others and those that are no good.
    fn each<T: Named>(
        &mut self,
        (standing, too_long): (usize, Rejection),
        entries: Vec<T>,
        handle: fn(&mut Self, T) -> Result<(), Rejection>,
    ) {
        for (at, entry) in entries.into_iter().enumerate() {
            let (container, id) = entry.name();
            let handled = if at < standing { handle(self, entry) } else { Err(too_long) };
            if let Err(rejection) = handled {
                self.refuse(rejection, container, &id);
            }
        }
    }

    fn register(&mut self, register: v1::Register) -> Result<(), Rejection> {
        let v1::Register { container: number, key, concurrency, credits, warm, epoch, .. } = register;
        let max = self.service.limits.containers_per_stream_max;
        if number >= CONTAINER_NUMBERS {
            return Err(Rejection::new(Reason::TooManyContainers, "container", CONTAINER_NUMBERS.into()));
        }
        if self.containers.len() >= max as usize {
            return Err(Rejection::new(Reason::TooManyContainers, "registers", max.into()));
        }
        if self.containers.contains_key(&number) {
            return Err(Rejection::new(Reason::ContainerTaken, "container", 0));
        }
        let v1::ActionKey { namespace, action, revision } = key.unwrap_or_default();
        let key = self.service.hub.limits().check_key(&namespace, &action, &revision)?;
        let room = self.outbox.room();
        let new = Registration { stream: self.stream, number, epoch, concurrency, credits, warm, room };
        let registered = self.service.hub.register(&key, new, &mut self.pass)?;
        self.containers.insert(number, registered);
        Ok(())
    }

    fn credit(&mut self, credit: v1::Credit) -> Result<(), Rejection> {
        self.add(credit.container, |container| Input::Credit(container, credit.credits))
    }

    fn complete(&mut self, completion: v1::Completion) -> Result<(), Rejection> {
        let v1::Completion { container, id, status, result, run_us, credits, .. } = completion;
        let limits = self.service.hub.limits();
        let id = limits.check_id(&id)?;
        limits.check_payload("result", result.len())?;
        let status = convert::run_status(status)?;
        self.add(container, |key| Input::Complete(key, Completion { id, status, result, run_us, credits }))
    }

    fn take_back(&mut self, back: v1::Return) -> Result<(), Rejection> {
        let limits = self.service.hub.limits();
        let id = limits.check_id(&back.id)?;
        limits.check_payload("payload", back.payload.len())?;
        self.add(back.container, |container| Input::Return(container, id, back.payload))
    }

    fn leave(&mut self, leave: v1::Leave) -> Result<(), Rejection> {
        self.add(leave.container, if leave.gone { Input::Gone } else { Input::Retire })?;
        if leave.gone {
            self.containers.remove(&leave.container);
        }
        Ok(())
    }

    /// Adds an input for one of this stream's containers to the batch.
    fn add(&mut self, number: u32, input: impl FnOnce(ContainerKey) -> Input) -> Result<(), Rejection> {
        let unknown = Rejection::new(Reason::ContainerUnknown, "container", 0);
        let (action, key) = self.containers.get(&number).ok_or(unknown)?;
        self.batch.add(action, input(*key), &self.service, &mut self.pass);
        Ok(())
    }

    fn refuse(&mut self, rejection: Rejection, container: u32, id: &[u8]) {
        self.pass.tally.refused(rejection.reason);
        let refusal = Refusal::new(rejection, container, id);
        self.pass.performer.perform(&mut vec![Effect::Refuse(self.stream, refusal)]);
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        // First the stream, so that nothing is sent to it in vain, then all that is in flight on it.
        self.service.streams.close(self.stream);
        self.service.begin(&mut self.pass);
        for (action, container) in std::mem::take(&mut self.containers).into_values() {
            self.batch.add(&action, Input::Gone(container), &self.service, &mut self.pass);
        }
        self.batch.hand_in(&self.service, &mut self.pass);
        self.service.hub.settle(&mut self.pass);
    }
}

/// What an entry is about: its container's number and its activation's id, for refusals.
trait Named {
    fn name(&self) -> (u32, Bytes);
}

macro_rules! named {
    ($($entry:ident $(with $id:ident)?,)*) => { $(
        impl Named for v1::$entry {
            fn name(&self) -> (u32, Bytes) {
                (self.container, named!(self $(, $id)?))
            }
        }
    )* };
    ($entry:ident) => { Bytes::new() };
    ($entry:ident, $id:ident) => { $entry.$id.clone() };
}

named! { Register, Credit, Completion with id, Return with id, Leave, }
