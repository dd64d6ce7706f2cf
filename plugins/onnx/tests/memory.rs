//! Sizes that exceed the memory of the machine are errors of the model or of the item, in both runtimes.

#[allow(dead_code, reason = "every test file uses a part of it")]
mod common;

use std::path::Path;

use common::graph::{Graph, node, value};
use common::{load, onnx_runtime};
use onnx::Onnx;
use plugin_sdk::serde_json::{Value as Json, json};
use plugin_sdk::testing::Harness;
use rten_onnx::onnx::DataType;

const MODELS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/models");

/// Loads a model in every runtime that is installed.
fn served(name: &str) -> Vec<Harness<Onnx>> {
    let runtimes = ["runtime = \"rten\"".to_owned()]
        .into_iter()
        .chain(onnx_runtime());
    let served = runtimes.map(|runtime| {
        let settings = format!("model = \"{name}.onnx\"\n{runtime}");
        load(&settings, MODELS).unwrap_or_else(|failure| panic!("{runtime}: {failure}"))
    });
    served.collect()
}

fn outcome(model: &Harness<Onnx>, item: Json) -> Result<Json, String> {
    let outcome = model.predict("predict", &[item]).remove(0);
    outcome.map_err(|failure| failure.message)
}

#[track_caller]
fn assert_too_large(outcome: Result<Json, String>, node: &str) {
    let message = outcome.expect_err("no machine has so much memory");
    assert!(
        message.contains("is too large for the memory that is available"),
        "{message}"
    );
    assert!(message.contains(node), "{message}");
}

#[test]
fn a_size_that_a_number_of_the_client_determines_is_checked_before_the_run() {
    for model in served("zeros") {
        let huge = outcome(&model, json!({"shape": [100_000, 100_000, 100_000]}));
        assert_too_large(huge, "4000000.0 GB (ConstantOfShape node that computes `zeros`)");
        assert_eq!(
            outcome(&model, json!({"shape": [2, 3, 4]})),
            Ok(json!({"y": 0.0}))
        );
    }
}

#[test]
fn a_size_that_a_dimension_of_the_client_determines_is_checked_before_the_run() {
    for model in served("every_pair") {
        let huge = outcome(&model, json!({"x": vec![0.0; 1_000_000]}));
        assert_too_large(huge, "4000.0 GB (MatMul node that computes `pairs`)");
        // Smaller items are still computed, even if they are larger than those of the trial.
        for length in [3, 1000] {
            let mut values = vec![1.0; length];
            values[1] = -3.0;
            assert_eq!(outcome(&model, json!({"x": values})), Ok(json!({"y": 9.0})));
        }
    }
}

#[test]
fn an_item_that_is_too_large_does_not_fail_the_others_of_its_batch() {
    for model in served("zeros") {
        let items = [
            json!({"shape": [100_000, 100_000, 100_000]}),
            json!({"shape": [1, 1, 1]}),
        ];
        let outcomes = model.predict("predict", &items);
        assert!(outcomes[0].is_err());
        assert_eq!(outcomes[1].as_ref().ok(), Some(&json!({"y": 0.0})));
    }
}

#[test]
fn a_size_that_cannot_be_found_out_is_left_to_the_runtime_that_survives_it() {
    let embedded = load("model = \"computed_zeros.onnx\"\nruntime = \"rten\"", MODELS);
    let message = embedded.expect_err("an unknown size").to_string();
    assert!(
        message.contains("(ConstantOfShape node that computes `zeros`)"),
        "{message}"
    );
    assert!(message.contains("expected `runtime = \"ort\"`"), "{message}");

    let Some(runtime) = onnx_runtime() else { return };
    let model = load(&format!("model = \"computed_zeros.onnx\"\n{runtime}"), MODELS).expect("a model");
    // e^34.6 is about 10^15.
    let message = outcome(&model, json!({"x": [34.6]})).expect_err("no machine has so much memory");
    assert!(
        message.contains("the model cannot compute this item"),
        "{message}"
    );
    assert_eq!(outcome(&model, json!({"x": [2.0]})), Ok(json!({"y": 0.0})));
}

