//! How far a lane is consumed, as every store keeps it in memory; and which damage has been counted. No I/O.

use crate::{ConsumeError, Group, Marks};
use std::collections::BTreeMap;
use std::sync::Arc;

/// How far a lane is consumed. Cheap to clone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Consumed {
    /// Everything below is consumed.
    pub(crate) before: u64,
    /// Of these groups, everything below their positions; above `before`. In the order of the groups.
    groups: Arc<[(Group, u64)]>,
}

impl Consumed {
    /// Marks of groups at or below `before` or beyond `end` are cut to that.
    pub(crate) fn new(before: u64, groups: impl IntoIterator<Item = (Group, u64)>, end: u64) -> Self {
        let mut furthest = BTreeMap::new();
        for (group, position) in groups {
            let mark: &mut u64 = furthest.entry(group).or_default();
            *mark = position.min(end).max(*mark);
        }
        Self { before, groups: furthest.into_iter().filter(|(_, position)| *position > before).collect() }
    }

    /// Everything below `before`, of all groups.
    pub(crate) fn up_to(before: u64) -> Self {
        Self { before, ..Self::default() }
    }

    /// The marks of groups that are above `before`.
    pub(crate) fn groups(&self) -> &[(Group, u64)] {
        &self.groups
    }

    /// Below this position all records of a group are consumed.
    pub(crate) fn of(&self, group: Group) -> u64 {
        let found = self.groups.binary_search_by_key(&group, |(group, _)| *group);
        found.map_or(self.before, |at| self.groups[at].1)
    }

    /// No record at or above this position is consumed.
    pub(crate) fn furthest(&self) -> u64 {
        self.groups.iter().map(|(_, position)| *position).fold(self.before, u64::max)
    }

    /// Whether a record is consumed.
    pub(crate) fn covers(&self, group: Group, position: u64) -> bool {
        position < self.before || position < self.of(group)
    }

    /// The furthest of both.
    pub(crate) fn joined(&self, other: &Self) -> Self {
        let groups = self.groups.iter().chain(other.groups.iter()).copied();
        Self::new(self.before.max(other.before), groups, u64::MAX)
    }

    /// Moved up, never beyond `end`, where what is appended later would count as consumed. `None`: nothing moves.
    pub(crate) fn up(&self, marks: &Marks<'_>, end: u64, limit: usize) -> Result<Option<Self>, ConsumeError> {
        let groups = self.groups.iter().chain(marks.groups).copied();
        let up = Self::new(marks.before.min(end).max(self.before), groups, end);
        match up.groups.len() {
            groups if groups > limit => Err(ConsumeError::TooManyGroups { groups, limit }),
            _ => Ok((up != *self).then_some(up)),
        }
    }
}

/// Damage that was counted, so that no second read counts it again.
#[derive(Debug, Default)]
pub(crate) struct Counted {
    /// Ranges of positions that do not touch: where each ends, by its begin.
    ranges: BTreeMap<u64, u64>,
}

/// Ranges that are remembered for a lane. Beyond that the lowest ones grow together, and damage between them is not counted.
const RANGES_MAX: usize = 4096;

impl Counted {
    /// How many of the positions `from..to` nobody has counted so far; from now on they are.
    pub(crate) fn count(&mut self, from: u64, to: u64) -> u64 {
        if from >= to {
            return 0;
        }
        let (mut begin, mut end, mut known) = (from, to, 0);
        let touching = self.ranges.range(..=to).rev().take_while(|(_, until)| **until >= from);
        let touching: Vec<(u64, u64)> = touching.map(|(begin, end)| (*begin, *end)).collect();
        for (first, behind) in touching {
            known += behind.min(to).saturating_sub(first.max(from));
            (begin, end) = (begin.min(first), end.max(behind));
            self.ranges.remove(&first);
        }
        self.ranges.insert(begin, end);
        if self.ranges.len() > RANGES_MAX {
            self.join_lowest();
        }
        to - from - known
    }

    /// Forgets what lies below: it is not read again.
    pub(crate) fn forget_below(&mut self, position: u64) {
        while let Some(lowest) = self.ranges.first_entry().filter(|lowest| *lowest.get() <= position) {
            lowest.remove();
        }
    }

    fn join_lowest(&mut self) {
        if let (Some((begin, _)), Some((_, end))) = (self.ranges.pop_first(), self.ranges.pop_first()) {
            self.ranges.insert(begin, end);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    const ONE: Group = Group(1);
    const TWO: Group = Group(2);

    fn up(from: &Consumed, before: u64, groups: &[(Group, u64)]) -> Consumed {
        from.up(&Marks { before, groups }, 100, 2).unwrap().unwrap_or_else(|| from.clone())
    }

    #[test]
    fn no_mark_moves_back_and_what_is_below_the_lanes_is_dropped() {
        let first = up(&Consumed::default(), 10, &[(TWO, 30), (ONE, 20), (ONE, 15)]);
        assert_eq!(first.groups(), [(ONE, 20), (TWO, 30)]);
        let (same, less) = (up(&first, 5, &[]), up(&first, 10, &[(ONE, 12), (TWO, 9)]));
        assert_eq!((&same, &less), (&first, &first));
        let then = up(&first, 20, &[(TWO, 1000)]);
        assert_eq!((then.before, then.groups()), (20, &[(TWO, 100)][..]));
        assert!(then.covers(TWO, 99) && !then.covers(ONE, 20) && then.covers(ONE, 19) && then.covers(Group(9), 0));
        assert_eq!((then.joined(&first), first.joined(&then)), (then.clone(), then.clone()));
        assert_eq!(up(&then, 1000, &[]), Consumed { before: 100, ..Consumed::default() });
    }

    #[test]
    fn more_groups_than_fit_are_refused() {
        let two = up(&Consumed::default(), 0, &[(ONE, 2), (TWO, 2)]);
        let third = |before| two.up(&Marks { before, groups: &[(Group(3), 5)] }, 100, 2);
        assert_eq!(third(0), Err(ConsumeError::TooManyGroups { groups: 3, limit: 2 }));
        assert_eq!(third(2).unwrap().unwrap().groups(), [(Group(3), 5)]);
    }

    proptest! {
        #[test]
        fn each_position_is_counted_once(ranges in prop::collection::vec((0..60u64, 0..12u64), 0..40)) {
            let (mut counted, mut seen) = (Counted::default(), BTreeSet::new());
            for (from, length) in ranges {
                let fresh = (from..from + length).filter(|position| seen.insert(*position)).count() as u64;
                prop_assert_eq!(counted.count(from, from + length), fresh);
            }
        }
    }

    #[test]
    fn what_is_remembered_has_an_end() {
        let mut counted = Counted::default();
        for position in 0..3 * RANGES_MAX as u64 {
            assert_eq!(counted.count(position * 2, position * 2 + 1), 1);
            assert!(counted.ranges.len() <= RANGES_MAX);
        }
        counted.forget_below(u64::MAX);
        assert_eq!(counted.count(7, 8), 1);
    }
}
