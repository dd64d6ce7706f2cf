//! The embedded runtime: rten, in pure Rust. It computes with 32-bit types: ONNX's INT64 and BOOL become 32-bit integers, and
//! FP64 becomes FP32.

use std::collections::HashMap;
use std::fmt::Display;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use half::f16;
use plugin_sdk::LoadError;
use rten::{
    LoadErrorKind, Model, ModelOptions, NodeId, RunErrorKind, RunOptions, ShapeInferenceMode, ThreadPool,
    Value, ValueOrView, ValueView,
};
use rten_onnx::onnx::{DataType, ModelProto};
use rten_tensor::{AsView, Layout, Tensor, TensorView};

use crate::declared_shapes;
use crate::external;
use crate::instrument::{self, Flag};
use crate::interface::Type;
use crate::network::TensorSpec;
use crate::runtime::{Abilities, Computed, Fault, File, Given, Runtime};
use crate::values::{ElementType, Values};
use crate::verified::{self, Limits};

/// The embedded runtime.
#[derive(Default)]
pub(crate) struct Embedded {
    /// Whether runs own copies of their inputs. Operators overwrite such inputs if they can, as they do with intermediate values.
    /// Only for verification.
    pub(crate) owns_inputs: bool,
}

impl Abilities for Embedded {
    fn held(&self, declared: DataType) -> Option<ElementType> {
        Some(match declared {
            DataType::FLOAT | DataType::FLOAT16 | DataType::DOUBLE => ElementType::F32,
            DataType::INT64 | DataType::INT32 | DataType::BOOL => ElementType::I32,
            DataType::INT8 => ElementType::I8,
            DataType::UINT8 => ElementType::U8,
            _ => return None,
        })
    }

    fn datatypes(&self) -> &'static str {
        "FLOAT, FLOAT16, DOUBLE, INT32, INT64, INT8, UINT8 or BOOL (the runtime `ort` has more)"
    }

    fn verify(&self, model: &ModelProto) -> Result<Limits, String> {
        verified::check(model).map_err(|reasons| verified::explain(&reasons))
    }

    fn output_types(&self, _path: &Path, model: &ModelProto) -> Result<HashMap<String, Type>, String> {
        let types = verified::output_types(model).into_iter();
        Ok(types
            .filter_map(|(name, datatype)| Some((name, Type::tensor(datatype?))))
            .collect())
    }

    fn computes_functions(&self) -> bool {
        false
    }

    fn survives_failed_allocations(&self) -> bool {
        false
    }

    fn load(&self, file: &File<'_>, workers: usize, threads: usize) -> Result<Box<dyn Runtime>, LoadError> {
        let blame = |problem: String| {
            LoadError::setting("model", format_args!("`{}` {problem}", file.path.display()))
        };
        let mut specs = file.inputs.iter().chain(file.outputs);
        if let Some(spec) = specs.find(|spec| spec.sequence || spec.map.is_some()) {
            let name = &spec.file_name;
            return Err(blame(format!(
                "declares `{name}` as a sequence, which the embedded runtime does not serve; set `runtime = \"ort\"`"
            )));
        }
        let (model, flags) = read(file).map_err(blame)?;
        let model = model.map_err(|error| match error.kind() {
            LoadErrorKind::OperatorInvalid => {
                blame(format!("uses what the runtime does not support: {error}"))
            }
            _ => blame(format!("cannot be loaded: {error}")),
        })?;
        // The runtime lists the IDs of inputs and outputs in the order of the file.
        for (sort, declared, known) in [
            ("inputs", file.inputs, model.input_ids().len()),
            ("outputs", file.outputs, model.output_ids().len() - flags.len()),
        ] {
            if declared.len() != known {
                let declared = declared.len();
                return Err(blame(format!(
                    "declares {declared} {sort}, of which the runtime knows {known}"
                )));
            }
        }
        let pools = (0..workers).map(|_| Arc::new(ThreadPool::with_num_threads(threads)));
        Ok(Box::new(Rten {
            model,
            max_dimension: file.limits.max_dimension,
            owns_inputs: self.owns_inputs,
            flags,
            pools: pools.collect(),
        }))
    }
}

/// IR version that is assumed for a file that does not state one.
const DEFAULT_IR_VERSION: i64 = 8;

/// A model as loaded by the runtime, and the flags that were added to it.
type Loaded = (Result<Model, rten::LoadError>, Vec<Flag>);

/// Reads the model without the shapes that the file declares, with flags for its guards. The runtime accepts only certain names for
/// external data files, so their contents are passed to it under other names.
fn read(file: &File<'_>) -> Result<Loaded, String> {
    let failed = |error: &dyn Display| format!("cannot be read: {error}");
    let opened = fs::File::open(file.path).map_err(|error| failed(&error))?;
    let mut proto = ModelProto::parse_file(opened).map_err(|error| failed(&error))?;
    // The runtime needs the IR version to detect the format of bytes.
    proto.ir_version.get_or_insert(DEFAULT_IR_VERSION);
    let flags = proto.graph.as_mut().map(|graph| {
        declared_shapes::remove(graph);
        instrument::add_flags(graph, &file.limits.guards)
    });
    let directory = file.path.parent().unwrap_or(Path::new(""));
    let mut options = ModelOptions::with_all_ops();
    // Inferred shapes are symbolic expressions, which hold for some sizes only, and replace computations.
    options.shape_inference(ShapeInferenceMode::Off);
    for (name, data) in external::take(&mut proto, directory)? {
        options.external_data(&name, data);
    }
    let bytes = proto.write_buf().map_err(|error| failed(&error))?;
    // Its data has been copied to `bytes`.
    drop(proto);
    Ok((options.load(bytes), flags.unwrap_or_default()))
}

