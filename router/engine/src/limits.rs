//! Every bound of the engine, by name, and the checks of single fields against them.

use crate::breaker::Rules;
use crate::id::{ActionKey, ActivationId, NodeName};
use crate::outcome::{Reason, Rejection};
use std::time::Duration;

/// The engine's bounds. At each of them something is refused by name.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Most bytes of a payload or a result.
    pub payload_bytes_max: usize,
    /// Longest time left an activation may come with.
    pub time_left_max: Duration,
    /// Most activations one action queues.
    pub action_queued_max: u64,
    /// Most bytes one action queues: payloads and `queued_overhead_bytes` for each.
    pub action_queued_bytes_max: u64,
    /// Most activations the actions of one namespace queue together.
    pub tenant_queued_max: u64,
    /// Most bytes they queue together.
    pub tenant_queued_bytes_max: u64,
    /// Most activations all actions queue together.
    pub router_queued_max: u64,
    /// Most bytes all actions queue together.
    pub router_queued_bytes_max: u64,
    /// Bytes counted for each queued activation besides its payload: what it takes up in the engine.
    pub queued_overhead_bytes: u64,
    /// Most actions known at a time, each revision counted.
    pub actions_max: u64,
    /// Most activations a container may run at once.
    pub container_concurrency_max: u32,
    /// How long an action is kept that has neither activations nor containers and that no stream names.
    pub idle_grace: Duration,
    /// How long after its deadline an activation in flight is answered as timed out: the time an answer may be underway.
    pub overdue_grace: Duration,
    /// When containers and nodes on which work fails are left alone, and for how long; None: never.
    pub breaker: Option<Rules>,
    /// An activation that its container took longer for, from dispatch to completion, counts against it; None: none does.
    pub slow_after: Option<Duration>,
    /// Where the excess goes; None: it is refused.
    pub overflow: Option<OverflowLimits>,
    /// In sets of seven, rounded up to a power of two, how many ids that ended are remembered, to refuse them as repetitions;
    /// 64 bytes each.
    pub recent_sets: usize,
}

/// The bounds of what overflows memory.
#[derive(Debug, Clone)]
pub struct OverflowLimits {
    /// Lanes of the store, at least 1.
    pub lanes: u16,
    /// Most bytes that are on their way into the store, `queued_overhead_bytes` for each activation among them.
    pub pending_bytes_max: u64,
    /// Most activations of one action that are read back at a time. So many and half as many again may be in memory beyond its limits;
    /// so many more of one that also has some of an earlier life of the router in another lane.
    pub refill_records: u32,
    /// Most payload bytes of one action that are read back at a time.
    pub refill_bytes: u32,
}

impl Default for OverflowLimits {
    fn default() -> Self {
        Self { lanes: 64, pending_bytes_max: 8 << 20, refill_records: 4096, refill_bytes: 1 << 20 }
    }
}

/// Most bytes of a namespace or an action's name.
pub const NAME_BYTES_MAX: usize = 256;
/// Most bytes of a revision.
pub const REVISION_BYTES_MAX: usize = 64;
/// Earlier revisions of an action that are remembered after their queues are gone, so that a controller with an old cache
/// does not bring one back.
pub const REVISIONS_REMEMBERED: usize = 8;
/// Most bytes of an invoker node's name.
pub const NODE_NAME_BYTES_MAX: usize = 128;
/// Breakers of nodes that an action has at a time. At the bound the closed one with the fewest strikes makes room, of those the
/// one whose strikes are oldest; an open or half-open one never does. If none makes room, the new node's failures are seen by
/// the breakers of its containers only.
pub const NODE_BREAKERS_MAX: usize = 64;
/// Ids that ended lately are remembered in sets of this many: a cache line holds one.
pub const RECENT_IDS_PER_SET: usize = 7;
/// What controllers are told to wait where a queue is full and nothing tells how fast it drains.
pub const RETRY_AFTER_MS: u32 = 100;

impl Default for Limits {
    fn default() -> Self {
        Self {
            // OpenWhisk's activation payload (1 MiB) and its serialisation overhead (6,068 B).
            payload_bytes_max: (1 << 20) + 6068,
            time_left_max: Duration::from_secs(24 * 3600),
            action_queued_max: 1_000_000,
            action_queued_bytes_max: 1 << 30,
            tenant_queued_max: 2_000_000,
            tenant_queued_bytes_max: 2 << 30,
            router_queued_max: 2_000_000,
            router_queued_bytes_max: 2 << 30,
            queued_overhead_bytes: 256,
            actions_max: 1_000_000,
            container_concurrency_max: 4096,
            idle_grace: Duration::from_secs(600),
            overdue_grace: Duration::from_millis(100),
            breaker: Some(Rules::default()),
            slow_after: None,
            overflow: None,
            recent_sets: 65_536,
        }
    }
}

impl Limits {
    /// Reads an id.
    pub fn check_id(&self, id: &[u8]) -> Result<ActivationId, Rejection> {
        self.check_id_in("id", id)
    }

    /// Reads an id of a list, named as `field`.
    pub fn check_id_in(&self, field: &'static str, id: &[u8]) -> Result<ActivationId, Rejection> {
        let id = id.try_into().map_err(|_| Rejection::new(Reason::IdLength, field, ActivationId::LEN as u64))?;
        Ok(ActivationId(id))
    }

