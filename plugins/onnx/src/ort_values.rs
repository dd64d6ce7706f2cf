//! Converts input tensors to ONNX Runtime values, and ONNX Runtime outputs to computed tensors.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::hash::Hash;
use std::ops::RangeInclusive;
use std::sync::{Mutex, PoisonError};

use half::{bf16, f16};
use ort::environment::Environment;
use ort::session::{Session, SessionInputValue};
use ort::value::{DynValue, DynValueTypeMarker, Sequence, Tensor, TensorElementType, TensorRef, ValueType};
use rten_onnx::onnx::DataType;

use crate::interface::Type;
use crate::network::{MapPart, TensorSpec};
use crate::runtime::{Computed, Given};
use crate::values::Values;

/// Evaluates one expression for numeric elements of any type, and another one for strings.
macro_rules! each_number {
    ($values:expr, $number:ident => $view:expr, $text:ident => $strings:expr) => {
        match $values {
            Values::F64($number) => $view,
            Values::F32($number) => $view,
            Values::F16($number) => $view,
            Values::Bf16($number) => $view,
            Values::I64($number) => $view,
            Values::I32($number) => $view,
            Values::I16($number) => $view,
            Values::I8($number) => $view,
            Values::U64($number) => $view,
            Values::U32($number) => $view,
            Values::U16($number) => $view,
            Values::U8($number) => $view,
            Values::Bool($number) => $view,
            Values::Text($text) => $strings,
        }
    };
}

