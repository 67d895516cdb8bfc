//! The network between peers and routers: connections that keep order like TCP, and all that can become of them. A frame is late,
//! never lost by itself; a connection that is cut loses what is on its way, and each side learns of it in its own time.

use crate::agenda::Instant;
use crate::dice::Dice;
use bytes::Bytes;
use engine::effect::Entry;
use engine::id::ActivationId;
use engine::outcome::{Reply, RunStatus};
use std::collections::VecDeque;

/// What a peer says to the router, entry by entry.
#[derive(Debug, Clone)]
#[allow(missing_docs)] // As in the proto files.
pub enum Up {
    Hello { session: Bytes },
    Declare { number: u32, action: u16 },
    Push(Push),
    Outstanding(ActivationId),
    Register(Register),
    Credit { container: u32, epoch: u32, credits: u32 },
    Complete { container: u32, epoch: u32, id: ActivationId, status: RunStatus, result: Bytes, credits: u32 },
    Return { container: u32, epoch: u32, id: ActivationId, payload: Bytes },
    Leave { container: u32, epoch: u32, gone: bool },
    Rejoined,
    Audit { container: u32, epoch: u32, credits: u32, received: u32 },
}

/// An activation as it is pushed.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct Push {
    pub id: ActivationId,
    pub action: u32,
    pub left_ms: u32,
    pub payload: Bytes,
    pub reply: Reply,
    pub maybe_sent: bool,
}

/// A container as it is registered.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct Register {
    pub container: u32,
    pub epoch: u32,
    pub action: u16,
    pub concurrency: u32,
    pub credits: u32,
    pub warm: bool,
    pub held: Vec<ActivationId>,
}

/// What the router says to a peer.
#[derive(Debug)]
pub enum Down {
    /// Its first word.
    Welcome {
        /// Names the session.
        session: Bytes,
        /// It goes on.
        resumed: bool,
    },
    /// All else.
    Entry(Entry),
}

/// What travels.
#[derive(Debug)]
pub enum Parcel<T> {
    /// Entries, in order.
    Frame(Vec<T>),
    /// This side has said all.
    Finish,
    /// The connection is broken.
    Broken,
}

/// One direction of a connection.
#[derive(Debug)]
pub struct Pipe<T> {
    on_the_way: VecDeque<(Instant, usize, Parcel<T>)>,
    last: Instant,
    /// Bytes that the other side has not read.
    pub unread: usize,
    /// Nothing arrives before then.
    pub stalled_until: Instant,
    /// The least time between two frames that are read: a slow reader.
    pub pace_us: u64,
    /// What is sent goes nowhere.
    cut: bool,
}

impl<T> Default for Pipe<T> {
    fn default() -> Self {
        Self { on_the_way: VecDeque::new(), last: 0, unread: 0, stalled_until: 0, pace_us: 0, cut: false }
    }
}

impl<T> Pipe<T> {
    /// Sends a parcel that takes that long; when it arrives, or nothing if the connection is cut.
    pub fn send(&mut self, now: Instant, takes_us: u64, bytes: usize, parcel: Parcel<T>) -> Option<Instant> {
        if self.cut {
            return None;
        }
        let at = (now + takes_us).max(self.last + self.pace_us).max(self.stalled_until);
        self.last = at;
        self.unread += bytes;
        self.on_the_way.push_back((at, bytes, parcel));
        Some(at)
    }

    /// The parcel that has arrived by now; else when to ask again, if ever.
    pub fn receive(&mut self, now: Instant) -> Result<Parcel<T>, Option<Instant>> {
        if now < self.stalled_until {
            return Err(Some(self.stalled_until));
        }
        match self.on_the_way.front() {
            Some((at, ..)) if *at <= now => {}
            _ => return Err(None),
        }
        let (_, bytes, parcel) = self.on_the_way.pop_front().ok_or(None)?;
        self.unread -= bytes;
        Ok(parcel)
    }

