//! An invoker node's stream: containers, credits and completions up, work down.
//!
//! The low level, for those who keep track of their containers themselves: it may not run anything, count credits, or connect
//! again.

use crate::inlet::{Greeting, Inlet, OpenError, StreamError};
use crate::outlet::{AppendError, Entry, Outlet, OutletLimits};
use crate::wire::{self, Draft, UpFrame};
use bytes::{Bytes, BytesMut};
use proto::v1;
use std::sync::Arc;
use tonic::transport::Channel;

/// Opens Pull streams.
#[derive(Debug)]
pub struct PullStream;

impl PullStream {
    /// Opens a stream under `invoker_id` (1 to 128 bytes, for logs) and waits for the router's `Welcome`, at most 10 s.
    ///
    /// # Cancel safety
    /// Dropping it half-way resets the stream.
    pub async fn open(channel: Channel, invoker_id: &str) -> Result<(PullSender, PullReceiver), OpenError> {
        Self::resume(channel, invoker_id, Bytes::new()).await
    }

    /// As [`open`](Self::open), in place of a stream that broke: `session` is what its `Welcome` said. Whether it was taken for that
    /// one's successor says `Welcome.resumed`; then register all containers again as they were, and say that you
    /// [have](PullSender::rejoined).
    ///
    /// # Cancel safety
    /// Dropping it half-way resets the stream.
    pub async fn resume(
        channel: Channel,
        invoker_id: &str,
        session: Bytes,
    ) -> Result<(PullSender, PullReceiver), OpenError> {
        let (mut outlet, body) = Outlet::new(OutletLimits::default());
        let hello = v1::InvokerHello { invoker_id: Bytes::copy_from_slice(invoker_id.as_bytes()), session };
        outlet.append([hello]).expect("an empty outlet takes one entry");
        let inlet = Inlet::open(wire::call(channel, body)).await?;
        outlet.limit(inlet.welcome().payload_bytes_max, inlet.welcome().frame_entries_max);
        Ok((PullSender { outlet: Arc::new(outlet) }, PullReceiver { inlet }))
    }
}

/// The sending half, for any thread; clones send on the same stream, and it ends with the last of them.
///
/// Nothing here waits: entries are queued, at most 131,072 of them and 64 MiB of payload, and sent as fast as the router
/// reads. What is sent by one thread about one container is handled in that order.
#[derive(Debug, Clone)]
pub struct PullSender {
    outlet: Arc<Outlet<Draft<v1::PullRequest>>>,
}

impl PullSender {
    /// Registers a container.
    #[allow(clippy::result_large_err)] // A refused registration is given back whole; this is no hot path.
    pub fn register(&self, register: v1::Register) -> Result<(), AppendError<v1::Register>> {
        self.outlet.append([register])
    }

    /// Grants the router the right to send `container` that many more.
    pub fn credit(&self, container: u32, credits: u32) -> Result<(), AppendError<v1::Credit>> {
        self.outlet.append([v1::Credit { container, credits, ..Default::default() }])
    }

    /// Says how one activation ended.
    pub fn complete(&self, completion: v1::Completion) -> Result<(), AppendError<v1::Completion>> {
        self.outlet.append([completion])
    }

    /// Says how many ended, for the price of one lock and one wake-up. At the first that is refused it stops: those before it
    /// are sent, that one is in the error, those behind it are still in the iterator (pass `&mut iterator` to keep them). The
    /// iterator runs under a lock: it may not block, nor use this sender.
    pub fn complete_all(
        &self,
        completions: impl IntoIterator<Item = v1::Completion>,
    ) -> Result<(), AppendError<v1::Completion>> {
        self.outlet.append(completions)
    }

    /// Hands an activation back that was not started, with the payload it came with.
    pub fn give_back(&self, unstarted: v1::Return) -> Result<(), AppendError<v1::Return>> {
        self.outlet.append([unstarted])
    }

