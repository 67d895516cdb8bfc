//! What is set from outside of the file: by a variable or a flag. It may not say whether a value is
//! allowed.

use super::Fault;
use super::rules::{Rule, rule};
use super::toml::quoted;
use figment::value::{Dict, Map, Value};
use figment::{Metadata, Profile, Provider};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// One key set by text from outside: a variable or a flag. The key's rule says whether the text is
/// a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    key: String,
    text: String,
    origin: String,
    /// What is wrong with its name, or with the text before any rule is asked.
    wrong: Option<&'static str>,
}

impl Setting {
    /// What an environment variable sets, `None` if it is not one of ours.
    ///
    /// `ACTIVATION_ROUTER_LIMITS__ACTIONS_MAX` sets `limits.actions_max`. Kubernetes puts variables
    /// of each Service into the containers beside it. Those of Services whose names begin with
    /// `activation-router` begin as ours do; they are told by their shape, `…_SERVICE_HOST`,
    /// `…_PORT` and their like, and are not ours unless a key of that name exists.
    pub fn from_variable(name: impl AsRef<OsStr>, text: impl AsRef<OsStr>) -> Option<Self> {
        let (name, text) = (name.as_ref(), text.as_ref());
        if !name.as_bytes().starts_with(VARIABLE_PREFIX.as_bytes()) {
            return None;
        }
        let shown = name.to_string_lossy();
        let behind = shown.get(VARIABLE_PREFIX.len()..)?;
        let key = behind.to_ascii_lowercase().replace("__", ".");
        if rule(&key).is_none() && is_of_a_service(behind) {
            return None;
        }
        let wrong = if name.to_str().is_none() {
            Some("the variable's name must be UTF-8")
        } else if !is_well_formed(behind) {
            Some(
                "no key is named so: the name is ACTIVATION_ROUTER_ and the key in capitals, with two underscores for its dot",
            )
        } else if text.to_str().is_none() {
            Some("must be UTF-8")
        } else {
            None
        };
        let (text, origin) = (text.to_string_lossy().into_owned(), format!("environment variable {shown}"));
        // A name that is none is shown as it is.
        let key = if wrong.is_some() && rule(&key).is_none() { shown.clone().into_owned() } else { key };
        Some(Self { key, text, origin, wrong })
    }

    /// What a flag sets: `from_flag("--listen", "listen", "127.0.0.1:0")`.
    pub fn from_flag(flag: &str, key: &str, text: &str) -> Self {
        Self { key: key.to_owned(), text: text.to_owned(), origin: format!("flag {flag}"), wrong: None }
    }

    /// Why it sets nothing, if it does not.
    pub(super) fn fault(&self) -> Option<Fault> {
        let Self { key, text, origin, wrong } = self;
        let bound = (*wrong)?.to_owned();
        Some(Fault { key: key.clone(), value: quoted(text), bound, origin: origin.clone() })
    }

    /// The text as its key's rule wants it; text that does not fit stays text, for the rule to
    /// refuse.
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

/// Whether a name behind our prefix is a section and a key, or a key alone: not empty, no
/// underscore at an end of either.
fn is_well_formed(behind: &str) -> bool {
    let segment = |text: &str| !text.is_empty() && !text.starts_with('_') && !text.ends_with('_');
    behind.split("__").all(segment)
}

/// Whether a name behind our prefix is that of a variable that Kubernetes makes of a Service. The
/// Service's name goes on as it likes in front; it may end with the prefix, too.
fn is_of_a_service(behind: &str) -> bool {
    // With the underscore that the prefix ends with.
    let name = format!("_{behind}");
    let number_and_protocol = |text: &str| {
        let mut words = text.split('_');
        let number = words.next().is_some_and(|word| word.parse::<u16>().is_ok());
        let protocol = words.next().is_some_and(|word| ["TCP", "UDP", "SCTP"].contains(&word));
        let rest = words.next().is_none_or(|word| ["PROTO", "PORT", "ADDR"].contains(&word));
        number && protocol && rest && words.next().is_none()
    };
    let port_name = |text: &str| {
        let fits = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
        text.is_empty() || text.strip_prefix('_').is_some_and(|name| !name.is_empty() && name.bytes().all(fits))
    };
    name.ends_with("_SERVICE_HOST")
        || name.ends_with("_PORT")
        || name.split_once("_SERVICE_PORT").is_some_and(|(_, rest)| port_name(rest))
        || name.match_indices("_PORT_").any(|(at, word)| number_and_protocol(&name[at + word.len()..]))
}

const VARIABLE_PREFIX: &str = "ACTIVATION_ROUTER_";
