//! Compiles `router/v1/*.proto` with protox, so that no `protoc` has to be installed.
//!
//! The files say `string` for names, as every language expects. The Rust side reads those fields as bytes: the encoding is
//! the same, nothing is copied, and a name that is not UTF-8 becomes a refusal of its entry, where prost would fail the
//! whole frame and so end the stream.

use prost::Message;
use prost_types::field_descriptor_proto::Type;
use prost_types::{DescriptorProto, FileDescriptorSet};
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=router/v1");
    let mut files = protox::compile(["router/v1/router.proto"], ["."])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("router_v1.bin"), files.encode_to_vec())?;
    read_strings_as_bytes(&mut files);
    // Rare, and larger than all the rest of an answer.
    tonic_prost_build::configure().bytes(".").boxed(".router.v1.Answer.rejection").compile_fds(files)?;
    Ok(())
}

fn read_strings_as_bytes(files: &mut FileDescriptorSet) {
    files.file.iter_mut().flat_map(|file| &mut file.message_type).for_each(strings_of);
}

fn strings_of(message: &mut DescriptorProto) {
    for field in message.field.iter_mut().filter(|field| field.r#type() == Type::String) {
        field.set_type(Type::Bytes);
    }
    message.nested_type.iter_mut().for_each(strings_of);
}
