//! The Kafka store against a real Apache Kafka: one broker for all tests, which have it one after the other, for they kill it,
//! stop it and take topics away. Needs what `scripts/kafka` needs; without that the tests fail and say so.

// Helpers of tests are tests, too.
#![allow(clippy::unwrap_used)]

#[allow(dead_code, reason = "each program that shares it uses a part of it")]
mod support;

use overflow::kafka::{Config, Kafka};
use overflow::{AppendError, Entry, Group, Marks, Most, Overflow, ReadError, Record, Span};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::KafkaResult;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};
use support::broker::{self, Broker, eventually};
use support::cycles;
use support::topic::{LONG, contract, open, unique};

/// All cases, each with a topic of its own.
#[test]
fn the_contract_of_a_store() {
    with_broker(|broker| {
        contract(|name| config(broker, name));
    });
}

#[test]
fn lanes_keep_their_order_and_marks_survive() {
    with_broker(|broker| {
        let config = config(broker, "order");
        let store = open(&config);
        let entries: Vec<Entry> = (0..300).map(|number| entry(number % 3, number)).collect();
        let of_lane_1: Vec<u64> = positions(&store.append(&entries)).into_iter().skip(1).step_by(3).collect();
        let (middle, late, next) = (of_lane_1[40], of_lane_1[90], of_lane_1[99] + 1);
        assert_eq!(store.span(1), Span { first: 0, next });
        // Each has 12 B for its group and its length.
        assert!((300 * 268..310 * 268).contains(&store.usage().bytes), "{:?}", store.usage());

        // The mark lies in the middle of a message.
        let batch = store.read(1, 0, None, Most { records: 40, bytes: usize::MAX }).unwrap();
        assert_eq!(numbers(&batch.records), (0..40).map(|index| index * 3 + 1).collect::<Vec<u16>>());
        assert_eq!(batch.next, middle);
        store.consume(1, &Marks::up_to(batch.next), 40).unwrap();
        assert_eq!(store.read(1, middle, None, Most { records: 9, bytes: 257 }).unwrap().records.len(), 1);
        assert_eq!(store.read(1, next, None, ALL).unwrap().next, next);

        // As after a crash: the first one never said that all had arrived.
        let again = open(&config);
        assert_eq!((again.span(1), again.span(2)), (Span { first: middle, next }, Span { first: 0, next }));
        assert_eq!(again.usage().lost_in_crash_max, 40);
        assert_eq!(numbers(&read_all(&again, 1)), (40..100).map(|index| index * 3 + 1).collect::<Vec<u16>>());
        again.consume(1, &Marks::up_to(late), 50).unwrap();
        again.close();
        assert_eq!(again.append(&entries[..1]), [Err(AppendError::Closed)]);

        let after_close = open(&config);
        assert_eq!(after_close.span(1), Span { first: late, next });
        assert_eq!(after_close.usage().lost_in_crash_max, 0);
    });
}

#[test]
fn a_record_too_large_is_named_with_the_limit() {
    with_broker(|broker| {
        let mut config = config(broker, "large");
        create(broker, &config, 3, &[("max.message.bytes", "100000")]);
        config.record_bytes_max = 1 << 20;
        let store = open(&config);
        let body = |bytes| overflow::contract::entry(0, vec![1; bytes]);
        let limit = 100_000 - 1024;
        let results = store.append(&[body(limit), body(limit + 1), body(1)]);
        assert!(results[0].is_ok());
        assert_eq!(results[1], Err(AppendError::TooLarge { bytes: limit + 1, limit }));
        assert!(results[2].is_err(), "nothing passes a failure in its lane");
        // Many small ones are not too large together.
        let small: Vec<Entry> = (0..1000).map(|_| body(1000)).collect();
        assert!(store.append(&small).iter().all(Result::is_ok));
        assert_eq!(read_all(&store, 0).len(), 1001);
    });
}

#[test]
fn a_topic_with_other_partitions_is_refused_by_name() {
    with_broker(|broker| {
        let config = config(broker, "partitions");
        create(broker, &config, 2, &[]);
        let store = Kafka::open(config).unwrap();
        eventually("the reason is told", LONG, || store.trouble().is_some_and(|why| why.contains("has 2 partitions")));
        assert!(!store.ready());
        assert!(
            matches!(&store.append(&[entry(0, 0)])[0], Err(AppendError::Unavailable(why)) if why.contains("2 partitions"))
        );
    });
}

