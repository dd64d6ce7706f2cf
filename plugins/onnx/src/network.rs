//! An ONNX file in memory: what it declares, and what computes it. It knows nothing of tasks, items or settings; whoever asks it
//! to run stacks items into batches.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::fs;
use std::io::{BufReader, Seek};
use std::path::Path;

use plugin_sdk::{DType, LoadError, contain};
use rten_onnx::onnx;

use crate::mixing::{self, Verdict};
use crate::runtime::{Abilities, Computed, Fault, File, Given, Runtime};
use crate::values::{self, Held};
use crate::{external, wire};

/// A loaded model file.
pub(crate) struct Network {
    inputs: Vec<Port>,
    outputs: Vec<Port>,
    runtime: Box<dyn Runtime>,
    is_half_precision: bool,
    /// What the graph tells of each output in the file.
    verdicts: Vec<Verdict>,
    metadata: BTreeMap<String, String>,
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
    /// All dimensions, the batch included; none if the file does not say. Of a sequence, the dimensions of each tensor in it.
    pub(crate) dims: Option<Vec<Dim>>,
    /// Whether it is a sequence of tensors, which clients see as `name.0`, `name.1`, ….
    pub(crate) sequence: bool,
    /// Its place in the file.
    pub(crate) index: usize,
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
    /// It cannot be read, whatever the runtime.
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
        let blame =
            |problem: String| LoadError::setting("model", format_args!("`{}` {problem}", path.display()));
        let unfit = |problem: String| NotLoaded::Runtime(blame(problem));
        let blame = |problem: String| NotLoaded::File(blame(problem));
        if path
            .extension()
            .is_none_or(|extension| !extension.eq_ignore_ascii_case("onnx"))
        {
            return Err(blame(
                "is not named like an ONNX file, expected a name that ends in `.onnx`".to_owned(),
            ));
        }
        let file = fs::File::open(path).map_err(|error| blame(format!("cannot be opened: {error}")))?;
        let not_onnx = |error: &dyn fmt::Display| blame(format!("is not an ONNX file: {error}"));
        let length = file.metadata().map_err(|error| not_onnx(&error))?.len();
        wire::check(BufReader::new(&file), length).map_err(|error| not_onnx(&error))?;
        (&file).rewind().map_err(|error| not_onnx(&error))?;
        // The runtimes do not tell the operators' names or all of the declared types, so the file is read for them first. What
        // is read is dropped before the runtime reads the weights again: at no time are there two copies.
        let directory = path.parent().unwrap_or(Path::new(""));
        let (inputs, outputs, is_half_precision, is_external, verdicts, metadata) = {
            let proto = onnx::ModelProto::parse_file(file).map_err(|error| not_onnx(&error))?;
            let graph = proto.graph.as_ref().filter(|graph| !graph.output.is_empty());
            let graph = graph.ok_or_else(|| not_onnx(&"it has no graph with an output"))?;
            abilities.refuse(graph).map_err(unfit)?;
            let is_external = external::check(graph, directory).map_err(blame)?;
            let (inputs, outputs) = declared(graph, abilities).map_err(unfit)?;
            let unknown = |message| vec![Verdict::Unknown(message); graph.output.len()];
            let verdicts = contain(|| mixing::analyze(&proto)).unwrap_or_else(unknown);
            let is_half_precision = has_half_precision(graph);
            (
                inputs,
                outputs,
                is_half_precision,
                is_external,
                verdicts,
                metadata(&proto),
            )
        };
        let file = File {
            path,
            inputs: &inputs,
            outputs: &outputs,
            is_external,
        };
        let loaded = contain(|| abilities.load(&file, workers, threads));
        let panicked = |message| unfit(format!("cannot be loaded: the runtime panicked: {message}"));
        Ok(Self {
            runtime: loaded.map_err(panicked)?.map_err(NotLoaded::Runtime)?,
            inputs,
            outputs,
            is_half_precision,
            verdicts,
            metadata,
        })
    }

    /// What the graph tells of an output, if all inputs have the batch in dimension 0.
    pub(crate) fn verdict(&self, output: &Port) -> &Verdict {
        &self.verdicts[output.index]
    }

    /// What the file says of the model, by key.
    pub(crate) fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// Whether the model computes with floats of 16 bits.
    pub(crate) fn is_half_precision(&self) -> bool {
        self.is_half_precision
    }

    pub(crate) fn inputs(&self) -> &[Port] {
        &self.inputs
    }

    pub(crate) fn outputs(&self) -> &[Port] {
        &self.outputs
    }

    /// Computes `outputs` from `inputs`, on what belongs to that worker.
    pub(crate) fn run(
        &self,
        inputs: &[Given<'_>],
        outputs: &[Port],
        worker: usize,
    ) -> Result<Vec<Computed>, Fault> {
        contain(|| self.runtime.run(inputs, outputs, worker))
            .unwrap_or_else(|message| Err(Fault::Failed(format!("the runtime panicked: {message}"))))
    }
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

/// Inputs and outputs of a graph.
fn declared(graph: &onnx::GraphProto, abilities: &dyn Abilities) -> Result<(Vec<Port>, Vec<Port>), String> {
    // Old files list their weights among the inputs.
    let weights: HashSet<_> = graph
        .initializer
        .iter()
        .filter_map(|tensor| tensor.name.as_deref())
        .collect();
    let inputs = graph
        .input
        .iter()
        .filter(|value| !value.name.as_deref().is_some_and(|name| weights.contains(name)));
    Ok((
        ports("input", inputs, abilities)?,
        ports("output", graph.output.iter(), abilities)?,
    ))
}

fn ports<'a>(
    sort: &str,
    values: impl Iterator<Item = &'a onnx::ValueInfoProto>,
    abilities: &dyn Abilities,
) -> Result<Vec<Port>, String> {
    let read = |(index, value): (usize, &onnx::ValueInfoProto)| {
        let name = value.name.clone().unwrap_or_default();
        let tensor = value.r#type.as_ref().and_then(|kind| kind.tensor_type.as_ref());
        let tensor =
            tensor.ok_or_else(|| format!("declares its {sort} `{name}` as something other than a tensor"))?;
        let known = tensor
            .elem_type
            .and_then(|declared| Some((values::dtype(declared)?, abilities.held(declared)?)));
        let (dtype, held) = known.ok_or_else(|| {
            let declared = tensor
                .elem_type
                .map_or("none".to_owned(), |declared| declared.to_string());
            let known = abilities.datatypes();
            format!("declares its {sort} `{name}` with the datatype {declared}, expected {known}")
        })?;
        let dims = tensor
            .shape
            .as_ref()
            .map(|shape| shape.dim.iter().map(dim).collect());
        Ok(Port {
            file_name: name.clone(),
            name,
            dtype,
            held,
            dims,
            sequence: false,
            index,
        })
    };
    values.enumerate().map(read).collect()
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

fn dim(dim: &onnx::Dimension) -> Dim {
    match dim.dim_value.map(usize::try_from) {
        Some(Ok(size)) => Dim::Fixed(size),
        _ => Dim::Open(dim.dim_param.clone().unwrap_or_default()),
    }
}
