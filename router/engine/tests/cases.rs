//! The engine's readable specification: each file in `cases` is a list of things that happen and of what the engine asks to
//! be done about each. This file reads that language and knows nothing of the engine's rules.
//!
//! A line that begins with `#` after one that does not starts a case, with a hub of its own at time zero; `>` is what must
//! come of the line before. `UPDATE_CASES=1 cargo test` writes what did come: read the diff before you commit it.
//!
//! ```text
//! limits NAME N ...                          before all else; times in ms
//! declare ACTION as HANDLE                   a controller's stream names an action, `name@revision`, and holds it
//! release HANDLE                             that stream is gone
//! push ID to ACTION|HANDLE by CONTROLLER     [time_left MS=1000] [bytes N=1] [reply accepted]
//! register CONTAINER on STREAM action ACTION [concurrency N=1] [credits N=0] [state warm] [epoch N=0] [node NAME=STREAM]
//! credit CONTAINER N
//! complete ID on CONTAINER                   [status action_failed|platform_failed] [credits N=0] [ran US=0]
//! return ID on CONTAINER
//! retire CONTAINER
//! gone CONTAINER
//! suspend CONTAINER                          its stream broke
//! unsent ID on CONTAINER [bytes N=1]         that dispatch never left
//! rejoin CONTAINER credits N [holds ID,...]
//! audit CONTAINER credits N received N       what it believes
//! full STREAM, room STREAM                   its outbox has no room, has room again (and resumes who waits for it)
//! wait MS                                    time passes; the timers are looked at whenever the engine asked for it
//! stall MS                                   time passes, the timers are not looked at
//! show                                       what is held, in total
//! breakers                                   those that are not closed
//! sum                                        over all containers
//! count NAME                                 how often that happened
//! ```

use bytes::Bytes;
use engine::audit::{Audit, Report};
use engine::container::{ContainerKey, Registration, Room};
use engine::effect::{Effect, Entry, Perform};
use engine::hub::{Action, Hub, Pass};
use engine::id::{ActionKey, ActivationId, NodeName, StreamId};
use engine::input::{Completion, Input, Push, Rejoin};
use engine::limits::Limits;
use engine::outcome::{Answer, Outcome, Rejection, Reply, RunStatus};
use engine::tally::Count;
use engine::time::Timestamp;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

#[test]
fn every_case_comes_out_as_written() {
    let mut files: Vec<PathBuf> =
        fs::read_dir(directory()).unwrap().map(|entry| entry.unwrap().path()).filter(|path| is_text(path)).collect();
    files.sort();
    assert!(!files.is_empty(), "there are cases");
    let wrong = files.iter().filter(|file| !comes_out_as_written(file)).count();
    assert_eq!(wrong, 0, "files that did not come out as written; see above");
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases")
}

fn is_text(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "txt")
}

fn comes_out_as_written(file: &Path) -> bool {
    let name = file.file_name().expect("a file has a name").to_string_lossy();
    let written = fs::read_to_string(file).expect("a case can be read");
    let actual = run(&name, &written);
    assert!(actual.contains("\n> "), "{name} has a case, and something comes of it");
    if actual == written {
        return true;
    }
    if std::env::var_os("UPDATE_CASES").is_some() {
        fs::write(file, actual).expect("a case can be written");
        return true;
    }
    println!("{name}: - as written, + as it came out\n{}", diff(&written, &actual));
    false
}

/// The text with what comes of each line in place of what should.
fn run(file: &str, text: &str) -> String {
    let mut actual = String::new();
    let mut world: Option<World> = None;
    let mut before = "";
    for (number, line) in (1..).zip(text.lines()) {
        let place = format!("{file}:{number}: {line}");
        if line.starts_with('#') && !before.starts_with('#') {
            world.replace(World::new(limits())).into_iter().for_each(World::end);
        }
        before = line;
        if line.starts_with('>') {
            continue;
        }
        actual += &format!("{line}\n");
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let world = world.as_mut().unwrap_or_else(|| panic!("{place}: a case starts with #"));
        world.act(&Words::new(&place, line));
        actual.extend(world.take_lines().iter().map(|line| format!("> {line}\n")));
    }
    world.into_iter().for_each(World::end);
    actual
}

