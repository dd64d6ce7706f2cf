//! The binary interface between the inference server and a plugin, version 1.
//!
//! The server's loader is on one side of this interface and `plugin-sdk` is on the other. It rarely changes. Plugin authors
//! use `plugin-sdk` and do not depend on this crate.
//!
//! # Compatibility
//! A plugin built today loads in every later server of the same major version. Therefore:
//! - Structs that are passed by value are frozen. They have reserved fields and integer codes for later additions.
//! - Functions are only appended to [`PluginModule`], [`ModelAbi`], [`OutputSinkAbi`] and [`HostAbi`], after the last prefix
//!   field, which never moves. Each has a default implementation.
//! - Metadata (tasks, schemas, settings, examples) crosses as JSON (see [`manifest`]), so it does not affect any layout.
//!
//! # Ownership
//! Borrowed data is valid for the duration of the call. The host holds no memory of the plugin except the model and
//! [`RawPrepared::handle`], which it returns through [`ModelAbi::drop_prepared`].
//!
//! # Panics
//! Both sides catch panics before they reach this boundary, where abi_stable would exit the process.

#![allow(
    non_camel_case_types,
    non_local_definitions,
    unsafe_code,
    unreachable_pub,
    clippy::undocumented_unsafe_blocks,
    clippy::multiple_unsafe_ops_per_block,
    clippy::allow_attributes_without_reason,
    reason = "the derive and sabi_trait macros of abi_stable expand to such code"
)]

pub mod check;
pub mod codes;
mod dtype;
pub mod json_error;
pub mod manifest;

pub use dtype::DType;

use abi_stable::StableAbi;
use abi_stable::library::RootModule;
use abi_stable::package_version_strings;
use abi_stable::sabi_trait;
use abi_stable::sabi_types::{RMut, VersionStrings};
use abi_stable::std_types::{RBox, RResult, RSlice, RStr, RString};

/// A borrowed tensor. `data` is little-endian, row-major and dense: its length is the product of `shape` times the size of
/// `dtype` (see [`codes::dtype`]). Each element of dtype `BYTES` is a `u32` length followed by that many bytes.
#[repr(C)]
#[derive(StableAbi, Clone, Copy, Debug)]
pub struct RawTensor<'a> {
    /// Name of the input or output.
    pub name: RStr<'a>,
    /// One of [`codes::dtype`].
    pub dtype: u32,
    /// Zero.
    pub reserved: u32,
    /// Dimensions of one item, without the batch dimension. In [`OutputSinkAbi::emit_batch`], the first dimension is the
    /// batch.
    pub shape: RSlice<'a, u64>,
    /// The elements.
    pub data: RSlice<'a, u8>,
}

/// A borrowed input or output of one item.
#[repr(C)]
#[derive(StableAbi, Clone, Copy, Debug)]
pub struct RawValue<'a> {
    /// One of [`codes::kind`]. Determines which of the fields below are used.
    pub kind: u32,
    /// Zero.
    pub reserved: u32,
    /// The UTF-8 text, the JSON document or the bytes.
    pub data: RSlice<'a, u8>,
    /// Media type of `data` if the kind is bytes. Empty if unknown.
    pub media_type: RStr<'a>,
    /// The tensors, if the kind is tensors.
    pub tensors: RSlice<'a, RawTensor<'a>>,
    /// Zero.
    pub reserved_word: u64,
}

/// A borrowed item of a batch.
#[repr(C)]
#[derive(StableAbi, Clone, Copy, Debug)]
pub struct RawItem<'a> {
    /// The input that the client sent.
    pub value: RawValue<'a>,
    /// The request's `parameters` as a JSON object. Empty if the request has none.
    pub parameters: RStr<'a>,
    /// The handle that [`ModelAbi::prepare`] returned for this item, or 0 if its task has no prepare step.
    pub prepared: usize,
    /// Zero.
    pub reserved: u64,
}

/// A borrowed batch: items of one task.
#[repr(C)]
#[derive(StableAbi, Clone, Copy, Debug)]
pub struct RawBatch<'a> {
    /// Index of the task in the manifest of the model.
    pub task: u32,
    /// Index of the calling worker, less than the number of workers. Calls with the same index never overlap.
    pub worker: u32,
    /// The items. At least one.
    pub items: RSlice<'a, RawItem<'a>>,
    /// Zero.
    pub reserved: u64,
}

/// A prepared item.
#[repr(C)]
#[derive(StableAbi, Clone, Copy, Debug)]
pub struct RawPrepared {
    /// Handle owned by the plugin. Never 0. The host returns it exactly once, through [`ModelAbi::drop_prepared`].
    pub handle: usize,
    /// Cost of the item in the plugin's units, such as tokens or pixels. At least 1.
    pub weight: u64,
    /// Grouping key, such as a hash of the shape. Items of different groups never share a batch. 0 if the task has no groups.
    pub group: u64,
    /// Zero.
    pub reserved: u64,
}

/// Memory that a model has allocated from a device or an arena, in bytes.
#[repr(C)]
#[derive(StableAbi, Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawMemoryUsage {
    /// 1 if the model reports its memory, 0 if it does not. The following fields are then 0.
    pub is_reported: u32,
    /// Zero.
    pub reserved: u32,
    /// Memory in use now.
    pub current: u64,
    /// Maximum memory in use since the previous call of [`ModelAbi::memory_usage`], or since the model was loaded.
    pub peak: u64,
    /// Zero.
    pub reserved_word: u64,
}

impl RawMemoryUsage {
    /// The value of a model that does not report its memory.
    pub const NOT_REPORTED: Self = Self {
        is_reported: 0,
        reserved: 0,
        current: 0,
        peak: 0,
        reserved_word: 0,
    };
}

