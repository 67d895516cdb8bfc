//! All actions: found by name, entered from any thread, forgotten when they are of no more use.
//!
//! ```text
//!   hub ── families: (namespace, action) ──▶ current revision, others ──▶ Action { intake, matcher }
//!    └──── shared by all matchers: limits, ledger of ids, budget, timers
//! ```

use crate::backlog::{Recalled, Whose};
use crate::budget::Budget;
use crate::container::{ContainerKey, Registration};
use crate::effect::{self, Effect, Perform};
use crate::id::{ActionKey, ActionName, ActivationId, StreamId};
use crate::input::Input;
use crate::intake::SingleFile;
use crate::lanes::{Lane, Lanes};
use crate::ledger::Ledger;
use crate::limits::{Limits, REVISIONS_REMEMBERED};
use crate::matcher::{Matcher, Owed};
use crate::mutant::{Mutant, is};
use crate::outcome::{Answer, Durability, Reason, Rejection, Reply};
use crate::recent::Recent;
use crate::sync::{AtomicU32, AtomicU64, DashMap, Entry, Ordering};
use crate::tally::{Count, Tally, Totals};
use crate::time::Timestamp;
use crate::timers::{Due, Timer, Timers, Watch};
use crate::turn::{Shared, Turn};
use foldhash::fast::FixedState;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Weak};

/// One revision of an action: its queue, containers and matcher.
pub struct Action {
    number: u32,
    key: ActionKey,
    /// What the actions of its namespace may queue together.
    tenant: Arc<Budget>,
    file: SingleFile<Matcher, Input>,
}

impl Action {
    /// Its name and revision.
    pub fn key(&self) -> &ActionKey {
        &self.key
    }

    pub(crate) fn tenant(&self) -> &Budget {
        &self.tenant
    }

    /// Its number, unique among live actions.
    pub(crate) fn number(&self) -> u32 {
        self.number
    }
}

impl fmt::Debug for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Action({})", self.key)
    }
}

/// The revisions of one action that are known.
#[derive(Debug, Default)]
struct Family {
    /// The one that controllers declared last.
    current: Option<Arc<Action>>,
    /// Earlier ones that are still there.
    draining: Vec<Arc<Action>>,
    /// Ones that only containers have named so far.
    undeclared: Vec<Arc<Action>>,
    /// Earlier ones, there or not, newest last.
    superseded: VecDeque<Arc<str>>,
}

/// The engine as a whole. Every method may be called from any thread.
#[derive(Debug)]
pub struct Hub {
    families: DashMap<ActionName, Family, FixedState>,
    /// By namespace; each lives as long as one of its actions.
    tenants: DashMap<Box<str>, Weak<Budget>, FixedState>,
    actions: AtomicU64,
    next_number: AtomicU32,
    shared: Shared,
    totals: Totals,
}

/// What one thread carries through the engine: the time, who performs the effects, and lists that are used again. Its counts
/// reach [`Hub::totals`] with [`Hub::settle`].
#[derive(Debug)]
pub struct Pass<P> {
    /// The time of this pass. Whoever drives the pass sets it.
    pub now: Timestamp,
    /// Who performs the effects.
    pub performer: P,
    /// What this pass counted; the driver may add to it.
    pub tally: Tally,
    effects: Vec<Effect>,
    elsewhere: VecDeque<(Arc<Action>, Input)>,
    due: Due,
}

impl<P: Perform> Pass<P> {
    /// A pass at time zero.
    pub fn new(performer: P) -> Self {
        Self {
            now: Timestamp::ZERO,
            performer,
            tally: Tally::default(),
            effects: Vec::new(),
            elsewhere: VecDeque::new(),
            due: Due::default(),
        }
    }
}

