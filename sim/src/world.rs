//! One seed's world: who is there, what goes wrong, and one loop over what happens next. The first phase is about safety: faults
//! strike and no promise may break. Then all is healed, and everything must come to rest as if nothing had been.

use crate::agenda::Instant;
use crate::check::{Checker, Moved, Seen, Violation};
use crate::clock::Clock;
use crate::controller::Controller;
use crate::ctx::{Ctx, Event};
use crate::net::Peer;
use crate::node::Node;
use crate::plan::{Fault, Kind, Plan};
use crate::router::Router;

/// A world, and after it the next: its memory is used again.
#[derive(Debug, Default)]
pub struct World {
    ctx: Ctx,
    router: Router,
    controllers: Vec<Controller>,
    nodes: Vec<Node>,
    /// Until when each process stands still: the router, then controllers, then nodes.
    stopped: Vec<Instant>,
    /// Until when each peer and the router do not reach each other, numbered as above.
    apart: Vec<Instant>,
    restarting: bool,
    resting: bool,
    injected: [u64; Kind::ALL.len()],
    events: u64,
}

/// What came of a seed.
#[derive(Debug, Clone)]
pub struct Report {
    /// Activations that callers asked for.
    pub activations: u64,
    /// Things that happened.
    pub events: u64,
    /// Faults by kind.
    pub injected: [u64; Kind::ALL.len()],
    /// What went into the store of overflow and came back.
    pub moved: Moved,
    /// The hash of the history.
    pub digest: u64,
    /// The first broken promise.
    pub violation: Option<Violation>,
}

/// More happens in no world: one that passes it goes round in circles.
const EVENTS_MAX: u64 = 1_000_000;
/// So many more for each activation.
const EVENTS_MAX_EACH: u64 = 2_000;
/// A side that hears nothing gives a connection up after at most this long.
const KEEPALIVE_US: u64 = 15_000_000;
/// After the last answer everything gets this long to come to rest.
const REST_US: u64 = 70_000_000;

/// The node, if it is still in that life.
fn alive(nodes: &mut [Node], index: u16, incarnation: u32) -> Option<&mut Node> {
    let node = &mut nodes[usize::from(index)];
    (node.incarnation == incarnation && node.up).then_some(node)
}

impl World {
    /// Runs one world to its end, or to the first broken promise. `tell` keeps its history.
    pub fn run(&mut self, plan: Plan, tell: bool) -> Report {
        self.begin(plan, tell);
        while let Some((at, event)) = self.ctx.agenda.take() {
            self.events += 1;
            self.ctx.now = at;
            self.ctx.checker.at(at);
            if let Event::Rest = event {
                self.rest();
                break;
            }
            self.happen(event);
            if self.ctx.checker.violation().is_some() {
                break;
            }
            self.look_whether_done();
            if self.events > EVENTS_MAX + EVENTS_MAX_EACH * u64::from(self.ctx.plan.activations) {
                self.ctx.checker.restless();
                break;
            }
        }
        Report {
            activations: self.ctx.asks.len() as u64,
            events: self.events,
            injected: self.injected,
            moved: self.ctx.checker.moved(),
            digest: self.ctx.checker.digest(),
            violation: self.ctx.checker.violation().cloned(),
        }
    }

    /// The judge of the world that ran last, for its story.
    pub fn checker(&self) -> &Checker {
        &self.ctx.checker
    }

    /// What the last seed meant.
    pub fn plan(&self) -> &Plan {
        &self.ctx.plan
    }

