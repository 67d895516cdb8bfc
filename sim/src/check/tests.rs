//! Histories made by hand: each is fine but for one thing, and the judge must name that.

use super::*;
use engine::audit::Audit;
use engine::breaker::Rules;
use engine::limits::OverflowLimits;
use engine::stored_time::{ClockJump, Moment};
use std::time::Duration;

const LATE: u64 = 10_000_000;

/// A router with one controller's session (0) and one node's (1), who has a container of action 0 with two places.
fn scene(credits: u32) -> Checker {
    let limits = Limits {
        action_queued_max: 2,
        overdue_grace: Duration::from_millis(1),
        breaker: None,
        slow_after: None,
        ..Limits::default()
    };
    let mut checker = Checker::default();
    checker.begin(1, 1000, true, false);
    checker.router_began(&limits);
    checker.session_began(0, None);
    checker.session_began(1, Some(0));
    assert_eq!(checker.registered(1, 7, 1, 0, 2, credits), 0);
    checker
}

/// A caller asks, and the router reads it at once.
fn push(checker: &mut Checker, now: u64) -> Call {
    let call = checker.submitted(0, 0, 1000, now + LATE, false);
    checker.router_shows(now);
    checker.read(now, call, 0, 0, 1000, 10);
    call
}

fn dispatch(checker: &mut Checker, now: u64, call: Call) {
    checker.dispatched(now, call, 1, 7, 1, 1, 1, true);
    checker.dispatch_taken(call, 1, 10);
    checker.written(call, 1);
}

/// Pushed, dispatched, written: all is well so far.
fn running(checker: &mut Checker) -> Call {
    let call = push(checker, 0);
    dispatch(checker, 0, call);
    checker.settled(0, 0, 0);
    assert!(checker.violation().is_none());
    call
}

fn completed(checker: &mut Checker, call: Call) {
    checker.started(call, 0, 7);
    checker.finished(call, 0, Said::Completed);
    checker.completion_read(0, call, Said::Completed, 1);
    checker.answered(1, call, 0, Said::Completed);
    checker.settled(1, 0, 0);
}

#[track_caller]
fn broken(checker: &Checker, invariant: Invariant, what: &str) {
    let violation = checker.violation().expect("the judge saw nothing");
    assert_eq!(violation.invariant, invariant, "{}", violation.what);
    assert!(violation.what.contains(what), "{}", violation.what);
}

#[test]
fn a_good_history_is_good() {
    let mut checker = scene(2);
    let call = running(&mut checker);
    completed(&mut checker, call);
    checker.resolved(call, Said::Completed, 5, 0);
    checker.answer_taken(call, 0);
    let sums = Sums { accepted: 1, dispatched: 1, completed: 1, ..Sums::default() };
    checker.quiet(&sums, 0);
    checker.rested(0, 0, 0, &Audit { credits: 2, slots: 2, ..Audit::default() });
    checker.ended();
    assert!(checker.violation().is_none(), "{:?}", checker.violation());
}

#[test]
fn a_second_start_breaks_i1() {
    let mut checker = scene(2);
    let call = running(&mut checker);
    checker.started(call, 0, 7);
    checker.started(call, 0, 7);
    broken(&checker, Invariant::I1, "second time");
}

#[test]
fn a_second_dispatch_breaks_i1() {
    let mut checker = scene(2);
    let call = running(&mut checker);
    checker.dispatched(0, call, 1, 7, 1, 1, 1, true);
    broken(&checker, Invariant::I1, "dispatched while InFlight");
}

#[test]
fn what_was_sent_is_not_taken_back() {
    let mut checker = scene(2);
    let call = running(&mut checker);
    checker.suspended(0);
    checker.unsent(call, 1, 0);
    broken(&checker, Invariant::I1, "never sent");
}

#[test]
fn an_entry_of_an_earlier_registration_breaks_i1() {
    let mut checker = scene(2);
    checker.named(0, 7, 2);
    broken(&checker, Invariant::I1, "epoch");
}

#[test]
fn a_second_answer_breaks_i2() {
    let mut checker = scene(2);
    let call = running(&mut checker);
    completed(&mut checker, call);
    checker.answered(2, call, 0, Said::Completed);
    broken(&checker, Invariant::I2, "where None was owed");
}

#[test]
fn a_completion_without_an_answer_breaks_i2() {
    let mut checker = scene(2);
    let call = running(&mut checker);
    checker.completion_read(0, call, Said::Completed, 1);
    checker.settled(0, 0, 0);
    broken(&checker, Invariant::I2, "was due at once");
}

