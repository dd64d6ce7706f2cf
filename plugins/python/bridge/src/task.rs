//! Passes batches to a method and its outcomes back. Its hints state what they are: see `_batches.Task`.

use std::sync::Arc;

use plugin_sdk::manifest::{Kind, TensorManifest, ValueManifest};
use plugin_sdk::prelude::*;
use plugin_sdk::serde_json::Value as JsonValue;
use plugin_sdk::serde_json::value::RawValue;
use plugin_sdk::{AnyOutput, TaskInfo, TensorView};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyList, PyString, PyTuple};

use crate::PythonModel;
use crate::json;
use crate::scripts::Scripts;

/// What is known of a method once the model is loaded.
pub(crate) struct Plan {
    /// Its `_batches.Task`.
    task: Py<PyAny>,
    /// `_batches.raised`, and `Failed`, `plain`, `problem` and `unfit` of `_outcomes`.
    raised: Py<PyAny>,
    failed: Py<PyAny>,
    plain: Py<PyAny>,
    problem: Py<PyAny>,
    unfit: Py<PyAny>,
    info: TaskInfo,
    input: ValueManifest,
    output: ValueManifest,
    takes_parameters: bool,
}

impl Plan {
    pub(crate) fn new(
        scripts: &Scripts<'_>,
        task: &Bound<'_, PyAny>,
        max_batch_size: Option<usize>,
    ) -> PyResult<Self> {
        let plain = scripts.outcomes.getattr("plain")?;
        let input = value_manifest(&task.getattr("input")?, &plain)?;
        let output = value_manifest(&task.getattr("output")?, &plain)?;
        let description: String = task.getattr("description")?.extract()?;
        let mut info = TaskInfo::new(description)
            .input(input.clone())
            .output(output.clone());
        if let Some(size) = max_batch_size {
            info = info.max_batch_size(size);
        }
        if task.getattr("embedding")?.extract()? {
            info = info.embedding();
        }
        let parameters = task.getattr("parameters")?;
        let takes_parameters = !parameters.is_none();
        if takes_parameters {
            info = info.parameters_schema(document(&parameters.get_item(0)?, &plain)?);
        }
        for example in task.getattr("examples")?.try_iter()? {
            info = info.example(document(&example?, &plain)?);
        }
        Ok(Self {
            task: task.clone().unbind(),
            raised: scripts.batches.getattr("raised")?.unbind(),
            failed: scripts.outcomes.getattr("Failed")?.unbind(),
            problem: scripts.outcomes.getattr("problem")?.unbind(),
            unfit: scripts.outcomes.getattr("unfit")?.unbind(),
            plain: plain.unbind(),
            info,
            input,
            output,
            takes_parameters,
        })
    }
}

/// The manifest of a `_hints.Form`.
fn value_manifest(form: &Bound<'_, PyAny>, plain: &Bound<'_, PyAny>) -> PyResult<ValueManifest> {
    let kind: String = form.getattr("kind")?.extract()?;
    let tensor = |tensor: Bound<'_, PyAny>| {
        Ok(TensorManifest {
            name: tensor.getattr("name")?.extract()?,
            dtype: tensor.getattr("dtype")?.extract()?,
            shape: tensor.getattr("shape")?.extract()?,
            ..TensorManifest::default()
        })
    };
    let tensors = form.getattr("tensors")?.try_iter()?;
    Ok(ValueManifest {
        kinds: vec![match kind.as_str() {
            "text" => Kind::Text,
            "bytes" => Kind::Bytes,
            "tensors" => Kind::Tensors,
            _ => Kind::Json,
        }],
        media_types: form.getattr("media_types")?.extract()?,
        schema: document(&form.getattr("schema")?, plain)?,
        tensors: tensors.map(|each| tensor(each?)).collect::<PyResult<_>>()?,
    })
}

fn document(value: &Bound<'_, PyAny>, plain: &Bound<'_, PyAny>) -> PyResult<JsonValue> {
    let wrong = PyTypeError::new_err::<String>;
    let text = json::write(value, plain).map_err(wrong)?;
    plugin_sdk::serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))
}

/// A method as a task.
pub(crate) struct Method(pub(crate) Arc<Plan>);

impl Task<PythonModel> for Method {
    type Input = Any;
    type Output = Any;

