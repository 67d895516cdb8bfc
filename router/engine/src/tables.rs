//! For tests: tables of transitions, kept as text beside the tests. `UPDATE_TABLES=1 cargo test` writes what came out: read the
//! diff before you commit it.

use std::fs;
use std::path::Path;

pub(crate) fn check(file: &str, table: &str) {
    println!("{table}");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tables").join(file);
    if std::env::var_os("UPDATE_TABLES").is_some() {
        fs::write(&path, table).expect("a table can be written");
    }
    let written = fs::read_to_string(&path).expect("a table can be read");
    assert!(written == table, "{file} is not what came out, see above");
}
