//! Description of a model: its network, pooling, prompts and maximum length, from the `files` in its directory and the settings.

use std::path::{Path, PathBuf};

use plugin_sdk::LoadError;
use transformer::files::{file_error, read};
use transformer::{Pooling, Shape};

use crate::files::{LengthConfig, Module, NetworkConfig, PoolingConfig, TextConfig, TokenizerConfig};
use crate::settings::Settings;
use crate::similarity::Similarity;

/// Description of a model, from its directory and the settings.
pub(crate) struct ModelSpec {
    pub(crate) weights: WeightsFile,
    /// Path of `tokenizer.json`.
    pub(crate) tokenizer: PathBuf,
    /// Whether texts are converted to lower case before tokenization.
    pub(crate) lowercase: bool,
    /// Maximum number of tokens of a text.
    pub(crate) max_length: usize,
    pub(crate) purpose: Purpose,
}

/// The file with the weights.
pub(crate) enum WeightsFile {
    /// Weights of an encoder that this plugin implements.
    Safetensors(PathBuf, Architecture),
    /// A graph with its weights.
    Onnx(PathBuf),
}

/// Purpose of a model.
pub(crate) enum Purpose {
    /// Computes vectors of texts.
    Embed(Embedding),
    /// Computes a score for a pair of query and passage (a cross-encoder).
    Rank {
        /// Whether the sigmoid function is applied to scores.
        sigmoid: bool,
    },
}

/// How vectors are computed from the output of the network.
#[derive(Clone, Debug)]
pub(crate) struct Embedding {
    pub(crate) pooling: Pooling,
    pub(crate) normalize: bool,
    pub(crate) similarity: Similarity,
    /// Text that is prepended to queries.
    pub(crate) query: String,
    /// Text that is prepended to passages.
    pub(crate) passage: String,
}

/// Sizes of a BERT-like encoder.
#[derive(Clone, Debug)]
pub(crate) struct Architecture {
    pub(crate) layers: Shape,
    pub(crate) max_position_embeddings: usize,
    pub(crate) type_vocab_size: usize,
    /// Position of the first token.
    pub(crate) first_position: usize,
}

impl ModelSpec {
    /// Reads the model directory `root`. The settings take precedence over its files.
    pub(crate) fn read(root: &Path, settings: &Settings) -> Result<Self, LoadError> {
        if !root.is_dir() {
            let message = format!("`{}` is not a directory", root.display());
            return Err(LoadError::setting("folder", message));
        }
        let modules: Vec<Module> = read(&root.join("modules.json"))?.unwrap_or_default();
        let base = modules
            .iter()
            .find(|module| module.name() == "Transformer")
            .map_or_else(|| root.to_owned(), |module| root.join(&module.path));
        let config_file = base.join("config.json");
        let config: NetworkConfig =
            read(&config_file)?.ok_or_else(|| file_error(&config_file, "does not exist"))?;
        let (weights, positions) = weights_file(root, &base, &config, settings)?;
        let lengths: LengthConfig = read(&base.join("sentence_bert_config.json"))?.unwrap_or_default();
        let tokenizer: TokenizerConfig = read(&base.join("tokenizer_config.json"))?.unwrap_or_default();
        let purpose = if config.scores_pairs() {
            reject_embedding_settings(settings)?;
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
        if let Some(unsupported) = modules
            .iter()
            .find(|module| !["Transformer", "Pooling", "Normalize"].contains(&module.name()))
        {
            let message = format!(
                "has the unsupported module `{}`, expected Transformer, Pooling and Normalize",
                unsupported.kind
            );
            return Err(file_error(&root.join("modules.json"), &message));
        }
        let find = |name: &str| modules.iter().find(|module| module.name() == name);
        let pooling = match find("Pooling") {
            Some(module) => {
                let file = root.join(&module.path).join("config.json");
                read(&file)?.ok_or_else(|| file_error(&file, "does not exist"))?
            }
            None => PoolingConfig::default(),
        };
        let texts: TextConfig = read(&root.join("config_sentence_transformers.json"))?.unwrap_or_default();
        let (query, passage) = texts.prompts(&settings.prompts);
        let has_prompts = !query.is_empty() || !passage.is_empty();
        if has_prompts && !pooling.include_prompt {
            let message =
                "the model excludes prompts from pooling (`include_prompt` is false), which is not supported";
            return Err(LoadError::setting("folder", message));
        }
        Ok(Self {
            pooling: match settings.pooling {
                Some(pooling) => pooling,
                None => pooling.mode()?,
            },
            normalize: settings.normalize.unwrap_or(find("Normalize").is_some()),
            similarity: texts.similarity_fn_name.unwrap_or_default(),
            query,
            passage,
        })
    }
}

/// Returns the file to load, and the maximum number of tokens that its positions allow, if known.
fn weights_file(
    root: &Path,
    base: &Path,
    config: &NetworkConfig,
    settings: &Settings,
) -> Result<(WeightsFile, Option<usize>), LoadError> {
    let candidates = match &settings.weights {
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
    let Some(file) = candidates.iter().find(|file| file.is_file()) else {
        let names: Vec<_> = candidates
            .iter()
            .map(|file| format!("`{}`", file.display()))
            .collect();
        let message = format!("file with weights not found, expected {}", names.join(" or "));
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
                "unsupported format of `{}`, expected .safetensors or .onnx",
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
    if let Some(configured) = settings.max_length {
        let configured = configured.get();
        return match positions {
            Some(max) if configured > max => Err(LoadError::setting(
                "max_length",
                format_args!(
                    "got {configured}, expected at most {max}, the number of positions of the model"
                ),
            )),
            _ => Ok(configured),
        };
    }
    // The cast saturates, as intended.
    let declared = lengths
        .max_seq_length
        .or(tokenizer.model_max_length.map(|length| length as usize));
    match (declared, positions) {
        (Some(length), Some(max)) => Ok(length.min(max)),
        (Some(length), None) | (None, Some(length)) if length < usize::MAX => Ok(length),
        _ => Err(LoadError::setting(
            "max_length",
            "the model directory does not specify a maximum length: set the maximum number of tokens",
        )),
    }
}

/// Rejects settings for vectors, which a cross-encoder does not produce.
fn reject_embedding_settings(settings: &Settings) -> Result<(), LoadError> {
    let settings = [
        ("pooling", settings.pooling.is_some()),
        ("normalize", settings.normalize.is_some()),
        ("prompts.query", settings.prompts.query.is_some()),
        ("prompts.passage", settings.prompts.passage.is_some()),
    ];
    match settings.iter().find(|(_, is_set)| *is_set) {
        Some((key, _)) => Err(LoadError::setting(
            key,
            "not supported by cross-encoders, which do not produce vectors",
        )),
        None => Ok(()),
    }
}
