//! The words of AMQP 0-9-1 on the wire, as far as RabbitMQ's clients here need them. Grammar and numbers: the specification at
//! rabbitmq.com/amqp-0-9-1-reference.html.

use super::Body;
use super::line::{Inbox, Outbox};
use anyhow::{bail, ensure};
use bytes::{Buf, Bytes, BytesMut};

/// The one channel that a connection here has.
const CHANNEL: u16 = 1;

const METHOD: u8 = 1;
const HEADER: u8 = 2;
const CONTENT: u8 = 3;
const HEARTBEAT: u8 = 8;
const FRAME_END: u8 = 0xCE;

/// Bytes of a frame beyond its payload: type, channel, length; the end.
const FRAME_EXTRA: usize = 8;

/// Class and method.
type Method = (u16, u16);

const CONNECTION_START: Method = (10, 10);
const CONNECTION_START_OK: Method = (10, 11);
const CONNECTION_TUNE: Method = (10, 30);
const CONNECTION_TUNE_OK: Method = (10, 31);
const CONNECTION_OPEN: Method = (10, 40);
const CONNECTION_OPEN_OK: Method = (10, 41);
const CHANNEL_OPEN: Method = (20, 10);
const CHANNEL_OPEN_OK: Method = (20, 11);
const QUEUE_DECLARE: Method = (50, 10);
const QUEUE_DECLARE_OK: Method = (50, 11);
const BASIC_CONSUME: Method = (60, 20);
const BASIC_CONSUME_OK: Method = (60, 21);
const BASIC_PUBLISH: Method = (60, 40);
const BASIC_DELIVER: Method = (60, 60);

/// In the flags of a message's properties: where answers are to go.
const REPLY_TO: u16 = 1 << 9;
/// The properties before it, in the order in which they are written: content type, encoding, headers, delivery mode, priority,
/// correlation id. None is used here.
const BEFORE_REPLY_TO: u16 = 0b1111_1100_0000_0000;

/// Bytes of a message in one frame, at most: what servers propose, less what a frame has besides.
const CONTENT_BYTES_MAX: usize = 131_072 - FRAME_EXTRA;

/// Greets, logs in as `guest` (which is for loopback only) and opens a channel.
pub(crate) async fn open(outbox: &Outbox, inbox: &mut Inbox) -> anyhow::Result<()> {
    outbox.write(|out| out.extend_from_slice(b"AMQP\0\0\x09\x01"));
    expect(inbox, CONNECTION_START).await?;
    send(outbox, 0, CONNECTION_START_OK, |out| {
        out.extend_from_slice(&0_u32.to_be_bytes());
        short(out, b"PLAIN");
        let login = b"\0guest\0guest";
        out.extend_from_slice(&wide(login.len()).to_be_bytes());
        out.extend_from_slice(login);
        short(out, b"en_US");
    });
    expect(inbox, CONNECTION_TUNE).await?;
    send(outbox, 0, CONNECTION_TUNE_OK, |out| {
        out.extend_from_slice(&CHANNEL.to_be_bytes());
        out.extend_from_slice(&wide(CONTENT_BYTES_MAX + FRAME_EXTRA).to_be_bytes());
        // No heartbeats.
        out.extend_from_slice(&0_u16.to_be_bytes());
    });
    send(outbox, 0, CONNECTION_OPEN, |out| {
        short(out, b"/");
        short(out, b"");
        out.push(0);
    });
    expect(inbox, CONNECTION_OPEN_OK).await?;
    send(outbox, CHANNEL, CHANNEL_OPEN, |out| short(out, b""));
    expect(inbox, CHANNEL_OPEN_OK).await
}

/// Makes a queue that goes with its last consumer and is not on disk.
pub(crate) async fn declare(outbox: &Outbox, inbox: &mut Inbox, queue: &[u8]) -> anyhow::Result<()> {
    const AUTO_DELETE: u8 = 1 << 3;
    send(outbox, CHANNEL, QUEUE_DECLARE, |out| {
        out.extend_from_slice(&[0, 0]);
        short(out, queue);
        out.push(AUTO_DELETE);
        out.extend_from_slice(&0_u32.to_be_bytes());
    });
    expect(inbox, QUEUE_DECLARE_OK).await
}

/// Has a queue's messages delivered, with no acknowledgements.
pub(crate) async fn consume(outbox: &Outbox, inbox: &mut Inbox, queue: &[u8]) -> anyhow::Result<()> {
    const NO_ACK: u8 = 1 << 1;
    send(outbox, CHANNEL, BASIC_CONSUME, |out| {
        out.extend_from_slice(&[0, 0]);
        short(out, queue);
        short(out, b"");
        out.push(NO_ACK);
        out.extend_from_slice(&0_u32.to_be_bytes());
    });
    expect(inbox, BASIC_CONSUME_OK).await
}

