//! The keys of the JSON files of a CLIP directory. All others are errors, because they may affect the results.

use std::path::Path;

use plugin_sdk::LoadError;
use transformer::config_keys;
use transformer::files::{ConfigFile, IgnoredKeys, Key, honored, irrelevant};
use transformer::keys;

static MODEL: &[Key] = keys![
    honored([
        "model_type",
        "projection_dim",
        "text_config",
        "text_config_dict",
        "vision_config",
        "vision_config_dict",
    ]),
    irrelevant("the weights have it", ["logit_scale_init_value"]),
    irrelevant("selects the class of PyTorch", ["architectures"]),
];

/// Keys of the sections of both networks.
static NETWORK: &[Key] = keys![
    honored([
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "hidden_act",
        "layer_norm_eps",
    ]),
    irrelevant("that of the model counts", ["projection_dim"]),
    irrelevant("the section has the type", ["model_type", "architectures"]),
    irrelevant(
        "for classification heads",
        ["id2label", "problem_type", "num_labels"]
    ),
    irrelevant("only for language models", ["tie_word_embeddings"]),
];

static TEXT: &[Key] = keys![
    honored(["max_position_embeddings", "eos_token_id"]),
    irrelevant("the tensor has the size", ["vocab_size"]),
];

static VISION: &[Key] = &honored(["num_channels", "image_size", "patch_size"]);

static IMAGES: &[Key] = keys![
    honored([
        "image_processor_type",
        "feature_extractor_type",
        "do_resize",
        "do_center_crop",
        "do_rescale",
        "do_normalize",
        "do_convert_rgb",
        "size",
        "crop_size",
        "resample",
        "rescale_factor",
        "image_mean",
        "image_std",
    ]),
    irrelevant(
        "it does not change pixels",
        [
            "processor_class",
            "_processor_class",
            "_valid_processor_keys",
            "data_format",
            "input_data_format",
            "return_tensors",
            "device",
            "disable_grouping",
        ]
    ),
];

static PROCESSOR: &[Key] = keys![
    honored(["image_processor"]),
    irrelevant("names a class of PyTorch", ["processor_class"]),
];

static TOKENIZER: &[Key] = keys![
    honored(["model_max_length", "truncation_side"]),
    irrelevant(
        "`tokenizer.json` has it",
        ["bos_token", "eos_token", "do_lower_case"]
    ),
];

/// Checks the keys of all files of a directory.
pub(crate) fn check(root: &Path, ignored: &IgnoredKeys) -> Result<(), LoadError> {
    let file = |name: &str| ConfigFile::read(&root.join(name));
    if let Some(config) = file("config.json")? {
        config.check(&[MODEL, config_keys::NETWORK], ignored)?;
        for (names, own) in [
            (["text_config", "text_config_dict"], TEXT),
            (["vision_config", "vision_config_dict"], VISION),
        ] {
            for name in names {
                if let Some(section) = config.section(name)? {
                    section.check(&[own, NETWORK, config_keys::NETWORK], ignored)?;
                }
            }
        }
    }
    if let Some(config) = file("processor_config.json")? {
        config.check(&[PROCESSOR], ignored)?;
        if let Some(images) = config.section("image_processor")? {
            images.check(&[IMAGES], ignored)?;
        }
    }
    if let Some(config) = file("preprocessor_config.json")? {
        config.check(&[IMAGES], ignored)?;
    }
    if let Some(config) = file("tokenizer_config.json")? {
        config.check(&[TOKENIZER, config_keys::TOKENIZER], ignored)?;
    }
    Ok(())
}
