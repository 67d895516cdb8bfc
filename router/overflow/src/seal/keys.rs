//! The key file: which keys open records, and which one seals them.
//!
//! ```text
//!   # id, then the key: 32 bytes in hex
//!   1 6b1f...
//!   2 0c9e...
//! ```
//!
//! Each line is a key: an id (a number below 2^32) and 64 hex digits; lines that begin with `#`, and empty ones, are none. The
//! last key seals, all of them open. To change keys, add a line and start again; once nothing is left that was sealed with the
//! old one, take its line out. The file has to be readable by its owner alone.

use chacha20poly1305::{KeyInit, XChaCha20Poly1305};
use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Keys by id. What it prints of itself is ids.
pub struct Keys {
    sealing: u32,
    ciphers: BTreeMap<u32, XChaCha20Poly1305>,
}

/// Why a key file is refused. Keys are never part of it.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// It cannot be read.
    #[error("cannot read the key file {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// Others than its owner may read or change it.
    #[error("the key file {} is open to others (mode {mode:03o}): make it 600", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// A line is no key.
    #[error("the key file {}, line {line}: {why}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        why: &'static str,
    },
    /// There is no key in it.
    #[error("the key file {} has no key in it", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
}

/// A file that is longer is refused. Thousands of keys.
const FILE_BYTES_MAX: u64 = 1 << 20;

impl Keys {
    /// Reads a key file.
    ///
    /// # Errors
    /// [`KeyError`]
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let io = |source| KeyError::Io { path: path.to_owned(), source };
        let file = std::fs::File::open(path).map_err(io)?;
        let mode = file.metadata().map_err(io)?.mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(KeyError::Exposed { path: path.to_owned(), mode });
        }
        let mut text = Zeroizing::new(String::new());
        file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(io)?;
        if text.len() as u64 > FILE_BYTES_MAX {
            return Err(io(io::Error::new(io::ErrorKind::FileTooLarge, format!("more than {FILE_BYTES_MAX} bytes"))));
        }
        Self::parse(&text, path)
    }

    fn parse(text: &str, path: &Path) -> Result<Self, KeyError> {
        let mut keys = Self { sealing: 0, ciphers: BTreeMap::new() };
        for (line, text) in (1..).zip(text.lines()) {
            let text = text.trim();
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            keys.add(text).map_err(|why| KeyError::Line { path: path.to_owned(), line, why })?;
        }
        if keys.ciphers.is_empty() { Err(KeyError::Empty { path: path.to_owned() }) } else { Ok(keys) }
    }

    fn add(&mut self, line: &str) -> Result<(), &'static str> {
        let (id, key) = line.split_once(char::is_whitespace).ok_or("an id and a key are expected")?;
        let id = id.parse().map_err(|_| "the id has to be a number below 4294967296")?;
        let key = bytes(key.trim_start()).ok_or("the key has to be 64 hex digits")?;
        if self.ciphers.contains_key(&id) {
            return Err("the id is used before");
        }
        self.ciphers.insert(id, XChaCha20Poly1305::new((&*key).into()));
        self.sealing = id;
        Ok(())
    }

    /// The key that seals.
    pub(super) fn sealing(&self) -> (u32, &XChaCha20Poly1305) {
        (self.sealing, &self.ciphers[&self.sealing])
    }

    /// A key that opens.
    pub(super) fn get(&self, id: u32) -> Option<&XChaCha20Poly1305> {
        self.ciphers.get(&id)
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids: Vec<&u32> = self.ciphers.keys().collect();
        formatter.debug_struct("Keys").field("sealing", &self.sealing).field("ids", &ids).finish_non_exhaustive()
    }
}

fn bytes(hex: &str) -> Option<Zeroizing<[u8; 32]>> {
    let mut bytes = Zeroizing::new([0; 32]);
    if hex.len() != 64 || !hex.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, at) in bytes.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(&hex[at..at + 2], 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;

    fn refusal(text: &str) -> String {
        Keys::parse(text, Path::new("keys")).unwrap_err().to_string()
    }

    fn key(byte: &str) -> String {
        byte.repeat(32)
    }

    #[test]
    fn the_last_key_seals_and_all_open() {
        let text = format!("# old\n7 {}\n\n  # new\n3\t{}\n", key("0a"), key("FF"));
        let keys = Keys::parse(&text, Path::new("keys")).unwrap();
        assert_eq!(keys.sealing().0, 3);
        assert!(keys.get(7).is_some() && keys.get(3).is_some() && keys.get(0).is_none());
        assert_eq!(format!("{keys:?}"), "Keys { sealing: 3, ids: [3, 7], .. }");
    }

    #[test]
    fn what_is_no_key_is_named_by_its_line() {
        let good = format!("1 {}\n", key("00"));
        assert_eq!(refusal(""), "the key file keys has no key in it");
        assert_eq!(refusal("# 1"), "the key file keys has no key in it");
        assert_eq!(refusal(&format!("{good}1 {}", key("11"))), "the key file keys, line 2: the id is used before");
        assert_eq!(refusal("#\n\nhello"), "the key file keys, line 3: an id and a key are expected");
        assert_eq!(
            refusal(&format!("{good}-1 {}", key("11"))),
            "the key file keys, line 2: the id has to be a number below 4294967296"
        );
        for bad in [&key("11")[1..], &format!("{}0", key("11")), &key("1g"), &format!("{} x", key("11")), &key("é")] {
            assert_eq!(refusal(&format!("1 {bad}")).rsplit(": ").next(), refusal("1 0").rsplit(": ").next(), "{bad}");
        }
    }

    #[test]
    fn a_file_that_others_may_read_is_refused() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        writeln!(file, "1 {}", key("00")).unwrap();
        let set = |mode| file.as_file().set_permissions(std::fs::Permissions::from_mode(mode)).unwrap();
        for mode in [0o640, 0o604, 0o620, 0o602] {
            set(mode);
            assert!(matches!(Keys::read(file.path()), Err(KeyError::Exposed { mode: found, .. }) if found == mode));
        }
        set(0o600);
        Keys::read(file.path()).unwrap();
        assert!(matches!(Keys::read(Path::new("/nowhere")), Err(KeyError::Io { .. })));
    }

    #[test]
    fn a_file_that_is_too_long_is_refused_and_not_read_in_part() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        writeln!(file, "1 {}", key("00")).unwrap();
        write!(file, "{}", "#".repeat(1 << 20)).unwrap();
        let refusal = Keys::read(file.path()).unwrap_err().to_string();
        assert!(refusal.ends_with("more than 1048576 bytes"), "{refusal}");
    }
}
