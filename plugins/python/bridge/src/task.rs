//! Passes batches to a method and returns its outcomes.

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
use crate::package::PythonPackage;

/// Description of a method.
pub(crate) struct TaskSpec {
    /// Instance of `_batches.Task`.
    task: Py<PyAny>,
    /// `_batches.raised`, and `Failure`, `plain`, `problem` and `output_failure` of `_outcomes`.
    raised: Py<PyAny>,
    failed: Py<PyAny>,
    plain: Py<PyAny>,
    problem: Py<PyAny>,
    output_failure: Py<PyAny>,
    info: TaskInfo,
    input: ValueManifest,
    output: ValueManifest,
    takes_parameters: bool,
    /// Whether the class states the weights of items.
    pub(crate) is_weighed: bool,
    /// Whether the class creates items of a requested weight.
    creates_samples: bool,
}

impl TaskSpec {
    pub(crate) fn new(
        package: &PythonPackage<'_>,
        task: &Bound<'_, PyAny>,
        max_batch_size: Option<usize>,
    ) -> PyResult<Self> {
        let plain = package.outcomes.getattr("plain")?;
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
        let creates_samples = !task.getattr("sampler")?.is_none();
        if creates_samples {
            info = info.samples();
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
            raised: package.batches.getattr("raised")?.unbind(),
            failed: package.outcomes.getattr("Failure")?.unbind(),
            problem: package.outcomes.getattr("problem")?.unbind(),
            output_failure: package.outcomes.getattr("output_failure")?.unbind(),
            plain: plain.unbind(),
            info,
            input,
            output,
            takes_parameters,
            is_weighed: !task.getattr("weigher")?.is_none(),
            creates_samples,
        })
    }
}

/// Converts a `_hints.ValueSpec` to a manifest.
fn value_manifest(spec: &Bound<'_, PyAny>, plain: &Bound<'_, PyAny>) -> PyResult<ValueManifest> {
    let kind: String = spec.getattr("kind")?.extract()?;
    let tensor = |tensor: Bound<'_, PyAny>| {
        Ok(TensorManifest {
            name: tensor.getattr("name")?.extract()?,
            dtype: tensor.getattr("dtype")?.extract()?,
            shape: tensor.getattr("shape")?.extract()?,
            ..TensorManifest::default()
        })
    };
    let tensors = spec.getattr("tensors")?.try_iter()?;
    Ok(ValueManifest {
        kinds: vec![match kind.as_str() {
            "text" => Kind::Text,
            "bytes" => Kind::Bytes,
            "tensors" => Kind::Tensors,
            _ => Kind::Json,
        }],
        media_types: spec.getattr("media_types")?.extract()?,
        schema: document(&spec.getattr("schema")?, plain)?,
        tensors: tensors.map(|each| tensor(each?)).collect::<PyResult<_>>()?,
    })
}

fn document(value: &Bound<'_, PyAny>, plain: &Bound<'_, PyAny>) -> PyResult<JsonValue> {
    let wrong = PyTypeError::new_err::<String>;
    let text = json::write(value, plain).map_err(wrong)?;
    plugin_sdk::serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))
}

/// A method as a task.
pub(crate) struct Method(pub(crate) Arc<TaskSpec>);

impl Task<PythonModel> for Method {
    type Input = Any;
    type Output = Any;

    fn describe(&self) -> TaskInfo {
        self.0.info.clone()
    }

    fn predict(&self, _model: &PythonModel, batch: Batch<'_, Value<'_>>) -> BatchResult<AnyOutput> {
        let spec = &*self.0;
        Python::attach(|py| {
            let items = |tensor_to_python| spec.items_to_python(py, &batch, tensor_to_python);
            spec.run(py, &batch, items)
                .map_err(|error| spec.explain(py, error))
        })
    }

    fn sample(&self, _model: &PythonModel, weight: u64) -> Option<JsonValue> {
        self.0.sample(weight)
    }
}

/// A method as a task whose class states the weights of items. They are stated before the batch, in the prepare step.
pub(crate) struct WeighedMethod(pub(crate) Arc<TaskSpec>);

/// An item of such a task: what `_batches.READERS` expect of one item. For tensors, a list with the data and shape of each.
pub(crate) struct WeighedItem(Py<PyAny>);

impl PreparedTask<PythonModel> for WeighedMethod {
    type Input = Any;
    type Output = Any;
    type Prepared = WeighedItem;

    fn describe(&self) -> TaskInfo {
        self.0.info.clone()
    }

    fn prepare(
        &self,
        _model: &PythonModel,
        item: Item<'_, Value<'_>>,
    ) -> Result<Prepared<WeighedItem>, ItemError> {
        let spec = &*self.0;
        Python::attach(|py| {
            spec.weigh(py, &item).unwrap_or_else(|error| {
                log::error!("weighing an item failed: {error}");
                Err(ItemError::fault("the model failed to weigh this item"))
            })
        })
    }

