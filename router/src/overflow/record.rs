//! A spilled activation as bytes, and back. The format is the router's own; nobody else reads it. Bytes that it did not write give an
//! error, never a panic.
//!
//! ```text
//!   version 1 | reply 1 | life 8 | controller 8 | sequence 4 | attempt 4 | accepted 8 | deadline 8
//!   | time left 8 | wall clock 8 | boot 8 | boot clock 8 | id 16
//!   | namespace, action, revision: length 2 each | their bytes | payload
//! ```
//!
//! Numbers are little endian. `accepted` and `deadline` are microseconds of the router's clock, which begins anew with each life. For
//! records of an earlier life counts what the clocks showed when the record was written, and the time it had left then, in milliseconds:
//! see [`engine::stored_time`].

use crate::clock::Reading;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use engine::effect::{Spill, Spilled};
use engine::id::{ActionKey, ActivationId, StreamId};
use engine::outcome::Reply;
use engine::stored_time::{ClockJump, Moment, Stamp, time_left};
use engine::time::Timestamp;

/// Writes and reads records of one life of the router.
#[derive(Debug)]
pub(crate) struct Records {
    /// Tells this life from others; drawn at random.
    life: u64,
    /// The key read last: neighbours mostly have the same.
    last: Option<ActionKey>,
    /// How the wall clock was set since records of earlier lives were written: the first that showed each way.
    jumps: Jumps,
}

#[derive(Debug, Default)]
struct Jumps {
    back: Option<ClockJump>,
    forward: Option<ClockJump>,
    /// Of those, the ones that were not asked for yet.
    news: Vec<ClockJump>,
}

/// Bytes that are no record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NoRecord;

const VERSION: u8 = 2;
const FIXED: usize = 1 + 1 + 8 + 8 + 4 + 4 + 8 + 8 + 4 * 8 + 16 + 3 * 2;

impl Records {
    pub(crate) fn new(life: u64) -> Self {
        Self { life, last: None, jumps: Jumps::default() }
    }

    /// The record of an activation that leaves memory, written then. A batch shares one reading of the clocks.
    pub(crate) fn write(&self, spill: &Spill, at: &Reading) -> Bytes {
        let Spill { action, record, .. } = spill;
        let key = action.key();
        let names = [key.name.namespace(), key.name.action(), &key.revision];
        let names_len: usize = names.iter().map(|name| name.len()).sum();
        let mut to = BytesMut::with_capacity(FIXED + names_len + record.payload.len());
        to.put_u8(VERSION);
        to.put_u8(match record.reply {
            Reply::Outcome => 0,
            Reply::Accepted => 1,
        });
        to.put_u64_le(self.life);
        to.put_u64_le(record.controller.0);
        to.put_u32_le(record.sequence.expect("it was admitted in this life"));
        to.put_u32_le(record.attempt);
        to.put_u64_le(record.accepted_at.as_micros());
        to.put_u64_le(record.deadline.as_micros());
        let Moment { wall_ms, boot, boot_ms } = at.moment;
        let time_left_ms = at.now.millis_until(record.deadline);
        [time_left_ms, wall_ms, boot, boot_ms].into_iter().for_each(|number| to.put_u64_le(number));
        to.put_slice(&record.id.0);
        names.iter().for_each(|name| to.put_u16_le(u16::try_from(name.len()).expect("names are checked to be short")));
        names.iter().for_each(|name| to.put_slice(name.as_bytes()));
        to.put_slice(&record.payload);
        to.freeze()
    }

    /// Reads a record: whose it is, and what it says. A batch shares one reading of the clocks.
    pub(crate) fn read(&mut self, mut from: Bytes, at: &Reading) -> Result<(ActionKey, Spilled), NoRecord> {
        if from.len() < FIXED || from.get_u8() != VERSION {
            return Err(NoRecord);
        }
        let reply = match from.get_u8() {
            0 => Reply::Outcome,
            1 => Reply::Accepted,
            _ => return Err(NoRecord),
        };
        let of_this_life = from.get_u64_le() == self.life;
        let (controller, sequence, attempt) = (StreamId(from.get_u64_le()), from.get_u32_le(), from.get_u32_le());
        let [accepted_at, deadline] = [(); 2].map(|()| Timestamp::from_micros(from.get_u64_le()));
        let [time_left_ms, wall_ms, boot, boot_ms] = [(); 4].map(|()| from.get_u64_le());
        let stamp = Stamp { time_left_ms, written: Moment { wall_ms, boot, boot_ms } };
        let mut id = [0; ActivationId::LEN];
        from.copy_to_slice(&mut id);
        let id = ActivationId(id);
        let key = self.read_key(&mut from)?;
        let own =
            Spilled { id, controller, reply, attempt, sequence: Some(sequence), accepted_at, deadline, payload: from };
        let record = if of_this_life { own } else { self.of_earlier_life(own, stamp, at) };
        Ok((key, record))
    }

