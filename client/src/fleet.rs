//! The containers of an invoker node and the stream that carries them: what to send when something happens to one. Decisions
//! and appended entries only: it may not run a handler, wait, or read a clock.
//!
//! ```text
//!   stream breaks ─▶ runs go on, their ends are owed ─┬─ resumed ─▶ each container registered as it was, with what it holds;
//!                    what left for the router and may │             then `rejoined`; then what is owed
//!                    have been lost is not said again └─ not ─────▶ another session: runs are heard of no more
//! ```

use crate::container::{Activation, ContainerSpec, Failure, Gone, Handler, Occupant, Owed, Place, Standing};
use crate::desk::End;
use crate::id::ActivationId;
use crate::invoker::{Invoker, RegisterError};
use crate::outcome::Rejection;
use crate::outlet::AppendError;
use crate::pull::{PullEntry, PullSender, Rejoined, Upstream};
use bytes::Bytes;
use engine::numbered::NUMBERS;
use proto::v1;
use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// The containers and the stream that carries them.
pub(crate) struct Fleet<U = PullSender> {
    /// None while there is no stream.
    pub(crate) link: Option<U>,
    /// How many sessions are over.
    session: u64,
    /// What the next stream says to be taken for this one's successor.
    token: Bytes,
    /// The router keeps the session of a stream that breaks for a while.
    resumable: bool,
    /// The stream broke, and the next one may resume its session.
    parked: bool,
    /// By number; bounded by `CONTAINERS_MAX`.
    pub(crate) places: HashMap<u32, Place>,
    /// How many containers there were.
    registered: u64,
    /// Of the last registration.
    epoch: u32,
    /// How many runs there were.
    runs: u64,
    pub(crate) draining: bool,
}

impl<U> Default for Fleet<U> {
    fn default() -> Self {
        Self {
            link: None,
            session: 0,
            token: Bytes::new(),
            resumable: false,
            parked: false,
            places: HashMap::new(),
            registered: 0,
            epoch: 0,
            runs: 0,
            draining: false,
        }
    }
}

impl<U> std::fmt::Debug for Fleet<U> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fleet")
            .field("session", &self.session)
            .field("parked", &self.parked)
            .field("containers", &self.places.len())
            .finish_non_exhaustive()
    }
}

