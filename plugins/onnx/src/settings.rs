//! `[models.settings]` as it is written. What it means for a given file is decided in `plan`; nothing here opens a file.

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
    /// The `.onnx` file. A relative path starts at the directory of the configuration file.
    pub(crate) model: PathBuf,
    /// What computes the model.
    #[serde(default)]
    pub(crate) runtime: RuntimeChoice,
    /// Where ONNX Runtime is and what it computes with, for the runtimes `auto` and `ort`.
    pub(crate) ort: Option<OrtSettings>,
    /// Threads that compute one batch; the server's default if not set.
    pub(crate) threads: Option<NonZeroUsize>,
    /// How items become runs of the model; a task's own setting has precedence.
    #[serde(default)]
    pub(crate) batch: BatchSetting,
    /// The tasks by name. Without any there is one, `predict`, that takes all inputs and answers all outputs.
    #[serde(default)]
    pub(crate) tasks: BTreeMap<String, TaskSettings>,
}

/// What computes the model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum RuntimeChoice {
    /// The embedded runtime if it is verified for every operator of the model, otherwise ONNX Runtime if it is found.
    #[default]
    Auto,
    /// The one that is built in: nothing to install.
    Rten,
    /// ONNX Runtime, from a shared library: more operators and datatypes, faster convolutions, GPUs.
    Ort,
}

/// How items become runs of the model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum BatchSetting {
    /// Items are batched if the model has a batch dimension and computes each item as it computes it alone; otherwise they
    /// run one by one. Without a batch dimension a request is one item.
    #[default]
    Auto,
    /// A request is one item, with exactly the tensors that the file declares.
    None,
    /// Items are batched even if their answers depend on one another.
    Force,
}

/// `[models.settings.ort]`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct OrtSettings {
    /// Path of `libonnxruntime.so`. If neither this nor `python` is set, the library is searched for: in `ORT_DYLIB_PATH`, in
    /// the Python environment (`VIRTUAL_ENV`, `python3`), and in the system's directories.
    pub(crate) library: Option<PathBuf>,
    /// Instead of that, a Python environment with the package onnxruntime or onnxruntime-gpu: its directory or its interpreter.
    pub(crate) python: Option<PathBuf>,
    /// What computes, in the order of preference; what none of them can do is done by the processor.
    #[serde(default = "cpu")]
    pub(crate) providers: Vec<Provider>,
    /// Which GPU, from 0.
    #[serde(default)]
    pub(crate) device: u32,
}

/// What computes, within ONNX Runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Provider {
    /// The processor.
    Cpu,
    /// NVIDIA GPUs, by CUDA.
    Cuda,
    /// NVIDIA GPUs, by TensorRT.
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
    /// Inputs of the model that a client gives; all, if not said.
    pub(crate) inputs: Option<Vec<String>>,
    /// Outputs of the model that are answered; all, if not said.
    pub(crate) outputs: Option<Vec<String>>,
    /// What clients call inputs and outputs, by the name in the file.
    #[serde(default)]
    pub(crate) rename: BTreeMap<String, String>,
    /// How items of this task become runs of the model; the model's setting, if not said.
    pub(crate) batch: Option<BatchSetting>,
    /// Names of the classes, in the order of the output's elements: a list, or the path of a text file with one a line.
    /// Makes the task a classifier, which answers the best labels instead of the tensor.
    pub(crate) labels: Option<Labels>,
    /// How many labels are answered, best first; 5, if not said.
    pub(crate) top_k: Option<NonZeroUsize>,
    /// Applied to scores before they are answered: `softmax` or `sigmoid` for a model that ends in logits.
    pub(crate) activation: Option<Activation>,
    /// Labels and detections with lower scores are left out. By default, no labels, and detections below 0.25.
    pub(crate) score_threshold: Option<f32>,
    /// Answers the label that the model computes, with the scores of all labels: for classifiers of scikit-learn, XGBoost and
    /// LightGBM.
    pub(crate) classification: Option<ClassificationSettings>,
    /// Answers the objects in an image: their boxes, labels and scores.
    pub(crate) detection: Option<DetectionSettings>,
    /// Answers the text that an output spells (CTC).
    pub(crate) text: Option<TextSettings>,
    /// Lets clients send a text instead of numbers.
    pub(crate) tokenizer: Option<TokenizerSettings>,
    /// Answers the vector of a text, at `/v1/embeddings` as well.
    pub(crate) embedding: Option<EmbeddingSettings>,
    /// Lets clients send an image instead of numbers.
    pub(crate) image: Option<ImageSettings>,
    /// What the documentation pages say of the task.
    pub(crate) description: Option<String>,
    /// Example items for the documentation and the warm-up: as a client would write them, or paths of image files.
    pub(crate) examples: Option<Vec<Json>>,
    /// Most items in a batch; the server's configuration of the task goes before it.
    pub(crate) max_batch_size: Option<NonZeroUsize>,
}

