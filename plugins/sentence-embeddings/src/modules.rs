//! The modules that `modules.json` lists: the network, and what turns the vectors of its tokens into a result. `stages` has those
//! that change a vector.

use std::path::{Path, PathBuf};

use plugin_sdk::LoadError;
use serde::Deserialize;
use transformer::Pooling;
use transformer::files::{ConfigFile, IgnoredKeys, Key, file_error, honored, irrelevant, only, read};

use crate::stages::{Feature, Stage};

/// What the modules compute.
pub(crate) struct Pipeline {
    /// Directory of the network.
    pub(crate) base: PathBuf,
    pub(crate) result: ModuleResult,
}

/// The result of the modules.
pub(crate) enum ModuleResult {
    /// One vector: of the tokens' vectors, after `token_stages`, pooled in these ways, after `stages`.
    Vector {
        token_stages: Vec<Stage>,
        pooling: Vec<Pooling>,
        /// Whether the tokens of a prompt are pooled as well.
        includes_prompt: bool,
        stages: Vec<Stage>,
    },
    /// A vector for each token.
    Tokens { stages: Vec<Stage>, skiplist: Skiplist },
    /// A number for each word of the vocabulary.
    Words(SparsePooling),
}

/// Tokens whose vectors are left out.
#[derive(Clone, Debug, Default)]
pub(crate) struct Skiplist {
    pub(crate) words: Vec<String>,
    /// Whether those of queries are left out as well.
    pub(crate) queries: bool,
}

/// How the numbers of words of all tokens are reduced to one of each word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SparsePooling {
    /// Whether the numbers are added. Otherwise, the largest counts.
    pub(crate) sum: bool,
    /// Whether the logarithm is applied twice.
    pub(crate) twice: bool,
}

impl SparsePooling {
    /// Adds the numbers of the words of some tokens to what was pooled before, which starts at 0.
    pub(crate) fn pool(self, pooled: &mut [f32], rows: &[f32]) {
        for row in rows.chunks_exact(pooled.len()) {
            for (pooled, number) in pooled.iter_mut().zip(row) {
                // The logarithm increases with its argument, so the largest number has the largest logarithm.
                match self.sum {
                    true => *pooled += self.weight(*number),
                    // NaN must not disappear.
                    false if *number > *pooled || number.is_nan() => *pooled = *number,
                    false => {}
                }
            }
        }
    }

    /// Returns the words with positive numbers, at most `max` of them: those with the largest numbers.
    pub(crate) fn finish(self, pooled: Vec<f32>, max: Option<usize>) -> Vec<(u32, f32)> {
        let weight = |number: f32| if self.sum { number } else { self.weight(number) };
        let words = (0..).zip(pooled.into_iter().map(weight));
        let mut words: Vec<_> = words.filter(|(_, number)| *number != 0.0).collect();
        if let Some(max) = max.filter(|max| *max < words.len()) {
            words.sort_by(|(_, one), (_, other)| other.total_cmp(one));
            words.truncate(max);
            words.sort_by_key(|(word, _)| *word);
        }
        words
    }

    fn weight(self, number: f32) -> f32 {
        if number <= 0.0 {
            return 0.0;
        }
        let weight = number.ln_1p();
        if self.twice { weight.ln_1p() } else { weight }
    }
}

/// An entry of `modules.json`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Module {
    #[serde(rename = "idx")]
    _index: Option<usize>,
    #[serde(rename = "name")]
    _name: Option<String>,
    #[serde(default)]
    path: String,
    /// Path of a Python class. Only the module path differs between versions.
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    kwargs: Vec<String>,
}

impl Module {
    fn name(&self) -> &str {
        self.kind.rsplit('.').next().unwrap_or_default()
    }
}

const EXPECTED: &str = "Transformer, MLMTransformer, Pooling, SpladePooling, MultiVectorMask, Dense, LayerNorm, Normalize, Dropout";

