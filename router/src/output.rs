//! Output of the process: the log on standard error, and the words of commands on standard output.
//!
//! Output is best effort. A reader that is gone, slow or out of space costs lines of output, never
//! the router: nothing here fails or panics, and a line of the log never waits for whoever reads
//! the log.
//!
//! ```text
//!   tracing ─ event ─▶ Log ─ line, escaped ─▶ queue of LINES_MAX ─▶ thread `log` ─▶ standard error
//!                        └─ the queue is full: dropped, counted, told of later
//! ```

use std::backtrace::{Backtrace, BacktraceStatus};
use std::fmt::{self, Write as _};
use std::io::{self, Write};
use std::panic::PanicHookInfo;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::time::Duration;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// Prints text on standard output, as far as standard output takes it.
pub fn say(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Prints text on standard error, as far as standard error takes it. Waits for whoever reads it:
/// for commands, and for what is said before there is a log.
pub fn complain(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// Prints text on standard output as [`say`] does, and does not wait for whoever reads it.
pub(crate) fn say_without_waiting(text: String) {
    // Without a thread for it the text is lost: better than a router that does not start.
    let _ = std::thread::Builder::new().name("stdout".into()).spawn(move || say(&text));
}

/// Logs to standard error from now on what `filter` lets through. Panics are logged too. Does
/// nothing if there is a logger already.
pub(crate) fn start_log(filter: &str) -> Log {
    let log = Log::start();
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let logger = tracing_subscriber::fmt().with_env_filter(filter).with_writer(log.clone());
    // Colours are control characters, which no line of the log may have. Errors would be printed by
    // a macro that panics.
    if logger.with_ansi(false).log_internal_errors(false).try_init().is_ok() {
        let to = log.clone();
        std::panic::set_hook(Box::new(move |info| log_panic(&to, info)));
    }
    log
}

/// Lines on their way to standard error.
#[derive(Debug, Clone)]
pub(crate) struct Log {
    orders: SyncSender<Order>,
    /// Lines that found the queue full and are not told of yet.
    dropped: Arc<AtomicU64>,
}

/// An order to the log's thread.
#[derive(Debug)]
enum Order {
    Print(String),
    /// To find the names in a backtrace takes half a second: the thread does that, not the one that panics.
    Trace(Box<Backtrace>),
    /// Tell when everything before is printed.
    Tell(SyncSender<()>),
}

/// Lines that may wait for standard error.
const LINES_MAX: usize = 1_024;
/// Bytes of one line; the rest is cut off.
const LINE_BYTES_MAX: usize = 16 << 10;

impl Log {
    fn start() -> Self {
        let (orders, receiver) = mpsc::sync_channel(LINES_MAX);
        let dropped = Arc::<AtomicU64>::default();
        let told = dropped.clone();
        // Without the thread every line is dropped.
        let _ = std::thread::Builder::new().name("log".into()).spawn(move || print(&receiver, &told));
        Self { orders, dropped }
    }

    /// Puts a line into the log, whatever is filtered out.
    pub(crate) fn line(&self, text: &str) {
        self.order(Order::Print(format!("{}\n", Visible(beginning(text, LINE_BYTES_MAX)))));
    }

    fn order(&self, order: Order) {
        if self.orders.try_send(order).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until every line that was logged before is printed, for so long at the most.
    pub(crate) fn flush(&self, within: Duration) {
        let (tell, told) = mpsc::sync_channel(1);
        if self.orders.try_send(Order::Tell(tell)).is_ok() {
            let _ = told.recv_timeout(within);
        }
    }
}

/// Prints lines until nobody logs any more.
fn print(orders: &Receiver<Order>, dropped: &AtomicU64) {
    for order in orders {
        match order {
            Order::Print(line) => complain(&line),
            Order::Trace(trace) => trace.to_string().lines().for_each(|line| complain(&format!("{}\n", Visible(line)))),
            Order::Tell(waiting) => {
                let _ = waiting.try_send(());
            }
        }
        // Relaxed: a count orders nothing.
        match dropped.swap(0, Ordering::Relaxed) {
            0 => {}
            lines => {
                complain(&format!("{lines} lines of the log were dropped: they came faster than they were read\n"))
            }
        }
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = &'a Log;

    fn make_writer(&'a self) -> &'a Log {
        self
    }
}

/// Each write is one event of the log, which is one line whatever its fields hold.
impl Write for &Log {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        self.line(text.strip_suffix('\n').unwrap_or(&text));
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The beginning of the text: at most `bytes_max` bytes, cut between characters.
fn beginning(text: &str, bytes_max: usize) -> &str {
    let fits = |at: &usize| text.is_char_boundary(*at);
    &text[..(0..=bytes_max.min(text.len())).rev().find(fits).unwrap_or(0)]
}

/// Text on one line as it is read: characters that end a line, steer a terminal or turn the
/// direction of reading are shown as escapes. Whoever chooses a name cannot forge a line with it.
pub(crate) struct Visible<'a>(pub(crate) &'a str);

impl fmt::Display for Visible<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .chars()
            .try_for_each(|one| if steers(one) { write!(f, "{}", one.escape_default()) } else { f.write_char(one) })
    }
}

fn steers(one: char) -> bool {
    one.is_control()
        || matches!(one, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Logs a panic, in place of the standard library's hook, which waits for whoever reads standard
/// error.
fn log_panic(log: &Log, info: &PanicHookInfo<'_>) {
    let payload = info.payload();
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no text");
    let thread = std::thread::current();
    let place = info.location().map(ToString::to_string).unwrap_or_default();
    let backtrace = Backtrace::capture();
    tracing::error!(thread = thread.name().unwrap_or("?"), place, "panicked: {text}");
    if backtrace.status() == BacktraceStatus::Captured && tracing::enabled!(tracing::Level::ERROR) {
        log.order(Order::Trace(Box::new(backtrace)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A log whose thread is this test.
    fn log(lines_max: usize) -> (Log, Receiver<Order>) {
        let (orders, receiver) = mpsc::sync_channel(lines_max);
        (Log { orders, dropped: Arc::default() }, receiver)
    }

    fn printed(receiver: &Receiver<Order>) -> String {
        let orders = receiver.try_iter().map(|order| match order {
            Order::Print(line) => line,
            Order::Trace(_) | Order::Tell(_) => panic!("lines only"),
        });
        orders.collect()
    }

    #[test]
    fn an_event_is_one_line_whatever_is_in_it() {
        let (log, receiver) = log(9);
        (&log).write_all("an action\n2026 ERROR forged\r\u{1b}[2J\u{2028}\u{202e}\u{9b}é\n".as_bytes()).unwrap();
        let expected = "an action\\n2026 ERROR forged\\r\\u{1b}[2J\\u{2028}\\u{202e}\\u{9b}é\n";
        assert_eq!(printed(&receiver), expected);
    }

    #[test]
    fn a_line_is_cut_between_characters() {
        let (log, receiver) = log(1);
        (&log).write_all("é".repeat(LINE_BYTES_MAX).as_bytes()).unwrap();
        assert_eq!(printed(&receiver).len(), LINE_BYTES_MAX + 1);
        (&log).write_all("xé".repeat(LINE_BYTES_MAX).as_bytes()).unwrap();
        assert!(printed(&receiver).len() <= LINE_BYTES_MAX + 1);
    }

    #[test]
    fn lines_that_find_no_room_are_counted_and_nobody_waits() {
        let (log, receiver) = log(2);
        (0..5).for_each(|_| (&log).write_all(b"line\n").unwrap());
        assert_eq!((printed(&receiver).as_str(), log.dropped.load(Ordering::Relaxed)), ("line\nline\n", 3));
        drop(receiver);
        (&log).write_all(b"to nobody\n").unwrap();
        log.flush(Duration::from_secs(3_600));
    }
}
