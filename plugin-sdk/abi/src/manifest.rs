//! What plugins and models say about themselves, as JSON. Every field has a default, so that either side may be older.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

/// What can be said of a plugin without loading a model.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PluginManifest {
    /// Name of the plugin's package.
    pub name: String,
    /// Version of the plugin's package.
    pub version: String,
    /// One or two sentences.
    pub description: String,
    /// Version of the SDK that it was built with.
    pub sdk_version: String,
    /// JSON Schema of `[models.settings]`.
    pub settings_schema: Json,
    /// The tasks, where they do not depend on the settings; else empty.
    pub tasks: Vec<TaskManifest>,
    /// Where it would rather run; the operator's configuration wins. Absent means: the server's default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub isolation: Option<Isolation>,
    /// Whether it was built with debug assertions, as `cargo build` does without `--release`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub debug_build: bool,
}

/// Where a plugin runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Isolation {
    /// In the server's process.
    Thread,
    /// In processes of its own.
    Process,
}

/// What a loaded model is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ModelManifest {
    /// Framework or format that the model runs on (`onnx`, `rust`); may be empty.
    pub platform: String,
    /// The tasks; their order gives them the indices that calls use.
    pub tasks: Vec<TaskManifest>,
    /// Files that it was loaded from beside those that its settings name. When one of them changes, a reload of the
    /// configuration loads the model again.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<PathBuf>,
    /// Facts about the loaded model for people, such as the runtime that was chosen and why, by `snake_case` names. The
    /// server shows them in its list of models.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub details: BTreeMap<String, String>,
}

/// One named ability of a model.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TaskManifest {
    /// Unique within the model.
    pub name: String,
    /// For the documentation pages; Markdown.
    pub description: String,
    /// Whether items pass through `prepare` before they are batched.
    pub prepares: bool,
    /// What an item is.
    pub input: ValueManifest,
    /// What an outcome is.
    pub output: ValueManifest,
    /// JSON Schema of the request's `parameters`, or null if the task takes none.
    pub parameters_schema: Json,
    /// Example items, in the JSON form of the native routes. The first is used for warm-up, docs and benchmarks.
    pub examples: Vec<Json>,
    /// Limits that fit the model; the operator's configuration wins.
    pub limits: Limits,
    /// Whether it makes embeddings: it takes text, its output is one FP32 tensor of one dimension, and the weight of an
    /// item, stated by `prepare` or with its output, is its number of tokens.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub embedding: bool,
    /// Whether the tensors of an item are whole tensors and not rows of a batch: in protocols that have a batch dimension, a
    /// request to this task is one item, and every tensor has exactly the declared shape.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub unbatched: bool,
    /// The outcome of the computation that the plugin tried while it loaded the model; absent if it tried none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trial: Option<Trial>,
}

/// The outcome of a computation that the plugin tried while it loaded a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "lowercase")]
pub enum Trial {
    /// The task computed an outcome.
    Succeeded,
    /// It did not. The model may still serve other input.
    Failed {
        /// What failed, for clients: no paths and no secrets.
        reason: String,
    },
}

/// Shape of an input or an output.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ValueManifest {
    /// The kinds it may have; an output has exactly one.
    pub kinds: Vec<Kind>,
    /// Media types of kind `bytes`; empty if any will do.
    pub media_types: Vec<String>,
    /// JSON Schema of kind `json`.
    pub schema: Json,
    /// Tensors of kind `tensors`.
    pub tensors: Vec<TensorManifest>,
}

impl ValueManifest {
    /// Any value of that kind.
    pub fn of(kind: Kind) -> Self {
        Self {
            kinds: vec![kind],
            ..Self::default()
        }
    }

    /// These tensors.
    pub fn of_tensors(tensors: impl Into<Vec<TensorManifest>>) -> Self {
        Self {
            tensors: tensors.into(),
            ..Self::of(Kind::Tensors)
        }
    }

    /// The declared tensor that a tensor of this name belongs to, by its index, and the position of that tensor in its
    /// sequence; 0 if it belongs to no sequence.
    pub fn find_tensor(&self, name: &str) -> Option<(usize, usize)> {
        let exact = |tensor: &TensorManifest| !tensor.sequence && tensor.name == name;
        if let Some(index) = self.tensors.iter().position(exact) {
            return Some((index, 0));
        }
        let mut tensors = self.tensors.iter().enumerate();
        tensors.find_map(|(index, tensor)| Some((index, tensor.position_in_sequence(name)?)))
    }
}

/// Kind of a value, see [`crate::codes::kind`].
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
    /// As manifests spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Bytes => "bytes",
            Self::Json => "json",
            Self::Tensors => "tensors",
        }
    }
}

/// One named tensor.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TensorManifest {
    /// Name, as in requests and replies.
    pub name: String,
    /// Datatype name of the Open Inference Protocol: `FP32`, `INT64`, `BYTES`, ….
    pub dtype: String,
    /// Dimensions of one item, without the batch dimension; -1 where any size will do. In an unbatched task the dimensions
    /// of the whole tensor.
    pub shape: Vec<i64>,
    /// For the documentation pages.
    pub description: String,
    /// Whether it stands for a sequence: any number of tensors of this datatype and shape, called `name.0`, `name.1`, ….
    /// Only in unbatched tasks.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub sequence: bool,
    /// Whether it may have any number of dimensions; `shape` is empty then.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub unranked: bool,
}

impl TensorManifest {
    /// A tensor without a description.
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

    /// The position that a tensor of this name has in the sequence; `None` if this is not a sequence or the name does not
    /// belong to it.
    pub fn position_in_sequence(&self, name: &str) -> Option<usize> {
        position_in_sequence(&self.name, name).filter(|_| self.sequence)
    }
}

/// The position of the tensor `name` in `sequence`: 2 for `parts.2` in `parts`.
pub fn position_in_sequence(sequence: &str, name: &str) -> Option<usize> {
    let position = name.strip_prefix(sequence)?.strip_prefix('.')?;
    let is_canonical =
        position.bytes().all(|byte| byte.is_ascii_digit()) && (position == "0" || !position.starts_with('0'));
    position.parse().ok().filter(|_| is_canonical)
}

/// Batching limits that a task declares. Absent means: the server's default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Most items in a batch.
    pub max_batch_size: Option<usize>,
    /// Most weight in a batch.
    pub max_batch_weight: Option<u64>,
    /// How weights add up.
    pub weight_rule: Option<WeightRule>,
}

/// How the weights of a batch add up to its cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WeightRule {
    /// Every item is padded to the heaviest: `count × heaviest`.
    Padded,
    /// The sum of the weights.
    Sum,
}

/// What a model is loaded with.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LoadContext {
    /// The configured name of the model.
    pub model: String,
    /// `[models.settings]`.
    pub settings: Json,
    /// Folder of the configuration file: what relative paths in the settings start from.
    pub base_dir: PathBuf,
    /// How many `predict_batch` calls may run at once.
    pub workers: u32,
    /// How many threads one `predict_batch` should compute with.
    pub threads: u32,
    /// Whether another process has loaded this model before with the same settings: a further worker, or the successor of one
    /// that died. What loading reports to the operator is known then.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub is_repeated: bool,
}
