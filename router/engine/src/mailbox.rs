//! What waits to be written to one session, without the threads and wake-ups around it: those who fill it and the writer of
//! the session's stream take turns. It outlives the stream: what comes while the peer is away waits for the next one.
//!
//! ```text
//!                 park, its peer is gone               close, over its bound
//!   attached ───────────────────────────▶ parked ──────────────────────────▶ closed
//!     │    ▲                                │                                  ▲
//!     │    └──── attach, the next stream ───┘                                  │
//!     └───────────────────────── close, over its bound ────────────────────────┘
//! ```
//!
//! Each stream that a session gets has a number, its [`Attachment`]. What a stream says or asks that is not the last one any
//! more changes nothing, so a late writer of a broken stream does no harm.
//!
//! Entries stay here until they go into a frame, so a dispatch that is found here has provably not left the router.

use crate::container::{ContainerKey, Room};
use crate::effect::{Dispatch, Entry};
use crate::hub::Action;
use crate::id::ActivationId;
use crate::mutant::{Mutant, is};
use crate::sessions::Attachment;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

/// A container that waits for room, within its action.
pub type Awaiting = (Arc<Action>, ContainerKey);

/// What the writer finds.
#[derive(Debug)]
pub enum Taken {
    /// Nothing yet.
    Nothing,
    /// A frame's worth of entries is in the writer's hands; these containers waited for the room that is free now.
    Entries(Vec<Awaiting>),
    /// All that was owed is written: the stream and the session may end.
    Finished,
    /// The stream is over: the session is parked, closed, or has another stream.
    Over,
}

/// What became of entries put in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Filled {
    /// Answers that were dropped.
    pub answers_dropped: u64,
    /// They were more than it may hold, and it is closed now.
    pub closed: bool,
}

/// The queue between the engine and the writer of one session.
#[derive(Debug)]
pub struct Mailbox {
    entries: VecDeque<Entry>,
    /// The engine asks this before it dispatches.
    room: Arc<Room>,
    /// Room that dispatches among the entries have taken.
    taken: usize,
    /// Bytes of all else: what no credit or room holds back.
    unasked_bytes: usize,
    unasked_bytes_max: usize,
    awaiting: Vec<Awaiting>,
    /// Activations pushed in the session less answers. Below zero for a moment when an answer is quicker than its reader.
    owed: i64,
    /// Nothing more is to come; end once nothing is owed.
    finishing: bool,
    /// What is still owed will not come.
    forgiven: bool,
    standing: Standing,
    attachment: Attachment,
    /// While a peer that came back asks what became of its activations: those whose answers were here when it came, or came
    /// since.
    answered: Option<BTreeSet<ActivationId>>,
}

/// Where a mailbox's entries go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// To the writer of a stream.
    Attached,
    /// They wait for a stream.
    Parked,
    /// Nowhere.
    Closed,
}

/// How many times the room for dispatches answers may take: containers that complete large results in one moment must not
/// cut off a controller that reads on.
const UNASKED_TIMES: usize = 8;
/// A queue that grew past this many entries is let go when it is empty, so that a flood's memory comes back.
const CAPACITY_KEPT: usize = 4096;
/// What comes while more entries than this wait gets bytes of its own, and keeps no part of a frame that others share: well above what
/// waits for a peer that reads.
const ENTRIES_SHARED: usize = 8192;
/// Most entries of a frame.
const FRAME_ENTRIES_MAX: usize = 1024;
/// A frame that holds this many bytes gets no further entry.
const FRAME_BYTES_ENOUGH: usize = 64 * 1024;
/// Most ids that are remembered for a peer that came back: beyond, it is told nothing any more of those it asks about.
const ANSWERED_MAX: usize = 1 << 20;

impl Mailbox {
    /// Empty, and attached to [`Attachment::FIRST`]. Past `bytes_max` bytes nothing more is dispatched to it; past eight times
    /// that of other entries it closes.
    pub fn new(bytes_max: usize) -> Self {
        Self {
            entries: VecDeque::new(),
            room: Arc::new(Room::new(bytes_max)),
            taken: 0,
            unasked_bytes: 0,
            unasked_bytes_max: bytes_max.saturating_mul(UNASKED_TIMES),
            awaiting: Vec::new(),
            owed: 0,
            finishing: false,
            forgiven: false,
            standing: Standing::Attached,
            attachment: Attachment::FIRST,
            answered: None,
        }
    }

