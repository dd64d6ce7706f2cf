//! `[models.settings]`. How the settings and the model directory are combined is defined in `model_spec`.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;
use transformer::Pooling;

/// `[models.settings]`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Directory of the model, as saved by sentence-transformers. A relative path is relative to the directory of the configuration
    /// file.
    pub(crate) folder: PathBuf,
    /// File with the weights, relative to `folder`. Default: `model.safetensors`, `model.safetensors.index.json`, or else
    /// `onnx/model.onnx`.
    pub(crate) weights: Option<PathBuf>,
    /// Maximum number of tokens of a text, including special tokens. Default: from the model directory.
    pub(crate) max_length: Option<NonZeroUsize>,
    /// Whether longer texts are truncated, as in sentence-transformers, or rejected.
    #[serde(default = "yes")]
    pub(crate) truncate: bool,
    /// How token vectors are pooled to one vector. Default: from the model directory.
    pub(crate) pooling: Option<Pooling>,
    /// Whether vectors are scaled to length 1. Default: from the model directory.
    pub(crate) normalize: Option<bool>,
    /// Text that is prepended to each text. Default: from the model directory.
    #[serde(default)]
    pub(crate) prompts: PromptSettings,
    /// Keys of the JSON files in the directory that this plugin does not know and that do not affect the results. Unknown keys are
    /// errors otherwise.
    #[serde(default)]
    pub(crate) ignored_keys: Vec<String>,
    /// Maximum number of passages in an item of the tasks `similarity` and `rerank`.
    #[serde(default = "a_thousand")]
    pub(crate) max_passages: NonZeroUsize,
    /// Number of threads that compute one batch. Default: the number that the server suggests.
    pub(crate) threads: Option<NonZeroUsize>,
}

/// `[models.settings.prompts]`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PromptSettings {
    /// Text that is prepended to queries, such as `"query: "`.
    pub(crate) query: Option<String>,
    /// Text that is prepended to passages, such as `"passage: "`.
    pub(crate) passage: Option<String>,
}

fn yes() -> bool {
    true
}

fn a_thousand() -> NonZeroUsize {
    const THOUSAND: NonZeroUsize = NonZeroUsize::new(1000).expect("not 0");
    THOUSAND
}
