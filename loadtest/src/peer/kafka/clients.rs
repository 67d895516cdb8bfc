//! Kafka's clients: a producer and a consumer for each part.

use crate::part::road::{Down, Up};
use crate::part::{Event, Report};
use crate::peer::{Body, Peer};
use crate::plan::Plan;
use anyhow::{Context, anyhow};
use bytes::Bytes;
use proto::v1;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, ThreadedProducer};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::{Receiver, Sender, channel};

type Producer = ThreadedProducer<DefaultProducerContext>;

/// How the broker is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    /// acks=1, and offsets are committed, synchronously, before a batch is handled.
    AsOpenWhisk,
    /// acks=0, and offsets are committed in the background.
    Tuned,
}

impl From<Peer> for Use {
    fn from(peer: Peer) -> Self {
        if peer == Peer::KafkaTuned { Self::Tuned } else { Self::AsOpenWhisk }
    }
}

impl Use {
    /// Most messages taken at a time: OpenWhisk's `maxPeek`.
    fn batch_max(self) -> usize {
        match self {
            Self::AsOpenWhisk => 128,
            Self::Tuned => 1024,
        }
    }

    fn producer(self, endpoint: SocketAddr) -> anyhow::Result<Producer> {
        let acks = match self {
            Self::AsOpenWhisk => "1",
            Self::Tuned => "0",
        };
        let mut config = common(endpoint);
        config.set("acks", acks).set("linger.ms", "0").set("delivery.report.only.error", "true");
        Ok(config.set("queue.buffering.max.messages", "1000000").create()?)
    }

    /// A consumer of the topic's one partition, from its beginning. It is assigned by hand: no group to join and to wait for.
    fn consumer(self, endpoint: SocketAddr, topic: &str) -> anyhow::Result<BaseConsumer> {
        let in_background = if self == Self::Tuned { "true" } else { "false" };
        let mut config = common(endpoint);
        config.set("group.id", topic).set("enable.auto.commit", in_background).set("auto.offset.reset", "error");
        // Of the half second that is usual, a measured window would be half a stall.
        config.set("fetch.error.backoff.ms", "10");
        let consumer: BaseConsumer = config.create()?;
        let mut partition = TopicPartitionList::new();
        partition.add_partition_offset(topic, 0, Offset::Beginning)?;
        consumer.assign(&partition)?;
        Ok(consumer)
    }
}

fn common(endpoint: SocketAddr) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", endpoint.to_string()).set("socket.nagle.disable", "true");
    config
}

/// The roads of a plan's controllers.
pub(crate) async fn controllers(
    used: Use,
    endpoint: SocketAddr,
    plan: &Plan,
) -> anyhow::Result<Vec<(Requests, Answers)>> {
    let mut roads = Vec::new();
    for number in 0..plan.controllers {
        let topic = completed(plan, number);
        create(endpoint, &topic).await?;
        let (producer, consumer) = (used.producer(endpoint)?, used.consumer(endpoint, &topic)?);
        prove(&producer, &consumer, &topic)?;
        let (sender, bodies) = channel(BATCHES_MAX);
        consume(used, consumer, sender)?;
        let requests = Requests { producer: Arc::new(producer), topic: work(plan).into() };
        roads.push((requests, Answers { bodies }));
    }
    Ok(roads)
}

/// The workers of a plan: each echoes what it gets until `stop` resolves.
pub(crate) async fn workers(
    used: Use,
    endpoint: SocketAddr,
    plan: &Plan,
    report: Report,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    anyhow::ensure!(plan.invokers == 1, "a topic of one partition has one reader: --invokers must be 1 for Kafka");
    create(endpoint, &work(plan)).await?;
    let (producer, consumer) = (used.producer(endpoint)?, used.consumer(endpoint, &work(plan))?);
    prove(&producer, &consumer, &work(plan))?;
    let (sender, mut bodies) = channel(BATCHES_MAX);
    consume(used, consumer, sender)?;
    report(Event::Ready);
    tokio::pin!(stop);
    loop {
        tokio::select! {
            biased;
            batch = bodies.recv() => match batch {
                Some(batch) => batch.iter().for_each(|body| reply(&producer, plan, body)),
                None => return Err(anyhow!("the consumer ended")),
            },
            () = &mut stop => return Ok(()),
        }
    }
}