    /// What the engine asks before it dispatches.
    pub fn room(&self) -> &Arc<Room> {
        &self.room
    }

    /// Whether there is something for a writer that it has not taken.
    pub fn keeps_writer_busy(&self) -> bool {
        self.keeps_busy(self.attachment)
    }

    /// As [`keeps_writer_busy`](Self::keeps_writer_busy), for the writer of that stream.
    pub fn keeps_busy(&self, attachment: Attachment) -> bool {
        self.is_attached(attachment) && !self.entries.is_empty()
    }

    /// Whether its peer is away and there is nothing to tell it, now or later, but that the router is draining.
    pub fn is_parked_in_vain(&self) -> bool {
        let only_that = self.entries.iter().all(|entry| matches!(entry, Entry::Draining));
        self.standing == Standing::Parked && only_that && (self.owed <= 0 || self.forgiven)
    }

    /// Whether its peer is there and more than half as much waits for it, answers and refusals, as closes it.
    pub fn is_crowded(&self) -> bool {
        self.standing == Standing::Attached && self.unasked_bytes > self.unasked_bytes_max / 2
    }

    /// Whether it takes nothing and gives nothing any more.
    pub fn is_closed(&self) -> bool {
        self.standing == Standing::Closed
    }

    /// Puts entries in, in order. Once closed it keeps only dispatches, until they are taken back as [`unsent`](Self::unsent).
    pub fn fill(&mut self, entries: impl Iterator<Item = Entry>) -> Filled {
        let mut filled = Filled::default();
        // What may wait for long must not keep alive the frame that it came in, of which others' entries are long gone.
        let holds = self.standing == Standing::Parked || self.entries.len() > ENTRIES_SHARED;
        for entry in entries {
            match &entry {
                Entry::Dispatch(dispatch) => self.taken += Room::cost(&dispatch.payload),
                _ if self.is_closed() => {
                    filled.answers_dropped += u64::from(matches!(entry, Entry::Answer(_)));
                    continue;
                }
                Entry::Answer(answer) => {
                    self.owed -= 1;
                    self.unasked_bytes += entry.bytes();
                    if self.answered.is_some() {
                        self.remember(answer.id);
                    }
                }
                _ => self.unasked_bytes += entry.bytes(),
            }
            self.entries.push_back(if holds { entry.compact() } else { entry });
        }
        if self.unasked_bytes > self.unasked_bytes_max {
            filled.closed = true;
            filled.answers_dropped += self.close();
        }
        filled
    }

    /// Notes a container that waits for room. The writer hands it back when there is some, which may be at once.
    pub fn await_room(&mut self, awaiting: Awaiting) {
        if !self.is_closed() {
            self.awaiting.push(awaiting);
        }
    }

    /// For the writer of that stream: moves a frame's worth of what waits to the empty `hands`.
    pub fn take(&mut self, attachment: Attachment, hands: &mut VecDeque<Entry>) -> Taken {
        debug_assert!(hands.is_empty(), "the writer writes all before it takes more");
        if !self.is_attached(attachment) {
            return Taken::Over;
        }
        let owes = self.owed != 0 && !self.forgiven && !is(Mutant::MailboxEndsEarly);
        if self.finishing && !owes && self.entries.is_empty() {
            return Taken::Finished;
        }
        if self.entries.is_empty() && self.awaiting.is_empty() {
            return Taken::Nothing;
        }
        if hands.capacity() > CAPACITY_KEPT {
            *hands = VecDeque::new();
        }
        if self.entries.len() <= FRAME_ENTRIES_MAX && self.taken + self.unasked_bytes <= FRAME_BYTES_ENOUGH {
            std::mem::swap(hands, &mut self.entries);
            self.unasked_bytes = 0;
            self.room.give_back(std::mem::take(&mut self.taken));
        } else {
            self.take_some(hands);
        }
        Taken::Entries(std::mem::take(&mut self.awaiting))
    }

