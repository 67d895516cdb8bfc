//! Damage to a small log: every single byte and every prefix of each of its files, blocks, whole files, and drawn mixtures.
//!
//! Nothing panics, nothing is returned that was not appended, only what is touched is lost, what is lost is counted, and
//! nothing below a mark is read again.

use crate::small::{LANES, Lane, Small, config, open, plain, read, records_of, same, segments};
use overflow::contract::{Draw, append};
use overflow::disk::{Config, Disk, OpenError};
use overflow::{Marks, Overflow};
use std::fs;
use std::path::Path;

/// Mixtures drawn. `DAMAGE_SEEDS` in the environment asks for more.
const SEEDS: u64 = 300;

/// What is left of a lane after damage to `lost` of its pending records.
fn check_lane(small: &Small, store: &dyn Overflow, lane: u16, lost: &[u64]) {
    let batch = read(store, lane);
    let mut expected = small.lanes[usize::from(lane)].pending();
    expected.retain(|(position, _)| !lost.contains(position));
    assert_eq!(plain(&batch), expected, "lane {lane}, lost {lost:?}");
}

/// Goes on with a damaged store: appends go behind, nothing else changes, now and after opening again.
fn check_goes_on(small: &Small, dir: &Path) {
    let before: Vec<_> = (0..LANES).map(|lane| plain(&read(&open(dir), lane))).collect();
    for round in 0..2 {
        let store = open(dir);
        for (lane, before) in (0..).zip(&before) {
            let kept = small.lanes[usize::from(lane)].pending();
            let position = append(&store, lane, [[round; 5]])[0];
            assert!(position > kept.last().unwrap().0 || before.len() < kept.len(), "the end may have been cut off");
            let now = plain(&read(&store, lane));
            assert!(now.starts_with(before));
            assert_eq!(now.len(), before.len() + 1 + usize::from(round));
        }
    }
}

/// The positions of the pending records of a lane that lie in `path` where `hit` says so, given their places there.
fn touched(small: &Small, lane: u16, path: &Path, hit: impl Fn(std::ops::Range<usize>) -> bool) -> Vec<u64> {
    let pending: Vec<u64> = small.lanes[usize::from(lane)].pending().iter().map(|(position, _)| *position).collect();
    above_mark(small, lane, path, hit).into_iter().filter(|position| pending.contains(position)).collect()
}

/// The same, with those that their group has consumed though they are above the lane's mark. Where not even a header tells whose
/// they are, they count as damaged.
fn above_mark(small: &Small, lane: u16, path: &Path, hit: impl Fn(std::ops::Range<usize>) -> bool) -> Vec<u64> {
    let before: usize =
        small.segments(lane).iter().take_while(|other| *other != path).map(|other| records_of(other).len()).sum();
    let kept = &small.lanes[usize::from(lane)];
    // Consumed segments are gone, so count from the end.
    let all: usize = small.segments(lane).iter().map(|other| records_of(other).len()).sum();
    let first = kept.records.len() - all + before;
    let places = records_of(path).into_iter().zip(&kept.records[first..]);
    places
        .filter(|(place, (position, _))| hit(place.clone()) && *position >= kept.mark)
        .map(|(_, (position, _))| *position)
        .collect()
}

const HEADER: usize = 32;

#[test]
fn the_small_log_is_what_it_should_be() {
    let small = Small::new();
    for lane in 0..LANES {
        assert!(small.segments(lane).len() >= 4, "{:?}", small.segments(lane));
        check_lane(&small, &open(small.path()), lane, &[]);
        let Lane { records, mark, ahead } = &small.lanes[usize::from(lane)];
        assert!(*ahead > *mark && records.iter().any(|(position, _)| position > ahead));
    }
}

#[test]
fn any_flipped_byte_of_a_segment_loses_the_record_it_is_in() {
    let small = Small::new();
    for path in small.segments(1) {
        for at in 0..fs::read(&path).unwrap().len() {
            for mask in [1 << (at % 8), 0xff] {
                let copy = small.copy();
                let damaged = same(&path, small.path(), copy.path());
                let mut bytes = fs::read(&damaged).unwrap();
                bytes[at] ^= mask;
                fs::write(&damaged, bytes).unwrap();

                let lost = touched(&small, 1, &path, |place| place.contains(&at));
                let store = open(copy.path());
                check_lane(&small, &store, 0, &[]);
                check_lane(&small, &store, 1, &lost);
                let header = above_mark(&small, 1, &path, |place| (place.start..place.start + HEADER).contains(&at));
                let counted = lost.len().max(header.len()) as u64;
                assert_eq!(store.usage().damaged, counted, "{path:?} at {at}");
                drop(store);
                if at % 7 == 0 {
                    check_goes_on(&small, copy.path());
                }
            }
        }
    }
}

