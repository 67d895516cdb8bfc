//! What goes wrong with the store and its files, in words: whose file, doing what.

use crate::{AppendError, ConsumeError, ReadError};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// Why a store was not opened. Nothing was changed in its directory then, unless it was to be a new one.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A limit is out of range.
    #[error("{0}")]
    Config(String),
    /// Another process, or this one, has it open.
    #[error("{} is in use: another process has locked it", dir.display())]
    Locked {
        /// The store's directory.
        dir: PathBuf,
    },
    /// There is something else in the directory.
    #[error("{} is no store and not empty: {name} is in it", dir.display())]
    Foreign {
        /// The directory.
        dir: PathBuf,
        /// One name that does not belong there.
        name: String,
    },
    /// There are segments or marks but nothing that says whose.
    #[error("{}: the files `store` and `store.copy` are missing or damaged, though there are segments", dir.display())]
    NoIdentity {
        /// The directory.
        dir: PathBuf,
    },
    /// The consume marks are another store's.
    #[error("{} belongs to another store", path.display())]
    OtherStore {
        /// The file.
        path: PathBuf,
    },
    /// Written in another format, by another version of this program. Drain the store with that one, or use another directory.
    #[error("{}: format {version}, this program knows {known} only", path.display())]
    OtherFormat {
        /// The file.
        path: PathBuf,
        /// Its format.
        version: u32,
        /// The one known.
        known: u32,
    },
    /// The number of lanes is fixed when a store is made.
    #[error("{} has {stored} lanes, {asked} are configured: drain it first, or configure {stored}", dir.display())]
    Lanes {
        /// The directory.
        dir: PathBuf,
        /// What it has.
        stored: u16,
        /// What is configured.
        asked: u16,
    },
    /// A file could not be read or written.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
}

impl OpenError {
    /// For `map_err`: `what` was tried with `path`.
    pub(super) fn io<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Self + 'a {
        move |source| Self::Io { what, path: path.to_owned(), source }
    }
}

/// An append that has certainly left nothing behind.
pub(super) fn refused(what: &str, path: &Path, error: &io::Error) -> AppendError {
    let words = words(what, path, error);
    if is_full(error) { AppendError::Full(words) } else { AppendError::Unavailable(words) }
}

/// There is no space for it: on the device, in a quota, or under a limit to the length of files.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge)
}

/// An append that may have left something behind.
pub(super) fn unknown(what: &str, path: &Path, error: &io::Error) -> AppendError {
    AppendError::Unknown(words(what, path, error))
}

pub(super) fn unread(what: &str, path: &Path, error: &io::Error) -> ReadError {
    ReadError::Unavailable(words(what, path, error))
}

pub(super) fn unmarked(what: &str, path: &Path, error: &io::Error) -> ConsumeError {
    ConsumeError::Unavailable(words(what, path, error))
}

fn words(what: &str, path: &Path, error: &io::Error) -> String {
    format!("cannot {what} {}: {error}", path.display())
}

/// A file that was removed under the store takes writes, and they are lost.
pub(super) fn deleted() -> io::Error {
    io::Error::new(ErrorKind::NotFound, "it was deleted")
}
