//! Where a victim dies: at which operation on which kind of file, at which time it comes by, and before, in, or after it.

use overflow::contract::Draw;
use overflow::faulty::{Call, Op, Verdict};
use rustix::process::{Signal, getpid, kill_process};
use std::sync::atomic::{AtomicU64, Ordering};

/// The operations by what the store does with them. The names are for the report.
pub(crate) const NAMES: [&str; 15] = [
    "append: write",
    "append: sync",
    "rotate: create",
    "rotate: write",
    "rotate: sync",
    "rotate: sync of the directory",
    "consume: write of the first copy",
    "consume: write of the second copy",
    "consume: sync",
    "trim: remove",
    "read",
    "note: create",
    "note: write",
    "give back: rename",
    "give back: cut",
];

/// One place to die at.
#[derive(Debug, Clone)]
pub(crate) struct Point {
    /// Into [`NAMES`].
    pub name: usize,
    pass: u64,
    when: When,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    Before,
    /// With so many thousandths of a write done.
    Within(u64),
    After,
}

impl Point {
    pub(crate) fn draw(draw: &mut Draw) -> Self {
        let name = usize::try_from(draw.below(NAMES.len() as u64)).unwrap();
        // The rarer an operation, the fewer of its passes a victim lives to see.
        let passes = if (2..=5).contains(&name) || name >= 11 { 12 } else { 30 };
        let when = match draw.below(3) {
            0 => When::Before,
            1 => When::Within(draw.below(1000)),
            _ => When::After,
        };
        Self { name, pass: draw.below(passes), when }
    }

    /// For the victim's command line.
    pub(crate) fn arguments(&self) -> [String; 3] {
        let when = match self.when {
            When::Before => "before".to_owned(),
            When::After => "after".to_owned(),
            When::Within(part) => part.to_string(),
        };
        [self.name.to_string(), self.pass.to_string(), when]
    }

    pub(crate) fn parse(arguments: &[String]) -> Self {
        let when = match arguments[2].as_str() {
            "before" => When::Before,
            "after" => When::After,
            part => When::Within(part.parse().unwrap()),
        };
        Self { name: arguments[0].parse().unwrap(), pass: arguments[1].parse().unwrap(), when }
    }

    /// The judge of a file system that kills this process at this point.
    pub(crate) fn into_judge(self) -> impl Fn(&Call<'_>) -> Verdict + Send + Sync {
        let passed = AtomicU64::new(0);
        move |call| {
            if name(call) != Some(self.name) {
                return Verdict::Go;
            }
            let pass = if call.done { passed.fetch_add(1, Ordering::Relaxed) } else { passed.load(Ordering::Relaxed) };
            match (pass == self.pass, call.done, self.when) {
                (true, false, When::Before) | (true, true, _) => die(),
                (true, false, When::Within(part)) if call.op == Op::Write => {
                    Verdict::Part(call.bytes * usize::try_from(part).unwrap_or(0) / 1000, 5)
                }
                _ => Verdict::Go,
            }
        }
    }
}

/// Which operation this is.
fn name(call: &Call<'_>) -> Option<usize> {
    let is = |kind: &str| call.path.extension().is_some_and(|extension| extension == kind);
    let (segment, notes, gap) = (is("log"), is("notes"), is("gap"));
    let marks = call.path.file_name().is_some_and(|name| name == "marks");
    let lane = call.path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("lane-"));
    Some(match call.op {
        Op::Write if segment && call.offset > 0 => 0,
        Op::Sync if segment => 1,
        Op::Create if segment => 2,
        Op::Write if segment => 3,
        Op::SyncNew if segment => 4,
        Op::SyncDir if lane => 5,
        Op::Write if marks && call.offset % 8192 < 4096 => 6,
        Op::Write if marks => 7,
        Op::Sync if marks => 8,
        Op::Remove if segment => 9,
        Op::Read if segment => 10,
        Op::Create if notes => 11,
        Op::Write if notes => 12,
        Op::Rename if segment || gap => 13,
        Op::SetLen if gap => 14,
        _ => return None,
    })
}

fn die() -> ! {
    // Nothing of this process runs after that.
    let _ = kill_process(getpid(), Signal::KILL);
    unreachable!("killed")
}