#[test]
fn a_late_or_second_word_to_the_caller_breaks_i2() {
    let mut checker = scene(2);
    let call = push(&mut checker, 0);
    checker.resolved(call, Said::TimedOut, LATE + TICK_US + 1, 0);
    broken(&checker, Invariant::I2, "too late");
    let mut checker = scene(2);
    let call = push(&mut checker, 0);
    checker.resolved(call, Said::TimedOut, 1, 0);
    checker.resolved(call, Said::TimedOut, 2, 0);
    broken(&checker, Invariant::I2, "after TimedOut");
}

#[test]
fn an_untrue_word_to_the_caller_breaks_i2() {
    for said in [Said::Completed, Said::Expired, Said::Unreachable(false)] {
        let mut checker = scene(2);
        let call = running(&mut checker);
        checker.started(call, 0, 7);
        checker.resolved(call, said, 1, 0);
        broken(&checker, Invariant::I2, "told");
    }
}

#[test]
fn silence_breaks_i2_and_i5() {
    let mut checker = scene(2);
    running(&mut checker);
    checker.ended();
    broken(&checker, Invariant::I2, "never told");
    let mut checker = scene(2);
    let call = running(&mut checker);
    checker.router_shows(1_000_000 + 1000 + 3 * TICK_US);
    checker.completion_read(0, call, Said::Completed, 1);
    broken(&checker, Invariant::I5, "overdue");
}

#[test]
fn a_lost_answer_in_the_mailbox_breaks_i2() {
    let mut checker = scene(2);
    let call = running(&mut checker);
    completed(&mut checker, call);
    checker.told_lost(call, 0);
    broken(&checker, Invariant::I2, "waits in the mailbox");
}

#[test]
fn overtaking_breaks_i3() {
    let mut checker = scene(0);
    let first = push(&mut checker, 0);
    checker.settled(0, 1, 10);
    let second = push(&mut checker, 0);
    checker.settled(0, 2, 20);
    checker.credited(0, 1);
    dispatch(&mut checker, 0, second);
    broken(&checker, Invariant::I3, &format!("before activation {first}"));
}

#[test]
fn a_dispatch_without_credit_breaks_i4() {
    let mut checker = scene(0);
    let call = push(&mut checker, 0);
    dispatch(&mut checker, 0, call);
    broken(&checker, Invariant::I4, "without a credit");
}

#[test]
fn a_queue_beyond_its_limit_breaks_i4() {
    let mut checker = scene(0);
    for queued in 1..=3 {
        push(&mut checker, 0);
        checker.settled(0, queued, 10 * queued);
    }
    broken(&checker, Invariant::I4, "beyond a limit");
}

#[test]
fn a_refusal_with_room_to_spare_breaks_i4() {
    let mut checker = scene(0);
    let call = push(&mut checker, 0);
    checker.answered(0, call, 0, Said::rejected(Reason::QueueFull));
    broken(&checker, Invariant::I4, "0 (0 B) queued");
}

#[test]
fn deadlines_are_kept_to_the_microsecond() {
    let mut checker = scene(2);
    let call = push(&mut checker, 0);
    dispatch(&mut checker, 1_000_000, call);
    broken(&checker, Invariant::I5, "after its deadline");
    let mut checker = scene(0);
    let call = push(&mut checker, 0);
    checker.settled(0, 1, 10);
    checker.answered(999_999, call, 0, Said::Expired);
    broken(&checker, Invariant::I5, "before its deadline");
    let mut checker = scene(0);
    let call = push(&mut checker, 0);
    checker.settled(0, 1, 10);
    checker.answered(1_000_000 + 2 * TICK_US + 1, call, 0, Said::Expired);
    broken(&checker, Invariant::I5, "too late");
}

#[test]
fn counts_that_do_not_add_up_break_i7() {
    let mut checker = scene(2);
    running(&mut checker);
    checker.quiet(&Sums { accepted: 1, dispatched: 2, ..Sums::default() }, 1);
    broken(&checker, Invariant::I7, "dispatched: 2");
    let mut checker = scene(0);
    push(&mut checker, 0);
    checker.settled(0, 0, 0);
    broken(&checker, Invariant::I7, "the router counts 0");
}

