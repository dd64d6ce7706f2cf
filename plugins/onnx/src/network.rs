//! An ONNX file in memory: what it declares, and how it runs. It knows nothing of tasks, items or settings; whoever asks it
//! to run stacks items into batches.

use std::collections::HashSet;
use std::fmt;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use plugin_sdk::{DType, LoadError};
use rten::{LoadErrorKind, Model, NodeId, RunError, RunOptions, ThreadPool, Value, ValueOrView, ValueView};
use rten_onnx::onnx;

use crate::values;

/// A loaded model file.
pub(crate) struct Network {
    model: Model,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
    /// One for each worker: two batches at once must not wait for one another.
    pools: Vec<Arc<ThreadPool>>,
}

/// An input or an output that the file declares.
#[derive(Clone, Debug)]
pub(crate) struct Port {
    pub(crate) name: String,
    pub(crate) dtype: DType,
    /// All dimensions, the batch included; none if the file does not say.
    pub(crate) dims: Option<Vec<Dim>>,
    id: NodeId,
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

impl Network {
    /// Reads a file, with the tensors beside it where it refers to such, and readies `workers` pools of `threads` threads.
    pub(crate) fn load(path: &Path, workers: usize, threads: usize) -> Result<Self, LoadError> {
        let blame =
            |problem: String| LoadError::setting("model", format_args!("`{}` {problem}", path.display()));
        if path
            .extension()
            .is_none_or(|extension| !extension.eq_ignore_ascii_case("onnx"))
        {
            return Err(blame(
                "is not named like an ONNX file, expected a name that ends in `.onnx`".to_owned(),
            ));
        }
        let file = File::open(path).map_err(|error| blame(format!("cannot be opened: {error}")))?;
        let not_onnx = |error: &dyn fmt::Display| blame(format!("is not an ONNX file: {error}"));
        // The runtime keeps neither the operators' names nor the declared types, so the file is read for them first. What
        // is read is dropped before the runtime reads the weights again: at no time are there two copies.
        let declared = {
            let proto = onnx::ModelProto::parse_file(file).map_err(|error| not_onnx(&error))?;
            let graph = proto.graph.as_ref().filter(|graph| !graph.output.is_empty());
            let graph = graph.ok_or_else(|| not_onnx(&"it has no graph with an output"))?;
            refuse_miscomputed(graph).map_err(blame)?;
            Declared::read(graph).map_err(blame)?
        };
        let model = Model::load_file(path).map_err(|error| match error.kind() {
            LoadErrorKind::OperatorInvalid => {
                blame(format!("uses what the runtime does not support: {error}"))
            }
            _ => blame(format!("cannot be loaded: {error}")),
        })?;
        Ok(Self {
            inputs: declared.inputs.into_ports(model.input_ids()).map_err(blame)?,
            outputs: declared.outputs.into_ports(model.output_ids()).map_err(blame)?,
            model,
            pools: (0..workers)
                .map(|_| Arc::new(ThreadPool::with_num_threads(threads)))
                .collect(),
        })
    }

    pub(crate) fn inputs(&self) -> &[Port] {
        &self.inputs
    }

    pub(crate) fn outputs(&self) -> &[Port] {
        &self.outputs
    }

    /// Computes `outputs` from `inputs`, on the threads of that worker.
    pub(crate) fn run<'a>(
        &self,
        inputs: impl IntoIterator<Item = (&'a Port, ValueView<'a>)>,
        outputs: &[Port],
        worker: usize,
    ) -> Result<Vec<Value>, RunError> {
        let inputs = inputs
            .into_iter()
            .map(|(port, value)| (port.id, ValueOrView::View(value)))
            .collect();
        let outputs: Vec<_> = outputs.iter().map(|port| port.id).collect();
        let pool = Arc::clone(&self.pools[worker % self.pools.len()]);
        let options = RunOptions::default().with_thread_pool(Some(pool));
        self.model.run(inputs, &outputs, Some(options))
    }
}

/// Inputs and outputs of a graph, before the runtime has given them ids.
struct Declared {
    inputs: Values,
    outputs: Values,
}

struct Values {
    sort: &'static str,
    list: Vec<(String, DType, Option<Vec<Dim>>)>,
}

