//! Descriptions of plugins, models and tasks that cross the boundary as JSON. Every field has a default, so that either side
//! can be older than the other.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

/// Description of a plugin that is available without loading a model.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PluginManifest {
    /// Name of the plugin's package.
    pub name: String,
    /// Version of the plugin's package.
    pub version: String,
    /// Description in one or two sentences.
    pub description: String,
    /// Version of the SDK that the plugin was built with.
    pub sdk_version: String,
    /// JSON Schema of `[models.settings]`.
    pub settings_schema: Json,
    /// The tasks, if they do not depend on the settings. Empty otherwise.
    pub tasks: Vec<TaskManifest>,
    /// Preferred isolation. The configuration takes precedence. If absent, the server's default applies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub isolation: Option<Isolation>,
    /// Whether the plugin was built with debug assertions, as by `cargo build` without `--release`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub debug_build: bool,
}

/// Where a plugin runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Isolation {
    /// In the server's process.
    Thread,
    /// In dedicated processes.
    Process,
}

/// Description of a loaded model.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ModelManifest {
    /// Framework or format of the model (`onnx`, `rust`). May be empty.
    pub platform: String,
    /// The tasks. Calls refer to a task by its index in this list.
    pub tasks: Vec<TaskManifest>,
    /// Files that the model was loaded from, in addition to those named in its settings. If one of them changes, a reload of
    /// the configuration loads the model again.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<PathBuf>,
    /// Human-readable facts about the loaded model, such as the selected runtime and the reason, by `snake_case` names. The
    /// server shows them in its list of models.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub details: BTreeMap<String, String>,
}

/// Description of one task of a model.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TaskManifest {
    /// Name, unique within the model.
    pub name: String,
    /// Description for the documentation pages, in Markdown.
    pub description: String,
    /// Whether items pass through `prepare` before they are batched.
    pub prepares: bool,
    /// The inputs that the task accepts.
    pub input: ValueManifest,
    /// The output that the task returns.
    pub output: ValueManifest,
    /// JSON Schema of the request's `parameters`, or null if the task has none.
    pub parameters_schema: Json,
    /// Example items, in the JSON form of the native routes. The first is used for warm-up, documentation and benchmarks.
    pub examples: Vec<Json>,
    /// Default batching limits. The configuration takes precedence.
    pub limits: Limits,
    /// Whether the task produces embeddings: its input is text, its output is one one-dimensional FP32 tensor, and the weight
    /// of an item, reported by `prepare` or with its output, is its number of tokens.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub embedding: bool,
    /// Whether the task ranks passages by their relevance to a query. An item is the JSON document `{"query": "…", "passages":
    /// ["…"]}`, and its output `{"results": [{"index": 0, "score": 0.9}]}`. The weight of an item is its number of tokens.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub reranker: bool,
    /// Whether the task produces sparse embeddings: its input is text, and its output the JSON document `[{"index": 7, "value":
    /// 0.5}]`, in the order of the indices. The weight of an item is its number of tokens.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub sparse_embedding: bool,
    /// Whether the task produces a vector for each token of a text: its input is text, and its output one FP32 tensor with the
    /// dimensions tokens and size. The weight of an item is its number of tokens.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub token_embeddings: bool,
    /// Whether the task scores labels: its input is text, or JSON, which is a string or a pair of strings. Its output is the JSON
    /// document `[{"label": "…", "score": 0.9}]`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub classifier: bool,
    /// Whether the task splits texts into tokens: its input is text, and its output the JSON document `[{"id": 7, "text": "…",
    /// "special": false, "start": 0, "stop": 2}]`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub tokenizer: bool,
    /// Whether the task converts tokens to a text: its input is a JSON array of token ids, and its output text.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub detokenizer: bool,
    /// Whether the task answers requests that name only the model. At most one task of a model; the configuration takes
    /// precedence.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub default: bool,
    /// Whether the tensors of an item are whole tensors rather than rows of a batch. In protocols with a batch dimension, a
    /// request to this task is one item, and every tensor has exactly the declared shape.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub unbatched: bool,
    /// Whether the task creates items of a requested weight, with which its batches are measured.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub samples: bool,
    /// Outcome of the trial computation that the plugin ran while loading the model. Absent if there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trial: Option<Trial>,
}

/// Outcome of a trial computation that the plugin ran while loading a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "lowercase")]
pub enum Trial {
    /// The task computed an output.
    Succeeded,
    /// The computation failed. Other inputs may still succeed.
    Failed {
        /// What failed, as shown to clients. Must not contain paths or secrets.
        reason: String,
    },
}

/// Description of an input or an output.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ValueManifest {
    /// Accepted kinds. An output has exactly one.
    pub kinds: Vec<Kind>,
    /// Accepted media types of kind `bytes`. Empty if all are accepted.
    pub media_types: Vec<String>,
    /// JSON Schema of kind `json`.
    pub schema: Json,
    /// Tensors of kind `tensors`.
    pub tensors: Vec<TensorManifest>,
}

