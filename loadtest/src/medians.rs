//! Medians of repeated runs, with the least and the most, as a table: what its columns can be, and how it is laid out. It measures
//! nothing and decides nothing.

use crate::result::{RunResult, median};

/// One column: its head, its figure, its decimals.
pub(crate) type Column = (&'static str, fn(&RunResult) -> f64, usize);

pub(crate) const ACHIEVED: Column = ("achieved/s", |result| result.achieved_per_s, 0);
pub(crate) const P50: Column = ("p50 us", |result| result.latency_us.p50, 0);
pub(crate) const P99: Column = ("p99 us", |result| result.latency_us.p99, 0);
pub(crate) const SERVER_CPU: Column = ("server CPU us/activation", |result| result.server_cpu_us_per_activation, 2);
pub(crate) const KERNEL_CPU: Column = ("of it in the kernel", RunResult::server_kernel_cpu_us_per_activation, 2);
pub(crate) const CLIENTS_CPU: Column = ("clients' CPU us/activation", RunResult::clients_cpu_us_per_activation, 2);
pub(crate) const SERVER_RSS: Column = ("server RSS MiB, most", |result| mib(result.server_rss_bytes_max), 0);
pub(crate) const FRAMES: Column = ("frames written/activation", RunResult::frames_per_activation, 4);
pub(crate) const QUEUED: Column = ("queued meanwhile", |result| whole(result.queued()), 0);
pub(crate) const UNANSWERED: Column = ("unanswered", |result| whole(result.counts.unanswered), 0);
pub(crate) const DUPLICATES: Column = ("duplicates", |result| whole(result.counts.duplicates), 0);

/// One row for each name and its runs.
pub(crate) fn table<'a>(
    names: &str,
    columns: &[Column],
    rows: impl Iterator<Item = (String, Vec<&'a RunResult>)>,
) -> String {
    let heads: Vec<&str> = columns.iter().map(|column| column.0).collect();
    let mut text = format!("| {names} | {} |\n|{}\n", heads.join(" | "), " --- |".repeat(columns.len() + 1));
    for (name, runs) in rows {
        let cells: Vec<String> = columns.iter().map(|column| cell(column, &runs)).collect();
        text += &format!("| {name} | {} |\n", cells.join(" | "));
    }
    text
}

fn cell((_, figure, decimals): &Column, runs: &[&RunResult]) -> String {
    let values: Vec<f64> = runs.iter().map(|run| figure(run)).collect();
    let (least, most) = values.iter().fold((f64::MAX, f64::MIN), |(a, b), v| (a.min(*v), b.max(*v)));
    let middle = median(values);
    if format!("{least:.decimals$}") == format!("{most:.decimals$}") {
        return format!("{middle:.decimals$}");
    }
    format!("{middle:.decimals$} ({least:.decimals$} to {most:.decimals$})")
}

fn mib(bytes: u64) -> f64 {
    whole(bytes) / f64::from(1 << 20)
}

#[allow(clippy::cast_precision_loss)]
fn whole(count: u64) -> f64 {
    count as f64
}
