//! Converts values between clients and runtimes, in both directions. A runtime may hold a datatype of the file in another type:
//! the embedded runtime computes with 32-bit types only. This module does not know about tasks or about specific runtimes.

use std::borrow::Cow;
use std::ops::Range;

use half::{bf16, f16};
use plugin_sdk::{DType, ItemError, TensorOutput, TensorView};

use crate::padding::Piece;

/// The datatype that clients see for a datatype of the file; `None` if it cannot be served.
///
/// Floats of 16 bits or fewer are served as FP32, and integers of fewer than 8 bits as 8-bit integers, so that clients do not
/// need to support these types.
pub(crate) fn dtype(declared: rten_onnx::onnx::DataType) -> Option<DType> {
    use rten_onnx::onnx::DataType as Declared;
    Some(match declared {
        Declared::FLOAT | Declared::FLOAT16 | Declared::BFLOAT16 => DType::Fp32,
        Declared::DOUBLE => DType::Fp64,
        Declared::INT64 => DType::Int64,
        Declared::INT32 => DType::Int32,
        Declared::INT16 => DType::Int16,
        Declared::INT8 => DType::Int8,
        Declared::UINT64 => DType::Uint64,
        Declared::UINT32 => DType::Uint32,
        Declared::UINT16 => DType::Uint16,
        Declared::UINT8 => DType::Uint8,
        Declared::BOOL => DType::Bool,
        Declared::STRING => DType::Bytes,
        // FLOAT8E4M3FN, FLOAT8E4M3FNUZ, FLOAT8E5M2, FLOAT8E5M2FNUZ, FLOAT4E2M1, FLOAT8E8M0
        Declared(17..=20 | 23 | 24) => DType::Fp32,
        // UINT4 and UINT2, INT4 and INT2
        Declared(21 | 25) => DType::Uint8,
        Declared(22 | 26) => DType::Int8,
        _ => return None,
    })
}

/// Defines the types in which runtimes hold elements.
macro_rules! held {
    ($($variant:ident($element:ty);)*) => {
        /// A type in which a runtime holds elements.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum ElementType {
            $($variant,)*
        }

        /// The elements of a tensor, of one item or of a batch, as a runtime holds them.
        #[derive(Clone, Debug, PartialEq)]
        pub(crate) enum Values {
            $($variant(Vec<$element>),)*
        }

        impl Values {
            /// Number of elements.
            pub(crate) fn len(&self) -> usize {
                match self {
                    $(Self::$variant(values) => values.len(),)*
                }
            }

            pub(crate) fn element_type(&self) -> ElementType {
                match self {
                    $(Self::$variant(_) => ElementType::$variant,)*
                }
            }

            /// A copy of the elements in `range`, which must be in bounds.
            pub(crate) fn slice(&self, range: Range<usize>) -> Self {
                match self {
                    $(Self::$variant(values) => Self::$variant(values[range].to_vec()),)*
                }
            }

            /// The elements in `ranges`, which must be in bounds, one range after the other.
            pub(crate) fn picked(&self, ranges: &[Range<usize>]) -> Self {
                match self {
                    $(Self::$variant(values) => {
                        let picked = ranges.iter().flat_map(|range| &values[range.clone()]);
                        Self::$variant(picked.cloned().collect())
                    })*
                }
            }

            /// Pieces of the elements, and repetitions of `fill`, a single element of the same type.
            pub(crate) fn padded(&self, pieces: &[Piece], fill: &Self) -> Self {
                match (self, fill) {
                    $((Self::$variant(values), Self::$variant(fill)) => {
                        let mut padded = Vec::new();
                        for piece in pieces {
                            match piece {
                                Piece::Copy(range) => padded.extend_from_slice(&values[range.clone()]),
                                Piece::Fill(count) => {
                                    padded.extend(fill.iter().cycle().take(*count).cloned());
                                }
                            }
                        }
                        Self::$variant(padded)
                    })*
                    _ => self.clone(),
                }
            }

            /// The same elements in reverse order.
            pub(crate) fn reversed(&self) -> Self {
                match self {
                    $(Self::$variant(values) => Self::$variant(values.iter().rev().cloned().collect()),)*
                }
            }

            /// Appends the elements of `item`, which must have the same type.
            fn append(&mut self, item: &Self) {
                match (self, item) {
                    $((Self::$variant(all), Self::$variant(item)) => all.extend_from_slice(item),)*
                    _ => {}
                }
            }
        }
    };
}

