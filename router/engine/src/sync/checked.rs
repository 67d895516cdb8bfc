//! What stands in for the primitives under a checker. Of ours, all is checked as it is: the single file, the timers' plan, the
//! budget, the room, the ledger, the matcher and hub behind them. Of others, only what they promise is here:
//!
//! - **Atomics, fences**: the checker's own. Loom lets a load see old values, as weak memory does, so it is loom that checks the
//!   fence of the intake. Shuttle runs one thread at a time on one memory, where a fence is nothing.
//! - **`Mutex`** (parking_lot): the checker's, and under loom a flag before it: parking_lot's `try_lock` first looks at its word
//!   without any ordering, so it may find a lock taken that was freed a moment ago. Loom's own always knows better.
//! - **`SegQueue`** (crossbeam): a count, which is what everyone looks at, with no more ordering than hands items over;
//!   crossbeam's is stronger. The items are behind it, in a plain queue. How crossbeam links its blocks is not checked.
//! - **`OnceLock`** (std): the same with a flag. Loom lets it look empty to one who has not synchronised with its maker.
//! - **`DashMap`**: one map behind one lock, held as long as dashmap holds the lock of a part. Parts are not modelled: two
//!   entries of one part already wait for each other there, so one lock for all adds waiting and takes no order away but that
//!   of two threads in two parts, which share nothing. How dashmap does it is not checked.
//! - **`Arc`**: std's. Nothing of ours rests on how it counts but [`Arc::strong_count`](std::sync::Arc::strong_count) in the
//!   hub, which is read with the map's lock held.
//!
//! Each can be told to break one of its promises, so that tests show that the checkers notice: see [`Fault`].

#[cfg(router_loom)]
use loom::sync as checker;
#[cfg(router_shuttle)]
use shuttle::sync as checker;

pub use checker::atomic::AtomicBool;
use std::cell::Cell;
use std::collections::VecDeque;
use std::fmt;
use std::hash::{BuildHasher, Hash};
use std::ops::{Deref, DerefMut};
use std::sync::PoisonError;

pub use checker::atomic::{AtomicU32, AtomicUsize, Ordering};

/// A promise that a primitive breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Fences order nothing.
    Fence,
    /// A queue looks empty to whoever looks before taking: nobody looks again at what was left.
    Look,
    /// A queue gives its newest item first.
    Order,
    /// Adding is a load and a store.
    Add,
    /// A store is lost.
    Store,
}

thread_local! {
    /// A checker runs all threads of a model on one thread of the system.
    static PLANTED: Cell<Option<Fault>> = const { Cell::new(None) };
}

/// Runs `f` with primitives of this thread that break a promise.
pub fn with_fault<R>(fault: Fault, f: impl FnOnce() -> R) -> R {
    struct Mended;
    impl Drop for Mended {
        fn drop(&mut self) {
            PLANTED.set(None);
        }
    }
    PLANTED.set(Some(fault));
    let _mended = Mended;
    f()
}

fn planted(fault: Fault) -> bool {
    PLANTED.get() == Some(fault)
}

pub(crate) fn fence(order: Ordering) {
    if !planted(Fault::Fence) {
        checker::atomic::fence(order);
    }
}

/// As std's, with the methods that are used.
#[derive(Debug, Default)]
pub struct AtomicU64(checker::atomic::AtomicU64);

#[allow(missing_docs)]
impl AtomicU64 {
    pub fn new(value: u64) -> Self {
        Self(checker::atomic::AtomicU64::new(value))
    }

    pub fn load(&self, order: Ordering) -> u64 {
        self.0.load(order)
    }

    pub fn store(&self, value: u64, order: Ordering) {
        if !planted(Fault::Store) {
            self.0.store(value, order);
        }
    }

    pub fn fetch_add(&self, n: u64, order: Ordering) -> u64 {
        if planted(Fault::Add) {
            let value = self.0.load(order);
            self.0.store(value.wrapping_add(n), order);
            return value;
        }
        self.0.fetch_add(n, order)
    }