#[test]
fn waiting_beside_a_free_credit_breaks_i8() {
    let mut checker = scene(1);
    push(&mut checker, 0);
    checker.settled(0, 1, 10);
    broken(&checker, Invariant::I8, "wait while container 0 has 1 credits");
}

#[test]
fn a_drain_that_leaves_something_breaks_i11() {
    let mut checker = scene(1);
    checker.drain_over(1, true, true);
    broken(&checker, Invariant::I11, "still holds 1");
}

#[test]
fn what_is_left_at_the_end_breaks_i12() {
    let rested = Audit { credits: 2, slots: 2, ..Audit::default() };
    let cases: [(usize, usize, usize, Audit); 4] =
        [(1, 0, 0, rested), (0, 1, 0, rested), (0, 0, 1, rested), (0, 0, 0, Audit { credits: 1, ..rested })];
    for (held, mailboxes, parked, audit) in cases {
        let mut checker = scene(2);
        checker.rested(held, mailboxes, parked, &audit);
        broken(&checker, Invariant::I12, "");
    }
}

/// As [`scene`], with a store that is open, and no credit: the first two wait in memory.
fn overflowing() -> Checker {
    let mut checker = scene(0);
    let limits = Limits { overflow: Some(OverflowLimits::default()), ..checker.limits.clone() };
    checker.router_began(&limits);
    checker.session_began(0, None);
    checker.session_began(1, Some(0));
    checker.registered(1, 7, 1, 0, 2, 0);
    checker.store_open(true);
    for queued in 1..=2 {
        push(&mut checker, 0);
        checker.settled(0, queued, 10 * queued);
    }
    checker
}

/// Pushed, and kept in lane 3 at that position.
fn keep(checker: &mut Checker, position: u64) -> Call {
    let call = push(checker, 0);
    checker.spilling(call, 3);
    checker.overflow_settled(checker.flow.pending, true);
    checker.told(call, Told::Kept(3, position));
    checker.settled(0, 2, 20);
    assert!(checker.violation().is_none(), "{:?}", checker.violation());
    call
}

fn mark(checker: &mut Checker, call: Call, before: u64) {
    checker.handing(3, vec![(call, false)], vec![]);
    checker.marked(3, before, &[]);
}

#[test]
fn what_is_kept_and_comes_back_is_good() {
    let mut checker = overflowing();
    let call = keep(&mut checker, 0);
    mark(&mut checker, call, 1);
    checker.refilled(call, false, 1_000_000);
    checker.settled(0, 3, 30);
    checker.handed_over();
    checker.overflow_rested(0, 0);
    assert!(checker.violation().is_none(), "{:?}", checker.violation());
}

/// Of another session, and that one was told that it is lost while it was on its way.
#[test]
fn what_was_ended_on_its_way_is_lost_once_it_is_kept() {
    for (said, good) in [(Some(Said::Lost), true), (None, false)] {
        let mut checker = overflowing();
        let call = push(&mut checker, 0);
        checker.spilling(call, 3);
        checker.overflow_settled(checker.flow.pending, true);
        checker.told_lost(call, 1);
        checker.told(call, Told::Kept(3, 0));
        said.into_iter().for_each(|said| checker.answered(0, call, 0, said));
        checker.settled(0, 2, 20);
        match good {
            true => assert!(checker.violation().is_none(), "{:?}", checker.violation()),
            false => broken(&checker, Invariant::I2, ""),
        }
    }
}

#[test]
fn what_comes_back_unmarked_or_twice_breaks_i1() {
    let mut checker = overflowing();
    let call = keep(&mut checker, 0);
    checker.refilled(call, false, 1_000_000);
    broken(&checker, Invariant::I1, "before its consume mark");
    let mut checker = overflowing();
    let call = keep(&mut checker, 0);
    mark(&mut checker, call, 1);
    checker.refilled(call, false, 1_000_000);
    checker.refilled(call, false, 1_000_000);
    broken(&checker, Invariant::I1, "handed in 2 times");
}

#[test]
fn overtaking_what_is_stored_breaks_i3() {
    let mut checker = overflowing();
    let stored = keep(&mut checker, 0);
    let later = push(&mut checker, 0);
    checker.credited(0, 1);
    // The two that came first are gone.
    for first in 0..2 {
        checker.answered(1_000_000, first, 0, Said::Expired);
    }
    dispatch(&mut checker, 1, later);
    broken(&checker, Invariant::I3, &format!("before activation {stored}"));
}

