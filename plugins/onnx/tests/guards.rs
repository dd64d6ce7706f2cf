//! Data for which an operator is not verified is detected during a run and fails the item.

#[allow(dead_code, reason = "every test file uses a part of it")]
mod common;

use std::path::Path;

use common::graph::{Graph, floats, int, integers, ints, node, subgraph, value};
use onnx::direct::{Check, Direct, Elements, Tensor};
use rten_onnx::onnx::{AttributeProto, DataType, NodeProto};

/// Runs a model on one input of floats, with the guards of the built-in table.
fn run(name: &str, graph: Graph, shape: &[usize], elements: &[f32]) -> Result<Vec<f32>, String> {
    let path =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("guards-{name}-{}.onnx", std::process::id()));
    std::fs::write(&path, graph.model().write_buf().expect("a model")).expect("a file");
    let check = Check::built_in();
    assert_eq!(check.file(&path), Ok(()), "{name}");
    let model = Direct::load(&path, Some(&check)).unwrap_or_else(|error| panic!("{name}: {error}"));
    std::fs::remove_file(&path).expect("the file");
    let input = Tensor {
        shape: shape.to_vec(),
        elements: Elements::F32(elements.to_vec()),
    };
    let outputs = model.run(vec![input])?;
    assert_eq!(outputs.len(), 1, "{name}: flags are not outputs");
    Ok(match outputs.into_iter().next().expect("an output").elements {
        Elements::F32(values) => values,
        Elements::I32(values) => values.into_iter().map(|value| value as f32).collect(),
        other => panic!("{name}: {other:?}"),
    })
}

#[track_caller]
fn assert_guarded(outcome: Result<Vec<f32>, String>, reason: &str) {
    let message = outcome.expect_err(reason);
    assert!(
        message.contains(reason) && message.contains("runtime = \"ort\""),
        "{message}"
    );
}

/// An operator and its inputs after the first: `c`, `x`, or `same` to repeat the first.
type Step<'a> = (&'a str, &'a [&'a str]);

/// A chain of operators from `x` to `y`. `c` is a constant.
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
        output_dims: None,
    }
}