    /// How the wall clock was set since what was read was written: each way once in a life of the router, when it first shows.
    pub(crate) fn take_jumps(&mut self) -> impl Iterator<Item = ClockJump> {
        self.jumps.news.drain(..)
    }

    /// What it says about times and streams means nothing any more, but for its stamp.
    fn of_earlier_life(&mut self, record: Spilled, stamp: Stamp, at: &Reading) -> Spilled {
        let (left, jump) = time_left(stamp, at.moment);
        self.jumps.note(jump);
        let (accepted_at, deadline) = (at.now, at.now + left);
        let controller = StreamId::NOBODY;
        Spilled { controller, reply: Reply::Accepted, sequence: None, accepted_at, deadline, ..record }
    }

    fn read_key(&mut self, from: &mut Bytes) -> Result<ActionKey, NoRecord> {
        let lens = [(); 3].map(|()| usize::from(from.get_u16_le()));
        if from.len() < lens.iter().sum() {
            return Err(NoRecord);
        }
        let names = lens.map(|len| from.split_to(len));
        let text = |at: usize| std::str::from_utf8(&names[at]).map_err(|_| NoRecord);
        let (namespace, action, revision) = (text(0)?, text(1)?, text(2)?);
        let is_last = |key: &&ActionKey| {
            key.name.namespace() == namespace && key.name.action() == action && &*key.revision == revision
        };
        if let Some(last) = self.last.as_ref().filter(is_last) {
            return Ok(last.clone());
        }
        let key = ActionKey::new(namespace, action, revision);
        self.last = Some(key.clone());
        Ok(key)
    }
}

