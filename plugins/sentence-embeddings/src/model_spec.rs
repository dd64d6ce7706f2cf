//! Description of a model: its network, pooling, prompts and maximum length, from the `files` in its directory, its `modules` and
//! the settings.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use plugin_sdk::LoadError;
use transformer::files::{ConfigFile, IgnoredKeys, file_error};
use transformer::{GemmExecutor, Pooling, Tokenizer, normalize};

use crate::architectures::{self, Architecture};
use crate::files::{ExpansionConfig, LengthConfig, TextConfig, TokenizerConfig};
use crate::labels::{Labels, has_labels};
use crate::modules::{ModuleResult, Pipeline, Skiplist, SparsePooling};
use crate::network::HeadKind;
use crate::settings::Settings;
use crate::similarity::Similarity;
use crate::stages::Stage;

/// Description of a model, from its directory and the settings.
pub(crate) struct ModelSpec {
    pub(crate) weights: WeightsFile,
    pub(crate) tokenizer: Tokenizer,
    pub(crate) prompts: Prompts,
    pub(crate) purpose: Purpose,
}

/// The file with the weights.
pub(crate) enum WeightsFile {
    /// Weights of a network that this plugin implements: a file, or the index of several.
    Safetensors(PathBuf, Box<Architecture>),
    /// A graph with its weights.
    Onnx(PathBuf),
}

/// Purpose of a model.
pub(crate) enum Purpose {
    /// Computes vectors of texts.
    Embed(Embedding),
    /// Computes a vector for each token of a text.
    EmbedTokens(TokenEmbedding),
    /// Computes a number for each word of the vocabulary.
    EmbedWords(SparseEmbedding),
    /// Computes a score for a pair of query and passage (a cross-encoder).
    Rank(Labels),
    /// Computes scores of labels.
    Classify(Labels),
}

impl Purpose {
    /// Returns what the network computes after its layers.
    pub(crate) fn head(&self) -> HeadKind {
        match self {
            Self::Embed(_) | Self::EmbedTokens(_) => HeadKind::None,
            Self::EmbedWords(_) => HeadKind::MaskedLm,
            Self::Rank(labels) | Self::Classify(labels) => HeadKind::Classifier {
                labels: labels.names.len(),
            },
        }
    }
}

/// How vectors are computed from the output of the network.
pub(crate) struct Embedding {
    /// Modules that change the vectors of tokens.
    pub(crate) token_stages: Vec<Stage>,
    pub(crate) pooling: Vec<Pooling>,
    /// Modules that change the pooled vector, without those at the end that scale it to length 1.
    pub(crate) stages: Vec<Stage>,
    /// Whether vectors are scaled to length 1 at the end.
    pub(crate) normalize: bool,
    /// Number of dimensions to which vectors are truncated.
    pub(crate) truncate_dim: Option<usize>,
    pub(crate) similarity: Similarity,
    pub(crate) prompts: Prompts,
    /// Whether the tokens of a prompt are pooled as well.
    pub(crate) includes_prompt: bool,
}

/// How the vectors of tokens are computed from the output of the network.
pub(crate) struct TokenEmbedding {
    pub(crate) stages: Vec<Stage>,
    /// Tokens whose vectors are left out.
    pub(crate) skipped: Vec<u32>,
    /// Whether those of queries are left out as well.
    pub(crate) skips_queries: bool,
    pub(crate) prompts: Prompts,
}

/// How the numbers of words are computed from the output of the network.
pub(crate) struct SparseEmbedding {
    pub(crate) pooling: SparsePooling,
    /// Maximum number of words.
    pub(crate) max_words: Option<usize>,
    pub(crate) prompts: Prompts,
}

/// Texts that are prepended to texts, and what else distinguishes queries from passages.
#[derive(Clone, Debug)]
pub(crate) struct Prompts {
    pub(crate) query: String,
    pub(crate) passage: String,
    /// That of texts which are neither.
    pub(crate) text: String,
    /// Those that a client can choose by name.
    pub(crate) named: BTreeMap<String, String>,
    /// Maximum numbers of tokens, if they are less than that of the model.
    pub(crate) query_length: Option<usize>,
    pub(crate) passage_length: Option<usize>,
    /// Tokens that are appended to queries.
    pub(crate) expansion: Option<Expansion>,
}

