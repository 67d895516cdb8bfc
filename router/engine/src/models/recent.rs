//! The window of ended ids beside the ledger: an id that ends in one thread is at no moment free for another.

use super::check;
use crate::budget::Budget;
use crate::id::ActivationId;
use crate::ledger::{Ledger, Whereabouts};
use crate::limits::Limits;
use crate::outcome::Reply;
use crate::recent::Recent;
use crate::slab::Slab;
use crate::sync::{AtomicU64, Fault, with_fault};
use crate::time::Timestamp;
use crate::timers::Timers;
use crate::turn::Shared;
use loom::thread;
use std::sync::Arc;

const ID: ActivationId = ActivationId([7; 16]);

fn shared() -> Shared {
    let limits = Limits::default();
    Shared {
        ledger: Ledger::new(7),
        recent: Recent::new(1, 7),
        stored: Recent::new(1, 7),
        lanes: None,
        budget: Budget::of_router(&limits),
        timers: Timers::new(1, Timestamp::ZERO),
        seed: 7,
        drawn: AtomicU64::new(0),
        limits,
    }
}

fn somewhere() -> Whereabouts {
    Whereabouts { action: 1, slot: Slab::new().insert(()) }
}

/// One ends while it is pushed again.
fn pushed_again_as_it_ends() {
    let shared = Arc::new(shared());
    shared.take_id(ID, somewhere()).unwrap();
    let other = {
        let shared = shared.clone();
        thread::spawn(move || shared.free_id(&ID))
    };
    assert!(shared.take_id(ID, somewhere()).is_err(), "it was taken a second time");
    other.join().unwrap();
    assert_eq!(shared.ledger.len(), 0);
}

#[test]
fn an_id_that_ends_is_not_taken_again() {
    check(pushed_again_as_it_ends);
}

#[test]
#[should_panic(expected = "it was taken a second time")]
fn one_that_is_not_remembered_is_noticed() {
    with_fault(Fault::Store, || check(pushed_again_as_it_ends));
}

/// One leaves memory for the store while it is pushed again.
fn pushed_again_as_it_is_stored() {
    let shared = Arc::new(shared());
    shared.take_id(ID, somewhere()).unwrap();
    let other = {
        let shared = shared.clone();
        thread::spawn(move || shared.store_id(&ID, Reply::Outcome))
    };
    assert!(shared.take_id(ID, somewhere()).is_err(), "it was taken a second time");
    other.join().unwrap();
    assert_eq!(shared.ledger.len(), 0);
}

#[test]
fn an_id_that_is_stored_is_not_taken_again() {
    check(pushed_again_as_it_is_stored);
}

/// Two push one id: one of them gets it.
#[test]
fn of_two_one_takes_it() {
    check(|| {
        let shared = Arc::new(shared());
        let other = {
            let shared = shared.clone();
            thread::spawn(move || shared.take_id(ID, somewhere()).is_ok())
        };
        let taken = shared.take_id(ID, somewhere()).is_ok();
        assert!(taken != other.join().unwrap());
        assert_eq!(shared.ledger.len(), 1);
    });
}
