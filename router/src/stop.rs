//! How a router is told to stop, and how it stops without a drain.

use crate::drain::{self, Left};
use crate::grpc::Service;
use crate::parts::{Ended, Parts};
use futures_util::stream::{self, Fuse, Stream, StreamExt};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep_until};

/// How a router stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stopped {
    /// By a drain.
    Drained {
        /// What was left.
        left: Left,
    },
    /// Before its drain was over, because it was told again.
    Cut {
        /// What was left.
        left: Left,
    },
    /// Without a drain, because a part of it ended.
    PartEnded(Ended),
}

/// The exit code of a router that stopped with activations in hand, or was told twice to stop.
pub const EXIT_LEFT: u8 = 3;
/// The exit code of a router that ended because a part of it did.
pub const EXIT_PART_ENDED: u8 = 4;

impl Stopped {
    /// The exit code of the process: 0, [`EXIT_LEFT`] or [`EXIT_PART_ENDED`].
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Drained { left } if left.is_nothing() => 0,
            Self::Drained { .. } | Self::Cut { .. } => EXIT_LEFT,
            Self::PartEnded(_) => EXIT_PART_ENDED,
        }
    }
}

/// A stream with one word to stop, said when `told` resolves. For callers that never say it twice.
pub fn once(told: impl Future<Output = ()>) -> impl Stream<Item = ()> {
    stream::once(told)
}

/// SIGTERM and SIGINT, one item each time one comes.
///
/// # Errors
/// If the handlers cannot be installed.
pub(crate) fn signals() -> io::Result<impl Stream<Item = ()>> {
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(stream::poll_fn(move |cx| {
        let came = term.poll_recv(cx).is_ready() || int.poll_recv(cx).is_ready();
        if came { Poll::Ready(Some(())) } else { Poll::Pending }
    }))
}

/// Installs handlers for two signals that end a process by default. With one for SIGXFSZ, a write
/// to a file at its size limit fails instead. The returned future logs of each SIGHUP that nothing
/// is reloaded; it never resolves.
///
/// # Errors
/// If the handlers cannot be installed.
pub(crate) fn withstand_signals() -> io::Result<impl Future<Output = ()> + Send> {
    let mut hangup = signal(SignalKind::hangup())?;
    // A handler stays when its stream is dropped.
    drop::<Signal>(signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()))?);
    Ok(async move {
        while hangup.recv().await.is_some() {
            tracing::warn!("SIGHUP: nothing is reloaded; the configuration is read at the start only");
        }
    })
}

/// An interruption of a router that serves or drains.
#[derive(Debug)]
pub(crate) enum Interrupt {
    /// The router is told to stop, for the first time.
    Told,
    /// The router is told to stop again.
    ToldAgain,
    /// A part ended that never should.
    PartEnded(Ended),
}

/// Waits for interruptions: words to stop, and parts that end.
pub(crate) struct Interrupts<S> {
    words: Pin<Box<Fuse<S>>>,
    told: bool,
    parts: Parts,
}

impl<S: Stream<Item = ()>> Interrupts<S> {
    /// `words` has an item each time the router is told to stop; at its end nobody tells any more.
    pub(crate) fn new(words: S, parts: Parts) -> Self {
        Self { words: Box::pin(words.fuse()), told: false, parts }
    }

    /// The next interrupt. Cancel safe.
    pub(crate) async fn next(&mut self) -> Interrupt {
        tokio::select! {
            biased;
            ended = self.parts.ended() => Interrupt::PartEnded(ended),
            () = word(&mut self.words) => {
                if std::mem::replace(&mut self.told, true) { Interrupt::ToldAgain } else { Interrupt::Told }
            }
        }
    }

    /// The next interrupt that cuts a drain short. The first word to stop does not: the drain may
    /// have begun by another way, as where a hook asks for `/drain` before SIGTERM comes. Cancel
    /// safe.
    pub(crate) async fn cut(&mut self) -> Interrupt {
        loop {
            match self.next().await {
                Interrupt::Told => tracing::info!("told to stop, which is under way; told again it ends at once"),
                cut => return cut,
            }
        }
    }
}

async fn word(words: &mut (impl Stream<Item = ()> + Unpin)) {
    if words.next().await.is_none() {
        std::future::pending().await
    }
}

/// Time to write pending entries to peers when there is no drain. Closing the store and the log
/// comes after it; together they stay below a second.
const AT_ONCE: Duration = Duration::from_millis(400);

/// Ends every stream without waiting for activations in hand. The router takes nothing new, tells
/// every peer how it ends and writes pending entries, in [`AT_ONCE`] at most. Returns what was left.
pub(crate) async fn end_at_once(service: &Service) -> Left {
    drain::cut_short(service, AT_ONCE).await
}

/// Leaves the admin port up for [`AT_ONCE`] from `since`, so that whoever looks sees what it says.
pub(crate) async fn be_seen(since: Instant) {
    sleep_until(since + AT_ONCE).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_word_drains_and_any_later_one_cuts() {
        let mut interrupts = Interrupts::new(stream::iter([(), (), ()]), Parts::default());
        assert!(matches!(interrupts.next().await, Interrupt::Told));
        assert!(matches!(interrupts.cut().await, Interrupt::ToldAgain));
        assert!(matches!(interrupts.cut().await, Interrupt::ToldAgain));
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_word_does_not_cut_a_drain_that_began_another_way() {
        let mut interrupts = Interrupts::new(stream::iter([()]), Parts::default());
        let cut = tokio::time::timeout(Duration::from_secs(3_600), interrupts.cut()).await;
        assert!(cut.is_err(), "{cut:?}");
        let mut interrupts = Interrupts::new(stream::iter([(), ()]), Parts::default());
        assert!(matches!(interrupts.cut().await, Interrupt::ToldAgain));
    }

    #[tokio::test]
    async fn a_part_that_ends_comes_before_words() {
        let parts = Parts::default();
        drop(parts.begin("part"));
        let mut interrupts = Interrupts::new(stream::iter([()]), parts);
        assert!(matches!(interrupts.next().await, Interrupt::PartEnded(ended) if ended.part == "part"));
    }

    #[test]
    fn each_way_to_stop_has_its_exit_code() {
        let ended = Ended { part: "timers".into(), panicked: true };
        let codes = [
            (Stopped::Drained { left: Left::default() }, 0),
            (Stopped::Drained { left: Left { unread: 1, ..Left::default() } }, 3),
            (Stopped::Cut { left: Left::default() }, 3),
            (Stopped::PartEnded(ended), 4),
        ];
        codes.iter().for_each(|(stopped, code)| assert_eq!(stopped.exit_code(), *code, "{stopped:?}"));
    }
}
