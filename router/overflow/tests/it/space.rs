//! Space: what is consumed is given back, so that a store that is empty takes what an empty store takes; and no file that was
//! removed stays open.

use crate::small::{scratch, segments};
use overflow::contract::{ALL, append, entry, numbered_entry, positioned};
use overflow::disk::files::Real;
use overflow::disk::{Config, Disk};
use overflow::faulty::{Call, EIO, Faulty, Op, Verdict};
use overflow::{AppendError, Entry, Group, Marks, Most, Overflow};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

const OLD: Group = Group(1);
const NEW: Group = Group(2);

fn consume_all(store: &Disk) {
    (0..store.lanes()).for_each(|lane| store.consume(lane, &Marks::up_to(store.span(lane).next), 0).unwrap());
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// All that is there counts, but for the lock and who the store is.
fn check_usage(store: &Disk, dir: &Path) {
    let mut counted = files(dir);
    counted.retain(|path| !["lock", "store", "store.copy"].iter().any(|name| path.ends_with(name)));
    let bytes: u64 = counted.iter().map(|path| path.metadata().unwrap().len()).sum();
    assert_eq!(store.usage().bytes, bytes, "{counted:#?}");
}

const NONE: [PathBuf; 0] = [];

/// Descriptors of this process that belong to removed files below a directory.
fn open_and_removed(dir: &Path) -> Vec<PathBuf> {
    let links = fs::read_dir("/proc/self/fd").unwrap().filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    links.filter(|link| link.starts_with(dir) && link.to_string_lossy().ends_with(" (deleted)")).collect()
}

#[test]
fn a_burst_that_was_taken_once_is_taken_again_when_it_is_consumed() {
    let dir = scratch();
    let config = Config { lanes: 4, store_bytes_max: 4 << 20, record_bytes_max: 1_000_000, ..Config::new(dir.path()) };
    let store = Disk::open(&config).unwrap();
    for round in 0..4 {
        // Three for each lane, one after the other, then all at once.
        let burst: Vec<Entry> = (0..12).map(|number| entry(number % 4, vec![7; 330_000])).collect();
        let taken = if round % 2 == 0 {
            burst.iter().filter(|one| store.append(std::slice::from_ref(one))[0].is_ok()).count()
        } else {
            store.append(&burst).iter().filter(|result| result.is_ok()).count()
        };
        assert_eq!(taken, 12, "round {round}");
        check_usage(&store, dir.path());
        consume_all(&store);
    }
}

#[test]
fn what_many_lanes_keep_for_themselves_is_given_back_when_it_is_wanted() {
    let dir = scratch();
    let config = Config {
        lanes: 64,
        store_bytes_max: (1 << 20) + 700_000,
        record_bytes_max: 100_000,
        ..Config::new(dir.path())
    };
    let store = Disk::open(&config).unwrap();
    for _ in 0..3 {
        for lane in 0..64 {
            append(&store, lane, [vec![1; 9_000]]);
        }
        consume_all(&store);
        // Nearly all there is, in one lane.
        append(&store, 5, (0..69).map(|_| vec![2; 10_000]));
        assert!(matches!(store.append(&[entry(6, vec![3; 20_000])])[0], Err(AppendError::Full(_))));
        check_usage(&store, dir.path());
        consume_all(&store);
    }
}

/// A lane whose segments are short and whose store is small.
fn small_config(dir: &Path) -> Config {
    Config { lanes: 2, segment_bytes: 2000, store_bytes_max: 64 << 10, record_bytes_max: 4096, ..Config::new(dir) }
}

/// Appends to the new group, and consumes it, far more than the store could hold.
fn flow(store: &Disk, numbers: std::ops::Range<u64>) {
    for number in numbers {
        let position = store.append(&[numbered_entry(0, NEW, number)])[0].clone().unwrap();
        let batch = store.read(0, position, Some(NEW), ALL).unwrap();
        assert_eq!(batch.records.len(), 1);
        store.consume(0, &Marks { before: 0, groups: &[(NEW, batch.next)] }, 1).unwrap();
    }
}

fn numbers(store: &Disk, only: Option<Group>) -> Vec<u64> {
    let (mut numbers, mut from) = (Vec::new(), 0);
    loop {
        let batch = store.read(0, from, only, Most { records: 5, bytes: 1000 }).unwrap();
        assert_eq!((batch.lost, batch.damaged), (vec![], 0));
        if batch.records.is_empty() && batch.next == from {
            return numbers;
        }
        numbers.extend(batch.records.iter().map(|one| u64::from_be_bytes(one.body[..8].try_into().unwrap())));
        from = batch.next;
    }
}

#[test]
fn one_old_record_in_front_keeps_its_segment_and_no_other() {
    let dir = scratch();
    let config = small_config(dir.path());
    let mut store = Disk::open(&config).unwrap();
    assert!(store.append(&[numbered_entry(0, OLD, 1)])[0].is_ok());
    for life in 0..4 {
        // Each time more than there is room for.
        flow(&store, life * 1000..life * 1000 + 800);
        assert_eq!((numbers(&store, None), numbers(&store, Some(NEW))), (vec![1], vec![]));
        check_usage(&store, dir.path());
        let left = files(&dir.path().join("lane-00000"));
        assert!(left.len() <= 7, "{left:#?}");
        if life == 2 {
            store.close();
        }
        drop(store);
        store = Disk::open(&config).unwrap();
        assert_eq!((numbers(&store, None), store.usage().damaged), (vec![1], 0));
        check_usage(&store, dir.path());
    }
    // And all of it goes in the end.
    store.consume(0, &Marks::up_to(store.span(0).next), 1).unwrap();
    assert!(store.append(&[entry(1, vec![0; 4096])]).iter().all(Result::is_ok));
    assert!(files(&dir.path().join("lane-00000")).len() <= 2);
    check_usage(&store, dir.path());
}

#[test]
fn what_stands_still_in_the_middle_keeps_its_own_segments() {
    let dir = scratch();
    let config = small_config(dir.path());
    let mut store = Disk::open(&config).unwrap();
    let mut old = Vec::new();
    for number in 0..6 {
        old.push(10_000 + number);
        let mut parts = vec![numbered_entry(0, OLD, 10_000 + number), numbered_entry(0, Group(9), 20_000 + number)];
        parts[1].body = vec![0; 1500].into();
        assert!(store.append(&parts).iter().all(Result::is_ok));
        flow(&store, number * 1000..number * 1000 + 300);
        if number % 2 == 1 {
            drop(store);
            store = Disk::open(&config).unwrap();
        }
        store.consume(0, &Marks { before: 0, groups: &[(Group(9), store.span(0).next)] }, 1).unwrap();
        assert_eq!((numbers(&store, None), numbers(&store, Some(OLD))), (old.clone(), old.clone()));
        check_usage(&store, dir.path());
    }
    assert!(segments(dir.path(), 0).len() <= 8, "{:#?}", files(dir.path()));
    // One after the other goes, from the middle as well.
    let positions: Vec<u64> = positioned(&store.read(0, 0, Some(OLD), ALL).unwrap()).iter().map(|one| one.0).collect();
    for (at, position) in positions.iter().enumerate() {
        store.consume(0, &Marks { before: 0, groups: &[(OLD, position + 1)] }, 1).unwrap();
        assert_eq!(numbers(&store, None), old[at + 1..]);
        check_usage(&store, dir.path());
    }
    assert!(segments(dir.path(), 0).len() <= 2, "{:#?}", files(dir.path()));
    drop(store);
    let store = Disk::open(&config).unwrap();
    assert_eq!((numbers(&store, None), store.usage().damaged), (vec![], 0));
    assert!(store.append(&[numbered_entry(0, OLD, 5)])[0].clone().unwrap() > positions[5]);
}

/// What an earlier life wrote, and did not consume to the end, is looked at when it is consumed now.
#[test]
fn segments_of_an_earlier_life_are_given_back_as_well() {
    let dir = scratch();
    let config = small_config(dir.path());
    let store = Disk::open(&config).unwrap();
    assert!(store.append(&[numbered_entry(0, OLD, 1)])[0].is_ok());
    let all: Vec<u64> = (2..400).collect();
    all.iter().for_each(|number| assert!(store.append(&[numbered_entry(0, NEW, *number)])[0].is_ok()));
    let end = store.span(0).next;
    drop(store);
    let store = Disk::open(&config).unwrap();
    let before = segments(dir.path(), 0).len();
    let half = positioned(&store.read(0, 0, Some(NEW), Most { records: 200, bytes: 1 << 20 }).unwrap())[199].0;
    store.consume(0, &Marks { before: 0, groups: &[(NEW, half)] }, 1).unwrap();
    let then = segments(dir.path(), 0).len();
    assert!(then + 3 <= before, "{then} of {before}");
    assert_eq!(numbers(&store, Some(NEW)).len(), 199);
    store.consume(0, &Marks { before: 0, groups: &[(NEW, end)] }, 1).unwrap();
    assert!(segments(dir.path(), 0).len() <= 2);
    assert_eq!(numbers(&store, None), [1]);
    check_usage(&store, dir.path());
}

/// A segment with a hole whose owner nobody knows any more is not given back before the lane's mark has passed it.
#[test]
fn damage_is_not_given_back_early() {
    let dir = scratch();
    let config = small_config(dir.path());
    let store = Disk::open(&config).unwrap();
    assert!(store.append(&[numbered_entry(0, OLD, 1)])[0].is_ok());
    (2..200).for_each(|number| assert!(store.append(&[numbered_entry(0, NEW, number)])[0].is_ok()));
    drop(store);
    let path = &segments(dir.path(), 0)[1];
    let mut bytes = fs::read(path).unwrap();
    let place = crate::small::records_of(path)[3].clone();
    bytes[place.start] ^= 1;
    fs::write(path, bytes).unwrap();
    let store = Disk::open(&config).unwrap();
    let end = store.span(0).next;
    store.consume(0, &Marks { before: 0, groups: &[(NEW, end)] }, 1).unwrap();
    assert!(path.exists() && segments(dir.path(), 0).len() <= 3, "{:#?}", segments(dir.path(), 0));
    let batch = store.read(0, 0, None, ALL).unwrap();
    assert_eq!((batch.records.len(), batch.damaged, batch.lost), (1, 1, vec![]));
    store.consume(0, &Marks::up_to(end), 1).unwrap();
    assert!(!path.exists());
    check_usage(&store, dir.path());
}

/// Fails each operation in turn while segments are given back, and goes on, and opens the store again.
#[test]
fn a_crash_while_space_is_given_back_loses_and_repeats_nothing() {
    const OPS: [Op; 6] = [Op::Rename, Op::SyncDir, Op::SetLen, Op::Remove, Op::Open, Op::Look];
    for (op, gone_for_good) in OPS.into_iter().flat_map(|op| [(op, true), (op, false)]) {
        for number in 0.. {
            let dir = scratch();
            let config = Config { store_bytes_max: 1 << 20, ..small_config(dir.path()) };
            let (armed, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
            let judge = {
                let (armed, count) = (Arc::clone(&armed), Arc::clone(&count));
                move |call: &Call<'_>| {
                    let lane = call.path.to_string_lossy().contains("lane-");
                    if call.done || !lane || call.op != op || !armed.load(Ordering::Relaxed) {
                        return Verdict::Go;
                    }
                    let now = count.fetch_add(1, Ordering::Relaxed);
                    // Once, or from then on.
                    if now == number || now > number && gone_for_good { Verdict::Fail(EIO) } else { Verdict::Go }
                }
            };
            let store = Disk::open_on(Arc::new(Faulty::new(Arc::new(Real), judge)), &config).unwrap();
            let mut expected = Vec::new();
            let mut marks = Vec::new();
            for number in 0..160 {
                let group = if number % 50 == 0 { OLD } else { NEW };
                marks.push(store.append(&[numbered_entry(0, group, number)])[0].clone().unwrap() + 1);
                if group == OLD {
                    expected.push(number);
                }
            }
            armed.store(true, Ordering::Relaxed);
            // In an order that makes gaps, joins them, and lets them go.
            for at in [60, 90, 158] {
                store.consume(0, &Marks { before: 0, groups: &[(NEW, marks[at])] }, 1).unwrap();
            }
            store.consume(0, &Marks { before: 0, groups: &[(OLD, marks[60])] }, 1).unwrap();
            expected.retain(|number| *number > 60);
            let failed = count.load(Ordering::Relaxed) > number;
            drop(store);
            for _ in 0..2 {
                let store = Disk::open(&config).unwrap();
                let what = format!("{op:?} number {number}, {gone_for_good}");
                let left = store.read(0, 0, None, ALL).unwrap();
                assert_eq!((left.damaged, &left.lost[..]), (0, &[][..]), "{what}");
                let mut due = expected.clone();
                due.push(159);
                assert_eq!(numbers(&store, None), due, "{what}");
                check_usage(&store, dir.path());
                let position = store.append(&[numbered_entry(1, NEW, 1)])[0].clone().unwrap();
                store.consume(1, &Marks::up_to(position + 1), 0).unwrap();
            }
            if !failed {
                assert!(number > 0 || op == Op::Look, "{op:?} is never called");
                break;
            }
        }
    }
}

#[test]
fn no_removed_file_stays_open() {
    // Where the kernel tells of them.
    let dir = tempfile::tempdir().unwrap();
    let config = Config { lanes: 3, segment_bytes: 300_000, ..Config::new(dir.path()) };
    let store = Disk::open(&config).unwrap();
    for round in 0..3 {
        for lane in 0..3 {
            (0..8).for_each(|_| drop(append(&store, lane, [vec![round; 200_000]])));
            // The reader has a file open, in the middle of the lane.
            let mut from = store.span(lane).first;
            for _ in 0..5 {
                from = store.read(lane, from, None, Most { records: 1, bytes: 1 }).unwrap().next;
            }
        }
        consume_all(&store);
        assert_eq!(open_and_removed(dir.path()), NONE);
        // An append that finds no room gives back what a mark leaves alone.
        let full =
            Config { store_bytes_max: 64 << 10, dir: dir.path().join(format!("full-{round}")), ..config.clone() };
        let full = Disk::open(&Config { record_bytes_max: 4096, ..full }).unwrap();
        append(&full, 0, [vec![0; 4000], vec![0; 4000]]);
        full.read(0, 0, None, ALL).unwrap();
        consume_all(&full);
        while full.append(&[entry(1, [0; 4000])])[0].is_ok() {}
        assert_eq!((full.span(0).first, open_and_removed(dir.path())), (2, vec![]));
    }
    // Given back from the middle, while another group's reader is in it.
    assert!(store.append(&[numbered_entry(0, OLD, 1)])[0].is_ok());
    for _ in 0..6 {
        let big = Entry { group: NEW, ..entry(0, vec![1; 200_000]) };
        let position = store.append(&[big])[0].clone().unwrap();
        store.read(0, position, Some(NEW), ALL).unwrap();
        store.consume(0, &Marks { before: 0, groups: &[(NEW, position + 1)] }, 1).unwrap();
        assert_eq!(open_and_removed(dir.path()), NONE);
    }
}

/// Segments whose sync fails hold nothing, and are given back although nothing is consumed behind them.
#[test]
fn failed_appends_do_not_fill_a_store() {
    let dir = scratch();
    let config = small_config(dir.path());
    let failing = Arc::new(AtomicBool::new(false));
    let judge = {
        let failing = Arc::clone(&failing);
        move |call: &Call<'_>| {
            let fails = !call.done && failing.load(Ordering::Relaxed) && matches!(call.op, Op::Sync | Op::SyncNew);
            if fails && call.path.to_string_lossy().contains(".log") { Verdict::Fail(EIO) } else { Verdict::Go }
        }
    };
    let store = Disk::open_on(Arc::new(Faulty::new(Arc::new(Real), judge)), &config).unwrap();
    append(&store, 0, ["a"]);
    consume_all(&store);
    failing.store(true, Ordering::Relaxed);
    for _ in 0..50 {
        assert!(matches!(store.append(&[entry(0, [1; 3000])])[0], Err(AppendError::Unknown(_))));
    }
    failing.store(false, Ordering::Relaxed);
    append(&store, 0, [[2; 4000], [2; 4000]]);
    check_usage(&store, dir.path());
    consume_all(&store);
    drop(store);
    let store = Disk::open(&config).unwrap();
    assert_eq!((store.span(0).first, store.usage().damaged), (store.span(0).next, 0));
    check_usage(&store, dir.path());
}
