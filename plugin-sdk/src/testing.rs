//! Tests a plugin in its own process, through the same C ABI objects that the server uses, without the server.
//!
//! ```no_run
//! # use plugin_sdk::prelude::*;
//! # struct Greeter;
//! # impl Model for Greeter {
//! #     type Settings = NoSettings;
//! #     fn load(_: NoSettings, _: &LoadContext) -> Result<Self, LoadError> { Ok(Self) }
//! #     fn tasks() -> Tasks<Self> { Tasks::new() }
//! # }
//! use plugin_sdk::testing::Harness;
//!
//! let greeter = Harness::<Greeter>::load(json!({"greeting": "Hello"})).expect("the settings are complete");
//! greeter.check_examples();
//! assert_eq!(greeter.predict("greet", &[json!("Ada")]), [Ok(json!("Hello, Ada!"))]);
//! ```

mod host;
mod native;

use std::fmt;
use std::marker::PhantomData;
use std::path::PathBuf;

use abi_stable::sabi_trait::TD_Opaque;
use abi_stable::sabi_types::RMut;
use abi_stable::std_types::{RResult, RSlice, RStr};
use plugin_abi::check;
use plugin_abi::codes::error as code;
use plugin_abi::manifest::{self, ModelManifest, TaskManifest};
use plugin_abi::{Host, OutputSinkAbi_TO, RawBatch, RawError, RawItem};
use serde_json::{Value as Json, json};

use crate::entry;
use crate::front::{self, Front};
use crate::host::Reach;
use crate::model::Model;

pub use host::LogLine;
use host::{CollectingSink, LogLines, Nowhere};
use native::OwnedValue;

/// A loaded model of type `M`.
///
/// Items and outputs are in the JSON form of the server's native routes: a string for text, the document itself for JSON,
/// `{"b64": …, "media_type": …}` for bytes, nested arrays by name for tensors.
pub struct Harness<M> {
    // Dropped first: it may log.
    model: plugin_abi::Model,
    manifest: ModelManifest,
    logs: LogLines,
    _model: PhantomData<fn() -> M>,
}

/// Why a load, a batch or an item failed, as the server would see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Who is to blame.
    pub kind: FailureKind,
    /// What the client or the operator is told.
    pub message: String,
    /// The setting to blame, or empty.
    pub key: String,
}

/// Who is to blame for a [`Failure`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FailureKind {
    /// The client: the input is not what the task takes.
    InvalidInput,
    /// The model.
    Internal,
    /// The size of the batch: a smaller one may fit into memory.
    OutOfMemory,
    /// The operator: a setting is missing or wrong.
    Settings,
    /// The plugin: it panicked.
    Panic,
    /// The client: it asked for what the model cannot do.
    Unsupported,
}

/// What the server would learn from preparing an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// What the item costs.
    pub weight: u64,
    /// With which others it may share a batch.
    pub group: u64,
}

impl<M: Model> Harness<M> {
    /// Loads a model with these `[models.settings]`; relative paths in them start from the current folder, which is that of
    /// the package under `cargo test`.
    ///
    /// # Errors
    /// The model did not load.
    pub fn load(settings: Json) -> Result<Self, Failure> {
        Self::load_with(settings, ".", 1, 1)
    }

    /// As [`load`](Self::load), with the rest of the [`LoadContext`](crate::LoadContext).
    ///
    /// # Errors
    /// The model did not load.
    pub fn load_with(
        settings: Json,
        base_dir: impl Into<PathBuf>,
        workers: u32,
        threads: u32,
    ) -> Result<Self, Failure> {
        let context = manifest::LoadContext {
            model: "test".to_owned(),
            settings,
            base_dir: base_dir.into(),
            workers,
            threads,
            ..manifest::LoadContext::default()
        };
        Self::loaded(&context, |context, host| {
            entry::load::<M>(context, host, Reach::Calls)
        })
    }
}

impl<F: Front> Harness<F> {
    /// As [`load`](Self::load), for a plugin in two libraries. The second has to be where the dynamic linker finds it, as
    /// it is under `cargo test` and `cargo bench` if its package is a dependency. What it logs outside of calls goes to the
    /// first harness that loaded it.
    ///
    /// # Errors
    /// The model did not load.
    pub fn load_behind(settings: Json) -> Result<Self, Failure> {
        let context = manifest::LoadContext {
            model: "test".to_owned(),
            settings,
            base_dir: ".".into(),
            workers: 1,
            threads: 1,
            ..manifest::LoadContext::default()
        };
        Self::loaded(&context, |context, host| front::load::<F>(context, host))
    }
}

