//! What a folder of sentence-transformers says: which network, which pooling, which prompts, how long a text may be. All that
//! its many files say of a model ends here; the rest of the plugin sees a [`Recipe`].

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use plugin_sdk::LoadError;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::linear::Activation;
use crate::pooling::{Pooling, Similarity};
use crate::settings::Settings;

/// A model, as its folder and the settings together describe it.
pub(crate) struct Recipe {
    pub(crate) weights: WeightsFile,
    /// The file with the vocabulary.
    pub(crate) tokenizer: PathBuf,
    /// Whether texts are made lower case before they are split into tokens.
    pub(crate) lowercase: bool,
    /// Most tokens of a text.
    pub(crate) max_length: usize,
    pub(crate) purpose: Purpose,
}

/// Where the numbers are.
pub(crate) enum WeightsFile {
    /// Weights alone, for an encoder that this plugin computes itself.
    Safetensors(PathBuf, Architecture),
    /// The whole computation.
    Onnx(PathBuf),
}

/// What the model is for.
pub(crate) enum Purpose {
    /// Vectors of texts.
    Embed(Embedding),
    /// A score for a query with a passage.
    Rank {
        /// Whether scores are mapped to 0 … 1.
        sigmoid: bool,
    },
}

/// How vectors are made, beside the network.
#[derive(Clone, Debug)]
pub(crate) struct Embedding {
    pub(crate) pooling: Pooling,
    pub(crate) normalize: bool,
    pub(crate) similarity: Similarity,
    /// What is put before queries.
    pub(crate) query: String,
    /// What is put before passages.
    pub(crate) passage: String,
}

/// Sizes of an encoder of BERT's kind, by the names of `config.json`.
#[derive(Clone, Debug)]
pub(crate) struct Architecture {
    pub(crate) hidden_size: usize,
    pub(crate) num_attention_heads: usize,
    pub(crate) num_hidden_layers: usize,
    pub(crate) intermediate_size: usize,
    pub(crate) max_position_embeddings: usize,
    pub(crate) type_vocab_size: usize,
    pub(crate) layer_norm_eps: f32,
    pub(crate) activation: Activation,
    /// Position of the first token.
    pub(crate) first_position: usize,
}

impl Recipe {
    /// Reads the folder at `root`. The settings go before what it says.
    pub(crate) fn read(root: &Path, settings: &Settings) -> Result<Self, LoadError> {
        if !root.is_dir() {
            let message = format!("`{}` is not a folder", root.display());
            return Err(LoadError::setting("folder", message));
        }
        let modules: Vec<Module> = read(&root.join("modules.json"))?.unwrap_or_default();
        let base = modules
            .iter()
            .find(|module| module.name() == "Transformer")
            .map_or_else(|| root.to_owned(), |module| root.join(&module.path));
        let config_file = base.join("config.json");
        let config: NetworkConfig =
            read(&config_file)?.ok_or_else(|| blame(&config_file, "does not exist"))?;
        let (weights, positions) = weights_file(root, &base, &config, settings)?;
        let lengths: LengthConfig = read(&base.join("sentence_bert_config.json"))?.unwrap_or_default();
        let tokenizer: TokenizerConfig = read(&base.join("tokenizer_config.json"))?.unwrap_or_default();
        let purpose = if config.scores_pairs() {
            refuse_embedding_settings(settings)?;
            Purpose::Rank {
                sigmoid: config.sigmoid(&config_file)?,
            }
        } else {
            Purpose::Embed(Embedding::read(root, &modules, settings)?)
        };
        Ok(Self {
            weights,
            tokenizer: base.join("tokenizer.json"),
            lowercase: lengths.do_lower_case,
            max_length: max_length(settings, &lengths, &tokenizer, positions)?,
            purpose,
        })
    }
}

