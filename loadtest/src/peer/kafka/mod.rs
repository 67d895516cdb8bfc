//! Kafka: one broker, one topic of one partition for the action, one for each controller's answers. Two ways to use it: as OpenWhisk
//! does, and tuned for this.
//!
//! The client is librdkafka (crate `rdkafka`, feature `kafka` of this package): it sends what is waiting as one by itself, on threads of
//! its own. OpenWhisk's clients are the JVM's; the broker cannot tell, and these take less of the machine.

#[cfg(feature = "kafka")]
pub(crate) mod clients;

use super::{About, Launch, host};
use anyhow::Context;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What users should know of the comparison.
pub(crate) const AS_OPENWHISK: About = About {
    program: "Kafka",
    install: "scripts/kafka fetch, or scripts/peers",
    promise: "at most once, in the leader's page cache: acks=1, and offsets are committed before a message is handled",
    settings: "one broker with KRaft, log on the disk of the target folder, no fsync of its own; acks=1, linger 0, no compression; consumers take at \
               most 128 at a time and commit them synchronously before they handle them, as OpenWhisk's MessageFeed does; librdkafka as client",
};

/// The same broker for those who would trade safety for speed.
pub(crate) const TUNED: About = About {
    program: AS_OPENWHISK.program,
    install: AS_OPENWHISK.install,
    promise: "at most once, in the leader's page cache, if it got there: acks=0, and offsets are committed every 5 s",
    settings: "one broker with KRaft, log on the disk of the target folder, no fsync of its own; acks=0, linger 0, no compression; consumers take \
               all that is there, at most 1,024, and commit in the background; librdkafka as client",
};

/// How a broker is started.
pub(crate) fn launch(folder: &Path, port: u16) -> anyhow::Result<Launch> {
    let mut command = Command::new(script().context("scripts/kafka")?);
    command.arg("serve").arg(port.to_string()).arg(folder.join("data"));
    command.env("CARGO_TARGET_DIR", host::base()).env("KAFKA_JVM", JVM);
    Ok(Launch::of(command))
}

/// What Kafka's own start script gives its JVM.
const JVM: &str = "-Xms1g -Xmx1g -server -XX:+UseG1GC -XX:MaxGCPauseMillis=20 -XX:InitiatingHeapOccupancyPercent=35 \
                   -XX:+ExplicitGCInvokesConcurrent -XX:MaxInlineLevel=15";

/// Whether its jars were fetched, and this program can speak to it.
pub(crate) fn is_installed() -> bool {
    cfg!(feature = "kafka") && script().is_some() && fetched().is_some()
}

/// The fetched version.
pub(crate) fn version() -> String {
    let folder = fetched().and_then(|folder| Some(folder.file_name()?.to_string_lossy().into_owned()));
    format!("Kafka {}", folder.as_deref().unwrap_or("unknown"))
}

/// The folder that `scripts/kafka fetch` made: it has the version as its name, and is marked when it is whole.
fn fetched() -> Option<PathBuf> {
    let folders = std::fs::read_dir(host::base().join("kafka")).ok()?.flatten();
    folders.map(|folder| folder.path()).find(|folder| folder.join("complete").is_file())
}

/// In the working folder's repository, or in the one this program was built from.
fn script() -> Option<PathBuf> {
    let built_from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/kafka");
    [PathBuf::from("scripts/kafka"), built_from].into_iter().find_map(|file| file.canonicalize().ok())
}