held! {
    F64(f64);
    F32(f32);
    F16(f16);
    Bf16(bf16);
    I64(i64);
    I32(i32);
    I16(i16);
    I8(i8);
    U64(u64);
    U32(u32);
    U16(u16);
    U8(u8);
    Bool(bool);
    Text(String);
}

impl Values {
    /// All elements as 64-bit floats; `None` for strings. Large integers lose precision.
    pub(crate) fn as_numbers(&self) -> Option<Vec<f64>> {
        Some(match self {
            Self::F64(values) => values.clone(),
            Self::F32(values) => values.iter().map(|value| f64::from(*value)).collect(),
            Self::F16(values) => values.iter().map(|value| value.to_f64()).collect(),
            Self::Bf16(values) => values.iter().map(|value| value.to_f64()).collect(),
            Self::I64(values) => values.iter().map(|value| *value as f64).collect(),
            Self::I32(values) => values.iter().map(|value| f64::from(*value)).collect(),
            Self::I16(values) => values.iter().map(|value| f64::from(*value)).collect(),
            Self::I8(values) => values.iter().map(|value| f64::from(*value)).collect(),
            Self::U64(values) => values.iter().map(|value| *value as f64).collect(),
            Self::U32(values) => values.iter().map(|value| f64::from(*value)).collect(),
            Self::U16(values) => values.iter().map(|value| f64::from(*value)).collect(),
            Self::U8(values) => values.iter().map(|value| f64::from(*value)).collect(),
            Self::Bool(values) => values.iter().map(|value| f64::from(u8::from(*value))).collect(),
            Self::Text(_) => return None,
        })
    }

    /// Reads a client's tensor, which must have the declared datatype. Integers that exceed 32 bits remain 64-bit integers, even
    /// if the runtime holds 32-bit integers, so that the runtime can reject them.
    pub(crate) fn read(
        tensor: &TensorView<'_>,
        declared: DType,
        held: ElementType,
    ) -> Result<Self, ItemError> {
        if tensor.dtype() != declared {
            return Err(ItemError::invalid(format_args!(
                "tensor `{}`: datatype is {}, expected {}",
                tensor.name(),
                tensor.dtype().name(),
                declared.name()
            )));
        }
        Ok(match (held, declared) {
            (ElementType::F32, DType::Fp64) => Self::F32(
                tensor
                    .values::<f64>()?
                    .iter()
                    .map(|value| *value as f32)
                    .collect(),
            ),
            (ElementType::I32, DType::Int64) => {
                let values = tensor.values::<i64>()?;
                match narrow(&values) {
                    Some(narrow) => Self::I32(narrow),
                    None => Self::I64(values.into_owned()),
                }
            }
            (ElementType::I32, DType::Bool) => Self::I32(flags(tensor).map(i32::from).collect()),
            (ElementType::F64, _) => Self::F64(tensor.values()?.into_owned()),
            (ElementType::F32, _) => Self::F32(tensor.values()?.into_owned()),
            (ElementType::F16, _) => Self::F16(
                tensor
                    .values::<f32>()?
                    .iter()
                    .map(|value| f16::from_f32(*value))
                    .collect(),
            ),
            (ElementType::Bf16, _) => Self::Bf16(
                tensor
                    .values::<f32>()?
                    .iter()
                    .map(|value| bf16::from_f32(*value))
                    .collect(),
            ),
            (ElementType::I64, _) => Self::I64(tensor.values()?.into_owned()),
            (ElementType::I32, _) => Self::I32(tensor.values()?.into_owned()),
            (ElementType::I16, _) => Self::I16(tensor.values()?.into_owned()),
            (ElementType::I8, _) => Self::I8(tensor.values()?.into_owned()),
            (ElementType::U64, _) => Self::U64(tensor.values()?.into_owned()),
            (ElementType::U32, _) => Self::U32(tensor.values()?.into_owned()),
            (ElementType::U16, _) => Self::U16(tensor.values()?.into_owned()),
            (ElementType::U8, _) => Self::U8(tensor.values()?.into_owned()),
            (ElementType::Bool, _) => Self::Bool(flags(tensor).collect()),
            (ElementType::Text, _) => Self::Text(texts(tensor)?),
        })
    }

