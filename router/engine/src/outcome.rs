//! How an activation can end and why an entry can be refused. Closed enums; each variant is counted by name.

use crate::id::ActivationId;
use bytes::Bytes;

/// What became of one activation. A controller gets exactly one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The activation.
    pub id: ActivationId,
    /// How it ended.
    pub outcome: Outcome,
    /// How long each stage took.
    pub stages: Stages,
}

impl Answer {
    /// An activation that was not taken.
    pub fn rejected(id: ActivationId, rejection: Rejection) -> Self {
        Self { id, outcome: Outcome::Rejected(rejection), stages: Stages::default() }
    }
}

/// How an activation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It ran and succeeded; what it returned.
    Completed(Bytes),
    /// It ran and failed by its own doing; what it said.
    ActionFailed(Bytes),
    /// Its container or invoker failed; what that said.
    PlatformFailed(Bytes),
    /// Its time ran out before it was dispatched. It never started.
    Expired,
    /// It was not taken. It never started.
    Rejected(Rejection),
    /// Its container went away after dispatch. Whether it ran is unknown; it is never dispatched again.
    Lost,
    /// It was dispatched, and its container said nothing until its deadline and a little longer. Whether it ran is unknown;
    /// it is never dispatched again.
    TimedOut,
    /// It was taken, and the controller asked for no more.
    Accepted(Durability),
}

/// Where an accepted activation is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// In the router's memory: gone if the router dies.
    Memory,
    /// In the overflow store: survives the router until it is handed out.
    Durable,
}

/// What a controller wants to hear of an activation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    /// How it ended.
    Outcome,
    /// Only whether it was taken.
    Accepted,
}

/// How a run ended, as its container says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunStatus {
    /// The action succeeded.
    Succeeded,
    /// The action failed by its own doing.
    ActionFailed,
    /// The container or the invoker failed.
    PlatformFailed,
}

/// Microseconds an activation spent in each stage; at most 71 minutes each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stages {
    /// From its arrival until it was dispatched, or expired.
    pub queue_us: u32,
    /// The way to the container and back: from dispatch to completion, without the run.
    pub dispatch_us: u32,
    /// The run, as the container says.
    pub run_us: u32,
}

/// Why an activation was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rejection {
    /// The reason.
    pub reason: Reason,
    /// The offending field in the words of the proto files, or the configuration's key of the limit; empty where there is none.
    pub field: &'static str,
    /// The bound that was met, in the field's unit; 0 where there is none.
    pub limit: u64,
    /// Not before this many milliseconds is it worth trying again; 0: trying again will not help.
    pub retry_after_ms: u32,
}

impl Rejection {
    /// A rejection that no waiting will change.
    pub const fn new(reason: Reason, field: &'static str, limit: u64) -> Self {
        Self { reason, field, limit, retry_after_ms: 0 }
    }
}

/// A refused entry that is not an activation, or one whose id cannot be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Reason, field and limit.
    pub rejection: Rejection,
    /// The number of the action or container concerned; 0 where there is none.
    pub number: u32,
    /// The id concerned as it was sent, at most [`Refusal::ID_BYTES_MAX`] of it; empty where there is none.
    pub id: Bytes,
}

impl Refusal {
    /// Most bytes of a malformed id that are sent back.
    pub const ID_BYTES_MAX: usize = 64;

    /// Refuses an entry about the action or container `number`, naming the id it carried, if any.
    pub fn new(rejection: Rejection, number: u32, id: &[u8]) -> Self {
        let id = Bytes::copy_from_slice(&id[..id.len().min(Self::ID_BYTES_MAX)]);
        Self { rejection, number, id }
    }
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $label:literal,)*) => {
        /// Why something was refused. The proto files say the same of each, with its field and limit.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Reason { $($(#[$doc])* $name,)* }

        impl Reason {
            /// Every reason, in order of declaration: `ALL[reason as usize] == reason`.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The reason in snake case, as metrics label it.
            pub fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)* }
            }
        }
    };
}

reasons! {
    /// A name that must not be empty is.
    NameEmpty = "name_empty",
    /// A name is too long.
    NameTooLong = "name_too_long",
    /// A name is not UTF-8.
    NameNotUtf8 = "name_not_utf8",
    /// An activation id does not have 16 bytes.
    IdLength = "id_length",
    /// That id is queued or in flight already.
    IdInFlight = "id_in_flight",
    /// A payload or result is too long.
    PayloadTooLarge = "payload_too_large",
    /// No time is left.
    TimeLeftZero = "time_left_zero",
    /// More time is left than makes sense.
    TimeLeftTooLong = "time_left_too_long",
    /// No action was declared under that number on that stream.
    ActionUnknown = "action_unknown",
    /// An enum field holds an unknown number.
    ValueUnknown = "value_unknown",
    /// The action holds all that it may.
    QueueFull = "queue_full",
    /// The actions of the namespace hold all that they may together.
    TenantFull = "tenant_full",
    /// The router holds all that it may.
    RouterFull = "router_full",
    /// The router knows, or the stream declared, as many actions as it may.
    TooManyActions = "too_many_actions",
    /// The stream has registered as many containers as it may.
    TooManyContainers = "too_many_containers",
    /// No container is registered under that number on that stream.
    ContainerUnknown = "container_unknown",
    /// A container is registered under that number already.
    ContainerTaken = "container_taken",
    /// The concurrency is 0 or too high.
    ConcurrencyOutOfRange = "concurrency_out_of_range",
    /// Credits and activations in flight would exceed the container's concurrency.
    CreditOverflow = "credit_overflow",
    /// The id is in flight, but on another container.
    NotDispatchedHere = "not_dispatched_here",
    /// The id is not in flight.
    NotInFlight = "not_in_flight",
    /// The entry stands behind the last one a frame may have.
    FrameTooLong = "frame_too_long",
    /// The router is draining.
    Draining = "draining",
    /// The first message did not say who is there.
    HelloMissing = "hello_missing",
    /// Another live stream has this controller's id.
    ControllerConnected = "controller_connected",
    /// The entry came a second time where it may come once.
    Repeated = "repeated",
    /// An activation of that id ended a short while ago.
    IdEnded = "id_ended",
    /// The entry speaks of an earlier registration of that container.
    EpochStale = "epoch_stale",
    /// The activation may have been sent before, to a router that has since gone.
    OutcomeUnknown = "outcome_unknown",
    /// The activation does not fit in memory, and cannot be stored either.
    OverflowUnavailable = "overflow_unavailable",
    /// The activation was stored, and its record is damaged or missing. It never started.
    RecordDamaged = "record_damaged",
}
