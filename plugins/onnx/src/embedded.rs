//! The runtime that is built in: rten, pure Rust. It computes with 32 bits, and what ONNX declares as INT64 or BOOL it holds as
//! 32-bit integers, FP64 as FP32.

use std::fmt::Display;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use plugin_sdk::LoadError;
use rten::{
    LoadErrorKind, Model, ModelOptions, RunErrorKind, RunOptions, ThreadPool, Value, ValueOrView, ValueView,
};
use rten_onnx::onnx::{DataType, ModelProto};
use rten_tensor::{Layout, TensorView};

use crate::external;
use crate::network::Port;
use crate::runtime::{Abilities, Computed, Fault, File, Given, Runtime};
use crate::values::{Held, Values};
use crate::verified::{self, Limits};

/// What rten can do.
pub(crate) struct Embedded;

impl Abilities for Embedded {
    fn held(&self, declared: DataType) -> Option<Held> {
        Some(match declared {
            DataType::FLOAT | DataType::FLOAT16 | DataType::DOUBLE => Held::F32,
            DataType::INT64 | DataType::INT32 | DataType::BOOL => Held::I32,
            DataType::INT8 => Held::I8,
            DataType::UINT8 => Held::U8,
            _ => return None,
        })
    }

    fn datatypes(&self) -> &'static str {
        "FLOAT, FLOAT16, DOUBLE, INT32, INT64, INT8, UINT8 or BOOL (the runtime `ort` has more)"
    }

    fn verify(&self, model: &ModelProto) -> Result<Limits, String> {
        verified::check(model).map_err(|reasons| verified::explain(&reasons))
    }

    fn survives_failed_allocations(&self) -> bool {
        false
    }

    fn load(&self, file: &File<'_>, workers: usize, threads: usize) -> Result<Box<dyn Runtime>, LoadError> {
        let blame = |problem: String| {
            LoadError::setting("model", format_args!("`{}` {problem}", file.path.display()))
        };
        let mut ports = file.inputs.iter().chain(file.outputs);
        if let Some(port) = ports.find(|port| port.sequence || port.map.is_some()) {
            let name = &port.file_name;
            return Err(blame(format!(
                "declares `{name}` as a sequence, which the embedded runtime does not serve; set `runtime = \"ort\"`"
            )));
        }
        let model = read(file).map_err(blame)?.map_err(|error| match error.kind() {
            LoadErrorKind::OperatorInvalid => {
                blame(format!("uses what the runtime does not support: {error}"))
            }
            _ => blame(format!("cannot be loaded: {error}")),
        })?;
        // The runtime lists its ids in the order of the file.
        for (sort, declared, known) in [
            ("inputs", file.inputs, model.input_ids()),
            ("outputs", file.outputs, model.output_ids()),
        ] {
            if declared.len() != known.len() {
                let (declared, known) = (declared.len(), known.len());
                return Err(blame(format!(
                    "declares {declared} {sort}, of which the runtime knows {known}"
                )));
            }
        }
        let pools = (0..workers).map(|_| Arc::new(ThreadPool::with_num_threads(threads)));
        Ok(Box::new(Rten {
            model,
            limits: file.limits,
            pools: pools.collect(),
        }))
    }
}

/// Reads the model. The runtime accepts few names for files of weights, so it is given what is in them under others.
fn read(file: &File<'_>) -> Result<Result<Model, rten::LoadError>, String> {
    let failed = |error: &dyn Display| format!("cannot be read: {error}");
    let is_named_onnx = |path: &Path| {
        path.extension()
            .is_some_and(|extension| extension.eq_ignore_ascii_case("onnx"))
    };
    if !file.is_external && is_named_onnx(file.path) {
        return Ok(Model::load_file(file.path));
    }
    if !file.is_external {
        // The runtime tells the format of a file by its name, but that of bytes by what they are.
        return Ok(Model::load(fs::read(file.path).map_err(|error| failed(&error))?));
    }
    let opened = fs::File::open(file.path).map_err(|error| failed(&error))?;
    let mut proto = ModelProto::parse_file(opened).map_err(|error| failed(&error))?;
    let directory = file.path.parent().unwrap_or(Path::new(""));
    let mut options = ModelOptions::with_all_ops();
    for (name, data) in external::read(&mut proto, directory)? {
        options.external_data(&name, data);
    }
    let bytes = proto.write_buf().map_err(|error| failed(&error))?;
    // Its buffers are in `bytes` now.
    drop(proto);
    Ok(options.load(bytes))
}

struct Rten {
    model: Model,
    limits: Limits,
    /// One for each worker: two batches at once must not wait for one another.
    pools: Vec<Arc<ThreadPool>>,
}

impl Runtime for Rten {
    fn run(&self, inputs: &[Given<'_>], outputs: &[Port], worker: usize) -> Result<Vec<Computed>, Fault> {
        let inputs = inputs
            .iter()
            .map(|given| {
                self.check_limits(given)?;
                let id = self.model.input_ids()[given.port.index];
                Ok((id, ValueOrView::View(view(given)?)))
            })
            .collect::<Result<_, Fault>>()?;
        let outputs: Vec<_> = outputs
            .iter()
            .map(|port| self.model.output_ids()[port.index])
            .collect();
        let pool = Arc::clone(&self.pools[worker % self.pools.len()]);
        let options = RunOptions::default().with_thread_pool(Some(pool));
        let computed = self.model.run(inputs, &outputs, Some(options));
        let computed = computed.map_err(|error| match error.kind() {
            RunErrorKind::PlanningError => Fault::Inputs(error.to_string()),
            _ => Fault::Failed(error.to_string()),
        })?;
        computed.into_iter().enumerate().map(take).collect()
    }
}

impl Rten {
    /// Rejects an input with which results are not verified.
    fn check_limits(&self, given: &Given<'_>) -> Result<(), Fault> {
        let name = &given.port.name;
        let Limits {
            max_dimension,
            empty,
            nan,
            infinite,
        } = self.limits;
        let hint = "is not verified for this model in the embedded runtime; set `runtime = \"ort\"`";
        if let Some(size) = given.shape.iter().find(|size| **size > max_dimension) {
            return Err(Fault::Failed(format!(
                "tensor `{name}`: a dimension of {size}, more than {max_dimension}, {hint}"
            )));
        }
        if !empty && given.shape.contains(&0) {
            return Err(Fault::Failed(format!("tensor `{name}`: a dimension of 0 {hint}")));
        }
        let Values::F32(values) = given.values else {
            return Ok(());
        };
        if !nan && values.iter().any(|value| value.is_nan()) {
            return Err(Fault::Failed(format!("tensor `{name}`: NaN {hint}")));
        }
        if !infinite && values.iter().any(|value| value.is_infinite()) {
            return Err(Fault::Failed(format!(
                "tensor `{name}`: an infinite value {hint}"
            )));
        }
        Ok(())
    }
}

fn view<'a>(given: &'a Given<'_>) -> Result<ValueView<'a>, Fault> {
    match given.values {
        Values::F32(values) => lend(&given.shape, values),
        Values::I32(values) => lend(&given.shape, values),
        Values::I8(values) => lend(&given.shape, values),
        Values::U8(values) => lend(&given.shape, values),
        _ => Err(Fault::Failed(format!(
            "input `{}` is held in a type that the runtime does not know",
            given.port.name
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
