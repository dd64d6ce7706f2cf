//! Encoders with rotary positions and gated feed-forward networks: ModernBERT, Nomic and GTE.

use plugin_sdk::LoadError;
use transformer::files::{ConfigFile, honored, irrelevant, only};
use transformer::{Activation, Biases, Gate, LayerShape, Names, NormKind, Norms, Shape, keys};

use super::keys::OWN_CODE;
use super::parts::{TOKEN_TYPES, classifier, embeddings, post_norm, rotary_layers, untied};
use super::{
    Architecture, ClassifierPooling, ClassifierShape, DenseShape, EmbeddingsShape, Family, MaskedLmShape,
    TensorName, activation, head_size, rotary, rotary_section,
};

pub(super) const MODERNBERT: Family = Family {
    model_types: &["modernbert"],
    models: "ModernBERT, gte-modernbert, nomic-modernbert, GTE-ModernColBERT",
    layers: "rotary positions, local attention in most layers, GeGLU, normalization before each part",
    keys: keys![
        honored([
            "hidden_size",
            "num_attention_heads",
            "num_hidden_layers",
            "intermediate_size",
            "max_position_embeddings",
            "hidden_activation",
            "norm_eps",
            "norm_bias",
            "attention_bias",
            "mlp_bias",
            "local_attention",
            "layer_types",
            "global_attn_every_n_layers",
            "rope_parameters",
            "rope_scaling",
            "global_rope_theta",
            "local_rope_theta",
            "classifier_pooling",
            "classifier_bias",
            "classifier_activation",
            "decoder_bias",
        ]),
        irrelevant(
            "training only",
            [
                "embedding_dropout",
                "mlp_dropout",
                "initializer_cutoff_factor",
                "sparse_prediction"
            ]
        ),
        irrelevant(
            "training only",
            ["sparse_pred_ignore_index", "repad_logits_with_grad"]
        ),
        irrelevant(
            "selects an equivalent implementation",
            ["deterministic_flash_attn", "reference_compile"]
        ),
        irrelevant(
            "no version of the network reads it",
            ["layer_norm_eps", "position_embedding_type"]
        ),
    ],
    read: modernbert,
};

fn modernbert(config: &ConfigFile) -> Result<Architecture, LoadError> {
    let width = config.size("hidden_size", Some(768))?;
    let heads = config.size("num_attention_heads", Some(12))?;
    let positions = config.size("max_position_embeddings", Some(8192))?;
    let flag = |key: &str| -> Result<bool, LoadError> { Ok(config.get(key)?.unwrap_or(false)) };
    let norm = match flag("norm_bias")? {
        true => NormKind::Layer,
        false => NormKind::LayerWithoutBias,
    };
    let (attention_bias, mlp_bias) = (flag("attention_bias")?, flag("mlp_bias")?);
    let layers = Shape {
        layers: modernbert_layers(config, positions)?,
        width,
        heads,
        key_value_heads: heads,
        head_size: head_size(config, ("hidden_size", width), ("num_attention_heads", heads))?,
        feed_forward_size: config.size("intermediate_size", Some(1152))?,
        activation: activation(config, "hidden_activation", "gelu")?,
        gate: Gate::ActivatedFirst,
        norm,
        epsilon: config.get("norm_eps")?.unwrap_or(1e-5),
        norms: Norms::Before,
        biases: Biases {
            project: attention_bias,
            attention_output: attention_bias,
            feed_forward_in: mlp_bias,
            feed_forward_out: mlp_bias,
        },
        ..post_norm()
    };
    let head = DenseShape {
        name: TensorName::Outer("head.dense"),
        biased: flag("classifier_bias")?,
        activation: activation(config, "classifier_activation", "gelu")?,
        norm: Some(("head.norm", norm)),
    };
    let pooling: Option<String> = config.get("classifier_pooling")?;
    Ok(Architecture {
        names: Names {
            project: &["attn.Wqkv"],
            query_key_norms: None,
            attention_output: "attn.Wo",
            attention_norm: "attn_norm",
            feed_forward_in: &["mlp.Wi"],
            feed_forward_out: "mlp.Wo",
            feed_forward_norm: "mlp_norm",
        },
        embeddings: EmbeddingsShape {
            words: "embeddings.tok_embeddings.weight",
            vocabulary: config.size("vocab_size", Some(50368))?,
            width,
            positions: None,
            types: None,
            norm: Some("embeddings.norm"),
            projection: None,
        },
        final_norm: Some("final_norm"),
        max_tokens: positions,
        classifier: ClassifierShape {
            pooling: match pooling.as_deref() {
                None | Some("cls") => ClassifierPooling::First,
                Some("mean") => ClassifierPooling::Mean,
                Some(_) => return Err(config.unsupported("classifier_pooling", "cls or mean")),
            },
            dense: Some(head.clone()),
            output: "classifier",
            biased: true,
        },
        masked_lm: Some(MaskedLmShape {
            dense: head,
            decoder: untied(config, "decoder.weight")?,
            bias: config
                .get("decoder_bias")?
                .unwrap_or(true)
                .then_some(["decoder.bias"; 2]),
        }),
        layers,
    })
}

