//! Frames on the wire: what writing and reading one costs, by kind and number of entries. Payloads and results have 256
//! bytes.

use bytes::{Bytes, BytesMut};
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput};
use prost::Message;
use proto::v1;
use std::hint::black_box;

fn main() {
    benches::run(&[push_request, push_response, pull_request, pull_response]);
}

const PAYLOAD_BYTES: usize = 256;
const ENTRIES: [u32; 3] = [1, 64, 1_024];

fn push_request(criterion: &mut Criterion) {
    measure(criterion, "PushRequest", |entries| v1::PushRequest {
        activations: (0..entries).map(activation).collect(),
        ..Default::default()
    });
}

fn push_response(criterion: &mut Criterion) {
    measure(criterion, "PushResponse", |entries| v1::PushResponse {
        answers: (0..entries).map(answer).collect(),
        ..Default::default()
    });
}

fn pull_request(criterion: &mut Criterion) {
    measure(criterion, "PullRequest", |entries| v1::PullRequest {
        completions: (0..entries).map(completion).collect(),
        ..Default::default()
    });
}

fn pull_response(criterion: &mut Criterion) {
    measure(criterion, "PullResponse", |entries| v1::PullResponse {
        dispatches: (0..entries).map(dispatch).collect(),
        ..Default::default()
    });
}

fn measure<F: Message + Default + PartialEq>(criterion: &mut Criterion, kind: &str, frame: impl Fn(u32) -> F) {
    let mut group = criterion.benchmark_group(format!("frames/{kind}"));
    for entries in ENTRIES {
        group.throughput(Throughput::Elements(entries.into()));
        encode(&mut group, entries, &frame(entries));
        decode(&mut group, entries, &frame(entries));
    }
    group.finish();
}

/// Into a buffer that is used again, as a stream does.
fn encode<F: Message>(group: &mut BenchmarkGroup<'_, WallTime>, entries: u32, frame: &F) {
    let mut buffer = BytesMut::with_capacity(frame.encoded_len());
    group.bench_function(format!("encode {entries}"), |bencher| {
        bencher.iter(|| {
            buffer.clear();
            black_box(frame).encode(&mut buffer).expect("it has room");
        });
    });
}

/// From shared bytes, so that payloads are references to them.
fn decode<F: Message + Default + PartialEq>(group: &mut BenchmarkGroup<'_, WallTime>, entries: u32, frame: &F) {
    let bytes = Bytes::from(frame.encode_to_vec());
    assert!(F::decode(bytes.clone()).is_ok_and(|read| read == *frame), "it reads as it was written");
    group.bench_function(format!("decode {entries}"), |bencher| {
        bencher.iter(|| F::decode(black_box(&bytes).clone()));
    });
}

fn activation(n: u32) -> v1::Activation {
    v1::Activation { id: id(n), action: 7, time_left_ms: 60_000, payload: payload(), ..Default::default() }
}

fn answer(n: u32) -> v1::Answer {
    v1::Answer {
        id: id(n),
        outcome: v1::Outcome::Completed.into(),
        result: payload(),
        queue_us: 40,
        dispatch_us: 400,
        run_us: 4_000,
        ..Default::default()
    }
}

fn completion(n: u32) -> v1::Completion {
    let status = v1::RunStatus::Succeeded.into();
    v1::Completion {
        container: 7,
        id: id(n),
        status,
        result: payload(),
        run_us: 4_000,
        credits: 1,
        ..Default::default()
    }
}

fn dispatch(n: u32) -> v1::Dispatch {
    v1::Dispatch { container: 7, id: id(n), time_left_ms: 60_000, payload: payload(), attempt: 1, ..Default::default() }
}

fn id(n: u32) -> Bytes {
    Bytes::copy_from_slice(&u128::from(n).to_le_bytes())
}

fn payload() -> Bytes {
    vec![7; PAYLOAD_BYTES].into()
}
