//! The JSON files of a model directory besides those of its modules, as older and newer versions write them. `model_spec` combines
//! them.

use std::collections::BTreeMap;
use std::path::Path;

use plugin_sdk::LoadError;
use plugin_sdk::serde_json::Value as Json;
use serde::Deserialize;
use transformer::config_keys;
use transformer::files::{ConfigFile, IgnoredKeys, Key, honored, irrelevant, only, read};

use crate::settings::PromptSettings;
use crate::similarity::Similarity;

/// Names of the file with the maximum length, of which the first that exists counts, as in sentence-transformers.
const LENGTH_FILES: [&str; 7] = [
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
];

static LENGTH: &[Key] = &honored([
    "max_seq_length",
    "do_lower_case",
    "query_length",
    "document_length",
    "query_expansion",
    "transformer_task",
    "tokenizer_args",
    "processor_kwargs",
    "modality_config",
    "module_output_name",
]);
static LENGTH_ONLY: &[Key] = &[
    only("model_args", &["{}", "null"]),
    only("model_kwargs", &["{}", "null"]),
    only("config_args", &["{}", "null"]),
    only("config_kwargs", &["{}", "null"]),
    only("processing_kwargs", &["{}", "null"]),
    only("backend", &["\"torch\"", "null"]),
];
static EXPANSION: &[Key] = &honored(["strategy", "attend", "token", "length"]);
static UNPADDED: &[Key] = &irrelevant("nothing is padded", ["unpad_inputs"]);
static TOKENIZER_ARGUMENTS: &[Key] = &honored(["model_max_length", "truncation_side", "max_length"]);
static FAST: &[Key] = &irrelevant("`tokenizer.json` is that of the fast tokenizer", ["use_fast"]);

/// Tokens that are appended to queries, as in ColBERT.
#[derive(Clone, Debug)]
pub(crate) struct ExpansionConfig {
    /// Whether longer queries are truncated.
    pub(crate) is_fixed: bool,
    /// Whether tokens attend to them.
    pub(crate) attend: bool,
    /// The token. The default is that for masked words.
    pub(crate) token: Option<String>,
    /// Number of tokens of a query with them.
    pub(crate) length: usize,
}

/// `sentence_bert_config.json` or an older name of it.
pub(crate) struct LengthConfig {
    pub(crate) max_length: Option<usize>,
    /// Maximum numbers of tokens of queries and of passages.
    pub(crate) query_length: Option<usize>,
    pub(crate) document_length: Option<usize>,
    pub(crate) expansion: Option<ExpansionConfig>,
    pub(crate) lowercase: bool,
    /// Whether truncation removes the first tokens.
    pub(crate) from_left: Option<bool>,
    /// The Python class that computes the numbers of words, if the directory says so.
    pub(crate) task: Option<String>,
}

impl LengthConfig {
    pub(crate) fn read(base: &Path, ignored: &IgnoredKeys) -> Result<Self, LoadError> {
        let files = LENGTH_FILES.iter().map(|name| base.join(name));
        let mut config = None;
        for file in files {
            config = ConfigFile::read(&file)?.filter(|config| config.keys().next().is_some());
            if config.is_some() {
                break;
            }
        }
        let Some(config) = config else {
            return Ok(Self {
                max_length: None,
                query_length: None,
                document_length: None,
                expansion: None,
                lowercase: false,
                from_left: None,
                task: None,
            });
        };
        config.check(&[LENGTH, LENGTH_ONLY, UNPADDED], ignored)?;
        check_modality(&config)?;
        let mut max_length = config.get("max_seq_length")?;
        let mut from_left = None;
        for key in ["tokenizer_args", "processor_kwargs"] {
            if let Some(arguments) = config.section(key)? {
                arguments.check(&[TOKENIZER_ARGUMENTS, FAST], ignored)?;
                max_length = arguments.get("model_max_length")?.or(max_length);
                from_left = truncates_left(&arguments)?.or(from_left);
            }
        }
        Ok(Self {
            max_length,
            query_length: config.get("query_length")?,
            document_length: config.get("document_length")?,
            expansion: expansion(&config, ignored)?,
            lowercase: config.get("do_lower_case")?.unwrap_or(false),
            from_left,
            task: config.get("transformer_task")?,
        })
    }
}

fn expansion(config: &ConfigFile, ignored: &IgnoredKeys) -> Result<Option<ExpansionConfig>, LoadError> {
    let Some(section) = config.section("query_expansion")? else {
        return Ok(None);
    };
    section.check(&[EXPANSION], ignored)?;
    let strategy: Option<String> = section.get("strategy")?;
    Ok(Some(ExpansionConfig {
        is_fixed: match strategy.as_deref() {
            None | Some("fixed") => true,
            Some("min") => false,
            Some(_) => return Err(section.unsupported("strategy", "fixed or min")),
        },
        attend: section.get("attend")?.unwrap_or(false),
        token: section.get("token")?,
        length: section.size("length", None)?,
    }))
}

