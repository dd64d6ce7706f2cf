//! Tasks as their author writes them, and the list of a model's tasks.

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

/// One named ability of the model `M`, whose items go to `predict` as they are.
///
/// See [`Model`](crate::Model) for an example.
pub trait Task<M>: Send + Sync + 'static {
    /// What an item is: [`Text`](crate::Text), [`Bytes`](crate::Bytes), [`Json<T>`](crate::Json), [`Tensor`](crate::Tensor),
    /// [`Tensors`](crate::Tensors), [`Any`](crate::Any).
    type Input: Input;
    /// What an outcome is: [`Text`](crate::Text), [`Bytes`](crate::Bytes), [`Json<T>`](crate::Json), [`Tensor`](crate::Tensor),
    /// [`Tensors`](crate::Tensors), [`Any`](crate::Any).
    type Output: Output;

    /// What the documentation says of the task, its examples and its limits.
    fn describe(&self) -> TaskInfo {
        TaskInfo::default()
    }

    /// Computes one outcome for each item, in their order. Items that could not be decoded are not in the batch: they have
    /// failed already, alone.
    ///
    /// A panic fails this batch only; the model must still be usable afterwards.
    ///
    /// # Errors
    /// The whole batch fails. Where a single item is at fault, collect an `Err` for that item instead.
    fn predict<'a>(
        &self,
        model: &M,
        batch: Batch<'a, <Self::Input as Input>::Value<'a>>,
    ) -> BatchResult<<Self::Output as Output>::Item>;
}

/// One named ability of the model `M`, whose items are first prepared one by one: in parallel, while the model computes.
///
/// Decoding an image or tokenising a text belongs here. Preparing also states what an item costs, so that the server can
/// batch by tokens or pixels.
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
///             return Err(ItemError::invalid("text has no words, expected at least one"));
///         }
///         let weight = words.len() as u64;
///         Ok(Prepared::new(words).weight(weight))
///     }
///
///     fn predict(&self, _model: &Counter, batch: Batch<&Vec<String>>) -> BatchResult<Vec<usize>> {
///         batch.map(|words| words.iter().map(String::len).collect())
///     }
/// }
/// # let counter = plugin_sdk::testing::Harness::<Counter>::load(json!({})).expect("loads");
/// # assert_eq!(counter.predict("lengths", &[json!("to be"), json!("")])[0], Ok(json!([2, 2])));
/// ```
pub trait PreparedTask<M>: Send + Sync + 'static {
    /// As [`Task::Input`].
    type Input: Input;
    /// As [`Task::Output`].
    type Output: Output;
    /// What an item becomes.
    type Prepared: Send + Sync + 'static;

    /// As [`Task::describe`].
    fn describe(&self) -> TaskInfo {
        TaskInfo::default()
    }

    /// Decodes and preprocesses one item.
    ///
    /// # Errors
    /// The item fails, alone.
    fn prepare<'a>(
        &self,
        model: &M,
        item: Item<'a, <Self::Input as Input>::Value<'a>>,
    ) -> Result<Prepared<Self::Prepared>, ItemError>;

    /// As [`Task::predict`], with prepared items.
    ///
    /// # Errors
    /// As [`Task::predict`].
    fn predict<'a>(
        &self,
        model: &M,
        batch: Batch<'a, &'a Self::Prepared>,
    ) -> BatchResult<<Self::Output as Output>::Item>;
}

/// The tasks of a model, by name.
pub struct Tasks<M> {
    list: Vec<(String, Box<dyn ErasedTask<M>>)>,
}

impl<M: 'static> Tasks<M> {
    /// No tasks yet.
    pub fn new() -> Self {
        Self { list: Vec::new() }
    }

    /// Adds a task. Names are unique within a model and become a part of URLs: letters, digits, `-` and `_`.
    #[must_use]
    #[allow(
        clippy::should_implement_trait,
        reason = "it adds to a list; nobody would write `tasks + task`"
    )]
    pub fn add(mut self, name: impl Into<String>, task: impl Task<M>) -> Self {
        self.list.push((name.into(), Box::new(Direct(task))));
        self
    }

    /// Adds a task whose items are prepared first.
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

/// What a task says about itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TaskInfo {
    description: String,
    examples: Vec<JsonValue>,
    parameters_schema: JsonValue,
    limits: Limits,
    embedding: bool,
    unbatched: bool,
    trial: Option<Trial>,
    media_types: Vec<String>,
    input_tensors: Vec<TensorInfo>,
    output_tensors: Vec<TensorInfo>,
    output_media_types: Vec<String>,
    input: Option<ValueManifest>,
    output: Option<ValueManifest>,
}

impl TaskInfo {
    /// Describes the task for its documentation pages, in Markdown.
    pub fn new(description: impl Into<String>) -> Self {
        Self {
            description: description.into(),
            ..Self::default()
        }
    }

