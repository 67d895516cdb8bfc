//! The contract of [`Overflow`] as tests: one suite, run over every store.
//!
//! A store takes part through a [`Place`]: where it lives, so that it can be opened again. [`contract_tests!`] makes a test of
//! each case; [`CASES`] has them by name for those who run them in another way. A case makes no use of what a store does not
//! promise: positions need not be dense or begin at 0.
//!
//! [`contract_tests!`]: crate::contract_tests

// They are tests, wherever they are compiled.
#![allow(clippy::unwrap_used)]

use crate::{AppendError, Batch, ConsumeError, Entry, Group, Lost, Marks, Most, Note, Overflow, ReadError, Span};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

/// Where a store lives.
pub trait Place: Sync {
    /// Opens the store that is there, at first an empty one, and waits until it is ready. It has at least four lanes, takes
    /// bodies of 64 KiB, and 64 MiB in all. Whoever has it open lets go of it before the next opening.
    fn open(&self) -> Box<dyn Overflow>;

    /// Opens it with a limit of some MiB to what it takes.
    fn open_small(&self) -> Box<dyn Overflow>;

    /// The longest body it takes, in bytes.
    fn record_bytes_max(&self) -> usize;

    /// Damages the body of a record under the open store. False: nobody can, and the store keeps no notes.
    fn spoil(&self, lane: u16, position: u64) -> bool;
}

/// One case of the contract. It panics where a store breaks it.
pub type Case = fn(&dyn Place);

/// Makes a test of each case, in the current module: `contract_tests!(place)`, where `place()` gives a new [`Place`].
#[macro_export]
macro_rules! contract_tests {
    ($place:expr) => {
        $crate::contract_tests!($place;
            a_new_store_is_empty, what_is_appended_is_read_in_order, lanes_are_apart, a_read_takes_no_more_than_asked_for,
            reading_goes_on_from_anywhere, reading_consumes_nothing, a_mark_moves_up_only, what_is_consumed_is_not_read_again,
            everything_survives_a_close, everything_survives_a_crash, a_crash_tells_what_may_be_lost,
            positions_ascend_for_good, bodies_are_opaque, long_bodies_are_taken_or_refused,
            a_failure_ends_its_lane_within_the_append, there_are_no_other_lanes, a_closed_store_refuses,
            a_full_store_refuses_until_there_is_space, threads_do_not_mix_up, any_mixture_of_calls,
            groups_are_consumed_apart, a_read_for_one_group_passes_over_the_others, marks_of_groups_survive,
            a_mark_of_a_group_moves_up_only, all_marks_take_hold_together, more_groups_than_fit_are_refused,
            lost_records_are_told_with_their_notes);
    };
    ($place:expr; $($case:ident),* $(,)?) => {
        $(
            #[test]
            fn $case() {
                $crate::contract::$case(&$place());
            }
        )*

        #[test]
        fn no_case_is_left_out() {
            assert_eq!($crate::contract::CASES.map(|(name, _)| name), [$(stringify!($case)),*]);
        }
    };
}

macro_rules! cases {
    ($($case:ident)*) => { [$((stringify!($case), $case as Case)),*] };
}

/// All cases by name.
pub const CASES: [(&str, Case); 27] = cases![
    a_new_store_is_empty what_is_appended_is_read_in_order lanes_are_apart a_read_takes_no_more_than_asked_for
    reading_goes_on_from_anywhere reading_consumes_nothing a_mark_moves_up_only what_is_consumed_is_not_read_again
    everything_survives_a_close everything_survives_a_crash a_crash_tells_what_may_be_lost
    positions_ascend_for_good bodies_are_opaque long_bodies_are_taken_or_refused
    a_failure_ends_its_lane_within_the_append there_are_no_other_lanes a_closed_store_refuses
    a_full_store_refuses_until_there_is_space threads_do_not_mix_up any_mixture_of_calls
    groups_are_consumed_apart a_read_for_one_group_passes_over_the_others marks_of_groups_survive
    a_mark_of_a_group_moves_up_only all_marks_take_hold_together more_groups_than_fit_are_refused
    lost_records_are_told_with_their_notes
];

/// As much as there is.
pub const ALL: Most = Most { records: usize::MAX, bytes: usize::MAX };

/// An entry of group 0 with an empty note.
pub fn entry(lane: u16, body: impl AsRef<[u8]>) -> Entry {
    Entry { lane, group: Group(0), note: Note::default(), body: Bytes::copy_from_slice(body.as_ref()) }
}

/// An entry of a group, whose body and note are made of its number.
pub fn numbered_entry(lane: u16, group: Group, number: u64) -> Entry {
    Entry { group, note: note_of(number), ..entry(lane, number.to_be_bytes()) }
}

