//! A file system that fails: what the store says then, and that it goes on once it can.

use crate::small::{LANES, config, plain, read, scratch};
use overflow::contract::{ALL, append, entry};
use overflow::disk::files::Real;
use overflow::disk::{Disk, OpenError};
use overflow::faulty::{Call, EACCES, EDQUOT, EFBIG, EIO, ENOSPC, EROFS, Faulty, Op, Verdict};
use overflow::{AppendError, ConsumeError, Entry, Group, Marks, Overflow, ReadError};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// A store whose file system can be made to fail.
struct Failing {
    dir: tempfile::TempDir,
    faults: Arc<AtomicBool>,
}

impl Failing {
    fn new() -> Self {
        Self { dir: scratch(), faults: Arc::default() }
    }

    /// A store on which, while faults are on, `verdict` holds for what it names.
    fn open(&self, verdict: impl Fn(&Call<'_>) -> Option<Verdict> + Send + Sync + 'static) -> Disk {
        self.try_open(verdict).unwrap()
    }

    fn try_open(
        &self,
        verdict: impl Fn(&Call<'_>) -> Option<Verdict> + Send + Sync + 'static,
    ) -> Result<Disk, OpenError> {
        let faults = Arc::clone(&self.faults);
        let judge = move |call: &Call<'_>| {
            let now = faults.load(Ordering::Relaxed) && !call.done;
            now.then(|| verdict(call)).flatten().unwrap_or(Verdict::Go)
        };
        Disk::open_on(Arc::new(Faulty::new(Arc::new(Real), judge)), &config(self.dir.path()))
    }

    fn set(&self, faults: bool) {
        self.faults.store(faults, Ordering::Relaxed);
    }

    fn reopened(&self) -> Disk {
        self.set(false);
        self.open(|_| None)
    }
}

fn is_segment(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "log")
}

fn is_marks(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("marks"))
}

fn fails(op: Op, errno: i32) -> impl Fn(&Call<'_>) -> Option<Verdict> {
    move |call| (call.op == op && is_segment(call.path)).then_some(Verdict::Fail(errno))
}

fn bodies(store: &Disk, lane: u16) -> Vec<Vec<u8>> {
    plain(&read(store, lane)).into_iter().map(|(_, body)| body).collect()
}

fn one(store: &Disk, body: &str) -> Result<u64, AppendError> {
    store.append(&[entry(0, body)]).remove(0)
}

#[test]
fn a_failed_sync_ends_its_segment_for_good() {
    let failing = Failing::new();
    let store = failing.open(fails(Op::Sync, EIO));
    append(&store, 0, ["a", "b"]);
    failing.set(true);
    let unknown = one(&store, "lost");
    assert!(matches!(&unknown, Err(AppendError::Unknown(why)) if why.contains(".log")), "{unknown:?}");
    assert_eq!(bodies(&store, 0), [b"a", b"b"]);
    failing.set(false);
    append(&store, 0, ["c"]);
    assert_eq!(bodies(&store, 0), [b"a", b"b", b"c"]);
    let files = crate::small::segments(failing.dir.path(), 0);
    assert_eq!(files.len(), 2, "a new segment: {files:?}");
    drop(store);
    // What the failed sync left is in the file, whole, and void.
    let store = failing.reopened();
    assert_eq!((bodies(&store, 0), store.usage().damaged), (vec![vec![b'a'], vec![b'b'], vec![b'c']], 0));
}

#[test]
fn what_a_failed_sync_left_may_come_up_only_if_nothing_followed() {
    let failing = Failing::new();
    let store = failing.open(fails(Op::Sync, EIO));
    append(&store, 0, ["a"]);
    failing.set(true);
    one(&store, "unknown").unwrap_err();
    drop(store);
    let store = failing.reopened();
    assert_eq!(bodies(&store, 0), [&b"a"[..], b"unknown"]);
    let position = append(&store, 0, ["b"])[0];
    assert!(position > 1);
    assert_eq!(bodies(&store, 0), [&b"a"[..], b"unknown", b"b"]);
}

#[test]
fn a_new_segment_whose_sync_fails_holds_nothing() {
    for op in [Op::SyncNew, Op::SyncDir] {
        let failing = Failing::new();
        let store = failing.open(move |call| (call.op == op).then_some(Verdict::Fail(EIO)));
        failing.set(true);
        assert!(matches!(one(&store, "lost"), Err(AppendError::Unknown(_))));
        assert!(matches!(one(&store, "lost, too"), Err(AppendError::Unknown(_))));
        assert_eq!(store.span(0).first, store.span(0).next);
        failing.set(false);
        append(&store, 0, ["a"]);
        assert_eq!(bodies(&store, 0), [b"a"]);
        store.consume(0, &Marks::up_to(store.span(0).next), 1).unwrap();
        drop(store);
        let store = failing.reopened();
        assert_eq!(bodies(&store, 0), [[0; 0]; 0]);
        append(&store, 0, ["b"]);
        assert_eq!((bodies(&store, 0), store.usage().damaged), (vec![vec![b'b']], 0));
    }
}

