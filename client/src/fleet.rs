//! The containers of an invoker node and the stream that carries them: what to send when something happens to one. Decisions
//! and appended entries only: it may not run a handler or wait.

use crate::container::{Activation, ContainerSpec, Failure, Gone, Handler, Place, Standing};
use crate::id::ActivationId;
use crate::invoker::{Invoker, RegisterError};
use crate::outcome::Rejection;
use crate::outlet::AppendError;
use crate::pull::PullSender;
use bytes::Bytes;
use proto::v1;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// The containers and the stream that carries them.
#[derive(Default)]
pub(crate) struct Fleet {
    /// None while there is no stream.
    pub(crate) link: Option<Link>,
    /// How many streams there were.
    streams: u64,
    /// By number; bounded by `CONTAINERS_MAX`.
    pub(crate) places: HashMap<u32, Place>,
    /// How many containers there were.
    registered: u64,
    pub(crate) draining: bool,
}

impl std::fmt::Debug for Fleet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fleet")
            .field("link", &self.link)
            .field("containers", &self.places.len())
            .finish_non_exhaustive()
    }
}

#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) sender: PullSender,
    stream: u64,
}

impl Fleet {
    pub(crate) fn add(
        &mut self,
        spec: ContainerSpec,
        handler: Arc<Handler>,
    ) -> Result<(u32, watch::Receiver<Option<Gone>>), RegisterError> {
        if self.draining {
            return Err(RegisterError::Draining);
        }
        let number = self.free_number().ok_or(RegisterError::TooManyContainers)?;
        let (gone, ended) = watch::channel(None);
        let (serial, standing, ending) = (self.registered, Standing::Open, Gone::Left);
        let place = Place { spec, handler, serial, running: 0, standing, ending, gone };
        if let Some(link) = &self.link {
            match link.sender.register(place.register(number)) {
                // A stream that has ended: it is registered on the next.
                Ok(()) | Err(AppendError::Closed(_)) => {}
                Err(_) => return Err(RegisterError::OutletFull),
            }
        }
        self.places.insert(number, place);
        Ok((number, ended))
    }

    /// Numbers go round, so that one just freed is not the next to be used.
    fn free_number(&mut self) -> Option<u32> {
        if self.places.len() >= Invoker::CONTAINERS_MAX {
            return None;
        }
        loop {
            self.registered += 1;
            let number = u32::try_from(self.registered % NUMBERS).expect("far below 2^32");
            if !self.places.contains_key(&number) {
                return Some(number);
            }
        }
    }

    pub(crate) fn on_opened(&mut self, sender: PullSender) -> u64 {
        self.streams += 1;
        let open = self.places.iter().filter(|(_, place)| place.standing == Standing::Open);
        for (number, place) in open {
            // Fewer than the outlet takes, or the stream has ended and the next one gets them.
            let _ = sender.register(place.register(*number));
        }
        self.link = Some(Link { sender, stream: self.streams });
        self.streams
    }

    /// Nothing more can come on it.
    pub(crate) fn on_ended(&mut self) {
        self.link = None;
        self.assume_heard();
    }

    pub(crate) fn start(&mut self, stream: u64, dispatch: v1::Dispatch) -> Option<Run> {
        let v1::Dispatch { container, id, time_left_ms, payload, attempt, .. } = dispatch;
        let place = self.places.get_mut(&container);
        let (Some(id), Some(place)) = (ActivationId::from_wire(&id), place) else {
            tracing::warn!(container, ?id, "the router sent an activation to no container of this invoker's");
            return None;
        };
        place.running += 1;
        let time_left = Duration::from_millis(time_left_ms.into());
        let activation = Activation { id, payload, time_left, attempt };
        Some(Run { container, serial: place.serial, stream, handler: place.handler.clone(), activation })
    }

    /// Reports the end of a run and frees its place; gives the completion back if there is no room for it yet. A run from an
    /// earlier stream is lost already: only its place counts.
    pub(crate) fn end(&mut self, run: &Run, completion: v1::Completion) -> Result<(), v1::Completion> {
        let Some(place) = self.places.get(&run.container).filter(|place| place.serial == run.serial) else {
            return Ok(());
        };
        let credits = place.credits_for_one();
        let Some(link) = self.link.as_ref().filter(|link| link.stream == run.stream) else {
            self.free(run);
            return Ok(());
        };
        match link.sender.complete(v1::Completion { credits, ..completion }) {
            Ok(()) | Err(AppendError::Closed(_)) => {
                self.vacate(run.container);
                Ok(())
            }
            Err(AppendError::Full(completion)) => Err(completion),
            Err(AppendError::TooLarge { entry, payload_bytes_max }) => {
                let why = format!("a result may have at most {payload_bytes_max} bytes, not {}", entry.result.len());
                let status = v1::RunStatus::PlatformFailed.into();
                self.end(run, v1::Completion { status, result: why.into(), ..entry })
            }
        }
    }

    /// Hands the activation of a run back; an error if there is no room for that yet.
    pub(crate) fn give_back(&self, run: &Run) -> Result<(), ()> {
        let Some(link) = self.link.as_ref().filter(|link| link.stream == run.stream) else { return Ok(()) };
        let Activation { id, payload, .. } = run.activation.clone();
        match link.sender.give_back(v1::Return {
            container: run.container,
            id: id.to_wire(),
            payload,
            ..Default::default()
        }) {
            Err(AppendError::Full(_)) => Err(()),
            // What came from the router is not too large for it, and with an ended stream it is lost.
            _ => Ok(()),
        }
    }

