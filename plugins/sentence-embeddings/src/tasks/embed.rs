//! Vectors of texts: one vector, a vector for each token, or a number for each word of the vocabulary.

use std::sync::Arc;

use plugin_sdk::prelude::*;
use plugin_sdk::serde_json::Value as JsonValue;
use transformer::Tokens;

use super::{Direction, Role, TextReader, finite, info, truncation};
use crate::SentenceEmbeddings;
use crate::model_spec::{Embedding, SparseEmbedding, TokenEmbedding};

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
    /// Whether vectors are scaled to length 1. The default is the setting `normalize`.
    normalize: Option<bool>,
}

/// Parameters of sparse vectors and of the vectors of tokens.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct TextParameters {
    /// Name of the prompt that is prepended to the text, as in the model directory. The default is that of the task.
    prompt_name: Option<String>,
    /// Whether texts that are too long are truncated. The default is the setting `truncate`.
    truncate: Option<bool>,
    /// The side of a text that truncation removes. The default is what the directory says.
    truncation_direction: Option<Direction>,
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
        Self {
            info: info(format!("Computes the vector of {what}{scaled}."))
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
        let parameters: EmbeddingParameters = item.parameters()?;
        let truncation = truncation(parameters.truncate, parameters.truncation_direction);
        let prompt_name = parameters.prompt_name.as_deref();
        let tokens = self.reader.read(model, item.value, prompt_name, truncation)?;
        let weight = tokens.len() as u64;
        let normalize = parameters.normalize;
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

/// Task that computes a vector for each token of a text.
pub(crate) struct EmbedTokens {
    info: TaskInfo,
    reader: TextReader,
    embedding: Arc<TokenEmbedding>,
    /// Whether the vectors of some tokens are left out.
    skips: bool,
    width: usize,
}

impl EmbedTokens {
    pub(crate) fn new(role: Role, embedding: &Arc<TokenEmbedding>, width: usize) -> Self {
        let (what, example) = role.phrases();
        Self {
            info: info(format!("Computes a vector for each token of {what}."))
                .token_embeddings()
                .parameters::<TextParameters>()
                .output_tensor(TensorInfo::new("embeddings", DType::Fp32, &[-1, width as i64]))
                .example(json!(example)),
            reader: TextReader::new(role, &embedding.prompts, false),
            embedding: Arc::clone(embedding),
            skips: role == Role::Passage || embedding.skips_queries,
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
            .token_vectors(&batch, &self.embedding, batch.worker())?;
        let mut vectors = vectors.into_iter();
        batch.map(|tokens| {
            let vectors = vectors.next().unwrap_or_default();
            let is_kept = |id: &u32| !self.skips || !self.embedding.skipped.contains(id);
            let kept = vectors.chunks_exact(self.width).zip(&tokens.ids);
            let kept: Vec<f32> = kept
                .filter(|(_, id)| is_kept(id))
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
        Self {
            info: info(format!(
                "Computes the sparse vector of {what}: the words of the vocabulary with positive numbers, by their IDs."
            ))
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
    let parameters: TextParameters = item.parameters()?;
    let truncation = truncation(parameters.truncate, parameters.truncation_direction);
    let tokens = reader.read(model, item.value, parameters.prompt_name.as_deref(), truncation)?;
    let weight = tokens.len() as u64;
    Ok(Prepared::new(tokens).weight(weight))
}