#[test]
fn a_failing_lane_leaves_the_others_alone() {
    let failing = Failing::new();
    let lane = |call: &Call<'_>| call.path.to_string_lossy().contains("lane-00000") && call.op == Op::Sync;
    let store = failing.open(move |call| lane(call).then_some(Verdict::Fail(EIO)));
    append(&store, 0, ["a"]);
    append(&store, 1, ["b"]);
    failing.set(true);
    let results = store.append(&[entry(0, "c"), entry(1, "d"), entry(0, "e"), entry(1, "f")]);
    assert_eq!(results.iter().map(Result::is_ok).collect::<Vec<_>>(), [false, true, false, true]);
    assert_eq!(bodies(&store, 1), [b"b", b"d", b"f"]);
}

#[test]
fn a_full_device_is_said_and_gone_once_there_is_space() {
    for part in [0, 1, 24, 30, 1000] {
        let failing = Failing::new();
        let full = move |call: &Call<'_>| {
            (call.op == Op::Write && is_segment(call.path)).then_some(Verdict::Part(part, ENOSPC))
        };
        let store = failing.open(full);
        failing.set(true);
        assert!(matches!(one(&store, "lost"), Err(AppendError::Full(_))), "a new segment");
        failing.set(false);
        append(&store, 0, ["a"]);
        let before = store.usage();
        failing.set(true);
        assert!(matches!(one(&store, "lost"), Err(AppendError::Full(_))), "an old one");
        assert!(matches!(one(&store, &"long".repeat(200)), Err(AppendError::Full(_))), "the next one");
        assert_eq!(store.usage(), before);
        failing.set(false);
        append(&store, 0, ["b"]);
        assert_eq!(bodies(&store, 0), [b"a", b"b"]);
        drop(store);
        let store = failing.reopened();
        assert_eq!((bodies(&store, 0), store.usage().damaged), (vec![vec![b'a'], vec![b'b']], 0));
    }
}

/// Whatever says that there is no space, and wherever: refused as full, nothing left behind, and over once there is some.
#[test]
fn no_space_of_any_kind_is_a_full_store() {
    let part = |call: &Call<'_>, errno| Verdict::Part(call.bytes / 2, errno);
    for errno in [ENOSPC, EDQUOT, EFBIG] {
        for (op, fresh) in
            [(Op::Create, true), (Op::Write, true), (Op::Write, false), (Op::SyncNew, true), (Op::Sync, false)]
        {
            let failing = Failing::new();
            // A sync fails once: what is cut off again has to be synced too.
            let once = AtomicBool::new(true);
            let verdict = move |call: &Call<'_>| {
                let hit = call.op == op && is_segment(call.path);
                let syncs = matches!(op, Op::Sync | Op::SyncNew);
                let hit = hit && (!syncs || once.swap(false, Ordering::Relaxed));
                hit.then(|| if op == Op::Write { part(call, errno) } else { Verdict::Fail(errno) })
            };
            let store = failing.open(verdict);
            if !fresh {
                append(&store, 0, ["a"]);
            }
            let (before, was) = (store.usage(), lengths(failing.dir.path()));
            failing.set(true);
            let refused = one(&store, "refused");
            assert!(matches!(&refused, Err(AppendError::Full(why)) if why.contains(".log")), "{op:?}: {refused:?}");
            assert_eq!((store.usage(), lengths(failing.dir.path())), (before, was), "{op:?} {errno}");
            failing.set(false);
            let store = if errno == EFBIG {
                drop(store);
                failing.reopened()
            } else {
                store
            };
            append(&store, 0, ["b"]);
            let due: &[&[u8]] = if fresh { &[b"b"] } else { &[b"a", b"b"] };
            assert_eq!(bodies(&store, 0), due, "{op:?} {errno}");
            drop(store);
            let store = failing.reopened();
            assert_eq!((bodies(&store, 0), store.usage().damaged), (due.iter().map(|one| one.to_vec()).collect(), 0));
        }
    }
}

