//! Items for which the embedded runtime is not verified run in ONNX Runtime, if it is installed.

#[allow(dead_code, reason = "every test file uses a part of it")]
mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::graph::{Graph, integers, node, value};
use common::{load, onnx_runtime};
use onnx::Onnx;
use plugin_sdk::serde_json::json;
use plugin_sdk::testing::Harness;
use rten_onnx::onnx::DataType;

fn directory() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR"))
}

fn file(name: &str) -> PathBuf {
    directory().join(format!("fallback-{name}-{}.onnx", std::process::id()))
}

fn write(name: &str, graph: Graph) {
    fs::write(file(name), graph.model().write_buf().expect("a model")).expect("a file");
}

/// Loads a graph with `runtime = "auto"`. `None` if ONNX Runtime is not installed.
fn served(name: &str, graph: Graph) -> Option<Harness<Onnx>> {
    let settings = onnx_runtime()?.replace("runtime = \"ort\"", "runtime = \"auto\"");
    write(name, graph);
    let settings = format!("model = {:?}\n{settings}", file(name));
    let model = load(&settings, directory()).unwrap_or_else(|failure| panic!("{name}: {failure}"));
    let details = &model.manifest().details;
    assert!(details["runtime"].starts_with("rten"), "{details:?}");
    assert!(
        details["fallback_runtime"].starts_with("ONNX Runtime"),
        "{details:?}"
    );
    Some(model)
}

/// `y` is true where the square root of `x` is NaN, which the embedded runtime would not find out.
fn roots() -> Graph {
    Graph {
        opset: 17,
        inputs: vec![value("x", DataType::FLOAT, &[-1, 2])],
        constants: Vec::new(),
        nodes: vec![
            node("Sqrt", &["x"], "root", &[]),
            node("Relu", &["root"], "positive", &[]),
            node("IsNaN", &["positive"], "y", &[]),
        ],
        output: ("y", DataType::BOOL),
        output_dims: None,
    }
}

fn lines(model: &Harness<Onnx>, part: &str) -> usize {
    let lines = model.logs().into_iter();
    lines.filter(|line| line.message.contains(part)).count()
}

#[test]
fn an_item_that_fails_a_guard_runs_in_onnx_runtime_and_only_the_first_is_logged() {
    let Some(model) = served("guard", roots()) else {
        return;
    };
    let items = [[1.0, 4.0], [-1.0, 4.0], [0.0, 9.0], [1.0, -4.0]].map(|item| json!(item));
    let answers: Vec<_> = model.predict("predict", &items).into_iter().collect();
    let expected = [[false, false], [true, false], [false, false], [false, true]];
    for (answer, expected) in answers.into_iter().zip(expected) {
        assert_eq!(answer, Ok(json!({"y": expected})));
    }
    assert_eq!(
        lines(&model, "1 item since the last such message ran in ONNX Runtime"),
        1
    );
    assert_eq!(lines(&model, "ran in ONNX Runtime"), 1, "{:?}", model.logs());
}

#[test]
fn an_integer_that_exceeds_32_bits_is_computed_with_64_bits() {
    let graph = Graph {
        opset: 17,
        inputs: vec![value("x", DataType::INT64, &[-1, 2])],
        constants: vec![integers("three", &[1], &[3])],
        nodes: vec![node("Div", &["x", "three"], "y", &[])],
        output: ("y", DataType::INT64),
        output_dims: None,
    };
    let Some(model) = served("integer", graph) else {
        return;
    };
    let large = 1_i64 << 40;
    let items = [json!([9, -6]), json!([3 * large, -3 * large]), json!([1, 2])];
    assert_eq!(
        model.predict("predict", &items),
        [
            Ok(json!({"y": [3, -2]})),
            Ok(json!({"y": [large, -large]})),
            Ok(json!({"y": [0, 0]})),
        ]
    );
}

#[test]
fn a_file_that_has_changed_since_it_was_loaded_is_not_the_fallback() {
    let Some(model) = served("changed", roots()) else {
        return;
    };
    fs::remove_file(file("changed")).expect("the file");
    let mut other = roots();
    other.nodes[0] = node("Neg", &["x"], "root", &[]);
    write("changed", other);
    let outcomes = model.predict("predict", &[json!([1.0, 4.0]), json!([-1.0, 4.0])]);
    assert_eq!(outcomes[0], Ok(json!({"y": [false, false]})));
    let failure = outcomes[1].as_ref().expect_err("no runtime computes it");
    assert_eq!(
        failure.message,
        "the model cannot compute this item: `Relu` (`positive`) is not verified with NaN; set `runtime = \"ort\"`"
    );
    let reason = "the files of the model have changed since it was loaded";
    assert_eq!(lines(&model, reason), 1, "{:?}", model.logs());
}

#[test]
fn a_model_without_the_fallback_names_the_setting() {
    write("alone", roots());
    let settings = format!("model = {:?}\nruntime = \"rten\"", file("alone"));
    let model = load(&settings, directory()).expect("a model");
    assert!(!model.manifest().details.contains_key("fallback_runtime"));
    let outcomes = model.predict("predict", &[json!([-1.0, 4.0])]);
    let failure = outcomes[0].as_ref().expect_err("it is not verified");
    assert!(
        failure
            .message
            .ends_with("is not verified with NaN; set `runtime = \"ort\"`")
    );
}
