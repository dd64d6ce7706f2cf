//! Plugin that embeds, compares and reranks texts with models in the directory format of sentence-transformers. The results
//! match those of sentence-transformers. It is pure Rust and needs no other software.
//!
//! `model_spec` reads the model directory: `architectures` describes its network, `modules` and `stages` what follows the network,
//! `labels` what the numbers of a classification head mean, and `files` the rest. `tasks` tokenizes an item in its prepare step.
//! `encoder` computes a batch, either with `network` and its `heads` (on packed tokens, with the crate `transformer`) or with
//! `graph` (an ONNX file), and applies the modules. The README of this plugin is the documentation for operators.

#![forbid(unsafe_code)]

mod architectures;
mod encoder;
mod files;
mod graph;
mod heads;
mod labels;
mod model_spec;
mod modules;
mod network;
mod settings;
mod similarity;
mod stages;
mod tasks;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use plugin_sdk::prelude::*;
use transformer::{Tokenizer, Tokens, threads};

use crate::encoder::Encoder;
use crate::labels::Labels;
use crate::model_spec::{Embedding, ModelSpec, Prompts, Purpose, SparseEmbedding, TokenEmbedding};
pub use crate::settings::Settings;
use crate::tasks::{
    Classify, Decode, Embed, EmbedTokens, EmbedWords, Rerank, Role, Similarity, TokenSource, Tokenize,
};

/// A loaded model.
pub struct SentenceEmbeddings {
    tokenizer: Tokenizer,
    prompts: Prompts,
    encoder: Encoder,
    capability: Capability,
    max_passages: usize,
}

/// What a model computes, with the length of its vectors. Tasks share it.
enum Capability {
    Embed {
        embedding: Arc<Embedding>,
        width: usize,
        /// Length of the vectors of tokens.
        token_width: usize,
    },
    EmbedTokens(Arc<TokenEmbedding>, usize),
    EmbedWords(Arc<SparseEmbedding>),
    Rank(Labels),
    Classify(Labels),
}

impl SentenceEmbeddings {
    /// Loads a model. Paths in the settings are relative to `base_dir`. `workers` is the number of concurrent batches, and
    /// `threads` the number of threads of each, unless the settings specify it.
    ///
    /// # Errors
    /// The settings or the model directory are invalid.
    pub fn open(
        settings: Settings,
        base_dir: &Path,
        workers: usize,
        threads: usize,
    ) -> Result<Self, LoadError> {
        let threads = threads::thread_count(settings.threads, threads)?;
        let spec = ModelSpec::read(&base_dir.join(&settings.folder), &settings)?;
        let encoder = Encoder::load(&spec, workers, threads)?;
        let ModelSpec {
            tokenizer,
            prompts,
            purpose,
            ..
        } = spec;
        if let Some(known) = encoder
            .vocabulary()
            .filter(|known| *known < tokenizer.vocabulary())
        {
            let message = format!(
                "the tokenizer has IDs up to {}, but the network has a vocabulary of {known} IDs",
                tokenizer.vocabulary() - 1
            );
            return Err(LoadError::setting("folder", message));
        }
        let capability = match purpose {
            Purpose::Embed(embedding) => {
                let width = encoder.width(&embedding)?;
                let token_width = encoder.width_of_tokens(&embedding.token_stages)?;
                Capability::Embed {
                    embedding: Arc::new(embedding),
                    width,
                    token_width,
                }
            }
            Purpose::EmbedTokens(embedding) => {
                let width = encoder.width_of_tokens(&embedding.stages)?;
                Capability::EmbedTokens(Arc::new(embedding), width)
            }
            Purpose::EmbedWords(embedding) => Capability::EmbedWords(Arc::new(embedding)),
            Purpose::Rank(labels) => Capability::Rank(labels),
            Purpose::Classify(labels) => Capability::Classify(labels),
        };
        Ok(Self {
            tokenizer,
            prompts,
            encoder,
            capability,
            max_passages: settings.max_passages.get(),
        })
    }

    /// Computes the vectors of tokenized texts, for benchmarks. All IDs must be in the vocabulary.
    ///
    /// # Errors
    /// The computation fails, or the model does not produce vectors.
    pub fn vectors(&self, texts: &[Vec<u32>]) -> Result<Vec<Vec<f32>>, BatchError> {
        let Capability::Embed { embedding, .. } = &self.capability else {
            return Err(BatchError::failed(
                "the model does not produce one vector of a text",
            ));
        };
        let tokens: Vec<_> = texts.iter().cloned().map(Tokens::of_one_text).collect();
        let mut vectors = self
            .encoder
            .vectors(&tokens.iter().collect::<Vec<_>>(), embedding, 0)?;
        vectors
            .iter_mut()
            .for_each(|vector| embedding.finish(vector, None));
        Ok(vectors)
    }
}

impl Model for SentenceEmbeddings {
    type Settings = Settings;

    fn load(settings: Settings, context: &LoadContext) -> Result<Self, LoadError> {
        Self::open(settings, &context.base_dir, context.workers, context.threads)
    }

    /// The tasks depend on the model directory.
    fn tasks() -> Tasks<Self> {
        Tasks::new()
    }

    fn configured_tasks(&self) -> Tasks<Self> {
        let tasks = match &self.capability {
            Capability::Embed {
                embedding,
                width,
                token_width,
            } => {
                let tokens = TokenSource::Pooled(Arc::clone(embedding));
                Tasks::new()
                    .add_prepared("query", Embed::new(Role::Query, embedding, *width))
                    .add_prepared("passage", Embed::new(Role::Passage, embedding, *width))
                    .add_prepared("similarity", Similarity::new(embedding))
                    .add_prepared(
                        "token_vectors",
                        EmbedTokens::new(Role::Text, tokens, *token_width),
                    )
            }
            Capability::EmbedTokens(embedding, width) => {
                let task = |role| EmbedTokens::new(role, TokenSource::Tokens(Arc::clone(embedding)), *width);
                Tasks::new()
                    .add_prepared("query", task(Role::Query))
                    .add_prepared("passage", task(Role::Passage))
            }
            Capability::EmbedWords(embedding) => Tasks::new()
                .add_prepared("query", EmbedWords::new(Role::Query, embedding))
                .add_prepared("passage", EmbedWords::new(Role::Passage, embedding)),
            Capability::Rank(labels) => Tasks::new().add_prepared("rerank", Rerank(labels.clone())),
            Capability::Classify(labels) => Tasks::new().add_prepared("classify", Classify(labels.clone())),
        };
        tasks
            .add_prepared("tokenize", Tokenize::new(&self.prompts))
            .add_prepared("decode", Decode::new(&self.tokenizer))
    }

    fn details(&self) -> BTreeMap<String, String> {
        let mut details = BTreeMap::from([
            ("dtype".to_owned(), "float32".to_owned()),
            ("max_length".to_owned(), self.tokenizer.max_length().to_string()),
        ]);
        match &self.capability {
            Capability::Embed { embedding, .. } => {
                let pooling: Vec<_> = embedding.pooling.iter().map(|mode| mode.name()).collect();
                details.insert("pooling".to_owned(), pooling.join("+"));
            }
            Capability::EmbedWords(_) => drop(details.insert("pooling".to_owned(), "splade".to_owned())),
            Capability::Rank(labels) => drop(details.insert("label".to_owned(), labels.names.concat())),
            Capability::EmbedTokens(..) | Capability::Classify(_) => {}
        }
        details
    }
}

export_model!(SentenceEmbeddings);
