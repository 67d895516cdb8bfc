//! The way of a consumed segment out.
//!
//! ```text
//!   all below the lane's mark, and none before it:   N.log ── removed
//!   consumed by its groups' marks, older ones are still needed:
//!       none given back before it:   N.log ── renamed to N-N.gap, synced, cut to its header
//!       some given back before it:   M-L.gap ── renamed to M-N.gap, synced; N.log ── removed
//! ```
//!
//! So one old record in front of a lane keeps its own segment and no other. What is left of those behind it says that nothing is
//! missing, and what the first of them said of the one before it. A crash anywhere leaves a gap, and with it perhaps segments
//! that it names already: opening the store removes those.

use super::files::{Access, File};
use super::lane::Shared;
use super::log::{Log, Seen, Segment};
use super::segment;
use super::walk::{Found, STEP_BYTES, Walk};
use super::{notes, record};
use std::io::{self, ErrorKind};
use std::path::Path;

/// Gives back all segments of a lane that are consumed and that nobody writes. One that cannot be given back stays, and is tried
/// again with the next mark. Whether any was.
pub(super) fn trim(shared: &Shared) -> bool {
    let any = remove_front(shared);
    let perhaps = shared.log.lock().perhaps_spent();
    let spent = perhaps.into_iter().filter(|number| is_spent(shared, *number));
    let taken_out = spent.map_while(|number| take_out(shared, number).then_some(())).count();
    any || taken_out > 0
}

/// Removes the oldest ones, as far as the lane's mark has passed them.
fn remove_front(shared: &Shared) -> bool {
    let mut log = shared.log.lock();
    let mut any = false;
    while let Some(spent) = log.spent() {
        let name = spent.gap().map_or_else(|| segment::name(spent.number), |gap| gap.name());
        let removed = remove(shared, &shared.dir.join(name)).and_then(|()| remove_notes(shared, &spent));
        if !succeeded(shared, "remove", &spent, &removed) {
            return any;
        }
        shared.space.give_back(spent.space());
        log.pop();
        any = true;
    }
    any
}

/// Whether all of a segment is consumed. Looks on from where it was found not to be the last time, and only if that record is
/// consumed by now: over the lane's life each header is looked at once.
pub(super) fn is_spent(shared: &Shared, number: u64) -> bool {
    let (consumed, segment) = {
        let mut log = shared.log.lock();
        let segment = log.find(number).copied();
        (log.consumed.clone(), segment)
    };
    let Some(segment) = segment.filter(|segment| segment.gap_from.is_none()) else { return false };
    if segment.next <= consumed.before {
        return true;
    }
    let Seen { at, group, damaged } = segment.seen;
    let waits = at.zip(group).is_some_and(|((_, position), group)| !consumed.covers(group, position));
    if damaged || waits || segment.next > consumed.furthest() {
        return false;
    }
    let path = shared.dir.join(segment::name(number));
    let looked = shared.files.open(&path, Access::Read).and_then(|file| {
        look(&*file, &segment, |header| consumed.covers(header.group, header.position), consumed.before)
    });
    let Ok(seen) = looked else { return false };
    let mut log = shared.log.lock();
    let Some(segment) = log.find(number) else { return false };
    segment.seen = seen;
    !seen.damaged && seen.group.is_none() && seen.at.is_some_and(|(_, position)| position >= segment.next)
}

/// How far all is consumed in a segment, looking on from where it was looked at last. Below `before` nothing matters.
fn look(
    file: &dyn File,
    segment: &Segment,
    is_consumed: impl Fn(&record::Header) -> bool,
    before: u64,
) -> io::Result<Seen> {
    let (offset, mut due) = segment.seen.at.unwrap_or((segment::HEADER_BYTES as u64, segment.first));
    let mut walk = Walk::new(file, segment.place, offset, segment.valid, STEP_BYTES);
    loop {
        let offset = walk.offset();
        let found = match walk.next(|_| false)? {
            Found::Record { header, .. } | Found::Header(header) | Found::Damaged(header) => Some(header),
            Found::End(_) => None,
        };
        let position = found.map_or(segment.next, |header| header.position);
        // What cannot be told may be of a group that is not so far.
        let damaged = position > due.max(before);
        let group = found.filter(|header| !is_consumed(header)).map(|header| header.group);
        if damaged || group.is_some() || found.is_none() {
            return Ok(Seen { at: Some((offset, position)), group, damaged });
        }
        due = due.max(position + 1);
    }
}

