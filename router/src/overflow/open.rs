//! Which store the configuration asks for.

use crate::config;
#[cfg(feature = "kafka")]
use crate::parts::Part;
use crate::parts::Parts;
use crate::read;
use overflow::disk::{self, Disk};
#[cfg(feature = "kafka")]
use overflow::kafka::{self, Kafka, Lifeline};
use overflow::seal::{Keys, Sealed, Unsealed};
use overflow::{Most, Overflow, ReadError};
#[cfg(feature = "kafka")]
use std::collections::BTreeMap;
use std::io;
#[cfg(feature = "kafka")]
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

/// Opens the store, if there is to be one. Threads of its own are parts of the router.
///
/// # Errors
/// Says what is wrong with the directory, the key file or the settings. Nothing is deleted because of it.
pub(crate) fn open(
    config: &config::Overflow,
    payload_bytes_max: u32,
    #[cfg_attr(not(feature = "kafka"), expect(unused_variables, reason = "no other store has threads"))] parts: &Parts,
) -> io::Result<Option<Arc<dyn Overflow>>> {
    match config.store.as_str() {
        "disk" => {
            let store = Disk::open(&on_disk(config, payload_bytes_max)).map_err(|error| disk_fault(&error))?;
            with_keys(store, &config.key_file).map(Some)
        }
        #[cfg(feature = "kafka")]
        "kafka" => {
            let store =
                Kafka::open_watched(in_kafka(config, payload_bytes_max)?, &|thread| Box::new(parts.begin(thread)));
            let store = store.map_err(|error| kafka_fault(&error, &config.kafka_settings_file))?;
            with_keys(store, &config.key_file).map(Some)
        }
        #[cfg(not(feature = "kafka"))]
        "kafka" => Err(io::Error::other(format!("overflow.store = \"kafka\": {}", config::NO_KAFKA))),
        _ => Ok(None),
    }
}

#[cfg(feature = "kafka")]
impl Lifeline for Part {
    fn is_told_to_end(&self) -> bool {
        Self::is_told_to_end(self)
    }
}

/// Names the setting to look at: the store knows its directory, not who configured it.
fn disk_fault(error: &disk::OpenError) -> io::Error {
    let setting = match error {
        disk::OpenError::Lanes { .. } => "overflow.lanes: ",
        // These begin with the setting's own name.
        disk::OpenError::Config(_) => "overflow.",
        _ => "overflow.directory: ",
    };
    io::Error::other(format!("{setting}{error}"))
}

#[cfg(feature = "kafka")]
fn kafka_fault(error: &kafka::OpenError, settings_file: &str) -> io::Error {
    io::Error::other(match error {
        kafka::OpenError::Thread(_) => format!("overflow.store: {error}"),
        _ if settings_file.is_empty() => format!("overflow.kafka_*: {error}"),
        _ => format!("overflow.kafka_settings_file {settings_file}: {error}"),
    })
}

fn on_disk(config: &config::Overflow, payload_bytes_max: u32) -> disk::Config {
    disk::Config {
        lanes: config.lanes,
        segment_bytes: config.segment_bytes,
        store_bytes_max: config.store_bytes_max,
        record_bytes_max: config::record_bytes_max(payload_bytes_max),
        ..disk::Config::new(&config.directory)
    }
}

#[cfg(feature = "kafka")]
fn in_kafka(config: &config::Overflow, payload_bytes_max: u32) -> io::Result<kafka::Config> {
    Ok(kafka::Config {
        lanes: config.lanes,
        record_bytes_max: config::record_bytes_max(payload_bytes_max),
        store_bytes_max: config.store_bytes_max,
        properties: properties(&config.kafka_settings_file)?,
        ..kafka::Config::new(&*config.kafka_brokers, &*config.kafka_topic)
    })
}

/// Reads a file of lines `key=value`; empty ones and those that begin with `#` say nothing.
#[cfg(feature = "kafka")]
fn properties(file: &str) -> io::Result<BTreeMap<String, String>> {
    if file.is_empty() {
        return Ok(BTreeMap::new());
    }
    let fault = |what: String| io::Error::other(format!("overflow.kafka_settings_file {file}: {what}"));
    let text = read::text(Path::new(file)).map_err(fault)?;
    let lines = (1..).zip(text.lines().map(str::trim)).filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let pair = |(number, line): (usize, &str)| {
        let (key, value) = line.split_once('=').ok_or_else(|| fault(format!("line {number} is not key=value")))?;
        Ok((key.trim().to_owned(), value.trim().to_owned()))
    };
    lines.map(pair).collect()
}

fn with_keys<S: Overflow + 'static>(store: S, key_file: &str) -> io::Result<Arc<dyn Overflow>> {
    let store: Arc<dyn Overflow> =
        if key_file.is_empty() { Arc::new(Unsealed(store)) } else { Arc::new(Sealed::new(store, keys(key_file)?)) };
    check_keys(&*store)?;
    Ok(store)
}

/// Reads the key file: once, and not for ever where it is a pipe without a writer.
fn keys(file: &str) -> io::Result<Keys> {
    let path = PathBuf::from(file);
    let read = read::in_time(move || Keys::read(&path));
    let fault = |why: String| io::Error::other(format!("overflow.key_file {file}: {why}"));
    read.map_err(fault)?.map_err(|error| io::Error::other(format!("overflow.key_file: {error}")))
}

/// Whether what is there can be read with the keys at hand: better now than when it is needed.
fn check_keys(store: &dyn Overflow) -> io::Result<()> {
    for lane in 0..store.lanes() {
        let span = store.span(lane);
        if span.first == span.next {
            continue;
        }
        let read = store.read(lane, span.first, None, Most { records: 1, bytes: 1 });
        if let Err(error @ (ReadError::NoKey { .. } | ReadError::NotSealed { .. })) = read {
            return Err(io::Error::other(format!("overflow.key_file: lane {lane}: {error}")));
        }
    }
    Ok(())
}
