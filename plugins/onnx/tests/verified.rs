//! What the embedded runtime may compute: models outside the table of verified operators are rejected at load.

#[allow(dead_code, reason = "every test file uses a part of it")]
mod common;

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::process::Command;

use onnx::direct::{self, Check};
use rten_onnx::onnx::{
    AttributeProto, DataType, Dimension, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto,
    TensorShapeProto, TypeProto, TypeProtoTensor, ValueInfoProto,
};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn value(name: &str, datatype: DataType, dims: &[i64]) -> ValueInfoProto {
    // A negative size is an open dimension.
    let dim = |(index, size): (usize, &i64)| Dimension {
        dim_value: (*size >= 0).then_some(*size),
        dim_param: (*size < 0).then(|| format!("{name}_{index}")),
    };
    ValueInfoProto {
        name: Some(name.to_owned()),
        r#type: Some(TypeProto {
            tensor_type: Some(TypeProtoTensor {
                elem_type: Some(datatype),
                shape: Some(TensorShapeProto {
                    dim: dims.iter().enumerate().map(dim).collect(),
                }),
            }),
            ..TypeProto::default()
        }),
    }
}

fn integers(name: &str, dims: &[i64], values: &[i64]) -> TensorProto {
    TensorProto {
        name: Some(name.to_owned()),
        dims: dims.to_vec(),
        data_type: Some(DataType::INT64),
        raw_data: Some(RefCell::new(
            values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        )),
        ..TensorProto::default()
    }
}

fn node(operator: &str, inputs: &[&str], output: &str, attributes: &[AttributeProto]) -> NodeProto {
    NodeProto {
        op_type: Some(operator.to_owned()),
        input: inputs.iter().map(|name| (*name).to_owned()).collect(),
        output: vec![output.to_owned()],
        attribute: attributes.to_vec(),
        ..NodeProto::default()
    }
}

fn text(name: &str, value: &str) -> AttributeProto {
    AttributeProto {
        name: Some(name.to_owned()),
        s: Some(value.to_owned()),
        ..AttributeProto::default()
    }
}

fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto {
        name: Some(name.to_owned()),
        i: Some(value),
        ..AttributeProto::default()
    }
}

fn ints(name: &str, values: &[i64]) -> AttributeProto {
    AttributeProto {
        name: Some(name.to_owned()),
        ints: values.to_vec(),
        ..AttributeProto::default()
    }
}

struct Graph {
    opset: i64,
    inputs: Vec<ValueInfoProto>,
    constants: Vec<TensorProto>,
    nodes: Vec<NodeProto>,
    output: (&'static str, DataType),
}

impl Graph {
    /// A graph of one node from `x`.
    fn one(
        opset: i64,
        datatype: DataType,
        dims: &[i64],
        operator: &str,
        attributes: &[AttributeProto],
    ) -> Self {
        Self {
            opset,
            inputs: vec![value("x", datatype, dims)],
            constants: Vec::new(),
            nodes: vec![node(operator, &["x"], "y", attributes)],
            output: ("y", datatype),
        }
    }

    fn model(self) -> ModelProto {
        let mut output = value(self.output.0, self.output.1, &[]);
        if let Some(tensor) = output
            .r#type
            .as_mut()
            .and_then(|declared| declared.tensor_type.as_mut())
        {
            tensor.shape = None;
        }
        ModelProto {
            opset_import: vec![OperatorSetIdProto {
                domain: None,
                version: Some(self.opset),
            }],
            graph: Some(GraphProto {
                node: self.nodes,
                initializer: self.constants,
                input: self.inputs,
                output: vec![output],
                ..GraphProto::default()
            }),
            ..ModelProto::default()
        }
    }

    fn check(self) -> Result<(), String> {
        Check::built_in().model(&self.model()).map(drop)
    }
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
    };
    let slice = node("Slice", &["x", "start", "end", "axis"], "y", &[]);
    assert_eq!(graph(vec![slice]).check(), Ok(()));
    let expand = node("Expand", &["x", "end"], "y", &[]);
    let error = graph(vec![expand]).check().expect_err("too large");
    assert!(error.contains("INT64 values may exceed 32 bits"), "{error}");
}

