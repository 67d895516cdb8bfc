//! Encryption of what a store keeps: a layer over any of them.
//!
//! ```text
//!   a sealed body:    0  magic "\xE1sl", version 1
//!                     4  id of the key, u32, little-endian
//!                     8  nonce, 24 random bytes
//!                    32  ciphertext, as long as the body, then 16 bytes of authentication
//! ```
//!
//! XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha): its nonce is long enough to be drawn for each record without a thought to how
//! many there are. The first 8 bytes and the lane are authenticated along, so a record cannot be moved to another lane or be
//! said to be another key's. What is not hidden: how many records there are, how long, when, in which lane, and their groups and
//! notes. Those pass through unsealed, so a caller puts nothing into them but ids and numbers of its own.

mod keys;

pub use keys::{KeyError, Keys};

use crate::consumed::Counted;
use crate::{
    AppendError, Batch, ConsumeError, Entry, Group, Lost, Marks, Most, Note, Overflow, ReadError, Record, Span, Usage,
};
use bytes::Bytes;
use chacha20poly1305::aead::AeadInOut;
use chacha20poly1305::{Tag, XChaCha20Poly1305, XNonce};
use parking_lot::Mutex;

/// Seals every body on its way into a store, and opens it on its way out.
///
/// A record whose key is not at hand, or that is not sealed, stops its lane with a named error, and nothing is lost: with the
/// right key file it goes on. One that does not authenticate is damaged: told with its note, if the store below knows it.
#[derive(Debug)]
pub struct Sealed<S> {
    store: S,
    keys: Keys,
    damage: Mutex<Damage>,
}

/// A store without a key: a record that is sealed stops its lane with [`ReadError::NoKey`].
#[derive(Debug)]
pub struct Unsealed<S>(
    /// The store.
    pub S,
);

/// Bytes a sealed body is longer.
pub const OVERHEAD_BYTES: usize = HEADER_BYTES + TAG_BYTES;

const MAGIC: [u8; 4] = *b"\xE1sl\x01";
const NONCE_BYTES: usize = 24;
const CLEAR_BYTES: usize = 8;
const HEADER_BYTES: usize = CLEAR_BYTES + NONCE_BYTES;
const TAG_BYTES: usize = 16;

/// What did not authenticate, counted once however often it is read.
#[derive(Debug)]
struct Damage {
    records: u64,
    /// By lane.
    counted: Vec<Counted>,
}

/// Why a body could not be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    Plain,
    NoKey(u32),
    Damaged,
}

impl<S: Overflow> Sealed<S> {
    /// Seals what goes into `store` with the last of the keys.
    pub fn new(store: S, keys: Keys) -> Self {
        let counted = (0..store.lanes()).map(|_| Counted::default()).collect();
        Self { store, keys, damage: Mutex::new(Damage { records: 0, counted }) }
    }

    fn open(&self, lane: u16, body: &[u8]) -> Result<Bytes, Refusal> {
        let key = key_of(body).ok_or(Refusal::Plain)?;
        let cipher = self.keys.get(key).ok_or(Refusal::NoKey(key))?;
        open(cipher, lane, body).ok_or(Refusal::Damaged)
    }

    /// Opens a batch, up to a record that stops the lane. The next read begins at that one.
    fn open_all(&self, lane: u16, batch: Batch) -> Result<Batch, ReadError> {
        let mut opened = Batch { records: Vec::with_capacity(batch.records.len()), ..batch };
        for record in batch.records {
            let position = record.position;
            match self.open(lane, &record.body) {
                Ok(body) => opened.records.push(Record { body, ..record }),
                Err(Refusal::Damaged) => self.lost(lane, &record, &mut opened),
                Err(Refusal::NoKey(key)) => return cut(opened, position, ReadError::NoKey { position, key }),
                Err(Refusal::Plain) => return cut(opened, position, ReadError::NotSealed { position }),
            }
        }
        opened.lost.sort_unstable_by_key(|lost| lost.position);
        Ok(opened)
    }

