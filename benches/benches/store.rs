//! The overflow log on the disk under `target/`: spill and refill of records of 256 B, durable both.
//!
//! Spill is appends as a store thread gathers them, spread over some lanes, and each acknowledged by a sync for each lane. Refill
//! is reads with a durable consume mark each, from a store that was just filled and so mostly from the page cache.

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput};
use overflow::disk::{Config, Disk};
use overflow::{Entry, Most, Overflow};
use std::path::Path;
use std::time::{Duration, Instant};

fn main() {
    benches::run(&[spill, refill]);
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
            let store = Scratch::new();
            let entries = entries(records, lanes);
            bencher.iter_custom(|appends| store.rounds(appends, |appends| spilled(&store.disk, &entries, appends)));
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
            let store = Scratch::new();
            bencher.iter_custom(|reads| store.rounds(reads, |reads| refilled(&store.disk, lanes, records, reads)));
        });
    }
    group.finish();
}

/// A store, and the directory that goes away with it.
struct Scratch {
    disk: Disk,
    _dir: tempfile::TempDir,
}

impl Scratch {
    /// Beside the build, as what is meant for temporary files may lie in memory.
    fn new() -> Self {
        let dir = tempfile::tempdir_in(Path::new(env!("CARGO_TARGET_TMPDIR"))).expect("a directory");
        Self { disk: Disk::open(&Config::new(dir.path())).expect("a store"), _dir: dir }
    }

    /// Repeats something a few times at once and then empties the store, which is not part of the time.
    fn rounds(&self, mut times: u64, mut round: impl FnMut(u64) -> Duration) -> Duration {
        let mut sum = Duration::ZERO;
        while times > 0 {
            let now = times.min(BATCHES_PER_ROUND);
            sum += round(now);
            (0..self.disk.lanes()).for_each(|lane| consume(&self.disk, lane, self.disk.span(lane).next));
            times -= now;
        }
        sum
    }
}

fn entries(records: usize, lanes: u16) -> Vec<Entry> {
    let body = Bytes::from(vec![0xa5; BODY_BYTES]);
    (0..lanes).cycle().take(records).map(|lane| Entry { lane, body: body.clone() }).collect()
}

fn spilled(disk: &Disk, entries: &[Entry], appends: u64) -> Duration {
    let start = Instant::now();
    for _ in 0..appends {
        assert!(disk.append(entries).iter().all(Result::is_ok));
    }
    start.elapsed()
}

fn refilled(disk: &Disk, lanes: u16, records: usize, reads: u64) -> Duration {
    for lane in (0..lanes).cycle().take(usize::try_from(reads).unwrap_or(usize::MAX)) {
        let body = Bytes::from(vec![0xa5; BODY_BYTES]);
        let entries = vec![Entry { lane, body }; records];
        assert!(disk.append(&entries).iter().all(Result::is_ok));
    }
    let most = Most { records, bytes: usize::MAX };
    let start = Instant::now();
    for lane in (0..lanes).cycle().take(usize::try_from(reads).unwrap_or(usize::MAX)) {
        let batch = disk.read(lane, disk.span(lane).first, most).expect("it can be read");
        assert_eq!(batch.records.len(), records);
        consume(disk, lane, batch.next);
    }
    start.elapsed()
}

fn consume(disk: &Disk, lane: u16, before: u64) {
    disk.consume(lane, before, 0).expect("it can be marked");
}
