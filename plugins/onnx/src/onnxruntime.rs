//! ONNX Runtime, on the CPU or a GPU, from a shared library that the operator names or that is found on this machine.

mod environment;
mod library;
mod state;

use std::collections::HashMap;
use std::fmt::Display;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use ort::ep::{CUDA, ExecutionProviderDispatch, TensorRT};
use ort::session::{OutputSelector, RunOptions, Session, SessionInputValue};
use plugin_sdk::{LoadContext, LoadError};
use rten_onnx::onnx::{DataType, ModelProto};

use self::environment::{Opened, SessionLoggers};
use self::library::{Candidate, Surroundings};
use crate::interface::Type;
use crate::network::TensorSpec;
use crate::ort_values::{self, Helpers};
use crate::runtime::{Abilities, Computed, Fault, File, Given, Runtime};
use crate::settings::{OrtSettings, Provider};
use crate::values::ElementType;
use crate::verified::Limits;

/// Run option with which a session returns the memory of a run to the operating system after it, except for about a megabyte. Otherwise
/// a process keeps the memory of its largest run so far, which is lost to other models and hides that of smaller runs from
/// measurements. The next run then takes up to a quarter longer, if it needs much memory for what it computes.
const ARENA_SHRINKAGE: (&str, &str) = ("memory.enable_memory_arena_shrinkage", "cpu:0");

/// An open library of ONNX Runtime, with its execution providers.
pub(crate) struct OnnxRuntime {
    opened: Opened,
    dispatches: Vec<ExecutionProviderDispatch>,
    providers: Vec<Provider>,
    /// Whether sessions return the memory of each run.
    returns_memory: bool,
}

impl OnnxRuntime {
    /// Opens the library that the settings name, or else the first that is found and usable.
    ///
    /// # Errors
    /// No library is usable. The error names a setting only if that setting names the library.
    pub(crate) fn new(settings: Option<&OrtSettings>, context: &LoadContext) -> Result<Self, LoadError> {
        let cpu = OrtSettings::default();
        let settings = settings.unwrap_or(&cpu);
        let device = i32::try_from(settings.device)
            .map_err(|_| LoadError::setting("ort.device", "expected the number of a device, from 0"))?;
        let dispatch = |provider: &Provider| match provider {
            Provider::Cpu => None,
            // Without `error_on_failure` the model would silently run on the CPU.
            Provider::Cuda => Some(CUDA::default().with_device_id(device).build().error_on_failure()),
            Provider::Tensorrt => Some(
                TensorRT::default()
                    .with_device_id(device)
                    .build()
                    .error_on_failure(),
            ),
        };
        Ok(Self {
            opened: environment::open(&candidates(settings, &context.base_dir)?)?,
            dispatches: settings.providers.iter().filter_map(dispatch).collect(),
            providers: settings.providers.clone(),
            returns_memory: context.is_calibrated,
        })
    }

    /// Name and version of the library that [`new`](Self::new) would try first, without opening it. `None` if there is none.
    pub(crate) fn find(settings: Option<&OrtSettings>, base_dir: &Path) -> Option<String> {
        let cpu = OrtSettings::default();
        let candidates = candidates(settings.unwrap_or(&cpu), base_dir).ok()?;
        candidates.first().map(|candidate| named(&candidate.path))
    }

    /// Name and version, followed by the execution providers if it does not only use the CPU: `ONNX Runtime 1.32.0 (cuda, cpu)`.
    pub(crate) fn name(&self) -> String {
        let name = named(&self.opened.library);
        if self.dispatches.is_empty() {
            return name;
        }
        let providers: Vec<_> = self.providers.iter().map(|provider| provider.name()).collect();
        format!("{name} ({})", providers.join(", "))
    }
}

