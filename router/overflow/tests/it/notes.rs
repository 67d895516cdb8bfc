//! Notes: who is told of records that are lost in this life, and that nothing depends on the file.

use crate::small::{LANES, config, records_of, scratch, segments, spoil};
use overflow::contract::{ALL, note_of, numbered_entry};
use overflow::disk::files::Real;
use overflow::disk::{Config, Disk};
use overflow::faulty::{Call, EIO, ENOSPC, Faulty, Op, Verdict};
use overflow::{Group, Lost, Marks, Most, Overflow};
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

const ONE: Group = Group(1);
const TWO: Group = Group(2);

fn group(number: u64) -> Group {
    if number.is_multiple_of(2) { ONE } else { TWO }
}

/// A store with the numbers `0..count` in lane 0, of two groups in turn, at the positions that are their numbers, in appends of
/// three.
fn filled(dir: &tempfile::TempDir, count: u64) -> Disk {
    let store = Disk::open(&config(dir.path())).unwrap();
    fill(&store, count);
    store
}

fn fill(store: &Disk, count: u64) {
    let numbers: Vec<u64> = (0..count).collect();
    for part in numbers.chunks(3) {
        let entries: Vec<_> = part.iter().map(|number| numbered_entry(0, group(*number), *number)).collect();
        let positions: Vec<u64> = store.append(&entries).into_iter().map(|result| result.unwrap()).collect();
        assert_eq!(positions, part);
    }
}

/// Numbers read, numbers told lost, and how many were counted.
fn read(store: &Disk, only: Option<Group>) -> (Vec<u64>, Vec<u64>, u64) {
    let (mut read, mut lost, mut damaged, mut from) = (Vec::new(), Vec::new(), 0, 0);
    loop {
        let batch = store.read(0, from, only, Most { records: 4, bytes: 1000 }).unwrap();
        assert!(batch.records.len() + batch.lost.len() <= 4);
        read.extend(batch.records.iter().map(|one| u64::from_be_bytes(one.body[..].try_into().unwrap())));
        lost.extend(batch.lost.iter().map(|lost| lost.position));
        let told = |lost: &Lost| (lost.group, lost.note) == (group(lost.position), note_of(lost.position));
        assert!(batch.lost.iter().all(told));
        damaged += batch.damaged;
        if batch.next == from {
            return (read, lost, damaged);
        }
        from = batch.next;
    }
}

/// What a reader of one group, then of the other, then of both is to find without `lost`.
fn check(store: &Disk, count: u64, lost: &[u64]) {
    let of = |only: Group, lost: bool, all: &[u64]| -> Vec<u64> {
        (0..count).filter(|number| group(*number) == only && all.contains(number) == lost).collect()
    };
    for only in [TWO, ONE] {
        let gone = of(only, true, lost);
        let counted = gone.len() as u64;
        assert_eq!(read(store, Some(only)), (of(only, false, lost), gone, counted));
    }
    let left = (0..count).filter(|number| !lost.contains(number)).collect();
    assert_eq!(read(store, None), (left, lost.to_vec(), 0), "told again, and not counted again");
    assert_eq!(store.usage().damaged, lost.len() as u64);
}

fn notes(dir: &tempfile::TempDir, lane: u16) -> Vec<PathBuf> {
    let paths = fs::read_dir(dir.path().join(format!("lane-{lane:05}"))).unwrap().map(|entry| entry.unwrap().path());
    paths.filter(|path| path.extension().is_some_and(|kind| kind == "notes")).collect()
}

#[test]
fn any_flipped_byte_of_a_live_segment_is_told_to_whom_it_concerns() {
    let dir = scratch();
    drop(filled(&dir, 9));
    let (path, length) = {
        let path = segments(dir.path(), 0)[0].clone();
        let length = fs::metadata(&path).unwrap().len();
        (path, usize::try_from(length).unwrap())
    };
    let places = records_of(&path);
    for at in 0..length {
        let dir = scratch();
        let store = filled(&dir, 9);
        let path = &segments(dir.path(), 0)[0];
        let mut bytes = fs::read(path).unwrap();
        bytes[at] ^= 1 << (at % 8);
        fs::write(path, bytes).unwrap();
        let lost: Vec<u64> = (0..).zip(&places).filter(|(_, place)| place.contains(&at)).map(|(n, _)| n).collect();
        check(&store, 9, &lost);
    }
}

#[test]
fn a_log_cut_off_under_the_live_store_is_told_record_by_record() {
    for cut in [0, 30, 76, 90, 200] {
        let dir = scratch();
        let store = filled(&dir, 30);
        let paths = segments(dir.path(), 0);
        assert!(paths.len() > 3);
        let mut lost = Vec::new();
        let mut first = 0;
        for (at, path) in paths.iter().enumerate() {
            let places = records_of(path);
            if at % 2 == 1 || at + 1 == paths.len() {
                let behind = (first..).zip(&places).filter(|(_, place)| place.end > cut).map(|(number, _)| number);
                lost.extend(behind);
                fs::File::options().write(true).open(path).unwrap().set_len(cut as u64).unwrap();
            }
            first += places.len() as u64;
        }
        check(&store, 30, &lost);
        // It goes on behind.
        let position = store.append(&[numbered_entry(0, ONE, 30)])[0].clone().unwrap();
        assert_eq!((position, store.read(0, 30, None, ALL).unwrap().records.len()), (30, 1));
        store.consume(0, &Marks::up_to(31), 0).unwrap();
        assert_eq!(read(&store, None), (vec![], vec![], 0));
    }
}

