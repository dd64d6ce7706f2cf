//! The traits that plugin authors implement for tasks, and the description and list of a model's tasks.

use std::fmt;

use plugin_abi::check;
use plugin_abi::manifest::{Kind, Limits, TaskManifest, Trial, ValueManifest, WeightRule};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::Value as JsonValue;

use crate::adapter::{Direct, ErasedTask, Preparing};
use crate::batch::{Batch, BatchResult, Item, Prepared};
use crate::error::ItemError;
use crate::input::Input;
use crate::output::Output;
use crate::schema;
use crate::tensor::TensorInfo;

/// A task of the model `M` without a prepare step.
///
/// See [`Model`](crate::Model) for an example.
pub trait Task<M>: Send + Sync + 'static {
    /// Input type of an item: [`Text`](crate::Text), [`Bytes`](crate::Bytes), [`Json<T>`](crate::Json),
    /// [`Tensor`](crate::Tensor), [`Tensors`](crate::Tensors) or [`Any`](crate::Any).
    type Input: Input;
    /// Output type of an item: [`Text`](crate::Text), [`Bytes`](crate::Bytes), [`Json<T>`](crate::Json),
    /// [`Tensor`](crate::Tensor), [`Tensors`](crate::Tensors) or [`Any`](crate::Any).
    type Output: Output;

    /// Describes the task: its documentation, examples and limits.
    fn describe(&self) -> TaskInfo {
        TaskInfo::default()
    }

    /// Computes one outcome for each item, in the order of the items. Items that cannot be decoded have already failed and are
    /// not in the batch.
    ///
    /// A panic fails only this batch. The model must remain usable afterwards.
    ///
    /// # Errors
    /// The whole batch fails. If only one item is at fault, return an `Err` for that item instead.
    fn predict<'a>(
        &self,
        model: &M,
        batch: Batch<'a, <Self::Input as Input>::Value<'a>>,
    ) -> BatchResult<<Self::Output as Output>::Item>;

    /// Creates an item whose weight is about `weight`, as a client would write it in `"inputs"`. `None` if there is no item of
    /// about that weight, for example because it exceeds what the model accepts.
    ///
    /// `inference-server calibrate` measures batches of such items. It is called only if the description declares
    /// [`TaskInfo::samples`]. All items of a task without a prepare step count as weight 1, so `weight` is then 1.
    fn sample(&self, _model: &M, _weight: u64) -> Option<JsonValue> {
        None
    }
}

/// A task of the model `M` with a prepare step, which preprocesses items one by one, in parallel with the model.
///
/// Decode images or tokenize text in this step. It also reports the weight of an item, so that the server can batch by tokens
/// or pixels.
///
/// ```
/// use plugin_sdk::prelude::*;
/// # struct Counter;
/// # impl Model for Counter {
/// #     type Settings = NoSettings;
/// #     fn load(_: NoSettings, _: &LoadContext) -> Result<Self, LoadError> { Ok(Self) }
/// #     fn tasks() -> Tasks<Self> { Tasks::new().add_prepared("lengths", Lengths) }
/// # }
/// struct Lengths;
///
/// impl PreparedTask<Counter> for Lengths {
///     type Input = Text;
///     type Output = Json<Vec<usize>>;
///     type Prepared = Vec<String>;
///
///     fn prepare(&self, _model: &Counter, item: Item<&str>) -> Result<Prepared<Vec<String>>, ItemError> {
///         let words: Vec<_> = item.value.split_whitespace().map(str::to_owned).collect();
///         if words.is_empty() {
///             return Err(ItemError::invalid("the text has no words, expected at least one"));
///         }
///         let weight = words.len() as u64;
///         Ok(Prepared::new(words).weight(weight))
///     }
///
///     fn predict(&self, _model: &Counter, batch: Batch<&Vec<String>>) -> BatchResult<Vec<usize>> {
///         batch.map(|words| words.iter().map(String::len).collect())
///     }
///
///     // The following is optional: it lets the server measure batches of any weight.
///     fn describe(&self) -> TaskInfo {
///         TaskInfo::new("Returns the length of each word.").samples()
///     }
///
///     fn sample(&self, _model: &Counter, weight: u64) -> Option<plugin_sdk::serde_json::Value> {
///         (weight <= 512).then(|| json!("word ".repeat(weight as usize)))
///     }
/// }
/// # let counter = plugin_sdk::testing::Harness::<Counter>::load(json!({})).expect("loads");
/// # assert_eq!(counter.predict("lengths", &[json!("to be"), json!("")])[0], Ok(json!([2, 2])));
/// # assert_eq!(counter.prepare("lengths", &counter.sample("lengths", 7).unwrap().unwrap()).unwrap().weight, 7);
/// ```
pub trait PreparedTask<M>: Send + Sync + 'static {
    /// Same as [`Task::Input`].
    type Input: Input;
    /// Same as [`Task::Output`].
    type Output: Output;
    /// Type of a prepared item.
    type Prepared: Send + Sync + 'static;

    /// Same as [`Task::describe`].
    fn describe(&self) -> TaskInfo {
        TaskInfo::default()
    }

    /// Decodes and preprocesses one item.
    ///
    /// # Errors
    /// The item fails. Other items are not affected.
    fn prepare<'a>(
        &self,
        model: &M,
        item: Item<'a, <Self::Input as Input>::Value<'a>>,
    ) -> Result<Prepared<Self::Prepared>, ItemError>;

    /// Like [`Task::predict`], with prepared items.
    ///
    /// # Errors
    /// Same as [`Task::predict`].
    fn predict<'a>(
        &self,
        model: &M,
        batch: Batch<'a, &'a Self::Prepared>,
    ) -> BatchResult<<Self::Output as Output>::Item>;

    /// Creates an item whose weight is about `weight`, as a client would write it in `"inputs"`. `None` if there is no item of
    /// about that weight, for example because it exceeds what the model accepts.
    ///
    /// `inference-server calibrate` measures batches of such items. It is called only if the description declares
    /// [`TaskInfo::samples`]. The weight that counts is the one that [`prepare`](Self::prepare) states.
    fn sample(&self, _model: &M, _weight: u64) -> Option<JsonValue> {
        None
    }
}