/// Gives back a segment that is consumed, though an older one is not. Whether it is gone.
fn take_out(shared: &Shared, number: u64) -> bool {
    let mut log = shared.log.lock();
    let Some((before, segment, behind)) = log.between(number) else { return false };
    let own = segment::name(number);
    if segment.first == segment.next {
        // It failed with its first append. Nothing was in it, so nothing is missing without it.
        let removed = remove(shared, &shared.dir.join(own)).and_then(|()| remove_notes(shared, &segment));
        let removed = succeeded(shared, "remove", &segment, &removed);
        if removed {
            shared.space.give_back(segment.space());
            log.forget(number);
        }
        return removed;
    }
    let (entry, old) = match before.and_then(|before| Some((before, before.gap()?))) {
        // Its bytes stay counted until they are gone.
        Some((before, gap)) => {
            (Segment { number, next: segment.next, bytes: before.bytes + segment.space(), ..before }, gap.name())
        }
        None => (Segment { gap_from: Some(number), bytes: segment.space(), notes: None, ..segment }, own.clone()),
    };
    if !succeeded(shared, "give back", &segment, &rename(shared, &old, &entry)) {
        return false;
    }
    log.replace(
        before.filter(|before| before.gap_from.is_some()).map_or(number, |before| before.number),
        number,
        entry,
    );
    // From here on the segment is gone, as far as anybody reads. Its file goes only once that is sure to last.
    let left = shared.files.sync_dir(&shared.dir).and_then(|()| match old == own {
        true => cut(shared, &entry, segment.bytes),
        false => remove(shared, &shared.dir.join(own)).map(|()| 0),
    });
    let left = left.and_then(|left| remove_notes(shared, &segment).map(|()| left));
    if succeeded(shared, "give back", &segment, &left) {
        let freed = segment.space() - left.unwrap_or(0);
        shared.space.give_back(freed);
        if let Some(entry) = log.find(number) {
            entry.bytes -= freed;
        }
    }
    if let Some(behind) = behind.filter(|behind| behind.gap_from.is_some()) {
        join(shared, &mut log, number, &behind);
    }
    true
}

/// Makes one gap of two that touch.
fn join(shared: &Shared, log: &mut Log, number: u64, behind: &Segment) {
    let (Some(entry), Some(rest)) = (log.find(number).copied(), behind.gap()) else { return };
    let Some(old) = entry.gap() else { return };
    let joined = Segment { number: behind.number, next: behind.next, bytes: entry.bytes + behind.bytes, ..entry };
    let renamed = rename(shared, &old.name(), &joined);
    if !succeeded(shared, "join the rest of", behind, &renamed) {
        return;
    }
    log.replace(number, behind.number, joined);
    let removed = remove(shared, &shared.dir.join(rest.name()));
    if succeeded(shared, "join the rest of", behind, &removed) {
        shared.space.give_back(behind.bytes);
        if let Some(entry) = log.find(behind.number) {
            entry.bytes -= behind.bytes;
        }
    }
}

/// Gives a file the name of a gap.
fn rename(shared: &Shared, old: &str, entry: &Segment) -> io::Result<()> {
    let Some(gap) = entry.gap() else { return Ok(()) };
    shared.files.rename(&shared.dir.join(old), &shared.dir.join(gap.name()))
}

/// Leaves of the first segment of a gap its header. How many bytes that is.
fn cut(shared: &Shared, entry: &Segment, bytes: u64) -> io::Result<u64> {
    let Some(gap) = entry.gap() else { return Ok(0) };
    let left = bytes.min(segment::HEADER_BYTES as u64);
    let file = shared.files.open(&shared.dir.join(gap.name()), Access::Write)?;
    file.set_len(left).map(|()| left)
}

fn remove(shared: &Shared, path: &Path) -> io::Result<()> {
    match shared.files.remove(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn remove_notes(shared: &Shared, segment: &Segment) -> io::Result<()> {
    segment.notes.map_or(Ok(()), |_| notes::remove(&*shared.files, &shared.dir, segment.number))
}

/// Says what went wrong, if anything did.
fn succeeded<T>(shared: &Shared, what: &str, segment: &Segment, result: &io::Result<T>) -> bool {
    if let Err(error) = result {
        let path = shared.dir.join(segment::name(segment.number));
        tracing::warn!(path = %path.display(), %error, "cannot {what} a consumed segment; it is tried again later");
    }
    result.is_ok()
}
