//! Borrowed tensors of requests, owned tensors of replies, and the declarations of both.

use std::borrow::Cow;

use abi_stable::std_types::{RSlice, RStr};
use plugin_abi::RawTensor;
use plugin_abi::manifest::TensorManifest;

use plugin_abi::DType;

use crate::element::{Element, Elements};
use crate::error::ItemError;

#[cfg(not(target_endian = "little"))]
compile_error!(
    "big-endian targets are not supported: tensors cross the plugin boundary as little-endian bytes"
);

/// One tensor of a request, borrowed for the duration of the call. The length of its data matches its shape.
#[derive(Clone, Copy, Debug)]
pub struct TensorView<'a> {
    name: &'a str,
    dtype: DType,
    shape: &'a [u64],
    data: &'a [u8],
}

impl<'a> TensorView<'a> {
    pub(crate) fn new(raw: &RawTensor<'a>) -> Result<Self, ItemError> {
        let (name, shape, data) = (raw.name.as_str(), raw.shape.as_slice(), raw.data.as_slice());
        let dtype = DType::from_code(raw.dtype).ok_or_else(|| {
            ItemError::invalid(format_args!(
                "tensor `{name}`: unknown datatype code {}",
                raw.dtype
            ))
        })?;
        check(dtype, shape, data)
            .map_err(|problem| ItemError::invalid(format_args!("tensor `{name}`: {problem}")))?;
        Ok(Self {
            name,
            dtype,
            shape,
            data,
        })
    }

    /// Returns the name of the input.
    pub fn name(&self) -> &'a str {
        self.name
    }

    /// Returns the datatype.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Returns the dimensions of the item, without a batch dimension.
    pub fn shape(&self) -> &'a [u64] {
        self.shape
    }

    /// Returns the elements as bytes: little-endian, row-major and dense.
    pub fn data(&self) -> &'a [u8] {
        self.data
    }

    /// Returns the elements as numbers. They are copied only if the bytes are not aligned for `T`.
    ///
    /// # Errors
    /// The tensor has a different datatype.
    pub fn values<T: Element>(&self) -> Result<Cow<'a, [T]>, ItemError> {
        if self.dtype != T::DTYPE {
            return Err(self.mismatch(T::DTYPE));
        }
        Ok(match bytemuck::try_cast_slice(self.data) {
            Ok(values) => Cow::Borrowed(values),
            Err(_) => Cow::Owned(
                self.data
                    .chunks_exact(size_of::<T>())
                    .map(bytemuck::pod_read_unaligned)
                    .collect(),
            ),
        })
    }

    /// Returns the elements of a tensor of byte strings.
    ///
    /// # Errors
    /// The tensor has a different datatype.
    pub fn byte_strings(&self) -> Result<Vec<&'a [u8]>, ItemError> {
        if self.dtype != DType::Bytes {
            return Err(self.mismatch(DType::Bytes));
        }
        Ok(byte_strings(self.data).flatten().collect())
    }

    fn mismatch(&self, expected: DType) -> ItemError {
        let (name, got, expected) = (self.name, self.dtype.name(), expected.name());
        ItemError::invalid(format_args!(
            "tensor `{name}`: datatype is {got}, expected {expected}"
        ))
    }
}

/// The named tensors of one item, borrowed for the duration of the call.
#[derive(Clone, Debug)]
pub struct TensorsView<'a> {
    tensors: Vec<TensorView<'a>>,
}

impl<'a> TensorsView<'a> {
    pub(crate) fn new(raw: &[RawTensor<'a>]) -> Result<Self, ItemError> {
        Ok(Self {
            tensors: raw.iter().map(TensorView::new).collect::<Result<_, _>>()?,
        })
    }

    /// Returns the tensor with this name.
    ///
    /// # Errors
    /// There is no such tensor.
    pub fn get(&self, name: &str) -> Result<TensorView<'a>, ItemError> {
        self.iter().find(|tensor| tensor.name == name).ok_or_else(|| {
            let names: Vec<_> = self.iter().map(|tensor| tensor.name).collect();
            ItemError::invalid(format_args!(
                "no tensor `{name}` among the inputs ({})",
                names.join(", ")
            ))
        })
    }