/// The tasks of a model, by name.
pub struct Tasks<M> {
    list: Vec<(String, Box<dyn ErasedTask<M>>)>,
}

impl<M: 'static> Tasks<M> {
    /// Creates an empty list.
    pub fn new() -> Self {
        Self { list: Vec::new() }
    }

    /// Adds a task. The name is part of URLs: it must be unique within the model and consist of letters, digits, `-` and `_`.
    #[must_use]
    #[allow(
        clippy::should_implement_trait,
        reason = "it adds to a list and is unrelated to the operator `+`"
    )]
    pub fn add(mut self, name: impl Into<String>, task: impl Task<M>) -> Self {
        self.list.push((name.into(), Box::new(Direct(task))));
        self
    }

    /// Adds a task with a prepare step.
    #[must_use]
    pub fn add_prepared(mut self, name: impl Into<String>, task: impl PreparedTask<M>) -> Self {
        self.list.push((name.into(), Box::new(Preparing(task))));
        self
    }

    pub(crate) fn get(&self, index: u32) -> Option<&dyn ErasedTask<M>> {
        self.list.get(index as usize).map(|(_, task)| &**task)
    }

    pub(crate) fn manifests(&self) -> Vec<TaskManifest> {
        self.list
            .iter()
            .map(|(name, task)| TaskManifest {
                name: name.clone(),
                ..task.manifest()
            })
            .collect()
    }
}

impl<M: 'static> Default for Tasks<M> {
    fn default() -> Self {
        Self::new()
    }
}

impl<M> fmt::Debug for Tasks<M> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_list()
            .entries(self.list.iter().map(|(name, _)| name))
            .finish()
    }
}

/// Description of a task.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TaskInfo {
    description: String,
    examples: Vec<JsonValue>,
    parameters_schema: JsonValue,
    limits: Limits,
    embedding: bool,
    reranker: bool,
    sparse_embedding: bool,
    token_embeddings: bool,
    classifier: bool,
    tokenizer: bool,
    detokenizer: bool,
    default: bool,
    unbatched: bool,
    samples: bool,
    trial: Option<Trial>,
    media_types: Vec<String>,
    input_tensors: Vec<TensorInfo>,
    output_tensors: Vec<TensorInfo>,
    output_media_types: Vec<String>,
    input: Option<ValueManifest>,
    output: Option<ValueManifest>,
}

impl TaskInfo {
    /// Creates a description with a text for the documentation pages, in Markdown.
    pub fn new(description: impl Into<String>) -> Self {
        Self {
            description: description.into(),
            ..Self::default()
        }
    }

