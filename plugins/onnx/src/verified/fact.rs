//! Static facts about a value in a graph: its datatype, its shape and the bounds of its integers.

use half::f16;
use rten_onnx::onnx::{self, DataType};

use super::floats::Floats;

/// Maximum number of integers whose bounds are tracked per element. Larger tensors have common bounds.
const MAX_FOLLOWED: usize = 64;

/// An inclusive range of integers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(crate) low: i64,
    pub(crate) high: i64,
}

impl Bounds {
    /// All 32-bit integers.
    pub(crate) const I32: Self = Self {
        low: i32::MIN as i64,
        high: i32::MAX as i64,
    };

    /// Size of a dimension about which nothing else is known.
    pub(crate) const SIZE: Self = Self {
        low: 0,
        high: i32::MAX as i64,
    };

    pub(crate) fn exactly(value: i64) -> Self {
        Self::new(value, value)
    }

    pub(crate) fn new(low: i64, high: i64) -> Self {
        Self { low, high }
    }

    /// Bounds of values computed with 128 bits, clamped to 64 bits.
    pub(crate) fn wide(values: impl IntoIterator<Item = i128>) -> Self {
        let clamp = |value: i128| value.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64;
        let (mut low, mut high) = (i128::MAX, i128::MIN);
        for value in values {
            low = low.min(value);
            high = high.max(value);
        }
        Self::new(clamp(low), clamp(high))
    }

    pub(crate) fn value(self) -> Option<i64> {
        (self.low == self.high).then_some(self.low)
    }

    pub(crate) fn fits_32_bits(self) -> bool {
        self.low >= Self::I32.low && self.high <= Self::I32.high
    }

    /// Smallest bounds that contain both.
    pub(crate) fn union(self, other: Self) -> Self {
        Self::new(self.low.min(other.low), self.high.max(other.high))
    }

    /// Clamps to the valid range of a size, which is never negative and never larger than what can be allocated.
    pub(crate) fn as_size(self) -> Self {
        Self::new(
            self.low.clamp(0, Self::SIZE.high),
            self.high.clamp(0, Self::SIZE.high),
        )
    }

    pub(crate) fn add(self, other: Self) -> Self {
        let sum = |a: i64, b: i64| i128::from(a) + i128::from(b);
        Self::wide([sum(self.low, other.low), sum(self.high, other.high)])
    }

    pub(crate) fn negate(self) -> Self {
        Self::wide([-i128::from(self.high), -i128::from(self.low)])
    }

    pub(crate) fn multiply(self, other: Self) -> Self {
        let product = |a: i64, b: i64| i128::from(a) * i128::from(b);
        Self::wide([
            product(self.low, other.low),
            product(self.low, other.high),
            product(self.high, other.low),
            product(self.high, other.high),
        ])
    }

    /// Bounds of quotients truncated toward zero. The magnitude of a quotient never exceeds that of the dividend.
    pub(crate) fn divide(self, other: Self) -> Self {
        if let Some(divisor) = other.value().filter(|divisor| *divisor != 0) {
            let quotient = |value: i64| i128::from(value) / i128::from(divisor);
            return Self::wide([quotient(self.low), quotient(self.high)]);
        }
        let magnitude = i128::from(self.low).abs().max(i128::from(self.high).abs());
        match (self.low >= 0, other.low >= 0) {
            (true, true) => Self::wide([0, i128::from(self.high)]),
            (false, true) => Self::wide([i128::from(self.low.min(0)), i128::from(self.high.max(0))]),
            _ => Self::wide([-magnitude, magnitude]),
        }
    }

    /// Bounds of remainders, whether they take the sign of the dividend or of the divisor.
    pub(crate) fn remainder(self, other: Self) -> Self {
        if let (Some(dividend), Some(divisor)) = (self.value(), other.value())
            && dividend >= 0
            && divisor > 0
        {
            return Self::exactly(dividend % divisor);
        }
        let limit = i128::from(other.low).abs().max(i128::from(other.high).abs()) - 1;
        let low = if self.low >= 0 && other.low >= 0 {
            0
        } else {
            -limit
        };
        Self::wide([low.min(0), limit.max(0)])
    }