/// Checks that the network takes texts, and that the usual output of it is used.
fn check_modality(config: &ConfigFile) -> Result<(), LoadError> {
    let task: Option<String> = config.get("transformer_task")?;
    let (output, name) = match task.as_deref() {
        None | Some("feature-extraction") => ("last_hidden_state", "token_embeddings"),
        Some("fill-mask") => ("logits", "token_embeddings"),
        Some("sequence-classification") => ("logits", "scores"),
        Some(_) => {
            let expected = "feature-extraction, fill-mask or sequence-classification";
            return Err(config.unsupported("transformer_task", expected));
        }
    };
    if config
        .get::<String>("module_output_name")?
        .is_some_and(|written| written != name)
    {
        return Err(config.unsupported("module_output_name", name));
    }
    let expected =
        plugin_sdk::serde_json::json!({"text": {"method": "forward", "method_output_name": output}});
    // A network that has a template for chats accepts messages as well, which do not reach this plugin.
    let written: Option<Json> = config.get("modality_config")?;
    if written.is_some_and(|written| written["text"] != expected["text"]) {
        return Err(config.unsupported("modality_config", expected));
    }
    Ok(())
}

fn truncates_left(config: &ConfigFile) -> Result<Option<bool>, LoadError> {
    match config.get::<String>("truncation_side")?.as_deref() {
        None => Ok(None),
        Some("left") => Ok(Some(true)),
        Some("right") => Ok(Some(false)),
        Some(_) => Err(config.unsupported("truncation_side", "left or right")),
    }
}

static TOKENIZER: &[Key] = &honored([
    "model_max_length",
    "truncation_side",
    "model_input_names",
    "do_lower_case",
    "strip_accents",
    "tokenize_chinese_chars",
    "add_bos_token",
    "add_eos_token",
    "bos_token",
    "eos_token",
]);
/// `tokenizer_config.json`.
#[derive(Default)]
pub(crate) struct TokenizerConfig {
    /// A huge number if there is no limit.
    pub(crate) max_length: Option<f64>,
    pub(crate) from_left: Option<bool>,
    /// Whether the network receives token types.
    pub(crate) with_types: bool,
    /// Special tokens that begin and end each text, or not, if the file says so.
    pub(crate) first: Option<(String, bool)>,
    pub(crate) last: Option<(String, bool)>,
    /// The token for masked words.
    pub(crate) mask: Option<String>,
}

impl TokenizerConfig {
    pub(crate) fn read(base: &Path, ignored: &IgnoredKeys) -> Result<Self, LoadError> {
        let Some(config) = ConfigFile::read(&base.join("tokenizer_config.json"))? else {
            return Ok(Self {
                with_types: true,
                ..Self::default()
            });
        };
        config.check(&[TOKENIZER, config_keys::TOKENIZER], ignored)?;
        check_normalizer(&config, base)?;
        let inputs: Option<Vec<String>> = config.get("model_input_names")?;
        Ok(Self {
            max_length: config.get("model_max_length")?,
            from_left: truncates_left(&config)?,
            with_types: inputs.is_none_or(|names| names.iter().any(|name| name == "token_type_ids")),
            first: special_token(&config, "add_bos_token", "bos_token")?,
            last: special_token(&config, "add_eos_token", "eos_token")?,
            mask: token(&config, "mask_token")?,
        })
    }
}

/// Returns the special token `name`, and whether `flag` says that each text has it.
fn special_token(config: &ConfigFile, flag: &str, name: &str) -> Result<Option<(String, bool)>, LoadError> {
    let is_added: Option<bool> = config.get(flag)?;
    Ok(token(config, name)?.zip(is_added))
}

/// Returns a special token, which can be written in two ways.
fn token(config: &ConfigFile, name: &str) -> Result<Option<String>, LoadError> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Token {
        Text(String),
        Object { content: String },
    }
    let token: Option<Token> = config.get(name)?;
    Ok(token.map(|(Token::Text(text) | Token::Object { content: text })| text))
}