#[test]
fn what_is_durable_and_vanishes_breaks_i6() {
    let mut checker = overflowing();
    keep(&mut checker, 0);
    checker.overflow_rested(0, 0);
    broken(&checker, Invariant::I6, "never came back");
    let mut checker = overflowing();
    let (_, second) = (keep(&mut checker, 0), keep(&mut checker, 1));
    mark(&mut checker, second, 2);
    broken(&checker, Invariant::I6, "consumed without being handed in");
    let mut checker = overflowing();
    let call = keep(&mut checker, 0);
    mark(&mut checker, call, 1);
    checker.handed_over();
    broken(&checker, Invariant::I6, "not handed in");
}

#[test]
fn what_damage_has_hit_may_vanish_but_not_be_read() {
    let mut checker = overflowing();
    let call = keep(&mut checker, 0);
    checker.hit(call, false);
    checker.marked(3, 1, &[]);
    checker.overflow_rested(0, 0);
    assert!(checker.violation().is_none(), "{:?}", checker.violation());
    let mut checker = overflowing();
    let call = keep(&mut checker, 0);
    checker.hit(call, false);
    checker.fetched(call);
    broken(&checker, Invariant::I6, "damaged");
}

#[test]
fn a_crash_loses_no_more_than_was_being_handed_in() {
    for announced in [true, false] {
        let mut checker = overflowing();
        let call = keep(&mut checker, 0);
        if announced {
            checker.handing(3, vec![(call, false)], vec![]);
        }
        checker.router_died();
        checker.marked_in_crash(3, 1, &[]);
        assert_eq!(checker.moved().lost_in_crash, u64::from(announced));
        assert_eq!(checker.violation().is_none(), announced);
    }
}

#[test]
fn one_of_an_earlier_life_comes_back_in_its_time() {
    for (left, fair) in [(900_000, true), (1_000_000, false)] {
        let mut checker = overflowing();
        let call = keep(&mut checker, 0);
        checker.router_died();
        checker.at(100_000);
        checker.router_began(&checker.limits.clone());
        checker.router_shows(100_000);
        checker.handing(3, vec![(call, true)], vec![]);
        checker.marked(3, 1, &[]);
        checker.refilled(call, true, 100_000 + left);
        assert_eq!(checker.violation().is_none(), fair, "{:?}", checker.violation());
    }
    let mut checker = overflowing();
    let call = keep(&mut checker, 0);
    checker.router_died();
    checker.at(2_000_000);
    checker.handing(3, vec![(call, true)], vec![]);
    broken(&checker, Invariant::I5, "its time was over");
}

#[test]
fn a_refusal_beside_an_open_store_breaks_i4() {
    for reason in [Reason::QueueFull, Reason::OverflowUnavailable] {
        let mut checker = overflowing();
        let call = push(&mut checker, 0);
        checker.answered(0, call, 0, Said::rejected(reason));
        broken(&checker, Invariant::I4, "2 (20 B) queued");
    }
}

#[test]
fn more_on_the_way_or_back_than_there_may_be_breaks_i4_or_i7() {
    let mut checker = overflowing();
    checker.overflow_settled(1, true);
    broken(&checker, Invariant::I7, "1 B are said");
    let mut checker = overflowing();
    // One may come back at a time, where two may be queued.
    let both = [keep(&mut checker, 0), keep(&mut checker, 1)];
    checker.handing(3, both.iter().map(|call| (*call, false)).collect(), vec![]);
    checker.marked(3, 2, &[]);
    both.iter().for_each(|call| checker.refilled(*call, false, 1_000_000));
    checker.overflow_settled(0, true);
    broken(&checker, Invariant::I4, "2 that came from the store");
}

#[test]
fn one_that_may_have_expired_unheard_is_not_too_many() {
    for (shows, good) in [(999_999, false), (1_000_000, true)] {
        let mut checker = overflowing();
        let both = [keep(&mut checker, 0), keep(&mut checker, 1)];
        both.iter().for_each(|call| checker.calls[*call as usize].quiet = true);
        checker.handing(3, both.iter().map(|call| (*call, false)).collect(), vec![]);
        checker.marked(3, 2, &[]);
        both.iter().for_each(|call| checker.refilled(*call, false, 1_000_000));
        checker.router_shows(shows);
        checker.overflow_settled(0, true);
        assert_eq!(checker.violation().is_none(), good, "{:?}", checker.violation());
    }
}