    /// Converts pixel values, rounded if the type is an integer.
    pub(crate) fn from_pixels(pixels: Vec<f32>, held: ElementType) -> Self {
        let rounded = || pixels.iter().map(|value| value.round());
        match held {
            ElementType::F64 => Self::F64(pixels.into_iter().map(f64::from).collect()),
            ElementType::F32 => Self::F32(pixels),
            ElementType::F16 => Self::F16(pixels.into_iter().map(f16::from_f32).collect()),
            ElementType::Bf16 => Self::Bf16(pixels.into_iter().map(bf16::from_f32).collect()),
            ElementType::I64 => Self::I64(rounded().map(|value| value as i64).collect()),
            ElementType::I32 => Self::I32(rounded().map(|value| value as i32).collect()),
            ElementType::I16 => Self::I16(rounded().map(|value| value as i16).collect()),
            ElementType::I8 => Self::I8(rounded().map(|value| value as i8).collect()),
            ElementType::U64 => Self::U64(rounded().map(|value| value as u64).collect()),
            ElementType::U32 => Self::U32(rounded().map(|value| value as u32).collect()),
            ElementType::U16 => Self::U16(rounded().map(|value| value as u16).collect()),
            ElementType::U8 => Self::U8(rounded().map(|value| value as u8).collect()),
            ElementType::Bool => Self::Bool(rounded().map(|value| value != 0.0).collect()),
            // Planning the task has already rejected string inputs.
            ElementType::Text => Self::Text(rounded().map(|value| value.to_string()).collect()),
        }
    }

    /// Converts integers, which the type must be able to represent.
    pub(crate) fn from_integers(integers: &[u32], held: ElementType) -> Self {
        let integers = integers.iter().copied();
        match held {
            ElementType::F64 => Self::F64(integers.map(f64::from).collect()),
            ElementType::I64 => Self::I64(integers.map(i64::from).collect()),
            ElementType::I32 => Self::I32(integers.map(|value| value as i32).collect()),
            ElementType::U64 => Self::U64(integers.map(u64::from).collect()),
            ElementType::U32 => Self::U32(integers.collect()),
            // Exact up to 2^24, the limit of `f32`.
            _ => Self::from_pixels(integers.map(|value| value as f32).collect(), held),
        }
    }

    /// Concatenates the values of items of the same type. Borrows them if there is only one item.
    pub(crate) fn concat(items: Vec<Cow<'_, Self>>) -> Cow<'_, Self> {
        let mut items = items.into_iter();
        let Some(first) = items.next() else {
            return Cow::Owned(Self::F32(Vec::new()));
        };
        items.fold(first, |mut all, item| {
            all.to_mut().append(&item);
            all
        })
    }

    /// The same values in the type in which another runtime holds them; `None` if the conversion is not supported.
    pub(crate) fn held_as(&self, held: ElementType) -> Option<Cow<'_, Self>> {
        Some(Cow::Owned(match (self, held) {
            (values, held) if values.element_type() == held => return Some(Cow::Borrowed(self)),
            (Self::I32(values), ElementType::I64) => {
                Self::I64(values.iter().map(|value| i64::from(*value)).collect())
            }
            (Self::I32(values), ElementType::Bool) => {
                Self::Bool(values.iter().map(|value| *value != 0).collect())
            }
            (Self::F32(values), ElementType::F16) => {
                Self::F16(values.iter().map(|value| f16::from_f32(*value)).collect())
            }
            _ => return None,
        }))
    }

    /// Floats of any width as 32-bit floats; `None` for other types.
    pub(crate) fn into_floats(self) -> Option<Vec<f32>> {
        Some(match self {
            Self::F64(values) => values.into_iter().map(|value| value as f32).collect(),
            Self::F32(values) => values,
            Self::F16(values) => values.into_iter().map(f16::to_f32).collect(),
            Self::Bf16(values) => values.into_iter().map(bf16::to_f32).collect(),
            _ => return None,
        })
    }

    /// Numbers of any type as 32-bit floats; `None` for strings.
    pub(crate) fn into_numbers(self) -> Option<Vec<f32>> {
        Some(match self {
            Self::I64(values) => values.into_iter().map(|value| value as f32).collect(),
            Self::I32(values) => values.into_iter().map(|value| value as f32).collect(),
            Self::I16(values) => values.into_iter().map(f32::from).collect(),
            Self::I8(values) => values.into_iter().map(f32::from).collect(),
            Self::U64(values) => values.into_iter().map(|value| value as f32).collect(),
            Self::U32(values) => values.into_iter().map(|value| value as f32).collect(),
            Self::U16(values) => values.into_iter().map(f32::from).collect(),
            Self::U8(values) => values.into_iter().map(f32::from).collect(),
            Self::Bool(values) => values
                .into_iter()
                .map(|value| f32::from(u8::from(value)))
                .collect(),
            other => return other.into_floats(),
        })
    }

