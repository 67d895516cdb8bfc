//! The slab: what it costs to put an entry in and take it out, by the order in which they go.

use criterion::{BatchSize, Criterion, Throughput};
use engine::slab::{Key, Slab};
use std::collections::VecDeque;
use std::hint::black_box;

fn main() {
    benches::run(&[pair, fifo, drain]);
}

/// About as long as an accepted activation.
type Entry = [u64; 13];

const ENTRY: Entry = [7; 13];
const FIFO_DEPTH: usize = 1_000;
const DRAINED: usize = 100_000;

/// One entry in and out, last in, first out: an action at low load. Alone, the slab allocates for it each time.
fn pair(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("slab/pair");
    for (name, resident) in [("alone", 0), ("hot", 1)] {
        let (mut slab, _) = filled(resident);
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let key = slab.insert(black_box(ENTRY));
                slab.remove(key)
            });
        });
    }
    group.finish();
}

/// The oldest out, a new one in, at a constant depth: a queue under steady load.
fn fifo(criterion: &mut Criterion) {
    let (mut slab, mut keys) = filled(FIFO_DEPTH);
    criterion.bench_function(&format!("slab/fifo/{FIFO_DEPTH}"), |bencher| {
        bencher.iter(|| {
            keys.push_back(slab.insert(black_box(ENTRY)));
            keys.pop_front().and_then(|key| slab.remove(key))
        });
    });
}

/// All out, oldest first, its memory given back on the way: a backlog that is worked off.
fn drain(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("slab/drain");
    group.throughput(Throughput::Elements(DRAINED as u64));
    group.bench_function(DRAINED.to_string(), |bencher| {
        bencher.iter_batched(
            || filled(DRAINED),
            |(mut slab, keys)| {
                keys.iter().for_each(|key| _ = black_box(slab.remove(*key)));
                (slab, keys)
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

fn filled(depth: usize) -> (Slab<Entry>, VecDeque<Key>) {
    let mut slab = Slab::new();
    let keys = (0..depth).map(|_| slab.insert(ENTRY)).collect();
    (slab, keys)
}
