//! Reads the ledgers of a run and says what broke. It believes nobody: neither router nor client has a say here, and no counter of
//! theirs is read. Pure: histories in, findings out.

use super::ledger::{Ending, Entry, History, Life, Name, Record, Seat};
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;

/// How late an answer may be, counted from its caller's deadline: the timer's own grace, and two busy cores.
pub(crate) const ANSWER_GRACE_NS: u64 = 250 * MS;
/// How long after the kill of its container's process a caller may wait.
pub(crate) const LOST_WITHIN_NS: u64 = 100 * MS;
const MS: u64 = 1_000_000;
/// Most troubles that are told one by one.
const TOLD_MAX: usize = 20;

/// What is to be known of one activation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Story {
    pub(crate) asked: u64,
    pub(crate) deadline: u64,
    pub(crate) answered: Option<(u64, Ending)>,
    /// When and by whom it was started.
    pub(crate) started: Option<(u64, Life)>,
    pub(crate) ended: bool,
}

/// What the ledgers say.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub(crate) asked: u64,
    pub(crate) endings: BTreeMap<Ending, u64>,
    /// Asked by a process that was killed before their time was over. Nobody was left to be told.
    pub(crate) excused: u64,
    pub(crate) unanswered: u64,
    /// Second answers and second starts.
    pub(crate) duplicates: u64,
    /// Answers that say what did not happen: a run without a start, or no start where there was one.
    pub(crate) untrue: u64,
    /// Answers behind their deadline and its grace.
    pub(crate) late: u64,
    /// How far behind its deadline the latest answer was.
    pub(crate) worst_lateness_ns: u64,
    /// From the kill of a container's process to the answer, for each that was running there; sorted.
    pub(crate) lost_after_ns: Vec<u64>,
    /// The first troubles, in words.
    pub(crate) troubles: Vec<String>,
    pub(crate) stories: HashMap<Name, Story>,
}

/// Judges all histories of one run.
pub(crate) fn judge(histories: &[History]) -> Findings {
    let fates = Fates::read(histories);
    let mut findings = Findings::default();
    // Asks first: the other ledgers speak of them.
    for (_, record) in records(histories) {
        findings.on_asked(record);
    }
    let mut own = HashMap::<Life, u64>::new();
    for (writer, record) in records(histories) {
        findings.on_record(writer, record);
        if let Entry::Answered { name, ending } = record.entry {
            *own.entry(name.asker()).or_default() += u64::from(ending.may_be_the_callers_own());
        }
    }
    for (writer, record) in records(histories) {
        if let Entry::Left { late_answers } = record.entry {
            let surplus = u64::from(late_answers).saturating_sub(own.get(&writer).copied().unwrap_or_default());
            findings.duplicates += surplus;
            if surplus > 0 {
                findings.tell(&format!("{writer} heard {surplus} answers to what was answered already"));
            }
        }
    }
    findings.conclude(&fates);
    findings
}

/// All records of processes.
fn records(histories: &[History]) -> impl Iterator<Item = (Life, Record)> {
    let of = |history: &'_ History| history.writer;
    histories
        .iter()
        .filter_map(move |history| Some((of(history)?, &history.records)))
        .flat_map(|(writer, records)| records.iter().map(move |record| (writer, *record)))
}

impl Findings {
    /// Whether the promise was broken, times aside.
    pub(crate) fn broken(&self) -> u64 {
        self.unanswered + self.duplicates + self.untrue
    }

    pub(crate) fn of(&self, ending: Ending) -> u64 {
        self.endings.get(&ending).copied().unwrap_or_default()
    }

    /// What was asked and how it ended, in a line.
    pub(crate) fn line(&self) -> String {
        let mut line = format!("{} asked", self.asked);
        for (ending, n) in &self.endings {
            let _ = write!(line, ", {n} {ending:?}");
        }
        let _ = write!(
            line,
            "; {} excused, {} unanswered, {} duplicates, {} untrue, {} late",
            self.excused, self.unanswered, self.duplicates, self.untrue, self.late
        );
        line
    }

