//! The engine's names for things: activations, streams, actions. Plain values, cheap to copy or to share.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// An activation's id: 16 bytes chosen by its controller and never used again (OpenWhisk writes them as 32 hex digits).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ActivationId(pub [u8; ActivationId::LEN]);

impl ActivationId {
    /// Bytes of an id.
    pub const LEN: usize = 16;
}

impl Hash for ActivationId {
    /// As a number: hashers take it at once, without a length.
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u128(u128::from_le_bytes(self.0));
    }
}

impl fmt::Display for ActivationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ActivationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A stream of a controller or of an invoker node, or one unary call. Never used twice in a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u64);

impl StreamId {
    /// Who pushed what an earlier life of the router stored: nobody that could be answered. No stream is given this number.
    pub const NOBODY: Self = Self(u64::MAX);
}

/// An invoker node's name, by which breakers remember the node whatever streams and sessions it has. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct NodeName(Arc<str>);

impl NodeName {
    /// Names a node. The length is checked by [`Limits::check_node`](crate::limits::Limits::check_node).
    pub fn new(name: &str) -> Self {
        Self(name.into())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// An action of a tenant, whatever its revision. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ActionName {
    /// Namespace and action behind one another: one allocation, shared by all who name the action.
    text: Arc<str>,
    namespace_len: u16,
}

impl ActionName {
    /// Names `action` of `namespace`.
    ///
    /// # Panics
    /// If the namespace is longer than 65,535 bytes; [`Limits`](crate::limits::Limits) admits 256.
    pub fn new(namespace: &str, action: &str) -> Self {
        let namespace_len = u16::try_from(namespace.len()).expect("a namespace is checked against the limits first");
        Self { text: [namespace, action].concat().into(), namespace_len }
    }

    /// The tenant.
    pub fn namespace(&self) -> &str {
        &self.text[..usize::from(self.namespace_len)]
    }

    /// The action's own name.
    pub fn action(&self) -> &str {
        &self.text[usize::from(self.namespace_len)..]
    }
}

impl fmt::Display for ActionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace(), self.action())
    }
}

impl fmt::Debug for ActionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The unit of queueing: an action in one revision. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ActionKey {
    /// The action.
    pub name: ActionName,
    /// Its revision, opaque.
    pub revision: Arc<str>,
}

impl ActionKey {
    /// Names revision `revision` of `action` of `namespace`. Lengths are checked by
    /// [`Limits::check_key`](crate::limits::Limits::check_key).
    pub fn new(namespace: &str, action: &str, revision: &str) -> Self {
        Self { name: ActionName::new(namespace, action), revision: revision.into() }
    }
}

/// Names an action's records among those of other actions that share its lane in the store. It is written down with each
/// record, so it is the same in every life of the router.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Group(pub u64);

impl ActionKey {
    /// The group of the action's records: SipHash-2-4 of its names and their lengths.
    pub fn group(&self) -> Group {
        // A cryptographer's hash, since tenants choose names: one that met another tenant's group would consume its records.
        // The key is fixed, as what was stored is to be found again. `SipHasher` alone promises its algorithm; the standard
        // library's default hasher may change.
        #[allow(deprecated)]
        let mut hasher = std::hash::SipHasher::new_with_keys(0x6163_7469_7661_7469, 0x6f6e_2067_726f_7570);
        for name in [self.name.namespace(), self.name.action(), &self.revision] {
            hasher.write(&(name.len() as u64).to_le_bytes());
            hasher.write(name.as_bytes());
        }
        Group(hasher.finish())
    }
}

impl fmt::Display for ActionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.name, self.revision)
    }
}

impl fmt::Debug for ActionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_written_down_and_never_change() {
        let group = |namespace, action, revision| ActionKey::new(namespace, action, revision).group();
        assert_eq!(group("tenant", "action", "1"), Group(0x9745_f3e1_d67e_b72b));
        assert_ne!(group("ab", "c", ""), group("a", "bc", ""));
        assert_ne!(group("a", "b", "c"), group("a", "bc", ""));
    }
}
