//! The router's process: the real engine and the real pure parts, and around them what its shell does with threads and sockets,
//! done here by hand in the same order. Readers check and hand in, effects go into mailboxes, writers make frames.

mod overflow;
mod reader;
mod session;
mod writer;

use crate::agenda::Instant;
use crate::check::{Said, Sums};
use crate::clock::{Clock, Machine};
use crate::ctx::{Ctx, Event};
use crate::plan::Plan;
use crate::store::Store;
use engine::container::ContainerKey;
use engine::effect::{Dispatch, Effect, Entry, Perform};
use engine::hub::{Action, Hub, Pass};
use engine::id::StreamId;
use engine::input::Input;
use engine::mailbox::Awaiting;
use engine::outcome::{Outcome, Reason, Rejection, RunStatus};
use engine::sessions::{Bounds, Sessions};
use engine::stored_time::Moment;
use engine::tally::Count;
use engine::time::Timestamp;
use overflow::Flow;
pub use overflow::Work;
use session::Session;
use std::sync::Arc;
use std::time::Duration;

/// The process, dead or alive.
#[derive(Debug)]
pub struct Router {
    /// It runs.
    pub up: bool,
    /// How often it came up.
    pub life: u32,
    /// Its clock.
    pub clock: Clock,
    /// The other clocks of the machine it runs on.
    pub machine: Machine,
    /// When its life began, and what the machine's clocks showed.
    started: (Timestamp, Moment),
    hub: Hub,
    pass: Pass<Effects>,
    sessions: Vec<Session>,
    /// Sessions by connection.
    of_conn: Vec<u32>,
    draining: bool,
    /// It begins no session any more.
    ending: bool,
    drain_until: Instant,
    wake_at: Instant,
    controllers: Sessions<usize>,
    nodes: Sessions<usize>,
    effects: Vec<Effect>,
    inputs: Vec<Input>,
    /// Where the excess goes; it outlives the process.
    pub store: Store,
    flow: Flow,
}

/// Gathers effects, which are carried out as soon as the engine returns.
#[derive(Debug, Default)]
struct Effects(Vec<Effect>);

impl Perform for Effects {
    fn perform(&mut self, effects: &mut Vec<Effect>) {
        self.0.append(effects);
    }
}

/// A container as the router's shell knows it.
#[derive(Debug)]
pub(crate) struct Member {
    action: Arc<Action>,
    key: ContainerKey,
    concurrency: u32,
    /// It was told that the router, which drains, has no more use for it.
    told_of_drain: bool,
    /// The judge's number for it.
    judged: u32,
}

impl Router {
    /// Not there yet.
    pub fn new() -> Self {
        let hub = Hub::new(engine::limits::Limits::default(), 0, 1, Timestamp::ZERO);
        Self {
            up: false,
            life: 0,
            clock: Clock::default(),
            machine: Machine::default(),
            started: (Timestamp::ZERO, Machine::default().read(0, 0)),
            hub,
            pass: Pass::new(Effects::default()),
            sessions: Vec::new(),
            of_conn: Vec::new(),
            draining: false,
            ending: false,
            drain_until: 0,
            wake_at: Instant::MAX,
            controllers: Sessions::new(0, bounds(0, true)),
            nodes: Sessions::new(0, bounds(0, false)),
            effects: Vec::new(),
            inputs: Vec::new(),
            store: Store::default(),
            flow: Flow::default(),
        }
    }

    /// As before the world began.
    pub fn clear(&mut self, clock: Clock, plan: &Plan) {
        self.stop();
        self.store = match (&plan.store, &plan.limits.overflow) {
            (Some(store), Some(overflow)) => {
                Store::new(overflow.lanes, store.kafka, store.record_bytes_max, store.named_max)
            }
            _ => Store::default(),
        };
        (self.life, self.clock, self.machine) = (0, clock, Machine::default());
        self.machine.reboot(clock.read(0));
    }

    fn stop(&mut self) {
        self.up = false;
        self.sessions.clear();
        self.of_conn.clear();
        self.wake_at = Instant::MAX;
        (self.draining, self.ending) = (false, false);
    }

