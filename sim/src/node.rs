//! An invoker node: containers that grant credits, run what they get, complete it, hand it back, come and go, and, where the
//! plan says so, do all that wrongly.

use crate::check::{Call, Said};
use crate::ctx::{Ctx, Event};
use crate::net::{Down, Parcel, Peer, Register, Up};
use bytes::Bytes;
use engine::effect::{Dispatch, Entry};
use engine::id::ActivationId;
use engine::outcome::RunStatus;

/// The process.
#[derive(Debug, Default)]
pub struct Node {
    index: u16,
    /// Which of its lives it is in.
    pub incarnation: u32,
    /// It runs.
    pub up: bool,
    conn: Option<u32>,
    /// What names its session, and how many it had.
    token: Bytes,
    session: u32,
    /// Attempts to connect since it got work last.
    tries: u32,
    welcomed: bool,
    /// It got something and is about to die of it.
    dying: bool,
    /// Runs that ended while it was away; their completions go out once it has rejoined.
    unsaid: Vec<Up>,
    unsaid_runs: Vec<u32>,
    out: Vec<Up>,
    flushing: bool,
    containers: Vec<Container>,
    runs: Vec<Run>,
    free_runs: Vec<u32>,
    next_number: u32,
    next_epoch: u32,
}

#[derive(Debug)]
struct Container {
    number: u32,
    epoch: u32,
    action: u16,
    concurrency: u32,
    /// Received under this registration and not completed.
    running: u32,
    /// Runs of earlier registrations that go on and take their share.
    left_over: u32,
    /// Credits granted and dispatches received since it was registered, or registered again.
    granted: u32,
    received: u32,
    /// It said that it leaves, and goes on taking what comes until it is told that nothing more will.
    asked: bool,
    leaving: bool,
    warm: bool,
    gone: bool,
}

/// Something that runs.
#[derive(Debug, Clone, Copy)]
struct Run {
    container: u32,
    epoch: u32,
    call: Call,
    /// The session it came in; in another one nothing is said of it.
    session: u32,
    /// How it ended while the node was away.
    ended: bool,
    over: bool,
}

impl Node {
    /// As before the world began.
    pub fn clear(&mut self, index: u16) {
        self.index = index;
        (self.incarnation, self.up) = (0, false);
        (self.next_number, self.next_epoch) = (0, 1);
        self.forget();
        (self.session, self.tries) = (0, 0);
    }

    fn forget(&mut self) {
        self.conn = None;
        (self.welcomed, self.flushing, self.dying) = (false, false, false);
        self.token = Bytes::new();
        self.session += 1;
        self.out.clear();
        self.unsaid.clear();
        self.unsaid_runs.clear();
        self.containers.clear();
        self.runs.clear();
        self.free_runs.clear();
    }

    fn peer(&self) -> Peer {
        Peer::Node { index: self.index }
    }

    /// The process starts, with containers.
    pub fn start(&mut self, ctx: &mut Ctx) {
        self.up = true;
        self.incarnation += 1;
        let count = ctx.dice.between(1, ctx.plan.containers_per_node.into());
        (0..count).for_each(|_| self.add_any_container(ctx));
        let wait = ctx.dice.below(ctx.plan.reconnect_us);
        ctx.after(wait, Event::Connect { peer: self.peer(), incarnation: self.incarnation });
        self.plan_churn(ctx);
        self.plan_audit(ctx);
    }

    /// The process dies.
    pub fn die(&mut self, ctx: &mut Ctx) {
        self.up = false;
        if let Some(conn) = self.conn {
            let learns = ctx.latency();
            ctx.cut(conn, learns, 0);
        }
        let token = std::mem::take(&mut self.token);
        self.forget();
        if ctx.plan.crashes.is_some_and(|crashes| crashes.resumes) {
            self.token = token;
        }
    }

    fn add_any_container(&mut self, ctx: &mut Ctx) {
        let action = u16::try_from(ctx.dice.below(ctx.plan.hosted.into())).unwrap_or(0);
        self.add_container(action, ctx);
    }

