//! Inputs, outputs and tensors: the values that travel between clients and models, in no wire format.
//!
//! Every payload is a [`bytes::Bytes`], so that an item can be a slice of the body that it arrived in.

use std::sync::Arc;

use bytes::Bytes;
pub use plugin_abi::DType;

/// One input or output of one item.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// UTF-8 text. The creator of the value has validated it.
    Text(Bytes),
    /// Bytes with their media type, which may be empty.
    Bytes {
        /// The bytes.
        data: Bytes,
        /// Such as `image/png`.
        media_type: String,
    },
    /// One JSON document. The creator of the value has validated it.
    Json(Bytes),
    /// Named tensors.
    Tensors(Vec<Tensor>),
}

/// A dense, row-major, little-endian tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    name: Arc<str>,
    dtype: DType,
    shape: Arc<[u64]>,
    data: Bytes,
}

/// Why bytes and a shape do not make a tensor.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TensorError {
    /// The shape has more elements than fit in memory.
    #[error("tensor `{name}` of shape {shape:?} is too large")]
    TooLarge {
        /// Of the tensor.
        name: Arc<str>,
        /// Of the tensor.
        shape: Arc<[u64]>,
    },
    /// The data is longer or shorter than the shape says.
    #[error("tensor `{name}` of {dtype} {shape:?} takes {expected} bytes, got {got}")]
    Length {
        /// Of the tensor.
        name: Arc<str>,
        /// Of the tensor.
        dtype: DType,
        /// Of the tensor.
        shape: Arc<[u64]>,
        /// Elements times their size.
        expected: u64,
        /// Length of the data.
        got: u64,
    },
    /// The byte strings do not add up to the data.
    #[error(
        "tensor `{name}` of BYTES {shape:?}: expected {expected} length-prefixed elements, the data is cut or too long at element {at}"
    )]
    Elements {
        /// Of the tensor.
        name: Arc<str>,
        /// Of the tensor.
        shape: Arc<[u64]>,
        /// Elements by the shape.
        expected: u64,
        /// The element where it goes wrong.
        at: u64,
    },
}

impl Tensor {
    /// A tensor whose data is as long as its shape and datatype say.
    pub fn new(
        name: impl Into<Arc<str>>,
        dtype: DType,
        shape: impl Into<Arc<[u64]>>,
        data: Bytes,
    ) -> Result<Self, TensorError> {
        let (name, shape) = (name.into(), shape.into());
        let Some(elements) = shape
            .iter()
            .try_fold(1u64, |product, &dim| product.checked_mul(dim))
        else {
            return Err(TensorError::TooLarge { name, shape });
        };
        match dtype.size() {
            Some(size) => {
                let Some(expected) = elements.checked_mul(size as u64) else {
                    return Err(TensorError::TooLarge { name, shape });
                };
                let got = data.len() as u64;
                if got != expected {
                    return Err(TensorError::Length {
                        name,
                        dtype,
                        shape,
                        expected,
                        got,
                    });
                }
            }
            None => {
                if let Err(at) = check_byte_strings(&data, elements) {
                    return Err(TensorError::Elements {
                        name,
                        shape,
                        expected: elements,
                        at,
                    });
                }
            }
        }
        Ok(Self {
            name,
            dtype,
            shape,
            data,
        })
    }

    /// Name of the input or output.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Type of the elements.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Dimensions, without a batch dimension.
    pub fn shape(&self) -> &[u64] {
        &self.shape
    }

    /// The elements, little-endian.
    pub fn data(&self) -> &Bytes {
        &self.data
    }

    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product::<u64>() as usize
    }

    /// The slices along the first dimension, each without it; `None` if that is not `rows` long. Copies no data.
    pub fn into_rows(self, rows: usize) -> Option<Vec<Self>> {
        let (&first, row_shape) = self.shape.split_first()?;
        if first != rows as u64 {
            return None;
        }
        let row_shape: Arc<[u64]> = row_shape.into();
        let row = |data: Bytes| Self {
            name: self.name.clone(),
            dtype: self.dtype,
            shape: row_shape.clone(),
            data,
        };
        let row_elements = row_shape.iter().product::<u64>() as usize;
        let rows = match self.dtype.size() {
            Some(size) => {
                let length = row_elements * size;
                (0..rows)
                    .map(|index| row(self.data.slice(index * length..(index + 1) * length)))
                    .collect()
            }
            None => {
                let mut elements = byte_strings(&self.data);
                let mut start = 0;
                (0..rows)
                    .map(|_| {
                        let length: usize = elements
                            .by_ref()
                            .take(row_elements)
                            .map(|bytes| 4 + bytes.len())
                            .sum();
                        let data = self.data.slice(start..start + length);
                        start += length;
                        row(data)
                    })
                    .collect()
            }
        };
        Some(rows)
    }
}

/// Splits the data of a `BYTES` tensor into its elements. Stops at the first that is cut off.
pub fn byte_strings(data: &Bytes) -> impl Iterator<Item = Bytes> + '_ {
    let mut at = 0;
    std::iter::from_fn(move || {
        let prefix = data.get(at..at + 4)?;
        let length = u32::from_le_bytes(prefix.try_into().ok()?) as usize;
        let start = at + 4;
        let end = start.checked_add(length)?;
        data.get(start..end)?;
        at = end;
        Some(data.slice(start..end))
    })
}

/// Whether `data` is exactly `elements` length-prefixed byte strings; else the element at which it is not.
fn check_byte_strings(data: &Bytes, elements: u64) -> Result<(), u64> {
    let mut used = 0u64;
    let mut count = 0u64;
    for element in byte_strings(data) {
        used += 4 + element.len() as u64;
        count += 1;
    }
    if count == elements && used == data.len() as u64 {
        Ok(())
    } else {
        Err(count.min(elements))
    }
}

/// What a client sent for one item.
#[derive(Clone, Debug, PartialEq)]
pub struct ItemInput {
    /// The item.
    pub value: Value,
    /// The request's `parameters` as a JSON object; empty if it had none.
    pub parameters: Bytes,
}
