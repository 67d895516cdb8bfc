//! Overflow: the threads between the engine and the store that takes what does not fit in memory.
//!
//! ```text
//!   matcher ─ Effect::Spill ──▶ handoff ──▶ writer ──▶ store.append   ──▶ Input::Stored
//!   matcher ─ Effect::Refill ─▶ handoff ──▶ reader ──▶ store.read, store.consume ──▶ Input::Refilled
//! ```
//!
//! The store's calls block, so they are made here and nowhere else; no stream waits for them.

mod handoff;
mod note;
mod open;
mod reader;
mod record;
mod writer;

pub(crate) use handoff::Handoff;
pub(crate) use open::open;

use crate::grpc::Service;
use crate::parts::Parts;
use overflow::Overflow;
use record::Records;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

/// The threads, until they are stopped.
#[derive(Debug)]
pub(crate) struct Threads {
    handoff: Arc<Handoff>,
    store: Arc<dyn Overflow>,
    threads: Vec<JoinHandle<()>>,
}

impl Threads {
    /// Starts writer and reader. `life` tells this life of the router from others.
    ///
    /// # Errors
    /// If a thread cannot be started.
    pub(crate) fn start(
        service: &Arc<Service>,
        store: Arc<dyn Overflow>,
        life: u64,
        parts: &Parts,
    ) -> std::io::Result<Self> {
        let handoff = service.handoff.clone();
        let records = || Records::new(life);
        let writer = {
            let (service, handoff, store, records) = (service.clone(), handoff.clone(), store.clone(), records());
            let part = parts.begin("overflow-writer");
            Builder::new()
                .name("overflow-writer".into())
                .spawn(move || writer::run(&service, &handoff, &*store, &records, &part))?
        };
        let reader = {
            let (service, handoff, store, records) = (service.clone(), handoff.clone(), store.clone(), records());
            let part = parts.begin("overflow-reader");
            Builder::new()
                .name("overflow-reader".into())
                .spawn(move || reader::run(&service, &handoff, &*store, records, &part))?
        };
        Ok(Self { handoff, store, threads: vec![writer, reader] })
    }

    /// Writes what is left to be written, then closes the store. Blocks for as long as that takes.
    pub(crate) fn stop(self) {
        self.handoff.stop();
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a thread of overflow panicked");
            }
        }
        self.store.close();
    }
}