    fn predict(&self, _model: &PythonModel, batch: Batch<'_, &WeighedItem>) -> BatchResult<AnyOutput> {
        let spec = &*self.0;
        Python::attach(|py| {
            let items =
                |_: TensorToPython<'_>| spec.weighed_to_python(py, batch.iter().map(|item| item.0.bind(py)));
            spec.run(py, &batch, items)
                .map_err(|error| spec.explain(py, error))
        })
    }

    fn sample(&self, _model: &PythonModel, weight: u64) -> Option<JsonValue> {
        self.0.sample(weight)
    }
}

impl TaskSpec {
    /// Creates an item of about this weight.
    fn sample(&self, weight: u64) -> Option<JsonValue> {
        if !self.creates_samples {
            return None;
        }
        Python::attach(|py| {
            let sampled = self.task.bind(py).call_method1("sample", (weight,));
            let written = sampled.and_then(|item| {
                if item.is_none() {
                    return Ok(None);
                }
                document(&item, self.plain.bind(py)).map(Some)
            });
            written.unwrap_or_else(|error| {
                log::error!("`sample` failed: {error}");
                None
            })
        })
    }

    /// Returns an item with the weight and the group that the class states.
    fn weigh(
        &self,
        py: Python<'_>,
        item: &Item<'_, Value<'_>>,
    ) -> PyResult<Result<Prepared<WeighedItem>, ItemError>> {
        let converted = self.item_to_python(py, &item.value)?;
        let items = self.weighed_to_python(py, std::iter::once(&converted))?;
        let parameters = if self.takes_parameters {
            match item.parameters::<Box<RawValue>>() {
                Ok(document) => Some(PyList::new(py, [document.get()])?),
                Err(error) => return Ok(Err(error)),
            }
        } else {
            None
        };
        let weighed = self.task.bind(py).call_method1("weigh", (items, parameters))?;
        if weighed.is_instance(self.failed.bind(py))? {
            return Ok(Err(item_error(&weighed)?));
        }
        let (weight, group): (u64, u64) = weighed.extract()?;
        let prepared = Prepared::new(WeighedItem(converted.unbind()));
        Ok(Ok(prepared.weight(weight).group(group)))
    }

    /// Converts one item to the form that `_batches.READERS` expect of it.
    fn item_to_python<'py>(&self, py: Python<'py>, item: &Value<'_>) -> PyResult<Bound<'py, PyAny>> {
        let Value::Tensors(named) = item else {
            return value_to_python(py, item);
        };
        let tensors = self.input.tensors.iter().map(|declared| {
            let tensor = named
                .get(&declared.name)
                .map_err(|error| PyTypeError::new_err(error.to_string()))?;
            tensor_of_one_to_python(py, &tensor)
        });
        Ok(PyList::new(py, tensors.collect::<PyResult<Vec<_>>>()?)?.into_any())
    }

