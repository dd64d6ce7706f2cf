//! Numbers on their way between clients and the runtime, which computes with four types only: what ONNX declares as INT64 or
//! BOOL it holds as 32-bit integers, and FP64 as FP32. This module converts; it knows nothing of tasks.

use std::borrow::Cow;

use plugin_sdk::{DType, Element, ItemError, TensorOutput, TensorView};
use rten::{TryFromValueError, Value, ValueView};
use rten_onnx::onnx;
use rten_tensor::{AsView, Layout, Tensor, TensorView as RuntimeView};

/// What clients see for a datatype of the file; `None` if the runtime has nothing to hold it in.
///
/// FLOAT16 is answered as FP32, which is what the runtime turns such models into.
pub(crate) fn dtype(declared: onnx::DataType) -> Option<DType> {
    Some(match declared {
        onnx::DataType::FLOAT | onnx::DataType::FLOAT16 => DType::Fp32,
        onnx::DataType::DOUBLE => DType::Fp64,
        onnx::DataType::INT64 => DType::Int64,
        onnx::DataType::INT32 => DType::Int32,
        onnx::DataType::INT8 => DType::Int8,
        onnx::DataType::UINT8 => DType::Uint8,
        onnx::DataType::BOOL => DType::Bool,
        _ => return None,
    })
}

/// The elements of one item's tensor, or of a batch's, as the runtime holds them.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Values {
    F32(Vec<f32>),
    I32(Vec<i32>),
    I8(Vec<i8>),
    U8(Vec<u8>),
}

impl Values {
    /// Reads a client's tensor, which must be of the declared type.
    pub(crate) fn read(tensor: &TensorView<'_>, declared: DType) -> Result<Self, ItemError> {
        if tensor.dtype() != declared {
            return Err(ItemError::invalid(format_args!(
                "tensor `{}`: datatype is {}, expected {}",
                tensor.name(),
                tensor.dtype().name(),
                declared.name()
            )));
        }
        Ok(match declared {
            DType::Fp64 => Self::F32(
                tensor
                    .values::<f64>()?
                    .iter()
                    .map(|value| *value as f32)
                    .collect(),
            ),
            DType::Int64 => Self::I32(narrow(tensor.name(), &tensor.values::<i64>()?)?),
            DType::Int32 => Self::I32(tensor.values()?.into_owned()),
            DType::Bool => Self::I32(tensor.data().iter().map(|byte| i32::from(*byte != 0)).collect()),
            DType::Int8 => Self::I8(tensor.values()?.into_owned()),
            DType::Uint8 => Self::U8(tensor.values()?.into_owned()),
            _ => Self::F32(tensor.values()?.into_owned()),
        })
    }

    /// Values of computed pixels; rounded where the type is an integer.
    pub(crate) fn from_pixels(pixels: Vec<f32>, declared: DType) -> Self {
        match Self::empty(declared) {
            Self::F32(_) => Self::F32(pixels),
            Self::I32(_) => Self::I32(pixels.iter().map(|value| value.round() as i32).collect()),
            Self::I8(_) => Self::I8(pixels.iter().map(|value| value.round() as i8).collect()),
            Self::U8(_) => Self::U8(pixels.iter().map(|value| value.round() as u8).collect()),
        }
    }

    /// What a model can be tried with: 0 for fractions, and 1 for integers, which is a valid index, length and mask.
    pub(crate) fn neutral(declared: DType, count: usize) -> Self {
        match Self::empty(declared) {
            Self::F32(_) => Self::F32(vec![0.0; count]),
            Self::I32(_) => Self::I32(vec![1; count]),
            Self::I8(_) => Self::I8(vec![1; count]),
            Self::U8(_) => Self::U8(vec![1; count]),
        }
    }

    fn empty(declared: DType) -> Self {
        match declared {
            DType::Int64 | DType::Int32 | DType::Bool => Self::I32(Vec::new()),
            DType::Int8 => Self::I8(Vec::new()),
            DType::Uint8 => Self::U8(Vec::new()),
            _ => Self::F32(Vec::new()),
        }
    }

