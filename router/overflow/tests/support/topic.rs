//! Stores in topics of their own, opened, and the suite that every store has to pass.

// Helpers of tests are tests, too.
#![allow(clippy::unwrap_used)]

use super::broker::eventually;
use overflow::kafka::{Config, Kafka};
use overflow::{Overflow, contract};
use std::time::Duration;

/// Long enough for anything that comes to pass at all.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// Runs all cases; `config` says where the store of one lives.
pub(crate) fn contract(config: impl Fn(&str) -> Config) {
    for (name, case) in contract::CASES {
        println!("{name}");
        case(&Topic(Config { lanes: 4, ..config(name) }));
    }
}

/// Opens it and waits until it is up.
pub(crate) fn open(config: &Config) -> Kafka {
    let store = Kafka::open(config.clone()).unwrap();
    eventually("the store is up", LONG, || store.trouble().is_none());
    store
}

/// A name that no other test has.
pub(crate) fn unique(topic: &str) -> String {
    format!("{topic}-{:?}", std::thread::current().id()).replace(['(', ')'], "-")
}

/// Where a store lives.
struct Topic(Config);

impl contract::Place for Topic {
    fn open(&self) -> Box<dyn Overflow> {
        Box::new(open(&self.0))
    }

    fn open_small(&self) -> Box<dyn Overflow> {
        let config = Config { store_bytes_max: 2 << 20, ..self.0.clone() };
        Box::new(open(&config))
    }

    fn record_bytes_max(&self) -> usize {
        self.0.record_bytes_max
    }

    fn spoil(&self, _: u16, _: u64) -> bool {
        false
    }
}