/// Appends a transient message to the queue of that name, in parts.
pub(crate) fn publish(out: &mut Vec<u8>, queue: &[u8], reply_to: &[u8], parts: [&[u8]; 2]) {
    frame(out, METHOD, CHANNEL, |out| {
        method(out, BASIC_PUBLISH);
        out.extend_from_slice(&[0, 0]);
        // The default exchange: a queue's name is its routing key.
        short(out, b"");
        short(out, queue);
        out.push(0);
    });
    let length = parts[0].len() + parts[1].len();
    frame(out, HEADER, CHANNEL, |out| {
        out.extend_from_slice(&BASIC_PUBLISH.0.to_be_bytes());
        out.extend_from_slice(&[0, 0]);
        out.extend_from_slice(&(length as u64).to_be_bytes());
        let flags = if reply_to.is_empty() { 0 } else { REPLY_TO };
        out.extend_from_slice(&flags.to_be_bytes());
        if !reply_to.is_empty() {
            short(out, reply_to);
        }
    });
    if length <= CONTENT_BYTES_MAX {
        return frame(out, CONTENT, CHANNEL, |out| parts.iter().for_each(|part| out.extend_from_slice(part)));
    }
    for chunk in parts.iter().flat_map(|part| part.chunks(CONTENT_BYTES_MAX)) {
        frame(out, CONTENT, CHANNEL, |out| out.extend_from_slice(chunk));
    }
}

fn send(outbox: &Outbox, channel: u16, name: Method, arguments: impl FnOnce(&mut Vec<u8>)) {
    outbox.write(|out| {
        frame(out, METHOD, channel, |out| {
            method(out, name);
            arguments(out);
        });
    });
}

fn frame(out: &mut Vec<u8>, kind: u8, channel: u16, payload: impl FnOnce(&mut Vec<u8>)) {
    out.push(kind);
    out.extend_from_slice(&channel.to_be_bytes());
    let length_at = out.len();
    out.extend_from_slice(&[0; 4]);
    payload(out);
    let length = wide(out.len() - length_at - 4);
    out[length_at..length_at + 4].copy_from_slice(&length.to_be_bytes());
    out.push(FRAME_END);
}

fn method(out: &mut Vec<u8>, (class, method): Method) {
    out.extend_from_slice(&class.to_be_bytes());
    out.extend_from_slice(&method.to_be_bytes());
}

/// A short string: names here are far below 255 bytes.
fn short(out: &mut Vec<u8>, text: &[u8]) {
    out.push(u8::try_from(text.len()).expect("a short name"));
    out.extend_from_slice(text);
}

fn wide(length: usize) -> u32 {
    u32::try_from(length).expect("frames are bounded")
}

/// Takes frames until the method comes.
async fn expect(inbox: &mut Inbox, name: Method) -> anyhow::Result<()> {
    loop {
        let Frame { kind, payload } = inbox.take(take_frame).await?;
        if kind == METHOD {
            let said = method_of(&payload)?;
            if said == name {
                return Ok(());
            }
            refuse_close(said, &payload)?;
        }
    }
}

#[derive(Debug)]
struct Frame {
    kind: u8,
    payload: Bytes,
}

/// Takes a frame, once all of it is there.
fn take_frame(bytes: &mut BytesMut) -> anyhow::Result<Option<Frame>> {
    let Some(head) = bytes.first_chunk::<7>() else { return Ok(None) };
    let kind = head[0];
    ensure!(kind != b'A', "the server does not speak AMQP 0-9-1");
    let length = u32::from_be_bytes([head[3], head[4], head[5], head[6]]) as usize;
    ensure!(length <= CONTENT_BYTES_MAX, "a frame of {length} bytes");
    if bytes.len() < length + FRAME_EXTRA {
        return Ok(None);
    }
    bytes.advance(7);
    let payload = bytes.split_to(length).freeze();
    ensure!(bytes.get_u8() == FRAME_END, "a frame without an end");
    Ok(Some(Frame { kind, payload }))
}

fn method_of(mut payload: &[u8]) -> anyhow::Result<Method> {
    ensure!(payload.len() >= 4, "a method without a number");
    Ok((payload.get_u16(), payload.get_u16()))
}

/// Closing a connection (10, 50) or a channel (20, 40) is told with a reason.
fn refuse_close(said: Method, payload: &[u8]) -> anyhow::Result<()> {
    if said == (10, 50) || said == (20, 40) {
        bail!("the server closed: {}", String::from_utf8_lossy(&payload[4..]));
    }
    Ok(())
}

