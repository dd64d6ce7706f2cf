//! Folders that say the same in other words, and folders that are not understood.

#[allow(dead_code, reason = "every test file uses a part of it")]
mod common;

use std::fs;
use std::path::Path;

use common::{assert_close, load, models, numbers, plain, reference, vector};
use plugin_sdk::serde_json::{self, Value as Json, json};
use plugin_sdk::testing::Failure;
use tempfile::TempDir;

/// A copy of a small model.
struct Copy(TempDir);

impl Copy {
    fn of(folder: &str) -> Self {
        let copy = tempfile::tempdir().expect("there is room for a temporary folder");
        for entry in fs::read_dir(models().join(folder)).expect("the folder can be read") {
            let file = entry.expect("the folder can be read").path();
            let name = file.file_name().expect("an entry has a name");
            fs::copy(&file, copy.path().join(name)).expect("a file can be copied");
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
            serde_json::from_slice(&fs::read(&file).expect("the file is there")).expect("it is JSON");
        edit(&mut content);
        fs::write(file, content.to_string()).expect("the copy can be written");
        self
    }

    /// Takes a file away.
    fn without(self, name: &str) -> Self {
        fs::remove_file(self.path().join(name)).expect("the file is there");
        self
    }

    /// Why it is refused; the setting `folder` is to file_error.
    fn load_error(&self) -> String {
        let failure = load(json!({"folder": self.path()})).expect_err("it is refused");
        assert_eq!(failure.key, "folder", "{failure}");
        failure.message
    }

    /// Asserts that the texts and an image have the vectors of that folder.
    fn check(&self, folder: &str) {
        let reference = reference();
        let model = load(json!({"folder": self.path(), "normalize": false})).expect("the model loads");
        let expected = &reference["expected"][folder];
        let texts = reference["texts"].as_array().expect("it is a list");
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
fn the_preparation_of_images_may_have_a_file_of_its_own() {
    let copy = Copy::of("new");
    let processor = fs::read(copy.path().join("processor_config.json")).expect("the file is there");
    let mut processor: Json = serde_json::from_slice(&processor).expect("it is JSON");
    let image = &mut processor["image_processor"];
    // Some folders name the class in the words of two versions.
    image["feature_extractor_type"] = json!("CLIPFeatureExtractor");
    let file = copy.path().join("preprocessor_config.json");
    fs::write(file, image.to_string()).expect("the copy can be written");
    copy.edit("processor_config.json", |config| {
        *config = json!({"processor_class": "CLIPProcessor"})
    })
    .check("new");
}

#[test]
fn an_image_may_be_given_its_size_without_being_cropped() {
    let square = Copy::of("new").edit("processor_config.json", |config| {
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
        "a landscape is squeezed instead of cropped"
    );
}

#[test]
fn what_is_left_out_of_the_configuration_is_as_in_transformers() {
    let copy = Copy::of("new").edit("config.json", |config| {
        for section in ["text_config", "vision_config"] {
            let section = config[section].as_object_mut().expect("it is an object");
            section.remove("hidden_act");
            section.remove("layer_norm_eps");
            section.remove("projection_dim");
        }
        config["vision_config"]
            .as_object_mut()
            .expect("it is an object")
            .remove("num_channels");
    });
    copy.edit("processor_config.json", |config| {
        let config = config["image_processor"]
            .as_object_mut()
            .expect("it is an object");
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
    let load_error = Copy::of("new")
        .edit("config.json", |config| config["text_config"] = Json::Null)
        .load_error();
    assert!(
        load_error.contains("expected [77, 512]") || load_error.contains("512]"),
        "{load_error}"
    );
}

#[test]
fn an_old_folder_may_have_a_tokenizer_of_the_new_kind() {
    let copy = Copy::of("old").without("vocab.json").without("merges.txt");
    fs::copy(
        models().join("new/tokenizer.json"),
        copy.path().join("tokenizer.json"),
    )
    .expect("a file can be copied");
    copy.check("old");
}

fn refused(settings: Json) -> Failure {
    load(settings).expect_err("it does not load")
}

#[test]
fn what_is_wrong_with_a_setting_is_blamed_on_it() {
    let failure = refused(json!({"folder": "absent"}));
    assert_eq!(failure.key, "folder");
    assert!(failure.message.ends_with("/absent` is not a folder"), "{failure}");
    let failure = refused(json!({"folder": "new", "template": "a photo"}));
    assert_eq!(failure.key, "template");
    let failure = refused(json!({"folder": "new", "threads": 5000}));
    assert_eq!(
        (&*failure.key, &*failure.message),
        ("threads", "5000, expected at most 1024")
    );
}

#[test]
fn files_that_are_missing_are_named() {
    for (folder, file, problem) in [
        ("new", "config.json", "config.json` does not exist"),
        (
            "new",
            "model.safetensors",
            "model.safetensors` does not exist; a folder with weights of another kind",
        ),
        (
            "new",
            "processor_config.json",
            "nor does `processor_config.json` say how images are prepared",
        ),
        (
            "new",
            "tokenizer.json",
            "tokenizer.json` cannot be used: No such file",
        ),
        ("old", "merges.txt", "merges.txt` cannot be read: No such file"),
    ] {
        let message = Copy::of(folder).without(file).load_error();
        assert!(message.contains(problem), "{message}");
    }
}

#[test]
fn what_is_not_understood_is_refused_by_its_name() {
    type Edit = fn(&mut Json);
    let cases: [(&str, Edit, &str); 12] = [
        (
            "config.json",
            |config| config["model_type"] = json!("siglip"),
            "names the model type `siglip`, expected clip",
        ),
        (
            "config.json",
            |config| config["text_config"]["hidden_act"] = json!("swish"),
            "has the activation `swish`",
        ),
        (
            "config.json",
            |config| config["text_config"]["num_attention_heads"] = json!(3),
            "among 3 heads in `text_config`",
        ),
        (
            "config.json",
            |config| config["vision_config"]["num_hidden_layers"] = json!(3),
            "has no tensor `vision_model.encoder.layers.2.",
        ),
        (
            "config.json",
            |config| config["vision_config"]["num_channels"] = json!(1),
            "has images of 1 channels, expected 3",
        ),
        (
            "config.json",
            |config| config["vision_config"]["patch_size"] = json!(0),
            "into patches of 0×0",
        ),
        (
            "config.json",
            |config| config["vision_config"]["image_size"] = json!(64),
            "makes images of 32×32, expected 64×64",
        ),
        (
            "config.json",
            |config| config["projection_dim"] = json!(11),
            "has the shape [10, 16], expected [11, 16]",
        ),
        (
            "processor_config.json",
            |config| config["image_processor"]["resample"] = json!(2),
            "has `resample` 2, expected 3, which is bicubic",
        ),
        (
            "processor_config.json",
            |config| config["image_processor"]["do_normalize"] = json!(false),
            "has `do_normalize` false",
        ),
        (
            "processor_config.json",
            |config| config["image_processor"]["image_processor_type"] = json!("ViTImageProcessor"),
            "names the image processor `ViTImageProcessor`",
        ),
        (
            "processor_config.json",
            |config| config["image_processor"]["size"] = json!({"longest_edge": 32}),
            "has a `size` that is not understood",
        ),
    ];
    for (file, edit, problem) in cases {
        let message = Copy::of("new").edit(file, edit).load_error();
        assert!(message.contains(problem), "{message}");
    }
}

#[test]
fn a_file_that_is_no_safetensors_is_refused() {
    let copy = Copy::of("new");
    fs::write(copy.path().join("model.safetensors"), b"not tensors").expect("the copy can be written");
    let message = copy.load_error();
    assert!(message.contains("model.safetensors` cannot be used"), "{message}");
}
