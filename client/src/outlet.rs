//! What waits to be sent on one stream: any thread appends, the stream's body takes what is there, frame by frame, and never
//! waits to fill one. It may not know what the entries mean; in which order they may share a frame is [`Frame`]'s to say.
//!
//! ```text
//!   append ──▶ waiting ── swapped out whole ──▶ hand ── frame by frame ──▶ body, polled by the connection's task
//!             (limits)                        (the body's)
//! ```
//! Appending many entries takes one lock and wakes the body at most once, and only when it sleeps. The two queues trade
//! places, and entries are written where they go out from, so nothing is allocated per frame but the frame itself.

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use proto::wire::message::message;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt::Debug;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

/// Something that is sent.
pub(crate) trait Entry {
    /// Bytes of its payload and names.
    fn bytes(&self) -> usize;

    /// Those of them that the router's limit for payloads is for.
    fn payload_bytes(&self) -> usize {
        self.bytes()
    }
}

/// A message of the stream while it is made of entries.
pub(crate) trait Frame: Default + Debug + Send + Unpin + 'static {
    /// What it is made of.
    type Entry: Entry + Debug + Send + 'static;
    /// About as many bytes as one takes besides its payload and names.
    const ENTRY_OVERHEAD: usize;

    /// Adds `entry`, or gives it back when the receiver would handle it before an earlier one that must come first. An empty
    /// frame takes anything. What is written of it at once goes `to` where the message is.
    fn put(&mut self, entry: Self::Entry, to: &mut BytesMut) -> Result<(), Self::Entry>;

    /// Writes what is left of the entries. The next frame begins empty.
    fn finish(&mut self, to: &mut BytesMut);
}

/// Why an entry was not taken. Each variant gives it back.
#[derive(Debug, thiserror::Error)]
pub enum AppendError<T> {
    /// Too much is waiting: the router, or the way to it, is slow. Try again later, or refuse the caller.
    #[error("{ENTRIES_MAX} entries or {} MiB are waiting to be sent already", BYTES_MAX >> 20)]
    Full(T),
    /// Its payload is longer than the router takes: it will never be.
    #[error("a payload may have at most {payload_bytes_max} bytes")]
    TooLarge {
        /// What was not taken.
        entry: T,
        /// Most bytes of a payload or result, as the router said in its `Welcome`.
        payload_bytes_max: u32,
    },
    /// The stream has ended or was finished. Open another.
    #[error("the stream has ended")]
    Closed(T),
}

impl<T> AppendError<T> {
    /// What was not taken.
    pub fn into_entry(self) -> T {
        match self {
            Self::Full(entry) | Self::TooLarge { entry, .. } | Self::Closed(entry) => entry,
        }
    }
}

/// How much may wait.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OutletLimits {
    /// Most entries that wait; the body may have as many again in hand.
    pub(crate) entries_max: usize,
    /// Most bytes that wait; likewise.
    pub(crate) bytes_max: usize,
}

impl Default for OutletLimits {
    fn default() -> Self {
        Self { entries_max: ENTRIES_MAX, bytes_max: BYTES_MAX }
    }
}

/// The appenders' end. Dropping it ends the stream after what waits is sent.
#[derive(Debug)]
pub(crate) struct Outlet<F: Frame> {
    shared: Arc<Shared<F>>,
    limits: OutletLimits,
    /// Known once the router has said so.
    payload_bytes_max: u32,
}

impl<F: Frame> Outlet<F> {
    /// An empty outlet and the body that sends what is appended to it.
    pub(crate) fn new(limits: OutletLimits) -> (Self, Body<F>) {
        let shared = Arc::new(Shared { waiting: Mutex::default(), hand: Mutex::default() });
        let body = Body { shared: Arc::clone(&shared), frame: F::default() };
        (Self { shared, limits, payload_bytes_max: u32::MAX }, body)
    }

    /// Holds entries and frames to what the router said it takes.
    pub(crate) fn limit(&mut self, payload_bytes_max: u32, frame_entries_max: u32) {
        self.payload_bytes_max = payload_bytes_max;
        let mut hand = self.shared.hand.lock();
        hand.frame_entries_max = hand.frame_entries_max.min((frame_entries_max as usize).max(1));
    }

    /// Appends `entries` in order until one is refused. Those before it are sent, those behind it are still in the iterator.
    /// It runs under the outlet's lock: it may not block, nor use the outlet.
    pub(crate) fn append<T: Entry + Into<F::Entry>>(
        &self,
        entries: impl IntoIterator<Item = T>,
    ) -> Result<(), AppendError<T>> {
        let mut waiting = self.shared.waiting.lock();
        let result = entries.into_iter().try_for_each(|entry| self.take(&mut waiting, entry));
        let sleeper = if waiting.entries.is_empty() { None } else { waiting.sleeper.take() };
        drop(waiting);
        if let Some(sleeper) = sleeper {
            sleeper.wake();
        }
        result
    }

