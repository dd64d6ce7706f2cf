//! How a task takes images: its `Eye`, fitted to the input of the model.

use plugin_sdk::{DType, ItemError, LoadError};

use super::{BatchMode, Keys, Slot};
use crate::image::Eye;
use crate::network::Dim;
use crate::settings::ImageSettings;
use crate::task::SampleTensor;
use crate::values::{Held, Values};

/// Turns images into the only input of a task.
pub(crate) struct Images {
    eye: Eye,
    /// Dimensions of the input that the pixels fill.
    sizes: Vec<Option<usize>>,
    /// Whether the tensor has a batch dimension of 1 before these.
    has_batch: bool,
    held: Held,
}

impl Images {
    /// None if the task does not take images.
    pub(super) fn new(
        settings: Option<&ImageSettings>,
        inputs: &[Slot],
        mode: BatchMode,
        keys: &Keys<'_>,
    ) -> Result<Option<Self>, LoadError> {
        let Some(settings) = settings else {
            return Ok(None);
        };
        let key = keys.of("image", true);
        let [only] = inputs else {
            let names: Vec<_> = inputs.iter().map(|slot| &*slot.port.name).collect();
            let message = format!(
                "an image becomes one input, but the task takes {}",
                names.join(", ")
            );
            return Err(LoadError::setting(key, message));
        };
        let name = &only.port.name;
        if only.port.dtype == DType::Bytes {
            let message = format!("input `{name}` takes strings, expected numbers");
            return Err(LoadError::setting(key, message));
        }
        let Some(sizes) = only.sizes().filter(|_| !only.port.sequence) else {
            let message = format!("input `{name}` has no declared shape, expected that of an image");
            return Err(LoadError::setting(key, message));
        };
        let new = |sizes: &[Option<usize>], has_batch| {
            Ok(Some(Self {
                eye: Eye::new(settings, sizes, &key)?,
                sizes: sizes.to_vec(),
                has_batch,
                held: only.port.held,
            }))
        };
        let first = only.dims.as_ref().and_then(|dims| dims.first());
        match (mode, first) {
            (BatchMode::Unbatched, Some(Dim::Fixed(1) | Dim::Open(_))) => {
                new(&sizes, false).or_else(|_| new(&sizes[1..], true))
            }
            _ => new(&sizes, false),
        }
    }

    /// The shape of the tensor that an image becomes.
    pub(crate) fn shape(&self) -> Vec<usize> {
        let mut shape = self.eye.shape(&self.sizes);
        if self.has_batch {
            shape.insert(0, 1);
        }
        shape
    }

    /// Reads one image.
    pub(crate) fn read(&self, data: &[u8]) -> Result<SampleTensor, ItemError> {
        Ok(SampleTensor {
            slot: 0,
            shape: self.shape(),
            values: Values::from_pixels(self.eye.read(data)?, self.held),
        })
    }

    /// A black image, for an example; none if it cannot be written.
    pub(crate) fn plain(&self) -> Option<Vec<u8>> {
        self.eye.plain()
    }
}
