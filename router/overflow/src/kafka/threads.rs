//! The store's own threads. Each holds something while it lives, so that whoever opened the store notices when one ends although
//! the store is open: by returning or by a panic.

use super::OpenError;
use std::thread::{Builder, JoinHandle};

/// What a thread of the store holds while it lives. It is dropped when the thread ends.
pub trait Lifeline: Send {
    /// Asked at least every few seconds: whether the thread is to end although the store is open. Tests want that.
    ///
    /// # Panics
    /// If a test wants the thread to panic.
    fn is_told_to_end(&self) -> bool;
}

/// Nobody watches.
impl Lifeline for () {
    fn is_told_to_end(&self) -> bool {
        false
    }
}

/// Begins a thread. The name is both the thread's and what its lifeline is asked for by.
pub(super) fn begin(
    name: &'static str,
    lifeline: &dyn Fn(&'static str) -> Box<dyn Lifeline>,
    work: impl FnOnce(&dyn Lifeline) + Send + 'static,
) -> Result<JoinHandle<()>, OpenError> {
    let lifeline = lifeline(name);
    let thread = Builder::new().name(name.to_owned()).spawn(move || work(&*lifeline));
    thread.map_err(|error| OpenError::Thread(error.to_string()))
}
