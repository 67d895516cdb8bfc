//! An invoker node's stream: containers, credits and completions come in, work goes out.

use super::batch::Batch;
use super::convert::{self, status};
use super::frames::{Ending, Frames};
use super::wire::{self, Inbound, Incoming};
use super::{Allowance, Service, first};
use crate::driver::Driver;
use crate::nodes::{Member, Node, Opened};
use crate::outbox::Line;
use bytes::Bytes;
use engine::container::{ContainerKey, Registration};
use engine::effect::{Effect, Entry, Perform};
use engine::hub::Pass;
use engine::input::{Completion, Input, Rejoin};
use engine::outcome::{Reason, Refusal, Rejection};
use engine::roster::{Admission, Roster};
use engine::sessions::End;
use proto::v1;
use std::sync::Arc;
use std::time::Duration;
use tonic::Status;

/// What comes in on a Pull stream.
pub(super) type In = Incoming<v1::PullRequest>;
/// One frame of that.
type Frame = Inbound<v1::PullRequest>;
/// What goes out on it.
pub(super) type Work = Frames<v1::PullResponse>;

/// Opens an invoker node's stream: reads its first frame, then leaves a reader to the runtime.
pub(super) async fn open(service: Arc<Service>, mut inbound: In) -> Result<Work, Status> {
    let mut frame = first(&mut inbound).await?;
    let Some(hello) = frame.rest.hello.take() else {
        return Err(status(&Rejection::new(Reason::HelloMissing, "hello", 0)));
    };
    let name = service.hub.limits().check_node("hello.invoker_id", &hello.invoker_id);
    let name = name.map_err(|rejection| status(&rejection))?;
    service.check_ending(&hello.session).map_err(|rejection| status(&rejection))?;
    let mut pass = service.pass();
    service.begin(&mut pass);
    let opened = service.nodes.hello(&name, &hello.session, &service.hub, &mut pass);
    let Opened { node, line, token, resumed } = opened.map_err(|rejection| status(&rejection))?;
    let welcome = service.welcome(token, resumed, service.nodes.grace());
    let welcome = v1::PullResponse { welcome: Some(welcome), ..Default::default() };
    let ending = Ending::default();
    let work = Frames::new(service.clone(), node.outbox.clone(), line.clone(), ending.clone(), &welcome);
    let mut reader = Reader { service, node, line, ending, how: End::Broke, pass, batch: Batch::default() };
    reader.handle(frame);
    tokio::spawn(reader.run(inbound));
    Ok(work)
}

/// The reading half of an invoker node's stream. When it is dropped, the stream has ended.
struct Reader {
    service: Arc<Service>,
    node: Arc<Node>,
    line: Arc<Line>,
    ending: Ending,
    how: End,
    pass: Pass<Driver>,
    batch: Batch,
}

/// How long a node that came back may take to say that it has registered all that is still there.
const REJOIN_TIMEOUT: Duration = Duration::from_secs(10);

impl Reader {
    async fn run(mut self, mut inbound: In) {
        let rejoin_timeout = tokio::time::sleep(REJOIN_TIMEOUT);
        tokio::pin!(rejoin_timeout);
        let mut rejoining = self.node.crew.lock().roster.suspended() > 0;
        loop {
            // What came is handled before the end of the stream is.
            let message = tokio::select! {
                biased;
                message = inbound.message() => message,
                () = self.line.over() => {
                    if self.line.is_finished() || self.node.outbox.is_closed() {
                        self.how = End::Over;
                    }
                    return;
                }
                () = &mut rejoin_timeout, if rejoining => {
                    rejoining = false;
                    self.handle(v1::PullRequest { rejoined: true, ..Default::default() }.into());
                    continue;
                }
            };
            let ended = match message {
                Ok(Some(frame)) => {
                    self.handle(frame);
                    continue;
                }
                Ok(None) => return self.leave_off().await,
                Err(status) => {
                    tracing::debug!(stream = ?self.node.stream, %status, "pull stream broke");
                    Err(status)
                }
            };
            // Only this sets it.
            let _ = self.ending.set(ended);
            return;
        }
    }

