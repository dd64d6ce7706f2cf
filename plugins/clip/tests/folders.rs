//! Tests of equivalent model directories and of unsupported ones.

#[allow(dead_code, reason = "each test file uses a part of it")]
mod common;

use std::fs;
use std::path::Path;

use common::{assert_close, load, models, numbers, plain, reference, vector};
use plugin_sdk::serde_json::{self, Value as Json, json};
use plugin_sdk::testing::Failure;
use tempfile::TempDir;

/// A copy of the directory of a small model.
struct ModelCopy(TempDir);

impl ModelCopy {
    fn of(folder: &str) -> Self {
        let copy = tempfile::tempdir().expect("create a temporary directory");
        for entry in fs::read_dir(models().join(folder)).expect("read the directory") {
            let file = entry.expect("read the directory").path();
            let name = file.file_name().expect("a file name");
            fs::copy(&file, copy.path().join(name)).expect("copy a file");
        }
        Self(copy)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Changes a JSON file.
    fn edit(self, name: &str, edit: impl FnOnce(&mut Json)) -> Self {
        let file = self.path().join(name);
        let mut content: Json =
            serde_json::from_slice(&fs::read(&file).expect("read the file")).expect("valid JSON");
        edit(&mut content);
        fs::write(file, content.to_string()).expect("write the file");
        self
    }

    /// Removes a file.
    fn without(self, name: &str) -> Self {
        fs::remove_file(self.path().join(name)).expect("read the file");
        self
    }

    /// Returns the error of loading the copy, which must name the setting `folder`.
    fn load_error(&self) -> String {
        let failure = load(json!({"folder": self.path()})).expect_err("unsupported model");
        assert_eq!(failure.key, "folder", "{failure}");
        failure.message
    }

    /// Asserts that the vectors of the texts and of an image match the reference for `folder`.
    fn check(&self, folder: &str) {
        let reference = reference();
        let model = load(json!({"folder": self.path(), "normalize": false})).expect("the model loads");
        let expected = &reference["expected"][folder];
        let texts = reference["texts"].as_array().expect("a list");
        for (index, outcome) in model.predict("text", texts).iter().enumerate() {
            assert_close(
                &vector(outcome),
                &numbers(&expected["text"][index]),
                &texts[index].to_string(),
            );
        }
        let image = model.predict("image", &[common::image("landscape.png")]);
        assert_close(
            &vector(&image[0]),
            &numbers(&expected["image"]["landscape.png"]),
            "the image",
        );
    }
}

#[test]
fn image_preprocessing_can_be_specified_in_a_separate_file() {
    let copy = ModelCopy::of("new");
    let processor = fs::read(copy.path().join("processor_config.json")).expect("read the file");
    let mut processor: Json = serde_json::from_slice(&processor).expect("valid JSON");
    let image = &mut processor["image_processor"];
    // Some directories have the field names of two versions.
    image["feature_extractor_type"] = json!("CLIPFeatureExtractor");
    let file = copy.path().join("preprocessor_config.json");
    fs::write(file, image.to_string()).expect("write the file");
    copy.edit("processor_config.json", |config| {
        *config = json!({"processor_class": "CLIPProcessor"})
    })
    .check("new");
}

#[test]
fn images_can_be_resized_without_cropping() {
    let square = ModelCopy::of("new").edit("processor_config.json", |config| {
        let config = &mut config["image_processor"];
        config["size"] = json!({"height": 32, "width": 32});
        config["do_center_crop"] = json!(false);
    });
    let model = load(json!({"folder": square.path(), "normalize": false})).expect("the model loads");
    let same = model.predict(
        "image",
        &[common::image("as_it_is.png"), common::image("landscape.png")],
    );
    let cropped = plain("new").predict(
        "image",
        &[common::image("as_it_is.png"), common::image("landscape.png")],
    );
    assert_close(&vector(&same[0]), &vector(&cropped[0]), "a square");
    assert_ne!(
        vector(&same[1]),
        vector(&cropped[1]),
        "a landscape image is squeezed instead of cropped"
    );
}

#[test]
fn missing_values_have_the_defaults_of_transformers() {
    let copy = ModelCopy::of("new").edit("config.json", |config| {
        for section in ["text_config", "vision_config"] {
            let section = config[section].as_object_mut().expect("an object");
            section.remove("hidden_act");
            section.remove("layer_norm_eps");
            section.remove("projection_dim");
        }
        config["vision_config"]
            .as_object_mut()
            .expect("an object")
            .remove("num_channels");
    });
    copy.edit("processor_config.json", |config| {
        let config = config["image_processor"].as_object_mut().expect("an object");
        for key in [
            "image_mean",
            "image_std",
            "rescale_factor",
            "resample",
            "do_convert_rgb",
        ] {
            config.remove(key);
        }
    })
    .check("new");
    let load_error = ModelCopy::of("new")
        .edit("config.json", |config| config["text_config"] = Json::Null)
        .load_error();
    assert!(
        load_error.contains("expected [77, 512]") || load_error.contains("512]"),
        "{load_error}"
    );
}

#[test]
fn an_old_directory_can_have_a_tokenizer_json() {
    let copy = ModelCopy::of("old").without("vocab.json").without("merges.txt");
    fs::copy(
        models().join("new/tokenizer.json"),
        copy.path().join("tokenizer.json"),
    )
    .expect("copy a file");
    copy.check("old");
}

fn settings_error(settings: Json) -> Failure {
    load(settings).expect_err("invalid settings")
}

#[test]
fn errors_name_the_setting_at_fault() {
    let failure = settings_error(json!({"folder": "absent"}));
    assert_eq!(failure.key, "folder");
    assert!(
        failure.message.ends_with("/absent` is not a directory"),
        "{failure}"
    );
    let failure = settings_error(json!({"folder": "new", "template": "a photo"}));
    assert_eq!(failure.key, "template");
    let failure = settings_error(json!({"folder": "new", "threads": 5000}));
    assert_eq!(
        (&*failure.key, &*failure.message),
        ("threads", "got 5000, expected at most 1024")
    );
}

#[test]
fn errors_name_missing_files() {
    for (folder, file, problem) in [
        ("new", "config.json", "config.json` does not exist"),
        (
            "new",
            "model.safetensors",
            "model.safetensors` does not exist: if the directory has weights in a different format",
        ),
        (
            "new",
            "processor_config.json",
            "and `processor_config.json` does not specify the preprocessing of images",
        ),
        (
            "new",
            "tokenizer.json",
            "tokenizer.json` cannot be used: No such file",
        ),
        ("old", "merges.txt", "merges.txt` cannot be read: No such file"),
    ] {
        let message = ModelCopy::of(folder).without(file).load_error();
        assert!(message.contains(problem), "{message}");
    }
}

#[test]
fn unsupported_features_are_errors_that_name_them() {
    type Edit = fn(&mut Json);
    let cases: [(&str, Edit, &str); 16] = [
        (
            "config.json",
            |config| config["model_type"] = json!("siglip"),
            "has the model type `siglip`, expected clip",
        ),
        (
            "config.json",
            |config| config["text_config"]["hidden_act"] = json!("mish"),
            "has the activation `mish`",
        ),
        (
            "config.json",
            |config| config["text_config"]["num_attention_heads"] = json!(3),
            "in `text_config`, expected a multiple of `num_attention_heads` 3",
        ),
        (
            "config.json",
            |config| config["vision_config"]["num_hidden_layers"] = json!(3),
            "has no tensor `vision_model.encoder.layers.2.",
        ),
        (
            "config.json",
            |config| config["vision_config"]["num_channels"] = json!(1),
            "has `num_channels` 1, expected 3",
        ),
        (
            "config.json",
            |config| config["vision_config"]["patch_size"] = json!(0),
            "has `patch_size` 0, expected 1 to `image_size` 32",
        ),
        (
            "config.json",
            |config| config["vision_config"]["image_size"] = json!(64),
            "produces images of 32×32, expected 64×64",
        ),
        (
            "config.json",
            |config| config["projection_dim"] = json!(11),
            "has the shape [10, 16], expected [11, 16]",
        ),
        (
            "processor_config.json",
            |config| config["image_processor"]["resample"] = json!(2),
            "has `resample` 2, expected 3 (bicubic)",
        ),
        (
            "processor_config.json",
            |config| config["image_processor"]["do_normalize"] = json!(false),
            "has `do_normalize` false",
        ),
        (
            "processor_config.json",
            |config| config["image_processor"]["image_processor_type"] = json!("ViTImageProcessor"),
            "has the image processor `ViTImageProcessor`",
        ),
        (
            "processor_config.json",
            |config| config["image_processor"]["size"] = json!({"longest_edge": 32}),
            "has an unsupported `size`",
        ),
        (
            "config.json",
            |config| config["vision_config"]["use_registers"] = json!(true),
            "config.json` has the unknown key `use_registers` with the value true",
        ),
        (
            "config.json",
            |config| config["quantization_config"] = json!({"bits": 4}),
            "config.json` has `quantization_config` {\"bits\":4}, expected null",
        ),
        (
            "processor_config.json",
            |config| config["image_processor"]["do_pad"] = json!(true),
            "processor_config.json` has the unknown key `do_pad` with the value true",
        ),
        (
            "tokenizer_config.json",
            |config| config["truncation_side"] = json!("middle"),
            "tokenizer_config.json` has `truncation_side` \"middle\", expected left or right",
        ),
    ];
    for (file, edit, problem) in cases {
        let message = ModelCopy::of("new").edit(file, edit).load_error();
        assert!(message.contains(problem), "{message}");
    }
}

#[test]
fn an_invalid_safetensors_file_is_an_error() {
    let copy = ModelCopy::of("new");
    fs::write(copy.path().join("model.safetensors"), b"not tensors").expect("write the file");
    let message = copy.load_error();
    assert!(message.contains("model.safetensors` cannot be used"), "{message}");
}

#[test]
fn a_directory_of_sentence_transformers_has_the_model_in_a_subdirectory() {
    let model = ModelCopy::of("old");
    let modules = json!([{"idx": 0, "name": "0", "path": "0_CLIPModel", "type": "sentence_transformers.models.CLIPModel"}]);
    let outer = tempfile::tempdir().expect("create a temporary directory");
    fs::write(outer.path().join("modules.json"), modules.to_string()).expect("write the file");
    fs::rename(model.path(), outer.path().join("0_CLIPModel")).expect("move the model");
    ModelCopy(outer).check("old");

    let copy = ModelCopy::of("old");
    let modules = json!([{"path": "", "type": "a.CLIPModel"}, {"path": "1_Dense", "type": "a.Dense"}]);
    fs::write(copy.path().join("modules.json"), modules.to_string()).expect("write the file");
    let message = copy.load_error();
    assert!(
        message.contains("has the modules a.CLIPModel, a.Dense, expected only CLIPModel"),
        "{message}"
    );
}