    pub(crate) fn into_vec(self) -> Vec<TensorView<'a>> {
        self.tensors
    }

    /// Returns all tensors, in the order of the request.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = TensorView<'a>> + '_ {
        self.tensors.iter().copied()
    }
}

/// One tensor of a reply.
///
/// Its shape is that of one item, except in [`Outputs::batch`](crate::Outputs::batch), where the first dimension is the batch.
/// If the number of values does not match the shape, the item fails when the output is sent.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorOutput {
    name: Cow<'static, str>,
    dtype: DType,
    shape: Vec<u64>,
    elements: Elements,
}

impl TensorOutput {
    /// Creates a tensor of numbers in row-major order.
    pub fn new<T: Element>(name: impl Into<Cow<'static, str>>, shape: &[usize], values: Vec<T>) -> Self {
        Self {
            name: name.into(),
            dtype: T::DTYPE,
            shape: widen(shape),
            elements: T::hold(values),
        }
    }

    /// Creates a tensor of any datatype from little-endian bytes in row-major order.
    pub fn from_bytes(
        name: impl Into<Cow<'static, str>>,
        dtype: DType,
        shape: &[usize],
        data: Vec<u8>,
    ) -> Self {
        Self {
            name: name.into(),
            dtype,
            shape: widen(shape),
            elements: Elements::U8(data),
        }
    }

    /// Creates a tensor of byte strings, such as labels.
    pub fn byte_strings<S: AsRef<[u8]>>(
        name: impl Into<Cow<'static, str>>,
        shape: &[usize],
        values: impl IntoIterator<Item = S>,
    ) -> Self {
        let mut data = Vec::new();
        for value in values {
            let value = value.as_ref();
            // The length of a string of 4 GiB or more is truncated, which `check` detects when the output is sent.
            data.extend_from_slice(&(value.len() as u32).to_le_bytes());
            data.extend_from_slice(value);
        }
        Self::from_bytes(name, DType::Bytes, shape, data)
    }

    /// Returns the name of the output.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn shape(&self) -> &[u64] {
        &self.shape
    }

    pub(crate) fn dtype(&self) -> DType {
        self.dtype
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.elements.bytes()
    }

    pub(crate) fn check(&self) -> Result<(), String> {
        check(self.dtype, &self.shape, self.bytes())
            .map_err(|problem| format!("tensor `{}`: {problem}", self.name))
    }

    pub(crate) fn raw(&self) -> RawTensor<'_> {
        raw(&self.name, self.dtype, &self.shape, self.bytes())
    }

    /// Returns the range of each row (index of the first dimension) in [`bytes`](Self::bytes). Call [`check`](Self::check)
    /// first.
    pub(crate) fn rows(&self) -> Vec<std::ops::Range<usize>> {
        let count = self.shape.first().map_or(0, |rows| *rows as usize);
        let per_row = self.shape.iter().skip(1).product::<u64>() as usize;
        let mut start = 0;
        let mut strings = byte_strings(self.bytes());
        (0..count)
            .map(|_| {
                let length = match self.dtype.size() {
                    Some(size) => per_row * size,
                    None => strings
                        .by_ref()
                        .take(per_row)
                        .flatten()
                        .map(|string| string.len() + 4)
                        .sum(),
                };
                let row = start..start + length;
                start = row.end;
                row
            })
            .collect()
    }
}

pub(crate) fn raw<'a>(name: &'a str, dtype: DType, shape: &'a [u64], data: &'a [u8]) -> RawTensor<'a> {
    RawTensor {
        name: RStr::from(name),
        dtype: dtype.code(),
        reserved: 0,
        shape: RSlice::from(shape),
        data: RSlice::from(data),
    }
}

/// Declaration of a tensor of a task.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorInfo(pub(crate) TensorManifest);

impl TensorInfo {
    /// Declares a tensor with the dimensions of one item; -1 stands for any size. In an unbatched task, these are the
    /// dimensions of the whole tensor; a scalar has none.
    pub fn new(name: impl Into<String>, dtype: DType, shape: &[i64]) -> Self {
        Self(TensorManifest::new(name, dtype.name(), shape))
    }

    /// Adds a description for the documentation pages.
    #[must_use]
    pub fn description(mut self, description: impl Into<String>) -> Self {
        self.0.description = description.into();
        self
    }