    pub fn fetch_sub(&self, n: u64, order: Ordering) -> u64 {
        self.0.fetch_sub(n, order)
    }

    pub fn fetch_min(&self, other: u64, order: Ordering) -> u64 {
        self.0.fetch_min(other, order)
    }
}

/// As parking_lot's.
#[derive(Debug, Default)]
pub struct Mutex<T> {
    /// What a look at the lock sees, which may be old.
    #[cfg(router_loom)]
    looks_taken: AtomicBool,
    value: checker::Mutex<T>,
}

/// As parking_lot's.
#[derive(Debug)]
pub struct MutexGuard<'a, T> {
    #[cfg(router_loom)]
    looks_taken: &'a AtomicBool,
    value: checker::MutexGuard<'a, T>,
}

#[allow(missing_docs)]
impl<T> Mutex<T> {
    pub fn new(value: T) -> Self {
        Self {
            #[cfg(router_loom)]
            looks_taken: AtomicBool::new(false),
            value: checker::Mutex::new(value),
        }
    }

    pub fn lock(&self) -> MutexGuard<'_, T> {
        self.guard(self.value.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        #[cfg(router_loom)]
        if self.looks_taken.load(Ordering::Relaxed) {
            return None;
        }
        self.value.try_lock().ok().map(|value| self.guard(value))
    }

    fn guard<'a>(&'a self, value: checker::MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        #[cfg(router_loom)]
        self.looks_taken.store(true, Ordering::Relaxed);
        MutexGuard {
            #[cfg(router_loom)]
            looks_taken: &self.looks_taken,
            value,
        }
    }
}

#[cfg(router_loom)]
impl<T> Drop for MutexGuard<'_, T> {
    fn drop(&mut self) {
        // Freed right behind this: loom switches threads before an operation, and freeing is none.
        self.looks_taken.store(false, Ordering::Release);
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

/// Behind a checker's primitive, so never waited for: no thread of a model is put aside with it in hand.
type Plain<T> = parking_lot::Mutex<T>;

/// As crossbeam's, for one consumer at a time.
#[derive(Debug)]
pub struct SegQueue<T> {
    count: AtomicUsize,
    items: Plain<VecDeque<T>>,
}

impl<T> Default for SegQueue<T> {
    fn default() -> Self {
        Self { count: AtomicUsize::new(0), items: Plain::default() }
    }
}

#[allow(missing_docs)]
impl<T> SegQueue<T> {
    pub fn push(&self, item: T) {
        self.count.fetch_add(1, Ordering::Release);
        self.items.lock().push_back(item);
    }

    pub fn pop(&self) -> Option<T> {
        if self.items.lock().is_empty() {
            return None;
        }
        self.count.fetch_sub(1, Ordering::Acquire);
        let mut items = self.items.lock();
        if planted(Fault::Order) { items.pop_back() } else { items.pop_front() }
    }

    pub fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    pub fn is_empty(&self) -> bool {
        planted(Fault::Look) || self.len() == 0
    }
}

/// As std's.
#[derive(Debug)]
pub struct OnceLock<T> {
    made: AtomicBool,
    making: checker::Mutex<()>,
    value: std::sync::OnceLock<T>,
}

#[allow(missing_docs)]
impl<T> OnceLock<T> {
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Self { made: AtomicBool::new(false), making: checker::Mutex::new(()), value: std::sync::OnceLock::new() }
    }

    pub fn get(&self) -> Option<&T> {
        if self.made.load(Ordering::Acquire) { self.value.get() } else { None }
    }

    pub fn get_or_init(&self, make: impl FnOnce() -> T) -> &T {
        if let Some(value) = self.get() {
            return value;
        }
        let _making = self.making.lock();
        let value = self.value.get_or_init(make);
        self.made.store(true, Ordering::Release);
        value
    }
}

/// Its hasher is fixed, so a schedule replays.
#[allow(clippy::disallowed_types)]
type Map<K, V, S> = std::collections::HashMap<K, V, S>;

/// As dashmap's.
pub struct DashMap<K, V, S>(Mutex<Map<K, V, S>>);

