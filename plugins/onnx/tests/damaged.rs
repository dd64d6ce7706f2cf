//! Damaged files are errors of the model and never terminate the process.

#[allow(dead_code, reason = "every test file uses a part of it")]
mod common;

use std::fs;
use std::path::Path;

use common::load;
use plugin_sdk::testing::Failure;

const NETWORKS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/kinds");

/// Loads a file with these bytes. Its name contains the process ID because the tests may run in several processes at once.
fn loaded(name: &str, bytes: &[u8]) -> Result<(), Failure> {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let file = format!("damaged-{name}-{}.onnx", std::process::id());
    fs::write(directory.join(&file), bytes).expect("a file");
    let settings = format!("model = \"{file}\"\nruntime = \"rten\"");
    let loaded = load(&settings, directory).map(drop);
    fs::remove_file(directory.join(&file)).expect("the file");
    loaded
}

fn networks() -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(NETWORKS).expect("the networks");
    let mut networks: Vec<_> = entries
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "onnx"))
        .map(|path| {
            let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
            (name, fs::read(path).expect("a network"))
        })
        .collect();
    networks.sort();
    networks
}

/// A deterministic pseudorandom number generator.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }
}

#[test]
fn a_truncated_file_is_an_error_of_the_model() {
    let mut numbers = Numbers(1);
    for (name, bytes) in networks() {
        for _ in 0..12 {
            let length = numbers.below(bytes.len() - 64);
            let failure = loaded(&name, &bytes[..length]).expect_err("half a file");
            assert!(
                failure.to_string().contains("is not an ONNX file"),
                "{name}: {failure}"
            );
        }
    }
}

#[test]
fn changed_bytes_never_end_the_process() {
    let rounds = std::env::var("INFERENCE_TEST_DAMAGE").ok();
    let rounds = rounds.map_or(25, |rounds| rounds.parse().expect("a number"));
    let mut numbers = Numbers(2);
    let (mut accepted, mut rejected) = (0, 0);
    for (name, bytes) in networks() {
        for _ in 0..rounds {
            let mut bytes = bytes.clone();
            // Most of a file's structure is at its start and its end; the weights are in between.
            for _ in 0..=numbers.below(3) {
                let index = match numbers.below(3) {
                    0 => numbers.below(bytes.len().min(2000)),
                    1 => bytes.len() - 1 - numbers.below(bytes.len().min(2000)),
                    _ => numbers.below(bytes.len()),
                };
                bytes[index] = match numbers.below(3) {
                    0 => 0xff,
                    1 => bytes[index] ^ (1 << numbers.below(8)),
                    _ => numbers.below(256) as u8,
                };
            }
            match loaded(&name, &bytes) {
                Ok(()) => accepted += 1,
                Err(_) => rejected += 1,
            }
        }
    }
    // The file consists mainly of weights, in which every byte value is valid.
    assert!(
        accepted > 0 && rejected > 0,
        "{accepted} accepted, {rejected} rejected"
    );
}
