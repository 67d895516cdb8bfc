//! The parts of the process: the tasks and threads that must not end while it serves.
//!
//! Each part holds a [`Part`]. When a part ends, by returning or by a panic, its `Part` is dropped
//! and that is noted here: the first end is logged, `/live` and `/ready` fail from then on, and
//! `App::run` ends the process. Streams, calls and connections are no parts: one that panics ends
//! alone.
//!
//! This file may not decide what happens when a part ends. It knows nothing of what parts do.

use parking_lot::Mutex;
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

/// All parts of one router. Clones are of the same router.
#[derive(Debug, Clone)]
pub struct Parts(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// The first part that ended although it never should.
    ended: watch::Sender<Option<Ended>>,
    /// The router starts or is about to end: parts may return.
    may_return: AtomicBool,
    /// Orders from tests, one for each part.
    told: Mutex<Vec<(Name, Arc<Told>)>>,
}

type Name = Cow<'static, str>;

/// A part that ended although it never should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// The part's name: `timers`, `maintenance`, `accept`, `admin`, `sampler`, `worker-0` and so
    /// on, `overflow-writer`, `overflow-reader`, `kafka-keeper`, `kafka-marks`.
    pub part: Cow<'static, str>,
    /// Whether it panicked; else it returned.
    pub panicked: bool,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = if self.panicked { "panicked" } else { "ended" };
        write!(f, "{} {how}", self.part)
    }
}

impl Default for Parts {
    fn default() -> Self {
        let (ended, _) = watch::channel(None);
        Self(Arc::new(Shared { ended, may_return: AtomicBool::new(false), told: Mutex::default() }))
    }
}

impl Parts {
    /// A part begins, and lives until what is returned is dropped.
    pub fn begin(&self, name: impl Into<Cow<'static, str>>) -> Part {
        let (name, told) = (name.into(), Arc::<Told>::default());
        self.0.told.lock().push((name.clone(), told.clone()));
        Part { name, parts: self.clone(), told, may_return: Arc::default() }
    }

    /// Begins a part that is a task of this runtime.
    pub fn spawn(&self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) -> Task {
        let part = self.begin(name);
        let may_return = part.may_return.clone();
        Task { handle: tokio::spawn(part.run(work)), may_return }
    }

    /// Resolves once a part has ended although it never should. Cancel safe.
    pub async fn ended(&self) -> Ended {
        let mut watched = self.0.ended.subscribe();
        match watched.wait_for(Option::is_some).await.map(|ended| ended.clone()) {
            Ok(Some(ended)) => ended,
            // The sender lives as long as `self`.
            _ => std::future::pending().await,
        }
    }

    /// The first part that ended although it never should.
    pub fn first_ended(&self) -> Option<Ended> {
        self.0.ended.borrow().clone()
    }

    /// The router starts, or is about to end: from now on only a panic is noted.
    pub fn may_return(&self) {
        self.0.may_return.store(true, Ordering::Relaxed);
    }

    /// The router has started: from now on each end of a part is noted.
    pub fn may_not_return(&self) {
        self.0.may_return.store(false, Ordering::Relaxed);
    }

    /// For tests: tells a part to end, by returning or by a panic. False: there is no such part.
    #[doc(hidden)]
    pub fn kill(&self, name: &str, how: Kill) -> bool {
        let told = self.0.told.lock().iter().find(|(of, _)| of == name).map(|(_, told)| told.clone());
        told.inspect(|told| told.tell(how)).is_some()
    }

    fn note(&self, ended: Ended) {
        tracing::error!(part = %ended.part, panicked = ended.panicked, "a part of the router ended: the router ends too");
        self.0.ended.send_if_modified(|first| {
            let is_first = first.is_none();
            first.get_or_insert(ended);
            is_first
        });
    }
}

/// How a test ends a part.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kill {
    /// The part returns.
    Return = 1,
    /// The part panics.
    Panic = 2,
}

#[derive(Debug, Default)]
struct Told {
    /// 0, or a [`Kill`].
    how: AtomicU8,
    now: Notify,
}

impl Told {
    fn tell(&self, how: Kill) {
        self.how.store(how as u8, Ordering::Relaxed);
        self.now.notify_one();
    }
}

/// A part that lives. Held by the task or thread that is the part; dropped when the part ends.
#[derive(Debug)]
pub struct Part {
    name: Name,
    parts: Parts,
    told: Arc<Told>,
    /// The router does not need this part any more.
    may_return: Arc<AtomicBool>,
}

impl Part {
    /// Runs the part's work to its end.
    pub async fn run(self, work: impl Future<Output = ()>) {
        tokio::select! {
            biased;
            () = work => {}
            () = self.told.now.notified() => {
                self.is_told_to_end();
            }
        }
    }

    /// For threads, now and then: whether a test wants the part to return.
    ///
    /// # Panics
    /// If a test wants the part to panic.
    pub fn is_told_to_end(&self) -> bool {
        let how = self.told.how.load(Ordering::Relaxed);
        assert!(how != Kill::Panic as u8, "{} was told to", self.name);
        how != 0
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let panicked = std::thread::panicking();
        let may_return = self.may_return.load(Ordering::Relaxed) || self.parts.0.may_return.load(Ordering::Relaxed);
        if panicked || !may_return {
            self.parts.note(Ended { part: self.name.clone(), panicked });
        }
    }
}

/// A part that is a task.
#[derive(Debug)]
pub struct Task {
    handle: JoinHandle<()>,
    may_return: Arc<AtomicBool>,
}

impl Task {
    /// Ends the part, which is not needed any more.
    pub fn stop(&self) {
        self.may_return.store(true, Ordering::Relaxed);
        self.handle.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::pending;

    fn ended(part: &'static str, panicked: bool) -> Ended {
        Ended { part: part.into(), panicked }
    }

    #[tokio::test]
    async fn a_task_that_returns_or_panics_is_noted() {
        for (work, panicked) in [(false, false), (true, true)] {
            let parts = Parts::default();
            let _other = parts.spawn("other", pending());
            parts.spawn("task", async move { assert!(!work, "on purpose") });
            assert_eq!(parts.ended().await, ended("task", panicked));
        }
    }

    #[tokio::test]
    async fn a_thread_that_returns_or_panics_is_noted() {
        for panicked in [false, true] {
            let (parts, told) = (Parts::default(), if panicked { Kill::Panic } else { Kill::Return });
            let part = parts.begin("thread");
            let thread = std::thread::spawn(move || {
                while !part.is_told_to_end() {
                    std::thread::yield_now();
                }
            });
            assert_eq!(parts.first_ended(), None);
            assert!(parts.kill("thread", told) && !parts.kill("stranger", told));
            assert_eq!(parts.ended().await, ended("thread", panicked));
            assert_eq!(thread.join().is_err(), panicked);
        }
    }

    #[tokio::test]
    async fn the_first_that_ends_stays_the_first() {
        let parts = Parts::default();
        drop(parts.begin("one"));
        drop(parts.begin("two"));
        assert_eq!(parts.ended().await, ended("one", false));
    }

    #[tokio::test]
    async fn one_that_is_stopped_is_not_noted_and_at_start_and_end_only_panics_are() {
        let parts = Parts::default();
        parts.may_return();
        drop(parts.begin("early"));
        parts.may_not_return();
        let task = parts.spawn("task", pending());
        task.stop();
        assert!(task.handle.await.unwrap_err().is_cancelled());
        parts.may_return();
        drop(parts.begin("late"));
        assert_eq!(parts.first_ended(), None);
        parts.spawn("later", async { panic!("on purpose") });
        assert_eq!(parts.ended().await, ended("later", true));
    }
}
