//! The name of one activation, and where new ones come from. It may not be used twice.

use bytes::Bytes;

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

    /// One that no other will ever equal.
    pub(crate) fn random() -> Self {
        Self(rand::random())
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

/// Makes ids: eight random bytes of its own, then a count. No two of one source are equal; two sources share an id only if
/// they drew the same eight bytes.
#[derive(Debug)]
pub(crate) struct IdSource {
    prefix: [u8; 8],
    count: u64,
}

impl IdSource {
    pub(crate) fn new() -> Self {
        Self { prefix: rand::random(), count: 0 }
    }

    /// A new id and its count.
    pub(crate) fn next(&mut self) -> (ActivationId, u64) {
        self.count += 1;
        let mut id = [0; 16];
        id[..8].copy_from_slice(&self.prefix);
        id[8..].copy_from_slice(&self.count.to_be_bytes());
        (ActivationId(id), self.count)
    }

    /// The count of an id that came from here.
    pub(crate) fn count_of(&self, id: &[u8]) -> Option<u64> {
        let (prefix, count) = id.split_first_chunk()?;
        (*prefix == self.prefix).then_some(u64::from_be_bytes(count.try_into().ok()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_differ_and_lead_back_to_their_count() {
        let mut source = IdSource::new();
        let ((first, one), (second, two)) = (source.next(), source.next());
        assert_ne!(first, second);
        assert_eq!([source.count_of(&first.bytes()), source.count_of(&second.bytes())], [Some(one), Some(two)]);
        assert_eq!(first.to_string().len(), 32);
    }

    #[test]
    fn a_foreign_or_malformed_id_has_no_count() {
        let source = IdSource::new();
        for id in [&[0; 15][..], &[0; 16], &[0; 17], &[]] {
            // A prefix of zeros is as unlikely as any other.
            assert_eq!(source.count_of(id), None);
        }
    }
}