/// Tokens that are appended to queries, as in ColBERT.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expansion {
    pub(crate) token: u32,
    /// Number of tokens of a query with them.
    pub(crate) length: usize,
    /// Whether tokens attend to them.
    pub(crate) attend: bool,
}

impl Prompts {
    /// Whether queries and passages are tokenized in the same way.
    pub(crate) fn are_same(&self) -> bool {
        self.query == self.passage && self.query_length == self.passage_length && self.expansion.is_none()
    }
}

impl Embedding {
    /// Applies the last steps to a vector. `normalize` is what a client chose.
    pub(crate) fn finish(&self, vector: &mut Vec<f32>, normalized: Option<bool>) {
        if normalized.unwrap_or(self.normalize) {
            normalize(vector);
        }
        if let Some(dimensions) = self.truncate_dim.filter(|dimensions| *dimensions < vector.len()) {
            vector.truncate(dimensions);
            if normalized == Some(true) {
                normalize(vector);
            }
        }
    }

    /// Applies the modules to the pooled vectors of several texts, which have `width` numbers each.
    pub(crate) fn apply_stages(&self, rows: Vec<f32>, width: usize) -> Vec<Vec<f32>> {
        let (gemm, mut rows, mut width) = (GemmExecutor::new(), rows, width);
        for stage in &self.stages {
            width = stage.apply(&gemm, &mut rows, width);
        }
        rows.chunks_exact(width).map(<[f32]>::to_vec).collect()
    }
}

impl ModelSpec {
    /// Reads the model directory `root`. The settings take precedence over its files.
    pub(crate) fn read(root: &Path, settings: &Settings) -> Result<Self, LoadError> {
        if !root.is_dir() {
            let message = format!("`{}` is not a directory", root.display());
            return Err(LoadError::setting("folder", message));
        }
        let ignored = IgnoredKeys::new(settings.ignored_keys.clone());
        let pipeline = Pipeline::read(root, &ignored)?;
        let base = pipeline.base.clone();
        let config_file = base.join("config.json");
        let config =
            ConfigFile::read(&config_file)?.ok_or_else(|| file_error(&config_file, "does not exist"))?;
        let mut weights = weights_file(root, &base, &config, settings, &ignored)?;
        let positions = match &weights {
            WeightsFile::Safetensors(_, architecture) => Some(architecture.max_tokens),
            WeightsFile::Onnx(_) => architectures::max_tokens(&config)?,
        };
        let lengths = LengthConfig::read(&base, &ignored)?;
        let tokenizer_config = TokenizerConfig::read(&base, &ignored)?;
        let texts = TextConfig::read(root, &ignored)?;
        let max_length = max_length(settings, &lengths, &tokenizer_config, positions)?;
        let tokenizer = tokenizer(&base, &lengths, &tokenizer_config, max_length, settings.truncate)?;
        if let WeightsFile::Safetensors(_, architecture) = &mut weights {
            architecture.limit_positions(max_length);
        }
        let mut prompts = prompts(&texts, &lengths, settings);
        if let Some(expansion) = &lengths.expansion {
            let mask = tokenizer_config.mask.as_deref();
            prompts.expansion = Some(expansion_of(expansion, mask, &tokenizer, &weights, &base)?);
            if expansion.is_fixed {
                prompts.query_length = Some(expansion.length);
            }
        }
        let purpose = if has_labels(&config)? {
            reject_embedding_settings(settings)?;
            classification(&config, &pipeline, &texts, root)?
        } else {
            embedding(
                pipeline.result,
                &lengths,
                &texts,
                prompts.clone(),
                settings,
                &tokenizer,
                &base,
            )?
        };
        ignored.check_all_used()?;
        Ok(Self {
            weights,
            tokenizer,
            prompts,
            purpose,
        })
    }
}

fn prompts(texts: &TextConfig, lengths: &LengthConfig, settings: &Settings) -> Prompts {
    let (query, passage) = texts.query_and_passage(&settings.prompts);
    let mut named = texts.prompts.clone();
    let configured = [
        ("query", &settings.prompts.query),
        ("passage", &settings.prompts.passage),
    ];
    for (name, prompt) in configured {
        if let Some(prompt) = prompt {
            named.insert(name.to_owned(), prompt.clone());
        }
    }
    let default = texts.default_prompt().and_then(|name| texts.prompts.get(name));
    Prompts {
        text: match query == passage {
            true => query.clone(),
            false => default.cloned().unwrap_or_default(),
        },
        query,
        passage,
        named,
        query_length: lengths.query_length,
        passage_length: lengths.document_length,
        expansion: None,
    }
}

