//! `[models.settings]` as it is written. What it means for a given folder is decided in `folder`; nothing here opens a file.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;
use transformer::Pooling;

/// `[models.settings]`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The model's folder, as sentence-transformers saves one. A relative path starts at the folder of the configuration file.
    pub(crate) folder: PathBuf,
    /// The file with the weights, from the model's folder; `model.safetensors`, or else `onnx/model.onnx`, if not said.
    pub(crate) weights: Option<PathBuf>,
    /// Most tokens of a text, special ones included; what the folder says, if not said.
    pub(crate) max_length: Option<NonZeroUsize>,
    /// Whether longer texts are cut, as sentence-transformers does, or refused.
    #[serde(default = "yes")]
    pub(crate) truncate: bool,
    /// How the vectors of tokens become one; what the folder says, if not said.
    pub(crate) pooling: Option<Pooling>,
    /// Whether vectors are scaled to length 1; what the folder says, if not said.
    pub(crate) normalize: Option<bool>,
    /// What is put before texts; what the folder says, if not said.
    #[serde(default)]
    pub(crate) prompts: PromptSettings,
    /// Most passages of one item of the tasks `similarity` and `rerank`.
    #[serde(default = "a_thousand")]
    pub(crate) max_passages: NonZeroUsize,
    /// Threads that compute one batch; as many as the server suggests, if not said.
    pub(crate) threads: Option<NonZeroUsize>,
}

/// `[models.settings.prompts]`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PromptSettings {
    /// What is put before queries, such as `"query: "`.
    pub(crate) query: Option<String>,
    /// What is put before passages, such as `"passage: "`.
    pub(crate) passage: Option<String>,
}

fn yes() -> bool {
    true
}

fn a_thousand() -> NonZeroUsize {
    const THOUSAND: NonZeroUsize = NonZeroUsize::new(1000).expect("it is not 0");
    THOUSAND
}
