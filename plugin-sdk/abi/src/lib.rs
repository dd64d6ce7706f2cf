//! The binary interface between the inference server and a plugin, version 1.
//!
//! Owned by nobody and changed almost never: the server's loader is on one side of it, `plugin-sdk` on the other. Authors
//! of plugins use `plugin-sdk` and never see this crate.
//!
//! # How it may grow
//! A plugin built today loads in every later server of the same major version. Therefore:
//! - a struct that is passed by value is frozen; it has reserved fields and integer codes where growth is foreseen;
//! - functions are only ever appended to [`PluginModule`], [`ModelAbi`], [`OutputSinkAbi`] and [`HostAbi`], after the
//!   last prefix field (which never moves), each with a default;
//! - whatever describes (tasks, schemas, settings, examples) crosses as JSON, see [`manifest`], and so never touches a layout.
//!
//! # Ownership
//! Everything borrowed is lent for the duration of the call. Nothing that a plugin allocated outlives the plugin's model
//! except [`RawPrepared::handle`], which goes back through [`ModelAbi::drop_prepared`].
//!
//! # Panics
//! A panic must not reach this boundary from either side: abi_stable would end the process. Both sides catch.

#![allow(
    non_camel_case_types,
    non_local_definitions,
    unsafe_code,
    unreachable_pub,
    clippy::undocumented_unsafe_blocks,
    clippy::multiple_unsafe_ops_per_block,
    clippy::allow_attributes_without_reason,
    reason = "the expansion of abi_stable's derive and sabi_trait macros"
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

/// One tensor, lent. `data` is little-endian, row-major and dense: its length is the product of `shape` times the size of
/// `dtype` (see [`codes::dtype`]). Elements of dtype `BYTES` are each a `u32` length followed by that many bytes.
#[repr(C)]
#[derive(StableAbi, Clone, Copy, Debug)]
pub struct RawTensor<'a> {
    /// Name of the input or output.
    pub name: RStr<'a>,
    /// One of [`codes::dtype`].
    pub dtype: u32,
    /// Zero.
    pub reserved: u32,
    /// Dimensions. Of one item: without the batch dimension. In [`OutputSinkAbi::emit_batch`]: the first is the batch.
    pub shape: RSlice<'a, u64>,
    /// The elements.
    pub data: RSlice<'a, u8>,
}

/// One input or output of one item, lent.
#[repr(C)]
#[derive(StableAbi, Clone, Copy, Debug)]
pub struct RawValue<'a> {
    /// One of [`codes::kind`]: says which of the fields below count.
    pub kind: u32,
    /// Zero.
    pub reserved: u32,
    /// The UTF-8 text, the JSON document or the bytes.
    pub data: RSlice<'a, u8>,
    /// Media type of `data` where the kind is bytes; may be empty.
    pub media_type: RStr<'a>,
    /// The tensors, where the kind is tensors.
    pub tensors: RSlice<'a, RawTensor<'a>>,
    /// Zero.
    pub reserved_word: u64,
}

/// One item of a batch, lent.
#[repr(C)]
#[derive(StableAbi, Clone, Copy, Debug)]
pub struct RawItem<'a> {
    /// What the client sent.
    pub value: RawValue<'a>,
    /// The request's `parameters`, a JSON object; empty if it had none.
    pub parameters: RStr<'a>,
    /// The handle that [`ModelAbi::prepare`] gave for this item, or 0 if its task prepares nothing.
    pub prepared: usize,
    /// Zero.
    pub reserved: u64,
}

/// A batch: items of one task, lent.
#[repr(C)]
#[derive(StableAbi, Clone, Copy, Debug)]
pub struct RawBatch<'a> {
    /// Index of the task in the manifest of the model.
    pub task: u32,
    /// Which worker calls, from 0 to the number of workers less one. No two calls with the same number overlap.
    pub worker: u32,
    /// The items, at least one.
    pub items: RSlice<'a, RawItem<'a>>,
    /// Zero.
    pub reserved: u64,
}

/// What preparing an item gave.
#[repr(C)]
#[derive(StableAbi, Clone, Copy, Debug)]
pub struct RawPrepared {
    /// Owned by the plugin, never 0. The host gives it back once, through [`ModelAbi::drop_prepared`].
    pub handle: usize,
    /// The item's cost in units of the plugin's choice (tokens, pixels), at least 1.
    pub weight: u64,
    /// Items of different groups never share a batch (say a hash of the shape); 0 if any may.
    pub group: u64,
    /// Zero.
    pub reserved: u64,
}