    /// Bounds of the sum of up to `count` such values, including the empty sum.
    pub(crate) fn times(self, count: Bounds) -> Self {
        self.multiply(Self::new(0.min(count.low), count.high.max(0)))
            .union(Self::exactly(0))
    }
}

/// Bounds of the integers in a tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Integers {
    /// Bounds of all elements.
    pub(crate) all: Bounds,
    /// Bounds of each element, for a scalar or a short vector.
    pub(crate) each: Option<Vec<Bounds>>,
}

impl Integers {
    pub(crate) fn within(all: Bounds) -> Self {
        Self { all, each: None }
    }

    pub(crate) fn each(each: Vec<Bounds>) -> Self {
        let all = each.iter().copied().reduce(Bounds::union);
        Self {
            all: all.unwrap_or(Bounds::exactly(0)),
            each: (each.len() <= MAX_FOLLOWED).then_some(each),
        }
    }

    /// The values, if all are known.
    pub(crate) fn values(&self) -> Option<Vec<i64>> {
        self.each.as_ref()?.iter().map(|bounds| bounds.value()).collect()
    }
}

/// Static facts about a value.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Fact {
    pub(crate) datatype: Option<DataType>,
    /// Bounds of each dimension.
    pub(crate) shape: Option<Vec<Bounds>>,
    /// Bounds of the elements, if they are integers.
    pub(crate) integers: Option<Integers>,
    /// Whether the value is constant: stored in the file, or computed only from constants.
    pub(crate) constant: bool,
    /// Whether the runtime may represent true in a BOOL tensor as an integer other than 1.
    pub(crate) loose: bool,
    /// Possible special values of the elements, if they are floats.
    pub(crate) floats: Floats,
    /// The element, if this is a tensor stored in the file that consists of one float.
    pub(crate) single: Option<f32>,
}

impl Fact {
    pub(crate) fn new(datatype: Option<DataType>, shape: Option<Vec<Bounds>>) -> Self {
        Self {
            datatype,
            shape,
            ..Self::default()
        }
    }

    pub(crate) fn with_integers(mut self, integers: Option<Integers>) -> Self {
        self.integers = integers;
        self
    }

    /// Whether the elements are floats; true if the datatype is unknown.
    pub(crate) fn holds_floats(&self) -> bool {
        !self.datatype.is_some_and(|datatype| {
            matches!(
                datatype,
                DataType::BOOL | DataType::INT8 | DataType::UINT8 | DataType::INT32 | DataType::INT64
            )
        })
    }

    pub(crate) fn rank(&self) -> Option<usize> {
        self.shape.as_ref().map(Vec::len)
    }

    /// The integers, if they are stored in the file or follow from the declared shapes.
    pub(crate) fn values(&self) -> Option<Vec<i64>> {
        self.integers.as_ref()?.values()
    }

    /// Bounds of the integers. Without further information, the range of the datatype.
    pub(crate) fn bounds(&self) -> Bounds {
        match &self.integers {
            Some(integers) => integers.all,
            None => self
                .datatype
                .map_or(Bounds::new(i64::MIN, i64::MAX), datatype_bounds),
        }
    }

    /// Bounds of the number of elements.
    pub(crate) fn count(&self) -> Bounds {
        match &self.shape {
            Some(shape) => count(shape),
            None => Bounds::SIZE,
        }
    }

    /// Facts about a declared value, whose dynamic dimensions have sizes of up to `max_dimension`.
    pub(crate) fn declared(value: &onnx::ValueInfoProto, max_dimension: i64) -> Self {
        let tensor = value
            .r#type
            .as_ref()
            .and_then(|declared| declared.tensor_type.as_ref());
        let Some(tensor) = tensor else {
            return Self::default();
        };
        let shape = tensor.shape.as_ref().map(|shape| {
            let dims = shape.dim.iter().map(|dim| match dim.dim_value {
                Some(size) if size >= 0 => Bounds::exactly(size),
                _ => Bounds::new(0, max_dimension),
            });
            dims.collect()
        });
        Self::new(tensor.elem_type, shape)
    }

