//! A controller and an invoker to build on.
//!
//! | file | is |
//! |---|---|
//! | `connect` | the tuned connection |
//! | `push`, `pull` | a controller's and an invoker's stream, frame by frame |
//! | `outlet`, `inlet` | the two directions of any stream |
//! | `action` | the name of an action |
//!
//! This crate may not know the router's insides: the wire (`proto`) is all they share.

mod action;
mod connect;
mod inlet;
mod outlet;
mod pull;
mod push;

pub use action::{ActionKey, NameError};
pub use connect::{ConnectError, connect, connect_lazy};
pub use inlet::{OpenError, StreamError};
pub use outlet::AppendError;
pub use pull::{PullReceiver, PullSender, PullStream};
pub use push::{PushReceiver, PushSender, PushStream};
