//! The drain: how a router ends that was told to stop. Every caller hears something before its stream ends.
//!
//! ```text
//!   nothing new is taken ─▶ what is queued is handed out, what is stored read back, what is in flight awaited
//!        │                       │ half of the time is over: what is stored stays, and its controllers hear ACCEPTED, durable
//!        │                       ▼
//!        │                  the time is nearly over: what never started is REJECTED, what is in flight is LOST
//!        ▼                       ▼
//!   nothing is held ────────▶ all that waits is written, controllers that are away may come for it ─▶ streams end, OK
//!                                │ the time is over
//!                                ▼
//!                           streams end with UNAVAILABLE, and with what they have not read
//! ```
//!
//! This file may not open or accept anything, and may not end the process.

use crate::grpc::{Service, draining};
use engine::cutoff::CutOff;
use std::fmt;
use std::time::Duration;
use tokio::time::{Instant, Interval, interval, timeout_at};

/// What was left when a drain was over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Left {
    /// Activations that never started: rejected.
    pub queued: u64,
    /// Activations that were in flight: lost.
    pub in_flight: u64,
    /// Activations that stay in the store for the next start.
    pub stored: u64,
    /// Answers whose controllers did not come for them, or did not read them.
    pub unread: u64,
}

impl Left {
    /// Whether nothing was left.
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { queued, in_flight, stored, unread } = self;
        write!(f, "{queued} never started, {in_flight} in flight, {stored} stored, {unread} answers not read")
    }
}

/// How often a drain looks whether it is done.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// How often a drain looks at each container.
const WALK_INTERVAL: Duration = Duration::from_millis(100);
/// The last part of a drain's time, in which callers hear how it ends for them: a tenth of it, within these bounds.
const FAREWELL_PARTS: u32 = 10;
const FAREWELL_MIN: Duration = Duration::from_millis(200);
const FAREWELL_MAX: Duration = Duration::from_secs(2);

/// When a drain does what.
#[derive(Debug, Clone, Copy)]
struct Schedule {
    /// Until then what is stored is read back.
    refill_until: Instant,
    /// Until then what is held is awaited.
    hold_until: Instant,
    /// Until then all that waits is written.
    write_until: Instant,
}

impl Schedule {
    /// For a drain that begins now and takes that long. A very short one takes a little longer, so that callers hear of it.
    fn new(now: Instant, drain_timeout: Duration) -> Self {
        let farewell = (drain_timeout / FAREWELL_PARTS).clamp(FAREWELL_MIN, FAREWELL_MAX);
        let held = drain_timeout.saturating_sub(farewell);
        Self { refill_until: now + held / 2, hold_until: now + held, write_until: now + held + farewell }
    }
}