    /// Cuts it: of what is on the way some of the first may still arrive, then the other side learns of it, at the moment returned.
    pub fn cut(&mut self, now: Instant, learns_us: u64, dice: &mut Dice) -> Instant {
        let arrives = if dice.one_in(2) { 0 } else { dice.index(self.on_the_way.len() + 1) };
        for (_, bytes, _) in self.on_the_way.drain(arrives..) {
            self.unread -= bytes;
        }
        let last = self.on_the_way.back().map_or(now, |(at, ..)| *at);
        let at = (now + learns_us).max(last).max(self.stalled_until);
        self.on_the_way.push_back((at, 0, Parcel::Broken));
        self.cut = true;
        at
    }

    /// As new, with the memory it had.
    fn renew(&mut self) {
        self.on_the_way.clear();
        (self.last, self.unread, self.stalled_until, self.pace_us, self.cut) = (0, 0, 0, 0, false);
    }

    /// Whether it is cut.
    pub fn is_cut(&self) -> bool {
        self.cut
    }
}

/// A connection of a peer to a router.
#[derive(Debug)]
pub struct Conn {
    /// The peer's process, and which of its lives.
    pub peer: Peer,
    /// Of that process.
    pub incarnation: u32,
    /// The router's life.
    pub life: u32,
    /// Peer to router.
    pub up: Pipe<Up>,
    /// Router to peer.
    pub down: Pipe<Down>,
}

/// A peer's process. A controller may hold two lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub enum Peer {
    Controller { index: u16, line: u8 },
    Node { index: u16 },
}

/// All connections of a world.
#[derive(Debug, Default)]
pub struct Net {
    conns: Vec<Conn>,
    used: usize,
    ups: Vec<Vec<Up>>,
    downs: Vec<Vec<Down>>,
}

impl Net {
    /// Forgets all connections.
    pub fn clear(&mut self) {
        self.used = 0;
    }

    /// A new connection.
    pub fn open(&mut self, peer: Peer, incarnation: u32, life: u32) -> u32 {
        let at = self.used;
        self.used += 1;
        if at == self.conns.len() {
            self.conns.push(Conn { peer, incarnation, life, up: Pipe::default(), down: Pipe::default() });
        } else {
            let conn = &mut self.conns[at];
            (conn.peer, conn.incarnation, conn.life) = (peer, incarnation, life);
            conn.up.renew();
            conn.down.renew();
        }
        u32::try_from(at).unwrap_or(u32::MAX)
    }

    /// One of them.
    #[inline]
    pub fn conn(&mut self, at: u32) -> &mut Conn {
        &mut self.conns[at as usize]
    }

    /// Whose it is.
    #[inline]
    pub fn peer(&self, at: u32) -> Peer {
        self.conns[at as usize].peer
    }

    /// All there ever were in this world.
    pub fn all(&self) -> u32 {
        u32::try_from(self.used).unwrap_or(u32::MAX)
    }

    /// An empty frame.
    pub fn up_frame(&mut self) -> Vec<Up> {
        self.ups.pop().unwrap_or_default()
    }

    /// An empty frame.
    pub fn down_frame(&mut self) -> Vec<Down> {
        self.downs.pop().unwrap_or_default()
    }

    /// Keeps a frame's memory for another.
    pub fn reuse_up(&mut self, mut frame: Vec<Up>) {
        frame.clear();
        self.ups.push(frame);
    }

    /// As [`reuse_up`](Self::reuse_up).
    pub fn reuse_down(&mut self, mut frame: Vec<Down>) {
        frame.clear();
        self.downs.push(frame);
    }
}

/// Bytes of a frame, about.
pub fn up_bytes(frame: &[Up]) -> usize {
    frame.iter().map(|up| 32 + if let Up::Push(push) = up { push.payload.len() } else { 0 }).sum()
}

/// Bytes of a frame, about.
pub fn down_bytes(frame: &[Down]) -> usize {
    frame.iter().map(|down| if let Down::Entry(entry) = down { entry.bytes() } else { 64 }).sum()
}
