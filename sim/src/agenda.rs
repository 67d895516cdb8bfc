//! What is still to happen in a world, by time. Time jumps from one event to the next: there are no ticks.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// Microseconds of true time since the world began. Processes never see it; they have [clocks](crate::clock::Clock).
pub type Instant = u64;

/// A heap of events. Two of the same moment come out in the order they went in.
#[derive(Debug)]
pub struct Agenda<E> {
    heap: BinaryHeap<Due<E>>,
    sequence: u64,
}

#[derive(Debug)]
struct Due<E> {
    at: Instant,
    sequence: u64,
    event: E,
}

impl<E> Default for Agenda<E> {
    fn default() -> Self {
        Self { heap: BinaryHeap::new(), sequence: 0 }
    }
}

impl<E> Agenda<E> {
    /// Plans an event.
    #[inline]
    pub fn plan(&mut self, at: Instant, event: E) {
        self.sequence += 1;
        self.heap.push(Due { at, sequence: self.sequence, event });
    }

    /// The next event and its time.
    #[inline]
    pub fn take(&mut self) -> Option<(Instant, E)> {
        self.heap.pop().map(|due| (due.at, due.event))
    }

    /// Forgets everything but the memory it lay in.
    pub fn clear(&mut self) {
        self.heap.clear();
        self.sequence = 0;
    }
}

impl<E> Ord for Due<E> {
    /// The earliest is the greatest: the heap gives the greatest first.
    #[inline]
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.sequence).cmp(&(self.at, self.sequence))
    }
}

impl<E> PartialOrd for Due<E> {
    #[inline]
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> PartialEq for Due<E> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<E> Eq for Due<E> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_by_time_then_by_when_they_were_planned() {
        let mut agenda = Agenda::default();
        [(5, 'c'), (1, 'a'), (5, 'd'), (2, 'b')].into_iter().for_each(|(at, event)| agenda.plan(at, event));
        let order: String = std::iter::from_fn(|| agenda.take()).map(|(_, event)| event).collect();
        assert_eq!(order, "abcd");
    }
}
