//! ONNX Runtime as the fallback of the embedded runtime, for single items for which the embedded runtime is not verified.
//!
//! It is loaded when an item first needs it: most models never do, and it holds a second copy of the weights.

use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use plugin_sdk::log;

use crate::memory;
use crate::network::{Network, TensorSpec};
use crate::runtime::{Computed, Fault, Given};

/// Minimum time between two log messages about the use of the fallback.
const REPORT_INTERVAL: Duration = Duration::from_secs(60);

/// Multiple of the size of the model's files that must be available in memory, since ONNX Runtime rearranges weights while it
/// loads them.
const MEMORY_FACTOR: u64 = 2;

/// Loads the model in ONNX Runtime, for one worker.
pub(crate) type Load = Box<dyn Fn() -> Result<Network, String> + Send + Sync>;

/// ONNX Runtime, loaded on demand.
pub(crate) struct Fallback {
    /// Name and version of the runtime, for display.
    runtime: String,
    load: Load,
    /// `None` if it cannot be loaded.
    loaded: OnceLock<Option<Box<Network>>>,
    reports: Mutex<Reports>,
}

/// Items that ran in the fallback since the last log message.
#[derive(Default)]
struct Reports {
    last: Option<Instant>,
    items: u64,
}

impl Fallback {
    pub(crate) fn new(runtime: String, load: Load) -> Self {
        Self {
            runtime,
            load,
            loaded: OnceLock::new(),
            reports: Mutex::default(),
        }
    }

    pub(crate) fn runtime(&self) -> &str {
        &self.runtime
    }

    /// Computes `outputs` of `original` from one item for which `original` is not verified, for the given reason.
    pub(crate) fn run(
        &self,
        original: &Network,
        inputs: &[Given<'_>],
        outputs: &[TensorSpec],
        reason: &str,
    ) -> Result<Vec<Computed>, Fault> {
        let Some(network) = self.loaded.get_or_init(|| self.loaded(original)) else {
            return Err(Fault::Unverified(reason.to_owned()));
        };
        self.report(reason);
        let same = |known: &[TensorSpec], spec: &TensorSpec| {
            let found = known.iter().find(|other| other.file_name == spec.file_name);
            found
                .cloned()
                .ok_or_else(|| Fault::Failed(format!("{} does not know `{}`", self.runtime, spec.file_name)))
        };
        let mut converted = Vec::with_capacity(inputs.len());
        for given in inputs {
            let spec = same(network.inputs(), given.spec)?;
            let values = given
                .values
                .held_as(spec.held)
                .ok_or_else(|| Fault::Failed(format!("tensor `{}` cannot be converted", given.spec.name)))?;
            converted.push((spec, values));
        }
        let given: Vec<_> = inputs
            .iter()
            .zip(&converted)
            .map(|(given, (spec, values))| Given {
                spec,
                shape: given.shape.clone(),
                values,
            })
            .collect();
        let outputs = outputs.iter().map(|spec| same(network.outputs(), spec));
        match network.run(&given, &outputs.collect::<Result<Vec<_>, _>>()?, 0) {
            // The task has only some of the inputs of the file, all of which ONNX Runtime requires.
            Err(Fault::Inputs(_)) => Err(Fault::Unverified(reason.to_owned())),
            computed => computed,
        }
    }

    /// Loads the model, and logs the reason if that fails.
    fn loaded(&self, original: &Network) -> Option<Box<Network>> {
        let loaded = has_memory(original).and_then(|()| (self.load)());
        let loaded = loaded.and_then(|network| match original.files().have_changed() {
            true => Err("the files of the model have changed since it was loaded".to_owned()),
            false => Ok(network),
        });
        match loaded {
            Ok(network) => Some(Box::new(network)),
            Err(problem) => {
                log::warn!(
                    "{} cannot be loaded for items for which the embedded runtime is not verified; they fail until the model is \
                     loaded again: {problem}",
                    self.runtime
                );
                None
            }
        }
    }

    /// Logs that an item runs in the fallback, unless the last message is recent.
    #[allow(
        clippy::disallowed_methods,
        reason = "limits the rate of a log message; no answer depends on the time"
    )]
    fn report(&self, reason: &str) {
        let mut reports = self.reports.lock().unwrap_or_else(PoisonError::into_inner);
        reports.items += 1;
        let is_recent = |last: Instant| last.elapsed() < REPORT_INTERVAL;
        if reports.last.is_some_and(is_recent) {
            return;
        }
        let items = std::mem::take(&mut reports.items);
        reports.last = Some(Instant::now());
        drop(reports);
        let runtime = &self.runtime;
        log::info!(
            "{items} item{} since the last such message ran in {runtime}: {reason}",
            if items == 1 { "" } else { "s" }
        );
    }
}

/// Checks that the memory that is available suffices for a second copy of the weights.
fn has_memory(original: &Network) -> Result<(), String> {
    let needed = original.files().size().saturating_mul(MEMORY_FACTOR);
    match memory::available() {
        Some(available) if available < needed => Err(format!(
            "{:.1} GB of memory are available, expected at least {:.1} GB",
            available as f64 / 1e9,
            needed as f64 / 1e9
        )),
        _ => Ok(()),
    }
}
