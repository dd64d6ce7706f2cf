//! The JSON files of a sentence-transformers directory, as older and newer versions write them. `model_spec` combines them.

use std::collections::HashMap;
use std::path::Path;

use plugin_sdk::LoadError;
use plugin_sdk::serde_json;
use serde::Deserialize;
use transformer::files::file_error;
use transformer::{Activation, Norms, Pooling, Shape};

use crate::model_spec::Architecture;
use crate::settings::PromptSettings;
use crate::similarity::Similarity;

/// An entry of `modules.json`.
#[derive(Deserialize)]
pub(crate) struct Module {
    #[serde(default)]
    pub(crate) path: String,
    /// Path of a Python class. Only the module path differs between versions.
    #[serde(rename = "type")]
    pub(crate) kind: String,
}

impl Module {
    pub(crate) fn name(&self) -> &str {
        self.kind.rsplit('.').next().unwrap_or_default()
    }
}

/// `config.json` of the network.
#[derive(Deserialize)]
pub(crate) struct NetworkConfig {
    model_type: String,
    #[serde(default)]
    architectures: Vec<String>,
    hidden_size: Option<usize>,
    num_attention_heads: Option<usize>,
    num_hidden_layers: Option<usize>,
    intermediate_size: Option<usize>,
    pub(crate) max_position_embeddings: Option<usize>,
    type_vocab_size: Option<usize>,
    layer_norm_eps: Option<f32>,
    hidden_act: Option<String>,
    pad_token_id: Option<usize>,
    position_embedding_type: Option<String>,
    sentence_transformers: Option<ScoreConfig>,
    sbert_ce_default_activation_function: Option<String>,
}

#[derive(Deserialize)]
pub(crate) struct ScoreConfig {
    activation_fn: Option<String>,
}

impl NetworkConfig {
    pub(crate) fn scores_pairs(&self) -> bool {
        let of_class = |name: &String| name.ends_with("ForSequenceClassification");
        self.architectures.iter().any(of_class)
    }

    /// Whether the sigmoid function is applied to scores. Newer and older versions store this in different places.
    pub(crate) fn sigmoid(&self, file: &Path) -> Result<bool, LoadError> {
        let newer = self
            .sentence_transformers
            .as_ref()
            .and_then(|config| config.activation_fn.as_deref());
        let named = newer.or(self.sbert_ce_default_activation_function.as_deref());
        match named.and_then(|name| name.rsplit('.').next()) {
            None | Some("Sigmoid") => Ok(true),
            Some("Identity") => Ok(false),
            Some(other) => Err(file_error(
                file,
                &format!("has the activation function `{other}` for scores, expected Sigmoid or Identity"),
            )),
        }
    }

    /// Whether positions start after that of the padding token, as in RoBERTa. `None` for networks that are not BERT-like.
    fn counts_from_padding(&self) -> Option<bool> {
        match &*self.model_type {
            "bert" => Some(false),
            "roberta" | "xlm-roberta" | "camembert" => Some(true),
            _ => None,
        }
    }

    pub(crate) fn first_position(&self) -> usize {
        match self.counts_from_padding() {
            Some(true) => self.pad_token_id.unwrap_or(1) + 1,
            _ => 0,
        }
    }