    fn describe(&self) -> TaskInfo {
        self.0.info.clone()
    }

    fn predict(&self, _model: &PythonModel, batch: Batch<'_, Value<'_>>) -> BatchResult<AnyOutput> {
        let plan = &*self.0;
        Python::attach(|py| plan.run(py, &batch).map_err(|error| plan.explain(py, error)))
    }
}

impl Plan {
    /// The outcomes of a batch, whose items are what the manifest declares, as the server has checked.
    fn run(&self, py: Python<'_>, batch: &Batch<'_, Value<'_>>) -> PyResult<Outputs<AnyOutput>> {
        let task = self.task.bind(py);
        let parameters = if self.takes_parameters {
            Some(parameters(py, batch)?)
        } else {
            None
        };
        let items = self.lend(py, batch, lend_tensor)?;
        let answered = match task.call_method1("run", (items, &parameters)) {
            Ok(answered) => answered,
            Err(error) => {
                // The method may have changed the items that it was given.
                let items = self.lend(py, batch, lend_tensor_of_each)?;
                task.call_method1("isolate", (error.into_value(py), items, parameters))?
            }
        };
        let (outcomes, tokens): (Bound<'_, PyAny>, Option<Vec<u64>>) = answered.extract()?;
        let outputs = self.outputs(&outcomes)?;
        Ok(match tokens {
            Some(tokens) => outputs.weights(tokens),
            None => outputs,
        })
    }

    fn outputs(&self, outcomes: &Bound<'_, PyAny>) -> PyResult<Outputs<AnyOutput>> {
        if let Ok(rows) = outcomes.cast::<PyTuple>() {
            return self.tensors(rows.iter()).map(Outputs::rows);
        }
        let failed = self.failed.bind(outcomes.py());
        let outcome = |outcome: Bound<'_, PyAny>| {
            if outcome.is_instance(failed)? {
                return Ok(Err(item_error(&outcome)?));
            }
            self.output(&outcome)
        };
        // Outputs of kind JSON come as the method returned them: in a list, or in another sequence.
        outcomes.try_iter()?.map(|each| outcome(each?)).collect()
    }

    /// The items as `_batches.READERS` take them.
    fn lend<'py>(
        &self,
        py: Python<'py>,
        batch: &Batch<'_, Value<'_>>,
        lend_tensor: LendTensor<'py>,
    ) -> PyResult<Bound<'py, PyList>> {
        if self.input.kinds == [Kind::Tensors] {
            let names = self.input.tensors.iter().map(|tensor| &tensor.name);
            let lent = names.map(|name| lend_tensor(py, &views(name, batch)?));
            return PyList::new(py, lent.collect::<PyResult<Vec<_>>>()?);
        }
        let lent = batch.iter().map(|item| {
            Ok(match item {
                Value::Text(text) => PyString::new(py, text).into_any(),
                Value::Bytes(bytes) => PyBytes::new(py, bytes.data).into_any(),
                Value::Json(document) => PyString::from_bytes(py, document)?.into_any(),
                _ => return Err(other_kind()),
            })
        });
        PyList::new(py, lent.collect::<PyResult<Vec<_>>>()?)
    }

    fn output(&self, outcome: &Bound<'_, PyAny>) -> PyResult<Result<AnyOutput, ItemError>> {
        let py = outcome.py();
        Ok(Ok(match self.output.kinds[..] {
            [Kind::Text] => AnyOutput::Text(outcome.extract()?),
            [Kind::Bytes] => {
                let (data, media_type): (Vec<u8>, String) = outcome.extract()?;
                AnyOutput::Bytes(BytesOutput::new(data, media_type))
            }
            [Kind::Tensors] => AnyOutput::Tensors(self.tensors(outcome.try_iter()?.flatten())?),
            _ => match json::write(outcome, self.plain.bind(py)) {
                Ok(document) => AnyOutput::Json(document),
                Err(error) => {
                    let problem: Option<String> = self.problem.call1(py, (outcome,))?.extract(py)?;
                    let failed = self.unfit.bind(py).call1((problem.unwrap_or(error),))?;
                    return Ok(Err(item_error(&failed)?));
                }
            },
        }))
    }

    /// Shapes and data, in the order of the declared tensors, as tensors.
    fn tensors<'py>(&self, parts: impl Iterator<Item = Bound<'py, PyAny>>) -> PyResult<Vec<TensorOutput>> {
        let tensor = |(declared, part): (&TensorManifest, Bound<'_, PyAny>)| {
            let (shape, data): (Vec<usize>, Bound<'_, PyBytes>) = part.extract()?;
            let dtype = DType::from_name(&declared.dtype)
                .ok_or_else(|| PyTypeError::new_err("a tensor is of an unknown type"))?;
            let data = data.as_bytes().to_vec();
            Ok(TensorOutput::from_bytes(
                declared.name.clone(),
                dtype,
                &shape,
                data,
            ))
        };
        self.output.tensors.iter().zip(parts).map(tensor).collect()
    }

    /// What the server is told of an exception; `_batches.raised` writes the traceback to the log.
    fn explain(&self, py: Python<'_>, error: PyErr) -> BatchError {
        let said = self
            .raised
            .call1(py, (error.into_value(py),))
            .and_then(|said| said.extract(py));
        match said {
            Ok((true, message)) => BatchError::OutOfMemory(message),
            Ok((false, message)) => BatchError::Failed(message),
            Err(_) => BatchError::failed("the model raised an exception that cannot be described"),
        }
    }
}

