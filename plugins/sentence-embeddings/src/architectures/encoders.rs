//! Encoders with learned positions: BERT and its relatives.

use plugin_sdk::LoadError;
use transformer::files::{ConfigFile, honored, irrelevant, only};
use transformer::{Activation, LayerShape, Names, RelativePositions, Shape, keys};

use super::keys::OLD_POOLER;
use super::parts::{TOKEN_TYPES, classifier, embeddings, masked_lm, post_norm};
use super::{
    Architecture, EmbeddingsShape, Family, MaskedLmShape, PositionsShape, TensorName, activation, head_size,
};

pub(super) const BERT: Family = Family {
    model_types: &["bert"],
    models: "MiniLM, bge, e5, gte (first version), mxbai, SPLADE",
    layers: "positions are learned",
    keys: keys![
        honored([
            "hidden_size",
            "num_attention_heads",
            "num_hidden_layers",
            "intermediate_size",
            "max_position_embeddings",
            "type_vocab_size",
            "layer_norm_eps",
            "hidden_act",
        ]),
        [only("position_embedding_type", &["\"absolute\"", "null"])],
        OLD_POOLER,
    ],
    read: |config| {
        let mut bert = bert_like(config, None)?;
        bert.classifier = classifier(TensorName::Inner("pooler.dense"), Activation::Tanh, "classifier");
        bert.masked_lm = Some(masked_lm(
            config,
            bert.layers.activation,
            [
                "cls.predictions.transform.dense",
                "cls.predictions.transform.LayerNorm",
                "cls.predictions.decoder.weight",
            ],
            ["cls.predictions.bias", "cls.predictions.decoder.bias"],
        )?);
        Ok(bert)
    },
};

pub(super) const ROBERTA: Family = Family {
    model_types: &["roberta", "xlm-roberta", "camembert"],
    models: "multilingual-e5, bge-m3 (dense), paraphrase-multilingual, bge-reranker",
    layers: "positions are learned and start after that of the padding token",
    keys: BERT.keys,
    read: |config| {
        let padding = config.get("pad_token_id")?.unwrap_or(1);
        let mut roberta = bert_like(config, Some(padding))?;
        roberta.masked_lm = Some(roberta_masked_lm(config)?);
        Ok(roberta)
    },
};

pub(super) const DISTILBERT: Family = Family {
    model_types: &["distilbert"],
    models: "multi-qa-distilbert, distiluse, opensearch sparse encoders",
    layers: "as BERT, without token types",
    keys: keys![
        honored([
            "dim",
            "n_heads",
            "n_layers",
            "hidden_dim",
            "max_position_embeddings",
            "activation"
        ]),
        irrelevant("training only", ["qa_dropout", "seq_classif_dropout"]),
        irrelevant(
            "the file with the weights contains the positions of either kind",
            ["sinusoidal_pos_embds"]
        ),
        irrelevant(
            "set by the names `dim`, `n_heads` and `n_layers`",
            ["hidden_size", "num_attention_heads", "num_hidden_layers"]
        ),
    ],
    read: |config| {
        let (width, heads) = (config.size("dim", Some(768))?, config.size("n_heads", Some(12))?);
        let positions = config.size("max_position_embeddings", Some(512))?;
        let activation = activation(config, "activation", "gelu")?;
        let layers = Shape {
            layers: LayerShape::numbered("transformer.layer", config.size("n_layers", Some(6))?),
            width,
            heads,
            key_value_heads: heads,
            head_size: head_size(config, ("dim", width), ("n_heads", heads))?,
            feed_forward_size: config.size("hidden_dim", Some(4 * 768))?,
            activation,
            epsilon: 1e-12,
            ..post_norm()
        };
        Ok(Architecture {
            names: Names {
                project: &["attention.q_lin", "attention.k_lin", "attention.v_lin"],
                query_key_norms: None,
                attention_output: "attention.out_lin",
                attention_norm: "sa_layer_norm",
                feed_forward_in: &["ffn.lin1"],
                feed_forward_out: "ffn.lin2",
                feed_forward_norm: "output_layer_norm",
            },
            embeddings: EmbeddingsShape {
                types: None,
                ..learned_embeddings(config, width, positions, None)?
            },
            final_norm: None,
            max_tokens: positions,
            classifier: classifier(
                TensorName::Outer("pre_classifier"),
                Activation::Relu,
                "classifier",
            ),
            masked_lm: Some(masked_lm(
                config,
                activation,
                ["vocab_transform", "vocab_layer_norm", "vocab_projector.weight"],
                ["vocab_projector.bias"; 2],
            )?),
            layers,
        })
    },
};

