//! The interface of runtimes, which compute whole batches. Runtimes do not know tasks, items or settings of tasks.

use std::path::Path;

use plugin_sdk::LoadError;
use rten_onnx::onnx::{DataType, ModelProto};

use crate::network::Port;
use crate::values::{Held, Values};
use crate::verified::Limits;

/// A loaded network, ready to compute.
pub(crate) trait Runtime: Send + Sync {
    /// Computes `outputs` from `inputs`, on what belongs to that worker. No two calls for the same worker run at once.
    fn run(&self, inputs: &[Given<'_>], outputs: &[Port], worker: usize) -> Result<Vec<Computed>, Fault>;
}

/// What a runtime supports, before it loads a file.
pub(crate) trait Abilities {
    /// The type in which it holds a datatype of the file, if it knows that.
    fn held(&self, declared: DataType) -> Option<Held>;

    /// The datatypes that it knows, for people.
    fn datatypes(&self) -> &'static str;

    /// Checks that the runtime computes every node of a model right, and returns what inputs it may be given.
    ///
    /// # Errors
    /// The message continues a sentence that starts with the name of the file.
    fn verify(&self, model: &ModelProto) -> Result<Limits, String>;

    /// Whether an allocation that fails is an error of the run. Otherwise it ends the process.
    fn survives_failed_allocations(&self) -> bool;

    /// Loads the file, for `workers` batches at a time with `threads` threads each.
    fn load(&self, file: &File<'_>, workers: usize, threads: usize) -> Result<Box<dyn Runtime>, LoadError>;
}

/// A file whose declarations have been read.
pub(crate) struct File<'a> {
    pub(crate) path: &'a Path,
    pub(crate) inputs: &'a [Port],
    pub(crate) outputs: &'a [Port],
    /// Whether weights are kept in other files.
    pub(crate) is_external: bool,
    pub(crate) limits: &'a Limits,
}

/// A tensor for an input, lent. Tensors of a sequence follow one another.
pub(crate) struct Given<'a> {
    pub(crate) port: &'a Port,
    pub(crate) shape: Vec<usize>,
    pub(crate) values: &'a Values,
}

/// A tensor of an output. Tensors of a sequence follow one another.
#[derive(Debug)]
pub(crate) struct Computed {
    /// Index among the requested outputs.
    pub(crate) output: usize,
    /// Position in the sequence, if the output is one.
    pub(crate) position: Option<usize>,
    pub(crate) shape: Vec<usize>,
    pub(crate) values: Values,
}

/// Why the model did not run.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The outputs cannot be computed from the inputs of this task.
    Inputs(String),
    /// These items cannot be computed.
    Failed(String),
    /// An output does not have the batch as its first dimension.
    Outputs(String),
}