    /// The process comes up.
    pub fn start(&mut self, ctx: &mut Ctx) {
        self.stop();
        self.life += 1;
        self.up = true;
        let now = Timestamp::from_micros(self.clock.read(ctx.now));
        self.started = (now, self.machine.read(ctx.now, now.as_micros()));
        self.hub = Hub::new(ctx.plan.limits.clone(), ctx.dice.roll(), ctx.plan.wheels, now);
        self.pass = Pass::new(Effects::default());
        let life = ctx.dice.roll();
        self.controllers = Sessions::new(life, bounds(ctx.plan.controller_grace_ms, true));
        self.nodes = Sessions::new(life, bounds(ctx.plan.node_grace_ms, false));
        ctx.checker.router_began(&ctx.plan.limits);
        self.open_store(ctx);
    }

    /// The process dies, and every connection with it.
    pub fn die(&mut self, ctx: &mut Ctx) {
        ctx.checker.router_died();
        self.lose_store(ctx);
        self.stop();
        for conn in 0..ctx.net.all() {
            if ctx.net.conn(conn).life == self.life {
                // A machine that is gone says nothing; a process that is gone has its kernel say it.
                let learns = if ctx.dice.one_in(4) { ctx.dice.spread(1000, 15_000_000) } else { ctx.latency() };
                let learns = if ctx.healed { ctx.latency() } else { learns };
                ctx.cut(conn, 0, learns);
            }
        }
    }

    /// The process is told to stop.
    pub fn drain(&mut self, ctx: &mut Ctx) {
        if self.draining {
            return;
        }
        self.draining = true;
        self.drain_until = ctx.now + ctx.plan.drain_us;
        ctx.checker.router_drains();
        for at in 0..self.sessions.len() {
            self.fill(at, Entry::Draining, ctx);
        }
        self.look_again(ctx);
    }

    /// Less and less often.
    fn look_again(&mut self, ctx: &mut Ctx) {
        let since = (ctx.now + ctx.plan.drain_us).saturating_sub(self.drain_until);
        ctx.after(DRAIN_LOOK_US + since / 4, Event::DrainDue { life: self.life });
    }

    /// Looks whether the drain is over. True if the process has ended.
    pub fn look_drained(&mut self, ctx: &mut Ctx) -> bool {
        self.retire_quiet(ctx);
        let held = self.hub.unanswered();
        let patient = ctx.now < self.drain_until;
        // Whatever is held: it stops reading back in time.
        let (refills, parted) = (self.still_refills(ctx), self.has_parted(ctx));
        if (held > 0 || refills || !parted) && patient {
            self.look_again(ctx);
            return false;
        }
        if held > 0 {
            self.cut_off(ctx);
        }
        self.ending = true;
        self.end_vain(ctx);
        for at in 0..self.sessions.len() {
            if !self.sessions[at].over {
                self.sessions[at].mailbox.forgive();
                self.plan_write(at, ctx);
            }
        }
        if patient && self.sessions.iter().any(|session| !session.over) {
            self.look_again(ctx);
            return false;
        }
        let parted = self.has_parted(ctx);
        ctx.checker.drain_over(held, patient, parted);
        true
    }

    /// The time of the drain is over.
    fn cut_off(&mut self, ctx: &mut Ctx) {
        self.begin(ctx);
        ctx.checker.gives_up();
        self.hub.cut_off(Rejection::new(Reason::Draining, "", 0), &mut self.pass);
        self.carry_out(ctx);
        self.settled(ctx);
        self.hub.settle(&mut self.pass);
    }

    // The engine.

    fn begin(&mut self, ctx: &mut Ctx) {
        let local = self.clock.read(ctx.now);
        self.pass.now = Timestamp::from_micros(local);
        ctx.checker.router_shows(local);
    }

