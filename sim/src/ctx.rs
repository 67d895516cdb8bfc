//! What all actors of a world share: time, chance, the network, the judge, and the list of what callers asked.

use crate::agenda::{Agenda, Instant};
use crate::check::{Call, Checker};
use crate::dice::{Dice, mix};
use crate::net::{Down, Net, Parcel, Peer, Up, down_bytes, up_bytes};
use crate::plan::Plan;
use crate::router::Work;
use bytes::Bytes;
use engine::id::{ActionKey, ActivationId};
use engine::outcome::Reply;
use foldhash::fast::FixedState;
use std::collections::HashMap;

/// Something that will happen.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)]
pub enum Event {
    /// A caller comes to a controller.
    Arrival {
        controller: u16,
    },
    /// A desk's timers.
    DeskDue {
        controller: u16,
        incarnation: u32,
    },
    /// A caller has waited long enough.
    CallerDue {
        controller: u16,
        incarnation: u32,
        call: Call,
    },
    /// A peer writes what it has to say.
    Flush {
        peer: Peer,
        incarnation: u32,
    },
    /// A peer tries to connect.
    Connect {
        peer: Peer,
        incarnation: u32,
    },
    /// Something may have arrived at the router, or at the peer.
    Deliver {
        conn: u32,
        up: bool,
    },
    /// The router's writer of that connection looks into its mailbox.
    Write {
        conn: u32,
    },
    /// The router's timers.
    RouterDue {
        life: u32,
    },
    /// The router drains: is it done?
    DrainDue {
        life: u32,
    },
    /// The grace of a session may be over.
    GraceDue {
        life: u32,
    },
    /// A controller pushes something again.
    Repeat {
        controller: u16,
        incarnation: u32,
        call: Call,
    },
    /// The router's writer or reader of overflow.
    Overflow {
        life: u32,
        work: Work,
    },
    /// A node states its containers' credits.
    Audit {
        node: u16,
        incarnation: u32,
    },
    /// A run ends.
    RunEnds {
        node: u16,
        incarnation: u32,
        run: u32,
    },
    /// A node dies of what it has got.
    NodeDies {
        node: u16,
        incarnation: u32,
    },
    /// A node's containers come and go.
    Churn {
        node: u16,
        incarnation: u32,
    },
    /// A container grants a credit that it kept back.
    Grant {
        node: u16,
        incarnation: u32,
        container: u32,
        epoch: u32,
    },
    FaultBegins {
        index: u32,
    },
    FaultEnds {
        index: u32,
    },
    RouterUp,
    PeerUp {
        peer: Peer,
        incarnation: u32,
    },
    /// From now on nothing goes wrong any more.
    Heal,
    /// Everything has had its time.
    Rest,
}

/// What a caller asked.
#[derive(Debug, Clone)]
pub struct Ask {
    /// The action, by number.
    pub action: u16,
    /// What it wants to hear.
    pub reply: Reply,
    /// When its answer is worthless, on its controller's clock.
    pub deadline: u64,
    /// Copies of it that were sent and not answered.
    pub copies: u32,
    /// The line whose session it was sent in first, and that session's number there.
    pub origin: (u8, u32),
    /// A router has refused it: what was said of it is that it never started.
    pub refused: bool,
    /// It was sent again as one that may have been sent before.
    pub again: bool,
    /// It was told.
    pub done: bool,
}

/// The shared part of a world.
#[derive(Debug)]
pub struct Ctx {
    /// True time.
    pub now: Instant,
    /// What is still to happen.
    pub agenda: Agenda<Event>,
    /// All chance but that of the plan.
    pub dice: Dice,
    /// Connections.
    pub net: Net,
    /// The judge.
    pub checker: Checker,
    /// What the seed means.
    pub plan: Plan,
    /// What callers asked, by call.
    pub asks: Vec<Ask>,
    /// Names of the actions.
    pub keys: Vec<ActionKey>,
    /// The faults are over.
    pub healed: bool,
    salt: u64,
    /// Ids that desks gave to calls, and the calls by them.
    named: Vec<Option<ActivationId>>,
    by_name: HashMap<ActivationId, Call, FixedState>,
}

/// Payloads are pieces of this.
static PATTERN: [u8; PATTERN_LEN] = pattern();
const PATTERN_LEN: usize = 8192;

const fn pattern() -> [u8; PATTERN_LEN] {
    let mut bytes = [0; PATTERN_LEN];
    let mut at = 0;
    let mut state: u32 = 0x2545_f491;
    while at < PATTERN_LEN {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        bytes[at] = state.to_le_bytes()[3];
        at += 1;
    }
    bytes
}

impl Ctx {
    /// Empty; [`begin`](Self::begin) makes it a world's.
    pub fn new() -> Self {
        let (agenda, net, checker) = (Agenda::default(), Net::default(), Checker::default());
        let keys = (0..u16::from(u8::MAX)).map(|at| ActionKey::new("tenant", &format!("action{at}"), "1")).collect();
        let plan = Plan::draw(0, 1);
        let (asks, dice) = (Vec::new(), Dice::new(0));
        Self {
            now: 0,
            agenda,
            dice,
            net,
            checker,
            plan,
            asks,
            keys,
            healed: false,
            salt: 0,
            named: Vec::new(),
            by_name: HashMap::default(),
        }
    }