    /// As [`append`](Self::append), of an entry that is owed and bounded elsewhere: it is taken however much waits.
    pub(crate) fn append_over<T: Entry + Into<F::Entry>>(&self, entry: T) -> Result<(), AppendError<T>> {
        let mut waiting = self.shared.waiting.lock();
        self.check(&waiting, entry).map(|entry| waiting.push(entry))?;
        let sleeper = waiting.sleeper.take();
        drop(waiting);
        if let Some(sleeper) = sleeper {
            sleeper.wake();
        }
        Ok(())
    }

    /// Takes nothing more; the stream ends after what waits is sent.
    pub(crate) fn close(&self) {
        let sleeper = {
            let mut waiting = self.shared.waiting.lock();
            waiting.closed = true;
            waiting.sleeper.take()
        };
        if let Some(sleeper) = sleeper {
            sleeper.wake();
        }
    }

    /// Takes nothing more and gives back, in order, what is in no frame yet: that much has certainly not left.
    pub(crate) fn reclaim(&self) -> Vec<F::Entry> {
        let mut hand = self.shared.hand.lock();
        let mut waiting = self.shared.waiting.lock();
        waiting.closed = true;
        waiting.bytes = 0;
        hand.entries.drain(..).chain(waiting.entries.drain(..)).collect()
    }

    fn take<T: Entry + Into<F::Entry>>(&self, waiting: &mut Waiting<F::Entry>, entry: T) -> Result<(), AppendError<T>> {
        let entry = self.check(waiting, entry)?;
        let bytes = entry.bytes();
        if waiting.entries.len() >= self.limits.entries_max || waiting.bytes + bytes > self.limits.bytes_max {
            return Err(AppendError::Full(entry));
        }
        waiting.push(entry);
        Ok(())
    }

    /// Gives back what can never be sent on this stream.
    fn check<T: Entry>(&self, waiting: &Waiting<F::Entry>, entry: T) -> Result<T, AppendError<T>> {
        if waiting.closed {
            return Err(AppendError::Closed(entry));
        }
        if entry.payload_bytes() > self.payload_bytes_max as usize {
            return Err(AppendError::TooLarge { entry, payload_bytes_max: self.payload_bytes_max });
        }
        Ok(entry)
    }
}

impl<F: Frame> Drop for Outlet<F> {
    fn drop(&mut self) {
        self.close();
    }
}

/// The stream's end, as the body of its call: yields frames while there are entries, sleeps while there are none, ends once the outlet
/// is closed and empty. Dropping it closes the outlet.
#[derive(Debug)]
pub(crate) struct Body<F: Frame> {
    shared: Arc<Shared<F>>,
    /// The one that is being made; empty in between.
    frame: F,
}

impl<F: Frame> Body<F> {
    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let mut hand = self.shared.hand.lock();
        if hand.entries.is_empty() && ready!(self.shared.poll_refill(&mut hand, cx)).is_none() {
            return Poll::Ready(None);
        }
        Poll::Ready(Some(hand.message(&mut self.frame)))
    }
}

impl<F: Frame> http_body::Body for Body<F> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Infallible>>> {
        self.get_mut().poll_message(cx).map(|message| message.map(|message| Ok(http_body::Frame::data(message))))
    }
}

impl<F: Frame> Drop for Body<F> {
    fn drop(&mut self) {
        self.shared.waiting.lock().closed = true;
    }
}

/// Locked in this order: `hand`, `waiting`.
#[derive(Debug)]
struct Shared<F: Frame> {
    /// Appenders for a batch, the body for a swap.
    waiting: Mutex<Waiting<F::Entry>>,
    /// The body's own, so never contended; shared for the sake of `reclaim`.
    hand: Mutex<Hand<F::Entry>>,
}

impl<F: Frame> Shared<F> {
    /// Some: the hand is full again. None: nothing waits and nothing will.
    fn poll_refill(&self, hand: &mut Hand<F::Entry>, cx: &mut Context<'_>) -> Poll<Option<()>> {
        let mut waiting = self.waiting.lock();
        if waiting.entries.is_empty() && waiting.closed {
            return Poll::Ready(None);
        }
        if waiting.entries.is_empty() {
            waiting.sleeper = Some(cx.waker().clone());
            return Poll::Pending;
        }
        hand.entries.shrink_to(IDLE_ENTRIES_KEPT);
        std::mem::swap(&mut hand.entries, &mut waiting.entries);
        waiting.bytes = 0;
        Poll::Ready(Some(()))
    }
}

#[derive(Debug)]
struct Waiting<E> {
    entries: VecDeque<E>,
    /// The sum of what they weigh.
    bytes: usize,
    /// Set while the body sleeps.
    sleeper: Option<Waker>,
    closed: bool,
}

