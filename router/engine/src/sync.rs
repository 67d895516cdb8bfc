//! Where the engine takes its locks and atomics from: one place, so that a model checker's can stand in for them.

pub(crate) use crossbeam_queue::SegQueue;
pub(crate) use parking_lot::{Mutex, MutexGuard};
pub(crate) use std::sync::OnceLock;
pub(crate) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