    /// Adds an example item, as a client would write it in `"inputs"`: a string for text, the document itself for JSON,
    /// `{"b64": "…", "media_type": "image/png"}` for bytes, and for tensors nested arrays by name.
    ///
    /// The server warms the model up with the first one and shows them all in its documentation.
    #[must_use]
    pub fn example(mut self, item: JsonValue) -> Self {
        self.examples.push(item);
        self
    }

    /// Most items that a batch may have; the operator's configuration wins.
    #[must_use]
    pub fn max_batch_size(mut self, items: usize) -> Self {
        self.limits.max_batch_size = Some(items);
        self
    }

    /// Most weight that a batch may have, where every item is padded to the heaviest: `count × heaviest`.
    #[must_use]
    pub fn max_padded_weight(mut self, weight: u64) -> Self {
        self.limits.max_batch_weight = Some(weight);
        self.limits.weight_rule = Some(WeightRule::Padded);
        self
    }

    /// Most weight that a batch may have, where weights add up.
    #[must_use]
    pub fn max_total_weight(mut self, weight: u64) -> Self {
        self.limits.max_batch_weight = Some(weight);
        self.limits.weight_rule = Some(WeightRule::Sum);
        self
    }

    /// The task makes embeddings, and the server offers it at `/v1/embeddings` as well: it takes text, answers one tensor of
    /// type FP32 and one dimension, and the weight that `prepare` or [`Outputs::weights`](crate::Outputs::weights) states is the
    /// number of tokens.
    #[must_use]
    pub fn embedding(mut self) -> Self {
        self.embedding = true;
        self
    }

    /// Declares that the tensors of an item are whole tensors, and not rows of a batch: they may be scalars, may have a
    /// dimension of size 0, and their first dimension has no special meaning. A request in a protocol with a batch dimension
    /// is then one item with exactly the declared shapes.
    ///
    /// `predict` is still called with batches of such items, up to [`max_batch_size`](Self::max_batch_size).
    #[must_use]
    pub fn unbatched(mut self) -> Self {
        self.unbatched = true;
        self
    }

    /// Reports the outcome of a computation that [`Model::load`](crate::Model::load) has tried. The server shows it, so that
    /// a model that has never computed anything is not mistaken for one that has. If the trial failed, examples that fail in
    /// the warm-up do not keep the model from serving.
    ///
    /// A reason longer than the server accepts is cut.
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

    /// The task reads `P` from the `parameters` of a request.
    #[must_use]
    pub fn parameters<P: DeserializeOwned + JsonSchema>(mut self) -> Self {
        self.parameters_schema = schema::of_input::<P>();
        self
    }

    /// Media types of the bytes that it takes; any, if not said.
    #[must_use]
    pub fn accepts<T: Into<String>>(mut self, media_types: impl IntoIterator<Item = T>) -> Self {
        self.media_types = media_types.into_iter().map(Into::into).collect();
        self
    }

    /// Media types of the bytes that it answers.
    #[must_use]
    pub fn returns<T: Into<String>>(mut self, media_types: impl IntoIterator<Item = T>) -> Self {
        self.output_media_types = media_types.into_iter().map(Into::into).collect();
        self
    }

    /// Adds a tensor that it takes.
    #[must_use]
    pub fn input_tensor(mut self, tensor: TensorInfo) -> Self {
        self.input_tensors.push(tensor);
        self
    }

    /// Adds a tensor that it answers.
    #[must_use]
    pub fn output_tensor(mut self, tensor: TensorInfo) -> Self {
        self.output_tensors.push(tensor);
        self
    }

    /// What an item is, in place of what the type of the task's input says: for [`Any`](crate::Any), where the settings
    /// decide.
    #[must_use]
    pub fn input(mut self, input: ValueManifest) -> Self {
        self.input = Some(input);
        self
    }

    /// What an outcome is, in place of what the type of the task's output says: for [`Any`](crate::Any), where the settings
    /// decide.
    #[must_use]
    pub fn output(mut self, output: ValueManifest) -> Self {
        self.output = Some(output);
        self
    }

    /// The `parameters` of a request are described by this JSON Schema: as [`parameters`](Self::parameters), where the
    /// settings decide.
    #[must_use]
    pub fn parameters_schema(mut self, schema: JsonValue) -> Self {
        self.parameters_schema = schema;
        self
    }

    /// The manifest of a task with that input and output; its name is filled in by the list of tasks.
    pub(crate) fn manifest<I: Input, O: Output>(self, prepares: bool) -> TaskManifest {
        let mut input = self.input.unwrap_or_else(I::manifest);
        let mut output = self.output.unwrap_or_else(O::manifest);
        // A task that takes anything takes tensors if it says which.
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
            unbatched: self.unbatched,
            trial: self.trial,
        }
    }
}