impl Hub {
    /// Knows no action yet. `seed` keys its hash tables; draw it at random where ids and names come from strangers.
    /// `wheels` is the number of timing wheels, about one per thread.
    pub fn new(limits: Limits, seed: u64, wheels: usize, now: Timestamp) -> Self {
        let budget = Budget::of_router(&limits);
        Self {
            families: DashMap::with_hasher(FixedState::with_seed(seed)),
            tenants: DashMap::with_hasher(FixedState::with_seed(seed)),
            actions: AtomicU64::new(0),
            next_number: AtomicU32::new(0),
            shared: Shared {
                ledger: Ledger::new(seed),
                recent: Recent::new(limits.recent_sets, seed),
                stored: Recent::new(if limits.overflow.is_some() { limits.recent_sets } else { 0 }, seed),
                lanes: limits.overflow.clone().map(Lanes::new),
                budget,
                timers: Timers::new(wheels, now),
                seed,
                drawn: AtomicU64::new(0),
                limits,
            },
            totals: Totals::default(),
        }
    }

    /// The bounds it keeps.
    pub fn limits(&self) -> &Limits {
        &self.shared.limits
    }

    /// What was counted by passes that have settled.
    pub fn totals(&self) -> &Totals {
        &self.totals
    }

    /// What is queued, in count and bytes.
    pub fn budget(&self) -> &Budget {
        &self.shared.budget
    }

    /// Where what overflows goes; None: nowhere.
    pub fn lanes(&self) -> Option<&Lanes> {
        self.shared.lanes.as_ref()
    }

    /// Activations queued, in flight or on their way into the store.
    pub fn held(&self) -> usize {
        self.shared.ledger.len()
    }

    /// Actions known, each revision counted.
    pub fn actions(&self) -> u64 {
        self.actions.load(Ordering::Relaxed)
    }

    /// The action a controller means. A revision that is new becomes current and supersedes the one before; one that was
    /// superseded stands for the current one.
    ///
    /// # Errors
    /// [`Reason::TooManyActions`]
    pub fn declare<P: Perform>(&self, key: &ActionKey, pass: &mut Pass<P>) -> Result<Arc<Action>, Rejection> {
        let (current, superseded) = self.make_current(key, pass).inspect_err(|_| self.drop_empty_family(&key.name))?;
        if let Some(old) = superseded {
            self.enter(&old, &mut vec![Input::Supersede(current.clone())], pass);
        }
        Ok(current)
    }

    /// Registers a container of exactly that revision.
    ///
    /// # Errors
    /// [`Reason::TooManyActions`], [`Reason::CreditOverflow`], [`Reason::ConcurrencyOutOfRange`]
    pub fn register<P: Perform>(
        &self,
        key: &ActionKey,
        new: Registration,
        pass: &mut Pass<P>,
    ) -> Result<(Arc<Action>, ContainerKey), Rejection> {
        self.shared.limits.check_concurrency(new.concurrency)?;
        let (action, newer) = self.find_or_add(key, pass).inspect_err(|_| self.drop_empty_family(&key.name))?;
        if let Some(newer) = newer {
            self.enter(&action, &mut vec![Input::Supersede(newer)], pass);
        }
        let registered = self.visit(&action, pass, |matcher, turn| matcher.register(new, turn));
        Ok((action, registered?))
    }

    /// A lane may hold activations of an action that it does not know of, up to below `end`. Returns the action and what it makes of
    /// them.
    ///
    /// # Errors
    /// [`Reason::TooManyActions`]
    pub fn recall<P: Perform>(
        &self,
        key: &ActionKey,
        lane: Lane,
        end: u64,
        pass: &mut Pass<P>,
    ) -> Result<(Arc<Action>, Recalled), Rejection> {
        let (action, newer) = self.find_or_add(key, pass).inspect_err(|_| self.drop_empty_family(&key.name))?;
        let mut inputs = vec![Input::Recall(lane, end)];
        inputs.extend(newer.map(Input::Supersede));
        self.enter_and_wait(&action, &mut inputs, pass);
        let recalled = self.visit(&action, pass, |matcher, turn| matcher.recalled(lane, turn));
        Ok((action, recalled))
    }

    /// Hands `inputs` in to an action and leaves the list empty. They are worked on by this thread, or by the one that is
    /// at it. Never waits.
    pub fn enter<P: Perform>(&self, action: &Arc<Action>, inputs: &mut Vec<Input>, pass: &mut Pass<P>) {
        self.enter_one(action, inputs, pass);
        self.enter_elsewhere(pass);
    }

