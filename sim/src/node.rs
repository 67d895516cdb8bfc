//! An invoker node: containers that grant credits, run what they get, complete it, hand it back, come and go, and, where the
//! plan says so, do all that wrongly.

use crate::check::{Call, Said};
use crate::ctx::{Ctx, Event};
use crate::mailbox::Entry;
use crate::net::{Down, Parcel, Peer, Register, Up};
use bytes::Bytes;
use engine::effect::Dispatch;
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
    welcomed: bool,
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
    /// Runs of this registration.
    running: u32,
    /// Runs of earlier streams that go on and take their share.
    left_over: u32,
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
    /// The stream it came on; on another one nothing is said of it.
    conn: u32,
    over: bool,
}

impl Node {
    /// As before the world began.
    pub fn clear(&mut self, index: u16) {
        self.index = index;
        (self.incarnation, self.up) = (0, false);
        (self.next_number, self.next_epoch) = (0, 1);
        self.forget();
    }

    fn forget(&mut self) {
        self.conn = None;
        (self.welcomed, self.flushing) = (false, false);
        self.out.clear();
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
    }

    /// The process dies.
    pub fn die(&mut self, ctx: &mut Ctx) {
        self.up = false;
        if let Some(conn) = self.conn {
            let learns = ctx.latency();
            ctx.cut(conn, learns, 0);
        }
        self.forget();
    }

    fn add_any_container(&mut self, ctx: &mut Ctx) {
        let action = u16::try_from(ctx.dice.below(ctx.plan.actions.into())).unwrap_or(0);
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
            leaving: false,
            warm,
            gone: false,
        });
        if self.welcomed {
            self.register(self.containers.len() - 1, ctx);
        }
    }

    fn register(&mut self, at: usize, ctx: &mut Ctx) {
        let container = &self.containers[at];
        let credits = container.concurrency.saturating_sub(container.left_over);
        let register = Register {
            container: container.number,
            epoch: container.epoch,
            action: container.action,
            concurrency: container.concurrency,
            credits,
            warm: container.warm,
            held: Vec::new(),
        };
        self.say(Up::Register(register), ctx);
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
        frame.push(Up::Hello { session: Bytes::new() });
        ctx.send_up(conn, frame);
    }

    fn connect_later(&mut self, ctx: &mut Ctx) {
        let wait = 1 + ctx.dice.below(ctx.plan.reconnect_us * 2);
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
                frame.drain(..).for_each(|down| self.take(down, conn, ctx));
                ctx.net.reuse_down(frame);
            }
            Parcel::Finish | Parcel::Broken => self.stream_ended(conn, ctx),
        }
    }

    fn take(&mut self, down: Down, conn: u32, ctx: &mut Ctx) {
        match down {
            Down::Welcome { .. } => {
                self.welcomed = true;
                (0..self.containers.len()).for_each(|at| self.register(at, ctx));
            }
            Down::Entry(Entry::Dispatch(dispatch)) => self.run(dispatch, conn, ctx),
            Down::Entry(Entry::Drain(number, epoch)) => self.drained(number, epoch, ctx),
            Down::Entry(_) => {}
        }
    }

    fn run(&mut self, dispatch: Dispatch, conn: u32, ctx: &mut Ctx) {
        let Some(call) = ctx.call(dispatch.id) else { return };
        let (number, epoch) = (dispatch.container, dispatch.epoch);
        ctx.checker.arrived(call, self.index, number);
        let Some(at) = self.find(number, epoch) else { return };
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
        let run = Run { container: number, epoch, call, conn, over: false };
        let place = self.free_runs.pop().unwrap_or_else(|| {
            self.runs.push(run);
            u32::try_from(self.runs.len() - 1).unwrap_or(u32::MAX)
        });
        self.runs[place as usize] = run;
        let takes = ctx.dice.wait(ctx.plan.service_us);
        let run = place;
        ctx.after(takes, Event::RunEnds { node: self.index, incarnation: self.incarnation, run });
    }

    fn find(&self, number: u32, epoch: u32) -> Option<usize> {
        self.containers.iter().position(|other| other.number == number && other.epoch == epoch && !other.gone)
    }

    /// A run ends.
    pub fn run_ends(&mut self, run: u32, ctx: &mut Ctx) {
        let Run { container, epoch, call, conn, .. } = self.runs[run as usize];
        self.runs[run as usize].over = true;
        self.free_runs.push(run);
        let (status, said) = if ctx.dice.chance(ctx.plan.action_fails) {
            (RunStatus::ActionFailed, Said::ActionFailed)
        } else if ctx.dice.chance(ctx.plan.platform_fails) {
            (RunStatus::PlatformFailed, Said::PlatformFailed)
        } else {
            (RunStatus::Succeeded, Said::Completed)
        };
        ctx.checker.finished(call, self.index, said);
        if self.conn != Some(conn) {
            return self.run_ended_late(container, epoch, ctx);
        }
        let Some(at) = self.find(container, epoch) else { return };
        let apart = ctx.dice.chance(ctx.plan.credit_apart);
        let open = &mut self.containers[at];
        open.running -= 1;
        open.warm = true;
        let credits = u32::from(!open.leaving && !apart);
        let (id, result) = (ctx.id(call), ctx.result(call));
        self.say(Up::Complete { container, epoch, id, status, result: result.clone(), credits }, ctx);
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
        if open.leaving || !self.welcomed {
            return;
        }
        let (container, epoch) = (open.number, open.epoch);
        // Else it goes on taking what comes until it is told that nothing more will.
        let gone = ctx.dice.one_in(4);
        if gone {
            self.containers[at].gone = true;
        }
        self.say(Up::Leave { container, epoch, gone }, ctx);
    }

    fn plan_churn(&mut self, ctx: &mut Ctx) {
        if ctx.plan.churn_us > 0 {
            let wait = 1 + ctx.dice.wait(ctx.plan.churn_us);
            ctx.after(wait, Event::Churn { node: self.index, incarnation: self.incarnation });
        }
    }

    /// All its containers are lost with the stream. It registers them again on another, under other epochs.
    fn stream_ended(&mut self, conn: u32, ctx: &mut Ctx) {
        let learns = ctx.latency();
        ctx.cut(conn, learns, 0);
        self.conn = None;
        (self.welcomed, self.flushing) = (false, false);
        self.out.clear();
        self.containers.retain(|container| !container.gone && !container.leaving);
        for container in &mut self.containers {
            container.left_over += std::mem::take(&mut container.running);
            container.epoch = self.next_epoch;
            self.next_epoch += 1;
        }
        self.connect_later(ctx);
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
