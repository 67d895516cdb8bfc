//! Reads frames in place: where the fields of their frequent entries lie, without a struct and a reference count for each.
//! Judges nothing beyond the encoding.
//!
//! It accepts and refuses what prost does for the same message; a test holds it to that. Encoding:
//! protobuf.dev/programming-guides/encoding.

use bytes::{BufMut, Bytes, BytesMut};
use prost::encoding::{DecodeContext, WireType, decode_varint, skip_field};

/// Not protobuf, or a known field of another type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

/// A part of a frame.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Span {
    start: u32,
    end: u32,
}

impl Span {
    /// All of `bytes`, unless they are longer than 4 GiB.
    pub fn whole(bytes: &[u8]) -> Result<Self, Malformed> {
        Ok(Self { start: 0, end: bytes.len().try_into().map_err(|_| Malformed)? })
    }

    /// How many bytes stand there.
    pub fn byte_len(self) -> usize {
        (self.end - self.start) as usize
    }

    /// What stands there.
    pub fn of(self, frame: &[u8]) -> &[u8] {
        &frame[self.start as usize..self.end as usize]
    }

    /// The same, as a reference to the frame.
    pub fn share(self, frame: &Bytes) -> Bytes {
        frame.slice(self.start as usize..self.end as usize)
    }
}

/// What a frame has besides its list of many entries, for prost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rest {
    /// A message.
    pub bytes: Bytes,
    /// How many fields it has: before it is made into structs, which take more than the bytes of an empty one.
    pub fields: usize,
}

/// Reads a frame that has a list of many entries: each of them goes to `entry`, and what else the frame has comes back.
///
/// # Errors
/// If it is not a message, or as `entry` says.
pub fn split<E: From<Malformed>>(
    frame: &Bytes,
    list: u32,
    mut entry: impl FnMut(Span) -> Result<(), E>,
) -> Result<Rest, E> {
    let (mut rest, mut others) = (BytesMut::new(), 0);
    let mut fields = Fields::of(frame, Span::whole(frame)?);
    loop {
        while fields.skip_key(list, BYTES) {
            entry(fields.bytes()?)?;
        }
        let Some(Field { number, value, whole }) = fields.read()? else { break };
        match value {
            Value::Bytes(span) if number == list => entry(span)?,
            _ => {
                rest.put_slice(whole.of(frame));
                others += 1;
            }
        }
    }
    Ok(Rest { bytes: rest.freeze(), fields: others })
}

/// One field of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// Its number.
    pub number: u32,
    /// What stands there.
    pub value: Value,
    /// Key, length and all.
    pub whole: Span,
}

/// The value of a field, as far as its encoding tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value {
    /// A number, an enum or a bool.
    Number(u64),
    /// Bytes, a string or a message.
    Bytes(Span),
    /// Of a type that no field of ours has.
    Other,
}

/// The types of fields that ours have, as keys name them.
const NUMBER: u32 = 0;
const BYTES: u32 = 2;

/// The fields of a message, in the order they were written.
#[derive(Debug, Clone)]
pub struct Fields<'a> {
    /// The frame, up to where the message ends.
    frame: &'a [u8],
    at: usize,
}

impl<'a> Fields<'a> {
    /// Those of the message that stands there in the frame.
    pub fn of(frame: &'a [u8], message: Span) -> Self {
        Self { frame: &frame[..message.end as usize], at: message.start as usize }
    }

    /// The next field; none at the end.
    ///
    /// # Errors
    /// If what is left does not begin with a whole field. What comes then means nothing.
    #[inline]
    pub fn read(&mut self) -> Result<Option<Field>, Malformed> {
        if self.at == self.frame.len() {
            return Ok(None);
        }
        let start = self.at;
        let key = u32::try_from(self.varint()?).map_err(|_| Malformed)?;
        let number = key >> 3;
        let value = match key & 7 {
            NUMBER => Value::Number(self.varint()?),
            BYTES => Value::Bytes(self.bytes()?),
            other => self.other(number, other)?,
        };
        if number == 0 {
            return Err(Malformed);
        }
        Ok(Some(Field { number, value, whole: self.since(start) }))
    }

    /// Whether a field of that number and type comes next. Then its key is behind, and its value has to be read. False also for a
    /// key that is longer than a byte.
    #[inline]
    fn skip_key(&mut self, number: u32, wire_type: u32) -> bool {
        let found =
            self.frame.get(self.at).is_some_and(|byte| u32::from(*byte) == number << 3 | wire_type && *byte < 0x80);
        self.at += usize::from(found);
        found
    }

