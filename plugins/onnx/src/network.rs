//! A loaded ONNX file: its declarations, and the runtime that executes it. Tasks, items and settings belong to the caller, which
//! stacks items into batches.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::fs;
use std::io::{BufReader, Seek};
use std::path::Path;

use plugin_sdk::{DType, LoadError, contain};
use rten_onnx::onnx;

use crate::analysis::mixing::{self, Verdict};
use crate::analysis::sizes::{self, Known, Outline};
use crate::classes;
use crate::fallback::Fallback;
use crate::files::Files;
use crate::interface::{Declaration, Interface};
use crate::reservations::{self, Reservation, Reservations};
use crate::runtime::{Abilities, Computed, Fault, File, Given, Runtime};
use crate::specs::declared;
use crate::values::ElementType;
use crate::verified::Limits;
use crate::{external, wire};

/// A loaded model file.
pub(crate) struct Network {
    contents: Contents,
    runtime: Box<dyn Runtime>,
    survives_failed_allocations: bool,
    fallback: Option<Fallback>,
    reservations: Reservations,
}

/// What is known about a model file, apart from its weights.
struct Contents {
    inputs: Vec<TensorSpec>,
    outputs: Vec<TensorSpec>,
    is_half_precision: bool,
    files: Files,
    /// Whether each output mixes the items of a batch, as far as the graph shows. In the order of the file.
    verdicts: Vec<Verdict>,
    outline: Outline,
    metadata: BTreeMap<String, String>,
    /// Limits on the inputs that the runtime may be given.
    limits: Limits,
    class_names: Option<Vec<String>>,
}

/// An input or output that the file declares.
#[derive(Clone, Debug)]
pub(crate) struct TensorSpec {
    /// Name for clients: the name in the file if clients can use it, unless the settings rename it.
    pub(crate) name: String,
    /// Name in the file.
    pub(crate) file_name: String,
    /// Datatype that clients send or receive.
    pub(crate) dtype: DType,
    /// Type in which the runtime holds the elements.
    pub(crate) held: ElementType,
    /// Datatype in the file.
    pub(crate) declared: onnx::DataType,
    /// All dimensions, including the batch dimension; `None` if the file does not declare a shape. For a sequence, the dimensions
    /// of each of its tensors.
    pub(crate) dims: Option<Vec<Dim>>,
    /// Whether this is a sequence of tensors, which clients see as `name.0`, `name.1`, ….
    pub(crate) sequence: bool,
    /// The part of a sequence of maps that this spec represents, if any.
    pub(crate) map: Option<MapPart>,
    /// Index among the inputs or the outputs of the file.
    pub(crate) index: usize,
}

/// The two tensors that represent a sequence of maps. Both have one row per map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MapPart {
    /// The values, in the order of the keys.
    Values,
    /// The keys, in ascending order.
    Keys,
}

/// One dimension as the file declares it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Dim {
    Fixed(usize),
    /// Any size. By convention, dimensions with the same name have the same size. The name may be empty.
    Open(String),
}

impl fmt::Display for Dim {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(size) => write!(formatter, "{size}"),
            Self::Open(name) if name.is_empty() => formatter.write_str("any"),
            Self::Open(name) => formatter.write_str(name),
        }
    }
}

/// Formats dimensions for messages: `[batch, 3, 224, 224]`.
pub(crate) fn shape_text<T: fmt::Display>(dims: &[T]) -> String {
    let dims: Vec<_> = dims.iter().map(T::to_string).collect();
    format!("[{}]", dims.join(", "))
}

/// Why a file could not be loaded.
pub(crate) enum NotLoaded {
    /// No runtime can load the file.
    File(LoadError),
    /// The chosen runtime cannot run the file, or is not verified for it.
    Runtime(LoadError),
}

impl NotLoaded {
    pub(crate) fn into_error(self) -> LoadError {
        match self {
            Self::File(error) | Self::Runtime(error) => error,
        }
    }
}

