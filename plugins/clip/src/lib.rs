//! Plugin that serves CLIP models in the directory format of transformers: vectors of texts and images in one vector space, and
//! zero-shot classification of images. The results, including the preprocessing of images, match those of transformers. It is
//! pure Rust and needs no other software.
//!
//! In the prepare step, `tasks` tokenizes texts, and reads images with `image_reader`, which resizes them with `resample`.
//! `network` computes a batch with the networks in `text` and `vision`. `labels` caches the vectors of labels. `model_spec` reads
//! the `files` in the model directory, after checking their `keys`. The README of this plugin is the documentation for operators.

#![forbid(unsafe_code)]

mod files;
mod image_reader;
mod keys;
mod labels;
mod model_spec;
mod network;
mod resample;
mod settings;
mod tasks;
mod text;
mod vision;

use std::path::Path;

use plugin_sdk::prelude::*;
use transformer::{Tokenizer, Tokens, threads};

use crate::image_reader::ImageReader;
pub use crate::image_reader::Pixels;
use crate::labels::{Labels, Template};
use crate::model_spec::ModelSpec;
use crate::network::Network;
pub use crate::settings::Settings;
use crate::tasks::{Classify, EmbedImage, EmbedText};

/// A loaded model.
pub struct Clip {
    tokenizer: Tokenizer,
    image_reader: ImageReader,
    network: Network,
    labels: Labels,
    template: Template,
    normalize: bool,
    max_labels: usize,
}

impl Clip {
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
        let template = Template::new(&settings.template);
        let template = template.map_err(|problem| LoadError::setting("template", problem))?;
        let ModelSpec {
            tokenizer,
            image_reader,
            network,
        } = ModelSpec::read(&base_dir.join(&settings.folder), &settings)?;
        let network = Network::load(network, workers, threads)?;
        let (words, known) = (tokenizer.vocabulary(), network.vocabulary());
        if words > known {
            let message = format!(
                "the tokenizer has IDs up to {}, but the network has a vocabulary of {known} IDs",
                words - 1
            );
            return Err(LoadError::setting("folder", message));
        }
        Ok(Self {
            tokenizer,
            image_reader,
            network,
            labels: Labels::new(settings.cached_labels),
            template,
            normalize: settings.normalize,
            max_labels: settings.max_labels.get(),
        })
    }

    /// Preprocesses an image file, for benchmarks.
    ///
    /// # Errors
    /// The image cannot be decoded.
    pub fn pixels(&self, file: &[u8]) -> Result<Pixels, ItemError> {
        self.image_reader.read(file)
    }

    /// Computes the vectors of preprocessed images, for benchmarks.
    pub fn image_vectors(&self, images: &[&Pixels]) -> Vec<Vec<f32>> {
        self.network.images(images, self.normalize, 0)
    }

    /// Computes the vectors of tokenized texts, for benchmarks. All IDs must be in the vocabulary.
    pub fn text_vectors(&self, texts: &[Vec<u32>]) -> Vec<Vec<f32>> {
        let tokens: Vec<_> = texts.iter().cloned().map(Tokens::of_one_text).collect();
        self.network
            .texts(&tokens.iter().collect::<Vec<_>>(), self.normalize, 0)
    }
}

impl Model for Clip {
    type Settings = Settings;

    fn load(settings: Settings, context: &LoadContext) -> Result<Self, LoadError> {
        Self::open(settings, &context.base_dir, context.workers, context.threads)
    }

    /// The tasks depend on the model directory.
    fn tasks() -> Tasks<Self> {
        Tasks::new()
    }

    fn configured_tasks(&self) -> Tasks<Self> {
        Tasks::new()
            .add_prepared("text", EmbedText::new(self))
            .add_prepared("image", EmbedImage::new(self))
            .add_prepared("classify", Classify)
    }
}

export_model!(Clip);

#[cfg(test)]
mod tests;
