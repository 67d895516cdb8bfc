//! What is wrong with a configuration, in words for whoever wrote it.

use crate::output::Visible;
use std::error::Error;
use std::fmt;
use std::path::Path;

/// What is wrong with one value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The key with its section, `limits.actions_max`; `--config` for the file itself.
    pub key: String,
    /// The value as it was read.
    pub value: String,
    /// What it must be, and why if that is not plain.
    pub bound: String,
    /// Where it came from: built in, the file, the variable or the flag.
    pub origin: String,
}

impl Fault {
    /// The file that `--config` names is not what it must be, for that reason.
    pub(super) fn unreadable(path: &Path, reason: &str) -> Self {
        let reason = reason.trim_end().replace('\n', "\n    ");
        let bound = format!("must be a readable TOML file: {reason}");
        Self { key: "--config".into(), value: format!("{path:?}"), bound, origin: "flag --config".into() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, value, bound, origin } = self;
        // Keys, values and names of variables and files are whatever somebody chose.
        write!(f, "{} = {}: {bound} [{}]", Visible(key), Visible(value), Visible(origin))
    }
}

/// Why a configuration was not taken: at least one fault, in one report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Faults(pub(super) Vec<Fault>);

impl Faults {
    /// The faults, in the order of the keys.
    pub fn as_slice(&self) -> &[Fault] {
        &self.0
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the configuration has {} fault{}:", self.0.len(), if self.0.len() == 1 { "" } else { "s" })?;
        self.0.iter().try_for_each(|fault| write!(f, "\n  {fault}"))
    }
}

impl Error for Faults {}