    fn add_container(&mut self, action: u16, ctx: &mut Ctx) {
        let dice = &mut ctx.dice;
        let concurrency = u32::try_from(dice.spread(1, ctx.plan.concurrency_max.into())).unwrap_or(1);
        let (number, epoch) = (self.next_number, self.next_epoch);
        self.next_number += 1;
        self.next_epoch += 1;
        let warm = dice.one_in(3);
        self.containers.push(Container {
            number,
            epoch,
            action,
            concurrency,
            running: 0,
            left_over: 0,
            granted: 0,
            received: 0,
            asked: false,
            leaving: false,
            warm,
            gone: false,
        });
        if self.welcomed {
            self.register(self.containers.len() - 1, ctx);
        }
    }

    fn register(&mut self, at: usize, ctx: &mut Ctx) {
        let session = self.session;
        let container = &mut self.containers[at];
        let runs = self.runs.iter().filter(|run| {
            !run.over && run.session == session && (run.container, run.epoch) == (container.number, container.epoch)
        });
        let held: Vec<ActivationId> = runs.map(|run| ctx.id(run.call)).collect();
        let busy = u32::try_from(held.len()).unwrap_or(u32::MAX) + container.left_over;
        container.running = u32::try_from(held.len()).unwrap_or(u32::MAX);
        let credits = if container.leaving { 0 } else { container.concurrency.saturating_sub(busy) };
        (container.granted, container.received) = (credits, 0);
        let register = Register {
            container: container.number,
            epoch: container.epoch,
            action: container.action,
            concurrency: container.concurrency,
            credits,
            warm: container.warm,
            held,
        };
        let leaves = container.asked && !container.leaving;
        let (number, epoch) = (container.number, container.epoch);
        self.say(Up::Register(register), ctx);
        if leaves {
            self.say(Up::Leave { container: number, epoch, gone: false }, ctx);
        }
    }

    /// Tries to connect; `reachable` is the router's life, if it can be reached.
    pub fn connect(&mut self, reachable: Option<u32>, ctx: &mut Ctx) {
        if self.conn.is_some() {
            return;
        }
        let Some(life) = reachable else { return self.connect_later(ctx) };
        let conn = ctx.net.open(self.peer(), self.incarnation, life);
        self.conn = Some(conn);
        let mut frame = ctx.net.up_frame();
        frame.push(Up::Hello { session: self.token.clone() });
        ctx.send_up(conn, frame);
    }

    fn connect_later(&mut self, ctx: &mut Ctx) {
        self.tries = (self.tries + 1).min(10);
        let wait = 1 + ctx.dice.below(ctx.plan.reconnect_us << self.tries);
        ctx.after(wait, Event::Connect { peer: self.peer(), incarnation: self.incarnation });
    }

    fn say(&mut self, up: Up, ctx: &mut Ctx) {
        self.out.push(up);
        if !std::mem::replace(&mut self.flushing, true) {
            let wait = if ctx.plan.batch_us == 0 { 0 } else { ctx.dice.below(ctx.plan.batch_us) };
            ctx.after(wait, Event::Flush { peer: self.peer(), incarnation: self.incarnation });
        }
    }

    /// Writes what there is to say.
    pub fn flush(&mut self, ctx: &mut Ctx) {
        self.flushing = false;
        let Some(conn) = self.conn.filter(|_| !self.out.is_empty()) else { return };
        let mut frame = ctx.net.up_frame();
        frame.append(&mut self.out);
        ctx.send_up(conn, frame);
    }

    /// Something arrived.
    pub fn receive(&mut self, conn: u32, parcel: Parcel<Down>, ctx: &mut Ctx) {
        if self.conn != Some(conn) {
            if let Parcel::Frame(frame) = parcel {
                ctx.net.reuse_down(frame);
            }
            return;
        }
        match parcel {
            Parcel::Frame(mut frame) => {
                frame.drain(..).for_each(|down| self.take(down, ctx));
                ctx.net.reuse_down(frame);
            }
            Parcel::Finish => {
                self.token = Bytes::new();
                self.stream_ended(conn, ctx);
            }
            Parcel::Broken => self.stream_ended(conn, ctx),
        }
    }

    fn take(&mut self, down: Down, ctx: &mut Ctx) {
        match down {
            Down::Welcome { session, resumed } => self.welcomed(session, resumed, ctx),
            Down::Entry(Entry::Dispatch(dispatch)) => self.run(dispatch, ctx),
            Down::Entry(Entry::Drain(number, epoch)) => self.drained(number, epoch, ctx),
            Down::Entry(_) => {}
        }
    }