impl Embedding {
    fn read(root: &Path, modules: &[Module], settings: &Settings) -> Result<Self, LoadError> {
        if let Some(odd) = modules
            .iter()
            .find(|module| !["Transformer", "Pooling", "Normalize"].contains(&module.name()))
        {
            let message = format!(
                "has a module `{}`, expected Transformer, Pooling and Normalize",
                odd.kind
            );
            return Err(blame(&root.join("modules.json"), &message));
        }
        let has = |name: &str| modules.iter().find(|module| module.name() == name);
        let pooling = match has("Pooling") {
            Some(module) => {
                let file = root.join(&module.path).join("config.json");
                read(&file)?.ok_or_else(|| blame(&file, "does not exist"))?
            }
            None => PoolingConfig::default(),
        };
        let texts: TextConfig = read(&root.join("config_sentence_transformers.json"))?.unwrap_or_default();
        let (query, passage) = texts.prompts(settings);
        let prompted = !query.is_empty() || !passage.is_empty();
        if prompted && !pooling.include_prompt {
            let message = "the model leaves prompts out of its pooling (`include_prompt` is false), which this plugin does not";
            return Err(LoadError::setting("folder", message));
        }
        Ok(Self {
            pooling: match settings.pooling {
                Some(pooling) => pooling,
                None => pooling.mode()?,
            },
            normalize: settings.normalize.unwrap_or(has("Normalize").is_some()),
            similarity: texts.similarity_fn_name.unwrap_or_default(),
            query,
            passage,
        })
    }
}

/// A line of `modules.json`.
#[derive(Deserialize)]
struct Module {
    #[serde(default)]
    path: String,
    /// A Python class with its path, which differs between versions.
    #[serde(rename = "type")]
    kind: String,
}

impl Module {
    fn name(&self) -> &str {
        self.kind.rsplit('.').next().unwrap_or_default()
    }
}

/// `config.json` of the network.
#[derive(Deserialize)]
struct NetworkConfig {
    model_type: String,
    #[serde(default)]
    architectures: Vec<String>,
    hidden_size: Option<usize>,
    num_attention_heads: Option<usize>,
    num_hidden_layers: Option<usize>,
    intermediate_size: Option<usize>,
    max_position_embeddings: Option<usize>,
    type_vocab_size: Option<usize>,
    layer_norm_eps: Option<f32>,
    hidden_act: Option<String>,
    pad_token_id: Option<usize>,
    position_embedding_type: Option<String>,
    sentence_transformers: Option<ScoreConfig>,
    sbert_ce_default_activation_function: Option<String>,
}

#[derive(Deserialize)]
struct ScoreConfig {
    activation_fn: Option<String>,
}

impl NetworkConfig {
    fn scores_pairs(&self) -> bool {
        let of_class = |name: &String| name.ends_with("ForSequenceClassification");
        self.architectures.iter().any(of_class)
    }

    /// What is applied to a score, which newer and older folders say in different places.
    fn sigmoid(&self, file: &Path) -> Result<bool, LoadError> {
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

    fn first_position(&self) -> usize {
        match self.counts_from_padding() {
            Some(true) => self.pad_token_id.unwrap_or(1) + 1,
            _ => 0,
        }
    }

    fn architecture(&self, file: &Path) -> Result<Architecture, LoadError> {
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
            hidden_size,
            num_attention_heads,
            num_hidden_layers: size("num_hidden_layers", self.num_hidden_layers)?,
            intermediate_size: size("intermediate_size", self.intermediate_size)?,
            max_position_embeddings: size("max_position_embeddings", self.max_position_embeddings)?,
            type_vocab_size: size("type_vocab_size", self.type_vocab_size.or(Some(2)))?,
            layer_norm_eps: self.layer_norm_eps.unwrap_or(1e-12),
            activation,
            first_position: self.first_position(),
        })
    }
}

/// `sentence_bert_config.json`.
#[derive(Default, Deserialize)]
struct LengthConfig {
    max_seq_length: Option<usize>,
    #[serde(default)]
    do_lower_case: bool,
}

/// `tokenizer_config.json`.
#[derive(Default, Deserialize)]
struct TokenizerConfig {
    /// A number beyond all bounds where there is none.
    model_max_length: Option<f64>,
}

