//! Messages and service stubs generated from `proto/inference.proto`.

#![allow(
    unreachable_pub,
    clippy::all,
    clippy::allow_attributes_without_reason,
    reason = "generated code"
)]

tonic::include_proto!("inference");

/// Encoded file descriptors, for reflection.
pub(super) const DESCRIPTORS: &[u8] = tonic::include_file_descriptor_set!("inference");