    #[inline]
    fn varint(&mut self) -> Result<u64, Malformed> {
        match self.frame[self.at..] {
            [byte, ..] if byte < 0x80 => {
                self.at += 1;
                Ok(byte.into())
            }
            [low, high, ..] if high < 0x80 => {
                self.at += 2;
                Ok(u64::from(low & 0x7f) | u64::from(high) << 7)
            }
            _ => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Result<u64, Malformed> {
        let mut rest = &self.frame[self.at..];
        let value = decode_varint(&mut rest).map_err(|_| Malformed)?;
        self.at = self.frame.len() - rest.len();
        Ok(value)
    }

    #[inline]
    fn bytes(&mut self) -> Result<Span, Malformed> {
        let length = usize::try_from(self.varint()?).map_err(|_| Malformed)?;
        if length > self.frame.len() - self.at {
            return Err(Malformed);
        }
        let start = self.at;
        self.at += length;
        Ok(self.since(start))
    }

    #[cold]
    fn other(&mut self, number: u32, wire_type: u32) -> Result<Value, Malformed> {
        let wire_type = WireType::try_from(u64::from(wire_type)).map_err(|_| Malformed)?;
        let mut rest = &self.frame[self.at..];
        skip_field(wire_type, number, &mut rest, DecodeContext::default()).map_err(|_| Malformed)?;
        self.at = self.frame.len() - rest.len();
        Ok(Value::Other)
    }

    fn since(&self, start: usize) -> Span {
        let place = |at: usize| u32::try_from(at).expect("a span of the frame was made before");
        Span { start: place(start), end: place(self.at) }
    }
}

macro_rules! entries {
    ($($(#[$doc:meta])* $name:ident of $message:literal { $($number:literal $field:ident: $type:tt,)* })*) => { $(
        #[doc = concat!("Where a `v1::", $message, "` has what.")]
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        #[allow(missing_docs)] // They stand in the proto files.
        pub struct $name { $(pub $field: entries!(type $type),)* }

        impl $name {
            /// Reads the one that stands there.
            ///
            /// # Errors
            /// As for [`Fields::read`], and if a field is of another type.
            #[inline]
            pub fn read(frame: &[u8], message: Span) -> Result<Self, Malformed> {
                let (mut fields, mut entry) = (Fields::of(frame, message), Self::default());
                // Where they are if they come in order, as encoders write them; the loop takes them as they come.
                $(if fields.skip_key($number, entries!(wire_type $type)) {
                    let found = entries!(read $type fields);
                    entry.$field = entries!(take $type found);
                })*
                while let Some(Field { number, value, .. }) = fields.read()? {
                    match (number, value) {
                        $(($number, entries!(value $type found)) => entry.$field = entries!(take $type found),)*
                        $(($number, _) => return Err(Malformed),)*
                        // Of a newer peer.
                        _ => {}
                    }
                }
                Ok(entry)
            }
        }
    )* };
    (type bytes) => { Span };
    (type $type:tt) => { $type };
    (wire_type bytes) => { BYTES };
    (wire_type $type:tt) => { NUMBER };
    (read bytes $fields:ident) => { $fields.bytes()? };
    (read $type:tt $fields:ident) => { $fields.varint()? };
    (value bytes $found:ident) => { Value::Bytes($found) };
    (value $type:tt $found:ident) => { Value::Number($found) };
    (take bytes $found:ident) => { $found };
    (take bool $found:ident) => { $found != 0 };
    // As protobuf has it: what is too long for its type loses its upper bits.
    (take $type:tt $found:ident) => {{
        #[allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap)]
        let number = $found as $type;
        number
    }};
}

entries! {
    Activation of "Activation" {
        1 id: bytes,
        2 action: u32,
        3 time_left_ms: u32,
        4 payload: bytes,
        5 reply: i32,
        6 maybe_sent: bool,
    }
    Completion of "Completion" {
        1 container: u32,
        2 id: bytes,
        3 status: i32,
        4 result: bytes,
        5 run_us: u32,
        6 credits: u32,
        7 epoch: u32,
    }
    Dispatch of "Dispatch" {
        1 container: u32,
        2 id: bytes,
        3 time_left_ms: u32,
        4 payload: bytes,
        5 attempt: u32,
        6 epoch: u32,
    }
    Answer of "Answer" {
        1 id: bytes,
        2 outcome: i32,
        3 result: bytes,
        4 queue_us: u32,
        5 dispatch_us: u32,
        6 run_us: u32,
        7 rejection: bytes,
        8 durability: i32,
    }
}
