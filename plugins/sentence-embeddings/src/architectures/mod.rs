//! The networks that this plugin implements. Each family fills in the same description of a network from its `config.json`: sizes,
//! variants of the layers, and names of tensors. Nothing is computed here.

mod decoders;
mod encoders;
mod keys;
mod parts;
mod rotary_encoders;

use plugin_sdk::LoadError;
use transformer::files::{ConfigFile, IgnoredKeys, Key, file_error};
use transformer::{Activation, Names, NormKind, Rotary, RotaryScaling, Shape};

use keys::COMMON;

/// Networks that share the description of their layers.
pub(crate) struct Family {
    /// Values of `model_type` in `config.json`.
    pub(crate) model_types: &'static [&'static str],
    /// Models with these networks, for the documentation.
    #[allow(dead_code, reason = "read only when the documentation is written")]
    pub(crate) models: &'static str,
    /// What distinguishes their layers, for the documentation.
    #[allow(dead_code, reason = "read only when the documentation is written")]
    pub(crate) layers: &'static str,
    /// The keys of `config.json`, besides those of all families.
    pub(crate) keys: &'static [Key],
    read: fn(&ConfigFile) -> Result<Architecture, LoadError>,
}

/// All families, in the order of the documentation.
pub(crate) static FAMILIES: [Family; 9] = [
    encoders::BERT,
    encoders::ROBERTA,
    encoders::DISTILBERT,
    encoders::MPNET,
    encoders::ALBERT,
    rotary_encoders::MODERNBERT,
    rotary_encoders::NOMIC,
    rotary_encoders::GTE,
    decoders::DECODERS,
];

/// Description of a network.
#[derive(Clone, Debug)]
pub(crate) struct Architecture {
    pub(crate) layers: Shape,
    pub(crate) names: Names,
    pub(crate) embeddings: EmbeddingsShape,
    /// Name of the normalization after the last layer.
    pub(crate) final_norm: Option<&'static str>,
    /// Maximum number of tokens.
    pub(crate) max_tokens: usize,
    pub(crate) classifier: ClassifierShape,
    pub(crate) masked_lm: Option<MaskedLmShape>,
}

/// The embeddings of tokens: sums of rows of tables.
#[derive(Clone, Debug)]
pub(crate) struct EmbeddingsShape {
    /// Name of the table of words.
    pub(crate) words: &'static str,
    /// Size of the vocabulary.
    pub(crate) vocabulary: usize,
    /// Length of the rows.
    pub(crate) width: usize,
    pub(crate) positions: Option<PositionsShape>,
    /// Name and number of rows of the table of token types.
    pub(crate) types: Option<(&'static str, usize)>,
    /// Name of the normalization of the sum.
    pub(crate) norm: Option<&'static str>,
    /// Name of a linear layer from `width` to the width of the layers.
    pub(crate) projection: Option<&'static str>,
}

/// The table of positions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PositionsShape {
    pub(crate) name: &'static str,
    pub(crate) rows: usize,
    /// ID of the padding token, if positions start after it, as in RoBERTa.
    pub(crate) padding: Option<u32>,
}

impl PositionsShape {
    /// Returns the row of the first token.
    pub(crate) fn first(self) -> usize {
        self.padding.map_or(0, |padding| padding as usize + 1)
    }
}

/// Which token vectors a classifier receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClassifierPooling {
    First,
    Mean,
    /// The last token that is not this padding token, or the last of all.
    Last(Option<u32>),
}