/// Lengths of all files but notes, which a refused append may make.
fn lengths(dir: &Path) -> Vec<(std::path::PathBuf, u64)> {
    let mut all: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    all.sort();
    let lengths = |path: std::path::PathBuf| {
        if path.is_dir() { lengths(&path) } else { vec![(path.clone(), path.metadata().unwrap().len())] }
    };
    all.into_iter().flat_map(lengths).collect()
}

/// A mark that finds no space takes back what it wrote, for a file of its own would need space. Nothing else depends on it.
#[test]
fn a_mark_without_space_is_refused_and_set_later() {
    for errno in [ENOSPC, EDQUOT, EFBIG] {
        for copies in [0, 1] {
            let failing = Failing::new();
            let writes = AtomicU64::new(0);
            // What stood there before can be written again; a new file cannot be made.
            let verdict = move |call: &Call<'_>| {
                let fail = match call.op {
                    Op::Create => true,
                    Op::Write => writes.fetch_add(1, Ordering::Relaxed) == copies,
                    _ => false,
                };
                (fail && is_marks(call.path)).then_some(Verdict::Fail(errno))
            };
            let store = failing.open(verdict);
            append(&store, 0, ["a", "b", "c"]);
            append(&store, 1, ["d", "e"]);
            store.consume(0, &Marks::up_to(1), 1).unwrap();
            failing.set(true);
            let refused = store.consume(0, &Marks { before: 2, groups: &[(Group(0), 3)] }, 1);
            assert!(matches!(&refused, Err(ConsumeError::Unavailable(why)) if why.contains("marks")), "{refused:?}");
            assert_eq!(bodies(&store, 0), [b"b", b"c"]);
            // Another lane's, in the same file; the refused one does not come along with it.
            store.consume(1, &Marks::up_to(1), 2).unwrap();
            drop(store);
            let store = failing.reopened();
            assert_eq!((bodies(&store, 0), bodies(&store, 1)), (vec![vec![b'b'], vec![b'c']], vec![vec![b'e']]));
            store.consume(0, &Marks { before: 2, groups: &[(Group(0), 3)] }, 1).unwrap();
            assert_eq!(bodies(&store, 0), [[0; 0]; 0]);
        }
    }
}

/// A new file for the marks that does not come to be whole is no use, and takes no space.
#[test]
fn marks_that_find_no_space_for_a_new_file_leave_none() {
    let failing = Failing::new();
    let verdict = |call: &Call<'_>| match call.op {
        Op::Sync if is_marks(call.path) => Some(Verdict::Fail(EIO)),
        Op::Write if call.path.ends_with("marks.new") => Some(Verdict::Part(5000, ENOSPC)),
        _ => None,
    };
    let store = failing.open(verdict);
    append(&store, 0, ["a", "b"]);
    failing.set(true);
    for _ in 0..3 {
        assert!(matches!(store.consume(0, &Marks::up_to(1), 1), Err(ConsumeError::Unavailable(_))));
        assert!(!failing.dir.path().join("marks.new").exists());
    }
    failing.set(false);
    store.consume(0, &Marks::up_to(1), 1).unwrap();
    drop(store);
    assert_eq!(bodies(&failing.reopened(), 0), [b"b"]);
}

#[test]
fn a_write_that_cannot_be_taken_back_may_have_been_taken() {
    let failing = Failing::new();
    let store = failing.open(|call| match call.op {
        Op::Write if is_segment(call.path) => Some(Verdict::Part(1000, EIO)),
        Op::SetLen | Op::Remove => Some(Verdict::Fail(EIO)),
        _ => None,
    });
    append(&store, 0, ["a"]);
    failing.set(true);
    assert!(matches!(one(&store, "lost"), Err(AppendError::Unknown(_))));
    assert!(matches!(one(&store, "lost, too"), Err(AppendError::Unknown(_))));
    failing.set(false);
    append(&store, 0, ["b"]);
    assert_eq!(bodies(&store, 0), [b"a", b"b"]);
    drop(store);
    let store = failing.reopened();
    assert_eq!((bodies(&store, 0), store.usage().damaged), (vec![vec![b'a'], vec![b'b']], 0));
}

#[test]
fn what_cannot_be_written_is_unavailable() {
    for errno in [EROFS, EACCES, EIO] {
        let failing = Failing::new();
        let store = failing.open(fails(Op::Create, errno));
        failing.set(true);
        assert!(matches!(one(&store, "a"), Err(AppendError::Unavailable(_))));
        failing.set(false);
        append(&store, 0, ["a"]);
    }
}

