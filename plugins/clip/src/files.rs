//! The JSON files of a CLIP directory, as older and newer versions of transformers write them. `model_spec` combines them.

use std::collections::HashMap;
use std::path::Path;

use plugin_sdk::LoadError;
use plugin_sdk::serde_json::Value as Json;
use serde::Deserialize;
use transformer::files::file_error;
use transformer::{Activation, Biases, Gate, LayerShape, NormKind, Norms, Shape};

use crate::image_reader::Target;

/// `config.json`. Missing values have the defaults of transformers.
#[derive(Deserialize)]
pub(crate) struct Config {
    #[serde(default)]
    pub(crate) model_type: String,
    projection_dim: Option<usize>,
    text_config: Option<TextConfig>,
    text_config_dict: Option<TextConfig>,
    vision_config: Option<VisionConfig>,
    vision_config_dict: Option<VisionConfig>,
}

impl Config {
    /// Returns the length of the vectors.
    pub(crate) fn width(&self) -> usize {
        self.projection_dim.unwrap_or(512)
    }

    /// Returns the configuration of the text network. The older field, if present, replaces the newer one completely.
    pub(crate) fn text(&self) -> TextConfig {
        let written = self.text_config_dict.as_ref().or(self.text_config.as_ref());
        written.cloned().unwrap_or_default()
    }

    /// Returns the configuration of the vision network, as [`text`](Self::text) does.
    pub(crate) fn vision(&self) -> VisionConfig {
        let written = self.vision_config_dict.as_ref().or(self.vision_config.as_ref());
        written.cloned().unwrap_or_default()
    }
}

/// `text_config` of `config.json`.
#[derive(Clone, Deserialize)]
#[serde(default)]
pub(crate) struct TextConfig {
    #[serde(flatten)]
    layers: LayersConfig,
    pub(crate) max_position_embeddings: usize,
    pub(crate) eos_token_id: u32,
}

impl Default for TextConfig {
    fn default() -> Self {
        Self {
            layers: LayersConfig::default(),
            max_position_embeddings: 77,
            eos_token_id: 49407,
        }
    }
}

impl TextConfig {
    pub(crate) fn shape(&self, file: &Path) -> Result<Shape, LoadError> {
        let defaults = Sizes {
            width: 512,
            feed_forward_size: 2048,
            heads: 8,
        };
        let shape = self.layers.shape(&defaults, "text", file)?;
        Ok(Shape {
            causal: true,
            ..shape
        })
    }
}

/// `vision_config` of `config.json`.
#[derive(Clone, Deserialize)]
#[serde(default)]
pub(crate) struct VisionConfig {
    #[serde(flatten)]
    layers: LayersConfig,
    num_channels: usize,
    pub(crate) image_size: usize,
    pub(crate) patch_size: usize,
}

impl Default for VisionConfig {
    fn default() -> Self {
        Self {
            layers: LayersConfig::default(),
            num_channels: 3,
            image_size: 224,
            patch_size: 32,
        }
    }
}

impl VisionConfig {
    pub(crate) fn shape(&self, file: &Path) -> Result<Shape, LoadError> {
        if self.num_channels != 3 {
            let message = format!("has `num_channels` {}, expected 3", self.num_channels);
            return Err(file_error(file, &message));
        }
        if self.patch_size == 0 || self.patch_size > self.image_size {
            let (patch, image) = (self.patch_size, self.image_size);
            let message = format!("has `patch_size` {patch}, expected 1 to `image_size` {image}");
            return Err(file_error(file, &message));
        }
        let defaults = Sizes {
            width: 768,
            feed_forward_size: 3072,
            heads: 12,
        };
        self.layers.shape(&defaults, "vision", file)
    }
}

/// Fields that the configurations of both encoders share.
#[derive(Clone, Default, Deserialize)]
struct LayersConfig {
    hidden_size: Option<usize>,
    intermediate_size: Option<usize>,
    num_hidden_layers: Option<usize>,
    num_attention_heads: Option<usize>,
    hidden_act: Option<String>,
    layer_norm_eps: Option<f32>,
}

/// Default sizes, which differ between the encoders.
struct Sizes {
    width: usize,
    feed_forward_size: usize,
    heads: usize,
}

