//! A file system that fails on demand, for tests: a judge is asked before each operation and told after it.

use crate::disk::files::{Access, File, Files, Lock};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Passes everything on to another file system, unless its judge says otherwise.
#[derive(Clone)]
pub struct Faulty {
    inner: Arc<dyn Files>,
    judge: Arc<Judge>,
}

type Judge = dyn Fn(&Call<'_>) -> Verdict + Send + Sync;

/// An operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call<'a> {
    /// Which.
    pub op: Op,
    /// On which file or directory.
    pub path: &'a Path,
    /// For reads, writes and cuts: where.
    pub offset: u64,
    /// For reads and writes: how much.
    pub bytes: usize,
    /// It has been carried out, as far as it will be; what the judge says now is not heard.
    pub done: bool,
}

/// The operations of [`Files`] and [`File`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Op {
    MakeDir,
    List,
    Create,
    Open,
    Lock,
    Rename,
    Remove,
    SyncDir,
    Read,
    Write,
    Sync,
    SyncNew,
    SetLen,
    Look,
}

/// What becomes of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is carried out.
    Go,
    /// It is not carried out, and fails with this error number.
    Fail(i32),
    /// So many bytes of a write are carried out, then it fails with this error number.
    Part(usize, i32),
}

/// The device is full.
pub const ENOSPC: i32 = 28;
/// A quota is used up.
pub const EDQUOT: i32 = 122;
/// The file would be longer than this process may make it.
pub const EFBIG: i32 = 27;
/// The device has failed.
pub const EIO: i32 = 5;
/// The file system is read-only.
pub const EROFS: i32 = 30;
/// Permission denied.
pub const EACCES: i32 = 13;

impl Faulty {
    /// The judge decides on each operation.
    pub fn new(inner: Arc<dyn Files>, judge: impl Fn(&Call<'_>) -> Verdict + Send + Sync + 'static) -> Self {
        Self { inner, judge: Arc::new(judge) }
    }

    fn call<T>(&self, op: Op, path: &Path, carry_out: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        call(&*self.judge, Call { op, path, offset: 0, bytes: 0, done: false }, carry_out, |_| {})
    }

    fn wrap(&self, path: &Path, file: Box<dyn File>) -> Box<dyn File> {
        Box::new(FaultyFile { inner: file, path: path.to_owned(), judge: Arc::clone(&self.judge) })
    }
}

impl fmt::Debug for Faulty {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Faulty").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl Files for Faulty {
    fn make_dir(&self, path: &Path) -> io::Result<()> {
        self.call(Op::MakeDir, path, || self.inner.make_dir(path))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.call(Op::List, dir, || self.inner.list(dir))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn File>> {
        self.call(Op::Create, path, || Ok(self.wrap(path, self.inner.create(path)?)))
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Box<dyn File>> {
        self.call(Op::Open, path, || Ok(self.wrap(path, self.inner.open(path, access)?)))
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Lock>>> {
        self.call(Op::Lock, path, || self.inner.lock(path))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.call(Op::Rename, from, || self.inner.rename(from, to))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.call(Op::Remove, path, || self.inner.remove(path))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.call(Op::SyncDir, dir, || self.inner.sync_dir(dir))
    }
}

struct FaultyFile {
    inner: Box<dyn File>,
    path: PathBuf,
    judge: Arc<Judge>,
}

impl FaultyFile {
    fn call<T>(&self, op: Op, carry_out: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        self.call_at(op, 0, 0, carry_out, |_| {})
    }

    fn call_at<T>(
        &self,
        op: Op,
        offset: u64,
        bytes: usize,
        carry_out: impl FnOnce() -> io::Result<T>,
        in_part: impl FnOnce(usize),
    ) -> io::Result<T> {
        call(&*self.judge, Call { op, path: &self.path, offset, bytes, done: false }, carry_out, in_part)
    }
}

impl fmt::Debug for FaultyFile {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("FaultyFile").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl File for FaultyFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let bytes = buffer.len();
        self.call_at(Op::Read, offset, bytes, || self.inner.read_at(buffer, offset), |_| {})
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let in_part = |part: usize| {
            let part = self.inner.write_at(&bytes[..part.min(bytes.len())], offset);
            part.expect("the file system below works");
        };
        self.call_at(Op::Write, offset, bytes.len(), || self.inner.write_at(bytes, offset), in_part)
    }

    fn sync(&self) -> io::Result<()> {
        self.call(Op::Sync, || self.inner.sync())
    }

    fn sync_new(&self) -> io::Result<()> {
        self.call(Op::SyncNew, || self.inner.sync_new())
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.call_at(Op::SetLen, bytes, 0, || self.inner.set_len(bytes), |_| {})
    }

    fn bytes(&self) -> io::Result<u64> {
        self.call(Op::Look, || self.inner.bytes())
    }

    fn is_linked(&self) -> io::Result<bool> {
        self.call(Op::Look, || self.inner.is_linked())
    }
}

fn call<T>(
    judge: &Judge,
    call: Call<'_>,
    carry_out: impl FnOnce() -> io::Result<T>,
    in_part: impl FnOnce(usize),
) -> io::Result<T> {
    let result = match judge(&call) {
        Verdict::Go => carry_out(),
        Verdict::Fail(errno) => Err(io::Error::from_raw_os_error(errno)),
        Verdict::Part(bytes, errno) => {
            in_part(bytes);
            Err(io::Error::from_raw_os_error(errno))
        }
    };
    judge(&Call { done: true, ..call });
    result
}