/// The note of an entry of that number.
pub fn note_of(number: u64) -> Note {
    let mut note = [0xee; Note::BYTES];
    note[8..16].copy_from_slice(&number.to_be_bytes());
    Note(note)
}

/// Appends bodies to a lane; their positions.
pub fn append<T: AsRef<[u8]>>(store: &dyn Overflow, lane: u16, bodies: impl IntoIterator<Item = T>) -> Vec<u64> {
    let entries: Vec<Entry> = bodies.into_iter().map(|body| entry(lane, body)).collect();
    let positions: Vec<u64> = store.append(&entries).into_iter().map(|result| result.unwrap()).collect();
    assert_eq!(positions.len(), entries.len());
    assert!(positions.is_sorted_by(|one, next| one < next), "positions ascend: {positions:?}");
    positions
}

/// Reads all of a lane from a position on, over as many reads as it takes.
pub fn read_all(store: &dyn Overflow, lane: u16, from: u64, most: Most) -> Batch {
    let mut all = Batch { next: from, ..Batch::default() };
    loop {
        let batch = store.read(lane, all.next, None, most).unwrap();
        assert!(batch.next >= all.next, "a read does not go back");
        let ended = batch.records.is_empty() && batch.next == all.next;
        all.records.extend(batch.records);
        all.lost.extend(batch.lost);
        all.damaged += batch.damaged;
        all.next = batch.next;
        if ended {
            return all;
        }
    }
}

/// Positions and bodies of what was read.
pub fn positioned(batch: &Batch) -> Vec<(u64, Bytes)> {
    batch.records.iter().map(|record| (record.position, record.body.clone())).collect()
}

/// The bodies of a lane that are not consumed.
pub fn bodies(store: &dyn Overflow, lane: u16) -> Vec<Bytes> {
    let batch = read_all(store, lane, store.span(lane).first, ALL);
    batch.records.into_iter().map(|record| record.body).collect()
}

fn numbered(numbers: std::ops::Range<u32>) -> Vec<Vec<u8>> {
    numbers.map(|number| number.to_be_bytes().to_vec()).collect()
}

/// A new store has lanes, and nothing in them.
pub fn a_new_store_is_empty(place: &dyn Place) {
    let store = place.open();
    assert!(store.lanes() >= 4);
    for lane in 0..store.lanes() {
        let span = store.span(lane);
        assert_eq!(span.first, span.next);
        let batch = store.read(lane, span.first, None, ALL).unwrap();
        assert_eq!(batch, Batch { next: span.first, ..Batch::default() });
    }
    assert_eq!((store.usage().damaged, store.usage().lost_in_crash_max), (0, 0));
    assert_eq!(store.append(&[]), []);
}

/// Order, within an append and from one to the next; a span covers what is there.
pub fn what_is_appended_is_read_in_order(place: &dyn Place) {
    let store = place.open();
    let mut positions = append(&*store, 1, numbered(0..3));
    positions.extend(append(&*store, 1, numbered(3..4)));
    positions.extend(append(&*store, 1, numbered(4..900)));
    let batch = read_all(&*store, 1, store.span(1).first, ALL);
    assert_eq!(batch.records.iter().map(|record| record.position).collect::<Vec<_>>(), positions);
    assert_eq!(batch.records.iter().map(|record| record.body.to_vec()).collect::<Vec<_>>(), numbered(0..900));
    assert_eq!(batch.damaged, 0);
    let Span { first, next } = store.span(1);
    assert!(first <= positions[0] && next > positions[899]);
}

/// An append to several lanes at once gives each its own, in their order.
pub fn lanes_are_apart(place: &dyn Place) {
    let store = place.open();
    let mixed: Vec<Entry> = (0..100u32).map(|n| entry(u16::try_from(n * 7 % 4).unwrap(), n.to_be_bytes())).collect();
    let positions: Vec<u64> = store.append(&mixed).into_iter().map(|result| result.unwrap()).collect();
    for lane in 0..4 {
        let batch = read_all(&*store, lane, store.span(lane).first, ALL);
        let expected: Vec<(u64, Bytes)> = positions
            .iter()
            .zip(&mixed)
            .filter(|(_, entry)| entry.lane == lane)
            .map(|(position, entry)| (*position, entry.body.clone()))
            .collect();
        assert_eq!(positioned(&batch), expected);
    }
    store.consume(1, &Marks::up_to(store.span(1).next), 0).unwrap();
    assert_eq!([0, 1, 2, 3].map(|lane| bodies(&*store, lane).len()), [25, 0, 25, 25]);
}

