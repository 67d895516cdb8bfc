//! The process that is killed: one thread appends, another reads, marks and hands out; both say what they do in a pipe.

use crate::config;
use crate::point::Point;
use overflow::contract::{ALL, Draw, entry};
use overflow::disk::Disk;
use overflow::disk::files::Real;
use overflow::faulty::Faulty;
use overflow::{AppendError, Entry, Group, Marks, Most, Overflow};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// How much a victim does if nothing kills it.
const APPENDS: u64 = 120;

/// What a victim says, in its order for each thread. Records go by their numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Said {
    /// It will append these to a lane.
    Appending(u16, Vec<u64>),
    /// They were acknowledged.
    Durable(u16, Vec<u64>),
    /// It will mark these.
    Marking(u16, Vec<u64>),
    /// They are marked, and handed out.
    Handed(u16, Vec<u64>),
    /// It came to its end alive.
    Ended,
}

/// What became of a victim.
pub(crate) struct Told {
    pub said: Vec<Said>,
    /// It was killed, rather than coming to its end.
    pub killed: bool,
}

/// Starts a victim, and waits for its end.
pub(crate) fn run(dir: &Path, cycle: u64, point: &Point, draw: &mut Draw) -> Told {
    let mut command = Command::new(std::env::current_exe().unwrap());
    let numbers = [cycle, draw.below(1 << 31) | 1].map(|number| number.to_string());
    command.arg("--victim").arg(dir).args(numbers).args(point.arguments());
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    // A line without an end was not said.
    let lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    let said: Vec<Said> = lines.map(|line| Said::parse(line.trim_end())).collect();
    assert!(output.status.code().is_none_or(|code| code == 0), "the victim failed: {}", output.status);
    Told { said, killed: output.status.code().is_none() }
}

/// A second process is refused while the first has the store open.
pub(crate) fn check_lock(dir: &Path) {
    let open = || {
        let output = Command::new(std::env::current_exe().unwrap()).arg("--opener").arg(dir).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let store = Disk::open(&config(dir)).unwrap();
    assert!(open().contains("in use"));
    drop(store);
    assert_eq!(open(), "opened\n");
}

/// Says how opening the store went.
pub(crate) fn open(dir: &Path) {
    println!("{}", Disk::open(&config(dir)).map_or_else(|error| error.to_string(), |_| "opened".to_owned()));
}

/// A sync that fails as the kernel says it: strace makes it say so. `CRASH_WITHOUT_STRACE` leaves this out, where nobody may trace.
pub(crate) fn check_failing_sync(dir: &Path) {
    if std::env::var_os("CRASH_WITHOUT_STRACE").is_some() {
        return println!("  left out: a failing sync (CRASH_WITHOUT_STRACE)");
    }
    let traces = Command::new("strace").args(["-o", "/dev/null", "true"]).status();
    assert!(
        traces.is_ok_and(|status| status.success()),
        "strace is missing or may not trace; CRASH_WITHOUT_STRACE=1 does without"
    );
    let dir = dir.join("failing");
    std::fs::create_dir(&dir).unwrap();
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=fdatasync", "-e", "inject=fdatasync:error=EIO:when=1"]);
    let output = strace.arg(std::env::current_exe().unwrap()).arg("--appender").arg(&dir).output().unwrap();
    assert!(output.status.success(), "the appender failed: {}", output.status);
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "taken\nunknown\ntaken\n");
    let store = Disk::open(&config(&dir)).unwrap();
    let read: Vec<_> = store.read(0, 0, None, ALL).unwrap().records.into_iter().map(|record| record.body).collect();
    assert_eq!((read, store.usage().damaged), (vec!["0".into(), "2".into()], 0));
}

/// Three appends, and what came of each. The first makes a new file, which takes no fdatasync.
pub(crate) fn append_three(dir: &Path) {
    let store = Disk::open(&config(dir)).unwrap();
    for number in 0..3 {
        match store.append(&[entry(0, number.to_string())]).remove(0) {
            Ok(_) => println!("taken"),
            Err(AppendError::Unknown(_)) => println!("unknown"),
            Err(error) => println!("{error}"),
        }
    }
}

/// The victim itself.
pub(crate) fn main(arguments: &[String]) {
    let dir = Path::new(&arguments[0]);
    // Above the numbers of all victims before.
    let first = (arguments[1].parse::<u64>().unwrap() + 1) << 32;
    let mut draw = Draw(arguments[2].parse().unwrap());
    let files = Faulty::new(Arc::new(Real), Point::parse(&arguments[3..]).into_judge());
    let store = Disk::open_on(Arc::new(files), &config(dir)).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| drain(&store, &done));
        append(&store, first, &mut draw);
        done.store(true, Ordering::Release);
    });
    if draw.below(2) == 0 {
        store.close();
    }
    Said::Ended.say();
}

