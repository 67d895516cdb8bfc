//! The containers of one invoker node, by the numbers it gave them. An entry of the node names a container by number and
//! epoch; the roster says which one that is, and refuses by name what it does not know.
//!
//! When the node's stream breaks its containers are suspended. A node that comes back registers each again; what it does not
//! register is gone.
//!
//! ```text
//!              enter                 suspend_all                    absent
//!   (none) ────────────▶ present ────────────────▶ suspended ─────────────────▶ (none): gone
//!     ▲                   │  ▲                       │  │
//!     └───── remove ──────┘  └──── admit: rejoins ───┘  └─ admit: replaces ───▶ (none): gone, then enter
//! ```

use crate::mutant::{Mutant, is};
use crate::numbered::{NUMBERS, Numbered};
use crate::outcome::{Reason, Rejection};

/// The containers of a node. `H` is what its user holds of each.
#[derive(Debug)]
pub struct Roster<H> {
    members: Numbered<Member<H>>,
    /// Of the members, those that are suspended.
    suspended: usize,
    members_max: u32,
}

#[derive(Debug)]
struct Member<H> {
    epoch: u32,
    suspended: bool,
    held: H,
}

/// What the registration of a container is.
#[derive(Debug, PartialEq, Eq)]
pub enum Admission<'a, H> {
    /// A new one: [`enter`](Roster::enter) it.
    New,
    /// The suspended one of that number is back.
    Rejoins(&'a H),
    /// A new one, under the number of a suspended one that is gone: [`enter`](Roster::enter) it.
    Replaces(H),
}

impl<H> Roster<H> {
    /// None yet; at most `members_max` at a time.
    pub fn new(members_max: u32) -> Self {
        Self { members: Numbered::new(), suspended: 0, members_max }
    }

    /// Containers there are, suspended ones counted.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Containers that are suspended.
    pub fn suspended(&self) -> usize {
        self.suspended
    }