/// Lines of both texts in order: common ones once, others marked with where they are from.
fn diff(old: &str, new: &str) -> String {
    let (old, new): (Vec<_>, Vec<_>) = (old.lines().collect(), new.lines().collect());
    // Length of the longest common part of what follows, for each pair of places.
    let mut common = vec![vec![0; new.len() + 1]; old.len() + 1];
    for (i, a) in old.iter().enumerate().rev() {
        for (j, b) in new.iter().enumerate().rev() {
            common[i][j] =
                if a == b { common[i + 1][j + 1] + 1 } else { usize::max(common[i + 1][j], common[i][j + 1]) };
        }
    }
    let (mut i, mut j, mut lines) = (0, 0, String::new());
    while i < old.len() || j < new.len() {
        let (mark, line) = if i < old.len() && j < new.len() && old[i] == new[j] {
            (i, j) = (i + 1, j + 1);
            (' ', old[i - 1])
        } else if j == new.len() || i < old.len() && common[i + 1][j] >= common[i][j + 1] {
            i += 1;
            ('-', old[i - 1])
        } else {
            j += 1;
            ('+', new[j - 1])
        };
        lines += &format!("{mark} {line}\n");
    }
    lines
}

/// One line of a case.
struct Words<'a> {
    place: &'a str,
    words: Vec<&'a str>,
}

impl<'a> Words<'a> {
    fn new(place: &'a str, line: &'a str) -> Self {
        Self { place, words: line.split_whitespace().collect() }
    }

    fn verb(&self) -> &'a str {
        self.words[0]
    }

    fn first(&self) -> &'a str {
        self.words.get(1).unwrap_or_else(|| panic!("{}: what?", self.place))
    }

    fn number(&self, at: usize) -> u64 {
        self.words.get(at).and_then(|word| word.parse().ok()).unwrap_or_else(|| panic!("{}: how many?", self.place))
    }

    fn after(&self, name: &str) -> Option<&'a str> {
        let at = self.words.iter().skip(2).position(|word| *word == name)?;
        Some(self.words.get(at + 3).unwrap_or_else(|| panic!("{}: {name} what?", self.place)))
    }

    fn must(&self, name: &str) -> &'a str {
        self.after(name).unwrap_or_else(|| panic!("{}: {name} what?", self.place))
    }

    fn number_after(&self, name: &str, otherwise: u32) -> u32 {
        self.after(name)
            .map_or(otherwise, |word| word.parse().unwrap_or_else(|_| panic!("{}: {name} is a number", self.place)))
    }
}

#[derive(Debug, Default)]
struct Recorder(Vec<Effect>);

/// More than all dispatches of a test take together.
const LOTS: usize = 1 << 40;

impl Perform for Recorder {
    fn perform(&mut self, effects: &mut Vec<Effect>) {
        self.0.append(effects);
    }
}

/// A registered container. The stream that carries it holds its action as long as it is there.
struct Carried {
    action: Weak<Action>,
    key: ContainerKey,
    held: Option<Arc<Action>>,
}

/// A hub, its driver, and all who talk to it.
struct World {
    hub: Hub,
    pass: Pass<Recorder>,
    lines: Vec<String>,
    /// Streams are numbered as they are first named.
    streams: Vec<String>,
    rooms: BTreeMap<String, Arc<Room>>,
    handles: BTreeMap<String, Arc<Action>>,
    containers: BTreeMap<String, Carried>,
    /// Containers by number less 1.
    numbers: Vec<String>,
    awaiting_room: Vec<(StreamId, Arc<Action>, ContainerKey)>,
    wake: Option<Timestamp>,
}

