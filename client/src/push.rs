//! A controller's stream: declared actions and activations up, one answer for each activation down.
//!
//! The low level, for those who keep track of their activations themselves: it may not hold a timer, remember an activation,
//! or connect again.

use crate::action::ActionKey;
use crate::desk::{self, Unsent};
use crate::inlet::{Greeting, Inlet, OpenError, StreamError};
use crate::outlet::{AppendError, Entry, Outlet, OutletLimits};
use crate::wire::{self, Draft, UpFrame};
use bytes::{Bytes, BytesMut};
use proto::v1;
use std::sync::Arc;
use tokio::time::Instant;
use tonic::transport::Channel;

/// Opens Push streams.
#[derive(Debug)]
pub struct PushStream;

impl PushStream {
    /// Opens a stream under `controller_id` (1 to 128 bytes, unique among the router's live streams) and waits for the router's
    /// `Welcome`, at most 10 s.
    ///
    /// # Cancel safety
    /// Dropping it half-way resets the stream.
    pub async fn open(channel: Channel, controller_id: &str) -> Result<(PushSender, PushReceiver), OpenError> {
        Self::resume(channel, controller_id, Bytes::new()).await
    }

    /// As [`open`](Self::open), in place of a stream that broke: `session` is what its `Welcome` said. Whether it was taken for that
    /// one's successor says `Welcome.resumed`; then [`state_outstanding`](PushSender::state_outstanding) what still waits.
    ///
    /// # Cancel safety
    /// Dropping it half-way resets the stream.
    pub async fn resume(
        channel: Channel,
        controller_id: &str,
        session: Bytes,
    ) -> Result<(PushSender, PushReceiver), OpenError> {
        let (mut outlet, body) = Outlet::new(OutletLimits::default());
        let controller_id = Bytes::copy_from_slice(controller_id.as_bytes());
        let hello = v1::ControllerHello { controller_id, session };
        outlet.append([hello]).expect("an empty outlet takes one entry");
        let inlet = Inlet::open(wire::call(channel, body)).await?;
        outlet.limit(inlet.welcome().payload_bytes_max, inlet.welcome().frame_entries_max);
        Ok((PushSender { outlet: Arc::new(outlet) }, PushReceiver { inlet }))
    }
}

/// The sending half, for any thread; clones send on the same stream, and it ends with the last of them.
///
/// Nothing here waits: entries are queued, at most 131,072 of them and 64 MiB of payload, and sent as fast as the router
/// reads. What is sent by one thread arrives in that order.
#[derive(Debug, Clone)]
pub struct PushSender {
    outlet: Arc<Outlet<Draft<v1::PushRequest>>>,
}

impl PushSender {
    /// Gives `key` the number that activations sent from now on name it by; below 1,000,000. Those sent before keep the
    /// action that the number had then.
    pub fn declare(&self, number: u32, key: ActionKey) -> Result<(), AppendError<v1::DeclareAction>> {
        self.outlet.append([v1::DeclareAction { number, key: Some(key.into()) }])
    }

    /// Sends one activation.
    pub fn push(&self, activation: v1::Activation) -> Result<(), AppendError<v1::Activation>> {
        self.outlet.append([activation])
    }

    /// Sends many, for the price of one lock and one wake-up. At the first that is refused it stops: those before it are sent,
    /// that one is in the error, those behind it are still in the iterator (pass `&mut iterator` to keep them). The iterator
    /// runs under a lock: it may not block, nor use this sender.
    pub fn push_all(
        &self,
        activations: impl IntoIterator<Item = v1::Activation>,
    ) -> Result<(), AppendError<v1::Activation>> {
        self.outlet.append(activations)
    }

    /// Sends no more: the router sees the end of the stream after what was sent before. Answers still come.
    pub fn finish(&self) {
        self.outlet.close();
    }

    /// On a resumed stream: says which activations pushed on the one before still wait for their answers, in a frame of their own:
    /// at most `Welcome.frame_entries_max` ids of 16 bytes. Takes no room among what waits.
    pub fn state_outstanding(&self, ids: Vec<Bytes>) -> Result<(), AppendError<Vec<Bytes>>> {
        self.outlet.append_over(Outstanding(ids)).map_err(|refused| AppendError::Closed(refused.into_entry().0))
    }

    /// Sends what the desk wants sent, or says why not.
    pub(crate) fn send(&self, entry: desk::Entry) -> Result<(), (desk::Entry, Unsent)> {
        match entry {
            desk::Entry::Declare(declare) => self.outlet.append([*declare]).map_err(|refused| {
                let why = Unsent::from(&refused);
                (desk::Entry::Declare(Box::new(refused.into_entry())), why)
            }),
            desk::Entry::Activation(activation) => {
                let timed = Timed { activation, since: Instant::now() };
                self.outlet.append([timed]).map_err(|refused| {
                    let why = Unsent::from(&refused);
                    (desk::Entry::Activation(refused.into_entry().activation), why)
                })
            }
            desk::Entry::Outstanding(ids) => self.state_outstanding(ids).map_err(|refused| {
                let why = Unsent::from(&refused);
                (desk::Entry::Outstanding(refused.into_entry()), why)
            }),
        }
    }

    /// Ends the stream, and says which activations are still here, in no frame: they have certainly not left.
    pub(crate) fn reclaim(&self) -> impl Iterator<Item = v1::Activation> {
        self.outlet.reclaim().into_iter().filter_map(|entry| match entry {
            PushEntry::Activation(activation) | PushEntry::Timed(Timed { activation, .. }) => Some(activation),
            _ => None,
        })
    }
}