    /// Adds what another run came to; its single stories stay behind.
    pub(crate) fn add(&mut self, other: Self) {
        self.asked += other.asked;
        self.excused += other.excused;
        self.unanswered += other.unanswered;
        self.duplicates += other.duplicates;
        self.untrue += other.untrue;
        self.late += other.late;
        self.worst_lateness_ns = self.worst_lateness_ns.max(other.worst_lateness_ns);
        for (ending, n) in other.endings {
            *self.endings.entry(ending).or_default() += n;
        }
        self.lost_after_ns.extend(other.lost_after_ns);
        self.lost_after_ns.sort_unstable();
        self.troubles.extend(other.troubles);
        self.troubles.truncate(TOLD_MAX);
    }

    fn on_asked(&mut self, record: Record) {
        let Entry::Asked { name, timeout_us } = record.entry else { return };
        self.asked += 1;
        let (asked, deadline) = (record.at, record.at + u64::from(timeout_us) * 1000);
        let story = Story { asked, deadline, answered: None, started: None, ended: false };
        if self.stories.insert(name, story).is_some() {
            self.duplicates += 1;
            self.tell(&format!("{name} was asked twice: the test itself is wrong"));
        }
    }

    fn on_record(&mut self, writer: Life, Record { at, entry }: Record) {
        match entry {
            Entry::Answered { name, ending } => {
                let before = self.stories.get_mut(&name).map(|story| story.answered.replace((at, ending)));
                match before {
                    Some(None) => *self.endings.entry(ending).or_default() += 1,
                    Some(Some((_, first))) => {
                        self.duplicates += 1;
                        self.tell(&format!("{name} was answered twice: {first:?}, then {ending:?}"));
                    }
                    None => self.stranger(name, "answered"),
                }
            }
            Entry::Started { name, attempt } => {
                let before = self.stories.get_mut(&name).map(|story| story.started.replace((at, writer)));
                match before {
                    Some(None) => {}
                    Some(Some((_, first))) => {
                        self.duplicates += 1;
                        self.tell(&format!(
                            "{name} was started twice: by {first}, then by {writer} as attempt {attempt}"
                        ));
                    }
                    None => self.stranger(name, "started"),
                }
            }
            Entry::Ended { name } => match self.stories.get_mut(&name) {
                Some(story) => story.ended = true,
                None => self.stranger(name, "ended"),
            },
            _ => {}
        }
    }

    fn stranger(&mut self, name: Name, what: &str) {
        self.untrue += 1;
        self.tell(&format!("{name} was {what} and nobody had asked"));
    }

    /// What can be told only when everything is known.
    fn conclude(&mut self, fates: &Fates) {
        let stories = std::mem::take(&mut self.stories);
        for (name, story) in &stories {
            match story.answered {
                None => self.on_silence(*name, story, fates),
                Some((at, ending)) => {
                    self.check_time(*name, story, at, fates);
                    self.check_truth(*name, story, at, ending);
                    self.lost_after_ns.extend(lost_after(story, at, ending, fates));
                }
            }
        }
        self.lost_after_ns.sort_unstable();
        self.stories = stories;
    }

    fn on_silence(&mut self, name: Name, story: &Story, fates: &Fates) {
        let allowed = fates.allowed(name.asker(), story.deadline);
        if fates.killed.get(&name.asker()).is_some_and(|killed| *killed <= allowed) {
            self.excused += 1;
            return;
        }
        self.unanswered += 1;
        let started = story.started.map_or("never started".to_owned(), |(_, by)| format!("started by {by}"));
        self.tell(&format!("{name} has no answer; it was {started}, ended: {}", story.ended));
    }

    fn check_time(&mut self, name: Name, story: &Story, at: u64, fates: &Fates) {
        let allowed = fates.allowed(name.asker(), story.deadline);
        // What its own process slept through is nobody's fault.
        let excused = allowed - ANSWER_GRACE_NS;
        self.worst_lateness_ns = self.worst_lateness_ns.max(at.saturating_sub(excused));
        if at > allowed {
            self.late += 1;
            self.tell(&format!("{name} was answered {} ms behind its deadline", (at - story.deadline) / MS));
        }
    }