/// Records, bytes, and always one.
pub fn a_read_takes_no_more_than_asked_for(place: &dyn Place) {
    let store = place.open();
    let first = append(&*store, 0, (0..20).map(|n| vec![n; 100]))[0];
    let count = |records, bytes| store.read(0, first, None, Most { records, bytes }).unwrap().records.len();
    assert_eq!(count(7, usize::MAX), 7);
    // Fewer, where a store counts what it adds to a body.
    assert!((1..=7).contains(&count(100, 700)) && (1..=6).contains(&count(100, 699)));
    assert_eq!(count(100, 1), 1, "one, even if it is longer");
    assert_eq!(count(0, 0), 1);
    let batch = read_all(&*store, 0, first, Most { records: 3, bytes: 250 });
    assert_eq!(batch.records.len(), 20);
}

/// From the middle, from behind the end, and on from there once more is there.
pub fn reading_goes_on_from_anywhere(place: &dyn Place) {
    let store = place.open();
    let positions = append(&*store, 2, numbered(0..50));
    for start in [0, 17, 49, 16, 18, 1] {
        let batch = read_all(&*store, 2, positions[start], Most { records: 10, bytes: usize::MAX });
        assert_eq!(batch.records.len(), 50 - start);
        assert_eq!(batch.records[0].position, positions[start]);
    }
    let end = store.span(2).next;
    assert_eq!(store.read(2, end, None, ALL).unwrap().records, []);
    assert_eq!(store.read(2, end + 1000, None, ALL).unwrap().records, []);
    append(&*store, 2, numbered(50..60));
    let batch = read_all(&*store, 2, end, ALL);
    assert_eq!(batch.records.iter().map(|record| record.body.to_vec()).collect::<Vec<_>>(), numbered(50..60));
}

/// A read may be repeated until the mark is set.
pub fn reading_consumes_nothing(place: &dyn Place) {
    let store = place.open();
    append(&*store, 0, numbered(0..10));
    let span = store.span(0);
    assert_eq!((bodies(&*store, 0), store.span(0)), (bodies(&*store, 0), span));
    assert_eq!(bodies(&*store, 0).len(), 10);
}

/// A mark below an earlier one changes nothing.
pub fn a_mark_moves_up_only(place: &dyn Place) {
    let store = place.open();
    let positions = append(&*store, 0, numbered(0..10));
    store.consume(0, &Marks::up_to(positions[6]), 6).unwrap();
    let span = store.span(0);
    assert!(span.first > positions[5] && span.first <= positions[6] && span.next > positions[9]);
    store.consume(0, &Marks::up_to(positions[2]), 2).unwrap();
    store.consume(0, &Marks::up_to(positions[6]), 0).unwrap();
    store.consume(0, &Marks::up_to(0), 0).unwrap();
    assert_eq!(store.span(0), span);
    assert_eq!(bodies(&*store, 0).len(), 4);
}

/// Not by asking for it, and not after opening again.
pub fn what_is_consumed_is_not_read_again(place: &dyn Place) {
    let store = place.open();
    let positions = append(&*store, 3, numbered(0..100));
    store.consume(3, &Marks::up_to(positions[40]), 40).unwrap();
    assert_eq!(store.read(3, positions[0], None, ALL).unwrap().records[0].position, positions[40]);
    drop(store);
    let store = place.open();
    assert_eq!(store.read(3, positions[0], None, ALL).unwrap().records[0].position, positions[40]);
    store.consume(3, &Marks::up_to(store.span(3).next), 60).unwrap();
    assert_eq!(store.read(3, 0, None, ALL).unwrap().records, []);
    drop(store);
    let store = place.open();
    let span = store.span(3);
    assert_eq!(span.first, span.next);
    assert_eq!(read_all(&*store, 3, 0, ALL).records, []);
}

/// Records and marks are there after a close.
pub fn everything_survives_a_close(place: &dyn Place) {
    let store = place.open();
    survives(place, store, |store| {
        store.close();
        drop(store);
    });
}

/// Records and marks are there after a store was dropped as a crash drops it.
pub fn everything_survives_a_crash(place: &dyn Place) {
    let store = place.open();
    survives(place, store, drop);
}

fn survives(place: &dyn Place, store: Box<dyn Overflow>, end: fn(Box<dyn Overflow>)) {
    let positions = append(&*store, 0, numbered(0..200));
    append(&*store, 1, numbered(500..501));
    store.consume(0, &Marks::up_to(positions[50]), 50).unwrap();
    end(store);
    let store = place.open();
    assert_eq!(bodies(&*store, 0), numbered(50..200));
    assert_eq!(bodies(&*store, 1), numbered(500..501));
    append(&*store, 0, numbered(200..210));
    end(store);
    let store = place.open();
    assert_eq!(bodies(&*store, 0), numbered(50..210));
    assert_eq!(store.usage().damaged, 0);
}

