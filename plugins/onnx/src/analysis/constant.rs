//! Values stored in the model: initializers and `Constant` nodes.

use rten_onnx::onnx::{DataLocation, DataType, NodeProto, TensorProto};

use super::node::attribute;
use super::size::{Size, Symbols};
use super::value::Value;

/// Maximum number of elements of a tensor whose values are kept. Shapes, axes and similar tensors have few.
pub(super) const MAX_ELEMENTS: i64 = 256;

/// The value of a tensor in the model.
pub(super) fn tensor(tensor: &TensorProto, symbols: &Symbols) -> Value {
    let dims: Vec<_> = tensor.dims.iter().map(|size| Size::known(*size)).collect();
    let count = Size::product(&dims).and_then(|count| count.value());
    let few = count.is_some_and(|count| (0..=MAX_ELEMENTS).contains(&count));
    let elements = if few { elements(tensor, symbols) } else { None };
    match elements.filter(|elements| Some(elements.len() as i64) == count) {
        Some(elements) => Value::numbers(dims, elements),
        None => Value::constant(Some(dims)),
    }
}

/// The elements of a tensor, if they are stored in the model file itself and have a supported type.
pub(super) fn elements(tensor: &TensorProto, symbols: &Symbols) -> Option<Vec<Size>> {
    let integral = |value: f64| number(value, symbols);
    if tensor.data_location == Some(DataLocation::EXTERNAL) {
        return None;
    }
    let raw = tensor.raw_data.as_ref().map(|raw| raw.borrow());
    let raw = raw.as_deref().filter(|raw| !raw.is_empty());
    match tensor.data_type? {
        DataType::INT64 => Some(match raw {
            Some(raw) => chunks(raw)
                .map(|bytes| Size::known(i64::from_le_bytes(bytes)))
                .collect(),
            None => whole_numbers(&tensor.int64_data),
        }),
        DataType::INT32 => Some(match raw {
            Some(raw) => chunks(raw)
                .map(|bytes| Size::known(i64::from(i32::from_le_bytes(bytes))))
                .collect(),
            None => whole_numbers(&tensor.int32_data),
        }),
        DataType::BOOL | DataType::UINT8 => Some(match raw {
            Some(raw) => whole_numbers(raw),
            None => whole_numbers(&tensor.int32_data),
        }),
        DataType::FLOAT => Some(match raw {
            Some(raw) => chunks(raw)
                .map(|bytes| integral(f64::from(f32::from_le_bytes(bytes))))
                .collect(),
            None => tensor
                .float_data
                .iter()
                .map(|value| integral(f64::from(*value)))
                .collect(),
        }),
        DataType::DOUBLE => Some(match raw {
            Some(raw) => chunks(raw)
                .map(|bytes| integral(f64::from_le_bytes(bytes)))
                .collect(),
            None => tensor.double_data.iter().map(|value| integral(*value)).collect(),
        }),
        _ => None,
    }
}

fn chunks<const N: usize>(raw: &[u8]) -> impl Iterator<Item = [u8; N]> {
    raw.as_chunks::<N>().0.iter().copied()
}

fn whole_numbers<T: Copy + Into<i64>>(values: &[T]) -> Vec<Size> {
    values.iter().map(|value| Size::known((*value).into())).collect()
}

/// A number as a size. Integers are exact (below 9·10¹⁵ in magnitude); any other number becomes a symbol.
pub(super) fn number(value: f64, symbols: &Symbols) -> Size {
    if value.fract() == 0.0 && value.abs() < 9e15 {
        Size::known(value as i64)
    } else {
        symbols.number(&value.to_string(), &[])
    }
}

/// The value of a `Constant` node; `None` if it uses an unsupported attribute.
pub(super) fn node(node: &NodeProto, symbols: &Symbols) -> Option<Value> {
    if let Some(value) = attribute(node, "value") {
        return value.t.as_ref().map(|value| tensor(value, symbols));
    }
    let one = |value| Some(Value::numbers(Vec::new(), vec![value]));
    let list = |values: Vec<Size>| Some(Value::numbers(vec![Size::known(values.len() as i64)], values));
    if let Some(value) = attribute(node, "value_int") {
        return one(Size::known(value.i?));
    }
    if let Some(value) = attribute(node, "value_ints") {
        return list(whole_numbers(&value.ints));
    }
    if let Some(value) = attribute(node, "value_float") {
        return one(number(f64::from(value.f?), symbols));
    }
    if let Some(value) = attribute(node, "value_floats") {
        let number = |value: &f32| number(f64::from(*value), symbols);
        return list(value.floats.iter().map(number).collect());
    }
    None
}