#[test]
fn any_prefix_of_a_segment_keeps_the_records_in_it() {
    let small = Small::new();
    let paths = small.segments(1);
    for path in &paths {
        for end in 0..fs::read(path).unwrap().len() {
            let copy = small.copy();
            let damaged = same(path, small.path(), copy.path());
            fs::File::options().write(true).open(&damaged).unwrap().set_len(end as u64).unwrap();

            let lost = touched(&small, 1, path, |place| place.end > end);
            let store = open(copy.path());
            check_lane(&small, &store, 0, &[]);
            check_lane(&small, &store, 1, &lost);
            if path != paths.last().unwrap() {
                // At the very end it cannot be told from what a crash leaves.
                let counted = above_mark(&small, 1, path, |place| place.end > end).len() as u64;
                assert_eq!(store.usage().damaged, counted, "{path:?} up to {end}");
            }
            drop(store);
            if end % 7 == 0 {
                check_goes_on(&small, copy.path());
            }
        }
    }
}

#[test]
fn any_flipped_byte_of_the_marks_changes_nothing() {
    let small = Small::new();
    let length = fs::read(small.path().join("marks")).unwrap().len();
    for at in (0..length).filter(|at| at % 4096 < 90) {
        for mask in [1 << (at % 8), 0xff] {
            let copy = small.copy();
            let path = copy.path().join("marks");
            let mut bytes = fs::read(&path).unwrap();
            bytes[at] ^= mask;
            fs::write(&path, bytes).unwrap();
            let store = open(copy.path());
            (0..LANES).for_each(|lane| check_lane(&small, &store, lane, &[]));
            assert_eq!(store.usage().damaged, 0);
        }
    }
}

#[test]
fn any_prefix_of_the_marks_reads_nothing_again() {
    let small = Small::new();
    let length = fs::read(small.path().join("marks")).unwrap().len();
    for end in (0..length).filter(|end| end % 4096 < 90) {
        let copy = small.copy();
        let path = copy.path().join("marks");
        fs::File::options().write(true).open(&path).unwrap().set_len(end as u64).unwrap();
        check_marks_lost_or_kept(&small, copy.path());
    }
}

/// Each lane has all that was pending, or nothing, and then its segments are still there.
fn check_marks_lost_or_kept(small: &Small, dir: &Path) {
    let is_kept = |path: &std::path::PathBuf| path.extension().is_some_and(|kind| kind == "log" || kind == "aside");
    let files = |lane| fs::read_dir(dir.join(format!("lane-{lane:05}"))).unwrap().map(|entry| entry.unwrap().path());
    let segments = |lane| files(lane).filter(is_kept).count();
    let before: Vec<usize> = (0..LANES).map(segments).collect();
    let store = open(dir);
    for lane in 0..LANES {
        let kept = &small.lanes[usize::from(lane)];
        let left = plain(&read(&store, lane));
        if left != kept.pending() {
            assert_eq!(left, []);
            assert!(store.usage().damaged >= kept.pending().len() as u64);
            assert_eq!(segments(lane), before[usize::from(lane)]);
        }
        let position = append(&store, lane, ["new"])[0];
        assert!(position > kept.records.last().unwrap().0);
    }
    drop(store);
    let store = open(dir);
    for lane in 0..LANES {
        assert_eq!(plain(&read(&store, lane)).last().unwrap().1, b"new");
        store.consume(lane, &Marks::up_to(store.span(lane).next), 1).unwrap();
        assert_eq!(plain(&read(&store, lane)), []);
    }
}

#[test]
fn without_marks_nothing_is_handed_out_and_all_is_kept() {
    let small = Small::new();
    fs::remove_file(small.path().join("marks")).unwrap();
    check_marks_lost_or_kept(&small, small.path());
}

#[test]
fn a_lost_block_loses_the_records_in_it() {
    let small = Small::new();
    for path in small.segments(0) {
        let length = fs::read(&path).unwrap().len();
        for begin in (0..length).step_by(40) {
            let copy = small.copy();
            let damaged = same(&path, small.path(), copy.path());
            let mut bytes = fs::read(&damaged).unwrap();
            let end = (begin + 150).min(length);
            bytes[begin..end].fill(0);
            fs::write(&damaged, bytes).unwrap();

            let lost = touched(&small, 0, &path, |place| place.start < end && place.end > begin);
            let store = open(copy.path());
            check_lane(&small, &store, 0, &lost);
            let damaged = store.usage().damaged;
            let all = above_mark(&small, 0, &path, |place| place.start < end && place.end > begin).len() as u64;
            assert!(damaged <= all && (damaged > 0 || lost.is_empty()), "{damaged} of {lost:?}, {all}");
            drop(store);
            check_goes_on(&small, copy.path());
        }
    }
}

