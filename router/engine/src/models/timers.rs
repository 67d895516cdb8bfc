//! The timers and their driver, who sleeps until the point it was told: no timer comes while it plans to look later.

use super::check;
use crate::hub::{Action, Hub, Pass};
use crate::id::ActionKey;
use crate::limits::Limits;
use crate::sync::{Fault, with_fault};
use crate::time::Timestamp;
use crate::timers::{Due, Timer, Timers};
use loom::thread;
use std::sync::Arc;

const SOON: Timestamp = Timestamp::from_micros(2 * 1024);
const LATER: Timestamp = Timestamp::from_micros(5 * 1024);
const LATEST: Timestamp = Timestamp::from_micros(9 * 1024);

/// Something for timers to be about.
fn action() -> Arc<Action> {
    let hub = Hub::new(Limits { recent_sets: 0, ..Limits::default() }, 7, 1, Timestamp::ZERO);
    hub.declare(&ActionKey::new("tenant", "action", "1"), &mut Pass::new(())).unwrap()
}

/// Arms a timer; true if the driver must be told.
fn arm(timers: &Timers, action: &Arc<Action>, at: Timestamp) -> bool {
    timers.arm(0, at, Timer::Idle(action.clone())).1
}

/// The driver's plan comes due, and while it makes the next another thread arms a timer.
fn armed_while_it_plans(planned_before: &[Timestamp]) {
    let (timers, action) = (Arc::new(Timers::new(1, Timestamp::ZERO)), action());
    for at in planned_before {
        arm(&timers, &action, *at);
    }
    timers.next_wake();

    let other = {
        let (timers, action) = (timers.clone(), action.clone());
        thread::spawn(move || arm(&timers, &action, LATER))
    };
    timers.advance(SOON, usize::MAX, &mut Due::default());
    let planned = timers.next_wake();
    let told = other.join().unwrap();
    assert!(told || planned.is_some_and(|at| at <= LATER), "the driver sleeps through {LATER:?} until {planned:?}");
}

#[test]
fn the_driver_knows_of_each_timer() {
    check(|| armed_while_it_plans(&[]));
}

#[test]
fn also_where_one_has_come_out() {
    check(|| armed_while_it_plans(&[SOON]));
}

#[test]
fn also_where_another_is_left() {
    check(|| armed_while_it_plans(&[SOON, LATEST]));
}

#[test]
#[should_panic(expected = "the driver sleeps through")]
fn an_old_plan_that_is_not_forgotten_is_noticed() {
    with_fault(Fault::Store, || check(|| armed_while_it_plans(&[SOON])));
}

/// Two arm timers at a time: if the driver is told of one only, that is the sooner.
#[test]
fn of_two_the_sooner_is_told() {
    check(|| {
        let (timers, action) = (Arc::new(Timers::new(2, Timestamp::ZERO)), action());
        arm(&timers, &action, LATEST);
        timers.next_wake();
        let other = {
            let (timers, action) = (timers.clone(), action.clone());
            thread::spawn(move || timers.arm(1, LATER, Timer::Idle(action)).1)
        };
        assert!(arm(&timers, &action, SOON), "sooner than all");
        other.join().unwrap();
        assert!(timers.next_wake().is_some_and(|at| at <= SOON));
    });
}
