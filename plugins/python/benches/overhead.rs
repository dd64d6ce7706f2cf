//! Overhead of a batch compared with a direct call of a method: 32 items of each kind, with methods that do nothing.
//!
//! `INFERENCE_TEST_PYTHON` names the Python, which needs numpy. Runs in this process, without the server. The server's benchmark
//! `isolation` measures the overhead of worker processes.

use std::env;
use std::path::Path;

use divan::Bencher;
use plugin_sdk::serde_json::json;
use plugin_sdk::testing::Harness;
use python::Python;

const ITEMS: usize = 32;
const FLOATS: usize = 384;

fn main() {
    divan::main();
}

fn load() -> Harness<Python> {
    let python = env::var("INFERENCE_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let class = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/nothing.py");
    let settings = json!({"class": format!("{}:Nothing", class.display()), "python": python});
    match Harness::<Python>::load_behind(settings) {
        Ok(model) => model,
        Err(failure) => panic!("{failure}"),
    }
}

/// Batches of 32 small documents, texts, or tensors of 1.5 KB.
#[divan::bench(args = ["text", "json", "dataclass", "tensor", "tensors_in_one"])]
fn batch(bencher: Bencher<'_, '_>, task: &str) {
    let model = load();
    let item = match task {
        "text" => json!("a short text of some words"),
        "json" | "dataclass" => json!({"name": "a short text", "size": 3, "ratio": 0.5}),
        _ => json!({"input": vec![0.0; FLOATS]}),
    };
    model.repeat(task, &vec![item; ITEMS], |run| bencher.bench_local(run));
}