/// As by default, but that only payloads count as bytes: the cases are easier to read.
fn limits() -> Limits {
    Limits { queued_overhead_bytes: 0, ..Limits::default() }
}

impl World {
    fn new(limits: Limits) -> Self {
        Self {
            hub: Hub::new(limits, 7, 2, Timestamp::ZERO),
            pass: Pass::new(Recorder::default()),
            lines: Vec::new(),
            streams: Vec::new(),
            rooms: BTreeMap::new(),
            handles: BTreeMap::new(),
            containers: BTreeMap::new(),
            numbers: Vec::new(),
            awaiting_room: Vec::new(),
            wake: None,
        }
    }

    fn act(&mut self, words: &Words<'_>) {
        match words.verb() {
            "limits" => self.set_limits(words),
            "declare" => self.declare(words),
            "release" => drop(self.handles.remove(words.first()).unwrap_or_else(|| panic!("{}: who?", words.place))),
            "push" => self.push(words),
            "register" => self.register(words),
            "credit" => self.enter(words.first(), |key| Input::Credit(key, small(words.number(2)))),
            "complete" => self.enter(words.must("on"), |key| Input::Complete(key, completion(words))),
            "return" => self.enter(words.must("on"), |key| {
                Input::Return(key, activation(words.first()), payload(words.number_after("bytes", 1)))
            }),
            "suspend" => self.enter(words.first(), Input::Suspend),
            "unsent" => self.enter(words.must("on"), |key| {
                Input::Unsent(key, activation(words.first()), payload(words.number_after("bytes", 1)))
            }),
            "rejoin" => self.enter(words.first(), |key| {
                let held = words.after("holds").map_or(Vec::new(), |ids| ids.split(',').map(activation).collect());
                Input::Rejoin(key, Rejoin { credits: words.number_after("credits", 0), held })
            }),
            "audit" => self.audit(words),
            "retire" => self.enter(words.first(), Input::Retire),
            "gone" => self.gone(words.first()),
            "full" => self.room(words.first()).take(LOTS),
            "room" => self.resume(words.first()),
            "wait" => self.wait(Duration::from_millis(words.number(1))),
            "stall" => self.pass.now = self.pass.now + Duration::from_millis(words.number(1)),
            "show" => self.show(),
            "breakers" => self.show_breakers(),
            "sum" => self.sum(),
            "count" => self.show_count(words),
            _ => panic!("{}: unknown verb", words.place),
        }
        self.perform();
        self.check_conservation(words.place);
    }

    fn set_limits(&mut self, words: &Words<'_>) {
        let mut limits = limits();
        for pair in words.words[1..].chunks(2) {
            let n: u64 = pair[1].parse().unwrap_or_else(|_| panic!("{}: {} is a number", words.place, pair[1]));
            match pair[0] {
                "action_queued_max" => limits.action_queued_max = n,
                "action_queued_bytes_max" => limits.action_queued_bytes_max = n,
                "tenant_queued_max" => limits.tenant_queued_max = n,
                "tenant_queued_bytes_max" => limits.tenant_queued_bytes_max = n,
                "queued_overhead_bytes" => limits.queued_overhead_bytes = n,
                "router_queued_max" => limits.router_queued_max = n,
                "router_queued_bytes_max" => limits.router_queued_bytes_max = n,
                "actions_max" => limits.actions_max = n,
                "container_concurrency_max" => limits.container_concurrency_max = small(n),
                "overdue_grace" => limits.overdue_grace = Duration::from_millis(n),
                "slow_after" => limits.slow_after = Some(Duration::from_millis(n)),
                "breaker" => limits.breaker = limits.breaker.filter(|_| n > 0),
                "recent_sets" => limits.recent_sets = n.try_into().expect("a small number"),
                "idle_grace" => limits.idle_grace = Duration::from_millis(n),
                name => panic!("{}: unknown limit {name}", words.place),
            }
        }
        *self = Self::new(limits);
    }

