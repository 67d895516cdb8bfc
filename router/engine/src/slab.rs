//! A slab: entries stay where they were put, and a small key finds them again.
//!
//! Holds the queued activations of one action, from none to millions, and the timers of a [wheel](crate::wheel). It may not
//! copy entries when it grows, keep memory when it is empty, or let an old key find a new entry.
//!
//! ```text
//!   key       generation 32 | index 32 = chunk 26, place 6
//!   chunks    [0] 1 place   [1] 2   [2] 4   ...   [6] 64   [7] 64   ...    the directory: 32 bytes a chunk
//!               |                                |
//!   room      [3] <-> [0]          in use and not full; most recent first
//!   spare     [4]                  at most one that holds nothing and kept its places
//!   bare      [2] -> [1]           given back: only the directory remembers them
//! ```
//!
//! A full chunk is in none of the three. Each vacant place of a chunk names the next one, so the place used last is used
//! first. The directory alone grows by doubling, at half a byte an entry, and goes when the last entry does. So a slab that
//! goes to and fro between none and one entry allocates each time.

use std::num::{NonZeroU32, NonZeroU64};
use std::ops::{Index, IndexMut};

/// Where an entry of a [`Slab`] is. `Option<Key>` takes 8 bytes too, so keys serve as links of lists.
///
/// The generation counts the insertions of the whole slab, so a key is recognised as stale after its entry is removed, even
/// if the memory was given back in between. The count wraps, skipping 0: a stale key could find another entry only if that
/// one was put in the same place exactly a multiple of 2^32 - 1 insertions later (71 minutes at a million a second).
///
/// One number: written in halves and read as a whole, it would have to wait for the cache in between, and with it the activation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key(NonZeroU64);

impl Key {
    fn new(chunk: u32, place: u32, generation: NonZeroU32) -> Self {
        let index = chunk << PLACE_BITS | place;
        let bits = u64::from(generation.get()) << u32::BITS | u64::from(index);
        Self(NonZeroU64::new(bits).expect("no generation is 0"))
    }

    /// The key as a number, to be part of a name that leaves the process: the generation above the index.
    pub fn to_bits(self) -> u64 {
        self.0.get()
    }

    /// The key of that number; none for one that [`to_bits`](Self::to_bits) never gives. It finds an entry only if it is that entry's.
    pub fn from_bits(bits: u64) -> Option<Self> {
        NonZeroU64::new(bits).filter(|bits| bits.get() >> u32::BITS != 0).map(Self)
    }

    #[allow(clippy::cast_possible_truncation, reason = "the lower half of 64 bits")]
    fn index(self) -> u32 {
        self.0.get() as u32
    }

    fn is_of(self, generation: NonZeroU32) -> bool {
        self.0.get() >> u32::BITS == u64::from(generation.get())
    }

    fn chunk(self) -> u32 {
        self.index() >> PLACE_BITS
    }

    fn place(self) -> u32 {
        self.index() & (PLACES_MAX - 1)
    }
}

/// Entries that stay where they are, found by [`Key`]. See the [module](self) for how it lies in memory.
#[derive(Debug)]
pub struct Slab<T> {
    chunks: Vec<Chunk<T>>,
    /// First of the chunks in use that are not full.
    room: u32,
    /// The chunk that holds nothing and kept its places.
    spare: u32,
    /// First of the chunks that were given back.
    bare: u32,
    len: u32,
    generation: u32,
}

impl<T> Slab<T> {
    /// Bytes one entry takes, vacant or not: what to count against a limit.
    pub const ENTRY_BYTES: usize = size_of::<Entry<T>>();

    /// An empty slab; allocates nothing.
    pub const fn new() -> Self {
        Self { chunks: Vec::new(), room: NONE, spare: NONE, bare: NONE, len: 0, generation: 0 }
    }

    /// How many entries it holds.
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether it holds none; it then owns no heap memory.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether `key` still finds an entry.
    pub fn contains(&self, key: Key) -> bool {
        self.get(key).is_some()
    }

    /// The entry, unless it was removed.
    #[inline]
    pub fn get(&self, key: Key) -> Option<&T> {
        match self.chunks.get(key.chunk() as usize)?.entries.get(key.place() as usize)? {
            Entry::Occupied { generation, item } if key.is_of(*generation) => Some(item),
            _ => None,
        }
    }

