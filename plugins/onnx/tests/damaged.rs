//! Damaged and malicious files are errors of the model, never the end of the process.

#[allow(dead_code, reason = "every test file uses a part of it")]
mod common;

use std::fs;
use std::path::Path;

use common::{load, onnx_runtime};
use plugin_sdk::testing::Failure;
use rten_onnx::onnx::{
    AttributeProto, AttributeType, DataType, Dimension, GraphProto, ModelProto, NodeProto,
    OperatorSetIdProto, TensorProto, TensorShapeProto, TypeProto, TypeProtoTensor, ValueInfoProto,
};

const NETWORKS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/kinds");

/// Loads a file of these bytes; the tests of a binary may run in several processes at once.
fn loaded(name: &str, bytes: &[u8]) -> Result<(), Failure> {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let file = format!("damaged-{name}-{}.onnx", std::process::id());
    fs::write(directory.join(&file), bytes).expect("a file");
    let settings = format!("model = \"{file}\"\nruntime = \"rten\"");
    let loaded = load(&settings, directory).map(drop);
    fs::remove_file(directory.join(&file)).expect("the file");
    loaded
}

fn networks() -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(NETWORKS).expect("the networks");
    let mut networks: Vec<_> = entries
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "onnx"))
        .map(|path| {
            let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
            (name, fs::read(path).expect("a network"))
        })
        .collect();
    networks.sort();
    networks
}

/// A fixed sequence of numbers that look random.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }
}

#[test]
fn a_truncated_file_is_an_error_of_the_model() {
    let mut numbers = Numbers(1);
    for (name, bytes) in networks() {
        for _ in 0..12 {
            let length = numbers.below(bytes.len() - 64);
            let failure = loaded(&name, &bytes[..length]).expect_err("half a file");
            assert!(
                failure.to_string().contains("is not an ONNX file"),
                "{name}: {failure}"
            );
        }
    }
}

#[test]
fn changed_bytes_never_end_the_process() {
    let rounds = std::env::var("INFERENCE_TEST_DAMAGE").ok();
    let rounds = rounds.map_or(25, |rounds| rounds.parse().expect("a number"));
    let mut numbers = Numbers(2);
    let (mut accepted, mut rejected) = (0, 0);
    for (name, bytes) in networks() {
        for _ in 0..rounds {
            let mut bytes = bytes.clone();
            // The start and the end of a file hold more of its structure than the weights between.
            for _ in 0..=numbers.below(3) {
                let index = match numbers.below(3) {
                    0 => numbers.below(bytes.len().min(2000)),
                    1 => bytes.len() - 1 - numbers.below(bytes.len().min(2000)),
                    _ => numbers.below(bytes.len()),
                };
                bytes[index] = match numbers.below(3) {
                    0 => 0xff,
                    1 => bytes[index] ^ (1 << numbers.below(8)),
                    _ => numbers.below(256) as u8,
                };
            }
            match loaded(&name, &bytes) {
                Ok(()) => accepted += 1,
                Err(_) => rejected += 1,
            }
        }
    }
    // Most bytes are weights, which may have any value.
    assert!(
        accepted > 0 && rejected > 0,
        "{accepted} accepted, {rejected} rejected"
    );
}

/// `"Kind a,b -> c, d"` with integer attributes; a value that is missing is an empty name.
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

fn floats(name: &str, dims: &[i64], values: &[f32]) -> TensorProto {
    TensorProto {
        dims: dims.to_vec(),
        data_type: Some(DataType::FLOAT),
        float_data: values.to_vec(),
        name: Some(name.to_owned()),
        ..TensorProto::default()
    }
}

fn integers(name: &str, values: &[i64]) -> TensorProto {
    TensorProto {
        dims: vec![values.len() as i64],
        data_type: Some(DataType::INT64),
        int64_data: values.to_vec(),
        name: Some(name.to_owned()),
        ..TensorProto::default()
    }
}