    /// Frees a run's place and grants it anew.
    pub(crate) fn free(&mut self, run: &Run) {
        let Some(place) = self.places.get(&run.container).filter(|place| place.serial == run.serial) else { return };
        if let (Some(link), 1..) = (&self.link, place.credits_for_one()) {
            // Only a router that reads nothing leaves no room; the container is then the smaller by one until the next stream.
            let _ = link.sender.credit(run.container, 1);
        }
        self.vacate(run.container);
    }

    fn vacate(&mut self, number: u32) {
        if let Some(place) = self.places.get_mut(&number) {
            place.running -= 1;
        }
        self.settle(number);
    }

    pub(crate) fn leave_all(&mut self) {
        self.draining = true;
        let numbers: Vec<u32> = self.places.keys().copied().collect();
        numbers.into_iter().for_each(|number| self.leave(number));
    }

    pub(crate) fn leave(&mut self, number: u32) {
        let Some(place) = self.places.get_mut(&number).filter(|place| place.standing == Standing::Open) else { return };
        let never_sent = ActivationId::random();
        place.standing = Standing::Finishing;
        if let Some(link) = &self.link {
            // Behind it the router sends nothing more to this container, and what it sent before comes before its refusal of
            // this completion: the one way to know that all is here.
            let mark = v1::Completion { container: number, id: never_sent.to_wire(), ..Default::default() };
            if link.sender.leave(number, false).is_ok() && link.sender.complete(mark).is_ok() {
                place.standing = Standing::Leaving(never_sent);
            }
        }
        self.settle(number);
    }

    /// As if the router had answered all that leave: it has ended the stream, or keeps silent.
    pub(crate) fn assume_heard(&mut self) {
        let leaving = |place: &Place| place.standing != Standing::Open;
        let numbers: Vec<u32> =
            self.places.iter().filter(|(_, place)| leaving(place)).map(|(number, _)| *number).collect();
        numbers.into_iter().for_each(|number| self.finish(number, None));
    }

    pub(crate) fn on_drained(&mut self, number: u32) {
        // One that leaves asked for it.
        let asked = self.places.get(&number).is_some_and(|place| place.standing != Standing::Open);
        self.finish(number, (!asked).then_some(Gone::Drained));
    }

    pub(crate) fn on_refused(&mut self, refusal: v1::Refusal) {
        let (number, id, reason) = (refusal.number, refusal.id.clone(), refusal.reason());
        match (self.places.get(&number).map(|place| place.standing), reason) {
            (Some(Standing::Leaving(never_sent)), _) if id == never_sent.bytes()[..] => self.finish(number, None),
            (Some(Standing::Open), reason) if is_of_a_registration(reason) => {
                self.finish(number, Some(Gone::Refused(Rejection::from(refusal))));
            }
            _ => tracing::warn!(?reason, number, ?id, "the router refused an entry"),
        }
    }

    fn finish(&mut self, number: u32, ending: Option<Gone>) {
        let Some(place) = self.places.get_mut(&number) else { return };
        place.standing = Standing::Finishing;
        place.ending = ending.unwrap_or_else(|| place.ending.clone());
        self.settle(number);
    }

    /// Lets a container go that is done.
    fn settle(&mut self, number: u32) {
        if !self.places.get(&number).is_some_and(Place::is_done) {
            return;
        }
        let place = self.places.remove(&number).expect("it is done, so it is there");
        if let (Some(link), false) = (&self.link, matches!(place.ending, Gone::Refused(_))) {
            // If there is no room, the end of the stream says the same.
            let _ = link.sender.leave(number, true);
        }
        place.gone.send_replace(Some(place.ending));
    }
}

/// One activation on its way through a handler.
pub(crate) struct Run {
    container: u32,
    /// Of the container.
    serial: u64,
    /// The stream it came on.
    stream: u64,
    pub(crate) handler: Arc<Handler>,
    pub(crate) activation: Activation,
}

impl Run {
    pub(crate) fn completion(&self, ended: Result<Bytes, Failure>, run_us: u32) -> v1::Completion {
        let (status, result) = match ended {
            Ok(result) => (v1::RunStatus::Succeeded, result),
            Err(Failure::Action(result)) => (v1::RunStatus::ActionFailed, result),
            Err(Failure::Platform(result)) => (v1::RunStatus::PlatformFailed, result),
            Err(Failure::Unstarted) => unreachable!("given back instead"),
        };
        let (container, id) = (self.container, self.activation.id.to_wire());
        v1::Completion { container, id, status: status.into(), result, run_us, ..Default::default() }
    }
}

/// Whether a registration can be refused for it. Concerning a container that is registered, the router says none of these.
fn is_of_a_registration(reason: v1::Reason) -> bool {
    use v1::Reason::{
        ConcurrencyOutOfRange, ContainerTaken, Draining, NameEmpty, NameNotUtf8, NameTooLong, TooManyActions,
        TooManyContainers,
    };
    matches!(
        reason,
        ConcurrencyOutOfRange
            | ContainerTaken
            | Draining
            | NameEmpty
            | NameNotUtf8
            | NameTooLong
            | TooManyActions
            | TooManyContainers
    )
}

/// Numbers of containers are below this.
const NUMBERS: u64 = 1_000_000;