impl Network {
    /// Loads a file, including any external tensors that it references, to run `workers` batches concurrently with `threads`
    /// threads each.
    pub(crate) fn load(
        path: &Path,
        abilities: &dyn Abilities,
        workers: usize,
        threads: usize,
    ) -> Result<Self, NotLoaded> {
        let unfit = |problem: String| NotLoaded::Runtime(flaw(path, problem));
        // The runtimes do not expose operator names or all declared types, so the file is parsed for them first. The parsed
        // weights are dropped before the runtime reads them again, so there are never two copies in memory.
        let contents = Contents::read(path, abilities)?;
        if let Some(problem) =
            not_bounded(&contents.outline).filter(|_| !abilities.survives_failed_allocations())
        {
            return Err(unfit(problem));
        }
        let file = File {
            path,
            inputs: &contents.inputs,
            outputs: &contents.outputs,
            limits: &contents.limits,
        };
        let loaded = contain(|| abilities.load(&file, workers, threads));
        let panicked = |message| unfit(format!("cannot be loaded: the runtime panicked: {message}"));
        Ok(Self {
            runtime: loaded.map_err(panicked)?.map_err(NotLoaded::Runtime)?,
            contents,
            survives_failed_allocations: abilities.survives_failed_allocations(),
            fallback: None,
            reservations: Reservations::default(),
        })
    }

    /// Adds a runtime for items for which this one is not verified.
    pub(crate) fn with_fallback(self, fallback: Option<Fallback>) -> Self {
        Self { fallback, ..self }
    }

    /// Name and version of the runtime for items for which this one is not verified, if there is one.
    pub(crate) fn fallback(&self) -> Option<&str> {
        self.fallback.as_ref().map(Fallback::runtime)
    }

    /// Whether an output mixes the items of a batch, as far as the graph shows, if dimension 0 of every input is the batch
    /// dimension.
    pub(crate) fn verdict(&self, output: &TensorSpec) -> &Verdict {
        &self.contents.verdicts[output.index]
    }

    /// Metadata properties of the model in the file, by key.
    pub(crate) fn metadata(&self) -> &BTreeMap<String, String> {
        &self.contents.metadata
    }

    /// Class names in the order of their scores, if the graph contains them.
    pub(crate) fn class_names(&self) -> Option<&[String]> {
        self.contents.class_names.as_deref()
    }

    /// Whether the model has 16-bit float weights, inputs or outputs.
    pub(crate) fn is_half_precision(&self) -> bool {
        self.contents.is_half_precision
    }

    /// The files that the network was read from.
    pub(crate) fn files(&self) -> &Files {
        &self.contents.files
    }

    pub(crate) fn inputs(&self) -> &[TensorSpec] {
        &self.contents.inputs
    }

    pub(crate) fn outputs(&self) -> &[TensorSpec] {
        &self.contents.outputs
    }

