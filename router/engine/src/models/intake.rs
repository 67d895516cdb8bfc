//! The single file and its intake: nothing is left behind, and each thread's items keep their order.

use super::check;
use crate::intake::SingleFile;
use crate::sync::{Fault, with_fault};
use loom::thread;
use std::sync::Arc;

type File = SingleFile<Vec<u32>, u32>;

fn keep(state: &mut Vec<u32>, items: &mut Vec<u32>) {
    state.append(items);
}

/// What was worked on, when all threads are through: nobody may have left anything behind.
fn kept(file: &File) -> Vec<u32> {
    file.wait(|_, left| panic!("{left:?} were left behind"), |kept| kept.clone())
}

fn enter(file: &Arc<File>, items: &'static [u32]) -> impl FnOnce() + use<> {
    let file = file.clone();
    move || items.iter().for_each(|item| file.enter(&mut vec![*item], keep))
}

/// Two come at a time, and nobody has made the intake yet.
fn two_enter() {
    let file = Arc::new(File::new(Vec::new()));
    let other = thread::spawn(enter(&file, &[1]));
    enter(&file, &[2])();
    other.join().unwrap();
    let mut kept = kept(&file);
    kept.sort_unstable();
    assert_eq!(kept, [1, 2]);
}

#[test]
fn nothing_is_left_behind() {
    check(two_enter);
}

#[test]
#[should_panic(expected = "were left behind")]
fn without_the_fence_something_is() {
    with_fault(Fault::Fence, || check(two_enter));
}

#[test]
#[should_panic(expected = "were left behind")]
fn without_another_look_something_is() {
    with_fault(Fault::Look, || check(two_enter));
}

#[test]
fn nor_where_the_intake_was_made_before() {
    check(made_before);
}

#[test]
#[should_panic(expected = "were left behind")]
fn nor_is_the_fence_for_its_making_alone() {
    with_fault(Fault::Fence, || check(made_before));
}

fn made_before() {
    let file = Arc::new(File::new(Vec::new()));
    file.enter(&mut vec![0], |kept, items| {
        kept.append(items);
        if kept.len() == 1 {
            file.enter(&mut vec![1], keep);
        }
    });
    let other = thread::spawn(enter(&file, &[2]));
    enter(&file, &[3])();
    other.join().unwrap();
    assert_eq!(kept(&file).len(), 4);
}

#[test]
fn three_leave_nothing_behind() {
    check(|| {
        let file = Arc::new(File::new(Vec::new()));
        let others = [[1].as_slice(), &[2]].map(|items| thread::spawn(enter(&file, items)));
        enter(&file, &[3])();
        others.into_iter().for_each(|other| other.join().unwrap());
        assert_eq!(kept(&file).len(), 3);
    });
}

/// One comes twice while another is there.
fn one_twice() {
    let file = Arc::new(File::new(Vec::new()));
    let other = thread::spawn(enter(&file, &[1, 2]));
    enter(&file, &[10])();
    other.join().unwrap();
    let own: Vec<u32> = kept(&file).into_iter().filter(|item| *item < 10).collect();
    assert_eq!(own, [1, 2], "order of one thread");
}

#[test]
fn a_thread_keeps_its_order() {
    check(one_twice);
}

/// Two may be left for the one who holds the state.
fn two_at_once() {
    let file = Arc::new(File::new(Vec::new()));
    let other = {
        let file = file.clone();
        thread::spawn(move || file.enter(&mut vec![1, 2], keep))
    };
    enter(&file, &[10])();
    other.join().unwrap();
    let own: Vec<u32> = kept(&file).into_iter().filter(|item| *item < 10).collect();
    assert_eq!(own, [1, 2], "order of one thread");
}

#[test]
fn a_batch_keeps_its_order() {
    check(two_at_once);
}

#[test]
#[should_panic(expected = "order of one thread")]
fn a_queue_out_of_order_is_noticed() {
    with_fault(Fault::Order, || check(two_at_once));
}

/// One waits for the state, as a container that registers does; what the other left, or brings later, is worked on.
#[test]
fn who_waits_leaves_nothing_behind_either() {
    check(|| {
        let file = Arc::new(File::new(Vec::new()));
        let other = thread::spawn(enter(&file, &[1]));
        let seen = file.wait(keep, |kept| kept.len());
        other.join().unwrap();
        assert!(seen <= 1);
        assert_eq!(kept(&file), [1]);
    });
}

/// Two wait at a time for a result of their own: one after the other gets it.
#[test]
fn two_who_wait_take_turns() {
    check(|| {
        let file = Arc::new(File::new(Vec::new()));
        let wait = |file: &File| {
            file.wait(keep, |kept| {
                kept.push(0);
                kept.len()
            })
        };
        let other = {
            let file = file.clone();
            thread::spawn(move || wait(&file))
        };
        let one = wait(&file);
        assert_eq!(one + other.join().unwrap(), 1 + 2);
    });
}
