//! Vectors of texts: one vector, a vector for each token, or a number for each word of the vocabulary.

use std::sync::Arc;

use plugin_sdk::prelude::*;
use plugin_sdk::serde_json::Value as JsonValue;
use transformer::Tokens;

use super::{Direction, Role, TextParameters, TextReader, finite, info};
use crate::SentenceEmbeddings;
use crate::model_spec::{Embedding, Prompts, SparseEmbedding, TokenEmbedding};
use crate::stages::Stage;

/// Parameters of an embedding.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct EmbeddingParameters {
    /// Name of the prompt that is prepended to the text, as in the model directory. The default is that of the task.
    prompt_name: Option<String>,
    /// Whether texts that are too long are truncated. The default is the setting `truncate`.
    truncate: Option<bool>,
    /// The side of a text that truncation removes. The default is what the directory says.
    truncation_direction: Option<Direction>,
    /// The IDs of the tokens, including special tokens. The text must be empty then.
    token_ids: Option<Vec<u32>>,
    /// Whether vectors are scaled to length 1. The default is the setting `normalize`.
    normalize: Option<bool>,
}

impl EmbeddingParameters {
    /// Separates those of the text from `normalize`.
    fn split(self) -> (TextParameters, Option<bool>) {
        let text = TextParameters {
            prompt_name: self.prompt_name,
            truncate: self.truncate,
            truncation_direction: self.truncation_direction,
            token_ids: self.token_ids,
        };
        (text, self.normalize)
    }
}

/// A tokenized text, and what the client chose for its vector.
pub(crate) struct PreparedText {
    tokens: Tokens,
    normalize: Option<bool>,
}

/// Task that computes the vector of a text.
pub(crate) struct Embed {
    info: TaskInfo,
    reader: TextReader,
    embedding: Arc<Embedding>,
    width: usize,
}

impl Embed {
    pub(crate) fn new(role: Role, embedding: &Arc<Embedding>, width: usize) -> Self {
        let (what, example) = role.phrases();
        let scaled = if embedding.normalize {
            ", scaled to length 1"
        } else {
            ""
        };
        let info = info(format!("Computes the vector of {what}{scaled}."));
        Self {
            info: default_if(role == Role::Passage && embedding.prompts.are_same(), info)
                .embedding()
                .parameters::<EmbeddingParameters>()
                .output_tensor(TensorInfo::new("embedding", DType::Fp32, &[width as i64]))
                .example(json!(example)),
            reader: TextReader::new(role, &embedding.prompts, !embedding.includes_prompt),
            embedding: Arc::clone(embedding),
            width,
        }
    }
}

impl PreparedTask<SentenceEmbeddings> for Embed {
    type Input = Text;
    type Output = Tensor;
    type Prepared = PreparedText;

    fn describe(&self) -> TaskInfo {
        self.info.clone()
    }

    fn prepare(
        &self,
        model: &SentenceEmbeddings,
        item: Item<&str>,
    ) -> Result<Prepared<PreparedText>, ItemError> {
        let (parameters, normalize) = item.parameters::<EmbeddingParameters>()?.split();
        let tokens = self.reader.read(model, item.value, parameters)?;
        let weight = tokens.len() as u64;
        Ok(Prepared::new(PreparedText { tokens, normalize }).weight(weight))
    }

    fn predict(&self, model: &SentenceEmbeddings, batch: Batch<&PreparedText>) -> BatchResult<TensorOutput> {
        let texts: Vec<_> = batch.iter().map(|text| &text.tokens).collect();
        let mut vectors = model.encoder.vectors(&texts, &self.embedding, batch.worker())?;
        for (vector, text) in vectors.iter_mut().zip(&batch) {
            self.embedding.finish(vector, text.normalize);
        }
        let shape = [vectors.len(), self.width];
        Ok(Outputs::<TensorOutput>::batch(TensorOutput::new(
            "embedding",
            &shape,
            vectors.concat(),
        )))
    }

    fn sample(&self, model: &SentenceEmbeddings, weight: u64) -> Option<JsonValue> {
        self.reader.sample(model, weight).map(|text| json!(text))
    }
}

/// Declares a task as the default. Where queries and passages are the same, that of passages is.
fn default_if(is_default: bool, info: TaskInfo) -> TaskInfo {
    match is_default {
        true => info.default_task(),
        false => info,
    }
}

/// Where the vectors of tokens come from.
#[derive(Clone)]
pub(crate) enum TokenSource {
    /// A model that computes nothing else.
    Tokens(Arc<TokenEmbedding>),
    /// A model that pools them.
    Pooled(Arc<Embedding>),
}

impl TokenSource {
    fn prompts(&self) -> &Prompts {
        match self {
            Self::Tokens(embedding) => &embedding.prompts,
            Self::Pooled(embedding) => &embedding.prompts,
        }
    }

    fn stages(&self) -> &[Stage] {
        match self {
            Self::Tokens(embedding) => &embedding.stages,
            Self::Pooled(embedding) => &embedding.token_stages,
        }
    }

