//! What a folder of CLIP says: which networks, which tokeniser, how images are prepared. What its many `files` say ends here; the
//! rest of the plugin sees a [`ModelSpec`].

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use pictures::Decoding;
use plugin_sdk::LoadError;
use transformer::files::{file_error, read};
use transformer::{Shape, Tokenizer};

use crate::files::{Config, ImageConfig, ProcessorConfig, TokenizerConfig, tokenizer};
use crate::image_reader::ImageReader;
use crate::settings::Settings;

/// A model, as its folder and the settings together describe it.
pub(crate) struct ModelSpec {
    pub(crate) tokenizer: Tokenizer,
    pub(crate) image_reader: ImageReader,
    pub(crate) network: NetworkSpec,
}

/// Both networks.
pub(crate) struct NetworkSpec {
    /// The file with the weights.
    pub(crate) weights: PathBuf,
    pub(crate) text: TextSpec,
    pub(crate) vision: VisionSpec,
    /// Numbers of a vector of a text or an image.
    pub(crate) width: usize,
}

/// The network for texts.
pub(crate) struct TextSpec {
    pub(crate) layers: Shape,
    /// Most tokens of a text.
    pub(crate) positions: usize,
    pub(crate) last: PooledToken,
}

/// Which token stands for its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PooledToken {
    /// That with the largest id; the first, if there are several.
    Largest,
    /// The first with this id, or else the first of all.
    Id(u32),
}

/// The network for images.
pub(crate) struct VisionSpec {
    pub(crate) layers: Shape,
    /// Width and height of an image.
    pub(crate) side: usize,
    /// Width and height of a patch.
    pub(crate) patch: usize,
    /// What each level of each channel becomes.
    pub(crate) levels: Box<[[f32; 256]; 3]>,
}

impl ModelSpec {
    /// Reads the folder at `root`.
    pub(crate) fn read(root: &Path, settings: &Settings) -> Result<Self, LoadError> {
        if !root.is_dir() {
            let message = format!("`{}` is not a folder", root.display());
            return Err(LoadError::setting("folder", message));
        }
        let file = root.join("config.json");
        let config: Config = read(&file)?.ok_or_else(|| file_error(&file, "does not exist"))?;
        if config.model_type != "clip" {
            let message = format!("names the model type `{}`, expected clip", config.model_type);
            return Err(file_error(&file, &message));
        }
        let weights = root.join("model.safetensors");
        if !weights.is_file() {
            let message =
                "does not exist; a folder with weights of another kind must be saved anew by transformers";
            return Err(file_error(&weights, message));
        }
        let (text, vision) = (config.text(), config.vision());
        let (image_file, image) = image_config(root)?;
        let (target, side) = image.sizes(&image_file)?;
        if side != vision.image_size {
            let wanted = vision.image_size;
            let message =
                format!("makes images of {side}×{side}, expected {wanted}×{wanted}, as the network takes");
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
                    // This id was wrong in the first folders, which are pooled by another rule since.
                    last: match text.eos_token_id {
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

/// How images are prepared, and the file that says it.
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
            "does not exist, nor does `processor_config.json` say how images are prepared",
        )),
    }
}

/// The tokeniser, from the one file of newer folders or the two of older ones.
fn read_tokenizer(root: &Path, positions: usize, truncate: bool) -> Result<Tokenizer, LoadError> {
    let config: TokenizerConfig = read(&root.join("tokenizer_config.json"))?.unwrap_or_default();
    // The cast saturates, which is what is meant.
    let said = config
        .model_max_length
        .map_or(usize::MAX, |length| length as usize);
    let max_length = said.min(positions);
    let whole = root.join("tokenizer.json");
    let words = root.join("vocab.json");
    if whole.exists() || !words.exists() {
        return Tokenizer::load(&whole, max_length, truncate, false);
    }
    let vocabulary: HashMap<String, u32> = read(&words)?.unwrap_or_default();
    let merges = root.join("merges.txt");
    let text = fs::read_to_string(&merges);
    let text = text.map_err(|error| file_error(&merges, &format!("cannot be read: {error}")))?;
    let definition = tokenizer(&vocabulary, &text).map_err(|problem| file_error(&words, &problem))?;
    Tokenizer::read(definition.to_string().as_bytes(), max_length, truncate, false)
        .map_err(|error| file_error(&words, &format!("cannot be used: {error}")))
}
