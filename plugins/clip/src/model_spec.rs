//! Description of a model: its networks, tokenizer and preprocessing of images, from the `files` in its directory and the settings.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use pictures::Decoding;
use plugin_sdk::LoadError;
use serde::Deserialize;
use transformer::files::{IgnoredKeys, file_error, read};
use transformer::{Shape, Tokenizer};

use crate::files::{Config, ImageConfig, ProcessorConfig, TokenizerConfig, tokenizer};
use crate::image_reader::ImageReader;
use crate::keys;
use crate::settings::Settings;

/// Description of a model, from its directory and the settings.
pub(crate) struct ModelSpec {
    pub(crate) tokenizer: Tokenizer,
    pub(crate) image_reader: ImageReader,
    pub(crate) network: NetworkSpec,
}

/// Description of both networks.
pub(crate) struct NetworkSpec {
    /// Path of the weights.
    pub(crate) weights: PathBuf,
    pub(crate) text: TextSpec,
    pub(crate) vision: VisionSpec,
    /// Length of the vectors.
    pub(crate) width: usize,
}

/// Description of the text network.
pub(crate) struct TextSpec {
    pub(crate) layers: Shape,
    /// Maximum number of tokens of a text.
    pub(crate) positions: usize,
    pub(crate) pooled_token: PooledToken,
}

/// The token whose vector is used for the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PooledToken {
    /// The first token with the largest ID.
    Largest,
    /// The first token with this ID, or the first of all if there is none.
    Id(u32),
}

/// Description of the vision network.
pub(crate) struct VisionSpec {
    pub(crate) layers: Shape,
    /// Width and height of an image.
    pub(crate) side: usize,
    /// Width and height of a patch.
    pub(crate) patch: usize,
    /// Normalized value of each level of each channel.
    pub(crate) levels: Box<[[f32; 256]; 3]>,
}

impl ModelSpec {
    /// Reads the model directory `root`.
    pub(crate) fn read(root: &Path, settings: &Settings) -> Result<Self, LoadError> {
        if !root.is_dir() {
            let message = format!("`{}` is not a directory", root.display());
            return Err(LoadError::setting("folder", message));
        }
        let ignored = IgnoredKeys::new(settings.ignored_keys.clone());
        let root = &model_directory(root)?;
        let file = root.join("config.json");
        let config: Config = read(&file)?.ok_or_else(|| file_error(&file, "does not exist"))?;
        if config.model_type != "clip" {
            let message = format!("has the model type `{}`, expected clip", config.model_type);
            return Err(file_error(&file, &message));
        }
        keys::check(root, &ignored)?;
        ignored.check_all_used()?;
        let whole = root.join("model.safetensors");
        let index = root.join("model.safetensors.index.json");
        let weights = if whole.is_file() || !index.is_file() {
            whole
        } else {
            index
        };
        if !weights.is_file() {
            let message = "does not exist: if the directory has weights in a different format, save it again with transformers";
            return Err(file_error(&weights, message));
        }
        let (text, vision) = (config.text(), config.vision());
        let (image_file, image) = image_config(root)?;
        let (target, side) = image.sizes(&image_file)?;
        if side != vision.image_size {
            let expected = vision.image_size;
            let message = format!(
                "produces images of {side}×{side}, expected {expected}×{expected}, the input size of the network"
            );
            return Err(file_error(&image_file, &message));
        }
        Ok(Self {
            tokenizer: read_tokenizer(root, text.max_position_embeddings, settings.truncate)?,
            image_reader: ImageReader {
                target,
                side,
                decoding: Decoding {
                    max_pixels: settings.max_pixels,
                    truncated_images: settings.truncated_images,
                    orientation: settings.orientation,
                },
            },
            network: NetworkSpec {
                weights,
                text: TextSpec {
                    layers: text.shape(&file)?,
                    positions: text.max_position_embeddings,
                    // The first checkpoints have this wrong ID, and transformers pools them by a different rule.
                    pooled_token: match text.eos_token_id {
                        2 => PooledToken::Largest,
                        id => PooledToken::Id(id),
                    },
                },
                vision: VisionSpec {
                    layers: vision.shape(&file)?,
                    side,
                    patch: vision.patch_size,
                    levels: Box::new(image.levels(&image_file)?),
                },
                width: config.width(),
            },
        })
    }
}

/// Returns the directory with the files of the model: `root`, or a directory below it if sentence-transformers saved the model.
fn model_directory(root: &Path) -> Result<PathBuf, LoadError> {
    #[derive(Deserialize)]
    struct Module {
        #[serde(default)]
        path: String,
        #[serde(rename = "type")]
        kind: String,
    }
    let file = root.join("modules.json");
    let modules: Vec<Module> = match read(&file)? {
        Some(modules) => modules,
        None => return Ok(root.to_owned()),
    };
    match &modules[..] {
        [module] if module.kind.ends_with(".CLIPModel") => Ok(root.join(&module.path)),
        _ => {
            let kinds: Vec<_> = modules.iter().map(|module| &*module.kind).collect();
            let message = format!("has the modules {}, expected only CLIPModel", kinds.join(", "));
            Err(file_error(&file, &message))
        }
    }
}

/// Returns the preprocessing of images, and the file that specifies it.
fn image_config(root: &Path) -> Result<(PathBuf, ImageConfig), LoadError> {
    let newer = root.join("processor_config.json");
    let processor: ProcessorConfig = read(&newer)?.unwrap_or_default();
    if let Some(config) = processor.image_processor {
        return Ok((newer, config));
    }
    let older = root.join("preprocessor_config.json");
    match read(&older)? {
        Some(config) => Ok((older, config)),
        None => Err(file_error(
            &older,
            "does not exist, and `processor_config.json` does not specify the preprocessing of images",
        )),
    }
}

/// Loads the tokenizer, from `tokenizer.json` or from the two files of older directories.
fn read_tokenizer(root: &Path, positions: usize, truncate: bool) -> Result<Tokenizer, LoadError> {
    let config: TokenizerConfig = read(&root.join("tokenizer_config.json"))?.unwrap_or_default();
    let from_left = match config.truncation_side.as_deref() {
        None => None,
        Some("left") => Some(true),
        Some("right") => Some(false),
        Some(other) => {
            let file = root.join("tokenizer_config.json");
            let message = format!("has `truncation_side` \"{other}\", expected left or right");
            return Err(file_error(&file, &message));
        }
    };
    // The cast saturates, as intended.
    let declared = config
        .model_max_length
        .map_or(usize::MAX, |length| length as usize);
    let max_length = declared.min(positions);
    let whole = root.join("tokenizer.json");
    let words = root.join("vocab.json");
    if whole.exists() || !words.exists() {
        let tokenizer = Tokenizer::load(&whole, max_length, truncate, false)?;
        return Ok(match from_left {
            Some(from_left) => tokenizer.truncating_left(from_left),
            None => tokenizer,
        });
    }
    let vocabulary: HashMap<String, u32> = read(&words)?.unwrap_or_default();
    let merges = root.join("merges.txt");
    let text = fs::read_to_string(&merges);
    let text = text.map_err(|error| file_error(&merges, &format!("cannot be read: {error}")))?;
    let definition = tokenizer(&vocabulary, &text).map_err(|problem| file_error(&words, &problem))?;
    Tokenizer::read(definition.to_string().as_bytes(), max_length, truncate, false)
        .map(|tokenizer| tokenizer.truncating_left(from_left == Some(true)))
        .map_err(|error| file_error(&words, &format!("cannot be used: {error}")))
}