    /// The values of several items of the same type, one after the other; without a copy if there is only one.
    pub(crate) fn concat<'a>(items: &[&'a Self]) -> Cow<'a, Self> {
        match items {
            [] => Cow::Owned(Self::F32(Vec::new())),
            [only] => Cow::Borrowed(only),
            [first, ..] => {
                let mut all = (*first).clone();
                for item in &items[1..] {
                    all.append(item);
                }
                Cow::Owned(all)
            }
        }
    }

    /// One task's input has one type, so other pairs do not occur.
    fn append(&mut self, item: &Self) {
        match (self, item) {
            (Self::F32(all), Self::F32(item)) => all.extend_from_slice(item),
            (Self::I32(all), Self::I32(item)) => all.extend_from_slice(item),
            (Self::I8(all), Self::I8(item)) => all.extend_from_slice(item),
            (Self::U8(all), Self::U8(item)) => all.extend_from_slice(item),
            _ => {}
        }
    }

    /// The values as a tensor of the runtime, lent.
    pub(crate) fn view(&self, shape: &[usize]) -> Result<ValueView<'_>, String> {
        match self {
            Self::F32(values) => lend(shape, values),
            Self::I32(values) => lend(shape, values),
            Self::I8(values) => lend(shape, values),
            Self::U8(values) => lend(shape, values),
        }
    }
}

fn lend<'a, T>(shape: &[usize], values: &'a [T]) -> Result<ValueView<'a>, String>
where
    ValueView<'a>: From<RuntimeView<'a, T>>,
{
    ValueView::from_shape(shape, values).map_err(|error| error.to_string())
}

fn narrow(name: &str, values: &[i64]) -> Result<Vec<i32>, ItemError> {
    let narrow = |(index, value): (usize, &i64)| {
        i32::try_from(*value).map_err(|_| {
            ItemError::invalid(format_args!(
                "tensor `{name}`: {value} at index {index} is beyond 32 bits, which is what this runtime computes with"
            ))
        })
    };
    values.iter().enumerate().map(narrow).collect()
}

/// What is answered for an output of the runtime: converted back to the declared type. The first `skip` dimensions, which
/// are 1, are left out of the shape.
pub(crate) fn answer(
    name: &str,
    declared: DType,
    value: Value,
    skip: usize,
) -> Result<TensorOutput, TryFromValueError> {
    let shape = value.shape().iter().skip(skip).copied().collect::<Vec<_>>();
    Ok(match value {
        Value::FloatTensor(tensor) => match declared {
            DType::Fp64 => converted(name, &shape, tensor, f64::from),
            _ => owned(name, &shape, tensor),
        },
        Value::Int32Tensor(tensor) => match declared {
            DType::Int64 => converted(name, &shape, tensor, i64::from),
            DType::Bool => {
                let bytes = tensor
                    .to_vec()
                    .iter()
                    .map(|value| u8::from(*value != 0))
                    .collect();
                TensorOutput::from_bytes(name.to_owned(), DType::Bool, &shape, bytes)
            }
            _ => owned(name, &shape, tensor),
        },
        Value::Int8Tensor(tensor) => owned(name, &shape, tensor),
        Value::UInt8Tensor(tensor) => owned(name, &shape, tensor),
        // The file declares tensors, so this cannot be; the runtime words the error.
        other => owned(name, &shape, Tensor::<f32>::try_from(other)?),
    })
}

fn owned<T: Element>(name: &str, shape: &[usize], tensor: Tensor<T>) -> TensorOutput {
    TensorOutput::new(name.to_owned(), shape, tensor.into_data())
}

fn converted<T: Element, U: Element>(
    name: &str,
    shape: &[usize],
    tensor: Tensor<T>,
    convert: impl Fn(T) -> U,
) -> TensorOutput {
    let values = tensor.into_data().into_iter().map(convert).collect();
    TensorOutput::new(name.to_owned(), shape, values)
}