    /// `gone` false: `container` takes no more and finishes what it has. true: it is gone, what it has in flight is lost, and
    /// its number is free.
    pub fn leave(&self, container: u32, gone: bool) -> Result<(), AppendError<v1::Leave>> {
        self.outlet.append([v1::Leave { container, gone, ..Default::default() }])
    }

    /// On a resumed stream: the containers registered on it are all that are left.
    pub fn rejoined(&self) -> Result<(), AppendError<()>> {
        self.outlet.append([Rejoined]).map_err(|refused| match refused {
            AppendError::Full(_) => AppendError::Full(()),
            _ => AppendError::Closed(()),
        })
    }

    /// Says what a container believes to have granted and received, so that the router can compare.
    pub fn audit(&self, audit: v1::Audit) -> Result<(), AppendError<v1::Audit>> {
        self.outlet.append([audit])
    }

    /// Sends no more: the router sees the end of the stream after what was sent before.
    pub fn finish(&self) {
        self.outlet.close();
    }
}

/// What a fleet needs of a stream.
pub(crate) trait Upstream {
    /// Sends an entry if there is room.
    fn append(&self, entry: PullEntry) -> Result<(), AppendError<PullEntry>>;

    /// Sends an entry that is owed and bounded elsewhere, room or not.
    fn append_over(&self, entry: PullEntry) -> Result<(), AppendError<PullEntry>>;

    /// Ends the stream and gives back, in order, what is in no frame yet: that much has certainly not left.
    fn reclaim(&self) -> Vec<PullEntry>;
}

impl Upstream for PullSender {
    fn append(&self, entry: PullEntry) -> Result<(), AppendError<PullEntry>> {
        self.outlet.append([entry])
    }

    fn append_over(&self, entry: PullEntry) -> Result<(), AppendError<PullEntry>> {
        self.outlet.append_over(entry)
    }

    fn reclaim(&self) -> Vec<PullEntry> {
        self.outlet.reclaim()
    }
}

/// The receiving half.
#[derive(Debug)]
pub struct PullReceiver {
    inlet: Inlet<v1::PullResponse>,
}

impl PullReceiver {
    /// What the router said of itself and its limits.
    pub fn welcome(&self) -> &v1::Welcome {
        self.inlet.welcome()
    }

    /// The next frame of work; `None` once the router has ended the stream in order. Read on without pause: what is not read
    /// holds up the whole connection, and the credits bound how much comes.
    ///
    /// # Cancel safety
    /// May be dropped half-way: no frame is lost.
    pub async fn next(&mut self) -> Result<Option<v1::PullResponse>, StreamError> {
        self.inlet.next().await
    }
}

/// What an invoker sends. The rare ones are boxed to keep the frequent ones small.
#[derive(Debug)]
pub(crate) enum PullEntry {
    Hello(Box<v1::InvokerHello>),
    Register(Box<v1::Register>),
    Credit(v1::Credit),
    Completion(v1::Completion),
    Return(v1::Return),
    Leave(v1::Leave),
    Rejoined(Rejoined),
    Audit(v1::Audit),
}

/// All containers that are still there have been registered again.
#[derive(Debug)]
pub(crate) struct Rejoined;

impl UpFrame for v1::PullRequest {
    const PATH: &'static str = "/router.v1.Router/Pull";
    type Answer = v1::PullResponse;
    type Entry = PullEntry;
    type Frequent = v1::Completion;

    /// The router handles a frame list by list: no entry may share one with an earlier entry about the same container from a
    /// later list. (A credit that overtakes the completion that made room for it would be refused.)
    fn put(draft: &mut Draft<Self>, entry: PullEntry, to: &mut BytesMut) -> Result<(), PullEntry> {
        if draft.would_overtake(&entry) {
            return Err(entry);
        }
        let rest = &mut draft.rest;
        match entry {
            PullEntry::Hello(hello) => rest.hello = Some(*hello),
            PullEntry::Register(register) => rest.registers.push(*register),
            PullEntry::Credit(credit) => rest.credits.push(credit),
            PullEntry::Completion(completion) => draft.write(&completion, to),
            PullEntry::Return(unstarted) => rest.returns.push(unstarted),
            PullEntry::Leave(leave) => rest.leaves.push(leave),
            PullEntry::Rejoined(Rejoined) => rest.rejoined = true,
            PullEntry::Audit(audit) => rest.audits.push(audit),
        }
        Ok(())
    }
}

