//! The interface that runtimes implement. A runtime computes whole batches and does not know about tasks, items or task settings.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;

use plugin_sdk::LoadError;
use rten_onnx::onnx::{DataType, ModelProto};

use crate::interface::Type;
use crate::network::TensorSpec;
use crate::values::{ElementType, Values};
use crate::verified::Limits;

/// A loaded network, ready to run.
pub(crate) trait Runtime: Send + Sync {
    /// Computes `outputs` from `inputs` with the resources of `worker`. Calls for the same worker never overlap.
    fn run(
        &self,
        inputs: &[Given<'_>],
        outputs: &[TensorSpec],
        worker: usize,
    ) -> Result<Vec<Computed>, Fault>;
}

/// The capabilities of a runtime, known before it loads a file.
pub(crate) trait Abilities {
    /// The type in which the runtime holds a datatype of the file; `None` if it does not support the datatype.
    fn held(&self, declared: DataType) -> Option<ElementType>;

    /// The supported datatypes, for messages.
    fn datatypes(&self) -> &'static str;

    /// Checks that the runtime computes every node of a model correctly, and returns the limits on its inputs.
    ///
    /// # Errors
    /// The message is a clause that follows the path of the file.
    fn verify(&self, model: &ModelProto) -> Result<Limits, String>;

    /// Infers the types of the outputs, by name, for a file that does not declare them.
    ///
    /// # Errors
    /// The message is a clause that follows the path of the file.
    fn output_types(&self, path: &Path, model: &ModelProto) -> Result<HashMap<String, Type>, String>;

    /// Whether the runtime computes operators that a file defines as functions.
    fn computes_functions(&self) -> bool;

    /// Whether a failed allocation is an error of the run. Otherwise, it aborts the process.
    fn survives_failed_allocations(&self) -> bool;

    /// Loads the file, to run `workers` batches concurrently with `threads` threads each.
    fn load(&self, file: &File<'_>, workers: usize, threads: usize) -> Result<Box<dyn Runtime>, LoadError>;
}

/// A model file whose declarations have been read.
pub(crate) struct File<'a> {
    pub(crate) path: &'a Path,
    pub(crate) inputs: &'a [TensorSpec],
    pub(crate) outputs: &'a [TensorSpec],
    pub(crate) limits: &'a Limits,
}

/// A borrowed tensor for an input. The tensors of a sequence are consecutive.
pub(crate) struct Given<'a> {
    pub(crate) spec: &'a TensorSpec,
    pub(crate) shape: Vec<usize>,
    pub(crate) values: &'a Values,
}

/// A tensor of an output. The tensors of a sequence are consecutive.
#[derive(Debug)]
pub(crate) struct Computed {
    /// Index among the requested outputs.
    pub(crate) output: usize,
    /// Position in the sequence, if the output is a sequence.
    pub(crate) position: Option<usize>,
    pub(crate) shape: Vec<usize>,
    pub(crate) values: Values,
}

/// Why a run failed.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The outputs cannot be computed from the inputs of this task.
    Inputs(String),
    /// The runtime is not verified for these items. ONNX Runtime can compute them.
    Unverified(String),
    /// These items cannot be computed.
    Failed(String),
    /// The first dimension of an output is not the batch dimension.
    Outputs(String),
}

impl Fault {
    pub(crate) fn message(&self) -> Cow<'_, str> {
        match self {
            Self::Inputs(message) | Self::Failed(message) | Self::Outputs(message) => message.into(),
            Self::Unverified(reason) => format!("{reason}; set `runtime = \"ort\"`").into(),
        }
    }
}
