//! How fast the Kafka store is through its trait, one caller, no concurrency:
//!
//! ```text
//! cargo run --release -p activation-overflow --features kafka --example kafka_rate -- [BATCH [LANES [RECORDS]]]
//! ```
//!
//! Appends batches of 256 B bodies spread over the lanes, each batch acknowledged before the next one; then reads and
//! consumes lane by lane in batches of the same size. The broker (one node, by `scripts/kafka`) does not sync to its disk
//! before it acknowledges.

#[path = "../tests/support/mod.rs"]
#[allow(dead_code, reason = "each program that shares it uses a part of it")]
mod support;

use bytes::Bytes;
use overflow::kafka::{Config, Kafka};
use overflow::{Entry, Marks, Most, Overflow};
use std::time::{Duration, Instant};
use support::broker::{Broker, eventually};

fn main() {
    let mut arguments = std::env::args().skip(1).map(|word| word.parse::<usize>().expect("numbers"));
    let batch = arguments.next().unwrap_or(1024);
    let lanes = arguments.next().map_or(1, |lanes| u16::try_from(lanes).expect("at most 1,024 lanes"));
    let records = arguments.next().unwrap_or(1_000_000);
    let mut broker = Broker::new();
    broker.start();
    let mut config = Config::new(broker.servers(), "rate");
    config.lanes = lanes;
    let store = Kafka::open(config).expect("the settings are right");
    eventually("the store is up", Duration::from_secs(60), || store.trouble().is_none());
    // The first batches find the leaders and warm up the broker.
    append(&store, batch, lanes, records / 10);
    tell("append", batch, lanes, || append(&store, batch, lanes, records));
    tell("read and consume", batch, lanes, || consume(&store, batch, lanes));
    tell("alternating", batch, lanes, || alternate(&store, batch, lanes, records));
    store.close();
}

fn tell(what: &str, batch: usize, lanes: u16, work: impl FnOnce() -> usize) {
    let start = Instant::now();
    let records = work();
    let seconds = start.elapsed().as_secs_f64();
    let rate = records as f64 / seconds;
    println!("{what}: {records} records of 256 B in batches of {batch}, {lanes} lanes: {seconds:.2} s, {rate:.0}/s");
}

fn append(store: &Kafka, batch: usize, lanes: u16, records: usize) -> usize {
    let body = Bytes::from(vec![7; 256]);
    let entries: Vec<Entry> =
        (0..lanes).cycle().take(batch).map(|lane| overflow::contract::entry(lane, &body)).collect();
    let batches = records / batch;
    for _ in 0..batches {
        for result in store.append(&entries) {
            result.expect("the broker runs");
        }
    }
    batches * batch
}

fn consume(store: &Kafka, batch: usize, lanes: u16) -> usize {
    (0..lanes).map(|lane| std::iter::from_fn(|| one_batch(store, lane, batch)).sum::<usize>()).sum()
}

/// As when the router spills and reads back at the same time.
fn alternate(store: &Kafka, batch: usize, lanes: u16, records: usize) -> usize {
    let round = |_| {
        append(store, batch, lanes, batch);
        (0..lanes).filter_map(|lane| one_batch(store, lane, batch)).sum::<usize>()
    };
    (0..records / batch).map(round).sum()
}

fn one_batch(store: &Kafka, lane: u16, most: usize) -> Option<usize> {
    let found = store
        .read(lane, store.span(lane).first, None, Most { records: most, bytes: 64 << 20 })
        .expect("the broker runs");
    let count = found.records.len();
    store.consume(lane, &Marks::up_to(found.next), count as u64).expect("the broker runs");
    (count > 0).then_some(count)
}