    fn declare(&mut self, words: &Words<'_>) {
        match self.hub.declare(&action_key(words.first()), &mut self.pass) {
            Ok(action) => drop(self.handles.insert(words.must("as").to_owned(), action)),
            Err(rejection) => self.refused(rejection),
        }
    }

    fn push(&mut self, words: &Words<'_>) {
        let to = words.must("to");
        let action = match self.handles.get(to) {
            Some(action) => action.clone(),
            None => match self.hub.declare(&action_key(to), &mut self.pass) {
                Ok(action) => action,
                Err(rejection) => return self.refused(rejection),
            },
        };
        let time_left = Duration::from_millis(words.number_after("time_left", 1000).into());
        let push = Push {
            id: activation(words.first()),
            controller: self.stream(words.must("by")),
            reply: if words.after("reply") == Some("accepted") { Reply::Accepted } else { Reply::Outcome },
            attempt: 1,
            accepted_at: self.pass.now,
            deadline: self.pass.now + time_left,
            payload: payload(words.number_after("bytes", 1)),
            accepted: false,
            refilled: false,
        };
        self.hub.enter(&action, &mut vec![Input::Push(push)], &mut self.pass);
    }

    fn register(&mut self, words: &Words<'_>) {
        let (name, stream) = (words.first(), words.must("on"));
        self.numbers.push(name.to_owned());
        let new = Registration {
            stream: self.stream(stream),
            node: NodeName::new(words.after("node").unwrap_or(stream)),
            number: small(self.numbers.len() as u64),
            epoch: words.number_after("epoch", 0),
            concurrency: words.number_after("concurrency", 1),
            credits: words.number_after("credits", 0),
            warm: words.after("state") == Some("warm"),
            room: self.room(stream),
        };
        match self.hub.register(&action_key(words.must("action")), new, &mut self.pass) {
            Ok((action, key)) => {
                let carried = Carried { action: Arc::downgrade(&action), key, held: Some(action) };
                self.containers.insert(name.to_owned(), carried);
            }
            Err(rejection) => self.refused(rejection),
        }
    }

    fn enter(&mut self, container: &str, input: impl FnOnce(ContainerKey) -> Input) {
        let carried = &self.containers[container];
        let action = carried.action.upgrade().expect("the action is there");
        self.hub.enter(&action, &mut vec![input(carried.key)], &mut self.pass);
    }

    /// Shows what was found, as nothing is asked for because of it.
    fn audit(&mut self, words: &Words<'_>) {
        let (credits, received) = (words.number_after("credits", 0), words.number_after("received", 0));
        let found =
            |world: &Self| [Count::CreditsPhantom, Count::CreditsLeaked].map(|count| world.hub.totals().of(count));
        let before = found(self);
        self.enter(words.first(), |key| Input::Audit(key, credits, received));
        self.hub.settle(&mut self.pass);
        let [phantom, leaked] = found(self);
        self.lines.push(format!("phantom {} leaked {}", phantom - before[0], leaked - before[1]));
    }

    fn gone(&mut self, container: &str) {
        self.enter(container, Input::Gone);
        self.containers.get_mut(container).expect("just entered").held = None;
    }

    fn resume(&mut self, stream: &str) {
        self.room(stream).give_back(LOTS);
        let stream = self.stream(stream);
        for (_, action, key) in self.awaiting_room.extract_if(.., |(of, ..)| *of == stream).collect::<Vec<_>>() {
            self.hub.enter(&action, &mut vec![Input::Resume(key)], &mut self.pass);
        }
    }

    /// As a driver does: looks at the timers when it was told to, and at no other time.
    fn wait(&mut self, time: Duration) {
        let until = self.pass.now + time;
        while let Some(at) = self.wake.filter(|at| *at <= until) {
            self.pass.now = self.pass.now.max(at);
            self.wake = None;
            while self.hub.advance(3, &mut self.pass) {}
            let next = self.hub.next_wake();
            self.perform();
            self.wake = self.wake.into_iter().chain(next).min();
        }
        self.pass.now = self.pass.now.max(until);
    }

