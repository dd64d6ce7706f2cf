//! Both networks of a model and the threads that compute them.

use plugin_sdk::LoadError;
use transformer::files::file_error;
use transformer::{EncoderThreads, Tokens, WeightFiles, Weights, normalize};

use crate::image_reader::Pixels;
use crate::model_spec::NetworkSpec;
use crate::text::{TextNetwork, WORDS};
use crate::vision::VisionNetwork;

/// The networks for texts and images.
pub(crate) struct Network {
    text: TextNetwork,
    vision: VisionNetwork,
    /// Factor that converts similarities to logits.
    scale: f32,
    /// Length of the vectors.
    width: usize,
    /// The threads of each worker.
    threads: Vec<EncoderThreads>,
}

impl Network {
    /// Loads both networks and starts the threads of `workers` workers.
    pub(crate) fn load(spec: NetworkSpec, workers: usize, threads: usize) -> Result<Self, LoadError> {
        let path = spec.weights;
        let unusable = |error: LoadError| file_error(&path, &format!("cannot be used: {}", error.message()));
        let files = WeightFiles::read(&path)?;
        let weights = Weights::read(&files, WORDS).map_err(unusable)?;
        let (text, vision, width) = (spec.text, spec.vision, spec.width);
        let scale = weights.get("logit_scale", &[]).map_err(unusable)?;
        let text = TextNetwork::load(&weights, text, width).map_err(unusable)?;
        let vision = VisionNetwork::load(&weights, vision, width).map_err(unusable)?;
        let is_irrelevant = |name: &str| name.ends_with("embeddings.position_ids");
        weights.check_all_read(is_irrelevant).map_err(unusable)?;
        Ok(Self {
            text,
            vision,
            scale: scale.iter().sum::<f32>().exp(),
            width,
            threads: (0..workers)
                .map(|_| EncoderThreads::new(threads))
                .collect::<Result<_, _>>()?,
        })
    }

    /// Returns the size of the vocabulary.
    pub(crate) fn vocabulary(&self) -> usize {
        self.text.vocabulary()
    }

    /// Returns the factor that converts similarities to logits.
    pub(crate) fn scale(&self) -> f32 {
        self.scale
    }

    /// Length of the vectors.
    pub(crate) fn width(&self) -> usize {
        self.width
    }

    /// Returns the number of tokens of an image.
    pub(crate) fn image_tokens(&self) -> usize {
        self.vision.tokens()
    }

    /// Computes a vector for each text, scaled to length 1 if `scaled` is true.
    pub(crate) fn texts(&self, texts: &[&Tokens], scaled: bool, worker: usize) -> Vec<Vec<f32>> {
        let lengths: Vec<_> = texts.iter().map(|tokens| tokens.len()).collect();
        self.threads[worker].run(&lengths, |block| {
            let block: Vec<_> = block.iter().map(|index| texts[*index]).collect();
            normalized(self.text.vectors(&block), scaled)
        })
    }

    /// Computes a vector for each image, scaled to length 1 if `scaled` is true.
    pub(crate) fn images(&self, images: &[&Pixels], scaled: bool, worker: usize) -> Vec<Vec<f32>> {
        let lengths = vec![self.image_tokens(); images.len()];
        self.threads[worker].run(&lengths, |block| {
            let block: Vec<_> = block.iter().map(|index| images[*index]).collect();
            normalized(self.vision.vectors(&block), scaled)
        })
    }
}

fn normalized(mut vectors: Vec<Vec<f32>>, scaled: bool) -> Vec<Vec<f32>> {
    if scaled {
        vectors.iter_mut().for_each(|vector| normalize(vector));
    }
    vectors
}