/// Name of a tensor of the encoder, or of one outside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TensorName {
    Inner(&'static str),
    Outer(&'static str),
}

/// The classification head.
#[derive(Clone, Debug)]
pub(crate) struct ClassifierShape {
    pub(crate) pooling: ClassifierPooling,
    pub(crate) dense: Option<DenseShape>,
    /// Name of the layer that computes the logits, outside the encoder.
    pub(crate) output: &'static str,
    pub(crate) biased: bool,
}

/// A linear layer with an activation function and possibly a normalization.
#[derive(Clone, Debug)]
pub(crate) struct DenseShape {
    pub(crate) name: TensorName,
    pub(crate) biased: bool,
    pub(crate) activation: Activation,
    pub(crate) norm: Option<(&'static str, NormKind)>,
}

/// The head of a masked language model, which computes a number for each word of the vocabulary.
#[derive(Clone, Debug)]
pub(crate) struct MaskedLmShape {
    pub(crate) dense: DenseShape,
    /// Name of the table of words, if it is not that of the embeddings.
    pub(crate) decoder: Option<&'static str>,
    /// Names of the bias, of which the first that exists is used. `None` without bias.
    pub(crate) bias: Option<[&'static str; 2]>,
}

impl Architecture {
    /// Reads `config.json`.
    pub(crate) fn read(config: &ConfigFile, ignored: &IgnoredKeys) -> Result<Self, LoadError> {
        let family = Family::of(config)?;
        config.check(&[family.keys, COMMON, transformer::config_keys::NETWORK], ignored)?;
        let architecture = (family.read)(config)?;
        check_sizes(config, &architecture.layers)?;
        Ok(architecture)
    }

    /// Limits the tables of positions that are computed to `tokens`.
    pub(crate) fn limit_positions(&mut self, tokens: usize) {
        for layer in &mut self.layers.layers {
            if let Some(rotary) = &mut layer.rotary {
                rotary.positions = rotary.positions.min(tokens);
            }
        }
        if let Some(relative) = &mut self.layers.relative_positions {
            relative.positions = relative.positions.min(tokens);
        }
    }
}

impl Family {
    fn of(config: &ConfigFile) -> Result<&'static Self, LoadError> {
        let kind: String = config.get("model_type")?.unwrap_or_default();
        let family = FAMILIES
            .iter()
            .find(|family| family.model_types.contains(&&*kind));
        family.ok_or_else(|| {
            let known: Vec<_> = FAMILIES
                .iter()
                .flat_map(|family| family.model_types)
                .copied()
                .collect();
            let expected = format!(
                "{}: other types require an ONNX file in the model directory",
                known.join(", ")
            );
            config.unsupported("model_type", expected)
        })
    }
}

/// Returns the maximum number of tokens according to `config.json` of any network, if known.
pub(crate) fn max_tokens(config: &ConfigFile) -> Result<Option<usize>, LoadError> {
    let kind: String = config.get("model_type")?.unwrap_or_default();
    let positions: Option<usize> = config.first(&["max_position_embeddings", "n_positions"])?;
    let before = match &*kind {
        "roberta" | "xlm-roberta" | "camembert" => config.get("pad_token_id")?.unwrap_or(1) + 1,
        "mpnet" => 2,
        _ => 0,
    };
    Ok(positions.map(|positions| positions.saturating_sub(before)))
}

/// Checks what the computation relies on.
fn check_sizes(config: &ConfigFile, shape: &Shape) -> Result<(), LoadError> {
    let rotary = shape.layers.iter().any(|layer| layer.rotary.is_some());
    if rotary && !shape.head_size.is_multiple_of(2) {
        let message = format!(
            "has heads of {} numbers, expected an even number",
            shape.head_size
        );
        return Err(file_error(config.path(), &message));
    }
    if !shape.heads.is_multiple_of(shape.key_value_heads) {
        let expected = format!("a divisor of the number of attention heads, {}", shape.heads);
        return Err(config.unsupported("num_key_value_heads", expected));
    }
    Ok(())
}

/// Returns the vector length of a head: the vectors are divided evenly.
fn head_size(config: &ConfigFile, width: (&str, usize), heads: (&str, usize)) -> Result<usize, LoadError> {
    if !width.1.is_multiple_of(heads.1) {
        return Err(config.unsupported(width.0, format_args!("a multiple of `{}` {}", heads.0, heads.1)));
    }
    Ok(width.1 / heads.1)
}

/// Returns the activation function with the name in `key`.
fn activation(config: &ConfigFile, key: &str, default: &str) -> Result<Activation, LoadError> {
    let name: Option<String> = config.get(key)?;
    Activation::named(name.as_deref().unwrap_or(default))
        .ok_or_else(|| config.unsupported(key, Activation::NAMES))
}

/// Returns the rotary positions that `rope_parameters` or its older name `rope_scaling` describe. `theta` is the default of the
/// base.
fn rotary(
    config: &ConfigFile,
    parameters: Option<&ConfigFile>,
    theta: f32,
    positions: usize,
) -> Result<Rotary, LoadError> {
    let parameter = |key: &str| -> Result<Option<f32>, LoadError> {
        parameters.map_or(Ok(None), |parameters| parameters.get(key))
    };
    let kind: Option<String> =
        parameters.map_or(Ok(None), |parameters| parameters.first(&["rope_type", "type"]))?;
    let factor = || -> Result<f32, LoadError> {
        let factor = parameter("factor")?.filter(|factor| factor.is_finite() && *factor > 0.0);
        factor.ok_or_else(|| {
            file_error(
                config.path(),
                "has no positive `factor` in `rope_parameters` or `rope_scaling`",
            )
        })
    };
    let scaling = match kind.as_deref() {
        None | Some("default") => RotaryScaling::None,
        Some("linear") => RotaryScaling::Linear(factor()?),
        Some("ntk") if config.get::<String>("model_type")?.as_deref() == Some("new") => {
            RotaryScaling::Ntk(factor()?)
        }
        Some(_) => {
            let keys = ["rope_scaling", "rope_parameters"];
            let key = keys
                .into_iter()
                .find(|key| matches!(config.section(key), Ok(Some(_))));
            return Err(config.unsupported(
                key.unwrap_or_default(),
                "the type `default` or `linear`, or `ntk` in models of the type `new`",
            ));
        }
    };
    let base = parameter("rope_theta")?.unwrap_or(theta);
    if !(base.is_finite() && base > 0.0) {
        return Err(config.unsupported("rope_theta", "a positive number"));
    }
    Ok(Rotary {
        base,
        scaling,
        positions,
    })
}

/// Reads the section with the parameters of rotary positions, and checks its keys.
fn rotary_section(config: &ConfigFile) -> Result<Option<ConfigFile>, LoadError> {
    // If both are present, the older name takes precedence, as in transformers.
    let section = match config.section("rope_scaling")? {
        Some(section) => Some(section),
        None => config.section("rope_parameters")?,
    };
    if let Some(section) = &section {
        section.check(&[keys::ROTARY], &IgnoredKeys::default())?;
    }
    Ok(section)
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use super::*;

    /// Returns the table of supported networks, in Markdown.
    fn documentation() -> String {
        let mut table = "| `model_type` | models | layers |\n| --- | --- | --- |\n".to_owned();
        for family in &FAMILIES {
            let kinds: Vec<_> = family
                .model_types
                .iter()
                .map(|kind| format!("`{kind}`"))
                .collect();
            let (models, layers) = (family.models, family.layers);
            writeln!(table, "| {} | {models} | {layers} |", kinds.join(", ")).expect("to a string");
        }
        table
    }

    #[test]
    fn the_documentation_lists_all_networks() {
        let readme = include_str!("../../README.md");
        let table = documentation();
        assert!(
            readme.contains(&table),
            "README.md does not contain this table:\n{table}"
        );
    }

    #[test]
    fn no_key_is_listed_twice() {
        for family in &FAMILIES {
            let tables = [family.keys, COMMON];
            let mut names: Vec<_> = tables
                .iter()
                .flat_map(|table| table.iter().map(|key| key.name))
                .collect();
            names.sort_unstable();
            let twice = names.windows(2).find(|pair| pair[0] == pair[1]);
            assert_eq!(twice, None, "{:?}", family.model_types);
        }
    }
}
