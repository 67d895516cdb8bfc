//! Real file systems that are full or read-only: a small one in memory is mounted for each test. That takes root on Linux;
//! elsewhere a test says that it did nothing. `faults` holds the same without, on a file system that plays them.

use crate::small::{config, plain, read, scratch};
use overflow::contract::{append, entry};
use overflow::disk::{Config, Disk, OpenError};
use overflow::{AppendError, Overflow};
use std::path::Path;
use std::process::Command;

/// A file system of 1 MiB, unmounted on drop.
struct Mounted(tempfile::TempDir);

impl Mounted {
    fn new() -> Option<Self> {
        let dir = scratch();
        let mounted = run("mount", &["-t", "tmpfs", "-o", "size=1m,mode=700", "tmpfs"], dir.path());
        if !mounted {
            eprintln!("skipped: no file system can be mounted here");
        }
        mounted.then(|| Self(dir))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        run("umount", &["--lazy"], self.0.path());
    }
}

fn run(command: &str, arguments: &[&str], path: &Path) -> bool {
    let output = Command::new(command).args(arguments).arg(path).output();
    output.is_ok_and(|output| output.status.success())
}

#[test]
fn a_device_that_is_full_is_said_and_gone_once_there_is_space() {
    let Some(device) = Mounted::new() else { return };
    let config = Config { segment_bytes: 64 << 10, ..config(device.path()) };
    let store = Disk::open(&config).unwrap();
    for round in 0..3 {
        let mut taken = 0;
        let refusal = loop {
            match store.append(&[entry(0, vec![round; 3000]), entry(1, "b")]).remove(0) {
                Ok(_) => taken += 1,
                Err(error) => break error,
            }
        };
        assert!(matches!(&refusal, AppendError::Full(why) if why.contains(".log")), "{refusal}");
        assert!(taken > 100, "{taken}");
        // Marking takes no space.
        let left = plain(&read(&store, 0));
        assert_eq!(left.len(), taken);
        assert!(left.iter().all(|(_, body)| *body == [round; 3000]));
        (0..2).for_each(|lane| store.consume(lane, store.span(lane).next, 1).unwrap());
    }
    append(&store, 0, ["a"]);
    drop(store);
    let store = Disk::open(&config).unwrap();
    assert_eq!((plain(&read(&store, 0))[0].1.as_slice(), store.usage().damaged), (&b"a"[..], 0));
}

#[test]
fn a_crash_on_a_full_device_loses_nothing() {
    let Some(device) = Mounted::new() else { return };
    let store = Disk::open(&config(device.path())).unwrap();
    let mut taken = 0;
    while store.append(&[entry(0, vec![7; 1000])])[0].is_ok() {
        taken += 1;
    }
    drop(store);
    let store = Disk::open(&config(device.path())).unwrap();
    let left = plain(&read(&store, 0));
    assert_eq!((left.len(), store.usage().damaged), (taken, 0));
    store.consume(0, store.span(0).next, 1).unwrap();
    append(&store, 0, ["a"]);
}

#[test]
fn a_device_too_small_to_begin_with_is_named() {
    let Some(device) = Mounted::new() else { return };
    let config = Config { lanes: 100, ..config(&device.path().join("store")) };
    let error = Disk::open(&config).unwrap_err();
    assert!(matches!(&error, OpenError::Io { path, .. } if path.ends_with("marks")), "{error}");
    let config = Config { lanes: 4, ..config };
    append(&Disk::open(&config).unwrap(), 0, ["a"]);
}

#[test]
fn a_read_only_device_is_refused_at_opening() {
    let Some(device) = Mounted::new() else { return };
    append(&Disk::open(&config(device.path())).unwrap(), 0, ["a"]);
    assert!(run("mount", &["-o", "remount,ro"], device.path()));
    let error = Disk::open(&config(device.path())).unwrap_err();
    assert!(matches!(&error, OpenError::Io { what: "lock", .. }), "{error}");
    assert!(run("mount", &["-o", "remount,rw"], device.path()));
    assert_eq!(plain(&read(&Disk::open(&config(device.path())).unwrap(), 0)), [(0, b"a".to_vec())]);
}
