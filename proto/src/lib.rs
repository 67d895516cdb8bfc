//! The words on the wire: package `router.v1`, generated from `proto/router/v1/*.proto`.
//!
//! Those files are the public interface for every language and say what each field means, its unit, limit and error.
//! This crate may not decide anything: no checks, no defaults, no I/O of its own.

/// Package `router.v1`: messages, and the tonic client and server of its one service.
pub mod v1 {
    tonic::include_proto!("router.v1");
}

/// The descriptors of the package as a serialised `FileDescriptorSet`, for server reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/router_v1.bin"));

pub mod wire;