    fn show(&mut self) {
        let (held, actions) = (self.hub.held(), self.hub.actions());
        let (queued, bytes) = (self.hub.budget().queued(), self.hub.budget().queued_bytes());
        self.lines.push(format!("held {held} queued {queued} bytes {bytes} actions {actions}"));
    }

    fn show_breakers(&mut self) {
        for Report { container, node, state, cause, since, .. } in self.hub.breakers(100, &mut self.pass) {
            let of = container.map_or(node.to_string(), |(_, number)| self.container(number).to_string());
            let since = since.as_micros() / 1000;
            self.lines.push(format!("{of} {} since {since}, {}", state.label(), cause.label()));
        }
    }

    fn sum(&mut self) {
        let Audit { containers, suspended, tripped, slots, in_flight, credits, retired_in_flight } =
            self.hub.audit(&mut self.pass);
        self.lines.push(format!(
            "containers {containers} suspended {suspended} tripped {tripped} slots {slots} in_flight {in_flight} \
             credits {credits} retired_in_flight {retired_in_flight}"
        ));
    }

    fn show_count(&mut self, words: &Words<'_>) {
        self.hub.settle(&mut self.pass);
        let count = Count::ALL.iter().find(|count| count.label() == words.first());
        let count = count.unwrap_or_else(|| panic!("{}: no such count", words.place));
        self.lines.push(self.hub.totals().of(*count).to_string());
    }

    fn refused(&mut self, rejection: Rejection) {
        self.lines.push(format!("refused {}", rejected(&rejection)));
    }

    /// Writes down what the engine asked for, and plans what concerns its driver.
    fn perform(&mut self) {
        for effect in std::mem::take(&mut self.pass.performer.0) {
            let line = match effect {
                Effect::Write(_, Entry::Dispatch(dispatch)) => {
                    let container = self.container(dispatch.container);
                    let (id, time_left, attempt) = (name(dispatch.id), dispatch.time_left_ms, dispatch.attempt);
                    let epoch = of(dispatch.epoch);
                    format!("dispatch {id} to {container}{epoch} time_left {time_left} attempt {attempt}")
                }
                Effect::Write(stream, Entry::Answer(Answer { id, outcome, .. })) => {
                    format!("answer {} to {} {}", name(id), self.stream_name(stream), ended(&outcome))
                }
                Effect::Write(_, Entry::Refuse(refusal)) => {
                    let container = self.container(refusal.number);
                    let id = String::from_utf8_lossy(&refusal.id).trim_end_matches('\0').to_owned();
                    format!("refuse {container} {} {id}", rejected(&refusal.rejection)).trim_end().to_owned()
                }
                Effect::Write(_, Entry::Drain(number, epoch)) => {
                    format!("drain {}{}", self.container(number), of(epoch))
                }
                Effect::Write(_, Entry::Draining) => unreachable!("the engine never says that the router drains"),
                Effect::AwaitRoom(stream, action, key) => {
                    self.awaiting_room.push((stream, action, key));
                    format!("await_room {}", self.stream_name(stream))
                }
                Effect::Spill(_) | Effect::Refill(_) => unreachable!("nothing overflows in the cases"),
                Effect::WakeAt(at) => {
                    self.wake = self.wake.into_iter().chain([at]).min();
                    continue;
                }
            };
            self.lines.push(line);
        }
    }

    fn take_lines(&mut self) -> Vec<String> {
        std::mem::take(&mut self.lines)
    }

    fn check_conservation(&mut self, place: &str) {
        self.hub.settle(&mut self.pass);
        let (held, totals) = (self.hub.held() as u64, self.hub.totals());
        assert_eq!(
            totals.of(Count::Accepted) + totals.overdue(),
            totals.ended() + held,
            "{place}: accepted = ended + held - overdue"
        );
    }

