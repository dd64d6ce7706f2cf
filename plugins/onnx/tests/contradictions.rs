//! Inconsistent graphs are errors of the model and never terminate the process.

#[allow(dead_code, reason = "every test file uses a part of it")]
mod common;

use std::fs;
use std::path::Path;

use common::graph::{Graph, floats, integers, value};
use common::{load, onnx_runtime};
use rten_onnx::onnx::{AttributeProto, AttributeType, DataType, NodeProto, TensorProto};

/// Parses a node such as `"Kind a,b -> c, d"`, with integer attributes. Empty names are dropped.
fn node(text: &str, attributes: &[(&str, &[i64])]) -> NodeProto {
    let (call, outputs) = text.split_once("->").expect("an arrow");
    let (kind, inputs) = call.trim().split_once(' ').unwrap_or((call.trim(), ""));
    let names = |list: &str| -> Vec<String> {
        let names = list.split(',').map(|name| name.trim().to_owned());
        names.filter(|name| !name.is_empty()).collect()
    };
    let attribute = |(name, values): &(&str, &[i64])| AttributeProto {
        name: Some((*name).to_owned()),
        i: values
            .first()
            .copied()
            .filter(|_| values.len() == 1 && *name != "pads" && *name != "perm"),
        ints: values.to_vec(),
        r#type: Some(if values.len() == 1 {
            AttributeType::INT
        } else {
            AttributeType::INTS
        }),
        ..AttributeProto::default()
    };
    NodeProto {
        op_type: Some(kind.to_owned()).filter(|kind| !kind.is_empty()),
        input: names(inputs),
        output: names(outputs),
        attribute: attributes.iter().map(attribute).collect(),
        ..NodeProto::default()
    }
}

/// A one-dimensional tensor of integers.
fn vector(name: &str, values: &[i64]) -> TensorProto {
    integers(name, &[values.len() as i64], values)
}

/// A model that computes `y` from an `x` of shape `[batch, …dims]`.
fn model(dims: &[i64], constants: Vec<TensorProto>, nodes: Vec<NodeProto>) -> Vec<u8> {
    let shape: Vec<_> = [-1].iter().chain(dims).copied().collect();
    let graph = Graph {
        opset: 17,
        inputs: vec![value("x", DataType::FLOAT, &shape)],
        constants,
        nodes,
        output: ("y", DataType::FLOAT),
        output_dims: Some(shape),
    };
    graph.model().write_buf().expect("a model")
}

