//! A file system in memory that keeps only what was synced: what a power failure, or a sync that failed, leaves of the rest is
//! drawn, sector by sector. Names are kept by the sync of their directory alone.

use overflow::contract::Draw;
use overflow::disk::files::{Access, File, Files, Lock};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The file system. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Forgetful(Arc<Mutex<Device>>);

#[derive(Debug)]
struct Device {
    inodes: Vec<Inode>,
    dirs: BTreeSet<PathBuf>,
    names: BTreeMap<PathBuf, usize>,
    /// As they were synced.
    kept_names: BTreeMap<PathBuf, usize>,
    /// Since they were synced, in their order.
    renamings: Vec<Renaming>,
    draw: Draw,
    /// Changes left until the power fails; none: it does not.
    cut: Option<u64>,
    /// Of so many syncs one fails; 0: none.
    sync_fails: u64,
}

#[derive(Debug, Default)]
struct Inode {
    seen: Vec<u8>,
    kept: Vec<u8>,
    changes: Vec<Change>,
}

#[derive(Debug, Clone)]
enum Change {
    Write(usize, Vec<u8>),
    SetLen(usize),
}

/// A name gets another file, or none.
#[derive(Debug, Clone)]
struct Renaming(PathBuf, Option<usize>);

const SECTOR: usize = 512;

impl Forgetful {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(Device {
            inodes: Vec::new(),
            dirs: BTreeSet::new(),
            names: BTreeMap::new(),
            kept_names: BTreeMap::new(),
            renamings: Vec::new(),
            draw: Draw(seed),
            cut: None,
            sync_fails: 0,
        })))
    }

    /// The power fails after so many changes: nothing works from then on.
    pub(crate) fn cut_after(&self, changes: u64) {
        self.0.lock().cut = Some(changes);
    }

    /// One of so many syncs fails.
    pub(crate) fn fail_syncs(&self, one_of: u64) {
        self.0.lock().sync_fails = one_of;
    }

    /// The power is back: what was not synced is there in part.
    pub(crate) fn restart(&self) {
        let device = &mut *self.0.lock();
        device.cut = None;
        device.sync_fails = 0;
        let Device { inodes, renamings, kept_names, draw, .. } = device;
        inodes.iter_mut().for_each(|inode| {
            inode.keep_some(draw);
            inode.seen.clone_from(&inode.kept);
        });
        let kept = usize::try_from(draw.below(renamings.len() as u64 + 1)).unwrap();
        renamings.drain(..).take(kept).for_each(|Renaming(path, inode)| set(kept_names, path, inode));
        device.names.clone_from(&device.kept_names);
    }
}

impl Device {
    /// A change, unless the power has failed.
    fn change(&mut self) -> io::Result<()> {
        match &mut self.cut {
            Some(0) => Err(io::Error::from_raw_os_error(5)),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn rename(&mut self, path: &Path, inode: Option<usize>) {
        set(&mut self.names, path.to_owned(), inode);
        self.renamings.push(Renaming(path.to_owned(), inode));
    }

    fn find(&self, path: &Path) -> io::Result<usize> {
        self.names.get(path).copied().ok_or_else(|| ErrorKind::NotFound.into())
    }

    fn sync_failed(&mut self) -> bool {
        self.sync_fails > 0 && self.draw.below(self.sync_fails) == 0
    }
}

impl Inode {
    fn change(&mut self, change: Change) {
        change.apply(&mut self.seen);
        self.changes.push(change);
    }

    /// Some sectors of what was written reach the device, and the rest never will.
    fn keep_some(&mut self, draw: &mut Draw) {
        let all = draw.below(4) == 0;
        for change in self.changes.drain(..) {
            for part in change.parts() {
                if all || draw.below(2) == 0 {
                    part.apply(&mut self.kept);
                }
            }
        }
    }
}

impl Change {
    /// What reaches the device or does not: a write by its sectors.
    fn parts(self) -> Vec<Self> {
        let Self::Write(offset, bytes) = self else { return vec![self] };
        let (first, rest) = bytes.split_at(bytes.len().min(SECTOR - offset % SECTOR));
        let rest = (offset + first.len()..).step_by(SECTOR).zip(rest.chunks(SECTOR));
        std::iter::once((offset, first)).chain(rest).map(|(at, part)| Self::Write(at, part.to_vec())).collect()
    }

    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::SetLen(length) => bytes.resize(*length, 0),
            Self::Write(offset, written) => {
                let end = offset + written.len();
                bytes.resize(bytes.len().max(end), 0);
                bytes[*offset..end].copy_from_slice(written);
            }
        }
    }
}