impl ValueManifest {
    /// Describes any value of this kind.
    pub fn of(kind: Kind) -> Self {
        Self {
            kinds: vec![kind],
            ..Self::default()
        }
    }

    /// Describes these tensors.
    pub fn of_tensors(tensors: impl Into<Vec<TensorManifest>>) -> Self {
        Self {
            tensors: tensors.into(),
            ..Self::of(Kind::Tensors)
        }
    }

    /// Finds the declaration of the tensor `name`. Returns its index, and the position of the tensor in its sequence, or 0 if
    /// the declaration is not a sequence.
    pub fn find_tensor(&self, name: &str) -> Option<(usize, usize)> {
        let exact = |tensor: &TensorManifest| !tensor.sequence && tensor.name == name;
        if let Some(index) = self.tensors.iter().position(exact) {
            return Some((index, 0));
        }
        let mut tensors = self.tensors.iter().enumerate();
        tensors.find_map(|(index, tensor)| Some((index, tensor.position_in_sequence(name)?)))
    }
}

/// Kind of a value; see [`crate::codes::kind`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// UTF-8 text.
    Text,
    /// Bytes with a media type.
    Bytes,
    /// One JSON document.
    Json,
    /// Named tensors.
    Tensors,
}

impl Kind {
    /// Returns the name that manifests use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Bytes => "bytes",
            Self::Json => "json",
            Self::Tensors => "tensors",
        }
    }
}

/// Description of one named tensor.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TensorManifest {
    /// Name in requests and replies.
    pub name: String,
    /// Datatype in the Open Inference Protocol, such as `FP32`, `INT64` or `BYTES`.
    pub dtype: String,
    /// Dimensions of one item, without the batch dimension; -1 for any size. In an unbatched task, the dimensions of the whole
    /// tensor.
    pub shape: Vec<i64>,
    /// Description for the documentation pages.
    pub description: String,
    /// Whether this declares a sequence: any number of tensors of this datatype and shape, named `name.0`, `name.1` and so on.
    /// Only in unbatched tasks.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub sequence: bool,
    /// Whether the tensor can have any number of dimensions. If true, `shape` is empty.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub unranked: bool,
}

impl TensorManifest {
    /// Describes a tensor, without a description for the documentation.
    pub fn new(name: impl Into<String>, dtype: impl Into<String>, shape: impl Into<Vec<i64>>) -> Self {
        Self {
            name: name.into(),
            dtype: dtype.into(),
            shape: shape.into(),
            description: String::new(),
            sequence: false,
            unranked: false,
        }
    }

    /// Returns the position of the tensor `name` in this sequence, or `None` if this is not a sequence or the tensor is not a
    /// member of it.
    pub fn position_in_sequence(&self, name: &str) -> Option<usize> {
        position_in_sequence(&self.name, name).filter(|_| self.sequence)
    }
}

/// Returns the position of the tensor `name` in `sequence`, such as 2 for `parts.2` in `parts`.
pub fn position_in_sequence(sequence: &str, name: &str) -> Option<usize> {
    let position = name.strip_prefix(sequence)?.strip_prefix('.')?;
    let is_canonical =
        position.bytes().all(|byte| byte.is_ascii_digit()) && (position == "0" || !position.starts_with('0'));
    position.parse().ok().filter(|_| is_canonical)
}

/// Batching limits that a task declares. If a limit is absent, the server's default applies.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Maximum number of items in a batch.
    pub max_batch_size: Option<usize>,
    /// Maximum total weight of a batch.
    pub max_batch_weight: Option<u64>,
    /// How the cost of a batch is computed.
    pub weight_rule: Option<WeightRule>,
}

/// How the cost of a batch is computed from the weights of its items.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WeightRule {
    /// Every item is padded to the heaviest: `count × max(weight)`.
    Padded,
    /// Sum of the weights.
    Sum,
}

/// Context in which a model is loaded.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LoadContext {
    /// The configured name of the model.
    pub model: String,
    /// `[models.settings]`.
    pub settings: Json,
    /// Directory of the configuration file. Relative paths in the settings are relative to it.
    pub base_dir: PathBuf,
    /// Maximum number of concurrent `predict_batch` calls.
    pub workers: u32,
    /// Number of threads that one `predict_batch` call should use.
    pub threads: u32,
    /// Whether another process has already loaded this model with the same settings, as for a second worker or a restarted
    /// one. The operator has then already seen what loading reports.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub is_repeated: bool,
    /// Whether the memory of batches is predicted, or is measured for such predictions. A model that has the choice should then
    /// return the memory of a batch to the system after it, instead of keeping it for the next batch.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub is_calibrated: bool,
}