trait Overtaking {
    fn would_overtake(&self, entry: &PullEntry) -> bool;
}

impl Overtaking for Draft<v1::PullRequest> {
    fn would_overtake(&self, entry: &PullEntry) -> bool {
        let rest = &self.rest;
        let last = rest.rejoined || !rest.audits.is_empty();
        let left = |of: u32| rest.leaves.iter().any(|sent| sent.container == of);
        let returned = |of: u32| rest.returns.iter().any(|sent| sent.container == of);
        let completed = |of: u32| self.has_written(of);
        let credited = |of: u32| rest.credits.iter().any(|sent| sent.container == of);
        match entry {
            PullEntry::Audit(_) => false,
            // Behind what the router handles last in a frame, a new one begins.
            _ if last => true,
            PullEntry::Hello(_) | PullEntry::Leave(_) | PullEntry::Rejoined(_) => false,
            PullEntry::Return(sent) => left(sent.container),
            PullEntry::Completion(sent) => left(sent.container) || returned(sent.container),
            PullEntry::Credit(sent) => left(sent.container) || returned(sent.container) || completed(sent.container),
            PullEntry::Register(sent) => {
                let of = sent.container;
                left(of) || returned(of) || completed(of) || credited(of)
            }
        }
    }
}

impl Entry for PullEntry {
    fn bytes(&self) -> usize {
        match self {
            Self::Hello(hello) => hello.bytes(),
            Self::Register(register) => register.bytes(),
            Self::Credit(credit) => credit.bytes(),
            Self::Completion(completion) => completion.bytes(),
            Self::Return(unstarted) => unstarted.bytes(),
            Self::Leave(leave) => leave.bytes(),
            Self::Rejoined(rejoined) => rejoined.bytes(),
            Self::Audit(audit) => audit.bytes(),
        }
    }

    fn payload_bytes(&self) -> usize {
        match self {
            Self::Completion(completion) => completion.bytes(),
            Self::Return(unstarted) => unstarted.bytes(),
            _ => 0,
        }
    }
}

/// One line per list of the frame: the message, its variant, what it weighs, how it is kept.
macro_rules! entries {
    ($($message:ty, $variant:ident, $bytes:expr, $keep:expr;)*) => {$(
        impl Entry for $message {
            fn bytes(&self) -> usize {
                let bytes: fn(&Self) -> usize = $bytes;
                bytes(self)
            }
        }

        impl From<$message> for PullEntry {
            fn from(message: $message) -> Self {
                Self::$variant($keep(message))
            }
        }
    )*};
}

entries! {
    v1::InvokerHello, Hello, |hello| hello.invoker_id.len() + hello.session.len(), Box::new;
    v1::Register, Register, |register| register.key.as_ref().map_or(0, |key| {
        key.namespace.len() + key.action.len() + key.revision.len()
    }) + register.held.iter().map(Bytes::len).sum::<usize>(), Box::new;
    v1::Credit, Credit, |_| 0, std::convert::identity;
    v1::Completion, Completion, |completion| completion.result.len(), std::convert::identity;
    v1::Return, Return, |unstarted| unstarted.payload.len(), std::convert::identity;
    v1::Leave, Leave, |_| 0, std::convert::identity;
    Rejoined, Rejoined, |_| 0, std::convert::identity;
    v1::Audit, Audit, |_| 0, std::convert::identity;
}

impl Greeting for v1::PullResponse {
    fn take_welcome(&mut self) -> Option<v1::Welcome> {
        self.welcome.take()
    }
}