    /// Checks the length of a payload or result, named as `field`.
    pub fn check_payload(&self, field: &'static str, len: usize) -> Result<(), Rejection> {
        if len > self.payload_bytes_max {
            return Err(Rejection::new(Reason::PayloadTooLarge, field, self.payload_bytes_max as u64));
        }
        Ok(())
    }

    /// Reads a time left.
    pub fn check_time_left(&self, time_left_ms: u32) -> Result<Duration, Rejection> {
        let time_left = Duration::from_millis(time_left_ms.into());
        if time_left.is_zero() {
            return Err(Rejection::new(Reason::TimeLeftZero, "time_left_ms", 1));
        }
        if time_left > self.time_left_max {
            let limit = u64::try_from(self.time_left_max.as_millis()).unwrap_or(u64::MAX);
            return Err(Rejection::new(Reason::TimeLeftTooLong, "time_left_ms", limit));
        }
        Ok(time_left)
    }

    /// Reads a key.
    pub fn check_key(&self, namespace: &[u8], action: &[u8], revision: &[u8]) -> Result<ActionKey, Rejection> {
        let namespace = check_name("key.namespace", namespace, 1, NAME_BYTES_MAX)?;
        let action = check_name("key.action", action, 1, NAME_BYTES_MAX)?;
        let revision = check_name("key.revision", revision, 0, REVISION_BYTES_MAX)?;
        Ok(ActionKey::new(namespace, action, revision))
    }

    /// Reads an invoker node's name, called `field` in refusals.
    pub fn check_node(&self, field: &'static str, name: &[u8]) -> Result<NodeName, Rejection> {
        check_name(field, name, 1, NODE_NAME_BYTES_MAX).map(NodeName::new)
    }

    /// Checks a container's concurrency.
    pub fn check_concurrency(&self, concurrency: u32) -> Result<(), Rejection> {
        if concurrency == 0 || concurrency > self.container_concurrency_max {
            let limit = self.container_concurrency_max.into();
            return Err(Rejection::new(Reason::ConcurrencyOutOfRange, "concurrency", limit));
        }
        Ok(())
    }
}

/// Reads a name of `min` to `max` bytes of UTF-8, called `field` in refusals.
pub fn check_name<'a>(field: &'static str, name: &'a [u8], min: usize, max: usize) -> Result<&'a str, Rejection> {
    if name.len() < min {
        return Err(Rejection::new(Reason::NameEmpty, field, min as u64));
    }
    if name.len() > max {
        return Err(Rejection::new(Reason::NameTooLong, field, max as u64));
    }
    std::str::from_utf8(name).map_err(|_| Rejection::new(Reason::NameNotUtf8, field, 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason<T: std::fmt::Debug>(checked: Result<T, Rejection>) -> (Reason, &'static str, u64) {
        let rejection = checked.unwrap_err();
        (rejection.reason, rejection.field, rejection.limit)
    }

    #[test]
    fn each_bad_field_is_named_with_its_limit() {
        let limits = Limits::default();
        let long = [b'a'; 257];
        assert_eq!(reason(limits.check_id(&[0; 15])), (Reason::IdLength, "id", 16));
        assert_eq!(reason(limits.check_id(&[0; 17])), (Reason::IdLength, "id", 16));
        let (over, max) = (limits.payload_bytes_max + 1, limits.payload_bytes_max as u64);
        assert_eq!(reason(limits.check_payload("payload", over)), (Reason::PayloadTooLarge, "payload", max));
        assert_eq!(reason(limits.check_time_left(0)), (Reason::TimeLeftZero, "time_left_ms", 1));
        let day = 86_400_000;
        assert_eq!(reason(limits.check_time_left(day + 1)), (Reason::TimeLeftTooLong, "time_left_ms", day.into()));
        assert_eq!(reason(limits.check_key(b"", b"a", b"")), (Reason::NameEmpty, "key.namespace", 1));
        assert_eq!(reason(limits.check_key(b"n", b"", b"")), (Reason::NameEmpty, "key.action", 1));
        assert_eq!(reason(limits.check_key(b"n", &long, b"")), (Reason::NameTooLong, "key.action", 256));
        assert_eq!(reason(limits.check_key(b"n", b"a", &long)), (Reason::NameTooLong, "key.revision", 64));
        assert_eq!(reason(limits.check_key(b"n", b"\xff", b"")), (Reason::NameNotUtf8, "key.action", 0));
        assert_eq!(reason(limits.check_node("id", b"")), (Reason::NameEmpty, "id", 1));
        assert_eq!(reason(limits.check_node("id", &long[..129])), (Reason::NameTooLong, "id", 128));
        assert_eq!(reason(limits.check_node("id", b"\xff")), (Reason::NameNotUtf8, "id", 0));
        assert_eq!(reason(limits.check_concurrency(0)), (Reason::ConcurrencyOutOfRange, "concurrency", 4096));
        assert_eq!(reason(limits.check_concurrency(4097)), (Reason::ConcurrencyOutOfRange, "concurrency", 4096));
    }

    #[test]
    fn the_bounds_themselves_are_inside() {
        let limits = Limits::default();
        limits.check_payload("payload", limits.payload_bytes_max).unwrap();
        limits.check_time_left(1).unwrap();
        limits.check_time_left(86_400_000).unwrap();
        limits.check_key(&[b'n'; 256], &[b'a'; 256], &[b'r'; 64]).unwrap();
        limits.check_node("id", &[b'n'; 128]).unwrap();
        limits.check_concurrency(4096).unwrap();
    }
}
