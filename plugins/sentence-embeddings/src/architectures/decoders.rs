//! Decoders: networks for generating text that were trained to embed texts. A token attends only to itself and preceding tokens.

use plugin_sdk::LoadError;
use transformer::files::{ConfigFile, honored, irrelevant, only};
use transformer::{Biases, Gate, LayerShape, Names, NormKind, Norms, Shape, keys};

use super::parts::{embeddings, post_norm};
use super::{
    Architecture, ClassifierPooling, ClassifierShape, EmbeddingsShape, Family, activation, head_size, rotary,
    rotary_section,
};

/// What distinguishes the decoders from each other.
struct Variant {
    /// Default number of heads of keys and values. `None`: as many as attention heads.
    key_value_heads: Option<usize>,
    /// Default vector length of a head. `None`: the vectors are divided evenly.
    head_size: Option<usize>,
    /// Biases of the projections to queries, keys and values, and of the output projection, unless the configuration requires both.
    biases: [bool; 2],
    has_query_key_norms: bool,
}

pub(super) const DECODERS: Family = Family {
    model_types: &["qwen3", "qwen2", "mistral", "llama"],
    models: "Qwen3-Embedding, e5-mistral, linq-embed-mistral",
    layers: "rotary positions, SwiGLU, RMS normalization before each part, grouped queries; `qwen3` normalizes queries and keys, \
             `qwen2` has biases",
    keys: keys![
        honored([
            "hidden_size",
            "num_attention_heads",
            "num_key_value_heads",
            "head_dim",
            "num_hidden_layers",
            "intermediate_size",
            "max_position_embeddings",
            "hidden_act",
            "rms_norm_eps",
            "attention_bias",
            "mlp_bias",
            "is_causal",
            "layer_types",
            "sliding_window",
            "use_sliding_window",
            "max_window_layers",
            "rope_parameters",
            "rope_scaling",
            "rope_theta",
            "pad_token_id",
        ]),
        irrelevant("training only", ["pretraining_tp"]),
        [only("partial_rotary_factor", &["1", "1.0", "null"])],
    ],
    read,
};