    /// A node that can say nothing more can complete nothing more. A reset and a dead connection look the same here; then the
    /// writer ends before it is told to, and the node may come back.
    async fn leave_off(mut self) {
        // Only this sets it.
        let _ = self.ending.set(Ok(()));
        self.service.begin(&mut self.pass);
        self.service.nodes.leaving(&self.node, &self.line, &self.service.hub, &mut self.pass);
        self.service.hub.settle(&mut self.pass);
        let over = tokio::time::timeout(self.service.nodes.grace(), self.line.over()).await;
        if over.is_err() || self.line.is_finished() || self.node.outbox.is_closed() {
            self.how = End::Over;
        }
    }

    fn handle(&mut self, frame: Frame) {
        let node = self.node.clone();
        let crew = &mut *node.crew.lock();
        if crew.attachment != self.line.attachment() {
            return; // Another stream has taken the session over; this one ends.
        }
        self.service.begin(&mut self.pass);
        let Frame { bytes, entries: completions, rest } = frame;
        let v1::PullRequest { hello, registers, credits, returns, leaves, rejoined, audits, .. } = rest;
        if hello.is_some() {
            self.refuse(Rejection::new(Reason::Repeated, "hello", 1), 0, &[]);
        }
        let mut allowance = Allowance::new(self.service.limits.frame_entries_max);
        let roster = &mut crew.roster;
        self.each(roster, allowance.take("registers", registers.len()), registers, Self::register);
        self.each(roster, allowance.take("credits", credits.len()), credits, Self::credit);
        self.complete_all(roster, allowance.take("completions", completions.len()), &bytes, &completions);
        self.each(roster, allowance.take("returns", returns.len()), returns, Self::take_back);
        self.each(roster, allowance.take("leaves", leaves.len()), leaves, Self::leave);
        if rejoined {
            for Member { action, key, .. } in roster.absent() {
                self.batch.add(&action, Input::Gone(key), &self.service, &mut self.pass);
            }
        }
        self.each(roster, allowance.take("audits", audits.len()), audits, Self::audit);
        self.batch.hand_in(&self.service, &mut self.pass);
        self.service.hub.settle(&mut self.pass);
    }

    /// Handles the entries of a list that may stand, and refuses the others and those that are no good.
    fn each<T: Named>(
        &mut self,
        roster: &mut Roster<Member>,
        (standing, too_long): (usize, Rejection),
        entries: Vec<T>,
        handle: fn(&mut Self, &mut Roster<Member>, T) -> Result<(), Rejection>,
    ) {
        for (at, entry) in entries.into_iter().enumerate() {
            let (container, id) = entry.name();
            let handled = if at < standing { handle(self, roster, entry) } else { Err(too_long) };
            if let Err(rejection) = handled {
                self.refuse(rejection, container, &id);
            }
        }
    }

    /// As `each`, for completions, which are read in place.
    fn complete_all(
        &mut self,
        roster: &Roster<Member>,
        (standing, too_long): (usize, Rejection),
        frame: &Bytes,
        completions: &[wire::Completion],
    ) {
        self.service.hub.foresee(completions.iter().filter_map(|completion| wire::id(completion.id, frame)));
        for (at, completion) in completions.iter().enumerate() {
            let completed = if at < standing { self.complete(roster, frame, completion) } else { Err(too_long) };
            if let Err(rejection) = completed {
                self.refuse(rejection, completion.container, completion.id.of(frame));
            }
        }
    }