#[test]
fn a_lane_that_is_not_left_breaks_i12() {
    let mut checker = overflowing();
    checker.overflow_rested(1, 0);
    broken(&checker, Invariant::I12, "1 lanes");
}

#[test]
fn what_is_said_to_be_stored_in_an_empty_store_breaks_i7() {
    let mut checker = overflowing();
    checker.overflow_rested(0, 3);
    broken(&checker, Invariant::I7, "3 are said to be stored");
}

#[test]
fn what_is_known_to_be_damaged_is_answered_at_once_and_only_that() {
    let said = Said::rejected(Reason::RecordDamaged);
    for (noted, answered) in [(true, true), (true, false), (false, true)] {
        let mut checker = overflowing();
        let call = keep(&mut checker, 0);
        checker.hit(call, noted);
        checker.handing(3, vec![], if noted { vec![call] } else { vec![] });
        checker.marked(3, 1, &[]);
        if answered {
            checker.answered(0, call, 0, said);
        }
        checker.settled(0, 2, 20);
        assert_eq!(checker.violation().is_none(), noted && answered, "{:?}", checker.violation());
    }
    let mut checker = overflowing();
    let call = keep(&mut checker, 0);
    checker.handing(3, vec![], vec![call]);
    broken(&checker, Invariant::I6, "it is whole");
}

#[test]
fn a_mark_consumes_what_it_names_and_nothing_of_others() {
    for (named, good) in [(vec![], true), (vec![(0, 1)], true), (vec![(1, 1)], true)] {
        let mut checker = overflowing();
        let call = keep(&mut checker, 0);
        let own = checker.calls[call as usize].action;
        let names_it = named.iter().any(|(action, _)| *action == own);
        checker.marked(3, 0, &named);
        assert_eq!(checker.violation().is_none(), good && !names_it, "{:?}", checker.violation());
    }
}

#[test]
fn an_action_that_has_room_and_gets_nothing_from_the_store_breaks_i8() {
    for (healthy, good) in [(true, false), (false, true)] {
        let mut checker = overflowing();
        let call = keep(&mut checker, 0);
        let action = checker.calls[call as usize].action;
        checker.session_began(1, None);
        checker.registered(1, 0, 0, action, 1, 1);
        checker.actions[usize::from(action)].queued = 0;
        for shows in [0, 4_000_000, 8_000_000] {
            checker.router_shows(shows);
            checker.overflow_settled(0, healthy);
        }
        assert_eq!(checker.violation().is_none(), good, "{:?}", checker.violation());
    }
}

#[test]
fn a_drain_that_ends_in_silence_breaks_i11() {
    for (parted, good) in [(true, true), (false, false)] {
        let mut checker = overflowing();
        let call = keep(&mut checker, 0);
        checker.router_drains();
        if parted {
            checker.answered(0, call, 0, Said::Accepted);
        }
        // What is queued is cut off.
        let queued: Vec<_> = (0..).zip(&checker.calls).filter(|(_, book)| book.place == Place::Queued).collect();
        let queued: Vec<u32> = queued.into_iter().map(|(call, _)| call).collect();
        queued.iter().for_each(|call| checker.answered(0, *call, 0, Said::rejected(Reason::Draining)));
        checker.drain_over(0, true, true);
        assert_eq!(checker.violation().is_none(), good, "{:?}", checker.violation());
    }
}

/// As [`scene`], with breakers: one of three strikes.
fn guarded(strikes: u32, credits: u32) -> Checker {
    let mut checker = scene(0);
    let breaker = Some(Rules { strikes, ..Rules::default() });
    checker.router_began(&Limits { breaker, ..checker.limits.clone() });
    checker.session_began(0, None);
    checker.session_began(1, Some(0));
    checker.registered(1, 7, 1, 0, 2, credits);
    checker
}

/// Who had no fair time may not be held back for it; who had may.
#[test]
fn to_withhold_a_container_for_overload_breaks_i8() {
    for (dispatched_at, fair) in [(500_000, true), (500_001, false)] {
        let mut checker = guarded(1, 0);
        let call = push(&mut checker, 0);
        checker.settled(0, 1, 10);
        checker.router_shows(dispatched_at);
        checker.credited(0, 2);
        checker.dispatched(dispatched_at, call, 1, 7, 1, 1, 1, true);
        checker.settled(dispatched_at, 0, 0);
        checker.router_shows(1_001_000);
        checker.answered(1_001_000, call, 0, Said::TimedOut);
        checker.settled(1_001_000, 0, 0);
        assert!(checker.violation().is_none(), "{:?}", checker.violation());
        push(&mut checker, 1_001_000);
        checker.settled(1_001_000, 1, 10);
        match fair {
            true => assert!(checker.violation().is_none(), "{:?}", checker.violation()),
            false => broken(&checker, Invariant::I8, "has 1 credits"),
        }
    }
}