impl<U: Upstream> Fleet<U> {
    pub(crate) fn add(
        &mut self,
        spec: ContainerSpec,
        handler: Arc<Handler>,
    ) -> Result<(u32, watch::Receiver<Option<Gone>>), RegisterError> {
        if self.draining {
            return Err(RegisterError::Draining);
        }
        let number = self.free_number().ok_or(RegisterError::TooManyContainers)?;
        let mut place = Place::new(spec, handler, self.registered);
        if let Some(link) = &self.link {
            let register = place.register(number, next_epoch(&mut self.epoch), self.session);
            match link.append(register.into()) {
                Ok(()) => {}
                // A stream that has ended: it is registered on the next.
                Err(AppendError::Closed(_)) => place.epoch = None,
                Err(_) => return Err(RegisterError::OutletFull),
            }
        }
        let ended = place.gone.subscribe();
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
            let number = u32::try_from(self.registered % u64::from(NUMBERS)).expect("far below 2^32");
            if !self.places.contains_key(&number) {
                return Some(number);
            }
        }
    }

    /// What to say in the hello of the next stream: nothing if a new session is to begin.
    pub(crate) fn token(&self) -> Bytes {
        if self.parked { self.token.clone() } else { Bytes::new() }
    }

    /// Whether the next stream may resume the session.
    pub(crate) fn is_parked(&self) -> bool {
        self.parked
    }

    /// There is a stream, whose router said `welcome`.
    pub(crate) fn on_opened(&mut self, link: U, welcome: &v1::Welcome) {
        let resumed = self.parked && welcome.resumed;
        if !resumed {
            self.end_session();
        }
        self.parked = false;
        self.resumable = welcome.grace_ms > 0 && !welcome.session.is_empty();
        self.token = welcome.session.clone();
        let mut numbers: Vec<_> = self.places.keys().copied().collect();
        numbers.sort_unstable();
        for number in &numbers {
            let place = self.places.get_mut(number).expect("one of the keys");
            let epoch = match place.epoch {
                Some(epoch) => epoch,
                None if place.standing == Standing::Open => next_epoch(&mut self.epoch),
                // The router never knew of it, or knows of it no more.
                None => continue,
            };
            // The stream has ended if it cannot be taken, and the next one gets them.
            let _ = link.append_over(place.register(*number, epoch, self.session).into());
        }
        if resumed {
            let _ = link.append_over(Rejoined.into());
        }
        self.link = Some(link);
        for number in numbers {
            self.tell_what_is_owed(number);
            if self.places.get(&number).is_some_and(|place| place.standing == Standing::Leaving) {
                let _ = self.say(number, |epoch| v1::Leave { container: number, gone: false, epoch }.into());
            }
            self.settle(number);
        }
    }

    /// The stream ended. Nothing more can come on it, but its session may go on.
    pub(crate) fn on_ended(&mut self, end: End) {
        let Some(link) = self.link.take() else { return };
        if end == End::Over || !self.resumable {
            return self.end_session();
        }
        self.parked = true;
        for entry in link.reclaim() {
            self.owe(entry);
        }
    }

    /// Runs are heard of no more, and who leaves hears no more of the router.
    pub(crate) fn end_session(&mut self) {
        self.parked = false;
        self.session += 1;
        for place in self.places.values_mut() {
            place.owed.clear();
            place.epoch = None;
        }
        self.assume_heard();
    }

    /// Keeps the end of a run that did not leave. (What else did not leave is said anew with the next registration.)
    fn owe(&mut self, entry: PullEntry) {
        let (container, epoch, owed) = match entry {
            PullEntry::Completion(completion) => (completion.container, completion.epoch, Owed::Completion(completion)),
            PullEntry::Return(unstarted) => (unstarted.container, unstarted.epoch, Owed::Return(unstarted)),
            _ => return,
        };
        let Some(place) = self.places.get_mut(&container).filter(|place| place.is_of(epoch)) else { return };
        let id = ActivationId::from_wire(owed.id()).expect("made here");
        let pausing = place.runs.iter().find(|(_, occupant)| occupant.returned && occupant.id == id);
        let run = pausing.map_or_else(
            || {
                self.runs += 1;
                self.runs
            },
            |(run, _)| *run,
        );
        place.owed.insert(run, owed);
    }

    fn tell_what_is_owed(&mut self, number: u32) {
        let (Some(link), Some(place)) = (&self.link, self.places.get_mut(&number)) else { return };
        let (epoch, credits) = (place.epoch(), place.credits_for_one());
        for (run, owed) in std::mem::take(&mut place.owed) {
            let told = match owed {
                Owed::Completion(completion) => {
                    append_fitting(link, v1::Completion { credits, epoch, ..completion }, true)
                        .map(|()| credits)
                        .map_err(|refused| Owed::Completion(refused.into_entry()))
                }
                Owed::Return(unstarted) => match link.append_over(v1::Return { epoch, ..unstarted }.into()) {
                    // If its room is still kept empty, it is granted when that is over.
                    Ok(()) if place.runs.contains_key(&run) || credits == 0 => Ok(0),
                    Ok(()) => {
                        let grant = v1::Credit { container: number, credits, epoch };
                        Ok(if link.append_over(grant.into()).is_ok() { credits } else { 0 })
                    }
                    Err(refused) => match refused.into_entry() {
                        PullEntry::Return(unstarted) => Err(Owed::Return(unstarted)),
                        other => unreachable!("given back as it was given: {other:?}"),
                    },
                },
            };
            match told {
                Ok(granted) => place.credits += granted,
                // The stream has ended already: the next one is told.
                Err(owed) => _ = place.owed.insert(run, owed),
            }
        }
    }

    pub(crate) fn start(&mut self, dispatch: v1::Dispatch) -> Option<Run> {
        let v1::Dispatch { container, id, time_left_ms, payload, attempt, epoch } = dispatch;
        let place = self.places.get_mut(&container).filter(|place| place.is_of(epoch));
        let (Some(id), Some(place)) = (ActivationId::from_wire(&id), place) else {
            tracing::warn!(container, epoch, ?id, "the router sent an activation to no container of this invoker's");
            return None;
        };
        self.runs += 1;
        let number = self.runs;
        place.received = place.received.wrapping_add(1);
        place.credits = place.credits.saturating_sub(1);
        place.runs.insert(number, Occupant { id, session: self.session, returned: false });
        let time_left = Duration::from_millis(time_left_ms.into());
        let activation = Activation { id, payload, time_left, attempt };
        let (serial, session, handler) = (place.serial, self.session, place.handler.clone());
        Some(Run { number, container, serial, session, handler, activation })
    }

    /// Reports the end of a run and frees its place; gives the completion back if there is no room for it yet. A run from an
    /// earlier session is lost already: only its place counts.
    pub(crate) fn end(&mut self, run: &Run, completion: v1::Completion) -> Result<(), v1::Completion> {
        if run.session != self.session {
            self.free(run);
            return Ok(());
        }
        let Some(place) = self.place_of(run) else { return Ok(()) };
        let (epoch, credits) = (place.epoch(), place.credits_for_one());
        let completion = v1::Completion { credits, epoch, ..completion };
        let told = match &self.link {
            None => Err(AppendError::Closed(completion)),
            Some(link) => append_fitting(link, completion, false),
        };
        let place = self.places.get_mut(&run.container).expect("found above");
        match told {
            Ok(()) => place.credits += credits,
            Err(AppendError::Full(completion)) => return Err(completion),
            // Told on the next stream, if that is of the same session.
            Err(refused) => _ = place.owed.insert(run.number, Owed::Completion(refused.into_entry())),
        }
        place.runs.remove(&run.number);
        self.settle(run.container);
        Ok(())
    }

    /// Hands the activation of a run back; an error if there is no room for that yet. Its place stays taken until it is
    /// [freed](Self::free).
    pub(crate) fn give_back(&mut self, run: &Run) -> Result<(), ()> {
        if run.session != self.session {
            return Ok(());
        }
        let Some(place) = self.place_of(run) else { return Ok(()) };
        let Activation { id, payload, .. } = run.activation.clone();
        let unstarted = v1::Return { container: run.container, id: id.to_wire(), payload, epoch: place.epoch() };
        let told = match &self.link {
            None => Err(AppendError::Closed(unstarted.into())),
            Some(link) => link.append(unstarted.into()),
        };
        let place = self.places.get_mut(&run.container).expect("found above");
        match told {
            Err(AppendError::Full(_)) => return Err(()),
            Err(AppendError::Closed(PullEntry::Return(unstarted))) => {
                place.owed.insert(run.number, Owed::Return(unstarted));
            }
            // What came from the router is not too large for it.
            Ok(()) | Err(_) => {}
        }
        if let Some(occupant) = place.runs.get_mut(&run.number) {
            occupant.returned = true;
        }
        Ok(())
    }

    /// Frees a run's place and grants it anew.
    pub(crate) fn free(&mut self, run: &Run) {
        let Some(place) = self.place_of(run) else { return };
        place.runs.remove(&run.number);
        let grants = place.credits_for_one() > 0 && place.epoch.is_some();
        if grants {
            let container = run.container;
            // Only a router that reads nothing leaves no room; the container is then the smaller by one until the next stream.
            if self.say(container, |epoch| v1::Credit { container, credits: 1, epoch }.into()).is_ok() {
                self.places.get_mut(&container).expect("found above").credits += 1;
            }
        }
        self.settle(run.container);
    }

    /// What each container believes to have granted and received, for the router to compare.
    pub(crate) fn audit(&self) {
        let Some(link) = &self.link else { return };
        let open = self.places.iter().filter(|(_, place)| place.standing == Standing::Open && place.epoch.is_some());
        for (number, place) in open {
            let (container, epoch) = (*number, place.epoch());
            let audit = v1::Audit { container, epoch, credits: place.credits, received: place.received };
            if link.append(audit.into()).is_err() {
                // There is another in a while.
                return;
            }
        }
    }

    pub(crate) fn leave_all(&mut self) {
        self.draining = true;
        let numbers: Vec<u32> = self.places.keys().copied().collect();
        numbers.into_iter().for_each(|number| self.leave(number));
    }

    pub(crate) fn leave(&mut self, number: u32) {
        let Some(place) = self.places.get_mut(&number).filter(|place| place.standing == Standing::Open) else { return };
        (place.standing, place.credits) = (Standing::Finishing, 0);
        // Without a stream nothing more comes: on the next it is registered without credits, if at all.
        if self.say(number, |epoch| v1::Leave { container: number, gone: false, epoch }.into()).is_ok() {
            self.places.get_mut(&number).expect("found above").standing = Standing::Leaving;
        }
        self.settle(number);
    }

    /// As if the router had answered all that leave: its session is over, or it keeps silent.
    pub(crate) fn assume_heard(&mut self) {
        let leaving = |place: &Place| place.standing != Standing::Open;
        let numbers: Vec<u32> =
            self.places.iter().filter(|(_, place)| leaving(place)).map(|(number, _)| *number).collect();
        numbers.into_iter().for_each(|number| self.finish(number, None));
    }

    /// Nothing more comes for that container: it asked for that, or the router has no more use for it.
    pub(crate) fn on_drained(&mut self, drain: &v1::Drain) {
        let Some(place) = self.places.get(&drain.container).filter(|place| place.is_of(drain.epoch)) else { return };
        let asked = place.standing == Standing::Leaving;
        self.finish(drain.container, (!asked).then_some(Gone::Drained));
    }

    pub(crate) fn on_refused(&mut self, refusal: v1::Refusal) {
        let (number, reason) = (refusal.number, refusal.reason());
        match self.places.get(&number).map(|place| place.standing) {
            Some(Standing::Open) if is_of_a_registration(reason) => {
                self.finish(number, Some(Gone::Refused(Rejection::from(refusal))));
            }
            _ => tracing::warn!(?reason, number, id = ?refusal.id, "the router refused an entry"),
        }
    }

    fn finish(&mut self, number: u32, ending: Option<Gone>) {
        let Some(place) = self.places.get_mut(&number) else { return };
        (place.standing, place.credits) = (Standing::Finishing, 0);
        place.ending = ending.unwrap_or_else(|| place.ending.clone());
        self.settle(number);
    }

    /// Lets a container go that is done.
    fn settle(&mut self, number: u32) {
        if !self.places.get(&number).is_some_and(Place::is_done) {
            return;
        }
        let known = self.places[&number].epoch.is_some() && !matches!(self.places[&number].ending, Gone::Refused(_));
        if known {
            // If there is no room, the end of the stream says the same.
            let _ = self.say(number, |epoch| v1::Leave { container: number, gone: true, epoch }.into());
        }
        let place = self.places.remove(&number).expect("it is done, so it is there");
        place.gone.send_replace(Some(place.ending));
    }

    /// Sends an entry about a container that the router knows of.
    fn say(&self, number: u32, entry: impl FnOnce(u32) -> PullEntry) -> Result<(), ()> {
        let place = self.places.get(&number).filter(|place| place.epoch.is_some()).ok_or(())?;
        let link = self.link.as_ref().ok_or(())?;
        link.append(entry(place.epoch())).map_err(|_| ())
    }

    fn place_of(&mut self, run: &Run) -> Option<&mut Place> {
        self.places.get_mut(&run.container).filter(|place| place.serial == run.serial)
    }
}

