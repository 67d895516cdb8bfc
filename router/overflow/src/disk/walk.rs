//! From record to record through a segment file, over whatever is damaged.
//!
//! It knows bytes only: which positions are lost to damage is the reader's to count, by the gaps.

use super::files::File;
use super::record::{self, HEADER_BYTES, Header, Place};
use std::io;

/// A way through one segment, from an offset to its end.
#[derive(Debug)]
pub(super) struct Walk<'a> {
    file: &'a dyn File,
    place: Place,
    offset: u64,
    end: u64,
    window: Vec<u8>,
    window_at: u64,
    step: usize,
}

/// What lies next on the way.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found<'w> {
    /// A whole record.
    Record { header: Header, body: &'w [u8] },
    /// A record whose body was not asked for.
    Header(Header),
    /// A record whose body is damaged.
    Damaged(Header),
    /// Nothing more that can be read.
    End(Tail),
}

/// What lies between the last record and the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tail {
    /// Nothing.
    Clean,
    /// A record that is cut off, as a crash leaves it: of this position, if its header is there.
    Torn(Option<u64>),
    /// So many bytes that cannot be read.
    Broken(u64),
}

/// Bytes read at a time. A walk holds so much, or the longest record it meets.
pub(super) const STEP_BYTES: usize = 256 << 10;

impl<'a> Walk<'a> {
    /// From the record at `offset`; reads nothing at `end` and behind. `step` is how many bytes to read at a time.
    pub(super) fn new(file: &'a dyn File, place: Place, offset: u64, end: u64, step: usize) -> Self {
        let step = step.clamp(HEADER_BYTES, STEP_BYTES);
        Self { file, place, offset, end, window: Vec::new(), window_at: offset, step }
    }

    /// Where the next record begins, as far as is known.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// The next record; its body only if `wanted` says so.
    pub(super) fn next(&mut self, wanted: impl FnOnce(&Header) -> bool) -> io::Result<Found<'_>> {
        let start = self.offset;
        let Some(header) = self.header()? else { return Ok(Found::End(tail(self.end.saturating_sub(start)))) };
        if header.bytes() > self.end.saturating_sub(self.offset) {
            // Cut off, unless its header is a lie no checksum tells: nothing behind it can be found then either way.
            return Ok(Found::End(Tail::Torn(Some(header.position))));
        }
        let body_at = self.offset + HEADER_BYTES as u64;
        self.offset += header.bytes();
        if !wanted(&header) {
            return Ok(Found::Header(header));
        }
        let body = self.bytes(body_at, header.length)?;
        Ok(if header.fits(body) { Found::Record { header, body } } else { Found::Damaged(header) })
    }

    /// Goes to the next header that is one, over what is not, and says what it says. Stays if there is none.
    fn header(&mut self) -> io::Result<Option<Header>> {
        let mut at = self.offset;
        while self.end.saturating_sub(at) >= HEADER_BYTES as u64 {
            let place = self.place;
            if let Some(header) = place.decode(at, self.bytes(at, HEADER_BYTES)?) {
                self.offset = at;
                return Ok(Some(header));
            }
            at = self.magic_behind(at)?;
        }
        Ok(None)
    }

    /// Where a header could begin behind `at`: at a magic, or as far as was looked.
    fn magic_behind(&mut self, at: u64) -> io::Result<u64> {
        let end = self.end;
        let left = usize::try_from(end.saturating_sub(at)).unwrap_or(usize::MAX).min(STEP_BYTES);
        let window = self.bytes(at, left)?;
        // One cut in two by the window's end is found in the next.
        let looked = window.len().saturating_sub(3).max(1);
        let behind = record::next_magic(window, 1).unwrap_or(looked);
        Ok((at + behind as u64).min(end))
    }

    /// `length` bytes at `at`, fewer if the file ends before.
    fn bytes(&mut self, at: u64, length: usize) -> io::Result<&[u8]> {
        if !self.holds(at, length) {
            let left = usize::try_from(self.end.saturating_sub(at)).unwrap_or(usize::MAX);
            self.window.resize(length.max(self.step).min(left), 0);
            self.window_at = at;
            let read = self.file.read_at(&mut self.window, at)?;
            if read < self.window.len() {
                // Shorter than it was: what is missing is found missing by its positions.
                self.end = at + read as u64;
                self.window.truncate(read);
            }
        }
        let start = usize::try_from(at - self.window_at).expect("within the window");
        Ok(&self.window[start..(start + length).min(self.window.len())])
    }

    fn holds(&self, at: u64, length: usize) -> bool {
        at >= self.window_at && at + length as u64 <= self.window_at + self.window.len() as u64
    }
}

/// What so many bytes are, in which there is no header.
fn tail(bytes: u64) -> Tail {
    match bytes {
        0 => Tail::Clean,
        // A crash cuts a header off anywhere. All of one that says nothing is damaged.
        _ if bytes < HEADER_BYTES as u64 => Tail::Torn(None),
        _ => Tail::Broken(bytes),
    }
}
