//! Graphs that the embedded runtime would rewrite with different results are rejected by it, or computed as they are.

#[allow(dead_code, reason = "every test file uses a part of it")]
mod common;

use std::path::{Path, PathBuf};

use common::graph::{Graph, floats, int, integers, ints, node, subgraph, value};
use common::{load, onnx_runtime};
use onnx::direct::{Check, Direct, Elements, Tensor};
use plugin_sdk::serde_json::json;
use rten_onnx::onnx::{DataType, ModelProto, NodeProto, TensorProto, ValueInfoProto};

fn graph(inputs: Vec<ValueInfoProto>, constants: Vec<TensorProto>, nodes: Vec<NodeProto>) -> Graph {
    Graph {
        opset: 17,
        inputs,
        constants,
        nodes,
        output: ("y", DataType::FLOAT),
        output_dims: None,
    }
}

fn square() -> Vec<ValueInfoProto> {
    vec![value("x", DataType::FLOAT, &[3, 3])]
}

fn path(name: &str) -> PathBuf {
    let name = format!("combined-{name}-{}.onnx", std::process::id());
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

fn write(name: &str, model: &ModelProto) -> PathBuf {
    let path = path(name);
    std::fs::write(&path, model.write_buf().expect("a model")).expect("a file");
    path
}

/// Computes a model in the embedded runtime from inputs of floats.
fn run(name: &str, model: &ModelProto, inputs: &[(&[usize], &[f32])]) -> Vec<Elements> {
    let path = write(name, model);
    let check = Check::built_in();
    assert_eq!(check.file(&path), Ok(()), "{name}");
    let loaded = Direct::load(&path, Some(&check)).unwrap_or_else(|error| panic!("{name}: {error}"));
    std::fs::remove_file(&path).expect("the file");
    let tensor = |(shape, elements): &(&[usize], &[f32])| Tensor {
        shape: shape.to_vec(),
        elements: Elements::F32(elements.to_vec()),
    };
    let outputs = loaded.run(inputs.iter().map(tensor).collect());
    let outputs = outputs.unwrap_or_else(|error| panic!("{name}: {error}"));
    outputs.into_iter().map(|output| output.elements).collect()
}

fn numbers(outputs: &[Elements]) -> Vec<f32> {
    match outputs {
        [Elements::F32(values)] => values.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_mean_without_its_dimension_is_rejected_in_a_normalization_only() {
    let mean = |keep: i64| {
        node(
            "ReduceMean",
            &["x"],
            "mean",
            &[ints("axes", &[-1]), int("keepdims", keep)],
        )
    };
    let centered = |keep| {
        graph(
            square(),
            Vec::new(),
            vec![mean(keep), node("Sub", &["x", "mean"], "y", &[])],
        )
    };
    assert_eq!(centered(1).check(), Ok(()));
    let error = centered(0).check().expect_err("other elements are subtracted");
    assert!(
        error.contains("`Sub` (`y`): not verified with a mean over a removed dimension"),
        "{error}"
    );
    let alone = graph(
        square(),
        Vec::new(),
        vec![mean(0), node("Neg", &["mean"], "y", &[])],
    );
    assert_eq!(alone.check(), Ok(()));
}

#[test]
fn constants_near_those_of_a_pattern_are_rejected() {
    let safe = |value: f32| {
        graph(
            square(),
            vec![floats("c", &[], &[value])],
            vec![
                node("Softmax", &["x"], "soft", &[]),
                node("IsNaN", &["soft"], "missing", &[]),
                node("Where", &["missing", "c", "soft"], "y", &[]),
            ],
        )
    };
    assert_eq!((safe(0.0).check(), safe(0.5).check()), (Ok(()), Ok(())));
    let error = safe(5e-5).check().expect_err("the runtime takes it for 0");
    assert!(
        error.contains("a replacement of NaN that is almost a scalar 0"),
        "{error}"
    );
    let inverse = |value: f32| {
        let nodes = vec![
            node("Abs", &["x"], "positive", &[]),
            node("Div", &["c", "positive"], "y", &[]),
        ];
        graph(square(), vec![floats("c", &[], &[value])], nodes)
    };
    assert_eq!((inverse(1.0).check(), inverse(2.0).check()), (Ok(()), Ok(())));
    let error = inverse(1.000_05).check().expect_err("the runtime takes it for 1");
    assert!(error.contains("a constant near 1"), "{error}");
    let product = |scale: f32| {
        let nodes = vec![
            node("Mul", &["x", "c"], "scaled", &[]),
            node("MatMul", &["scaled", "x"], "y", &[]),
        ];
        graph(square(), vec![floats("c", &[], &[scale])], nodes)
    };
    assert_eq!(product(8.0).check(), Ok(()));
    let error = product(0.0).check().expect_err("infinities times 0 are lost");
    assert!(error.contains("an extreme scale"), "{error}");
}

#[test]
fn a_value_of_a_branch_with_the_name_of_a_value_outside_is_rejected() {
    let branch = |name: &str, middle: &str| {
        let nodes = vec![
            node("Neg", &["x"], middle, &[]),
            node("Abs", &[middle], name, &[]),
        ];
        subgraph(name, nodes, &[name])
    };
    let conditional = |middle: &str| {
        graph(
            vec![value("x", DataType::FLOAT, &[3]), value("c", DataType::BOOL, &[])],
            Vec::new(),
            vec![
                node(
                    "If",
                    &["c"],
                    "chosen",
                    &[branch("then_branch", middle), branch("else_branch", middle)],
                ),
                node("Exp", &["chosen"], "later", &[]),
                node("Neg", &["later"], "y", &[]),
            ],
        )
    };
    assert_eq!(conditional("middle").check(), Ok(()));
    let error = conditional("later")
        .check()
        .expect_err("the name has two meanings");
    assert!(
        error.contains("its subgraph has a value `later`, which is also the name of a value outside"),
        "{error}"
    );
}

#[test]
fn declared_shapes_do_not_change_results() {
    // Dimensions of the same name have different sizes.
    let mut input = value("x", DataType::FLOAT, &[-1, -1]);
    let tensor = input
        .r#type
        .as_mut()
        .and_then(|declared| declared.tensor_type.as_mut());
    let shape = tensor.and_then(|tensor| tensor.shape.as_mut()).expect("a shape");
    shape
        .dim
        .iter_mut()
        .for_each(|dim| dim.dim_param = Some("?".to_owned()));
    let nodes = || {
        vec![
            node("Neg", &["x"], "negative", &[]),
            node("Shape", &["negative"], "sizes", &[]),
            node("Cast", &["sizes"], "y", &[int("to", DataType::FLOAT.0.into())]),
        ]
    };
    let model = graph(vec![input], Vec::new(), nodes()).model();
    let x: (&[usize], &[f32]) = (&[2, 3], &[0.0; 6]);
    assert_eq!(numbers(&run("names", &model, &[x])), [2.0, 3.0]);
    // An intermediate value is declared for a batch of one.
    let mut model = graph(vec![value("x", DataType::FLOAT, &[-1, 3])], Vec::new(), nodes()).model();
    let declared = &mut model.graph.as_mut().expect("a graph").value_info;
    declared.push(value("negative", DataType::FLOAT, &[1, 3]));
    assert_eq!(numbers(&run("batch", &model, &[x])), [2.0, 3.0]);
}

#[test]
fn a_new_dimension_before_the_one_it_is_merged_with_repeats_the_whole_tensor() {
    let repeated = |axis: i64, wide: [i64; 3]| {
        let constants = vec![
            integers("axis", &[1], &[axis]),
            integers("wide", &[3], &wide),
            integers("merged", &[2], &[4, 1]),
        ];
        let nodes = vec![
            node("Unsqueeze", &["x", "axis"], "new", &[]),
            node("Expand", &["new", "wide"], "repeated", &[]),
            node("Reshape", &["repeated", "merged"], "y", &[]),
        ];
        graph(vec![value("x", DataType::FLOAT, &[2, 1])], constants, nodes).model()
    };
    let x: (&[usize], &[f32]) = (&[2, 1], &[1.0, 2.0]);
    assert_eq!(
        numbers(&run("after", &repeated(1, [2, 2, 1]), &[x])),
        [1.0, 1.0, 2.0, 2.0]
    );
    assert_eq!(
        numbers(&run("before", &repeated(0, [2, 2, 1]), &[x])),
        [1.0, 2.0, 1.0, 2.0]
    );
}

#[test]
fn a_file_that_defines_functions_is_left_to_onnx_runtime() {
    let model = Graph::one(17, DataType::FLOAT, &[-1, 2], "Neg", &[]).model();
    let mut file = model.write_buf().expect("a model");
    // Field 25 of the model: a function, of which only the name is given (field 1).
    file.extend([0xCA, 0x01, 5, 0x0A, 3]);
    file.extend(b"Neg");
    let path = path("functions");
    std::fs::write(&path, file).expect("a file");
    let failure = load(&format!("model = {path:?}\nruntime = \"rten\""), ".").expect_err("a function");
    let message = failure.to_string();
    assert!(
        message.contains("defines functions, which the embedded runtime does not compute"),
        "{message}"
    );
}

#[test]
fn an_item_with_which_the_embedded_runtime_panics_runs_in_onnx_runtime() {
    let Some(settings) = onnx_runtime() else { return };
    let sum = Graph {
        opset: 17,
        inputs: vec![value("x", DataType::INT32, &[-1, 2])],
        constants: Vec::new(),
        nodes: vec![node("Add", &["x", "x"], "y", &[])],
        output: ("y", DataType::INT32),
        output_dims: None,
    };
    let path = write("panic", &sum.model());
    let settings = settings.replace("runtime = \"ort\"", "runtime = \"auto\"");
    let model = load(&format!("model = {path:?}\n{settings}"), ".").expect("a model");
    assert!(model.manifest().details["runtime"].starts_with("rten"));
    // In a debug build, the embedded runtime panics when a sum overflows.
    let outcomes = model.predict(
        "predict",
        &[json!([1, 2]), json!([i32::MAX, i32::MIN]), json!([3, 4])],
    );
    let expected = [[2, 4], [-2, 0], [6, 8]].map(|sum| Ok(json!({"y": sum})));
    assert_eq!(outcomes, expected);
}