/// Sends a completion, or if its result is too long for the router, one that says so.
fn append_fitting(
    link: &impl Upstream,
    completion: v1::Completion,
    owed: bool,
) -> Result<(), AppendError<v1::Completion>> {
    let entry = PullEntry::Completion(completion);
    let refused = if owed { link.append_over(entry) } else { link.append(entry) };
    let completion = |entry| match entry {
        PullEntry::Completion(completion) => completion,
        other => unreachable!("given back as it was given: {other:?}"),
    };
    match refused {
        Ok(()) => Ok(()),
        Err(AppendError::Full(entry)) => Err(AppendError::Full(completion(entry))),
        Err(AppendError::Closed(entry)) => Err(AppendError::Closed(completion(entry))),
        Err(AppendError::TooLarge { entry, payload_bytes_max }) => {
            let entry = completion(entry);
            let why = format!("a result may have at most {payload_bytes_max} bytes, not {}", entry.result.len());
            let status = v1::RunStatus::PlatformFailed.into();
            append_fitting(link, v1::Completion { status, result: why.into(), ..entry }, owed)
        }
    }
}

/// One activation on its way through a handler.
pub(crate) struct Run {
    number: u64,
    container: u32,
    /// Of the container.
    serial: u64,
    /// In which it came.
    session: u64,
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

/// Epochs begin anew after 2^32, without the 0 that stands for none.
fn next_epoch(last: &mut u32) -> NonZeroU32 {
    *last = last.wrapping_add(1).max(1);
    NonZeroU32::new(*last).expect("at least 1")
}

#[cfg(test)]
mod tests;
