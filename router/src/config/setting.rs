//! What is set from outside of the file: by a variable or a flag. It may not say whether a value is allowed.

use super::rules::{Rule, rule};
use figment::value::{Dict, Map, Value};
use figment::{Metadata, Profile, Provider};

/// One key set by text from outside: a variable or a flag. The key's rule says whether the text is a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    key: String,
    text: String,
    origin: String,
}

impl Setting {
    /// What an environment variable sets, `None` if it is not one of ours.
    ///
    /// `ACTIVATION_ROUTER_LIMITS__ACTIONS_MAX` sets `limits.actions_max`. Kubernetes puts `…_SERVICE_HOST`, `…_PORT`
    /// and their like into every container next to a service named `activation-router`; those are not ours either.
    pub fn from_variable(name: &str, text: &str) -> Option<Self> {
        let key = name.strip_prefix(VARIABLE_PREFIX)?;
        if key.starts_with("SERVICE_") || key == "PORT" || key.starts_with("PORT_") {
            return None;
        }
        let key = key.to_ascii_lowercase().replace("__", ".");
        Some(Self { key, text: text.to_owned(), origin: format!("environment variable {name}") })
    }

    /// What a flag sets: `from_flag("--listen", "listen", "127.0.0.1:0")`.
    pub fn from_flag(flag: &str, key: &str, text: &str) -> Self {
        Self { key: key.to_owned(), text: text.to_owned(), origin: format!("flag {flag}") }
    }

    /// The text as its key's rule wants it; text that does not fit stays text, for the rule to refuse.
    fn value(&self) -> Value {
        match rule(&self.key) {
            Some(Rule::Whole(..)) => self.text.parse::<u64>().map_or_else(|_| self.text.clone().into(), Value::from),
            Some(Rule::Switch) => self.text.parse::<bool>().map_or_else(|_| self.text.clone().into(), Value::from),
            _ => self.text.clone().into(),
        }
    }
}

impl Provider for Setting {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.origin.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let tree = figment::util::nest(&self.key, self.value());
        Ok(Map::from([(Profile::Default, tree.into_dict().unwrap_or_default())]))
    }
}

const VARIABLE_PREFIX: &str = "ACTIVATION_ROUTER_";
