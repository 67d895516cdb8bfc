//! What overflows memory: any interleaving of pushes, credits, writes that succeed or fail, and reads keeps the order of each action,
//! answers each activation once, stays within bounds, and lets go of the store in the end.
//!
//! The store here is a list for each lane, written when the test says so. No clock, no thread.

#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use engine::backlog::{Backlog, Fetched, Handover, Recalled, Step, What, Whose};
use engine::container::{ContainerKey, Registration, Room};
use engine::effect::{Effect, Entry, Perform, Refill, Spill, Spilled, Want};
use engine::extents::Extents;
use engine::hub::{Action, Hub, Pass};
use engine::id::{ActionKey, ActivationId, Group, NodeName, StreamId};
use engine::input::{Completion, Input, Push, Refilled, Unstored};
use engine::lanes::Lane;
use engine::limits::{Limits, OverflowLimits};
use engine::outcome::{Answer, Durability, Outcome, Reply, RunStatus};
use engine::tally::Count;
use engine::time::Timestamp;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

const CONTROLLER: StreamId = StreamId(1);
const NODE: StreamId = StreamId(2);
const TIME_LEFT: Duration = Duration::from_millis(100);

#[derive(Debug, Default)]
struct Recorder(Vec<Effect>);

impl Perform for Recorder {
    fn perform(&mut self, effects: &mut Vec<Effect>) {
        self.0.append(effects);
    }
}

/// One step of a history.
#[derive(Debug, Clone)]
enum Op {
    Push(usize),
    Credit(usize, u32),
    /// The oldest in flight of the action completes.
    Complete(usize),
    /// The oldest in flight of the action is handed back.
    Return(usize),
    /// So many of what is on its way are written, with that result.
    Write(usize, Written),
    /// The reader of the lane takes a step.
    Read(usize),
    /// Records of the lane that nobody read yet are damaged.
    Damage(usize),
    Wait(u64),
    Open(bool),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Written {
    Durable,
    Refused,
    UnknownAndLost,
    UnknownAndKept,
}

const ACTIONS: usize = 3;
const LANES: usize = 2;

fn op() -> impl Strategy<Value = Op> {
    let written = prop_oneof![
        20 => Just(Written::Durable),
        1 => Just(Written::Refused),
        1 => Just(Written::UnknownAndLost),
        1 => Just(Written::UnknownAndKept),
    ];
    prop_oneof![
        20 => (0..ACTIONS).prop_map(Op::Push),
        6 => (0..ACTIONS, 1..4u32).prop_map(|(action, n)| Op::Credit(action, n)),
        6 => (0..ACTIONS).prop_map(Op::Complete),
        2 => (0..ACTIONS).prop_map(Op::Return),
        8 => (1..6usize, written).prop_map(|(n, written)| Op::Write(n, written)),
        10 => (0..LANES).prop_map(Op::Read),
        1 => (0..LANES).prop_map(Op::Damage),
        1 => (0..60u64).prop_map(Op::Wait),
        1 => any::<bool>().prop_map(Op::Open),
    ]
}

fn limits() -> impl Strategy<Value = Limits> {
    (1..6u64, 2..9u64, 1..9u32, 20..200u64).prop_map(|(own, all, refill, pending)| Limits {
        action_queued_max: own,
        router_queued_max: all,
        queued_overhead_bytes: 10,
        breaker: None,
        overflow: Some(OverflowLimits {
            lanes: u16::try_from(LANES).unwrap(),
            pending_bytes_max: pending,
            refill_records: refill,
            refill_bytes: 40,
        }),
        ..Limits::default()
    })
}

/// Records of a lane by position.
#[derive(Debug, Default)]
struct Store {
    next: u64,
    records: BTreeMap<u64, (ActionKey, Spilled)>,
    /// Damaged records of which it is known whose they were.
    lost: BTreeMap<u64, (ActionKey, Whose)>,
    consumed: u64,
    named: BTreeMap<Group, u64>,
    /// Stored and told, and not handed in.
    owed: BTreeMap<u64, Group>,
    extents: Extents,
}

impl Store {
    fn is_consumed(&self, position: u64, key: &ActionKey) -> bool {
        position < self.consumed || self.named.get(&key.group()).is_some_and(|consumed| position < *consumed)
    }