#[test]
fn a_missing_segment_is_told_record_by_record() {
    let dir = scratch();
    let store = filled(&dir, 30);
    let paths = segments(dir.path(), 0);
    let (before, gone) = (records_of(&paths[0]).len() as u64, records_of(&paths[1]).len() as u64);
    // One has been read from already.
    store.read(0, before, None, Most { records: 1, bytes: 1 }).unwrap();
    store.read(0, 0, None, Most { records: 1, bytes: 1 }).unwrap();
    fs::remove_file(&paths[1]).unwrap();
    check(&store, 30, &(before..before + gone).collect::<Vec<u64>>());
    // What is consumed of it is not told any more.
    store.consume(0, &Marks { before: 0, groups: &[(TWO, before + gone)] }, 0).unwrap();
    let (read, lost, _) = read(&store, None);
    let due: Vec<u64> = (before..before + gone).filter(|number| group(*number) == ONE).collect();
    let consumed = |number: &u64| group(*number) == TWO && *number < before + gone;
    assert_eq!((&lost, read.len()), (&due, (0..30).filter(|number| !consumed(number)).count() - due.len()));
}

/// With both gone it only counts, whoever comes by first.
#[test]
fn without_a_note_it_is_counted_and_passed_over() {
    for damage in ["cut", "flip", "remove"] {
        let dir = scratch();
        let store = Disk::open(&Config { segment_bytes: 4096, ..config(dir.path()) }).unwrap();
        fill(&store, 9);
        spoil(dir.path(), 0, 4);
        let path = &segments(dir.path(), 0)[0];
        let mut bytes = fs::read(path).unwrap();
        bytes[records_of(path)[1].start] ^= 1;
        fs::write(path, bytes).unwrap();
        let side = &notes(&dir, 0)[0];
        let mut cells = fs::read(side).unwrap();
        match damage {
            "remove" => fs::remove_file(side).unwrap(),
            "cut" => fs::write(side, &cells[..30]).unwrap(),
            _ => {
                [1, 4].into_iter().for_each(|cell| cells[cell * 36 + 20] ^= 4);
                fs::write(side, &cells).unwrap();
            }
        }
        // The header of the fourth tells whose it is, that of the first does not.
        assert_eq!(read(&store, Some(TWO)), (vec![3, 5, 7], vec![], 1), "{damage}");
        assert_eq!(read(&store, Some(ONE)), (vec![0, 2, 6, 8], vec![], 1), "{damage}");
        assert_eq!((read(&store, None).2, store.usage().damaged, store.note(0, 4)), (0, 2, None), "{damage}");
    }
}

/// They are of this life only, and go with their segments.
#[test]
fn notes_go_with_their_segment_and_with_their_life() {
    let dir = scratch();
    let store = filled(&dir, 30);
    assert_eq!(notes(&dir, 0).len(), segments(dir.path(), 0).len());
    store.consume(0, &Marks::up_to(20), 0).unwrap();
    assert_eq!(notes(&dir, 0).len(), segments(dir.path(), 0).len());
    assert_eq!([store.note(0, 0), store.note(0, 25), store.note(0, 30)], [None, Some(note_of(25)), None]);
    drop(store);
    let store = Disk::open(&config(dir.path())).unwrap();
    assert_eq!((notes(&dir, 0), store.note(0, 25)), (vec![], None));
    spoil(dir.path(), 0, 25);
    let (_, lost, damaged) = read(&store, None);
    assert_eq!((lost, damaged), (vec![], 1));
    // Those of this one are not mixed up with what an earlier one may have left.
    assert!(store.append(&[numbered_entry(0, ONE, 30)])[0].is_ok());
    assert_eq!(store.note(0, 30), Some(note_of(30)));
}

/// Appends go on, and count no bytes for what is not there.
#[test]
fn what_cannot_be_noted_is_appended_all_the_same() {
    let fails = [
        (Op::Create, Verdict::Fail(ENOSPC)),
        (Op::Create, Verdict::Fail(EIO)),
        (Op::Write, Verdict::Fail(ENOSPC)),
        (Op::Write, Verdict::Part(20, EIO)),
        (Op::Open, Verdict::Fail(EIO)),
        (Op::Read, Verdict::Fail(EIO)),
    ];
    for (op, verdict) in fails {
        let dir = scratch();
        let judge = move |call: &Call<'_>| {
            let hit = call.op == op && call.path.extension().is_some_and(|kind| kind == "notes");
            if hit { verdict } else { Verdict::Go }
        };
        let store = Disk::open_on(Arc::new(Faulty::new(Arc::new(Real), judge)), &config(dir.path())).unwrap();
        fill(&store, 9);
        spoil(dir.path(), 0, 4);
        assert_eq!(read(&store, None), (vec![0, 1, 2, 3, 5, 6, 7, 8], vec![], 1), "{op:?}");
        let of = |kind: &str| -> u64 {
            let lanes = (0..LANES).flat_map(|lane| fs::read_dir(dir.path().join(format!("lane-{lane:05}"))).unwrap());
            let paths = lanes.map(|entry| entry.unwrap().path());
            let own = paths.filter(|path| path.extension().is_some_and(|extension| extension == kind));
            own.map(|path| path.metadata().unwrap().len()).sum()
        };
        let marks = fs::metadata(dir.path().join("marks")).unwrap().len();
        let noted = if op == Op::Write { 0 } else { of("notes") };
        assert_eq!(store.usage().bytes, marks + of("log") + noted, "{op:?}");
        store.consume(0, &Marks::up_to(9), 0).unwrap();
        drop(store);
        let store = Disk::open(&Config { ..config(dir.path()) }).unwrap();
        assert_eq!((read(&store, None), notes(&dir, 0)), ((vec![], vec![], 0), vec![]), "{op:?}");
    }
}
