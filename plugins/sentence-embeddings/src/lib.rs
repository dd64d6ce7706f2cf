//! Embeds, compares and reranks texts with a model as sentence-transformers saves one: the folder says everything, and the
//! answers are those of sentence-transformers. Pure Rust, so there is nothing else to install.
//!
//! The way of an item: `tasks` split it into tokens, off the model's thread; `encoder` computes a batch, by `bert` (on packed
//! tokens, with the arithmetic of the crate `transformer`) or by `graph` (an ONNX file), and pools the vectors of each text's tokens.
//! What the `folder` says is read once, at load. The README of this plugin is for the operator.

#![forbid(unsafe_code)]

mod bert;
mod encoder;
mod files;
mod folder;
mod graph;
mod settings;
mod similarity;
mod tasks;

use std::path::Path;

use plugin_sdk::prelude::*;
use transformer::{Tokenizer, Tokens, lanes};

use crate::encoder::Encoder;
use crate::folder::{Purpose, Recipe};
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
    /// Loads a model whose paths start at `base_dir`, for that many batches at a time with `threads` threads each, if the
    /// settings do not say.
    ///
    /// # Errors
    /// The settings or the folder are not what they should be.
    pub fn open(
        settings: Settings,
        base_dir: &Path,
        workers: usize,
        threads: usize,
    ) -> Result<Self, LoadError> {
        let threads = lanes::threads(settings.threads, threads)?;
        let recipe = Recipe::read(&base_dir.join(&settings.folder), &settings)?;
        let tokenizer = Tokenizer::load(
            &recipe.tokenizer,
            recipe.max_length,
            settings.truncate,
            recipe.lowercase,
        )?;
        let encoder = Encoder::load(&recipe, workers, threads)?;
        if let Some(known) = encoder
            .vocabulary()
            .filter(|known| *known < tokenizer.vocabulary())
        {
            let message = format!(
                "the tokenizer has ids up to {}, but the network only {known} words",
                tokenizer.vocabulary() - 1
            );
            return Err(LoadError::setting("folder", message));
        }
        let width = match &recipe.purpose {
            Purpose::Embed(embedding) => encoder.width(embedding)?,
            Purpose::Rank { .. } => 1,
        };
        Ok(Self {
            tokenizer,
            encoder,
            purpose: recipe.purpose,
            width,
            max_passages: settings.max_passages.get(),
        })
    }

    /// The vectors of texts whose tokens are known, for benchmarks of the computation alone. Every id is in the vocabulary.
    ///
    /// # Errors
    /// The network cannot compute them, or makes no vectors.
    pub fn vectors(&self, texts: &[Vec<u32>]) -> Result<Vec<Vec<f32>>, BatchError> {
        let Purpose::Embed(embedding) = &self.purpose else {
            return Err(BatchError::failed("the model scores pairs"));
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

    /// They follow from the folder.
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