impl OnnxRuntime {
    /// Loads a file, to run one batch at a time.
    fn session(&self, path: &Path, threads: usize, loggers: &SessionLoggers) -> Result<Session, LoadError> {
        let blame = |error: &dyn Display| LoadError::setting("ort", error);
        let mut builder = Session::builder(&self.opened.environment)
            .map_err(|error| blame(&error))?
            .with_logger(loggers.next())
            .map_err(|error| blame(&error))?
            .with_log_level(environment::log_level())
            .map_err(|error| blame(&error))?
            .with_intra_threads(threads)
            .map_err(|error| blame(&error))?
            // Spinning threads would take CPU time from the rest of the server.
            .with_intra_op_spinning(false)
            .map_err(|error| blame(&error))?
            // Memory patterns would double peak memory, with no benefit if shapes differ from batch to batch.
            .with_memory_pattern(false)
            .map_err(|error| blame(&error))?
            .with_execution_providers(&self.dispatches)
            .map_err(|error| LoadError::setting("ort.providers", format_args!("cannot be used: {error}")))?;
        builder.commit_from_file(path).map_err(|error| {
            let path = path.display();
            LoadError::setting("model", format_args!("`{path}` cannot be loaded: {error}"))
        })
    }
}

/// Name and version of a library, for display.
fn named(library: &Path) -> String {
    let version = library::version(library);
    version.map_or("ONNX Runtime".to_owned(), |version| {
        format!("ONNX Runtime {version}")
    })
}

/// The libraries to try, in order of precedence.
fn candidates(settings: &OrtSettings, base_dir: &Path) -> Result<Vec<Candidate>, LoadError> {
    let from_setting = |path, key| {
        vec![Candidate {
            path,
            origin: format!("the setting `{key}`"),
            key: Some(key),
        }]
    };
    match (&settings.library, &settings.python) {
        (Some(library), None) => Ok(from_setting(base_dir.join(library), "ort.library")),
        (None, Some(python)) => {
            let python = base_dir.join(python);
            let library = library::in_python_setting(&python).ok_or_else(|| {
                let message = format!(
                    "there is no library of ONNX Runtime in the Python environment `{}`: expected its directory, as \
                     `python3 -m venv` makes one, with the package onnxruntime (pip install onnxruntime)",
                    python.display()
                );
                LoadError::setting("ort.python", message)
            })?;
            Ok(from_setting(library, "ort.python"))
        }
        (None, None) => Ok(Surroundings::of_this_process().libraries()),
        (Some(_), Some(_)) => {
            let message = "has both `library` and `python`, expected at most one of them";
            Err(LoadError::setting("ort", message))
        }
    }
}

impl Abilities for OnnxRuntime {
    fn held(&self, declared: DataType) -> Option<ElementType> {
        Some(match declared {
            DataType::FLOAT => ElementType::F32,
            DataType::FLOAT16 => ElementType::F16,
            DataType::BFLOAT16 => ElementType::Bf16,
            DataType::DOUBLE => ElementType::F64,
            DataType::INT64 => ElementType::I64,
            DataType::INT32 => ElementType::I32,
            DataType::INT16 => ElementType::I16,
            DataType::INT8 => ElementType::I8,
            DataType::UINT64 => ElementType::U64,
            DataType::UINT32 => ElementType::U32,
            DataType::UINT16 => ElementType::U16,
            DataType::UINT8 => ElementType::U8,
            DataType::BOOL => ElementType::Bool,
            DataType::STRING => ElementType::Text,
            DataType(17..=20 | 23 | 24) => ElementType::F32,
            DataType(21 | 25) => ElementType::U8,
            DataType(22 | 26) => ElementType::I8,
            _ => return None,
        })
    }

