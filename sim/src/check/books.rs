//! What the checker writes down of each activation, container, action and session. Its own words, not the engine's.

use super::seen::{Call, Said};
use engine::stored_time::Moment;
use std::collections::VecDeque;

/// An activation.
#[derive(Debug, Clone)]
pub(super) struct CallBook {
    pub(super) controller: u16,
    pub(super) action: u16,
    /// It asked only whether it is taken.
    pub(super) only_accept: bool,
    /// The latest its caller may hear, on its controller's clock.
    pub(super) answer_by: u64,
    /// What its caller was told.
    pub(super) resolved: Option<Said>,
    /// Its controller died: nobody waits for it.
    pub(super) orphan: bool,
    pub(super) starts: u32,
    /// Where it runs, or ran: its run ended so.
    pub(super) finished: Option<Said>,
    /// Dispatches on the wire that were not given back.
    pub(super) on_the_wire: u32,
    /// How often it was written to the store and handed in from there, over all lives.
    pub(super) written: u32,
    pub(super) handed: u32,
    /// Where the store keeps it.
    pub(super) kept_at: Option<(u16, u64)>,
    /// Damage has hit it there.
    pub(super) hit: bool,
    /// And it is still known whose it was.
    pub(super) noted: bool,
    /// The router ends, and its caller was told that it stays there.
    pub(super) parted: bool,
    /// Each time its record was written: the router's life, true time, how much time it had left, and what the clocks showed.
    pub(super) stamps: Vec<(u32, u64, u64, Moment)>,
    /// True time: when a record of an earlier life is worthless, as far as the router that read it last can know.
    pub(super) worthless_at: Option<u64>,
    /// True time: when it is worthless, and when it was sent to the store.
    pub(super) wall_deadline: u64,
    pub(super) spilled_at: u64,

    /// The router's life of what follows.
    pub(super) life: u32,
    pub(super) place: Place,
    /// Nobody is told in this life how it ends.
    pub(super) quiet: bool,
    /// It was taken over from an earlier life.
    pub(super) recovered: bool,
    /// It was told lost on its way into the store: it is dropped when it comes back.
    pub(super) void: bool,
    /// It is queued, and came from the store.
    pub(super) refilled: bool,
    pub(super) session: u32,
    /// Order of admission.
    pub(super) sequence: u64,
    pub(super) attempt: u32,
    /// On the router's clock.
    pub(super) deadline: u64,
    /// When it was read; on the router's clock.
    pub(super) read_at: u64,
    /// When it was read, or came back unstarted; on the router's clock.
    pub(super) came_at: u64,
    pub(super) bytes: u64,
    pub(super) dispatched_at: u64,
    /// Its dispatch waits in a mailbox, and has not left the router.
    pub(super) mailed: bool,
    /// Its answer waits in a mailbox.
    pub(super) answer_mailed: bool,
    /// What the router owes it right now.
    pub(super) owed: Option<Said>,
    /// Refusals that are owed for pushes of an id that the router knows.
    pub(super) refusals_owed: u32,
}

impl CallBook {
    /// Whether it is still where it was in the line of its action.
    pub(super) fn is_in_line(&self, life: u32, sequence: u64) -> bool {
        let waits = matches!(self.place, Place::Queued | Place::Spilling | Place::Stored);
        self.life == life && self.sequence == sequence && waits && !self.recovered
    }
}

/// Where an activation is, as seen from outside the router.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Not in this life of the router.
    Outside,
    /// Being read.
    Reading,
    Queued,
    /// On its way into the store.
    Spilling,
    /// In the store, and acknowledged.
    Stored,
    /// The store did not take it, which it is to be told.
    Unkept,
    /// On the container of that number.
    InFlight(u32),
    /// Answered, and still on that container.
    Overdue(u32),
    Ended,
}

/// A registered container.
#[derive(Debug, Clone)]
pub(super) struct ContainerBook {
    pub(super) session: u32,
    pub(super) number: u32,
    pub(super) epoch: u32,
    pub(super) action: u16,
    pub(super) concurrency: u32,
    pub(super) credits: u32,
    pub(super) in_flight: Vec<Call>,
    pub(super) open: bool,
    pub(super) gone: bool,
    pub(super) suspended: bool,
    /// It waits for room in its stream.
    pub(super) awaiting: bool,
    /// What a breaker may hold against it.
    pub(super) strikes: u32,
    /// Dispatches since it was registered or rejoined, less those that never left.
    pub(super) received: u32,
}

/// An action.
#[derive(Debug, Clone, Default)]
pub(super) struct ActionBook {
    /// Those queued, stored or on their way there, by order of admission; others among them have left.
    pub(super) queue: VecDeque<(u64, Call)>,
    pub(super) queued: u64,
    pub(super) queued_bytes: u64,
    /// Of them, those that came from the store.
    pub(super) refilled: u64,
    /// Those of this life that are stored or on their way there.
    pub(super) out: u64,
    /// Of those of this life, the ones that are acknowledged as stored and not consumed.
    pub(super) kept: u64,
    /// Since when it has had room and something in the store, and nothing has come; on the router's clock.
    pub(super) starved_since: Option<u64>,
    /// It may wait for something of which is not known here that it is there no more.
    pub(super) hurt: bool,
    pub(super) containers: Vec<u32>,
    pub(super) dirty: bool,
}

/// A peer's session.
#[derive(Debug, Clone, Default)]
pub(super) struct SessionBook {
    /// The node whose session it is.
    pub(super) node: Option<u16>,
    /// Containers by number.
    pub(super) containers: Vec<(u32, u32)>,
    pub(super) over: bool,
    /// Bytes of dispatches that its writer has not taken.
    pub(super) waiting_bytes: u64,
    /// Answers that its writer has not taken.
    pub(super) answers: u64,
}

/// A node as one action knows it, over all its sessions in a life of the router.
#[derive(Debug, Clone, Default)]
pub(super) struct NodeBook {
    /// What a breaker may hold against it.
    pub(super) strikes: u32,
    /// When the last of that happened; on the router's clock.
    pub(super) struck_at: Option<u64>,
    /// Something ended well there, or a container said that it failed.
    pub(super) told: bool,
    /// When containers went with work that they got after all earlier strikes, within the last window; on the router's clock.
    pub(super) deaths: VecDeque<u64>,
    /// So many that its breaker cannot be closed, nor forgotten before then.
    pub(super) known_until: u64,
    /// What was dispatched to it last since that is known, a probe, and to which container.
    pub(super) probe: Option<(Call, u32)>,
    /// A probe failed, and nothing may be dispatched before then.
    pub(super) open_until: u64,
}

/// How often what happened; compared with the engine's own counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Sums {
    pub accepted: u64,
    pub dispatched: u64,
    pub completed: u64,
    pub action_failed: u64,
    pub platform_failed: u64,
    pub expired: u64,
    pub lost: u64,
    pub timed_out: u64,
    pub returned: u64,
    pub unsent: u64,
    pub rejected: u64,
    pub spilled: u64,
    pub refilled: u64,
    pub recovered: u64,
    pub repeated: u64,
    pub spill_refused: u64,
    pub spill_unknown: u64,
    pub spill_damaged: u64,
    pub cut_off: u64,
}