/// Describes the layers, of which most attend only to tokens nearby.
fn modernbert_layers(config: &ConfigFile, positions: usize) -> Result<Vec<LayerShape>, LoadError> {
    let count = config.size("num_hidden_layers", Some(22))?;
    let global_every = config.size("global_attn_every_n_layers", Some(3))?;
    let kinds: Option<Vec<String>> = config.get("layer_types")?;
    let of_index = |index: usize| match index % global_every {
        0 => "full_attention".to_owned(),
        _ => "sliding_attention".to_owned(),
    };
    let kinds = kinds.unwrap_or_else(|| (0..count).map(of_index).collect());
    if kinds.len() != count {
        return Err(config.unsupported("layer_types", format_args!("{count} layers")));
    }
    // The window of the configuration extends to both sides of a token.
    let window = config.size("local_attention", Some(128))? / 2;
    let section = config.section("rope_parameters")?;
    let old = config.section("rope_scaling")?;
    let rotary_of = |kind: &str, key: &str, theta: f32| {
        let own = section.as_ref().map_or(Ok(None), |section| {
            section.check(
                &[&honored(["full_attention", "sliding_attention"])],
                &Default::default(),
            )?;
            section.section(kind)
        })?;
        for section in own.iter().chain(&old) {
            section.check(&[super::keys::ROTARY], &Default::default())?;
        }
        let theta = config.get(key)?.unwrap_or(theta);
        rotary(config, own.as_ref().or(old.as_ref()), theta, positions)
    };
    let global = rotary_of("full_attention", "global_rope_theta", 160_000.0)?;
    let local = rotary_of("sliding_attention", "local_rope_theta", 10_000.0)?;
    let layers = LayerShape::numbered("layers", count)
        .into_iter()
        .zip(kinds)
        .enumerate();
    layers
        .map(|(index, (layer, kind))| {
            let (window, rotary) = match &*kind {
                "full_attention" => (None, global),
                "sliding_attention" => (Some(window), local),
                _ => return Err(config.unsupported("layer_types", "full_attention and sliding_attention")),
            };
            Ok(LayerShape {
                window,
                rotary: Some(rotary),
                // The embeddings are normalized already.
                has_attention_norm: index > 0,
                ..layer
            })
        })
        .collect()
}

pub(super) const NOMIC: Family = Family {
    model_types: &["nomic_bert"],
    models: "nomic-embed-text",
    layers: "rotary positions, SwiGLU, no biases",
    keys: keys![
        honored([
            "hidden_size",
            "n_embd",
            "num_attention_heads",
            "n_head",
            "num_hidden_layers",
            "n_layer",
            "intermediate_size",
            "n_inner",
            "max_position_embeddings",
            "n_positions",
            "type_vocab_size",
            "layer_norm_eps",
            "layer_norm_epsilon",
            "hidden_act",
            "rope_parameters",
            "rope_scaling",
            "rope_theta",
            "rotary_emb_base",
            "head_dim",
        ]),
        OWN_CODE,
        irrelevant(
            "training only",
            ["attn_pdrop", "embd_pdrop", "resid_pdrop", "summary_first_dropout"]
        ),
        irrelevant(
            "for a head that is not used here",
            [
                "summary_activation",
                "summary_proj_to_labels",
                "summary_type",
                "summary_use_proj"
            ]
        ),
        irrelevant(
            "selects an equivalent implementation",
            [
                "fused_bias_fc",
                "fused_dropout_add_ln",
                "use_flash_attn",
                "use_xentropy",
                "dense_seq_output",
                "reorder_and_upcast_attn"
            ]
        ),
        irrelevant(
            "the rows of the table define the vocabulary",
            ["pad_vocab_size_multiple"]
        ),
        irrelevant(
            "matters only with `rotary_scaling_factor`",
            ["max_trained_positions"]
        ),
        [
            only("activation_function", &["\"swiglu\"", "null"]),
            only("causal", &["false", "null"]),
            only("mlp_fc1_bias", &["false", "null"]),
            only("mlp_fc2_bias", &["false", "null"]),
            only("qkv_proj_bias", &["false", "null"]),
            only("prenorm", &["false", "null"]),
            only("parallel_block", &["false", "null"]),
            only("parallel_block_tied_norm", &["false", "null"]),
            only("use_rms_norm", &["false", "null"]),
            only("rotary_emb_fraction", &["1.0", "1", "null"]),
            only("rotary_emb_interleaved", &["false", "null"]),
            only("rotary_emb_scale_base", &["null"]),
            only("rotary_scaling_factor", &["null"]),
            only("scale_attn_by_inverse_layer_idx", &["false", "null"]),
            only("scale_attn_weights", &["true", "null"]),
            only("num_experts", &["0", "null"]),
            only("moe_every_n_layers", &["0", "null"]),
        ],
    ],
    read: |config| {
        let first = |newer: &str, older: &str, default: usize| match config.get::<usize>(older)? {
            Some(_) => config.size(older, None),
            None => config.size(newer, Some(default)),
        };
        let width = first("hidden_size", "n_embd", 768)?;
        let heads = first("num_attention_heads", "n_head", 12)?;
        let positions = first("max_position_embeddings", "n_positions", 2048)?;
        let head_size = head_size(config, ("hidden_size", width), ("num_attention_heads", heads))?;
        if config
            .get::<usize>("head_dim")?
            .is_some_and(|size| size != head_size)
        {
            return Err(config.unsupported("head_dim", head_size));
        }
        let theta = config
            .first(&["rope_theta", "rotary_emb_base"])?
            .unwrap_or(1000.0);
        let rotary = rotary(config, rotary_section(config)?.as_ref(), theta, positions)?;
        let layers = Shape {
            layers: rotary_layers(
                "encoder.layers",
                first("num_hidden_layers", "n_layer", 12)?,
                rotary,
            ),
            width,
            heads,
            key_value_heads: heads,
            head_size,
            feed_forward_size: first("intermediate_size", "n_inner", 3072)?,
            activation: activation(config, "hidden_act", "silu")?,
            gate: Gate::ActivatedFirst,
            epsilon: config
                .first(&["layer_norm_eps", "layer_norm_epsilon"])?
                .unwrap_or(1e-12),
            biases: Biases::all(false),
            ..post_norm()
        };
        Ok(Architecture {
            names: Names {
                project: &["attn.Wqkv"],
                query_key_norms: None,
                attention_output: "attn.out_proj",
                attention_norm: "norm1",
                feed_forward_in: &["mlp.fc12", "mlp.fc11"],
                feed_forward_out: "mlp.fc2",
                feed_forward_norm: "norm2",
            },
            embeddings: EmbeddingsShape {
                norm: Some("emb_ln"),
                ..typed_embeddings(config, width, 2)?
            },
            final_norm: None,
            max_tokens: positions,
            classifier: pooled_classifier(),
            masked_lm: None,
            layers,
        })
    },
};

