//! The JSON form of items, which the native routes and the examples in manifests share.
//!
//! Reads one item from a slice of a JSON document ([`read_item`]). A tensor is read without an intermediate tree
//! ([`read_tensor`]). Everything takes time and memory linear in the text, and does not recurse. Does not know requests,
//! replies or status codes.

pub mod bounded_json;
pub mod data_uri;
pub mod media_types;
mod read_item;
mod read_tensor;

pub use read_item::{JsonForm, b64_object, decode_example, members, read_item};
pub use read_tensor::{read_elements, read_tensor};
