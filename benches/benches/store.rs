//! The overflow log on the disk under `target/`: spill and refill of records of 256 B, durable both.
//!
//! Spill is appends as a store thread gathers them, spread over some lanes, and each acknowledged by a sync for each lane. Refill
//! is reads with a durable consume mark each, from a store that was just filled and so mostly from the page cache.

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput};
use overflow::disk::{Config, Disk};
use overflow::seal::{Keys, Sealed};
use overflow::{Entry, Group, Marks, Most, Note, Overflow};
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

fn main() {
    benches::run(&[spill, refill, sealed]);
}

const BODY_BYTES: usize = 256;
const BATCHES_PER_ROUND: u64 = 64;

/// An append of so many records, over so many lanes.
fn spill(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("store/spill");
    group.sample_size(10);
    for (records, lanes) in [(1, 1), (256, 1), (4096, 1), (256, 16), (4096, 16), (4096, 64)] {
        group.throughput(Throughput::Elements(records as u64));
        group.bench_function(BenchmarkId::new(format!("{lanes}_lanes"), records), |bencher| {
            let store = Scratch::new(false);
            let entries = entries(records, lanes);
            bencher.iter_custom(|appends| store.rounds(appends, |appends| spilled(&*store.store, &entries, appends)));
        });
    }
    group.finish();
}

/// A read of at most so many records and the mark behind it, lane by lane in turn.
fn refill(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("store/refill");
    group.sample_size(10);
    for (records, lanes) in [(1024, 1), (4096, 1), (1024, 16), (4096, 16)] {
        group.throughput(Throughput::Elements(records as u64));
        group.bench_function(BenchmarkId::new(format!("{lanes}_lanes"), records), |bencher| {
            let store = Scratch::new(false);
            bencher.iter_custom(|reads| store.rounds(reads, |reads| refilled(&*store.store, lanes, records, reads)));
        });
    }
    group.finish();
}

/// The same with encryption, in one shape.
fn sealed(criterion: &mut Criterion) {
    const RECORDS: usize = 4096;
    const LANES: u16 = 16;
    let mut group = criterion.benchmark_group("store/sealed");
    group.sample_size(10).throughput(Throughput::Elements(RECORDS as u64));
    let (store, entries) = (Scratch::new(true), entries(RECORDS, LANES));
    group.bench_function("spill", |bencher| {
        bencher.iter_custom(|appends| store.rounds(appends, |appends| spilled(&*store.store, &entries, appends)));
    });
    group.bench_function("refill", |bencher| {
        bencher.iter_custom(|reads| store.rounds(reads, |reads| refilled(&*store.store, LANES, RECORDS, reads)));
    });
    group.finish();
}

/// A store, and the directory that goes away with it.
struct Scratch {
    store: Box<dyn Overflow>,
    _dir: tempfile::TempDir,
}

impl Scratch {
    /// Beside the build, as what is meant for temporary files may lie in memory.
    fn new(sealed: bool) -> Self {
        let dir = tempfile::tempdir_in(Path::new(env!("CARGO_TARGET_TMPDIR"))).expect("a directory");
        let disk = Disk::open(&Config::new(dir.path().join("store"))).expect("a store");
        let store: Box<dyn Overflow> = if sealed { Box::new(Sealed::new(disk, keys())) } else { Box::new(disk) };
        Self { store, _dir: dir }
    }

    /// Repeats something a few times at once and then empties the store, which is not part of the time.
    fn rounds(&self, mut times: u64, mut round: impl FnMut(u64) -> Duration) -> Duration {
        let mut sum = Duration::ZERO;
        while times > 0 {
            let now = times.min(BATCHES_PER_ROUND);
            sum += round(now);
            let store = &*self.store;
            (0..store.lanes()).for_each(|lane| consume(store, lane, store.span(lane).next));
            times -= now;
        }
        sum
    }
}

fn keys() -> Keys {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    writeln!(file, "1 {}", "a5".repeat(32)).expect("a key");
    Keys::read(file.path()).expect("keys")
}

fn entries(records: usize, lanes: u16) -> Vec<Entry> {
    let body = Bytes::from(vec![0xa5; BODY_BYTES]);
    (0..lanes)
        .cycle()
        .take(records)
        .map(|lane| Entry { lane, group: Group(0), note: Note::default(), body: body.clone() })
        .collect()
}

fn spilled(store: &dyn Overflow, entries: &[Entry], appends: u64) -> Duration {
    let start = Instant::now();
    for _ in 0..appends {
        assert!(store.append(entries).iter().all(Result::is_ok));
    }
    start.elapsed()
}

fn refilled(store: &dyn Overflow, lanes: u16, records: usize, reads: u64) -> Duration {
    for lane in (0..lanes).cycle().take(usize::try_from(reads).unwrap_or(usize::MAX)) {
        let body = Bytes::from(vec![0xa5; BODY_BYTES]);
        let entries = vec![Entry { lane, group: Group(0), note: Note::default(), body }; records];
        assert!(store.append(&entries).iter().all(Result::is_ok));
    }
    let most = Most { records, bytes: usize::MAX };
    let start = Instant::now();
    for lane in (0..lanes).cycle().take(usize::try_from(reads).unwrap_or(usize::MAX)) {
        let batch = store.read(lane, store.span(lane).first, None, most).expect("it can be read");
        assert_eq!(batch.records.len(), records);
        consume(store, lane, batch.next);
    }
    start.elapsed()
}

fn consume(store: &dyn Overflow, lane: u16, before: u64) {
    store.consume(lane, &Marks::up_to(before), 0).expect("it can be marked");
}
