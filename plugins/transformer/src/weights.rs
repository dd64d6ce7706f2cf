//! A network's weights as they lie in `model.safetensors`, by name, as 32-bit floats.

use half::{bf16, f16};
use plugin_sdk::LoadError;
use safetensors::{Dtype, SafeTensors};

/// The tensors of a file.
pub struct Weights<'a> {
    tensors: SafeTensors<'a>,
    /// What precedes the names of the encoder's tensors, such as `bert.`.
    prefix: String,
}

impl<'a> Weights<'a> {
    /// Reads the head of a file whose bytes are given. What precedes `anchor`, a tensor that the encoder must have, precedes the
    /// names of all its tensors.
    ///
    /// # Errors
    /// It is no such file, or has no such tensor.
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

    /// A tensor of the encoder, which must have that shape.
    ///
    /// # Errors
    /// It is missing, of another shape, or of numbers that are not understood.
    pub fn get(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, LoadError> {
        self.get_outer(&format!("{}{name}", self.prefix), shape)
    }

    /// A tensor beside the encoder, such as those of a classifier.
    ///
    /// # Errors
    /// As [`get`](Self::get).
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

    /// Whether there is a tensor of that name.
    pub fn has_outer(&self, name: &str) -> bool {
        self.tensors.tensor(name).is_ok()
    }

    /// Rows of a tensor of the encoder, which has two dimensions.
    ///
    /// # Errors
    /// It is missing.
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
