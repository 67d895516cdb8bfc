//! gRPC's messages in a body: each is a byte that says whether it is compressed, its length in four bytes, and itself. A body comes in
//! pieces that need not end where messages do; a message that lies in one piece is not copied. No I/O here.
//!
//! Source: github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md, "Length-Prefixed-Message".

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// The messages of one body.
#[derive(Debug)]
pub struct Messages {
    bytes_max: usize,
    /// The last piece, as far as it is not taken; empty while there is a part.
    piece: Bytes,
    /// The beginning of a message that goes on in the next piece.
    part: BytesMut,
}

/// Why a body cannot be read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unreadable {
    /// The message would have that many bytes.
    TooLong(usize),
    /// It is compressed, or says something unknown of that.
    Compressed,
}

/// Bytes before each message.
pub const HEAD_BYTES: usize = 5;

impl Messages {
    /// Takes messages of at most that many bytes.
    pub fn new(bytes_max: usize) -> Self {
        Self { bytes_max, piece: Bytes::new(), part: BytesMut::new() }
    }

    /// Adds the next piece, once [`take`](Self::take) has nothing more.
    pub fn add(&mut self, piece: Bytes) {
        if self.part.is_empty() {
            self.piece = piece;
        } else {
            self.part.put(piece);
        }
    }

    /// The next message, if all of it is there.
    ///
    /// # Errors
    /// As they say; it is the same from then on.
    pub fn take(&mut self) -> Result<Option<Bytes>, Unreadable> {
        if !self.part.is_empty() {
            let Some(len) = self.len(&self.part)?.filter(|len| *len <= self.part.len()) else {
                return self.wait();
            };
            let message = self.part.split_to(len).freeze();
            self.piece = std::mem::take(&mut self.part).freeze();
            return Ok(Some(message.slice(HEAD_BYTES..)));
        }
        let Some(len) = self.len(&self.piece)?.filter(|len| *len <= self.piece.len()) else {
            self.part.put(std::mem::take(&mut self.piece));
            return self.wait();
        };
        Ok(Some(self.piece.split_to(len).slice(HEAD_BYTES..)))
    }

    /// Whether nothing is left: the body may end here.
    pub fn is_empty(&self) -> bool {
        self.piece.is_empty() && self.part.is_empty()
    }

    /// Makes room for what is missing of a message.
    fn wait(&mut self) -> Result<Option<Bytes>, Unreadable> {
        if let Some(len) = self.len(&self.part)? {
            self.part.reserve(len - self.part.len());
        }
        Ok(None)
    }

    /// Bytes of the message that begins there, with its head; none if its head is not all there.
    fn len(&self, mut bytes: &[u8]) -> Result<Option<usize>, Unreadable> {
        if bytes.len() < HEAD_BYTES {
            return Ok(None);
        }
        if bytes.get_u8() != 0 {
            return Err(Unreadable::Compressed);
        }
        let len = bytes.get_u32() as usize;
        if len > self.bytes_max { Err(Unreadable::TooLong(len)) } else { Ok(Some(HEAD_BYTES + len)) }
    }
}

/// A message of about that many bytes, as `write` writes it.
///
/// # Panics
/// If it is 4 GiB long.
pub fn message(bytes_about: usize, write: impl FnOnce(&mut BytesMut)) -> Bytes {
    let mut to = BytesMut::with_capacity(HEAD_BYTES + bytes_about);
    to.put_bytes(0, HEAD_BYTES);
    write(&mut to);
    let len = u32::try_from(to.len() - HEAD_BYTES).expect("messages are far below 4 GiB");
    to[1..HEAD_BYTES].copy_from_slice(&len.to_be_bytes());
    to.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn taken(messages: &mut Messages) -> Vec<Bytes> {
        std::iter::from_fn(|| messages.take().expect("readable")).collect()
    }

    proptest! {
        #[test]
        fn messages_come_whole_however_the_body_is_cut(
            sent in vec(vec(any::<u8>(), 0..40), 0..10), cuts in vec(1..30_usize, 1..10),
        ) {
            let mut body: Bytes = sent.iter().flat_map(|one| message(0, |to| to.put_slice(one))).collect();
            let (mut messages, mut got, mut cuts) = (Messages::new(40), Vec::new(), cuts.into_iter().cycle());
            while !body.is_empty() {
                let cut = cuts.next().expect("endless").min(body.len());
                messages.add(body.split_to(cut));
                got.extend(taken(&mut messages));
            }
            prop_assert_eq!(got, sent);
            prop_assert!(messages.is_empty());
        }
    }

    #[test]
    fn a_message_in_one_piece_is_not_copied() {
        let piece = message(3, |to| to.put_slice(b"abc"));
        let mut messages = Messages::new(3);
        messages.add(piece.clone());
        let got = messages.take().unwrap().unwrap();
        assert_eq!((&got[..], got.as_ptr()), (&b"abc"[..], piece[HEAD_BYTES..].as_ptr()));
    }

    #[test]
    fn what_is_too_long_or_compressed_is_named() {
        for (body, why) in [([0, 0, 0, 0, 4], Unreadable::TooLong(4)), ([1, 0, 0, 0, 1], Unreadable::Compressed)] {
            let mut messages = Messages::new(3);
            messages.add(Bytes::copy_from_slice(&body));
            assert_eq!((messages.take(), messages.take()), (Err(why), Err(why)));
        }
    }

    #[test]
    fn a_body_that_breaks_off_is_not_empty() {
        let mut messages = Messages::new(3);
        messages.add(Bytes::from_static(&[0, 0, 0]));
        assert_eq!((messages.take(), messages.is_empty()), (Ok(None), false));
    }
}