    fn begin(&mut self, plan: Plan, tell: bool) {
        self.ctx.begin(plan, tell);
        let plan = &self.ctx.plan;
        let (controllers, nodes, ppm) = (plan.controllers, plan.nodes, plan.clock_ppm_max);
        let desks = plan.desks;
        let lines = if plan.two_lines { 2 } else { 1 };
        let (activations, faults) = (plan.activations, plan.faults.clone());
        (self.events, self.injected) = (0, [0; Kind::ALL.len()]);
        (self.restarting, self.resting) = (false, false);
        let processes = 1 + usize::from(controllers) + usize::from(nodes);
        for until in [&mut self.stopped, &mut self.apart] {
            until.clear();
            until.resize(processes, 0);
        }
        self.router.clear(Clock::draw(&mut self.ctx.dice, ppm), &self.ctx.plan);
        self.router.start(&mut self.ctx);
        self.controllers.resize_with(controllers.into(), Controller::default);
        for index in 0..controllers {
            let share = activations / u32::from(controllers) + u32::from(index == 0);
            let clock = Clock::draw(&mut self.ctx.dice, ppm);
            self.controllers[usize::from(index)].clear(index, clock, share, lines, index < desks);
            self.controllers[usize::from(index)].start(&mut self.ctx);
            let wait = self.gap();
            self.ctx.after(wait, Event::Arrival { controller: index });
        }
        self.nodes.resize_with(nodes.into(), Node::default);
        for index in 0..nodes {
            self.nodes[usize::from(index)].clear(index);
            self.nodes[usize::from(index)].start(&mut self.ctx);
        }
        for (index, fault) in (0..).zip(&faults) {
            self.ctx.agenda.plan(fault.at, Event::FaultBegins { index });
        }
        self.ctx.agenda.plan(self.ctx.plan.heal_at, Event::Heal);
    }

    fn gap(&mut self) -> u64 {
        let (plan, now) = (&self.ctx.plan, self.ctx.now);
        let mean = plan.gap_us * u64::from(plan.controllers);
        let times = plan.surge.filter(|surge| (surge.from..surge.until).contains(&now)).map_or(1, |surge| surge.times);
        self.ctx.dice.wait((mean / times).max(1))
    }

    fn happen(&mut self, event: Event) {
        if let Some(process) = self.owner(&event) {
            let until = self.stopped[process];
            if self.ctx.now < until {
                return self.ctx.agenda.plan(until, event);
            }
        }
        let ctx = &mut self.ctx;
        match event {
            Event::Arrival { controller } => self.arrival(controller),
            Event::CallerDue { controller, incarnation, call } => {
                let controller = &mut self.controllers[usize::from(controller)];
                if controller.incarnation == incarnation && controller.up {
                    controller.caller_due(call, ctx);
                }
            }
            Event::Flush { peer, incarnation } => match peer {
                Peer::Controller { index, line } => {
                    let controller = &mut self.controllers[usize::from(index)];
                    if controller.incarnation == incarnation && controller.up {
                        controller.flush(line, ctx);
                    }
                }
                Peer::Node { index } => {
                    let node = &mut self.nodes[usize::from(index)];
                    if node.incarnation == incarnation && node.up {
                        node.flush(ctx);
                    }
                }
            },
            Event::Connect { peer, incarnation } => self.connect(peer, incarnation),
            Event::Deliver { conn, up } => self.deliver(conn, up),
            Event::Write { conn } => {
                if self.router.up && ctx.net.conn(conn).life == self.router.life {
                    self.router.write(conn, ctx);
                }
            }
            Event::RouterDue { life } => {
                if self.router.up && life == self.router.life && self.router.is_due(ctx.now) {
                    self.router.due(ctx);
                }
            }
            Event::DrainDue { life } => {
                if self.router.up && life == self.router.life && self.router.look_drained(ctx) {
                    self.restart_router();
                }
            }
            Event::RunEnds { node, incarnation, run } => {
                if let Some(node) = alive(&mut self.nodes, node, incarnation) {
                    node.run_ends(run, ctx);
                }
            }
            Event::NodeDies { node, incarnation } => {
                let away = ctx.plan.crashes.map_or(0, |crashes| crashes.away_us);
                if alive(&mut self.nodes, node, incarnation).is_some() {
                    self.crash(Peer::Node { index: node }, away);
                }
            }
            Event::Churn { node, incarnation } => {
                if let Some(node) = alive(&mut self.nodes, node, incarnation) {
                    node.churn(ctx);
                }
            }
            Event::Grant { node, incarnation, container, epoch } => {
                if let Some(node) = alive(&mut self.nodes, node, incarnation) {
                    node.grant(container, epoch, ctx);
                }
            }
            Event::DeskDue { controller, incarnation } => {
                let controller = &mut self.controllers[usize::from(controller)];
                if controller.incarnation == incarnation && controller.up {
                    controller.desk_due(ctx);
                }
            }
            Event::GraceDue { life } => {
                if self.router.up && life == self.router.life {
                    self.router.end_due(ctx);
                }
            }
            Event::Repeat { controller, incarnation, call } => {
                let controller = &mut self.controllers[usize::from(controller)];
                if controller.incarnation == incarnation && controller.up {
                    controller.repeat(call, ctx);
                }
            }
            Event::Audit { node, incarnation } => {
                if let Some(node) = alive(&mut self.nodes, node, incarnation) {
                    node.audit(ctx);
                }
            }
            Event::Overflow { life, work } => {
                if self.router.up && life == self.router.life {
                    self.router.work(work, ctx);
                }
            }
            Event::FaultBegins { index } => self.fault_begins(index),
            Event::FaultEnds { index } => ctx.checker.note(Seen::FaultEnds { index }),
            Event::RouterUp => {
                self.restarting = false;
                if !self.router.up {
                    self.router.start(ctx);
                }
            }
            Event::PeerUp { peer, .. } => self.peer_up(peer),
            Event::Heal => self.heal(),
            Event::Rest => unreachable!("handled by the loop"),
        }
    }