/// Checks that `tokenizer.json` does what `tokenizer_config.json` says: some classes of tokenizers override it.
fn check_normalizer(config: &ConfigFile, base: &Path) -> Result<(), LoadError> {
    #[derive(Deserialize)]
    struct Definition {
        normalizer: Option<BTreeMap<String, Json>>,
    }
    let definition: Option<Definition> = read(&base.join("tokenizer.json"))?;
    let normalizer = definition.and_then(|definition| definition.normalizer);
    let Some(normalizer) =
        normalizer.filter(|normalizer| normalizer.get("type") == Some(&"BertNormalizer".into()))
    else {
        return Ok(());
    };
    for (key, own) in [
        ("do_lower_case", "lowercase"),
        ("strip_accents", "strip_accents"),
        ("tokenize_chinese_chars", "handle_chinese_chars"),
    ] {
        let written: Option<Json> = config.get(key)?;
        let actual = normalizer.get(own).cloned().unwrap_or_default();
        if written.is_some_and(|written| written != actual) {
            let expected = format!("{actual}, the value of `{own}` of the normalizer in `tokenizer.json`");
            return Err(config.unsupported(key, expected));
        }
    }
    Ok(())
}

static TEXTS: &[Key] = &honored([
    "prompts",
    "default_prompt_name",
    "similarity_fn_name",
    "model_type",
    "truncate_dim",
    "max_active_dims",
    "activation_fn",
]);
static VERSIONS: &[Key] = &irrelevant(
    "records where the file comes from",
    ["__version__", "requirements"],
);
static PRECISION: &[Key] = &irrelevant("the computation has 32 bits", ["keep_in_fp32_modules"]);

/// `config_sentence_transformers.json`.
#[derive(Default)]
pub(crate) struct TextConfig {
    pub(crate) prompts: BTreeMap<String, String>,
    default_prompt_name: Option<String>,
    pub(crate) similarity: Option<Similarity>,
    /// Number of dimensions to which vectors are truncated.
    pub(crate) truncate_dim: Option<usize>,
    /// Number of words that sparse vectors keep.
    pub(crate) max_words: Option<usize>,
    /// Python class of the function that is applied to scores.
    pub(crate) activation: Option<String>,
}

impl TextConfig {
    pub(crate) fn read(root: &Path, ignored: &IgnoredKeys) -> Result<Self, LoadError> {
        let Some(config) = ConfigFile::read(&root.join("config_sentence_transformers.json"))? else {
            return Ok(Self::default());
        };
        config.check(&[TEXTS, VERSIONS, PRECISION], ignored)?;
        let kind: Option<String> = config.get("model_type")?;
        let known = [
            "SentenceTransformer",
            "SparseEncoder",
            "MultiVectorEncoder",
            "CrossEncoder",
        ];
        if kind.is_some_and(|kind| !known.contains(&&*kind)) {
            let expected = format!(
                "{}: load it with a current version of sentence-transformers and save it again",
                known.join(", ")
            );
            return Err(config.unsupported("model_type", expected));
        }
        let prompts: BTreeMap<String, Option<String>> = config.get("prompts")?.unwrap_or_default();
        let prompts: BTreeMap<_, _> = prompts
            .into_iter()
            .map(|(name, prompt)| (name, prompt.unwrap_or_default()))
            .collect();
        let default_prompt_name: Option<String> = config.get("default_prompt_name")?;
        if let Some(name) = default_prompt_name
            .as_ref()
            .filter(|name| !prompts.contains_key(*name))
        {
            return Err(config.unsupported(
                "default_prompt_name",
                format_args!("the name of a prompt in `prompts`: `{name}` is none"),
            ));
        }
        let similarity: Option<Json> = config.get("similarity_fn_name")?;
        let similarity = match similarity {
            // What MultiVectorEncoder uses. The task `similarity` is not offered then.
            Some(Json::String(name)) if name == "maxsim" => None,
            _ => config.get("similarity_fn_name")?,
        };
        Ok(Self {
            prompts,
            default_prompt_name,
            similarity,
            truncate_dim: optional_size(&config, "truncate_dim")?,
            max_words: optional_size(&config, "max_active_dims")?,
            activation: config.get("activation_fn")?,
        })
    }

    /// Returns the name of the default prompt, if it has a text.
    pub(crate) fn default_prompt(&self) -> Option<&str> {
        let name = self.default_prompt_name.as_deref()?;
        self.prompts
            .get(name)
            .filter(|prompt| !prompt.is_empty())
            .map(|_| name)
    }

    /// Returns the prompts of queries and passages.
    pub(crate) fn query_and_passage(&self, settings: &PromptSettings) -> (String, String) {
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

fn optional_size(config: &ConfigFile, key: &str) -> Result<Option<usize>, LoadError> {
    match config.get::<usize>(key)? {
        Some(_) => config.size(key, None).map(Some),
        None => Ok(None),
    }
}
