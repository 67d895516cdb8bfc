//! Appends and reads go on while the broker is killed and started again; at the end, what was acknowledged is compared with what
//! was handed out. The reader marks first and uses then, as the store's contract says.

use super::broker::{Broker, eventually};
use bytes::Bytes;
use overflow::kafka::{Config, Kafka};
use overflow::{AppendError, Entry, Marks, Most, Overflow};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What was counted.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Tally {
    pub(crate) acknowledged: u64,
    /// Appends whose end could not be learnt: may be read, need not.
    pub(crate) unknown: u64,
    pub(crate) refused: u64,
    pub(crate) used: u64,
    /// Acknowledged and never used.
    pub(crate) lost: u64,
    /// Used more than once.
    pub(crate) twice: u64,
    /// Used though they had been refused.
    pub(crate) never_taken: u64,
    /// Used behind a later one of their lane.
    pub(crate) out_of_order: u64,
}

/// What happened to one record, in words of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Stored,
    Unknown,
    Refused,
}

#[derive(Default)]
struct History {
    /// By lane and number.
    fates: Mutex<BTreeMap<(u16, u64), Fate>>,
    /// In the order of use.
    uses: Mutex<Vec<(u16, u64)>>,
    stored: AtomicU64,
    done: AtomicBool,
}

/// Kills the broker `cycles` times, each after some hundreds of records.
pub(crate) fn run(broker: &mut Broker, topic: &str, cycles: u32, say: &dyn Fn(&str)) -> Tally {
    let config = config(broker, topic);
    let store = Kafka::open(config.clone()).expect("the settings are right");
    wait_for(&store);
    let history = History::default();
    std::thread::scope(|threads| {
        let writer = threads.spawn(|| write(&store, &history));
        let reader = threads.spawn(|| read(&store, &history));
        for cycle in 1..=cycles {
            one_cycle(broker, &history, cycle);
            say(&format!("cycle {cycle}: {:?}", history.tally()));
        }
        history.done.store(true, Ordering::Relaxed);
        writer.join().expect("the writer does not panic");
        let mut from = reader.join().expect("the reader does not panic");
        wait_for(&store);
        drain(&store, &history, &mut from);
    });
    // As after a kill -9 of the router: nothing is said to the broker, and another one comes. There is nothing left for it.
    let _crashed = std::mem::ManuallyDrop::new(store);
    let again = Kafka::open(config).expect("the settings are right");
    wait_for(&again);
    drain(&again, &history, &mut [0; LANES as usize]);
    history.tally()
}

fn config(broker: &Broker, topic: &str) -> Config {
    let mut config = Config::new(broker.servers(), topic);
    config.lanes = LANES;
    config.timeout = Duration::from_secs(5);
    config
}

fn wait_for(store: &Kafka) {
    eventually("the store is up", Duration::from_secs(60), || store.trouble().is_none());
}

/// The moment of the kill differs from cycle to cycle.
fn one_cycle(broker: &mut Broker, history: &History, cycle: u32) {
    let goal = history.stored.load(Ordering::Relaxed) + 200 + u64::from(cycle) * 7919 % 2000;
    eventually("records are stored", Duration::from_secs(90), || history.stored.load(Ordering::Relaxed) >= goal);
    broker.kill();
    broker.start();
}

fn write(store: &Kafka, history: &History) {
    let mut number = 0;
    while !history.done.load(Ordering::Relaxed) {
        let entries: Vec<Entry> = (0..BATCH).map(|index| entry(number + index)).collect();
        let results = store.append(&entries);
        let mut fates = history.fates.lock();
        for (index, result) in (0..).zip(results) {
            fates.insert((lane(number + index), number + index), fate(&result));
            history.stored.fetch_add(u64::from(result.is_ok()), Ordering::Relaxed);
        }
        drop(fates);
        number += BATCH;
        pause(store);
    }
}

/// Not to spin while everything is refused.
fn pause(store: &Kafka) {
    if store.trouble().is_some() {
        std::thread::park_timeout(Duration::from_millis(50));
    }
}

fn fate(result: &Result<u64, AppendError>) -> Fate {
    match result {
        Ok(_) => Fate::Stored,
        Err(AppendError::Unknown(_)) => Fate::Unknown,
        Err(_) => Fate::Refused,
    }
}

/// Where it is in each lane at the end.
fn read(store: &Kafka, history: &History) -> Vec<u64> {
    let mut from = vec![0; usize::from(LANES)];
    while !history.done.load(Ordering::Relaxed) {
        for lane in 0..LANES {
            use_batch(store, history, lane, &mut from);
        }
        pause(store);
    }
    from
}

/// Until all lanes are empty.
fn drain(store: &Kafka, history: &History, from: &mut [u64]) {
    let until = Instant::now() + Duration::from_secs(120);
    while (0..LANES).any(|lane| store.span(lane).first < store.span(lane).next) {
        assert!(Instant::now() < until, "lanes are not empty after two minutes: {:?}", store.trouble());
        for lane in 0..LANES {
            use_batch(store, history, lane, from);
        }
    }
}

/// Reads, marks, and only if the mark stands uses.
fn use_batch(store: &Kafka, history: &History, lane: u16, from: &mut [u64]) {
    let place = &mut from[usize::from(lane)];
    *place = (*place).max(store.span(lane).first);
    let Ok(batch) = store.read(lane, *place, None, Most { records: 500, bytes: 1 << 20 }) else { return };
    let handed = batch.records.len() as u64;
    if handed == 0 || store.consume(lane, &Marks::up_to(batch.next), handed).is_err() {
        return;
    }
    *place = batch.next;
    let numbers = batch.records.iter().map(|record| (lane, number(&record.body)));
    history.uses.lock().extend(numbers);
}

impl History {
    fn tally(&self) -> Tally {
        let (fates, uses) = (self.fates.lock(), self.uses.lock());
        let count = |fate| fates.values().filter(|found| **found == fate).count() as u64;
        let mut tally = Tally {
            acknowledged: count(Fate::Stored),
            unknown: count(Fate::Unknown),
            refused: count(Fate::Refused),
            used: uses.len() as u64,
            ..Tally::default()
        };
        let (mut seen, mut last) = (BTreeSet::new(), BTreeMap::new());
        for record in uses.iter() {
            tally.twice += u64::from(!seen.insert(*record));
            tally.never_taken += u64::from(fates.get(record) == Some(&Fate::Refused));
            tally.out_of_order += u64::from(last.insert(record.0, record.1).is_some_and(|before| before > record.1));
        }
        tally.lost =
            fates.iter().filter(|(record, fate)| **fate == Fate::Stored && !seen.contains(record)).count() as u64;
        tally
    }
}

fn entry(number: u64) -> Entry {
    let mut body = vec![0; BODY_BYTES];
    body[..8].copy_from_slice(&number.to_be_bytes());
    overflow::contract::entry(lane(number), body)
}

fn number(body: &Bytes) -> u64 {
    u64::from_be_bytes(body[..8].try_into().expect("8 bytes"))
}

/// Runs of ten, so that a batch has several records of each lane.
fn lane(number: u64) -> u16 {
    u16::try_from(number / 10 % u64::from(LANES)).expect("below the number of lanes")
}

const LANES: u16 = 4;
const BATCH: u64 = 64;
const BODY_BYTES: usize = 256;
