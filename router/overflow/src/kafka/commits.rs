//! Commits: taken from whoever wants a mark written, and carried out by one thread, all that wait in one request.
//!
//! That thread is there because librdkafka's call has no timeout: it waits for as long as the broker that keeps the group is
//! away, and the one without waiting never tells how it ended.

use super::bundle;
use super::threads::Lifeline;
use super::topic::{self, Asker};
use crate::Group;
use crate::consumed::Consumed;
use parking_lot::{Condvar, Mutex};
use rdkafka::TopicPartitionList;
use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::error::KafkaResult;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What a lane's mark says: how far it is consumed, and how many records the caller had in hand then, in all lanes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) consumed: Consumed,
    pub(super) handed: u64,
}

/// Groups that may have a mark of their own: so many fill half of what brokers take with an offset unless they are set up
/// otherwise (`offset.metadata.max.bytes`, 4,096 B).
pub(super) const GROUPS_MAX: usize = 64;

/// All commits that were not carried out or whose answer was not taken yet: one a lane at most, for whoever wants another
/// one has to wait for the answer.
#[derive(Default)]
pub(super) struct Commits {
    desk: Mutex<Desk>,
    asked: Condvar,
    answered: Condvar,
}

#[derive(Default)]
struct Desk {
    last: u64,
    waiting: Vec<(u64, u16, Mark)>,
    answers: HashMap<u64, Option<KafkaResult<()>>>,
    over: bool,
    ended: bool,
}

impl Commits {
    /// Hands a mark in; the number is for its answer.
    pub(super) fn ask(&self, lane: u16, mark: Mark) -> u64 {
        let mut desk = self.desk.lock();
        desk.last += 1;
        let number = desk.last;
        desk.waiting.push((number, lane, mark));
        desk.answers.insert(number, None);
        self.asked.notify_one();
        number
    }

    /// Its answer, if there is one by `until`. If not, it can be asked for again.
    pub(super) fn answer(&self, number: u64, until: Instant) -> Option<KafkaResult<()>> {
        let mut desk = self.desk.lock();
        while matches!(desk.answers.get(&number), Some(None)) {
            if self.answered.wait_until(&mut desk, until).timed_out() {
                break;
            }
        }
        match desk.answers.get(&number) {
            Some(None) => None,
            _ => desk.answers.remove(&number).flatten(),
        }
    }

    /// Carries them out until the end.
    pub(super) fn run(&self, consumer: &Arc<Asker>, topic: &str, life: &dyn Lifeline) {
        let _ends = Ends(self);
        while let Some(asked) = self.take(life) {
            let done = commit(consumer, topic, &asked);
            let mut desk = self.desk.lock();
            for (number, ..) in asked {
                desk.answers.insert(number, Some(done.clone()));
            }
            self.answered.notify_all();
        }
    }

    /// Has [`Commits::run`] end, and says whether it did by `until`: it may be held up by a broker that does not answer.
    pub(super) fn end(&self, until: Instant) -> bool {
        let mut desk = self.desk.lock();
        desk.over = true;
        self.asked.notify_one();
        while !desk.ended && !self.answered.wait_until(&mut desk, until).timed_out() {}
        desk.ended
    }

    fn take(&self, life: &dyn Lifeline) -> Option<Vec<(u64, u16, Mark)>> {
        let mut desk = self.desk.lock();
        while desk.waiting.is_empty() && !desk.over && !life.is_told_to_end() {
            self.asked.wait_for(&mut desk, LOOK);
        }
        let waiting = std::mem::take(&mut desk.waiting);
        (!waiting.is_empty()).then_some(waiting)
    }
}

/// Says when dropped that nobody carries commits out any more, also after a panic.
struct Ends<'a>(&'a Commits);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.desk.lock().ended = true;
        self.0.answered.notify_all();
    }
}

/// An error of one lane is one for all: which it was is not told.
fn commit(consumer: &Asker, topic: &str, asked: &[(u64, u16, Mark)]) -> KafkaResult<()> {
    let mut list = TopicPartitionList::with_capacity(asked.len());
    for (_, lane, mark) in asked {
        let mut element = list.add_partition(topic, i32::from(*lane));
        element.set_offset(topic::offset(bundle::offset(mark.consumed.before)))?;
        element.set_metadata(metadata(mark));
    }
    consumer.commit(&list, CommitMode::Sync)
}

