//! A loaded ONNX file: what it declares, and the runtime that computes it. Tasks, items and settings belong to the caller, which
//! stacks items into batches.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::fs;
use std::io::{BufReader, Seek};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use plugin_sdk::{DType, LoadError, contain};
use rten_onnx::onnx;

use crate::analysis::mixing::{self, Verdict};
use crate::analysis::sizes::{self, Known, Outline, Sizes};
use crate::classes;
use crate::interface::Interface;
use crate::ports::declared;
use crate::runtime::{Abilities, Computed, Fault, File, Given, Runtime};
use crate::values::Held;
use crate::verified::Limits;
use crate::{external, memory, wire};

/// A loaded model file.
pub(crate) struct Network {
    contents: Contents,
    runtime: Box<dyn Runtime>,
    survives_failed_allocations: bool,
    /// Bytes that the large runs in progress need.
    reserved: AtomicU64,
}

/// What is known of a model file besides its weights.
struct Contents {
    inputs: Vec<Port>,
    outputs: Vec<Port>,
    is_half_precision: bool,
    /// Whether weights are kept in other files.
    is_external: bool,
    /// What the graph tells of each output in the file.
    verdicts: Vec<Verdict>,
    outline: Outline,
    metadata: BTreeMap<String, String>,
    /// What inputs the runtime may be given.
    limits: Limits,
    class_names: Option<Vec<String>>,
}

/// An input or an output that the file declares.
#[derive(Clone, Debug)]
pub(crate) struct Port {
    /// What clients call it, which is the name in the file unless the settings say otherwise.
    pub(crate) name: String,
    /// What the file calls it.
    pub(crate) file_name: String,
    /// What clients send or get.
    pub(crate) dtype: DType,
    /// What the runtime computes with.
    pub(crate) held: Held,
    /// The datatype in the file.
    pub(crate) declared: onnx::DataType,
    /// All dimensions, the batch included; none if the file does not say. Of a sequence, the dimensions of each tensor in it.
    pub(crate) dims: Option<Vec<Dim>>,
    /// Whether it is a sequence of tensors, which clients see as `name.0`, `name.1`, ….
    pub(crate) sequence: bool,
    /// Which part it is of a sequence of maps.
    pub(crate) map: Option<MapPart>,
    /// Its place in the file.
    pub(crate) index: usize,
}

/// The two tensors that a sequence of maps becomes. Both have a row for each map.
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
    /// Any size; dimensions of the same name have the same size. May have no name.
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

/// Dimensions as people write them: `[batch, 3, 224, 224]`.
pub(crate) fn shape_text<T: fmt::Display>(dims: &[T]) -> String {
    let dims: Vec<_> = dims.iter().map(T::to_string).collect();
    format!("[{}]", dims.join(", "))
}