    /// Adds an example item, as a client would write it in `"inputs"`: a string for text, the document itself for JSON,
    /// `{"b64": "…", "media_type": "image/png"}` for bytes, and an object of nested arrays for tensors.
    ///
    /// The server warms up the model with the first example and shows all examples in its documentation.
    #[must_use]
    pub fn example(mut self, item: JsonValue) -> Self {
        self.examples.push(item);
        self
    }

    /// Sets the maximum number of items in a batch. The configuration takes precedence.
    #[must_use]
    pub fn max_batch_size(mut self, items: usize) -> Self {
        self.limits.max_batch_size = Some(items);
        self
    }

    /// Sets the maximum cost of a batch in which every item is padded to the heaviest: `count × max(weight)`.
    #[must_use]
    pub fn max_padded_weight(mut self, weight: u64) -> Self {
        self.limits.max_batch_weight = Some(weight);
        self.limits.weight_rule = Some(WeightRule::Padded);
        self
    }

    /// Sets the maximum sum of the weights of a batch.
    #[must_use]
    pub fn max_total_weight(mut self, weight: u64) -> Self {
        self.limits.max_batch_weight = Some(weight);
        self.limits.weight_rule = Some(WeightRule::Sum);
        self
    }

    /// Declares that the task produces embeddings, so that the server also serves it at `/v1/embeddings`. Its input must be
    /// text, its output one one-dimensional FP32 tensor, and the weight that `prepare` or
    /// [`Outputs::weights`](crate::Outputs::weights) reports must be the number of tokens.
    #[must_use]
    pub fn embedding(mut self) -> Self {
        self.embedding = true;
        self
    }

    /// Declares that the task ranks passages by their relevance to a query, so that the server also serves it at `/rerank`,
    /// `/v1/rerank` and `/v2/rerank`. An item is the JSON document `{"query": "…", "passages": ["…"]}`, and its output
    /// `{"results": [{"index": 0, "score": 0.9}, …]}` with one result for each passage. The weight of an item should be its number
    /// of tokens. If clients can choose, `parameters` has `raw_scores` and `truncate`.
    #[must_use]
    pub fn reranker(mut self) -> Self {
        self.reranker = true;
        self
    }

    /// Declares that the task produces sparse embeddings, so that the server also serves it at `/embed_sparse`. Its input must be
    /// text, and its output the JSON document `[{"index": 7, "value": 0.5}, …]`, in the order of the indices.
    #[must_use]
    pub fn sparse_embedding(mut self) -> Self {
        self.sparse_embedding = true;
        self
    }

    /// Declares that the task produces a vector for each token of a text, so that the server also serves it at `/embed_all`. Its
    /// input must be text, and its output one FP32 tensor with the dimensions tokens and size.
    #[must_use]
    pub fn token_embeddings(mut self) -> Self {
        self.token_embeddings = true;
        self
    }

    /// Declares that the task scores labels, so that the server also serves it at `/predict`. Its input must be text, or JSON, which
    /// is a string or a pair of strings. Its output is the JSON document `[{"label": "…", "score": 0.9}, …]`. If clients can
    /// choose, `parameters` has `raw_scores` and `truncate`.
    #[must_use]
    pub fn classifier(mut self) -> Self {
        self.classifier = true;
        self
    }

    /// Declares that the task splits texts into tokens, so that the server also serves it at `/tokenize`. Its input must be text,
    /// and its output the JSON document `[{"id": 7, "text": "…", "special": false, "start": 0, "stop": 2}, …]`. If clients can
    /// choose, `parameters` has `add_special_tokens` and `prompt_name`.
    #[must_use]
    pub fn tokenizer(mut self) -> Self {
        self.tokenizer = true;
        self
    }

    /// Declares that the task converts tokens to a text, so that the server also serves it at `/decode`. Its input is a JSON array
    /// of token ids, and its output text. If clients can choose, `parameters` has `skip_special_tokens`.
    #[must_use]
    pub fn detokenizer(mut self) -> Self {
        self.detokenizer = true;
        self
    }

    /// Declares that the task answers requests that name only the model. A model with a single task needs no such declaration,
    /// and the key `default_task` of the configuration takes precedence.
    #[must_use]
    pub fn default_task(mut self) -> Self {
        self.default = true;
        self
    }

    /// Declares that the tensors of an item are whole tensors rather than rows of a batch: they can be scalars or have
    /// dimensions of size 0, and their first dimension has no special meaning. In a protocol with a batch dimension, a request
    /// is then one item with exactly the declared shapes.
    ///
    /// `predict` is still called with batches of such items, up to [`max_batch_size`](Self::max_batch_size).
    #[must_use]
    pub fn unbatched(mut self) -> Self {
        self.unbatched = true;
        self
    }