    fn register(&mut self, roster: &mut Roster<Member>, register: v1::Register) -> Result<(), Rejection> {
        let v1::Register { container: number, key, concurrency, credits, warm, epoch, held } = register;
        let limits = self.service.hub.limits();
        let v1::ActionKey { namespace, action, revision } = key.unwrap_or_default();
        let known = roster.check(number)?;
        let key = limits.check_key(&namespace, &action, &revision)?;
        let held = if known {
            held.iter().map(|id| limits.check_id_in("held", id)).collect::<Result<_, _>>()?
        } else {
            Vec::new()
        };
        let is_same = |member: &Member| *member.action.key() == key && member.concurrency == concurrency;
        match roster.admit(number, epoch, is_same)? {
            Admission::New => {}
            Admission::Rejoins(Member { action, key, .. }) => {
                let rejoin = Input::Rejoin(*key, Rejoin { credits, held });
                self.batch.add(action, rejoin, &self.service, &mut self.pass);
                return Ok(());
            }
            Admission::Replaces(Member { action, key, .. }) => {
                self.batch.add(&action, Input::Gone(key), &self.service, &mut self.pass);
            }
        }
        let (stream, node, room) = (self.node.stream, self.node.name.clone(), self.node.outbox.room());
        let new = Registration { stream, node, number, epoch, concurrency, credits, warm, room };
        let (action, key) = self.service.hub.register(&key, new, &mut self.pass)?;
        roster.enter(number, epoch, Member { action, key, concurrency, told_of_drain: false });
        Ok(())
    }

    fn credit(&mut self, roster: &mut Roster<Member>, credit: v1::Credit) -> Result<(), Rejection> {
        let v1::Credit { container, credits, epoch } = credit;
        self.add(roster, container, epoch, |container| Input::Credit(container, credits))
    }

    fn complete(
        &mut self,
        roster: &Roster<Member>,
        frame: &Bytes,
        completion: &wire::Completion,
    ) -> Result<(), Rejection> {
        let wire::Completion { container, id, status, result, run_us, credits, epoch } = *completion;
        let limits = self.service.hub.limits();
        let id = limits.check_id(id.of(frame))?;
        limits.check_payload("result", result.byte_len())?;
        let status = convert::run_status(status)?;
        let result = result.share(frame);
        let completion = Completion { id, status, result, run_us, arrived_at: self.pass.now, credits };
        self.add(roster, container, epoch, |key| Input::Complete(key, completion))
    }

    fn take_back(&mut self, roster: &mut Roster<Member>, back: v1::Return) -> Result<(), Rejection> {
        let v1::Return { container, id, payload, epoch } = back;
        let limits = self.service.hub.limits();
        let id = limits.check_id(&id)?;
        limits.check_payload("payload", payload.len())?;
        self.add(roster, container, epoch, |container| Input::Return(container, id, payload))
    }

    fn leave(&mut self, roster: &mut Roster<Member>, leave: v1::Leave) -> Result<(), Rejection> {
        let v1::Leave { container, gone, epoch } = leave;
        self.add(roster, container, epoch, if gone { Input::Gone } else { Input::Retire })?;
        if gone {
            roster.remove(container);
        }
        Ok(())
    }

    fn audit(&mut self, roster: &mut Roster<Member>, audit: v1::Audit) -> Result<(), Rejection> {
        let v1::Audit { container, epoch, credits, received } = audit;
        self.add(roster, container, epoch, |container| Input::Audit(container, credits, received))
    }

    /// Adds an input for one of the node's containers to the batch.
    fn add(
        &mut self,
        roster: &Roster<Member>,
        number: u32,
        epoch: u32,
        input: impl FnOnce(ContainerKey) -> Input,
    ) -> Result<(), Rejection> {
        let Member { action, key, .. } = roster.find(number, epoch)?;
        self.batch.add(action, input(*key), &self.service, &mut self.pass);
        Ok(())
    }

    fn refuse(&mut self, rejection: Rejection, container: u32, id: &[u8]) {
        self.pass.tally.refused(rejection.reason);
        let refusal = Refusal::new(rejection, container, id);
        self.pass.performer.perform(&mut vec![Effect::Write(self.node.stream, Entry::Refuse(refusal))]);
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let Self { service, node, line, how, pass, .. } = self;
        service.begin(pass);
        if service.nodes.ended(node, line, *how, &service.hub, pass) {
            service.streams.wake_timer();
        }
        service.hub.settle(pass);
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

named! { Register, Credit, Return with id, Leave, Audit, }
