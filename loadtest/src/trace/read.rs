//! Reads a trace from two CSV files: counts and functions, plain or compressed with gzip.
//!
//! A file is taken whole or refused whole, and the refusal names file, line, column and what was expected there. Columns
//! are found by name, in any order; those not named here are left alone.
//!
//! - counts: `minute` (from 1), `fn`, `count`; an absent cell is 0, and so is a cell that says 0.
//! - functions: `fn`, `app`, `owner`, `trigger`, `min_ms`, `p1_ms`, `p25_ms`, `p50_ms`, `p75_ms`, `p99_ms`, `max_ms`.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use csv::StringRecord;
use flate2::bufread::MultiGzDecoder;

use super::service_time::SERVICE_MS_MAX;
use super::{COUNT_MAX, Count, Function, MINUTE_MAX, ServiceTime, Trace, Trigger};

/// Reads the files at `counts` and `functions`.
///
/// # Errors
/// When a file cannot be read, lacks a column, holds a value out of place, invokes a function that the functions file
/// does not have, or says something twice: a second row for a function, or for a function and minute, is refused and not
/// summed, because it more likely means a file joined to itself.
pub(crate) fn read(counts: &Path, functions: &Path) -> Result<Trace> {
    let functions = in_file(functions, read_functions)?;
    let indices = functions.iter().map(|function| function.id).zip(0..).collect();
    let counts = in_file(counts, |text| read_counts(text, &indices))?;
    Ok(Trace { functions, counts })
}

/// Gives the decompressed text at `path` to `read`, whose error then starts with the file's name.
fn in_file<T>(path: &Path, read: impl FnOnce(Box<dyn Read>) -> Result<T>) -> Result<T> {
    open(path).and_then(read).with_context(|| format!("{}", path.display()))
}

/// The first bytes decide whether the file is compressed, whatever its name says.
fn open(path: &Path) -> Result<Box<dyn Read>> {
    let mut file = BufReader::new(File::open(path)?);
    let compressed = file.fill_buf()?.starts_with(&GZIP_MAGIC);
    Ok(if compressed { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) })
}

fn read_functions(text: impl Read) -> Result<Vec<Function>> {
    let mut table = Table::open(text, &FUNCTION_COLUMNS)?;
    let mut lines = HashMap::new();
    let mut functions = Vec::new();
    while let Some(row) = table.next_row()? {
        let function = read_function(&row)?;
        row.refuse_second(lines.insert(function.id, row.line), "fn", "one row per function")?;
        functions.push(function);
    }
    Ok(functions)
}

fn read_function(row: &Row<'_>) -> Result<Function> {
    let mut points_ms = [0.0; 7];
    for (point, column) in points_ms.iter_mut().zip(POINT_COLUMNS) {
        *point = row.millis(column)?;
    }
    Ok(Function {
        id: row.number("fn", 0..=u32::MAX)?,
        app: row.number("app", 0..=u32::MAX)?,
        owner: row.number("owner", 0..=u32::MAX)?,
        trigger: row.trigger()?,
        service_time: ServiceTime::from_millis(points_ms),
    })
}

fn read_counts(text: impl Read, indices: &HashMap<u32, u32>) -> Result<Vec<Count>> {
    let mut table = Table::open(text, &COUNT_COLUMNS)?;
    let mut lines = HashMap::new();
    let mut counts = Vec::new();
    while let Some(row) = table.next_row()? {
        let cell = read_count(&row, indices)?;
        let before = lines.insert((cell.minute, cell.function), row.line);
        row.refuse_second(before, "fn", "one row per function and minute")?;
        counts.push(cell);
    }
    counts.retain(|cell| cell.count > 0);
    counts.sort_unstable_by_key(|cell| (cell.minute, cell.function));
    Ok(counts)
}

fn read_count(row: &Row<'_>, indices: &HashMap<u32, u32>) -> Result<Count> {
    let id = row.number("fn", 0..=u32::MAX)?;
    let Some(&function) = indices.get(&id) else {
        return row.refuse("fn", "a function of the functions file");
    };
    Ok(Count { minute: row.number("minute", 1..=MINUTE_MAX)?, function, count: row.number("count", 0..=COUNT_MAX)? })
}