#[test]
fn nodes_of_subgraphs_are_checked() {
    let branch = |name: &str, operator: &str| AttributeProto {
        name: Some(name.to_owned()),
        g: Some(GraphProto {
            node: vec![node(operator, &["x"], name, &[])],
            output: vec![ValueInfoProto {
                name: Some(name.to_owned()),
                r#type: None,
            }],
            ..GraphProto::default()
        }),
        ..AttributeProto::default()
    };
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
    };
    assert_eq!(graph("Neg").check(), Ok(()));
    let error = graph("Sign").check().expect_err("unverified");
    assert!(error.contains("`Sign`"), "{error}");
}

/// The Python of the tests, if it has what the comparison needs.
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

/// An operator, and its inputs after the first one: `c`, `x`, or `same` for the first one again.
type Step<'a> = (&'a str, &'a [&'a str]);

/// `x`, then each of the operators, the last of which computes `y`. `c` is a constant.
fn chain(constant: &[f32], operators: &[Step<'_>]) -> Graph {
    let name = |index: usize| match index {
        0 => "x".to_owned(),
        index if index == operators.len() => "y".to_owned(),
        index => format!("v{index}"),
    };
    let nodes = operators.iter().enumerate().map(|(index, (operator, others))| {
        let before = name(index);
        let mut inputs = vec![before.as_str()];
        inputs.extend(
            others
                .iter()
                .map(|other| if *other == "same" { before.as_str() } else { other }),
        );
        node(operator, &inputs, &name(index + 1), &[])
    });
    Graph {
        opset: 17,
        inputs: vec![value("x", DataType::FLOAT, &[-1, 4])],
        constants: vec![floats("c", &[constant.len() as i64], constant)],
        nodes: nodes.collect(),
        output: ("y", DataType::FLOAT),
    }
}

fn floats(name: &str, dims: &[i64], values: &[f32]) -> TensorProto {
    TensorProto {
        name: Some(name.to_owned()),
        dims: dims.to_vec(),
        data_type: Some(DataType::FLOAT),
        raw_data: Some(RefCell::new(
            values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        )),
        ..TensorProto::default()
    }
}

#[test]
fn a_nan_that_a_graph_makes_does_not_reach_an_operator_that_hides_it() {
    let hidden: [(&[f32], &[Step<'_>]); 5] = [
        (&[1.0], &[("Sqrt", &[]), ("Relu", &[])]),
        (&[1.0], &[("Log", &[]), ("Neg", &[]), ("Relu", &[])]),
        (&[0.5], &[("Pow", &["c"]), ("Relu", &[])]),
        (&[1.0], &[("Div", &["x"]), ("Relu", &[])]),
        (
            &[-1.0],
            &[("Abs", &[]), ("Add", &["c"]), ("Sqrt", &[]), ("Relu", &[])],
        ),
    ];
    for (constant, operators) in hidden {
        let error = chain(constant, operators).check().expect_err("a hidden NaN");
        assert!(
            error.contains("`Relu` (`y`): not verified with NaN") && error.contains("runtime = \"ort\""),
            "{operators:?}: {error}"
        );
    }
    // As in layer normalizations and norms: the operands show that there is none.
    let safe: [(&[f32], &[Step<'_>]); 5] = [
        (
            &[1e-5],
            &[("Mul", &["same"]), ("Add", &["c"]), ("Sqrt", &[]), ("Relu", &[])],
        ),
        (&[2.0], &[("Pow", &["c"]), ("Sqrt", &[]), ("Relu", &[])]),
        (&[1.0, 2.0, 3.0, 4.0], &[("Div", &["c"]), ("Relu", &[])]),
        (
            &[1e-5],
            &[("Abs", &[]), ("Max", &["c"]), ("Log", &[]), ("Relu", &[])],
        ),
        // Nothing hides it.
        (&[1.0], &[("Sqrt", &[]), ("Neg", &[])]),
    ];
    for (constant, operators) in safe {
        assert_eq!(chain(constant, operators).check(), Ok(()), "{operators:?}");
    }
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
