//! A controller and an invoker to build on.
//!
//! A controller invokes actions; each activation is answered exactly once, whatever becomes of the router:
//!
//! ```no_run
#![doc = include_str!("../examples/controller.rs")]
//! ```
//!
//! An invoker node registers containers and runs what the router sends them:
//!
//! ```no_run
#![doc = include_str!("../examples/invoker.rs")]
//! ```
//!
//! Everything here runs on the runtime it is created on, single-threaded or not.
//!
//! | file | is |
//! |---|---|
//! | `controller` | every activation answered once: carries what the `desk` decides; `invocation` in, `pending` out; `config` |
//! | `desk` | who waits for which answer, until when: pure; `circuits` the actions' breakers, `declared` their numbers |
//! | `invoker` | containers and their runs: `fleet` decides what is said of them, `container` where each one stands |
//! | `push`, `pull` | a controller's and an invoker's stream, frame by frame, for those who keep track themselves |
//! | `outlet`, `inlet` | the two directions of any stream |
//! | `wire` | how frames are read and written, in the bodies of a call |
//! | `connect` | the tuned connection |
//! | `action`, `id`, `outcome` | what an activation is of, is named, and comes to |
//!
//! This crate may not know the router's insides: they share the wire (`proto`), and of the engine the pure parts that serve
//! either side, such as how long to wait before another attempt (`engine::backoff`).

mod action;
mod circuits;
mod config;
mod connect;
mod container;
mod controller;
mod declared;
#[doc(hidden)]
pub mod desk;
mod fleet;
mod id;
mod inlet;
mod invocation;
mod invoker;
mod outcome;
mod outlet;
mod pending;
mod pull;
mod push;
mod wire;

pub use action::{ActionKey, NameError};
pub use circuits::Circuit;
pub use config::{BreakerPolicy, ControllerConfig, ForcedCompletion};
pub use connect::{ConnectError, connect, connect_lazy};
pub use container::{Activation, ContainerSpec, Failure, Gone};
pub use controller::{Controller, StartError};
pub use engine::breaker;
pub use id::ActivationId;
pub use inlet::{OpenError, StreamError};
pub use invocation::Invocation;
pub use invoker::{Container, Invoker, InvokerConfig, RegisterError};
pub use outcome::{Answer, Durability, Outcome, Reason, Rejection, Stages};
pub use outlet::AppendError;
pub use pending::{Invoke, Pending};
pub use pull::{PullReceiver, PullSender, PullStream};
pub use push::{PushReceiver, PushSender, PushStream};