    /// What lies at or above `from` and is not consumed, of one action or of all, and where the next read begins.
    fn read(&self, from: u64, only: Option<Group>, most: usize) -> (Vec<(u64, ActionKey, What)>, u64) {
        let whole =
            self.records.range(from..).map(|(at, (key, record))| (*at, key.clone(), What::Whole(record.clone())));
        let lost = self.lost.range(from..).map(|(at, (key, whose))| (*at, key.clone(), What::Lost(Some(*whose))));
        let mut all: Vec<_> = whole.chain(lost).collect();
        all.sort_by_key(|(at, ..)| *at);
        all.retain(|(at, key, _)| !self.is_consumed(*at, key) && only.is_none_or(|only| key.group() == only));
        let next = all.get(most).map_or(self.next, |(at, ..)| *at);
        all.truncate(most);
        (all, next)
    }

    /// Marks, and sees that nothing is consumed that is not handed in.
    fn consume(&mut self, handover: &Handover) {
        assert!(handover.named.len() <= NAMED_MAX, "{} are named", handover.named.len());
        self.consumed = self.consumed.max(handover.before);
        self.named = handover.named.iter().copied().collect();
        let refilled = handover.refilled.iter().flat_map(|(_, refilled)| &refilled.records).map(|record| record.id);
        let handed: BTreeSet<ActivationId> = refilled.chain(handover.lost.iter().map(|whose| whose.id)).collect();
        for (position, (key, record)) in &self.records {
            if self.is_consumed(*position, key) && self.owed.remove(position).is_some() {
                assert!(handed.contains(&record.id), "{} is consumed and not handed in", number(record.id));
            }
        }
    }
}

/// Actions that a mark may name.
const NAMED_MAX: usize = 1;

struct World {
    hub: Hub,
    pass: Pass<Recorder>,
    actions: Vec<(Arc<Action>, ContainerKey)>,
    on_its_way: VecDeque<Spill>,
    stores: Vec<Store>,
    backlogs: Vec<Backlog>,
    in_flight: Vec<VecDeque<ActivationId>>,
    pushed: u64,
    /// The number of the activation dispatched last for the first time, by action.
    last: Vec<u64>,
    answered: BTreeMap<ActivationId, Outcome>,
    /// Of these nothing is known any more.
    damaged: BTreeSet<ActivationId>,
}

fn id(n: u64) -> ActivationId {
    ActivationId(u128::from(n).to_be_bytes())
}

fn number(id: ActivationId) -> u64 {
    u64::try_from(u128::from_be_bytes(id.0)).unwrap()
}

impl World {
    fn new(limits: Limits) -> Self {
        let (hub, mut pass) = (Hub::new(limits, 7, 1, Timestamp::ZERO), Pass::new(Recorder::default()));
        hub.lanes().unwrap().set_open(true);
        let room = Arc::new(Room::new(usize::MAX));
        let mut register = |n: usize| {
            let (number, stream, node) = (u32::try_from(n).unwrap(), NODE, NodeName::new("node"));
            let room = room.clone();
            let new = Registration { stream, node, number, epoch: 0, concurrency: 1000, credits: 0, warm: true, room };
            hub.register(&ActionKey::new("tenant", &format!("a{n}"), ""), new, &mut pass).unwrap()
        };
        let actions = (0..ACTIONS).map(&mut register).collect();
        Self {
            actions,
            on_its_way: VecDeque::new(),
            stores: (0..LANES).map(|_| Store::default()).collect(),
            backlogs: (0..LANES).map(|_| Backlog::new(0, 0, NAMED_MAX, [])).collect(),
            in_flight: vec![VecDeque::new(); ACTIONS],
            pushed: 0,
            last: vec![0; ACTIONS],
            answered: BTreeMap::new(),
            damaged: BTreeSet::new(),
            hub,
            pass,
        }
    }

