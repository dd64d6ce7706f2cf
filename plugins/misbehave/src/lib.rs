//! A plugin that misbehaves on request, for the tests of everything around it.
//!
//! Tests order each item what to do, see [`Order`], and read from the [`Report`] how the items were batched. Nothing is
//! recorded outside the loaded model, except in the files that a test names.

mod deeds;
mod order;
mod tasks;

use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use plugin_sdk::prelude::*;

pub use order::{Deed, Order, Report};
use tasks::{Direct, Double, Embed, Prepares};

/// `[models.settings]`: what goes wrong with the model as a whole.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Comes back in every report.
    tag: String,
    /// What goes wrong while loading.
    on_load: Option<LoadFault>,
    /// How long `on_load = "slow"` takes.
    load_ms: u64,
    /// Loading goes wrong only while this file is missing.
    load_fault_until: Option<PathBuf>,
    /// Every batch but the warm-up waits until this file exists; the same with `.reached` appended appears when one does.
    gate: Option<PathBuf>,
    /// Every batch takes at least this long.
    batch_ms: u64,
    /// And this much longer, in microseconds, for each of its items.
    item_us: u64,
    /// Batches of more items than this fail for want of memory.
    out_of_memory_above: Option<usize>,
    /// The examples fail.
    fail_warm_up: bool,
    /// The model panics when dropped.
    panic_in_drop: bool,
    /// The model logs this when dropped.
    farewell: Option<String>,
    /// Most items in a batch, as the plugin declares it.
    declared_max_batch_size: Option<usize>,
}

/// What may go wrong while loading.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum LoadFault {
    /// Panic.
    Panic,
    /// An error that blames `on_load`.
    Error,
    /// Takes `load_ms`, and then works.
    Slow,
    /// Never ends.
    Hang,
    /// Ends the process with code 0.
    Exit,
    /// Aborts the process.
    Abort,
    /// Writes where nobody may.
    Segfault,
    /// Works, and aborts the process when the thread that loads the model exits.
    BindThread,
}

/// The model.
pub struct Misbehave {
    settings: Settings,
    /// As the server has told.
    threads: usize,
    batches: AtomicU64,
    _bomb: Option<deeds::Bomb>,
}

impl Model for Misbehave {
    type Settings = Settings;

    fn load(mut settings: Settings, context: &LoadContext) -> Result<Self, LoadError> {
        let waits = [&mut settings.gate, &mut settings.load_fault_until];
        for path in waits.into_iter().flatten() {
            *path = context.path(&*path);
        }
        let over = settings
            .load_fault_until
            .as_ref()
            .is_some_and(|path| path.exists());
        match settings.on_load.filter(|_| !over) {
            None => {}
            Some(LoadFault::Panic) => panic!("misbehave panics in load"),
            Some(LoadFault::Error) => {
                return Err(LoadError::setting("on_load", "misbehave was told to fail"));
            }
            Some(LoadFault::Slow) => deeds::pause(Duration::from_millis(settings.load_ms)),
            Some(LoadFault::Hang) => deeds::hang(),
            Some(LoadFault::Exit) => deeds::exit(0),
            Some(LoadFault::Abort) => deeds::abort(),
            Some(LoadFault::Segfault) => deeds::segfault(),
            Some(LoadFault::BindThread) => deeds::bind_thread(),
        }
        let _bomb = settings.panic_in_drop.then(|| deeds::Bomb);
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
        .add("text", Direct { max_batch_size })
        .add("image", Direct { max_batch_size })
        .add_prepared("prepared", Prepares { max_batch_size })
        .add("tensor", Double)
        .add_prepared("embed", Embed)
}

export_model!(Misbehave);
