//! The configuration file as a layer of the configuration.

use super::Fault;
use crate::read;
use figment::providers::{Format, Toml};
use figment::value::{Dict, Map};
use figment::{Metadata, Profile, Provider};
use std::path::{Path, PathBuf};

/// What a TOML file sets. It is read once: whatever is merged and asked later comes from memory.
#[derive(Debug)]
pub(super) struct ConfigFile {
    path: PathBuf,
    sets: Map<Profile, Dict>,
}

impl ConfigFile {
    /// Reads the file.
    ///
    /// # Errors
    /// The one fault of a file that cannot be read or is no TOML; see [`read::text`].
    pub(super) fn read(path: &Path) -> Result<Self, Fault> {
        let text = read::text(path).map_err(|why| Fault::unreadable(path, &why))?;
        let sets = Toml::string(&text).data().map_err(|error| Fault::unreadable(path, &error.kind.to_string()))?;
        Ok(Self { path: path.to_owned(), sets })
    }
}

impl Provider for ConfigFile {
    fn metadata(&self) -> Metadata {
        Metadata::from("TOML file", &*self.path)
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(self.sets.clone())
    }
}
