//! The fleet beside a naive router, over a wire that breaks wherever it likes: what the two believe of credits and of what is in
//! flight comes out the same, and no end is told twice, or of what is not in flight.

use super::*;
use futures_util::FutureExt;
use parking_lot::Mutex;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// What was appended and has not left.
#[derive(Clone, Default)]
struct Wire(Arc<Mutex<VecDeque<PullEntry>>>);

impl Upstream for Wire {
    fn append(&self, entry: PullEntry) -> Result<(), AppendError<PullEntry>> {
        self.0.lock().push_back(entry);
        Ok(())
    }

    fn append_over(&self, entry: PullEntry) -> Result<(), AppendError<PullEntry>> {
        self.append(entry)
    }

    fn reclaim(&self) -> Vec<PullEntry> {
        self.0.lock().drain(..).collect()
    }
}

/// A container as the router sees it.
#[derive(Debug)]
struct Seen {
    epoch: u32,
    concurrency: u32,
    credits: u32,
    dispatched: u32,
    in_flight: BTreeSet<Bytes>,
    /// Its node is away, or has not registered it again yet.
    suspended: bool,
    leaves: bool,
}

impl Seen {
    fn grant(&mut self, credits: u32) {
        assert!(!self.leaves || credits == 0, "it wanted no more: {self:?}");
        self.credits += credits;
        assert!(self.credits as usize + self.in_flight.len() <= self.concurrency as usize, "too many: {self:?}");
    }
}

/// Which activation of which container that tells the end of.
fn end_of(entry: &PullEntry) -> Option<(u32, Bytes)> {
    match entry {
        PullEntry::Completion(completion) => Some((completion.container, completion.id.clone())),
        PullEntry::Return(unstarted) => Some((unstarted.container, unstarted.id.clone())),
        _ => None,
    }
}

#[derive(Debug, Clone)]
enum Step {
    Register(u32),
    Leave(prop::sample::Index),
    Dispatch(prop::sample::Index),
    /// So many entries leave, and so many that left arrive.
    Up(u8, u8),
    /// So many dispatches arrive.
    Down(u8),
    End(prop::sample::Index, bool),
    Free(prop::sample::Index),
    Audit,
    /// The stream breaks when so many more have arrived on either side.
    Break(u8, u8),
    Open {
        resumed: bool,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        1 => (1_u32..4).prop_map(Step::Register),
        1 => index().prop_map(Step::Leave),
        8 => index().prop_map(Step::Dispatch),
        8 => (0_u8..8, 0_u8..8).prop_map(|(leave, arrive)| Step::Up(leave, arrive)),
        8 => (0_u8..8).prop_map(Step::Down),
        6 => (index(), any::<bool>()).prop_map(|(run, well)| Step::End(run, well)),
        3 => index().prop_map(Step::Free),
        2 => Just(Step::Audit),
        2 => (0_u8..8, 0_u8..8).prop_map(|(up, down)| Step::Break(up, down)),
        4 => prop::bool::weighted(0.7).prop_map(|resumed| Step::Open { resumed }),
    ]
}

#[derive(Default)]
struct World {
    fleet: Fleet<Wire>,
    wire: Wire,
    open: bool,
    /// Left and not arrived.
    up: VecDeque<PullEntry>,
    down: VecDeque<v1::PullResponse>,
    seen: BTreeMap<u32, Seen>,
    runs: Vec<Run>,
    /// Handed back; their places are kept empty.
    pausing: Vec<Run>,
    ids: u128,
    started: BTreeSet<Bytes>,
    /// Ends that provably did not leave before the stream broke, by container.
    kept: Vec<(u32, Bytes)>,
    numbers: Vec<u32>,
}