#[test]
fn what_cannot_be_read_is_not_skipped() {
    for op in [Op::Open, Op::Read] {
        let failing = Failing::new();
        let store = failing.open(fails(op, EIO));
        append(&store, 0, ["a", "b"]);
        failing.set(true);
        assert!(matches!(store.read(0, 0, None, ALL), Err(ReadError::Unavailable(_))));
        failing.set(false);
        assert_eq!(bodies(&store, 0), [b"a", b"b"]);
        assert_eq!(store.usage().damaged, 0);
    }
}

#[test]
fn a_mark_that_is_not_durable_is_refused_and_nothing_trusts_the_file_again() {
    for op in [Op::Write, Op::Sync] {
        let failing = Failing::new();
        let fail = move |call: &Call<'_>| (call.op == op && is_marks(call.path)).then_some(Verdict::Fail(EIO));
        let store = failing.open(fail);
        append(&store, 0, ["a", "b", "c"]);
        store.consume(0, &Marks::up_to(1), 1).unwrap();
        failing.set(true);
        assert!(matches!(store.consume(0, &Marks::up_to(2), 1), Err(ConsumeError::Unavailable(_))));
        assert_eq!(bodies(&store, 0), [b"b", b"c"]);
        failing.set(false);
        append(&store, 1, ["d"]);
        // Another lane's mark makes a new file, and what the old one may have been left with is gone.
        // Two: the one of lane 0, which is still in hand, counts along.
        store.consume(1, &Marks::up_to(1), 2).unwrap();
        drop(store);
        let store = failing.reopened();
        assert_eq!(bodies(&store, 0), [b"b", b"c"]);
        assert_eq!((bodies(&store, 1).len(), store.usage().lost_in_crash_max), (0, 2));
    }
}

#[test]
fn marks_that_cannot_be_renewed_stay_refused() {
    let failing = Failing::new();
    let store = failing.open(|call| is_marks(call.path).then_some(Verdict::Fail(EROFS)));
    append(&store, 0, ["a", "b"]);
    failing.set(true);
    for _ in 0..3 {
        assert!(matches!(store.consume(0, &Marks::up_to(1), 1), Err(ConsumeError::Unavailable(_))));
    }
    failing.set(false);
    store.consume(0, &Marks::up_to(1), 1).unwrap();
    drop(store);
    assert_eq!(bodies(&failing.reopened(), 0), [b"b"]);
}

#[test]
fn a_segment_that_cannot_be_removed_is_tried_again() {
    let failing = Failing::new();
    let store = failing.open(fails(Op::Remove, EIO));
    let positions = append(&store, 0, (0..3).map(|n| vec![n; 200]));
    append(&store, 0, ["more"]);
    failing.set(true);
    let files = || crate::small::segments(failing.dir.path(), 0).len();
    let before = files();
    store.consume(0, &Marks::up_to(positions[2] + 1), 3).unwrap();
    assert_eq!(files(), before);
    failing.set(false);
    append(&store, 0, ["yet more"]);
    store.consume(0, &Marks::up_to(positions[2] + 2), 1).unwrap();
    assert!(files() < before + 1);
    assert_eq!(bodies(&store, 0), [b"yet more"]);
}

#[test]
fn what_fails_at_opening_is_named_and_can_be_tried_again() {
    let failing = Failing::new();
    drop(failing.open(|_| None));
    for op in [Op::MakeDir, Op::List, Op::Open, Op::Lock, Op::Read, Op::Look] {
        failing.set(true);
        let error = failing.try_open(move |call| (call.op == op).then_some(Verdict::Fail(EACCES))).unwrap_err();
        let words = error.to_string();
        assert!(words.contains(&failing.dir.path().display().to_string()) && words.contains("denied"), "{words}");
        failing.set(false);
        drop(failing.open(|_| None));
    }
}

#[test]
fn a_store_that_was_not_made_to_the_end_is_made_again() {
    for number in 0.. {
        let failing = Failing::new();
        failing.set(true);
        let calls = std::sync::atomic::AtomicU64::new(0);
        let changes = [Op::MakeDir, Op::Create, Op::Write, Op::SyncNew, Op::SyncDir, Op::Rename, Op::Remove];
        let opened = failing.try_open(move |call| {
            let now = changes.contains(&call.op) && calls.fetch_add(1, Ordering::Relaxed) == number;
            // A part is written where it is a write.
            now.then_some(if call.op == Op::Write { Verdict::Part(call.bytes / 2, EIO) } else { Verdict::Fail(EIO) })
        });
        let whole = opened.is_ok();
        drop(opened);
        let store = failing.reopened();
        append(&store, 0, ["a"]);
        assert_eq!(bodies(&store, 0), [b"a"]);
        if whole {
            assert!(number > 10);
            return;
        }
    }
}

