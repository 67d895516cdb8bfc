//! Opening a store: the lock, who it is, its marks, its lanes; or making one.

use super::files::{Files, Lock};
use super::identity::{self, Identity};
use super::lane::{Lane, Shared};
use super::marks::{self, Mark, MarksFile};
use super::recover::{Finder, Recovered};
use super::segment::{self, Gap};
use super::space::Space;
use super::writer::Writer;
use super::{Config, Disk, OpenError};
use parking_lot::Mutex;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

const LOCK: &str = "lock";

/// See [`Disk::open_on`].
pub(super) fn open(files: Arc<dyn Files>, config: &Config) -> Result<Disk, OpenError> {
    config.check()?;
    let dir = &config.dir;
    files.make_dir(dir).map_err(OpenError::io("make", dir))?;
    let lock = lock(&*files, dir)?;
    let identity = match Identity::read(&*files, dir)? {
        Some(identity) => identity,
        None => make(&*files, config)?,
    };
    if identity.lanes != config.lanes {
        return Err(OpenError::Lanes { dir: dir.clone(), stored: identity.lanes, asked: config.lanes });
    }
    let (marks, found) = MarksFile::open(Arc::clone(&files), dir, identity.store, identity.lanes)?;
    Opening { files, config, store: identity.store }.finish(lock, marks, &found)
}

/// A store whose marks are read and whose lanes are not.
#[derive(Debug)]
struct Opening<'a> {
    files: Arc<dyn Files>,
    config: &'a Config,
    store: [u8; 16],
}

impl Opening<'_> {
    fn finish(self, lock: Box<dyn Lock>, marks: MarksFile, found: &[Option<Mark>]) -> Result<Disk, OpenError> {
        let recovered =
            (0..).zip(found).map(|(lane, mark)| self.recover(lane, mark.as_ref())).collect::<Result<Vec<_>, _>>()?;
        self.set_lost_marks(&marks, &recovered)?;
        let bytes: u64 = recovered.iter().map(|lane| lane.bytes).sum();
        let damaged = recovered.iter().map(|lane| lane.damaged).sum();
        let space = Arc::new(Space::new(bytes + MarksFile::bytes(self.config.lanes), self.config.store_bytes_max));
        let damaged = Arc::new(AtomicU64::new(damaged));
        let notes_failed = Arc::default();
        let lane = |(number, lane)| self.lane(number, lane, &space, &damaged, &notes_failed);
        let lanes: Vec<Lane> = (0..).zip(recovered).map(lane).collect();
        lanes.iter().for_each(Lane::trim);
        Ok(Disk {
            lanes,
            marks,
            record_bytes_max: self.config.record_bytes_max,
            space,
            damaged,
            lost_in_crash_max: found.iter().flatten().map(|mark| mark.handed).max().unwrap_or(0),
            closed: AtomicBool::new(false),
            lock: Mutex::new(Some(lock)),
        })
    }

    fn recover(&self, lane: u16, mark: Option<&Mark>) -> Result<Recovered, OpenError> {
        let dir = lane_dir(&self.config.dir, lane);
        self.files.make_dir(&dir).map_err(OpenError::io("make", &dir))?;
        let finder = Finder { files: &*self.files, dir: &dir, store: &self.store, lane };
        match mark {
            Some(mark) => finder.recover(mark),
            None => finder.set_aside(),
        }
    }

    /// Before anything else is done with the lanes whose marks are lost.
    fn set_lost_marks(&self, marks: &MarksFile, recovered: &[Recovered]) -> Result<(), OpenError> {
        let lost = (0..).zip(recovered).filter(|(_, lane)| lane.mark_lost);
        let lost: Vec<(u16, u64, u64)> =
            lost.map(|(lane, found)| (lane, found.log.consumed.before, found.log.next)).collect();
        if lost.is_empty() {
            return Ok(());
        }
        marks.restore(&lost).map_err(OpenError::io("set lost marks in", &self.config.dir.join(marks::NAME)))
    }

    fn lane(
        &self,
        number: u16,
        found: Recovered,
        space: &Arc<Space>,
        damaged: &Arc<AtomicU64>,
        notes_failed: &Arc<AtomicBool>,
    ) -> Lane {
        let shared = Arc::new(Shared {
            number,
            store: self.store,
            dir: lane_dir(&self.config.dir, number),
            files: Arc::clone(&self.files),
            space: Arc::clone(space),
            damaged: Arc::clone(damaged),
            notes_failed: Arc::clone(notes_failed),
            log: Mutex::new(found.log),
        });
        Lane::new(Arc::clone(&shared), Writer::new(shared, self.config.segment_bytes, found.start))
    }
}

fn lock(files: &dyn Files, dir: &Path) -> Result<Box<dyn Lock>, OpenError> {
    let path = dir.join(LOCK);
    let locked = files.lock(&path).map_err(OpenError::io("lock", &path))?;
    locked.ok_or_else(|| OpenError::Locked { dir: dir.to_owned() })
}

/// Makes a store where there is none. Its identity is written last: until then a crash leaves what is made anew.
fn make(files: &dyn Files, config: &Config) -> Result<Identity, OpenError> {
    let dir = &config.dir;
    nothing_there(files, dir)?;
    let mut store = [0; 16];
    getrandom::fill(&mut store).map_err(|error| OpenError::Io {
        what: "draw a name for",
        path: dir.clone(),
        source: error.into(),
    })?;
    for lane in 0..config.lanes {
        let lane = lane_dir(dir, lane);
        files.make_dir(&lane).map_err(OpenError::io("make", &lane))?;
    }
    MarksFile::create(files, dir, store, config.lanes)?;
    files.sync_dir(dir).map_err(OpenError::io("sync", dir))?;
    let above = dir.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
    files.sync_dir(above).map_err(OpenError::io("sync", above))?;
    let identity = Identity { store, lanes: config.lanes };
    identity.write(files, dir)?;
    Ok(identity)
}

/// Whether a directory is empty, but for what a store leaves that was not made to the end: that is removed.
fn nothing_there(files: &dyn Files, dir: &Path) -> Result<(), OpenError> {
    for name in files.list(dir).map_err(OpenError::io("list", dir))? {
        let path = dir.join(&name);
        match name.as_str() {
            LOCK | "lost+found" => {}
            marks::NAME | marks::NAME_NEW | identity::NAME_NEW => {}
            name if identity::NAMES.contains(&name) => return Err(OpenError::NoIdentity { dir: dir.to_owned() }),
            name if name.starts_with(LANE) => no_segments(files, dir, &path)?,
            _ => return Err(OpenError::Foreign { dir: dir.to_owned(), name }),
        }
    }
    for name in [marks::NAME, marks::NAME_NEW] {
        let path = dir.join(name);
        match files.remove(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(OpenError::io("remove", &path)(error));
            }
            _ => {}
        }
    }
    Ok(())
}

fn no_segments(files: &dyn Files, dir: &Path, lane: &Path) -> Result<(), OpenError> {
    let names = files.list(lane).map_err(OpenError::io("list", lane))?;
    let any = names
        .iter()
        .any(|name| segment::number(name).or(segment::number_aside(name)).is_some() || Gap::parse(name).is_some());
    if any { Err(OpenError::NoIdentity { dir: dir.to_owned() }) } else { Ok(()) }
}

const LANE: &str = "lane-";

fn lane_dir(dir: &Path, lane: u16) -> PathBuf {
    dir.join(format!("{LANE}{lane:05}"))
}