impl<K, V, S> fmt::Debug for DashMap<K, V, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DashMap")
    }
}

#[allow(missing_docs)]
impl<K: Eq + Hash + Clone, V, S: BuildHasher> DashMap<K, V, S> {
    pub fn with_hasher(hasher: S) -> Self {
        Self(Mutex::new(Map::with_hasher(hasher)))
    }

    pub fn entry(&self, key: K) -> Entry<'_, K, V, S> {
        let map = self.0.lock();
        if map.contains_key(&key) {
            return Entry::Occupied(OccupiedEntry { map, key });
        }
        Entry::Vacant(OccupiedEntry { map, key })
    }

    pub fn remove_if(&self, key: &K, f: impl FnOnce(&K, &V) -> bool) -> Option<(K, V)> {
        let mut map = self.0.lock();
        let (known, value) = map.get_key_value(key)?;
        if f(known, value) { map.remove_entry(key) } else { None }
    }

    pub fn get(&self, key: &K) -> Option<OccupiedEntry<'_, K, V, S>> {
        let map = self.0.lock();
        map.contains_key(key).then(|| OccupiedEntry { map, key: key.clone() })
    }

    pub fn len(&self) -> usize {
        self.0.lock().len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<'a, K: Eq + Hash + Clone, V, S: BuildHasher> IntoIterator for &'a DashMap<K, V, S> {
    type Item = OccupiedEntry<'a, K, V, S>;
    type IntoIter = Entries<'a, K, V, S>;

    fn into_iter(self) -> Self::IntoIter {
        Entries { map: self, keys: self.0.lock().keys().cloned().collect() }
    }
}

/// What was there when it began and still is, locked one after the other.
#[derive(Debug)]
pub struct Entries<'a, K, V, S> {
    map: &'a DashMap<K, V, S>,
    keys: VecDeque<K>,
}

impl<'a, K: Eq + Hash + Clone, V, S: BuildHasher> Iterator for Entries<'a, K, V, S> {
    type Item = OccupiedEntry<'a, K, V, S>;

    fn next(&mut self) -> Option<Self::Item> {
        std::iter::from_fn(|| self.keys.pop_front()).find_map(|key| self.map.get(&key))
    }
}

/// A place in a map, whose lock is held.
pub enum Entry<'a, K, V, S> {
    /// Something is there.
    Occupied(OccupiedEntry<'a, K, V, S>),
    /// Nothing is.
    Vacant(OccupiedEntry<'a, K, V, S>),
}

/// That place.
pub struct OccupiedEntry<'a, K, V, S> {
    map: MutexGuard<'a, Map<K, V, S>>,
    key: K,
}

#[allow(missing_docs)]
impl<'a, K: Eq + Hash + Clone, V, S: BuildHasher> Entry<'a, K, V, S> {
    pub fn or_default(self) -> OccupiedEntry<'a, K, V, S>
    where
        V: Default,
    {
        match self {
            Self::Occupied(entry) => entry,
            Self::Vacant(entry) => entry.insert(V::default()),
        }
    }
}

#[allow(missing_docs)]
impl<K: Eq + Hash + Clone, V, S: BuildHasher> OccupiedEntry<'_, K, V, S> {
    pub fn insert(mut self, value: V) -> Self {
        self.map.insert(self.key.clone(), value);
        self
    }

    pub fn get(&self) -> &V {
        &self.map[&self.key]
    }

    pub fn get_mut(&mut self) -> &mut V {
        self.map.get_mut(&self.key).expect("the lock was held since it was seen")
    }

    pub fn remove(mut self) -> V {
        self.map.remove(&self.key).expect("the lock was held since it was seen")
    }
}

impl<K: Eq + Hash + Clone, V, S: BuildHasher> Deref for OccupiedEntry<'_, K, V, S> {
    type Target = V;

    fn deref(&self) -> &V {
        self.get()
    }
}

impl<K: Eq + Hash + Clone, V, S: BuildHasher> DerefMut for OccupiedEntry<'_, K, V, S> {
    fn deref_mut(&mut self) -> &mut V {
        self.get_mut()
    }
}
