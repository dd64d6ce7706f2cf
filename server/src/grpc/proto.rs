//! The messages and the service, as generated from `proto/inference.proto`.

#![allow(
    unreachable_pub,
    clippy::all,
    clippy::allow_attributes_without_reason,
    reason = "generated code"
)]

tonic::include_proto!("inference");

/// The same for reflection, as a set of encoded descriptors.
pub(super) const DESCRIPTORS: &[u8] = tonic::include_file_descriptor_set!("inference");