pub(super) const GTE: Family = Family {
    model_types: &["gte", "new"],
    models: "gte-multilingual-base, gte-base-en-v1.5, snowflake-arctic-embed-m-v2.0",
    layers: "rotary positions, GeGLU",
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
            "rope_parameters",
            "rope_scaling",
            "rope_theta",
        ]),
        OWN_CODE,
        irrelevant(
            "selects an equivalent implementation",
            ["unpad_inputs", "use_memory_efficient_attention"]
        ),
        [
            only("position_embedding_type", &["\"rope\"", "null"]),
            only("pack_qkv", &["true", "null"]),
            only("layer_norm_type", &["\"layer_norm\"", "null"]),
            only("logn_attention_scale", &["false", "null"]),
            only("logn_attention_clip1", &["false", "null"]),
        ],
    ],
    read: |config| {
        let width = config.size("hidden_size", Some(768))?;
        let heads = config.size("num_attention_heads", Some(12))?;
        let positions = config.size("max_position_embeddings", Some(8192))?;
        let is_native = config.get::<String>("model_type")?.as_deref() == Some("gte");
        let default = if is_native { 160_000.0 } else { 10_000.0 };
        let theta = config.get("rope_theta")?.unwrap_or(default);
        let rotary = rotary(config, rotary_section(config)?.as_ref(), theta, positions)?;
        let layers = Shape {
            layers: rotary_layers(
                "encoder.layer",
                config.size("num_hidden_layers", Some(12))?,
                rotary,
            ),
            width,
            heads,
            key_value_heads: heads,
            head_size: head_size(config, ("hidden_size", width), ("num_attention_heads", heads))?,
            feed_forward_size: config.size("intermediate_size", Some(3072))?,
            activation: activation(config, "hidden_act", "gelu")?,
            gate: Gate::ActivatedSecond,
            epsilon: config.get("layer_norm_eps")?.unwrap_or(1e-12),
            biases: Biases {
                feed_forward_in: false,
                ..Biases::ALL
            },
            ..post_norm()
        };
        Ok(Architecture {
            names: Names {
                project: &["attention.qkv_proj"],
                query_key_norms: None,
                attention_output: "attention.o_proj",
                attention_norm: "attn_ln",
                feed_forward_in: &["mlp.up_gate_proj"],
                feed_forward_out: "mlp.down_proj",
                feed_forward_norm: "mlp_ln",
            },
            embeddings: EmbeddingsShape {
                norm: Some("embeddings.LayerNorm"),
                ..typed_embeddings(config, width, 1)?
            },
            final_norm: None,
            max_tokens: positions,
            classifier: pooled_classifier(),
            masked_lm: None,
            layers,
        })
    },
};

/// Embeddings without positions. A network may have no token types.
fn typed_embeddings(config: &ConfigFile, width: usize, types: usize) -> Result<EmbeddingsShape, LoadError> {
    let types = config.get("type_vocab_size")?.unwrap_or(types);
    Ok(EmbeddingsShape {
        types: (types > 0).then_some((TOKEN_TYPES, types)),
        ..embeddings(config, width)?
    })
}

fn pooled_classifier() -> ClassifierShape {
    classifier(TensorName::Inner("pooler.dense"), Activation::Tanh, "classifier")
}
