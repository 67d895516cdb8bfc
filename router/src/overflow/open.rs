//! Which store the configuration asks for.

use crate::config;
use overflow::disk::{self, Disk};
use overflow::seal::{Keys, Sealed, Unsealed};
use overflow::{Most, Overflow, ReadError};
use std::io;
use std::path::Path;
use std::sync::Arc;

/// Opens the store, if there is to be one.
///
/// # Errors
/// Says what is wrong with the directory, the key file or the settings. Nothing is deleted because of it.
pub(crate) fn open(config: &config::Overflow, payload_bytes_max: u32) -> io::Result<Option<Arc<dyn Overflow>>> {
    match config.store.as_str() {
        "disk" => {
            let store = Disk::open(&on_disk(config, payload_bytes_max)).map_err(io::Error::other)?;
            with_keys(store, &config.key_file).map(Some)
        }
        _ => Ok(None),
    }
}

/// What a record needs besides the payload: names, numbers and the seal.
const RECORD_ENVELOPE: usize = 4096;

fn on_disk(config: &config::Overflow, payload_bytes_max: u32) -> disk::Config {
    disk::Config {
        lanes: config.lanes,
        segment_bytes: config.segment_bytes,
        store_bytes_max: config.store_bytes_max,
        record_bytes_max: payload_bytes_max as usize + RECORD_ENVELOPE,
        ..disk::Config::new(&config.directory)
    }
}

fn with_keys<S: Overflow + 'static>(store: S, key_file: &str) -> io::Result<Arc<dyn Overflow>> {
    let store: Arc<dyn Overflow> = if key_file.is_empty() {
        Arc::new(Unsealed(store))
    } else {
        Arc::new(Sealed::new(store, Keys::read(Path::new(key_file)).map_err(io::Error::other)?))
    };
    check_keys(&*store)?;
    Ok(store)
}

/// Whether what is there can be read with the keys at hand: better now than when it is needed.
fn check_keys(store: &dyn Overflow) -> io::Result<()> {
    for lane in 0..store.lanes() {
        let span = store.span(lane);
        if span.first == span.next {
            continue;
        }
        let read = store.read(lane, span.first, Most { records: 1, bytes: 1 });
        if let Err(error @ (ReadError::NoKey { .. } | ReadError::NotSealed { .. })) = read {
            return Err(io::Error::other(format!("overflow lane {lane}: {error}")));
        }
    }
    Ok(())
}