pub(super) const MPNET: Family = Family {
    model_types: &["mpnet"],
    models: "all-mpnet-base-v2, paraphrase-mpnet, multi-qa-mpnet",
    layers: "as RoBERTa, without token types, and with learned numbers by distance in attention",
    keys: keys![
        honored([
            "hidden_size",
            "num_attention_heads",
            "num_hidden_layers",
            "intermediate_size",
            "max_position_embeddings",
            "layer_norm_eps",
            "hidden_act",
            "pad_token_id",
        ]),
        [only("relative_attention_num_buckets", &["32", "null"])],
    ],
    read: |config| {
        // The Python class ignores the padding token of the configuration.
        let mut mpnet = bert_like(config, Some(1))?;
        mpnet.names = Names {
            project: &["attention.attn.q", "attention.attn.k", "attention.attn.v"],
            attention_output: "attention.attn.o",
            attention_norm: "attention.LayerNorm",
            ..mpnet.names
        };
        mpnet.embeddings.types = None;
        mpnet.layers.relative_positions = Some(RelativePositions {
            name: "encoder.relative_attention_bias.weight",
            buckets: 32,
            max_distance: 128,
            positions: mpnet.max_tokens,
        });
        mpnet.masked_lm = Some(roberta_masked_lm(config)?);
        Ok(mpnet)
    },
};

pub(super) const ALBERT: Family = Family {
    model_types: &["albert"],
    models: "paraphrase-albert",
    layers: "as BERT; layers share their weights, and embeddings are smaller than layers",
    keys: keys![
        honored([
            "hidden_size",
            "embedding_size",
            "num_attention_heads",
            "num_hidden_layers",
            "num_hidden_groups",
            "inner_group_num",
            "intermediate_size",
            "max_position_embeddings",
            "type_vocab_size",
            "layer_norm_eps",
            "hidden_act",
        ]),
        [
            only("position_embedding_type", &["\"absolute\"", "null"]),
            // No version of the Python class reads them.
            only("net_structure_type", &["0"]),
            only("num_memory_blocks", &["0"]),
            only("gap_size", &["0"]),
            only("down_scale_factor", &["1"]),
        ],
    ],
    read: |config| {
        let mut albert = bert_like(config, None)?;
        let width = config.size("embedding_size", Some(128))?;
        albert.embeddings.width = width;
        albert.embeddings.projection = Some("encoder.embedding_hidden_mapping_in");
        albert.layers.activation = activation(config, "hidden_act", "gelu_new")?;
        albert.layers.layers = albert_layers(config)?;
        albert.names = Names {
            project: &["attention.query", "attention.key", "attention.value"],
            query_key_norms: None,
            attention_output: "attention.dense",
            attention_norm: "attention.LayerNorm",
            feed_forward_in: &["ffn"],
            feed_forward_out: "ffn_output",
            feed_forward_norm: "full_layer_layer_norm",
        };
        albert.classifier = classifier(TensorName::Inner("pooler"), Activation::Tanh, "classifier");
        albert.masked_lm = Some(masked_lm(
            config,
            albert.layers.activation,
            [
                "predictions.dense",
                "predictions.LayerNorm",
                "predictions.decoder.weight",
            ],
            ["predictions.bias", "predictions.decoder.bias"],
        )?);
        Ok(albert)
    },
};