impl<M> Harness<M> {
    fn loaded(
        context: &manifest::LoadContext,
        load: impl FnOnce(RStr<'_>, Host) -> RResult<plugin_abi::Model, RawError>,
    ) -> Result<Self, Failure> {
        let context = serde_json::to_string(context).expect("the path of the folder is UTF-8");
        let logs = LogLines::default();
        let model = match load(RStr::from(&*context), host::for_lines(&logs)) {
            RResult::ROk(model) => model,
            RResult::RErr(error) => return Err(Failure::from(error)),
        };
        let manifest: ModelManifest =
            serde_json::from_str(&model.manifest()).expect("the SDK writes manifests that can be read");
        // The server rejects such a model, so its tests must not pass.
        if let Some(finding) = check::model(&manifest).first() {
            return Err(Failure::new(code::INTERNAL, &finding.message));
        }
        Ok(Self {
            model,
            manifest,
            logs,
            _model: PhantomData,
        })
    }

    /// What the model tells the server about itself.
    pub fn manifest(&self) -> &ModelManifest {
        &self.manifest
    }

    /// Runs items of one request as one batch, without `parameters`.
    ///
    /// # Panics
    /// There is no such task.
    pub fn predict(&self, task: &str, items: &[Json]) -> Vec<Result<Json, Failure>> {
        self.predict_with(task, items, &Json::Null)
    }

    /// As [`predict`](Self::predict), for a request with `parameters`.
    ///
    /// # Panics
    /// There is no such task.
    pub fn predict_with(&self, task: &str, items: &[Json], parameters: &Json) -> Vec<Result<Json, Failure>> {
        let (index, task) = self.task(task);
        let parameters = parameters_text(parameters);
        let mut outcomes: Vec<Option<Result<Json, Failure>>> = vec![None; items.len()];
        let mut ready = Vec::new();
        for (position, item) in items.iter().enumerate() {
            match self.ready(index, task, item, &parameters) {
                Ok(item) => ready.push((position, item)),
                Err(failure) => outcomes[position] = Some(Err(failure)),
            }
        }
        let (positions, ready): (Vec<_>, Vec<_>) = ready.into_iter().unzip();
        let ready: Vec<_> = ready.iter().collect();
        for (position, outcome) in positions.into_iter().zip(self.run(index, &ready, &parameters)) {
            outcomes[position] = Some(outcome);
        }
        outcomes
            .into_iter()
            .map(|outcome| outcome.expect("every item failed early or ran"))
            .collect()
    }

    /// Prepares an item, and says what the server would learn of it.
    ///
    /// # Errors
    /// The item is not what the task takes.
    ///
    /// # Panics
    /// There is no such task, or it does not prepare.
    pub fn prepare(&self, task: &str, item: &Json) -> Result<Cost, Failure> {
        let (index, task) = self.task(task);
        assert!(task.prepares, "task `{}` has no prepare step", task.name);
        self.ready(index, task, item, "").map(|item| item.cost)
    }

    /// Runs the examples of every task, as the server does to warm the model up.
    ///
    /// # Panics
    /// A task has no example, or one that fails.
    pub fn check_examples(&self) {
        for task in &self.manifest.tasks {
            let name = &task.name;
            assert!(
                !task.examples.is_empty(),
                "task `{name}` has no example: the server cannot warm it up"
            );
            for (example, outcome) in task.examples.iter().zip(self.predict(name, &task.examples)) {
                if let Err(failure) = outcome {
                    panic!("task `{name}` fails on its example {example}: {failure}");
                }
            }
        }
    }

    /// Hands `bench` a batch of these items, to be run again and again: read and prepared once, answered into nothing.
    ///
    /// ```no_run
    /// # use plugin_sdk::testing::Harness;
    /// # use serde_json::json;
    /// # fn bench<M>(model: Harness<M>, bencher: divan::Bencher<'_, '_>) {
    /// model.repeat("greet", &vec![json!("Ada"); 32], |run| bencher.bench_local(run));
    /// # }
    /// ```
    ///
    /// # Panics
    /// There is no such task, or an item or the batch fails.
    pub fn repeat(&self, task: &str, items: &[Json], bench: impl FnOnce(&mut dyn FnMut())) {
        let (index, task) = self.task(task);
        let ready = items.iter().map(|item| self.ready(index, task, item, ""));
        let ready = ready.collect::<Result<Vec<_>, _>>();
        let ready = ready.unwrap_or_else(|failure| panic!("an item failed: {failure}"));
        let ready: Vec<_> = ready.iter().collect();
        with_batch(index, &ready, "", |batch| {
            bench(&mut || {
                let mut sink = Nowhere;
                let lent = OutputSinkAbi_TO::from_ptr(RMut::new(&mut sink), TD_Opaque);
                if let Err(error) = self.model.predict_batch(batch, lent).into_result() {
                    panic!("the batch failed: {}", Failure::from(error));
                }
            });
        });
    }

    /// The model as the server holds it, for tests of the boundary itself.
    #[doc(hidden)]
    pub fn abi(&self) -> &plugin_abi::Model {
        &self.model
    }

    /// What the model has logged, panics included.
    pub fn logs(&self) -> Vec<LogLine> {
        self.logs.copy()
    }

    /// Drops the model, and returns what it has logged until the end.
    pub fn unload(self) -> Vec<LogLine> {
        let Self { model, logs, .. } = self;
        drop(model);
        logs.copy()
    }

    fn task(&self, name: &str) -> (u32, &TaskManifest) {
        let found = (0..)
            .zip(&self.manifest.tasks)
            .find(|(_, task)| task.name == name);
        found.unwrap_or_else(|| panic!("the model has no task `{name}`"))
    }

    fn ready(
        &self,
        index: u32,
        task: &TaskManifest,
        item: &Json,
        parameters: &str,
    ) -> Result<Ready<'_>, Failure> {
        let value = native::read(item, &task.input).map_err(Failure::invalid)?;
        let mut ready = Ready {
            model: &self.model,
            task: index,
            value,
            handle: 0,
            cost: Cost { weight: 1, group: 0 },
        };
        if task.prepares {
            let prepared = ready.value.with_raw(|value| {
                let item = RawItem {
                    value,
                    parameters: RStr::from(parameters),
                    prepared: 0,
                    reserved: 0,
                };
                self.model.prepare(index, item).into_result()
            })?;
            ready.handle = prepared.handle;
            ready.cost = Cost {
                weight: prepared.weight,
                group: prepared.group,
            };
        }
        Ok(ready)
    }

