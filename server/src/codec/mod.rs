//! The JSON form of items, which the native routes and the examples in manifests share.
//!
//! [`read_item()`] reads one item from a slice of a JSON document, and [`read_tensor()`] reads a tensor without an
//! intermediate tree. [`write_value()`] writes outputs. Reading takes time and memory linear in the text and does not
//! recurse. This module does not know requests, replies or status codes.

pub mod bounded_json;
pub mod data_uri;
mod decoded_size;
pub mod media_types;
mod read_item;
mod read_tensor;
mod write_value;

pub use decoded_size::{Strings, max_decoded_size};
pub use read_item::{JsonForm, b64_object, decode_example, members, read_item};
pub use read_tensor::{read_elements, read_tensor};
pub use write_value::{
    OutputError, by_name, max_string_size, max_value_size, write_b64_tensor, write_f64, write_list,
    write_object, write_string, write_tensor, write_value,
};
