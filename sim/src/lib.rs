//! The deterministic simulator. One seed makes a whole world: controllers, invoker nodes, a router with the real engine and the
//! real pure parts of its shell, the network between them, clocks, limits and everything that goes wrong. An independent judge
//! holds what is seen against the promises. Nothing here reads a clock or a random source, so a seed replays.
//!
//! Start reading at [`world`] (the loop), then [`check`] (the judge), then the actors: [`router`], [`controller`], [`node`],
//! [`net`], [`store`]; `desk` is the client's own controller. [`plan`] says what is drawn, [`mutants`] proves that the judge sees.

pub mod agenda;
pub mod check;
pub mod clock;
pub mod controller;
pub mod ctx;
mod desk;
pub mod dice;
pub mod mutants;
pub mod net;
pub mod node;
pub mod plan;
pub mod router;
pub mod run;
pub mod store;
pub mod story;
pub mod world;
