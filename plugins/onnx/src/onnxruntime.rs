//! ONNX Runtime, on the processor or on a GPU, from a shared library that the operator names or that is found on this machine.

mod environment;
mod library;

use std::fmt::Display;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use ort::ep::{CUDA, ExecutionProviderDispatch, TensorRT};
use ort::session::{OutputSelector, RunOptions, Session, SessionInputValue};
use ort::value::{DynValue, Tensor, TensorElementType, TensorRef, ValueType};
use plugin_sdk::LoadError;
use rten_onnx::onnx::{DataType, ModelProto};

use self::environment::{Opened, SessionLoggers};
use self::library::{Candidate, Surroundings};
use crate::network::Port;
use crate::runtime::{Abilities, Computed, Fault, File, Given, Runtime};
use crate::settings::{OrtSettings, Provider};
use crate::values::{Held, Values};
use crate::verified::Limits;

/// What ONNX Runtime can do.
pub(crate) struct OnnxRuntime {
    opened: Opened,
    dispatches: Vec<ExecutionProviderDispatch>,
    providers: Vec<Provider>,
}

impl OnnxRuntime {
    /// Opens the library that the settings name, whose paths start at `base_dir`, or else the first that is found.
    ///
    /// # Errors
    /// There is none that can be used. The error blames a setting only if one names the library.
    pub(crate) fn new(settings: Option<&OrtSettings>, base_dir: &Path) -> Result<Self, LoadError> {
        let cpu = OrtSettings::default();
        let settings = settings.unwrap_or(&cpu);
        let device = i32::try_from(settings.device)
            .map_err(|_| LoadError::setting("ort.device", "expected the number of a device, from 0"))?;
        let dispatch = |provider: &Provider| match provider {
            Provider::Cpu => None,
            // Without `error_on_failure` the model would run on the processor, and nobody would know.
            Provider::Cuda => Some(CUDA::default().with_device_id(device).build().error_on_failure()),
            Provider::Tensorrt => Some(
                TensorRT::default()
                    .with_device_id(device)
                    .build()
                    .error_on_failure(),
            ),
        };
        Ok(Self {
            opened: environment::open(&candidates(settings, base_dir)?)?,
            dispatches: settings.providers.iter().filter_map(dispatch).collect(),
            providers: settings.providers.clone(),
        })
    }

    /// Name and version, and what computes if it is not only the processor: `ONNX Runtime 1.32.0 (cuda, cpu)`.
    pub(crate) fn name(&self) -> String {
        let mut name = "ONNX Runtime".to_owned();
        if let Some(version) = library::version(&self.opened.library) {
            name = format!("{name} {version}");
        }
        if self.dispatches.is_empty() {
            return name;
        }
        let providers: Vec<_> = self.providers.iter().map(|provider| provider.name()).collect();
        format!("{name} ({})", providers.join(", "))
    }
}

/// The libraries to try, in order of precedence.
fn candidates(settings: &OrtSettings, base_dir: &Path) -> Result<Vec<Candidate>, LoadError> {
    let named = |path, key| {
        vec![Candidate {
            path,
            origin: format!("the setting `{key}`"),
            key: Some(key),
        }]
    };
    match (&settings.library, &settings.python) {
        (Some(library), None) => Ok(named(base_dir.join(library), "ort.library")),
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
            Ok(named(library, "ort.python"))
        }
        (None, None) => Ok(Surroundings::of_this_process().libraries()),
        (Some(_), Some(_)) => {
            let message = "has both `library` and `python`, expected at most one of them";
            Err(LoadError::setting("ort", message))
        }
    }
}

impl Abilities for OnnxRuntime {
    fn held(&self, declared: DataType) -> Option<Held> {
        Some(match declared {
            DataType::FLOAT => Held::F32,
            DataType::FLOAT16 => Held::F16,
            DataType::BFLOAT16 => Held::Bf16,
            DataType::DOUBLE => Held::F64,
            DataType::INT64 => Held::I64,
            DataType::INT32 => Held::I32,
            DataType::INT16 => Held::I16,
            DataType::INT8 => Held::I8,
            DataType::UINT64 => Held::U64,
            DataType::UINT32 => Held::U32,
            DataType::UINT16 => Held::U16,
            DataType::UINT8 => Held::U8,
            DataType::BOOL => Held::Bool,
            DataType::STRING => Held::Text,
            _ => return None,
        })
    }

    fn datatypes(&self) -> &'static str {
        "FLOAT, FLOAT16, BFLOAT16, DOUBLE, an integer type, BOOL or STRING"
    }

    fn verify(&self, _model: &ModelProto) -> Result<Limits, String> {
        Ok(Limits::NONE)
    }

    fn survives_failed_allocations(&self) -> bool {
        true
    }

    fn load(&self, file: &File<'_>, workers: usize, threads: usize) -> Result<Box<dyn Runtime>, LoadError> {
        let blame = |error: &dyn Display| LoadError::setting("ort", error);
        let loggers = SessionLoggers::new();
        let sessions = (0..workers).map(|_| {
            let mut builder = Session::builder(&self.opened.environment)
                .map_err(|error| blame(&error))?
                .with_logger(loggers.next())
                .map_err(|error| blame(&error))?
                .with_log_level(environment::log_level())
                .map_err(|error| blame(&error))?
                .with_intra_threads(threads)
                .map_err(|error| blame(&error))?
                // Threads that spin while there is no work take the processor from the rest of the server.
                .with_intra_op_spinning(false)
                .map_err(|error| blame(&error))?
                // It would double the peak of memory, and gain nothing where shapes differ from batch to batch.
                .with_memory_pattern(false)
                .map_err(|error| blame(&error))?
                .with_execution_providers(&self.dispatches)
                .map_err(|error| {
                    LoadError::setting("ort.providers", format_args!("cannot be used: {error}"))
                })?;
            let session = builder.commit_from_file(file.path).map_err(|error| {
                let path = file.path.display();
                LoadError::setting("model", format_args!("`{path}` cannot be loaded: {error}"))
            })?;
            Ok::<_, LoadError>(Mutex::new(session))
        });
        let sessions = sessions.collect::<Result<_, _>>()?;
        loggers.finish();
        Ok(Box::new(Sessions {
            sessions,
            inputs: file.inputs.iter().map(|port| port.file_name.clone()).collect(),
        }))
    }
}