    /// The process that an event happens to.
    fn owner(&mut self, event: &Event) -> Option<usize> {
        match *event {
            Event::Arrival { controller }
            | Event::DeskDue { controller, .. }
            | Event::CallerDue { controller, .. }
            | Event::Repeat { controller, .. } => Some(1 + usize::from(controller)),
            Event::Flush { peer, .. } | Event::Connect { peer, .. } => Some(self.process(peer)),
            Event::Deliver { up: true, .. }
            | Event::Write { .. }
            | Event::RouterDue { .. }
            | Event::DrainDue { .. }
            | Event::Overflow { .. } => Some(0),
            Event::Deliver { conn, up: false } => Some(self.process(self.ctx.net.peer(conn))),
            Event::RunEnds { node, .. }
            | Event::NodeDies { node, .. }
            | Event::Churn { node, .. }
            | Event::Grant { node, .. }
            | Event::Audit { node, .. } => Some(self.process(Peer::Node { index: node })),
            _ => None,
        }
    }

    fn process(&self, peer: Peer) -> usize {
        match peer {
            Peer::Controller { index, .. } => 1 + usize::from(index),
            Peer::Node { index } => 1 + self.controllers.len() + usize::from(index),
        }
    }

    fn arrival(&mut self, index: u16) {
        let controller = &mut self.controllers[usize::from(index)];
        if controller.to_come == 0 {
            return;
        }
        if controller.up {
            controller.to_come -= 1;
            controller.arrival(&mut self.ctx);
        }
        let wait = self.gap();
        self.ctx.after(wait, Event::Arrival { controller: index });
    }

    fn connect(&mut self, peer: Peer, incarnation: u32) {
        let process = self.process(peer);
        let reachable = self.router.up && self.apart[process] <= self.ctx.now;
        let life = reachable.then_some(self.router.life);
        match peer {
            Peer::Controller { index, line } => {
                let controller = &mut self.controllers[usize::from(index)];
                if controller.up && controller.incarnation == incarnation {
                    controller.connect(line, life, &mut self.ctx);
                }
            }
            Peer::Node { index } => {
                if let Some(node) = alive(&mut self.nodes, index, incarnation) {
                    node.connect(life, &mut self.ctx);
                }
            }
        }
    }

    fn deliver(&mut self, conn: u32, up: bool) {
        let ctx = &mut self.ctx;
        let now = ctx.now;
        let ends = ctx.net.conn(conn);
        if up {
            let life = ends.life;
            match ends.up.receive(now) {
                Ok(parcel) if self.router.up && self.router.life == life => self.router.receive(conn, parcel, ctx),
                Ok(_) | Err(None) => {}
                Err(Some(later)) => ctx.agenda.plan(later, Event::Deliver { conn, up }),
            }
            return;
        }
        let (peer, incarnation, life) = (ends.peer, ends.incarnation, ends.life);
        let parcel = match ends.down.receive(now) {
            Ok(parcel) => parcel,
            Err(None) => return,
            Err(Some(later)) => return ctx.agenda.plan(later, Event::Deliver { conn, up }),
        };
        match peer {
            Peer::Controller { index, line } => {
                let controller = &mut self.controllers[usize::from(index)];
                if controller.up && controller.incarnation == incarnation {
                    controller.receive(line, conn, parcel, ctx);
                }
            }
            Peer::Node { index } => {
                let node = &mut self.nodes[usize::from(index)];
                if node.up && node.incarnation == incarnation {
                    node.receive(conn, parcel, ctx);
                }
            }
        }
        if self.router.up && self.router.life == life {
            self.router.was_read(conn, ctx);
        }
    }