impl World {
    fn apply(&mut self, step: Step) {
        match step {
            Step::Register(concurrency) if self.numbers.len() < 3 => {
                let key = crate::ActionKey::new("n", "a", "").unwrap();
                let spec = ContainerSpec { key, concurrency, warm: false };
                let (number, _) = self.fleet.add(spec, Arc::new(|_| async { Ok(Bytes::new()) }.boxed())).unwrap();
                self.numbers.push(number);
            }
            Step::Leave(which) if !self.numbers.is_empty() => {
                let number = *which.get(&self.numbers);
                self.fleet.leave(number);
                self.numbers.retain(|other| *other != number);
            }
            Step::Dispatch(which) if self.open => self.dispatch(which),
            Step::Up(leave, arrive) if self.open => {
                self.leave(leave.into());
                self.arrive_up(arrive.into());
            }
            Step::Down(arrive) if self.open => self.arrive_down(arrive.into()),
            Step::End(which, well) if !self.runs.is_empty() => {
                let run = self.runs.swap_remove(which.index(self.runs.len()));
                self.end(run, well);
            }
            Step::Free(which) if !self.pausing.is_empty() => {
                let run = self.pausing.swap_remove(which.index(self.pausing.len()));
                self.fleet.free(&run);
            }
            Step::Audit => self.fleet.audit(),
            Step::Break(up, down) if self.open => self.break_off(up.into(), down.into()),
            Step::Open { resumed } if !self.open => self.open(resumed),
            _ => {}
        }
        self.check();
    }

    fn dispatch(&mut self, which: prop::sample::Index) {
        let ready = self.seen.iter_mut().filter(|(_, seen)| seen.credits > 0 && !seen.suspended);
        let mut ready: Vec<_> = ready.collect();
        if ready.is_empty() {
            return;
        }
        let at = which.index(ready.len());
        let (container, seen) = &mut ready[at];
        self.ids += 1;
        let id = Bytes::copy_from_slice(&self.ids.to_be_bytes());
        seen.credits -= 1;
        seen.dispatched += 1;
        seen.in_flight.insert(id.clone());
        let (container, epoch) = (**container, seen.epoch);
        let dispatch = v1::Dispatch { container, id, time_left_ms: 1, attempt: 1, epoch, ..Default::default() };
        self.down.push_back(v1::PullResponse { dispatches: vec![dispatch], ..Default::default() });
    }

    fn leave(&mut self, entries: usize) {
        let mut wire = self.wire.0.lock();
        let leaving = entries.min(wire.len());
        self.up.extend(wire.drain(..leaving));
    }

    fn arrive_up(&mut self, entries: usize) {
        for _ in 0..entries.min(self.up.len()) {
            let entry = self.up.pop_front().unwrap();
            self.router_hears(entry);
        }
    }

    fn arrive_down(&mut self, frames: usize) {
        for _ in 0..frames.min(self.down.len()) {
            let frame = self.down.pop_front().unwrap();
            for dispatch in frame.dispatches {
                assert!(self.started.insert(dispatch.id.clone()), "each is sent once");
                self.runs.push(self.fleet.start(dispatch).expect("it is of a container that is there"));
            }
            frame.drains.iter().for_each(|drain| self.fleet.on_drained(drain));
        }
    }

    fn end(&mut self, run: Run, well: bool) {
        if !self.open && run.session == self.fleet.session {
            self.kept.push((run.container, run.activation.id.to_wire()));
        }
        if well {
            let completion = run.completion(Ok(Bytes::new()), 1);
            self.fleet.end(&run, completion).unwrap();
        } else {
            self.fleet.give_back(&run).unwrap();
            self.pausing.push(run);
        }
    }

    fn break_off(&mut self, up: usize, down: usize) {
        self.arrive_up(up);
        self.arrive_down(down);
        self.up.clear();
        self.down.clear();
        self.open = false;
        self.kept.extend(self.wire.0.lock().iter().filter_map(end_of));
        self.fleet.on_ended(End::Broken);
        self.seen.values_mut().for_each(|seen| seen.suspended = true);
    }

    fn open(&mut self, resumed: bool) {
        self.open = true;
        if !resumed {
            self.seen.clear();
        }
        self.wire = Wire::default();
        let welcome = v1::Welcome { session: "s".into(), resumed, grace_ms: 1, ..Default::default() };
        // Before the first stream there is nothing to resume.
        // With a container goes what it did not tell before it went.
        let kept = std::mem::take(&mut self.kept).into_iter();
        let kept = kept.filter(|(container, _)| resumed && self.fleet.places.contains_key(container));
        let kept: BTreeSet<_> = kept.collect();
        self.fleet.on_opened(self.wire.clone(), &welcome);
        let told: BTreeSet<_> = self.wire.0.lock().iter().filter_map(end_of).collect();
        assert_eq!(told, kept);
    }