impl LayersConfig {
    /// Returns the shape of the layers of the network `part`, without causal attention.
    fn shape(&self, defaults: &Sizes, part: &str, file: &Path) -> Result<Shape, LoadError> {
        let layers = self.num_hidden_layers.unwrap_or(12);
        let width = self.hidden_size.unwrap_or(defaults.width);
        let heads = self.num_attention_heads.unwrap_or(defaults.heads);
        let feed_forward_size = self.intermediate_size.unwrap_or(defaults.feed_forward_size);
        if [layers, width, heads, feed_forward_size].contains(&0) {
            return Err(file_error(file, &format!("has a size of 0 in `{part}_config`")));
        }
        if !width.is_multiple_of(heads) {
            let message = format!(
                "has `hidden_size` {width} in `{part}_config`, expected a multiple of `num_attention_heads` {heads}"
            );
            return Err(file_error(file, &message));
        }
        Ok(Shape {
            layers: LayerShape::numbered(&format!("{part}_model.encoder.layers"), layers),
            width,
            heads,
            key_value_heads: heads,
            head_size: width / heads,
            causal: false,
            relative_positions: None,
            feed_forward_size,
            activation: activation(self.hidden_act.as_deref().unwrap_or("quick_gelu"), file)?,
            gate: Gate::None,
            norm: NormKind::Layer,
            epsilon: self.layer_norm_eps.unwrap_or(1e-5),
            norms: Norms::Before,
            biases: Biases::ALL,
        })
    }
}

fn activation(name: &str, file: &Path) -> Result<Activation, LoadError> {
    Activation::named(name).ok_or_else(|| {
        let message = format!("has the activation `{name}`, expected {}", Activation::NAMES);
        file_error(file, &message)
    })
}

/// `tokenizer_config.json`.
#[derive(Default, Deserialize)]
pub(crate) struct TokenizerConfig {
    /// A huge number if there is no limit.
    pub(crate) model_max_length: Option<f64>,
    pub(crate) truncation_side: Option<String>,
}

/// `processor_config.json` of newer versions.
#[derive(Default, Deserialize)]
pub(crate) struct ProcessorConfig {
    pub(crate) image_processor: Option<ImageConfig>,
}

/// `preprocessor_config.json`, or the same part of `processor_config.json`. Missing values have the defaults of transformers.
#[derive(Deserialize)]
pub(crate) struct ImageConfig {
    image_processor_type: Option<String>,
    /// Older name of `image_processor_type`.
    feature_extractor_type: Option<String>,
    do_resize: Option<bool>,
    do_center_crop: Option<bool>,
    do_rescale: Option<bool>,
    do_normalize: Option<bool>,
    do_convert_rgb: Option<bool>,
    size: Option<Size>,
    crop_size: Option<Size>,
    resample: Option<u32>,
    rescale_factor: Option<f64>,
    image_mean: Option<Vec<f64>>,
    image_std: Option<Vec<f64>>,
}

#[derive(Clone, Deserialize)]
#[serde(
    untagged,
    expecting = "expected a number, or an object with `shortest_edge` or with `height` and `width`"
)]
enum Size {
    Number(usize),
    Object(HashMap<String, Option<usize>>),
}

impl Size {
    /// Returns the fields that are not null, sorted by name.
    fn members(&self) -> Vec<(&str, usize)> {
        let Self::Object(members) = self else {
            return Vec::new();
        };
        let written = members
            .iter()
            .filter_map(|(name, size)| Some((&**name, (*size)?)));
        let mut written: Vec<_> = written.collect();
        written.sort_unstable();
        written
    }
}

impl ImageConfig {
    /// Pillow's number for bicubic resizing.
    const BICUBIC: u32 = 3;

    /// Returns the size after resizing, and the width and height after cropping.
    pub(crate) fn sizes(&self, file: &Path) -> Result<(Target, usize), LoadError> {
        self.check(file)?;
        let unsupported = |key: &str| file_error(file, &format!("has an unsupported `{key}`"));
        let target = match &self.size {
            None => Target::ShortestEdge(224),
            Some(Size::Number(edge)) => Target::ShortestEdge(*edge),
            Some(size) => match size.members()[..] {
                [("shortest_edge", edge)] => Target::ShortestEdge(edge),
                [("height", height), ("width", width)] => Target::Exact(width, height),
                _ => return Err(unsupported("size")),
            },
        };
        let crop = match &self.crop_size {
            _ if self.do_center_crop == Some(false) => None,
            None => Some(224),
            Some(Size::Number(side)) => Some(*side),
            Some(size) => match size.members()[..] {
                [("height", height), ("width", width)] if height == width => Some(width),
                _ => return Err(unsupported("crop_size")),
            },
        };
        let (smaller, side) = match (target, crop) {
            (Target::ShortestEdge(edge), Some(side)) => (edge, side),
            (Target::Exact(width, height), Some(side)) => (width.min(height), side),
            (Target::Exact(width, height), None) if width == height => (width, width),
            (_, None) => {
                return Err(file_error(
                    file,
                    "produces images of different sizes, expected `do_center_crop`",
                ));
            }
        };
        if side > smaller || side == 0 {
            let message = format!(
                "has the crop size {side}×{side}, expected at most {smaller}×{smaller}, the resized image"
            );
            return Err(file_error(file, &message));
        }
        Ok((target, side))
    }