    fn enter(&mut self, action: &Arc<Action>, input: Input, ctx: &mut Ctx) {
        self.inputs.push(input);
        let mut inputs = std::mem::take(&mut self.inputs);
        self.hub.enter(action, &mut inputs, &mut self.pass);
        self.inputs = inputs;
        self.carry_out(ctx);
        self.settled(ctx);
    }

    fn settled(&mut self, ctx: &mut Ctx) {
        let budget = self.hub.budget();
        ctx.checker.settled(self.pass.now.as_micros(), budget.queued(), budget.queued_bytes());
        if let Some(lanes) = self.hub.lanes() {
            ctx.checker
                .overflow_settled(lanes.pending_bytes(), self.store.is_healthy(ctx.now) && self.shares_freely(ctx));
        }
    }

    /// Whether a mark may name all actions, so that none ever waits for another.
    fn shares_freely(&self, ctx: &Ctx) -> bool {
        self.store.named_max() >= usize::from(ctx.plan.actions)
    }

    /// Works on the timers that are due.
    pub fn due(&mut self, ctx: &mut Ctx) {
        self.wake_at = Instant::MAX;
        self.begin(ctx);
        while self.hub.advance(ctx.plan.timers_at_once, &mut self.pass) {
            self.carry_out(ctx);
        }
        self.carry_out(ctx);
        self.settled(ctx);
        if let Some(at) = self.hub.next_wake() {
            self.wake_at(self.clock.when(at.as_micros()), ctx);
        }
        self.hub.settle(&mut self.pass);
    }

    fn wake_at(&mut self, at: Instant, ctx: &mut Ctx) {
        let at = at.max(ctx.now + 1);
        if at < self.wake_at {
            self.wake_at = at;
            ctx.agenda.plan(at, Event::RouterDue { life: self.life });
        }
    }

    /// Whether a wake-up is the one that was planned last.
    pub fn is_due(&self, now: Instant) -> bool {
        now >= self.wake_at
    }

    fn carry_out(&mut self, ctx: &mut Ctx) {
        if self.pass.performer.0.is_empty() {
            return;
        }
        std::mem::swap(&mut self.effects, &mut self.pass.performer.0);
        let mut effects = std::mem::take(&mut self.effects);
        for effect in effects.drain(..) {
            self.perform(effect, ctx);
        }
        self.effects = effects;
    }

    fn perform(&mut self, effect: Effect, ctx: &mut Ctx) {
        let now = self.pass.now.as_micros();
        match effect {
            Effect::Write(StreamId(to), entry) => {
                let to = usize::try_from(to).unwrap_or(usize::MAX);
                self.note(now, to, &entry, ctx);
                self.fill(to, entry, ctx);
            }
            Effect::AwaitRoom(StreamId(to), action, key) => self.await_room(to, (action, key), ctx),
            Effect::Spill(spill) => self.spill(*spill, ctx),
            Effect::Refill(refill) => self.refill(&refill, ctx),
            Effect::WakeAt(at) => self.wake_at(self.clock.when(at.as_micros()), ctx),
        }
    }

    /// Tells the checker of what is written.
    fn note(&self, now: u64, to: usize, entry: &Entry, ctx: &mut Ctx) {
        match entry {
            Entry::Dispatch(dispatch) => {
                if let Some(call) = ctx.call(dispatch.id) {
                    let intact = dispatch.payload == ctx.payload(call);
                    let Dispatch { container, epoch, attempt, time_left_ms, .. } = *dispatch;
                    ctx.checker.dispatched(now, call, number(to), container, epoch, attempt, time_left_ms, intact);
                }
            }
            Entry::Answer(answer) => {
                if let Some(call) = ctx.call(answer.id) {
                    ctx.checker.answered(now, call, number(to), outcome_said(&answer.outcome));
                }
            }
            Entry::Refuse(_) | Entry::Drain(..) | Entry::Draining => {}
        }
    }

    fn await_room(&mut self, to: u64, awaiting: Awaiting, ctx: &mut Ctx) {
        let to = usize::try_from(to).unwrap_or(usize::MAX);
        if let Some(judged) = self.judged(to, awaiting.1, &awaiting.0) {
            ctx.checker.awaits_room(judged);
        }
        self.sessions[to].mailbox.await_room(awaiting);
        self.plan_write(to, ctx);
    }