    fn router_hears(&mut self, entry: PullEntry) {
        match entry {
            PullEntry::Register(register) => self.on_register(*register),
            PullEntry::Credit(credit) => self.of(credit.container, credit.epoch).grant(credit.credits),
            PullEntry::Completion(completion) => {
                let seen = self.of(completion.container, completion.epoch);
                assert!(seen.in_flight.remove(&completion.id), "not in flight");
                seen.grant(completion.credits);
            }
            PullEntry::Return(unstarted) => {
                let seen = self.of(unstarted.container, unstarted.epoch);
                assert!(seen.in_flight.remove(&unstarted.id), "not in flight");
            }
            PullEntry::Leave(v1::Leave { container, gone: true, epoch }) => {
                assert!(self.of(container, epoch).in_flight.is_empty(), "it loses something");
                self.seen.remove(&container);
            }
            PullEntry::Leave(v1::Leave { container, gone: false, epoch }) => {
                let seen = self.of(container, epoch);
                (seen.credits, seen.leaves) = (0, true);
                let drains = vec![v1::Drain { container, epoch }];
                self.down.push_back(v1::PullResponse { drains, ..Default::default() });
            }
            PullEntry::Rejoined(Rejoined) => self.seen.retain(|_, seen| !seen.suspended),
            PullEntry::Audit(audit) => {
                let seen = self.of(audit.container, audit.epoch);
                let here = seen.credits + (seen.dispatched - audit.received);
                assert_eq!(here, audit.credits, "{seen:?}");
            }
            PullEntry::Hello(_) => unreachable!("not a fleet's to say"),
        }
    }

    fn of(&mut self, container: u32, epoch: u32) -> &mut Seen {
        let seen = self.seen.get_mut(&container).expect("the router knows it");
        assert_eq!(seen.epoch, epoch);
        assert!(!seen.suspended, "spoken of before it rejoined");
        seen
    }

    fn on_register(&mut self, register: v1::Register) {
        let v1::Register { container, concurrency, credits, epoch, held, .. } = register;
        let held: BTreeSet<_> = held.into_iter().collect();
        let seen = self.seen.entry(container).or_insert_with(|| {
            assert!(held.is_empty(), "it is new");
            let in_flight = BTreeSet::new();
            Seen { epoch, concurrency, credits: 0, dispatched: 0, in_flight, suspended: true, leaves: false }
        });
        assert!(seen.epoch == epoch && seen.suspended, "registered twice: {seen:?}");
        assert!(held.is_subset(&seen.in_flight), "it holds what it was not sent, or has told the end of");
        (seen.in_flight, seen.credits, seen.dispatched, seen.suspended) = (held, 0, 0, false);
        seen.grant(credits);
    }

    fn check(&self) {
        for (number, place) in &self.fleet.places {
            assert!(place.runs.len() <= 3 * place.spec.concurrency as usize, "container {number}");
            assert!(!place.is_done(), "container {number} is done and still there");
        }
    }

    /// Everything arrives and every run ends: both sides believe the same, and nothing is left over.
    fn finish(mut self) {
        if !self.open {
            self.open(true);
        }
        while !(self.runs.is_empty() && self.pausing.is_empty() && self.is_quiet()) {
            self.leave(usize::MAX);
            self.arrive_up(usize::MAX);
            self.arrive_down(usize::MAX);
            while let Some(run) = self.runs.pop() {
                self.end(run, true);
            }
            while let Some(run) = self.pausing.pop() {
                self.fleet.free(&run);
            }
        }
        assert_eq!(self.fleet.places.len(), self.seen.len());
        for (number, place) in &self.fleet.places {
            let seen = &self.seen[number];
            assert_eq!((seen.credits, place.credits), (seen.concurrency, seen.concurrency), "{number}: {seen:?}");
            assert!(seen.in_flight.is_empty() && place.runs.is_empty() && place.owed.is_empty());
        }
    }

    fn is_quiet(&self) -> bool {
        self.wire.0.lock().is_empty() && self.up.is_empty() && self.down.is_empty()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn both_sides_believe_the_same_however_the_stream_breaks(steps in prop::collection::vec(step(), 1..120)) {
        let mut world = World::default();
        world.apply(Step::Open { resumed: false });
        world.apply(Step::Register(2));
        steps.into_iter().for_each(|step| world.apply(step));
        world.finish();
    }
}
