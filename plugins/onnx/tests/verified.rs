//! Models that the table of verified operators does not cover are rejected by the embedded runtime at load.

#[allow(dead_code, reason = "every test file uses a part of it")]
mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::graph::{Graph, int, integers, ints, node, subgraph, text, value};
use onnx::direct;
use rten_onnx::onnx::{DataType, NodeProto};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

#[test]
fn what_the_runtime_computes_wrongly_is_rejected_with_the_operator_the_reason_and_the_fix() {
    let float = DataType::FLOAT;
    let image = &[-1, 3, 8, 8];
    let kernel = || ints("kernel_shape", &[2, 2]);
    let cases = [
        (
            Graph::one(17, float, &[-1, 4], "ArgMax", &[int("axis", 1)]),
            "ArgMax",
        ),
        (
            Graph::one(17, float, &[-1, 4], "ArgMin", &[int("axis", 1)]),
            "ArgMin",
        ),
        (Graph::one(11, float, &[-1, 4, 3], "Softmax", &[]), "Softmax"),
        (
            Graph::one(9, float, &[-1, 4, 3], "LogSoftmax", &[int("axis", 1)]),
            "LogSoftmax",
        ),
        (Graph::one(17, float, &[-1, 4], "Sign", &[]), "Sign"),
        (
            Graph::one(
                17,
                float,
                image,
                "MaxPool",
                &[kernel(), text("auto_pad", "SAME_LOWER")],
            ),
            "auto_pad",
        ),
        (
            Graph::one(
                17,
                float,
                image,
                "AveragePool",
                &[kernel(), text("auto_pad", "SAME_LOWER")],
            ),
            "auto_pad",
        ),
        (
            Graph::one(17, float, &[-1, 4], "Cast", &[int("to", 9)]),
            "to BOOL",
        ),
        (Graph::one(17, DataType::DOUBLE, &[-1, 4], "Exp", &[]), "FP64"),
        (Graph::one(17, float, &[-1, 4], "Unheard", &[]), "Unheard"),
        (Graph::one(99, float, &[-1, 4], "Abs", &[]), "99"),
        (
            Graph::one(17, float, &[-1, 4], "Abs", &[int("unheard", 1)]),
            "unheard",
        ),
    ];
    for (graph, expected) in cases {
        let operator = graph.nodes[0].op_type.clone().unwrap_or_default();
        let error = graph.check().expect_err(&operator);
        for part in [expected, "runtime = \"ort\""] {
            assert!(error.contains(part), "{operator}: {error}");
        }
    }
}

#[test]
fn integers_that_may_exceed_32_bits_inside_the_graph_are_rejected() {
    let graph = |operator: &str, constant: i64| Graph {
        opset: 17,
        inputs: vec![value("x", DataType::INT64, &[-1, 4])],
        constants: vec![integers("c", &[1], &[constant])],
        nodes: vec![node(operator, &["x", "c"], "y", &[])],
        output: ("y", DataType::INT64),
        output_dims: None,
    };
    for (operator, constant) in [
        ("Add", 1),
        ("Sub", 1),
        ("Mul", 2),
        ("CumSum", 1),
        ("ReduceSum", 1),
        ("Max", 1 << 40),
        ("Div", -1),
    ] {
        let error = graph(operator, constant).check().expect_err(operator);
        assert!(
            error.contains("INT64 values may exceed 32 bits"),
            "{operator}: {error}"
        );
    }
    for (operator, constant) in [("Div", 2), ("Mul", 1), ("Max", 7), ("Min", 7)] {
        assert_eq!(graph(operator, constant).check(), Ok(()), "{operator}");
    }
}

#[test]
fn shape_arithmetic_of_exported_models_is_accepted() {
    let graph = Graph {
        opset: 17,
        inputs: vec![value("x", DataType::FLOAT, &[-1, -1, 64])],
        constants: vec![
            integers("zero", &[], &[0]),
            integers("one", &[], &[1]),
            integers("first", &[1], &[0]),
            integers("rest", &[2], &[8, 8]),
        ],
        nodes: vec![
            node("Shape", &["x"], "shape", &[]),
            node("Gather", &["shape", "zero"], "batch", &[int("axis", 0)]),
            node("Gather", &["shape", "one"], "length", &[int("axis", 0)]),
            node("Unsqueeze", &["batch", "first"], "batch1", &[]),
            node("Unsqueeze", &["length", "first"], "length1", &[]),
            node(
                "Concat",
                &["batch1", "length1", "rest"],
                "target",
                &[int("axis", 0)],
            ),
            node("Reshape", &["x", "target"], "heads", &[]),
            node("Transpose", &["heads"], "y", &[ints("perm", &[0, 2, 1, 3])]),
        ],
        output: ("y", DataType::FLOAT),
        output_dims: None,
    };
    assert_eq!(graph.check(), Ok(()));
}

