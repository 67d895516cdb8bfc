//! The budget: what several reserve at a time never passes its bounds, and nothing of it stays.

use super::check;
use crate::budget::Budget;
use crate::limits::Limits;
use crate::sync::{Fault, with_fault};
use crate::time::Timestamp;
use loom::thread;
use std::sync::Arc;

const NOW: Timestamp = Timestamp::ZERO;

/// Two reserve, and there is room for one of them.
fn two_reserve(limits: Limits) {
    let budget = Arc::new(Budget::of_router(&limits));
    let other = {
        let budget = budget.clone();
        thread::spawn(move || budget.reserve(60, NOW).is_ok())
    };
    let granted = u64::from(budget.reserve(60, NOW).is_ok()) + u64::from(other.join().unwrap());
    assert!(granted <= 1, "more was granted than there is");
    assert_eq!((budget.queued(), budget.queued_bytes()), (granted, 60 * granted));
}

fn bytes_for_one() -> Limits {
    Limits { router_queued_max: 10, router_queued_bytes_max: 100, ..Limits::default() }
}

#[test]
fn no_more_is_granted_than_there_is() {
    check(|| two_reserve(bytes_for_one()));
    check(|| two_reserve(Limits { router_queued_max: 1, ..Limits::default() }));
}

#[test]
#[should_panic(expected = "more was granted than there is")]
fn a_torn_addition_is_noticed() {
    with_fault(Fault::Add, || check(|| two_reserve(bytes_for_one())));
}

/// One gives back what it had while another asks: nothing is lost between them.
#[test]
fn what_is_given_back_can_be_had_again() {
    check(|| {
        let budget = Arc::new(Budget::of_router(&bytes_for_one()));
        budget.reserve(60, NOW).unwrap();
        let other = {
            let budget = budget.clone();
            thread::spawn(move || budget.release(60))
        };
        let had = u64::from(budget.reserve(60, NOW).is_ok());
        other.join().unwrap();
        assert_eq!((budget.queued(), budget.queued_bytes()), (had, 60 * had));
        budget.reserve(100 - 60 * had, NOW).unwrap();
    });
}