    fn take(&mut self, op: &Op) {
        match *op {
            Op::Push(action) => self.push(action),
            Op::Credit(action, n) => self.enter(action, Input::Credit(self.actions[action].1, n)),
            Op::Complete(action) => self.complete(action),
            Op::Return(action) => {
                if let Some(id) = self.in_flight[action].pop_front() {
                    self.enter(action, Input::Return(self.actions[action].1, id, Bytes::from_static(b"payload")));
                }
            }
            Op::Write(n, written) => (0..n).for_each(|_| self.write(written)),
            Op::Read(lane) => self.read(lane),
            Op::Damage(lane) => self.damage(lane),
            Op::Wait(ms) => {
                self.pass.now = self.pass.now + Duration::from_millis(ms);
                while self.hub.advance(8, &mut self.pass) {}
                self.perform();
            }
            Op::Open(open) => self.hub.lanes().unwrap().set_open(open),
        }
        self.check();
    }

    /// All that is not consumed is damaged. Of every other record it is known whose it was.
    fn damage(&mut self, lane: usize) {
        let store = &mut self.stores[lane];
        let gone: Vec<u64> = store.records.keys().copied().collect();
        for position in gone {
            if store.is_consumed(position, &store.records[&position].0) {
                continue;
            }
            let (key, Spilled { id, controller, reply, .. }) = store.records.remove(&position).unwrap();
            store.owed.remove(&position);
            if number(id).is_multiple_of(2) {
                store.lost.insert(position, (key, Whose { id, controller, reply }));
            } else {
                self.damaged.insert(id);
            }
        }
    }

    fn push(&mut self, action: usize) {
        self.pushed += 1;
        let (now, payload) = (self.pass.now, Bytes::from_static(b"payload"));
        let push = Push {
            id: id(self.pushed),
            controller: CONTROLLER,
            reply: Reply::Outcome,
            attempt: 1,
            accepted_at: now,
            deadline: now + TIME_LEFT,
            payload,
            accepted: false,
            refilled: false,
        };
        self.enter(action, Input::Push(push));
    }

    fn complete(&mut self, action: usize) {
        let Some(id) = self.in_flight[action].pop_front() else { return };
        let (status, result, arrived_at) = (RunStatus::Succeeded, Bytes::new(), self.pass.now);
        let completion = Completion { id, status, result, run_us: 0, arrived_at, credits: 0 };
        self.enter(action, Input::Complete(self.actions[action].1, completion));
    }

    /// The first of what is on its way is written.
    fn write(&mut self, written: Written) {
        let Some(Spill { lane: Lane(lane), action, slot, record }) = self.on_its_way.pop_front() else { return };
        let store = &mut self.stores[usize::from(lane)];
        let position = store.next;
        if matches!(written, Written::Durable | Written::UnknownAndKept) {
            store.next += 2;
            store.records.insert(position, (action.key().clone(), record));
        }
        let how = match written {
            Written::Durable => Ok(position),
            Written::Refused => Err(Unstored::Refused),
            Written::UnknownAndLost | Written::UnknownAndKept => Err(Unstored::Unknown),
        };
        store.extents.note(Lane(lane), action.key(), how);
        if how.is_ok() {
            store.owed.insert(position, action.key().group());
        }
        let extents = store.extents.take();
        self.hub.enter(&action, &mut vec![Input::Stored(slot, how)], &mut self.pass);
        // Only now, that its action knows, may it be read.
        extents.iter().for_each(|extent| self.backlogs[usize::from(lane)].extend(extent));
        self.perform();
    }

    fn read(&mut self, lane: usize) {
        match self.backlogs[lane].step(self.pass.now) {
            Step::Idle => {
                if self.backlogs[lane].has_recovered() {
                    self.hub.lanes().unwrap().leave(Lane(u16::try_from(lane).unwrap()));
                }
                self.backlogs[lane].look_again();
            }
            Step::Read { from, only, most } => {
                let (found, next) = self.stores[lane].read(from, only, most.records as usize);
                let fetched = |(position, _, what)| Fetched { position, what };
                match only {
                    Some(group) => self.backlogs[lane].fetched(group, found.into_iter().map(fetched), next),
                    None => self.backlogs[lane].searched(found.into_iter().map(|(at, key, _)| (at, key)), next),
                }
            }
            Step::Recall { group, key, end } => {
                let number = u16::try_from(lane).unwrap();
                let offered = self.hub.recall(&key, Lane(number), end, &mut self.pass).unwrap();
                self.backlogs[lane].offered(group, Some(offered));
                self.perform();
            }
            Step::Part(_) => panic!("the router does not end"),
            Step::Hand(handover) => {
                if !handover.is_news_only() {
                    self.stores[lane].consume(&handover);
                }
                assert!(handover.expired == 0);
                self.hub.lose_stored(&handover.lost, &mut self.pass);
                self.pass.tally.add(Count::SpillDamaged, handover.missing);
                for (action, refilled) in handover.refilled {
                    self.hub.enter(&action, &mut vec![Input::Refilled(Box::new(refilled))], &mut self.pass);
                }
                self.perform();
            }
        }
    }

