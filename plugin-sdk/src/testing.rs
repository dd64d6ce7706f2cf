//! Tests of a plugin without the server, in the process of the test, through the C ABI that the server uses.
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

mod failure;
mod host;
mod json_form;

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
#[cfg(feature = "front")]
use crate::front::{self, Front};
use crate::logging::LogScope;
use crate::model::{MemoryUsage, Model};

pub use failure::{Failure, FailureKind};
pub use host::LogLine;
use host::{CollectingSink, DiscardingSink, RecordedLog};
use json_form::OwnedValue;

/// A loaded model of type `M`.
///
/// Items and outputs are in the JSON form of the server's native routes: a string for text, the document itself for JSON,
/// `{"b64": …, "media_type": …}` for bytes, and an object of nested arrays for tensors.
pub struct Harness<M> {
    // Dropped before `logs`, because it can log while it is dropped.
    model: plugin_abi::Model,
    manifest: ModelManifest,
    logs: RecordedLog,
    _model: PhantomData<fn() -> M>,
}

/// The cost of a prepared item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// Weight of the item.
    pub weight: u64,
    /// Group of the item. Items of different groups never share a batch.
    pub group: u64,
}

impl<M: Model> Harness<M> {
    /// Loads a model with these `[models.settings]`. Relative paths in them are relative to the working directory, which is
    /// that of the package under `cargo test`.
    ///
    /// # Errors
    /// The model cannot be loaded.
    pub fn load(settings: Json) -> Result<Self, Failure> {
        Self::load_with(settings, ".", 1, 1)
    }

    /// Like [`load`](Self::load), with the remaining fields of the [`LoadContext`](crate::LoadContext).
    ///
    /// # Errors
    /// The model cannot be loaded.
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
            entry::load::<M>(context, host, LogScope::Calls)
        })
    }
}

#[cfg(feature = "front")]
impl<F: Front> Harness<F> {
    /// Like [`load`](Self::load), for a plugin that consists of two libraries. The dynamic linker must be able to find the
    /// second one. Under `cargo test` and `cargo bench` it does if the package of the library is a dependency. Records that the
    /// library logs outside of calls go to the first harness that loaded it.
    ///
    /// # Errors
    /// The model cannot be loaded.
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
        let context = serde_json::to_string(context).expect("the base directory is UTF-8");
        let logs = RecordedLog::default();
        let model = match load(RStr::from(&*context), host::recording_into(&logs)) {
            RResult::ROk(model) => model,
            RResult::RErr(error) => return Err(Failure::from(error)),
        };
        let manifest: ModelManifest =
            serde_json::from_str(&model.manifest()).expect("the SDK writes valid manifests");
        // The server would reject such a model.
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

    /// Returns the manifest that the server would receive.
    pub fn manifest(&self) -> &ModelManifest {
        &self.manifest
    }

    /// Runs the items of one request as one batch, without `parameters`.
    ///
    /// # Panics
    /// The model has no such task.
    pub fn predict(&self, task: &str, items: &[Json]) -> Vec<Result<Json, Failure>> {
        self.predict_with(task, items, &Json::Null)
    }

