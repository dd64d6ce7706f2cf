//! The JSON files of a folder of sentence-transformers, in the words of its older and newer versions. What they say together is
//! put together in `folder`.

use std::collections::HashMap;
use std::path::Path;

use plugin_sdk::LoadError;
use plugin_sdk::serde_json;
use serde::Deserialize;
use transformer::files::blame;
use transformer::{Activation, Norms, Pooling, Shape};

use crate::folder::Architecture;
use crate::settings::PromptSettings;
use crate::similarity::Similarity;

/// A line of `modules.json`.
#[derive(Deserialize)]
pub(crate) struct Module {
    #[serde(default)]
    pub(crate) path: String,
    /// A Python class with its path, which differs between versions.
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

    /// What is applied to a score, which newer and older folders say in different places.
    pub(crate) fn sigmoid(&self, file: &Path) -> Result<bool, LoadError> {
        let newer = self
            .sentence_transformers
            .as_ref()
            .and_then(|config| config.activation_fn.as_deref());
        let named = newer.or(self.sbert_ce_default_activation_function.as_deref());
        match named.and_then(|name| name.rsplit('.').next()) {
            None | Some("Sigmoid") => Ok(true),
            Some("Identity") => Ok(false),
            Some(other) => Err(blame(
                file,
                &format!("applies `{other}` to scores, expected Sigmoid or Identity"),
            )),
        }
    }

    /// Whether positions count from the one after that of padding, as RoBERTa's do; `None` for other networks than BERT's kin.
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
                "names the model type `{}`, expected bert, roberta, xlm-roberta or camembert: other types are served from an \
                 ONNX file in the folder",
                self.model_type
            );
            return Err(blame(file, &message));
        }
        if let Some(kind) = self
            .position_embedding_type
            .as_deref()
            .filter(|kind| *kind != "absolute")
        {
            return Err(blame(
                file,
                &format!("has `{kind}` positions, expected `absolute`"),
            ));
        }
        let name = self.hidden_act.as_deref().unwrap_or("gelu");
        let activation = Activation::named(name).ok_or_else(|| {
            blame(
                file,
                &format!("has the activation `{name}`, expected gelu or relu"),
            )
        })?;
        let size = |key: &str, value: Option<usize>| {
            value
                .filter(|size| *size > 0)
                .ok_or_else(|| blame(file, &format!("has no `{key}`")))
        };
        let hidden_size = size("hidden_size", self.hidden_size)?;
        let num_attention_heads = size("num_attention_heads", self.num_attention_heads)?;
        if hidden_size % num_attention_heads != 0 {
            let message = format!("divides {hidden_size} numbers among {num_attention_heads} heads");
            return Err(blame(file, &message));
        }
        Ok(Architecture {
            layers: Shape {
                layers: size("num_hidden_layers", self.num_hidden_layers)?,
                width: hidden_size,
                heads: num_attention_heads,
                wide: size("intermediate_size", self.intermediate_size)?,
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
    /// A number beyond all bounds where there is none.
    pub(crate) model_max_length: Option<f64>,
}

/// `config.json` of the pooling, in the words of older and newer versions.
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
                    "the model pools by {}, expected mean, cls or max",
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
    /// Those of queries and of passages.
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
