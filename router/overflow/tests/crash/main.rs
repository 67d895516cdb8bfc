//! Kills a process that uses the store on disk, again and again, and judges what is left.
//!
//! ```text
//!   cargo test -p activation-overflow --test crash -- --cycles 500 [--seed N]
//! ```
//!
//! Each cycle starts a process (`victim`) that appends, reads, marks and hands out, and kills itself with SIGKILL in the middle of
//! a drawn operation on a drawn kind of file: before it, after it, or with a part of a write done. What it was told durable and
//! what it handed out it has said in a pipe before, which survives it. The judge (`judge`) then opens the store and holds it
//! against that. The store is the same over all cycles.
//!
//! Without arguments a short run. It is no power failure: what the process wrote is there, synced or not.

#![allow(clippy::unwrap_used, reason = "in a test the place that fails says enough")]

mod judge;
mod point;
mod victim;

use overflow::contract::Draw;
use overflow::disk::Config;
use std::path::Path;

const CYCLES_SHORT: u64 = 60;
const LANES: u16 = 3;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let (mut cycles, mut seed) = (CYCLES_SHORT, 1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--opener" => return victim::open(Path::new(&arguments.next().unwrap())),
            "--victim" => return victim::main(&arguments.collect::<Vec<_>>()),
            "--cycles" => cycles = number(arguments.next()),
            "--seed" => seed = number(arguments.next()),
            // What the test harness of other tests understands.
            "--list" => return,
            _ => {}
        }
    }
    run(cycles, seed);
}

fn number(argument: Option<String>) -> u64 {
    argument.and_then(|argument| argument.parse().ok()).expect("a number behind --cycles and --seed")
}

fn run(cycles: u64, seed: u64) {
    println!("crash: {cycles} cycles, seed {seed}");
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    victim::check_lock(dir.path());
    let mut draw = Draw(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut judge = judge::Judge::default();
    for cycle in 0..cycles {
        let point = point::Point::draw(&mut draw);
        let said = victim::run(dir.path(), cycle, &point, &mut draw);
        judge.hear(&point, &said);
        judge.look(dir.path(), cycle);
    }
    judge.report(cycles);
}

/// Short segments: each victim goes over several.
fn config(dir: &Path) -> Config {
    Config { lanes: LANES, segment_bytes: 8 << 10, record_bytes_max: 16 << 10, ..Config::new(dir.join("store")) }
}
