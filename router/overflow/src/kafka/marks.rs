//! Consume marks: the consumer group's committed offsets. As metadata they have the place in a message, how many records are in
//! hand, and the marks of groups of records.

use super::Shared;
use super::commits::{self, Mark};
use super::config::Config;
use super::health::Refusal;
use super::lanes::Lane;
use super::topic::{self, Asker};
use crate::{ConsumeError, Marks};
use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code};
use std::time::{Duration, Instant};

/// Marks a lane, durably on return. Marks of one lane are written one after the other.
pub(super) fn consume(shared: &Shared, lane: u16, marks: &Marks<'_>, handed: u64) -> Result<(), ConsumeError> {
    let lanes = shared.config.lanes;
    let _turn = shared.lanes.turn(lane).ok_or(ConsumeError::NoSuchLane { lane, lanes })?;
    match shared.health.check() {
        Ok(()) => {}
        Err(Refusal::Closed) => return Err(ConsumeError::Closed),
        Err(Refusal::Unavailable(why)) => return Err(ConsumeError::Unavailable(why)),
        // Nothing of that lane can be read again, so there is nothing to write down.
        Err(Refusal::Lost(_)) => return Ok(()),
    }
    let known = known(shared, lane);
    match known.consumed.up(marks, known.next, commits::GROUPS_MAX)? {
        Some(consumed) => write(shared, lane, Mark { consumed, handed }),
        None => Ok(()),
    }
}

fn known(shared: &Shared, lane: u16) -> Lane {
    shared.lanes.lane(lane).map(|lane| lane.clone()).unwrap_or_default()
}

/// Writes a mark that is not below the known one. The caller has the lane's turn.
pub(super) fn write(shared: &Shared, lane: u16, mark: Mark) -> Result<(), ConsumeError> {
    let until = Instant::now() + shared.config.timeout;
    if let Err(error) = write_until(shared, lane, &mark, until) {
        let why = format!("consume mark of lane {lane}: {error}");
        shared.health.suspect(&why);
        return Err(ConsumeError::Unavailable(why));
    }
    if let Some(mut known) = shared.lanes.lane(lane) {
        known.consume(mark.consumed);
        known.handed = mark.handed;
    }
    Ok(())
}

/// A commit that was given up may still be on its way, and must not have the last word: so it has to have ended before the
/// next one, and what stands then is read back.
fn write_until(shared: &Shared, lane: u16, mark: &Mark, until: Instant) -> KafkaResult<()> {
    let known = known(shared, lane);
    if let Some(pending) = known.pending {
        answer(shared, lane, pending, until).unwrap_or(Err(TOO_LATE))?;
    }
    commit_until(shared, lane, mark, until)?;
    if known.unsure { confirm(shared, lane, mark, until) } else { Ok(()) }
}

/// All marks; `None` where a lane has none.
pub(super) fn load(consumer: &Asker, config: &Config, most: Duration) -> KafkaResult<Vec<Option<Mark>>> {
    let found = consumer.committed_offsets(topic::partitions(config), most)?;
    let mut marks = vec![None; usize::from(config.lanes)];
    for element in found.elements() {
        element.error()?;
        let place = usize::try_from(element.partition()).ok().and_then(|partition| marks.get_mut(partition));
        if let (Some(place), Some(offset)) = (place, topic::whole(element.offset())) {
            *place = Some(commits::mark(offset, element.metadata()));
        }
    }
    Ok(marks)
}

/// Tries again while the broker that keeps the group is being found.
fn commit_until(shared: &Shared, lane: u16, mark: &Mark, until: Instant) -> KafkaResult<()> {
    loop {
        let number = shared.commits.ask(lane, mark.clone());
        let done = answer(shared, lane, number, until).unwrap_or(Err(TOO_LATE));
        let passing =
            matches!(&done, Err(error) if error.rdkafka_error_code().is_some_and(|code| PASSING.contains(&code)));
        if !passing || Instant::now() >= until || shared.health.is_closed() {
            return done;
        }
        shared.health.wait(&shared.health.state(), RETRY);
    }
}

/// Waits for a commit's answer. Without one the lane remembers that it is on its way, and with a bad one that it may have come
/// to pass.
fn answer(shared: &Shared, lane: u16, number: u64, until: Instant) -> Option<KafkaResult<()>> {
    let answer = shared.commits.answer(number, until);
    if let Some(mut known) = shared.lanes.lane(lane) {
        known.pending = answer.is_none().then_some(number);
        known.unsure |= !matches!(answer, Some(Ok(())));
    }
    answer
}

/// Reads the mark back and writes it again until it stands.
fn confirm(shared: &Shared, lane: u16, mark: &Mark, until: Instant) -> KafkaResult<()> {
    while Instant::now() < until {
        let found = load(&shared.marks, &shared.config, shared.config.timeout)?;
        if found.get(usize::from(lane)).and_then(Option::as_ref) == Some(mark) {
            if let Some(mut known) = shared.lanes.lane(lane) {
                known.unsure = false;
            }
            return Ok(());
        }
        commit_until(shared, lane, mark, until)?;
    }
    Err(TOO_LATE)
}

const TOO_LATE: KafkaError = KafkaError::ConsumerCommit(Code::OperationTimedOut);
const PASSING: [Code; 6] = [
    Code::WaitingForCoordinator,
    Code::CoordinatorLoadInProgress,
    Code::CoordinatorNotAvailable,
    Code::NotCoordinator,
    Code::RequestTimedOut,
    Code::NetworkException,
];
const RETRY: Duration = Duration::from_millis(100);
