//! Scenes: who does what at a time. Ids are a controller's number and a count; container numbers are their streams' too.

use crate::world::{Container, Hand, TIME_LEFT, World, key, thread};
use engine::container::Room;
use engine::id::ActionKey;
use engine::input::Input;
use engine::intake::SingleFile;
use engine::limits::Limits;
use engine::outcome::Outcome;
use shuttle::rand::Rng;
use std::sync::Arc;
use std::time::Duration;

/// All of them, by name.
pub(crate) const SCENES: &[(&str, fn())] = &[
    ("file", file),
    ("wait", wait),
    ("credit", credit),
    ("complete", complete),
    ("gone", gone),
    ("expire", expire),
    ("supersede", supersede),
    ("same_id", same_id),
    ("too_late", too_late),
    ("repeated", repeated),
    ("returned", returned),
    ("room", room),
    ("full", full),
    ("forgotten", forgotten),
    ("rejoin", rejoin),
    ("anything", anything),
];

/// No window of ended ids, which every push would look through, but where a scene is about that.
fn limits() -> Limits {
    Limits { recent_sets: 0, ..Limits::default() }
}

fn keep(state: &mut Vec<u32>, items: &mut Vec<u32>) {
    state.append(items);
}

/// What three threads brought, in the order it was worked on.
fn check_kept(file: &SingleFile<Vec<u32>, u32>, each: usize) {
    let kept = file.wait(|_, left| panic!("{left:?} were left behind"), |kept| kept.clone());
    assert_eq!(kept.len(), 3 * each);
    for thread in 0..3 {
        let own: Vec<u32> = kept.iter().copied().filter(|item| item / 10 == thread).collect();
        assert!(own.is_sorted(), "thread {thread} lost its order: {own:?}");
    }
}

/// Three threads bring three items each to a single file.
fn file() {
    let file = SingleFile::new(Vec::new());
    shuttle::thread::scope(|scope| {
        for thread in 0..3 {
            let file = &file;
            scope.spawn(move || {
                file.enter(&mut vec![thread * 10], keep);
                file.enter(&mut vec![thread * 10 + 1, thread * 10 + 2], keep);
            });
        }
    });
    check_kept(&file, 3);
}

/// Some wait for the state, others do not.
fn wait() {
    let file = SingleFile::new(Vec::new());
    shuttle::thread::scope(|scope| {
        for thread in 0..3 {
            let file = &file;
            scope.spawn(move || {
                file.enter(&mut vec![thread * 10], keep);
                if thread == 0 {
                    let seen = file.wait(keep, |kept| kept.contains(&0));
                    assert!(seen, "what this thread left before it waited");
                }
                file.enter(&mut vec![thread * 10 + 1], keep);
            });
        }
    });
    check_kept(&file, 2);
}

/// Two push while a container grants credits: none waits beside one.
fn credit() {
    let world = World::new(limits());
    let mut hand = world.hand();
    let container = world.register(&key("1"), 1, 0, &mut hand);
    let action = world.hub.declare(&key("1"), &mut hand).unwrap();
    world.hub.settle(&mut hand);
    let push = |controller| {
        let (world, action) = (&world, &action);
        thread(move |hand| (0..2).for_each(|n| world.push(action, controller, n, hand)))
    };
    world.play([
        push(1),
        push(2),
        thread(|hand| {
            world.enter(&container, Input::Credit(container.key, 1), hand);
            world.enter(&container, Input::Credit(container.key, 2), hand);
        }),
    ]);
    world.check_order();
}

/// Completions bring the credits for what is pushed meanwhile.
fn complete() {
    let world = World::new(limits());
    let mut hand = world.hand();
    let container = world.register(&key("1"), 1, 1, &mut hand);
    let action = world.hub.declare(&key("1"), &mut hand).unwrap();
    world.push(&action, 0, 0, &mut hand);
    world.hub.settle(&mut hand);
    world.play([
        thread(|hand| (0..2).for_each(|n| world.push(&action, 1, n, hand))),
        thread(|hand| world.push(&action, 2, 0, hand)),
        thread(|hand| {
            world.complete_one(&container, hand);
            world.complete_one(&container, hand);
        }),
    ]);
    world.check_order();
    assert_eq!(world.dispatched().len(), 4, "all ran in the end");
}