    /// Declares a tensor with any number of dimensions.
    pub fn unranked(name: impl Into<String>, dtype: DType) -> Self {
        Self(TensorManifest {
            unranked: true,
            ..TensorManifest::new(name, dtype.name(), [])
        })
    }

    /// Declares a sequence: any number of tensors of this datatype and shape, named `name.0`, `name.1` and so on. Only for
    /// tasks with [`TaskInfo::unbatched`](crate::TaskInfo::unbatched).
    #[must_use]
    pub fn sequence(mut self) -> Self {
        self.0.sequence = true;
        self
    }
}

fn widen(shape: &[usize]) -> Vec<u64> {
    shape.iter().map(|dimension| *dimension as u64).collect()
}

fn check(dtype: DType, shape: &[u64], data: &[u8]) -> Result<(), String> {
    let count = shape
        .iter()
        .try_fold(1_u64, |product, dimension| product.checked_mul(*dimension));
    let count = count.ok_or_else(|| format!("the number of elements of shape {shape:?} overflows"))?;
    match dtype.size() {
        Some(size) => match count.checked_mul(size as u64) {
            Some(bytes) if bytes == data.len() as u64 => Ok(()),
            _ => {
                let (got, dtype) = (data.len(), dtype.name());
                Err(format!(
                    "got {got} bytes of data, expected {count} elements of {dtype} for shape {shape:?}"
                ))
            }
        },
        None => {
            let mut found = 0;
            for string in byte_strings(data) {
                string.ok_or("data ends within a byte string")?;
                found += 1;
            }
            match found == count {
                true => Ok(()),
                false => Err(format!(
                    "got {found} byte strings, expected {count} for shape {shape:?}"
                )),
            }
        }
    }
}

/// Iterates over the byte strings in `data`. Ends with `None` if the last one is incomplete.
fn byte_strings(data: &[u8]) -> impl Iterator<Item = Option<&[u8]>> {
    let mut rest = Some(data);
    std::iter::from_fn(move || {
        let data = rest.take().filter(|data| !data.is_empty())?;
        let string = data.split_first_chunk::<4>().and_then(|(length, tail)| {
            let (string, tail) = tail.split_at_checked(u32::from_le_bytes(*length) as usize)?;
            rest = Some(tail);
            Some(string)
        });
        Some(string)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_that_does_not_match_its_shape_is_rejected_with_both_sizes() {
        let short = TensorOutput::new("embedding", &[2, 2], vec![1.0_f32; 3]);
        let problem = short.check().expect_err("three values for four elements");
        assert_eq!(
            problem,
            "tensor `embedding`: got 12 bytes of data, expected 4 elements of FP32 for shape [2, 2]"
        );
        let huge = TensorOutput::new("x", &[usize::MAX, 2], vec![0_u8]);
        assert!(huge.check().is_err());
        let cut = TensorOutput::from_bytes("x", DType::Bytes, &[1], vec![5, 0, 0, 0, b'a']);
        assert_eq!(
            cut.check(),
            Err("tensor `x`: data ends within a byte string".to_owned())
        );
    }

    #[test]
    fn rows_of_numbers_and_byte_strings_are_located() {
        let numbers = TensorOutput::new("x", &[2, 3], vec![0_u16; 6]);
        assert_eq!(numbers.rows(), [0..6, 6..12]);
        let strings = TensorOutput::byte_strings("x", &[2, 1], ["a", "bcd"]);
        assert_eq!((strings.check(), strings.rows()), (Ok(()), vec![0..5, 5..12]));
    }

    #[test]
    fn values_can_be_read_from_unaligned_bytes() {
        let mut bytes = vec![0_u8];
        bytes.extend(1.5_f32.to_le_bytes());
        bytes.extend(2.5_f32.to_le_bytes());
        for start in 0..2 {
            let data = [&vec![0_u8; start][..], &bytes[1..]].concat();
            let raw = raw("x", DType::Fp32, &[2], &data[start..]);
            let view = TensorView::new(&raw).expect("two floats");
            assert_eq!(*view.values::<f32>().expect("floats"), [1.5, 2.5]);
            assert_eq!(
                view.values::<i64>().expect_err("not integers").message(),
                "tensor `x`: datatype is FP32, expected INT64"
            );
        }
    }
}
