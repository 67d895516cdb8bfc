//! A frame on its way up while it is made of entries: those of which there are many are written as they come, the others are gathered in
//! a message of prost's and written last, which protobuf leaves free. It may not know which may share a frame: that is [`UpFrame`]'s.

use super::{Frequent, LeaveToProst, UpFrame};
use crate::outlet::Frame;
use bytes::BytesMut;
use prost::encoding::message;

/// What a frame holds so far, but for the bytes of its frequent entries.
#[derive(Debug, Default)]
pub(crate) struct Draft<M> {
    /// All but the frequent entries.
    pub(crate) rest: M,
    /// What they are about, each with the one before it only once.
    written: Vec<u32>,
}

impl<M: UpFrame> Draft<M> {
    /// Writes an entry of the kind of which there are many.
    pub(crate) fn write(&mut self, entry: &M::Frequent, to: &mut BytesMut) {
        let about = entry.about();
        if self.written.last() != Some(&about) {
            self.written.push(about);
        }
        if let Err(LeaveToProst) = entry.write(to) {
            message::encode(M::Frequent::FIELD.into(), entry, to);
        }
    }

    /// Whether one of those it has written is about that number.
    pub(crate) fn has_written(&self, about: u32) -> bool {
        self.written.contains(&about)
    }

    /// Whether nothing was put into it.
    pub(crate) fn is_empty(&self) -> bool {
        self.written.is_empty() && self.rest == M::default()
    }
}

impl<M: UpFrame> Frame for Draft<M> {
    type Entry = M::Entry;

    const ENTRY_OVERHEAD: usize = M::Frequent::OVERHEAD;

    fn put(&mut self, entry: M::Entry, to: &mut BytesMut) -> Result<(), M::Entry> {
        M::put(self, entry, to)
    }

    fn finish(&mut self, to: &mut BytesMut) {
        self.written.clear();
        std::mem::take(&mut self.rest).encode_raw(to);
    }
}
