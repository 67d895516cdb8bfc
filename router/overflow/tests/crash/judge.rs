//! What the victims have said, and whether the store agrees.

use crate::point::{NAMES, Point};
use crate::victim::{self, Said, Told};
use crate::{LANES, config};
use overflow::Overflow;
use overflow::contract::{ALL, read_all};
use overflow::disk::Disk;
use std::collections::{BTreeSet, HashSet};
use std::path::Path;

/// What is known of all victims so far.
#[derive(Debug, Default)]
pub(crate) struct Judge {
    lanes: [Lane; LANES as usize],
    /// Handed out, or marked for it, or never to appear: not to be read again.
    over: HashSet<u64>,
    killed: [u64; NAMES.len()],
    lived: u64,
    durable: u64,
    handed: u64,
    lost: u64,
    lost_most: u64,
}

/// Of one lane.
#[derive(Debug, Default)]
struct Lane {
    /// Acknowledged, and not handed out. Their numbers ascend with their positions.
    durable: BTreeSet<u64>,
    /// Not acknowledged: there or not there.
    open: BTreeSet<u64>,
    /// The mark was being set when the victim died: all of them are there, or none.
    marking: Vec<u64>,
}

impl Judge {
    /// What one victim said.
    pub(crate) fn hear(&mut self, point: &Point, told: &Told) {
        if told.killed {
            self.killed[point.name] += 1;
        } else {
            assert_eq!(told.said.last(), Some(&Said::Ended));
            self.lived += 1;
        }
        told.said.iter().for_each(|said| self.hear_one(said));
    }

    fn hear_one(&mut self, said: &Said) {
        match said {
            Said::Appending(lane, numbers) => self.lanes[usize::from(*lane)].open.extend(numbers),
            Said::Durable(lane, numbers) => {
                self.durable += numbers.len() as u64;
                let lane = &mut self.lanes[usize::from(*lane)];
                for number in numbers {
                    lane.open.remove(number);
                    if !self.over.contains(number) {
                        lane.durable.insert(*number);
                    }
                }
            }
            Said::Marking(lane, numbers) => self.lanes[usize::from(*lane)].marking.clone_from(numbers),
            Said::Handed(lane, numbers) => {
                self.handed += numbers.len() as u64;
                let lane = &mut self.lanes[usize::from(*lane)];
                lane.marking.clear();
                for number in numbers {
                    assert!(self.over.insert(*number), "{number:x} was handed out twice");
                    lane.durable.remove(number);
                    lane.open.remove(number);
                }
            }
            Said::Ended => {}
        }
    }

    /// Opens the store as the next router would, and compares.
    pub(crate) fn look(&mut self, dir: &Path, cycle: u64) {
        let store = Disk::open(&config(dir)).unwrap();
        let mut lost = 0;
        for lane in 0..LANES {
            let batch = read_all(&store, lane, store.span(lane).first, ALL);
            assert_eq!(batch.damaged, 0, "cycle {cycle}: a crash is no damage");
            let numbers: Vec<u64> = batch.records.iter().map(|record| victim::number(&record.body)).collect();
            lost += self.compare(lane, &numbers, cycle);
        }
        let usage = store.usage();
        assert!(lost <= usage.lost_in_crash_max, "cycle {cycle}: {lost} lost, {usage:?}");
        assert_eq!(usage.damaged, 0);
        self.lost += lost;
        self.lost_most = self.lost_most.max(lost);
        if cycle.is_multiple_of(3) {
            store.close();
        }
    }

    /// How many records of a lane are lost, which may only be those that were being marked.
    fn compare(&mut self, lane: u16, read: &[u64], cycle: u64) -> u64 {
        let Lane { durable, open, marking } = &mut self.lanes[usize::from(lane)];
        assert!(read.is_sorted_by(|one, next| one < next), "cycle {cycle}: lane {lane} is out of order");
        for number in read {
            assert!(!self.over.contains(number), "cycle {cycle}: {number:x} is read again");
            assert!(durable.contains(number) || open.contains(number), "cycle {cycle}: {number:x} was never appended");
        }
        let read: BTreeSet<u64> = read.iter().copied().collect();
        let missing: Vec<u64> = durable.difference(&read).copied().collect();
        let astray = missing.iter().find(|number| !marking.contains(number));
        assert_eq!(astray, None, "cycle {cycle}: acknowledged, and not there");
        let marked = marking.iter().filter(|number| read.contains(number)).count();
        assert!(marked == 0 || marked == marking.len(), "cycle {cycle}: a mark within a batch");
        let lost = if marked == 0 { marking.len() } else { 0 };
        if marked == 0 {
            self.over.extend(marking.iter());
        }
        // What has not come up by now must never do so.
        self.over.extend(open.difference(&read));
        marking.clear();
        open.clear();
        *durable = read;
        lost as u64
    }

    /// Says what was seen.
    pub(crate) fn report(&self, cycles: u64) {
        for (name, killed) in NAMES.iter().zip(self.killed) {
            println!("  killed {killed:4} times at {name}");
        }
        let killed: u64 = self.killed.iter().sum();
        let Self { lived, durable, handed, lost, lost_most, .. } = self;
        println!("  {killed} killed, {lived} lived to their end; {durable} records acknowledged, {handed} handed out");
        println!("  lost: 0 beyond batches being marked ({lost} in those, at most {lost_most} at once); read twice: 0");
        assert_eq!(killed + lived, cycles);
        assert!(killed * 3 > cycles, "most victims are to die");
    }
}