#[test]
fn a_missing_segment_loses_its_records_and_each_is_counted() {
    let small = Small::new();
    let paths = small.segments(0);
    for path in &paths[..paths.len() - 1] {
        let copy = small.copy();
        fs::remove_file(same(path, small.path(), copy.path())).unwrap();
        let lost = touched(&small, 0, path, |_| true);
        let store = open(copy.path());
        check_lane(&small, &store, 0, &lost);
        check_lane(&small, &store, 1, &[]);
        assert_eq!(store.usage().damaged, above_mark(&small, 0, path, |_| true).len() as u64, "{path:?}");
        drop(store);
        check_goes_on(&small, copy.path());
    }
}

#[test]
fn a_segment_in_the_wrong_place_is_not_read() {
    let small = Small::new();
    let (own, other) = (small.segments(0), small.segments(1));
    let target = own[1].clone();
    fs::copy(&other[1], &target).unwrap();
    let store = open(small.path());
    assert!(store.usage().damaged > 0);
    check_lane(&small, &store, 1, &[]);
    let bodies: Vec<_> = small.lanes[0].pending();
    let mut from = store.span(0).first;
    while let Err(overflow::ReadError::Gone { first, .. }) | Ok(overflow::Batch { next: first, .. }) =
        store.read(0, from, None, overflow::contract::ALL).inspect(|batch| {
            plain(batch).iter().for_each(|record| assert!(bodies.contains(record), "{record:?}"));
        })
    {
        if first == from {
            break;
        }
        from = first;
    }
    assert!(target.exists(), "what is not understood is not deleted");
}

#[test]
fn a_store_of_another_name_is_refused() {
    let (one, two) = (Small::new(), Small::new());
    let open = |dir: &Path| Disk::open(&config(dir)).map(drop).unwrap_err();
    for name in ["store", "store.copy"] {
        fs::copy(two.path().join(name), one.path().join(name)).unwrap();
    }
    assert!(matches!(open(one.path()), OpenError::OtherStore { .. }));
    // With the other one's marks as well, it is the other one, and none of these segments is its own.
    fs::copy(two.path().join("marks"), one.path().join("marks")).unwrap();
    let store = crate::small::open(one.path());
    assert!(store.usage().damaged > 0);
    (0..LANES).for_each(|lane| assert_eq!(plain(&read(&store, lane)), []));
    (0..LANES).for_each(|lane| assert!(!segments(one.path(), lane).is_empty()));
}

#[test]
fn who_the_store_is_survives_in_one_of_two_files() {
    let small = Small::new();
    for name in ["store", "store.copy"] {
        fs::write(small.path().join(name), b"nonsense").unwrap();
        check_lane(&small, &open(small.path()), 0, &[]);
        fs::remove_file(small.path().join(name)).unwrap();
        check_lane(&small, &open(small.path()), 0, &[]);
    }
    for name in ["store", "store.copy"] {
        fs::write(small.path().join(name), b"nonsense").unwrap();
    }
    assert!(matches!(Disk::open(&config(small.path())), Err(OpenError::NoIdentity { .. })));
    for name in ["store", "store.copy"] {
        fs::remove_file(small.path().join(name)).unwrap();
    }
    assert!(matches!(Disk::open(&config(small.path())), Err(OpenError::NoIdentity { .. })));
}

#[test]
fn a_store_of_another_format_is_refused_by_name() {
    let small = Small::new();
    let checked = |text: String| format!("{text}checksum {:08x}\n", crc32fast::hash(text.as_bytes()));
    for (version, names) in [(1, &["store", "store.copy"][..]), (3, &["store", "store.copy"]), (1, &["store.copy"])] {
        let copy = small.copy();
        for name in names {
            let text = fs::read_to_string(copy.path().join(name)).unwrap();
            let (text, _) = text.split_once("checksum").unwrap();
            let text = text.replacen("activation-overflow 2", &format!("activation-overflow {version}"), 1);
            fs::write(copy.path().join(name), checked(text)).unwrap();
        }
        let error = Disk::open(&config(copy.path())).unwrap_err();
        let words = format!("format {version}, this program knows 2 only");
        assert!(
            matches!(error, OpenError::OtherFormat { known: 2, .. }) && error.to_string().contains(&words),
            "{error}"
        );
    }
    // As it is said of a single segment.
    let path = &small.segments(0)[0];
    let mut bytes = fs::read(path).unwrap();
    bytes[8] = 1;
    let checksum = crc32fast::hash(&bytes[..72]);
    bytes[72..76].copy_from_slice(&checksum.to_le_bytes());
    fs::write(path, bytes).unwrap();
    let error = Disk::open(&config(small.path())).unwrap_err();
    assert!(matches!(&error, OpenError::OtherFormat { version: 1, path: named, .. } if named == path), "{error}");
}

