//! Power failures and failing syncs, on a file system that keeps what was synced and draws the rest.
//!
//! Over many drawn runs: what was acknowledged is there, but for the batches being marked; what was handed out is never read
//! again; nothing is read that was not appended, and nothing out of order.

use crate::forgetful::Forgetful;
use crate::small::LANES;
use overflow::contract::{Draw, entry};
use overflow::disk::{Config, Disk};
use overflow::{AppendError, Entry, Group, Marks, Most, Overflow, ReadError};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// `POWER_SEEDS` in the environment asks for more.
const SEEDS: u64 = 150;
const LIVES: u64 = 6;

/// What is known of a lane.
#[derive(Debug, Default)]
struct Lane {
    /// Acknowledged and not handed out.
    durable: BTreeSet<u64>,
    /// Perhaps there: not acknowledged, and not refused for good.
    open: BTreeSet<u64>,
    /// Handed out, refused, or lost with a mark: never to be read.
    over: BTreeSet<u64>,
    /// Of marks that failed since the last one that did not: lost if they took hold.
    marking: BTreeSet<u64>,
}

#[test]
fn what_was_acknowledged_survives_and_nothing_comes_twice() {
    let seeds = std::env::var("POWER_SEEDS").map_or(SEEDS, |seeds| seeds.parse().unwrap());
    (1..=seeds).for_each(run);
}

fn run(seed: u64) {
    let mut draw = Draw(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let files = Forgetful::new(draw.below(u64::MAX >> 32) | 1);
    let config = Config { lanes: LANES, segment_bytes: 1500, record_bytes_max: 4096, ..Config::new("/store") };
    let mut lanes: BTreeMap<u16, Lane> = (0..LANES).map(|lane| (lane, Lane::default())).collect();
    let mut number = 0;
    for life in 0..LIVES {
        let open = || Disk::open_on(Arc::new(files.clone()), &config);
        if draw.below(4) == 0 {
            // Not even the opening is finished.
            files.cut_after(draw.below(12));
            drop(open());
            files.restart();
        }
        let store = open().unwrap_or_else(|error| panic!("seed {seed}, life {life}: {error}"));
        lanes.iter_mut().for_each(|(lane, known)| known.compare(&store, *lane, &format!("seed {seed}, life {life}")));
        files.fail_syncs(if draw.below(2) == 0 { 0 } else { 2 + draw.below(10) });
        files.cut_after(draw.below(150));
        for _ in 0..60 {
            let lane = u16::try_from(draw.below(u64::from(LANES))).unwrap();
            let known = lanes.get_mut(&lane).unwrap();
            if draw.below(3) > 0 {
                known.append(&store, lane, &mut number, &mut draw);
            } else {
                known.refill(&store, lane, &mut draw, &format!("seed {seed}, life {life}"));
            }
        }
        if draw.below(4) == 0 {
            store.close();
        }
        drop(store);
        files.restart();
    }
}

impl Lane {
    fn append(&mut self, store: &Disk, lane: u16, number: &mut u64, draw: &mut Draw) {
        let numbers: Vec<u64> = (0..=draw.below(5)).map(|next| *number + next).collect();
        *number += numbers.len() as u64;
        let body =
            |number: &u64| [&number.to_be_bytes()[..], &vec![9; usize::try_from(number * 37 % 400).unwrap()]].concat();
        let entries: Vec<_> =
            numbers.iter().map(|number| Entry { group: group(*number), ..entry(lane, body(number)) }).collect();
        for (number, result) in numbers.iter().zip(store.append(&entries)) {
            match result {
                Ok(_) => _ = self.durable.insert(*number),
                Err(AppendError::Unknown(_)) => _ = self.open.insert(*number),
                Err(_) => _ = self.over.insert(*number),
            }
        }
    }

    fn refill(&mut self, store: &Disk, lane: u16, draw: &mut Draw, when: &str) {
        let most = Most { records: usize::try_from(draw.below(8)).unwrap() + 1, bytes: usize::MAX };
        // In every second lane group 0 mostly stands still, so that what lies behind is given back before it.
        let only = match (lane, draw.below(6)) {
            (1, 0) | (0, 2 | 3) => Some(Group(0)),
            (0, 0 | 1) => None,
            _ => Some(Group(1)),
        };
        let batch = match store.read(lane, store.span(lane).first, only, most) {
            Ok(batch) => batch,
            Err(ReadError::Unavailable(_)) => return,
            Err(error) => panic!("{when}: {error}"),
        };
        let numbers: Vec<u64> = batch.records.iter().map(|record| number_of(&record.body)).collect();
        // While it runs, what was not acknowledged is not read.
        assert!(numbers.iter().all(|number| self.durable.contains(number)), "{when}: {numbers:?}");
        assert!(numbers.iter().all(|number| only.is_none_or(|only| only == group(*number))), "{when}: {numbers:?}");
        let groups: Vec<(Group, u64)> = only.map(|only| (only, batch.next)).into_iter().collect();
        let before = if only.is_some() { 0 } else { batch.next };
        match store.consume(lane, &Marks { before, groups: &groups }, numbers.len() as u64) {
            Ok(()) => {
                // One that moves nothing writes nothing, and so says nothing of those before it.
                if !numbers.is_empty() {
                    self.marking.clear();
                }
                numbers.iter().for_each(|number| assert!(self.durable.remove(number)));
                self.over.extend(numbers);
            }
            Err(_) => self.marking.extend(numbers),
        }
    }

    fn compare(&mut self, store: &Disk, lane: u16, when: &str) {
        let (mut read, mut from) = (Vec::new(), store.span(lane).first);
        loop {
            let most = Most { records: 100, bytes: usize::MAX };
            let batch =
                store.read(lane, from, None, most).unwrap_or_else(|error| panic!("{when}, lane {lane}: {error}"));
            if batch.next == from {
                break;
            }
            from = batch.next;
            read.extend(batch.records.iter().map(|record| number_of(&record.body)));
        }
        assert!(read.is_sorted_by(|one, next| one < next), "{when}, lane {lane}: {read:?}");
        for number in &read {
            assert!(!self.over.contains(number), "{when}, lane {lane}: {number} again");
            assert!(self.durable.contains(number) || self.open.contains(number), "{when}, lane {lane}: {number}");
        }
        let read: BTreeSet<u64> = read.into_iter().collect();
        let lost: Vec<u64> = self.durable.difference(&read).copied().collect();
        assert!(lost.iter().all(|number| self.marking.contains(number)), "{when}, lane {lane}: lost {lost:?}");
        assert!(lost.len() as u64 <= store.usage().lost_in_crash_max, "{when}: {lost:?}");
        self.over.extend(lost);
        self.over.extend(self.open.difference(&read));
        self.open.clear();
        self.marking.clear();
        self.durable = read;
    }
}

fn group(number: u64) -> Group {
    Group(u64::from(number % 5 < 3))
}

fn number_of(body: &[u8]) -> u64 {
    assert!(body[8..].iter().all(|byte| *byte == 9));
    u64::from_be_bytes(body[..8].try_into().unwrap())
}