    /// Integers, booleans and strings as text; `None` for floats.
    pub(crate) fn into_texts(self) -> Option<Vec<String>> {
        fn all<T: ToString>(values: &[T]) -> Vec<String> {
            values.iter().map(T::to_string).collect()
        }
        Some(match self {
            Self::I64(values) => all(&values),
            Self::I32(values) => all(&values),
            Self::I16(values) => all(&values),
            Self::I8(values) => all(&values),
            Self::U64(values) => all(&values),
            Self::U32(values) => all(&values),
            Self::U16(values) => all(&values),
            Self::U8(values) => all(&values),
            Self::Bool(values) => all(&values),
            Self::Text(values) => values,
            Self::F64(_) | Self::F32(_) | Self::F16(_) | Self::Bf16(_) => return None,
        })
    }

    /// Builds the tensor to return for an output, converted back to the declared datatype.
    pub(crate) fn answer(self, name: String, declared: DType, shape: &[usize]) -> TensorOutput {
        match (self, declared) {
            (Self::F32(values), DType::Fp64) => {
                let values: Vec<_> = values.into_iter().map(f64::from).collect();
                TensorOutput::new(name, shape, values)
            }
            (Self::I32(values), DType::Int64) => {
                let values: Vec<_> = values.into_iter().map(i64::from).collect();
                TensorOutput::new(name, shape, values)
            }
            (Self::I32(values), DType::Bool) => {
                flag_tensor(name, shape, values.into_iter().map(|value| value != 0))
            }
            (Self::F64(values), _) => TensorOutput::new(name, shape, values),
            (Self::F32(values), _) => TensorOutput::new(name, shape, values),
            (Self::F16(values), _) => {
                let values: Vec<_> = values.into_iter().map(f16::to_f32).collect();
                TensorOutput::new(name, shape, values)
            }
            (Self::Bf16(values), _) => {
                let values: Vec<_> = values.into_iter().map(bf16::to_f32).collect();
                TensorOutput::new(name, shape, values)
            }
            (Self::I64(values), _) => TensorOutput::new(name, shape, values),
            (Self::I32(values), _) => TensorOutput::new(name, shape, values),
            (Self::I16(values), _) => TensorOutput::new(name, shape, values),
            (Self::I8(values), _) => TensorOutput::new(name, shape, values),
            (Self::U64(values), _) => TensorOutput::new(name, shape, values),
            (Self::U32(values), _) => TensorOutput::new(name, shape, values),
            (Self::U16(values), _) => TensorOutput::new(name, shape, values),
            (Self::U8(values), _) => TensorOutput::new(name, shape, values),
            (Self::Bool(values), _) => flag_tensor(name, shape, values),
            (Self::Text(values), _) => TensorOutput::byte_strings(name, shape, values),
        }
    }
}

fn flags<'a>(tensor: &TensorView<'a>) -> impl Iterator<Item = bool> + use<'a> {
    tensor.data().iter().map(|byte| *byte != 0)
}

fn flag_tensor(name: String, shape: &[usize], flags: impl IntoIterator<Item = bool>) -> TensorOutput {
    let bytes = flags.into_iter().map(u8::from).collect();
    TensorOutput::from_bytes(name, DType::Bool, shape, bytes)
}

fn texts(tensor: &TensorView<'_>) -> Result<Vec<String>, ItemError> {
    let text = |(index, bytes): (usize, &[u8])| {
        String::from_utf8(bytes.to_vec()).map_err(|_| {
            let name = tensor.name();
            ItemError::invalid(format_args!(
                "tensor `{name}`: the string at index {index} is not UTF-8"
            ))
        })
    };
    tensor.byte_strings()?.into_iter().enumerate().map(text).collect()
}

/// The integers with 32 bits; `None` if one of them exceeds that.
fn narrow(values: &[i64]) -> Option<Vec<i32>> {
    values.iter().map(|value| i32::try_from(*value).ok()).collect()
}