#[test]
fn consumed_records_are_dropped_from_the_topic() {
    with_broker(|broker| {
        let config = config(broker, "trim");
        let store = open(&config);
        // Each append is a message, in which there are two.
        let pair = |number: u16| positions(&store.append(&[entry(2, 2 * number), entry(2, 2 * number + 1)]));
        let positions: Vec<u64> = (0..15).flat_map(pair).collect();
        store.consume(2, &Marks::up_to(positions[21]), 21).unwrap();
        let asker = client(broker);
        eventually("the topic begins with the message that has the mark", LONG, || {
            asker.inner().fetch_watermarks(&config.topic, 2, LONG).is_ok_and(|edges| edges == (10, 15))
        });
        assert_eq!(numbers(&read_all(&store, 2)), (21..30).collect::<Vec<u16>>());
    });
}

#[test]
fn records_deleted_by_others_are_gone_and_never_jumped_over() {
    with_broker(|broker| {
        let config = config(broker, "deleted-records");
        let store = open(&config);
        // Each in a message of its own.
        let positions: Vec<u64> = (0..50).flat_map(|number| positions(&store.append(&[entry(0, number)]))).collect();
        let fifth = store.read(0, 0, None, Most { records: 5, bytes: usize::MAX }).unwrap().next;
        delete_records(broker, &config, 0, 30);
        // What was fetched before may still come; then it is told where the lane goes on.
        let mut from = fifth;
        let first = loop {
            match store.read(0, from, None, Most { records: 5, bytes: usize::MAX }) {
                Ok(batch) => {
                    let due = positions.iter().skip_while(|position| **position < from);
                    assert!(batch.records.iter().map(|record| &record.position).eq(due.take(batch.records.len())));
                    from = batch.next;
                }
                Err(ReadError::Gone { first, .. }) => break first,
                Err(other) => panic!("{other}"),
            }
            if from == store.span(0).next {
                from = fifth;
            }
        };
        assert!(first > positions[29] && first <= positions[30]);
        assert_eq!(numbers(&read_from(&store, 0, first)), (30..50).collect::<Vec<u16>>());
        // A new store finds the gap too, for its mark is below.
        let again = open(&config);
        assert_eq!(again.span(0), store.span(0));
        assert!(matches!(again.read(0, 0, None, ALL), Err(ReadError::Gone { first: told, .. }) if told == first));
    });
}

#[test]
fn what_others_wrote_into_the_topic_is_damaged_and_passed_over() {
    with_broker(|broker| {
        let config = config(broker, "foreign");
        let store = open(&config);
        assert!(store.append(&[entry(0, 0), entry(0, 1)]).iter().all(Result::is_ok));
        let other: BaseProducer = ClientConfig::new().set("bootstrap.servers", broker.servers()).create().unwrap();
        for _ in 0..2 {
            other.send(BaseRecord::<(), str>::to(&config.topic).partition(0).payload("hello")).unwrap();
        }
        other.flush(LONG).unwrap();
        assert!(store.append(&[entry(0, 2)])[0].is_ok());
        assert_eq!(numbers(&read_all(&store, 0)), [0, 1, 2]);
        assert_eq!(store.usage().damaged, 2);
        // Nobody knows whose it was; it is counted once, whoever comes by how often.
        for only in [None, Some(Group(0)), Some(Group(1))] {
            let batch = store.read(0, 0, only, ALL).unwrap();
            assert_eq!((batch.damaged, batch.lost, store.note(0, 0)), (0, vec![], None));
        }
        assert_eq!(store.usage().damaged, 2);
    });
}

#[test]
fn a_topic_deleted_while_running_is_named_and_nothing_is_made_up() {
    with_broker(|broker| {
        let config = config(broker, "deleted-topic");
        let store = open(&config);
        let end = positions(&store.append(&[entry(0, 0), entry(0, 1)]))[1] + 1;
        delete_topic(broker, &config);
        eventually("the loss is noticed", LONG, || store.trouble().is_some_and(|why| why.contains("deleted")));
        let refused = store.append(&[entry(0, 2)]);
        assert!(refused[0].is_err(), "{refused:?}");
        eventually(
            "it is final",
            LONG,
            || matches!(store.read(0, 0, None, ALL), Err(ReadError::Gone { first, .. }) if first == end),
        );
        assert!(
            matches!(&store.append(&[entry(0, 2)])[0], Err(AppendError::Unavailable(why)) if why.contains("deleted"))
        );
        assert_eq!(store.read(0, end, None, ALL).unwrap().records, []);
        store.consume(0, &Marks::up_to(end), 0).unwrap();
        // Opened again, it starts with a new topic.
        let again = open(&config);
        assert!(again.append(&[entry(0, 7)])[0].is_ok());
        assert_eq!(numbers(&again.read(0, 0, None, ALL).unwrap().records), [7]);
    });
}

