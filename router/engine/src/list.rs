//! Doubly linked lists through the entries of a slab: joined, left and walked in O(1) a step, without memory of their own.
//! An entry is in at most one list at a time; who owns both slab and list sees to that.

use crate::slab::{Key, Slab};

/// An entry's neighbours.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Links {
    before: Option<Key>,
    after: Option<Key>,
}

/// An entry that can be in a list.
pub(crate) trait Linked {
    fn links(&self) -> &Links;
    fn links_mut(&mut self) -> &mut Links;
}

/// First and last entry of a list.
#[derive(Debug, Default)]
pub(crate) struct List {
    first: Option<Key>,
    last: Option<Key>,
}

impl List {
    pub(crate) fn first(&self) -> Option<Key> {
        self.first
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    pub(crate) fn push_front<T: Linked>(&mut self, slab: &mut Slab<T>, key: Key) {
        self.insert_after(slab, None, key);
    }

    pub(crate) fn push_back<T: Linked>(&mut self, slab: &mut Slab<T>, key: Key) {
        self.insert_after(slab, self.last, key);
    }

    /// Puts `key` behind `before`, or in front of all.
    pub(crate) fn insert_after<T: Linked>(&mut self, slab: &mut Slab<T>, before: Option<Key>, key: Key) {
        let after = match before {
            Some(before) => slab[before].links().after,
            None => self.first,
        };
        *slab[key].links_mut() = Links { before, after };
        self.join(slab, before, Some(key));
        self.join(slab, Some(key), after);
    }

    pub(crate) fn remove<T: Linked>(&mut self, slab: &mut Slab<T>, key: Key) {
        let Links { before, after } = std::mem::take(slab[key].links_mut());
        self.join(slab, before, after);
    }

    /// The entry behind `key`.
    pub(crate) fn after<T: Linked>(slab: &Slab<T>, key: Key) -> Option<Key> {
        slab[key].links().after
    }

    /// The entry in front of `key`.
    pub(crate) fn before<T: Linked>(slab: &Slab<T>, key: Key) -> Option<Key> {
        slab[key].links().before
    }

    fn join<T: Linked>(&mut self, slab: &mut Slab<T>, before: Option<Key>, after: Option<Key>) {
        match before {
            Some(before) => slab[before].links_mut().after = after,
            None => self.first = after,
        }
        match after {
            Some(after) => slab[after].links_mut().before = before,
            None => self.last = before,
        }
    }
}
