//! The topic as the broker has it: its partitions, limits and edges. It decides nothing.

use super::Quiet;
use super::config::Config;
use super::heard::Heard;
use rdkafka::TopicPartitionList;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code};
use rdkafka::topic_partition_list::Offset;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

/// The client that is asked.
pub(super) type Asker = BaseConsumer<Heard>;

/// Why the topic cannot be used as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Trouble {
    /// There is none of that name.
    Missing,
    /// It is there and not as it has to be.
    Wrong(String),
    /// Nobody answered, or not to the question.
    Unreachable(String),
}

impl From<KafkaError> for Trouble {
    fn from(error: KafkaError) -> Self {
        match error.rdkafka_error_code() {
            Some(Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition) => Self::Missing,
            _ => Self::Unreachable(error.to_string()),
        }
    }
}

/// Looks whether the topic has as many partitions as there are lanes, each with a leader.
pub(super) fn check(consumer: &Asker, config: &Config, most: Duration) -> Result<(), Trouble> {
    let metadata = consumer.fetch_metadata(Some(&config.topic), most)?;
    let topic = metadata.topics().first().ok_or(Trouble::Missing)?;
    if let Some(error) = topic.error() {
        return Err(KafkaError::MetadataFetch(error.into()).into());
    }
    let (found, name) = (topic.partitions().len(), &config.topic);
    if found != usize::from(config.lanes) {
        let lanes = config.lanes;
        return Err(Trouble::Wrong(format!("topic {name} has {found} partitions, and {lanes} lanes are configured")));
    }
    match topic.partitions().iter().find(|partition| partition.leader() < 0) {
        Some(partition) => Err(Trouble::Unreachable(format!("partition {} of {name} has no leader", partition.id()))),
        None => Ok(()),
    }
}

/// Creates it. Nothing but consuming ever removes a record: neither age nor size does.
pub(super) fn create(admin: &AdminClient<Quiet>, config: &Config, most: Duration) -> Result<(), Trouble> {
    let in_sync = config.replicas.map(|replicas| (replicas / 2 + 1).to_string());
    let longest = (config.record_bytes_max + OVERHEAD_BYTES).to_string();
    let replicas = TopicReplication::Fixed(config.replicas.map_or(-1, i32::from));
    let mut topic = NewTopic::new(&config.topic, i32::from(config.lanes), replicas)
        .set("cleanup.policy", "delete")
        .set("retention.ms", "-1")
        .set("retention.bytes", "-1")
        .set("segment.bytes", SEGMENT_BYTES)
        .set("unclean.leader.election.enable", "false")
        .set("max.message.bytes", &longest);
    if let Some(in_sync) = &in_sync {
        topic = topic.set("min.insync.replicas", in_sync);
    }
    let options = AdminOptions::new().request_timeout(Some(most)).operation_timeout(Some(most));
    let done = wait(admin.create_topics([&topic], &options), most)?;
    match done.into_iter().next() {
        None | Some(Ok(_) | Err((_, Code::TopicAlreadyExists))) => Ok(()),
        Some(Err((name, code))) => Err(Trouble::Unreachable(format!("topic {name} cannot be created: {code}"))),
    }
}

/// The longest message it takes, if the broker tells.
pub(super) fn message_bytes_max(admin: &AdminClient<Quiet>, config: &Config, most: Duration) -> Option<usize> {
    let options = AdminOptions::new().request_timeout(Some(most));
    let asked = [ResourceSpecifier::Topic(&config.topic)];
    let told = wait(admin.describe_configs(&asked, &options), most).ok()?;
    told.first()?.as_ref().ok()?.get("max.message.bytes")?.value.as_ref()?.parse().ok()
}

/// Has the broker drop what lies below the given offsets.
pub(super) fn drop_below(
    admin: &AdminClient<Quiet>,
    config: &Config,
    below: &[(u16, u64)],
    most: Duration,
) -> KafkaResult<()> {
    let mut list = TopicPartitionList::with_capacity(below.len());
    for (lane, below) in below {
        list.add_partition_offset(&config.topic, i32::from(*lane), offset(*below))?;
    }
    let options = AdminOptions::new().request_timeout(Some(most)).operation_timeout(Some(most));
    let done = wait(admin.delete_records(&list, &options), most)?;
    done.elements().iter().try_for_each(|element| element.error())
}

/// The first offset of each lane (`Offset::Beginning`), or the one above its last record (`Offset::End`).
pub(super) fn edges(consumer: &Asker, config: &Config, edge: Offset, most: Duration) -> KafkaResult<Vec<u64>> {
    let mut list = partitions(config);
    list.set_all_offsets(edge)?;
    let found = consumer.offsets_for_times(list, most)?;
    let mut edges = vec![0; usize::from(config.lanes)];
    for element in found.elements() {
        element.error()?;
        let place = usize::try_from(element.partition()).ok().and_then(|partition| edges.get_mut(partition));
        if let (Some(place), Some(edge)) = (place, whole(element.offset())) {
            *place = edge;
        }
    }
    Ok(edges)
}

/// One lane's first offset and the one above its last record.
pub(super) fn edges_of(consumer: &Asker, config: &Config, lane: u16, most: Duration) -> KafkaResult<(u64, u64)> {
    let (low, high) = consumer.fetch_watermarks(&config.topic, i32::from(lane), most)?;
    Ok((u64::try_from(low).unwrap_or(0), u64::try_from(high).unwrap_or(0)))
}

/// All of them, for questions about all.
pub(super) fn partitions(config: &Config) -> TopicPartitionList {
    let mut list = TopicPartitionList::with_capacity(usize::from(config.lanes));
    for lane in 0..config.lanes {
        list.add_partition(&config.topic, i32::from(lane));
    }
    list
}

pub(super) fn offset(whole: u64) -> Offset {
    Offset::Offset(i64::try_from(whole).unwrap_or(i64::MAX))
}

pub(super) fn whole(offset: Offset) -> Option<u64> {
    match offset {
        Offset::Offset(offset) => u64::try_from(offset).ok(),
        _ => None,
    }
}

/// Runs what librdkafka answers from a thread of its own.
fn wait<T>(answer: impl Future<Output = KafkaResult<T>>, most: Duration) -> KafkaResult<T> {
    let waker = Waker::from(Arc::new(Sleeper(std::thread::current())));
    let mut answer = pin!(answer);
    let until = Instant::now() + most + MARGIN;
    loop {
        if let Poll::Ready(answer) = answer.as_mut().poll(&mut Context::from_waker(&waker)) {
            return answer;
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(KafkaError::AdminOp(Code::OperationTimedOut));
        }
        std::thread::park_timeout(left);
    }
}

struct Sleeper(Thread);

impl Wake for Sleeper {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// What Kafka's format adds to a body at most: 61 B for a batch (kafka.apache.org/documentation/#recordbatch) and for the
/// record lengths and deltas of up to 10 B each; the rest is for requests that hold it.
pub(super) const OVERHEAD_BYTES: usize = 1024;
/// Space is given back by whole segments, so they are smaller than Kafka's 1 GiB.
const SEGMENT_BYTES: &str = "67108864";
const MARGIN: Duration = Duration::from_secs(1);
