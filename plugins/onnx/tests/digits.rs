//! The digits model as served by the default configuration, compared with the results of ONNX Runtime.

#[allow(dead_code, reason = "every test file uses a part of it")]
mod common;

use std::fs;
use std::io::Cursor;

use common::{assert_close, bytes_item, config_dir, numbers, read_json};
use onnx::Onnx;
use plugin_sdk::serde_json::{Value as Json, json};
use plugin_sdk::testing::{FailureKind, Harness};

/// The model `digits` with the settings of `config/models.toml`.
fn digits() -> Harness<Onnx> {
    let text =
        fs::read_to_string(config_dir().join("models.toml")).expect("the repository has a configuration");
    let config: Json = toml::from_str(&text).expect("it is TOML");
    let models = config["models"].as_array().expect("it lists models");
    let model = models
        .iter()
        .find(|model| model["name"] == "digits")
        .expect("one of them reads digits");
    Harness::load_with(model["settings"].clone(), config_dir(), 1, 2)
        .expect("the default configuration loads")
}

fn expected(list: &str) -> Vec<Json> {
    let file = read_json(config_dir().join("digits/samples/expected.json"));
    file[list].as_array().expect("it is a list").clone()
}

fn sample(file: &str) -> Vec<u8> {
    fs::read(config_dir().join("digits/samples").join(file)).expect("the sample is part of the repository")
}

/// The probabilities in the order of the digits.
fn probabilities(outcome: &Json) -> Vec<f64> {
    let scores = outcome["scores"]
        .as_array()
        .expect("a classification lists scores");
    let of = |digit: usize| {
        let digit = digit.to_string();
        let found = scores.iter().find(|score| score["label"] == *digit);
        found
            .and_then(|score| score["score"].as_f64())
            .expect("every digit has a score")
    };
    (0..10).map(of).collect()
}

#[test]
fn the_examples_of_the_default_configuration_run() {
    digits().check_examples();
}

#[test]
fn known_vectors_give_the_known_numbers_alone_and_in_a_batch() {
    let digits = digits();
    let vectors = expected("vectors");
    let items: Vec<_> = vectors.iter().map(|vector| vector["pixels"].clone()).collect();
    for task in ["classify", "embed"] {
        let batched = digits.predict(task, &items);
        for ((vector, item), batched) in vectors.iter().zip(&items).zip(batched) {
            let alone = digits.predict(task, std::slice::from_ref(item)).remove(0);
            for outcome in [alone, batched] {
                let outcome = outcome.expect("a known vector is computed");
                if task == "classify" {
                    assert_eq!(outcome["label"], vector["label"].to_string());
                    let wanted = numbers(&vector["probabilities"]);
                    assert_close(&probabilities(&outcome), &wanted, 1e-4, "probabilities");
                } else {
                    assert_close(
                        &numbers(&outcome["embedding"]),
                        &numbers(&vector["embedding"]),
                        1e-4,
                        "embedding",
                    );
                }
            }
        }
    }
}

#[test]
fn images_of_every_size_and_polarity_are_read() {
    let digits = digits();
    let images = expected("images");
    let items: Vec<_> = images
        .iter()
        .map(|image| bytes_item(&sample(image["file"].as_str().expect("a name")), "image/png"))
        .collect();
    for (image, outcome) in images.iter().zip(digits.predict("classify", &items)) {
        let outcome = outcome.expect("a sample is read");
        let file = image["file"].to_string();
        assert_eq!(outcome["label"], image["label"].to_string(), "{file}");
        assert_eq!(outcome["label"], outcome["scores"][0]["label"], "{file}");
        assert_close(
            &probabilities(&outcome),
            &numbers(&image["image_probabilities"]),
            1e-2,
            &file,
        );
    }
    for (image, outcome) in images.iter().zip(digits.predict("embed", &items)) {
        let embedding = numbers(&outcome.expect("a sample is read")["embedding"]);
        assert_eq!(embedding.len(), numbers(&image["embedding"]).len());
    }
}