/// `config.json` of the pooling, in the words of older and newer versions.
#[derive(Deserialize)]
struct PoolingConfig {
    pooling_mode: Option<PoolingModes>,
    #[serde(default = "yes")]
    include_prompt: bool,
    #[serde(flatten)]
    others: HashMap<String, plugin_sdk::serde_json::Value>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum PoolingModes {
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
    fn mode(&self) -> Result<Pooling, LoadError> {
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
struct TextConfig {
    #[serde(default)]
    prompts: HashMap<String, String>,
    default_prompt_name: Option<String>,
    similarity_fn_name: Option<Similarity>,
}

impl TextConfig {
    /// Those of queries and of passages.
    fn prompts(&self, settings: &Settings) -> (String, String) {
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
            first(&settings.prompts.query, &["query"]),
            first(&settings.prompts.passage, &["document", "passage", "corpus"]),
        )
    }
}

/// The file to load, and how many tokens its positions allow, if it is known.
fn weights_file(
    root: &Path,
    base: &Path,
    config: &NetworkConfig,
    settings: &Settings,
) -> Result<(WeightsFile, Option<usize>), LoadError> {
    let places = match &settings.weights {
        Some(name) => vec![root.join(name)],
        None => vec![
            base.join("model.safetensors"),
            root.join("onnx/model.onnx"),
            base.join("model.onnx"),
        ],
    };
    let key = if settings.weights.is_some() {
        "weights"
    } else {
        "folder"
    };
    let Some(file) = places.iter().find(|file| file.is_file()) else {
        let names: Vec<_> = places
            .iter()
            .map(|place| format!("`{}`", place.display()))
            .collect();
        let message = format!("there is no file with weights, expected {}", names.join(" or "));
        return Err(LoadError::setting(key, message));
    };
    let positions = config
        .max_position_embeddings
        .map(|positions| positions.saturating_sub(config.first_position()));
    match file.extension().and_then(|extension| extension.to_str()) {
        Some("onnx") => Ok((WeightsFile::Onnx(file.clone()), positions)),
        Some("safetensors") => {
            let architecture = config.architecture(&base.join("config.json"))?;
            Ok((WeightsFile::Safetensors(file.clone(), architecture), positions))
        }
        _ => Err(LoadError::setting(
            key,
            format_args!(
                "`{}` is of another kind, expected .safetensors or .onnx",
                file.display()
            ),
        )),
    }
}

fn max_length(
    settings: &Settings,
    lengths: &LengthConfig,
    tokenizer: &TokenizerConfig,
    positions: Option<usize>,
) -> Result<usize, LoadError> {
    if let Some(wanted) = settings.max_length {
        let wanted = wanted.get();
        return match positions {
            Some(most) if wanted > most => Err(LoadError::setting(
                "max_length",
                format_args!("{wanted}, expected at most {most}, which is how many positions the model has"),
            )),
            _ => Ok(wanted),
        };
    }
    // The cast saturates, which is what is meant.
    let said = lengths
        .max_seq_length
        .or(tokenizer.model_max_length.map(|length| length as usize));
    match (said, positions) {
        (Some(said), Some(most)) => Ok(said.min(most)),
        (Some(length), None) | (None, Some(length)) if length < usize::MAX => Ok(length),
        _ => Err(LoadError::setting(
            "max_length",
            "the folder does not say how long a text may be, expected a number of tokens",
        )),
    }
}

/// A model that scores pairs makes no vectors.
fn refuse_embedding_settings(settings: &Settings) -> Result<(), LoadError> {
    let written = [
        ("pooling", settings.pooling.is_some()),
        ("normalize", settings.normalize.is_some()),
        ("prompts.query", settings.prompts.query.is_some()),
        ("prompts.passage", settings.prompts.passage.is_some()),
    ];
    match written.iter().find(|(_, written)| *written) {
        Some((key, _)) => Err(LoadError::setting(
            key,
            "is for models that make vectors, but this one scores pairs (a cross-encoder)",
        )),
        None => Ok(()),
    }
}

/// Reads a JSON file; `None` if there is none.
fn read<T: DeserializeOwned>(file: &Path) -> Result<Option<T>, LoadError> {
    if !file.exists() {
        return Ok(None);
    }
    let text = fs::read(file).map_err(|error| blame(file, &format!("cannot be read: {error}")))?;
    plugin_sdk::serde_json::from_slice(&text)
        .map(Some)
        .map_err(|error| blame(file, &format!("is not what it should be: {error}")))
}

fn blame(file: &Path, problem: &str) -> LoadError {
    LoadError::setting("folder", format_args!("`{}` {problem}", file.display()))
}