/// Returns the tokens that are appended to queries, and checks that the network can compute their vectors.
fn expansion_of(
    config: &ExpansionConfig,
    mask: Option<&str>,
    tokenizer: &Tokenizer,
    weights: &WeightsFile,
    base: &Path,
) -> Result<Expansion, LoadError> {
    let error = |problem: &str| file_error(base, &format!("specifies `query_expansion` {problem}"));
    let token = config.token.as_deref().or(mask);
    let token = token.and_then(|token| tokenizer.id(token));
    let token =
        token.ok_or_else(|| error("without a token of the vocabulary, expected `token` or a mask token"))?;
    let longest = tokenizer.max_length();
    if config.length > longest {
        let problem = format!("with the `length` {}, expected at most {longest}", config.length);
        return Err(error(&problem));
    }
    let windows = match weights {
        WeightsFile::Onnx(_) => Some(0),
        WeightsFile::Safetensors(_, architecture) => architecture
            .layers
            .layers
            .iter()
            .filter_map(|layer| layer.window)
            .min(),
    };
    // A token that attends only to tokens nearby must not be surrounded only by those that no token attends to.
    if !config.attend && windows.is_some_and(|window| window < config.length) {
        return Err(error(
            "with `attend` false, which this network does not support for that length",
        ));
    }
    Ok(Expansion {
        token,
        length: config.length,
        attend: config.attend,
    })
}

/// Returns the purpose of a network with a classification head.
fn classification(
    config: &ConfigFile,
    pipeline: &Pipeline,
    texts: &TextConfig,
    root: &Path,
) -> Result<Purpose, LoadError> {
    let has_modules = root.join("modules.json").is_file();
    let is_alone = matches!(&pipeline.result, ModuleResult::Tokens { stages, .. } if stages.is_empty());
    if has_modules && !is_alone {
        let message = "has modules after a network with a classification head, expected none";
        return Err(file_error(&root.join("modules.json"), message));
    }
    if let Some(name) = texts.default_prompt() {
        let message = format!(
            "has the default prompt `{name}`, expected none for a network with a classification head"
        );
        return Err(file_error(
            &root.join("config_sentence_transformers.json"),
            &message,
        ));
    }
    let labels = Labels::read(config, texts.activation.as_deref())?;
    Ok(match labels.names.len() {
        1 => Purpose::Rank(labels),
        _ => Purpose::Classify(labels),
    })
}

/// Returns the purpose of a network without a classification head.
fn embedding(
    result: ModuleResult,
    lengths: &LengthConfig,
    texts: &TextConfig,
    prompts: Prompts,
    settings: &Settings,
    tokenizer: &Tokenizer,
    base: &Path,
) -> Result<Purpose, LoadError> {
    let is_sparse = matches!(result, ModuleResult::Words(_));
    if lengths
        .task
        .as_deref()
        .is_some_and(|task| (task == "fill-mask") != is_sparse)
    {
        let message = format!(
            "has a length file with `transformer_task` \"{}\", expected fill-mask before SpladePooling, and feature-extraction \
             otherwise",
            lengths.task.as_deref().unwrap_or_default()
        );
        return Err(file_error(base, &message));
    }
    if !matches!(result, ModuleResult::Vector { .. }) {
        let set = [
            ("pooling", settings.pooling.is_some()),
            ("normalize", settings.normalize.is_some()),
        ];
        if let Some((key, _)) = set.iter().find(|(_, is_set)| *is_set) {
            return Err(LoadError::setting(
                key,
                "not supported by models without the module Pooling",
            ));
        }
    }
    if prompts.expansion.is_some() && !matches!(result, ModuleResult::Tokens { .. }) {
        let message =
            "specifies `query_expansion`, expected null in models that do not compute vectors of tokens";
        return Err(file_error(base, message));
    }
    Ok(match result {
        ModuleResult::Vector {
            token_stages,
            pooling,
            includes_prompt,
            mut stages,
        } => {
            let mut normalize = false;
            while let Some(Stage::Normalize) = stages.last() {
                stages.pop();
                normalize = true;
            }
            Purpose::Embed(Embedding {
                token_stages,
                pooling: settings.pooling.map_or(pooling, |pooling| vec![pooling]),
                stages,
                normalize: settings.normalize.unwrap_or(normalize),
                truncate_dim: texts.truncate_dim,
                similarity: texts.similarity.unwrap_or_default(),
                prompts,
                includes_prompt,
            })
        }
        ModuleResult::Tokens { stages, skiplist } => Purpose::EmbedTokens(TokenEmbedding {
            stages,
            skipped: skipped(&skiplist, tokenizer),
            skips_queries: skiplist.queries,
            prompts,
        }),
        ModuleResult::Words(pooling) => Purpose::EmbedWords(SparseEmbedding {
            pooling,
            max_words: texts.max_words,
            prompts,
        }),
    })
}