fn set(names: &mut BTreeMap<PathBuf, usize>, path: PathBuf, inode: Option<usize>) {
    match inode {
        Some(inode) => _ = names.insert(path, inode),
        None => _ = names.remove(&path),
    }
}

impl Files for Forgetful {
    fn make_dir(&self, path: &Path) -> io::Result<()> {
        // Directories are kept at once: the store syncs those it makes before it says that it exists.
        self.0.lock().dirs.insert(path.to_owned());
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let device = self.0.lock();
        let paths = device.names.keys().chain(&device.dirs).filter(|path| path.parent() == Some(dir));
        Ok(paths.map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect())
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn File>> {
        let mut device = self.0.lock();
        device.change()?;
        if device.names.contains_key(path) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        let inode = device.inodes.len();
        device.inodes.push(Inode::default());
        device.rename(path, Some(inode));
        Ok(Box::new(Handle { device: Arc::clone(&self.0), inode }))
    }

    fn open(&self, path: &Path, _: Access) -> io::Result<Box<dyn File>> {
        let inode = self.0.lock().find(path)?;
        Ok(Box::new(Handle { device: Arc::clone(&self.0), inode }))
    }

    fn lock(&self, _: &Path) -> io::Result<Option<Box<dyn Lock>>> {
        Ok(Some(Box::new(Unlocked)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut device = self.0.lock();
        device.change()?;
        let inode = device.find(from)?;
        // In this order a failure in between shows the file under both names, and never under none.
        device.rename(to, Some(inode));
        device.rename(from, None);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut device = self.0.lock();
        device.change()?;
        device.find(path)?;
        device.rename(path, None);
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut device = self.0.lock();
        device.change()?;
        if device.sync_failed() {
            return Err(io::Error::from_raw_os_error(5));
        }
        let Device { renamings, kept_names, .. } = &mut *device;
        renamings.retain(|Renaming(path, inode)| {
            let other = path.parent() != Some(dir);
            if !other {
                set(kept_names, path.clone(), *inode);
            }
            other
        });
        Ok(())
    }
}

#[derive(Debug)]
struct Unlocked;

impl Lock for Unlocked {}

#[derive(Debug)]
struct Handle {
    device: Arc<Mutex<Device>>,
    inode: usize,
}

impl Handle {
    fn change(&self, change: Change) -> io::Result<()> {
        let mut device = self.device.lock();
        device.change()?;
        device.inodes[self.inode].change(change);
        Ok(())
    }
}

impl File for Handle {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let device = self.device.lock();
        let seen = &device.inodes[self.inode].seen;
        let from = usize::try_from(offset).unwrap().min(seen.len());
        let read = buffer.len().min(seen.len() - from);
        buffer[..read].copy_from_slice(&seen[from..from + read]);
        Ok(read)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.change(Change::Write(usize::try_from(offset).unwrap(), bytes.to_vec()))
    }

    fn sync(&self) -> io::Result<()> {
        let device = &mut *self.device.lock();
        device.change()?;
        let failed = device.sync_failed();
        let inode = &mut device.inodes[self.inode];
        if failed {
            // What did not get there is forgotten: the next sync knows nothing of it.
            inode.keep_some(&mut device.draw);
            return Err(io::Error::from_raw_os_error(5));
        }
        // Only what an earlier sync has not given up.
        inode.changes.drain(..).for_each(|change| change.apply(&mut inode.kept));
        Ok(())
    }

    fn sync_new(&self) -> io::Result<()> {
        self.sync()
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.change(Change::SetLen(usize::try_from(bytes).unwrap()))
    }

    fn bytes(&self) -> io::Result<u64> {
        Ok(self.device.lock().inodes[self.inode].seen.len() as u64)
    }

    fn is_linked(&self) -> io::Result<bool> {
        Ok(self.device.lock().names.values().any(|inode| *inode == self.inode))
    }
}