/// What is refused, is never answered: the generator sees that.
fn reply(producer: &Producer, plan: &Plan, body: &Body) {
    let topic = completed(plan, body.controller());
    let _ = producer.send(BaseRecord::<(), [u8]>::to(&topic).partition(0).payload(&body.bytes));
}

fn work(plan: &Plan) -> String {
    format!("work-{}", plan.run)
}

fn completed(plan: &Plan, controller: u32) -> String {
    format!("completed-{}-{controller}", plan.run)
}

/// Makes a topic of one partition, and waits until it is there.
async fn create(endpoint: SocketAddr, topic: &str) -> anyhow::Result<()> {
    let admin: AdminClient<DefaultClientContext> = common(endpoint).create()?;
    let wanted = NewTopic::new(topic, 1, TopicReplication::Fixed(1));
    let options = AdminOptions::new().operation_timeout(Some(PATIENCE)).request_timeout(Some(PATIENCE));
    let made = admin.create_topics([&wanted], &options).await?;
    match made.into_iter().next().context("an answer for the topic")? {
        Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => Ok(()),
        Err((topic, code)) => Err(anyhow!("cannot make topic {topic}: {code}")),
    }
}

/// Sends one empty message through a topic. Right after a topic is made its first fetch fails and is not tried again for a while:
/// that is over then.
fn prove(producer: &Producer, consumer: &BaseConsumer, topic: &str) -> anyhow::Result<()> {
    producer.send(BaseRecord::<(), [u8]>::to(topic).partition(0).payload(&[])).map_err(|(error, _)| error)?;
    match consumer.poll(PATIENCE) {
        Some(message) => message.map(drop).with_context(|| format!("nothing goes through topic {topic}")),
        None => Err(anyhow!("nothing went through topic {topic} in {} s", PATIENCE.as_secs())),
    }
}

const PATIENCE: Duration = Duration::from_secs(30);

/// Batches between a consumer's thread and its part.
const BATCHES_MAX: usize = 64;

/// Hands on what comes, in batches, from a thread of its own, until nobody takes them.
fn consume(used: Use, consumer: BaseConsumer, batches: Sender<Vec<Body>>) -> anyhow::Result<()> {
    std::thread::Builder::new().name("consumer".to_owned()).spawn(move || {
        while !batches.is_closed() {
            match take(used, &consumer) {
                Ok(batch) if batch.is_empty() => {}
                Ok(batch) => drop(batches.blocking_send(batch)),
                Err(error) => eprintln!("a consumer: {error}"),
            }
        }
    })?;
    Ok(())
}

/// Waits for a message, and takes those behind it that are here too.
fn take(used: Use, consumer: &BaseConsumer) -> Result<Vec<Body>, KafkaError> {
    let mut batch = Vec::new();
    let mut wait = Duration::from_millis(100);
    while batch.len() < used.batch_max() {
        let Some(message) = consumer.poll(wait) else { break };
        batch.push(Body::of(Bytes::copy_from_slice(message?.payload().unwrap_or_default())));
        wait = Duration::ZERO;
    }
    if used == Use::AsOpenWhisk && !batch.is_empty() {
        consumer.commit_consumer_state(CommitMode::Sync)?;
    }
    Ok(batch)
}

/// A controller's way up.
#[derive(Clone)]
pub(crate) struct Requests {
    producer: Arc<Producer>,
    topic: Arc<str>,
}

impl Up for Requests {
    fn push_all(&self, batch: Vec<v1::Activation>) -> Vec<v1::Activation> {
        let mut rest = batch.into_iter();
        while let Some(activation) = rest.next() {
            let message = [&activation.id[..], &activation.payload[..]].concat();
            let record = BaseRecord::<(), [u8]>::to(&self.topic).partition(0).payload(&message);
            if self.producer.send(record).is_err() {
                return std::iter::once(activation).chain(rest).collect();
            }
        }
        Vec::new()
    }
}

/// A controller's way down.
pub(crate) struct Answers {
    bodies: Receiver<Vec<Body>>,
}

impl Down for Answers {
    async fn next(&mut self) -> Option<Vec<v1::Answer>> {
        Some(self.bodies.recv().await?.into_iter().map(Body::answer).collect())
    }
}
