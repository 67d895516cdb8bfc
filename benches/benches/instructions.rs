//! A program to count the instructions of: the engine's path of an activation, through the hub. `scripts/instructions` runs it
//! under callgrind, with a scenario and a number of activations, and with twice as many: the difference is what so many
//! activations take, without starting up. It measures nothing itself; as one of the benchmarks it runs each scenario once.
//!
//! It may read no clock and draw nothing at random, so that two runs take the same instructions.

use benches::world::{Declared, World};
use engine::input::Input;
use engine::tally::Count;
use std::time::Duration;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["list"] => SCENARIOS.iter().for_each(|(name, _)| println!("{name}")),
        ["count", name, activations] => run(name, activations.parse().expect("a number of activations")),
        _ => SCENARIOS.iter().for_each(|(name, _)| run(name, 10 * FRAME)),
    }
}

/// Takes a number of activations, a multiple of [`FRAME`], from push to answer.
type Scenario = fn(&mut World, u32);

const SCENARIOS: [(&str, Scenario); 6] = [
    ("matched", matched),
    ("matched-in-frames", matched_in_frames),
    ("queued-in-frames", queued_in_frames),
    ("deadline-cancelled", deadline_cancelled),
    ("expired", expired),
    ("many-actions", many_actions),
];

const FRAME: u32 = 64;
const CONTAINERS: u32 = 64;
const ACTIONS: usize = 10_000;
/// A little more than a tick of the timing wheel.
const TICK: Duration = Duration::from_micros(1_100);

fn run(name: &str, activations: u32) {
    let (_, scenario) = SCENARIOS.iter().find(|(known, _)| *known == name).expect("a scenario of the list");
    let mut world = World::default();
    scenario(&mut world, activations);
    let ended = world.hub.totals().of(Count::Completed) + world.hub.totals().of(Count::Expired);
    assert_eq!((ended, world.hub.held()), (activations.into(), 0), "{name}: each is answered once");
}

/// Pushed, matched with a credit that waits, and completed, one at a time.
fn matched(world: &mut World, activations: u32) {
    let one = with_containers(world, 1);
    for _ in 0..activations {
        world.push(&one, 1);
        world.complete(&one, 1);
    }
}

/// The same, handed in by the frame.
fn matched_in_frames(world: &mut World, activations: u32) {
    let one = with_containers(world, FRAME / CONTAINERS);
    for _ in 0..activations / FRAME {
        world.push(&one, FRAME);
        world.complete(&one, 1);
    }
}

/// Pushed by the frame and queued behind a frame in flight, whose completions bring the credits to match them with.
fn queued_in_frames(world: &mut World, activations: u32) {
    let one = with_containers(world, FRAME / CONTAINERS);
    world.push(&one, FRAME);
    for _ in 1..activations / FRAME {
        world.push(&one, FRAME);
        world.complete(&one, 1);
    }
    world.complete(&one, 1);
}

/// Each queued under a deadline of its own, which a grant cancels.
fn deadline_cancelled(world: &mut World, activations: u32) {
    let one = with_containers(world, 0);
    for _ in 0..activations {
        world.pass_time(TICK);
        world.push(&one, 1);
        world.enter(&one, Input::Credit(one.containers[0], 1));
        world.complete(&one, 0);
    }
}

/// Queued where nothing is granted, until the deadline of a whole frame comes.
fn expired(world: &mut World, activations: u32) {
    let one = world.action(0);
    for _ in 0..activations / FRAME {
        world.push(&one, FRAME);
        world.expire_all();
    }
}

/// As `matched`, each on the next of many actions with a container each.
fn many_actions(world: &mut World, activations: u32) {
    let actions: Vec<Declared> = (0..ACTIONS).map(|number| world.action_with_container(number)).collect();
    for next in actions.iter().cycle().take(activations as usize) {
        world.push(next, 1);
        world.complete(next, 1);
    }
}

/// An action whose containers run as many at once as the largest scenario needs, and have so many credits each.
fn with_containers(world: &mut World, credits: u32) -> Declared {
    let mut one = world.action(0);
    (0..CONTAINERS).for_each(|number| world.add_container(&mut one, number, 1, credits));
    one
}
