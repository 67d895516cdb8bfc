//! Many threads on one hub under shuttle, which runs them one step at a time in orders it draws: at random, or by PCT with three
//! changes of priority. Each scene is a few steps of two to four threads; what must hold in every order stands in `world`.
//! Shuttle knows no weak memory; the models for loom do (`src/models`).
//!
//! `scripts/concurrency` runs a few thousand schedules of each scene, `scripts/concurrency --long` ten million in all.
#![cfg(router_shuttle)]
#![allow(clippy::unwrap_used)]

mod long;
mod scenes;
mod world;

use engine::mutant::{Mutant, plant};
use engine::sync::{Fault, with_fault};
use scenes::SCENES;
use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::{Config, Runner};

/// Draws the order of steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scheduler {
    /// The next thread at random, at each step.
    Random,
    /// By priority, which changes at a few random steps.
    Pct,
}

impl Scheduler {
    const ALL: [Self; 2] = [Self::Random, Self::Pct];

    fn run(self, scene: fn(), seed: u64, schedules: usize) {
        let mut config = Config::new();
        config.silence_warnings = true;
        config.stack_size = 1 << 18;
        match self {
            Self::Random => _ = Runner::new(RandomScheduler::new_from_seed(seed, schedules), config).run(scene),
            Self::Pct => _ = Runner::new(PctScheduler::new_from_seed(seed, 3, schedules), config).run(scene),
        }
    }
}

fn scene(name: &str) -> fn() {
    SCENES.iter().find(|(known, _)| *known == name).unwrap_or_else(|| panic!("no scene {name}")).1
}

/// What `SHUTTLE_...` says, or `default`.
fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("{name} is not a number")))
}

macro_rules! every_scene {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            let schedules = usize::try_from(setting("SHUTTLE_SCHEDULES", 2_000)).unwrap();
            let seed = setting("SHUTTLE_SEED", 1);
            Scheduler::ALL.into_iter().for_each(|scheduler| scheduler.run(scene(stringify!($name)), seed, schedules));
        })*

        #[test]
        fn every_scene_is_run() {
            assert_eq!([$(stringify!($name)),*].as_slice(), SCENES.iter().map(|(name, _)| *name).collect::<Vec<_>>());
        }
    };
}

every_scene! { file wait credit complete gone expire supersede same_id too_late repeated returned room full forgotten rejoin anything }

/// A planted fault is found within that many schedules of each scheduler.
const FOUND_WITHIN: usize = 2_000;

fn planted(fault: Fault, name: &str, scheduler: Scheduler) {
    with_fault(fault, || scheduler.run(scene(name), 1, FOUND_WITHIN));
}

macro_rules! found {
    ($($test:ident: $fault:ident in $scene:ident says $words:literal;)*) => {
        $(mod $test {
            use super::*;

            #[test]
            #[should_panic(expected = $words)]
            fn at_random() {
                planted(Fault::$fault, stringify!($scene), Scheduler::Random);
            }

            #[test]
            #[should_panic(expected = $words)]
            fn by_pct() {
                planted(Fault::$fault, stringify!($scene), Scheduler::Pct);
            }
        })*
    };
}

found! {
    a_lost_wake_up_in_the_file: Look in file says "left behind";
    a_lost_wake_up_of_a_push: Look in credit says "left behind";
    a_lost_wake_up_of_a_completion: Look in complete says "left behind";
    a_second_run_of_an_id: Store in repeated says "is dispatched twice";
    an_order_turned_round: Order in file says "order";
    a_torn_count: Add in full says "something stayed";
}

/// A bug of the engine's own is found as well.
mod an_id_taken_twice {
    use super::*;

    fn planted(scheduler: Scheduler) {
        plant(Some(Mutant::IdTakenTwice));
        scheduler.run(scene("same_id"), 1, FOUND_WITHIN);
    }

    #[test]
    #[should_panic(expected = "is dispatched twice")]
    fn at_random() {
        planted(Scheduler::Random);
    }

    #[test]
    #[should_panic(expected = "is dispatched twice")]
    fn by_pct() {
        planted(Scheduler::Pct);
    }
}

/// A driver that breaks its promise is found as well.
mod an_outbox_emptied_too_soon {
    use super::*;

    #[test]
    #[should_panic(expected = "nothing wrong was said")]
    fn at_random() {
        Scheduler::Random.run(scenes::hasty, 1, FOUND_WITHIN);
    }

    #[test]
    #[should_panic(expected = "nothing wrong was said")]
    fn by_pct() {
        Scheduler::Pct.run(scenes::hasty, 1, FOUND_WITHIN);
    }
}
