//! The admin port's connections: who has a seat, and how there is one for whoever comes next.
//!
//! Silent clients and a process that is out of descriptors must not keep probes out. So the
//! connection that has waited longest to send its request gives way where all seats are taken, and
//! some descriptors are kept back for this port alone. A connection lives 10 s at most. This file
//! knows of HTTP only how the head of a request ends.

use crate::listener::{ACCEPT_PAUSE, Complaints, is_of_one_connection};
use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use std::fs::File;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, Sleep, sleep};

/// Scrapers and probes need two or three.
pub(crate) const CONNECTIONS_MAX: usize = 64;
/// Ample for one request on a loopback address.
pub(super) const LIFETIME: Duration = Duration::from_secs(10);
/// A connection that has sent its request keeps its seat for this time where no silent one can give
/// way.
const SEATED_AT_LEAST: Duration = Duration::from_secs(1);
/// Descriptors kept back for this port: as many as may ask at a time while the process is out of
/// them.
const SPARES: usize = 8;

/// The listener of the port.
pub(super) struct Seated {
    listener: TcpListener,
    seats: Arc<Seats>,
    complaints: Complaints,
}

impl Seated {
    /// Seats whoever connects to the listener.
    pub(super) fn new(listener: TcpListener) -> Self {
        let seats = Arc::<Seats>::default();
        seats.keep_spares();
        Self { listener, seats, complaints: Complaints::default() }
    }

    /// The next connection of the listener, with a spare descriptor if there is no other.
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
        let accepted = ready!(self.listener.poll_accept(cx));
        if !accepted.as_ref().is_err_and(|error| !is_of_one_connection(error)) {
            return Poll::Ready(accepted);
        }
        // Between these calls nobody else on this thread, which accepts for the data port too, can
        // take the descriptor. Without descriptors accepting fails even if nobody is there; then
        // the second call waits and the spare is kept again.
        match self.seats.spares.lock().pop() {
            Some(spare) => drop(spare),
            None => return Poll::Ready(accepted),
        }
        let accepted = self.listener.poll_accept(cx);
        self.seats.keep_spares();
        accepted
    }
}

impl axum::serve::Listener for Seated {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        loop {
            match poll_fn(|cx| self.poll_accept(cx)).await {
                Ok((socket, peer)) if self.seats.have_room() => return (Connection::new(socket, &self.seats), peer),
                Ok(_refused) => {}
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    self.complaints.complain("the admin port", &error);
                    // The connection that gives way needs this thread for a moment.
                    let pause = if self.seats.one_gives_way() { GIVING_WAY } else { ACCEPT_PAUSE };
                    sleep(pause).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

const GIVING_WAY: Duration = Duration::from_millis(1);

/// The open connections, and the spare descriptors.
#[derive(Debug, Default)]
struct Seats {
    /// The longest seated first; at most [`CONNECTIONS_MAX`].
    seated: Mutex<Vec<Arc<Guest>>>,
    spares: Mutex<Vec<File>>,
}

/// A connection as the listener sees it.
#[derive(Debug)]
struct Guest {
    since: Instant,
    /// The head of its request is here.
    has_asked: AtomicBool,
    /// Another has its seat.
    gave_way: AtomicBool,
    task: AtomicWaker,
}

impl Seats {
    /// Whether there is a seat, perhaps one that is given up for it.
    fn have_room(&self) -> bool {
        self.seated.lock().len() < CONNECTIONS_MAX || self.one_gives_way()
    }

    /// Ends a connection for another's sake: the one that has been silent longest; if all have
    /// asked, the oldest, unless that is new. False: none gives way.
    fn one_gives_way(&self) -> bool {
        let mut seated = self.seated.lock();
        let silent = seated.iter().position(|guest| !guest.has_asked.load(Ordering::Relaxed));
        let old = || seated.first().filter(|guest| guest.since.elapsed() >= SEATED_AT_LEAST).map(|_| 0);
        let Some(at) = silent.or_else(old) else { return false };
        let guest = seated.remove(at);
        guest.gave_way.store(true, Ordering::Relaxed);
        guest.task.wake();
        true
    }

    /// Opens what is missing of the spare descriptors, as far as there are any.
    fn keep_spares(&self) {
        let mut spares = self.spares.lock();
        while spares.len() < SPARES
            && let Ok(spare) = File::open("/dev/null")
        {
            spares.push(spare);
        }
    }
}

/// A connection of the port. Reads and writes fail once it is 10 s old or has given way.
#[derive(Debug)]
pub(super) struct Connection {
    /// Dropped first: its descriptor may become a spare one.
    socket: TcpStream,
    deadline: Pin<Box<Sleep>>,
    line: Line,
    seat: Seat,
}

/// The line of the request's head that is being read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    Empty,
    Begun,
}

/// Given back when the connection ends.
#[derive(Debug)]
struct Seat {
    guest: Arc<Guest>,
    seats: Arc<Seats>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.seats.seated.lock().retain(|guest| !Arc::ptr_eq(guest, &self.guest));
        self.seats.keep_spares();
    }
}

impl Connection {
    fn new(socket: TcpStream, seats: &Arc<Seats>) -> Self {
        let (has_asked, gave_way) = (AtomicBool::new(false), AtomicBool::new(false));
        let guest = Arc::new(Guest { since: Instant::now(), has_asked, gave_way, task: AtomicWaker::new() });
        seats.seated.lock().push(guest.clone());
        let deadline = Box::pin(sleep(LIFETIME));
        Self { socket, deadline, line: Line::Begun, seat: Seat { guest, seats: seats.clone() } }
    }

    /// Notes what came of the request's head, which ends with an empty line.
    fn read(&mut self, bytes: &[u8]) {
        for byte in bytes {
            match byte {
                b'\n' if self.line == Line::Empty => self.seat.guest.has_asked.store(true, Ordering::Relaxed),
                b'\n' => self.line = Line::Empty,
                b'\r' => {}
                _ => self.line = Line::Begun,
            }
        }
    }

    /// Fails if the connection is over; else the task is woken once it is.
    fn poll_over<T>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        let guest = &self.seat.guest;
        guest.task.register(cx.waker());
        if guest.gave_way.load(Ordering::Relaxed) {
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::ConnectionAborted,
                "another connection has its seat",
            )));
        }
        ready!(self.deadline.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the connection took too long")))
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.socket).poll_read(cx, buf);
        self.read(&buf.filled()[before..]);
        if read.is_pending() { self.poll_over(cx) } else { read }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write(cx, buf);
        if written.is_pending() { self.poll_over(cx) } else { written }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