/// Builds the sequence for an input from its tensors. It must outlive the outputs, which may share its tensors: ONNX Runtime
/// does not copy them.
pub(crate) fn sequence(spec: &TensorSpec, given: &[Given<'_>], helpers: &Helpers) -> ort::Result<DynValue> {
    let tensors = tensors(spec, given).map(own).collect::<ort::Result<Vec<_>>>()?;
    match tensors.is_empty() {
        true => helpers.empty_sequence(spec.declared),
        false => Ok(Sequence::new(tensors)?.into_dyn()),
    }
}

/// Builds the tensor for an input whose type cannot be created directly, by casting from a wider type. `None` if the input
/// does not have such a type.
pub(crate) fn narrowed(
    spec: &TensorSpec,
    given: &[Given<'_>],
    helpers: &Helpers,
) -> ort::Result<Option<DynValue>> {
    let Some(narrow) = Narrow::of(spec.declared) else {
        return Ok(None);
    };
    if let Some(problem) = tensors(spec, given).find_map(|given| narrow.problem(given.values)) {
        let name = &spec.file_name;
        return Err(ort::Error::new(format!("input `{name}`: {problem}")));
    }
    helpers
        .cast(narrow.wide, spec.declared, lend(spec, given)?)
        .map(Some)
}

/// A datatype that is narrower than any that clients can send.
struct Narrow {
    /// Datatype that clients send and receive instead.
    wide: DataType,
    /// Range of an integer type.
    range: Option<RangeInclusive<i64>>,
}

impl Narrow {
    /// `None` if `declared` is not such a type.
    fn of(declared: DataType) -> Option<Self> {
        let (wide, range) = match declared.0 {
            // FLOAT8E4M3FN, FLOAT8E4M3FNUZ, FLOAT8E5M2, FLOAT8E5M2FNUZ, FLOAT4E2M1, FLOAT8E8M0
            17..=20 | 23 | 24 => (DataType::FLOAT, None),
            21 => (DataType::UINT8, Some(0..=15)),
            22 => (DataType::INT8, Some(-8..=7)),
            // UINT2 and INT2
            25 => (DataType::UINT8, Some(0..=3)),
            26 => (DataType::INT8, Some(-2..=1)),
            _ => return None,
        };
        Some(Self { wide, range })
    }

    /// Describes the first value that is out of range, if there is one.
    fn problem(&self, values: &Values) -> Option<String> {
        let range = self.range.as_ref()?;
        let outside = |value: i64| !range.contains(&value);
        let value = match values {
            Values::U8(values) => values
                .iter()
                .map(|value| i64::from(*value))
                .find(|value| outside(*value)),
            Values::I8(values) => values
                .iter()
                .map(|value| i64::from(*value))
                .find(|value| outside(*value)),
            _ => None,
        }?;
        let (least, most) = (range.start(), range.end());
        Some(format!("{value} is out of range, expected {least} to {most}"))
    }
}

/// Builds the tensor for an input. It borrows numbers and copies strings.
pub(crate) fn lend<'a>(spec: &TensorSpec, given: &'a [Given<'_>]) -> ort::Result<SessionInputValue<'a>> {
    let only = tensors(spec, given).last().ok_or_else(|| {
        let name = &spec.file_name;
        ort::Error::new(format!("input `{name}` is missing"))
    })?;
    let shape = &only.shape[..];
    Ok(each_number!(
        only.values,
        numbers => TensorRef::from_array_view((shape, &numbers[..]))?.into(),
        texts => Tensor::from_string_array((shape, &texts[..]))?.into()
    ))
}

fn tensors<'a, 'b>(spec: &TensorSpec, given: &'a [Given<'b>]) -> impl Iterator<Item = &'a Given<'b>> {
    let name = spec.file_name.clone();
    given.iter().filter(move |given| given.spec.file_name == name)
}

/// Builds a tensor for a sequence. The sequence must own its tensors, so the elements are copied.
fn own(given: &Given<'_>) -> ort::Result<DynValue> {
    let shape = &given.shape[..];
    Ok(each_number!(
        given.values,
        numbers => Tensor::from_array((shape, numbers.clone()))?.into_dyn(),
        texts => Tensor::from_string_array((shape, &texts[..]))?.into_dyn()
    ))
}

/// Extracts the tensors of an output. `index` is the index of the spec among the outputs of the task.
pub(crate) fn take(
    index: usize,
    spec: &TensorSpec,
    value: &DynValue,
    helpers: &Helpers,
) -> ort::Result<Vec<Computed>> {
    if let Some(part) = spec.map {
        return Ok(vec![Computed {
            output: index,
            position: None,
            ..maps(part, &value.try_extract_sequence()?)?
        }]);
    }
    if !spec.sequence {
        return match Narrow::of(spec.declared) {
            Some(narrow) => {
                let wide = helpers.cast(spec.declared, narrow.wide, value.into())?;
                Ok(vec![tensor(index, None, &wide)?])
            }
            None => Ok(vec![tensor(index, None, value)?]),
        };
    }
    let tensors = value.try_extract_sequence::<DynValueTypeMarker>()?;
    let tensors = tensors.iter().enumerate();
    tensors
        .map(|(position, value)| tensor(index, Some(position), value))
        .collect()
}

/// The type of an output, as a file would declare it.
pub(crate) fn declaration(inferred: &ValueType) -> Type {
    match inferred {
        ValueType::Tensor { ty, .. } => Type::tensor(datatype(*ty)),
        ValueType::Sequence(element) => Type::Sequence(Box::new(declaration(element))),
        ValueType::Map { key, value } => Type::Map(datatype(*key), Box::new(Type::tensor(datatype(*value)))),
        ValueType::Optional(value) => Type::Optional(Box::new(declaration(value))),
    }
}

/// The datatype of elements that [`tensor`] can read; undefined for others.
fn datatype(elements: TensorElementType) -> DataType {
    match elements {
        TensorElementType::Float64 => DataType::DOUBLE,
        TensorElementType::Float32 => DataType::FLOAT,
        TensorElementType::Float16 => DataType::FLOAT16,
        TensorElementType::Bfloat16 => DataType::BFLOAT16,
        TensorElementType::Int64 => DataType::INT64,
        TensorElementType::Int32 => DataType::INT32,
        TensorElementType::Int16 => DataType::INT16,
        TensorElementType::Int8 => DataType::INT8,
        TensorElementType::Uint64 => DataType::UINT64,
        TensorElementType::Uint32 => DataType::UINT32,
        TensorElementType::Uint16 => DataType::UINT16,
        TensorElementType::Uint8 => DataType::UINT8,
        TensorElementType::Bool => DataType::BOOL,
        TensorElementType::String => DataType::STRING,
        _ => DataType(0),
    }
}

fn tensor(output: usize, position: Option<usize>, value: &DynValue) -> ort::Result<Computed> {
    let ValueType::Tensor { ty, shape, .. } = value.dtype() else {
        let kind = value.dtype();
        return Err(ort::Error::new(format!(
            "the model computed a {kind}, expected a tensor"
        )));
    };
    let values = match ty {
        TensorElementType::Float64 => Values::F64(value.try_extract_tensor()?.1.to_vec()),
        TensorElementType::Float32 => Values::F32(value.try_extract_tensor()?.1.to_vec()),
        TensorElementType::Float16 => Values::F16(value.try_extract_tensor::<f16>()?.1.to_vec()),
        TensorElementType::Bfloat16 => Values::Bf16(value.try_extract_tensor::<bf16>()?.1.to_vec()),
        TensorElementType::Int64 => Values::I64(value.try_extract_tensor()?.1.to_vec()),
        TensorElementType::Int32 => Values::I32(value.try_extract_tensor()?.1.to_vec()),
        TensorElementType::Int16 => Values::I16(value.try_extract_tensor()?.1.to_vec()),
        TensorElementType::Int8 => Values::I8(value.try_extract_tensor()?.1.to_vec()),
        TensorElementType::Uint64 => Values::U64(value.try_extract_tensor()?.1.to_vec()),
        TensorElementType::Uint32 => Values::U32(value.try_extract_tensor()?.1.to_vec()),
        TensorElementType::Uint16 => Values::U16(value.try_extract_tensor()?.1.to_vec()),
        TensorElementType::Uint8 => Values::U8(value.try_extract_tensor()?.1.to_vec()),
        TensorElementType::Bool => Values::Bool(value.try_extract_tensor()?.1.to_vec()),
        TensorElementType::String => Values::Text(value.try_extract_strings()?.1),
        other => return Err(ort::Error::new(format!("the model computed {other}"))),
    };
    Ok(Computed {
        output,
        position,
        shape: shape.iter().map(|size| *size as usize).collect(),
        values,
    })
}

/// One part of the maps, with one row per map. Values are in the order of the keys.
fn maps(part: MapPart, maps: &[DynValue]) -> ort::Result<Computed> {
    let Some(ValueType::Map { key, value }) = maps.first().map(DynValue::dtype) else {
        return match maps.is_empty() {
            // There are no rows, so the element type does not matter.
            true => Ok(matrix(0, 0, Values::F32(Vec::new()))),
            false => Err(ort::Error::new(
                "the model computed a sequence, expected one of maps",
            )),
        };
    };
    match (key, value) {
        (TensorElementType::Int64, TensorElementType::Float32) => {
            let (keys, values) = columns::<i64, f32>(maps)?;
            Ok(chosen(part, maps.len(), Values::I64(keys), Values::F32(values)))
        }
        (TensorElementType::String, TensorElementType::Float32) => {
            let (keys, values) = columns::<String, f32>(maps)?;
            Ok(chosen(part, maps.len(), Values::Text(keys), Values::F32(values)))
        }
        (key, value) => Err(ort::Error::new(format!(
            "the model computed maps of {key} to {value}, expected keys of INT64 or STRING and values of FLOAT"
        ))),
    }
}

fn chosen(part: MapPart, rows: usize, keys: Values, values: Values) -> Computed {
    let columns = keys.len() / rows.max(1);
    match part {
        MapPart::Keys => matrix(rows, columns, keys),
        MapPart::Values => matrix(rows, columns, values),
    }
}

fn matrix(rows: usize, columns: usize, values: Values) -> Computed {
    Computed {
        output: 0,
        position: None,
        shape: vec![rows, columns],
        values,
    }
}

/// Keys and values of all maps, which must have the same keys.
fn columns<K, V>(maps: &[DynValue]) -> ort::Result<(Vec<K>, Vec<V>)>
where
    K: ort::value::IntoTensorElementType + Clone + Hash + Ord,
    V: ort::value::PrimitiveTensorElementType + Clone,
{
    let (mut keys, mut values) = (Vec::new(), Vec::new());
    let mut width = None;
    for map in maps {
        let sorted: BTreeMap<K, V> = map.try_extract_key_values()?.into_iter().collect();
        let is_equal = width.is_none_or(|width| {
            width == sorted.len()
                && keys[..width]
                    .iter()
                    .zip(sorted.keys())
                    .all(|(one, other)| one == other)
        });
        if !is_equal {
            return Err(ort::Error::new("the model computed maps with different keys"));
        }
        width = Some(sorted.len());
        for (key, value) in sorted {
            keys.push(key);
            values.push(value);
        }
    }
    Ok((keys, values))
}

/// Sessions of small graphs that create values that the C API of ONNX Runtime cannot create.
pub(crate) struct Helpers {
    environment: Environment,
    /// By source and target datatype. The source is 0 for an empty sequence.
    sessions: Mutex<BTreeMap<(i32, i32), Session>>,
}

impl Helpers {
    pub(crate) fn new(environment: &Environment) -> Self {
        Self {
            environment: environment.clone(),
            sessions: Mutex::default(),
        }
    }

    /// Creates a sequence without tensors.
    fn empty_sequence(&self, datatype: DataType) -> ort::Result<DynValue> {
        let no_inputs: [SessionInputValue<'_>; 0] = [];
        self.run((0, datatype.0), || graphs::empty_sequence(datatype), no_inputs)
    }

    /// Casts a tensor to another datatype.
    fn cast(&self, from: DataType, to: DataType, value: SessionInputValue<'_>) -> ort::Result<DynValue> {
        self.run((from.0, to.0), || graphs::cast(from, to), [value])
    }

    fn run<const N: usize>(
        &self,
        key: (i32, i32),
        graph: impl FnOnce() -> Vec<u8>,
        inputs: [SessionInputValue<'_>; N],
    ) -> ort::Result<DynValue> {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let session = match sessions.entry(key) {
            Entry::Occupied(session) => session.into_mut(),
            Entry::Vacant(vacant) => {
                let mut builder = Session::builder(&self.environment)?.with_intra_threads(1)?;
                vacant.insert(builder.commit_from_memory(&graph())?)
            }
        };
        let mut outputs = session.run(inputs)?;
        let output = outputs.remove(graphs::OUTPUT);
        output.ok_or_else(|| ort::Error::new("a conversion has no output"))
    }
}

/// Encodes small ONNX files. The numbers are the field numbers of `onnx.proto`.
mod graphs {
    use rten_onnx::onnx::DataType;

    pub(super) const OUTPUT: &str = "y";
    const INPUT: &str = "x";

    /// A model whose only node creates an empty sequence of tensors of this type.
    pub(super) fn empty_sequence(datatype: DataType) -> Vec<u8> {
        let node = [
            text(2, OUTPUT),
            text(4, "SequenceEmpty"),
            attribute("dtype", datatype),
        ];
        let sequence = message(4, &message(1, &tensor(datatype)));
        model(&node.concat(), &[], &value(OUTPUT, &sequence), 11)
    }

    /// A model that casts a tensor of any shape.
    pub(super) fn cast(from: DataType, to: DataType) -> Vec<u8> {
        let node = [
            text(1, INPUT),
            text(2, OUTPUT),
            text(4, "Cast"),
            attribute("to", to),
        ];
        // The first opset version in which Cast supports both types.
        let opset = match from.0.max(to.0) {
            25.. => 25,
            24 => 24,
            23 => 23,
            21..=22 => 21,
            _ => 19,
        };
        let input = message(11, &value(INPUT, &tensor(from)));
        model(&node.concat(), &input, &value(OUTPUT, &tensor(to)), opset)
    }

    fn model(node: &[u8], input: &[u8], output: &[u8], opset: u64) -> Vec<u8> {
        let graph = [
            &message(1, node)[..],
            &text(2, "helper"),
            input,
            &message(12, output),
        ];
        // The first IR version that has all of these types.
        let format = match opset {
            25.. => 13,
            24 => 12,
            23 => 11,
            21..=22 => 10,
            19..=20 => 9,
            _ => 7,
        };
        [
            number(1, format),
            message(7, &graph.concat()),
            message(8, &number(2, opset)),
        ]
        .concat()
    }

    fn attribute(name: &str, datatype: DataType) -> Vec<u8> {
        let attribute = [text(1, name), number(3, code(datatype)), number(20, 2)];
        message(5, &attribute.concat())
    }

    fn value(name: &str, kind: &[u8]) -> Vec<u8> {
        [text(1, name), message(2, kind)].concat()
    }

    /// The type of a tensor of any shape.
    fn tensor(datatype: DataType) -> Vec<u8> {
        message(1, &number(1, code(datatype)))
    }

    fn code(datatype: DataType) -> u64 {
        datatype.0.unsigned_abs().into()
    }

    fn number(field: u64, value: u64) -> Vec<u8> {
        [varint(field << 3), varint(value)].concat()
    }

    fn text(field: u64, value: &str) -> Vec<u8> {
        message(field, value.as_bytes())
    }

    fn message(field: u64, content: &[u8]) -> Vec<u8> {
        let length = content.len() as u64;
        [&varint(field << 3 | 2)[..], &varint(length), content].concat()
    }

    fn varint(mut value: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        while value >= 0x80 {
            bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        bytes.push(value as u8);
        bytes
    }
}