    /// Passes over a record that does not authenticate.
    fn lost(&self, lane: u16, record: &Record, batch: &mut Batch) {
        let Record { position, group, .. } = *record;
        batch.damaged += self.damage.lock().count(lane, position);
        batch.lost.extend(self.store.note(lane, position).map(|note| Lost { position, group, note }));
    }
}

/// What lies before the record at `end`, at which a lane stops; the error if that is nothing.
fn cut(mut batch: Batch, end: u64, error: ReadError) -> Result<Batch, ReadError> {
    batch.records.retain(|record| record.position < end);
    batch.lost.retain(|lost| lost.position < end);
    batch.lost.sort_unstable_by_key(|lost| lost.position);
    batch.next = end;
    if batch.records.is_empty() && batch.lost.is_empty() && batch.damaged == 0 { Err(error) } else { Ok(batch) }
}

impl<S: Overflow> Overflow for Sealed<S> {
    fn lanes(&self) -> u16 {
        self.store.lanes()
    }

    fn ready(&self) -> bool {
        self.store.ready()
    }

    fn append(&self, entries: &[Entry]) -> Vec<Result<u64, AppendError>> {
        match seal_all(&self.keys, entries) {
            Ok(sealed) => {
                self.store.append(&sealed).into_iter().map(|result| result.map_err(without_overhead)).collect()
            }
            Err(error) => vec![Err(AppendError::Unavailable(format!("no random numbers: {error}"))); entries.len()],
        }
    }

    fn read(&self, lane: u16, from: u64, only: Option<Group>, most: Most) -> Result<Batch, ReadError> {
        self.open_all(lane, self.store.read(lane, from, only, most)?)
    }

    fn consume(&self, lane: u16, marks: &Marks<'_>, handed: u64) -> Result<(), ConsumeError> {
        self.store.consume(lane, marks, handed)?;
        self.damage.lock().forget_below(lane, marks.before);
        Ok(())
    }

    fn group_marks_max(&self) -> usize {
        self.store.group_marks_max()
    }

    fn group_marks(&self, lane: u16) -> Vec<(Group, u64)> {
        self.store.group_marks(lane)
    }

    fn note(&self, lane: u16, position: u64) -> Option<Note> {
        self.store.note(lane, position)
    }

    fn span(&self, lane: u16) -> Span {
        self.store.span(lane)
    }

    fn usage(&self) -> Usage {
        let usage = self.store.usage();
        Usage { damaged: usage.damaged + self.damage.lock().records, ..usage }
    }

    fn close(&self) {
        self.store.close();
    }
}

impl<S: Overflow> Overflow for Unsealed<S> {
    fn lanes(&self) -> u16 {
        self.0.lanes()
    }

    fn ready(&self) -> bool {
        self.0.ready()
    }

    fn append(&self, entries: &[Entry]) -> Vec<Result<u64, AppendError>> {
        self.0.append(entries)
    }

    fn read(&self, lane: u16, from: u64, only: Option<Group>, most: Most) -> Result<Batch, ReadError> {
        let batch = self.0.read(lane, from, only, most)?;
        let sealed = batch.records.iter().find_map(|record| Some((record.position, key_of(&record.body)?)));
        match sealed {
            None => Ok(batch),
            Some((position, key)) => cut(batch, position, ReadError::NoKey { position, key }),
        }
    }

    fn consume(&self, lane: u16, marks: &Marks<'_>, handed: u64) -> Result<(), ConsumeError> {
        self.0.consume(lane, marks, handed)
    }

    fn group_marks_max(&self) -> usize {
        self.0.group_marks_max()
    }

    fn group_marks(&self, lane: u16) -> Vec<(Group, u64)> {
        self.0.group_marks(lane)
    }

    fn note(&self, lane: u16, position: u64) -> Option<Note> {
        self.0.note(lane, position)
    }