/// Puts messages together: a method, a header, and frames of content.
#[derive(Debug, Default)]
pub(crate) struct Deliveries {
    reply_to: Bytes,
    /// Content still to come.
    missing: usize,
    content: BytesMut,
    /// A delivery was announced, its header is next.
    announced: bool,
}

impl Deliveries {
    /// Takes the next whole message off the bytes.
    pub(crate) fn next(&mut self, bytes: &mut BytesMut) -> anyhow::Result<Option<Body>> {
        while let Some(frame) = take_frame(bytes)? {
            if let Some(body) = self.on_frame(frame)? {
                return Ok(Some(body));
            }
        }
        Ok(None)
    }

    fn on_frame(&mut self, Frame { kind, payload }: Frame) -> anyhow::Result<Option<Body>> {
        match kind {
            METHOD => {
                let said = method_of(&payload)?;
                refuse_close(said, &payload)?;
                self.announced = said == BASIC_DELIVER;
            }
            HEADER if self.announced => self.on_header(payload)?,
            CONTENT if self.missing > 0 => return Ok(self.on_content(payload)),
            HEADER | CONTENT | HEARTBEAT => {}
            other => bail!("a frame of type {other}"),
        }
        Ok(None)
    }

    /// Class, weight, length, flags, properties.
    fn on_header(&mut self, mut header: Bytes) -> anyhow::Result<()> {
        ensure!(header.len() >= 14, "a short header");
        header.advance(4);
        self.missing = usize::try_from(header.get_u64())?;
        let flags = header.get_u16();
        ensure!(flags & BEFORE_REPLY_TO == 0, "a message with properties that nobody gave it");
        self.reply_to = Bytes::new();
        if flags & REPLY_TO != 0 {
            let length = header.try_get_u8()?.into();
            ensure!(length <= header.len(), "a reply queue's name that is cut off");
            self.reply_to = header.split_to(length);
        }
        self.content.clear();
        Ok(())
    }

    fn on_content(&mut self, content: Bytes) -> Option<Body> {
        self.missing = self.missing.saturating_sub(content.len());
        if self.missing > 0 || !self.content.is_empty() {
            self.content.extend_from_slice(&content);
        }
        if self.missing > 0 {
            return None;
        }
        let whole = if self.content.is_empty() { content } else { self.content.split().freeze() };
        Some(Body { reply_to: std::mem::take(&mut self.reply_to), bytes: whole })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a server makes of a published message: another method, the same content.
    fn delivered(reply_to: &[u8], parts: [&[u8]; 2]) -> Vec<u8> {
        let mut out = Vec::new();
        frame(&mut out, METHOD, CHANNEL, |out| method(out, BASIC_DELIVER));
        let mut published = Vec::new();
        publish(&mut published, b"work", reply_to, parts);
        let mut published = BytesMut::from(&published[..]);
        take_frame(&mut published).unwrap().unwrap();
        out.extend_from_slice(&published);
        out
    }

    #[test]
    fn a_message_is_put_together_from_its_frames() {
        let whole = delivered(b"answers", [b"0123456789abcdef", b"payload"]);
        let (mut deliveries, mut bytes) = (Deliveries::default(), BytesMut::new());
        let mut got = Vec::new();
        for byte in whole {
            bytes.extend_from_slice(&[byte]);
            got.extend(deliveries.next(&mut bytes).unwrap());
        }
        let body =
            Body { reply_to: Bytes::from_static(b"answers"), bytes: Bytes::from_static(b"0123456789abcdefpayload") };
        assert_eq!(got, [body]);
    }

    #[test]
    fn a_long_message_is_cut_and_put_together() {
        let long = vec![7; 3 * CONTENT_BYTES_MAX];
        let mut bytes = BytesMut::from(&delivered(b"", [b"0123456789abcdef", &long])[..]);
        let body = Deliveries::default().next(&mut bytes).unwrap().unwrap();
        assert_eq!((body.bytes.len(), body.reply_to.len()), (16 + long.len(), 0));
        assert!(bytes.is_empty());
    }

    #[test]
    fn a_close_is_an_error_with_its_reason() {
        let mut out = Vec::new();
        frame(&mut out, METHOD, CHANNEL, |out| {
            method(out, (20, 40));
            out.extend_from_slice(b"NOT_FOUND");
        });
        let refused = Deliveries::default().next(&mut BytesMut::from(&out[..])).unwrap_err();
        assert!(refused.to_string().contains("NOT_FOUND"));
        assert!(take_frame(&mut BytesMut::from(&b"AMQP\0\0\x09\x01"[..])).is_err());
    }
}
