//! `tasks.<name>.detection`, `.text`, `.tokenizer` and `.embedding` as they are written.

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
    /// Output with a row for each prediction: a box, then its scores. The only output of the task by default.
    pub(crate) predictions: Option<String>,
    /// What is in a row beside the box; found by the number of labels by default.
    pub(crate) rows: Option<RowFormat>,
    /// Whether each prediction is a column instead of a row; found by the shape of the output by default.
    pub(crate) transposed: Option<bool>,
    /// Output with the boxes, if they are separate.
    pub(crate) boxes: Option<String>,
    /// Output with the scores: one for each box, or one for each class of each box.
    pub(crate) scores: Option<String>,
    /// Output with the index of each box's class.
    pub(crate) labels: Option<String>,
    /// Output with the number of valid boxes.
    pub(crate) count: Option<String>,
    /// Order of a box's numbers; `cxcywh` by default for rows with scores of classes, `xyxy` otherwise.
    pub(crate) box_format: Option<BoxFormat>,
    /// What boxes are relative to.
    #[serde(default)]
    pub(crate) coordinates: Coordinates,
    /// Index of the first class, for models that compute indexes.
    #[serde(default)]
    pub(crate) first_label: usize,
    /// Index of the score that stands for no object. `labels` does not list this class.
    pub(crate) background: Option<usize>,
    /// Overlap (intersection over union) above which the lower-scored of two boxes of a class is dropped. 0.45 by default, or none if
    /// the model computes indexes of classes, since it has dropped them itself.
    pub(crate) iou_threshold: Option<f32>,
    /// Whether boxes of different classes suppress each other as well.
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
    /// The characters in the order of the classes: a text file with one a line, or `{ metadata = "…" }`, the key of the model file's
    /// metadata that has them. An empty line stands for the blank.
    pub(crate) dictionary: Dictionary,
    /// Class of the blank: its index, or `"last"`. The dictionary does not list it unless as an empty line.
    #[serde(default)]
    pub(crate) blank: Blank,
    /// Whether a space follows the last character of the dictionary.
    #[serde(default)]
    pub(crate) space: bool,
}

/// Where the characters are.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(
    untagged,
    expecting = "expected the path of a text file with one character a line, or `{ metadata = \"…\" }`"
)]
pub(crate) enum Dictionary {
    /// A text file with one a line.
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

/// The last of all classes.
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
    /// Its index; `None` if it is the last class.
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
    /// The file `tokenizer.json`.
    pub(crate) file: PathBuf,
    /// Maximum number of tokens of a text, including special tokens; the model's length if that is fixed, 512 otherwise.
    pub(crate) max_length: Option<NonZeroUsize>,
    /// Whether longer texts are truncated. If not, they are rejected.
    #[serde(default = "yes")]
    pub(crate) truncate: bool,
    /// Whether texts are converted to lower case first.
    #[serde(default)]
    pub(crate) lowercase: bool,
    /// Inserted before every text, such as `"query: "`.
    #[serde(default)]
    pub(crate) prefix: String,
}

/// `[models.settings.tasks.<name>.embedding]`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EmbeddingSettings {
    /// How the vectors of a text's tokens become one; not for models that compute one vector for each text.
    pub(crate) pooling: Option<Pooling>,
    /// Whether vectors are scaled to length 1.
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
