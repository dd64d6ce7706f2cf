//! Compares the preprocessing of images and texts with transformers, bit by bit. `tests/reference/make.py` generates the
//! references.

use std::fs;
use std::path::{Path, PathBuf};

use image::DynamicImage;
use pictures::{Decoding, Orientation, TruncatedImages};
use plugin_sdk::serde_json::{self, Value as Json, json};

use crate::image_reader::{ImageReader, Pixels, Target, on_white};
use crate::model_spec::ModelSpec;

fn tests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

fn file(name: &str) -> Vec<u8> {
    fs::read(tests().join(name)).expect("read a test file")
}

fn reference() -> Json {
    serde_json::from_slice(&file("reference/reference.json")).expect("valid JSON")
}

fn names(value: &Json) -> Vec<&str> {
    let names = value.as_array().expect("a list");
    names.iter().map(|name| name.as_str().expect("a name")).collect()
}

fn image_reader(side: usize) -> ImageReader {
    ImageReader {
        target: Target::ShortestEdge(side),
        side,
        decoding: Decoding {
            max_pixels: 1_000_000,
            truncated_images: TruncatedImages::Reject,
            orientation: Orientation::Ignore,
        },
    }
}

/// Reads images that are arranged one below the other in a file.
fn sheet(name: &str, side: usize) -> Vec<Pixels> {
    let sheet = image::load_from_memory(&file(name)).expect("a valid PNG");
    let pixels = sheet.into_rgb8().into_raw();
    pixels
        .chunks_exact(side * side * 3)
        .map(|image| Pixels(image.to_vec()))
        .collect()
}

fn spec(folder: &str) -> ModelSpec {
    let settings = serde_json::from_value(json!({"folder": folder})).expect("valid settings");
    ModelSpec::read(&tests().join("models").join(folder), &settings).unwrap_or_else(|error| panic!("{error}"))
}

/// Returns the maximum difference of the pixels of an image from the expected ones, in levels.
fn difference(name: &str, side: usize, expected: &Pixels) -> u8 {
    let pixels = image_reader(side).read(&file(&format!("images/{name}")));
    let Pixels(pixels) = pixels.unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(pixels.len(), expected.0.len(), "{name}");
    let differences = pixels
        .iter()
        .zip(&expected.0)
        .map(|(one, other)| one.abs_diff(*other));
    differences.max().expect("at least one pixel")
}

#[test]
fn pixels_of_png_and_lossless_webp_match_transformers() {
    let reference = reference();
    let (names, sheet) = (names(&reference["exact"]), sheet("reference/pixels.png", 32));
    assert_eq!(names.len(), sheet.len());
    for (name, expected) in names.iter().zip(&sheet) {
        assert_eq!(difference(name, 32, expected), 0, "{name}");
    }
}

#[test]
fn pixels_of_full_size_match_transformers() {
    let expected = sheet("reference/large_224.png", 224);
    assert_eq!(difference("large.png", 224, &expected[0]), 0);
}

#[test]
fn pixels_of_lossy_formats_are_close() {
    let reference = reference();
    let (names, sheet) = (names(&reference["close"]), sheet("reference/close.png", 32));
    for (name, expected) in names.iter().zip(&sheet) {
        let difference = difference(name, 32, expected);
        assert!(difference <= 3, "{name}: {difference} levels");
    }
}

#[test]
fn blending_with_white_matches_pillow_for_every_level_and_alpha() {
    let expected = image::load_from_memory(&file("reference/on_white.png"));
    let Ok(DynamicImage::ImageLuma8(expected)) = expected else {
        panic!("expected a gray PNG");
    };
    for (level, alpha, pixel) in expected.enumerate_pixels() {
        assert_eq!(
            on_white([level as u8; 3], alpha as u8),
            [pixel.0[0]; 3],
            "{level}, {alpha}"
        );
    }
}

#[test]
fn normalization_matches_numpy_for_every_level_and_channel() {
    let reference = reference();
    for folder in ["new", "old"] {
        let levels = spec(folder).network.vision.levels;
        for (channel, levels) in levels.iter().enumerate() {
            for (level, got) in levels.iter().enumerate() {
                let expected = reference["levels"][channel][level].as_f64().expect("a number");
                assert_eq!(
                    *got, expected as f32,
                    "{folder}: channel {channel}, level {level}"
                );
            }
        }
    }
}

#[test]
fn tokens_match_transformers() {
    let reference = reference();
    for folder in ["new", "old"] {
        let tokenizer = spec(folder).tokenizer;
        for (index, text) in names(&reference["texts"]).iter().enumerate() {
            let tokens = tokenizer.text(text).expect("valid text");
            assert_eq!(
                json!(tokens.ids),
                reference["expected"][folder]["ids"][index],
                "{folder}: {text}"
            );
        }
    }
}