impl Declared {
    fn read(graph: &onnx::GraphProto) -> Result<Self, String> {
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
        Ok(Self {
            inputs: Values::read("input", inputs)?,
            outputs: Values::read("output", graph.output.iter())?,
        })
    }
}

impl Values {
    fn read<'a>(
        sort: &'static str,
        values: impl Iterator<Item = &'a onnx::ValueInfoProto>,
    ) -> Result<Self, String> {
        let read = |value: &onnx::ValueInfoProto| {
            let name = value.name.clone().unwrap_or_default();
            let tensor = value.r#type.as_ref().and_then(|kind| kind.tensor_type.as_ref());
            let tensor = tensor
                .ok_or_else(|| format!("declares its {sort} `{name}` as something other than a tensor"))?;
            let dtype = tensor.elem_type.and_then(values::dtype).ok_or_else(|| {
                let declared = tensor.elem_type.map_or("none".to_owned(), |declared| declared.to_string());
                format!(
                    "declares its {sort} `{name}` with the datatype {declared}, expected FLOAT, FLOAT16, DOUBLE, INT32, INT64, \
                     INT8, UINT8 or BOOL"
                )
            })?;
            let dims = tensor
                .shape
                .as_ref()
                .map(|shape| shape.dim.iter().map(dim).collect());
            Ok((name, dtype, dims))
        };
        Ok(Self {
            sort,
            list: values.map(read).collect::<Result<_, String>>()?,
        })
    }

    /// The runtime lists its ids in the order of the file.
    fn into_ports(self, ids: &[NodeId]) -> Result<Vec<Port>, String> {
        let Self { sort, list } = self;
        if list.len() != ids.len() {
            let (declared, known) = (list.len(), ids.len());
            return Err(format!(
                "declares {declared} {sort}s, of which the runtime knows {known}"
            ));
        }
        let port = |((name, dtype, dims), id): ((String, DType, _), &NodeId)| Port {
            name,
            dtype,
            dims,
            id: *id,
        };
        Ok(list.into_iter().zip(ids).map(port).collect())
    }
}

fn dim(dim: &onnx::Dimension) -> Dim {
    match dim.dim_value.map(usize::try_from) {
        Some(Ok(size)) => Dim::Fixed(size),
        _ => Dim::Open(dim.dim_param.clone().unwrap_or_default()),
    }
}

/// Refuses what the runtime computes wrongly, without a word. Compared with ONNX Runtime, these are sums of integers where each
/// column of the weights has a zero point of its own, and convolutions of integers. Other quantised models came out right:
/// those with one zero point for all weights, and those that are dequantised first (`DequantizeLinear`).
fn refuse_miscomputed(graph: &onnx::GraphProto) -> Result<(), String> {
    for node in &graph.node {
        let operator = node.op_type.as_deref().unwrap_or_default();
        let miscomputed = match operator {
            "ConvInteger" | "DynamicQuantizeLSTM" => true,
            "MatMulInteger" => !has_one_zero_point(graph, node),
            _ => false,
        };
        if miscomputed {
            let name = node.name.as_deref().unwrap_or_default();
            return Err(format!(
                "is quantised in a way that the runtime computes wrongly (`{operator}` in its node `{name}`), expected a model with \
                 float weights, or with one zero point for each tensor of weights"
            ));
        }
        for subgraph in node.attribute.iter().filter_map(|attribute| attribute.g.as_ref()) {
            refuse_miscomputed(subgraph)?;
        }
    }
    Ok(())
}

/// Whether the weights of a `MatMulInteger` have a single zero point; if that cannot be told, they have not.
fn has_one_zero_point(graph: &onnx::GraphProto, node: &onnx::NodeProto) -> bool {
    let Some(name) = node.input.get(3).filter(|name| !name.is_empty()) else {
        return true;
    };
    let constant = graph
        .initializer
        .iter()
        .find(|tensor| tensor.name.as_ref() == Some(name));
    constant.is_some_and(|tensor| {
        // Of 8-bit integers each byte is an element.
        let raw = tensor
            .raw_data
            .as_ref()
            .is_none_or(|bytes| all_equal(&bytes.borrow()));
        raw && all_equal(&tensor.int32_data) && tensor.external_data.is_empty()
    })
}

fn all_equal<T: PartialEq>(values: &[T]) -> bool {
    values.windows(2).all(|pair| pair[0] == pair[1])
}