/// A failure of an item, a batch or a load.
#[repr(C)]
#[derive(StableAbi, Clone, Debug)]
pub struct RawError {
    /// One of [`codes::error`].
    pub kind: u32,
    /// Zero.
    pub reserved: u32,
    /// What, where, got, expected; shown to the client or the operator.
    pub message: RString,
    /// Dotted path of the settings key at fault (`image.size`), or empty.
    pub key: RString,
}

/// A log record, lent.
#[repr(C)]
#[derive(StableAbi, Clone, Copy, Debug)]
pub struct RawLogRecord<'a> {
    /// As `log::Level`: 1 error, 2 warn, 3 info, 4 debug, 5 trace.
    pub level: u32,
    /// Line in `file`, or 0.
    pub line: u32,
    /// Module path, as a rule.
    pub target: RStr<'a>,
    /// The formatted message.
    pub message: RStr<'a>,
    /// Source file, or empty.
    pub file: RStr<'a>,
}

/// What a plugin may ask of the server at any time, from any thread, until the process ends.
#[sabi_trait]
pub trait HostAbi: Send + Sync + 'static {
    /// Most verbose level that the server keeps, as in [`RawLogRecord::level`]; 0 for none.
    fn max_log_level(&self) -> u32;

    /// Writes a record to the server's log, tagged with the model.
    #[sabi(last_prefix_field)]
    fn log(&self, record: RawLogRecord<'_>);
}

/// The server, as a plugin holds it.
pub type Host = HostAbi_TO<RBox<()>>;

/// Where a plugin puts the outcomes of one batch. Owned by the host; used during one `predict_batch`, on its thread.
///
/// Each function answers with one of [`codes::sink`]. An item may be answered in several parts (see
/// [`codes::emit::MORE`]); after its last part, or its failure, it is settled and further answers are refused.
#[sabi_trait]
pub trait OutputSinkAbi {
    /// The output of item `index`, or a part of it.
    fn emit(&mut self, index: u32, value: RawValue<'_>, flags: u32) -> u32;

    /// The outputs of all items at once: tensors whose first dimension is the batch; row `i` belongs to item `i`.
    /// Refused once any item is settled: whoever has failed an item answers the others one by one.
    fn emit_batch(&mut self, tensors: RSlice<'_, RawTensor<'_>>) -> u32;

    /// Item `index` failed, alone.
    #[sabi(last_prefix_field)]
    fn fail(&mut self, index: u32, kind: u32, message: RStr<'_>) -> u32;

    /// Item `index` has this weight, for a task that states no weights with [`ModelAbi::prepare`]. Settles nothing; at most
    /// once for an item. A server that does not know this function ignores the weight.
    fn weigh(&mut self, _index: u32, _weight: u64) -> u32 {
        codes::sink::OK
    }
}

/// A sink, lent for one batch.
pub type OutputSink<'a> = OutputSinkAbi_TO<'a, RMut<'a, ()>>;

/// A loaded model. Called from several threads at once; see [`RawBatch::worker`].
#[sabi_trait]
pub trait ModelAbi: Send + Sync + 'static {
    /// A [`manifest::ModelManifest`] as JSON: the tasks that this instance has, with its settings.
    fn manifest(&self) -> RString;

    /// Decodes and preprocesses one item. Called in parallel, off the model's threads, for tasks whose manifest says so.
    fn prepare(&self, task: u32, item: RawItem<'_>) -> RResult<RawPrepared, RawError>;

    /// Takes back what [`prepare`](Self::prepare) gave for `task`. Called exactly once per handle, on any thread.
    fn drop_prepared(&self, task: u32, handle: usize);

    /// Runs one batch and puts one outcome per item into `sink`. An error fails every item that is not yet settled.
    #[sabi(last_prefix_field)]
    fn predict_batch(&self, batch: RawBatch<'_>, sink: OutputSink<'_>) -> RResult<(), RawError>;
}

/// A loaded model, as the server holds it.
pub type Model = ModelAbi_TO<RBox<()>>;

/// What a plugin exports.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = PluginModule_Ref)))]
pub struct PluginModule {
    /// A [`manifest::PluginManifest`] as JSON: what can be said of the plugin without settings.
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