    /// Everyone leaves. Then nothing is left, whatever happened before.
    fn end(mut self) {
        self.handles.clear();
        let carried: Vec<String> = self
            .containers
            .iter()
            .filter(|(_, carried)| carried.held.is_some())
            .map(|(name, _)| name.clone())
            .collect();
        carried.iter().for_each(|container| self.gone(container));
        self.awaiting_room.clear();
        self.perform();
        let grace = self.hub.limits().idle_grace;
        // An action outlives the ones it supersedes by up to a grace period.
        self.wait(Duration::from_secs(100));
        (0..=self.hub.actions()).for_each(|_| self.wait(grace + Duration::from_millis(2)));
        let (queued, bytes) = (self.hub.budget().queued(), self.hub.budget().queued_bytes());
        assert_eq!((self.hub.held(), queued, bytes, self.hub.actions()), (0, 0, 0, 0), "nothing is left");
        self.check_conservation("at the end");
        assert_eq!(self.wake, None, "no timer is left");
    }

    fn stream(&mut self, name: &str) -> StreamId {
        let known = self.streams.iter().position(|stream| stream == name);
        let at = known.unwrap_or_else(|| {
            self.streams.push(name.to_owned());
            self.streams.len() - 1
        });
        StreamId(at as u64)
    }

    fn stream_name(&self, stream: StreamId) -> &str {
        &self.streams[usize::try_from(stream.0).expect("few streams")]
    }

    fn room(&mut self, stream: &str) -> Arc<Room> {
        self.rooms.entry(stream.to_owned()).or_insert_with(|| Arc::new(Room::new(LOTS / 2))).clone()
    }

    fn container(&self, number: u32) -> &str {
        &self.numbers[number as usize - 1]
    }
}

/// An epoch, where a case gave one.
fn of(epoch: u32) -> String {
    if epoch == 0 { String::new() } else { format!(" epoch {epoch}") }
}

fn completion(words: &Words<'_>) -> Completion {
    Completion {
        id: activation(words.first()),
        status: match words.after("status") {
            None => RunStatus::Succeeded,
            Some("action_failed") => RunStatus::ActionFailed,
            Some("platform_failed") => RunStatus::PlatformFailed,
            Some(status) => panic!("{}: unknown status {status}", words.place),
        },
        result: Bytes::from_static(b"result"),
        run_us: words.number_after("ran", 0),
        arrived_at: Timestamp::ZERO,
        credits: words.number_after("credits", 0),
    }
}

fn ended(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Completed(_) => "completed".to_owned(),
        Outcome::ActionFailed(_) => "action_failed".to_owned(),
        Outcome::PlatformFailed(_) => "platform_failed".to_owned(),
        Outcome::Expired => "expired".to_owned(),
        Outcome::Rejected(rejection) => format!("rejected {}", rejected(rejection)),
        Outcome::Lost => "lost".to_owned(),
        Outcome::TimedOut => "timed_out".to_owned(),
        Outcome::Accepted(durability) => format!("accepted in {durability:?}").to_lowercase(),
    }
}

fn rejected(rejection: &Rejection) -> String {
    let Rejection { reason, field, limit, retry_after_ms } = rejection;
    let retry = if *retry_after_ms > 0 { format!(" retry_after {retry_after_ms}") } else { String::new() };
    format!("{} {field} {limit}{retry}", reason.label())
}

fn action_key(text: &str) -> ActionKey {
    let (action, revision) = text.split_once('@').unwrap_or((text, ""));
    ActionKey::new("tenant", action, revision)
}

fn activation(name: &str) -> ActivationId {
    let mut id = [0; ActivationId::LEN];
    id[..name.len()].copy_from_slice(name.as_bytes());
    ActivationId(id)
}

fn name(id: ActivationId) -> String {
    String::from_utf8_lossy(&id.0).trim_end_matches('\0').to_owned()
}

fn payload(bytes: u32) -> Bytes {
    vec![b'p'; bytes as usize].into()
}

fn small(n: u64) -> u32 {
    u32::try_from(n).expect("a small number")
}
