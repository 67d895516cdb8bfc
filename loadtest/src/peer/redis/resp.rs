//! The words of Redis on the wire, as far as its clients here need them: commands out, replies in. Protocol RESP2:
//! redis.io/docs/latest/develop/reference/protocol-spec.

use crate::peer::line::{Inbox, Outbox, decimal};
use anyhow::{Context, bail, ensure};
use bytes::{Bytes, BytesMut};

/// Appends the head of a command of so many words; the words follow.
pub(crate) fn command(out: &mut Vec<u8>, words: usize) {
    out.push(b'*');
    decimal(out, words);
    out.extend_from_slice(b"\r\n");
}

/// Appends a word, given in parts.
pub(crate) fn word(out: &mut Vec<u8>, parts: &[&[u8]]) {
    out.push(b'$');
    decimal(out, parts.iter().map(|part| part.len()).sum());
    out.extend_from_slice(b"\r\n");
    parts.iter().for_each(|part| out.extend_from_slice(part));
    out.extend_from_slice(b"\r\n");
}

/// A whole command.
pub(crate) fn whole(words: &[&str]) -> Vec<u8> {
    let mut out = Vec::new();
    command(&mut out, words.len());
    words.iter().for_each(|each| word(&mut out, &[each.as_bytes()]));
    out
}

/// One reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reply {
    /// A status, or a number as its digits.
    Line(Bytes),
    Bulk(Bytes),
    Null,
    Array(Vec<Reply>),
}

impl Reply {
    /// The items of an array; none of anything else.
    pub(crate) fn items(self) -> Vec<Self> {
        match self {
            Self::Array(items) => items,
            Self::Line(_) | Self::Bulk(_) | Self::Null => Vec::new(),
        }
    }

    /// The bytes of a word; none of anything else.
    pub(crate) fn bytes(self) -> Bytes {
        match self {
            Self::Line(bytes) | Self::Bulk(bytes) => bytes,
            Self::Null | Self::Array(_) => Bytes::new(),
        }
    }
}

/// Takes a reply, once all of it is there. An error reply is an error.
pub(crate) fn reply(bytes: &mut BytesMut) -> anyhow::Result<Option<Reply>> {
    let Some(length) = length(bytes, 0, 0)? else { return Ok(None) };
    let whole = bytes.split_to(length).freeze();
    let mut at = 0;
    Ok(Some(read(&whole, &mut at)?))
}

/// Sends a command and waits for its reply, on a connection on which nothing else is under way.
pub(crate) async fn ask(outbox: &Outbox, inbox: &mut Inbox, words: &[&str]) -> anyhow::Result<Reply> {
    outbox.write(|out| out.extend_from_slice(&whole(words)));
    inbox.take(reply).await
}

/// Reads replies that say nothing, for as long as the connection lasts; reports the first error.
pub(crate) async fn discard(mut inbox: Inbox) {
    loop {
        if let Err(error) = inbox.take(reply).await {
            return eprintln!("a connection for requests ended: {error:#}");
        }
    }
}

/// Nested deeper than any reply to a command here.
const DEPTH_MAX: usize = 8;

/// Where the reply that starts at `at` ends, if all of it is there.
fn length(bytes: &[u8], at: usize, depth: usize) -> anyhow::Result<Option<usize>> {
    ensure!(depth <= DEPTH_MAX, "a reply nested too deeply");
    let Some((line, after)) = line(bytes, at) else { return Ok(None) };
    match line.first() {
        Some(b'+' | b':' | b'-') => Ok(Some(after)),
        Some(b'$') => {
            let end = count(line)?.map_or(after, |length| after + length + 2);
            Ok(Some(end).filter(|end| *end <= bytes.len()))
        }
        Some(b'*') => {
            let mut end = after;
            for _ in 0..count(line)?.unwrap_or(0) {
                match length(bytes, end, depth + 1)? {
                    Some(next) => end = next,
                    None => return Ok(None),
                }
            }
            Ok(Some(end))
        }
        _ => bail!("not a reply: {}", String::from_utf8_lossy(line)),
    }
}

/// The reply that starts at `at` and is all there.
fn read(bytes: &Bytes, at: &mut usize) -> anyhow::Result<Reply> {
    let (line, after) = line(bytes, *at).context("a reply that is all there")?;
    *at = after;
    match line[0] {
        b'-' => bail!("the server said {}", String::from_utf8_lossy(&line[1..])),
        b'$' => {
            let Some(length) = count(line)? else { return Ok(Reply::Null) };
            *at = after + length + 2;
            Ok(Reply::Bulk(bytes.slice(after..after + length)))
        }
        b'*' => {
            let Some(items) = count(line)? else { return Ok(Reply::Null) };
            (0..items).map(|_| read(bytes, at)).collect::<anyhow::Result<_>>().map(Reply::Array)
        }
        _ => Ok(Reply::Line(bytes.slice_ref(&line[1..]))),
    }
}

/// The line at `at` without its end, and where the next begins.
fn line(bytes: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let rest = bytes.get(at..)?;
    let end = rest.iter().position(|byte| *byte == b'\n')?;
    Some((rest[..end].trim_ascii_end(), at + end + 1))
}

/// The number behind the first byte; none if it is -1.
fn count(line: &[u8]) -> anyhow::Result<Option<usize>> {
    let digits = std::str::from_utf8(&line[1..])?;
    if digits == "-1" {
        return Ok(None);
    }
    digits.parse().map(Some).with_context(|| format!("a length, not {digits:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_its_words() {
        assert_eq!(whole(&["LPOP", "a"]), b"*2\r\n$4\r\nLPOP\r\n$1\r\na\r\n");
        let mut out = Vec::new();
        word(&mut out, &[b"ab", b"", b"c"]);
        assert_eq!(out, b"$3\r\nabc\r\n");
    }

    #[test]
    fn a_reply_is_taken_once_all_of_it_is_there() {
        let whole = b"*2\r\n$1\r\nq\r\n*2\r\n$3\r\nabc\r\n$0\r\n\r\n:7\r\n";
        for cut in 0..whole.len() - 4 {
            assert_eq!(reply(&mut BytesMut::from(&whole[..cut])).unwrap(), None, "{cut} bytes");
        }
        let mut bytes = BytesMut::from(&whole[..]);
        let bulk = |word: &'static [u8]| Reply::Bulk(Bytes::from_static(word));
        let array = Reply::Array(vec![bulk(b"q"), Reply::Array(vec![bulk(b"abc"), bulk(b"")])]);
        assert_eq!(reply(&mut bytes).unwrap(), Some(array));
        assert_eq!(reply(&mut bytes).unwrap(), Some(Reply::Line(Bytes::from_static(b"7"))));
        assert!(bytes.is_empty());
    }

    #[test]
    fn errors_and_nonsense_are_refused() {
        for text in [&b"-ERR no\r\n"[..], b"?\r\n", b"$x\r\n", b"$-7\r\n", b"\r\n"] {
            assert!(reply(&mut BytesMut::from(text)).is_err(), "{}", String::from_utf8_lossy(text));
        }
        assert_eq!(reply(&mut BytesMut::from(&b"*-1\r\n"[..])).unwrap(), Some(Reply::Null));
        assert!(reply(&mut BytesMut::from(&b"*1\r\n".repeat(20)[..])).is_err());
    }
}