/// What the last marks handed out, of each lane; nothing after a close.
pub fn a_crash_tells_what_may_be_lost(place: &dyn Place) {
    let store = place.open();
    let positions = [0, 1].map(|lane| append(&*store, lane, numbered(0..50)));
    store.consume(0, &Marks::up_to(positions[0][10]), 10).unwrap();
    store.consume(0, &Marks::up_to(positions[0][30]), 20).unwrap();
    store.consume(1, &Marks::up_to(positions[1][5]), 3).unwrap();
    assert_eq!(store.usage().lost_in_crash_max, 0);
    drop(store);
    let store = place.open();
    assert_eq!(store.usage().lost_in_crash_max, 20, "the most that a mark told, for each tells of all lanes");
    store.close();
    drop(store);
    let store = place.open();
    assert_eq!(store.usage().lost_in_crash_max, 0);
    assert_eq!([0, 1].map(|lane| bodies(&*store, lane).len()), [20, 45]);
}

/// Above all there were, consumed or not, closed or crashed.
pub fn positions_ascend_for_good(place: &dyn Place) {
    let mut last = None;
    for round in 0..6 {
        let store = place.open();
        let positions = append(&*store, 1, numbered(0..20));
        assert!(last < Some(positions[0]), "{last:?} < {positions:?}");
        last = positions.last().copied();
        if round % 2 == 0 {
            store.consume(1, &Marks::up_to(store.span(1).next), 0).unwrap();
        }
        if round % 3 == 0 {
            store.close();
        }
    }
}

/// Empty ones, ones of zeros, ones that look like something.
pub fn bodies_are_opaque(place: &dyn Place) {
    let store = place.open();
    let odd: Vec<Vec<u8>> =
        vec![vec![], vec![0; 300], vec![0xff; 300], b"\xF5rec\xF5rec\xF5rec".to_vec(), vec![], (0..=255).collect()];
    append(&*store, 0, &odd);
    assert_eq!(bodies(&*store, 0), odd);
    drop(store);
    assert_eq!(bodies(&*place.open(), 0), odd);
}

/// As long as the limit: taken. One byte more: refused.
pub fn long_bodies_are_taken_or_refused(place: &dyn Place) {
    let store = place.open();
    let limit = place.record_bytes_max();
    let bodies_in: Vec<Vec<u8>> = [1, limit, 2, 60_000, limit, 3].iter().map(|length| vec![b'x'; *length]).collect();
    append(&*store, 0, &bodies_in);
    let refused = store.append(&[entry(0, vec![0; limit + 1])]);
    assert_eq!(refused, [Err(AppendError::TooLarge { bytes: limit + 1, limit })]);
    for most in [ALL, Most { records: 1, bytes: 1 }] {
        let batch = read_all(&*store, 0, store.span(0).first, most);
        assert_eq!(batch.records.iter().map(|record| record.body.to_vec()).collect::<Vec<_>>(), bodies_in);
    }
}

/// The first failure in a lane fails what comes behind it there, and nothing else.
pub fn a_failure_ends_its_lane_within_the_append(place: &dyn Place) {
    let store = place.open();
    let long = vec![0; place.record_bytes_max() + 1];
    let entries = [entry(0, b"a"), entry(1, b"b"), entry(0, long), entry(0, b"c"), entry(1, b"d"), entry(0, b"e")];
    let results = store.append(&entries);
    assert_eq!(results.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, true, false, false, true, false]);
    assert_eq!(
        (bodies(&*store, 0), bodies(&*store, 1)),
        (vec![Bytes::from("a")], vec![Bytes::from("b"), Bytes::from("d")])
    );
    append(&*store, 0, [b"f"]);
    assert_eq!(bodies(&*store, 0), ["a", "f"]);
}

/// In every call; the other entries of an append are taken.
pub fn there_are_no_other_lanes(place: &dyn Place) {
    let store = place.open();
    let (lane, lanes) = (store.lanes(), store.lanes());
    let results = store.append(&[entry(lane, b"a"), entry(0, b"b"), entry(u16::MAX, b"c"), entry(0, b"d")]);
    assert_eq!(results[0], Err(AppendError::NoSuchLane { lane, lanes }));
    assert_eq!(results[2], Err(AppendError::NoSuchLane { lane: u16::MAX, lanes }));
    assert!(results[1].is_ok() && results[3].is_ok());
    assert_eq!(store.read(lane, 0, None, ALL), Err(ReadError::NoSuchLane { lane, lanes }));
    assert_eq!(store.consume(lane, &Marks::up_to(0), 0), Err(ConsumeError::NoSuchLane { lane, lanes }));
    assert_eq!(store.span(lane), Span::default());
}

/// Every call, and closing twice is fine.
pub fn a_closed_store_refuses(place: &dyn Place) {
    let store = place.open();
    append(&*store, 0, numbered(0..5));
    store.close();
    store.close();
    assert_eq!(store.append(&[entry(0, b"a")]), [Err(AppendError::Closed)]);
    assert_eq!(store.read(0, 0, None, ALL), Err(ReadError::Closed));
    assert_eq!(store.consume(0, &Marks::up_to(1), 1), Err(ConsumeError::Closed));
    drop(store);
    assert_eq!(bodies(&*place.open(), 0).len(), 5);
}

