//! The Kafka store: lanes are the partitions of one topic, positions its offsets and places in messages, consume marks a group's committed
//! offsets.
//!
//! - **Durable** is what all in-sync replicas have in memory (`acks=all`). A broker does not sync to its disk before it answers
//!   unless it is set up to, so power loss of all replicas at once may take acknowledged records away; killed brokers and
//!   routers take none. What follows from that, as from a topic that is deleted, is [`AppendError::Unavailable`] with the
//!   reason, and [`ReadError::Gone`] for what is missing, until the store is opened again.
//! - **The broker need not be there** to open the store, nor all the time. Until it was reached once, [`Overflow::ready`] is
//!   false and spans are empty. While it does not answer, all calls are refused at once but the one that noticed.
//! - **One router alone** uses the topic and the group. Nothing stops a second one.
//! - **Marks expire** with the group, on brokers by default 7 days after the last one (`offsets.retention.minutes`). What is
//!   consumed is dropped from the topic soon after, so that little would come twice even then.
//! - **A message holds many records** of one append and lane, of any groups. Damage takes all of a message, and counts as one:
//!   so a count of damage says "at least".
//! - **No notes** are kept: brokers check what they store by checksum and keep copies of it, so a lost message means that all copies
//!   are lost or that somebody else wrote into the topic. Then [`Batch::lost`] stays empty, and whoever waits for a lost record
//!   hears of it by a timer of its own.
//! - **One old record keeps all behind it** in its lane: a broker drops records from the front only, so what other groups have
//!   consumed further on takes up space, and counts in [`Usage`], until the lane's own mark has passed it.
//! - A mark that was not acknowledged may still come to pass, and an append that ends as `Unknown` may be read later.

mod appender;
mod bundle;
mod commits;
mod config;
mod health;
mod heard;
mod keeper;
mod lanes;
mod marks;
mod reader;
mod reports;
mod threads;
mod topic;

pub use config::{Config, OpenError};
pub use threads::Lifeline;

use crate::{AppendError, Batch, ConsumeError, Entry, Group, Marks, Most, Overflow, ReadError, Span, Usage};
use appender::Producer;
use commits::{Commits, Mark};
use health::{Health, State};
use heard::Heard;
use keeper::Keeper;
use lanes::Lanes;
use parking_lot::{Mutex, RwLock};
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::KafkaError;
use reader::Readers;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use topic::Asker;

/// A store in a topic of Apache Kafka. See the module for what it promises.
pub struct Kafka {
    shared: Arc<Shared>,
    keeper: Mutex<Option<JoinHandle<()>>>,
}

/// What calls and the keeper's thread share.
struct Shared {
    config: Config,
    health: Arc<Health>,
    lanes: Lanes,
    /// Keeps the marks and asks about the topic.
    marks: Arc<Asker>,
    commits: Arc<Commits>,
    readers: Readers,
    /// From the first time that the topic was reached until the store is closed.
    producer: RwLock<Option<Arc<Producer>>>,
    message_bytes_max: AtomicUsize,
}

/// For clients of which nothing is heard but by their answers.
struct Quiet;

impl Kafka {
    /// Opens it without waiting for a broker.
    ///
    /// # Errors
    /// [`OpenError`], for what no broker can help.
    pub fn open(config: Config) -> Result<Self, OpenError> {
        Self::open_watched(config, &|_| Box::new(()))
    }

    /// Opens the store as [`open`](Self::open) does. Each thread, `kafka-keeper` and `kafka-marks`,
    /// holds the lifeline that is made for its name, and drops it when it ends. Threads are to end
    /// only when the store is closed.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub fn open_watched(
        config: Config,
        lifeline: &dyn Fn(&'static str) -> Box<dyn Lifeline>,
    ) -> Result<Self, OpenError> {
        config.check()?;
        let limit = config.record_bytes_max + topic::OVERHEAD_BYTES;
        config.producer(limit).create_native_config()?;
        let shared = Arc::new(Shared {
            health: Arc::new(Health::new()),
            lanes: Lanes::new(config.lanes),
            marks: Arc::new(config.asker().create_with_context(Heard::default())?),
            commits: Arc::default(),
            readers: Readers::default(),
            producer: RwLock::new(None),
            message_bytes_max: AtomicUsize::new(limit),
            config,
        });
        // From here on the threads end by `close`, even if the second one cannot be started.
        let store = Self { shared: Arc::clone(&shared), keeper: Mutex::default() };
        let (commits, marks) = (Arc::clone(&shared.commits), Arc::clone(&shared.marks));
        let topic = shared.config.topic.clone();
        threads::begin("kafka-marks", lifeline, move |life| commits.run(&marks, &topic, life))?;
        let keeper = threads::begin("kafka-keeper", lifeline, move |life| Keeper::new(shared).run(life))?;
        *store.keeper.lock() = Some(keeper);
        Ok(store)
    }

