//! Parts that the families of networks share.

use plugin_sdk::LoadError;
use transformer::files::ConfigFile;
use transformer::{Activation, Biases, Gate, LayerShape, NormKind, Norms, Rotary, Shape};

use super::{ClassifierPooling, ClassifierShape, DenseShape, EmbeddingsShape, MaskedLmShape, TensorName};

/// A shape without sizes, of layers that are normalized at their end.
pub(super) fn post_norm() -> Shape {
    Shape {
        layers: Vec::new(),
        width: 0,
        heads: 0,
        key_value_heads: 0,
        head_size: 0,
        causal: false,
        relative_positions: None,
        feed_forward_size: 0,
        activation: Activation::Gelu,
        gate: Gate::None,
        norm: NormKind::Layer,
        epsilon: 1e-12,
        norms: Norms::After,
        biases: Biases::ALL,
    }
}

/// Layers with the same rotary positions.
pub(super) fn rotary_layers(prefix: &str, count: usize, rotary: Rotary) -> Vec<LayerShape> {
    let layers = LayerShape::numbered(prefix, count).into_iter();
    layers
        .map(|layer| LayerShape {
            rotary: Some(rotary),
            ..layer
        })
        .collect()
}

/// The table of token types, which BERT and its relatives have in common.
pub(super) const TOKEN_TYPES: &str = "embeddings.token_type_embeddings.weight";

/// Embeddings of words, without positions, token types and normalization.
pub(super) fn embeddings(config: &ConfigFile, width: usize) -> Result<EmbeddingsShape, LoadError> {
    Ok(EmbeddingsShape {
        words: "embeddings.word_embeddings.weight",
        vocabulary: config.size("vocab_size", None)?,
        width,
        positions: None,
        types: None,
        norm: None,
        projection: None,
    })
}

/// A linear layer with a bias and an activation function.
pub(super) fn dense(name: TensorName, activation: Activation) -> DenseShape {
    DenseShape {
        name,
        biased: true,
        activation,
        norm: None,
    }
}

/// The classification head that reads the first token: a dense layer, and the layer `output`.
pub(super) fn classifier(name: TensorName, activation: Activation, output: &'static str) -> ClassifierShape {
    ClassifierShape {
        pooling: ClassifierPooling::First,
        dense: Some(dense(name, activation)),
        output,
        biased: true,
    }
}

/// The head of a masked language model: a dense layer with a normalization, and a table of words. Of the names of the bias, the
/// first that exists is used.
pub(super) fn masked_lm(
    config: &ConfigFile,
    activation: Activation,
    [name, norm, decoder]: [&'static str; 3],
    bias: [&'static str; 2],
) -> Result<MaskedLmShape, LoadError> {
    Ok(MaskedLmShape {
        dense: DenseShape {
            norm: Some((norm, NormKind::Layer)),
            ..dense(TensorName::Outer(name), activation)
        },
        decoder: untied(config, decoder)?,
        bias: Some(bias),
    })
}

/// Returns the name of the table of words of a language model's head, unless it is that of the embeddings.
pub(super) fn untied(config: &ConfigFile, name: &'static str) -> Result<Option<&'static str>, LoadError> {
    let is_tied = config.get("tie_word_embeddings")?.unwrap_or(true);
    Ok((!is_tied).then_some(name))
}
