//! Result files made into one page for people: a single file of HTML with its pictures and its style in it, and no script.
//!
//! `read` takes files apart and says what is wrong with them; `figures` are what is shown of runs; `chart` and `bars` draw; `page` puts
//! everything together.

mod bars;
mod chart;
mod figures;
mod page;
mod read;

use anyhow::{Context, ensure};
use clap::Args;
use std::path::{Path, PathBuf};

/// Flags of `report`.
#[derive(Debug, Args)]
pub(crate) struct ReportArgs {
    /// Result files of `run`, `compare`, `bars` and `replay`; those of `compare --details` have the most to show.
    #[arg(required = true, value_name = "RESULT.json")]
    results: Vec<PathBuf>,
    /// Where the page goes.
    #[arg(long, value_name = "FILE", required_unless_present = "svg")]
    out: Option<PathBuf>,
    /// One picture, for a README: throughput and server CPU of the closed loop with most in flight, by target.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

/// Reads the results and writes the page, the picture, or both.
pub(crate) fn report(args: &ReportArgs) -> anyhow::Result<()> {
    let mut runs = Vec::new();
    for file in &args.results {
        runs.extend(read::runs(file)?);
    }
    ensure!(!runs.is_empty(), "there is no run in these files");
    if let Some(out) = &args.out {
        write(out, &page::page(&runs))?;
    }
    if let Some(svg) = &args.svg {
        write(svg, &bars::picture(&runs)?)?;
    }
    Ok(())
}

fn write(file: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}