/// Each group of layers is applied several times. A group consists of layers that are applied one after the other.
fn albert_layers(config: &ConfigFile) -> Result<Vec<LayerShape>, LoadError> {
    let layers = config.size("num_hidden_layers", Some(12))?;
    let groups = config.size("num_hidden_groups", Some(1))?;
    let inner = config.size("inner_group_num", Some(1))?;
    if groups > layers {
        return Err(config.unsupported(
            "num_hidden_groups",
            format_args!("at most `num_hidden_layers` {layers}"),
        ));
    }
    // The same rounding as in the reference implementation.
    let group = |layer: usize| (layer as f64 / (layers as f64 / groups as f64)) as usize;
    let of_group = |group: usize| {
        LayerShape::numbered(
            &format!("encoder.albert_layer_groups.{group}.albert_layers"),
            inner,
        )
    };
    Ok((0..layers).flat_map(|layer| of_group(group(layer))).collect())
}

/// Describes a network with the layers of BERT. Positions start after `padding`, if any.
fn bert_like(config: &ConfigFile, padding: Option<u32>) -> Result<Architecture, LoadError> {
    let width = config.size("hidden_size", None)?;
    let heads = config.size("num_attention_heads", None)?;
    let positions = config.size("max_position_embeddings", None)?;
    let embeddings = learned_embeddings(config, width, positions, padding)?;
    let before = padding.map_or(0, |padding| padding as usize + 1);
    if positions <= before {
        return Err(config.unsupported("max_position_embeddings", format_args!("more than {before}")));
    }
    let layers = Shape {
        layers: LayerShape::numbered("encoder.layer", config.size("num_hidden_layers", None)?),
        width,
        heads,
        key_value_heads: heads,
        head_size: head_size(config, ("hidden_size", width), ("num_attention_heads", heads))?,
        feed_forward_size: config.size("intermediate_size", None)?,
        activation: activation(config, "hidden_act", "gelu")?,
        epsilon: config.get("layer_norm_eps")?.unwrap_or(1e-12),
        ..post_norm()
    };
    Ok(Architecture {
        names: Names {
            project: &[
                "attention.self.query",
                "attention.self.key",
                "attention.self.value",
            ],
            query_key_norms: None,
            attention_output: "attention.output.dense",
            attention_norm: "attention.output.LayerNorm",
            feed_forward_in: &["intermediate.dense"],
            feed_forward_out: "output.dense",
            feed_forward_norm: "output.LayerNorm",
        },
        embeddings,
        final_norm: None,
        max_tokens: positions - before,
        classifier: classifier(
            TensorName::Outer("classifier.dense"),
            Activation::Tanh,
            "classifier.out_proj",
        ),
        masked_lm: None,
        layers,
    })
}

/// Embeddings with learned positions, token types, and a normalization.
fn learned_embeddings(
    config: &ConfigFile,
    width: usize,
    positions: usize,
    padding: Option<u32>,
) -> Result<EmbeddingsShape, LoadError> {
    Ok(EmbeddingsShape {
        positions: Some(PositionsShape {
            name: "embeddings.position_embeddings.weight",
            rows: positions,
            padding,
        }),
        types: Some((TOKEN_TYPES, config.size("type_vocab_size", Some(2))?)),
        norm: Some("embeddings.LayerNorm"),
        ..embeddings(config, width)?
    })
}

fn roberta_masked_lm(config: &ConfigFile) -> Result<MaskedLmShape, LoadError> {
    masked_lm(
        config,
        Activation::Gelu,
        ["lm_head.dense", "lm_head.layer_norm", "lm_head.decoder.weight"],
        ["lm_head.bias", "lm_head.decoder.bias"],
    )
}
