//! Holds the values against the rules. All faults are found, and each names its key, its bound and where the value came from.

use super::rules::{AtLeast, NEEDED, ORDER, RULES, Rule, is_section, rule};
use super::toml::{shown, whole};
use super::{Config, Fault, Faults};
use figment::value::Value;
use figment::{Figment, Metadata};
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use tracing_subscriber::EnvFilter;

/// The configuration in `layers`, or all of its faults behind those already known.
pub(super) fn checked(layers: &Figment, mut faults: Vec<Fault>) -> Result<Config, Faults> {
    let tree = layers.find_value("").expect("each layer was readable when it was added");
    let leaves = leaves("", &tree);
    let fault = |key: &str, value: &Value, bound| Fault {
        key: key.to_owned(),
        value: shown(value),
        bound,
        origin: origin(layers.get_metadata(value.tag())),
    };
    let single = leaves.iter().filter_map(|(key, value)| Some(fault(key, value, breach(key, value)?)));
    faults.extend(single);
    // A value that is wrong by itself is not compared with another: one cause, one fault.
    let compared: Vec<Fault> = order_breaches(&tree)
        .filter(|(keys, _)| !faults.iter().any(|known| keys.contains(&known.key.as_str())))
        .map(|([key, _], bound)| fault(key, tree.find_ref(key).unwrap_or(&tree), bound))
        .collect();
    faults.extend(compared);
    if !faults.is_empty() {
        return Err(Faults(faults));
    }
    tree.deserialize().map_err(|error| Faults(vec![fault("", &tree, error.to_string())]))
}

/// Every value that is not a section, with its key in full, in the order of `RULES`; unknown keys last.
pub(super) fn leaves(prefix: &str, tree: &Value) -> Vec<(String, Value)> {
    let mut found = Vec::new();
    for (name, value) in tree.as_dict().into_iter().flatten() {
        let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        if is_section(&key) && value.as_dict().is_some() {
            found.extend(leaves(&key, value));
        } else {
            found.push((key, value.clone()));
        }
    }
    found.sort_by_key(|(key, _)| RULES.iter().position(|(known, _)| known == key).unwrap_or(RULES.len()));
    found
}

/// What the value must be, if it is not that already.
fn breach(key: &str, value: &Value) -> Option<String> {
    match rule(key) {
        None if is_section(key) => Some(format!("is a section, write [{key}]")),
        None => Some("there is no such key".to_owned()),
        Some(Rule::Switch) => value.to_bool().is_none().then(|| "must be true or false".to_owned()),
        Some(Rule::Whole(bounds, why)) => whole_breach(bounds, why, value),
        Some(text) => match value.as_str() {
            None => Some("must be a string".to_owned()),
            Some(value) => text_breach(text, value),
        },
    }
}

fn whole_breach(bounds: &RangeInclusive<u64>, why: &str, value: &Value) -> Option<String> {
    if whole(value).is_some_and(|value| bounds.contains(&value)) {
        return None;
    }
    let because = if why.is_empty() { String::new() } else { format!(": {why}") };
    Some(format!("must be a whole number from {} to {}{because}", bounds.start(), bounds.end()))
}

fn text_breach(rule: &Rule, text: &str) -> Option<String> {
    match rule {
        Rule::Name => name_breach(text),
        Rule::Loopback => match text.parse::<SocketAddr>() {
            Err(_) => Some("must be an IP address and a port, like 127.0.0.1:7400 or [::1]:7400".to_owned()),
            Ok(address) if address.ip().is_loopback() => None,
            Ok(_) => Some("must be a loopback address: there is no TLS or identity yet".to_owned()),
        },
        Rule::Filter => {
            let refused = EnvFilter::builder().parse(text).err()?;
            Some(format!("must be a log filter, like info or info,h2=warn: {refused}"))
        }
        Rule::Choice(choices) => (!choices.contains(&text)).then(|| format!("must be one of {}", choices.join(", "))),
        Rule::Text | Rule::Switch | Rule::Whole(..) => None,
    }
}

fn name_breach(text: &str) -> Option<String> {
    let safe = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let fits = (1..=64).contains(&text.len()) && text.bytes().all(safe);
    (!fits).then(|| "must be 1 to 64 of A-Z a-z 0-9 . _ -".to_owned())
}

/// Pairs of keys at odds with each other, and what the first one must be.
fn order_breaches(tree: &Value) -> impl Iterator<Item = ([&'static str; 2], String)> {
    let number = |key| tree.find_ref(key).and_then(whole);
    let too_small = ORDER.iter().filter_map(move |AtLeast { key, other, more, why }| {
        let least = number(other)?.saturating_add(*more);
        let more = if *more > 0 { format!(" + {more}") } else { String::new() };
        (number(key)? < least).then(|| ([*key, *other], format!("must be at least {least}, {other}{more}: {why}")))
    });
    let address = |key| tree.find_ref(key)?.as_str()?.parse::<SocketAddr>().ok();
    let listen = address("listen").filter(|listen| listen.port() != 0);
    let same = listen.is_some() && listen == address("admin_listen");
    let text = |key| tree.find_ref(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let missing = NEEDED.iter().filter_map(move |(store, key)| {
        let lacks = text("overflow.store") == *store && text(key).is_empty();
        lacks.then(|| ([*key, "overflow.store"], format!("must be given where overflow.store is {store:?}")))
    });
    too_small.chain(missing).chain(same.then(|| (["admin_listen", "listen"], "must differ from listen".to_owned())))
}

fn origin(metadata: Option<&Metadata>) -> String {
    match metadata {
        Some(Metadata { source: Some(figment::Source::File(path)), .. }) => format!("file {}", path.display()),
        Some(Metadata { name, .. }) if name.starts_with("environment") || name.starts_with("flag") => name.to_string(),
        _ => "built in".to_owned(),
    }
}
