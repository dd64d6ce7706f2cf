//! Memory budgets hold under a mix of requests that is hostile to them: the short form of `tests/hostile_mix/mix.py`, which explains
//! it. And the graph of its long form computes the vectors of the plugin `sentence_embeddings`, in any batch.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::harness::plugins::{self, library, repository};
use crate::harness::vectors::{assert_close, list, reference};
use crate::harness::{Scenario, tools};

/// The Python of the tests, if it has these modules.
fn python(modules: &str) -> Option<PathBuf> {
    let python = tools::find("INFERENCE_TEST_PYTHON", &["python3"], "tests/install")?;
    let has_modules = Command::new(&python)
        .args(["-c", &format!("import {modules}")])
        .output()
        .is_ok_and(|output| output.status.success());
    if !has_modules {
        let what = format!("{} does not have the modules {modules}", python.display());
        tools::absent(&what, "INFERENCE_TEST_PYTHON", "tests/install");
    }
    has_modules.then_some(python)
}

#[test]
fn a_budget_holds_for_a_hostile_mix() {
    let Some(python) = tools::find("INFERENCE_TEST_PYTHON", &["python3"], "apt-get install python3") else {
        return;
    };
    library("misbehave");
    let output = tools::run(
        Command::new(python)
            .arg(repository().join("tests/hostile_mix/mix.py"))
            .arg("short")
            .arg("--executable")
            .arg(plugins::executable())
            .arg("--plugin-dir")
            .arg(plugins::directory()),
    );
    eprintln!("{output}");
    assert!(output.contains("memory_budget"), "{output}");
}

/// Builds the graph of a model of sentence-transformers.
fn build(python: &Path, model: &Path, graph: &Path) {
    tools::run(
        Command::new(python)
            .arg(repository().join("tests/hostile_mix/bert_onnx.py"))
            .args([model, graph]),
    );
}

/// Tables of a model `name` of the plugin `onnx`.
fn padded(name: &str, graph: &Path, model: &Path, prefix: &str, runtime: &str) -> String {
    format!(
        "[[models]]\nname = \"{name}\"\nplugin = \"onnx\"\n[models.settings]\nmodel = \"{}\"\n{runtime}\n\
         [models.settings.tasks.passage]\npad = {{ input_ids = 0, attention_mask = 0 }}\nembedding = {{}}\n\
         tokenizer = {{ file = \"{}\", max_length = 64, prefix = \"{prefix}\" }}\n\n",
        graph.display(),
        model.join("tokenizer.json").display(),
    )
}

#[test]
fn padded_graphs_compute_the_vectors_of_sentence_transformers_in_both_runtimes() {
    let Some(python) = python("numpy, onnx, onnxruntime") else {
        return;
    };
    for plugin in ["onnx", "sentence_embeddings"] {
        library(plugin);
    }
    let reference = reference("plugins/sentence-embeddings/tests/reference/small.json");
    let texts = list(&reference["texts"]);
    for (name, prefix) in [("bge", ""), ("e5", "passage: ")] {
        let model = repository()
            .join("plugins/sentence-embeddings/tests/models")
            .join(name);
        let scenario = Scenario::new("");
        let graph = scenario.dir().join("model.onnx");
        build(&python, &model, &graph);
        let prefix_of_python =
            tools::run(Command::new(&python).args(["-c", "import sys; print(sys.prefix)"]));
        let ort = format!(
            "runtime = \"ort\"\nort = {{ python = \"{}\" }}",
            prefix_of_python.trim()
        );
        let server = Scenario::new(&format!(
            "{}{}",
            padded("rten", &graph, &model, prefix, "runtime = \"rten\""),
            padded("ort", &graph, &model, prefix, &ort)
        ))
        .start();
        for runtime in ["rten", "ort"] {
            let outputs = server
                .predict(runtime, "passage", &json!(texts))
                .expect(200)
                .outputs();
            let expected = list(&reference["expected"][name]["passage"]);
            assert_eq!(outputs.len(), expected.len());
            for (index, (output, expected)) in outputs.iter().zip(expected).enumerate() {
                let what = format!("{name} in {runtime}, text {index}");
                assert_close(&output["embedding"], expected, &what);
            }
        }
    }
}
