//! A test plugin that fails on request.
//!
//! The [`Command`] in each item requests an action, and its [`Report`] describes the batch that the item was in. State is kept
//! only in the loaded model and in files that a test names.

mod actions;
mod command;
mod padded_memory;
mod tasks;
mod texts;

use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use plugin_sdk::prelude::*;

pub use command::{Action, Command, Report};
use padded_memory::{MemoryCosts, PaddedMemory};
use tasks::{Commands, Double, PreparedCommands};
use texts::{Classify, Decode, Embed, Sparse, TokenVectors, Tokenize};

/// `[models.settings]`: faults of the model as a whole.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Returned in every report.
    tag: String,
    /// Fault while loading.
    on_load: Option<LoadFault>,
    /// Duration of `on_load = "slow"`.
    load_ms: u64,
    /// File that disables `on_load` as soon as it exists.
    load_fault_until: Option<PathBuf>,
    /// File that every batch except the warm-up waits for. A waiting batch creates this file with `.reached` appended.
    gate: Option<PathBuf>,
    /// Minimum duration of a batch.
    batch_ms: u64,
    /// Additional duration of a batch for each of its items, in microseconds.
    item_us: u64,
    /// Minimum duration of the preparation of an item in the task `prepared`.
    prepare_ms: u64,
    /// Maximum number of items in a batch. Larger batches fail with an out-of-memory error.
    out_of_memory_above: Option<usize>,
    /// Whether the examples fail.
    fail_warm_up: bool,
    /// Whether all embeddings contain NaN.
    nan_embeddings: bool,
    /// Whether the model panics when it is dropped.
    panic_in_drop: bool,
    /// Text that the model logs when it is dropped.
    farewell: Option<String>,
    /// Maximum number of items in a batch, as declared by the plugin.
    declared_max_batch_size: Option<usize>,
    /// What a batch of the task `padded_memory` allocates.
    padded_memory: MemoryCosts,
    /// Number of times that the task `tensor` multiplies its numbers with a matrix, which keeps the CPU busy.
    multiplications: usize,
}

/// Fault while loading.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum LoadFault {
    /// Panic.
    Panic,
    /// Error that names the setting `on_load`.
    Error,
    /// Takes `load_ms` and then succeeds.
    Slow,
    /// Blocks forever.
    Hang,
    /// Exits the process with code 0.
    Exit,
    /// Aborts the process.
    Abort,
    /// Writes to an unmapped address.
    Segfault,
    /// Succeeds, and aborts the process when the thread that loaded the model exits.
    BindThread,
}

/// The model.
pub struct Misbehave {
    settings: Settings,
    /// From the load context.
    threads: usize,
    batches: AtomicU64,
    _bomb: Option<actions::Bomb>,
}

impl Model for Misbehave {
    type Settings = Settings;

    fn load(mut settings: Settings, context: &LoadContext) -> Result<Self, LoadError> {
        let paths = [&mut settings.gate, &mut settings.load_fault_until];
        for path in paths.into_iter().flatten() {
            *path = context.path(&*path);
        }
        let is_disabled = settings
            .load_fault_until
            .as_ref()
            .is_some_and(|path| path.exists());
        match settings.on_load.filter(|_| !is_disabled) {
            None => {}
            Some(LoadFault::Panic) => panic!("misbehave panics in load"),
            Some(LoadFault::Error) => {
                return Err(LoadError::setting(
                    "on_load",
                    "misbehave fails to load as requested",
                ));
            }
            Some(LoadFault::Slow) => actions::pause(Duration::from_millis(settings.load_ms)),
            Some(LoadFault::Hang) => actions::hang(),
            Some(LoadFault::Exit) => actions::exit(0),
            Some(LoadFault::Abort) => actions::abort(),
            Some(LoadFault::Segfault) => actions::segfault(),
            Some(LoadFault::BindThread) => actions::bind_thread(),
        }
        let _bomb = settings.panic_in_drop.then(|| actions::Bomb);
        Ok(Self {
            settings,
            threads: context.threads,
            batches: AtomicU64::new(0),
            _bomb,
        })
    }

    fn tasks() -> Tasks<Self> {
        tasks_with(None)
    }

    fn configured_tasks(&self) -> Tasks<Self> {
        tasks_with(self.settings.declared_max_batch_size)
    }
}

impl Drop for Misbehave {
    fn drop(&mut self) {
        if let Some(farewell) = &self.settings.farewell {
            log::info!("{farewell}");
        }
    }
}

fn tasks_with(max_batch_size: Option<usize>) -> Tasks<Misbehave> {
    Tasks::new()
        .add("text", Commands { max_batch_size })
        .add("image", Commands { max_batch_size })
        .add_prepared("prepared", PreparedCommands { max_batch_size })
        .add("tensor", Double)
        .add_prepared("embed", Embed)
        .add_prepared("padded_memory", PaddedMemory)
        .add_prepared("sparse", Sparse)
        .add_prepared("tokens", TokenVectors)
        .add_prepared("classify", Classify)
        .add_prepared("tokenize", Tokenize)
        .add_prepared("decode", Decode)
}

export_model!(Misbehave);
