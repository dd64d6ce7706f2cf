//! `[models.settings]` as written in the configuration. How the settings apply to a given file is decided in `plan`; this module
//! does not open any files.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use pictures::{Orientation, TruncatedImages};
use plugin_sdk::serde_json::Value as Json;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::answers::settings::{DetectionSettings, EmbeddingSettings, TextSettings, TokenizerSettings};

/// `[models.settings]`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Path of the `.onnx` file. A relative path is relative to the directory of the configuration file.
    pub(crate) model: PathBuf,
    /// Runtime that runs the model.
    #[serde(default)]
    pub(crate) runtime: RuntimeChoice,
    /// Location and execution providers of ONNX Runtime, for the runtimes `auto` and `ort`.
    pub(crate) ort: Option<OrtSettings>,
    /// Number of threads for one batch; the server's default if not set.
    pub(crate) threads: Option<NonZeroUsize>,
    /// How items are combined into runs of the model; a task's own setting takes precedence.
    #[serde(default)]
    pub(crate) batch: BatchSetting,
    /// Tasks by name. If none is set, there is one, `predict`, that takes all inputs and returns all outputs.
    #[serde(default)]
    pub(crate) tasks: BTreeMap<String, TaskSettings>,
}

/// Runtime that runs the model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum RuntimeChoice {
    /// The embedded runtime if it is verified for every operator of the model; otherwise ONNX Runtime, if it is found.
    #[default]
    Auto,
    /// The embedded runtime, which requires no installation.
    Rten,
    /// ONNX Runtime, loaded from a shared library: more operators and datatypes, faster convolutions, and GPUs.
    Ort,
}

/// How items are combined into runs of the model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum BatchSetting {
    /// Items are batched if the model has a batch dimension and a batch does not change their results; otherwise they run one
    /// by one. Without a batch dimension, a request is one item.
    #[default]
    Auto,
    /// A request is one item that has exactly the tensors that the file declares.
    None,
    /// Items are batched even if their results depend on one another.
    Force,
}

/// `[models.settings.ort]`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct OrtSettings {
    /// Path of `libonnxruntime.so`. If neither this nor `python` is set, the library is searched for in `ORT_DYLIB_PATH`, in
    /// the Python environment (`VIRTUAL_ENV`, `python3`), and in the system's library directories.
    pub(crate) library: Option<PathBuf>,
    /// Alternative to `library`: a Python environment with the package onnxruntime or onnxruntime-gpu, given by its directory
    /// or its interpreter.
    pub(crate) python: Option<PathBuf>,
    /// Execution providers, in order of preference. Operators that none of them supports run on the CPU.
    #[serde(default = "cpu")]
    pub(crate) providers: Vec<Provider>,
    /// Index of the GPU, starting at 0.
    #[serde(default)]
    pub(crate) device: u32,
}

/// Execution provider of ONNX Runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Provider {
    /// The CPU.
    Cpu,
    /// NVIDIA GPUs, through CUDA.
    Cuda,
    /// NVIDIA GPUs, through TensorRT.
    Tensorrt,
}

impl Default for OrtSettings {
    fn default() -> Self {
        Self {
            library: None,
            python: None,
            providers: cpu(),
            device: 0,
        }
    }
}

impl Provider {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
            Self::Tensorrt => "tensorrt",
        }
    }
}

fn cpu() -> Vec<Provider> {
    vec![Provider::Cpu]
}