#[test]
fn a_jpeg_is_read_as_well() {
    let picture = image::load_from_memory(&sample("digit-3-128x128.png")).expect("the sample is an image");
    let mut jpeg = Cursor::new(Vec::new());
    picture
        .write_to(&mut jpeg, image::ImageFormat::Jpeg)
        .expect("a JPEG can be written");
    let outcome = digits()
        .predict("classify", &[bytes_item(jpeg.get_ref(), "image/jpeg")])
        .remove(0);
    assert_eq!(outcome.expect("a JPEG is read")["label"], "3");
}

#[test]
fn a_drawing_on_a_transparent_ground_is_seen_on_white() {
    let grey = image::load_from_memory(&sample("digit-7-8x8.png"))
        .expect("the sample is an image")
        .into_luma8();
    // Black ink with the brightness of the sample as its opacity.
    let drawing = image::RgbaImage::from_fn(8, 8, |x, y| image::Rgba([0, 0, 0, grey.get_pixel(x, y).0[0]]));
    let mut png = Cursor::new(Vec::new());
    drawing
        .write_to(&mut png, image::ImageFormat::Png)
        .expect("a PNG can be written");
    let items = [
        bytes_item(png.get_ref(), "image/png"),
        bytes_item(&sample("digit-7-8x8.png"), "image/png"),
    ];
    let outcomes = digits().predict("classify", &items);
    let [drawn, original] = [0, 1].map(|index| outcomes[index].clone().expect("an image is read"));
    assert_eq!(drawn["label"], "7");
    assert_close(
        &probabilities(&drawn),
        &probabilities(&original),
        1e-4,
        "the same drawing",
    );
}

#[test]
fn one_bad_item_fails_alone() {
    let vector = &expected("vectors")[7];
    let cut = &sample("digit-3-128x128.png")[..100];
    for (bad, message) in [
        (
            bytes_item(b"not an image", "image/png"),
            "image is in an unknown format, expected PNG, JPEG or WebP",
        ),
        (
            bytes_item(b"GIF89a\x08\x00\x08\x00", "image/png"),
            "image is in an unknown format, expected PNG, JPEG or WebP",
        ),
        (bytes_item(cut, "image/png"), "cannot decode the image: "),
        (json!(vec![0.0; 63]), "got shape [63], expected [64]"),
        (json!({"pixels": ["a"]}), "pixels"),
    ] {
        let items = [vector["pixels"].clone(), bad, vector["pixels"].clone()];
        let mut outcomes = digits().predict("classify", &items);
        let failure = outcomes.remove(1).expect_err("the item is bad");
        assert_eq!(failure.kind, FailureKind::InvalidInput);
        assert!(failure.message.contains(message), "{failure}");
        for outcome in outcomes {
            assert_eq!(
                outcome.expect("the others are computed")["label"],
                vector["label"].to_string()
            );
        }
    }
}

#[test]
fn the_manifest_says_what_the_tasks_take_and_answer() {
    let digits = digits();
    let manifest = digits.manifest();
    let names: Vec<_> = manifest.tasks.iter().map(|task| &*task.name).collect();
    assert_eq!(
        (&*manifest.platform, &names[..]),
        ("onnx", &["classify", "embed"][..])
    );
    for task in &manifest.tasks {
        assert_eq!(task.input.media_types, ["image/png", "image/jpeg", "image/webp"]);
        let pixels = &task.input.tensors[0];
        assert_eq!(
            (&*pixels.name, &*pixels.dtype, &pixels.shape[..]),
            ("pixels", "FP32", &[64][..])
        );
    }
    assert_eq!(manifest.tasks[1].output.tensors[0].shape, [64]);
    assert_eq!(
        manifest.tasks[0].output.schema["properties"]["label"]["type"],
        "string"
    );
}