impl Jumps {
    fn note(&mut self, jump: Option<ClockJump>) {
        let Some(jump) = jump else { return };
        let known = match jump {
            ClockJump::Back(_) => &mut self.back,
            ClockJump::Forward(_) => &mut self.forward,
        };
        if known.is_none() {
            *known = Some(jump);
            self.news.push(jump);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::hub::{Hub, Pass};
    use engine::lanes::Lane;
    use engine::limits::Limits;
    use proptest::prelude::*;
    use std::time::Duration;

    struct Nobody;

    impl engine::effect::Perform for Nobody {
        fn perform(&mut self, effects: &mut Vec<engine::effect::Effect>) {
            effects.clear();
        }
    }

    const DAY_MS: u64 = 86_400_000;
    const SECOND: Duration = Duration::from_secs(1);

    /// A minute after the start, at noon, an hour after boot 7.
    const NOON: Reading = Reading {
        now: Timestamp::from_micros(60_000_000),
        moment: Moment { wall_ms: 1_800_000_000_000, boot: 7, boot_ms: 3_600_000 },
    };

    /// What a router that has just started reads, so many seconds later on that boot, its wall clock set by so much.
    fn later(seconds: u64, boot: u64, set_ms: i64) -> Reading {
        let Moment { wall_ms, boot_ms, .. } = NOON.moment;
        let wall_ms = (wall_ms + seconds * 1000).saturating_add_signed(set_ms);
        Reading { now: Timestamp::ZERO, moment: Moment { wall_ms, boot, boot_ms: boot_ms + seconds * 1000 } }
    }

    /// With a minute left, written at noon.
    fn written(names: [&str; 3], payload: Vec<u8>, numbers: (u64, u32, u32)) -> (Records, Bytes, Spilled, ActionKey) {
        let (hub, mut pass) = (Hub::new(Limits::default(), 7, 1, Timestamp::ZERO), Pass::new(Nobody));
        let key = ActionKey::new(names[0], names[1], names[2]);
        let action = hub.declare(&key, &mut pass).unwrap();
        let (controller, sequence, attempt) = numbers;
        let record = Spilled {
            id: ActivationId([7; ActivationId::LEN]),
            controller: StreamId(controller),
            reply: Reply::Outcome,
            attempt,
            sequence: Some(sequence),
            accepted_at: Timestamp::from_micros(1_000),
            deadline: NOON.now + 60 * SECOND,
            payload: payload.into(),
        };
        // A key into the slab that nobody looks at.
        let slot = engine::slab::Slab::default().insert(());
        let spill = Spill { lane: Lane(0), action, slot, record: record.clone() };
        let records = Records::new(1);
        let bytes = records.write(&spill, &NOON);
        (records, bytes, record, key)
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(
            names in ["[a-zé/]{0,40}", "[a-z]{0,40}", "[a-z0-9]{0,10}"],
            payload: Vec<u8>,
            numbers: (u64, u32, u32),
        ) {
            let names = [&*names[0], &names[1], &names[2]];
            let (mut records, bytes, record, key) = written(names, payload, numbers);
            prop_assert_eq!(records.read(bytes, &NOON), Ok((key, record)));
        }

        #[test]
        fn other_bytes_do_no_harm(bytes: Vec<u8>) {
            let _ = Records::new(1).read(bytes.into(), &NOON);
        }
    }

    #[test]
    fn a_record_that_is_cut_off_is_none_or_has_a_shorter_payload() {
        let (mut records, bytes, ..) = written(["tenant", "action", "1"], vec![5; 20], (1, 2, 3));
        for len in 0..bytes.len() {
            match records.read(bytes.slice(..len), &NOON) {
                Err(NoRecord) => assert!(len < bytes.len() - 20),
                Ok((_, record)) => assert_eq!(record.payload.len(), len + 20 - bytes.len()),
            }
        }
    }

    #[test]
    fn another_life_knows_id_action_payload_and_deadline_only() {
        let (_, bytes, record, key) = written(["tenant", "action", "1"], vec![5; 20], (1, 2, 3));
        let mut other = Records::new(2);
        let (its_key, its) = other.read(bytes, &later(10, 7, 0)).unwrap();
        assert_eq!((its_key, its.id, &its.payload, its.attempt), (key, record.id, &record.payload, 3));
        assert_eq!((its.sequence, its.controller, its.reply), (None, StreamId::NOBODY, Reply::Accepted));
        assert_eq!(its.deadline, Timestamp::ZERO + 50 * SECOND);
    }

    /// What twenty records have left for a router that starts then, and how the wall clock was set, as it says.
    fn left_after(at: &Reading) -> (Duration, Vec<ClockJump>) {
        let (_, bytes, ..) = written(["tenant", "action", "1"], vec![5; 20], (1, 2, 3));
        let mut other = Records::new(2);
        let mut read = || other.read(bytes.clone(), at).unwrap().1.deadline;
        let deadlines: Vec<_> = (0..20).map(|_| at.now.until(read())).collect();
        assert!(deadlines.iter().all(|left| *left == deadlines[0]), "{deadlines:?}");
        (deadlines[0], other.take_jumps().collect())
    }

    #[test]
    fn a_wall_clock_that_is_set_costs_no_time_within_a_boot_and_gives_none_after_it() {
        let day = Duration::from_millis(DAY_MS);
        let (back, forward) = (vec![ClockJump::Back(day)], vec![ClockJump::Forward(day)]);
        let [ahead, behind] = [DAY_MS.cast_signed(), -DAY_MS.cast_signed()];
        // It was written before the clock was set right, and the router starts again at once.
        assert_eq!(left_after(&later(1, 7, ahead)), (59 * SECOND, forward));
        assert_eq!(left_after(&later(1, 7, behind)), (59 * SECOND, back.clone()));
        // The machine was booted in between, or it is another.
        let a_second_less = vec![ClockJump::Back(day - SECOND)];
        assert_eq!(left_after(&later(1, 8, behind)), (60 * SECOND, a_second_less));
        assert_eq!(left_after(&later(1, 8, ahead)), (Duration::ZERO, Vec::new()));
        assert_eq!(left_after(&later(10, 8, 0)), (50 * SECOND, Vec::new()));
    }
}