    /// Tokens whose vectors are left out.
    fn skipped(&self, role: Role) -> &[u32] {
        match self {
            Self::Tokens(embedding) if role != Role::Query || embedding.skips_queries => &embedding.skipped,
            Self::Tokens(_) | Self::Pooled(_) => &[],
        }
    }

    /// Whether queries and passages have the same vectors.
    fn is_same_for_roles(&self) -> bool {
        self.prompts().are_same() && self.skipped(Role::Query) == self.skipped(Role::Passage)
    }
}

/// Task that computes a vector for each token of a text.
pub(crate) struct EmbedTokens {
    info: TaskInfo,
    role: Role,
    reader: TextReader,
    source: TokenSource,
    width: usize,
}

impl EmbedTokens {
    pub(crate) fn new(role: Role, source: TokenSource, width: usize) -> Self {
        let (what, example) = role.phrases();
        let info = info(format!("Computes a vector for each token of {what}."));
        Self {
            info: default_if(role == Role::Passage && source.is_same_for_roles(), info)
                .token_embeddings()
                .parameters::<TextParameters>()
                .output_tensor(TensorInfo::new("embeddings", DType::Fp32, &[-1, width as i64]))
                .example(json!(example)),
            role,
            reader: TextReader::new(role, source.prompts(), false),
            source,
            width,
        }
    }
}

impl PreparedTask<SentenceEmbeddings> for EmbedTokens {
    type Input = Text;
    type Output = Tensor;
    type Prepared = Tokens;

    fn describe(&self) -> TaskInfo {
        self.info.clone()
    }

    fn prepare(&self, model: &SentenceEmbeddings, item: Item<&str>) -> Result<Prepared<Tokens>, ItemError> {
        prepare(&self.reader, model, &item)
    }

    fn predict(&self, model: &SentenceEmbeddings, batch: Batch<&Tokens>) -> BatchResult<TensorOutput> {
        let vectors = model
            .encoder
            .token_vectors(&batch, self.source.stages(), batch.worker())?;
        let skipped = self.source.skipped(self.role);
        let mut vectors = vectors.into_iter();
        batch.map(|tokens| {
            let vectors = vectors.next().unwrap_or_default();
            let kept = vectors.chunks_exact(self.width).zip(&tokens.ids);
            let kept: Vec<f32> = kept
                .filter(|(_, id)| !skipped.contains(id))
                .flat_map(|(vector, _)| vector)
                .copied()
                .collect();
            TensorOutput::new("embeddings", &[kept.len() / self.width, self.width], kept)
        })
    }

    fn sample(&self, model: &SentenceEmbeddings, weight: u64) -> Option<JsonValue> {
        self.reader.sample(model, weight).map(|text| json!(text))
    }
}

/// A word of the vocabulary.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Word {
    /// Its ID.
    index: u32,
    /// How much the text is about it.
    value: f32,
}

/// Task that computes a number for each word of the vocabulary.
pub(crate) struct EmbedWords {
    info: TaskInfo,
    reader: TextReader,
    embedding: Arc<SparseEmbedding>,
}

impl EmbedWords {
    pub(crate) fn new(role: Role, embedding: &Arc<SparseEmbedding>) -> Self {
        let (what, example) = role.phrases();
        let info = info(format!(
            "Computes the sparse vector of {what}: the words of the vocabulary with positive numbers, by their IDs."
        ));
        Self {
            info: default_if(role == Role::Passage && embedding.prompts.are_same(), info)
                .sparse_embedding()
                .parameters::<TextParameters>()
                .example(json!(example)),
            reader: TextReader::new(role, &embedding.prompts, false),
            embedding: Arc::clone(embedding),
        }
    }
}

impl PreparedTask<SentenceEmbeddings> for EmbedWords {
    type Input = Text;
    type Output = Json<Vec<Word>>;
    type Prepared = Tokens;

    fn describe(&self) -> TaskInfo {
        self.info.clone()
    }

    fn prepare(&self, model: &SentenceEmbeddings, item: Item<&str>) -> Result<Prepared<Tokens>, ItemError> {
        prepare(&self.reader, model, &item)
    }

    fn predict(&self, model: &SentenceEmbeddings, batch: Batch<&Tokens>) -> BatchResult<Vec<Word>> {
        let words = model.encoder.words(&batch, &self.embedding, batch.worker())?;
        let mut words = words.into_iter();
        batch.try_map(|_| {
            let words = words.next().unwrap_or_default().into_iter();
            let word = |(index, number)| {
                let value = finite(number)?;
                Ok(Word { index, value })
            };
            words.map(word).collect()
        })
    }

    fn sample(&self, model: &SentenceEmbeddings, weight: u64) -> Option<JsonValue> {
        self.reader.sample(model, weight).map(|text| json!(text))
    }
}

fn prepare(
    reader: &TextReader,
    model: &SentenceEmbeddings,
    item: &Item<&str>,
) -> Result<Prepared<Tokens>, ItemError> {
    let tokens = reader.read(model, item.value, item.parameters()?)?;
    let weight = tokens.len() as u64;
    Ok(Prepared::new(tokens).weight(weight))
}
