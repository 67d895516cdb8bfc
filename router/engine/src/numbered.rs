//! Things by small numbers that a peer chose. The number is the place, in an array of pages: numbers are dense as a rule, and what a hash
//! scatters has to be waited for, once in its table and once more beside it.
//!
//! ```text
//!   number    page 28 | place 4
//!   pages     [0] ─▶ [ a b c . . d ... ]     [1] none     [2] ─▶ [ . e ... ]
//! ```
//!
//! A page goes with its last entry. A peer that spreads its numbers gets a page for each, 16 places long; there are 62,500 at the most.

/// Numbers are below this.
pub const NUMBERS: u32 = 1_000_000;

/// The things.
#[derive(Debug)]
pub struct Numbered<T> {
    pages: Vec<Option<Box<Page<T>>>>,
    len: usize,
}

type Page<T> = [Option<T>; PLACES];

const PLACES: usize = 16;

impl<T> Numbered<T> {
    /// None yet.
    pub const fn new() -> Self {
        Self { pages: Vec::new(), len: 0 }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The one of that number.
    #[inline]
    pub fn get(&self, number: u32) -> Option<&T> {
        let (page, place) = at(number);
        self.pages.get(page)?.as_ref()?[place].as_ref()
    }

    /// The one of that number, to be changed.
    pub fn get_mut(&mut self, number: u32) -> Option<&mut T> {
        let (page, place) = at(number);
        self.pages.get_mut(page)?.as_mut()?[place].as_mut()
    }

    /// Gives something that number, and what had it before back.
    ///
    /// # Panics
    /// If the number is not below [`NUMBERS`].
    pub fn insert(&mut self, number: u32, thing: T) -> Option<T> {
        assert!(number < NUMBERS, "numbers are checked first");
        let (page, place) = at(number);
        if page >= self.pages.len() {
            self.pages.resize_with(page + 1, || None);
        }
        let page = self.pages[page].get_or_insert_with(|| Box::new([const { None }; PLACES]));
        let before = page[place].replace(thing);
        self.len += usize::from(before.is_none());
        before
    }

    /// Takes the one of that number out.
    pub fn remove(&mut self, number: u32) -> Option<T> {
        let (page, place) = at(number);
        let page = self.pages.get_mut(page)?;
        let places = page.as_mut()?;
        let removed = places[place].take()?;
        if places.iter().all(Option::is_none) {
            *page = None;
        }
        self.len -= 1;
        if self.len == 0 {
            self.pages = Vec::new();
        }
        Some(removed)
    }

    /// All, in order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        let pages = (0..).zip(&self.pages).filter_map(|(at, page)| Some((at, page.as_ref()?)));
        pages.flat_map(|(at, page)| {
            numbers_of(at).zip(page.iter()).filter_map(|(number, thing)| Some((number, thing.as_ref()?)))
        })
    }

    /// All, in order of their numbers, to be changed.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.pages.iter_mut().flatten().flat_map(|page| page.iter_mut().flatten())
    }

    /// All, in order of their numbers.
    pub fn into_values(self) -> impl Iterator<Item = T> {
        self.pages.into_iter().flatten().flat_map(|page| (*page).into_iter().flatten())
    }
}

impl<T> Default for Numbered<T> {
    fn default() -> Self {
        Self::new()
    }
}

fn at(number: u32) -> (usize, usize) {
    (number as usize / PLACES, number as usize % PLACES)
}

fn numbers_of(page: u32) -> std::ops::Range<u32> {
    let places = u32::try_from(PLACES).expect("16");
    page * places..(page + 1) * places
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        /// Against an ordered map: neighbours, and numbers of pages far apart.
        #[test]
        fn it_is_a_map(steps in prop::collection::vec((any::<bool>(), 0..40_u32, 0..3_u32, any::<u8>()), 0..300)) {
            let (mut numbered, mut map) = (Numbered::new(), BTreeMap::new());
            for (inserts, small, far, thing) in steps {
                let number = small + far * 100;
                if inserts {
                    prop_assert_eq!(numbered.insert(number, thing), map.insert(number, thing));
                } else {
                    prop_assert_eq!(numbered.remove(number), map.remove(&number));
                }
                prop_assert_eq!((numbered.len(), numbered.is_empty()), (map.len(), map.is_empty()));
                prop_assert_eq!(numbered.get(number), map.get(&number));
                prop_assert_eq!(numbered.get_mut(number), map.get_mut(&number));
                prop_assert!(numbered.iter().eq(map.iter().map(|(number, thing)| (*number, thing))));
                let pages = numbered.pages.iter().flatten().count();
                let used: std::collections::BTreeSet<usize> = map.keys().map(|number| at(*number).0).collect();
                prop_assert_eq!(pages, used.len(), "a page goes with its last entry");
            }
            prop_assert!(numbered.values_mut().eq(map.values_mut()));
            prop_assert!(numbered.into_values().eq(map.into_values()));
        }
    }

    #[test]
    fn the_last_number_has_a_place_and_the_next_has_none() {
        let mut numbered = Numbered::new();
        numbered.insert(NUMBERS - 1, ());
        assert_eq!((numbered.get(NUMBERS - 1), numbered.get(NUMBERS), numbered.get(u32::MAX)), (Some(&()), None, None));
        assert_eq!(numbered.pages.len(), 62_500);
        numbered.remove(NUMBERS - 1);
        assert_eq!(numbered.pages.capacity(), 0);
    }
}