/// Why a file was not loaded.
pub(crate) enum NotLoaded {
    /// No runtime can read it.
    File(LoadError),
    /// The runtime cannot run it, or must not.
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
    /// Reads a file, with the tensors beside it where it refers to such, for `workers` batches at a time with `threads` threads
    /// each.
    pub(crate) fn load(
        path: &Path,
        abilities: &dyn Abilities,
        workers: usize,
        threads: usize,
    ) -> Result<Self, NotLoaded> {
        let unfit = |problem: String| NotLoaded::Runtime(flaw(path, problem));
        // The runtimes do not tell the operators' names or all of the declared types, so the file is read for them first. What
        // is read is dropped before the runtime reads the weights again: at no time are there two copies.
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
            is_external: contents.is_external,
            limits: &contents.limits,
        };
        let loaded = contain(|| abilities.load(&file, workers, threads));
        let panicked = |message| unfit(format!("cannot be loaded: the runtime panicked: {message}"));
        Ok(Self {
            runtime: loaded.map_err(panicked)?.map_err(NotLoaded::Runtime)?,
            contents,
            survives_failed_allocations: abilities.survives_failed_allocations(),
            reserved: AtomicU64::new(0),
        })
    }

    /// What the graph tells of an output, if all inputs have the batch in dimension 0.
    pub(crate) fn verdict(&self, output: &Port) -> &Verdict {
        &self.contents.verdicts[output.index]
    }

    /// What the file says of the model, by key.
    pub(crate) fn metadata(&self) -> &BTreeMap<String, String> {
        &self.contents.metadata
    }

    /// The names of the classes, in the order of their scores, if the graph contains them.
    pub(crate) fn class_names(&self) -> Option<&[String]> {
        self.contents.class_names.as_deref()
    }

    /// Whether the model computes with floats of 16 bits.
    pub(crate) fn is_half_precision(&self) -> bool {
        self.contents.is_half_precision
    }

    pub(crate) fn inputs(&self) -> &[Port] {
        &self.contents.inputs
    }

    pub(crate) fn outputs(&self) -> &[Port] {
        &self.contents.outputs
    }

    /// Computes `outputs` from `inputs`, on what belongs to that worker.
    pub(crate) fn run(
        &self,
        inputs: &[Given<'_>],
        outputs: &[Port],
        worker: usize,
    ) -> Result<Vec<Computed>, Fault> {
        let _reservation = self.reserve(inputs).map_err(Fault::Failed)?;
        contain(|| self.runtime.run(inputs, outputs, worker))
            .unwrap_or_else(|message| Err(Fault::Failed(format!("the runtime panicked: {message}"))))
    }

    /// Reserves memory for a run, and rejects one that needs more than there is.
    fn reserve(&self, inputs: &[Given<'_>]) -> Result<Reservation<'_>, String> {
        // Of a sequence no single shape is known.
        let tensors = inputs.iter().filter(|given| !given.port.sequence);
        let known: Vec<_> = tensors.map(Given::known).collect();
        // If the analysis fails, nothing is known, as of operators that it does not know.
        let sizes = contain(|| self.contents.outline.of_run(&known));
        let sizes = sizes.unwrap_or_default();
        if let (Some(node), false) = (&sizes.unbounded, self.survives_failed_allocations) {
            return Err(format!(
                "it is not known how large a tensor this item makes ({node}), and the embedded runtime cannot survive a failed allocation"
            ));
        }
        let bytes = Some(bytes(sizes.peak))
            .filter(|bytes| *bytes >= SMALL_RUN)
            .unwrap_or(0);
        // Part of it may be taken already, and then counts twice: large runs at the same time are rejected rather early.
        let others = self.reserved.fetch_add(bytes, Ordering::Relaxed);
        let reservation = Reservation {
            total: &self.reserved,
            bytes,
        };
        fits(&sizes, others).map(|()| reservation)
    }
}

/// What is wrong with a file, as a clause about it.
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
        let directory = path.parent().unwrap_or(Path::new(""));
        let is_external = external::check(graph, directory).map_err(blame)?;
        let names = graph
            .initializer
            .iter()
            .filter_map(|tensor| tensor.name.as_deref());
        let file = fs::File::open(path).map_err(|error| blame(format!("cannot be opened: {error}")))?;
        let interface = Interface::read(file).map_err(|error| not_onnx(&error))?;
        let (inputs, outputs) = declared(&interface, &names.collect(), abilities).map_err(unfit)?;
        let limits = contain(|| abilities.verify(&proto))
            .unwrap_or_else(Err)
            .map_err(unfit)?;
        // If the analysis fails, nothing is known, as of operators that it does not know.
        let unknown = |message| vec![Verdict::Unknown(message); graph.output.len()];
        let verdicts = contain(|| mixing::analyze(&proto)).unwrap_or_else(unknown);
        let is_half_precision = has_half_precision(graph);
        let metadata = metadata(&proto);
        let class_names = classes::names(graph);
        let outline = contain(|| Outline::new(proto)).unwrap_or_default();
        let constant = contain(|| outline.constant()).unwrap_or_default();
        fits(&constant, 0).map_err(|problem| blame(format!("cannot be loaded: {problem}")))?;
        Ok(Self {
            inputs,
            outputs,
            is_half_precision,
            is_external,
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
            name: &self.port.file_name,
            shape: &self.shape,
            elements: few.then(|| self.values.as_numbers()).flatten(),
        }
    }
}

/// Runs that need less than this are not compared with the memory that is available.
const SMALL_RUN: u64 = 64 << 20;

/// Bytes of most elements. Fewer for some types, but what is computed from them has more.
const ELEMENT_SIZE: u64 = 4;

/// Bytes of that many elements.
fn bytes(elements: i64) -> u64 {
    elements.unsigned_abs().saturating_mul(ELEMENT_SIZE)
}

/// Checks that the tensors of a run fit into memory beside `reserved` bytes that other runs still need: the largest one with what
/// is computed from it, and all that are needed at the same time.
fn fits(sizes: &Sizes, reserved: u64) -> Result<(), String> {
    let Some((largest, node)) = &sizes.largest else {
        return Ok(());
    };
    let (largest, total) = (bytes(*largest), bytes(sizes.peak));
    if largest.max(total) < SMALL_RUN {
        return Ok(());
    }
    let Some(available) = memory::available() else {
        return Ok(());
    };
    let available = available.saturating_sub(reserved);
    let gigabytes = |bytes: u64| bytes as f64 / 1e9;
    if largest > available / 2 {
        let size = gigabytes(largest);
        return Err(format!(
            "a tensor of {size:.1} GB ({node}) is too large for the memory that is available"
        ));
    }
    if total > available / 4 * 3 {
        let size = gigabytes(total);
        return Err(format!(
            "tensors of {size:.1} GB that are needed at the same time are too large for the memory that is available"
        ));
    }
    Ok(())
}

/// Memory that a run needs, as long as it runs.
struct Reservation<'a> {
    total: &'a AtomicU64,
    bytes: u64,
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        self.total.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Why it cannot be found out before a run how much memory it needs.
fn not_bounded(outline: &Outline) -> Option<String> {
    let node = contain(|| outline.unbounded()).unwrap_or_default()?;
    Some(format!(
        "makes a tensor as large as the numbers in a request say ({node}), and how large cannot be found out before; the \
         embedded runtime cannot survive a failed allocation, expected `runtime = \"ort\"`"
    ))
}

/// A value that a node computes although it is an input, a weight, or the output of another node.
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