    /// Declares that [`Task::sample`] or [`PreparedTask::sample`] creates items, so that the memory and the time of batches
    /// can be measured without recorded requests. `inference-server inspect` prints it.
    #[must_use]
    pub fn samples(mut self) -> Self {
        self.samples = true;
        self
    }

    /// Reports the outcome of a trial computation in [`Model::load`](crate::Model::load). The server shows it, so that users
    /// can tell whether the model has computed anything yet. After a failed trial, the model is served even if its examples
    /// fail during warm-up.
    ///
    /// A reason that is longer than the server accepts is truncated.
    #[must_use]
    pub fn trial(mut self, trial: Trial) -> Self {
        self.trial = Some(match trial {
            Trial::Succeeded => Trial::Succeeded,
            Trial::Failed { reason } => Trial::Failed {
                reason: check::cut_text(reason),
            },
        });
        self
    }

    /// Declares that the task reads `P` from the `parameters` of a request.
    #[must_use]
    pub fn parameters<P: DeserializeOwned + JsonSchema>(mut self) -> Self {
        self.parameters_schema = schema::of_input::<P>();
        self
    }

    /// Declares the accepted media types of bytes. All are accepted by default.
    #[must_use]
    pub fn accepts<T: Into<String>>(mut self, media_types: impl IntoIterator<Item = T>) -> Self {
        self.media_types = media_types.into_iter().map(Into::into).collect();
        self
    }

    /// Declares the media types of bytes that the task returns.
    #[must_use]
    pub fn returns<T: Into<String>>(mut self, media_types: impl IntoIterator<Item = T>) -> Self {
        self.output_media_types = media_types.into_iter().map(Into::into).collect();
        self
    }

    /// Declares an input tensor.
    #[must_use]
    pub fn input_tensor(mut self, tensor: TensorInfo) -> Self {
        self.input_tensors.push(tensor);
        self
    }

    /// Declares an output tensor.
    #[must_use]
    pub fn output_tensor(mut self, tensor: TensorInfo) -> Self {
        self.output_tensors.push(tensor);
        self
    }

    /// Overrides the declaration that follows from the task's input type. For tasks with [`Any`](crate::Any) as input, whose
    /// kind depends on the settings.
    #[must_use]
    pub fn input(mut self, input: ValueManifest) -> Self {
        self.input = Some(input);
        self
    }

    /// Overrides the declaration that follows from the task's output type. For tasks with [`Any`](crate::Any) as output, whose
    /// kind depends on the settings.
    #[must_use]
    pub fn output(mut self, output: ValueManifest) -> Self {
        self.output = Some(output);
        self
    }

    /// Sets the JSON Schema of `parameters`. Like [`parameters`](Self::parameters), for parameters that depend on the settings.
    #[must_use]
    pub fn parameters_schema(mut self, schema: JsonValue) -> Self {
        self.parameters_schema = schema;
        self
    }

    /// Returns the manifest of a task with these types, without its name, which only [`Tasks`] knows.
    pub(crate) fn manifest<I: Input, O: Output>(self, prepares: bool) -> TaskManifest {
        let mut input = self.input.unwrap_or_else(I::manifest);
        let mut output = self.output.unwrap_or_else(O::manifest);
        // A task with `Any` as input accepts tensors only if it declares them.
        if input.kinds.len() > 1 && input.tensors.is_empty() && self.input_tensors.is_empty() {
            input.kinds.retain(|kind| *kind != Kind::Tensors);
        }
        input.media_types.extend(self.media_types);
        output.media_types.extend(self.output_media_types);
        input
            .tensors
            .extend(self.input_tensors.into_iter().map(|tensor| tensor.0));
        output
            .tensors
            .extend(self.output_tensors.into_iter().map(|tensor| tensor.0));
        TaskManifest {
            name: String::new(),
            description: self.description,
            prepares,
            input,
            output,
            parameters_schema: self.parameters_schema,
            examples: self.examples,
            limits: self.limits,
            embedding: self.embedding,
            reranker: self.reranker,
            sparse_embedding: self.sparse_embedding,
            token_embeddings: self.token_embeddings,
            classifier: self.classifier,
            tokenizer: self.tokenizer,
            detokenizer: self.detokenizer,
            default: self.default,
            unbatched: self.unbatched,
            samples: self.samples,
            trial: self.trial,
        }
    }
}