    /// As [`enter`](Self::enter), but waits for its turn: on return the inputs, and all that were left before them, are worked on
    /// and their effects performed, those of whoever was at it before among them. For rare calls behind which nothing may be on its
    /// way: an outbox is emptied behind an [`Input::Suspend`] that was handed in so, never behind one that was
    /// [entered](Self::enter).
    pub fn enter_and_wait<P: Perform>(&self, action: &Arc<Action>, inputs: &mut Vec<Input>, pass: &mut Pass<P>) {
        self.visit(action, pass, |matcher, turn| inputs.drain(..).for_each(|input| matcher.handle(input, turn)));
    }

    /// Retires a container if its action has nothing queued and nothing in flight. True if so.
    pub fn retire_if_quiet<P: Perform>(
        &self,
        action: &Arc<Action>,
        container: ContainerKey,
        pass: &mut Pass<P>,
    ) -> bool {
        self.visit(action, pass, |matcher, turn| {
            let quiet = matcher.is_quiet();
            if quiet {
                matcher.handle(Input::Retire(container), turn);
            }
            quiet
        })
    }

    /// Of the activations that are held, those that nobody has heard of yet: not those that timed out and are still in flight. As
    /// far as passes have settled.
    pub fn unanswered(&self) -> usize {
        let ended = |count| self.totals.of(count);
        let silent = ended(Count::TimedOut).saturating_sub(ended(Count::Late) + ended(Count::LateLost));
        self.held().saturating_sub(usize::try_from(silent).unwrap_or(usize::MAX))
    }

    /// Drops from `ids` the activations that will be answered in that session: queued or in flight in one of `actions` or in one
    /// that took over from it, pushed there, and not timed out. Dropped are also those whose controller only wanted to hear that they
    /// are taken, and may not have heard it: they are given back, with where they are kept, to be acknowledged once more.
    pub fn drop_owed<P: Perform>(
        &self,
        ids: &mut Vec<ActivationId>,
        session: StreamId,
        actions: &[Arc<Action>],
        pass: &mut Pass<P>,
    ) -> Vec<(ActivationId, Durability)> {
        let by_number: BTreeMap<u32, &Arc<Action>> = actions.iter().map(|action| (action.number(), action)).collect();
        let mut taken = Vec::new();
        ids.retain(|id| {
            let (owed, durability) = match self.owed(id, session, &by_number, pass) {
                Some(owed) => (owed, Durability::Memory),
                None => (self.owed_of_stored(id), Durability::Durable),
            };
            if owed == Owed::Acknowledgement {
                taken.push((*id, durability));
            }
            owed == Owed::Nothing
        });
        taken
    }

    /// What is owed of an activation that is held; None: it is not.
    fn owed<P: Perform>(
        &self,
        id: &ActivationId,
        session: StreamId,
        actions: &BTreeMap<u32, &Arc<Action>>,
        pass: &mut Pass<P>,
    ) -> Option<Owed> {
        let at = self.shared.ledger.find(id)?;
        // It was handed on to a newer revision, and its answer is to come from there.
        let Some(action) = actions.get(&at.action) else { return Some(Owed::Answer) };
        let owed = self.visit(action, pass, |matcher, _| matcher.owes(at.slot, id, session));
        // Gone from there in the meantime: it ended, went into the store, or is on its way to a newer revision and still known.
        owed.or_else(|| self.shared.ledger.find(id).map(|_| Owed::Answer))
    }

    /// Of an activation that is stored: it is answered once it has come back, unless its controller wanted to hear no more than that
    /// it is taken.
    fn owed_of_stored(&self, id: &ActivationId) -> Owed {
        match self.shared.stored.mark(id) {
            Some(_) if self.shared.recent.contains(id) => Owed::Nothing,
            Some(true) => Owed::Acknowledgement,
            Some(false) => Owed::Answer,
            None => Owed::Nothing,
        }
    }

