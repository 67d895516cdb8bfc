//! Reads result files. What is wrong with one is said with the file, the run and the field.

use crate::result::RunResult;
use anyhow::{Context, bail, ensure};
use serde_json::Value;
use std::path::Path;

/// All runs of a file.
pub(crate) fn runs(file: &Path) -> anyhow::Result<Vec<RunResult>> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    parse(&text).with_context(|| file.display().to_string())
}

fn parse(text: &str) -> anyhow::Result<Vec<RunResult>> {
    let value: Value = serde_json::from_str(text).context("not JSON")?;
    let Value::Array(runs) = value else { bail!("not an array of runs but {}", kind(&value)) };
    let pattern = serde_json::to_value(RunResult::default())?;
    (1..).zip(runs).map(|(number, run)| one(run, &pattern).with_context(|| format!("run {number}"))).collect()
}

/// A run whose published fields are all there. Other fields are let pass: the schema may grow.
fn one(run: Value, pattern: &Value) -> anyhow::Result<RunResult> {
    check(&run, pattern, "the run")?;
    // Half of the details is none of them.
    for key in ["clients_cpu_us_per_activation", "curve", "series", "about"] {
        ensure!(run.get("about").is_none() || run.get(key).is_some(), "`{key}` is missing beside `about`");
    }
    serde_json::from_value(run).context("a value out of its range")
}

/// Whether a value has the kind, and an object the fields, of the pattern.
fn check(value: &Value, pattern: &Value, path: &str) -> anyhow::Result<()> {
    ensure!(kind(value) == kind(pattern), "`{path}` is {}, not {}", kind(value), kind(pattern));
    for (key, inner) in pattern.as_object().into_iter().flatten() {
        let path = if path == "the run" { key.clone() } else { format!("{path}.{key}") };
        let found = value.get(key).with_context(|| format!("`{path}` is missing"))?;
        check(found, inner, &path)?;
    }
    Ok(())
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::{About, Details, Quantile, Sample};

    fn text(change: impl FnOnce(&mut Value)) -> String {
        let mut run = serde_json::to_value(RunResult { target: "router".to_owned(), ..RunResult::default() }).unwrap();
        change(&mut run);
        Value::Array(vec![run]).to_string()
    }

    fn refused(text: &str) -> String {
        format!("{:#}", parse(text).unwrap_err())
    }

    #[test]
    fn what_is_written_is_read() {
        let run = parse(&text(|_| {})).unwrap().remove(0);
        assert_eq!((run.target.as_str(), run.details.is_none()), ("router", true));
        let details = Details {
            clients_cpu_us_per_activation: 1.5,
            queued: 4,
            curve: vec![Quantile { quantile: 0.5, us: 12.5 }],
            series: vec![Sample { at_s: 1.0, out: 3, rate_per_s: 10.0 }],
            about: About { commit: "abc".to_owned(), ..About::default() },
            ..Details::default()
        };
        let all = serde_json::to_string(&[RunResult { details: Some(details), ..RunResult::default() }]).unwrap();
        let details = parse(&all).unwrap().remove(0).details.unwrap();
        assert_eq!((details.about.commit.as_str(), details.series[0].out, details.curve.len()), ("abc", 3, 1));
    }

    #[test]
    fn a_fault_is_said_with_its_run_and_field() {
        let missing = text(|run| drop(run["latency_us"].as_object_mut().unwrap().remove("p99")));
        assert_eq!(refused(&missing), "run 1: `latency_us.p99` is missing");
        let wrong = text(|run| run["achieved_per_s"] = "fast".into());
        assert_eq!(refused(&wrong), "run 1: `achieved_per_s` is a string, not a number");
        let negative = text(|run| run["completed"] = (-1).into());
        assert!(refused(&negative).starts_with("run 1: a value out of its range"), "{}", refused(&negative));
        let half = text(|run| run["about"] = Value::Object(serde_json::Map::new()));
        assert_eq!(refused(&half), "run 1: `clients_cpu_us_per_activation` is missing beside `about`");
    }

    #[test]
    fn what_is_no_result_file_is_refused() {
        assert!(refused("[{]").starts_with("not JSON: key must be a string at line 1 column 3"));
        assert_eq!(refused("{}"), "not an array of runs but an object");
        assert_eq!(refused("[7]"), "run 1: `the run` is a number, not an object");
    }

    #[test]
    fn the_file_is_named() {
        let refused = runs(Path::new("/nowhere/results.json")).unwrap_err();
        assert!(format!("{refused:#}").contains("/nowhere/results.json"));
    }
}
