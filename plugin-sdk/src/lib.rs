//! Write a model plugin for the inference server in safe Rust.
//!
//! An author writes a struct that implements [`Model`], one small type per [`Task`], and calls [`export_model!`]. This crate
//! implements the C ABI of `plugin-abi` on top of that: it decodes settings and items, encodes outcomes, catches panics,
//! forwards the log, and describes the plugin to the server. It does not know about batching policies, HTTP, or how the
//! server loads files.
//!
//! A plugin's `Cargo.toml` has `plugin-sdk`, `serde` and `schemars` as dependencies, the latter two because the code that their
//! derives generate refers to them. It sets `crate-type = ["cdylib", "rlib"]`: the first for the server, the second for the
//! plugin's own tests with `testing::Harness`.
//!
//! # Features
//! - `testing` (default): the module `testing`, which runs a plugin without a server.
//! - `front`: `Front`, for plugins that consist of two libraries.

#![warn(missing_docs)]

#[cfg(panic = "abort")]
compile_error!(
    "a plugin must be built with panic = \"unwind\": with \"abort\", a panic in the model would terminate the server"
);

mod adapter;
mod batch;
mod contain;
mod element;
mod entry;
mod error;
mod export;
#[cfg(feature = "front")]
mod front;
mod input;
mod json_bytes;
mod logging;
mod model;
mod output;
mod prepared;
mod schema;
mod settings;
mod task;
mod tensor;
#[cfg(feature = "testing")]
pub mod testing;

pub use batch::{Batch, BatchResult, Item, Outputs, Prepared, Rows};
pub use contain::contain;
pub use element::Element;
pub use error::{BatchError, ItemError, LoadError};
#[cfg(feature = "front")]
pub use front::{Back, Front};
pub use input::{Any, Bytes, BytesItem, Input, Json, Tensor, Tensors, Text, Value};
pub use json_bytes::JsonBytes;
pub use model::{LoadContext, MemoryUsage, Model, NoSettings};
pub use output::{AnyOutput, BytesOutput, Encoder, Output};
pub use plugin_abi::DType;
pub use plugin_abi::json_error;
pub use plugin_abi::manifest::Trial;
pub use task::{PreparedTask, Task, TaskInfo, Tasks};
pub use tensor::{TensorInfo, TensorOutput, TensorView, TensorsView};

pub use plugin_abi::manifest;
pub use {log, schemars, serde, serde_json};

/// The items that most plugins need: `use plugin_sdk::prelude::*;`.
pub mod prelude {
    pub use crate::{
        Any, Batch, BatchError, BatchResult, Bytes, BytesItem, BytesOutput, DType, Item, ItemError, Json,
        JsonBytes, LoadContext, LoadError, MemoryUsage, Model, NoSettings, Outputs, Prepared, PreparedTask,
        Task, TaskInfo, Tasks, Tensor, TensorInfo, TensorOutput, TensorView, Tensors, TensorsView, Text,
        Trial, Value, export_model,
    };
    pub use log;
    pub use schemars::JsonSchema;
    pub use serde::{Deserialize, Serialize};
    pub use serde_json::json;
}

/// Used only by the expansions of [`export_model!`] and `export_front!`.
#[doc(hidden)]
pub mod __private {
    pub use crate::entry::Package;
    #[cfg(feature = "front")]
    pub use crate::export::OfFront;
    pub use crate::export::{OfModel, Plugin, header};
    pub use abi_stable::library::LibHeader;
}