    fn check_truth(&mut self, name: Name, story: &Story, at: u64, ending: Ending) {
        let lie = match story.started {
            _ if ending == Ending::Swapped => "with what another one returned",
            None if ending.says_it_ran() => "no container ran it",
            Some((start, _)) if ending.says_it_ran() && start > at => "it had not started yet",
            Some(_) if ending.says_it_ran() && !story.ended => "it had not ended yet",
            Some((_, _)) if ending.says_it_never_started() => "it was started",
            _ => return,
        };
        self.untrue += 1;
        self.tell(&format!("{name} was answered {ending:?}, but {lie}"));
    }

    fn tell(&mut self, trouble: &str) {
        if self.troubles.len() < TOLD_MAX {
            self.troubles.push(trouble.to_owned());
        }
    }
}

/// From the kill of its container's process to the answer, if that is how it ended.
fn lost_after(story: &Story, at: u64, ending: Ending, fates: &Fates) -> Option<u64> {
    let killed = match story.started {
        // One that was done may have been on its way already.
        Some((_, by)) if ending == Ending::Lost || !story.ended => *fates.killed.get(&by)?,
        Some(_) => return None,
        // It was dispatched and never arrived: the last kill is to blame, if there was one.
        None if ending == Ending::Lost => *fates.nodes_killed.iter().rfind(|killed| **killed <= at)?,
        None => return None,
    };
    (killed <= at && story.asked <= killed).then(|| at - killed)
}

/// What was done to processes.
#[derive(Debug, Default)]
struct Fates {
    killed: HashMap<Life, u64>,
    /// In order.
    nodes_killed: Vec<u64>,
    /// From when to when each was stopped.
    stopped: HashMap<Life, Vec<(u64, u64)>>,
}

impl Fates {
    fn read(histories: &[History]) -> Self {
        let mut fates = Self::default();
        let director = histories.iter().filter(|history| history.writer.is_none());
        for &Record { at, entry } in director.flat_map(|history| &history.records) {
            match entry {
                Entry::Killed { life } => {
                    fates.killed.insert(life, at);
                    if matches!(life.seat, Seat::Node(_)) {
                        fates.nodes_killed.push(at);
                    }
                }
                Entry::Stopped { life } => fates.stopped.entry(life).or_default().push((at, u64::MAX)),
                Entry::Continued { life } => {
                    if let Some(last) = fates.stopped.get_mut(&life).and_then(|all| all.last_mut()) {
                        last.1 = at;
                    }
                }
                _ => {}
            }
        }
        fates.nodes_killed.sort_unstable();
        fates
    }

    /// Until when an answer with that deadline is in time: one that falls into a pause of the asker itself, or just behind it, has
    /// until the grace after the pause.
    fn allowed(&self, asker: Life, deadline: u64) -> u64 {
        let mut allowed = deadline + ANSWER_GRACE_NS;
        for &(from, to) in self.stopped.get(&asker).into_iter().flatten() {
            if from <= allowed && to >= deadline {
                allowed = allowed.max(to.saturating_add(ANSWER_GRACE_NS));
            }
        }
        allowed
    }
}