    /// Moves as much as one frame takes.
    fn take_some(&mut self, hands: &mut VecDeque<Entry>) {
        let mut bytes = 0;
        let mut taken = 0;
        while bytes < FRAME_BYTES_ENOUGH
            && hands.len() < FRAME_ENTRIES_MAX
            && let Some(entry) = self.entries.pop_front()
        {
            bytes += entry.bytes();
            match &entry {
                Entry::Dispatch(dispatch) => taken += Room::cost(&dispatch.payload),
                _ => self.unasked_bytes -= entry.bytes(),
            }
            hands.push_back(entry);
        }
        self.taken -= taken;
        self.room.give_back(taken);
    }

    /// Notes activations that are answered here. True if the writer has to look again: those answers may have been written
    /// already, and it be waiting for this.
    pub fn owe(&mut self, answers: i64) -> bool {
        self.owed += answers;
        self.finishing
    }

    /// Nothing more is to come: the stream ends once nothing is owed.
    pub fn finish(&mut self) {
        self.finishing = true;
    }

    /// Nothing more is to come, and of what is owed only what is here: the stream ends once that is written. For a router that ends,
    /// and leaves in its store what was not read back.
    pub fn forgive(&mut self) {
        self.finishing = true;
        self.forgiven = true;
    }

    /// The peer of that stream is away: what comes waits for the next stream. False if it was not this one's.
    pub fn park(&mut self, attachment: Attachment) -> bool {
        let parks = self.is_attached(attachment);
        if parks {
            self.standing = Standing::Parked;
            self.entries = std::mem::take(&mut self.entries).into_iter().map(Entry::compact).collect();
        }
        parks
    }

    /// The peer is back with that stream; the one before is over. What the peer said of an end is forgotten. False if the
    /// mailbox is closed, or had a later stream before.
    pub fn attach(&mut self, attachment: Attachment) -> bool {
        if self.is_closed() || attachment <= self.attachment {
            return false;
        }
        self.attachment = attachment;
        self.standing = Standing::Attached;
        // A container that rejoins waits for room anew.
        self.awaiting.clear();
        if is(Mutant::MailboxDropsAnswers) {
            self.entries.clear();
        }
        self.finishing = false;
        let waiting = self.entries.iter().filter_map(|entry| match entry {
            Entry::Answer(answer) => Some(answer.id),
            _ => None,
        });
        self.answered = Some(waiting.collect());
        true
    }

    /// Whether the answer to that activation was here when the peer came back, or came since. None: that is not known any more, as the
    /// peer has asked for all that it wanted to know, or more came since than are remembered.
    pub fn has_answered(&self, id: &ActivationId) -> Option<bool> {
        self.answered.as_ref().map(|answered| answered.contains(id))
    }

    /// The peer that came back has asked for all that it wanted to know.
    pub fn forget_answered(&mut self) {
        self.answered = None;
    }

    /// Takes the dispatches back that have not left the router, in their order.
    pub fn unsent(&mut self) -> Vec<Dispatch> {
        let (mut unsent, mut others) = (Vec::new(), VecDeque::new());
        for entry in std::mem::take(&mut self.entries) {
            match entry {
                Entry::Dispatch(dispatch) => unsent.push(dispatch),
                other => others.push_back(other),
            }
        }
        self.entries = others;
        if is(Mutant::MailboxDropsUnsent) {
            unsent.clear();
        }
        let taken = std::mem::take(&mut self.taken);
        self.room.give_back(if is(Mutant::MailboxKeepsRoom) { 0 } else { taken });
        unsent
    }

    /// The session is over: all but [unsent](Self::unsent) dispatches is dropped. Returns how many answers were.
    pub fn close(&mut self) -> u64 {
        self.standing = Standing::Closed;
        self.awaiting = Vec::new();
        self.unasked_bytes = 0;
        self.answered = None;
        let before = self.entries.len();
        let mut answers = 0;
        self.entries.retain(|entry| {
            answers += u64::from(matches!(entry, Entry::Answer(_)));
            matches!(entry, Entry::Dispatch(_))
        });
        if self.entries.len() < before {
            self.entries.shrink_to_fit();
        }
        answers
    }

    fn remember(&mut self, id: ActivationId) {
        self.answered.take_if(|answered| answered.len() >= ANSWERED_MAX);
        if let Some(answered) = &mut self.answered {
            answered.insert(id);
        }
    }

