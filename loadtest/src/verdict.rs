//! What came of a bar, and the table that says so.

/// One row.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) what: &'static str,
    pub(crate) bar: &'static str,
    pub(crate) measured: String,
    pub(crate) met: bool,
}

/// Prints the table. A miss is printed as one.
pub(crate) fn print(verdicts: &[Verdict]) {
    println!("\n| what | bar | measured | |\n| --- | --- | --- | --- |");
    for Verdict { what, bar, measured, met } in verdicts {
        println!("| {what} | {bar} | {measured} | {} |", if *met { "met" } else { "MISSED" });
    }
}