    /// Collects converted items in the form that `_batches.READERS` expect.
    fn weighed_to_python<'a, 'py: 'a>(
        &self,
        py: Python<'py>,
        items: impl Iterator<Item = &'a Bound<'py, PyAny>> + Clone,
    ) -> PyResult<Bound<'py, PyList>> {
        if self.input.kinds != [Kind::Tensors] {
            return PyList::new(py, items.collect::<Vec<_>>());
        }
        let of_each = |tensor: usize| {
            let each = items.clone().map(|item| item.get_item(tensor));
            PyList::new(py, each.collect::<PyResult<Vec<_>>>()?)
        };
        let tensors = (0..self.input.tensors.len()).map(of_each);
        PyList::new(py, tensors.collect::<PyResult<Vec<_>>>()?)
    }

    /// Runs a batch. The server has checked that its items match the manifest. `items` converts them.
    fn run<'py, T>(
        &self,
        py: Python<'py>,
        batch: &Batch<'_, T>,
        items: impl Fn(TensorToPython<'py>) -> PyResult<Bound<'py, PyList>>,
    ) -> PyResult<Outputs<AnyOutput>> {
        let task = self.task.bind(py);
        let parameters = if self.takes_parameters {
            Some(parameters(py, batch)?)
        } else {
            None
        };
        let converted = items(tensor_to_python)?;
        let answered = match task.call_method1("run", (converted, &parameters)) {
            Ok(answered) => answered,
            Err(error) => {
                // Convert the items again, because the method may have modified them.
                let converted = items(tensor_of_each_to_python)?;
                task.call_method1("isolate", (error.into_value(py), converted, parameters))?
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
        // Outputs of kind JSON are in the sequence that the method returned, which is not necessarily a list.
        outcomes.try_iter()?.map(|each| outcome(each?)).collect()
    }

    /// Converts the items to the form that `_batches.READERS` expect.
    fn items_to_python<'py>(
        &self,
        py: Python<'py>,
        batch: &Batch<'_, Value<'_>>,
        tensor_to_python: TensorToPython<'py>,
    ) -> PyResult<Bound<'py, PyList>> {
        if self.input.kinds == [Kind::Tensors] {
            let names = self.input.tensors.iter().map(|tensor| &tensor.name);
            let converted = names.map(|name| tensor_to_python(py, &views(name, batch)?));
            return PyList::new(py, converted.collect::<PyResult<Vec<_>>>()?);
        }
        let converted = batch.iter().map(|item| value_to_python(py, item));
        PyList::new(py, converted.collect::<PyResult<Vec<_>>>()?)
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
                    let failed = self.output_failure.bind(py).call1((problem.unwrap_or(error),))?;
                    return Ok(Err(item_error(&failed)?));
                }
            },
        }))
    }

    /// Converts shapes and data, in the order of the declared tensors, to tensors.
    fn tensors<'py>(&self, parts: impl Iterator<Item = Bound<'py, PyAny>>) -> PyResult<Vec<TensorOutput>> {
        let tensor = |(declared, part): (&TensorManifest, Bound<'_, PyAny>)| {
            let (shape, data): (Vec<usize>, Bound<'_, PyBytes>) = part.extract()?;
            let dtype = DType::from_name(&declared.dtype)
                .ok_or_else(|| PyTypeError::new_err("unknown datatype of a tensor"))?;
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

    /// Converts an exception to an error. `_batches.raised` logs the traceback.
    fn explain(&self, py: Python<'_>, error: PyErr) -> BatchError {
        let explained = self
            .raised
            .call1(py, (error.into_value(py),))
            .and_then(|explained| explained.extract(py));
        match explained {
            Ok((true, message)) => BatchError::OutOfMemory(message),
            Ok((false, message)) => BatchError::Failed(message),
            Err(_) => BatchError::failed("the model raised an exception that cannot be formatted"),
        }
    }
}

/// Converts an item other than tensors.
fn value_to_python<'py>(py: Python<'py>, item: &Value<'_>) -> PyResult<Bound<'py, PyAny>> {
    Ok(match item {
        Value::Text(text) => PyString::new(py, text).into_any(),
        Value::Bytes(bytes) => PyBytes::new(py, bytes.data).into_any(),
        Value::Json(document) => PyString::from_bytes(py, document)?.into_any(),
        _ => return Err(other_kind()),
    })
}

/// A function that converts one tensor of all items.
type TensorToPython<'py> = fn(Python<'py>, &[TensorView<'_>]) -> PyResult<Bound<'py, PyAny>>;

/// Returns the tensor `name` of each item.
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
    PyTypeError::new_err("an item has a different kind than the task declares")
}

/// Returns the data and the shape of the stacked tensors if all items have the same shape, or a list with those of each item.
fn tensor_to_python<'py>(py: Python<'py>, tensors: &[TensorView<'_>]) -> PyResult<Bound<'py, PyAny>> {
    let shape = tensors[0].shape();
    // The elements of a one-dimensional array would not be arrays.
    if shape.is_empty() || tensors.iter().any(|tensor| tensor.shape() != shape) {
        return tensor_of_each_to_python(py, tensors);
    }
    let data: Vec<&[u8]> = tensors.iter().map(|tensor| tensor.data()).collect();
    let mut rows = vec![tensors.len() as u64];
    rows.extend(shape);
    let both = (PyByteArray::new(py, &data.concat()), PyTuple::new(py, rows)?);
    Ok(both.into_pyobject(py)?.into_any())
}

/// Returns a list with the data and the shape of each item.
fn tensor_of_each_to_python<'py>(py: Python<'py>, tensors: &[TensorView<'_>]) -> PyResult<Bound<'py, PyAny>> {
    let each = tensors.iter().map(|tensor| tensor_of_one_to_python(py, tensor));
    Ok(PyList::new(py, each.collect::<PyResult<Vec<_>>>()?)?.into_any())
}

/// Returns the data and the shape of a tensor.
fn tensor_of_one_to_python<'py>(py: Python<'py>, tensor: &TensorView<'_>) -> PyResult<Bound<'py, PyAny>> {
    let both = (PyBytes::new(py, tensor.data()), PyTuple::new(py, tensor.shape())?);
    Ok(both.into_pyobject(py)?.into_any())
}

fn parameters<'py, T>(py: Python<'py>, batch: &Batch<'_, T>) -> PyResult<Bound<'py, PyList>> {
    let read = |index| {
        let document = batch.parameters::<Box<RawValue>>(index);
        document.map_err(|error| PyTypeError::new_err(error.to_string()))
    };
    let documents = (0..batch.len()).map(read).collect::<PyResult<Vec<_>>>()?;
    PyList::new(py, documents.iter().map(|document| document.get()))
}

/// Converts an `_outcomes.Failure`.
fn item_error(failed: &Bound<'_, PyAny>) -> PyResult<ItemError> {
    let message: String = failed.getattr("message")?.extract()?;
    let kind: String = failed.getattr("kind")?.extract()?;
    Ok(match kind.as_str() {
        "invalid" => ItemError::Invalid(message),
        "unsupported" => ItemError::Unsupported(message),
        _ => ItemError::Fault(message),
    })
}