/// Named, nothing of it kept, and over once there is space.
pub fn a_full_store_refuses_until_there_is_space(place: &dyn Place) {
    let store = place.open_small();
    let mut taken = 0u32;
    let refusal = loop {
        let body = [&taken.to_be_bytes()[..], &[7; 4000]].concat();
        match &store.append(&[entry(0, body)])[0] {
            Ok(_) => taken += 1,
            Err(error) => break error.clone(),
        }
        assert!(taken < 1_000_000, "there is a limit");
    };
    assert!(matches!(refusal, AppendError::Full(_)), "{refusal}");
    assert!(matches!(store.append(&[entry(1, vec![7; 4000])])[0], Err(AppendError::Full(_))));
    let all = bodies(&*store, 0);
    assert_eq!(all.len(), usize::try_from(taken).unwrap());
    assert!((0..taken).zip(&all).all(|(number, body)| body[..4] == number.to_be_bytes()));

    store.consume(0, &Marks::up_to(store.span(0).next), u64::from(taken)).unwrap();
    append(&*store, 1, [b"again"]);
    append(&*store, 0, [b"again"]);
    assert_eq!((bodies(&*store, 0), bodies(&*store, 1)), (vec![Bytes::from("again")], vec![Bytes::from("again")]));
}

/// Four threads append to two lanes, each lane has a reader that consumes: all come once, in the order of their threads.
pub fn threads_do_not_mix_up(place: &dyn Place) {
    const EACH: u32 = 300;
    let store = place.open();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let readers = [0, 1].map(|lane| {
            let (store, done) = (&*store, &done);
            scope.spawn(move || drain(store, lane, done))
        });
        let writers: Vec<_> = (0..4u32)
            .map(|thread| {
                let store = &*store;
                scope.spawn(move || {
                    for number in (0..EACH).step_by(3) {
                        let body = |offset: u32| [thread.to_be_bytes(), (number + offset).to_be_bytes()].concat();
                        let lane = u16::try_from(thread % 2).unwrap();
                        append(store, lane, [body(0), body(1), body(2)]);
                    }
                })
            })
            .collect();
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        done.store(true, Ordering::Release);
        for (lane, reader) in (0u32..).zip(readers) {
            let read = reader.join().unwrap();
            assert_eq!(read.len(), usize::try_from(EACH).unwrap() * 2);
            for thread in [lane, lane + 2] {
                let own = read.iter().filter(|body| body[..4] == thread.to_be_bytes());
                assert!(own.map(|body| body[4..].to_vec()).eq(numbered(0..EACH)));
            }
        }
    });
}

fn drain(store: &dyn Overflow, lane: u16, done: &AtomicBool) -> Vec<Bytes> {
    let mut read = Vec::new();
    let mut from = store.span(lane).first;
    loop {
        let ended = done.load(Ordering::Acquire);
        let batch = store.read(lane, from, None, Most { records: 20, bytes: 1 << 20 }).unwrap();
        if batch.records.is_empty() && ended {
            return read;
        }
        store.consume(lane, &Marks::up_to(batch.next), batch.records.len() as u64).unwrap();
        read.extend(batch.records.into_iter().map(|record| record.body));
        from = batch.next;
    }
}

/// Drawn appends, reads, marks, closes and crashes against a naive model.
pub fn any_mixture_of_calls(place: &dyn Place) {
    let mut draw = Draw(0x9e37_79b9_7f4a_7c15);
    let mut store = place.open();
    let mut model: [BTreeMap<u64, (Group, Vec<u8>)>; 4] = Default::default();
    for _ in 0..600 {
        let lane = u16::try_from(draw.below(4)).unwrap();
        let kept = &mut model[usize::from(lane)];
        match draw.below(20) {
            0 => {
                if draw.below(2) == 0 {
                    store.close();
                }
                drop(store);
                store = place.open();
            }
            1..=9 => {
                let bodies: Vec<(Group, Vec<u8>)> =
                    (0..draw.below(40)).map(|_| (Group(draw.below(3)), draw.body())).collect();
                let entries: Vec<Entry> =
                    bodies.iter().map(|(group, body)| Entry { group: *group, ..entry(lane, body) }).collect();
                let positions = store.append(&entries).into_iter().map(|result| result.unwrap());
                kept.extend(positions.zip(bodies));
            }
            10..=14 => {
                let positions: Vec<u64> = kept.keys().copied().collect();
                let mut any = || positions.get(usize::try_from(draw.below(50)).unwrap()).copied().unwrap_or(0);
                let (before, groups) = (any() / 2, [(Group(1), any()), (Group(2), any())]);
                store.consume(lane, &Marks { before, groups: &groups }, 1).unwrap();
                kept.retain(|position, (group, _)| {
                    let own = groups.iter().find(|(other, _)| other == group).map_or(0, |(_, position)| *position);
                    *position >= before.max(own)
                });
            }
            _ => {
                let only = [None, Some(Group(draw.below(4)))][usize::try_from(draw.below(2)).unwrap()];
                let from = store.span(lane).first + draw.below(30);
                let most = Most { records: usize::try_from(draw.below(60)).unwrap() + 1, bytes: usize::MAX };
                let batch = store.read(lane, from, only, most).unwrap();
                let due = kept.range(from..).filter(|(_, (group, _))| only.is_none_or(|only| only == *group));
                let due = due.take(most.records).map(|(position, (_, body))| (*position, body.clone().into()));
                assert_eq!(positioned(&batch), due.collect::<Vec<(u64, Bytes)>>());
            }
        }
    }
    assert_eq!(store.usage().damaged, 0);
}