    /// Activations that were stored in this life of the router, and whose records are damaged or missing. They never started, and
    /// no consume mark brings them back: rejected.
    pub fn lose_stored<P: Perform>(&self, lost: &[Whose], pass: &mut Pass<P>) {
        for Whose { id, controller, reply } in lost {
            pass.tally.count(Count::SpillDamaged);
            // Its caller may have been told that it is lost, and may have pushed it again.
            let answered = self.shared.recent.contains(id) || self.shared.ledger.find(id).is_some();
            if *reply == Reply::Outcome && !answered && !is(Mutant::DamageUnsaid) {
                let answer = Answer::rejected(*id, Rejection::new(Reason::RecordDamaged, "", 0));
                pass.effects.push(Effect::Write(*controller, effect::Entry::Answer(answer)));
                pass.performer.perform(&mut pass.effects);
            }
            // Behind the answer: a controller that asks in between is told nothing, and whoever finds the id here finds the
            // answer in the outbox.
            self.shared.recent.insert(id);
        }
    }

    /// An id counts as ended from now on: should it still come, it is refused. So its controller may be told that it is lost.
    pub fn end(&self, id: &ActivationId) {
        self.shared.recent.insert(id);
    }

    /// Brings into the cache what will be known of these ids, which the caller is about to hand in or to complete. Changes nothing.
    /// Worth it for a frame's worth of them: 4 MiB of ended ids are spread evenly, and each look waits for memory.
    pub fn foresee(&self, ids: impl Iterator<Item = ActivationId> + Clone) {
        self.shared.stored.fetch(ids.clone());
        self.shared.recent.fetch(ids);
    }

    /// Works on what is due by `pass.now`, at most about `most` timers of each wheel. True if there may be more.
    pub fn advance<P: Perform>(&self, most: usize, pass: &mut Pass<P>) -> bool {
        let mut due = std::mem::take(&mut pass.due);
        let more = self.shared.timers.advance(pass.now, most, &mut due);
        for timer in due.timers.drain(..) {
            match timer {
                Timer::Deadline(action, slot) => self.enter(&action, &mut vec![Input::Expire(slot)], pass),
                Timer::Idle(action) => self.look_whether_idle(action, pass),
            }
        }
        for Watch(action, container) in due.watches.drain(..) {
            self.enter(&action, &mut vec![Input::Look(container)], pass);
        }
        pass.due = due;
        more
    }

    /// When to call [`advance`](Self::advance) next, unless an [`Effect::WakeAt`] says sooner.
    pub fn next_wake(&self) -> Option<Timestamp> {
        self.shared.timers.next_wake()
    }

    /// Adds a pass's counts to the totals.
    pub fn settle<P: Perform>(&self, pass: &mut Pass<P>) {
        self.totals.take(&mut pass.tally);
    }

    /// Gives memory back after a flood. Cheap when there is none to give; call it every second or so.
    pub fn shrink(&self) {
        self.shared.ledger.shrink();
    }