/// Returns the IDs of the tokens whose vectors are left out. Words that are not tokens are ignored, as in sentence-transformers.
fn skipped(skiplist: &Skiplist, tokenizer: &Tokenizer) -> Vec<u32> {
    skiplist
        .words
        .iter()
        .filter_map(|word| tokenizer.id(word))
        .collect()
}

/// Loads the tokenizer, and checks that it adds the special tokens that its configuration promises.
fn tokenizer(
    base: &Path,
    lengths: &LengthConfig,
    config: &TokenizerConfig,
    max_length: usize,
    truncate: bool,
) -> Result<Tokenizer, LoadError> {
    let file = base.join("tokenizer.json");
    if !file.is_file() {
        let message =
            "does not exist: load the directory with a current version of transformers and save it again";
        return Err(file_error(&file, message));
    }
    let mut tokenizer = Tokenizer::load(&file, max_length, truncate, lengths.lowercase)?;
    if let Some(from_left) = lengths.from_left.or(config.from_left) {
        tokenizer = tokenizer.truncating_left(from_left);
    }
    let tokenizer = tokenizer.with_types(config.with_types);
    let tokens = tokenizer.text("a");
    let tokens =
        tokens.map_err(|error| file_error(&file, &format!("cannot be used: {}", error.message())))?;
    let ends = [
        ("add_bos_token", &config.first, tokens.ids.first()),
        ("add_eos_token", &config.last, tokens.ids.last()),
    ];
    for (key, token, actual) in ends {
        if let Some((token, is_added)) = token
            && (tokenizer.id(token).as_ref() == actual) != *is_added
        {
            let not = if *is_added { "does not add" } else { "adds" };
            let message = format!(
                "{not} the token `{token}`, expected as `{key}` in `tokenizer_config.json` says: {is_added}"
            );
            return Err(file_error(&file, &message));
        }
    }
    Ok(tokenizer)
}

/// Returns the file to load.
fn weights_file(
    root: &Path,
    base: &Path,
    config: &ConfigFile,
    settings: &Settings,
    ignored: &IgnoredKeys,
) -> Result<WeightsFile, LoadError> {
    let candidates = match &settings.weights {
        Some(name) => vec![root.join(name)],
        None => vec![
            base.join("model.safetensors"),
            base.join("model.safetensors.index.json"),
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
    match file.extension().and_then(|extension| extension.to_str()) {
        Some("onnx") => Ok(WeightsFile::Onnx(file.clone())),
        Some("safetensors" | "json") => {
            let adapter = base.join("adapter_config.json");
            if adapter.is_file() {
                let message =
                    "is an adapter, which is not supported: merge it into the model and save the result";
                return Err(file_error(&adapter, message));
            }
            let architecture = Architecture::read(config, ignored)?;
            Ok(WeightsFile::Safetensors(file.clone(), Box::new(architecture)))
        }
        _ => Err(LoadError::setting(
            key,
            format_args!(
                "unsupported format of `{}`, expected .safetensors, .safetensors.index.json or .onnx",
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
        .max_length
        .or(tokenizer.max_length.map(|length| length as usize));
    match (declared, positions) {
        (Some(length), Some(max)) => Ok(length.min(max)),
        (Some(length), None) | (None, Some(length)) if length < usize::MAX => Ok(length),
        _ => Err(LoadError::setting(
            "max_length",
            "the model directory does not specify a maximum length: set the maximum number of tokens",
        )),
    }
}

/// Rejects settings for vectors, which a classification head does not produce.
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
            "not supported by models with a classification head, which do not produce vectors",
        )),
        None => Ok(()),
    }
}