    fn check(&self, file: &Path) -> Result<(), LoadError> {
        let kinds = [&self.image_processor_type, &self.feature_extractor_type];
        if let Some(kind) = kinds.into_iter().flatten().find(|kind| !kind.starts_with("CLIP")) {
            let message = format!("has the image processor `{kind}`, expected CLIPImageProcessor");
            return Err(file_error(file, &message));
        }
        let steps = [
            ("do_resize", self.do_resize),
            ("do_rescale", self.do_rescale),
            ("do_normalize", self.do_normalize),
            ("do_convert_rgb", self.do_convert_rgb),
        ];
        if let Some((step, _)) = steps.iter().find(|(_, done)| *done == Some(false)) {
            return Err(file_error(file, &format!("has `{step}` false, expected true")));
        }
        match self.resample {
            None | Some(Self::BICUBIC) => Ok(()),
            Some(other) => {
                let message = format!("has `resample` {other}, expected {} (bicubic)", Self::BICUBIC);
                Err(file_error(file, &message))
            }
        }
    }

    /// Returns the normalized value of each level of each channel, with the precision of numpy: 64 bits for the factor, 32 bits for
    /// the rest.
    pub(crate) fn levels(&self, file: &Path) -> Result<[[f32; 256]; 3], LoadError> {
        let factor = self.rescale_factor.unwrap_or(1.0 / 255.0);
        let mean = per_channel(
            self.image_mean.as_deref(),
            [0.481_454_66, 0.457_827_5, 0.408_210_73],
        );
        let std = per_channel(
            self.image_std.as_deref(),
            [0.268_629_54, 0.261_302_58, 0.275_777_11],
        );
        let (Some(mean), Some(std)) = (mean, std) else {
            return Err(file_error(
                file,
                "has an invalid `image_mean` or `image_std`, expected three numbers",
            ));
        };
        let level =
            |channel: usize, level: usize| ((level as f64 * factor) as f32 - mean[channel]) / std[channel];
        let levels = [0, 1, 2].map(|channel| std::array::from_fn(|index| level(channel, index)));
        if !levels.as_flattened().iter().all(|level| level.is_finite()) {
            return Err(file_error(
                file,
                "has values that normalize pixels to infinity or NaN",
            ));
        }
        Ok(levels)
    }
}

fn per_channel(values: Option<&[f64]>, default: [f64; 3]) -> Option<[f32; 3]> {
    let values = match values {
        None => default,
        Some(values) => values.try_into().ok()?,
    };
    Some(values.map(|value| value as f32))
}

/// Returns the content of `tokenizer.json` for an older directory, which has `vocab.json` and `merges.txt` instead.
pub(crate) fn tokenizer(vocabulary: &HashMap<String, u32>, merges: &str) -> Result<Json, String> {
    const BEGIN: &str = "<|startoftext|>";
    const END: &str = "<|endoftext|>";
    let id = |word: &str| {
        let id = vocabulary.get(word).copied();
        id.ok_or_else(|| format!("lacks the token `{word}`"))
    };
    let (begin, end) = (id(BEGIN)?, id(END)?);
    let added = |id: u32, word: &str| {
        plugin_sdk::serde_json::json!({
            "id": id, "content": word, "special": true,
            "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
        })
    };
    let lines = merges.lines().map(str::trim_end);
    let merges: Vec<_> = lines
        .filter(|line| !line.is_empty() && !line.starts_with("#version"))
        .collect();
    let pattern =
        r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";
    Ok(plugin_sdk::serde_json::json!({
        "version": "1.0",
        "added_tokens": [added(begin, BEGIN), added(end, END)],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "NFC"},
            {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "},
            {"type": "Lowercase"},
        ]},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Removed", "invert": true},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        ]},
        "post_processor": {
            "type": "RobertaProcessing", "sep": [END, end], "cls": [BEGIN, begin],
            "trim_offsets": false, "add_prefix_space": false,
        },
        "decoder": null,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": END, "continuing_subword_prefix": "",
            "end_of_word_suffix": "</w>", "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocabulary, "merges": merges,
        },
    }))
}