    /// Begins a world.
    pub fn begin(&mut self, plan: Plan, tell: bool) {
        self.now = 0;
        self.agenda.clear();
        self.dice = Dice::new(mix(plan.seed ^ 0x77));
        self.net.clear();
        self.checker.begin(plan.actions.into(), plan.outbox_bytes_max as u64, plan.lies == 0, tell);
        self.asks.clear();
        self.named.clear();
        self.by_name.clear();
        self.healed = false;
        self.salt = self.dice.roll();
        self.plan = plan;
    }

    /// Plans an event after that long.
    #[inline]
    pub fn after(&mut self, wait_us: u64, event: Event) {
        self.agenda.plan(self.now + wait_us, event);
    }

    /// The id of an activation: as scattered as drawn ones, and its number can be read from it.
    #[inline]
    pub fn id(&self, call: Call) -> ActivationId {
        match self.named.get(call as usize) {
            Some(Some(name)) => *name,
            _ => self.own_id(call),
        }
    }

    /// A desk has given that id to a call.
    pub fn name(&mut self, call: Call, id: ActivationId) {
        self.named.resize(self.named.len().max(call as usize + 1), None);
        self.named[call as usize] = Some(id);
        self.by_name.insert(id, call);
    }

    #[inline]
    fn own_id(&self, call: Call) -> ActivationId {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&mix(self.salt ^ u64::from(call)).to_le_bytes());
        id[8..12].copy_from_slice(&call.to_le_bytes());
        ActivationId(id)
    }

    /// The activation of that id, unless nobody made it.
    #[inline]
    pub fn call(&self, id: ActivationId) -> Option<Call> {
        if !self.by_name.is_empty()
            && let Some(call) = self.by_name.get(&id)
        {
            return Some(*call);
        }
        let number = u32::from_le_bytes([id.0[8], id.0[9], id.0[10], id.0[11]]);
        (number < u32::try_from(self.asks.len()).unwrap_or(u32::MAX) && self.own_id(number) == id).then_some(number)
    }

    /// What an activation's action gets.
    #[inline]
    pub fn payload(&self, call: Call) -> Bytes {
        self.piece(call, 0)
    }

    /// What its run returns.
    #[inline]
    pub fn result(&self, call: Call) -> Bytes {
        self.piece(call, 1)
    }

    fn piece(&self, call: Call, which: u64) -> Bytes {
        let drawn = mix(self.salt.rotate_left(17) ^ (u64::from(call) * 2 + which));
        let len = usize::try_from(drawn % (self.plan.payload_bytes_max + 1)).unwrap_or(0);
        let from = usize::try_from((drawn >> 32) % (PATTERN_LEN - len) as u64).unwrap_or(0);
        Bytes::from_static(&PATTERN[from..from + len])
    }

    /// A peer sends a frame.
    pub fn send_up(&mut self, conn: u32, frame: Vec<Up>) {
        let (now, takes) = (self.now, self.latency());
        let bytes = up_bytes(&frame);
        let sent = self.net.conn(conn).up.send(now, takes, bytes, Parcel::Frame(frame));
        if let Some(at) = sent {
            self.agenda.plan(at, Event::Deliver { conn, up: true });
        }
    }

    /// The router sends a frame.
    pub fn send_down(&mut self, conn: u32, frame: Vec<Down>) {
        let (now, takes) = (self.now, self.latency());
        let bytes = down_bytes(&frame);
        let sent = self.net.conn(conn).down.send(now, takes, bytes, Parcel::Frame(frame));
        if let Some(at) = sent {
            self.agenda.plan(at, Event::Deliver { conn, up: false });
        }
    }

    /// A side says that it has said all.
    pub fn finish(&mut self, conn: u32, up: bool) {
        let (now, takes) = (self.now, self.latency());
        let ends = self.net.conn(conn);
        let sent = if up {
            ends.up.send(now, takes, 0, Parcel::Finish)
        } else {
            ends.down.send(now, takes, 0, Parcel::Finish)
        };
        if let Some(at) = sent {
            self.agenda.plan(at, Event::Deliver { conn, up });
        }
    }

    /// Cuts a connection. Each side hears of it after that long.
    pub fn cut(&mut self, conn: u32, router_learns_us: u64, peer_learns_us: u64) {
        let (now, dice) = (self.now, &mut self.dice);
        let ends = self.net.conn(conn);
        if !ends.up.is_cut() {
            let at = ends.up.cut(now, router_learns_us, dice);
            self.agenda.plan(at, Event::Deliver { conn, up: true });
        }
        if !ends.down.is_cut() {
            let at = ends.down.cut(now, peer_learns_us, dice);
            self.agenda.plan(at, Event::Deliver { conn, up: false });
        }
    }

    /// How long a frame takes this time.
    pub fn latency(&mut self) -> u64 {
        self.plan.latency_us + self.dice.below(self.plan.jitter_us)
    }
}

impl Default for Ctx {
    fn default() -> Self {
        Self::new()
    }
}