/// A CSV file with the columns it must have.
struct Table<R> {
    rows: csv::Reader<R>,
    /// Where each needed column stands in a row.
    places: HashMap<&'static str, usize>,
    record: StringRecord,
}

impl<R: Read> Table<R> {
    fn open(text: R, columns: &[&'static str]) -> Result<Self> {
        let mut rows = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(text);
        let header = rows.headers().context("line 1")?;
        let mut places = HashMap::new();
        for &column in columns {
            let place = header.iter().position(|name| name == column);
            places.insert(column, place.with_context(|| format!("line 1: expected a column {column}"))?);
        }
        Ok(Self { rows, places, record: StringRecord::new() })
    }

    fn next_row(&mut self) -> Result<Option<Row<'_>>> {
        // The csv crate names the line itself, also for a row that is too short or not UTF-8.
        if !self.rows.read_record(&mut self.record)? {
            return Ok(None);
        }
        let line = self.record.position().map_or(0, csv::Position::line);
        Ok(Some(Row { line, places: &self.places, record: &self.record }))
    }
}

/// One row, which knows its line so that every refusal can say it.
struct Row<'a> {
    line: u64,
    places: &'a HashMap<&'static str, usize>,
    record: &'a StringRecord,
}

impl Row<'_> {
    fn value(&self, column: &str) -> &str {
        self.places.get(column).and_then(|place| self.record.get(*place)).unwrap_or_default()
    }

    fn number(&self, column: &str, range: std::ops::RangeInclusive<u32>) -> Result<u32> {
        match self.value(column).parse() {
            Ok(number) if range.contains(&number) => Ok(number),
            _ => self.refuse(column, &format!("a whole number from {} to {}", range.start(), range.end())),
        }
    }

    fn millis(&self, column: &str) -> Result<f64> {
        match self.value(column).parse() {
            Ok(millis) if (0.0..=SERVICE_MS_MAX).contains(&millis) => Ok(millis),
            _ => self.refuse(column, &format!("milliseconds from 0 to {SERVICE_MS_MAX}")),
        }
    }

    fn trigger(&self) -> Result<Trigger> {
        let words = || Trigger::WORDS.map(|(_, word)| word).join(", ");
        self.value("trigger").parse().or_else(|()| self.refuse("trigger", &format!("one of {}", words())))
    }

    fn refuse<T>(&self, column: &str, expected: &str) -> Result<T> {
        bail!("line {}, column {column}: expected {expected}, found {:?}", self.line, self.value(column))
    }

    fn refuse_second(&self, before: Option<u64>, column: &str, expected: &str) -> Result<()> {
        let found = self.value(column);
        let first = before.unwrap_or_default();
        ensure!(
            before.is_none(),
            "line {}, column {column}: expected {expected}, found {found:?} as on line {first}",
            self.line
        );
        Ok(())
    }
}

const COUNT_COLUMNS: [&str; 3] = ["minute", "fn", "count"];
const FUNCTION_COLUMNS: [&str; 11] =
    ["fn", "app", "owner", "trigger", "min_ms", "p1_ms", "p25_ms", "p50_ms", "p75_ms", "p99_ms", "max_ms"];
