//! Plugin that embeds, compares and reranks texts with models in the directory format of sentence-transformers. The results
//! match those of sentence-transformers. It is pure Rust and needs no other software.
//!
//! `tasks` tokenizes an item in its prepare step. `encoder` computes a batch, either with `bert` (on packed tokens, with the
//! crate `transformer`) or with `graph` (an ONNX file), and pools the token vectors of each text. `model_spec` reads the model
//! directory. The README of this plugin is the documentation for operators.

#![forbid(unsafe_code)]

mod bert;
mod encoder;
mod files;
mod graph;
mod model_spec;
mod settings;
mod similarity;
mod tasks;

use std::path::Path;

use plugin_sdk::prelude::*;
use transformer::{Tokenizer, Tokens, threads};

use crate::encoder::Encoder;
use crate::model_spec::{ModelSpec, Purpose};
pub use crate::settings::Settings;
use crate::tasks::{Embed, Prompt, Rerank, Similarity};

/// A loaded model.
pub struct SentenceEmbeddings {
    tokenizer: Tokenizer,
    encoder: Encoder,
    purpose: Purpose,
    /// Length of the vectors.
    width: usize,
    max_passages: usize,
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
        let tokenizer = Tokenizer::load(
            &spec.tokenizer,
            spec.max_length,
            settings.truncate,
            spec.lowercase,
        )?;
        let encoder = Encoder::load(&spec, workers, threads)?;
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
        let width = match &spec.purpose {
            Purpose::Embed(embedding) => encoder.width(embedding)?,
            Purpose::Rank { .. } => 1,
        };
        Ok(Self {
            tokenizer,
            encoder,
            purpose: spec.purpose,
            width,
            max_passages: settings.max_passages.get(),
        })
    }

    /// Computes the vectors of tokenized texts, for benchmarks. All IDs must be in the vocabulary.
    ///
    /// # Errors
    /// The computation fails, or the model does not produce vectors.
    pub fn vectors(&self, texts: &[Vec<u32>]) -> Result<Vec<Vec<f32>>, BatchError> {
        let Purpose::Embed(embedding) = &self.purpose else {
            return Err(BatchError::failed(
                "the model is a cross-encoder, which does not produce vectors",
            ));
        };
        let tokens: Vec<_> = texts.iter().cloned().map(Tokens::of_one_text).collect();
        self.encoder
            .vectors(&tokens.iter().collect::<Vec<_>>(), embedding, 0)
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
        match &self.purpose {
            Purpose::Embed(embedding) => Tasks::new()
                .add_prepared("query", Embed::new(Prompt::Query, embedding, self.width))
                .add_prepared("passage", Embed::new(Prompt::Passage, embedding, self.width))
                .add_prepared("similarity", Similarity(embedding.clone())),
            Purpose::Rank { sigmoid } => Tasks::new().add_prepared("rerank", Rerank { sigmoid: *sigmoid }),
        }
    }
}

export_model!(SentenceEmbeddings);