    fn is_attached(&self, attachment: Attachment) -> bool {
        self.standing == Standing::Attached && self.attachment == attachment
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::{Answer, Outcome, Reason, Refusal, Rejection, Stages};
    use bytes::Bytes;
    use proptest::prelude::*;

    const BYTES_MAX: usize = 4096;

    fn answer(number: u128, bytes: usize) -> Entry {
        let outcome = Outcome::Completed(vec![0; bytes].into());
        Entry::Answer(Answer { id: ActivationId(number.to_be_bytes()), outcome, stages: Stages::default() })
    }

    fn dispatch(number: u128, bytes: usize) -> Entry {
        let payload = Bytes::from(vec![0; bytes]);
        let id = ActivationId(number.to_be_bytes());
        Entry::Dispatch(Dispatch { container: 0, epoch: 0, id, time_left_ms: 1, payload, attempt: 1 })
    }

    fn refusal() -> Entry {
        Entry::Refuse(Refusal::new(Rejection::new(Reason::Repeated, "hello", 1), 0, &[]))
    }

    /// Fills as the engine does: a dispatch takes room.
    fn fill(mailbox: &mut Mailbox, entries: Vec<Entry>) -> Filled {
        for entry in &entries {
            if let Entry::Dispatch(dispatch) = entry {
                mailbox.room().take(Room::cost(&dispatch.payload));
            }
        }
        mailbox.fill(entries.into_iter())
    }

    fn number(entry: &Entry) -> Option<u128> {
        match entry {
            Entry::Answer(answer) => Some(u128::from_be_bytes(answer.id.0)),
            Entry::Dispatch(dispatch) => Some(u128::from_be_bytes(dispatch.id.0)),
            _ => None,
        }
    }

    /// Each standing with each event, as text: what is said, and the standing that follows.
    #[test]
    fn every_transition() {
        type Event = (&'static str, fn(&mut Mailbox) -> String);
        const LATER: Attachment = Attachment::FIRST.next();
        const EVENTS: &[Event] = &[
            ("fill", |mailbox| format!("{:?}", fill(mailbox, vec![answer(3, 0), dispatch(4, 0), refusal()]))),
            ("fill beyond the bound", |mailbox| format!("{:?}", fill(mailbox, vec![answer(3, 8 * BYTES_MAX)]))),
            ("take", |mailbox| took(mailbox, Attachment::FIRST)),
            ("take for another stream", |mailbox| took(mailbox, LATER)),
            ("park", |mailbox| mailbox.park(Attachment::FIRST).to_string()),
            ("park another stream", |mailbox| mailbox.park(LATER).to_string()),
            ("attach", |mailbox| {
                format!(
                    "{}, knows of 1: {}",
                    mailbox.attach(LATER),
                    mailbox.has_answered(&ActivationId(1_u128.to_be_bytes())) == Some(true)
                )
            }),
            ("attach an earlier one", |mailbox| mailbox.attach(Attachment::FIRST).to_string()),
            ("unsent", |mailbox| mailbox.unsent().len().to_string()),
            ("close", |mailbox| mailbox.close().to_string()),
        ];
        let mut table = String::new();
        for standing in [Standing::Attached, Standing::Parked, Standing::Closed] {
            for (name, event) in EVENTS {
                let mut mailbox = Mailbox::new(BYTES_MAX);
                fill(&mut mailbox, vec![answer(1, 0), dispatch(2, 0)]);
                match standing {
                    Standing::Attached => {}
                    Standing::Parked => assert!(mailbox.park(Attachment::FIRST)),
                    Standing::Closed => assert_eq!(mailbox.close(), 1),
                }
                let said = event(&mut mailbox);
                let left = mailbox.entries.len();
                table += &format!("{standing:?} · {name}: {said} · {:?}, {left} left\n", mailbox.standing);
            }
        }
        assert_eq!(table, include_str!("../tests/tables/mailbox.txt"), "\n{table}");
    }

    fn took(mailbox: &mut Mailbox, attachment: Attachment) -> String {
        let mut hands = VecDeque::new();
        let taken = mailbox.take(attachment, &mut hands);
        format!("{taken:?} {}", hands.len())
    }

    #[test]
    fn a_stream_is_finished_once_nothing_is_owed() {
        let (mut mailbox, mut hands) = (Mailbox::new(BYTES_MAX), VecDeque::new());
        let first = Attachment::FIRST;
        assert!(!mailbox.owe(1), "its writer has nothing to look for");
        mailbox.finish();
        assert!(matches!(mailbox.take(first, &mut hands), Taken::Nothing));
        fill(&mut mailbox, vec![answer(1, 0)]);
        assert!(matches!(mailbox.take(first, &mut hands), Taken::Entries(_)));
        hands.clear();
        assert!(matches!(mailbox.take(first, &mut hands), Taken::Finished));
        // One that comes back after all is not.
        assert!(mailbox.attach(first.next()));
        assert!(matches!(mailbox.take(first.next(), &mut hands), Taken::Nothing));
    }

    #[test]
    fn who_is_owed_nothing_is_parked_in_vain_also_while_the_router_drains() {
        let mut mailbox = Mailbox::new(BYTES_MAX);
        fill(&mut mailbox, vec![Entry::Draining]);
        assert!(!mailbox.is_parked_in_vain(), "its peer is here");
        mailbox.park(Attachment::FIRST);
        assert!(mailbox.is_parked_in_vain());
        mailbox.owe(1);
        assert!(!mailbox.is_parked_in_vain(), "an answer is to come");
        fill(&mut mailbox, vec![answer(1, 0)]);
        assert!(!mailbox.is_parked_in_vain(), "it is here");
    }

    #[test]
    fn who_comes_back_is_known_to_be_answered_until_it_has_asked() {
        let mut mailbox = Mailbox::new(BYTES_MAX);
        let id = |number: u128| ActivationId(number.to_be_bytes());
        let mut hands = VecDeque::new();
        fill(&mut mailbox, vec![answer(1, 0)]);
        mailbox.take(Attachment::FIRST, &mut hands);
        fill(&mut mailbox, vec![answer(2, 0)]);
        mailbox.park(Attachment::FIRST);
        fill(&mut mailbox, vec![answer(3, 0)]);
        mailbox.attach(Attachment::FIRST.next());
        hands.clear();
        mailbox.take(Attachment::FIRST.next(), &mut hands);
        fill(&mut mailbox, vec![answer(4, 0)]);
        assert_eq!(
            [1, 2, 3, 4, 5].map(|number| mailbox.has_answered(&id(number))),
            [false, true, true, true, false].map(Some)
        );
        mailbox.forget_answered();
        assert_eq!(mailbox.has_answered(&id(4)), None);
    }

    #[test]
    fn what_waits_for_an_absent_peer_keeps_no_frame_alive() {
        let frame = Bytes::from(vec![7; 1 << 20]);
        let of_frame = |number: u128| Answer {
            id: ActivationId(number.to_be_bytes()),
            outcome: Outcome::Completed(frame.slice(..10)),
            stages: Stages::default(),
        };
        let mut mailbox = Mailbox::new(BYTES_MAX);
        fill(&mut mailbox, vec![Entry::Answer(of_frame(1))]);
        mailbox.park(Attachment::FIRST);
        fill(&mut mailbox, vec![Entry::Answer(of_frame(2))]);
        assert!(frame.is_unique(), "only this test has it");
        mailbox.attach(Attachment::FIRST.next());
        let mut hands = VecDeque::new();
        mailbox.take(Attachment::FIRST.next(), &mut hands);
        assert_eq!(hands.iter().filter_map(number).collect::<Vec<_>>(), [1, 2]);
    }

    #[test]
    fn what_is_owed_and_will_not_come_is_forgiven() {
        let mut mailbox = Mailbox::new(BYTES_MAX);
        let take = |mailbox: &mut Mailbox| mailbox.take(Attachment::FIRST, &mut VecDeque::new());
        mailbox.owe(2);
        fill(&mut mailbox, vec![answer(1, 0)]);
        mailbox.finish();
        assert!(matches!(take(&mut mailbox), Taken::Entries(_)), "what is here goes first");
        assert!(matches!(take(&mut mailbox), Taken::Nothing), "another is owed");
        mailbox.forgive();
        assert!(matches!(take(&mut mailbox), Taken::Finished));
    }

    #[derive(Debug, Clone)]
    enum Step {
        Answers(usize, usize),
        Dispatches(usize, usize),
        Refusal,
        Take(bool),
        Park(bool),
        Attach,
        Unsent,
        Close,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            6 => (1..1500_usize, 0..20_usize).prop_map(|(n, bytes)| Step::Answers(n, bytes)),
            6 => (1..1500_usize, 0..200_usize).prop_map(|(n, bytes)| Step::Dispatches(n, bytes)),
            2 => Just(Step::Refusal),
            8 => any::<bool>().prop_map(Step::Take),
            4 => any::<bool>().prop_map(Step::Park),
            4 => Just(Step::Attach),
            2 => Just(Step::Unsent),
            1 => Just(Step::Close),
        ];
        prop::collection::vec(step, 1..40)
    }

    proptest! {
        // Each case has some thousands of entries.
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Whatever happens, each answer and dispatch comes out once: to the last stream's writer and in order, or back, or
        /// dropped and counted. Room is taken for just what is there.
        #[test]
        fn nothing_is_lost_or_doubled(steps in steps()) {
            let mut mailbox = Mailbox::new(1 << 16);
            let (mut last, mut next) = (Attachment::FIRST, 0_u128);
            let (mut written, mut back, mut answers_dropped) = (Vec::new(), Vec::new(), 0);
            for step in steps {
                match step {
                    Step::Answers(n, bytes) => {
                        let entries = (0..n).map(|_| { next += 1; answer(next, bytes) }).collect();
                        answers_dropped += fill(&mut mailbox, entries).answers_dropped;
                    }
                    Step::Dispatches(n, bytes) => {
                        let entries = (0..n).map(|_| { next += 1; dispatch(next, bytes) }).collect();
                        prop_assert_eq!(fill(&mut mailbox, entries).answers_dropped, 0);
                    }
                    Step::Refusal => answers_dropped += fill(&mut mailbox, vec![refusal()]).answers_dropped,
                    Step::Take(late) => {
                        let attachment = if late { Attachment::FIRST } else { last };
                        let mut hands = VecDeque::new();
                        let attached = mailbox.is_attached(attachment);
                        match mailbox.take(attachment, &mut hands) {
                            Taken::Over => prop_assert!(!attached && hands.is_empty()),
                            _ => prop_assert!(attached && attachment == last),
                        }
                        prop_assert!(hands.len() <= FRAME_ENTRIES_MAX);
                        let all_but_one: usize = hands.iter().rev().skip(1).map(Entry::bytes).sum();
                        prop_assert!(all_but_one < FRAME_BYTES_ENOUGH);
                        written.extend(hands.iter().filter_map(number));
                    }
                    Step::Park(late) => {
                        mailbox.park(if late { Attachment::FIRST } else { last });
                    }
                    Step::Attach => {
                        if mailbox.attach(last.next()) {
                            last = last.next();
                        }
                    }
                    Step::Unsent => back.extend(mailbox.unsent().into_iter().map(|sent| u128::from_be_bytes(sent.id.0))),
                    Step::Close => answers_dropped += mailbox.close(),
                }
                let here: usize = mailbox.entries.iter().map(|entry| match entry {
                    Entry::Dispatch(dispatch) => Room::cost(&dispatch.payload),
                    _ => 0,
                }).sum();
                prop_assert_eq!(here, mailbox.taken);
                prop_assert_eq!(mailbox.room().is_full(), here > 1 << 16);
                let unasked = |entry: &&Entry| !matches!(entry, Entry::Dispatch(_));
                let here: usize = mailbox.entries.iter().filter(unasked).map(Entry::bytes).sum();
                prop_assert_eq!(here, mailbox.unasked_bytes);
                prop_assert!(here <= 8 << 16, "over the bound it closes");
            }
            prop_assert!(written.is_sorted() && back.is_sorted());
            let here = mailbox.entries.iter().filter_map(number);
            let mut out: Vec<u128> = here.chain(written).chain(back).collect();
            out.sort_unstable();
            let known = out.len();
            out.dedup();
            prop_assert_eq!(out.len(), known, "one came out twice");
            prop_assert_eq!(known as u64 + answers_dropped, u64::try_from(next).unwrap());
        }
    }
}
