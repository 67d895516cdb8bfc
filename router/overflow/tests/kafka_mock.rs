//! The Kafka store against librdkafka's mock cluster of three brokers, for faults that a single real one does not show. It is of
//! the same code base as the client, so it proves what the store makes of errors, not that a real cluster gives them.

// Helpers of tests are tests, too.
#![allow(clippy::unwrap_used)]

#[allow(dead_code, reason = "each program that shares it uses a part of it")]
mod support;

use overflow::kafka::{Config, Kafka};
use overflow::{AppendError, Entry, Marks, Most, Overflow, ReadError, Span};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey as Api, RDKafkaRespErr as Fault};
use std::time::{Duration, Instant};
use support::broker::eventually;

type Cluster = MockCluster<'static, DefaultProducerContext>;

#[test]
fn too_few_replicas_for_a_moment_are_waited_for() {
    let (cluster, store) = scene();
    cluster.request_errors(Api::Produce, &[Fault::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS; 2]);
    assert!(store.append(&[entry(0, 0), entry(0, 1)]).iter().all(Result::is_ok));
    assert_eq!(numbers(&store, 0, 0), [0, 1]);
}

#[test]
fn too_few_replicas_for_long_are_not_known_to_be_stored() {
    let (cluster, store) = scene();
    cluster.request_errors(Api::Produce, &[Fault::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS; 1000]);
    let results = store.append(&[entry(0, 0), entry(1, 1)]);
    assert!(results.iter().all(|result| matches!(result, Err(AppendError::Unknown(_)))), "{results:?}");
    cluster.clear_request_errors(Api::Produce);
    eventually("it is stored again", LONG, || store.append(&[entry(0, 2)])[0].is_ok());
    assert_eq!(numbers(&store, 0, 0).last(), Some(&2));
}

#[test]
fn a_new_leader_is_found_and_order_stays() {
    let (cluster, store) = scene();
    for round in 0..6 {
        cluster.partition_leader(TOPIC, 0, Some(i32::from(round % 3) + 1)).unwrap();
        let (from, entries) = (store.span(0).next, (0..50).map(|index| entry(0, round * 50 + index)));
        let entries: Vec<Entry> = entries.collect();
        assert!(store.append(&entries).iter().all(Result::is_ok), "round {round}");
        let read = numbers(&store, 0, from);
        assert_eq!(read, (round * 50..round * 50 + 50).collect::<Vec<u16>>(), "round {round}");
    }
}

#[test]
fn answers_lost_on_the_way_store_nothing_twice() {
    let (cluster, store) = scene();
    let lost = [
        Fault::RD_KAFKA_RESP_ERR__TRANSPORT,
        Fault::RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT,
        Fault::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
        Fault::RD_KAFKA_RESP_ERR__TRANSPORT,
    ];
    cluster.request_errors(Api::Produce, &lost);
    let mut taken = Vec::new();
    for number in 0..20 {
        let result = store.append(&[entry(0, number)]).remove(0);
        taken.extend(result.is_ok().then_some(number));
        eventually("the store is up", LONG, || store.trouble().is_none());
    }
    let read = numbers(&store, 0, 0);
    assert!(taken.iter().all(|number| read.iter().filter(|found| *found == number).count() == 1), "{taken:?} {read:?}");
    assert!(read.is_sorted(), "{read:?}");
}

#[test]
fn an_append_that_may_not_be_made_is_not_stored() {
    let (cluster, store) = scene();
    cluster.request_errors(Api::Produce, &[Fault::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED]);
    let results = store.append(&[entry(0, 0)]);
    assert!(matches!(results[0], Err(AppendError::Unavailable(_))), "{results:?}");
    eventually("it may be made again", LONG, || store.append(&[entry(0, 1)])[0].is_ok());
    assert_eq!(numbers(&store, 0, 0), [1]);
}

#[test]
fn a_producer_that_gave_up_is_replaced() {
    let (cluster, store) = scene();
    assert!(store.append(&[entry(0, 0)])[0].is_ok());
    cluster.request_errors(Api::Produce, &[Fault::RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH; 3]);
    let results = store.append(&[entry(0, 1)]);
    cluster.clear_request_errors(Api::Produce);
    let mut last = Vec::new();
    eventually("it is stored again", LONG, || {
        last = store.append(&[entry(0, 2)]);
        last[0].is_ok()
    });
    let read = numbers(&store, 0, 0);
    assert!(read.first() == Some(&0) && read.last() == Some(&2), "{results:?} {last:?} {read:?}");
}

#[test]
fn a_slow_broker_is_waited_for_within_the_timeout() {
    let (cluster, store) = scene();
    cluster.broker_round_trip_time(-1, Duration::from_millis(300)).unwrap();
    let start = Instant::now();
    assert!(store.append(&[entry(0, 0)])[0].is_ok());
    assert!(start.elapsed() >= Duration::from_millis(300), "acknowledged before the broker said so");
    store.consume(0, &Marks::up_to(store.span(0).next), 1).unwrap();
    cluster.broker_round_trip_time(-1, Duration::from_secs(30)).unwrap();
    let results = store.append(&[entry(0, 1)]);
    assert!(matches!(results[0], Err(AppendError::Unknown(_))), "{results:?}");
    assert!(store.trouble().is_some());
}