/// The columns that give a [`ServiceTime`], in its order.
const POINT_COLUMNS: [&str; 7] = ["min_ms", "p1_ms", "p25_ms", "p50_ms", "p75_ms", "p99_ms", "max_ms"];
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::path::PathBuf;

    use super::*;

    const FUNCTIONS: &str = "fn,app,owner,trigger,total,min_ms,p1_ms,p25_ms,p50_ms,p75_ms,p99_ms,max_ms\n\
        7,1,2,http,9,1.0,2,4,8,16,32,64.0\n\
        3,1,2,timer,1,9.5,2,4,8,16,32,64.0\n";

    fn counts(text: &str) -> Result<Vec<Count>> {
        read_counts(text.as_bytes(), &HashMap::from([(7, 0), (3, 1)]))
    }

    fn refused<T: std::fmt::Debug>(outcome: Result<T>, expected: &str) {
        assert_eq!(format!("{:#}", outcome.unwrap_err()), expected);
    }

    #[test]
    fn reads_functions_by_column_name() {
        let functions = read_functions(FUNCTIONS.as_bytes()).unwrap();
        assert_eq!(functions.len(), 2);
        assert_eq!((functions[1].id, functions[1].owner, functions[1].trigger), (3, 2, Trigger::Timer));
        assert_eq!(functions[0].service_time.sample(0.5).as_millis(), 8);
    }

    #[test]
    fn reads_counts_in_any_order() {
        let read = counts("fn,minute,count\n3,2,5\n7,2,1\n7,1,4\n3,1,0\n").unwrap();
        let cells: Vec<_> = read.iter().map(|cell| (cell.minute, cell.function, cell.count)).collect();
        assert_eq!(cells, [(1, 0, 4), (2, 0, 1), (2, 1, 5)]);
    }

    #[test]
    fn refusals_name_line_column_and_expectation() {
        let header = "minute,fn,count\n";
        let check = |rows: &str, expected: &str| refused(counts(&format!("{header}{rows}")), expected);
        check("1,7,1\n1,8,1\n", "line 3, column fn: expected a function of the functions file, found \"8\"");
        check(
            "1,7,1\n1,7,1\n",
            "line 3, column fn: expected one row per function and minute, found \"7\" as on line 2",
        );
        check("0,7,1\n", "line 2, column minute: expected a whole number from 1 to 527040, found \"0\"");
        check("1,7,-4\n", "line 2, column count: expected a whole number from 0 to 10000000, found \"-4\"");
        refused(counts("minute,fn\n1,7\n"), "line 1: expected a column count");
        refused(counts(""), "line 1: expected a column minute");
        assert!(format!("{:#}", counts("minute,fn,count\n1,7\n").unwrap_err()).contains("line: 2"));
    }

    #[test]
    fn refuses_functions_out_of_place() {
        let check = |from: &str, to: &str, expected: &str| {
            refused(read_functions(FUNCTIONS.replace(from, to).as_bytes()), expected);
        };
        check("\n3,", "\n7,", "line 3, column fn: expected one row per function, found \"7\" as on line 2");
        check("9.5", "NaN", "line 3, column min_ms: expected milliseconds from 0 to 86400000, found \"NaN\"");
        check(
            "timer",
            "cron",
            "line 3, column trigger: expected one of http, timer, queue, event, storage, orchestration, others, found \"cron\"",
        );
    }

    /// A directory for one test, removed with it.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("loadtest-trace-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
            let path = self.0.join(name);
            std::fs::write(&path, bytes).unwrap();
            path
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn gzip(text: &str) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn reads_plain_and_compressed_files() {
        let folder = Folder::new("both");
        let functions = folder.write("functions.csv", FUNCTIONS.as_bytes());
        let plain = folder.write("counts.csv", b"minute,fn,count\n1,3,2\n");
        let packed = folder.write("counts", &gzip("minute,fn,count\n1,3,2\n"));
        let trace = read(&plain, &functions).unwrap();
        assert_eq!(trace.invocations_by_function(), [0, 2]);
        assert_eq!(trace, read(&packed, &functions).unwrap());
    }

    #[test]
    fn refusals_name_the_file() {
        let folder = Folder::new("name");
        let functions = folder.write("functions.csv", FUNCTIONS.as_bytes());
        let counts = folder.write("counts.csv", b"minute,fn,count\n1,4,2\n");
        let cut = gzip("minute,fn,count\n1,3,2\n");
        let cut = folder.write("cut.gz", &cut[..cut.len() - 9]);
        for bad in [counts, cut, folder.0.join("absent")] {
            let error = format!("{:#}", read(&bad, &functions).unwrap_err());
            assert!(error.starts_with(&bad.display().to_string()), "{error}");
        }
    }
}
