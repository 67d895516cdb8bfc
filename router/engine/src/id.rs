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