/// `[models.settings.tasks.<name>]`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TaskSettings {
    /// Inputs of the model that a client sends; all by default.
    pub(crate) inputs: Option<Vec<String>>,
    /// Outputs of the model to return; all by default.
    pub(crate) outputs: Option<Vec<String>>,
    /// Names of inputs and outputs for clients, by their name in the file.
    #[serde(default)]
    pub(crate) rename: BTreeMap<String, String>,
    /// How items of this task are combined into runs of the model; the model's setting by default.
    pub(crate) batch: Option<BatchSetting>,
    /// Class names in the order of the output's elements: a list, or the path of a text file with one per line.
    /// Makes the task a classifier, which returns the best labels instead of the tensor.
    pub(crate) labels: Option<Labels>,
    /// Maximum number of labels to return, best first; 5 by default.
    pub(crate) top_k: Option<NonZeroUsize>,
    /// Function applied to scores before they are returned: `softmax` or `sigmoid` for a model that computes logits.
    pub(crate) activation: Option<Activation>,
    /// Minimum score of labels and detections. By default, none for labels and 0.25 for detections.
    pub(crate) score_threshold: Option<f32>,
    /// Returns the label that the model computes, with the scores of the best labels: for scikit-learn, XGBoost and LightGBM
    /// classifiers.
    pub(crate) classification: Option<ClassificationSettings>,
    /// Returns the objects in an image: their boxes, labels and scores.
    pub(crate) detection: Option<DetectionSettings>,
    /// Returns the text decoded from an output (CTC).
    pub(crate) text: Option<TextSettings>,
    /// Lets clients send text instead of numbers.
    pub(crate) tokenizer: Option<TokenizerSettings>,
    /// Returns the embedding of a text, at `/v1/embeddings` as well.
    pub(crate) embedding: Option<EmbeddingSettings>,
    /// Lets clients send an image instead of numbers.
    pub(crate) image: Option<ImageSettings>,
    /// Fill values for the open dimensions of inputs, by the name of the input in the file. Items of different lengths then share
    /// batches, padded to the longest.
    pub(crate) pad: Option<BTreeMap<String, Json>>,
    /// Description of the task on the documentation pages.
    pub(crate) description: Option<String>,
    /// Example items for the documentation and the warm-up: as a client would send them, or paths of image files.
    pub(crate) examples: Option<Vec<Json>>,
    /// Maximum number of items in a batch; the server's configuration of the task takes precedence.
    pub(crate) max_batch_size: Option<NonZeroUsize>,
}

/// `[models.settings.tasks.<name>.classification]`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClassificationSettings {
    /// Output that holds the label; by default, the first output of integers or strings.
    pub(crate) label: Option<String>,
    /// Output that holds the scores of all labels; by default, the first output of floats.
    pub(crate) scores: Option<String>,
}

/// Class names.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(
    untagged,
    expecting = "expected a list of strings, or the path of a text file with one label a line"
)]
pub(crate) enum Labels {
    /// The labels themselves.
    List(Vec<String>),
    /// Path of a text file with one label per line.
    File(PathBuf),
}

/// Function applied to scores before labels are chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Activation {
    /// The scores are returned unchanged.
    #[default]
    None,
    /// Converts the scores to probabilities that add up to 1.
    Softmax,
    /// Converts each score to a probability independently, for labels that are not mutually exclusive.
    Sigmoid,
}