/// The value below which that share of them lies; of none, 0.
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
pub(crate) fn quantile(sorted: &[u64], share: f64) -> u64 {
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALLER: Life = Life { seat: Seat::Caller(0), number: 0 };
    const NODE: Life = Life { seat: Seat::Node(0), number: 0 };
    const OTHER_NODE: Life = Life { seat: Seat::Node(1), number: 0 };

    fn name(number: u64) -> Name {
        Name { caller: 0, life: 0, number }
    }

    /// Histories as a script, times in milliseconds: `ask 1 500` by the caller with that timeout, `answer 1 Completed`, `start 1`,
    /// `end 1`, `start-elsewhere 1`, `left 0`, `kill node`, `stop caller`, `continue caller`.
    fn findings(script: &[(u64, &str)]) -> Findings {
        let mut histories: Vec<History> = [None, Some(CALLER), Some(NODE), Some(OTHER_NODE)]
            .map(|writer| History { writer, records: Vec::new() })
            .into();
        for &(at, line) in script {
            let words: Vec<&str> = line.split(' ').collect();
            let name = || name(words[1].parse().unwrap());
            let life = || if words[1] == "caller" { CALLER } else { NODE };
            let (ledger, entry) = match words[0] {
                "ask" => (1, Entry::Asked { name: name(), timeout_us: words[2].parse::<u32>().unwrap() * 1000 }),
                "answer" => {
                    let ending = Ending::ALL.into_iter().find(|ending| format!("{ending:?}") == words[2]).unwrap();
                    (1, Entry::Answered { name: name(), ending })
                }
                "left" => (1, Entry::Left { late_answers: words[1].parse().unwrap() }),
                "start" => (2, Entry::Started { name: name(), attempt: 1 }),
                "start-elsewhere" => (3, Entry::Started { name: name(), attempt: 2 }),
                "end" => (2, Entry::Ended { name: name() }),
                "kill" => (0, Entry::Killed { life: life() }),
                "stop" => (0, Entry::Stopped { life: life() }),
                "continue" => (0, Entry::Continued { life: life() }),
                other => panic!("{other}"),
            };
            histories[ledger].records.push(Record { at: at * MS, entry });
        }
        judge(&histories)
    }

    /// Unanswered, duplicates, untrue, late, excused.
    #[track_caller]
    fn check(script: &[(u64, &str)], expected: [u64; 5]) {
        let found = findings(script);
        let counts = [found.unanswered, found.duplicates, found.untrue, found.late, found.excused];
        assert_eq!(counts, expected, "{:?}", found.troubles);
        let told = found.broken() + found.late > 0;
        assert_eq!(told, !found.troubles.is_empty(), "{:?}", found.troubles);
    }

    #[test]
    fn a_good_history_is_good() {
        check(&[(0, "ask 1 500"), (1, "start 1"), (2, "end 1"), (3, "answer 1 Completed"), (9, "left 0")], [0; 5]);
        check(&[(0, "ask 1 500"), (750, "answer 1 Expired")], [0; 5]);
        check(&[(0, "ask 1 500"), (1, "start 1"), (2, "answer 1 Lost")], [0; 5]);
    }

    #[test]
    fn silence_is_found() {
        check(&[(0, "ask 1 500"), (1, "start 1"), (2, "end 1"), (9, "left 0")], [1, 0, 0, 0, 0]);
    }

    #[test]
    fn a_killed_caller_is_excused_unless_it_should_have_been_answered_before() {
        check(&[(0, "ask 1 500"), (749, "kill caller")], [0, 0, 0, 0, 1]);
        check(&[(0, "ask 1 500"), (751, "kill caller")], [1, 0, 0, 0, 0]);
        check(&[(0, "ask 1 500"), (1, "kill node")], [1, 0, 0, 0, 0]);
    }

    #[test]
    fn a_second_answer_is_found() {
        let script = [(0, "ask 1 500"), (1, "start 1"), (2, "end 1"), (3, "answer 1 Completed"), (4, "answer 1 Lost")];
        check(&script, [0, 1, 0, 0, 0]);
    }

    #[test]
    fn a_second_start_is_found_wherever_it_is() {
        check(&[(0, "ask 1 500"), (1, "start 1"), (2, "start 1"), (3, "answer 1 Lost")], [0, 1, 0, 0, 0]);
        check(&[(0, "ask 1 500"), (1, "start 1"), (2, "start-elsewhere 1"), (3, "answer 1 Lost")], [0, 1, 0, 0, 0]);
        // Even where the one who asked is gone.
        let script = [(0, "ask 1 500"), (1, "kill caller"), (2, "start 1"), (3, "start-elsewhere 1")];
        check(&script, [0, 1, 0, 0, 1]);
    }

    #[test]
    fn late_answers_that_nothing_explains_are_duplicates() {
        let timed_out = [(0, "ask 1 500"), (600, "answer 1 TimedOut"), (700, "left 1")];
        check(&timed_out, [0; 5]);
        let twice = [(0, "ask 1 500"), (600, "answer 1 TimedOut"), (700, "left 2")];
        check(&twice, [0, 1, 0, 0, 0]);
        check(&[(0, "ask 1 500"), (600, "answer 1 Expired"), (700, "left 1")], [0, 1, 0, 0, 0]);
    }

    #[test]
    fn an_answer_must_be_true() {
        check(&[(0, "ask 1 500"), (3, "answer 1 Completed")], [0, 0, 1, 0, 0]);
        check(&[(0, "ask 1 500"), (1, "start 1"), (3, "answer 1 ActionFailed")], [0, 0, 1, 0, 0]);
        check(&[(0, "ask 1 500"), (3, "answer 1 Completed"), (4, "start 1"), (5, "end 1")], [0, 0, 1, 0, 0]);
        for never in ["Expired", "Rejected", "Unsent", "CircuitOpen"] {
            let answer = format!("answer 1 {never}");
            check(&[(0, "ask 1 500"), (1, "start 1"), (2, &answer)], [0, 0, 1, 0, 0]);
            check(&[(0, "ask 1 500"), (2, &answer), (9, "start 1")], [0, 0, 1, 0, 0]);
        }
        for unknown in ["Lost", "TimedOut", "MaybeSent", "Unknown", "PlatformFailed"] {
            let answer = format!("answer 1 {unknown}");
            check(&[(0, "ask 1 500"), (1, "start 1"), (2, &answer)], [0; 5]);
            check(&[(0, "ask 1 500"), (2, &answer)], [0; 5]);
        }
        check(&[(0, "ask 1 500"), (1, "start 1"), (2, "end 1"), (3, "answer 1 Swapped")], [0, 0, 1, 0, 0]);
    }

    #[test]
    fn what_nobody_asked_for_is_found() {
        check(&[(1, "start 1")], [0, 0, 1, 0, 0]);
        check(&[(1, "answer 1 Lost")], [0, 0, 1, 0, 0]);
        check(&[(1, "end 1")], [0, 0, 1, 0, 0]);
    }

    #[test]
    fn a_late_answer_is_found_to_the_millisecond() {
        check(&[(0, "ask 1 500"), (750, "answer 1 TimedOut")], [0; 5]);
        check(&[(0, "ask 1 500"), (751, "answer 1 TimedOut")], [0, 0, 0, 1, 0]);
        assert_eq!(findings(&[(0, "ask 1 500"), (620, "answer 1 TimedOut")]).worst_lateness_ns, 120 * MS);
    }

    #[test]
    fn a_caller_that_was_stopped_itself_is_late_only_behind_its_pause() {
        let pause = [(0, "ask 1 500"), (400, "stop caller"), (900, "continue caller")];
        let with = |at| [&pause[..], &[(at, "answer 1 TimedOut")]].concat();
        check(&with(1150), [0; 5]);
        check(&with(1151), [0, 0, 0, 1, 0]);
        // A pause that was over before the deadline excuses nothing.
        let early = [(0, "ask 1 500"), (100, "stop caller"), (400, "continue caller"), (751, "answer 1 TimedOut")];
        check(&early, [0, 0, 0, 1, 0]);
    }

    #[test]
    fn the_time_from_a_kill_to_the_answer_is_measured() {
        let lost = |script: &[(u64, &str)]| findings(script).lost_after_ns;
        let running = [(0, "ask 1 500"), (1, "start 1"), (10, "kill node")];
        let with = |more: &[(u64, &'static str)]| lost(&[&running[..], more].concat());
        assert_eq!(with(&[(70, "answer 1 Lost")]), [60 * MS]);
        assert_eq!(with(&[(600, "answer 1 TimedOut")]), [590 * MS], "nobody told it");
        assert!(with(&[(9, "end 1"), (11, "answer 1 Completed")]).is_empty(), "it was on its way");
        assert_eq!(lost(&[(0, "ask 1 500"), (10, "kill node"), (30, "answer 1 Lost")]), [20 * MS], "never arrived");
        assert!(lost(&[(20, "ask 1 500"), (10, "kill node"), (30, "answer 1 Lost")]).is_empty(), "asked later");
    }

    #[test]
    fn quantiles_are_of_the_sorted() {
        let values: Vec<u64> = (1..=100).collect();
        assert_eq!([0.5, 0.99, 1.0].map(|share| quantile(&values, share)), [50, 99, 100]);
        assert_eq!((quantile(&[7], 0.5), quantile(&[], 0.5)), (7, 0));
    }

    #[test]
    fn findings_add_up() {
        let mut sum = findings(&[(0, "ask 1 500")]);
        sum.add(findings(&[(0, "ask 1 500"), (1, "start 1"), (2, "kill node"), (5, "answer 1 Lost")]));
        assert_eq!((sum.asked, sum.unanswered, sum.of(Ending::Lost), sum.lost_after_ns.len()), (2, 1, 1, 1));
    }
}