#[test]
fn a_topic_recreated_behind_its_back_is_named() {
    with_broker(|broker| {
        let config = config(broker, "recreated");
        let store = open(&config);
        let end = positions(&store.append(&[entry(0, 0), entry(0, 1), entry(1, 2)]))[1] + 1;
        delete_topic(broker, &config);
        eventually("there is one of that name again", LONG, || try_create(broker, &config, 3, &[]).is_ok());
        let is_gone = || matches!(store.read(0, 0, None, ALL), Err(ReadError::Gone { first, .. }) if first == end);
        eventually("it is noticed", LONG, is_gone);
        assert!(
            matches!(&store.append(&[entry(0, 3)])[0], Err(AppendError::Unavailable(why)) if why.contains("recreated"))
        );
    });
}

#[test]
fn a_broker_that_is_absent_at_the_start_is_not_waited_for() {
    with_broker(|broker| {
        broker.kill();
        let start = Instant::now();
        let store = Kafka::open(config(broker, "absent")).unwrap();
        let refused = store.append(&[entry(0, 0)]);
        assert!(matches!(refused[0], Err(AppendError::Unavailable(_))), "{refused:?}");
        assert!(matches!(store.read(0, 0, None, ALL), Err(ReadError::Unavailable(_))));
        assert_eq!((store.ready(), store.span(0)), (false, Span::default()));
        assert!(start.elapsed() < Duration::from_secs(2), "refusals must not wait for the broker");
        broker.start();
        eventually("the store comes by itself", LONG, || store.trouble().is_none());
        assert!(store.ready());
        assert!(store.append(&[entry(0, 0)])[0].is_ok());
    });
}

#[test]
fn a_broker_that_stands_still_is_refused_and_comes_back() {
    with_broker(|broker| {
        let config = config(broker, "slow");
        let store = open(&config);
        assert!(store.append(&[entry(0, 0)])[0].is_ok());
        broker.stop();
        let start = Instant::now();
        let unknown = store.append(&[entry(0, 1)]);
        assert!(matches!(unknown[0], Err(AppendError::Unknown(_))), "{unknown:?}");
        assert!(start.elapsed() < config.timeout + Duration::from_secs(4), "{:?}", start.elapsed());
        let (start, refused) = (Instant::now(), store.append(&[entry(0, 2)]));
        assert!(matches!(refused[0], Err(AppendError::Unavailable(_))), "{refused:?}");
        assert!(store.consume(0, &Marks::up_to(1), 1).is_err());
        assert!(start.elapsed() < Duration::from_secs(2), "only who notices has to wait");
        broker.go_on();
        eventually("the store comes back", LONG, || store.trouble().is_none());
        eventually("it takes records", LONG, || store.append(&[entry(0, 3)])[0].is_ok());
        let records = store.read(0, 0, None, ALL).unwrap().records;
        let (first, read) = (records[0].position, numbers(&records));
        assert!(read.first() == Some(&0) && read.last() == Some(&3) && !read.contains(&2), "{read:?}");
        store.consume(0, &Marks::up_to(first + 1), 1).unwrap();
    });
}

#[test]
fn a_mark_that_cannot_be_written_hands_out_nothing() {
    with_broker(|broker| {
        let config = config(broker, "marks");
        let store = open(&config);
        assert!(store.append(&[entry(0, 0), entry(0, 1)]).iter().all(Result::is_ok));
        let Span { first, next } = store.span(0);
        assert_eq!((first, store.read(0, 0, None, ALL).unwrap().next), (0, next));
        broker.stop();
        let start = Instant::now();
        assert!(store.consume(0, &Marks::up_to(next), 2).is_err());
        assert!(start.elapsed() < 3 * config.timeout + Duration::from_secs(2), "{:?}", start.elapsed());
        assert_eq!(store.span(0), Span { first, next });
        broker.go_on();
        eventually("the mark can be written", LONG, || store.consume(0, &Marks::up_to(next), 2).is_ok());
        assert_eq!(open(&config).span(0), Span { first: next, next });
    });
}