/// A session for each worker: a session computes one batch at a time.
struct Sessions {
    sessions: Vec<Mutex<Session>>,
    /// Names of the inputs, all of which it needs.
    inputs: Vec<String>,
}

impl Runtime for Sessions {
    fn run(&self, inputs: &[Given<'_>], outputs: &[Port], worker: usize) -> Result<Vec<Computed>, Fault> {
        let absent = self
            .inputs
            .iter()
            .find(|name| inputs.iter().all(|given| given.port.file_name != **name));
        if let Some(name) = absent {
            return Err(Fault::Inputs(format!(
                "ONNX Runtime needs all inputs of a model, but the task has no `{name}`"
            )));
        }
        self.compute(inputs, outputs, worker)
            .map_err(|error| Fault::Failed(error.to_string()))
    }
}

impl Sessions {
    fn compute(&self, inputs: &[Given<'_>], outputs: &[Port], worker: usize) -> ort::Result<Vec<Computed>> {
        let lent = inputs
            .iter()
            .map(|given| Ok((given.port.file_name.as_str(), lend(given)?)))
            .collect::<ort::Result<Vec<_>>>()?;
        let wanted = outputs.iter().fold(OutputSelector::no_default(), |wanted, port| {
            wanted.with(&*port.file_name)
        });
        let options = RunOptions::new()?.with_outputs(wanted);
        let session = &self.sessions[worker % self.sessions.len()];
        // A session is only used, so a panic elsewhere leaves nothing half done.
        let mut session = session.lock().unwrap_or_else(PoisonError::into_inner);
        let computed = session.run_with_options(lent, &options)?;
        outputs
            .iter()
            .enumerate()
            .map(|(index, port)| take(index, &computed[&*port.file_name]))
            .collect()
    }
}

/// Calls a function with the elements of one type or another.
macro_rules! each_number {
    ($values:expr, $shape:expr, $text:ident; $($variant:ident),*) => {
        match $values {
            $(Values::$variant(values) => TensorRef::from_array_view(($shape, &values[..]))?.into(),)*
            Values::Text($text) => Tensor::from_string_array(($shape, &$text[..]))?.into(),
        }
    };
}

fn lend<'a>(given: &'a Given<'_>) -> ort::Result<SessionInputValue<'a>> {
    let shape = &given.shape[..];
    Ok(
        each_number!(given.values, shape, texts; F64, F32, F16, Bf16, I64, I32, I16, I8, U64, U32, U16, U8, Bool),
    )
}

fn take(output: usize, value: &DynValue) -> ort::Result<Computed> {
    let ValueType::Tensor { ty, shape, .. } = value.dtype() else {
        return Err(ort::Error::new("the model computed no tensor"));
    };
    let values = match ty {
        TensorElementType::Float64 => Values::F64(value.try_extract_tensor()?.1.to_vec()),
        TensorElementType::Float32 => Values::F32(value.try_extract_tensor()?.1.to_vec()),
        TensorElementType::Float16 => Values::F16(value.try_extract_tensor()?.1.to_vec()),
        TensorElementType::Bfloat16 => Values::Bf16(value.try_extract_tensor()?.1.to_vec()),
        TensorElementType::Int64 => Values::I64(value.try_extract_tensor()?.1.to_vec()),
        TensorElementType::Int32 => Values::I32(value.try_extract_tensor()?.1.to_vec()),
        TensorElementType::Int16 => Values::I16(value.try_extract_tensor()?.1.to_vec()),
        TensorElementType::Int8 => Values::I8(value.try_extract_tensor()?.1.to_vec()),
        TensorElementType::Uint64 => Values::U64(value.try_extract_tensor()?.1.to_vec()),
        TensorElementType::Uint32 => Values::U32(value.try_extract_tensor()?.1.to_vec()),
        TensorElementType::Uint16 => Values::U16(value.try_extract_tensor()?.1.to_vec()),
        TensorElementType::Uint8 => Values::U8(value.try_extract_tensor()?.1.to_vec()),
        TensorElementType::Bool => Values::Bool(value.try_extract_tensor()?.1.to_vec()),
        TensorElementType::String => Values::Text(value.try_extract_strings()?.1),
        other => return Err(ort::Error::new(format!("the model computed {other}"))),
    };
    Ok(Computed {
        output,
        position: None,
        shape: shape.iter().map(|size| *size as usize).collect(),
        values,
    })
}
