//! Compares MiniLM in torch with sentence-transformers.
//!
//! Not part of continuous integration, because torch is large. `INFERENCE_TEST_TORCH` names a Python with torch, transformers and
//! sentence-transformers, and `INFERENCE_TEST_MINILM` the directory of all-MiniLM-L6-v2.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value as Json, json};

use super::config;
use crate::harness::Scenario;
use crate::harness::eventually::eventually_within;
use crate::harness::plugins::repository;

const TOLERANCE: f64 = 1e-6;

/// Timeout for loading torch, which can take long if its files are not cached.
const LOADING: Duration = Duration::from_secs(240);

const REFERENCE: &str = "
import json, sys
from sentence_transformers import SentenceTransformer
texts = json.loads(sys.argv[2])
print(json.dumps(SentenceTransformer(sys.argv[1], device='cpu').encode(texts).tolist()))
";

#[test]
fn minilm_in_torch_matches_sentence_transformers() {
    let named = |name| std::env::var_os(name).map(PathBuf::from);
    let (Some(python), Some(folder)) = (named("INFERENCE_TEST_TORCH"), named("INFERENCE_TEST_MINILM")) else {
        eprintln!(
            "note: NOT TESTED with torch, since INFERENCE_TEST_TORCH and INFERENCE_TEST_MINILM are not set"
        );
        return;
    };
    let texts: Vec<String> = (0..40)
        .map(|index| format!("Sentence {index} {}", "has some more words ".repeat(index % 13)))
        .collect();
    let class = repository().join("plugins/python/examples/minilm.py:MiniLM");
    let settings = format!("settings = {{ folder = \"{}\" }}\n", folder.display());
    let config = config(&python, &class.display().to_string(), "workers = 2");
    let server = Scenario::new(&format!("{config}{settings}")).start_unready();
    eventually_within(LOADING, "torch to be loaded", || match server.get("/readyz") {
        reply if reply.status == 200 => Ok(()),
        reply => Err(reply.text()),
    });
    let reply = server.predict("m", "embed", &json!(texts));
    let output = Command::new(&python)
        .args(["-c", REFERENCE])
        .arg(&folder)
        .arg(json!(texts).to_string())
        .output()
        .expect("the Python runs");
    let reference: Vec<Vec<f64>> = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    let mut worst = 0.0_f64;
    for (output, expected) in reply.expect(200).outputs().iter().zip(&reference) {
        let numbers = output["output"].as_array().expect("a vector");
        assert_eq!(numbers.len(), expected.len());
        for (got, expected) in numbers.iter().map(Json::as_f64).zip(expected) {
            worst = worst.max((got.expect("a number") - expected).abs());
        }
    }
    eprintln!("largest difference: {worst:e}");
    assert!(worst <= TOLERANCE, "{worst} is more than {TOLERANCE}");
    server.shut_down();
}