const ONE: Group = Group(1);
const TWO: Group = Group(u64::MAX);
/// In no case's store.
const NOBODY: Group = Group(7);

/// Numbers `0..count`, in turn of group one and of group two; their positions.
fn interleaved(store: &dyn Overflow, lane: u16, count: u64) -> Vec<u64> {
    let group = |number: u64| if number.is_multiple_of(2) { ONE } else { TWO };
    // Over several appends, so that they lie in several segments or messages.
    let appended = |begin: u64| {
        let numbers = begin..count.min(begin + 20);
        let entries: Vec<Entry> = numbers.map(|number| numbered_entry(lane, group(number), number)).collect();
        store.append(&entries).into_iter().map(|result| result.unwrap()).collect::<Vec<u64>>()
    };
    (0..count).step_by(20).flat_map(appended).collect()
}

/// The numbers of what is not consumed of a group, or of all, as they come in small reads.
fn left(store: &dyn Overflow, lane: u16, only: Option<Group>) -> Vec<u64> {
    left_from(store, lane, 0, only)
}

fn left_from(store: &dyn Overflow, lane: u16, mut from: u64, only: Option<Group>) -> Vec<u64> {
    let mut numbers = Vec::new();
    loop {
        let batch = store.read(lane, from, only, Most { records: 7, bytes: 1 << 20 }).unwrap();
        let own = |group: Group| only.is_none_or(|only| only == group);
        assert!(batch.records.iter().all(|record| own(record.group)) && batch.lost.iter().all(|lost| own(lost.group)));
        assert!(batch.records.len() <= 7 && batch.next >= from);
        if batch.records.is_empty() && batch.next == from {
            return numbers;
        }
        numbers.extend(batch.records.iter().map(|record| u64::from_be_bytes(record.body[..].try_into().unwrap())));
        from = batch.next;
    }
}

fn odd(numbers: std::ops::Range<u64>) -> Vec<u64> {
    numbers.filter(|number| number % 2 == 1).collect()
}

fn even(numbers: std::ops::Range<u64>) -> Vec<u64> {
    numbers.filter(|number| number % 2 == 0).collect()
}

/// One stands still, and the other flows: read, marked, and never read again.
pub fn groups_are_consumed_apart(place: &dyn Place) {
    let store = place.open();
    let positions = interleaved(&*store, 2, 200);
    let mut from = store.span(2).first;
    let mut read = Vec::new();
    while read.len() < 100 {
        let batch = store.read(2, from, Some(TWO), Most { records: 9, bytes: 1 << 20 }).unwrap();
        assert!(batch.next > from, "it goes on");
        store.consume(2, &Marks { before: positions[0], groups: &[(TWO, batch.next)] }, 9).unwrap();
        read.extend(batch.records.iter().map(|record| u64::from_be_bytes(record.body[..].try_into().unwrap())));
        from = batch.next;
        let due: Vec<u64> = odd(0..200)[read.len()..].to_vec();
        assert_eq!(left(&*store, 2, Some(TWO)), due);
    }
    assert_eq!(read, odd(0..200));
    assert_eq!((left(&*store, 2, None), left(&*store, 2, Some(ONE))), (even(0..200), even(0..200)));
    assert!(store.span(2).first <= positions[0] && store.span(2).next > positions[199]);
    // Those that come behind are theirs again.
    assert!(store.append(&[numbered_entry(2, TWO, 301), numbered_entry(2, ONE, 300)]).iter().all(Result::is_ok));
    assert_eq!((left(&*store, 2, Some(TWO)), left(&*store, 2, Some(ONE)).len()), (vec![301], 101));
}

