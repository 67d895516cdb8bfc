//! Where a store on disk lies and how much it may take.

use super::errors::OpenError;
use super::record::{BODY_BYTES_MAX, HEADER_BYTES};
use super::{marks::MarksFile, notes::CELL_BYTES, segment};
use std::path::PathBuf;

/// Where a store on disk lies and how much it may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Its directory, for it alone; made if it is not there.
    pub dir: PathBuf,
    /// How many lanes; fixed when the store is made. 64.
    pub lanes: u16,
    /// Length at which a lane begins a new file, in bytes; one append may pass it. Space is given back a file at a time.
    /// 64 MiB.
    pub segment_bytes: u64,
    /// The most all files may take up together, in bytes, those that were set aside among them. 8 GiB.
    pub store_bytes_max: u64,
    /// The longest body, in bytes; at most 64 MiB. 2 MiB.
    pub record_bytes_max: usize,
}

impl Config {
    /// The defaults, in that directory.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            lanes: 64,
            segment_bytes: 64 << 20,
            store_bytes_max: 8 << 30,
            record_bytes_max: 2 << 20,
        }
    }

    /// Checks the limits.
    ///
    /// # Errors
    /// [`OpenError::Config`]: the first one that is out of range.
    pub fn check(&self) -> Result<(), OpenError> {
        let record = HEADER_BYTES + self.record_bytes_max + CELL_BYTES;
        let least = MarksFile::bytes(self.lanes) + (segment::HEADER_BYTES + record) as u64;
        let faults = [
            (self.lanes == 0, "lanes: at least 1".to_owned()),
            (self.record_bytes_max == 0, "record_bytes_max: at least 1".to_owned()),
            (self.record_bytes_max > BODY_BYTES_MAX, format!("record_bytes_max: at most {BODY_BYTES_MAX}")),
            (self.segment_bytes == 0, "segment_bytes: at least 1".to_owned()),
            (self.store_bytes_max < least, format!("store_bytes_max: at least {least}, for the marks and one record")),
        ];
        match faults.into_iter().find(|(fault, _)| *fault) {
            Some((_, words)) => Err(OpenError::Config(words)),
            None => Ok(()),
        }
    }
}
