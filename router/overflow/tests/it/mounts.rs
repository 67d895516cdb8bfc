//! Real file systems that are full or read-only: small ones are mounted for each test, one in memory and ext4 in a file. That
//! takes root on Linux, so they are ignored unless asked for (`-- --ignored mounts`); scripts/test asks where it can mount. `faults`
//! holds the same without, on a file system that plays them.

use crate::small::{config, plain, read, scratch};
use overflow::contract::{append, entry};
use overflow::disk::{Config, Disk, OpenError};
use overflow::{AppendError, Marks, Overflow};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A small file system, unmounted on drop.
struct Mounted {
    dir: tempfile::TempDir,
}

impl Mounted {
    fn all() -> [Self; 2] {
        [Self::memory(), Self::ext4()]
    }

    /// 1 MiB in memory.
    fn memory() -> Self {
        let dir = scratch();
        let mounted = run("mount", &["-t", "tmpfs", "-o", "size=1m,mode=700", "tmpfs"], dir.path());
        assert!(mounted, "a file system in memory cannot be mounted here");
        Self { dir }
    }

    /// 4 MiB in a file, which allocates late and so could refuse late.
    fn ext4() -> Self {
        let dir = scratch();
        let image = dir.path().join("image");
        std::fs::File::create(&image).and_then(|file| file.set_len(4 << 20)).unwrap();
        let point = dir.path().join("mounted");
        std::fs::create_dir(&point).unwrap();
        assert!(run("mkfs.ext4", &["-q", "-m", "0"], &image), "ext4 cannot be made here");
        assert!(run("mount", &["-o", "loop", image.to_str().unwrap()], &point), "ext4 cannot be mounted here");
        Self { dir }
    }

    fn path(&self) -> PathBuf {
        let point = self.dir.path().join("mounted");
        if point.exists() { point } else { self.dir.path().to_owned() }
    }

    /// Where a store goes: its own directory, as ext4 has one in its root.
    fn store(&self) -> PathBuf {
        self.path().join("store")
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        run("umount", &["--lazy"], &self.path());
    }
}

fn run(command: &str, arguments: &[&str], path: &Path) -> bool {
    let output = Command::new(command).args(arguments).arg(path).output();
    output.is_ok_and(|output| output.status.success())
}

#[test]
#[ignore = "takes the right to mount"]
fn a_device_that_is_full_is_said_and_gone_once_there_is_space() {
    Mounted::all().iter().for_each(fill);
}

fn fill(device: &Mounted) {
    let config = Config { segment_bytes: 64 << 10, ..config(&device.store()) };
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
        (0..2).for_each(|lane| store.consume(lane, &Marks::up_to(store.span(lane).next), 1).unwrap());
    }
    append(&store, 0, ["a"]);
    drop(store);
    let store = Disk::open(&config).unwrap();
    assert_eq!((plain(&read(&store, 0))[0].1.as_slice(), store.usage().damaged), (&b"a"[..], 0));
}

#[test]
#[ignore = "takes the right to mount"]
fn a_crash_on_a_full_device_loses_nothing() {
    Mounted::all().iter().for_each(crash);
}

fn crash(device: &Mounted) {
    let store = Disk::open(&config(&device.store())).unwrap();
    let mut taken = 0;
    while store.append(&[entry(0, vec![7; 1000])])[0].is_ok() {
        taken += 1;
    }
    drop(store);
    let store = Disk::open(&config(&device.store())).unwrap();
    let left = plain(&read(&store, 0));
    assert_eq!((left.len(), store.usage().damaged), (taken, 0));
    store.consume(0, &Marks::up_to(store.span(0).next), 1).unwrap();
    append(&store, 0, ["a"]);
}

#[test]
#[ignore = "takes the right to mount"]
fn a_device_too_small_to_begin_with_is_named() {
    Mounted::all().iter().for_each(begin);
}

fn begin(device: &Mounted) {
    let config = Config { lanes: 300, ..config(&device.store()) };
    let error = Disk::open(&config).unwrap_err();
    assert!(matches!(&error, OpenError::Io { path, .. } if path.ends_with("marks")), "{error}");
    let config = Config { lanes: 4, ..config };
    append(&Disk::open(&config).unwrap(), 0, ["a"]);
}

#[test]
#[ignore = "takes the right to mount"]
fn a_read_only_device_is_refused_at_opening() {
    Mounted::all().iter().for_each(open_read_only);
}

fn open_read_only(device: &Mounted) {
    append(&Disk::open(&config(&device.store())).unwrap(), 0, ["a"]);
    assert!(run("mount", &["-o", "remount,ro"], &device.path()));
    let error = Disk::open(&config(&device.store())).unwrap_err();
    assert!(matches!(&error, OpenError::Io { what: "lock", .. }), "{error}");
    assert!(run("mount", &["-o", "remount,rw"], &device.path()));
    assert_eq!(plain(&read(&Disk::open(&config(&device.store())).unwrap(), 0)), [(0, b"a".to_vec())]);
}
