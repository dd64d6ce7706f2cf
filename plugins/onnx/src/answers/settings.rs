//! The settings `tasks.<name>.detection`, `.text`, `.tokenizer` and `.embedding`, as written in the configuration.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;
use transformer::Pooling;

use super::boxes::{BoxFormat, Coordinates};
use super::detection::RowFormat;

/// `[models.settings.tasks.<name>.detection]`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DetectionSettings {
    /// Output with a row for each prediction: a box, then its scores. Defaults to the only output of the task.
    pub(crate) predictions: Option<String>,
    /// What a row contains besides the box. By default, derived from the number of labels.
    pub(crate) rows: Option<RowFormat>,
    /// Whether each prediction is a column instead of a row. By default, derived from the shape of the output.
    pub(crate) transposed: Option<bool>,
    /// Output with the boxes, if they are in a separate output.
    pub(crate) boxes: Option<String>,
    /// Output with the scores: one for each box, or one per class for each box.
    pub(crate) scores: Option<String>,
    /// Output with the class index of each box.
    pub(crate) labels: Option<String>,
    /// Output with the number of valid boxes.
    pub(crate) count: Option<String>,
    /// Order of a box's numbers. Defaults to `cxcywh` for rows with class scores, otherwise to `xyxy`.
    pub(crate) box_format: Option<BoxFormat>,
    /// Coordinate system of the boxes.
    #[serde(default)]
    pub(crate) coordinates: Coordinates,
    /// Index of the first class, for models that compute class indexes.
    #[serde(default)]
    pub(crate) first_label: usize,
    /// Index of the score that stands for "no object". `labels` does not list this class.
    pub(crate) background: Option<usize>,
    /// Intersection over union above which the lower-scoring of two boxes of a class is dropped. Defaults to 0.45. If the model
    /// computes class indexes, the default is no suppression, since such models suppress overlapping boxes themselves.
    pub(crate) iou_threshold: Option<f32>,
    /// Whether boxes of different classes also suppress each other.
    #[serde(default)]
    pub(crate) across_classes: bool,
    /// Maximum number of detections.
    #[serde(default = "three_hundred")]
    pub(crate) max_detections: NonZeroUsize,
}

/// `[models.settings.tasks.<name>.text]`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TextSettings {
    /// The characters in class order: a text file with one character per line, or `{ metadata = "…" }`, the key of the model
    /// file's metadata that contains them. An empty line stands for the blank.
    pub(crate) dictionary: Dictionary,
    /// Class of the blank: its index, or `"last"`. The dictionary can list the blank as an empty line, but does not have to.
    #[serde(default)]
    pub(crate) blank: Blank,
    /// Whether to append a space to the dictionary.
    #[serde(default)]
    pub(crate) space: bool,
}

/// Source of the characters.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(
    untagged,
    expecting = "expected the path of a text file with one character a line, or `{ metadata = \"…\" }`"
)]
pub(crate) enum Dictionary {
    /// A text file with one character per line.
    File(PathBuf),
    /// Lines in the metadata of the model file.
    Metadata(Metadata),
}

/// A key in the metadata of the model file.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Metadata {
    pub(crate) metadata: String,
}

/// The class of the blank.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected an index from 0, or \"last\"")]
pub(crate) enum Blank {
    Index(usize),
    Named(Last),
}

/// The last class.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Last {
    Last,
}

impl Default for Blank {
    fn default() -> Self {
        Self::Index(0)
    }
}

impl Blank {
    /// The index of the blank; `None` if it is the last class.
    pub(crate) fn index(self) -> Option<usize> {
        match self {
            Self::Index(index) => Some(index),
            Self::Named(Last::Last) => None,
        }
    }
}

/// `[models.settings.tasks.<name>.tokenizer]`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TokenizerSettings {
    /// Path of the file `tokenizer.json`.
    pub(crate) file: PathBuf,
    /// Maximum number of tokens in a text, including special tokens. Defaults to the model's length if that is fixed, otherwise
    /// to 512.
    pub(crate) max_length: Option<NonZeroUsize>,
    /// Whether longer texts are truncated. Otherwise, they are rejected.
    #[serde(default = "yes")]
    pub(crate) truncate: bool,
    /// Whether to convert texts to lower case first.
    #[serde(default)]
    pub(crate) lowercase: bool,
    /// Prefix added to every text, such as `"query: "`.
    #[serde(default)]
    pub(crate) prefix: String,
}

/// `[models.settings.tasks.<name>.embedding]`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EmbeddingSettings {
    /// How the vectors of a text's tokens are pooled into one. Not applicable to models that compute one vector per text.
    pub(crate) pooling: Option<Pooling>,
    /// Whether to scale vectors to unit length.
    #[serde(default = "yes")]
    pub(crate) normalize: bool,
}

fn three_hundred() -> NonZeroUsize {
    const DEFAULT: NonZeroUsize = NonZeroUsize::new(300).expect("it is not 0");
    DEFAULT
}

fn yes() -> bool {
    true
}