/// The receiving half.
#[derive(Debug)]
pub struct PushReceiver {
    inlet: Inlet<v1::PushResponse>,
}

impl PushReceiver {
    /// What the router said of itself and its limits.
    pub fn welcome(&self) -> &v1::Welcome {
        self.inlet.welcome()
    }

    /// The next frame of answers; `None` once the router has ended the stream in order. Read on without pause: what is not
    /// read holds up the whole connection.
    ///
    /// # Cancel safety
    /// May be dropped half-way: no frame is lost.
    pub async fn next(&mut self) -> Result<Option<v1::PushResponse>, StreamError> {
        self.inlet.next().await
    }
}

impl<T> From<&AppendError<T>> for Unsent {
    fn from(refused: &AppendError<T>) -> Self {
        match refused {
            AppendError::Full(_) => Self::Full,
            AppendError::TooLarge { payload_bytes_max, .. } => Self::TooLarge { payload_bytes_max: *payload_bytes_max },
            AppendError::Closed(_) => Self::Closed,
        }
    }
}

/// An activation and since when it waits to be sent: that much of its time has gone when it is.
#[derive(Debug)]
pub(crate) struct Timed {
    activation: v1::Activation,
    since: Instant,
}

impl Timed {
    /// With the time that it has left; none if that is nothing, and then it is its caller's timer that answers.
    fn leave(self) -> Option<v1::Activation> {
        let waited_ms = u32::try_from(self.since.elapsed().as_millis()).unwrap_or(u32::MAX);
        let time_left_ms = self.activation.time_left_ms.checked_sub(waited_ms).filter(|left| *left > 0)?;
        Some(v1::Activation { time_left_ms, ..self.activation })
    }
}

/// Ids for one frame.
#[derive(Debug)]
pub(crate) struct Outstanding(Vec<Bytes>);

/// What a controller sends. The rare ones are boxed to keep the frequent one small.
#[derive(Debug)]
pub(crate) enum PushEntry {
    Hello(Box<v1::ControllerHello>),
    Declare(Box<v1::DeclareAction>),
    Activation(v1::Activation),
    Timed(Timed),
    Outstanding(Outstanding),
}

impl UpFrame for v1::PushRequest {
    const PATH: &'static str = "/router.v1.Router/Push";
    type Answer = v1::PushResponse;
    type Entry = PushEntry;
    type Frequent = v1::Activation;

    /// The router handles declarations first: one may not share a frame with an earlier activation of its number. Outstanding ids are
    /// a frame's worth by themselves.
    fn put(draft: &mut Draft<Self>, entry: PushEntry, to: &mut BytesMut) -> Result<(), PushEntry> {
        match entry {
            entry if !draft.rest.outstanding.is_empty() => return Err(entry),
            PushEntry::Outstanding(Outstanding(ids)) if draft.is_empty() => draft.rest.outstanding = ids,
            PushEntry::Outstanding(ids) => return Err(PushEntry::Outstanding(ids)),
            PushEntry::Hello(hello) => draft.rest.hello = Some(*hello),
            PushEntry::Declare(declare) if draft.has_written(declare.number) => {
                return Err(PushEntry::Declare(declare));
            }
            PushEntry::Declare(declare) => draft.rest.declares.push(*declare),
            PushEntry::Activation(activation) => draft.write(&activation, to),
            PushEntry::Timed(timed) => {
                if let Some(activation) = timed.leave() {
                    draft.write(&activation, to);
                }
            }
        }
        Ok(())
    }
}

impl Entry for PushEntry {
    fn bytes(&self) -> usize {
        match self {
            Self::Hello(hello) => hello.bytes(),
            Self::Declare(declare) => declare.bytes(),
            Self::Activation(activation) => activation.bytes(),
            Self::Timed(timed) => timed.bytes(),
            Self::Outstanding(ids) => ids.bytes(),
        }
    }
}

impl Entry for Timed {
    fn bytes(&self) -> usize {
        self.activation.bytes()
    }
}

impl From<Timed> for PushEntry {
    fn from(timed: Timed) -> Self {
        Self::Timed(timed)
    }
}

impl Entry for Outstanding {
    fn bytes(&self) -> usize {
        self.0.iter().map(Bytes::len).sum()
    }

    fn payload_bytes(&self) -> usize {
        0
    }
}

impl From<Outstanding> for PushEntry {
    fn from(ids: Outstanding) -> Self {
        Self::Outstanding(ids)
    }
}

impl Entry for v1::ControllerHello {
    fn bytes(&self) -> usize {
        self.controller_id.len() + self.session.len()
    }
}

impl Entry for v1::DeclareAction {
    fn bytes(&self) -> usize {
        self.key.as_ref().map_or(0, |key| key.namespace.len() + key.action.len() + key.revision.len())
    }

    fn payload_bytes(&self) -> usize {
        0
    }
}

impl Entry for v1::Activation {
    fn bytes(&self) -> usize {
        self.payload.len()
    }
}

impl From<v1::ControllerHello> for PushEntry {
    fn from(hello: v1::ControllerHello) -> Self {
        Self::Hello(Box::new(hello))
    }
}

impl From<v1::DeclareAction> for PushEntry {
    fn from(declare: v1::DeclareAction) -> Self {
        Self::Declare(Box::new(declare))
    }
}

impl From<v1::Activation> for PushEntry {
    fn from(activation: v1::Activation) -> Self {
        Self::Activation(activation)
    }
}

impl Greeting for v1::PushResponse {
    fn take_welcome(&mut self) -> Option<v1::Welcome> {
        self.welcome.take()
    }
}
