//! Image inputs of a task: an `ImagePreprocessor` matched to the input that takes the pixels, and inputs that take sizes of the
//! image.

use plugin_sdk::{DType, ItemError, LoadError};

use super::{BatchMode, Keys, Slot};
use crate::answers::boxes::Frame;
use crate::image::ImagePreprocessor;
use crate::network::{Dim, shape_text};
use crate::settings::{ImageSettings, ImageSize};
use crate::task::{Origin, Sample, SampleTensor};
use crate::values::{ElementType, Values};

/// Converts images to the inputs of a task.
pub(crate) struct Images {
    preprocessor: ImagePreprocessor,
    /// Index of the input that takes the pixels.
    slot: usize,
    /// Dimensions of this input that the pixels fill; `None` for a dynamic one.
    sizes: Vec<Option<usize>>,
    /// Whether the tensor of pixels has a batch dimension of 1 before `sizes`.
    has_batch: bool,
    held: ElementType,
    /// The remaining inputs.
    size_inputs: Vec<SizeInput>,
}

/// An input that takes sizes of the image, such as its width.
struct SizeInput {
    slot: usize,
    shape: Vec<usize>,
    held: ElementType,
    numbers: Vec<ImageSize>,
}

impl Images {
    /// `None` if the task does not take images.
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
        let size_inputs = size_inputs(settings, inputs, mode, &key)?;
        let takes_sizes = |index: usize| size_inputs.iter().any(|input| input.slot == index);
        let others: Vec<_> = (0..inputs.len()).filter(|index| !takes_sizes(*index)).collect();
        let [slot] = others[..] else {
            let names: Vec<_> = others.iter().map(|index| &*inputs[*index].spec.name).collect();
            let message = format!(
                "an image becomes one input, but the task takes {}; inputs that take the size of the image are listed in `sizes`",
                names.join(", ")
            );
            return Err(LoadError::setting(key, message));
        };
        let only = &inputs[slot];
        let name = &only.spec.name;
        if only.spec.dtype == DType::Bytes {
            let message = format!("input `{name}` takes strings, expected numbers");
            return Err(LoadError::setting(key, message));
        }
        let Some(sizes) = only.sizes().filter(|_| !only.spec.sequence) else {
            let message = format!("input `{name}` has no declared shape, expected that of an image");
            return Err(LoadError::setting(key, message));
        };
        let new = |sizes: &[Option<usize>], has_batch| {
            Ok::<_, LoadError>((
                ImagePreprocessor::new(settings, sizes, &key)?,
                sizes.to_vec(),
                has_batch,
            ))
        };
        let first = only.dims.as_ref().and_then(|dims| dims.first());
        let (preprocessor, sizes, has_batch) = match (mode, first) {
            (BatchMode::Unbatched, Some(Dim::Fixed(1) | Dim::Open(_))) => {
                new(&sizes, false).or_else(|_| new(&sizes[1..], true))
            }
            _ => new(&sizes, false),
        }?;
        Ok(Some(Self {
            preprocessor,
            slot,
            sizes,
            has_batch,
            held: only.spec.held,
            size_inputs,
        }))
    }

    /// Index of the input that takes the pixels.
    pub(crate) fn slot(&self) -> usize {
        self.slot
    }

    /// Shape of the tensor for the image of [`plain`](Self::plain).
    pub(crate) fn plain_shape(&self) -> Option<Vec<usize>> {
        let shape = self
            .preprocessor
            .shape(self.preprocessor.plain_size(), &self.sizes)
            .ok()?;
        Some(self.with_batch(shape))
    }

    /// Tensor for the input `slot` with the sizes of the image of [`plain`](Self::plain); `None` if that input takes none.
    pub(crate) fn plain_sizes(&self, slot: usize) -> Option<SampleTensor> {
        let frame = self.preprocessor.frame(self.preprocessor.plain_size()).ok()?;
        let input = self.size_inputs.iter().find(|input| input.slot == slot)?;
        Some(input.tensor(&frame))
    }

    /// Width and height of the model's input, if they are the same for all images.
    pub(crate) fn size(&self) -> Option<[usize; 2]> {
        self.preprocessor.size()
    }

    /// Decodes and preprocesses one image.
    pub(crate) fn read(&self, data: &[u8]) -> Result<Sample, ItemError> {
        let picture = self.preprocessor.read(data, &self.sizes)?;
        let mut tensors = vec![SampleTensor {
            slot: self.slot,
            shape: self.with_batch(picture.shape),
            values: Values::from_pixels(picture.values, self.held),
        }];
        tensors.extend(self.size_inputs.iter().map(|input| input.tensor(&picture.frame)));
        tensors.sort_by_key(|tensor| tensor.slot);
        let origin = Origin {
            frame: Some(picture.frame),
            ..Origin::default()
        };
        Ok(Sample(tensors, origin))
    }

    fn with_batch(&self, mut shape: Vec<usize>) -> Vec<usize> {
        if self.has_batch {
            shape.insert(0, 1);
        }
        shape
    }

    /// An encoded black image, as an example; `None` if it cannot be encoded.
    pub(crate) fn plain(&self) -> Option<Vec<u8>> {
        self.preprocessor.plain()
    }
}