/// Says what an offset does not: how many records were in hand, how far into its message the mark is, and the marks of groups.
fn metadata(mark: &Mark) -> String {
    let groups = mark.consumed.groups().iter().map(|(Group(group), position)| format!("{group:x}:{position:x}"));
    let groups = groups.collect::<Vec<String>>().join(",");
    format!("{HANDED}{}{PLACE}{}{GROUPS}{groups}", mark.handed, bundle::place(mark.consumed.before))
}

/// What a commit says. Where somebody else wrote its metadata, nothing was handed out and the mark is at the start of a message.
pub(super) fn mark(offset: u64, metadata: &str) -> Mark {
    let start = bundle::start(offset);
    let said = || {
        let (handed, rest) = metadata.strip_prefix(HANDED)?.split_once(PLACE)?;
        let (place, groups) = rest.split_once(GROUPS)?;
        let before = start + u64::from(place.parse::<u16>().ok()?);
        let groups = groups.split(',').filter(|group| !group.is_empty()).map(group).collect::<Option<Vec<_>>>()?;
        Some(Mark { handed: handed.parse().ok()?, consumed: Consumed::new(before, groups, u64::MAX) })
    };
    said().unwrap_or(Mark { consumed: Consumed::up_to(start), handed: 0 })
}

fn group(said: &str) -> Option<(Group, u64)> {
    let (group, position) = said.split_once(':')?;
    Some((Group(u64::from_str_radix(group, 16).ok()?), u64::from_str_radix(position, 16).ok()?))
}

/// The longest time between two looks whether the thread is to end.
const LOOK: Duration = Duration::from_secs(1);
/// What is before each of the numbers.
const HANDED: &str = "handed=";
const PLACE: &str = " place=";
const GROUPS: &str = " groups=";

#[cfg(test)]
mod tests {
    use super::*;

    fn one() -> Mark {
        Mark { consumed: Consumed::up_to(1), handed: 1 }
    }

    #[test]
    fn an_answer_is_there_however_late() {
        let commits = Commits::default();
        let (one, two) = (commits.ask(0, one()), commits.ask(1, one()));
        assert_eq!(commits.answer(one, Instant::now()), None);
        commits.desk.lock().answers.insert(one, Some(Ok(())));
        assert_eq!(commits.answer(one, Instant::now()), Some(Ok(())));
        assert_eq!(commits.answer(two, Instant::now()), None);
        assert_eq!(commits.take(&()).map(|asked| asked.len()), Some(2));
    }

    #[test]
    fn the_end_comes_after_what_was_asked_for() {
        let commits = Commits::default();
        commits.ask(0, one());
        assert!(!commits.end(Instant::now()));
        assert!(commits.take(&()).is_some());
        assert!(commits.take(&()).is_none());
    }

    #[test]
    fn a_commit_says_all_of_a_mark() {
        let groups: Vec<(Group, u64)> = (0..GROUPS_MAX as u64).map(|n| (Group(u64::MAX - n), u64::MAX - n)).collect();
        for (offset, place, handed, groups) in
            [(0, 0, 0, &[][..]), (5, 65_535, 7, &[(Group(0), bundle::start(7))]), (1 << 40, 1, u64::MAX, &groups)]
        {
            let consumed = Consumed::new(bundle::start(offset) + place, groups.iter().copied(), u64::MAX);
            let written = Mark { consumed, handed };
            let said = metadata(&written);
            assert!(said.len() < 4096, "more than brokers take");
            assert_eq!((mark(offset, &said).consumed.groups().len(), mark(offset, &said)), (groups.len(), written));
        }
    }

    #[test]
    fn what_others_wrote_as_metadata_hands_out_nothing() {
        for metadata in [
            "",
            "12",
            "handed=-1 place=1 groups=",
            "handed=1 place=65536 groups=",
            "handed=1",
            "handed=1 place=1 groups=5",
        ] {
            let none = Mark { consumed: Consumed::up_to(bundle::start(5)), handed: 0 };
            assert_eq!(mark(5, metadata), none, "{metadata}");
        }
    }
}