#[test]
fn out_of_range_is_an_error_and_never_a_jump() {
    let (cluster, store) = scene();
    let entries: Vec<Entry> = (0..10).map(|number| entry(0, number)).collect();
    let from = *store.append(&entries)[4].as_ref().unwrap();
    cluster.request_errors(Api::Fetch, &[Fault::RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE]);
    let refused = store.read(0, from, None, ALL);
    assert!(matches!(refused, Err(ReadError::Unavailable(_))), "{refused:?}");
    eventually("the store is up", LONG, || store.trouble().is_none());
    assert_eq!(numbers(&store, 0, from), (4..10).collect::<Vec<u16>>());
}

#[test]
fn a_mark_follows_the_group_and_stays_where_it_was_if_it_may_not_be_written() {
    let (cluster, store) = scene();
    let results = store.append(&[entry(0, 0), entry(0, 1), entry(0, 2)]);
    let [first, second, next] = [0, 1, 2].map(|index: usize| results[index].as_ref().unwrap() + 1);
    let passing = [
        Fault::RD_KAFKA_RESP_ERR_NOT_COORDINATOR,
        Fault::RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS,
        Fault::RD_KAFKA_RESP_ERR_COORDINATOR_NOT_AVAILABLE,
    ];
    cluster.request_errors(Api::OffsetCommit, &passing);
    store.consume(0, &Marks::up_to(first), 1).unwrap();
    cluster.request_errors(Api::OffsetCommit, &[Fault::RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED]);
    assert!(store.consume(0, &Marks::up_to(second), 1).is_err());
    assert_eq!(store.span(0), Span { first, next });
    eventually("the mark can be written", LONG, || store.consume(0, &Marks::up_to(next), 2).is_ok());
    assert_eq!(store.span(0), Span { first: next, next });
    assert_eq!(open(&cluster).span(0), Span { first: next, next });
}

#[test]
fn a_cluster_that_goes_and_comes_is_followed() {
    let (cluster, store) = scene();
    assert!(store.append(&[entry(0, 0)])[0].is_ok());
    cluster.broker_down(-1).unwrap();
    eventually("it is noticed", LONG, || store.trouble().is_some());
    let refused = store.append(&[entry(0, 1)]);
    assert!(matches!(refused[0], Err(AppendError::Unavailable(_))), "{refused:?}");
    cluster.broker_up(-1).unwrap();
    eventually("the store is up", LONG, || store.trouble().is_none());
    assert!(store.append(&[entry(0, 2)])[0].is_ok());
    assert_eq!(numbers(&store, 0, 0), [0, 2]);
}

#[test]
fn lanes_do_not_wait_for_one_another() {
    let (cluster, store) = scene();
    cluster.partition_leader(TOPIC, 0, Some(1)).unwrap();
    cluster.partition_leader(TOPIC, 1, Some(2)).unwrap();
    let both = || store.append(&[entry(0, 0), entry(1, 1)]).iter().all(Result::is_ok);
    assert!(both());
    let late = Duration::from_secs(1);
    cluster.broker_round_trip_time(2, late).unwrap();
    std::thread::scope(|threads| {
        let slow = threads.spawn(|| (store.append(&[entry(1, 2)]), Instant::now()));
        assert!(store.append(&[entry(0, 3)])[0].is_ok());
        assert_eq!(numbers(&store, 0, 0), [0, 3]);
        let quick = Instant::now();
        let (results, then) = slow.join().unwrap();
        assert!(results[0].is_ok(), "{results:?}");
        assert!(then > quick, "the quick lane waited for the slow one");
    });
}

/// A cluster with a topic, and a store on it that is up.
fn scene() -> (Cluster, Kafka) {
    let cluster = MockCluster::new(3).unwrap();
    cluster.create_topic(TOPIC, 3, 3).unwrap();
    let store = open(&cluster);
    (cluster, store)
}

fn open(cluster: &Cluster) -> Kafka {
    let mut config = Config::new(cluster.bootstrap_servers(), TOPIC);
    config.lanes = 3;
    config.timeout = Duration::from_secs(3);
    let store = Kafka::open(config).unwrap();
    eventually("the store is up", LONG, || store.trouble().is_none());
    store
}

fn entry(lane: u16, number: u16) -> Entry {
    overflow::contract::entry(lane, number.to_be_bytes())
}

/// All that a lane has from a position on.
fn numbers(store: &Kafka, lane: u16, from: u64) -> Vec<u16> {
    let (mut numbers, mut next) = (Vec::new(), from);
    while next < store.span(lane).next {
        let batch = store.read(lane, next, None, ALL).unwrap();
        numbers.extend(batch.records.iter().map(|record| u16::from_be_bytes([record.body[0], record.body[1]])));
        next = batch.next;
    }
    numbers
}

const TOPIC: &str = "overflow";
/// Long enough for anything that comes to pass at all.
const LONG: Duration = Duration::from_secs(60);
const ALL: Most = Most { records: usize::MAX, bytes: usize::MAX };
