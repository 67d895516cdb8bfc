//! Who a store is: two small text files that say the same, so that damage to one of them costs nothing.
//!
//! ```text
//!   activation-overflow 2
//!   store 5b0c6a1d9e3f4c7f8a2b1c0d9e8f7a6b
//!   lanes 64
//!   checksum 1c291ca3
//! ```

use super::errors::OpenError;
use super::files::{Access, File, Files};
use super::segment::VERSION;
use std::io::{self, ErrorKind};
use std::path::Path;

/// A store's name for itself, and what is fixed when it is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    pub store: [u8; 16],
    pub lanes: u16,
}

/// The two files' names.
pub(super) const NAMES: [&str; 2] = ["store", "store.copy"];
/// What they are called until they are whole.
pub(super) const NAME_NEW: &str = "store.new";

const TITLE: &str = "activation-overflow";
const FILE_BYTES_MAX: usize = 4096;

impl Identity {
    /// What the files say; `None` if neither is there and whole. One that is missing or damaged is written anew.
    pub(super) fn read(files: &dyn Files, dir: &Path) -> Result<Option<Self>, OpenError> {
        let mut found = [None; 2];
        for (found, name) in found.iter_mut().zip(NAMES) {
            *found = read_one(files, &dir.join(name))?;
        }
        let Some(identity) = found.into_iter().flatten().next() else { return Ok(None) };
        for (found, name) in found.iter().zip(NAMES) {
            if *found != Some(identity) {
                tracing::warn!(path = %dir.join(name).display(), "missing or damaged; written anew from its copy");
                identity.write_one(files, dir, name)?;
            }
        }
        Ok(Some(identity))
    }

    /// Writes both files. The store exists from then on.
    pub(super) fn write(&self, files: &dyn Files, dir: &Path) -> Result<(), OpenError> {
        NAMES.iter().try_for_each(|name| self.write_one(files, dir, name))
    }

    fn write_one(&self, files: &dyn Files, dir: &Path, name: &str) -> Result<(), OpenError> {
        let (new, path) = (dir.join(NAME_NEW), dir.join(name));
        self.replace(files, dir, &new, &path).map_err(OpenError::io("write", &path))
    }

    fn replace(&self, files: &dyn Files, dir: &Path, new: &Path, path: &Path) -> io::Result<()> {
        match files.remove(new) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = files.create(new)?;
        file.write_at(self.encode().as_bytes(), 0)?;
        file.sync_new()?;
        files.rename(new, path)?;
        files.sync_dir(dir)
    }

    fn encode(&self) -> String {
        let store: String = self.store.iter().map(|byte| format!("{byte:02x}")).collect();
        let text = format!("{TITLE} {VERSION}\nstore {store}\nlanes {}\n", self.lanes);
        let checksum = crc32fast::hash(text.as_bytes());
        format!("{text}checksum {checksum:08x}\n")
    }
}

/// What one file says, if it is there and whole. Of another format: an error, if it is whole.
fn read_one(files: &dyn Files, path: &Path) -> Result<Option<Identity>, OpenError> {
    let text = match files.open(path, Access::Read) {
        Ok(file) => read_text(&*file).map_err(OpenError::io("read", path))?,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(OpenError::Io { what: "open", path: path.to_owned(), source }),
    };
    let Some((version, identity)) = decode(&text) else { return Ok(None) };
    if version != VERSION {
        return Err(OpenError::OtherFormat { path: path.to_owned(), version, known: VERSION });
    }
    Ok(identity)
}

fn read_text(file: &dyn File) -> io::Result<String> {
    let mut bytes = vec![0; FILE_BYTES_MAX];
    let read = file.read_at(&mut bytes, 0)?;
    Ok(String::from_utf8_lossy(&bytes[..read]).into_owned())
}

/// The format, and what it says if that is known. `None` if the text is not whole.
fn decode(text: &str) -> Option<(u32, Option<Identity>)> {
    let at = text.rfind("checksum ")?;
    let (said, checksum) = text.split_at(at);
    let checksum = u32::from_str_radix(checksum.strip_prefix("checksum ")?.trim_end(), 16).ok()?;
    if crc32fast::hash(said.as_bytes()) != checksum {
        return None;
    }
    let mut lines = said.lines();
    let version = lines.next()?.strip_prefix(TITLE)?.trim().parse().ok()?;
    let store = lines.next().and_then(|line| line.strip_prefix("store ")).and_then(bytes);
    let lanes = lines.next().and_then(|line| line.strip_prefix("lanes ")).and_then(|lanes| lanes.parse().ok());
    Some((version, store.zip(lanes).map(|(store, lanes)| Identity { store, lanes })))
}

fn bytes(hex: &str) -> Option<[u8; 16]> {
    let mut bytes = [0; 16];
    if hex.len() != 32 || !hex.is_ascii() {
        return None;
    }
    for (byte, at) in bytes.iter_mut().zip((0..32).step_by(2)) {
        *byte = u8::from_str_radix(&hex[at..at + 2], 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDENTITY: Identity = Identity { store: [0xa5; 16], lanes: 64 };

    #[test]
    fn what_is_written_is_read_back() {
        assert_eq!(decode(&IDENTITY.encode()), Some((VERSION, Some(IDENTITY))));
    }

    #[test]
    fn a_damaged_text_says_nothing() {
        let text = IDENTITY.encode().into_bytes();
        for bit in 0..text.len() * 8 {
            let mut damaged = text.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let said = decode(&String::from_utf8_lossy(&damaged)).and_then(|(_, identity)| identity);
            assert!(said.is_none_or(|said| said == IDENTITY), "bit {bit}");
        }
        for end in 0..text.len() - 1 {
            assert!(decode(&String::from_utf8_lossy(&text[..end])).is_none_or(|(_, said)| said == Some(IDENTITY)));
        }
    }
}