    fn judged(&self, at: usize, key: ContainerKey, of: &Arc<Action>) -> Option<u32> {
        let mut members = self.sessions[at].roster.iter();
        let member = members.find(|member| member.key == key && Arc::ptr_eq(&member.action, of));
        member.map(|member| member.judged)
    }

    /// The session of a connection.
    fn at(&self, conn: u32) -> Option<usize> {
        let at = *self.of_conn.get(conn as usize)? as usize;
        (self.sessions.get(at)?.conn == Some(conn)).then_some(at)
    }

    // For the judge.

    /// A quiet moment: shows the judge what the engine counts.
    pub fn show(&mut self, ctx: &mut Ctx) {
        self.hub.settle(&mut self.pass);
        let totals = self.hub.totals();
        let rejected = Reason::ALL
            .iter()
            .filter(|reason| !matches!(reason, Reason::IdInFlight | Reason::IdEnded | Reason::OutcomeUnknown));
        let sums = Sums {
            accepted: totals.of(Count::Accepted),
            dispatched: totals.of(Count::Dispatched),
            completed: totals.of(Count::Completed),
            action_failed: totals.of(Count::ActionFailed),
            platform_failed: totals.of(Count::PlatformFailed),
            expired: totals.of(Count::Expired),
            lost: totals.of(Count::Lost),
            timed_out: totals.of(Count::TimedOut),
            unsent: totals.of(Count::Unsent),
            returned: totals.of(Count::Returned),
            spilled: totals.of(Count::Spilled),
            refilled: totals.of(Count::Refilled),
            recovered: totals.of(Count::Recovered),
            repeated: totals.of(Count::Repeated),
            spill_refused: totals.of(Count::SpillRefused),
            spill_unknown: totals.of(Count::SpillUnknown),
            spill_damaged: totals.of(Count::SpillDamaged),
            cut_off: totals.of(Count::CutOff),
            rejected: rejected.map(|reason| totals.rejected(*reason)).sum(),
        };
        ctx.checker.quiet(&sums, self.hub.held());
        self.show_conserved(ctx);
    }

    /// After the faults, when nobody waits any more.
    pub fn show_rested(&mut self, ctx: &mut Ctx) {
        self.show(ctx);
        let waiting = |session: &Session| session.hands.len() + usize::from(session.mailbox.keeps_writer_busy());
        let mailboxes = self.sessions.iter().filter(|session| !session.over).map(waiting).sum();
        let parked = self.controllers.parked() + self.nodes.parked();
        let audit = self.hub.audit(&mut self.pass);
        ctx.checker.rested(self.hub.held(), mailboxes, parked, &audit);
        self.show_store_rested(ctx);
    }
}

impl Default for Router {
    fn default() -> Self {
        Self::new()
    }
}

fn number(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

fn said(status: RunStatus) -> Said {
    match status {
        RunStatus::Succeeded => Said::Completed,
        RunStatus::ActionFailed => Said::ActionFailed,
        RunStatus::PlatformFailed => Said::PlatformFailed,
    }
}

/// An outcome, without what it carries.
pub fn outcome_said(outcome: &Outcome) -> Said {
    match outcome {
        Outcome::Completed(_) => Said::Completed,
        Outcome::ActionFailed(_) => Said::ActionFailed,
        Outcome::PlatformFailed(_) => Said::PlatformFailed,
        Outcome::Expired => Said::Expired,
        Outcome::Rejected(rejection) => Said::rejected(rejection.reason),
        Outcome::Lost => Said::Lost,
        Outcome::TimedOut => Said::TimedOut,
        Outcome::Accepted(_) => Said::Accepted,
    }
}

const DRAIN_LOOK_US: u64 = 1_000;

fn bounds(grace_ms: u64, names_are_unique: bool) -> Bounds {
    Bounds { grace: Duration::from_millis(grace_ms), sessions_max: 10_000, names_are_unique }
}
