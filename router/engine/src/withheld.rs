//! Why a container gets nothing although it has credits: a set of reasons. It takes activations when there is none.
//!
//! ```text
//!   reason      enters it                        leaves it
//!   retired     it retires                       never
//!   suspended   its stream breaks                it rejoins
//!   room        its stream's outbox is full      that has room again; it rejoins
//!   breaker     its breaker opens; a probe goes  a probe may go; its breaker closes
//!   node        as that, of its node's breaker   as that
//! ```

/// A set of reasons.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Withheld(u8);

/// One reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Because {
    /// It takes no more, for good.
    Retired = 1 << 0,
    /// Its stream broke, and its node may come back.
    Suspended = 1 << 1,
    /// Its stream's outbox has no room.
    Room = 1 << 2,
    /// Its breaker.
    Breaker = 1 << 3,
    /// The breaker of its node.
    Node = 1 << 4,
}

impl Withheld {
    /// Whether nothing withholds activations from it.
    pub(crate) fn takes(self) -> bool {
        self.0 == 0
    }

    pub(crate) fn is(self, because: Because) -> bool {
        self.0 & because as u8 != 0
    }

    /// Whether a breaker withholds activations that it would take otherwise, now or later.
    pub(crate) fn is_tripped(self) -> bool {
        !self.is(Because::Retired) && (self.is(Because::Breaker) || self.is(Because::Node))
    }

    /// Adds a reason; false if it was there.
    pub(crate) fn add(&mut self, because: Because) -> bool {
        let new = !self.is(because);
        self.0 |= because as u8;
        new
    }

    /// Takes a reason away; false if it was not there.
    pub(crate) fn lift(&mut self, because: Because) -> bool {
        let was = self.is(because);
        self.0 &= !(because as u8);
        was
    }
}