/// A graph from `x` of the shape `[batch, …dims]` to `y`.
fn model(dims: &[i64], constants: Vec<TensorProto>, nodes: Vec<NodeProto>) -> Vec<u8> {
    let value = |name: &str, dims: &[i64]| ValueInfoProto {
        name: Some(name.to_owned()),
        r#type: Some(TypeProto {
            tensor_type: Some(TypeProtoTensor {
                elem_type: Some(DataType::FLOAT),
                shape: Some(TensorShapeProto {
                    dim: [None]
                        .into_iter()
                        .chain(dims.iter().copied().map(Some))
                        .map(|size| Dimension {
                            dim_value: size,
                            dim_param: size.is_none().then(|| "batch".to_owned()),
                        })
                        .collect(),
                }),
            }),
            sequence: None,
        }),
    };
    let model = ModelProto {
        ir_version: Some(8),
        graph: Some(GraphProto {
            node: nodes,
            initializer: constants,
            input: vec![value("x", dims)],
            output: vec![value("y", dims)],
            value_info: Vec::new(),
        }),
        opset_import: vec![OperatorSetIdProto {
            domain: Some(String::new()),
            version: Some(17),
        }],
        ..ModelProto::default()
    };
    model.write_buf().expect("a model")
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
                    integers("a", &[0]),
                    integers("b", &[4]),
                    integers("c", &[1]),
                    integers("d", &[0]),
                ],
                vec![node("Slice x, a, b, c, d -> y", &[])],
            ),
        ),
        (
            "an index beyond",
            model(
                &[4],
                vec![integers("i", &[9])],
                vec![node("Gather x, i -> y", &[("axis", &[1])])],
            ),
        ),
        (
            "a negative shape",
            model(
                &[4],
                vec![integers("s", &[-5, 4])],
                vec![node("Reshape x, s -> y", &[])],
            ),
        ),
        (
            "two unknown sizes",
            model(
                &[4],
                vec![integers("s", &[-1, -1])],
                vec![node("Reshape x, s -> y", &[])],
            ),
        ),
        (
            "a huge shape",
            model(
                &[4],
                vec![integers("s", &[1 << 40, 1 << 40])],
                vec![node("Expand x, s -> y", &[])],
            ),
        ),
        (
            "negative repeats",
            model(
                &[4],
                vec![integers("s", &[-1, -1])],
                vec![node("Tile x, s -> y", &[])],
            ),
        ),
        (
            "huge repeats",
            model(
                &[4],
                vec![integers("s", &[1, 1 << 50])],
                vec![node("Tile x, s -> y", &[])],
            ),
        ),
        (
            "huge margins",
            model(
                &[4],
                vec![integers("s", &[0, 1 << 50, 0, 0])],
                vec![node("Pad x, s -> y", &[])],
            ),
        ),
        (
            "negative margins",
            model(
                &[4],
                vec![integers("s", &[0, -50, 0, 0])],
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
                vec![integers("k", &[-1])],
                vec![node("TopK x, k -> y, i", &[])],
            ),
        ),
        (
            "a huge number of best",
            model(
                &[4],
                vec![integers("k", &[1 << 40])],
                vec![node("TopK x, k -> y, i", &[])],
            ),
        ),
        (
            "a sum along 9",
            model(
                &[4],
                vec![integers("a", &[9])],
                vec![node("CumSum x, a -> y", &[])],
            ),
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
                vec![integers("a", &[99])],
                vec![node("Unsqueeze x, a -> y", &[])],
            ),
        ),
        (
            "a split into nothing",
            model(
                &[4],
                vec![integers("s", &[])],
                vec![node("Split x, s -> y", &[("axis", &[1])])],
            ),
        ),
        (
            "a negative split",
            model(
                &[4],
                vec![integers("s", &[-1, 5])],
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
                // The SDK contains a panic too, but without a reason that names the model.
                assert!(failure.contains("damaged-graph.onnx"), "{what}: {failure}");
                rejected += 1;
            }
        }
    }
    // ONNX Runtime, which may not be installed, rejects more of them than the embedded runtime.
    assert!(rejected > graphs.len() / 4, "{rejected}");
}

fn resize() -> NodeProto {
    let mut node = node("Resize x -> y", &[]);
    node.input.extend([String::new(), "s".to_owned()]);
    node
}
