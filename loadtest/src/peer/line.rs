//! A pipelined connection to a peer: the least a client can do, so that it is the server that is measured.
//!
//! As on the router's streams, a writer sends what is already waiting as one, and never waits for more; a reader takes all that has
//! come at once. No task or channel lies between a message and its socket. What the bytes mean, each peer's file says.

use super::Body;
use crate::part::road::{Down, Up};
use anyhow::Context;
use bytes::BytesMut;
use parking_lot::Mutex;
use proto::v1;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::Notify;

/// Connects; the writer is a task of its own.
pub(crate) async fn connect(address: SocketAddr) -> anyhow::Result<(Outbox, Inbox)> {
    let stream = TcpStream::connect(address).await.with_context(|| format!("cannot connect to {address}"))?;
    stream.set_nodelay(true)?;
    let (reading, writing) = stream.into_split();
    let outbox = Outbox::default();
    tokio::spawn(write_out(outbox.shared.clone(), writing));
    Ok((outbox, Inbox { reading, bytes: BytesMut::with_capacity(READ_BYTES) }))
}

/// Bytes read at a time, at most.
const READ_BYTES: usize = 256 * 1024;

/// Bytes that may wait to be written, but for the batch that goes beyond: as many as a sender of the router's client lets wait.
const WAITING_BYTES_MAX: usize = 64 << 20;

/// What waits to be written. Clones are the same one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outbox {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Vec<u8>>,
    wake: Notify,
}

impl Outbox {
    /// Appends bytes, for one lock and one wake-up. False if too much is waiting already.
    pub(crate) fn write(&self, put: impl FnOnce(&mut Vec<u8>)) -> bool {
        let mut waiting = self.shared.waiting.lock();
        if waiting.len() >= WAITING_BYTES_MAX {
            return false;
        }
        put(&mut waiting);
        drop(waiting);
        self.shared.wake.notify_one();
        true
    }
}

async fn write_out(shared: Arc<Shared>, mut writing: OwnedWriteHalf) {
    let mut hands = Vec::new();
    loop {
        shared.wake.notified().await;
        loop {
            std::mem::swap(&mut hands, &mut shared.waiting.lock());
            if hands.is_empty() {
                break;
            }
            // The reading side sees that the connection is over, and says so.
            if writing.write_all(&hands).await.is_err() {
                return;
            }
            hands.clear();
        }
    }
}

/// What has come and was not taken yet.
#[derive(Debug)]
pub(crate) struct Inbox {
    reading: OwnedReadHalf,
    bytes: BytesMut,
}

impl Inbox {
    /// All that is there.
    pub(crate) fn bytes(&mut self) -> &mut BytesMut {
        &mut self.bytes
    }

    /// Waits for more.
    ///
    /// # Cancel safety
    /// May be dropped half-way: no byte is lost.
    pub(crate) async fn more(&mut self) -> io::Result<()> {
        if self.bytes.capacity() - self.bytes.len() < READ_BYTES / 4 {
            self.bytes.reserve(READ_BYTES);
        }
        match self.reading.read_buf(&mut self.bytes).await? {
            0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the peer closed the connection")),
            _ => Ok(()),
        }
    }

    /// Takes what `parse` makes of the bytes, waiting for as many as it needs.
    pub(crate) async fn take<T>(
        &mut self,
        mut parse: impl FnMut(&mut BytesMut) -> anyhow::Result<Option<T>>,
    ) -> anyhow::Result<T> {
        loop {
            if let Some(taken) = parse(&mut self.bytes)? {
                return Ok(taken);
            }
            self.more().await?;
        }
    }
}

/// How a peer's client puts activations on the wire.
pub(crate) trait Encode: Clone + Send + Sync + 'static {
    /// Appends a batch to what waits to be written.
    fn requests(&self, batch: &[v1::Activation], out: &mut Vec<u8>);
}

/// How a peer's client takes messages off the wire.
pub(crate) trait Listen: Send + 'static {
    /// Those that have come, at least one.
    fn next(&mut self) -> impl Future<Output = anyhow::Result<Vec<Body>>> + Send;
}

/// A controller's way up.
#[derive(Debug, Clone)]
pub(crate) struct Requests<E> {
    pub(crate) outbox: Outbox,
    pub(crate) encode: E,
}

impl<E: Encode> Up for Requests<E> {
    fn push_all(&self, batch: Vec<v1::Activation>) -> Vec<v1::Activation> {
        let taken = self.outbox.write(|out| self.encode.requests(&batch, out));
        if taken { Vec::new() } else { batch }
    }
}

/// A controller's way down.
#[derive(Debug)]
pub(crate) struct Answers<L>(pub(crate) L);

impl<L: Listen> Down for Answers<L> {
    async fn next(&mut self) -> Option<Vec<v1::Answer>> {
        match self.0.next().await {
            Ok(bodies) => Some(bodies.into_iter().map(|body| body.answer()).collect()),
            Err(error) => {
                // What is out then counts as unanswered; why, is worth knowing.
                eprintln!("a controller's connection ended: {error:#}");
                None
            }
        }
    }
}

/// The roads of a plan's controllers: of each its way up and its way down.
pub(crate) type Roads<E, L> = Vec<(Requests<E>, Answers<L>)>;

/// Appends a number in decimal digits.
pub(crate) fn decimal(out: &mut Vec<u8>, mut number: usize) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b"0123456789"[number % 10];
        number /= 10;
        if number == 0 {
            return out.extend_from_slice(&digits[at..]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_digits() {
        for number in [0, 7, 10, 272, usize::MAX] {
            let mut out = Vec::new();
            decimal(&mut out, number);
            assert_eq!(String::from_utf8(out).unwrap(), number.to_string());
        }
    }
}