/// Error of an item, a batch or a load.
#[repr(C)]
#[derive(StableAbi, Clone, Debug)]
pub struct RawError {
    /// One of [`codes::error`].
    pub kind: u32,
    /// Zero.
    pub reserved: u32,
    /// What failed, what was found and what was expected. Shown to the client or the operator.
    pub message: RString,
    /// Dotted path of the invalid settings key (`image.size`), or empty.
    pub key: RString,
}

/// A borrowed log record.
#[repr(C)]
#[derive(StableAbi, Clone, Copy, Debug)]
pub struct RawLogRecord<'a> {
    /// Level as in `log::Level`: 1 error, 2 warn, 3 info, 4 debug, 5 trace.
    pub level: u32,
    /// Line in `file`, or 0.
    pub line: u32,
    /// Target of the record, by default the module path.
    pub target: RStr<'a>,
    /// The formatted message.
    pub message: RStr<'a>,
    /// Source file, or empty.
    pub file: RStr<'a>,
}

/// Functions of the server that a plugin can call at any time, from any thread, until the process exits.
#[sabi_trait]
pub trait HostAbi: Send + Sync + 'static {
    /// Most verbose level that the server logs, as in [`RawLogRecord::level`]. 0 if it logs nothing.
    fn max_log_level(&self) -> u32;

    /// Writes a record to the server's log, tagged with the model.
    #[sabi(last_prefix_field)]
    fn log(&self, record: RawLogRecord<'_>);
}

/// The server, as seen by a plugin.
pub type Host = HostAbi_TO<RBox<()>>;

/// Receives the outcomes of one batch. Owned by the host, and used only during one call of `predict_batch`, on its thread.
///
/// Each function returns one of [`codes::sink`]. The output of an item can be emitted in several parts (see
/// [`codes::emit::MORE`]). After the last part or a failure, the item is complete and further calls for it are rejected.
#[sabi_trait]
pub trait OutputSinkAbi {
    /// Emits the output of item `index`, or a part of it.
    fn emit(&mut self, index: u32, value: RawValue<'_>, flags: u32) -> u32;

    /// Emits the outputs of all items at once: tensors whose first dimension is the batch. Row `i` belongs to item `i`.
    /// Rejected if any item is already complete. A plugin that fails one item must emit the other items one by one.
    fn emit_batch(&mut self, tensors: RSlice<'_, RawTensor<'_>>) -> u32;

    /// Fails item `index`. Other items are not affected.
    #[sabi(last_prefix_field)]
    fn fail(&mut self, index: u32, kind: u32, message: RStr<'_>) -> u32;

    /// Reports the weight of item `index`, for a task whose [`ModelAbi::prepare`] does not report weights. Does not complete
    /// the item. At most one call per item. Servers without this function ignore the weight.
    fn weigh(&mut self, _index: u32, _weight: u64) -> u32 {
        codes::sink::OK
    }
}

/// A sink, borrowed for one batch.
pub type OutputSink<'a> = OutputSinkAbi_TO<'a, RMut<'a, ()>>;

/// A loaded model. Called from several threads concurrently; see [`RawBatch::worker`].
#[sabi_trait]
pub trait ModelAbi: Send + Sync + 'static {
    /// Returns a [`manifest::ModelManifest`] as JSON: the tasks of this instance with its settings.
    fn manifest(&self) -> RString;

    /// Decodes and preprocesses one item. Called for tasks whose manifest sets `prepares`, in parallel and not on the model's
    /// threads.
    fn prepare(&self, task: u32, item: RawItem<'_>) -> RResult<RawPrepared, RawError>;

    /// Drops a handle that [`prepare`](Self::prepare) returned for `task`. Called exactly once per handle, on any thread.
    fn drop_prepared(&self, task: u32, handle: usize);

    /// Runs one batch and emits one outcome per item into `sink`. An error fails every item that is not yet complete.
    #[sabi(last_prefix_field)]
    fn predict_batch(&self, batch: RawBatch<'_>, sink: OutputSink<'_>) -> RResult<(), RawError>;

    /// Returns an item of `task` whose weight is about `weight`, in the JSON form of
    /// [`manifest::TaskManifest::examples`]. Empty if the task has no item of about that weight, or does not create items.
    /// Called only for tasks whose manifest sets `samples`. Since version 1.1.
    fn sample(&self, _task: u32, _weight: u64) -> RResult<RString, RawError> {
        RResult::ROk(RString::new())
    }

    /// Returns the device or arena memory of this model, and starts a new measurement of its peak. Since version 1.1.
    fn memory_usage(&self) -> RawMemoryUsage {
        RawMemoryUsage::NOT_REPORTED
    }
}

/// A loaded model, as seen by the server.
pub type Model = ModelAbi_TO<RBox<()>>;

/// The root module that a plugin exports.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = PluginModule_Ref)))]
pub struct PluginModule {
    /// Returns a [`manifest::PluginManifest`] as JSON: everything that is known about the plugin without settings.
    pub describe: extern "C" fn() -> RString,

    /// Loads a model. `context` is a [`manifest::LoadContext`] as JSON.
    #[sabi(last_prefix_field)]
    pub load: extern "C" fn(context: RStr<'_>, host: Host) -> RResult<Model, RawError>,
}

impl RootModule for PluginModule_Ref {
    abi_stable::declare_root_module_statics! {PluginModule_Ref}
    const BASE_NAME: &'static str = "plugin";
    const NAME: &'static str = "plugin";
    const VERSION_STRINGS: VersionStrings = package_version_strings!();
}