    fn run(&self, task: u32, ready: &[&Ready<'_>], parameters: &str) -> Vec<Result<Json, Failure>> {
        if ready.is_empty() {
            return Vec::new();
        }
        with_batch(task, ready, parameters, |batch| {
            let declared = &self.manifest.tasks[task as usize].output;
            let mut sink = CollectingSink::new(ready.len(), declared);
            let lent = OutputSinkAbi_TO::from_ptr(RMut::new(&mut sink), TD_Opaque);
            let outcome = self.model.predict_batch(batch, lent).into_result();
            sink.finish(outcome.err().map(Failure::from))
        })
    }
}

/// Calls `then` with the batch of these items.
fn with_batch<T>(
    task: u32,
    ready: &[&Ready<'_>],
    parameters: &str,
    then: impl FnOnce(RawBatch<'_>) -> T,
) -> T {
    let values: Vec<_> = ready.iter().map(|item| &item.value).collect();
    native::with_all_raw(&values, |raw| {
        let items: Vec<_> = raw
            .iter()
            .zip(ready)
            .map(|(value, item)| RawItem {
                value: *value,
                parameters: RStr::from(parameters),
                prepared: item.handle,
                reserved: 0,
            })
            .collect();
        then(RawBatch {
            task,
            worker: 0,
            items: RSlice::from(&items[..]),
            reserved: 0,
        })
    })
}

/// An item that may run; gives its handle back when dropped.
struct Ready<'h> {
    model: &'h plugin_abi::Model,
    task: u32,
    value: OwnedValue,
    handle: usize,
    cost: Cost,
}

impl Drop for Ready<'_> {
    fn drop(&mut self) {
        if self.handle != 0 {
            self.model.drop_prepared(self.task, self.handle);
        }
    }
}

/// Asserts that two lists of numbers have the same length and nowhere differ by more than `tolerance`.
///
/// # Panics
/// They do not; the message begins with `what`.
#[track_caller]
pub fn assert_close(got: &[f64], expected: &[f64], tolerance: f64, what: &str) {
    assert_eq!(got.len(), expected.len(), "{what}: number of elements");
    for (index, (got, expected)) in got.iter().zip(expected).enumerate() {
        assert!(
            (got - expected).abs() <= tolerance,
            "{what}: element {index} is {got}, expected {expected} give or take {tolerance}"
        );
    }
}

fn parameters_text(parameters: &Json) -> String {
    if parameters.is_null() {
        String::new()
    } else {
        json!(parameters).to_string()
    }
}

impl Failure {
    fn invalid(message: String) -> Self {
        Self {
            kind: FailureKind::InvalidInput,
            message,
            key: String::new(),
        }
    }

    fn new(code: u32, message: &str) -> Self {
        let kind = match code {
            code::INVALID_INPUT => FailureKind::InvalidInput,
            code::OUT_OF_MEMORY => FailureKind::OutOfMemory,
            code::SETTINGS => FailureKind::Settings,
            code::PANIC => FailureKind::Panic,
            code::UNSUPPORTED => FailureKind::Unsupported,
            _ => FailureKind::Internal,
        };
        Self {
            kind,
            message: message.to_owned(),
            key: String::new(),
        }
    }
}

impl From<RawError> for Failure {
    fn from(error: RawError) -> Self {
        Self {
            key: error.key.into_string(),
            ..Self::new(error.kind, &error.message)
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?}: {}", self.kind, self.message)?;
        if self.key.is_empty() {
            Ok(())
        } else {
            write!(formatter, " (setting `{}`)", self.key)
        }
    }
}

impl std::error::Error for Failure {}

impl<M> fmt::Debug for Harness<M> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Harness")
            .field("manifest", &self.manifest)
            .finish_non_exhaustive()
    }
}