fn read(config: &ConfigFile) -> Result<Architecture, LoadError> {
    let kind: String = config.get("model_type")?.unwrap_or_default();
    let variant = match &*kind {
        "qwen3" => Variant {
            key_value_heads: Some(32),
            head_size: Some(128),
            biases: [false; 2],
            has_query_key_norms: true,
        },
        "qwen2" => Variant {
            key_value_heads: Some(32),
            head_size: None,
            biases: [true, false],
            has_query_key_norms: false,
        },
        _ => Variant {
            key_value_heads: (kind == "mistral").then_some(8),
            head_size: None,
            biases: [false; 2],
            has_query_key_norms: false,
        },
    };
    let width = config.size("hidden_size", Some(4096))?;
    let heads = config.size("num_attention_heads", Some(32))?;
    let positions = config.size(
        "max_position_embeddings",
        Some(if kind == "llama" { 2048 } else { 32768 }),
    )?;
    let head_size = match config.get::<usize>("head_dim")?.or(variant.head_size) {
        Some(_) => config.size("head_dim", variant.head_size)?,
        None => head_size(config, ("hidden_size", width), ("num_attention_heads", heads))?,
    };
    for (key, kinds) in [
        ("attention_bias", &["qwen3", "llama"][..]),
        ("mlp_bias", &["llama"]),
    ] {
        // The Python classes of the other types ignore it.
        if config.get(key)?.unwrap_or(false) && !kinds.contains(&&*kind) {
            return Err(config.unsupported(key, format_args!("false for the type `{kind}`")));
        }
    }
    let [project, attention_output] = match config.get("attention_bias")?.unwrap_or(false) {
        true => [true; 2],
        false => variant.biases,
    };
    let mlp_bias = config.get("mlp_bias")?.unwrap_or(false);
    let causal = config.get("is_causal")?.unwrap_or(true);
    let layers = layers(config, &kind, positions)?;
    if !causal && layers.iter().any(|layer| layer.window.is_some()) {
        return Err(config.unsupported("is_causal", "true with `sliding_window`"));
    }
    let layers = Shape {
        layers,
        width,
        heads,
        // An explicit null means as many as attention heads.
        key_value_heads: match config.keys().any(|key| key == "num_key_value_heads") {
            true => config.size("num_key_value_heads", Some(heads))?,
            false => variant.key_value_heads.unwrap_or(heads),
        },
        head_size,
        causal,
        feed_forward_size: config.size("intermediate_size", None)?,
        activation: activation(config, "hidden_act", "silu")?,
        gate: Gate::ActivatedFirst,
        norm: NormKind::RootMeanSquare,
        epsilon: config.get("rms_norm_eps")?.unwrap_or(1e-6),
        norms: Norms::Before,
        biases: Biases {
            project,
            attention_output,
            feed_forward_in: mlp_bias,
            feed_forward_out: mlp_bias,
        },
        ..post_norm()
    };
    Ok(Architecture {
        names: Names {
            project: &["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
            query_key_norms: variant
                .has_query_key_norms
                .then_some(["self_attn.q_norm", "self_attn.k_norm"]),
            attention_output: "self_attn.o_proj",
            attention_norm: "input_layernorm",
            feed_forward_in: &["mlp.gate_proj", "mlp.up_proj"],
            feed_forward_out: "mlp.down_proj",
            feed_forward_norm: "post_attention_layernorm",
        },
        embeddings: EmbeddingsShape {
            words: "embed_tokens.weight",
            ..embeddings(config, width)?
        },
        final_norm: Some("norm"),
        max_tokens: positions,
        classifier: ClassifierShape {
            pooling: ClassifierPooling::Last(config.get("pad_token_id")?),
            dense: None,
            output: "score",
            biased: false,
        },
        masked_lm: None,
        layers,
    })
}

/// Describes the layers. Some attend only to preceding tokens nearby.
fn layers(config: &ConfigFile, kind: &str, positions: usize) -> Result<Vec<LayerShape>, LoadError> {
    let count = config.size("num_hidden_layers", Some(32))?;
    let theta = config.get("rope_theta")?.unwrap_or(10_000.0);
    let rotary = rotary(config, rotary_section(config)?.as_ref(), theta, positions)?;
    let windowed = match kind {
        "qwen2" | "qwen3" if !config.get("use_sliding_window")?.unwrap_or(false) => None,
        "llama" if config.get::<usize>("sliding_window")?.is_some() => {
            return Err(config.unsupported("sliding_window", "null for the type `llama`"));
        }
        "llama" => None,
        // An explicit null means no window.
        _ => match config.keys().any(|key| key == "sliding_window") {
            true => config.get::<usize>("sliding_window")?,
            false => Some(4096),
        },
    };
    // A token attends to itself and the preceding ones, as many as this together.
    let window = match windowed {
        Some(0) => return Err(config.unsupported("sliding_window", "a positive integer or null")),
        window => window.map(|tokens| tokens - 1),
    };
    let from = match kind {
        "qwen2" | "qwen3" => config.get("max_window_layers")?.unwrap_or(28),
        _ => 0,
    };
    let kinds: Option<Vec<String>> = config.get("layer_types")?;
    let is_list_of_all = |kinds: &Vec<String>| kinds.len() == count;
    if kinds.as_ref().is_some_and(|kinds| !is_list_of_all(kinds))
        || (kinds.is_some() && !kind.starts_with("qwen"))
    {
        return Err(config.unsupported(
            "layer_types",
            format_args!("{count} layers, in `qwen2` or `qwen3`"),
        ));
    }
    let layers = LayerShape::numbered("layers", count).into_iter().enumerate();
    layers
        .map(|(index, layer)| {
            let is_windowed = match kinds.as_ref().map(|kinds| &*kinds[index]) {
                None => index >= from,
                Some("full_attention") => false,
                Some("sliding_attention") => true,
                Some(_) => {
                    return Err(config.unsupported("layer_types", "full_attention and sliding_attention"));
                }
            };
            Ok(LayerShape {
                window: window.filter(|_| is_windowed),
                rotary: Some(rotary),
                ..layer
            })
        })
        .collect()
}