/// Up to its end, with where it goes on from there.
pub fn a_read_for_one_group_passes_over_the_others(place: &dyn Place) {
    let store = place.open();
    interleaved(&*store, 0, 90);
    let read = |only, most| store.read(0, 0, only, Most { records: most, bytes: 1 << 20 }).unwrap();
    assert_eq!((left(&*store, 0, Some(ONE)), left(&*store, 0, Some(TWO))), (even(0..90), odd(0..90)));
    assert_eq!(left(&*store, 0, Some(NOBODY)), [0; 0]);
    // Back and forth, from any position on.
    for number in [0, 3, 50, 7, 88] {
        let first = read(None, 90).records[number].position;
        let batch = store.read(0, first, Some(TWO), Most { records: 1, bytes: 1 }).unwrap();
        let due = number as u64 | 1;
        assert_eq!(batch.records[0].body[..], due.to_be_bytes(), "from {number}");
        assert!(batch.records[0].group == TWO && batch.records.len() == 1 && batch.records[0].position < batch.next);
        assert_eq!(left_from(&*store, 0, batch.next, Some(TWO)), odd(due + 1..90));
    }
    assert_eq!(read(Some(ONE), 10).damaged, 0);
    assert!(store.append(&[numbered_entry(0, NOBODY, 9)])[0].is_ok());
    assert_eq!(left(&*store, 0, Some(NOBODY)), [9]);
}

/// After a close and after a crash, with the lane's.
pub fn marks_of_groups_survive(place: &dyn Place) {
    let store = place.open();
    let positions = interleaved(&*store, 1, 100);
    store.consume(1, &Marks { before: positions[11], groups: &[(TWO, positions[60])] }, 36).unwrap();
    let due = |one: u64, two: u64| (even(one..100), odd(two..100));
    let found = |store: &dyn Overflow| {
        let (one, two) = (left(store, 1, Some(ONE)), left(store, 1, Some(TWO)));
        let all: BTreeMap<u64, ()> = one.iter().chain(&two).map(|number| (*number, ())).collect();
        assert_eq!(left(store, 1, None), all.into_keys().collect::<Vec<u64>>());
        (one, two)
    };
    assert_eq!(found(&*store), due(11, 60));
    drop(store);
    let store = place.open();
    assert_eq!((found(&*store), store.usage().lost_in_crash_max), (due(11, 60), 36));
    store.consume(1, &Marks { before: 0, groups: &[(ONE, positions[40])] }, 15).unwrap();
    assert_eq!(found(&*store), due(40, 60), "the other keeps its own");
    store.close();
    drop(store);
    let store = place.open();
    assert_eq!((found(&*store), store.usage().lost_in_crash_max), (due(40, 60), 0));
    store.consume(1, &Marks::up_to(positions[90]), 3).unwrap();
    drop(store);
    assert_eq!(found(&*place.open()), due(90, 90));
}

/// Whatever is said later, and nothing beyond the end is consumed before it is there.
pub fn a_mark_of_a_group_moves_up_only(place: &dyn Place) {
    let store = place.open();
    let positions = interleaved(&*store, 0, 40);
    store.consume(0, &Marks { before: 0, groups: &[(TWO, positions[20])] }, 10).unwrap();
    for groups in [&[(TWO, positions[4])][..], &[(TWO, 0)], &[], &[(ONE, 0), (TWO, positions[20])]] {
        store.consume(0, &Marks { before: 0, groups }, 0).unwrap();
        assert_eq!((left(&*store, 0, Some(TWO)), left(&*store, 0, Some(ONE))), (odd(20..40), even(0..40)));
    }
    // The furthest of two for one group counts.
    store.consume(0, &Marks { before: 0, groups: &[(ONE, positions[8]), (ONE, positions[2])] }, 4).unwrap();
    assert_eq!(left(&*store, 0, Some(ONE)), even(8..40));
    store.consume(0, &Marks { before: 0, groups: &[(TWO, u64::MAX)] }, 10).unwrap();
    assert!(store.append(&[numbered_entry(0, TWO, 77)])[0].is_ok());
    assert_eq!(left(&*store, 0, Some(TWO)), [77]);
    drop(store);
    assert_eq!(left(&*place.open(), 0, Some(TWO)), [77]);
}