/// Keys of `config.json` of Pooling, of newer and older versions.
static POOLING: &[Key] = &honored([
    "pooling_mode",
    "pooling_mode_cls_token",
    "pooling_mode_max_tokens",
    "pooling_mode_mean_tokens",
    "pooling_mode_mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens",
    "pooling_mode_lasttoken",
    "include_prompt",
]);
static SIZE: &[Key] = &irrelevant(
    "the network defines the size",
    ["embedding_dimension", "word_embedding_dimension"],
);
static SPARSE: &[Key] = &honored(["pooling_strategy", "activation_function"]);
static CHUNK: &[Key] = &irrelevant("the results do not depend on it", ["chunk_size"]);
static MASK: &[Key] = &honored(["skiplist_words", "skiplist_tasks"]);
static IMAGES: &[Key] = &[only("keep_only_token_ids", &["null"])];
static DROPOUT: &[Key] = &irrelevant("training only", ["dropout"]);

impl Pipeline {
    /// Reads the modules of a directory. Without `modules.json`, the vectors of tokens are averaged.
    pub(crate) fn read(root: &Path, ignored: &IgnoredKeys) -> Result<Self, LoadError> {
        let file = root.join("modules.json");
        let Some(modules) = read::<Vec<Module>>(&file)? else {
            return Ok(Self {
                base: root.to_owned(),
                result: mean(),
            });
        };
        let unsupported = |module: &Module, expected: &str| {
            file_error(
                &file,
                &format!("has the module `{}`, expected {expected}", module.kind),
            )
        };
        if let Some(module) = modules.iter().find(|module| !module.kwargs.is_empty()) {
            return Err(unsupported(module, "none with `kwargs`"));
        }
        let Some((first, rest)) = modules.split_first() else {
            return Err(file_error(&file, "has no modules, expected Transformer first"));
        };
        if !["Transformer", "MLMTransformer"].contains(&first.name()) {
            return Err(unsupported(first, "Transformer or MLMTransformer first"));
        }
        let mut pipeline = Self {
            base: root.join(&first.path),
            result: ModuleResult::Tokens {
                stages: Vec::new(),
                skiplist: Skiplist::default(),
            },
        };
        for module in rest {
            let directory = root.join(&module.path);
            let result = pipeline.result;
            pipeline.result = match module.name() {
                "Pooling" => pool(result, &directory, ignored)?,
                "SpladePooling" => pool_words(result, &directory, ignored)?,
                "MultiVectorMask" => mask(result, &directory, ignored)?,
                "Dropout" => {
                    check_optional(&directory, &[DROPOUT], ignored)?;
                    result
                }
                "Dense" | "LayerNorm" | "Normalize" => {
                    let (feature, stage) = Stage::read(module.name(), &directory, ignored)?;
                    result.followed_by(feature, stage, &directory)?
                }
                _ => return Err(unsupported(module, EXPECTED)),
            };
        }
        Ok(pipeline)
    }
}

/// The modules of a directory that has none: the mean of the vectors of tokens.
fn mean() -> ModuleResult {
    ModuleResult::Vector {
        token_stages: Vec::new(),
        pooling: vec![Pooling::Mean],
        includes_prompt: true,
        stages: Vec::new(),
    }
}

impl ModuleResult {
    fn followed_by(mut self, feature: Feature, stage: Stage, directory: &Path) -> Result<Self, LoadError> {
        let stages = match (&mut self, feature) {
            (Self::Vector { stages, .. }, Feature::Sentence) => stages,
            (Self::Tokens { stages, .. }, Feature::Tokens) => stages,
            _ => {
                let message = "is a module whose input no module before it produces; expected `module_input_name` \
                               `token_embeddings` before Pooling, and `sentence_embedding` after it";
                return Err(file_error(directory, message));
            }
        };
        stages.push(stage);
        Ok(self)
    }
}

/// Checks the keys of `config.json`, if the module has one.
fn check_optional(directory: &Path, tables: &[&[Key]], ignored: &IgnoredKeys) -> Result<(), LoadError> {
    match ConfigFile::read(&directory.join("config.json"))? {
        Some(config) => config.check(tables, ignored),
        None => Ok(()),
    }
}

/// Reads the `config.json` of a module.
pub(crate) fn module_config(
    directory: &Path,
    tables: &[&[Key]],
    ignored: &IgnoredKeys,
) -> Result<ConfigFile, LoadError> {
    let file = directory.join("config.json");
    let config = ConfigFile::read(&file)?.ok_or_else(|| file_error(&file, "does not exist"))?;
    config.check(tables, ignored)?;
    Ok(config)
}