#[test]
fn a_second_opening_is_refused_until_the_first_lets_go() {
    let failing = Failing::new();
    let store = failing.open(|_| None);
    let second = Disk::open(&config(failing.dir.path()));
    assert!(matches!(second, Err(OpenError::Locked { .. })), "{second:?}");
    store.close();
    Disk::open(&config(failing.dir.path())).unwrap();
}

#[test]
fn the_number_of_lanes_is_fixed() {
    let failing = Failing::new();
    drop(failing.open(|_| None));
    let more = overflow::disk::Config { lanes: LANES + 1, ..config(failing.dir.path()) };
    let error = Disk::open(&more).unwrap_err();
    assert!(matches!(error, OpenError::Lanes { stored: LANES, .. }), "{error}");
}

#[test]
fn files_belong_to_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let failing = Failing::new();
    let dir = failing.dir.path().join("deeper/store");
    let store = Disk::open(&config(&dir)).unwrap();
    append(&store, 0, ["secret"]);
    let mut left = vec![dir];
    while let Some(path) = left.pop() {
        let mode = path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, if path.is_dir() { 0o700 } else { 0o600 }, "{path:?}");
        if path.is_dir() {
            left.extend(std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
}

#[test]
fn a_deleted_directory_is_noticed() {
    let failing = Failing::new();
    let store = failing.open(|_| None);
    append(&store, 0, ["a"]);
    append(&store, 1, ["b"]);
    for name in ["lane-00000", "lane-00001", "marks"] {
        let path = failing.dir.path().join(name);
        if path.is_dir() { std::fs::remove_dir_all(path).unwrap() } else { std::fs::remove_file(path).unwrap() }
    }
    for _ in 0..2 {
        let refused = one(&store, "c");
        let named = matches!(&refused, Err(AppendError::Unknown(why) | AppendError::Unavailable(why)) if why.contains("lane-00000"));
        assert!(named, "{refused:?}");
    }
    let batch = store.read(1, 0, None, ALL).unwrap();
    assert_eq!((batch.records, batch.damaged, batch.next), (vec![], 1, 1));
    let marked = store.consume(0, &Marks::up_to(1), 1);
    assert!(matches!(&marked, Err(ConsumeError::Unavailable(why)) if why.contains("marks")), "{marked:?}");
    store.close();
}

/// What failed stays void, whatever is given back of what came behind it, and positions that nobody has are not missed.
#[test]
fn what_failed_stays_void_when_what_follows_is_given_back() {
    let failing = Failing::new();
    let store = failing.open(|call| match call.op {
        Op::Sync | Op::SyncNew if is_segment(call.path) => Some(Verdict::Fail(EIO)),
        _ => None,
    });
    let of = |group: u64, body: &str| Entry { group: Group(group), ..entry(0, body) };
    let fail = |body: &str| {
        failing.set(true);
        assert!(matches!(store.append(&[of(1, body), of(2, body)])[0], Err(AppendError::Unknown(_))));
        failing.set(false);
    };
    assert!(store.append(&[of(1, "a")])[0].is_ok());
    // At the end of a segment, then with a new one, twice.
    ["void 1", "void 2", "void 3"].into_iter().for_each(&fail);
    assert!(store.append(&[of(2, "b"), of(2, &"b".repeat(300))]).iter().all(Result::is_ok));
    ["void 4", "void 5"].into_iter().for_each(&fail);
    assert!(store.append(&[of(2, "c")])[0].is_ok());
    let end = store.span(0).next;
    let copy = |name: &str| {
        let dir = scratch();
        let to = dir.path().join(name);
        assert!(
            std::process::Command::new("cp").arg("-a").arg(failing.dir.path()).arg(&to).status().unwrap().success()
        );
        (dir, to)
    };
    let opened = |dir: &Path| {
        let store = Disk::open(&config(dir)).unwrap();
        let left: Vec<Vec<u8>> = bodies(&store, 0).into_iter().map(|body| body[..1].to_vec()).collect();
        assert_eq!(store.usage().damaged, 0);
        left
    };
    let (_kept, as_it_is) = copy("as it is");
    assert_eq!(opened(&as_it_is), [b"a", b"b", b"b", b"c"]);
    store.consume(0, &Marks { before: 0, groups: &[(Group(2), end)] }, 3).unwrap();
    let (_kept, given_back) = copy("given back");
    assert_eq!(opened(&given_back), [b"a"]);
    assert!(store.append(&[of(2, "d")])[0].is_ok());
    let (_kept, gone_on) = copy("gone on");
    assert_eq!(opened(&gone_on), [b"a", b"d"]);
    drop(store);
    assert_eq!(opened(failing.dir.path()), [b"a", b"d"]);
}