#[test]
fn foreign_files_are_left_alone() {
    let small = Small::new();
    let strange =
        [small.path().join("README"), small.path().join("lane-00000/core"), small.path().join("lane-00001/1.log")];
    for path in &strange {
        fs::write(path, b"not ours").unwrap();
    }
    let store = open(small.path());
    (0..LANES).for_each(|lane| check_lane(&small, &store, lane, &[]));
    assert!(strange.iter().all(|path| path.exists()));

    let other = crate::small::scratch();
    fs::write(other.path().join("precious"), b"not ours").unwrap();
    assert!(matches!(Disk::open(&config(other.path())), Err(OpenError::Foreign { name, .. }) if name == "precious"));
}

/// Longer than what is read at a time: the next record is looked for over many windows, and begins anywhere in one.
#[test]
fn the_next_record_is_found_behind_long_damage() {
    const LENGTHS: [usize; 6] = [700_000, 1_300_000, 10, 262_000, 262_144, 300_001];
    let config = |dir: &Path| Config { lanes: 1, ..Config::new(dir) };
    let bodies: Vec<Vec<u8>> = (1..).zip(LENGTHS).map(|(byte, length)| vec![byte; length]).collect();
    for (lost, shift) in [(0, 0), (1, 5), (3, 0), (3, 1), (4, 20), (4, 23)] {
        let dir = crate::small::scratch();
        append(&Disk::open(&config(dir.path())).unwrap(), 0, &bodies);
        let path = &segments(dir.path(), 0)[0];
        let place = records_of(path)[lost].clone();
        let mut bytes = fs::read(path).unwrap();
        // Its header, and in its body the beginnings of many headers.
        bytes[place.start + shift] ^= 1;
        let body = &mut bytes[place.start + HEADER..place.end];
        body.chunks_exact_mut(1000).for_each(|part| part[..4].copy_from_slice(b"\xF5rec"));
        fs::write(path, bytes).unwrap();
        let store = Disk::open(&config(dir.path())).unwrap();
        let mut expected = bodies.clone();
        expected.remove(lost);
        let read: Vec<Vec<u8>> = plain(&read(&store, 0)).into_iter().map(|(_, body)| body).collect();
        assert!(read == expected, "without {lost}: {:?}", read.iter().map(Vec::len).collect::<Vec<_>>());
        assert_eq!(store.usage().damaged, 1);
    }
}

/// Blocks overwritten, files cut, removed and exchanged, all at once; not the marks, whose own tests are above.
#[test]
fn no_mixture_of_damages_brings_up_what_is_not_there() {
    let small = Small::new();
    let seeds = std::env::var("DAMAGE_SEEDS").map_or(SEEDS, |seeds| seeds.parse().unwrap());
    for seed in 1..=seeds {
        let mut draw = Draw(seed * 0x9e37_79b9);
        let copy = small.copy();
        for _ in 0..=draw.below(3) {
            damage(&mut draw, copy.path());
        }
        let store = open(copy.path());
        for lane in 0..LANES {
            let mut from = 0;
            loop {
                let next = match store.read(lane, from, None, overflow::contract::ALL) {
                    Ok(batch) => {
                        let pending = small.lanes[usize::from(lane)].pending();
                        plain(&batch)
                            .iter()
                            .for_each(|record| assert!(pending.contains(record), "seed {seed}: {record:?}"));
                        assert!(batch.records.is_sorted_by(|one, next| one.position < next.position));
                        batch.next
                    }
                    Err(overflow::ReadError::Gone { first, .. }) => first,
                    Err(error) => panic!("seed {seed}: {error}"),
                };
                assert!(next >= from);
                if next == from {
                    break;
                }
                from = next;
            }
            append(&store, lane, ["new"]);
        }
        drop(store);
        open(copy.path());
    }
}

fn damage(draw: &mut Draw, dir: &Path) {
    let lane = u16::try_from(draw.below(2)).unwrap();
    let paths = segments(dir, lane);
    let Some(path) = paths.get(usize::try_from(draw.below(paths.len().max(1) as u64)).unwrap()) else { return };
    let mut bytes = fs::read(path).unwrap();
    let at = usize::try_from(draw.below(bytes.len() as u64 + 1)).unwrap();
    match draw.below(6) {
        0 => bytes.truncate(at),
        1 => return fs::remove_file(path).unwrap(),
        2 => return drop(fs::copy(path, &paths[0])),
        3 => bytes.extend_from_within(at..),
        4 => bytes.rotate_left(at),
        _ => {
            let end = bytes.len().min(at + usize::try_from(draw.below(200)).unwrap());
            bytes[at..end].iter_mut().for_each(|byte| *byte = u8::try_from(draw.below(256)).unwrap());
        }
    }
    fs::write(path, bytes).unwrap();
}