fn mask(
    mut result: ModuleResult,
    directory: &Path,
    ignored: &IgnoredKeys,
) -> Result<ModuleResult, LoadError> {
    let ModuleResult::Tokens { skiplist, .. } = &mut result else {
        return Err(file_error(
            directory,
            "is a MultiVectorMask after a module that pools, expected none",
        ));
    };
    let config = module_config(directory, &[MASK, IMAGES], ignored)?;
    let tasks: Option<Vec<String>> = config.get("skiplist_tasks")?;
    let tasks = tasks.unwrap_or_else(|| vec!["document".to_owned()]);
    let words: Vec<String> = config.get("skiplist_words")?.unwrap_or_default();
    *skiplist = match tasks.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => Skiplist::default(),
        ["document"] => Skiplist {
            words,
            queries: false,
        },
        ["query", "document"] | ["document", "query"] => Skiplist { words, queries: true },
        _ => return Err(config.unsupported("skiplist_tasks", "document, or query and document")),
    };
    Ok(result)
}

fn pool(result: ModuleResult, directory: &Path, ignored: &IgnoredKeys) -> Result<ModuleResult, LoadError> {
    let ModuleResult::Tokens {
        stages: token_stages, ..
    } = result
    else {
        return Err(file_error(
            directory,
            "is a second module that pools, expected one",
        ));
    };
    let config = module_config(directory, &[POOLING, SIZE], ignored)?;
    Ok(ModuleResult::Vector {
        token_stages,
        pooling: pooling_modes(&config)?,
        includes_prompt: config.get("include_prompt")?.unwrap_or(true),
        stages: Vec::new(),
    })
}

/// Returns the ways of pooling, in the order in which their results are concatenated.
fn pooling_modes(config: &ConfigFile) -> Result<Vec<Pooling>, LoadError> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Modes {
        One(String),
        Several(Vec<String>),
    }
    const MODES: [(&str, &str, Pooling); 6] = [
        ("cls", "pooling_mode_cls_token", Pooling::Cls),
        ("max", "pooling_mode_max_tokens", Pooling::Max),
        ("mean", "pooling_mode_mean_tokens", Pooling::Mean),
        (
            "mean_sqrt_len_tokens",
            "pooling_mode_mean_sqrt_len_tokens",
            Pooling::MeanSqrtLength,
        ),
        (
            "weightedmean",
            "pooling_mode_weightedmean_tokens",
            Pooling::WeightedMean,
        ),
        ("lasttoken", "pooling_mode_lasttoken", Pooling::LastToken),
    ];
    let names = match config.get("pooling_mode")? {
        Some(Modes::One(name)) => vec![name],
        Some(Modes::Several(names)) if !names.is_empty() => names,
        Some(Modes::Several(_)) => return Err(config.unsupported("pooling_mode", "at least one")),
        None => {
            let mut modes = Vec::new();
            for (_, flag, mode) in MODES {
                if config.get(flag)?.unwrap_or(false) {
                    modes.push(mode);
                }
            }
            return Ok(if modes.is_empty() {
                vec![Pooling::Mean]
            } else {
                modes
            });
        }
    };
    let mode = |name: &String| {
        let known = MODES.iter().find(|(known, ..)| known == name);
        known.map(|(.., mode)| *mode).ok_or_else(|| {
            let known = MODES.map(|(known, ..)| known);
            config.unsupported("pooling_mode", known.join(", "))
        })
    };
    names.iter().map(mode).collect()
}

fn pool_words(
    result: ModuleResult,
    directory: &Path,
    ignored: &IgnoredKeys,
) -> Result<ModuleResult, LoadError> {
    if !matches!(&result, ModuleResult::Tokens { stages, .. } if stages.is_empty()) {
        return Err(file_error(
            directory,
            "is a SpladePooling, expected directly after the network",
        ));
    }
    let config = module_config(directory, &[SPARSE, SIZE, CHUNK], ignored)?;
    let choice = |key: &str, values: [&str; 2]| -> Result<bool, LoadError> {
        match config.get::<String>(key)?.as_deref() {
            None => Ok(false),
            Some(value) if value == values[0] => Ok(false),
            Some(value) if value == values[1] => Ok(true),
            Some(_) => Err(config.unsupported(key, values.join(" or "))),
        }
    };
    Ok(ModuleResult::Words(SparsePooling {
        sum: choice("pooling_strategy", ["max", "sum"])?,
        twice: choice("activation_function", ["relu", "log1p_relu"])?,
    }))
}
