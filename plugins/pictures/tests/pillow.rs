//! Compares what becomes of damaged files with Pillow: no file that Pillow rejects is accepted, and both decode the same pixels.
//!
//! `INFERENCE_TEST_DAMAGE` is the number of damaged files of each kind, and `INFERENCE_TEST_SEED` selects others.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use image::DynamicImage;
use pictures::{Decoding, Orientation, TruncatedImages};
use plugin_sdk::serde_json;
use serde::Deserialize;

const STRICT: Decoding = Decoding {
    max_pixels: 100_000,
    truncated_images: TruncatedImages::Reject,
    orientation: Orientation::Ignore,
};

/// Maximum mean difference of the samples of an image, in levels. Decoders of JPEG round differently.
const MAX_DIFFERENCE: f64 = 1.0;

/// A file, and what Pillow makes of it.
#[derive(Debug, Deserialize)]
struct Header {
    kind: String,
    /// What was done to the file. `None` if it is not damaged.
    damage: Option<String>,
    length: usize,
    /// Why Pillow rejects it.
    error: Option<String>,
    #[serde(default)]
    channels: usize,
    #[serde(default)]
    width: u32,
    #[serde(default)]
    height: u32,
}

/// Outcomes of the files of one kind.
#[derive(Debug, Default)]
struct Counts {
    both_accept: usize,
    both_reject: usize,
    only_pillow_accepts: usize,
}

/// The Python with Pillow. If there is none, this prints a note and returns `None`, or panics if `INFERENCE_TEST_TOOLS=required` is set.
fn python() -> Option<PathBuf> {
    let named = std::env::var_os("INFERENCE_TEST_PYTHON");
    let python = named.map_or_else(|| PathBuf::from("python3"), PathBuf::from);
    let found = Command::new(&python)
        .args(["-c", "import PIL, numpy"])
        .stderr(Stdio::null())
        .status();
    if found.is_ok_and(|status| status.success()) {
        return Some(python);
    }
    let what = format!("{} has no modules PIL and numpy", python.display());
    let required = std::env::var("INFERENCE_TEST_TOOLS").is_ok_and(|value| value == "required");
    assert!(!required, "{what}, and INFERENCE_TEST_TOOLS=required");
    eprintln!(
        "note: NOT TESTED, since {what}; install them with pip, or name another Python in INFERENCE_TEST_PYTHON"
    );
    None
}

/// A number in the environment.
fn variable(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().expect("a number"))
}

fn read_exactly(reader: &mut impl Read, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    reader
        .read_exact(&mut bytes)
        .expect("the script writes whole files");
    bytes
}

/// The mean absolute difference of the samples. Infinite if the sizes differ.
fn difference(image: &DynamicImage, header: &Header, pixels: &[u8]) -> f64 {
    if (image.width(), image.height()) != (header.width, header.height) {
        return f64::INFINITY;
    }
    let samples = match header.channels {
        3 => image.to_rgb8().into_raw(),
        _ => image.to_rgba8().into_raw(),
    };
    let differences = samples
        .iter()
        .zip(pixels)
        .map(|(one, other)| f64::from(one.abs_diff(*other)));
    differences.sum::<f64>() / pixels.len() as f64
}

#[test]
fn damaged_files_that_pillow_rejects_are_rejected_and_others_have_the_same_pixels() {
    let Some(python) = python() else { return };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pillow.py");
    let (count, seed) = (
        variable("INFERENCE_TEST_DAMAGE", 200),
        variable("INFERENCE_TEST_SEED", 1),
    );
    let mut child = Command::new(python)
        .arg(script)
        .args([count.to_string(), seed.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .expect("start Python");
    let mut reader = BufReader::new(child.stdout.take().expect("it is a pipe"));
    let mut counts: BTreeMap<String, Counts> = BTreeMap::new();
    let mut problems = Vec::new();
    let mut line = String::new();
    while reader.read_line(&mut line).expect("the script writes lines") > 0 {
        let header: Header = serde_json::from_str(&line).expect("the line is JSON");
        line.clear();
        let file = read_exactly(&mut reader, header.length);
        let pixels = read_exactly(
            &mut reader,
            header.channels * (header.width * header.height) as usize,
        );
        let decoded = pictures::decode(&file, &STRICT);
        let counts = counts.entry(header.kind.clone()).or_default();
        match (&decoded, &header.error) {
            (Ok(_), Some(error)) => problems.push(format!("Pillow rejects it ({error}): {header:?}")),
            (Err(_), Some(_)) => counts.both_reject += 1,
            (Err(error), None) if header.damage.is_none() => problems.push(format!("{error}: {header:?}")),
            (Err(_), None) => counts.only_pillow_accepts += 1,
            (Ok(image), None) => {
                counts.both_accept += 1;
                let difference = difference(image, &header, &pixels);
                if difference > MAX_DIFFERENCE {
                    problems.push(format!("differs by {difference}: {header:?}"));
                }
            }
        }
    }
    assert!(child.wait().expect("it ends").success(), "the script failed");
    for (kind, counts) in &counts {
        eprintln!("{kind}: {counts:?}");
    }
    assert!(counts.len() >= 10, "{counts:?}");
    assert!(problems.is_empty(), "{} files: {problems:#?}", problems.len());
}