#[test]
fn a_broker_killed_in_the_middle_loses_nothing_acknowledged() {
    with_broker(|broker| {
        let topic = unique("cycles");
        let tally = cycles::run(broker, &topic, 3, &|_| {});
        assert!(tally.acknowledged > 600, "{tally:?}");
        assert_eq!((tally.lost, tally.twice, tally.never_taken, tally.out_of_order), (0, 0, 0, 0), "{tally:?}");
    });
}

#[test]
fn a_property_that_librdkafka_does_not_know_is_named() {
    let mut config = Config::new("127.0.0.1:1", "topic");
    config.properties.insert("no.such.property".to_owned(), "1".to_owned());
    let error = Kafka::open(config).unwrap_err().to_string();
    assert!(error.contains("no.such.property"), "{error}");
}

fn with_broker(test: impl FnOnce(&mut Broker)) {
    broker::with_broker(Broker::new, test);
}

fn config(broker: &Broker, topic: &str) -> Config {
    let mut config = Config::new(broker.servers(), unique(topic));
    config.lanes = 3;
    config.timeout = Duration::from_secs(3);
    config
}

fn entry(lane: u16, number: u16) -> Entry {
    let mut body = vec![0; 256];
    body[..2].copy_from_slice(&number.to_be_bytes());
    overflow::contract::entry(lane, body)
}

/// All that is not consumed.
fn read_all(store: &Kafka, lane: u16) -> Vec<Record> {
    read_from(store, lane, store.span(lane).first)
}

/// What lies from there on: a read may give less than there is.
fn read_from(store: &Kafka, lane: u16, mut from: u64) -> Vec<Record> {
    let mut read = Vec::new();
    while from < store.span(lane).next {
        let batch = store.read(lane, from, None, ALL).unwrap();
        assert!(batch.next > from, "nothing is read at {from}");
        read.extend(batch.records);
        from = batch.next;
    }
    read
}

fn numbers(records: &[Record]) -> Vec<u16> {
    records.iter().map(|record| u16::from_be_bytes([record.body[0], record.body[1]])).collect()
}

/// Of an append that was taken.
fn positions(results: &[Result<u64, AppendError>]) -> Vec<u64> {
    results.iter().map(|result| *result.as_ref().unwrap()).collect()
}

fn client(broker: &Broker) -> AdminClient<DefaultClientContext> {
    ClientConfig::new().set("bootstrap.servers", broker.servers()).create().unwrap()
}

fn create(broker: &Broker, config: &Config, partitions: i32, settings: &[(&str, &str)]) {
    try_create(broker, config, partitions, settings).unwrap();
}

fn try_create(broker: &Broker, config: &Config, partitions: i32, settings: &[(&str, &str)]) -> Result<(), String> {
    let topic = NewTopic::new(&config.topic, partitions, TopicReplication::Fixed(1));
    let topic = settings.iter().fold(topic, |topic, (key, value)| topic.set(key, value));
    let created = wait(client(broker).create_topics([&topic], &AdminOptions::new())).unwrap();
    created.into_iter().next().unwrap().map(drop).map_err(|(_, code)| code.to_string())
}

fn delete_topic(broker: &Broker, config: &Config) {
    let deleted = wait(client(broker).delete_topics(&[&config.topic], &AdminOptions::new())).unwrap();
    deleted.into_iter().next().unwrap().unwrap();
}

fn delete_records(broker: &Broker, config: &Config, lane: i32, before: i64) {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&config.topic, lane, Offset::Offset(before)).unwrap();
    wait(client(broker).delete_records(&list, &AdminOptions::new())).unwrap();
}

/// Admin calls answer from a thread of their own, within librdkafka's minute.
fn wait<T>(answer: impl Future<Output = KafkaResult<T>>) -> KafkaResult<T> {
    let mut answer = pin!(answer);
    loop {
        if let Poll::Ready(answer) = answer.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return answer;
        }
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

const ALL: Most = Most { records: usize::MAX, bytes: usize::MAX };