    /// In a session that goes on the containers are registered as they were; else under other epochs, and what they had is
    /// nobody's any more.
    fn welcomed(&mut self, session: Bytes, resumed: bool, ctx: &mut Ctx) {
        self.welcomed = true;
        self.token = session;
        self.containers.retain(|container| !container.gone);
        if !resumed {
            self.begin_session();
        }
        (0..self.containers.len()).for_each(|at| self.register(at, ctx));
        if resumed {
            self.say(Up::Rejoined, ctx);
        }
        for up in std::mem::take(&mut self.unsaid) {
            if let Up::Complete { container, epoch, credits, .. } = &up
                && let Some(at) = self.find(*container, *epoch)
            {
                let open = &mut self.containers[at];
                open.running -= 1;
                open.granted = open.granted.wrapping_add(*credits);
            }
            self.say(up, ctx);
        }
        for run in std::mem::take(&mut self.unsaid_runs) {
            let of = &mut self.runs[run as usize];
            (of.ended, of.over) = (false, true);
            self.free_runs.push(run);
        }
        (0..self.containers.len()).for_each(|at| self.leave_if_done(at, ctx));
    }

    fn begin_session(&mut self) {
        self.session += 1;
        self.unsaid.clear();
        self.containers.retain(|container| !container.leaving && !container.asked);
        for container in &mut self.containers {
            let session = self.session;
            let runs = self
                .runs
                .iter()
                .filter(|run| !run.over && !run.ended && run.session < session && run.container == container.number);
            container.left_over = u32::try_from(runs.count()).unwrap_or(u32::MAX);
            container.epoch = self.next_epoch;
            self.next_epoch += 1;
        }
    }

    fn run(&mut self, dispatch: Dispatch, ctx: &mut Ctx) {
        let Some(call) = ctx.call(dispatch.id) else { return };
        self.tries = 0;
        let (number, epoch) = (dispatch.container, dispatch.epoch);
        ctx.checker.arrived(call, self.index, number);
        let Some(at) = self.find(number, epoch) else { return };
        self.containers[at].received = self.containers[at].received.wrapping_add(1);
        self.die_if_it_is_to(ctx);
        if ctx.dice.chance(ctx.plan.returns) {
            ctx.checker.given_back(call, self.index);
            self.say(Up::Return { container: number, epoch, id: dispatch.id, payload: dispatch.payload }, ctx);
            let wait = 1 + ctx.dice.below(ctx.plan.service_us);
            let (node, incarnation) = (self.index, self.incarnation);
            ctx.after(wait, Event::Grant { node, incarnation, container: number, epoch });
            return;
        }
        self.containers[at].running += 1;
        ctx.checker.started(call, self.index, number);
        let run = Run { container: number, epoch, call, session: self.session, ended: false, over: false };
        let place = self.free_runs.pop().unwrap_or_else(|| {
            self.runs.push(run);
            u32::try_from(self.runs.len() - 1).unwrap_or(u32::MAX)
        });
        self.runs[place as usize] = run;
        let mut takes = ctx.dice.wait(ctx.plan.service_us);
        if !ctx.healed && ctx.dice.chance(ctx.plan.never_answers) {
            // It hangs for as long as things go wrong.
            takes += ctx.plan.heal_at.saturating_sub(ctx.now);
        }
        let run = place;
        ctx.after(takes, Event::RunEnds { node: self.index, incarnation: self.incarnation, run });
    }

    fn die_if_it_is_to(&mut self, ctx: &mut Ctx) {
        let crashes = ctx.plan.crashes.filter(|_| self.index + 1 == ctx.plan.nodes && !ctx.healed);
        if let Some(crashes) = crashes.filter(|_| !std::mem::replace(&mut self.dying, true)) {
            let wait = ctx.dice.below(crashes.after_us);
            ctx.after(wait, Event::NodeDies { node: self.index, incarnation: self.incarnation });
        }
    }

    fn find(&self, number: u32, epoch: u32) -> Option<usize> {
        self.containers.iter().position(|other| other.number == number && other.epoch == epoch && !other.gone)
    }