#[test]
fn a_size_that_follows_from_a_fraction_in_the_request_is_left_to_that_runtime_as_well() {
    let message = load("model = \"rescaled.onnx\"\nruntime = \"rten\"", MODELS)
        .expect_err("an unknown size")
        .to_string();
    assert!(
        message.contains("(Resize node that computes `smaller`)"),
        "{message}"
    );

    let Some(runtime) = onnx_runtime() else { return };
    let model = load(&format!("model = \"rescaled.onnx\"\n{runtime}"), MODELS).expect("a model");
    let item =
        json!({"image": [[[[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]]]], "scales": [1.0, 1.0, 0.5, 0.5]});
    let answer = outcome(&model, item).expect("a smaller image");
    assert_eq!(answer["smaller"], json!([[[[1.0, 3.0]]]]));
}

#[test]
fn tensors_that_are_too_large_together_are_an_error_of_the_item() {
    const COPIES: usize = 12;
    let names: Vec<_> = (0..COPIES).map(|index| format!("copy{index}")).collect();
    let mut nodes: Vec<_> = names
        .iter()
        .map(|name| node("Add", &["column", "row"], name, &[]))
        .collect();
    let copies: Vec<_> = names.iter().map(String::as_str).collect();
    nodes.extend([
        node("Sum", &copies, "sum", &[]),
        node("ReduceMax", &["sum"], "y", &[]),
    ]);
    let graph = Graph {
        opset: 17,
        inputs: vec![
            value("column", DataType::FLOAT, &[-1, 1]),
            value("row", DataType::FLOAT, &[1, -1]),
        ],
        constants: Vec::new(),
        nodes,
        output: ("y", DataType::FLOAT),
        output_dims: None,
    };
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let file = format!("together-{}.onnx", std::process::id());
    std::fs::write(directory.join(&file), graph.model().write_buf().expect("a model")).expect("a file");
    // Each tensor takes an eighth of the available memory.
    let report = std::fs::read_to_string("/proc/meminfo").expect("a report of the system");
    let line = report
        .lines()
        .find(|line| line.starts_with("MemAvailable:"))
        .expect("a line");
    let available: f64 = line
        .split_whitespace()
        .nth(1)
        .expect("a number")
        .parse()
        .expect("a number");
    let size = (available * 1024.0 / 8.0 / 4.0).sqrt() as usize;
    let item = |size: usize| json!({"column": vec![[1.0]; size], "row": [vec![2.0; size]]});
    let runtimes = ["runtime = \"rten\"".to_owned()]
        .into_iter()
        .chain(onnx_runtime());
    for runtime in runtimes {
        let model = load(&format!("model = \"{file}\"\n{runtime}"), directory).expect("a model");
        let message = outcome(&model, item(size)).expect_err("the tensors are too large together");
        assert!(
            message
                .contains("that are needed at the same time are too large for the memory that is available"),
            "{runtime}: {message}"
        );
        assert_eq!(outcome(&model, item(3)), Ok(json!({"y": [[36.0]]})), "{runtime}");
    }
    std::fs::remove_file(directory.join(&file)).expect("the file");
}

#[test]
fn a_size_that_the_file_determines_is_an_error_of_the_model() {
    let runtimes = ["runtime = \"rten\"".to_owned()]
        .into_iter()
        .chain(onnx_runtime());
    for runtime in runtimes {
        let settings = format!("model = \"four_petabytes.onnx\"\n{runtime}");
        let message = load(&settings, MODELS)
            .expect_err("no machine has so much memory")
            .to_string();
        assert!(
            message.contains("a tensor of 4000000.0 GB"),
            "{runtime}: {message}"
        );
    }
}