    fn enter(&mut self, action: usize, input: Input) {
        let action = self.actions[action].0.clone();
        self.hub.enter(&action, &mut vec![input], &mut self.pass);
        self.perform();
    }

    fn perform(&mut self) {
        for effect in std::mem::take(&mut self.pass.performer.0) {
            match effect {
                Effect::Write(_, Entry::Dispatch(dispatch)) => {
                    let (action, n) = (dispatch.container as usize, number(dispatch.id));
                    assert!(!self.answered.contains_key(&dispatch.id), "{n} was answered before it was dispatched");
                    if dispatch.attempt == 1 {
                        assert!(n > self.last[action], "{n} is dispatched after {}", self.last[action]);
                        self.last[action] = n;
                    }
                    assert!(!self.in_flight[action].contains(&dispatch.id), "{n} runs twice");
                    self.in_flight[action].push_back(dispatch.id);
                }
                Effect::Write(_, Entry::Answer(Answer { id, outcome, .. })) => {
                    let before = self.answered.insert(id, outcome);
                    assert_eq!(before, None, "{} is answered twice", number(id));
                }
                Effect::Spill(spill) => self.on_its_way.push_back(*spill),
                Effect::Refill(refill) => {
                    let Refill { lane: Lane(lane), .. } = &*refill;
                    self.backlogs[usize::from(*lane)].want(&refill);
                }
                Effect::Write(_, Entry::Refuse(refusal)) => panic!("nothing wrong was said: {refusal:?}"),
                Effect::Write(_, Entry::Drain(..) | Entry::Draining) | Effect::AwaitRoom(..) => {
                    panic!("no container was told anything")
                }
                Effect::WakeAt(_) => {}
            }
        }
    }

    fn check(&mut self) {
        self.hub.settle(&mut self.pass);
        let totals = self.hub.totals();
        let on_its_way = self.on_its_way.len() as u64;
        assert_eq!(
            totals.of(Count::Accepted) + totals.overdue() + on_its_way,
            totals.ended() + self.hub.held() as u64 + totals.of(Count::Spilled)
                - totals.of(Count::Refilled)
                - totals.of(Count::SpillDamaged),
        );
        let overflow = self.hub.limits().overflow.as_ref().unwrap();
        let beyond = ACTIONS as u64 * u64::from(overflow.refill_records) * 3 / 2;
        // What was dispatched and came back has its place, too.
        let returned = totals.of(Count::Returned);
        assert!(self.hub.budget().queued() <= self.hub.limits().router_queued_max + beyond + returned);
        assert!(self.hub.lanes().unwrap().pending_bytes() <= overflow.pending_bytes_max);
    }

    fn is_whole(&self) -> bool {
        self.hub.held() == 0 && self.hub.lanes().unwrap().in_use() == 0
    }

