//! A spilled activation as bytes, and back. The format is the router's own; nobody else reads it. Bytes that it did not write give an
//! error, never a panic.
//!
//! ```text
//!   version 1 | reply 1 | life 8 | controller 8 | sequence 4 | attempt 4 | accepted 8 | deadline 8 | wall deadline 8 | id 16
//!   | namespace, action, revision: length 2 each | their bytes | payload
//! ```
//!
//! Numbers are little endian. Points in time are microseconds of the router's clock, which begins anew with each life; the wall clock's
//! milliseconds are asked only for records of an earlier life.

use crate::clock::Clock;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use engine::effect::{Spill, Spilled};
use engine::id::{ActionKey, ActivationId, StreamId};
use engine::outcome::Reply;
use engine::time::Timestamp;
use std::time::Duration;

/// Writes and reads records of one life of the router.
#[derive(Debug)]
pub(crate) struct Records {
    /// Tells this life from others; drawn at random.
    life: u64,
    clock: Clock,
    /// The key read last: neighbours mostly have the same.
    last: Option<ActionKey>,
}

/// Bytes that are no record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NoRecord;

const VERSION: u8 = 1;
const FIXED: usize = 1 + 1 + 8 + 8 + 4 + 4 + 8 + 8 + 8 + 16 + 3 * 2;
/// Who asked for what an earlier life took: nobody that could be answered. No stream is ever given that number.
const NOBODY: StreamId = StreamId(u64::MAX);

impl Records {
    pub(crate) fn new(life: u64, clock: Clock) -> Self {
        Self { life, clock, last: None }
    }

    /// The record of an activation that leaves memory.
    pub(crate) fn write(&self, spill: &Spill) -> Bytes {
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
        to.put_u64_le(self.clock.wall_ms(record.deadline));
        to.put_slice(&record.id.0);
        names.iter().for_each(|name| to.put_u16_le(u16::try_from(name.len()).expect("names are checked to be short")));
        names.iter().for_each(|name| to.put_slice(name.as_bytes()));
        to.put_slice(&record.payload);
        to.freeze()
    }

    /// Reads a record: whose it is, and what it says.
    pub(crate) fn read(&mut self, mut from: Bytes) -> Result<(ActionKey, Spilled), NoRecord> {
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
        let (accepted_at, deadline) = (at(from.get_u64_le()), at(from.get_u64_le()));
        let wall_deadline_ms = from.get_u64_le();
        let mut id = [0; ActivationId::LEN];
        from.copy_to_slice(&mut id);
        let id = ActivationId(id);
        let key = self.read_key(&mut from)?;
        let own =
            Spilled { id, controller, reply, attempt, sequence: Some(sequence), accepted_at, deadline, payload: from };
        let record = if of_this_life { own } else { self.of_earlier_life(own, wall_deadline_ms) };
        Ok((key, record))
    }

    /// What it says about times and streams means nothing any more, but for the wall clock's.
    fn of_earlier_life(&self, record: Spilled, wall_deadline_ms: u64) -> Spilled {
        let (now, deadline) = (self.clock.now(), self.clock.of_wall_ms(wall_deadline_ms));
        Spilled { controller: NOBODY, reply: Reply::Accepted, sequence: None, accepted_at: now, deadline, ..record }
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

fn at(micros: u64) -> Timestamp {
    Timestamp::ZERO + Duration::from_micros(micros)
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::hub::{Hub, Pass};
    use engine::lanes::Lane;
    use engine::limits::Limits;
    use proptest::prelude::*;

    struct Nobody;

    impl engine::effect::Perform for Nobody {
        fn perform(&mut self, effects: &mut Vec<engine::effect::Effect>) {
            effects.clear();
        }
    }

    fn written(names: [&str; 3], payload: Vec<u8>, numbers: (u64, u32, u32)) -> (Records, Bytes, Spilled, ActionKey) {
        let clock = Clock::start();
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
            accepted_at: at(1_000),
            deadline: clock.now() + Duration::from_secs(60),
            payload: payload.into(),
        };
        // A key into the slab that nobody looks at.
        let slot = engine::slab::Slab::default().insert(());
        let spill = Spill { lane: Lane(0), action, slot, record: record.clone() };
        let records = Records::new(1, clock);
        let bytes = records.write(&spill);
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
            prop_assert_eq!(records.read(bytes), Ok((key, record)));
        }

        #[test]
        fn other_bytes_do_no_harm(bytes: Vec<u8>) {
            let _ = Records::new(1, Clock::start()).read(bytes.into());
        }
    }

    #[test]
    fn a_record_that_is_cut_off_is_none_or_has_a_shorter_payload() {
        let (mut records, bytes, ..) = written(["tenant", "action", "1"], vec![5; 20], (1, 2, 3));
        for len in 0..bytes.len() {
            match records.read(bytes.slice(..len)) {
                Err(NoRecord) => assert!(len < bytes.len() - 20),
                Ok((_, record)) => assert_eq!(record.payload.len(), len + 20 - bytes.len()),
            }
        }
    }

    #[test]
    fn another_life_knows_id_action_payload_and_deadline_only() {
        let (_, bytes, record, key) = written(["tenant", "action", "1"], vec![5; 20], (1, 2, 3));
        let clock = Clock::start();
        let mut other = Records::new(2, clock);
        let (its_key, its) = other.read(bytes).unwrap();
        assert_eq!((its_key, its.id, &its.payload, its.attempt), (key, record.id, &record.payload, 3));
        assert_eq!((its.sequence, its.controller, its.reply), (None, NOBODY, Reply::Accepted));
        let left = clock.now().until(its.deadline);
        assert!((Duration::from_secs(50)..Duration::from_secs(61)).contains(&left), "{left:?} left");
    }
}