    /// Waits for an action and lets `f` do something that has a result.
    pub(crate) fn visit<P: Perform, R>(
        &self,
        action: &Arc<Action>,
        pass: &mut Pass<P>,
        f: impl FnOnce(&mut Matcher, &mut Turn<'_>) -> R,
    ) -> R {
        let Pass { now, performer, tally, effects, elsewhere, .. } = pass;
        let (now, shared) = (*now, &self.shared);
        // Both closures take turns with the same lists; a cell tells the compiler that they do.
        let parts = std::cell::RefCell::new((performer, tally, effects, elsewhere));
        let result = action.file.wait(
            |matcher, inputs| {
                let (performer, tally, effects, elsewhere) = &mut *parts.borrow_mut();
                let mut turn = Turn { now, shared, action, effects, tally, elsewhere };
                inputs.drain(..).for_each(|input| matcher.handle(input, &mut turn));
                performer.perform(effects);
            },
            |matcher| {
                let (performer, tally, effects, elsewhere) = &mut *parts.borrow_mut();
                let mut turn = Turn { now, shared, action, effects, tally, elsewhere };
                let result = f(matcher, &mut turn);
                performer.perform(effects);
                result
            },
        );
        self.enter_elsewhere(pass);
        result
    }

    /// All actions, without keeping them there. The map's parts are locked one after the other.
    pub(crate) fn list(&self) -> Vec<Weak<Action>> {
        let mut all = Vec::new();
        for family in &self.families {
            let known = family.current.iter().chain(&family.draining).chain(&family.undeclared);
            all.extend(known.map(Arc::downgrade));
        }
        all
    }

    fn enter_one<P: Perform>(&self, action: &Arc<Action>, inputs: &mut Vec<Input>, pass: &mut Pass<P>) {
        let Pass { now, performer, tally, effects, elsewhere, .. } = pass;
        let (now, shared) = (*now, &self.shared);
        action.file.enter(inputs, |matcher, inputs| {
            let mut turn = Turn { now, shared, action, effects, tally, elsewhere };
            inputs.drain(..).for_each(|input| matcher.handle(input, &mut turn));
            // While the action is still held, so that its effects keep their order across threads.
            performer.perform(effects);
        });
    }

    fn enter_elsewhere<P: Perform>(&self, pass: &mut Pass<P>) {
        while let Some((action, input)) = pass.elsewhere.pop_front() {
            self.enter_one(&action, &mut vec![input], pass);
        }
    }

    /// The action a controller means, and the one that it has just superseded.
    #[allow(clippy::type_complexity)]
    fn make_current<P: Perform>(
        &self,
        key: &ActionKey,
        pass: &mut Pass<P>,
    ) -> Result<(Arc<Action>, Option<Arc<Action>>), Rejection> {
        let mut family = self.families.entry(key.name.clone()).or_default();
        if let Some(current) = &family.current
            && (current.key.revision == key.revision || family.is_superseded(&key.revision))
        {
            return Ok((current.clone(), None));
        }
        let known = family.undeclared.iter().position(|action| action.key.revision == key.revision);
        let new = match known {
            Some(at) => family.undeclared.swap_remove(at),
            None => self.add(key, pass)?,
        };
        // Those that containers named and no controller ever did stay as they are.
        Ok((new.clone(), family.replace_current(new)))
    }

    /// The action of that very revision, and the current one if it supersedes it.
    #[allow(clippy::type_complexity)]
    fn find_or_add<P: Perform>(
        &self,
        key: &ActionKey,
        pass: &mut Pass<P>,
    ) -> Result<(Arc<Action>, Option<Arc<Action>>), Rejection> {
        let mut family = self.families.entry(key.name.clone()).or_default();
        if let Some(action) = family.find(&key.revision) {
            return Ok((action.clone(), None));
        }
        let action = self.add(key, pass)?;
        let newer = family.current.clone().filter(|_| family.is_superseded(&key.revision));
        let others = if newer.is_some() { &mut family.draining } else { &mut family.undeclared };
        others.push(action.clone());
        Ok((action, newer))
    }

    /// A name whose first action was refused must not stay: strangers choose names, and only actions are limited.
    fn drop_empty_family(&self, name: &ActionName) {
        self.families.remove_if(name, |_, family| family.is_empty());
    }

    fn add<P: Perform>(&self, key: &ActionKey, pass: &mut Pass<P>) -> Result<Arc<Action>, Rejection> {
        let max = self.shared.limits.actions_max;
        if self.actions.fetch_add(1, Ordering::Relaxed) >= max {
            self.actions.fetch_sub(1, Ordering::Relaxed);
            return Err(Rejection::new(Reason::TooManyActions, "actions_max", max));
        }
        pass.tally.count(Count::ActionsAdded);
        // Wraps after four billion actions; the ledger then tells two of one number apart by their slots' generations.
        let number = self.next_number.fetch_add(1, Ordering::Relaxed);
        let (tenant, file) = (self.tenant(key.name.namespace()), SingleFile::new(Matcher::default()));
        let action = Arc::new(Action { number, key: key.clone(), tenant, file });
        let look_at = pass.now + self.shared.limits.idle_grace;
        self.arm_idle(action.clone(), look_at, pass);
        Ok(action)
    }

    fn tenant(&self, namespace: &str) -> Arc<Budget> {
        let mut known = self.tenants.entry(namespace.into()).or_default();
        known.upgrade().unwrap_or_else(|| {
            let tenant = Arc::new(Budget::of_tenant(&self.shared.limits));
            *known = Arc::downgrade(&tenant);
            tenant
        })
    }

    fn arm_idle<P: Perform>(&self, action: Arc<Action>, at: Timestamp, pass: &mut Pass<P>) {
        let number = action.number;
        let (_, sooner) = self.shared.timers.arm(number, at, Timer::Idle(action));
        if sooner {
            pass.effects.push(Effect::WakeAt(at));
            pass.performer.perform(&mut pass.effects);
        }
    }

    fn look_whether_idle<P: Perform>(&self, action: Arc<Action>, pass: &mut Pass<P>) {
        if let Err(again_at) = self.forget_if_unused(&action, pass.now) {
            return self.arm_idle(action, again_at, pass);
        }
        self.actions.fetch_sub(1, Ordering::Relaxed);
        // With its last action, which has nothing queued. Whoever adds another has to ask the map, which is locked here.
        let namespace: Box<str> = action.key.name.namespace().into();
        self.tenants.remove_if(&namespace, |_, tenant| tenant.strong_count() <= 1);
        pass.tally.count(Count::ActionsRemoved);
    }

    /// Forgets an action that has been of no use for the grace period; else says when to look again.
    fn forget_if_unused(&self, action: &Arc<Action>, now: Timestamp) -> Result<(), Timestamp> {
        let grace = self.shared.limits.idle_grace;
        let Entry::Occupied(mut entry) = self.families.entry(action.key.name.clone()) else { return Ok(()) };
        // The map's reference and this one: no stream names it, no timer and no other action points to it. Whoever wants
        // another has to ask the map, and this call holds its lock.
        if Arc::strong_count(action) > 2 {
            return Err(now + grace);
        }
        let idle_since = action.file.wait(|_, _| (), |matcher| matcher.idle_since(&self.shared.limits));
        let due = idle_since.unwrap_or(now) + grace;
        if idle_since.is_none() || due > now {
            return Err(due);
        }
        entry.get_mut().forget(action);
        if entry.get().is_empty() {
            entry.remove();
        }
        Ok(())
    }
}

impl Family {
    fn find(&self, revision: &str) -> Option<&Arc<Action>> {
        let mut all = self.current.iter().chain(&self.draining).chain(&self.undeclared);
        all.find(|action| &*action.key.revision == revision)
    }

