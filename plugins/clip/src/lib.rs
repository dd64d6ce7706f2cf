//! Serves CLIP from a folder as transformers saves one: vectors of texts and images in one space, and labels that fit an image
//! without training. The answers are those of transformers, also in what it does to images. Pure Rust, so there is nothing else to
//! install.
//!
//! The way of an item: `tasks` split a text into tokens, or read an image with the `image_reader`, which gives it its size with `resample`,
//! both off the model's thread; the `network` computes a batch, `text` and `vision` apart; `labels` remembers the vectors of labels. What the
//! `folder` says, in its many `files`, is read once, at load. The README of this plugin is for the operator.

#![forbid(unsafe_code)]

mod files;
mod image_reader;
mod labels;
mod model_spec;
mod network;
mod resample;
mod settings;
mod tasks;
mod text;
mod vision;

#[cfg(test)]
mod tests;

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
                "the tokenizer has ids up to {}, but the network only {known} words",
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

    /// An image file as the network sees it, for benchmarks.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn pixels(&self, file: &[u8]) -> Result<Pixels, ItemError> {
        self.image_reader.read(file)
    }

    /// The vectors of images, for benchmarks of the computation alone.
    pub fn image_vectors(&self, images: &[&Pixels]) -> Vec<Vec<f32>> {
        self.network.images(images, self.normalize, 0)
    }

    /// The vectors of texts whose tokens are known, for benchmarks of the computation alone. Every id is in the vocabulary.
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

    /// They follow from the folder.
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
