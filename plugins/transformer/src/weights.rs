//! The weights in a safetensors file, by name, as 32-bit floats.

use half::{bf16, f16};
use plugin_sdk::LoadError;
use safetensors::{Dtype, SafeTensors};

/// The tensors of a file.
pub struct Weights<'a> {
    tensors: SafeTensors<'a>,
    /// Prefix of the names of the encoder's tensors, such as `bert.`.
    prefix: String,
}

impl<'a> Weights<'a> {
    /// Reads the header of a file. `anchor` is a tensor that the encoder must have; the prefix of its name is the prefix of all
    /// tensors of the encoder.
    ///
    /// # Errors
    /// The file is invalid or has no such tensor.
    pub fn read(file: &'a [u8], anchor: &str) -> Result<Self, LoadError> {
        let tensors = SafeTensors::deserialize(file)?;
        let prefix = tensors
            .names()
            .iter()
            .find_map(|name| name.strip_suffix(anchor))
            .map(str::to_owned);
        let prefix = prefix.ok_or_else(|| LoadError::new(format_args!("it has no tensor `{anchor}`")))?;
        Ok(Self { tensors, prefix })
    }

    /// Returns a tensor of the encoder, which must have this shape.
    ///
    /// # Errors
    /// The tensor is missing, has a different shape, or has an unsupported datatype.
    pub fn get(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, LoadError> {
        self.get_outer(&format!("{}{name}", self.prefix), shape)
    }

    /// Returns a tensor outside the encoder, such as one of a classifier.
    ///
    /// # Errors
    /// Same as [`get`](Self::get).
    pub fn get_outer(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, LoadError> {
        let tensor = self
            .tensors
            .tensor(name)
            .map_err(|_| LoadError::new(format_args!("it has no tensor `{name}`")))?;
        if tensor.shape() != shape {
            return Err(LoadError::new(format_args!(
                "its tensor `{name}` has the shape {:?}, expected {shape:?}",
                tensor.shape()
            )));
        }
        let data = tensor.data();
        Ok(match tensor.dtype() {
            Dtype::F32 => floats(data, f32::from_le_bytes),
            Dtype::F16 => floats(data, |bytes| f16::from_le_bytes(bytes).to_f32()),
            Dtype::BF16 => floats(data, |bytes| bf16::from_le_bytes(bytes).to_f32()),
            other => {
                return Err(LoadError::new(format_args!(
                    "its tensor `{name}` is {other:?}, expected F32, F16 or BF16"
                )));
            }
        })
    }

    /// Whether there is a tensor with this name outside the encoder.
    pub fn has_outer(&self, name: &str) -> bool {
        self.tensors.tensor(name).is_ok()
    }

    /// Returns the number of rows of a two-dimensional tensor of the encoder.
    ///
    /// # Errors
    /// The tensor is missing.
    pub fn rows(&self, name: &str) -> Result<usize, LoadError> {
        let name = format!("{}{name}", self.prefix);
        let tensor = self.tensors.tensor(&name);
        tensor
            .ok()
            .and_then(|tensor| tensor.shape().first().copied())
            .ok_or_else(|| LoadError::new(format_args!("it has no tensor `{name}`")))
    }
}

fn floats<const N: usize>(data: &[u8], convert: impl Fn([u8; N]) -> f32) -> Vec<f32> {
    let (elements, _) = data.as_chunks::<N>();
    elements.iter().copied().map(convert).collect()
}