    /// The entry, to change, unless it was removed.
    #[inline]
    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        match self.chunks.get_mut(key.chunk() as usize)?.entries.get_mut(key.place() as usize)? {
            Entry::Occupied { generation, item } if key.is_of(*generation) => Some(item),
            _ => None,
        }
    }

    /// Keeps `item` and says where. Panics at 2^32 places, far beyond any limit on memory.
    #[inline]
    pub fn insert(&mut self, item: T) -> Key {
        let at = if self.room == NONE { self.make_room() } else { self.room };
        let generation = self.next_generation();
        let chunk = &mut self.chunks[at as usize];
        let place = chunk.fill(generation, item);
        if chunk.is_full() {
            self.leave_room(at);
        }
        self.len += 1;
        Key::new(at, place, generation)
    }

    /// Takes the entry out, unless that was done before.
    #[inline]
    pub fn remove(&mut self, key: Key) -> Option<T> {
        let at = key.chunk();
        let chunk = self.chunks.get_mut(at as usize)?;
        let was_full = chunk.is_full();
        let item = chunk.vacate(key)?;
        let holds_nothing = chunk.live == 0;
        self.len -= 1;
        if was_full {
            self.join_room(at);
        }
        if holds_nothing {
            self.retire(at);
        }
        Some(item)
    }

    /// All entries, in order of their places. Looks at every place.
    pub fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        let chunks = (0..).zip(&self.chunks);
        chunks.flat_map(|(at, chunk)| {
            (0..).zip(&chunk.entries).filter_map(move |(place, entry)| match entry {
                Entry::Occupied { generation, item } => Some((Key::new(at, place, *generation), item)),
                Entry::Vacant { .. } => None,
            })
        })
    }

    fn next_generation(&mut self) -> NonZeroU32 {
        self.generation = self.generation.wrapping_add(1);
        // Zero is not a generation: it is what tells `None` from a key.
        NonZeroU32::new(self.generation).unwrap_or_else(|| {
            self.generation = 1;
            NonZeroU32::MIN
        })
    }

    /// A chunk with room when none in use has any: the spare one, one given back, or a new one.
    #[cold]
    fn make_room(&mut self) -> u32 {
        let at = if self.spare != NONE {
            std::mem::replace(&mut self.spare, NONE)
        } else if self.bare != NONE {
            self.furnish_bare()
        } else {
            self.add_chunk()
        };
        self.join_room(at);
        at
    }

    fn furnish_bare(&mut self) -> u32 {
        let at = self.bare;
        self.bare = self.chunks[at as usize].next;
        self.chunks[at as usize] = Chunk::new(at);
        at
    }

    fn add_chunk(&mut self) -> u32 {
        let at = u32::try_from(self.chunks.len()).ok().filter(|at| *at < CHUNKS_MAX).expect("2^32 places are enough");
        self.chunks.push(Chunk::new(at));
        at
    }

    /// What becomes of a chunk that holds nothing any more.
    #[cold]
    fn retire(&mut self, at: u32) {
        self.leave_room(at);
        if self.len == 0 {
            *self = Self { generation: self.generation, ..Self::new() };
        } else if self.spare == NONE {
            self.spare = at;
        } else {
            self.chunks[at as usize] = Chunk::bare(self.bare);
            self.bare = at;
        }
    }

    fn join_room(&mut self, at: u32) {
        let next = std::mem::replace(&mut self.room, at);
        let chunk = &mut self.chunks[at as usize];
        (chunk.previous, chunk.next) = (NONE, next);
        if next != NONE {
            self.chunks[next as usize].previous = at;
        }
    }

    fn leave_room(&mut self, at: u32) {
        let Chunk { previous, next, .. } = self.chunks[at as usize];
        if previous == NONE {
            self.room = next;
        } else {
            self.chunks[previous as usize].next = next;
        }
        if next != NONE {
            self.chunks[next as usize].previous = previous;
        }
    }
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// Panics on a stale key: for keys whose entry is known to be there.
impl<T> Index<Key> for Slab<T> {
    type Output = T;

    #[inline]
    fn index(&self, key: Key) -> &T {
        self.get(key).expect("the key's entry was not removed")
    }
}

impl<T> IndexMut<Key> for Slab<T> {
    #[inline]
    fn index_mut(&mut self, key: Key) -> &mut T {
        self.get_mut(key).expect("the key's entry was not removed")
    }
}

#[derive(Debug)]
struct Chunk<T> {
    entries: Box<[Entry<T>]>,
    live: u32,
    /// First vacant place; the entry there names the next.
    vacant: u32,
    previous: u32,
    next: u32,
}

