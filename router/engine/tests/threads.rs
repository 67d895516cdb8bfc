//! The engine between threads: what another thread does in the middle of a turn, and many threads at once.

use bytes::Bytes;
use engine::container::Registration;
use engine::effect::{Effect, Perform};
use engine::hub::{Hub, Pass};
use engine::id::{ActionKey, ActivationId, StreamId};
use engine::input::{Input, Push};
use engine::limits::Limits;
use engine::outcome::{Outcome, Reason, Reply};
use engine::time::Timestamp;
use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

/// Records what is asked for, and once lets another thread do something at that very moment: it runs here, on a pass of its
/// own, and stays away from the action that is held.
struct Interrupted<'a> {
    effects: Vec<Effect>,
    other_thread: Option<Box<dyn FnOnce() + 'a>>,
}

impl Perform for Interrupted<'_> {
    fn perform(&mut self, effects: &mut Vec<Effect>) {
        self.effects.append(effects);
        if let Some(act) = self.other_thread.take() {
            act();
        }
    }
}

#[test]
fn an_id_that_moves_on_to_a_newer_revision_cannot_be_taken_on_its_way() {
    let hub = Hub::new(Limits::default(), 7, 1, Timestamp::ZERO);
    let mut setup = Pass::new(Recorder::default());
    let old = hub.declare(&revision("1"), &mut setup).unwrap();
    let (_, container) = hub.register(&revision("1"), registration(1, 0), &mut setup).unwrap();
    hub.enter(&old, &mut vec![push(1, setup.now)], &mut setup);
    let new = hub.declare(&revision("2"), &mut setup).unwrap();

    let second = RefCell::new(Pass::new(Recorder::default()));
    let other_thread = || hub.enter(&new, &mut vec![push(1, Timestamp::ZERO)], &mut second.borrow_mut());
    let mut pass = Pass::new(Interrupted { effects: Vec::new(), other_thread: Some(Box::new(other_thread)) });
    hub.enter(&old, &mut vec![Input::Gone(container)], &mut pass);

    assert_eq!(rejections(&second.borrow().performer.0), [Reason::IdInFlight], "the second push");
    assert_eq!(rejections(&pass.performer.effects), [], "the first was accepted");
    assert_eq!((hub.held(), hub.budget().queued()), (1, 1));
}

#[derive(Debug, Default)]
struct Recorder(Vec<Effect>);

impl Perform for Recorder {
    fn perform(&mut self, effects: &mut Vec<Effect>) {
        self.0.append(effects);
    }
}

fn rejections(effects: &[Effect]) -> Vec<Reason> {
    let reason = |effect: &Effect| match effect {
        Effect::Answer(_, answer) => match &answer.outcome {
            Outcome::Rejected(rejection) => Some(rejection.reason),
            _ => None,
        },
        _ => None,
    };
    effects.iter().filter_map(reason).collect()
}

/// Who was dispatched with how much time left, or answered.
fn fates(effects: &[Effect]) -> Vec<(u128, Option<u32>)> {
    let fate = |effect: &Effect| match effect {
        Effect::Dispatch(_, dispatch) => Some((u128::from_be_bytes(dispatch.id.0), Some(dispatch.time_left_ms))),
        Effect::Answer(_, answer) => Some((u128::from_be_bytes(answer.id.0), None)),
        _ => None,
    };
    effects.iter().filter_map(fate).collect()
}

fn revision(revision: &str) -> ActionKey {
    ActionKey::new("tenant", "action", revision)
}

fn registration(number: u32, credits: u32) -> Registration {
    let stream = StreamId(1000 + u64::from(number));
    Registration { stream, number, concurrency: 4, credits, warm: false, room: Arc::default() }
}

fn push(id: u128, now: Timestamp) -> Input {
    Input::Push(Push {
        id: ActivationId(id.to_be_bytes()),
        controller: StreamId(1),
        reply: Reply::Outcome,
        attempt: 1,
        accepted_at: now,
        deadline: now + Duration::from_millis(100),
        payload: Bytes::from_static(b"payload"),
        accepted: false,
    })
}

#[test]
fn what_is_done_for_another_thread_is_done_at_its_time() {
    let hub = Hub::new(Limits::default(), 7, 1, Timestamp::ZERO);
    let mut pass = Pass::new(Recorder::default());
    let action = hub.declare(&revision("1"), &mut pass).unwrap();
    let (_, container) = hub.register(&revision("1"), registration(1, 0), &mut pass).unwrap();
    let later = pass.now + Duration::from_millis(100);
    hub.enter(&action, &mut vec![push(1, pass.now)], &mut pass);

    // As if another thread had left these in the intake: this pass's own time is still zero.
    hub.enter(&action, &mut vec![push(2, later), Input::Credit(container, 1)], &mut pass);
    assert_eq!(
        fates(&pass.performer.0),
        [(1, None), (2, Some(100))],
        "the first expired just then, the second has all its time"
    );

    // And the other way round: time does not go back for an action when a thread comes that is behind.
    pass.performer.0.clear();
    hub.enter(&action, &mut vec![push(3, later), push(4, Timestamp::ZERO)], &mut pass);
    hub.enter(&action, &mut vec![Input::Credit(container, 2)], &mut pass);
    assert_eq!(fates(&pass.performer.0), [(4, None), (3, Some(100))]);
}