/// Drains a router, for about as long as it may take, and ends its streams. Returns what was left.
pub(crate) async fn drain(service: &Service, drain_timeout: Duration) -> Left {
    let unread_before = service.streams.answers_dropped();
    let schedule = Schedule::new(Instant::now(), drain_timeout);
    service.drain();
    let in_time = timeout_at(schedule.hold_until, finish_held(service, schedule.refill_until)).await.is_ok();
    let CutOff { queued, in_flight } = if in_time { CutOff::default() } else { cut_off(service) };
    let written = async {
        // What stays in the store is told of as long as there is time for it.
        while !is_parted(service) {
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
        write_out(service).await;
    };
    if timeout_at(schedule.write_until, written).await.is_err() {
        service.cut_streams();
    }
    let unread = service.streams.answers_dropped() - unread_before;
    Left { queued, in_flight, stored: service.hub.totals().stored(), unread }
}

/// Ends a router at once, whether it drains or not: everybody hears how it ends for him, in that time at the most. Returns what was
/// left.
pub(crate) async fn cut_short(service: &Service, within: Duration) -> Left {
    let unread_before = service.streams.answers_dropped();
    let write_until = Instant::now() + within;
    if !service.is_draining() {
        service.drain();
    }
    let CutOff { queued, in_flight } = cut_off(service);
    if timeout_at(write_until, write_out(service)).await.is_err() {
        service.cut_streams();
    }
    let unread = service.streams.answers_dropped() - unread_before;
    Left { queued, in_flight, stored: service.hub.totals().stored(), unread }
}

/// Ends what is held at the end of its time.
fn cut_off(service: &Service) -> CutOff {
    stop_refilling(service);
    let mut pass = service.pass();
    service.begin(&mut pass);
    let cut = service.hub.cut_off(draining(), &mut pass);
    service.hub.settle(&mut pass);
    cut
}

/// Nothing comes back from the store any more; controllers hear of what stays there.
fn stop_refilling(service: &Service) {
    if let Some(lanes) = service.hub.lanes().filter(|lanes| lanes.is_refilling()) {
        lanes.stop_refilling();
        service.handoff.part();
    }
}

/// Whether controllers have heard of all that stays in the store.
fn is_parted(service: &Service) -> bool {
    service.hub.lanes().is_none_or(|lanes| lanes.is_refilling()) || service.handoff.is_parted()
}

/// Waits until nothing is held that is still to be answered, in two looks behind one another. Nodes are told of each container as soon
/// as nothing can come for it. What is stored is read back and handed out too, until `refill_until`.
async fn finish_held(service: &Service, refill_until: Instant) {
    let (mut pass, mut quiet) = (service.pass(), false);
    let mut tick = interval(LOOK_INTERVAL);
    loop {
        let refills = Instant::now() < refill_until;
        if !refills {
            stop_refilling(service);
        }
        let nothing_comes_back = !refills || service.hub.totals().stored() == 0;
        let last = service.hub.unanswered() == 0 && nothing_comes_back;
        service.begin(&mut pass);
        if nothing_comes_back {
            service.nodes.retire_quiet(&service.hub, &mut pass);
        }
        if last {
            // Waits for each action: what lies in an intake is queued, and who ended an activation has put its answer where it belongs.
            service.hub.audit(&mut pass);
        }
        service.hub.settle(&mut pass);
        if last && quiet {
            return;
        }
        quiet = last;
        rest(service, &mut tick).await;
    }
}

/// Waits for a while, and not longer than anything is held or stored.
async fn rest(service: &Service, tick: &mut Interval) {
    tick.tick().await;
    let next_walk = Instant::now() + WALK_INTERVAL;
    let holds = || service.hub.unanswered() > 0 || service.hub.totals().stored() > 0;
    while holds() && Instant::now() < next_walk {
        tick.tick().await;
    }
}

/// Ends all streams and waits until what was to be said on them is written. Controllers that are away may come back for their
/// answers, for as long as they may at other times; connections are still accepted.
async fn write_out(service: &Service) {
    service.end();
    let mut pass = service.pass();
    let mut tick = interval(LOOK_INTERVAL);
    while service.streams.live() > 0 {
        // Again and again: one may have come back in the meantime. What is owed and not here is in the store.
        service.streams.forgive_all();
        service.controllers.end_vain();
        service.begin(&mut pass);
        service.nodes.end_parked(&service.hub, &mut pass);
        service.hub.settle(&mut pass);
        tick.tick().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_farewell_is_part_of_the_time_but_for_very_short_drains() {
        for (timeout_ms, refill_ms, hold_ms, write_ms) in
            [(30_000, 14_000, 28_000, 30_000), (3_000, 1_350, 2_700, 3_000), (300, 50, 100, 300), (0, 0, 0, 200)]
        {
            let now = Instant::now();
            let Schedule { refill_until, hold_until, write_until } =
                Schedule::new(now, Duration::from_millis(timeout_ms));
            let planned = [refill_until, hold_until, write_until].map(|at| (at - now).as_millis());
            assert_eq!(planned, [refill_ms, hold_ms, write_ms], "{timeout_ms} ms");
        }
    }
}
