//! Every scene many times over, on all cores: `scripts/concurrency --long`.

use crate::scenes::SCENES;
use crate::{Scheduler, setting};
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Schedules that one thread runs of a scene before it takes the next: what a failure is narrowed down to.
const SHARE: u64 = 5_000;
const PROGRESS_INTERVAL: Duration = Duration::from_secs(10);

/// A share of the run: told by its number and the run's seed.
struct Share {
    name: &'static str,
    scene: fn(),
    scheduler: Scheduler,
    seed: u64,
    schedules: u64,
}

impl Share {
    fn of(number: u64, seed: u64, schedules: u64) -> Self {
        let at = usize::try_from(number).unwrap();
        let (name, scene) = SCENES[at % SCENES.len()];
        let scheduler = Scheduler::ALL[at / SCENES.len() % Scheduler::ALL.len()];
        Self { name, scene, scheduler, seed: seed.wrapping_add(number), schedules }
    }

    fn run(&self) {
        self.scheduler.run(self.scene, self.seed, usize::try_from(self.schedules).unwrap());
    }
}

/// Runs `SHUTTLE_SCHEDULES` (10,000,000) schedules from `SHUTTLE_SEED` on `SHUTTLE_THREADS` threads (all cores).
#[test]
#[ignore = "takes minutes"]
#[allow(clippy::disallowed_methods, reason = "a clock for the progress line")]
fn many_schedules() {
    let total = setting("SHUTTLE_SCHEDULES", 10_000_000);
    let seed = setting("SHUTTLE_SEED", 1);
    let threads = setting("SHUTTLE_THREADS", std::thread::available_parallelism().unwrap().get() as u64);
    let shares = total.div_ceil(SHARE);
    println!("{total} schedules of {} scenes, seed {seed}, {threads} threads", SCENES.len());

    let (next, done, failed) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    let started = Instant::now();
    let report = |end: &str| {
        let (done, seconds) = (done.load(Ordering::Relaxed), started.elapsed().as_secs_f64());
        let (percent, rate) = (100.0 * done as f64 / total as f64, done as f64 / seconds);
        print!("\r{done} of {total} schedules ({percent:.1} %), {seconds:.0} s, {rate:.0}/s{end}");
        _ = std::io::stdout().flush();
    };
    std::thread::scope(|scope| {
        let (gone, ended) = std::sync::mpsc::channel::<()>();
        for _ in 0..threads {
            let (next, done, failed, gone) = (&next, &done, &failed, gone.clone());
            scope.spawn(move || {
                let _gone = gone;
                while !failed.load(Ordering::Relaxed) {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= shares {
                        return;
                    }
                    let share = Share::of(number, seed, SHARE.min(total - number * SHARE));
                    if catch_unwind(AssertUnwindSafe(|| share.run())).is_err() {
                        failed.store(true, Ordering::Relaxed);
                        let Share { name, scheduler, seed, .. } = share;
                        println!("\nfailed: scene {name}, {scheduler:?}, seed {seed}; again with\n");
                        println!(
                            "    SHUTTLE_SEED={seed} SHUTTLE_SCHEDULES={SHARE} scripts/concurrency --scene {name}\n"
                        );
                    }
                    done.fetch_add(share.schedules, Ordering::Relaxed);
                }
            });
        }
        drop(gone);
        // Until all threads have dropped their end.
        while ended.recv_timeout(PROGRESS_INTERVAL) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            report("");
        }
    });
    assert!(!failed.load(Ordering::Relaxed), "a schedule failed");
    report(" -- all passed\n");
}