/// A container comes and goes while another comes to stay.
fn gone() {
    let world = World::new(limits());
    let mut hand = world.hand();
    let action = world.hub.declare(&key("1"), &mut hand).unwrap();
    world.hub.settle(&mut hand);
    world.play([
        thread(|hand| (0..2).for_each(|n| world.push(&action, 1, n, hand))),
        thread(|hand| {
            let container = world.register(&key("1"), 1, 1, hand);
            world.enter(&container, Input::Gone(container.key), hand);
            // What was in its outbox went with it.
            while world.take(1).is_some() {}
        }),
        thread(|hand| _ = world.register(&key("1"), 2, 2, hand)),
    ]);
    world.check_order();
    assert_eq!(world.dispatched().len(), 2, "both found a container in the end");
}

/// Deadlines come while a credit does.
fn expire() {
    let world = World::new(limits());
    let mut hand = world.hand();
    let container = world.register(&key("1"), 1, 0, &mut hand);
    let action = world.hub.declare(&key("1"), &mut hand).unwrap();
    world.push(&action, 0, 0, &mut hand);
    world.hub.settle(&mut hand);
    world.play([
        thread(|hand| world.push(&action, 1, 0, hand)),
        thread(|hand| {
            hand.now = hand.now + TIME_LEFT;
            world.hub.advance(usize::MAX, hand);
            world.hub.next_wake();
        }),
        thread(|hand| {
            hand.now = hand.now + TIME_LEFT / 2;
            world.enter(&container, Input::Credit(container.key, 2), hand);
        }),
    ]);
    for id in [0, 1 << 32] {
        let ran = world.dispatched().contains(&id);
        assert_eq!(world.outcomes(id) == [Outcome::Expired], !ran, "{id:x} ran or expired, not both");
    }
}

/// A newer revision takes over while the earlier one's container leaves.
fn supersede() {
    let world = World::new(limits());
    let mut hand = world.hand();
    let old = world.hub.declare(&key("1"), &mut hand).unwrap();
    let container = world.register(&key("1"), 1, 1, &mut hand);
    world.push(&old, 0, 0, &mut hand);
    world.hub.settle(&mut hand);
    world.play([
        thread(|hand| (0..2).for_each(|n| world.push(&old, 1, n, hand))),
        thread(|hand| {
            let new = world.hub.declare(&key("2"), hand).unwrap();
            world.push(&new, 2, 0, hand);
        }),
        thread(|hand| {
            world.complete_one(&container, hand);
            world.enter(&container, Input::Gone(container.key), hand);
            while world.take(1).is_some() {}
        }),
        thread(|hand| _ = world.register(&key("2"), 2, 4, hand)),
    ]);
    assert_eq!(world.dispatched().len(), 4, "what did not run on the earlier one ran on the newer");
}

/// Two controllers push one id to two actions.
fn same_id() {
    let world = World::new(limits());
    let mut hand = world.hand();
    let keys = ["a", "b"].map(|name| ActionKey::new("tenant", name, "1"));
    let actions = keys.each_ref().map(|key| world.hub.declare(key, &mut hand).unwrap());
    world.register(&keys[0], 1, 1, &mut hand);
    world.register(&keys[1], 2, 1, &mut hand);
    world.hub.settle(&mut hand);
    let push = |action: usize| {
        let (world, action) = (&world, &actions[action]);
        thread(move |hand| world.push(action, 1, 7, hand))
    };
    world.play([push(0), push(1)]);
    let outcomes = world.outcomes(1 << 32 | 7);
    let rejected = outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Rejected(_))).count();
    assert_eq!(rejected, 1, "one of two was taken");
}