    pub(crate) fn architecture(&self, file: &Path) -> Result<Architecture, LoadError> {
        if self.counts_from_padding().is_none() {
            let message = format!(
                "has the model type `{}`, expected bert, roberta, xlm-roberta or camembert: other types require an ONNX file in \
                 the model directory",
                self.model_type
            );
            return Err(file_error(file, &message));
        }
        if let Some(kind) = self
            .position_embedding_type
            .as_deref()
            .filter(|kind| *kind != "absolute")
        {
            return Err(file_error(
                file,
                &format!("has `{kind}` positions, expected `absolute`"),
            ));
        }
        let name = self.hidden_act.as_deref().unwrap_or("gelu");
        let activation = Activation::named(name).ok_or_else(|| {
            file_error(
                file,
                &format!("has the activation `{name}`, expected gelu or relu"),
            )
        })?;
        let size = |key: &str, value: Option<usize>| {
            value
                .filter(|size| *size > 0)
                .ok_or_else(|| file_error(file, &format!("has no `{key}`")))
        };
        let hidden_size = size("hidden_size", self.hidden_size)?;
        let num_attention_heads = size("num_attention_heads", self.num_attention_heads)?;
        if hidden_size % num_attention_heads != 0 {
            let message = format!(
                "has `hidden_size` {hidden_size}, expected a multiple of `num_attention_heads` {num_attention_heads}"
            );
            return Err(file_error(file, &message));
        }
        Ok(Architecture {
            layers: Shape {
                layers: size("num_hidden_layers", self.num_hidden_layers)?,
                width: hidden_size,
                heads: num_attention_heads,
                feed_forward_size: size("intermediate_size", self.intermediate_size)?,
                activation,
                epsilon: self.layer_norm_eps.unwrap_or(1e-12),
                norms: Norms::After,
                causal: false,
            },
            max_position_embeddings: size("max_position_embeddings", self.max_position_embeddings)?,
            type_vocab_size: size("type_vocab_size", self.type_vocab_size.or(Some(2)))?,
            first_position: self.first_position(),
        })
    }
}

/// `sentence_bert_config.json`.
#[derive(Default, Deserialize)]
pub(crate) struct LengthConfig {
    pub(crate) max_seq_length: Option<usize>,
    #[serde(default)]
    pub(crate) do_lower_case: bool,
}

/// `tokenizer_config.json`.
#[derive(Default, Deserialize)]
pub(crate) struct TokenizerConfig {
    /// A huge number if there is no limit.
    pub(crate) model_max_length: Option<f64>,
}

/// `config.json` of the module Pooling, as older and newer versions write it.
#[derive(Deserialize)]
pub(crate) struct PoolingConfig {
    pooling_mode: Option<PoolingModes>,
    #[serde(default = "yes")]
    pub(crate) include_prompt: bool,
    #[serde(flatten)]
    others: HashMap<String, serde_json::Value>,
}

#[derive(Deserialize)]
#[serde(untagged)]
pub(crate) enum PoolingModes {
    One(String),
    Several(Vec<String>),
}

fn yes() -> bool {
    true
}

impl Default for PoolingConfig {
    fn default() -> Self {
        Self {
            pooling_mode: None,
            include_prompt: true,
            others: HashMap::new(),
        }
    }
}

impl PoolingConfig {
    pub(crate) fn mode(&self) -> Result<Pooling, LoadError> {
        let modes = match &self.pooling_mode {
            Some(PoolingModes::One(mode)) => vec![mode.clone()],
            Some(PoolingModes::Several(modes)) => modes.clone(),
            None => {
                let set = self.others.iter().filter(|(_, value)| **value == true);
                set.filter_map(|(key, _)| key.strip_prefix("pooling_mode_"))
                    .map(|mode| {
                        mode.trim_end_matches("_tokens")
                            .trim_end_matches("_token")
                            .to_owned()
                    })
                    .collect()
            }
        };
        let modes: Vec<_> = modes.iter().map(|mode| &**mode).collect();
        match modes[..] {
            [] | ["mean"] => Ok(Pooling::Mean),
            ["cls"] => Ok(Pooling::Cls),
            ["max"] => Ok(Pooling::Max),
            _ => Err(LoadError::setting(
                "folder",
                format_args!(
                    "the model uses the pooling {}, expected mean, cls or max",
                    modes.join(" and ")
                ),
            )),
        }
    }
}

/// `config_sentence_transformers.json`.
#[derive(Default, Deserialize)]
pub(crate) struct TextConfig {
    #[serde(default)]
    prompts: HashMap<String, String>,
    default_prompt_name: Option<String>,
    pub(crate) similarity_fn_name: Option<Similarity>,
}

impl TextConfig {
    /// Returns the prompts of queries and passages.
    pub(crate) fn prompts(&self, settings: &PromptSettings) -> (String, String) {
        let first = |written: &Option<String>, names: &[&str]| {
            let default = self.default_prompt_name.as_deref();
            let named = names
                .iter()
                .copied()
                .chain(default)
                .find_map(|name| self.prompts.get(name));
            written.as_ref().or(named).cloned().unwrap_or_default()
        };
        (
            first(&settings.query, &["query"]),
            first(&settings.passage, &["document", "passage", "corpus"]),
        )
    }
}
