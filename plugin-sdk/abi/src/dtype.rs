//! Datatypes of tensors. They cross the boundary as [`codes::dtype`](crate::codes::dtype).

use std::fmt;

use crate::codes::dtype as code;

/// Datatype of a tensor, with the names of the Open Inference Protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DType {
    /// One byte, 0 or 1.
    Bool,
    /// Unsigned 8-bit integer.
    Uint8,
    /// Unsigned 16-bit integer.
    Uint16,
    /// Unsigned 32-bit integer.
    Uint32,
    /// Unsigned 64-bit integer.
    Uint64,
    /// Signed 8-bit integer.
    Int8,
    /// Signed 16-bit integer.
    Int16,
    /// Signed 32-bit integer.
    Int32,
    /// Signed 64-bit integer.
    Int64,
    /// IEEE 754 half precision.
    Fp16,
    /// IEEE 754 single precision.
    Fp32,
    /// IEEE 754 double precision.
    Fp64,
    /// bfloat16: the upper half of an FP32.
    Bf16,
    /// Byte strings. Each is a little-endian `u32` length followed by that many bytes.
    Bytes,
}

/// Code, name and size of every datatype, in the order of the enum.
const ROWS: [(DType, u32, &str, Option<usize>); 14] = [
    (DType::Bool, code::BOOL, "BOOL", Some(1)),
    (DType::Uint8, code::UINT8, "UINT8", Some(1)),
    (DType::Uint16, code::UINT16, "UINT16", Some(2)),
    (DType::Uint32, code::UINT32, "UINT32", Some(4)),
    (DType::Uint64, code::UINT64, "UINT64", Some(8)),
    (DType::Int8, code::INT8, "INT8", Some(1)),
    (DType::Int16, code::INT16, "INT16", Some(2)),
    (DType::Int32, code::INT32, "INT32", Some(4)),
    (DType::Int64, code::INT64, "INT64", Some(8)),
    (DType::Fp16, code::FP16, "FP16", Some(2)),
    (DType::Fp32, code::FP32, "FP32", Some(4)),
    (DType::Fp64, code::FP64, "FP64", Some(8)),
    (DType::Bf16, code::BF16, "BF16", Some(2)),
    (DType::Bytes, code::BYTES, "BYTES", None),
];

impl DType {
    /// Returns all datatypes.
    pub fn all() -> impl Iterator<Item = Self> {
        ROWS.iter().map(|row| row.0)
    }

    /// Returns the name in the Open Inference Protocol, such as `FP32`, `INT64` or `BYTES`.
    pub fn name(self) -> &'static str {
        ROWS[self as usize].2
    }

    /// Returns the size of one element in bytes, or `None` for [`DType::Bytes`], whose elements have variable length.
    pub fn size(self) -> Option<usize> {
        ROWS[self as usize].3
    }

    /// Returns the code that crosses the boundary.
    pub fn code(self) -> u32 {
        ROWS[self as usize].1
    }

    /// Returns the datatype with this name in the Open Inference Protocol.
    pub fn from_name(name: &str) -> Option<Self> {
        ROWS.iter().find(|row| row.2 == name).map(|row| row.0)
    }

    /// Returns the datatype with this code.
    pub fn from_code(code: u32) -> Option<Self> {
        ROWS.iter().find(|row| row.1 == code).map(|row| row.0)
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_datatypes_is_in_the_order_of_the_enum() {
        for (index, dtype) in DType::all().enumerate() {
            assert_eq!(dtype as usize, index);
            assert_eq!(DType::from_code(dtype.code()), Some(dtype));
            assert_eq!(DType::from_name(dtype.name()), Some(dtype));
        }
    }

    #[test]
    fn codes_never_change_and_unknown_codes_have_no_datatype() {
        for (code, dtype) in (1..).zip(DType::all()) {
            assert_eq!(dtype.code(), code);
        }
        assert_eq!(DType::from_code(0), None);
        assert_eq!(DType::from_code(15), None);
    }
}
