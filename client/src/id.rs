//! The name of one activation, and where new ones come from. It may not be used twice.

use bytes::Bytes;
use engine::slab::Key;

/// 16 bytes that name one activation for ever; written as 32 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ActivationId([u8; 16]);

impl ActivationId {
    /// Its bytes.
    pub fn bytes(&self) -> [u8; 16] {
        self.0
    }

    /// As it stands on the wire.
    pub(crate) fn to_wire(self) -> Bytes {
        Bytes::copy_from_slice(&self.0)
    }

    /// Reads it from the wire; none unless it has 16 bytes.
    pub(crate) fn from_wire(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }
}

impl std::fmt::Display for ActivationId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl std::fmt::Debug for ActivationId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

/// Names seats: eight bytes of its own, then the seat's key, so that an answer leads back to its seat without a table. The own bytes
/// begin as drawn and move on by one each time the keys begin anew (each 2^32 seats): no two names of one source are equal, and
/// two sources share a name only if they drew nearly the same eight bytes.
#[derive(Debug)]
pub(crate) struct Names {
    drawn: u64,
    /// How often the keys began anew.
    round: u32,
    /// The generation of the seat named last.
    generation: u64,
}

impl Names {
    /// `drawn`: any 64 bits, evenly distributed.
    pub(crate) fn new(drawn: u64) -> Self {
        Self { drawn, round: 0, generation: 0 }
    }

    /// The name of the seat that was taken last, and its round.
    pub(crate) fn name(&mut self, seat: Key) -> (ActivationId, u32) {
        let generation = seat.to_bits() >> 32;
        if generation < self.generation {
            self.round = self.round.wrapping_add(1);
        }
        self.generation = generation;
        (self.of(self.round, seat), self.round)
    }

    /// The name of a seat of that round.
    pub(crate) fn of(&self, round: u32, seat: Key) -> ActivationId {
        let own = self.drawn.wrapping_add(round.into());
        let mut id = [0; 16];
        id[..8].copy_from_slice(&own.to_be_bytes());
        id[8..].copy_from_slice(&seat.to_bits().to_be_bytes());
        ActivationId(id)
    }

    /// The round and seat of a name, unless it cannot be from here.
    pub(crate) fn read(&self, id: &[u8]) -> Option<(u32, Key)> {
        let (own, seat) = id.split_first_chunk()?;
        let round = u64::from_be_bytes(*own).wrapping_sub(self.drawn);
        let seat = Key::from_bits(u64::from_be_bytes(seat.try_into().ok()?))?;
        Some((u32::try_from(round).ok()?, seat))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::slab::Slab;

    #[test]
    fn names_differ_and_lead_back_to_their_seats() {
        let (mut names, mut slab) = (Names::new(u64::MAX), Slab::new());
        let seats = [slab.insert(()), slab.insert(())];
        let [first, second] = seats.map(|seat| names.name(seat).0);
        assert_ne!(first, second);
        assert_eq!([first, second].map(|id| names.read(&id.bytes())), seats.map(|seat| Some((0, seat))));
        assert_eq!(first.to_string().len(), 32);
    }

    #[test]
    fn a_key_that_comes_again_has_another_name() {
        let mut names = Names::new(u64::MAX);
        let [late, early] = [u32::MAX, 1].map(|generation| Key::from_bits(u64::from(generation) << 32).unwrap());
        let (before, _) = names.name(early);
        names.name(late);
        let (after, round) = names.name(early);
        assert_eq!(round, 1);
        assert_ne!(before, after);
        assert_eq!([before, after].map(|id| names.read(&id.bytes())), [Some((0, early)), Some((1, early))]);
    }

    #[test]
    fn a_foreign_or_malformed_id_is_of_no_seat() {
        let names = Names::new(1 << 40);
        for id in [&[0; 15][..], &[0; 16], &[0; 17], &[]] {
            assert_eq!(names.read(id), None);
        }
    }
}