    /// A run ends.
    pub fn run_ends(&mut self, run: u32, ctx: &mut Ctx) {
        let Run { container, epoch, call, session, .. } = self.runs[run as usize];
        let (status, said) = if ctx.dice.chance(ctx.plan.action_fails) {
            (RunStatus::ActionFailed, Said::ActionFailed)
        } else if ctx.dice.chance(ctx.plan.platform_fails) {
            (RunStatus::PlatformFailed, Said::PlatformFailed)
        } else {
            (RunStatus::Succeeded, Said::Completed)
        };
        ctx.checker.finished(call, self.index, said);
        self.free_runs.push(run);
        if self.session != session {
            self.runs[run as usize].over = true;
            return self.run_ended_late(container, epoch, ctx);
        }
        let Some(at) = self.find(container, epoch) else {
            self.runs[run as usize].over = true;
            return;
        };
        let apart = self.welcomed && ctx.dice.chance(ctx.plan.credit_apart);
        let open = &mut self.containers[at];
        open.warm = true;
        let credits = u32::from(!open.leaving && !apart);
        let (id, result) = (ctx.id(call), ctx.result(call));
        let complete = Up::Complete { container, epoch, id, status, result: result.clone(), credits };
        if !self.welcomed {
            // Held until it can be said.
            self.free_runs.pop();
            self.runs[run as usize].ended = true;
            self.unsaid_runs.push(run);
            return self.unsaid.push(complete);
        }
        self.runs[run as usize].over = true;
        open.running -= 1;
        open.granted = open.granted.wrapping_add(credits);
        self.say(complete, ctx);
        if apart {
            let wait = ctx.dice.below(ctx.plan.service_us);
            let (node, incarnation) = (self.index, self.incarnation);
            ctx.after(wait, Event::Grant { node, incarnation, container, epoch });
        }
        if ctx.dice.chance(ctx.plan.lies) && !ctx.healed {
            self.lie(at, id, status, result, ctx);
        }
        self.leave_if_done(at, ctx);
    }

    /// Its stream is over and nobody hears of it; its place is free for another.
    fn run_ended_late(&mut self, container: u32, epoch: u32, ctx: &mut Ctx) {
        // It was registered again under another epoch since.
        let found = self.containers.iter().position(|other| other.number == container && !other.gone);
        let Some(at) = found.filter(|at| self.containers[*at].epoch != epoch) else { return };
        let open = &mut self.containers[at];
        if open.left_over > 0 {
            open.left_over -= 1;
            let (number, epoch, leaving) = (open.number, open.epoch, open.leaving);
            if self.welcomed && !leaving {
                self.containers[at].granted = self.containers[at].granted.wrapping_add(1);
                self.say(Up::Credit { container: number, epoch, credits: 1 }, ctx);
            }
        }
    }

    /// Says something that is not so. The router has to see through it.
    fn lie(&mut self, at: usize, id: ActivationId, status: RunStatus, result: Bytes, ctx: &mut Ctx) {
        let (container, epoch) = (self.containers[at].number, self.containers[at].epoch);
        let up = match ctx.dice.below(6) {
            0 => Up::Complete { container, epoch, id, status, result, credits: 1 },
            1 => Up::Complete { container, epoch: epoch.wrapping_sub(1), id, status, result, credits: 1 },
            2 => Up::Credit { container, epoch, credits: self.containers[at].concurrency + 1 },
            3 => Up::Credit { container, epoch: epoch + 1_000_000, credits: 1 },
            4 => {
                // One that runs beside it. Of an id that is on its way to this container it could not be told that it lies.
                let other = self.runs.iter().find(|run| !run.over && run.container != container);
                let Some(other) = other.map(|run| run.call) else { return };
                let id = ctx.id(other);
                Up::Complete { container, epoch, id, status, result: Bytes::from_static(b"lie"), credits: 1 }
            }
            _ => Up::Return { container, epoch, id, payload: result },
        };
        self.say(up, ctx);
    }