    /// Like [`predict`](Self::predict), for a request with `parameters`.
    ///
    /// # Panics
    /// The model has no such task.
    pub fn predict_with(&self, task: &str, items: &[Json], parameters: &Json) -> Vec<Result<Json, Failure>> {
        let (index, task) = self.task(task);
        let parameters = parameters_text(parameters);
        let mut outcomes: Vec<Option<Result<Json, Failure>>> = vec![None; items.len()];
        let mut ready = Vec::new();
        for (position, item) in items.iter().enumerate() {
            match self.prepare_item(index, task, item, &parameters) {
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
            .map(|outcome| outcome.expect("every item has failed or run"))
            .collect()
    }

    /// Prepares an item and returns its cost.
    ///
    /// # Errors
    /// The item is invalid.
    ///
    /// # Panics
    /// The model has no such task, or the task has no prepare step.
    pub fn prepare(&self, task: &str, item: &Json) -> Result<Cost, Failure> {
        let (index, task) = self.task(task);
        assert!(task.prepares, "task `{}` has no prepare step", task.name);
        self.prepare_item(index, task, item, "").map(|item| item.cost)
    }

    /// Creates an item of about this weight, as the server does to measure batches. `None` if the task has no such item.
    ///
    /// # Errors
    /// The model fails.
    ///
    /// # Panics
    /// The model has no such task, or the task does not declare [`TaskInfo::samples`](crate::TaskInfo::samples).
    pub fn sample(&self, task: &str, weight: u64) -> Result<Option<Json>, Failure> {
        let (index, task) = self.task(task);
        assert!(
            task.samples,
            "task `{}` does not declare that it creates samples: add `TaskInfo::samples`",
            task.name
        );
        let item = self.model.sample(index, weight).into_result()?;
        Ok((!item.is_empty()).then(|| serde_json::from_str(&item).expect("the SDK writes valid JSON")))
    }

    /// Returns the device or arena memory of the model, and starts a new measurement of its peak. `None` if the model does not
    /// report it.
    pub fn memory_usage(&self) -> Option<MemoryUsage> {
        let usage = self.model.memory_usage();
        (usage.is_reported != 0).then_some(MemoryUsage {
            current: usage.current,
            peak: usage.peak,
        })
    }

    /// Runs the examples of every task, as the server does to warm up the model.
    ///
    /// # Panics
    /// A task has no example, or an example fails.
    pub fn check_examples(&self) {
        for task in &self.manifest.tasks {
            let name = &task.name;
            assert!(
                !task.examples.is_empty(),
                "task `{name}` has no example, which the server needs to warm it up"
            );
            for (example, outcome) in task.examples.iter().zip(self.predict(name, &task.examples)) {
                if let Err(failure) = outcome {
                    panic!("task `{name}` fails on its example {example}: {failure}");
                }
            }
        }
    }

    /// Calls `bench` with a function that runs a batch of these items. They are decoded and prepared once, and outputs are
    /// discarded.
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
    /// The model has no such task, or an item or the batch fails.
    pub fn repeat(&self, task: &str, items: &[Json], bench: impl FnOnce(&mut dyn FnMut())) {
        let (index, task) = self.task(task);
        let ready = items.iter().map(|item| self.prepare_item(index, task, item, ""));
        let ready = ready.collect::<Result<Vec<_>, _>>();
        let ready = ready.unwrap_or_else(|failure| panic!("an item failed: {failure}"));
        let ready: Vec<_> = ready.iter().collect();
        with_batch(index, &ready, "", |batch| {
            bench(&mut || {
                let mut sink = DiscardingSink;
                let lent = OutputSinkAbi_TO::from_ptr(RMut::new(&mut sink), TD_Opaque);
                if let Err(error) = self.model.predict_batch(batch, lent).into_result() {
                    panic!("the batch failed: {}", Failure::from(error));
                }
            });
        });
    }

    /// Returns the model as seen by the server, for tests of the boundary.
    #[doc(hidden)]
    pub fn abi(&self) -> &plugin_abi::Model {
        &self.model
    }

    /// Returns the records that the model has logged, including panics.
    pub fn logs(&self) -> Vec<LogLine> {
        self.logs.copy()
    }

    /// Drops the model and returns all records that it has logged.
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

    fn prepare_item(
        &self,
        index: u32,
        task: &TaskManifest,
        item: &Json,
        parameters: &str,
    ) -> Result<PreparedItem<'_>, Failure> {
        let value = json_form::read(item, &task.input).map_err(Failure::invalid)?;
        let mut ready = PreparedItem {
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

    fn run(&self, task: u32, ready: &[&PreparedItem<'_>], parameters: &str) -> Vec<Result<Json, Failure>> {
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

/// Calls `then` with a batch of these items.
fn with_batch<T>(
    task: u32,
    ready: &[&PreparedItem<'_>],
    parameters: &str,
    then: impl FnOnce(RawBatch<'_>) -> T,
) -> T {
    let values: Vec<_> = ready.iter().map(|item| &item.value).collect();
    json_form::with_all_raw(&values, |raw| {
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

/// An item that is ready to run. Returns its handle to the model when dropped.
struct PreparedItem<'h> {
    model: &'h plugin_abi::Model,
    task: u32,
    value: OwnedValue,
    handle: usize,
    cost: Cost,
}

impl Drop for PreparedItem<'_> {
    fn drop(&mut self) {
        if self.handle != 0 {
            self.model.drop_prepared(self.task, self.handle);
        }
    }
}

/// Asserts that two slices have the same length and that corresponding elements differ by at most `tolerance`.
///
/// # Panics
/// They do not. The message starts with `what`.
#[track_caller]
pub fn assert_close(got: &[f64], expected: &[f64], tolerance: f64, what: &str) {
    assert_eq!(got.len(), expected.len(), "{what}: number of elements");
    for (index, (got, expected)) in got.iter().zip(expected).enumerate() {
        assert!(
            (got - expected).abs() <= tolerance,
            "{what}: element {index} is {got}, expected {expected} ± {tolerance}"
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

impl<M> fmt::Debug for Harness<M> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Harness")
            .field("manifest", &self.manifest)
            .finish_non_exhaustive()
    }
}
