//! The store's own threads. Each holds a lifeline while it lives, so that whoever opened the store
//! notices when a thread ends although the store is open: by returning or by a panic.

use super::OpenError;
use std::thread::{Builder, JoinHandle};

/// Held by a thread of the store while the thread lives, and dropped when the thread ends.
pub trait Lifeline: Send {
    /// Whether the thread is to end although the store is open, which tests want. Asked every few
    /// seconds.
    ///
    /// # Panics
    /// If a test wants the thread to panic.
    fn is_told_to_end(&self) -> bool;
}

/// The lifeline of a thread that nobody watches.
impl Lifeline for () {
    fn is_told_to_end(&self) -> bool {
        false
    }
}

/// Begins a thread. Its lifeline is made for the thread's name.
pub(super) fn begin(
    name: &'static str,
    lifeline: &dyn Fn(&'static str) -> Box<dyn Lifeline>,
    work: impl FnOnce(&dyn Lifeline) + Send + 'static,
) -> Result<JoinHandle<()>, OpenError> {
    let lifeline = lifeline(name);
    let thread = Builder::new().name(name.to_owned()).spawn(move || work(&*lifeline));
    thread.map_err(|error| OpenError::Thread(error.to_string()))
}
