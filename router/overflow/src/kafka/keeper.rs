//! The store's own thread: finds the topic, sees whether it is still what it was, has consumed records dropped. It neither
//! appends nor reads.

use super::Shared;
use super::appender::Producer;
use super::bundle;
use super::commits::Mark;
use super::health::State;
use super::marks;
use super::reports::Reports;
use super::threads::Lifeline;
use super::topic::{self, Trouble};
use super::{Quiet, lanes::Lane};
use crate::consumed::Consumed;
use rdkafka::admin::AdminClient;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::KafkaResult;
use rdkafka::producer::{Producer as _, PurgeConfig};
use rdkafka::topic_partition_list::Offset;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// What the thread knows from round to round.
pub(super) struct Keeper {
    shared: Arc<Shared>,
    admin: Option<AdminClient<Quiet>>,
    /// Rounds in a row that found records missing.
    doubts: u32,
    /// The reason that was logged last; empty while all is well.
    told: String,
    trimmed: Instant,
}

impl Keeper {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, admin: None, doubts: 0, told: String::new(), trimmed: Instant::now() }
    }

    /// Until the store is closed.
    pub(super) fn run(mut self, life: &dyn Lifeline) {
        while !life.is_told_to_end() {
            let seen = self.shared.health.state();
            let pause = match &seen {
                State::Closed => return,
                State::Lost(_) => self.give_up(),
                State::Starting(_) => self.start(),
                State::Up | State::Down(_) => self.look(),
            };
            // Heard in any case, so that nothing piles up.
            self.hear();
            self.shared.health.wait(&seen, pause);
        }
    }

    /// What waits for a topic that is gone need not wait.
    fn give_up(&mut self) -> Duration {
        self.admin = None;
        if let Some(producer) = &*self.shared.producer.read() {
            producer.purge(PurgeConfig::default().queue().inflight());
        }
        IDLE
    }

    fn start(&mut self) -> Duration {
        let done = self.find().and_then(|()| self.recover());
        match done {
            Ok(()) => self.up(),
            Err(Trouble::Missing) => self.shared.health.wait_on("the topic is not there yet"),
            Err(Trouble::Wrong(why)) => self.wait_on(why),
            Err(Trouble::Unreachable(why)) => self.unreachable(&why),
        }
        AGAIN
    }

    /// Finds the topic or creates it.
    fn find(&mut self) -> Result<(), Trouble> {
        let (most, shared) = (self.most(), Arc::clone(&self.shared));
        match topic::check(&shared.marks, &shared.config, most) {
            Err(Trouble::Missing) => {
                topic::create(self.admin()?, &shared.config, most)?;
                topic::check(&shared.marks, &shared.config, most)
            }
            other => other,
        }
    }

    /// Learns what is in it.
    fn recover(&mut self) -> Result<(), Trouble> {
        let (most, shared) = (self.most(), Arc::clone(&self.shared));
        let limit = topic::message_bytes_max(self.admin()?, &shared.config, most).unwrap_or(usize::MAX);
        let limit = limit.min(shared.config.record_bytes_max + topic::OVERHEAD_BYTES);
        shared.message_bytes_max.store(limit, Ordering::Relaxed);
        let low = topic::edges(&shared.marks, &shared.config, Offset::Beginning, most)?;
        let high = topic::edges(&shared.marks, &shared.config, Offset::End, most)?;
        let marks = marks::load(&shared.marks, &shared.config, shared.config.timeout)?;
        for (lane, ((low, high), mark)) in (0..).zip(low.into_iter().zip(high).zip(marks)) {
            self.recover_lane(lane, low, high, mark)?;
        }
        *shared.producer.write() = Some(Arc::new(new_producer(&shared)?));
        Ok(())
    }

    fn recover_lane(&self, lane: u16, low: u64, high: u64, mark: Option<Mark>) -> Result<(), Trouble> {
        let [first, next] = [low, high].map(bundle::start);
        // Without a mark nothing was consumed, so what is gone from its beginning was taken away by others, and has to be told.
        let unmarked = if low == high { next } else { 0 };
        let found = mark.unwrap_or(Mark { consumed: Consumed::up_to(unmarked), handed: 0 });
        // A mark beyond the end is of a log that was longer: all that is left of it was consumed.
        let groups = found.consumed.groups().iter().copied();
        let consumed = Consumed::new(found.consumed.before.min(next), groups, next);
        if let Some(mut known) = self.shared.lanes.lane(lane) {
            *known = Lane { consumed: consumed.clone(), next, unsized_below: next, trimmed: first, ..Lane::default() };
        }
        let fresh = Mark { consumed, handed: 0 };
        if fresh == found {
            return Ok(());
        }
        marks::write(&self.shared, lane, fresh).map_err(|error| Trouble::Unreachable(error.to_string()))?;
        self.shared.lanes.lost_in_crash.fetch_max(found.handed, Ordering::Relaxed);
        Ok(())
    }

    /// Sees whether the topic is there with all that was in it.
    fn look(&mut self) -> Duration {
        let shared = Arc::clone(&self.shared);
        let before = shared.lanes.all();
        let found = topic::check(&shared.marks, &shared.config, self.most());
        let edges = found.and_then(|()| Ok(topic::edges(&shared.marks, &shared.config, Offset::End, self.most())?));
        match edges.and_then(|high| self.compare(&before, &high)) {
            Ok(()) => self.go_on(),
            Err(Trouble::Unreachable(why)) => self.unreachable(&why),
            Err(Trouble::Missing) => return self.doubt("it is not there any more"),
            Err(Trouble::Wrong(why)) => return self.doubt(&why),
        }
        if shared.health.check().is_ok() { CALM } else { AGAIN }
    }

    /// Records that were durable must still be there; more may be, if an append ended without an answer.
    fn compare(&self, before: &[Lane], high: &[u64]) -> Result<(), Trouble> {
        for (lane, (known, high)) in (0..).zip(before.iter().zip(high)) {
            let (next, was) = (bundle::start(*high), bundle::offset(known.next));
            if next < known.next {
                return Err(Trouble::Wrong(format!("lane {lane} went to {was} and ends at {high} now")));
            }
            if let Some(mut lane) = self.shared.lanes.lane(lane) {
                lane.next = lane.next.max(next);
            }
        }
        Ok(())
    }

    /// A broker that has just started may not know everything yet, so this takes several rounds in a row.
    fn doubt(&mut self, what: &str) -> Duration {
        self.doubts += 1;
        let why = format!("topic {} was deleted, recreated or cut back: {what}", self.shared.config.topic);
        if self.doubts < DOUBTS {
            self.wait_on(why);
        } else {
            self.shared.health.lose(&why);
        }
        AGAIN
    }

    fn go_on(&mut self) {
        self.doubts = 0;
        match self.renew_producer() {
            Ok(()) => self.up(),
            Err(error) => self.wait_on(error.to_string()),
        }
        if self.trimmed.elapsed() >= CALM {
            self.trimmed = Instant::now();
            self.trim();
            self.shared.readers.clear(CALM);
        }
    }

    /// Takes in what librdkafka says on the side. Nothing is assigned to this client, so no record is among it. Without patience
    /// the first line of its log would end it, with all that waits behind.
    fn hear(&self) {
        while self.shared.marks.poll(HEAR).is_some() {}
    }

    fn up(&mut self) {
        self.hear();
        self.shared.marks.context().forget();
        if !std::mem::take(&mut self.told).is_empty() {
            tracing::info!(topic = self.shared.config.topic, "the Kafka store is up");
        }
        self.shared.health.up();
    }

    fn unreachable(&mut self, why: &str) {
        self.hear();
        self.wait_on(self.shared.marks.context().explain(why));
    }

    /// Tells callers and, once, the log: until the store was up for the first time nobody calls.
    fn wait_on(&mut self, why: String) {
        self.shared.health.wait_on(&why);
        if self.told != why {
            tracing::warn!(topic = self.shared.config.topic, why, "the Kafka store is not available");
            self.told = why;
        }
    }

    /// librdkafka has errors after which a producer refuses everything.
    fn renew_producer(&self) -> KafkaResult<()> {
        let dead =
            self.shared.producer.read().as_ref().is_none_or(|producer| producer.client().fatal_error().is_some());
        if dead {
            *self.shared.producer.write() = Some(Arc::new(new_producer(&self.shared)?));
        }
        Ok(())
    }

    /// Has the broker drop what is consumed. Where that fails it is told again next time.
    fn trim(&mut self) {
        let (most, shared) = (self.most(), Arc::clone(&self.shared));
        let consumed = |(lane, known): (u16, Lane)| {
            let before = known.consumed.before;
            (bundle::messages(known.trimmed, before) > 0).then(|| (lane, bundle::offset(before)))
        };
        let below: Vec<_> = (0..).zip(shared.lanes.all()).filter_map(consumed).collect();
        let Ok(admin) = self.admin() else { return };
        if below.is_empty() || topic::drop_below(admin, &shared.config, &below, most).is_err() {
            return;
        }
        for (lane, whole) in below {
            if let Some(mut lane) = shared.lanes.lane(lane) {
                lane.trimmed = lane.trimmed.max(bundle::start(whole));
            }
        }
    }

    fn admin(&mut self) -> KafkaResult<&AdminClient<Quiet>> {
        if self.admin.is_none() {
            self.admin = Some(self.shared.config.client().create_with_context(Quiet)?);
        }
        self.admin.as_ref().ok_or(rdkafka::error::KafkaError::Canceled)
    }

    /// For one question. Short, so that closing does not wait for long.
    fn most(&self) -> Duration {
        self.shared.config.timeout.min(ANSWER)
    }
}

fn new_producer(shared: &Shared) -> KafkaResult<Producer> {
    let limit = shared.message_bytes_max.load(Ordering::Relaxed);
    shared.config.producer(limit).create_with_context(Reports::new(Arc::clone(&shared.health)))
}

/// Until the next look at a topic that is as it should be, and between two rounds of dropping what is consumed.
const CALM: Duration = Duration::from_secs(5);
/// Until the next try.
const AGAIN: Duration = Duration::from_millis(300);
const IDLE: Duration = Duration::from_secs(60);
/// Silence that means that there is no more to hear.
const HEAR: Duration = Duration::from_millis(10);
const ANSWER: Duration = Duration::from_secs(3);
const DOUBTS: u32 = 8;