/// How an image is converted to the input tensor.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ImageSettings {
    /// Width of the input, or `"proportional"` to derive it from the height and the aspect ratio of each image.
    pub(crate) width: Width,
    /// Height of the input.
    pub(crate) height: NonZeroUsize,
    /// How images are fitted to this size.
    pub(crate) fit: Option<Fit>,
    /// Position of a letterboxed image within the input.
    pub(crate) position: Option<Position>,
    /// Grey level of the padding, from 0 to 255.
    pub(crate) fill: Option<f32>,
    /// Minimum proportional width; narrower images are padded on the right.
    pub(crate) min_width: Option<NonZeroUsize>,
    /// Maximum proportional width; wider images are rejected. 4096 by default.
    pub(crate) max_width: Option<NonZeroUsize>,
    /// A proportional width is padded on the right to a multiple of this; images of equal width share batches.
    pub(crate) width_step: Option<NonZeroUsize>,
    /// Channels of each pixel and their order: `grey`, `rgb` or `bgr`.
    #[serde(default)]
    pub(crate) channels: Channels,
    /// Values of black and white after scaling.
    #[serde(default = "unit_range")]
    pub(crate) scale: [f32; 2],
    /// Mean, subtracted after scaling: one number, or one per channel in the order of `channels`.
    pub(crate) mean: Option<Vec<f32>>,
    /// Divisor after the mean is subtracted: one number, or one per channel in the order of `channels`.
    pub(crate) std: Option<Vec<f32>>,
    /// Memory layout: channel by channel (`nchw`), pixel by pixel (`nhwc`), or pixel by pixel in one dimension (`flat`). By
    /// default, it follows from the shape of the input.
    pub(crate) layout: Option<Layout>,
    /// How images are resized.
    #[serde(default)]
    pub(crate) resize: Resize,
    /// Inputs that take sizes of the image, by name, each with the sizes it takes, in order.
    #[serde(default)]
    pub(crate) sizes: BTreeMap<String, Vec<ImageSize>>,
    /// Whether brightness is inverted, for models that expect bright ink on a dark background.
    #[serde(default)]
    pub(crate) invert: Invert,
    /// Maximum number of pixels of an image.
    #[serde(default = "sixty_four_megapixels")]
    pub(crate) max_pixels: u64,
    /// How the orientation in an image's Exif metadata is handled: ignored or applied.
    #[serde(default)]
    pub(crate) orientation: Orientation,
    /// How truncated JPEG files are handled: rejected, or decoded up to the truncation.
    #[serde(default)]
    pub(crate) truncated_images: TruncatedImages,
}

/// Width of the input.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected a positive integer, or \"proportional\"")]
pub(crate) enum Width {
    /// In pixels.
    Fixed(NonZeroUsize),
    /// Derived from the height and the image's aspect ratio.
    Proportional(Proportional),
}

/// Derived from the height and the image's aspect ratio.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Proportional {
    Proportional,
}

/// A size that a model takes in addition to an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ImageSize {
    /// Width of the original image.
    Width,
    /// Height of the original image.
    Height,
    /// Width of the input.
    InputWidth,
    /// Height of the input.
    InputHeight,
    /// Horizontal scale factor: pixels of the input per pixel of the image.
    ScaleX,
    /// Vertical scale factor: pixels of the input per pixel of the image.
    ScaleY,
}

/// How an image is fitted to the size of the input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Fit {
    /// Resized to the size of the input, without preserving the aspect ratio.
    #[default]
    Stretch,
    /// Resized to fit inside the input, preserving the aspect ratio, with padding around it.
    Letterbox,
    /// Resized to the height, preserving the aspect ratio, with padding on the right. Images that would be too wide are
    /// compressed to the width.
    Height,
}

/// Position of a letterboxed image within the input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Position {
    /// With equal padding on both sides.
    #[default]
    Center,
    /// With all padding on the right or below.
    TopLeft,
}

/// Channels of a pixel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Channels {
    /// Brightness: 0.299 red + 0.587 green + 0.114 blue.
    Grey,
    /// Red, green and blue.
    #[default]
    Rgb,
    /// Blue, green and red.
    Bgr,
}

impl Channels {
    pub(crate) fn count(self) -> usize {
        match self {
            Self::Grey => 1,
            Self::Rgb | Self::Bgr => 3,
        }
    }
}

/// Memory layout of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Layout {
    /// `[channels, height, width]`.
    Nchw,
    /// `[height, width, channels]`.
    Nhwc,
    /// `[height × width × channels]`.
    Flat,
}

/// How images are resized.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Resize {
    /// Each pixel is the average of the area that it covers.
    Area,
    /// Linear interpolation, with antialiasing when the image is downscaled (as in Pillow).
    #[default]
    Bilinear,
    /// Linear interpolation between the four nearest pixels, at any scale (as in OpenCV).
    Linear,
}

/// Whether brightness is inverted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Invert {
    /// If the outermost pixels of the resized image are brighter than 50% on average.
    Auto,
    /// Never.
    #[default]
    Never,
    /// Always.
    Always,
}

fn unit_range() -> [f32; 2] {
    [0.0, 1.0]
}

fn sixty_four_megapixels() -> u64 {
    64_000_000
}
