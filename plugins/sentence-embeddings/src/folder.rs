//! What a folder of sentence-transformers says: which network, which pooling, which prompts, how long a text may be. What its
//! many `files` say of a model ends here; the rest of the plugin sees a [`Recipe`].

use std::path::{Path, PathBuf};

use plugin_sdk::LoadError;
use transformer::files::{blame, read};
use transformer::{Pooling, Shape};

use crate::files::{LengthConfig, Module, NetworkConfig, PoolingConfig, TextConfig, TokenizerConfig};
use crate::settings::Settings;
use crate::similarity::Similarity;

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

/// Sizes of an encoder of BERT's kind.
#[derive(Clone, Debug)]
pub(crate) struct Architecture {
    pub(crate) layers: Shape,
    pub(crate) max_position_embeddings: usize,
    pub(crate) type_vocab_size: usize,
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
        let (query, passage) = texts.prompts(&settings.prompts);
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
