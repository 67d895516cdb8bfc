//! Reading small files that an operator names: whole, once, bounded in bytes and in time.
//!
//! Once, because a pipe, a FIFO or the shell's `<(…)` gives its text to the first who reads it. In
//! bounded time, because a FIFO without a writer would keep the process for ever.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

/// Most bytes of such a file.
const BYTES_MAX: u64 = 1 << 20;
/// Time in which the text must come: ample for a command that fetches it.
const WITHIN: Duration = Duration::from_secs(5);

/// The text of a file.
///
/// # Errors
/// In words, without the path: it cannot be opened or read, has more than 1 MiB, is not UTF-8, or
/// did not come to its end within 5 s.
pub(crate) fn text(path: &Path) -> Result<String, String> {
    let path = path.to_owned();
    in_time(move || read(path))?
}

/// Does something that waits for others on a thread of its own, and gives up after 5 s; then the
/// thread is left alone.
///
/// # Errors
/// In words: it took too long, or no thread could be started for it.
pub(crate) fn in_time<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
    within(WITHIN, work)
}

fn within<T: Send + 'static>(most: Duration, work: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
    let (give, given) = mpsc::sync_channel(1);
    // Fails if nobody waits for it any more.
    let doing = move || drop(give.send(work()));
    std::thread::Builder::new().name("read".into()).spawn(doing).map_err(|error| error.to_string())?;
    given
        .recv_timeout(most)
        .map_err(|_| format!("nothing that ends came within {} s: is there a writer?", most.as_secs_f64()))
}

fn read(path: PathBuf) -> Result<String, String> {
    let words = |error: std::io::Error| error.to_string();
    let mut bytes = Vec::new();
    File::open(path).map_err(words)?.take(BYTES_MAX + 1).read_to_end(&mut bytes).map_err(words)?;
    if bytes.len() as u64 > BYTES_MAX {
        return Err(format!("more than {BYTES_MAX} bytes"));
    }
    String::from_utf8(bytes).map_err(|error| {
        let line =
            1 + error.as_bytes()[..error.utf8_error().valid_up_to()].iter().filter(|byte| **byte == b'\n').count();
        format!("not UTF-8 in line {line}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_text_is_told_in_words() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, bytes: &[u8]| {
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            path
        };
        assert_eq!(text(&file("good", b"a = 1\n")), Ok("a = 1\n".to_owned()));
        assert_eq!(text(&file("full", &vec![b'#'; 1 << 20])).map(|text| text.len()), Ok(1 << 20));
        assert_eq!(text(&file("long", &vec![b'#'; (1 << 20) + 1])), Err("more than 1048576 bytes".to_owned()));
        assert_eq!(text(Path::new("/dev/zero")), Err("more than 1048576 bytes".to_owned()));
        assert_eq!(text(&file("latin", b"a = 1\n# caf\xe9\n")), Err("not UTF-8 in line 2".to_owned()));
        assert!(text(folder.path()).unwrap_err().contains("directory"));
        assert!(text(&folder.path().join("none")).unwrap_err().contains("No such file"));
    }

    #[test]
    fn what_does_not_come_is_given_up() {
        let (_kept, never) = mpsc::channel::<()>();
        let stuck = within(Duration::from_millis(1), move || never.recv());
        assert!(stuck.unwrap_err().contains("within 0.001 s"));
    }
}