    /// Lets go of threads and clients, once nobody is let in any more.
    fn end(&self) {
        if let Some(keeper) = self.keeper.lock().take() {
            // The keeper ends early only by a panic, and its lifeline has told of that.
            keeper.join().unwrap_or_default();
        }
        // If it is held up, its thread ends once the broker is back, or with the process.
        let _ended = self.shared.commits.end(Instant::now() + self.shared.config.timeout);
        self.shared.readers.clear(Duration::ZERO);
        *self.shared.producer.write() = None;
    }

    /// Why the store refuses everything at the moment, if it does.
    pub fn trouble(&self) -> Option<String> {
        match self.shared.health.state() {
            State::Up => None,
            State::Closed => Some("the store is closed".to_owned()),
            State::Starting(why) | State::Down(why) | State::Lost(why) => Some(why),
        }
    }
}

impl Overflow for Kafka {
    fn lanes(&self) -> u16 {
        self.shared.config.lanes
    }

    fn ready(&self) -> bool {
        !matches!(self.shared.health.state(), State::Starting(_))
    }

    fn append(&self, entries: &[Entry]) -> Vec<Result<u64, AppendError>> {
        appender::append(&self.shared, entries)
    }

    fn read(&self, lane: u16, from: u64, only: Option<Group>, most: Most) -> Result<Batch, ReadError> {
        reader::read(&self.shared, lane, from, only, most)
    }

    fn consume(&self, lane: u16, marks: &Marks<'_>, handed: u64) -> Result<(), ConsumeError> {
        marks::consume(&self.shared, lane, marks, handed)
    }

    fn group_marks_max(&self) -> usize {
        commits::GROUPS_MAX
    }

    fn group_marks(&self, lane: u16) -> Vec<(Group, u64)> {
        self.shared.lanes.lane(lane).map(|lane| lane.consumed.groups().to_vec()).unwrap_or_default()
    }

    fn span(&self, lane: u16) -> Span {
        self.shared.lanes.span(lane)
    }

    fn usage(&self) -> Usage {
        self.shared.lanes.usage()
    }

    fn close(&self) {
        let up = self.shared.health.check().is_ok();
        if self.shared.health.close() {
            if up {
                self.shared.settle();
            }
            self.end();
        }
    }
}

/// As a crash does it: nothing is said to the broker.
impl Drop for Kafka {
    fn drop(&mut self) {
        if self.shared.health.close() {
            self.end();
        }
    }
}

impl fmt::Debug for Kafka {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Kafka")
            .field("config", &self.shared.config)
            .field("state", &self.shared.health.state())
            .finish_non_exhaustive()
    }
}

impl Shared {
    /// Longest body that the topic takes.
    fn record_bytes_max(&self) -> usize {
        let limit = self.message_bytes_max.load(Ordering::Relaxed);
        self.config.record_bytes_max.min(limit.saturating_sub(topic::OVERHEAD_BYTES))
    }

    /// Says of each lane that all it handed out arrived. Where that fails, the next one to open it hears of more than was lost.
    fn settle(&self) {
        for lane in 0..self.config.lanes {
            let _turn = self.lanes.turn(lane);
            let known = self.lanes.lane(lane).map(|lane| lane.clone()).unwrap_or_default();
            let settled = Mark { consumed: known.consumed, handed: 0 };
            if known.handed > 0 && marks::write(self, lane, settled).is_err() {
                return;
            }
        }
    }
}

impl ClientContext for Quiet {
    fn log(&self, _: RDKafkaLogLevel, _: &str, _: &str) {}
    fn error(&self, _: KafkaError, _: &str) {}
}

impl ConsumerContext for Quiet {}
