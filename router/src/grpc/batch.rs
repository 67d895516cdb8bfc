//! Inputs for one action that a reader has read and not yet handed in: neighbours in a frame go into the engine together.

use super::Service;
use crate::driver::Driver;
use engine::hub::{Action, Pass};
use engine::input::Input;
use std::sync::Arc;

/// Inputs in order, all for one action.
#[derive(Debug, Default)]
pub(super) struct Batch {
    action: Option<Arc<Action>>,
    inputs: Vec<Input>,
}

impl Batch {
    /// Adds an input; what is there for another action is handed in first.
    pub(super) fn add(&mut self, action: &Arc<Action>, input: Input, service: &Service, pass: &mut Pass<Driver>) {
        if !self.action.as_ref().is_some_and(|current| Arc::ptr_eq(current, action)) {
            self.hand_in(service, pass);
            self.action = Some(action.clone());
        }
        self.inputs.push(input);
    }

    /// Hands in what is there. To be called before the reader waits for the next frame.
    pub(super) fn hand_in(&mut self, service: &Service, pass: &mut Pass<Driver>) {
        if let Some(action) = self.action.take() {
            service.hub.enter(&action, &mut self.inputs, pass);
        }
    }
}