    /// Grants a credit that was kept back.
    pub fn grant(&mut self, container: u32, epoch: u32, ctx: &mut Ctx) {
        if let Some(at) = self.find(container, epoch)
            && !self.containers[at].leaving
            && self.welcomed
        {
            // What was kept back before it was registered anew is among its credits since.
            let open = &mut self.containers[at];
            let unused = open.granted.wrapping_sub(open.received);
            if unused + open.running + open.left_over >= open.concurrency {
                return;
            }
            open.granted = open.granted.wrapping_add(1);
            self.say(Up::Credit { container, epoch, credits: 1 }, ctx);
        }
    }

    fn drained(&mut self, number: u32, epoch: u32, ctx: &mut Ctx) {
        if let Some(at) = self.find(number, epoch) {
            self.containers[at].leaving = true;
            self.leave_if_done(at, ctx);
        }
    }

    fn leave_if_done(&mut self, at: usize, ctx: &mut Ctx) {
        let open = &mut self.containers[at];
        if open.leaving && open.running == 0 && !open.gone {
            open.gone = true;
            let (container, epoch) = (open.number, open.epoch);
            self.say(Up::Leave { container, epoch, gone: true }, ctx);
        }
    }

    /// Containers come and go.
    pub fn churn(&mut self, ctx: &mut Ctx) {
        self.containers.retain(|container| !container.gone || container.running > 0);
        if ctx.healed {
            return;
        }
        if ctx.dice.one_in(2) || self.containers.is_empty() {
            self.add_any_container(ctx);
        } else {
            let at = ctx.dice.index(self.containers.len());
            self.leave(at, ctx);
        }
        self.plan_churn(ctx);
    }

    fn leave(&mut self, at: usize, ctx: &mut Ctx) {
        let open = &self.containers[at];
        if open.leaving || open.asked || open.gone || !self.welcomed {
            return;
        }
        let (container, epoch) = (open.number, open.epoch);
        // Else it goes on taking what comes until it is told that nothing more will.
        let gone = ctx.dice.one_in(4);
        let open = &mut self.containers[at];
        (open.gone, open.asked) = (gone, true);
        self.say(Up::Leave { container, epoch, gone }, ctx);
    }

    fn plan_churn(&mut self, ctx: &mut Ctx) {
        if ctx.plan.churn_us > 0 {
            let wait = 1 + ctx.dice.wait(ctx.plan.churn_us);
            ctx.after(wait, Event::Churn { node: self.index, incarnation: self.incarnation });
        }
    }

    /// It comes back, in time or not.
    fn stream_ended(&mut self, conn: u32, ctx: &mut Ctx) {
        let learns = ctx.latency();
        ctx.cut(conn, learns, 0);
        self.conn = None;
        (self.welcomed, self.flushing) = (false, false);
        // Completions that never left are as good as lost on the way: the simplest that a node may do.
        self.out.clear();
        self.connect_later(ctx);
    }

    fn plan_audit(&mut self, ctx: &mut Ctx) {
        if ctx.plan.audit_us > 0 && !ctx.healed {
            let wait = 1 + ctx.dice.wait(ctx.plan.audit_us);
            ctx.after(wait, Event::Audit { node: self.index, incarnation: self.incarnation });
        }
    }

    /// States its containers' credits, and now and then wrongly.
    pub fn audit(&mut self, ctx: &mut Ctx) {
        for at in 0..self.containers.len() {
            let open = &self.containers[at];
            if open.gone || open.asked || open.leaving || !self.welcomed {
                continue;
            }
            let (container, epoch, received) = (open.number, open.epoch, open.received);
            let mut credits = open.granted.wrapping_sub(open.received);
            if ctx.dice.chance(ctx.plan.lies) && !ctx.healed {
                credits = u32::try_from(ctx.dice.below(8)).unwrap_or(0);
                self.containers[at].granted = received.wrapping_add(credits);
            }
            self.say(Up::Audit { container, epoch, credits, received }, ctx);
        }
        self.plan_audit(ctx);
    }

    /// After the faults: it has a container for each of these actions.
    pub fn serve(&mut self, actions: u16, ctx: &mut Ctx) {
        for action in 0..actions {
            if !self.containers.iter().any(|other| other.action == action && !other.leaving && !other.gone) {
                self.add_container(action, ctx);
            }
        }
    }

    /// The connection it has.
    pub fn conn(&self) -> Option<u32> {
        self.conn
    }
}
