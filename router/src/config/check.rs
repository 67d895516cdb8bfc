//! Holds the values against the rules. All faults are found, and each names its key, its bound and where the value came from.

use super::rules::{AtLeast, ORDER, RULES, Rule, is_section, rule, rule_of_store};
use super::toml::{self, shown, whole};
use super::{Config, Fault, Faults, record_bytes_max};
use figment::value::Value;
use figment::{Figment, Metadata};
use overflow::disk;
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
    let store = store(&tree);
    let single = leaves.iter().filter_map(|(key, value)| Some(fault(key, value, breach(store, key, value)?)));
    faults.extend(single);
    let said_with_origin = |key: &str| {
        let value = tree.find_ref(key).unwrap_or(&tree);
        format!("{key} = {} [{}]", shown(value), origin(layers.get_metadata(value.tag())))
    };
    let is_set =
        |key: &str| tree.find_ref(key).is_some_and(|value| origin(layers.get_metadata(value.tag())) != BUILT_IN);
    // A value that is wrong by itself is not compared with another: one cause, one fault.
    let compared: Vec<Fault> = order_breaches(&tree, is_set)
        .filter(|(keys, _)| !faults.iter().any(|known| keys.contains(&known.key.as_str())))
        .map(|(keys, bound)| {
            // Whoever reads this may have set the other one only.
            let others: Vec<String> = keys[1..].iter().map(|key| said_with_origin(key)).collect();
            fault(keys[0], tree.find_ref(keys[0]).unwrap_or(&tree), format!("{bound} ({})", others.join(", ")))
        })
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
        // A quoted name may have a dot in it, which is not the one between section and key.
        let name = toml::name(name);
        let key = if prefix.is_empty() { name } else { format!("{prefix}.{name}") };
        if is_section(&key) && value.as_dict().is_some() {
            found.extend(leaves(&key, value));
        } else {
            found.push((key, value.clone()));
        }
    }
    found.sort_by_key(|(key, _)| RULES.iter().position(|(known, _)| known == key).unwrap_or(RULES.len()));
    found
}

/// The chosen store; empty if that is no text.
fn store(tree: &Value) -> &str {
    tree.find_ref("overflow.store").and_then(Value::as_str).unwrap_or_default()
}

/// What the value must be, with that store, if it is not that already.
fn breach(store: &str, key: &str, value: &Value) -> Option<String> {
    if let Some(rule) = rule_of_store(store, key) {
        return Some(format!("{} where overflow.store is {store:?}", rule_breach(rule, value)?));
    }
    match rule(key) {
        None if is_section(key) => Some(format!("is a section, write [{key}]")),
        None if rule(&key.replace('"', "")).is_some() => Some(
            "there is no such key: in quotes the dot is a part of the name; write the key without quotes".to_owned(),
        ),
        None => Some("there is no such key".to_owned()),
        Some(rule) => rule_breach(rule, value),
    }
}

fn rule_breach(rule: &Rule, value: &Value) -> Option<String> {
    match rule {
        Rule::Switch => value.to_bool().is_none().then(|| "must be true or false".to_owned()),
        Rule::Whole(bounds, why) => whole_breach(bounds, why, value),
        text => match value.as_str() {
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
        Rule::Given => text.is_empty().then(|| "must be given".to_owned()),
        Rule::Topic => topic_breach(text),
        Rule::Choice(choices) => choice_breach(choices, text),
        Rule::Text | Rule::Switch | Rule::Whole(..) => None,
    }
}

fn name_breach(text: &str) -> Option<String> {
    let fits = (1..=64).contains(&text.len()) && text.bytes().all(is_safe);
    (!fits).then(|| "must be 1 to 64 of A-Z a-z 0-9 . _ -".to_owned())
}

fn topic_breach(text: &str) -> Option<String> {
    let fits = (1..=249).contains(&text.len()) && text.bytes().all(is_safe) && text != "." && text != "..";
    (!fits).then(|| "must be 1 to 249 of A-Z a-z 0-9 . _ -, and not \".\" or \"..\"".to_owned())
}

fn is_safe(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"._-".contains(&byte)
}

/// The value must be one that this build has.
fn choice_breach(choices: &[(&str, Option<&str>)], text: &str) -> Option<String> {
    match choices.iter().find(|(choice, _)| *choice == text) {
        Some((_, lacking)) => lacking.map(str::to_owned),
        None => {
            let possible = choices.iter().filter(|(_, lacking)| lacking.is_none()).map(|(choice, _)| *choice);
            Some(format!("must be one of {}", possible.collect::<Vec<_>>().join(", ")))
        }
    }
}

/// Keys at odds with each other, and what the first one must be. `is_set`: somebody set that key.
fn order_breaches(tree: &Value, is_set: impl Fn(&str) -> bool) -> impl Iterator<Item = (Vec<&'static str>, String)> {
    let number = |key| tree.find_ref(key).and_then(whole);
    let too_small = ORDER.iter().filter_map(move |AtLeast { key, other, more, why }| {
        let least = number(other)?.saturating_add(*more);
        let more = if *more > 0 { format!(" + {more}") } else { String::new() };
        (number(key)? < least).then(|| (vec![*key, *other], format!("must be at least {least}, {other}{more}: {why}")))
    });
    let address = |key| tree.find_ref(key)?.as_str()?.parse::<SocketAddr>().ok();
    let listen = address("listen").filter(|listen| listen.port() != 0);
    let same = listen.is_some() && listen == address("admin_listen");
    // Whoever set one of them is to hear of that one.
    let only_listen = is_set("listen") && !is_set("admin_listen");
    let blamed_first = if only_listen { ["listen", "admin_listen"] } else { ["admin_listen", "listen"] };
    let same = same.then(|| (blamed_first.to_vec(), format!("must differ from {}", blamed_first[1])));
    too_small.chain(disk_breach(tree)).chain(same)
}

/// What the disk store, if it is chosen, itself says of how much it may take.
fn disk_breach(tree: &Value) -> Option<(Vec<&'static str>, String)> {
    if store(tree) != "disk" {
        return None;
    }
    let keys = ["overflow.store_bytes_max", "overflow.lanes", "limits.payload_bytes_max"];
    let [store_bytes_max, lanes, payload_bytes_max] = keys.map(|key| tree.find_ref(key).and_then(whole));
    let lanes = u16::try_from(lanes?).ok()?;
    let record_bytes_max = record_bytes_max(u32::try_from(payload_bytes_max?).ok()?);
    let asked = disk::Config { lanes, store_bytes_max: store_bytes_max?, record_bytes_max, ..disk::Config::new("") };
    let words = asked.check().err()?.to_string();
    // Its check knows no other fault of values that are within their bounds.
    let bound = words.strip_prefix("store_bytes_max: ").unwrap_or(&words);
    let bound = format!("must be {bound}, where overflow.store is \"disk\" and overflow.lanes is {lanes}");
    Some((keys.to_vec(), bound))
}

/// Where a default comes from.
const BUILT_IN: &str = "built in";

fn origin(metadata: Option<&Metadata>) -> String {
    match metadata {
        Some(Metadata { source: Some(figment::Source::File(path)), .. }) => format!("file {}", path.display()),
        Some(Metadata { name, .. }) if name.starts_with("environment") || name.starts_with("flag") => name.to_string(),
        _ => BUILT_IN.to_owned(),
    }
}