    // Faults.

    fn fault_begins(&mut self, index: u32) {
        let Fault { kind, whom, lasts_us, .. } = self.ctx.plan.faults[index as usize];
        if self.ctx.healed {
            return;
        }
        self.ctx.checker.note(Seen::Fault { index });
        self.injected[kind as usize] += 1;
        self.ctx.after(lasts_us, Event::FaultEnds { index });
        // What stands still is moving again when all is healed.
        let until = (self.ctx.now + lasts_us).min(self.ctx.plan.heal_at);
        let peer = self.whom(whom, kind);
        match kind {
            Kind::Cut => self.cut(peer, None, None),
            Kind::HalfOpenPeer => self.cut(peer, None, Some(lasts_us.min(KEEPALIVE_US))),
            Kind::HalfOpenRouter => self.cut(peer, Some(lasts_us.min(KEEPALIVE_US)), None),
            Kind::Partition => {
                let process = self.process(peer);
                self.apart[process] = self.apart[process].max(until);
                let (here, there) =
                    (self.ctx.dice.spread(1000, KEEPALIVE_US), self.ctx.dice.spread(1000, KEEPALIVE_US));
                self.cut(peer, Some(here), Some(there));
            }
            Kind::StallUp | Kind::StallDown | Kind::SlowReader => self.hold_up(peer, kind, until),
            Kind::CrashNode | Kind::CrashController => self.crash(peer, lasts_us),
            Kind::CrashRouter => {
                if self.router.up {
                    self.router.die(&mut self.ctx);
                    self.restart_later(lasts_us);
                }
            }
            Kind::PauseNode | Kind::PauseController | Kind::PauseRouter => self.pause(peer, kind, until),
            Kind::HalfClose => {
                if let Peer::Controller { index, .. } = peer {
                    let controller = &mut self.controllers[usize::from(index)];
                    if controller.up {
                        controller.half_close(&mut self.ctx);
                    }
                }
            }
            Kind::Drain => {
                if self.router.up {
                    self.router.drain(&mut self.ctx);
                }
            }
            Kind::WallSet => self.router.machine.set_wall(self.ctx.plan.faults[index as usize].set_us()),
            Kind::Reboot => {
                if self.router.up {
                    self.router.die(&mut self.ctx);
                    self.router.machine.reboot(self.router.clock.read(self.ctx.now));
                    self.restart_later(lasts_us);
                }
            }
            Kind::StoreSlow => self.router.store.slow_until = until,
            Kind::StoreDown => self.router.store.down_until = until,
            Kind::StoreFull => self.router.store.full_until = until,
            Kind::StoreUnsynced => self.router.store.unsynced_until = until,
            Kind::StoreDamaged => {
                for (record, noted) in self.router.store.damage(&mut self.ctx.dice) {
                    if let Some(call) = self.ctx.call(record.id) {
                        self.ctx.checker.hit(call, noted);
                    }
                }
            }
        }
    }

    fn whom(&self, whom: u32, kind: Kind) -> Peer {
        let (controllers, nodes) = (self.ctx.plan.controllers, self.ctx.plan.nodes);
        let pick = |of: u16| u16::try_from(whom % u32::from(of)).unwrap_or(0);
        match kind {
            Kind::CrashNode | Kind::PauseNode => Peer::Node { index: pick(nodes) },
            Kind::CrashController | Kind::PauseController | Kind::HalfClose => {
                Peer::Controller { index: pick(controllers), line: 0 }
            }
            _ => {
                let any = pick(controllers + nodes);
                if any < controllers {
                    Peer::Controller { index: any, line: 0 }
                } else {
                    Peer::Node { index: any - controllers }
                }
            }
        }
    }

    fn conn_of(&self, peer: Peer) -> Option<u32> {
        match peer {
            Peer::Controller { index, .. } => self.controllers[usize::from(index)].conn(),
            Peer::Node { index } => self.nodes[usize::from(index)].conn(),
        }
    }

    fn cut(&mut self, peer: Peer, router_learns_us: Option<u64>, peer_learns_us: Option<u64>) {
        if let Some(conn) = self.conn_of(peer) {
            let here = router_learns_us.unwrap_or_else(|| self.ctx.latency());
            let there = peer_learns_us.unwrap_or_else(|| self.ctx.latency());
            self.ctx.cut(conn, here, there);
        }
    }