/// `[models.settings.tasks.<name>.classification]`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClassificationSettings {
    /// Output of the label; the first one of integers or strings by default.
    pub(crate) label: Option<String>,
    /// Output of the scores of all labels; the first one of floats by default.
    pub(crate) scores: Option<String>,
}

/// Names of classes.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(
    untagged,
    expecting = "expected a list of strings, or the path of a text file with one label a line"
)]
pub(crate) enum Labels {
    /// The labels themselves.
    List(Vec<String>),
    /// A text file with one label a line.
    File(PathBuf),
}

/// What is applied to scores before labels are chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Activation {
    /// The model's output is what is answered.
    #[default]
    None,
    /// Scores become probabilities that add up to 1.
    Softmax,
    /// Every score becomes a probability by itself: for labels that do not exclude each other.
    Sigmoid,
}

/// How an image becomes the input tensor.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ImageSettings {
    /// Width of the input, or `"proportional"`: it follows from the height and the proportions of each image.
    pub(crate) width: Width,
    /// Height of the input.
    pub(crate) height: NonZeroUsize,
    /// How images come to have this size.
    pub(crate) fit: Option<Fit>,
    /// Where a letterboxed image lies within the input.
    pub(crate) position: Option<Position>,
    /// Grey level of the padding, from 0 to 255.
    pub(crate) fill: Option<f32>,
    /// Minimum width, if it is proportional; narrower images are padded on the right.
    pub(crate) min_width: Option<NonZeroUsize>,
    /// Maximum width, if it is proportional; wider images are rejected. 4096 by default.
    pub(crate) max_width: Option<NonZeroUsize>,
    /// Padding on the right makes a proportional width a multiple of this; images of equal widths share batches.
    pub(crate) width_step: Option<NonZeroUsize>,
    /// Channels of each pixel, in this order: `grey`, `rgb` or `bgr`.
    #[serde(default)]
    pub(crate) channels: Channels,
    /// What black and full white become.
    #[serde(default = "unit_range")]
    pub(crate) scale: [f32; 2],
    /// Subtracted after scaling: one number, or one for each channel, in the order of `channels`.
    pub(crate) mean: Option<Vec<f32>>,
    /// Divided by after that: one number, or one for each channel, in the order of `channels`.
    pub(crate) std: Option<Vec<f32>>,
    /// Order of the numbers: planes (`nchw`), pixels (`nhwc`), or pixels in one row (`flat`); the shape of the input tells,
    /// if not said.
    pub(crate) layout: Option<Layout>,
    /// How images are resized.
    #[serde(default)]
    pub(crate) resize: Resize,
    /// Inputs that take sizes of the image, by name, with the numbers that they take in order.
    #[serde(default)]
    pub(crate) sizes: BTreeMap<String, Vec<ImageSize>>,
    /// Whether dark becomes bright: for models that expect bright ink on a dark ground.
    #[serde(default)]
    pub(crate) invert: Invert,
    /// Maximum number of pixels of an image.
    #[serde(default = "sixty_four_megapixels")]
    pub(crate) max_pixels: u64,
    /// How the orientation in an image's Exif metadata is handled: ignored, or applied.
    #[serde(default)]
    pub(crate) orientation: Orientation,
    /// How truncated JPEG files are handled: rejected, or decoded as far as they go.
    #[serde(default)]
    pub(crate) truncated_images: TruncatedImages,
}

/// Width of the input.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected a positive integer, or \"proportional\"")]
pub(crate) enum Width {
    /// In pixels.
    Fixed(NonZeroUsize),
    /// As the height and the image's proportions give.
    Proportional(Proportional),
}

/// As the height and the image's proportions give.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Proportional {
    Proportional,
}

/// A number that a model takes beside an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ImageSize {
    /// Width of the image as it was sent.
    Width,
    /// Height of the image as it was sent.
    Height,
    /// Width of the input.
    InputWidth,
    /// Height of the input.
    InputHeight,
    /// Pixels of the input for each pixel of the image, horizontally.
    ScaleX,
    /// Pixels of the input for each pixel of the image, vertically.
    ScaleY,
}

/// How an image comes to have the size of the input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Fit {
    /// Resized to it; its proportions are not kept.
    #[default]
    Stretch,
    /// Resized in proportion to fit inside, with padding around it.
    Letterbox,
    /// Resized to the height in proportion, with padding on the right; resized to the width as well if it is wider.
    Height,
}

/// Where a letterboxed image lies within the input.
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
    /// Its brightness: 0.299 red + 0.587 green + 0.114 blue.
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

/// Order of the numbers of an image.
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
    /// Every pixel is the average of the area that it covers.
    Area,
    /// Linear interpolation, smoothed where the image becomes smaller (as Pillow does).
    #[default]
    Bilinear,
    /// Linear interpolation between the four nearest pixels at any size (as OpenCV does).
    Linear,
}

/// Whether dark becomes bright.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Invert {
    /// Where the outermost pixels of the resized image are brighter than half on average.
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