struct Rten {
    model: Model,
    /// Maximum size of an input dimension.
    max_dimension: usize,
    owns_inputs: bool,
    /// The flags that the last outputs of the model report.
    flags: Vec<Flag>,
    /// One pool for each worker, so that concurrent batches do not block each other.
    pools: Vec<Arc<ThreadPool>>,
}

impl Runtime for Rten {
    fn run(
        &self,
        inputs: &[Given<'_>],
        outputs: &[TensorSpec],
        worker: usize,
    ) -> Result<Vec<Computed>, Fault> {
        let inputs = inputs
            .iter()
            .map(|given| {
                self.check_dimensions(given)?;
                let id = self.model.input_ids()[given.spec.index];
                let input = match input(given)? {
                    ValueOrView::View(view) if self.owns_inputs => ValueOrView::Value(view.to_owned()),
                    input => input,
                };
                Ok((id, input))
            })
            .collect::<Result<_, Fault>>()?;
        let ids = self.model.output_ids();
        let added = &ids[ids.len() - self.flags.len()..];
        let flags: Vec<_> = self.flags.iter().zip(added).collect();
        let relevant = |(flag, _): &(&Flag, &NodeId)| outputs.iter().any(|spec| flag.concerns(spec.index));
        let flags: Vec<_> = flags.into_iter().filter(relevant).collect();
        // Request the flags first, so that the buffers of the values they watch can be reused early.
        let wanted: Vec<_> = flags
            .iter()
            .map(|(_, id)| **id)
            .chain(outputs.iter().map(|spec| ids[spec.index]))
            .collect();
        let pool = Arc::clone(&self.pools[worker % self.pools.len()]);
        let options = RunOptions::default().with_thread_pool(Some(pool));
        let computed = self.model.run(inputs, &wanted, Some(options));
        let mut computed = computed.map_err(|error| match error.kind() {
            RunErrorKind::PlanningError => Fault::Inputs(error.to_string()),
            _ => Fault::Failed(error.to_string()),
        })?;
        let answers = computed.split_off(flags.len());
        let raised = flags.iter().zip(&computed).find(|(_, value)| is_raised(value));
        if let Some(((flag, _), _)) = raised {
            return Err(Fault::Unverified(flag.reason.clone()));
        }
        answers.into_iter().enumerate().map(take).collect()
    }
}

/// Whether a flag is NaN. A value of an unexpected type also counts as raised.
fn is_raised(flag: &Value) -> bool {
    let Value::FloatTensor(flag) = flag else {
        return true;
    };
    flag.iter().any(|value| value.is_nan())
}

impl Rten {
    /// Rejects an input with a dimension larger than the maximum for which the model is verified.
    fn check_dimensions(&self, given: &Given<'_>) -> Result<(), Fault> {
        let too_large = given.shape.iter().find(|size| **size > self.max_dimension);
        too_large.map_or(Ok(()), |size| {
            Err(Fault::Unverified(format!(
                "tensor `{}`: a dimension of {size}, more than {}, is not verified for this model in the embedded runtime",
                given.spec.name, self.max_dimension
            )))
        })
    }
}

fn input<'a>(given: &'a Given<'_>) -> Result<ValueOrView<'a>, Fault> {
    match given.values {
        // The runtime computes with 32 bits, but must not receive more precision than the file declares.
        Values::F32(values) if given.spec.declared == DataType::FLOAT16 => {
            let rounded: Vec<_> = values
                .iter()
                .map(|value| f16::from_f32(*value).to_f32())
                .collect();
            let tensor = Tensor::try_from_data(given.shape.as_slice(), rounded);
            tensor
                .map(Into::into)
                .map_err(|error| Fault::Failed(error.to_string()))
        }
        _ => view(given).map(ValueOrView::View),
    }
}

fn view<'a>(given: &'a Given<'_>) -> Result<ValueView<'a>, Fault> {
    match given.values {
        Values::F32(values) => lend(&given.shape, values),
        Values::I32(values) => lend(&given.shape, values),
        Values::I8(values) => lend(&given.shape, values),
        Values::U8(values) => lend(&given.shape, values),
        Values::I64(values) => {
            let exceeds = |(_, value): &(usize, &i64)| i32::try_from(**value).is_err();
            let (index, value) = values.iter().enumerate().find(exceeds).unwrap_or((0, &0));
            Err(Fault::Unverified(format!(
                "tensor `{}`: {value} at index {index} exceeds 32 bits, the width in which the embedded runtime computes",
                given.spec.name
            )))
        }
        _ => Err(Fault::Failed(format!(
            "input `{}` is held in a type that the runtime does not know",
            given.spec.name
        ))),
    }
}

fn lend<'a, T>(shape: &[usize], values: &'a [T]) -> Result<ValueView<'a>, Fault>
where
    ValueView<'a>: From<TensorView<'a, T>>,
{
    ValueView::from_shape(shape, values).map_err(|error| Fault::Failed(error.to_string()))
}

fn take((output, value): (usize, Value)) -> Result<Computed, Fault> {
    let shape = value.shape().to_vec();
    let values = match value {
        Value::FloatTensor(tensor) => Values::F32(tensor.into_data()),
        Value::Int32Tensor(tensor) => Values::I32(tensor.into_data()),
        Value::Int8Tensor(tensor) => Values::I8(tensor.into_data()),
        Value::UInt8Tensor(tensor) => Values::U8(tensor.into_data()),
        _ => return Err(Fault::Failed("the model computed no tensor".to_owned())),
    };
    Ok(Computed {
        output,
        position: None,
        shape,
        values,
    })
}
