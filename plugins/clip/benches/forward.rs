//! Time to preprocess an image, and to compute the vectors of images and texts.
//!
//! ```sh
//! cargo bench -p plugin-clip
//! ```
//! By default, this uses a small model of the tests. `CLIP_BENCH_FOLDER` sets a different model directory, and
//! `CLIP_BENCH_THREADS` the number of threads. `compare.py` uses them to compare with transformers on a model of the size of
//! ViT-B/32.

use std::env;
use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use clip::{Clip, Pixels};
use divan::Bencher;
use divan::counter::ItemsCount;
use image::ImageFormat;
use plugin_sdk::serde_json::{from_value, json};

static MODEL: LazyLock<Clip> = LazyLock::new(|| {
    let folder = env::var_os("CLIP_BENCH_FOLDER").map_or_else(|| tests().join("models/new"), PathBuf::from);
    let threads = env::var("CLIP_BENCH_THREADS").map_or(Ok(1), |threads| threads.parse());
    let threads = threads.expect("CLIP_BENCH_THREADS is a number");
    let settings = from_value(json!({"folder": folder})).expect("valid settings");
    Clip::open(settings, Path::new(""), 1, threads).unwrap_or_else(|error| panic!("{error}"))
});

fn main() {
    // Loads the model before the first measurement.
    LazyLock::force(&MODEL);
    divan::main();
}

fn tests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

/// Returns an image of 640×480 pixels.
fn png() -> Vec<u8> {
    fs::read(tests().join("images/large.png")).expect("read the image")
}

#[divan::bench]
fn read_a_png(bencher: Bencher<'_, '_>) {
    let file = png();
    bencher.bench(|| MODEL.pixels(&file).expect("a valid image"));
}

#[divan::bench]
fn read_a_jpeg(bencher: Bencher<'_, '_>) {
    let image = image::load_from_memory(&png()).expect("a valid image");
    let mut file = Cursor::new(Vec::new());
    image
        .write_to(&mut file, ImageFormat::Jpeg)
        .expect("encode a JPEG");
    let file = file.into_inner();
    bencher.bench(|| MODEL.pixels(&file).expect("a valid image"));
}

#[divan::bench(args = [1, 2, 8, 32])]
fn images(bencher: Bencher<'_, '_>, batch: usize) {
    let pixels = MODEL.pixels(&png()).expect("a valid image");
    let batch: Vec<&Pixels> = vec![&pixels; batch];
    bencher
        .counter(ItemsCount::new(batch.len()))
        .bench(|| MODEL.image_vectors(&batch));
}

/// Texts of 10 tokens, which is about the length of a label.
#[divan::bench(args = [1, 8, 32])]
fn texts(bencher: Bencher<'_, '_>, batch: usize) {
    let batch = vec![(1..11).collect::<Vec<u32>>(); batch];
    bencher
        .counter(ItemsCount::new(batch.len()))
        .bench(|| MODEL.text_vectors(&batch));
}
