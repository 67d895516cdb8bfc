//! Values as text, as TOML reads them back.

use super::Config;
use super::rules::RULES;
use figment::value::Value;
use std::fmt::Write as _;

impl Config {
    /// Every key with its value as TOML, in the example file's order. [`Config::load`] reads it back to an equal value.
    pub fn to_toml(&self) -> String {
        let tree = Value::serialize(self).expect("strings, numbers and booleans always serialize");
        let mut toml = String::new();
        let mut section = "";
        for (key, _) in RULES {
            let (of, name) = key.rsplit_once('.').unwrap_or(("", key));
            if of != section {
                section = of;
                writeln!(toml, "\n[{section}]").expect("a String takes all text");
            }
            let value = tree.find_ref(key).expect("a test holds RULES to the struct's keys");
            writeln!(toml, "{name} = {}", shown(value)).expect("a String takes all text");
        }
        toml
    }
}

/// The value as TOML; what no key may be is only hinted at.
pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::String(_, text) => quoted(text),
        Value::Char(_, one) => quoted(&one.to_string()),
        Value::Bool(_, on) => on.to_string(),
        Value::Num(_, number) => match whole(value) {
            Some(whole) => whole.to_string(),
            None => number.to_i128().map_or_else(|| fraction(value), |n| n.to_string()),
        },
        Value::Empty(..) => "nothing".to_owned(),
        Value::Dict(..) => "{ … }".to_owned(),
        Value::Array(..) => "[ … ]".to_owned(),
    }
}

/// A number that is not written as a whole one: 2.0 stays 2.0.
fn fraction(value: &Value) -> String {
    let number = value.to_f64().unwrap_or(f64::NAN);
    if number.is_nan() { "nan".to_owned() } else { format!("{number:?}") }
}

/// The name of a key as TOML has it: quoted, unless it is plain.
pub(super) fn name(key: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    if !key.is_empty() && key.bytes().all(plain) { key.to_owned() } else { quoted(key) }
}

/// A TOML basic string.
pub(super) fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for one in text.chars() {
        match one {
            '"' | '\\' => quoted.extend(['\\', one]),
            control if control.is_control() => {
                write!(quoted, "\\u{:04X}", u32::from(control)).expect("a String takes all text");
            }
            plain => quoted.push(plain),
        }
    }
    quoted.push('"');
    quoted
}

/// The value as a whole number that is not negative, if it is one.
pub(super) fn whole(value: &Value) -> Option<u64> {
    let signed = value.to_i128();
    signed.or_else(|| value.to_u128().and_then(|number| i128::try_from(number).ok()))?.try_into().ok()
}