    fn span(&self, lane: u16) -> Span {
        self.0.span(lane)
    }

    fn usage(&self) -> Usage {
        self.0.usage()
    }

    fn close(&self) {
        self.0.close();
    }
}

impl Damage {
    /// 1 if it had not been counted before, else 0.
    fn count(&mut self, lane: u16, position: u64) -> u64 {
        let fresh = self.counted.get_mut(usize::from(lane)).map_or(0, |counted| counted.count(position, position + 1));
        if fresh > 0 {
            self.records += fresh;
            tracing::warn!(
                lane,
                position,
                "a record does not authenticate: tampered with, or another key of that id; passed over"
            );
        }
        fresh
    }

    fn forget_below(&mut self, lane: u16, position: u64) {
        if let Some(counted) = self.counted.get_mut(usize::from(lane)) {
            counted.forget_below(position);
        }
    }
}

/// The key a body is sealed with, if it is sealed.
fn key_of(body: &[u8]) -> Option<u32> {
    let id = body.strip_prefix(&MAGIC)?.first_chunk()?;
    Some(u32::from_le_bytes(*id))
}

fn seal_all(keys: &Keys, entries: &[Entry]) -> Result<Vec<Entry>, getrandom::Error> {
    let mut nonces = vec![0; NONCE_BYTES * entries.len()];
    getrandom::fill(&mut nonces)?;
    let (nonces, _) = nonces.as_chunks::<NONCE_BYTES>();
    Ok(entries.iter().zip(nonces).map(|(entry, nonce)| seal(keys, nonce, entry)).collect())
}

fn seal(keys: &Keys, nonce: &[u8; NONCE_BYTES], entry: &Entry) -> Entry {
    let (id, cipher) = keys.sealing();
    let mut sealed = Vec::with_capacity(entry.body.len() + OVERHEAD_BYTES);
    sealed.extend_from_slice(&MAGIC);
    sealed.extend_from_slice(&id.to_le_bytes());
    sealed.extend_from_slice(nonce);
    sealed.extend_from_slice(&entry.body);
    let (header, text) = sealed.split_at_mut(HEADER_BYTES);
    let tag = cipher.encrypt_inout_detached(&XNonce::from(*nonce), &along(header, entry.lane), text.into());
    sealed.extend_from_slice(&tag.expect("the cipher takes 256 GiB, a body has no more than 64 MiB"));
    Entry { body: sealed.into(), ..*entry }
}

fn open(cipher: &XChaCha20Poly1305, lane: u16, body: &[u8]) -> Option<Bytes> {
    let (header, rest) = body.split_at_checked(HEADER_BYTES)?;
    let (text, tag) = rest.split_last_chunk::<TAG_BYTES>()?;
    let nonce: [u8; NONCE_BYTES] = *header.last_chunk()?;
    let mut text = text.to_vec();
    let opened = cipher.decrypt_inout_detached(
        &XNonce::from(nonce),
        &along(header, lane),
        text.as_mut_slice().into(),
        &Tag::from(*tag),
    );
    opened.ok().map(|()| text.into())
}

/// What is authenticated along with a body: what it says of itself, and its lane.
fn along(header: &[u8], lane: u16) -> [u8; CLEAR_BYTES + 2] {
    let mut along = [0; CLEAR_BYTES + 2];
    along[..CLEAR_BYTES].copy_from_slice(&header[..CLEAR_BYTES]);
    along[CLEAR_BYTES..].copy_from_slice(&lane.to_le_bytes());
    along
}

/// A limit in terms of the caller's bodies.
fn without_overhead(error: AppendError) -> AppendError {
    match error {
        AppendError::TooLarge { bytes, limit } => {
            AppendError::TooLarge { bytes: bytes - OVERHEAD_BYTES, limit: limit.saturating_sub(OVERHEAD_BYTES) }
        }
        other => other,
    }
}
