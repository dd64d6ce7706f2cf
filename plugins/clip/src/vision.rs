//! The vision network, which processes an image as a sequence of patches.

use plugin_sdk::LoadError;
use transformer::{Encoder, GemmExecutor, Linear, Norm, NormKind, Sequence, Weights};

use crate::image_reader::Pixels;
use crate::model_spec::VisionSpec;
use crate::text::{NAMES, project};

const CHANNELS: usize = 3;

/// A network that computes vectors of images.
pub(crate) struct VisionNetwork {
    /// Width and height of an image.
    side: usize,
    /// Width and height of a patch.
    patch: usize,
    /// Normalized value of each level of each channel.
    levels: Box<[[f32; 256]; CHANNELS]>,
    patches: Linear,
    /// Embedding of the class token, which precedes the patches and whose vector is used for the image.
    class: Vec<f32>,
    positions: Vec<f32>,
    first_norm: Norm,
    layers: Encoder,
    last_norm: Norm,
    project: Linear,
}

impl VisionNetwork {
    /// Loads the weights of a network with vectors of length `width`.
    pub(crate) fn load(weights: &Weights<'_>, spec: VisionSpec, width: usize) -> Result<Self, LoadError> {
        let VisionSpec {
            layers,
            side,
            patch,
            levels,
        } = spec;
        let gemm = GemmExecutor::new();
        let (inner, epsilon) = (layers.width, layers.epsilon);
        let norm = |name: &str| {
            let name = format!("vision_model.{name}");
            Norm::load(weights, &name, inner, NormKind::Layer, epsilon)
        };
        let tensor =
            |name: &str, shape: &[usize]| weights.get(&format!("vision_model.embeddings.{name}"), shape);
        let patches = tensor("patch_embedding.weight", &[inner, CHANNELS, patch, patch])?;
        Ok(Self {
            side,
            patch,
            levels,
            patches: Linear::new(&gemm, &patches, None, CHANNELS * patch * patch),
            class: tensor("class_embedding", &[inner])?,
            positions: tensor("position_embedding.weight", &[(side / patch).pow(2) + 1, inner])?,
            // The name is misspelled in all checkpoints.
            first_norm: norm("pre_layrnorm")?,
            layers: Encoder::load(weights, layers, &NAMES)?,
            last_norm: norm("post_layernorm")?,
            project: Linear::load_unbiased(&gemm, weights, "visual_projection", width, inner)?,
        })
    }

    /// Returns the number of tokens of an image: its patches and the class token.
    pub(crate) fn tokens(&self) -> usize {
        (self.side / self.patch).pow(2) + 1
    }

    /// Computes a vector for each image.
    pub(crate) fn vectors(&self, images: &[&Pixels]) -> Vec<Vec<f32>> {
        let (gemm, inner, tokens) = (GemmExecutor::new(), self.layers.width(), self.tokens());
        let mut states = self.embed(&gemm, images);
        self.first_norm.apply(&mut states);
        let sequences: Vec<_> = (0..images.len())
            .map(|image| Sequence::from(image * tokens..(image + 1) * tokens))
            .collect();
        self.layers.apply(&gemm, &sequences, &mut states);
        let firsts = states.chunks_exact(tokens * inner);
        let mut firsts: Vec<_> = firsts.flat_map(|image| &image[..inner]).copied().collect();
        self.last_norm.apply(&mut firsts);
        project(&gemm, &self.project, &firsts)
    }

    fn embed(&self, gemm: &GemmExecutor, images: &[&Pixels]) -> Vec<f32> {
        let inner = self.layers.width();
        let mut patches = Vec::with_capacity(images.len() * (self.tokens() - 1) * self.patches.inputs());
        for image in images {
            self.append_patches(image, &mut patches);
        }
        let mut embedded = vec![0.0; patches.len() / self.patches.inputs() * inner];
        self.patches.apply(gemm, &patches, &mut embedded);
        let mut states = Vec::with_capacity(images.len() * self.tokens() * inner);
        for image in embedded.chunks_exact((self.tokens() - 1) * inner) {
            let tokens = self.class.iter().chain(image);
            states.extend(
                tokens
                    .zip(&self.positions)
                    .map(|(token, position)| token + position),
            );
        }
        states
    }

    /// Appends the values of each patch of an image, channel by channel and row by row. Remaining pixels at the right and at the
    /// bottom are ignored.
    fn append_patches(&self, image: &Pixels, patches: &mut Vec<f32>) {
        let (patch, side) = (self.patch, self.side);
        let starts = || (0..side / patch).map(|index| index * patch);
        for (top, left) in starts().flat_map(|top| starts().map(move |left| (top, left))) {
            for (channel, levels) in self.levels.iter().enumerate() {
                for row in top..top + patch {
                    let pixels = &image.0[(row * side + left) * CHANNELS..][..patch * CHANNELS];
                    let samples = pixels.iter().skip(channel).step_by(CHANNELS);
                    patches.extend(samples.map(|level| levels[usize::from(*level)]));
                }
            }
        }
    }
}
