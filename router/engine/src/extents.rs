//! Which records an append has made durable: what the reader of a lane has to know of them, without a word for each.
//!
//! Records whose fate nobody knows may lie in a lane too. Their activations have been answered as lost, so they are not to be
//! handed in. An extent never reaches over one: the append that ended unknown begins a new run in its lane.

use crate::id::ActionKey;
use crate::input::Unstored;
use crate::lanes::Lane;
use std::collections::BTreeMap;

/// Durable records of one action in one lane, told to their action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extent {
    /// The lane.
    pub lane: Lane,
    /// The action.
    pub key: ActionKey,
    /// Position of the first record.
    pub first: u64,
    /// Position of the last record. Records of other actions may lie between.
    pub last: u64,
    /// How many records of the action there are from the first to the last.
    pub records: u64,
    /// The run. Between extents of one run lies no record of which nobody knows.
    pub run: u64,
}

/// Gathers extents from the results of appends, in their order.
#[derive(Debug, Default)]
pub struct Extents {
    /// Runs by lane: one more for each append that ended unknown.
    runs: BTreeMap<Lane, u64>,
    gathered: Vec<Extent>,
}

impl Extents {
    /// What became of one record. Positions of a lane ascend.
    pub fn note(&mut self, lane: Lane, key: &ActionKey, result: Result<u64, Unstored>) {
        let run = self.runs.entry(lane).or_default();
        match result {
            Err(Unstored::Unknown) => *run += 1,
            Err(Unstored::Refused | Unstored::TooLarge(_)) => {}
            Ok(position) => {
                let run = *run;
                let is_same = |extent: &&mut Extent| extent.lane == lane && extent.run == run && extent.key == *key;
                // The newest first: neighbours are mostly of one action.
                match self.gathered.iter_mut().rev().find(is_same) {
                    Some(extent) => (extent.last, extent.records) = (position, extent.records + 1),
                    None => {
                        let (key, first, last) = (key.clone(), position, position);
                        self.gathered.push(Extent { lane, key, first, last, records: 1, run });
                    }
                }
            }
        }
    }

    /// What was gathered since the last call.
    pub fn take(&mut self) -> Vec<Extent> {
        std::mem::take(&mut self.gathered)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_extent_reaches_over_other_actions_and_never_over_an_unknown_record() {
        let (one, other) = (ActionKey::new("tenant", "one", ""), ActionKey::new("tenant", "other", ""));
        let mut extents = Extents::default();
        let results = [(&one, Ok(4)), (&other, Ok(5)), (&one, Ok(6)), (&one, Err(Unstored::Unknown)), (&one, Ok(9))];
        for (key, result) in results {
            extents.note(Lane(3), key, result);
        }
        let taken = extents.take();
        let seen: Vec<_> = taken.iter().map(|one| (&one.key, one.first, one.last, one.records, one.run)).collect();
        assert_eq!(seen, [(&one, 4, 6, 2, 0), (&other, 5, 5, 1, 0), (&one, 9, 9, 1, 1)]);
        assert!(extents.take().is_empty());
    }
}
