//! A limit to the length of files, as the shell's `ulimit -f` sets it. The store runs in a process of its own, which inherits from
//! the shell that the signal for it is ignored, as the router ignores it.

use crate::small::{plain, read, scratch};
use overflow::contract::{append, entry};
use overflow::disk::{Config, Disk};
use overflow::{AppendError, Marks, Overflow};
use std::path::Path;
use std::process::Command;

const DIR: &str = "LIMITED_STORE";

#[test]
fn a_limit_to_the_length_of_files_is_a_full_store() {
    let dir = scratch();
    // 100 KiB, in the shell's unit.
    let script = "trap '' XFSZ; ulimit -f 200; exec \"$0\" --exact limits::fill_and_drain --ignored";
    let mut shell = Command::new("sh");
    shell.args(["-c", script]).arg(std::env::current_exe().unwrap()).env(DIR, dir.path());
    let output = shell.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let store = Disk::open(&config(dir.path())).unwrap();
    assert_eq!((plain(&read(&store, 0)).len(), store.usage().damaged), (1, 0));
}

fn config(dir: &Path) -> Config {
    Config { lanes: 4, ..Config::new(dir.join("store")) }
}

#[test]
#[ignore = "what the test above runs in its own process"]
fn fill_and_drain() {
    let store = Disk::open(&config(Path::new(&std::env::var(DIR).unwrap()))).unwrap();
    for round in 0..3u8 {
        let mut taken = 0;
        let refusal = loop {
            match store.append(&[entry(0, [round; 3000])]).remove(0) {
                Ok(_) => taken += 1,
                Err(error) => break error,
            }
        };
        assert!(matches!(&refusal, AppendError::Full(why) if why.contains(".log")), "{refusal}");
        // Other lanes have files of their own.
        append(&store, 1, ["b"]);
        assert!(taken > 20 && plain(&read(&store, 0)).len() == taken, "{taken}");
        (0..2).for_each(|lane| store.consume(lane, &Marks::up_to(store.span(lane).next), 1).unwrap());
        // A new segment: the full one is not written on once it is consumed, or is refused.
        if matches!(store.append(&[entry(0, [round; 3000])])[0], Err(AppendError::Full(_))) {
            panic!("an empty lane takes what it took");
        }
        store.consume(0, &Marks::up_to(store.span(0).next), 1).unwrap();
    }
    append(&store, 0, ["last"]);
}