impl SizeInput {
    fn tensor(&self, frame: &Frame) -> SampleTensor {
        let [width, height] = frame.original.unwrap_or_default();
        let [input_width, input_height] = frame.input.unwrap_or_default();
        let number = |number: &ImageSize| match number {
            ImageSize::Width => width,
            ImageSize::Height => height,
            ImageSize::InputWidth => input_width,
            ImageSize::InputHeight => input_height,
            ImageSize::ScaleX => frame.scale[0],
            ImageSize::ScaleY => frame.scale[1],
        };
        SampleTensor {
            slot: self.slot,
            shape: self.shape.clone(),
            values: Values::from_pixels(self.numbers.iter().map(number).collect(), self.held),
        }
    }
}

/// The inputs that take sizes of the image.
fn size_inputs(
    settings: &ImageSettings,
    inputs: &[Slot],
    mode: BatchMode,
    key: &str,
) -> Result<Vec<SizeInput>, LoadError> {
    let input = |(name, numbers): (&String, &Vec<ImageSize>)| {
        let blame = |message: String| LoadError::setting(format_args!("{key}.sizes.{name}"), message);
        let slot = inputs.iter().position(|slot| slot.spec.name == *name);
        let slot = slot.ok_or_else(|| blame(format!("the task has no input `{name}`")))?;
        let Slot { spec, dims } = &inputs[slot];
        let mut shape = vec![numbers.len()];
        if mode == BatchMode::Unbatched && dims.as_ref().is_some_and(|dims| dims.len() == 2) {
            shape.insert(0, 1);
        }
        let fits = |(size, dim): (&usize, &Dim)| match dim {
            Dim::Fixed(fixed) => fixed == size,
            Dim::Open(_) => true,
        };
        let is_taken = dims
            .as_ref()
            .is_none_or(|dims| dims.len() == shape.len() && shape.iter().zip(dims).all(fits));
        if !is_taken || spec.sequence || spec.dtype == DType::Bytes {
            let dims = dims.as_deref().map_or("any shape".to_owned(), shape_text);
            return Err(blame(format!(
                "{} numbers, expected what the input takes: {} in {dims}",
                numbers.len(),
                spec.dtype.name()
            )));
        }
        let is_fraction = numbers
            .iter()
            .any(|number| matches!(number, ImageSize::ScaleX | ImageSize::ScaleY));
        if is_fraction && !matches!(spec.dtype, DType::Fp32 | DType::Fp64) {
            return Err(blame(format!(
                "a scale is a fraction, but the input takes {}",
                spec.dtype.name()
            )));
        }
        Ok(SizeInput {
            slot,
            shape,
            held: spec.held,
            numbers: numbers.clone(),
        })
    };
    settings.sizes.iter().map(input).collect()
}