/// Gets one activation in a session of its own and dies with it.
fn live_and_die(checker: &mut Checker, session: u32, now: u64) {
    checker.session_began(session, Some(3));
    let call = push(checker, now);
    let container = checker.registered(session, 9, session, 0, 1, 1);
    checker.dispatched(now, call, session, 9, session, 1, 1, true);
    checker.settled(now, 0, 0);
    checker.gone(container);
    checker.answered(now, call, 0, Said::Lost);
    checker.settled(now, 0, 0);
}

#[test]
fn a_node_that_dies_each_time_and_gets_more_breaks_i13() {
    // Three deaths are known of where two open a breaker; the fourth is of a probe, and the pause behind it is half a second at least.
    for (last, good) in [(500_003, true), (500_002, false)] {
        let mut checker = guarded(2, 0);
        (2..6).for_each(|session| live_and_die(&mut checker, session, u64::from(session) - 2));
        assert!(checker.violation().is_none(), "{:?}", checker.violation());
        live_and_die(&mut checker, 6, last);
        match good {
            true => assert!(checker.violation().is_none(), "{:?}", checker.violation()),
            false => broken(&checker, Invariant::I13, "before its breaker's time was over"),
        }
    }
}

#[test]
fn a_second_probe_beside_the_first_breaks_i13() {
    let mut checker = guarded(2, 0);
    (2..5).for_each(|session| live_and_die(&mut checker, session, u64::from(session) - 2));
    checker.session_began(5, Some(3));
    checker.registered(5, 9, 5, 0, 2, 2);
    for good in [true, false] {
        let call = push(&mut checker, 5);
        checker.dispatched(5, call, 5, 9, 5, 1, 1, true);
        assert_eq!(checker.violation().is_none(), good, "{:?}", checker.violation());
    }
    broken(&checker, Invariant::I13, "beside the probe");
}

/// Stored 0.1 s after it came with a second, read back 0.2 s later: the same boot tells so whatever the wall clock says, another boot asks
/// the wall clock, and no clock gives more than there was.
#[test]
fn what_comes_back_has_the_time_that_the_clocks_leave_it() {
    let moment = |wall_ms, boot| Moment { wall_ms, boot, boot_ms: 0 };
    let back = |ms| Some(ClockJump::Back(Duration::from_millis(ms)));
    let forward = |ms| Some(ClockJump::Forward(Duration::from_millis(ms)));
    for (shown, jump, left, good) in [
        (moment(100_200, 1), None, 700_000, true),
        (moment(900_200, 1), forward(800_000), 700_000, true),
        (moment(900_200, 1), None, 700_000, false),
        (moment(40_200, 1), back(60_000), 700_000, true),
        (moment(40_200, 1), back(60_000), 900_000, false),
        (moment(100_200, 2), None, 700_000, true),
        (moment(40_000, 2), back(60_000), 900_000, true),
        (moment(40_000, 2), back(60_000), 960_000, false),
        (moment(40_000, 2), None, 900_000, false),
        (moment(100_500, 2), None, 700_000, false),
        (moment(100_500, 2), None, 400_000, true),
    ] {
        let mut checker = overflowing();
        let call = push(&mut checker, 0);
        checker.spilling(call, 3);
        checker.overflow_settled(checker.flow.pending, true);
        (checker.now, checker.local) = (100_000, 100_000);
        checker.stamped(call, moment(100_000, 1));
        checker.told(call, Told::Kept(3, 0));
        checker.settled(0, 2, 20);
        let life = checker.life;
        checker.router_died();
        checker.at(300_000);
        checker.router_began(&checker.limits.clone());
        checker.router_shows(300_000);
        checker.recovering(call, life, shown, jump);
        checker.handing(3, vec![(call, true)], vec![]);
        checker.marked(3, 1, &[]);
        checker.refilled(call, true, 300_000 + left);
        assert_eq!(checker.violation().is_none(), good, "{shown:?} {jump:?} {left}: {:?}", checker.violation());
    }
}