impl<E: Entry> Waiting<E> {
    fn push(&mut self, entry: impl Entry + Into<E>) {
        self.bytes += entry.bytes();
        self.entries.push_back(entry.into());
    }
}

impl<E> Default for Waiting<E> {
    fn default() -> Self {
        Self { entries: VecDeque::new(), bytes: 0, sleeper: None, closed: false }
    }
}

#[derive(Debug)]
struct Hand<E> {
    entries: VecDeque<E>,
    frame_entries_max: usize,
}

impl<E> Default for Hand<E> {
    fn default() -> Self {
        Self { entries: VecDeque::new(), frame_entries_max: FRAME_ENTRIES_MAX }
    }
}

impl<E: Entry> Hand<E> {
    /// The next frame: as much of what is in hand, in order, as may share one.
    fn message<F: Frame<Entry = E>>(&mut self, frame: &mut F) -> Bytes {
        let (entries, bytes) = self.fitting();
        let bytes_about = bytes + entries * F::ENTRY_OVERHEAD;
        let message = message(bytes_about, |to| {
            self.put(entries, frame, to);
            frame.finish(to);
        });
        // Where order cut it short, it may not keep the room for all of them.
        if message.len() < bytes_about / 8 { Bytes::copy_from_slice(&message) } else { message }
    }

    /// How many entries the next frame may have by their number and bytes, and these.
    fn fitting(&self) -> (usize, usize) {
        let (mut entries, mut bytes) = (0, 0);
        for entry in self.entries.iter().take(self.frame_entries_max) {
            let more = bytes + entry.bytes();
            if entries > 0 && more > FRAME_BYTES_MAX {
                break;
            }
            (entries, bytes) = (entries + 1, more);
        }
        (entries, bytes)
    }

    /// Puts that many into the frame, or fewer if one may not share it with those before.
    fn put<F: Frame<Entry = E>>(&mut self, entries: usize, frame: &mut F, to: &mut BytesMut) {
        for _ in 0..entries {
            let Some(entry) = self.entries.pop_front() else { break };
            if let Err(entry) = frame.put(entry, to) {
                self.entries.push_front(entry);
                break;
            }
        }
    }
}

