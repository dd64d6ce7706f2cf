//! Types of tensor elements.

use plugin_abi::codes;

/// Type of a tensor's elements, with the names of the Open Inference Protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DType {
    /// One byte, 0 or 1.
    Bool,
    /// Unsigned 8 bit.
    Uint8,
    /// Unsigned 16 bit.
    Uint16,
    /// Unsigned 32 bit.
    Uint32,
    /// Unsigned 64 bit.
    Uint64,
    /// Signed 8 bit.
    Int8,
    /// Signed 16 bit.
    Int16,
    /// Signed 32 bit.
    Int32,
    /// Signed 64 bit.
    Int64,
    /// IEEE 754 half precision.
    Fp16,
    /// IEEE 754 single precision.
    Fp32,
    /// IEEE 754 double precision.
    Fp64,
    /// The upper half of an FP32.
    Bf16,
    /// Byte strings: each a `u32` length and that many bytes.
    Bytes,
}

/// Code, name and size of every element type.
const DTYPES: [(DType, u32, &str, usize); 14] = [
    (DType::Bool, codes::dtype::BOOL, "BOOL", 1),
    (DType::Uint8, codes::dtype::UINT8, "UINT8", 1),
    (DType::Uint16, codes::dtype::UINT16, "UINT16", 2),
    (DType::Uint32, codes::dtype::UINT32, "UINT32", 4),
    (DType::Uint64, codes::dtype::UINT64, "UINT64", 8),
    (DType::Int8, codes::dtype::INT8, "INT8", 1),
    (DType::Int16, codes::dtype::INT16, "INT16", 2),
    (DType::Int32, codes::dtype::INT32, "INT32", 4),
    (DType::Int64, codes::dtype::INT64, "INT64", 8),
    (DType::Fp16, codes::dtype::FP16, "FP16", 2),
    (DType::Fp32, codes::dtype::FP32, "FP32", 4),
    (DType::Fp64, codes::dtype::FP64, "FP64", 8),
    (DType::Bf16, codes::dtype::BF16, "BF16", 2),
    (DType::Bytes, codes::dtype::BYTES, "BYTES", 0),
];

impl DType {
    /// Name in the Open Inference Protocol: `FP32`, `INT64`, `BYTES`.
    pub fn name(self) -> &'static str {
        DTYPES[self as usize].2
    }

    /// Bytes of one element; none for [`DType::Bytes`], whose elements differ in length.
    pub fn size(self) -> Option<usize> {
        Some(DTYPES[self as usize].3).filter(|size| *size > 0)
    }

    /// The type of that name in the Open Inference Protocol.
    pub fn from_name(name: &str) -> Option<Self> {
        DTYPES.iter().find(|row| row.2 == name).map(|row| row.0)
    }

    pub(crate) fn code(self) -> u32 {
        DTYPES[self as usize].1
    }

    pub(crate) fn from_code(code: u32) -> Option<Self> {
        DTYPES.iter().find(|row| row.1 == code).map(|row| row.0)
    }
}

/// A Rust type that can be an element of a tensor.
pub trait Element: bytemuck::Pod + sealed::Sealed {
    /// The element type that it stands for.
    const DTYPE: DType;

    #[doc(hidden)]
    fn hold(values: Vec<Self>) -> Elements;
}

mod sealed {
    pub trait Sealed {}
}

/// The elements of an owned tensor, in their own type, so that a reply's numbers are never copied into bytes first.
#[derive(Clone, Debug, PartialEq)]
#[doc(hidden)]
#[allow(
    missing_docs,
    reason = "an implementation detail that is only public for the sake of `Element`"
)]
pub enum Elements {
    U8(Vec<u8>),
    U16(Vec<u16>),
    U32(Vec<u32>),
    U64(Vec<u64>),
    I8(Vec<i8>),
    I16(Vec<i16>),
    I32(Vec<i32>),
    I64(Vec<i64>),
    F32(Vec<f32>),
    F64(Vec<f64>),
}

macro_rules! elements {
    ($($rust:ty, $dtype:ident, $variant:ident;)*) => {
        $(
            impl sealed::Sealed for $rust {}
            impl Element for $rust {
                const DTYPE: DType = DType::$dtype;
                fn hold(values: Vec<Self>) -> Elements {
                    Elements::$variant(values)
                }
            }
        )*
        impl Elements {
            pub(crate) fn bytes(&self) -> &[u8] {
                match self {
                    $(Self::$variant(values) => bytemuck::cast_slice(values),)*
                }
            }
        }
    };
}

elements! {
    u8, Uint8, U8;
    u16, Uint16, U16;
    u32, Uint32, U32;
    u64, Uint64, U64;
    i8, Int8, I8;
    i16, Int16, I16;
    i32, Int32, I32;
    i64, Int64, I64;
    f32, Fp32, F32;
    f64, Fp64, F64;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_element_types_is_in_the_order_of_the_enum() {
        for (index, row) in DTYPES.iter().enumerate() {
            assert_eq!(row.0 as usize, index);
            assert_eq!(DType::from_code(row.0.code()), Some(row.0));
            assert_eq!(DType::from_name(row.0.name()), Some(row.0));
        }
    }
}