impl<T> Chunk<T> {
    /// All vacant, to be filled in order of place. The first chunks are small, for the many queues that stay short.
    fn new(at: u32) -> Self {
        let places = PLACES_MAX.min(PLACES_MIN << at.min(PLACE_BITS));
        let vacant = |place| Entry::Vacant { next: place + 1 };
        Self { entries: (0..places).map(vacant).collect(), live: 0, vacant: 0, previous: NONE, next: NONE }
    }

    /// Without places.
    fn bare(next: u32) -> Self {
        Self { entries: Box::default(), live: 0, vacant: 0, previous: NONE, next }
    }

    fn is_full(&self) -> bool {
        self.live as usize == self.entries.len()
    }

    fn fill(&mut self, generation: NonZeroU32, item: T) -> u32 {
        let place = self.vacant;
        let entry = &mut self.entries[place as usize];
        let Entry::Vacant { next } = *entry else { unreachable!("a place on the vacant list is vacant") };
        *entry = Entry::Occupied { generation, item };
        self.vacant = next;
        self.live += 1;
        place
    }

    fn vacate(&mut self, key: Key) -> Option<T> {
        let place = key.place();
        let entry = self.entries.get_mut(place as usize)?;
        if !matches!(entry, Entry::Occupied { generation, .. } if key.is_of(*generation)) {
            return None;
        }
        let Entry::Occupied { item, .. } = std::mem::replace(entry, Entry::Vacant { next: self.vacant }) else {
            unreachable!("just seen to be occupied")
        };
        self.vacant = place;
        self.live -= 1;
        Some(item)
    }
}

#[derive(Debug)]
enum Entry<T> {
    Vacant { next: u32 },
    Occupied { generation: NonZeroU32, item: T },
}

/// No chunk.
const NONE: u32 = u32::MAX;
const PLACE_BITS: u32 = 6;
const PLACES_MIN: u32 = 1;
const PLACES_MAX: u32 = 1 << PLACE_BITS;
const CHUNKS_MAX: u32 = 1 << (u32::BITS - PLACE_BITS);

