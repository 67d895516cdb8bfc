//! What one activation that waits for its answer takes, all of it counted: seat, timer, the way of the answer, what its caller holds.
//!
//! Alone in its process, since it counts every byte that is allocated there.

#![allow(clippy::unwrap_used, reason = "all of this is tests")]

#[allow(dead_code, reason = "other tests use the rest of it")]
#[path = "it/router.rs"]
mod router;

use bytes::Bytes;
use client::{ActionKey, Controller, Invocation, Invoke, Pending};
use futures_util::FutureExt;
use router::Scripted;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use std::alloc::System;
use std::time::Duration;

#[global_allocator]
static COUNTED: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// A million is as many as a controller takes by default; a quarter shows the same in less time.
const WAITING: usize = 1 << 18;
/// Fewer than the outlet takes.
const AT_ONCE: usize = 1 << 12;
const BYTES_MAX: usize = 300;
/// What an allocator adds to each of its blocks, and there is one for each that waits.
const BLOCK_BYTES: usize = 16;

fn allocated() -> usize {
    let stats = COUNTED.stats();
    stats.bytes_allocated - stats.bytes_deallocated
}

/// As many timers a tick as a million activations with deadlines within three minutes have.
fn deadline(number: usize) -> Duration {
    Duration::from_secs(60) + Duration::from_millis(number as u64 % (180_000 * WAITING as u64 / (1 << 20)))
}

#[tokio::test(start_paused = true)]
async fn an_activation_that_waits_takes_less_than_300_bytes() {
    let mut router = Scripted::start();
    let (controller, (mut peer, _)) = tokio::join!(Controller::over(router.channel(), "me"), router.push());
    let controller = controller.unwrap();
    let key = ActionKey::new("guest", "hello", "1").unwrap();
    let (mut waiting, mut boxed) = (Vec::<Pending>::with_capacity(WAITING), Vec::new());

    let before = allocated();
    let mut number = 0;
    while number < WAITING {
        for _ in 0..AT_ONCE {
            waiting.push(controller.submit(Invocation::new(&key, "payload").deadline(deadline(number))));
            number += 1;
        }
        let mut left = AT_ONCE;
        while left > 0 {
            left -= peer.frame().await.activations.len();
        }
    }
    assert_eq!(controller.outstanding(), WAITING);
    let held = size_of::<Pending>();
    let submitted = (allocated() - before) / WAITING + held + BLOCK_BYTES;
    println!("submit: {submitted} bytes each, of them {held} with the caller");
    assert!(submitted <= BYTES_MAX, "{submitted} bytes");

    drop(waiting);
    assert_eq!(controller.outstanding(), 0);
    let residue = allocated().saturating_sub(before);
    assert!(residue < 1 << 20, "{residue} bytes stay behind");

    // The convenient way, each in a box of its own.
    boxed.reserve_exact(AT_ONCE);
    let before = allocated();
    for number in 0..AT_ONCE {
        let mut invoked = Box::pin(controller.invoke(&key, Bytes::from_static(b"payload"), deadline(number)));
        assert!((&mut invoked).now_or_never().is_none());
        boxed.push(invoked);
    }
    let mut left = AT_ONCE;
    while left > 0 {
        left -= peer.frame().await.activations.len();
    }
    let invoked = (allocated() - before) / AT_ONCE + 2 * BLOCK_BYTES + size_of::<usize>();
    println!("invoke: {invoked} bytes each, of them {} in the future", size_of::<Invoke<'_>>());
    assert!(invoked <= BYTES_MAX + 20, "{invoked} bytes");
}
