//! A small log on disk, for tests that damage it, and what is expected of what is left.

use overflow::contract::{ALL, entry, read_all};
use overflow::disk::{Config, Disk};
use overflow::{Batch, Entry, Group, Marks, Overflow};
use std::fs;
use std::path::{Path, PathBuf};

pub(crate) const LANES: u16 = 2;

/// What was put into a log: by lane, positions and bodies; below the marks consumed ones.
pub(crate) struct Small {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) lanes: Vec<Lane>,
}

pub(crate) struct Lane {
    pub(crate) records: Vec<(u64, Vec<u8>)>,
    pub(crate) mark: u64,
    /// Of [`AHEAD`], above the lane's.
    pub(crate) ahead: u64,
}

/// The group of each third record of a lane, which is consumed further than the others.
pub(crate) const AHEAD: Group = Group(77);

impl Lane {
    /// What is to be read.
    pub(crate) fn pending(&self) -> Vec<(u64, Vec<u8>)> {
        let own = |index: usize| if group(index) == AHEAD { self.ahead.max(self.mark) } else { self.mark };
        let all = self.records.iter().enumerate();
        all.filter(|(index, (position, _))| *position >= own(*index)).map(|(_, record)| record.clone()).collect()
    }
}

fn group(index: usize) -> Group {
    if index % 3 == 1 { AHEAD } else { Group(index as u64 % 2) }
}

pub(crate) fn config(dir: &Path) -> Config {
    Config { lanes: LANES, segment_bytes: 300, record_bytes_max: 4096, ..Config::new(dir) }
}

pub(crate) fn open(dir: &Path) -> Disk {
    Disk::open(&config(dir)).unwrap()
}

impl Small {
    /// Several segments in each lane, of three runs that ended in crashes; the first records are consumed.
    pub(crate) fn new() -> Self {
        let dir = scratch();
        let mut lanes: Vec<Lane> = (0..LANES).map(|_| Lane { records: Vec::new(), mark: 0, ahead: 0 }).collect();
        for run in 0..3u8 {
            let store = open(dir.path());
            for (lane, kept) in (0..).zip(&mut lanes) {
                for part in 0..3u8 {
                    let bodies: Vec<Vec<u8>> =
                        (0..3).map(|n| vec![16 * run + 4 * part + n; usize::from(n * 13 + run)]).collect();
                    let first = kept.records.len();
                    let entry = |(index, body): (usize, &Vec<u8>)| Entry { group: group(index), ..entry(lane, body) };
                    let entries: Vec<Entry> = (first..).zip(&bodies).map(entry).collect();
                    let positions = store.append(&entries).into_iter().map(|result| result.unwrap());
                    kept.records.extend(positions.zip(bodies));
                }
                if run < 2 {
                    let at = usize::from(3 * run + 2);
                    (kept.mark, kept.ahead) = (kept.records[at].0, kept.records[at + 5].0);
                    store.consume(lane, &Marks { before: kept.mark, groups: &[(AHEAD, kept.ahead)] }, 3).unwrap();
                }
            }
        }
        Self { dir, lanes }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A copy to be damaged.
    pub(crate) fn copy(&self) -> tempfile::TempDir {
        let copy = scratch();
        copy_all(self.path(), copy.path());
        copy
    }

    /// All segment files of a lane, oldest first.
    pub(crate) fn segments(&self, lane: u16) -> Vec<PathBuf> {
        segments(self.path(), lane)
    }
}

/// A directory, in memory where there is a file system for that: thousands of stores are opened, and every sync counts.
pub(crate) fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

pub(crate) fn segments(dir: &Path, lane: u16) -> Vec<PathBuf> {
    let lane = dir.join(format!("lane-{lane:05}"));
    let mut paths: Vec<PathBuf> = fs::read_dir(lane).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
    paths.sort();
    paths
}

/// Where the records of a whole segment file lie.
pub(crate) fn records_of(path: &Path) -> Vec<std::ops::Range<usize>> {
    const SEGMENT_HEADER: usize = 76;
    const RECORD_HEADER: usize = 32;
    let bytes = fs::read(path).unwrap();
    let mut ranges = Vec::new();
    let mut at = SEGMENT_HEADER;
    while at < bytes.len() {
        let length = u32::from_le_bytes(bytes[at + 4..at + 8].try_into().unwrap());
        let end = at + RECORD_HEADER + usize::try_from(length).unwrap();
        ranges.push(at..end);
        at = end;
    }
    ranges
}

/// Flips a byte in the body of a record, or, if that is empty, in its header.
pub(crate) fn spoil(dir: &Path, lane: u16, position: u64) {
    for path in segments(dir, lane) {
        let mut bytes = fs::read(&path).unwrap();
        let is_it = |range: &std::ops::Range<usize>| bytes[range.start + 8..range.start + 16] == position.to_le_bytes();
        if let Some(range) = records_of(&path).into_iter().find(is_it) {
            bytes[range.end - 1] ^= 1;
            return fs::write(path, bytes).unwrap();
        }
    }
    panic!("no record at {position} in lane {lane}");
}

/// The same file in another copy of the directory.
pub(crate) fn same(path: &Path, from: &Path, to: &Path) -> PathBuf {
    to.join(path.strip_prefix(from).unwrap())
}

fn copy_all(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir_all(&target).unwrap();
            copy_all(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// All that a lane still has, as it comes in small reads and in one; both must agree.
pub(crate) fn read(store: &dyn Overflow, lane: u16) -> Batch {
    let small = overflow::Most { records: 2, bytes: 100 };
    let first = store.span(lane).first;
    let (once, again) = (read_all(store, lane, first, ALL), read_all(store, lane, first, small));
    assert_eq!((&once.records, &once.lost, once.next, 0), (&again.records, &again.lost, again.next, again.damaged));
    once
}

pub(crate) fn plain(batch: &Batch) -> Vec<(u64, Vec<u8>)> {
    batch.records.iter().map(|record| (record.position, record.body.to_vec())).collect()
}
