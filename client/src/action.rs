//! The name of an action. It may not hold a name that the router would refuse.

use bytes::Bytes;
use engine::limits;
use proto::v1;
use std::sync::Arc;

/// An action of a tenant in one revision: the unit of queueing. Cheap to clone, and no larger than a pointer: whoever waits for an
/// answer keeps one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ActionKey(Arc<Names>);

#[derive(Debug, PartialEq, Eq, Hash)]
struct Names {
    namespace: Bytes,
    action: Bytes,
    revision: Bytes,
}

impl ActionKey {
    /// Most bytes of a namespace or an action's name; at least 1.
    pub const NAME_BYTES_MAX: usize = limits::NAME_BYTES_MAX;
    /// Most bytes of a revision.
    pub const REVISION_BYTES_MAX: usize = limits::REVISION_BYTES_MAX;

    /// The action `action` (with its package where it has one: `pkg/hello`) of the tenant `namespace`. `revision` is opaque,
    /// unique to one deployment, and may be empty: the one declared last is current.
    pub fn new(namespace: &str, action: &str, revision: &str) -> Result<Self, NameError> {
        for (field, name) in [("namespace", namespace), ("action", action)] {
            if name.is_empty() {
                return Err(NameError::Empty { field });
            }
        }
        Ok(Self(Arc::new(Names {
            namespace: bounded("namespace", namespace, Self::NAME_BYTES_MAX)?,
            action: bounded("action", action, Self::NAME_BYTES_MAX)?,
            revision: bounded("revision", revision, Self::REVISION_BYTES_MAX)?,
        })))
    }
}

fn bounded(field: &'static str, name: &str, limit: usize) -> Result<Bytes, NameError> {
    let within = name.len() <= limit;
    within.then(|| Bytes::copy_from_slice(name.as_bytes())).ok_or(NameError::TooLong { field, limit })
}

impl std::fmt::Display for ActionKey {
    /// `namespace/action@revision`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = |name| String::from_utf8_lossy(name);
        let Names { namespace, action, revision } = &*self.0;
        write!(f, "{}/{}@{}", text(namespace), text(action), text(revision))
    }
}

impl From<ActionKey> for v1::ActionKey {
    fn from(key: ActionKey) -> Self {
        let Names { namespace, action, revision } = &*key.0;
        Self { namespace: namespace.clone(), action: action.clone(), revision: revision.clone() }
    }
}

/// Why a name cannot be one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// It must not be empty.
    #[error("the {field} must not be empty")]
    Empty {
        /// Which one.
        field: &'static str,
    },
    /// It is too long.
    #[error("the {field} may have at most {limit} bytes")]
    TooLong {
        /// Which one.
        field: &'static str,
        /// Most bytes it may have.
        limit: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_held_to_the_routers_limits() {
        let long = "x".repeat(257);
        let empty = |field| Err(NameError::Empty { field });
        let too_long = |field, limit| Err(NameError::TooLong { field, limit });
        assert_eq!(ActionKey::new("", "a", ""), empty("namespace"));
        assert_eq!(ActionKey::new("n", "", ""), empty("action"));
        assert_eq!(ActionKey::new(&long, "a", ""), too_long("namespace", 256));
        assert_eq!(ActionKey::new("n", &long, ""), too_long("action", 256));
        assert_eq!(ActionKey::new("n", "a", &long[..65]), too_long("revision", 64));
        assert_eq!(
            ActionKey::new(&long[1..], "a", &long[..64]).map(|key| key.to_string().len()),
            Ok(256 + 1 + 1 + 1 + 64)
        );
    }
}