/// How one tensor of all items is passed on.
type LendTensor<'py> = fn(Python<'py>, &[TensorView<'_>]) -> PyResult<Bound<'py, PyAny>>;

/// One tensor of each item.
fn views<'a>(name: &str, batch: &Batch<'_, Value<'a>>) -> PyResult<Vec<TensorView<'a>>> {
    let view = |item: &Value<'a>| match item {
        Value::Tensors(named) => named
            .get(name)
            .map_err(|error| PyTypeError::new_err(error.to_string())),
        _ => Err(other_kind()),
    };
    batch.iter().map(view).collect()
}

fn other_kind() -> PyErr {
    PyTypeError::new_err("an item is of another kind than the task takes")
}

/// Data and shape of all items together if they have the same shape, and otherwise of each.
fn lend_tensor<'py>(py: Python<'py>, tensors: &[TensorView<'_>]) -> PyResult<Bound<'py, PyAny>> {
    let shape = tensors[0].shape();
    // The elements of an array of one dimension would not be arrays.
    if shape.is_empty() || tensors.iter().any(|tensor| tensor.shape() != shape) {
        return lend_tensor_of_each(py, tensors);
    }
    let data: Vec<&[u8]> = tensors.iter().map(|tensor| tensor.data()).collect();
    let mut rows = vec![tensors.len() as u64];
    rows.extend(shape);
    let both = (PyByteArray::new(py, &data.concat()), PyTuple::new(py, rows)?);
    Ok(both.into_pyobject(py)?.into_any())
}

/// Data and shape of each item.
fn lend_tensor_of_each<'py>(py: Python<'py>, tensors: &[TensorView<'_>]) -> PyResult<Bound<'py, PyAny>> {
    let each = tensors
        .iter()
        .map(|tensor| Ok((PyBytes::new(py, tensor.data()), PyTuple::new(py, tensor.shape())?)));
    Ok(PyList::new(py, each.collect::<PyResult<Vec<_>>>()?)?.into_any())
}

fn parameters<'py>(py: Python<'py>, batch: &Batch<'_, Value<'_>>) -> PyResult<Bound<'py, PyList>> {
    let read = |index| {
        let document = batch.parameters::<Box<RawValue>>(index);
        document.map_err(|error| PyTypeError::new_err(error.to_string()))
    };
    let documents = (0..batch.len()).map(read).collect::<PyResult<Vec<_>>>()?;
    PyList::new(py, documents.iter().map(|document| document.get()))
}

/// The error in a `_outcomes.Failed`.
fn item_error(failed: &Bound<'_, PyAny>) -> PyResult<ItemError> {
    let message: String = failed.getattr("message")?.extract()?;
    let kind: String = failed.getattr("kind")?.extract()?;
    Ok(match kind.as_str() {
        "invalid" => ItemError::Invalid(message),
        "unsupported" => ItemError::Unsupported(message),
        _ => ItemError::Fault(message),
    })
}