    /// What is held of each container, in order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = &H> {
        self.members.iter().map(|(_, member)| &member.held)
    }

    /// As [`iter`](Self::iter), to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut H> {
        self.members.values_mut().map(|member| &mut member.held)
    }

    /// Whether a suspended container has that number; else it is free.
    ///
    /// # Errors
    /// [`Reason::TooManyContainers`], [`Reason::ContainerTaken`]
    pub fn check(&self, number: u32) -> Result<bool, Rejection> {
        if number >= NUMBERS {
            return Err(Rejection::new(Reason::TooManyContainers, "container", NUMBERS.into()));
        }
        match self.members.get(number) {
            None if self.members.len() < self.members_max as usize => Ok(false),
            None => Err(Rejection::new(Reason::TooManyContainers, "registers", self.members_max.into())),
            Some(member) if member.suspended => Ok(true),
            Some(_) => Err(Rejection::new(Reason::ContainerTaken, "container", 0)),
        }
    }

    /// The node registers a container under that number and epoch. `is_same` says of a suspended one of both whether it is
    /// this one.
    ///
    /// # Errors
    /// [`Reason::TooManyContainers`], [`Reason::ContainerTaken`]
    pub fn admit(
        &mut self,
        number: u32,
        epoch: u32,
        is_same: impl FnOnce(&H) -> bool,
    ) -> Result<Admission<'_, H>, Rejection> {
        if !self.check(number)? {
            return Ok(Admission::New);
        }
        let member = self.members.get(number).expect("just found");
        self.suspended -= 1;
        if member.epoch != epoch || !is_same(&member.held) {
            let gone = self.members.remove(number).expect("just found");
            return Ok(Admission::Replaces(gone.held));
        }
        let member = self.members.get_mut(number).expect("just found");
        member.suspended = false;
        Ok(Admission::Rejoins(&member.held))
    }

    /// Adds a container that was admitted.
    pub fn enter(&mut self, number: u32, epoch: u32, held: H) {
        let before = self.members.insert(number, Member { epoch, suspended: false, held });
        debug_assert!(before.is_none(), "admitted as new");
    }

    /// The container that an entry speaks of.
    ///
    /// # Errors
    /// [`Reason::ContainerUnknown`], [`Reason::EpochStale`]
    pub fn find(&self, number: u32, epoch: u32) -> Result<&H, Rejection> {
        let member = self.members.get(number).ok_or(Rejection::new(Reason::ContainerUnknown, "container", 0))?;
        if member.epoch != epoch && !is(Mutant::EpochIgnored) {
            return Err(Rejection::new(Reason::EpochStale, "epoch", member.epoch.into()));
        }
        Ok(&member.held)
    }

    /// Takes a container off; its number is free. What was held of it.
    pub fn remove(&mut self, number: u32) -> Option<H> {
        let member = self.members.remove(number)?;
        self.suspended -= usize::from(member.suspended);
        Some(member.held)
    }

    /// Suspends all containers and gives those that were not suspended before.
    pub fn suspend_all(&mut self) -> impl Iterator<Item = &H> {
        self.suspended = self.members.len();
        let members = self.members.values_mut();
        members.filter_map(|member| (!std::mem::replace(&mut member.suspended, true)).then_some(&member.held))
    }

    /// The node has registered all that are still there: takes off those that are suspended, which are gone.
    pub fn absent(&mut self) -> Vec<H> {
        if self.suspended == 0 || is(Mutant::AbsentNotMissed) {
            return Vec::new();
        }
        self.suspended = 0;
        let absent: Vec<u32> =
            self.members.iter().filter(|(_, member)| member.suspended).map(|(number, _)| number).collect();
        absent.into_iter().filter_map(|number| self.members.remove(number)).map(|member| member.held).collect()
    }

    /// Takes all off.
    pub fn clear(&mut self) -> Vec<H> {
        self.suspended = 0;
        std::mem::take(&mut self.members).into_values().map(|member| member.held).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn reason<T>(refused: Result<T, Rejection>) -> (Reason, &'static str, u64) {
        let Err(Rejection { reason, field, limit, .. }) = refused else { panic!("it was not refused") };
        (reason, field, limit)
    }

    #[test]
    fn what_is_not_there_or_not_that_one_is_refused_by_name() {
        let mut roster = Roster::new(2);
        for number in [NUMBERS, u32::MAX] {
            let told = (Reason::TooManyContainers, "container", u64::from(NUMBERS));
            assert_eq!(reason(roster.admit(number, 0, |()| true)), told);
        }
        assert_eq!(roster.admit(1, 5, |()| true), Ok(Admission::New));
        roster.enter(1, 5, ());
        assert_eq!(reason(roster.admit(1, 5, |()| true)), (Reason::ContainerTaken, "container", 0));
        assert_eq!(roster.find(1, 5), Ok(&()));
        assert_eq!(reason(roster.find(1, 4)), (Reason::EpochStale, "epoch", 5));
        assert_eq!(reason(roster.find(2, 5)), (Reason::ContainerUnknown, "container", 0));
        roster.enter(2, 5, ());
        assert_eq!(reason(roster.admit(3, 5, |()| true)), (Reason::TooManyContainers, "registers", 2));
        // A full roster still takes back what it has.
        assert_eq!(roster.suspend_all().count(), 2);
        assert_eq!(roster.admit(1, 5, |()| true), Ok(Admission::Rejoins(&())));
        assert_eq!(roster.suspend_all().count(), 1);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Register { number: u32, epoch: u32, same: bool },
        Remove(u32),
        Suspend,
        Rejoined,
        Clear,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            8 => (0..5_u32, 0..2_u32, any::<bool>())
                .prop_map(|(number, epoch, same)| Step::Register { number, epoch, same }),
            2 => (0..5_u32).prop_map(Step::Remove),
            2 => Just(Step::Suspend),
            1 => Just(Step::Rejoined),
            1 => Just(Step::Clear),
        ];
        prop::collection::vec(step, 1..60)
    }

    proptest! {
        /// Against a list: each container comes out once, suspended ones only are taken back or replaced.
        #[test]
        fn a_roster_is_a_list(steps in steps()) {
            let mut roster = Roster::new(4);
            // Number, epoch, suspended, what is held: a count.
            let mut list: Vec<(u32, u32, bool, usize)> = Vec::new();
            for (count, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Register { number, epoch, same } => {
                        let known = list.iter().position(|entry| entry.0 == number);
                        let full = list.len() == 4;
                        match (roster.admit(number, epoch, |_| same), known) {
                            (Ok(Admission::New), None) => prop_assert!(!full),
                            (Ok(Admission::Replaces(gone)), Some(at)) => {
                                let (_, was, suspended, held) = list.remove(at);
                                prop_assert!(suspended && held == gone && !(same && was == epoch));
                            }
                            (Ok(Admission::Rejoins(held)), Some(at)) => {
                                let entry = &mut list[at];
                                prop_assert!(same && std::mem::take(&mut entry.2));
                                prop_assert_eq!((entry.1, &entry.3), (epoch, held));
                                continue;
                            }
                            (Err(refused), known) => {
                                let taken = refused.reason == Reason::ContainerTaken;
                                let right = if taken { !list[known.unwrap()].2 } else { full && known.is_none() };
                                prop_assert!(right, "{:?}", refused);
                                continue;
                            }
                            other => prop_assert!(false, "{:?}", other),
                        }
                        roster.enter(number, epoch, count);
                        list.push((number, epoch, false, count));
                    }
                    Step::Remove(number) => {
                        let known = list.iter().position(|entry| entry.0 == number);
                        prop_assert_eq!(roster.remove(number), known.map(|at| list.remove(at).3));
                    }
                    Step::Suspend => {
                        let mut newly: Vec<usize> = roster.suspend_all().copied().collect();
                        newly.sort_unstable();
                        let mut expected: Vec<usize> = list.iter().filter(|entry| !entry.2).map(|entry| entry.3).collect();
                        expected.sort_unstable();
                        prop_assert_eq!(newly, expected);
                        list.iter_mut().for_each(|entry| entry.2 = true);
                    }
                    Step::Rejoined | Step::Clear => {
                        let all = matches!(step, Step::Clear);
                        let mut gone = if all { roster.clear() } else { roster.absent() };
                        gone.sort_unstable();
                        let mut expected: Vec<usize> = list.extract_if(.., |entry| all || entry.2).map(|entry| entry.3).collect();
                        expected.sort_unstable();
                        prop_assert_eq!(gone, expected);
                    }
                }
                prop_assert_eq!(roster.len(), list.len());
                prop_assert_eq!(roster.suspended(), list.iter().filter(|entry| entry.2).count());
                for &(number, epoch, _, held) in &list {
                    prop_assert_eq!(roster.find(number, epoch), Ok(&held));
                }
            }
        }
    }
}