fn append(store: &Disk, first: u64, draw: &mut Draw) {
    let mut number = first;
    for _ in 0..APPENDS {
        let lanes: Vec<u16> = (0..crate::LANES).filter(|_| draw.below(2) == 0).collect();
        let mut entries: Vec<Entry> = Vec::new();
        let mut numbers = Vec::new();
        for lane in lanes {
            let own: Vec<u64> = (0..=draw.below(8)).map(|next| number + next).collect();
            number += own.len() as u64;
            entries
                .extend(own.iter().map(|number| Entry { group: group(*number), ..entry(lane, body(*number, draw)) }));
            Said::Appending(lane, own.clone()).say();
            numbers.push((lane, own));
        }
        for result in store.append(&entries) {
            result.unwrap();
        }
        numbers.into_iter().for_each(|(lane, own)| Said::Durable(lane, own).say());
    }
}

/// A record: its number, and some more.
fn body(number: u64, draw: &mut Draw) -> Vec<u8> {
    let more = usize::try_from(draw.below(500)).unwrap();
    [&number.to_be_bytes()[..], &vec![0x55; more]].concat()
}

/// Most are of the second group, which flows; the first is looked at from time to time only.
fn group(number: u64) -> Group {
    Group(u64::from(!number.is_multiple_of(16)))
}

/// The number of a record.
pub(crate) fn number(body: &[u8]) -> u64 {
    assert!(body[8..].iter().all(|byte| *byte == 0x55));
    u64::from_be_bytes(body[..8].try_into().unwrap())
}

/// Group by group, each for itself.
fn drain(store: &Disk, done: &AtomicBool) {
    let mut next = [[0; 2]; crate::LANES as usize];
    for round in 0.. {
        let ended = done.load(Ordering::Acquire);
        let mut any = false;
        for (lane, next) in (0..).zip(&mut next) {
            any |= (ended || round % 16 == 0) && hand_out(store, lane, next, 0);
            any |= hand_out(store, lane, next, 1);
        }
        if ended && !any {
            return;
        }
    }
}

/// Hands out what comes next of a group. Whether there was anything.
fn hand_out(store: &Disk, lane: u16, next: &mut [u64; 2], group: usize) -> bool {
    let only = Group(group as u64);
    let batch = store.read(lane, next[group], Some(only), Most { records: 20, bytes: 1 << 20 }).unwrap();
    assert!(batch.damaged == 0 && batch.lost.is_empty() && batch.records.iter().all(|record| record.group == only));
    let moved = batch.next > next[group];
    next[group] = batch.next;
    if batch.records.is_empty() {
        return moved;
    }
    let numbers: Vec<u64> = batch.records.iter().map(|record| number(&record.body)).collect();
    Said::Marking(lane, numbers.clone()).say();
    let marks = Marks { before: next[0].min(next[1]), groups: &[(Group(0), next[0]), (Group(1), next[1])] };
    store.consume(lane, &marks, numbers.len() as u64).unwrap();
    Said::Handed(lane, numbers).say();
    true
}

impl Said {
    /// One write: said as a whole, or not at all.
    fn say(&self) {
        let (word, lane, numbers) = match self {
            Self::Appending(lane, numbers) => ("appending", *lane, &numbers[..]),
            Self::Durable(lane, numbers) => ("durable", *lane, &numbers[..]),
            Self::Marking(lane, numbers) => ("marking", *lane, &numbers[..]),
            Self::Handed(lane, numbers) => ("handed", *lane, &numbers[..]),
            Self::Ended => ("ended", 0, &[][..]),
        };
        let numbers: String = numbers.iter().map(|number| format!(" {number:x}")).collect();
        let mut out = std::io::stdout().lock();
        out.write_all(format!("{word} {lane}{numbers}\n").as_bytes()).unwrap();
        out.flush().unwrap();
    }

    fn parse(line: &str) -> Self {
        let mut words = line.split(' ');
        let word = words.next().unwrap();
        let lane = words.next().unwrap().parse().unwrap();
        let numbers = words.map(|number| u64::from_str_radix(number, 16).unwrap()).collect();
        match word {
            "appending" => Self::Appending(lane, numbers),
            "durable" => Self::Durable(lane, numbers),
            "marking" => Self::Marking(lane, numbers),
            "handed" => Self::Handed(lane, numbers),
            _ => Self::Ended,
        }
    }
}
