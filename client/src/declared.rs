//! Which number stands for which action on one stream. Bounded: past the limit a number that was not used of late is given to
//! another action. It may not send anything: the declaration is the caller's to send, before the first use.

use crate::action::ActionKey;
use std::collections::HashMap;

/// The declared actions of one stream. Numbers go round like a clock's hand: a use marks its number, and the hand takes the
/// first unmarked one, wiping marks on its way. So no use ever moves anything, and what is used stays.
#[derive(Debug)]
pub(crate) struct Declared {
    numbers: HashMap<ActionKey, u32>,
    /// By number.
    places: Vec<Place>,
    hand: usize,
    max: usize,
}

#[derive(Debug)]
struct Place {
    /// None: declared, but refused.
    key: Option<ActionKey>,
    used: bool,
}

impl Declared {
    /// Declares up to `max` actions at a time.
    pub(crate) fn new(max: usize) -> Self {
        Self { numbers: HashMap::new(), places: Vec::new(), hand: 0, max }
    }

    /// The number of an action that is declared already.
    pub(crate) fn number_of(&mut self, key: &ActionKey) -> Option<u32> {
        let number = *self.numbers.get(key)?;
        self.places[number as usize].used = true;
        Some(number)
    }

    /// A number for an action that has none. Whatever it stood for until now has none any more.
    pub(crate) fn assign(&mut self, key: ActionKey) -> u32 {
        let at = if self.places.len() < self.max { self.places.len() } else { self.unused() };
        let number = u32::try_from(at).expect("the limit is far below 2^32");
        self.numbers.insert(key.clone(), number);
        let place = Place { key: Some(key), used: true };
        if at == self.places.len() {
            self.places.push(place);
        } else if let Some(former) = std::mem::replace(&mut self.places[at], place).key {
            self.numbers.remove(&former);
        }
        number
    }

    /// The number stands for nothing: its declaration was not sent, or was refused.
    pub(crate) fn forget(&mut self, number: u32) {
        let Some(place) = self.places.get_mut(number as usize) else { return };
        if let Some(key) = place.key.take() {
            self.numbers.remove(&key);
        }
        place.used = false;
    }

    fn unused(&mut self) -> usize {
        // Ends: the second time round every mark is wiped.
        loop {
            let at = self.hand;
            self.hand = (self.hand + 1) % self.places.len();
            if !std::mem::take(&mut self.places[at].used) {
                return at;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> ActionKey {
        ActionKey::new("n", name, "").unwrap()
    }

    fn declared(names: &[&str], max: usize) -> Declared {
        let mut declared = Declared::new(max);
        for name in names {
            declared.assign(key(name));
        }
        declared
    }

    #[test]
    fn an_action_keeps_its_number() {
        let mut declared = declared(&["a", "b"], 10);
        assert_eq!([declared.number_of(&key("a")), declared.number_of(&key("b"))], [Some(0), Some(1)]);
        assert_eq!(declared.number_of(&key("c")), None);
    }

    #[test]
    fn past_the_limit_a_number_not_used_of_late_is_taken() {
        let mut declared = declared(&["a", "b", "c"], 3);
        // All are marked: the hand wipes them and comes back to the first.
        assert_eq!(declared.assign(key("d")), 0);
        assert_eq!(declared.number_of(&key("a")), None);
        declared.number_of(&key("b"));
        assert_eq!(declared.assign(key("e")), 2, "b was used, c was not");
        assert_eq!([declared.number_of(&key("b")), declared.number_of(&key("d"))], [Some(1), Some(0)]);
        assert_eq!(declared.numbers.len(), 3);
    }

    #[test]
    fn a_forgotten_number_is_taken_before_others() {
        let mut declared = declared(&["a", "b", "c"], 3);
        declared.forget(1);
        assert_eq!(declared.number_of(&key("b")), None);
        declared.forget(1);
        declared.forget(77);
        assert_eq!(declared.assign(key("d")), 1);
    }
}
