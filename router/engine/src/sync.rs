//! Where the engine takes its locks, atomics and shared collections from: one place, so that a model checker's can stand in
//! for them. `--cfg router_loom` puts loom's there, `--cfg router_shuttle` shuttle's; no dependency reacts to these flags.
//! What is checked with them, and what is not, stands in `sync/checked.rs`.

#[cfg(any(router_loom, router_shuttle))]
mod checked;

#[cfg(any(router_loom, router_shuttle))]
pub use checked::*;

#[cfg(not(any(router_loom, router_shuttle)))]
pub(crate) use {
    crossbeam_queue::SegQueue,
    dashmap::DashMap,
    dashmap::mapref::entry::Entry,
    parking_lot::{Mutex, MutexGuard},
    std::sync::OnceLock,
    std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence},
};