    fn hold_up(&mut self, peer: Peer, kind: Kind, until: Instant) {
        let Some(conn) = self.conn_of(peer) else { return };
        let pace = self.ctx.dice.spread(10, 20_000);
        let ends = self.ctx.net.conn(conn);
        match kind {
            Kind::StallUp => ends.up.stalled_until = ends.up.stalled_until.max(until),
            Kind::StallDown => ends.down.stalled_until = ends.down.stalled_until.max(until),
            _ => ends.down.pace_us = pace,
        }
    }

    fn crash(&mut self, peer: Peer, lasts_us: u64) {
        let up = match peer {
            Peer::Controller { index, .. } => self.controllers[usize::from(index)].up,
            Peer::Node { index } => self.nodes[usize::from(index)].up,
        };
        if up {
            match peer {
                Peer::Controller { index, .. } => self.controllers[usize::from(index)].die(&mut self.ctx),
                Peer::Node { index } => self.nodes[usize::from(index)].die(&mut self.ctx),
            }
            self.ctx.after(lasts_us, Event::PeerUp { peer, incarnation: 0 });
        }
    }

    fn peer_up(&mut self, peer: Peer) {
        match peer {
            Peer::Controller { index, .. } => {
                let controller = &mut self.controllers[usize::from(index)];
                if !controller.up {
                    controller.start(&mut self.ctx);
                }
            }
            Peer::Node { index } => {
                let node = &mut self.nodes[usize::from(index)];
                if !node.up {
                    node.start(&mut self.ctx);
                }
            }
        }
    }

    fn pause(&mut self, peer: Peer, kind: Kind, until: Instant) {
        let process = if kind == Kind::PauseRouter { 0 } else { self.process(peer) };
        self.stopped[process] = self.stopped[process].max(until);
        self.tell_stopped(process, self.stopped[process]);
    }

    fn tell_stopped(&mut self, process: usize, until: Instant) {
        if process == 0 {
            self.ctx.checker.router_stopped_until(self.router.clock.read(until));
        } else if let Some(controller) = self.controllers.get_mut(process - 1) {
            controller.stood_still(until);
        }
    }

    fn restart_later(&mut self, wait_us: u64) {
        if !std::mem::replace(&mut self.restarting, true) {
            self.ctx.after(wait_us, Event::RouterUp);
        }
    }

    /// The drained router's process has ended.
    fn restart_router(&mut self) {
        self.router.die(&mut self.ctx);
        let wait = self.ctx.dice.spread(100, 1_000_000);
        self.restart_later(wait);
    }

    // The end.

    /// Whatever is wrong is put right: processes run, everybody reaches everybody.
    fn heal(&mut self) {
        self.ctx.healed = true;
        self.ctx.checker.note(Seen::Healed);
        let now = self.ctx.now;
        self.apart.iter_mut().for_each(|until| *until = 0);
        for conn in 0..self.ctx.net.all() {
            let ends = self.ctx.net.conn(conn);
            let (up, down) = (ends.up.stalled_until, ends.down.stalled_until);
            (ends.up.stalled_until, ends.down.stalled_until) = (up.min(now), down.min(now));
            ends.down.pace_us = 0;
            self.ctx.agenda.plan(now, Event::Deliver { conn, up: true });
            self.ctx.agenda.plan(now, Event::Deliver { conn, up: false });
        }
        if !self.router.up {
            self.restarting = false;
            self.ctx.after(0, Event::RouterUp);
        }
        for index in 0..self.ctx.plan.controllers {
            self.peer_up(Peer::Controller { index, line: 0 });
        }
        for index in 0..self.ctx.plan.nodes {
            self.peer_up(Peer::Node { index });
        }
        let actions = self.ctx.plan.actions;
        self.nodes[0].serve(actions, &mut self.ctx);
    }

    fn look_whether_done(&mut self) {
        if !self.resting
            && self.ctx.healed
            && self.ctx.checker.unresolved() == 0
            && self.controllers.iter().all(|controller| controller.to_come == 0)
        {
            self.resting = true;
            self.ctx.after(REST_US, Event::Rest);
        }
    }

    fn rest(&mut self) {
        self.ctx.checker.ended();
        if self.router.up {
            self.router.show_rested(&mut self.ctx);
        }
    }
}
