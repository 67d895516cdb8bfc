//! What is printed of a seed: its configuration and its history.

use crate::check::{Call, Seen, Violation};
use crate::plan::Plan;
use crate::world::World;
use std::fmt::Write;

/// Runs a seed and tells its story: all of it, or what led to a broken promise. True if all was well.
pub fn tell(world: &mut World, seed: u64, activations: u32, all: bool) -> (String, bool) {
    let report = world.run(Plan::draw(seed, activations), true);
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = writeln!(text, "seed {seed}, about {activations} activations\n{:#?}", world.plan());
    let of = report.violation.as_ref().map(|violation| violation.call);
    for (at, seen) in world.checker().story() {
        if all || of.is_none_or(|call| concerns(seen, call)) {
            let _ = writeln!(text, "{at:>14} {seen:?}");
        }
    }
    match &report.violation {
        Some(violation) => text.push_str(&verdict(violation, seed, activations)),
        None => {
            let (activations, events, digest) = (report.activations, report.events, report.digest);
            let _ = writeln!(text, "all is well: {activations} activations, {events} events, history {digest:016x}");
        }
    }
    (text, report.violation.is_none())
}

/// What is worth knowing when that activation is the matter: it, and all that is about none.
fn concerns(seen: &Seen, of: Option<Call>) -> bool {
    match (seen.call(), of) {
        (Some(call), Some(of)) => call == of,
        (None, _) | (_, None) => true,
    }
}

/// The broken promise and how to see it again.
pub fn verdict(violation: &Violation, seed: u64, activations: u32) -> String {
    let Violation { invariant, at, call, what } = violation;
    let of = call.map(|call| format!(" activation {call}:")).unwrap_or_default();
    let commit = commit().map(|commit| format!(" at commit {commit}")).unwrap_or_default();
    format!(
        "BROKEN {invariant}:{of} {what}\n  seed {seed}{commit}, at {at} us; again with\n  \
         cargo run --release -p sim -- --seed {seed} --activations {activations}\n"
    )
}

/// The commit of the folder this runs in, if it can be told.
fn commit() -> Option<String> {
    let asked = std::process::Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).output().ok()?;
    asked.status.success().then(|| String::from_utf8_lossy(&asked.stdout).trim().to_owned())
}