    fn datatypes(&self) -> &'static str {
        "a float type, an integer type, BOOL or STRING"
    }

    fn verify(&self, model: &ModelProto) -> Result<Limits, String> {
        let stateful = model.graph.as_ref().and_then(state::updated_statistics);
        stateful.map_or(Ok(Limits::NONE), |node| {
            Err(format!(
                "updates its statistics in every run (`BatchNormalization` node `{node}` in training mode), so that answers would \
                 depend on earlier requests; export the model for inference"
            ))
        })
    }

    fn computes_functions(&self) -> bool {
        true
    }

    fn survives_failed_allocations(&self) -> bool {
        true
    }

    /// ONNX Runtime itself infers them when it loads the file.
    fn output_types(&self, path: &Path, _model: &ModelProto) -> Result<HashMap<String, Type>, String> {
        let session = self.session(path, 1, &SessionLoggers::new());
        let session =
            session.map_err(|error| format!("does not declare all outputs: {}", error.message()))?;
        let outputs = session.outputs().iter();
        Ok(outputs
            .map(|output| (output.name().to_owned(), ort_values::declaration(output.dtype())))
            .collect())
    }

    fn load(&self, file: &File<'_>, workers: usize, threads: usize) -> Result<Box<dyn Runtime>, LoadError> {
        let loggers = SessionLoggers::new();
        let sessions = (0..workers).map(|_| self.session(file.path, threads, &loggers).map(Mutex::new));
        let sessions = sessions.collect::<Result<_, LoadError>>()?;
        loggers.finish();
        Ok(Box::new(Sessions {
            sessions,
            inputs: file.inputs.to_vec(),
            helpers: Helpers::new(&self.opened.environment),
            returns_memory: self.returns_memory,
        }))
    }
}

/// One session per worker, since a session computes one batch at a time.
struct Sessions {
    sessions: Vec<Mutex<Session>>,
    /// Inputs of the model, all of which ONNX Runtime requires.
    inputs: Vec<TensorSpec>,
    helpers: Helpers,
    returns_memory: bool,
}

impl Runtime for Sessions {
    fn run(
        &self,
        inputs: &[Given<'_>],
        outputs: &[TensorSpec],
        worker: usize,
    ) -> Result<Vec<Computed>, Fault> {
        let is_absent = |spec: &&TensorSpec| {
            !spec.sequence && inputs.iter().all(|given| given.spec.file_name != spec.file_name)
        };
        if let Some(spec) = self.inputs.iter().find(is_absent) {
            let name = &spec.file_name;
            return Err(Fault::Inputs(format!(
                "ONNX Runtime needs all inputs of a model, but the task has no `{name}`"
            )));
        }
        self.compute(inputs, outputs, worker)
            .map_err(|error| Fault::Failed(error.to_string()))
    }
}

impl Sessions {
    fn compute(
        &self,
        inputs: &[Given<'_>],
        outputs: &[TensorSpec],
        worker: usize,
    ) -> ort::Result<Vec<Computed>> {
        // Values that ONNX Runtime owns; it borrows the others from the caller.
        let own = |spec: &TensorSpec| match spec.sequence {
            true => ort_values::sequence(spec, inputs, &self.helpers).map(Some),
            false => ort_values::narrowed(spec, inputs, &self.helpers),
        };
        let owned = self.inputs.iter().map(own).collect::<ort::Result<Vec<_>>>()?;
        let mut lent = Vec::with_capacity(self.inputs.len());
        for (spec, owned) in self.inputs.iter().zip(&owned) {
            let value: SessionInputValue<'_> = match owned {
                Some(owned) => owned.into(),
                None => ort_values::lend(spec, inputs)?,
            };
            lent.push((spec.file_name.as_str(), value));
        }
        let mut names: Vec<_> = outputs.iter().map(|spec| &*spec.file_name).collect();
        // A map has two specs but is one output.
        names.dedup();
        let wanted = names
            .into_iter()
            .fold(OutputSelector::no_default(), OutputSelector::with);
        let mut options = RunOptions::new()?.with_outputs(wanted);
        if self.returns_memory {
            options.set(ARENA_SHRINKAGE.0, ARENA_SHRINKAGE.1)?;
        }
        let session = &self.sessions[worker % self.sessions.len()];
        // A panic elsewhere cannot leave a session in an inconsistent state, so poisoning is ignored.
        let mut session = session.lock().unwrap_or_else(PoisonError::into_inner);
        let computed = session.run_with_options(lent, &options)?;
        let taken = outputs
            .iter()
            .enumerate()
            .map(|(index, spec)| ort_values::take(index, spec, &computed[&*spec.file_name], &self.helpers));
        Ok(taken
            .collect::<ort::Result<Vec<_>>>()?
            .into_iter()
            .flatten()
            .collect())
    }
}