    /// The store works, everybody reads, completes and grants: everything ends, and memory is enough again.
    fn heal(&mut self) {
        self.take(&Op::Open(true));
        for _ in 0..self.pushed * 4 + 40 {
            self.take(&Op::Write(1000, Written::Durable));
            (0..LANES).for_each(|lane| self.take(&Op::Read(lane)));
            for action in 0..ACTIONS {
                self.take(&Op::Credit(action, 1));
                self.take(&Op::Complete(action));
            }
            if self.is_whole() {
                break;
            }
        }
        let lanes = self.hub.lanes().unwrap();
        assert_eq!((self.hub.held(), lanes.in_use(), lanes.pending_bytes()), (0, 0, 0), "it lets go");
        assert_eq!((self.hub.budget().queued(), self.hub.budget().queued_bytes()), (0, 0));
        let totals = self.hub.totals();
        assert_eq!(totals.stored(), 0, "nothing is said to be stored");
        assert_eq!(totals.of(Count::RefillLeft), totals.of(Count::Refilled) + totals.of(Count::Recovered));
        let mut silent = (1..=self.pushed).map(id).filter(|id| !self.answered.contains_key(id));
        assert_eq!(
            silent.find(|id| !self.damaged.contains(id)),
            None,
            "each is answered, but for those of which nothing is left"
        );
    }
}

/// Pushes never pause and a write is always under way, but the containers are faster: memory is enough again all the same.
#[test]
fn it_lets_go_while_pushes_go_on() {
    let overflow = OverflowLimits { lanes: 1, ..OverflowLimits::default() };
    let limits = Limits { action_queued_max: 10, overflow: Some(overflow), ..Limits::default() };
    let mut world = World::new(limits);
    (0..100).for_each(|_| world.take(&Op::Push(0)));
    assert_eq!((world.on_its_way.len(), world.hub.lanes().unwrap().in_use()), (90, 1));
    let mut rounds = 0;
    while world.hub.lanes().unwrap().in_use() > 0 {
        rounds += 1;
        assert!(rounds < 1000, "it never lets go");
        world.take(&Op::Push(0));
        // The newest stays on its way.
        while world.on_its_way.len() > 1 {
            world.take(&Op::Write(1, Written::Durable));
        }
        (0..3).for_each(|_| world.take(&Op::Read(0)));
        world.take(&Op::Credit(0, 3));
        (0..3).for_each(|_| world.take(&Op::Complete(0)));
        // Once it closes, what is pushed waits in memory and the last write comes through.
        if world.hub.budget().queued() > 0 && world.on_its_way.len() == 1 {
            world.take(&Op::Write(1, Written::Durable));
        }
    }
    world.heal();
}

/// Behind a barrier, too, no more comes back than there is to be in memory: here all that was on its way comes back at once, and no
/// container has room.
#[test]
fn it_reads_back_no_more_than_fits() {
    let overflow = OverflowLimits { lanes: 1, refill_records: 4, ..OverflowLimits::default() };
    let limits = Limits { action_queued_max: 10, overflow: Some(overflow), ..Limits::default() };
    let mut world = World::new(limits);
    (0..100).for_each(|_| world.take(&Op::Push(0)));
    world.take(&Op::Credit(0, 10));
    (0..5).for_each(|_| world.take(&Op::Push(0)));
    assert_eq!((world.on_its_way.len(), world.hub.budget().queued()), (90, 5), "it closes");
    world.take(&Op::Write(90, Written::Durable));
    (0..200).for_each(|_| world.take(&Op::Read(0)));
    let front = world.hub.budget().queued() - 5;
    assert!((1..=6).contains(&front), "{front} came back");
    world.heal();
}

/// One that only wants to hear that it is taken is not lost while it is on its way into the store: its controller, which came back
/// and asks, hears of it then.
#[test]
fn what_is_on_its_way_is_not_lost() {
    let limits = Limits { action_queued_max: 1, overflow: Some(OverflowLimits::default()), ..Limits::default() };
    let mut world = World::new(limits);
    world.take(&Op::Push(0));
    let deadline = world.pass.now + TIME_LEFT;
    let push = Push {
        id: id(2),
        controller: CONTROLLER,
        reply: Reply::Accepted,
        attempt: 1,
        accepted_at: world.pass.now,
        deadline,
        payload: Bytes::new(),
        accepted: false,
        refilled: false,
    };
    world.enter(0, Input::Push(push));
    assert_eq!(world.on_its_way.len(), 1);
    let (mut asked, actions) = (vec![id(2)], [world.actions[0].0.clone()]);
    world.hub.drop_owed(&mut asked, CONTROLLER, &actions, &mut world.pass);
    assert_eq!(asked, [], "it will hear");
    world.take(&Op::Write(1, Written::Durable));
    assert_eq!(world.answered[&id(2)], Outcome::Accepted(Durability::Durable));
}

/// Of an earlier life there is much in a lane, and its action overflows into another one: no more of it is in memory than there is to
/// be, whether or not the store takes anything, and in the end all of it has come back.
#[test]
fn what_an_earlier_life_left_waits_for_room() {
    let overflow = OverflowLimits { lanes: 2, refill_records: 4, pending_bytes_max: 60, ..OverflowLimits::default() };
    let limits = Limits {
        action_queued_max: 10,
        queued_overhead_bytes: 10,
        overflow: Some(overflow),
        breaker: None,
        ..Limits::default()
    };
    let mut world = World::new(limits);
    world.hub.lanes().unwrap().occupy(Lane(0));
    let key = world.actions[0].0.key().clone();
    for n in 1..=100 {
        let (accepted_at, deadline) = (Timestamp::ZERO, Timestamp::ZERO + TIME_LEFT);
        let record = Spilled {
            id: id(1000 + n),
            controller: StreamId(u64::MAX),
            reply: Reply::Outcome,
            attempt: 2,
            sequence: None,
            accepted_at,
            deadline,
            payload: Bytes::new(),
        };
        world.stores[0].records.insert(n, (key.clone(), record));
    }
    world.stores[0].next = 101;
    world.backlogs[0] = Backlog::new(1, 101, NAMED_MAX, []);
    // The action overflows before the lane is read.
    (0..11).for_each(|_| world.take(&Op::Push(0)));
    assert_eq!((world.on_its_way.len(), world.hub.lanes().unwrap().in_use()), (1, 2));
    (0..300).for_each(|_| world.take(&Op::Read(0)));
    assert_eq!(world.hub.budget().queued(), 10, "there is no room");
    world.take(&Op::Open(false));
    world.take(&Op::Credit(0, 10));
    (0..300).for_each(|_| world.take(&Op::Read(0)));
    assert!((1..=10).contains(&world.hub.budget().queued()), "{} came back", world.hub.budget().queued());
    for op in [Op::Read(0), Op::Credit(0, 1), Op::Complete(0)].iter().cycle().take(300) {
        world.take(op);
    }
    world.heal();
    let recovered = (1..=100).filter(|n| world.answered.contains_key(&id(1000 + n))).count();
    assert_eq!(recovered, 100);
}

/// Records that several lanes hold of one action would come at once, and exceed its queue.
#[test]
fn of_other_lanes_it_takes_from_one_at_a_time() {
    let overflow = OverflowLimits { lanes: 4, refill_records: 4, ..OverflowLimits::default() };
    let limits = Limits { action_queued_max: 10, overflow: Some(overflow), breaker: None, ..Limits::default() };
    let mut world = World::new(limits);
    (0..11).for_each(|_| world.take(&Op::Push(0)));
    world.take(&Op::Credit(0, 10));
    let action = world.actions[0].0.clone();
    let recalled = |world: &mut World, lane| world.hub.recall(action.key(), Lane(lane), 1, &mut world.pass).unwrap().1;
    let batch = Recalled::Elsewhere(Want { records: 4, bytes: OverflowLimits::default().refill_bytes });
    assert_eq!(
        [0, 1, 2, 1].map(|lane| recalled(&mut world, lane)),
        [Recalled::Here, batch, Recalled::NotNow, Recalled::NotNow]
    );
    // Records come in pieces, and the last piece ends the offer.
    for (offer_over, then) in [(false, Recalled::NotNow), (true, batch)] {
        let came = Refilled { records: Vec::new(), cursor: None, offer_over };
        world.enter(0, Input::Refilled(Box::new(came)));
        assert_eq!(recalled(&mut world, 2), then);
    }
}

/// A revision that overflows is superseded and its last container goes: what it has in the store goes on to the newer one, as much at
/// a time as fits into memory, and not before what is queued there has gone.
#[test]
fn what_a_superseded_revision_stored_goes_on_to_the_newer() {
    let overflow = OverflowLimits { lanes: 2, refill_records: 4, ..OverflowLimits::default() };
    let limits = Limits { action_queued_max: 10, overflow: Some(overflow), breaker: None, ..Limits::default() };
    for (refill_bytes, revisions) in [(10, 1), (1 << 20, 1), (10, 3), (1 << 20, 3)] {
        let overflow = OverflowLimits { refill_bytes, ..limits.overflow.clone().unwrap() };
        let mut world = World::new(Limits { overflow: Some(overflow), ..limits.clone() });
        world.hub.declare(&ActionKey::new("tenant", "a0", ""), &mut world.pass).unwrap();
        (0..100).for_each(|_| world.take(&Op::Push(0)));
        world.take(&Op::Write(90, Written::Durable));
        world.enter(0, Input::Gone(world.actions[0].1));
        let mut newer = ActionKey::new("tenant", "a0", "");
        for revision in 0..revisions {
            newer = ActionKey::new("tenant", "a0", &format!("newer {revision}"));
            world.hub.declare(&newer, &mut world.pass).unwrap();
            world.perform();
            (0..LANES).for_each(|lane| world.take(&Op::Read(lane)));
        }
        // Nobody is there to run it.
        for _ in 0..300 {
            (0..LANES).for_each(|lane| world.take(&Op::Read(lane)));
        }
        let queued = world.hub.budget().queued();
        assert!((10..=20).contains(&queued), "{queued} of 100 are in memory");
        let room = Arc::new(Room::new(usize::MAX));
        let (stream, node) = (NODE, NodeName::new("node"));
        let new = Registration { stream, node, number: 0, epoch: 1, concurrency: 1000, credits: 0, warm: true, room };
        world.actions[0] = world.hub.register(&newer, new, &mut world.pass).unwrap();
        // Those in memory went before those that were in the store.
        world.heal();
        let completed = world.answered.values().filter(|outcome| matches!(outcome, Outcome::Completed(_))).count();
        assert_eq!(completed, 100);
    }
}

/// The newer revision is never empty: what the older one stored goes on to it all the same, a batch for each batch that leaves.
#[test]
fn what_a_superseded_revision_stored_does_not_wait_for_a_newer_one_that_is_never_empty() {
    let overflow = OverflowLimits { lanes: 2, refill_records: 4, ..OverflowLimits::default() };
    let limits = Limits { action_queued_max: 10, overflow: Some(overflow), breaker: None, ..Limits::default() };
    let mut world = World::new(limits);
    world.hub.declare(&ActionKey::new("tenant", "a0", ""), &mut world.pass).unwrap();
    (0..50).for_each(|_| world.take(&Op::Push(0)));
    world.take(&Op::Write(50, Written::Durable));
    world.enter(0, Input::Gone(world.actions[0].1));
    let newer = ActionKey::new("tenant", "a0", "newer");
    let room = Arc::new(Room::new(usize::MAX));
    let new = Registration {
        stream: NODE,
        node: NodeName::new("node"),
        number: 0,
        epoch: 1,
        concurrency: 1000,
        credits: 0,
        warm: true,
        room,
    };
    world.hub.declare(&newer, &mut world.pass).unwrap();
    world.actions[0] = world.hub.register(&newer, new, &mut world.pass).unwrap();
    world.perform();
    let of_older = |world: &World| (1..=50).filter(|n| world.answered.contains_key(&id(*n))).count();
    let mut rounds = 0;
    while of_older(&world) < 50 {
        rounds += 1;
        assert!(rounds < 1000, "{} of the older revision's came through", of_older(&world));
        world.take(&Op::Push(0));
        world.last[0] = 0;
        world.take(&Op::Write(1000, Written::Durable));
        world.take(&Op::Credit(0, 1));
        world.take(&Op::Complete(0));
        (0..LANES).for_each(|lane| world.take(&Op::Read(lane)));
        assert!(world.hub.budget().queued() > 0, "it is never empty");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, max_shrink_iters: 20_000, ..ProptestConfig::default() })]
    #[test]
    fn any_interleaving_keeps_order_and_lets_go(limits in limits(), ops in prop::collection::vec(op(), 1..150)) {
        let mut world = World::new(limits);
        ops.iter().for_each(|op| world.take(op));
        world.heal();
    }
}