#[test]
fn graphs_that_contradict_themselves_never_end_the_process() {
    let relu = |from: &str, to: &str| node(&format!("Relu {from} -> {to}"), &[]);
    let plane = &[2, 4, 4][..];
    let filter = || floats("w", &[2, 2, 3, 3], &[0.5; 36]);
    let graphs: Vec<(&str, Vec<u8>)> = vec![
        (
            "a cycle",
            model(
                &[2],
                vec![],
                vec![node("Add x, b -> a", &[]), relu("a", "b"), relu("b", "y")],
            ),
        ),
        (
            "a missing value",
            model(&[2], vec![], vec![node("Add x, nowhere -> y", &[])]),
        ),
        (
            "a name twice",
            model(&[2], vec![], vec![relu("x", "y"), node("Neg x -> y", &[])]),
        ),
        (
            "the name of the input again",
            model(&[2], vec![], vec![relu("x", "x"), relu("x", "y")]),
        ),
        (
            "nothing for the output",
            model(&[2], vec![], vec![relu("x", "z")]),
        ),
        ("no operator", model(&[2], vec![], vec![node(" x -> y", &[])])),
        (
            "no outputs of a node",
            model(&[2], vec![], vec![node("Relu x ->", &[]), relu("x", "y")]),
        ),
        (
            "no inputs of a node",
            model(&[2], vec![], vec![node("Add -> y", &[])]),
        ),
        (
            "a negative dimension",
            model(
                &[2],
                vec![floats("w", &[-2], &[1.0; 2])],
                vec![node("Add x, w -> y", &[])],
            ),
        ),
        (
            "weights without data",
            model(
                &[2],
                vec![floats("w", &[1 << 40], &[])],
                vec![node("Add x, w -> y", &[])],
            ),
        ),
        (
            "dimensions that overflow",
            model(
                &[2],
                vec![floats("w", &[1 << 33, 1 << 33], &[])],
                vec![node("Add x, w -> y", &[])],
            ),
        ),
        ("a huge input", model(&[1 << 40], vec![], vec![relu("x", "y")])),
        (
            "dimensions of the input that overflow",
            model(&[1 << 40, 1 << 40], vec![], vec![relu("x", "y")]),
        ),
        (
            "a wrong permutation",
            model(
                plane,
                vec![],
                vec![node("Transpose x -> y", &[("perm", &[5, 5, 0, 1])])],
            ),
        ),
        (
            "a stride of 0",
            model(
                plane,
                vec![filter()],
                vec![node("Conv x, w -> y", &[("strides", &[0, 0])])],
            ),
        ),
        (
            "a negative stride",
            model(
                plane,
                vec![filter()],
                vec![node("Conv x, w -> y", &[("strides", &[-1, -1])])],
            ),
        ),
        (
            "huge pads",
            model(
                plane,
                vec![filter()],
                vec![node("Conv x, w -> y", &[("pads", &[1 << 30; 4])])],
            ),
        ),
        (
            "negative pads",
            model(
                plane,
                vec![filter()],
                vec![node("Conv x, w -> y", &[("pads", &[-9; 4])])],
            ),
        ),
        (
            "huge strides",
            model(
                plane,
                vec![filter()],
                vec![node(
                    "ConvTranspose x, w -> y",
                    &[("strides", &[1 << 30, 1 << 30])],
                )],
            ),
        ),
        (
            "a group of 0",
            model(
                plane,
                vec![filter()],
                vec![node("Conv x, w -> y", &[("group", &[0])])],
            ),
        ),
        (
            "a kernel of 0",
            model(
                plane,
                vec![],
                vec![node("MaxPool x -> y", &[("kernel_shape", &[0, 0])])],
            ),
        ),
        (
            "a pool with a stride of 0",
            model(
                plane,
                vec![],
                vec![node(
                    "AveragePool x -> y",
                    &[("kernel_shape", &[2, 2]), ("strides", &[0, 0])],
                )],
            ),
        ),
        (
            "a kernel of one dimension",
            model(
                plane,
                vec![],
                vec![node("MaxPool x -> y", &[("kernel_shape", &[2, 2, 2])])],
            ),
        ),
        (
            "an axis of 99",
            model(plane, vec![], vec![node("Concat x, x -> y", &[("axis", &[99])])]),
        ),
        (
            "a softmax along 99",
            model(plane, vec![], vec![node("Softmax x -> y", &[("axis", &[99])])]),
        ),
        (
            "a step of 0",
            model(
                &[4],
                vec![
                    vector("a", &[0]),
                    vector("b", &[4]),
                    vector("c", &[1]),
                    vector("d", &[0]),
                ],
                vec![node("Slice x, a, b, c, d -> y", &[])],
            ),
        ),
        (
            "an index beyond",
            model(
                &[4],
                vec![vector("i", &[9])],
                vec![node("Gather x, i -> y", &[("axis", &[1])])],
            ),
        ),
        (
            "a negative shape",
            model(
                &[4],
                vec![vector("s", &[-5, 4])],
                vec![node("Reshape x, s -> y", &[])],
            ),
        ),
        (
            "two unknown sizes",
            model(
                &[4],
                vec![vector("s", &[-1, -1])],
                vec![node("Reshape x, s -> y", &[])],
            ),
        ),
        (
            "a huge shape",
            model(
                &[4],
                vec![vector("s", &[1 << 40, 1 << 40])],
                vec![node("Expand x, s -> y", &[])],
            ),
        ),
        (
            "negative repeats",
            model(
                &[4],
                vec![vector("s", &[-1, -1])],
                vec![node("Tile x, s -> y", &[])],
            ),
        ),
        (
            "huge repeats",
            model(
                &[4],
                vec![vector("s", &[1, 1 << 50])],
                vec![node("Tile x, s -> y", &[])],
            ),
        ),
        (
            "huge margins",
            model(
                &[4],
                vec![vector("s", &[0, 1 << 50, 0, 0])],
                vec![node("Pad x, s -> y", &[])],
            ),
        ),
        (
            "negative margins",
            model(
                &[4],
                vec![vector("s", &[0, -50, 0, 0])],
                vec![node("Pad x, s -> y", &[])],
            ),
        ),
        (
            "a scale of 0",
            model(
                plane,
                vec![floats("s", &[4], &[1.0, 1.0, 0.0, 0.0])],
                vec![resize()],
            ),
        ),
        (
            "a huge scale",
            model(
                plane,
                vec![floats("s", &[4], &[1.0, 1.0, 1e9, 1e9])],
                vec![resize()],
            ),
        ),
        (
            "a scale that is not a number",
            model(
                plane,
                vec![floats("s", &[4], &[1.0, 1.0, f32::NAN, f32::INFINITY])],
                vec![resize()],
            ),
        ),
        (
            "a negative number of best",
            model(
                &[4],
                vec![vector("k", &[-1])],
                vec![node("TopK x, k -> y, i", &[])],
            ),
        ),
        (
            "a huge number of best",
            model(
                &[4],
                vec![vector("k", &[1 << 40])],
                vec![node("TopK x, k -> y, i", &[])],
            ),
        ),
        (
            "a sum along 9",
            model(&[4], vec![vector("a", &[9])], vec![node("CumSum x, a -> y", &[])]),
        ),
        (
            "a block of 0",
            model(
                plane,
                vec![],
                vec![node("DepthToSpace x -> y", &[("blocksize", &[0])])],
            ),
        ),
        (
            "an axis beyond",
            model(
                &[4],
                vec![vector("a", &[99])],
                vec![node("Unsqueeze x, a -> y", &[])],
            ),
        ),
        (
            "a split into nothing",
            model(
                &[4],
                vec![vector("s", &[])],
                vec![node("Split x, s -> y", &[("axis", &[1])])],
            ),
        ),
        (
            "a negative split",
            model(
                &[4],
                vec![vector("s", &[-1, 5])],
                vec![node("Split x, s -> y, z", &[("axis", &[1])])],
            ),
        ),
        (
            "a scalar that is multiplied",
            model(
                &[],
                vec![floats("w", &[], &[1.0])],
                vec![node("MatMul x, w -> y", &[])],
            ),
        ),
        (
            "an LSTM of another size",
            model(
                &[4, 3],
                vec![
                    floats("w", &[1, 8, 2], &[0.0; 16]),
                    floats("r", &[1, 8, 2], &[0.0; 16]),
                ],
                vec![node("LSTM x, w, r -> y", &[("hidden_size", &[0])])],
            ),
        ),
    ];
    let runtimes: Vec<_> = ["runtime = \"rten\"".to_owned()]
        .into_iter()
        .chain(onnx_runtime())
        .collect();
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let file = "damaged-graph.onnx";
    let mut rejected = 0;
    for (what, bytes) in &graphs {
        fs::write(directory.join(file), bytes).expect("a file");
        for runtime in &runtimes {
            eprintln!("{what}, {runtime}");
            if let Err(failure) = load(&format!("model = \"{file}\"\n{runtime}"), directory) {
                let failure = failure.to_string();
                eprintln!("    {failure}");
                // The SDK also catches panics, but its error does not name the file.
                assert!(failure.contains("damaged-graph.onnx"), "{what}: {failure}");
                rejected += 1;
            }
        }
    }
    // ONNX Runtime, which may not be installed, rejects more graphs than the embedded runtime.
    assert!(rejected > graphs.len() / 4, "{rejected}");
}

fn resize() -> NodeProto {
    let mut node = node("Resize x -> y", &[]);
    node.input.extend([String::new(), "s".to_owned()]);
    node
}