/// Three controllers push one id to three actions; for two of them it is too late. Only one is told how it ended.
fn too_late() {
    let world = World::new(Limits { recent_sets: 1, ..Limits::default() });
    let mut hand = world.hand();
    let keys = ["a", "b", "c"].map(|name| ActionKey::new("tenant", name, "1"));
    let actions = keys.each_ref().map(|key| world.hub.declare(key, &mut hand).unwrap());
    world.register(&keys[0], 1, 1, &mut hand);
    // These two learn from another push how late it is.
    let mut later = world.hand();
    later.now = later.now + TIME_LEFT;
    actions[1..].iter().zip(2..).for_each(|(action, controller)| world.push(action, controller, 0, &mut later));
    world.hub.settle(&mut later);
    world.hub.settle(&mut hand);
    let push = |action: usize| {
        let (world, action) = (&world, &actions[action]);
        thread(move |hand| world.push(action, 1, 7, hand))
    };
    world.play([push(0), push(1), push(2)]);
    let outcomes = world.outcomes(1 << 32 | 7);
    let rejected = outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Rejected(_))).count();
    assert_eq!(rejected, 2, "one of three was taken: {outcomes:?}");
}

/// An id is pushed again, to another action, as it ends.
fn repeated() {
    let world = World::new(Limits { recent_sets: 1, ..Limits::default() });
    let mut hand = world.hand();
    let keys = ["a", "b"].map(|name| ActionKey::new("tenant", name, "1"));
    let actions = keys.each_ref().map(|key| world.hub.declare(key, &mut hand).unwrap());
    let container = world.register(&keys[0], 1, 1, &mut hand);
    world.register(&keys[1], 2, 1, &mut hand);
    world.push(&actions[0], 1, 7, &mut hand);
    world.hub.settle(&mut hand);
    world.play([
        thread(|hand| _ = world.complete_one(&container, hand)),
        thread(|hand| world.push(&actions[1], 1, 7, hand)),
    ]);
}

/// A container hands back what it was sent, and another takes it.
fn returned() {
    let world = World::new(limits());
    let mut hand = world.hand();
    let container = world.register(&key("1"), 1, 1, &mut hand);
    let other = world.register(&key("1"), 2, 0, &mut hand);
    let action = world.hub.declare(&key("1"), &mut hand).unwrap();
    world.push(&action, 0, 0, &mut hand);
    world.hub.settle(&mut hand);
    world.play([
        thread(|hand| world.push(&action, 1, 0, hand)),
        thread(|hand| world.return_one(&container, hand)),
        thread(|hand| {
            world.enter(&other, Input::Credit(other.key, 1), hand);
            world.complete_one(&other, hand);
        }),
    ]);
}

/// An outbox is full and its writer makes room.
fn room() {
    let world = World::new(limits());
    let mut hand = world.hand();
    let container = world.register_with(&key("1"), 1, 4, Room::new(0), &mut hand);
    let action = world.hub.declare(&key("1"), &mut hand).unwrap();
    world.push(&action, 0, 0, &mut hand);
    world.hub.settle(&mut hand);
    world.play([
        thread(|hand| (0..2).for_each(|n| world.push(&action, 1, n, hand))),
        thread(|hand| {
            // As an outbox's writer: it takes what is there, then wakes who waited for that.
            for _ in 0..2 {
                world.complete_one(&container, hand);
                _ = world.make_room(&container, hand);
            }
        }),
    ]);
    world.check_order();
    assert_eq!(world.dispatched().len(), 3, "all found room in the end");
}

/// Two actions share a budget of one.
fn full() {
    let world = World::new(Limits { router_queued_max: 1, ..limits() });
    let mut hand = world.hand();
    let actions = ["a", "b"].map(|name| world.hub.declare(&ActionKey::new("tenant", name, "1"), &mut hand).unwrap());
    world.hub.settle(&mut hand);
    let push = |controller: u64, action: usize| {
        let (world, action) = (&world, &actions[action]);
        thread(move |hand| world.push(action, controller, 0, hand))
    };
    world.play([push(1, 0), push(2, 1)]);
    let expired = [1 << 32, 2 << 32].map(|id| world.outcomes(id) == [Outcome::Expired]);
    assert!(!expired[0] || !expired[1], "both were queued");
}