    /// Computes `outputs` from `inputs` with the resources of `worker`.
    pub(crate) fn run(
        &self,
        inputs: &[Given<'_>],
        outputs: &[TensorSpec],
        worker: usize,
    ) -> Result<Vec<Computed>, Fault> {
        let _reservation = self.reserve(inputs)?;
        let computed = contain(|| self.runtime.run(inputs, outputs, worker))
            .unwrap_or_else(|message| Err(Fault::Failed(format!("the runtime panicked: {message}"))));
        match computed {
            // ONNX Runtime may compute an item for which the embedded runtime fails.
            Err(Fault::Failed(message)) if self.fallback.is_some() => Err(Fault::Unverified(message)),
            computed => computed,
        }
    }

    /// Computes `outputs` from one item for which the runtime is not verified, in the fallback if there is one.
    pub(crate) fn run_unverified(
        &self,
        inputs: &[Given<'_>],
        outputs: &[TensorSpec],
        reason: String,
    ) -> Result<Vec<Computed>, Fault> {
        match &self.fallback {
            Some(fallback) => fallback.run(self, inputs, outputs, &reason),
            None => Err(Fault::Unverified(reason)),
        }
    }

    /// Reserves memory for a run. Fails if the run needs more memory than is available.
    fn reserve(&self, inputs: &[Given<'_>]) -> Result<Reservation<'_>, Fault> {
        // A sequence has no single shape, so it is left out.
        let tensors = inputs.iter().filter(|given| !given.spec.sequence);
        let known: Vec<_> = tensors.map(Given::known).collect();
        // If the analysis panics, nothing is known, as for an unsupported operator.
        let sizes = contain(|| self.contents.outline.of_run(&known));
        let sizes = sizes.unwrap_or_default();
        if let (Some(node), false) = (&sizes.unbounded, self.survives_failed_allocations) {
            return Err(Fault::Unverified(format!(
                "the size of a tensor that this item requires is unknown ({node}), and the embedded runtime cannot survive a failed \
                 allocation"
            )));
        }
        self.reservations.reserve(&sizes).map_err(Fault::Failed)
    }
}

/// Error for a file. `problem` is a clause that follows the path.
fn flaw(path: &Path, problem: impl fmt::Display) -> LoadError {
    LoadError::setting("model", format_args!("`{}` {problem}", path.display()))
}

impl Contents {
    /// Reads a file without keeping its weights.
    fn read(path: &Path, abilities: &dyn Abilities) -> Result<Self, NotLoaded> {
        let blame = |problem: String| NotLoaded::File(flaw(path, problem));
        let unfit = |problem: String| NotLoaded::Runtime(flaw(path, problem));
        let file = fs::File::open(path).map_err(|error| blame(format!("cannot be opened: {error}")))?;
        let not_onnx = |error: &dyn fmt::Display| blame(format!("is not an ONNX file: {error}"));
        let length = file.metadata().map_err(|error| not_onnx(&error))?.len();
        wire::check(BufReader::new(&file), length).map_err(|error| not_onnx(&error))?;
        (&file).rewind().map_err(|error| not_onnx(&error))?;
        let proto = onnx::ModelProto::parse_file(file).map_err(|error| not_onnx(&error))?;
        let graph = proto.graph.as_ref().filter(|graph| !graph.output.is_empty());
        let graph = graph.ok_or_else(|| not_onnx(&"it has no graph with an output"))?;
        if let Some(name) = computed_twice(graph) {
            let problem = format!("has the value `{name}` twice, expected a name for each value");
            return Err(blame(problem));
        }
        if let Some(name) = output_without_source(graph) {
            return Err(blame(format!("has the output `{name}`, which no node computes")));
        }
        let external = external::check(graph, path).map_err(blame)?;
        let files =
            Files::new(path, external).map_err(|error| blame(format!("cannot be opened: {error}")))?;
        let names = graph
            .initializer
            .iter()
            .filter_map(|tensor| tensor.name.as_deref());
        let file = fs::File::open(path).map_err(|error| blame(format!("cannot be opened: {error}")))?;
        let mut interface = Interface::read(file).map_err(|error| not_onnx(&error))?;
        if interface.has_functions && !abilities.computes_functions() {
            let problem =
                "defines functions, which the embedded runtime does not compute; set `runtime = \"ort\"`";
            return Err(unfit(problem.to_owned()));
        }
        if interface.outputs.iter().any(Declaration::is_untyped) {
            let types = contain(|| abilities.output_types(path, &proto)).unwrap_or_else(Err);
            interface.infer_outputs(types.map_err(unfit)?);
        }
        let (inputs, outputs) = declared(&interface, &names.collect(), abilities).map_err(unfit)?;
        let limits = contain(|| abilities.verify(&proto))
            .unwrap_or_else(Err)
            .map_err(unfit)?;
        // If the analysis panics, nothing is known, as for an unsupported operator.
        let unknown = |message| vec![Verdict::Unknown(message); graph.output.len()];
        let verdicts = match interface.has_functions {
            true => unknown("the file defines functions, which may replace operators".to_owned()),
            false => contain(|| mixing::analyze(&proto)).unwrap_or_else(unknown),
        };
        let is_half_precision = has_half_precision(graph);
        let metadata = metadata(&proto);
        let class_names = classes::names(graph);
        let outline = contain(|| Outline::new(proto)).unwrap_or_default();
        let constant = contain(|| outline.constant()).unwrap_or_default();
        reservations::fits(&constant, 0).map_err(|problem| blame(format!("cannot be loaded: {problem}")))?;
        Ok(Self {
            inputs,
            outputs,
            is_half_precision,
            files,
            verdicts,
            outline,
            metadata,
            class_names,
            limits,
        })
    }
}

impl Given<'_> {
    fn known(&self) -> Known<'_> {
        let few = sizes::are_few(self.values.len());
        Known {
            name: &self.spec.file_name,
            shape: &self.shape,
            elements: few.then(|| self.values.as_numbers()).flatten(),
        }
    }
}

/// The reason why the memory of a run cannot be bounded in advance, if it cannot.
fn not_bounded(outline: &Outline) -> Option<String> {
    let node = contain(|| outline.unbounded()).unwrap_or_default()?;
    Some(format!(
        "makes a tensor as large as the numbers in a request say ({node}), and how large cannot be found out before; the \
         embedded runtime cannot survive a failed allocation, expected `runtime = \"ort\"`"
    ))
}

/// Finds a value that a node computes although it is already an input, an initializer or the output of another node.
fn computed_twice(graph: &onnx::GraphProto) -> Option<&str> {
    let inputs = graph.input.iter().filter_map(|input| input.name.as_deref());
    let weights = graph
        .initializer
        .iter()
        .filter_map(|tensor| tensor.name.as_deref());
    let mut known: HashSet<_> = inputs.chain(weights).collect();
    let mut outputs = graph.node.iter().flat_map(|node| &node.output);
    let twice = outputs.find(|name| !name.is_empty() && !known.insert(name));
    let graphs = graph.node.iter().flat_map(|node| &node.attribute);
    let graphs = graphs.filter_map(|attribute| attribute.g.as_ref());
    twice
        .map(String::as_str)
        .or_else(|| graphs.into_iter().find_map(computed_twice))
}

/// Finds an output that is neither computed by a node, nor an input or an initializer.
fn output_without_source(graph: &onnx::GraphProto) -> Option<&str> {
    let inputs = graph.input.iter().filter_map(|input| input.name.as_deref());
    let weights = graph
        .initializer
        .iter()
        .filter_map(|tensor| tensor.name.as_deref());
    let computed = graph
        .node
        .iter()
        .flat_map(|node| &node.output)
        .map(String::as_str);
    let known: HashSet<_> = inputs.chain(weights).chain(computed).collect();
    let mut outputs = graph.output.iter().filter_map(|output| output.name.as_deref());
    outputs.find(|name| !known.contains(name))
}

fn metadata(proto: &onnx::ModelProto) -> BTreeMap<String, String> {
    let pair = |entry: &onnx::StringStringEntryProto| {
        (
            entry.key.clone().unwrap_or_default(),
            entry.value.clone().unwrap_or_default(),
        )
    };
    proto.metadata_props.iter().map(pair).collect()
}

fn has_half_precision(graph: &onnx::GraphProto) -> bool {
    let is_half = |datatype: Option<onnx::DataType>| {
        matches!(datatype, Some(onnx::DataType::FLOAT16 | onnx::DataType::BFLOAT16))
    };
    let tensor = |value: &onnx::ValueInfoProto| {
        let tensor = value.r#type.as_ref().and_then(|kind| kind.tensor_type.as_ref());
        tensor.and_then(|tensor| tensor.elem_type)
    };
    graph.initializer.iter().any(|tensor| is_half(tensor.data_type))
        || graph
            .input
            .iter()
            .chain(&graph.output)
            .any(|value| is_half(tensor(value)))
}