    /// One that drains is never brought back, even if so many came after it that it is not remembered: what is pushed to it
    /// goes to its successor, and so on round a circle.
    fn is_superseded(&self, revision: &str) -> bool {
        let mut draining = self.draining.iter().map(|action| &action.key.revision);
        self.superseded.iter().any(|earlier| &**earlier == revision) || draining.any(|earlier| &**earlier == revision)
    }

    /// Returns the one that was current.
    fn replace_current(&mut self, new: Arc<Action>) -> Option<Arc<Action>> {
        let old = self.current.replace(new)?;
        if self.superseded.len() == REVISIONS_REMEMBERED {
            self.superseded.pop_front();
        }
        self.superseded.push_back(old.key.revision.clone());
        self.draining.push(old.clone());
        Some(old)
    }

    fn forget(&mut self, action: &Arc<Action>) {
        self.draining.retain(|other| !Arc::ptr_eq(other, action));
        self.undeclared.retain(|other| !Arc::ptr_eq(other, action));
        if self.current.take_if(|current| Arc::ptr_eq(current, action)).is_some() {
            // Without a current one there is nothing that the earlier ones stand for.
            self.superseded.clear();
        }
    }

    fn is_empty(&self) -> bool {
        self.current.is_none() && self.draining.is_empty() && self.undeclared.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::NodeName;

    impl Perform for () {
        fn perform(&mut self, effects: &mut Vec<Effect>) {
            effects.clear();
        }
    }

    #[test]
    fn an_action_that_is_refused_leaves_nothing_behind() {
        let hub = Hub::new(Limits { actions_max: 0, ..Limits::default() }, 7, 1, Timestamp::ZERO);
        let (key, mut pass) = (ActionKey::new("tenant", "action", ""), Pass::new(()));
        let new = Registration {
            stream: StreamId(0),
            node: NodeName::new("node"),
            number: 1,
            epoch: 0,
            concurrency: 1,
            credits: 0,
            warm: false,
            room: Arc::new(crate::container::Room::new(usize::MAX)),
        };
        assert_eq!(hub.declare(&key, &mut pass).unwrap_err().reason, Reason::TooManyActions);
        assert_eq!(hub.register(&key, new, &mut pass).unwrap_err().reason, Reason::TooManyActions);
        assert_eq!((hub.actions(), hub.families.len()), (0, 0));
    }
}