#[test]
fn a_slice_to_the_largest_integer_is_accepted_and_other_uses_of_it_are_not() {
    let graph = |nodes: Vec<NodeProto>| Graph {
        opset: 17,
        inputs: vec![value("x", DataType::FLOAT, &[-1, 4])],
        constants: vec![
            integers("start", &[1], &[0]),
            integers("end", &[1], &[i64::MAX]),
            integers("axis", &[1], &[1]),
        ],
        nodes,
        output: ("y", DataType::FLOAT),
        output_dims: None,
    };
    let slice = node("Slice", &["x", "start", "end", "axis"], "y", &[]);
    assert_eq!(graph(vec![slice]).check(), Ok(()));
    let expand = node("Expand", &["x", "end"], "y", &[]);
    let error = graph(vec![expand]).check().expect_err("too large");
    assert!(error.contains("INT64 values may exceed 32 bits"), "{error}");
}

#[test]
fn nodes_of_subgraphs_are_checked() {
    let branch =
        |name: &str, operator: &str| subgraph(name, vec![node(operator, &["x"], name, &[])], &[name]);
    let graph = |operator: &str| Graph {
        opset: 17,
        inputs: vec![
            value("x", DataType::FLOAT, &[-1, 4]),
            value("c", DataType::BOOL, &[]),
        ],
        constants: Vec::new(),
        nodes: vec![node(
            "If",
            &["c"],
            "y",
            &[branch("then_branch", "Abs"), branch("else_branch", operator)],
        )],
        output: ("y", DataType::FLOAT),
        output_dims: None,
    };
    assert_eq!(graph("Neg").check(), Ok(()));
    let error = graph("Sign").check().expect_err("unverified");
    assert!(error.contains("`Sign`"), "{error}");
}

/// The Python interpreter of the tests, if it has the packages that the comparison needs.
fn python() -> Option<PathBuf> {
    let named = std::env::var_os("INFERENCE_TEST_PYTHON");
    let python = named.map_or_else(|| PathBuf::from("python3"), PathBuf::from);
    let found = Command::new(&python)
        .args(["-c", "import numpy, onnx, onnxruntime"])
        .output();
    if found.is_ok_and(|output| output.status.success()) {
        return Some(python);
    }
    let required = std::env::var("INFERENCE_TEST_TOOLS").is_ok_and(|value| value == "required");
    let what = format!("{} lacks numpy, onnx or onnxruntime", python.display());
    assert!(!required, "{what}, and INFERENCE_TEST_TOOLS=required");
    eprintln!("note: NOT TESTED, since {what}; tests/install installs them");
    None
}

#[test]
fn the_table_agrees_with_onnx_runtime_on_a_sample() {
    verify_operators("check");
}

#[test]
fn operators_that_are_derived_again_have_the_committed_entries() {
    verify_operators("rederive");
}

/// Runs the script that derives the table.
fn verify_operators(action: &str) {
    let Some(python) = python() else { return };
    let program = std::env::current_exe().expect("the test has a path");
    let program = program
        .parent()
        .and_then(Path::parent)
        .expect("the test is in a directory of the target directory")
        .join("examples/embedded");
    let output = Command::new(python)
        .arg(repository().join("tests/onnx_conformance/verify_operators.py"))
        .arg(action)
        .arg("--program")
        .arg(program)
        .output()
        .expect("Python can be started");
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn the_readme_lists_the_operators_of_the_table() {
    let readme =
        std::fs::read_to_string(repository().join("plugins/onnx/README.md")).expect("the README exists");
    let operators: Vec<_> = direct::operators()
        .iter()
        .map(|name| format!("`{name}`"))
        .collect();
    let list = operators.join(" ");
    let listed = readme
        .split_once("<!-- verified operators -->")
        .and_then(|(_, rest)| rest.split_once("<!-- end -->"))
        .map(|(listed, _)| listed.split_whitespace().collect::<Vec<_>>().join(" "));
    assert_eq!(
        listed.as_deref(),
        Some(&*list),
        "write the list between the comments `verified operators` and `end` of plugins/onnx/README.md"
    );
}