/// Most entries that wait to be sent on one stream.
const ENTRIES_MAX: usize = 131_072;
/// Most bytes of payloads and names that wait to be sent on one stream.
const BYTES_MAX: usize = 64 << 20;
/// Most entries of a frame; fewer if the router says so.
pub(crate) const FRAME_ENTRIES_MAX: usize = 1024;
/// Most bytes of payloads and names of a frame that has more than one entry: larger ones save nothing.
pub(crate) const FRAME_BYTES_MAX: usize = 64 << 10;
/// Room for this many entries is kept after a burst.
const IDLE_ENTRIES_KEPT: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BufMut;
    use proto::wire::message::HEAD_BYTES;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    /// A number that weighs as much as it says.
    impl Entry for usize {
        fn bytes(&self) -> usize {
            *self
        }
    }

    /// Numbers, of which no odd one may follow an even one.
    #[derive(Debug, Default)]
    struct Numbers(Option<usize>);

    impl Frame for Numbers {
        type Entry = usize;
        const ENTRY_OVERHEAD: usize = size_of::<u64>();

        fn put(&mut self, entry: usize, to: &mut BytesMut) -> Result<(), usize> {
            match self.0 {
                Some(last) if last % 2 == 0 && entry % 2 == 1 => return Err(entry),
                _ => self.0 = Some(entry),
            }
            to.put_u64(entry as u64);
            Ok(())
        }

        fn finish(&mut self, _: &mut BytesMut) {
            self.0 = None;
        }
    }

    fn outlet(entries_max: usize, bytes_max: usize) -> (Outlet<Numbers>, Body<Numbers>) {
        Outlet::new(OutletLimits { entries_max, bytes_max })
    }

    fn numbers(message: &Bytes) -> Vec<usize> {
        let numbers = message[HEAD_BYTES..].chunks(size_of::<u64>());
        numbers.map(|number| u64::from_be_bytes(number.try_into().unwrap()).try_into().unwrap()).collect()
    }

    /// What the body has to send now, frame by frame; `None` at the end for a stream that has ended.
    fn frames(body: &mut Body<Numbers>) -> Vec<Option<Vec<usize>>> {
        let mut frames = Vec::new();
        while frames.last() != Some(&None) {
            let Poll::Ready(message) = body.poll_message(&mut Context::from_waker(Waker::noop())) else { break };
            frames.push(message.as_ref().map(numbers));
        }
        frames
    }

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_frame_holds_what_waits_in_order() {
        let (outlet, mut body) = outlet(100, 100);
        assert!(frames(&mut body).is_empty());
        outlet.append([1, 3]).unwrap();
        outlet.append([5]).unwrap();
        assert_eq!(frames(&mut body), [Some(vec![1, 3, 5])]);
    }

    #[test]
    fn a_frame_ends_where_an_entry_must_not_overtake() {
        let (outlet, mut body) = outlet(100, 100);
        outlet.append([1, 2, 3, 4, 6]).unwrap();
        assert_eq!(frames(&mut body), [Some(vec![1, 2]), Some(vec![3, 4, 6])]);
    }

    #[test]
    fn a_frame_is_bounded_in_entries_and_in_bytes() {
        let (mut outlet, mut body) = outlet(10_000, 1 << 20);
        outlet.append([0; FRAME_ENTRIES_MAX + 1]).unwrap();
        assert_eq!(frames(&mut body), [Some(vec![0; FRAME_ENTRIES_MAX]), Some(vec![0])]);
        outlet.append([FRAME_BYTES_MAX - 2, 2, 2, FRAME_BYTES_MAX * 2]).unwrap();
        let (first, last) = (vec![FRAME_BYTES_MAX - 2, 2], vec![FRAME_BYTES_MAX * 2]);
        assert_eq!(frames(&mut body), [Some(first), Some(vec![2]), Some(last)]);
        outlet.limit(u32::MAX, 2);
        outlet.append([0; 3]).unwrap();
        assert_eq!(frames(&mut body), [Some(vec![0; 2]), Some(vec![0])]);
    }

    #[test]
    fn a_frame_cut_short_keeps_no_room_for_those_behind_it() {
        let (outlet, mut body) = outlet(10_000, 1 << 20);
        outlet.append([2, 3].into_iter().chain(std::iter::repeat_n(4, 1000))).unwrap();
        let first = body.poll_message(&mut Context::from_waker(Waker::noop()));
        let Poll::Ready(Some(first)) = first else { panic!("there is a frame") };
        assert_eq!(numbers(&first), [2]);
        assert!(first.try_into_mut().unwrap().capacity() < 100);
    }

    #[test]
    fn what_is_over_a_limit_is_given_back_and_the_rest_stays_in_the_iterator() {
        let (mut outlet, mut body) = outlet(2, 100);
        outlet.limit(50, 100);
        let mut entries = [1, 3, 5, 7].into_iter();
        assert!(matches!(outlet.append(&mut entries), Err(AppendError::Full(5))));
        assert_eq!(entries.collect::<Vec<_>>(), [7]);
        assert_eq!(frames(&mut body), [Some(vec![1, 3])]);
        assert!(matches!(outlet.append([49, 49, 49]), Err(AppendError::Full(49))));
        assert_eq!(outlet.append([51]).unwrap_err().into_entry(), 51);
    }

    #[test]
    fn the_body_is_woken_once_and_only_when_it_sleeps() {
        let (outlet, mut body) = outlet(100, 100);
        let wakes = Arc::new(Wakes::default());
        let waker = Waker::from(Arc::clone(&wakes));
        let mut cx = Context::from_waker(&waker);
        outlet.append([1]).unwrap();
        assert!(body.poll_message(&mut cx).is_ready());
        assert!(body.poll_message(&mut cx).is_pending());
        assert_eq!(wakes.0.load(Ordering::Relaxed), 0);
        outlet.append([1, 3]).unwrap();
        outlet.append([5]).unwrap();
        assert_eq!(wakes.0.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_closed_outlet_sends_what_it_has_and_takes_nothing() {
        let (outlet, mut body) = outlet(100, 100);
        outlet.append([1]).unwrap();
        outlet.close();
        assert!(matches!(outlet.append([3]), Err(AppendError::Closed(3))));
        assert_eq!(frames(&mut body), [Some(vec![1]), None]);
    }

    #[test]
    fn dropping_either_end_ends_the_other() {
        let (outlet_, mut body_) = outlet(100, 100);
        drop(outlet_);
        assert_eq!(frames(&mut body_), [None]);
        let (outlet, body) = outlet(100, 100);
        drop(body);
        assert!(matches!(outlet.append([3]), Err(AppendError::Closed(3))));
    }

    #[test]
    fn what_is_in_no_frame_can_be_reclaimed() {
        let (outlet, mut body) = outlet(100, 100);
        outlet.append([2, 3, 4, 5]).unwrap();
        let first = body.poll_message(&mut Context::from_waker(Waker::noop()));
        assert_eq!(first.map(|message| numbers(&message.unwrap())), Poll::Ready(vec![2]));
        outlet.append([7]).unwrap();
        assert_eq!(outlet.reclaim(), [3, 4, 5, 7]);
        assert_eq!(frames(&mut body), [None]);
    }
}