/// The lane's, and those of many groups.
pub fn all_marks_take_hold_together(place: &dyn Place) {
    let store = place.open();
    let groups = store.group_marks_max() as u64;
    let entries: Vec<Entry> = (0..groups * 3).map(|number| numbered_entry(3, Group(number % groups), number)).collect();
    let positions: Vec<u64> = store.append(&entries).into_iter().map(|result| result.unwrap()).collect();
    // Of each group the second one is the first that is left, of a third of them the third.
    let at =
        |group: u64| positions[usize::try_from(group + if group.is_multiple_of(3) { 2 } else { 1 } * groups).unwrap()];
    let marks: Vec<(Group, u64)> = (0..groups).map(|group| (Group(group), at(group))).collect();
    store.consume(3, &Marks { before: 0, groups: &marks }, 1).unwrap();
    let due: Vec<u64> =
        (groups..groups * 3).filter(|number| *number >= 2 * groups || !(number % groups).is_multiple_of(3)).collect();
    assert_eq!(left(&*store, 3, None), due);
    drop(store);
    let store = place.open();
    assert_eq!(left(&*store, 3, None), due);
    (0..groups).step_by(10).for_each(|group| {
        let own = due.iter().copied().filter(|number| number % groups == group);
        assert!(left(&*store, 3, Some(Group(group))).into_iter().eq(own));
    });
}

/// Named, with the limit, and nothing moves. Room is there again once the lane's mark has passed some of them.
pub fn more_groups_than_fit_are_refused(place: &dyn Place) {
    let store = place.open();
    let limit = store.group_marks_max();
    assert!(limit >= 1);
    let many = limit as u64 + 1;
    let entries: Vec<Entry> = (0..2 * many).map(|number| numbered_entry(0, Group(number % many), number)).collect();
    let positions: Vec<u64> = store.append(&entries).into_iter().map(|result| result.unwrap()).collect();
    let marks: Vec<(Group, u64)> = (0..many).zip(&positions).map(|(group, at)| (Group(group), at + 1)).collect();
    let refused = Err(ConsumeError::TooManyGroups { groups: limit + 1, limit });
    assert_eq!(store.consume(0, &Marks { before: 0, groups: &marks }, 1), refused);
    assert_eq!(left(&*store, 0, None).len(), entries.len());
    store.consume(0, &Marks { before: 0, groups: &marks[..limit] }, 1).unwrap();
    assert_eq!(store.consume(0, &Marks { before: 0, groups: &marks[limit..] }, 1), refused);
    assert_eq!(left(&*store, 0, None).first(), Some(&(many - 1)));
    store.consume(0, &Marks { before: positions[0] + 1, groups: &marks[limit..] }, 1).unwrap();
    assert_eq!(left(&*store, 0, None), (many..2 * many).collect::<Vec<u64>>());
}

/// To whom they belong, each time it asks, until they are consumed; and counted once.
pub fn lost_records_are_told_with_their_notes(place: &dyn Place) {
    let store = place.open();
    let positions = interleaved(&*store, 1, 30);
    if !place.spoil(1, positions[4]) {
        assert_eq!(store.note(1, positions[4]), None, "who keeps notes has to tell of what is lost");
        return;
    }
    assert!(place.spoil(1, positions[5]) && place.spoil(1, positions[8]));
    let told = |only| {
        let (mut lost, mut damaged, mut from) = (Vec::new(), 0, 0);
        loop {
            let batch = store.read(1, from, only, Most { records: 3, bytes: 1 << 20 }).unwrap();
            assert!(batch.records.len() + batch.lost.len() <= 3);
            if batch.next == from {
                return (lost, damaged);
            }
            lost.extend(batch.lost);
            (damaged, from) = (damaged + batch.damaged, batch.next);
        }
    };
    let lost = |number: usize, group| Lost { position: positions[number], group, note: note_of(number as u64) };
    let all = vec![lost(4, ONE), lost(5, TWO), lost(8, ONE)];
    assert_eq!(told(Some(TWO)), (vec![all[1]], 1));
    assert_eq!(told(None), (all.clone(), 2));
    assert_eq!((told(Some(ONE)), store.usage().damaged), ((vec![all[0], all[2]], 0), 3));
    store.consume(1, &Marks { before: 0, groups: &[(ONE, positions[5])] }, 2).unwrap();
    assert_eq!(told(None), (all[1..].to_vec(), 0));
    store.consume(1, &Marks::up_to(positions[6]), 2).unwrap();
    assert_eq!((told(None), left(&*store, 1, Some(ONE))[..2].to_vec()), ((all[2..].to_vec(), 0), vec![6, 10]));
    assert_eq!(store.note(1, positions[20]), Some(note_of(20)));
    assert_eq!([store.note(0, 0), store.note(1, positions[29] + 1), store.note(99, 0)], [None; 3]);
}

/// A drawer of numbers (xorshift64*), the same each time.
#[derive(Debug)]
pub struct Draw(
    /// Where it begins; not 0.
    pub u64,
);

impl Draw {
    /// A number below `limit`, which is at least 1.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) % limit
    }

    /// A body, mostly short.
    pub fn body(&mut self) -> Vec<u8> {
        let length = if self.below(30) == 0 { self.below(20_000) } else { self.below(300) };
        let byte = self.below(256);
        vec![u8::try_from(byte).unwrap_or_default(); usize::try_from(length).unwrap_or_default()]
    }
}