    /// Facts about a tensor stored in the file.
    pub(crate) fn of_tensor(tensor: &onnx::TensorProto) -> Self {
        let shape: Vec<_> = tensor.dims.iter().map(|size| Bounds::exactly(*size)).collect();
        let integers = stored_integers(tensor).map(|values| match shape.len() {
            0 | 1 => Integers::each(values.into_iter().map(Bounds::exactly).collect()),
            _ => Integers {
                each: None,
                ..Integers::each(values.into_iter().map(Bounds::exactly).collect())
            },
        });
        Self {
            datatype: tensor.data_type,
            shape: Some(shape),
            integers,
            constant: true,
            loose: false,
            floats: Floats::of_tensor(tensor),
            single: single_float(tensor),
        }
    }
}

/// Bounds of the number of elements of a tensor with the given shape.
pub(crate) fn count(shape: &[Bounds]) -> Bounds {
    shape
        .iter()
        .fold(Bounds::exactly(1), |count, dim| count.multiply(*dim))
        .as_size()
}

/// Bounds of values from outside the graph, in the runtime's representation.
pub(crate) fn datatype_bounds(datatype: DataType) -> Bounds {
    match datatype {
        DataType::BOOL => Bounds::new(0, 1),
        DataType::UINT8 => Bounds::new(0, 255),
        DataType::INT8 => Bounds::new(-128, 127),
        DataType::INT32 => Bounds::I32,
        _ => Bounds::new(i64::MIN, i64::MAX),
    }
}

/// The element of a stored tensor that consists of one float, as FP32.
fn single_float(tensor: &onnx::TensorProto) -> Option<f32> {
    if !tensor.external_data.is_empty() || tensor.dims.iter().any(|size| *size != 1) {
        return None;
    }
    let raw = tensor.raw_data.as_ref().map(|raw| raw.borrow());
    match (tensor.data_type?, raw.as_deref().filter(|raw| !raw.is_empty())) {
        (DataType::FLOAT, Some(raw)) => Some(f32::from_le_bytes(raw.as_slice().try_into().ok()?)),
        (DataType::FLOAT, None) => tensor.float_data.first().copied(),
        (DataType::FLOAT16, Some(raw)) => Some(f16::from_le_bytes(raw.as_slice().try_into().ok()?).to_f32()),
        (DataType::FLOAT16, None) => tensor
            .int32_data
            .first()
            .map(|bits| f16::from_bits(*bits as u16).to_f32()),
        (DataType::DOUBLE, Some(raw)) => Some(f64::from_le_bytes(raw.as_slice().try_into().ok()?) as f32),
        (DataType::DOUBLE, None) => tensor.double_data.first().map(|value| *value as f32),
        _ => None,
    }
}

/// Integers of a tensor stored in the file; `None` if its elements are not integers or its data is in an external file.
fn stored_integers(tensor: &onnx::TensorProto) -> Option<Vec<i64>> {
    if !tensor.external_data.is_empty() {
        return None;
    }
    let raw = tensor.raw_data.as_ref().map(|raw| raw.borrow());
    let raw = raw.as_ref().filter(|raw| !raw.is_empty());
    let typed = || tensor.int32_data.iter().map(|value| i64::from(*value)).collect();
    Some(match (tensor.data_type?, raw) {
        (DataType::INT64, Some(raw)) => raw
            .as_chunks::<8>()
            .0
            .iter()
            .map(|bytes| i64::from_le_bytes(*bytes))
            .collect(),
        (DataType::INT64, None) => tensor.int64_data.clone(),
        (DataType::INT32, Some(raw)) => raw
            .as_chunks::<4>()
            .0
            .iter()
            .map(|bytes| i64::from(i32::from_le_bytes(*bytes)))
            .collect(),
        (DataType::UINT8 | DataType::BOOL, Some(raw)) => raw.iter().map(|byte| i64::from(*byte)).collect(),
        (DataType::INT8, Some(raw)) => raw
            .iter()
            .map(|byte| i64::from(i8::from_le_bytes([*byte])))
            .collect(),
        (DataType::INT32 | DataType::UINT8 | DataType::INT8 | DataType::BOOL, None) => typed(),
        _ => return None,
    })
}