const _: () = assert!(size_of::<Key>() == 8 && size_of::<Option<Key>>() == 8);
const _: () = assert!(size_of::<Chunk<[u64; 5]>>() == 32);

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, VecDeque};

    use proptest::prelude::*;

    use super::*;

    impl<T> Slab<T> {
        /// Places it owns, vacant or not.
        fn places(&self) -> usize {
            self.chunks.iter().map(|chunk| chunk.entries.len()).sum()
        }

        fn walk(&self, first: u32) -> Vec<u32> {
            let next = |at: &u32| Some(self.chunks[*at as usize].next).filter(|at| *at != NONE);
            std::iter::successors(Some(first).filter(|at| *at != NONE), next).collect()
        }

        fn check_invariants(&self) {
            let (room, bare) = (self.walk(self.room), self.walk(self.bare));
            for (at, chunk) in (0..).zip(&self.chunks) {
                let live = chunk.entries.iter().filter(|entry| matches!(entry, Entry::Occupied { .. })).count();
                assert_eq!(chunk.live as usize, live);
                let whole = chunk.entries.len();
                assert_eq!(room.contains(&at), 0 < live && live < whole, "room lists chunk {at}");
                assert_eq!(self.spare == at, live == 0 && whole > 0, "chunk {at} is spare");
                assert_eq!(bare.contains(&at), whole == 0, "chunk {at} is bare");
            }
            let live: usize = self.chunks.iter().map(|chunk| chunk.live as usize).sum();
            assert_eq!(self.len(), live);
            assert!(!self.is_empty() || self.chunks.capacity() == 0);
        }
    }

    #[test]
    fn entry_sizes() {
        assert_eq!(Slab::<[u64; 2]>::ENTRY_BYTES, 24, "an item of 8-byte alignment costs 8 bytes more");
        assert_eq!(Slab::<[u32; 3]>::ENTRY_BYTES, 16, "one of 4-byte alignment 4");
    }

    #[test]
    fn grows_in_small_steps_and_gives_all_back() {
        for (entries, places) in [(0, 0), (1, 1), (2, 3), (7, 7), (63, 63), (64, 127), (127, 127), (128, 191)] {
            let mut slab = Slab::new();
            let keys: Vec<Key> = (0..entries).map(|n| slab.insert(n)).collect();
            assert_eq!(slab.places(), places, "{entries} entries");
            slab.check_invariants();
            keys.iter().for_each(|key| assert!(slab.remove(*key).is_some()));
            slab.check_invariants();
            assert_eq!(slab.places(), 0);
        }
    }

    #[test]
    fn keeps_entries_where_they_are() {
        let mut slab = Slab::new();
        let first = slab.insert(0_u64);
        let before = std::ptr::from_ref(&slab[first]);
        (1..100_000).for_each(|n| _ = slab.insert(n));
        assert_eq!(before, std::ptr::from_ref(&slab[first]));
    }

    #[test]
    fn shrinks_while_it_drains_in_order() {
        let mut slab = Slab::new();
        let mut queue: VecDeque<Key> = (0..100_000_u32).map(|n| slab.insert(n)).collect();
        for expected in 0..100_000 {
            let key = queue.pop_front().unwrap();
            assert_eq!(slab.remove(key), Some(expected));
            if expected % 1_000 == 0 {
                assert!(slab.places() <= slab.len() + 3 * 64, "at most a spare chunk and two edges");
            }
        }
        slab.check_invariants();
    }

    #[test]
    fn reuses_the_place_left_last() {
        let mut slab = Slab::new();
        // They fill the first chunk and the second; what follows shares the third.
        ['x', 'y', 'z'].into_iter().for_each(|other| _ = slab.insert(other));
        let keys = [slab.insert('a'), slab.insert('b'), slab.insert('c')];
        slab.remove(keys[0]);
        slab.remove(keys[1]);
        assert_eq!(slab.insert('d').index(), keys[1].index());
        assert_eq!(slab.insert('e').index(), keys[0].index());
    }

    #[test]
    fn stale_keys_find_nothing() {
        let mut slab = Slab::new();
        let stale = slab.insert("first");
        assert_eq!(slab.remove(stale), Some("first"));
        let fresh = slab.insert("second");
        assert_eq!(stale.index(), fresh.index(), "the same place, in memory that was given back and made anew");
        assert_eq!(slab.get(stale), None);
        assert_eq!(slab.get_mut(stale), None);
        assert_eq!(slab.remove(stale), None);
        assert!(!slab.contains(stale) && slab.contains(fresh));
        assert_eq!(slab[fresh], "second");
    }

    #[test]
    fn a_key_survives_being_a_number() {
        let mut slab = Slab::new();
        for key in [(); 200].map(|()| slab.insert(())) {
            assert_eq!(Key::from_bits(key.to_bits()), Some(key));
        }
        assert_eq!(Key::from_bits(u64::from(u32::MAX)), None, "no generation is 0");
        assert!(!slab.contains(Key::from_bits(u64::MAX).unwrap()));
    }

    #[test]
    fn generations_wrap_around_zero() {
        let mut slab = Slab { generation: u32::MAX - 1, ..Slab::new() };
        let generations = [0; 3].map(|_| slab.insert(()).to_bits() >> u32::BITS);
        assert_eq!(generations, [u32::MAX.into(), 1, 2]);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Insert(u8),
        Remove(prop::sample::Index),
        RemoveOldest(u8),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            any::<u8>().prop_map(Step::Insert),
            any::<prop::sample::Index>().prop_map(Step::Remove),
            any::<u8>().prop_map(Step::RemoveOldest),
        ]
    }

    proptest! {
        #[test]
        fn behaves_like_a_map(steps in prop::collection::vec(step(), 1..60)) {
            let (mut slab, mut keys, mut gone) = (Slab::new(), BTreeMap::new(), Vec::new());
            let mut born = 0_u32;
            for step in steps {
                let leaving: Vec<u32> = match step {
                    Step::Insert(count) => {
                        for _ in 0..count {
                            keys.insert(born, slab.insert(born));
                            born += 1;
                        }
                        vec![]
                    }
                    Step::Remove(_) if keys.is_empty() => vec![],
                    Step::Remove(index) => keys.keys().nth(index.index(keys.len())).copied().into_iter().collect(),
                    Step::RemoveOldest(count) => keys.keys().take(count.into()).copied().collect(),
                };
                for item in leaving {
                    let key = keys.remove(&item).unwrap();
                    prop_assert_eq!(slab.remove(key), Some(item));
                    gone.push(key);
                }
                slab.check_invariants();
                prop_assert_eq!(slab.len(), keys.len());
                prop_assert!(keys.iter().all(|(item, key)| slab.get(*key) == Some(item)));
                prop_assert!(gone.iter().all(|key| !slab.contains(*key)));
            }
        }
    }
}