/// The grace period of an action nobody needs ends while somebody needs it again.
fn forgotten() {
    let grace = Duration::from_secs(1);
    let world = World::new(Limits { idle_grace: grace, ..limits() });
    let mut hand = world.hand();
    world.hub.declare(&key("1"), &mut hand).unwrap();
    world.hub.settle(&mut hand);
    world.play([
        thread(|hand| {
            hand.now = hand.now + grace;
            let action = world.hub.declare(&key("1"), hand).unwrap();
            world.push(&action, 1, 0, hand);
        }),
        thread(|hand| {
            hand.now = hand.now + 2 * grace;
            world.hub.advance(usize::MAX, hand);
        }),
        thread(|hand| _ = world.register(&key("1"), 1, 1, hand)),
    ]);
    assert_eq!(world.dispatched(), [1 << 32], "push and container met");
}

/// A node's stream breaks before all was sent, and the node comes back.
fn rejoin() {
    breaks(|world, container, hand| world.break_and_rejoin(container, 2, hand));
}

/// As that, but the outbox is emptied without waiting for a thread that may be about to dispatch: what the engine asks its driver
/// not to do.
pub(crate) fn hasty() {
    breaks(|world, container, hand| {
        world.enter(container, Input::Suspend(container.key), hand);
        world.take_back_and_rejoin(container, 2, hand);
    });
}

fn breaks(and_rejoins: fn(&World, &Container, &mut Hand<'_>)) {
    let world = World::new(limits());
    let mut hand = world.hand();
    let container = world.register(&key("1"), 1, 2, &mut hand);
    let action = world.hub.declare(&key("1"), &mut hand).unwrap();
    world.push(&action, 0, 0, &mut hand);
    world.hub.settle(&mut hand);
    world.play([
        thread(|hand| (0..2).for_each(|n| world.push(&action, 1, n, hand))),
        thread(|hand| {
            world.complete_one(&container, hand);
            and_rejoins(&world, &container, hand);
        }),
        thread(|hand| world.push(&action, 2, 0, hand)),
    ]);
    assert!(world.dispatched().len() >= 4, "all ran in the end");
}

/// Three threads with a container and a controller each do what the seed says.
fn anything() {
    let limits = Limits { action_queued_max: 3, idle_grace: Duration::from_secs(1), ..limits() };
    let world = World::new(limits);
    let mut hand = world.hand();
    let first = world.hub.declare(&key("1"), &mut hand).unwrap();
    world.hub.settle(&mut hand);
    let does = |number: u32| {
        let (world, first) = (&world, Arc::clone(&first));
        thread(move |hand| {
            let mut random = shuttle::rand::thread_rng();
            let (mut action, mut container) = (first, None);
            for n in 0..4 {
                let what = random.gen_range(0..10);
                let Some(own) = &container else {
                    match what {
                        0..4 => world.push(&action, number.into(), n, hand),
                        4 => action = world.hub.declare(&key("2"), hand).unwrap(),
                        _ => container = Some(world.register(action.key(), number, what % 3, hand)),
                    }
                    continue;
                };
                match what {
                    0..3 => world.push(&action, number.into(), n, hand),
                    3..5 => _ = world.complete_one(own, hand),
                    5 => world.return_one(own, hand),
                    6 => world.break_and_rejoin(own, what % 3, hand),
                    7 => world.enter(own, Input::Retire(own.key), hand),
                    8 => {
                        hand.now = hand.now + TIME_LEFT / 2;
                        world.hub.advance(usize::MAX, hand);
                        world.hub.audit(hand);
                    }
                    _ => {
                        world.enter(own, Input::Gone(own.key), hand);
                        while world.take(number).is_some() {}
                    }
                }
            }
        })
    };
    world.play([does(1), does(2), does(3)]);
}