#[test]
fn a_nan_that_a_graph_makes_does_not_reach_an_operator_that_hides_it() {
    let cases: [(&[f32], &[Step<'_>], f32, f32); 8] = [
        // A number that works, and one that results in NaN.
        (&[1.0], &[("Sqrt", &[]), ("Relu", &[])], 4.0, -1.0),
        (&[1.0], &[("Log", &[]), ("Neg", &[]), ("Relu", &[])], 0.5, -1.0),
        (&[0.5], &[("Pow", &["c"]), ("Relu", &[])], 9.0, -9.0),
        (&[0.0], &[("Div", &["c"]), ("Relu", &[])], 2.0, 0.0),
        // NaN that results from an infinity: of an exponential, a quotient, a logarithm or a product.
        (
            &[0.0],
            &[("Exp", &[]), ("Mul", &["c"]), ("Relu", &[])],
            1.0,
            1000.0,
        ),
        (
            &[0.0],
            &[("Reciprocal", &[]), ("Mul", &["c"]), ("Relu", &[])],
            2.0,
            0.0,
        ),
        (&[0.0], &[("Log", &[]), ("Mul", &["c"]), ("Relu", &[])], 2.0, 0.0),
        (
            &[3e38],
            &[("Mul", &["c"]), ("Sin", &[]), ("Relu", &[])],
            0.0,
            1e10,
        ),
    ];
    for (index, (constant, operators, good, bad)) in cases.into_iter().enumerate() {
        let name = format!("made-{index}");
        let outcome = run(&name, chain(constant, operators), &[1, 4], &[good; 4]);
        outcome.unwrap_or_else(|error| panic!("{operators:?}: {error}"));
        let outcome = run(
            &name,
            chain(constant, operators),
            &[1, 4],
            &[good, good, bad, good],
        );
        assert_guarded(outcome, "`Relu` (`y`) is not verified with NaN");
    }
}

#[test]
fn a_nan_in_a_request_fails_only_where_an_operator_would_hide_it() {
    let nan = [1.0, f32::NAN, 3.0, 4.0];
    let relu = chain(&[1.0], &[("Relu", &[])]);
    assert_guarded(
        run("request", relu, &[1, 4], &nan),
        "`Relu` (`y`) is not verified with NaN",
    );
    // Infinities are accepted.
    let relu = chain(&[1.0], &[("Relu", &[])]);
    let computed = run(
        "infinity",
        relu,
        &[1, 4],
        &[f32::INFINITY, f32::NEG_INFINITY, 1.0, -1.0],
    );
    assert_eq!(computed, Ok(vec![f32::INFINITY, 0.0, 1.0, 0.0]));
    let passed = run("passed", chain(&[1.0], &[("Add", &["c"])]), &[1, 4], &nan).expect("nothing hides it");
    assert!(passed[1].is_nan() && passed[0] == 2.0, "{passed:?}");
    // The graph replaces NaN with 0 before an operator can hide it.
    let graph = Graph {
        opset: 17,
        inputs: vec![value("x", DataType::FLOAT, &[-1, 4])],
        constants: vec![floats("c", &[1], &[0.0])],
        nodes: vec![
            node("IsNaN", &["x"], "missing", &[]),
            node("Where", &["missing", "c", "x"], "known", &[]),
            node("Relu", &["known"], "y", &[]),
        ],
        output: ("y", DataType::FLOAT),
        output_dims: None,
    };
    assert_eq!(
        run("replaced", graph, &[1, 4], &nan),
        Ok(vec![1.0, 0.0, 3.0, 4.0])
    );
}

#[test]
fn a_flag_of_another_output_does_not_matter() {
    let graph = || Graph {
        opset: 17,
        inputs: vec![value("x", DataType::FLOAT, &[-1, 4])],
        constants: Vec::new(),
        nodes: vec![
            node("Sqrt", &["x"], "root", &[]),
            node("Relu", &["root"], "unused", &[]),
            node("Neg", &["x"], "y", &[]),
        ],
        output: ("y", DataType::FLOAT),
        output_dims: None,
    };
    let computed = run("unused", graph(), &[1, 4], &[f32::NAN; 4]).expect("`Relu` does not matter");
    assert!(computed[0].is_nan());
}

#[test]
fn a_flag_of_a_value_concerns_everything_that_depends_on_the_value() {
    let graph = Graph {
        opset: 17,
        inputs: vec![value("x", DataType::FLOAT, &[-1, 4])],
        constants: Vec::new(),
        nodes: vec![
            node("Relu", &["x"], "unused", &[]),
            node("Neg", &["x"], "negative", &[]),
            // Relies on the guard of the first node.
            node("Relu", &["negative"], "y", &[]),
        ],
        output: ("y", DataType::FLOAT),
        output_dims: None,
    };
    let outcome = run("shared", graph, &[1, 4], &[1.0, f32::NAN, 3.0, 4.0]);
    assert_guarded(outcome, "is not verified with NaN");
}

#[test]
fn branches_of_a_condition_are_watched() {
    let branch = |name: &str, operators: [&str; 2]| {
        let (middle, end) = (format!("{name}_1"), format!("{name}_2"));
        let nodes = vec![
            node(operators[0], &["x"], &middle, &[]),
            node(operators[1], &[&middle], &end, &[]),
        ];
        subgraph(name, nodes, &[&end])
    };
    let graph = || Graph {
        opset: 17,
        inputs: vec![value("x", DataType::FLOAT, &[4])],
        constants: vec![floats("zero", &[], &[0.0])],
        nodes: vec![
            node("ReduceMax", &["x"], "largest", &[int("keepdims", 0)]),
            node("Greater", &["largest", "zero"], "condition", &[]),
            node(
                "If",
                &["condition"],
                "chosen",
                &[
                    branch("then_branch", ["Sqrt", "Relu"]),
                    branch("else_branch", ["Neg", "Abs"]),
                ],
            ),
            node("Identity", &["chosen"], "y", &[]),
        ],
        output: ("y", DataType::FLOAT),
        output_dims: None,
    };
    assert_eq!(
        run("then", graph(), &[4], &[1.0, 4.0, 9.0, 0.0]),
        Ok(vec![1.0, 2.0, 3.0, 0.0])
    );
    assert_eq!(
        run("else", graph(), &[4], &[-1.0, -4.0, -9.0, 0.0]),
        Ok(vec![1.0, 4.0, 9.0, 0.0])
    );
    let outcome = run("then-nan", graph(), &[4], &[1.0, -4.0, 9.0, 0.0]);
    assert_guarded(outcome, "`Relu` (`then_branch_2`) is not verified with NaN");
}

#[test]
fn an_operator_in_a_loop_that_would_hide_a_nan_is_rejected() {
    let body = |operator: &str| {
        let mut body = subgraph(
            "body",
            vec![
                node("Identity", &["going"], "still", &[]),
                node("Sqrt", &["state"], "root", &[]),
                node(operator, &["root"], "next", &[]),
            ],
            &["still", "next"],
        );
        if let Some(graph) = &mut body.g {
            graph.input = vec![
                value("index", DataType::INT64, &[]),
                value("going", DataType::BOOL, &[]),
                value("state", DataType::FLOAT, &[-1]),
            ];
        }
        body
    };
    let graph = |operator: &str| Graph {
        opset: 17,
        inputs: vec![value("x", DataType::FLOAT, &[-1])],
        constants: vec![integers("count", &[], &[3])],
        nodes: vec![node("Loop", &["count", "", "x"], "y", &[body(operator)])],
        output: ("y", DataType::FLOAT),
        output_dims: None,
    };
    assert_eq!(graph("Neg").check(), Ok(()));
    let error = graph("Relu").check().expect_err("a loop is not watched");
    assert!(
        error.contains("`Relu` (`next`): not verified with NaN, which may occur within a loop"),
        "{error}"
    );
}

/// A graph that casts `x`, of any size, to another type, after the given nodes.
fn cast(to: DataType, nodes_before: Vec<NodeProto>, attribute: AttributeProto) -> Graph {
    let mut nodes = nodes_before;
    nodes.push(node("Cast", &["x"], "y", &[attribute]));
    Graph {
        opset: 17,
        inputs: vec![value("x", DataType::FLOAT, &[-1])],
        constants: Vec::new(),
        nodes,
        output: ("y", to),
        output_dims: None,
    }
}

#[test]
fn a_float_that_an_integer_cannot_hold_is_not_converted() {
    for (to, low, high) in [
        (DataType::INT32, -2_147_483_392.0, 2_147_483_392.0),
        (DataType::INT64, -2_147_483_392.0, 2_147_483_392.0),
    ] {
        let graph = || cast(to, Vec::new(), int("to", to.0.into()));
        let computed = run("cast", graph(), &[4], &[low, high, -0.5, 1.9]);
        assert_eq!(computed, Ok(vec![low, high, 0.0, 1.0]), "{to}");
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 3e9, -3e9] {
            let outcome = run("cast", graph(), &[4], &[1.0, bad, 2.0, 3.0]);
            assert_guarded(
                outcome,
                "`Cast` (`y`) is not verified with NaN and numbers outside",
            );
        }
    }
}

#[test]
fn a_nan_among_many_numbers_is_not_converted() {
    let graph = || cast(DataType::INT32, Vec::new(), int("to", DataType::INT32.0.into()));
    for position in [0, 50, 99] {
        let mut elements = [1.0; 100];
        assert!(run("many", graph(), &[100], &elements).is_ok());
        elements[position] = f32::NAN;
        assert_guarded(
            run("many", graph(), &[100], &elements),
            "`Cast` (`y`) is not verified with NaN",
        );
    }
}

#[test]
fn a_zero_whose_sign_is_not_verified_is_not_a_divisor() {
    let cases: [(&[f32], &[Step<'_>]); 4] = [
        (&[1.0], &[("Tanh", &[]), ("Reciprocal", &[])]),
        (&[0.0], &[("Mul", &["c"]), ("Reciprocal", &[])]),
        (&[-3.0], &[("Sin", &[]), ("Pow", &["c"])]),
        (&[-1.0], &[("Round", &[]), ("Pow", &["c"])]),
    ];
    for (index, (constant, operators)) in cases.into_iter().enumerate() {
        let graph = || chain(constant, operators);
        let name = format!("zero-{index}");
        // A product with 0 is always 0.
        if constant != [0.0] {
            assert!(
                run(&name, graph(), &[1, 4], &[1.0, 2.0, -1.0, 3.0]).is_ok(),
                "{operators:?}"
            );
        }
        let outcome = run(&name, graph(), &[1, 4], &[1.0, 2.0, 0.0, 3.0]);
        assert_guarded(outcome, "is not verified with zeros of unverified sign");
    }
}

#[test]
fn a_zero_of_the_request_is_a_divisor() {
    let outcome = run(
        "request-zero",
        chain(&[1.0], &[("Reciprocal", &[])]),
        &[1, 4],
        &[0.0, -0.0, 1.0, 2.0],
    );
    assert_eq!(outcome, Ok(vec![f32::INFINITY, f32::NEG_INFINITY, 1.0, 0.5]));
    // The sign does not matter in a dividend, nor in the base of a power that is not negative.
    for (constant, operators) in [
        (2.0, &[("Tanh", &[][..]), ("Div", &["c"])][..]),
        (2.0, &[("Tanh", &[]), ("Pow", &["c"])]),
    ] {
        let outcome = run("dividend", chain(&[constant], operators), &[1, 4], &[0.0; 4]);
        assert_eq!(outcome, Ok(vec![0.0; 4]), "{operators:?}");
    }
}

#[test]
fn an_empty_dimension_that_a_graph_makes_does_not_reach_an_operator_that_is_not_verified_for_it() {
    let graph = || Graph {
        opset: 17,
        inputs: vec![value("x", DataType::FLOAT, &[-1])],
        constants: vec![integers("flat", &[1], &[0])],
        nodes: vec![
            node("NonZero", &["x"], "places", &[]),
            node("Squeeze", &["places", "flat"], "indices", &[]),
            node("Gather", &["x", "indices"], "kept", &[int("axis", 0)]),
            node("ReduceMean", &["kept"], "y", &[ints("axes", &[0])]),
        ],
        output: ("y", DataType::FLOAT),
        output_dims: None,
    };
    assert_eq!(run("some", graph(), &[3], &[0.0, 2.0, 4.0]), Ok(vec![3.0]));
    let outcome = run("none", graph(), &[3], &[0.0; 3]);
    assert_guarded(outcome, "`ReduceMean` (`y`) is not verified with dimensions of 0");
}
