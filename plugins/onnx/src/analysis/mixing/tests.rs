use std::cell::RefCell;
use std::fs;
use std::path::Path;

use rten_onnx::onnx::{
    AttributeProto, DataType, Dimension, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto,
    TensorShapeProto, TypeProto, TypeProtoTensor, ValueInfoProto,
};

use super::{Verdict, analyze};

/// What an attribute holds.
enum Setting {
    Int(i64),
    Ints(Vec<i64>),
    Text(&'static str),
    Graph(GraphProto),
}

fn node(kind: &str, inputs: &[&str], outputs: &[&str], settings: Vec<(&str, Setting)>) -> NodeProto {
    let attribute = |(name, setting): (&str, Setting)| {
        let mut attribute = AttributeProto {
            name: Some(name.to_owned()),
            ..AttributeProto::default()
        };
        match setting {
            Setting::Int(value) => attribute.i = Some(value),
            Setting::Ints(values) => attribute.ints = values,
            Setting::Text(text) => attribute.s = Some(text.to_owned()),
            Setting::Graph(graph) => attribute.g = Some(graph),
        }
        attribute
    };
    let (domain, kind) = kind.rsplit_once("::").unwrap_or(("", kind));
    NodeProto {
        domain: Some(domain.to_owned()),
        name: Some("n".to_owned()),
        input: inputs.iter().map(|name| (*name).to_owned()).collect(),
        output: outputs.iter().map(|name| (*name).to_owned()).collect(),
        op_type: Some(kind.to_owned()),
        attribute: settings.into_iter().map(attribute).collect(),
    }
}

/// A value with its shape; dimensions below 0 are open.
fn info(name: &str, dims: &[i64]) -> ValueInfoProto {
    let dim = |size: &i64| Dimension {
        dim_value: Some(*size).filter(|size| *size >= 0),
        dim_param: None,
    };
    ValueInfoProto {
        name: Some(name.to_owned()),
        r#type: Some(TypeProto {
            tensor_type: Some(TypeProtoTensor {
                elem_type: Some(DataType::FLOAT),
                shape: Some(TensorShapeProto {
                    dim: dims.iter().map(dim).collect(),
                }),
            }),
            sequence: None,
        }),
    }
}

fn integers(name: &str, dims: &[i64], values: &[i64]) -> TensorProto {
    TensorProto {
        dims: dims.to_vec(),
        data_type: Some(DataType::INT64),
        int64_data: values.to_vec(),
        name: Some(name.to_owned()),
        ..TensorProto::default()
    }
}

fn weights(name: &str, dims: &[i64]) -> TensorProto {
    let count: i64 = dims.iter().product();
    TensorProto {
        dims: dims.to_vec(),
        data_type: Some(DataType::FLOAT),
        raw_data: Some(RefCell::new(vec![0; 4 * count as usize])),
        name: Some(name.to_owned()),
        ..TensorProto::default()
    }
}

fn graph(
    inputs: Vec<ValueInfoProto>,
    constants: Vec<TensorProto>,
    nodes: Vec<NodeProto>,
    outputs: &[&str],
) -> GraphProto {
    GraphProto {
        node: nodes,
        initializer: constants,
        input: inputs,
        output: outputs.iter().map(|name| info(name, &[])).collect(),
        value_info: Vec::new(),
    }
}

/// What is found of a graph that computes `y` from `x` of the shape `[batch, …dims]`, in an operator set.
fn found(opset: i64, dims: &[i64], constants: Vec<TensorProto>, nodes: Vec<NodeProto>) -> Verdict {
    let dims = [&[-1], dims].concat();
    let import = |domain: &str, version| OperatorSetIdProto {
        domain: Some(domain.to_owned()),
        version: Some(version),
    };
    let model = ModelProto {
        graph: Some(graph(vec![info("x", &dims)], constants, nodes, &["y"])),
        opset_import: vec![
            import("", opset),
            import("ai.onnx.ml", 3),
            import("com.microsoft", 1),
        ],
        ..ModelProto::default()
    };
    analyze(&model).remove(0)
}

#[track_caller]
fn assert_independent(found: Verdict) {
    assert_eq!(found, Verdict::Independent);
}

#[track_caller]
fn assert_mixed(found: Verdict, reason: &str) {
    match found {
        Verdict::Mixed(found) => assert!(found.contains(reason), "{found}"),
        other => panic!("expected a mixture because it {reason}, found {other:?}"),
    }
}

/// One node on an input of the shape `[batch, …dims]`.
#[track_caller]
fn one(
    opset: i64,
    dims: &[i64],
    kind: &str,
    inputs: &[&str],
    constants: Vec<TensorProto>,
    settings: Vec<(&str, Setting)>,
) -> Verdict {
    found(opset, dims, constants, vec![node(kind, inputs, &["y"], settings)])
}

use Setting::{Graph, Int, Ints, Text};

#[test]
fn exported_networks_of_many_kinds_keep_their_items_apart() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kinds");
    let mut checked = 0;
    for entry in fs::read_dir(folder).expect("the folder of networks") {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|extension| extension != "onnx") {
            continue;
        }
        let model = ModelProto::parse_buf(&fs::read(&path).expect("a file")).expect("a network");
        for found in analyze(&model) {
            assert_eq!(found, Verdict::Independent, "{}", path.display());
        }
        checked += 1;
    }
    assert!(checked >= 12, "{checked} networks");
}

#[test]
fn reductions_over_the_batch_mix_items() {
    for (axes, keep, mixed) in [
        (vec![0], 1, true),
        (vec![1], 1, false),
        (vec![-2], 0, true),
        (vec![], 1, true),
    ] {
        let settings = vec![("axes", Ints(axes)), ("keepdims", Int(keep))];
        let result = one(13, &[4], "ReduceMean", &["x"], vec![], settings);
        if mixed {
            assert_mixed(result, "ReduceMean node `n` averages over the batch dimension");
        } else {
            assert_independent(result);
        }
    }
    // From operator set 18 on the axes are an input.
    let axes = |axis| vec![integers("axes", &[1], &[axis])];
    assert_mixed(
        one(18, &[4], "ReduceMax", &["x", "axes"], axes(0), vec![]),
        "maximum",
    );
    assert_independent(one(18, &[4], "ReduceMax", &["x", "axes"], axes(1), vec![]));
    assert_mixed(one(18, &[4], "ReduceMax", &["x"], vec![], vec![]), "maximum");
    let noop = vec![("noop_with_empty_axes", Int(1))];
    assert_independent(one(18, &[4], "ReduceSum", &["x"], vec![], noop));
}

#[test]
fn choices_along_the_batch_mix_items() {
    assert_mixed(one(13, &[4], "ArgMax", &["x"], vec![], vec![]), "chooses over");
    assert_independent(one(13, &[4], "ArgMax", &["x"], vec![], vec![("axis", Int(1))]));
    let k = || vec![integers("k", &[1], &[2])];
    assert_mixed(
        one(13, &[4], "TopK", &["x", "k"], k(), vec![("axis", Int(0))]),
        "chooses over",
    );
    assert_independent(one(13, &[4], "TopK", &["x", "k"], k(), vec![]));
    let axis = |axis| vec![integers("a", &[], &[axis])];
    assert_mixed(one(13, &[4], "CumSum", &["x", "a"], axis(0), vec![]), "sums over");
    assert_independent(one(13, &[4], "CumSum", &["x", "a"], axis(-1), vec![]));
}

#[test]
fn softmax_before_operator_set_13_takes_the_dimensions_from_its_axis_on_together() {
    assert_mixed(
        one(11, &[4], "Softmax", &["x"], vec![], vec![("axis", Int(0))]),
        "normalizes",
    );
    assert_independent(one(11, &[4, 5], "Softmax", &["x"], vec![], vec![]));
    assert_independent(one(13, &[4, 5], "Softmax", &["x"], vec![], vec![]));
    assert_mixed(
        one(13, &[4, 5], "LogSoftmax", &["x"], vec![], vec![("axis", Int(0))]),
        "normalizes",
    );
    // After a transposition the batch is dimension 1, which axis 1 includes before 13, and axis 0 does not from 13 on.
    let swapped = |opset, axis| {
        let nodes = vec![
            node("Transpose", &["x"], &["t"], vec![("perm", Ints(vec![1, 0, 2]))]),
            node("Softmax", &["t"], &["s"], vec![("axis", Int(axis))]),
            node("Transpose", &["s"], &["y"], vec![("perm", Ints(vec![1, 0, 2]))]),
        ];
        found(opset, &[4, 5], vec![], nodes)
    };
    assert_mixed(swapped(11, 0), "normalizes");
    assert_mixed(swapped(11, 1), "normalizes");
    assert_independent(swapped(11, 2));
    assert_independent(swapped(13, 0));
    assert_mixed(swapped(13, 1), "normalizes");
}

#[test]
fn normalizations_over_the_batch_mix_items() {
    assert_mixed(
        one(
            13,
            &[3, 8, 8],
            "MeanVarianceNormalization",
            &["x"],
            vec![],
            vec![],
        ),
        "normalizes over the batch",
    );
    let axes = vec![("axes", Ints(vec![2, 3]))];
    assert_independent(one(
        13,
        &[3, 8, 8],
        "MeanVarianceNormalization",
        &["x"],
        vec![],
        axes,
    ));
    let channels = || ["s", "b", "m", "v"].map(|name| weights(name, &[3])).to_vec();
    let inputs = ["x", "s", "b", "m", "v"];
    let training = vec![("training_mode", Int(1))];
    assert_mixed(
        one(
            15,
            &[3, 8, 8],
            "BatchNormalization",
            &inputs,
            channels(),
            training,
        ),
        "training mode",
    );
    assert_independent(one(
        15,
        &[3, 8, 8],
        "BatchNormalization",
        &inputs,
        channels(),
        vec![],
    ));
    assert_mixed(
        one(
            13,
            &[4],
            "LpNormalization",
            &["x"],
            vec![],
            vec![("axis", Int(0))],
        ),
        "normalizes",
    );
    let scale = || vec![weights("s", &[4])];
    assert_mixed(
        one(
            17,
            &[4],
            "LayerNormalization",
            &["x", "s"],
            scale(),
            vec![("axis", Int(0))],
        ),
        "normalizes",
    );
    assert_independent(one(17, &[4], "LayerNormalization", &["x", "s"], scale(), vec![]));
}

#[test]
fn quantization_with_one_scale_for_the_batch_mixes_items() {
    for (kind, outputs) in [
        ("DynamicQuantizeLinear", &["q", "s", "z"][..]),
        ("com.microsoft::DynamicQuantizeMatMul", &["q"]),
        ("com.microsoft::DynamicQuantizeLSTM", &["q"]),
    ] {
        let nodes = vec![
            node(kind, &["x", "w"], outputs, vec![]),
            node("Cast", &["q"], &["y"], vec![("to", Int(1))]),
        ];
        let found = found(13, &[4], vec![weights("w", &[4, 2])], nodes);
        assert_mixed(found, "takes one scale for the whole batch");
    }
    let scale = |dims: &[i64]| vec![weights("s", dims)];
    assert_independent(one(13, &[4], "QuantizeLinear", &["x", "s"], scale(&[]), vec![]));
    assert_independent(one(13, &[4], "QuantizeLinear", &["x", "s"], scale(&[4]), vec![]));
    assert_mixed(
        one(
            13,
            &[4],
            "QuantizeLinear",
            &["x", "s"],
            scale(&[4]),
            vec![("axis", Int(0))],
        ),
        "place in the batch",
    );
}

#[test]
fn recurrent_networks_have_the_batch_in_dimension_1() {
    let constants = || vec![weights("w", &[1, 20, 3]), weights("r", &[1, 20, 5])];
    let lstm = |before: bool| {
        let mut nodes = vec![];
        if before {
            nodes.push(node(
                "Transpose",
                &["x"],
                &["t"],
                vec![("perm", Ints(vec![1, 0, 2]))],
            ));
        }
        let input = if before { "t" } else { "x" };
        nodes.push(node(
            "LSTM",
            &[input, "w", "r"],
            &["all"],
            vec![("hidden_size", Int(5))],
        ));
        nodes.push(node(
            "Transpose",
            &["all"],
            &["y"],
            vec![("perm", Ints(vec![2, 0, 1, 3]))],
        ));
        found(14, &[-1, 3], constants(), nodes)
    };
    assert_independent(lstm(true));
    assert_mixed(lstm(false), "takes the items for the steps of one sequence");
    // The layout of later operator sets has the batch first.
    let settings = vec![("layout", Int(1)), ("hidden_size", Int(5))];
    assert_independent(one(14, &[-1, 3], "LSTM", &["x", "w", "r"], constants(), settings));
}

#[test]
fn products_with_other_items_mix_them() {
    let gram = vec![
        node("Transpose", &["x"], &["t"], vec![]),
        node("MatMul", &["x", "t"], &["y"], vec![]),
    ];
    assert_mixed(
        found(13, &[4], vec![], gram),
        "combines every item with every other",
    );
    let covariance = vec![
        node("Transpose", &["x"], &["t"], vec![]),
        node("MatMul", &["t", "x"], &["y"], vec![]),
    ];
    assert_mixed(
        found(13, &[4], vec![], covariance),
        "sums over the batch dimension",
    );
    // Each item's own attention is a product within the item.
    let attention = vec![
        node("Transpose", &["x"], &["t"], vec![("perm", Ints(vec![0, 2, 1]))]),
        node("MatMul", &["x", "t"], &["y"], vec![]),
    ];
    assert_independent(found(13, &[-1, 4], vec![], attention));
    assert_independent(one(
        13,
        &[4],
        "MatMul",
        &["x", "w"],
        vec![weights("w", &[4, 2])],
        vec![],
    ));
    assert_independent(one(
        13,
        &[4],
        "MatMul",
        &["x", "w"],
        vec![weights("w", &[4])],
        vec![],
    ));
    let gemm = |settings| {
        one(
            13,
            &[4],
            "Gemm",
            &["x", "w", "b"],
            vec![weights("w", &[2, 4]), weights("b", &[2])],
            settings,
        )
    };
    assert_independent(gemm(vec![("transB", Int(1))]));
    let einsum = |equation| {
        one(
            13,
            &[5, 4],
            "Einsum",
            &["x", "x"],
            vec![],
            vec![("equation", Text(equation))],
        )
    };
    assert_independent(einsum("bij,bkj->bik"));
    assert_mixed(einsum("bij,bij->ij"), "sums over the batch dimension");
    assert_mixed(einsum("bij,cij->bc"), "combines every item with every other");
}

#[test]
fn stretching_a_vector_of_items_over_a_matrix_of_items_mixes_them() {
    let nodes = vec![
        node("ReduceSum", &["x", "one"], &["sum"], vec![("keepdims", Int(0))]),
        node("Sub", &["x", "sum"], &["y"], vec![]),
    ];
    let found = found(13, &[1], vec![integers("one", &[1], &[1])], nodes);
    assert_mixed(found, "combines every item with every other");
    assert_mixed(
        one(13, &[4], "Add", &["x", "c"], vec![weights("c", &[2, 4])], vec![]),
        "values for its place in the batch",
    );
    assert_independent(one(
        13,
        &[4],
        "Add",
        &["x", "c"],
        vec![weights("c", &[1, 4])],
        vec![],
    ));
}

#[test]
fn shapes_that_move_elements_between_items_mix_them() {
    let reshape = |dims: &[i64], shape: &[i64]| {
        let nodes = vec![
            node("Reshape", &["x", "to"], &["r"], vec![]),
            node("Softmax", &["r"], &["s"], vec![("axis", Int(-1))]),
            node("Reshape", &["s", "back"], &["y"], vec![]),
        ];
        let back = [&[-1], dims].concat();
        let constants = vec![
            integers("to", &[shape.len() as i64], shape),
            integers("back", &[back.len() as i64], &back),
        ];
        found(13, dims, constants, nodes)
    };
    assert_independent(reshape(&[4, 6], &[-1, 6]));
    assert_independent(reshape(&[4, 6], &[0, 2, 12]));
    assert_independent(reshape(&[4, 6], &[-1, 2, 12]));
    assert_mixed(reshape(&[3], &[-1, 2]), "not those of one item");
    assert_mixed(reshape(&[4, 6], &[4, -1, 6]), "from one item to another");
    let flat = one(13, &[4], "Flatten", &["x"], vec![], vec![("axis", Int(0))]);
    assert!(matches!(flat, Verdict::NotBatchFirst(_)), "{flat:?}");
}

#[test]
fn selections_of_items_by_their_place_mix_them() {
    let first = vec![
        integers("s", &[1], &[0]),
        integers("e", &[1], &[1]),
        integers("a", &[1], &[0]),
    ];
    assert_mixed(
        one(13, &[4], "Slice", &["x", "s", "e", "a"], first, vec![]),
        "by their place",
    );
    let all = vec![
        integers("s", &[1], &[0]),
        integers("e", &[1], &[i64::MAX]),
        integers("a", &[1], &[0]),
    ];
    assert_independent(one(13, &[4], "Slice", &["x", "s", "e", "a"], all, vec![]));
    let reversed = vec![
        integers("s", &[1], &[-1]),
        integers("e", &[1], &[i64::MIN]),
        integers("a", &[1], &[0]),
        integers("t", &[1], &[-1]),
    ];
    assert_mixed(
        one(13, &[4], "Slice", &["x", "s", "e", "a", "t"], reversed, vec![]),
        "by their place",
    );
    let index = || vec![integers("i", &[1], &[0])];
    assert_mixed(
        one(13, &[4], "Gather", &["x", "i"], index(), vec![]),
        "by their place",
    );
    assert_independent(one(
        13,
        &[4],
        "Gather",
        &["x", "i"],
        index(),
        vec![("axis", Int(1))],
    ));
    assert_mixed(one(13, &[4], "Split", &["x"], vec![], vec![]), "splits the batch");
    let pads = |pads: &[i64]| vec![integers("p", &[4], pads)];
    assert_mixed(
        one(13, &[4], "Pad", &["x", "p"], pads(&[1, 0, 0, 0]), vec![]),
        "adds items",
    );
    assert_independent(one(13, &[4], "Pad", &["x", "p"], pads(&[0, 1, 0, 1]), vec![]));
    let lengths = vec![integers("l", &[2], &[1, 2])];
    assert_mixed(
        one(13, &[4], "ReverseSequence", &["x", "l"], lengths, vec![]),
        "reverses the order",
    );
}

#[test]
fn lists_of_what_is_found_in_all_items_mix_them() {
    assert_mixed(
        one(13, &[4], "NonZero", &["x"], vec![], vec![]),
        "all items together",
    );
    assert_mixed(
        one(13, &[4], "Unique", &["x"], vec![], vec![]),
        "all items together",
    );
    let condition = || vec![integers("c", &[2], &[1, 0])];
    assert_mixed(
        one(13, &[4], "Compress", &["x", "c"], condition(), vec![]),
        "all items together",
    );
    assert_mixed(
        one(
            13,
            &[4],
            "Compress",
            &["x", "c"],
            condition(),
            vec![("axis", Int(0))],
        ),
        "all items together",
    );
    assert_independent(one(
        13,
        &[4],
        "Compress",
        &["x", "c"],
        condition(),
        vec![("axis", Int(1))],
    ));
    let nodes = vec![
        node(
            "Transpose",
            &["x"],
            &["scores"],
            vec![("perm", Ints(vec![0, 2, 1]))],
        ),
        node("NonMaxSuppression", &["x", "scores"], &["y"], vec![]),
    ];
    assert_mixed(found(13, &[10, 4], vec![], nodes), "all items together");
}

#[test]
fn the_number_of_items_may_shape_tensors_but_not_enter_the_computation() {
    let count = || {
        vec![
            node("Shape", &["x"], &["shape"], vec![]),
            node("Gather", &["shape", "zero"], &["count"], vec![]),
        ]
    };
    let constants = || {
        vec![
            integers("zero", &[], &[0]),
            integers("zeros", &[1], &[0]),
            integers("four", &[1], &[4]),
            weights("token", &[1, 4]),
        ]
    };
    let mut nodes = count();
    nodes.push(node("Cast", &["count"], &["number"], vec![("to", Int(1))]));
    nodes.push(node("Div", &["x", "number"], &["y"], vec![]));
    assert_mixed(
        found(13, &[4], constants(), nodes),
        "computes with the number of items",
    );
    // A token that is repeated for each item, as vision transformers have it.
    let mut nodes = count();
    nodes.push(node("Unsqueeze", &["count", "zeros"], &["counts"], vec![]));
    nodes.push(node(
        "Concat",
        &["counts", "four"],
        &["wanted"],
        vec![("axis", Int(0))],
    ));
    nodes.push(node("Expand", &["token", "wanted"], &["tokens"], vec![]));
    nodes.push(node("Concat", &["tokens", "x"], &["y"], vec![("axis", Int(1))]));
    assert_independent(found(13, &[4], constants(), nodes));
}

#[test]
fn a_row_of_each_item_that_is_found_by_its_place_is_its_own() {
    // `x[arange(batch), argmax(x)]`, as text encoders take the state of the last token.
    let nodes = vec![
        node("Shape", &["x"], &["shape"], vec![]),
        node("Gather", &["shape", "zero"], &["count"], vec![]),
        node("Range", &["zero", "count", "one"], &["places"], vec![]),
        node(
            "ReduceMax",
            &["x"],
            &["ids"],
            vec![("axes", Ints(vec![2])), ("keepdims", Int(0))],
        ),
        node(
            "ArgMax",
            &["ids"],
            &["best"],
            vec![("axis", Int(1)), ("keepdims", Int(0))],
        ),
        node("Unsqueeze", &["places", "minus"], &["place"], vec![]),
        node("Unsqueeze", &["best", "minus"], &["index"], vec![]),
        node("Concat", &["place", "index"], &["both"], vec![("axis", Int(-1))]),
        node("GatherND", &["x", "both"], &["y"], vec![]),
    ];
    let constants = vec![
        integers("zero", &[], &[0]),
        integers("one", &[], &[1]),
        integers("minus", &[1], &[-1]),
    ];
    assert_independent(found(13, &[-1, 4], constants, nodes));
}

#[test]
fn one_decision_for_all_items_mixes_them() {
    let branch = |kind: &str| graph(vec![], vec![], vec![node(kind, &["x"], &["b"], vec![])], &["b"]);
    let branches = |condition: Vec<NodeProto>| {
        let mut nodes = condition;
        let settings = vec![
            ("then_branch", Graph(branch("Abs"))),
            ("else_branch", Graph(branch("Neg"))),
        ];
        nodes.push(node("If", &["flag"], &["y"], settings));
        found(
            13,
            &[1],
            vec![integers("zero", &[1], &[0]), integers("yes", &[], &[1])],
            nodes,
        )
    };
    let of_items = vec![
        node("ReduceMax", &["x"], &["most"], vec![("keepdims", Int(0))]),
        node("Cast", &["most"], &["flag"], vec![]),
    ];
    assert_mixed(branches(of_items), "over the batch dimension");
    assert_independent(branches(vec![node("Identity", &["yes"], &["flag"], vec![])]));
}

#[test]
fn a_loop_that_stops_for_all_items_at_once_mixes_them() {
    let body = |stop: Vec<NodeProto>| {
        let mut nodes = vec![node("Add", &["state", "x"], &["next"], vec![])];
        nodes.extend(stop);
        graph(
            vec![info("round", &[]), info("before", &[]), info("state", &[])],
            vec![],
            nodes,
            &["go", "next"],
        )
    };
    let repeat = |stop| {
        let settings = vec![("body", Graph(body(stop)))];
        let nodes = vec![node("Loop", &["rounds", "yes", "x"], &["y"], settings)];
        found(
            13,
            &[4],
            vec![integers("rounds", &[], &[3]), integers("yes", &[], &[1])],
            nodes,
        )
    };
    assert_independent(repeat(vec![node("Identity", &["before"], &["go"], vec![])]));
    let all = vec![
        node("ReduceMax", &["next"], &["most"], vec![("keepdims", Int(0))]),
        node("Cast", &["most"], &["go"], vec![("to", Int(9))]),
    ];
    assert_mixed(repeat(all), "over the batch dimension");
}

#[test]
fn random_numbers_depend_on_the_place_in_the_batch() {
    assert_mixed(
        one(13, &[4], "RandomNormalLike", &["x"], vec![], vec![]),
        "random numbers",
    );
    assert_independent(one(13, &[4], "Dropout", &["x"], vec![], vec![]));
    let training = || vec![integers("r", &[], &[0]), integers("t", &[], &[1])];
    assert_mixed(
        one(13, &[4], "Dropout", &["x", "r", "t"], training(), vec![]),
        "random numbers",
    );
}

#[test]
fn an_output_without_the_batch_in_front_cannot_be_divided_into_items() {
    for nodes in [
        vec![node("Transpose", &["x"], &["y"], vec![])],
        vec![node("Identity", &["c"], &["y"], vec![])],
        vec![node("Shape", &["x"], &["y"], vec![])],
        vec![node("Concat", &["x", "x"], &["y"], vec![("axis", Int(0))])],
    ] {
        let found = found(13, &[4], vec![weights("c", &[1, 4])], nodes);
        assert!(matches!(found, Verdict::NotBatchFirst(_)), "{found:?}");
    }
}

#[test]
fn an_operator_that_is_not_known_leaves_the_answer_open() {
    for kind in ["Fancy", "com.example::Add", "com.microsoft::Fancy"] {
        let found = one(13, &[4], kind, &["x"], vec![], vec![]);
        assert!(matches!(found, Verdict::Unknown(_)), "{found:?}");
    }
    // What it computes from the weights alone is the same for all items.
    let nodes = vec![
        node("com.example::Fancy", &["w"], &["table"], vec![]),
        node("Shape", &["table"], &["unused"], vec![]),
        node("Abs", &["x"], &["y"], vec![]),
    ];
    assert_independent(found(13, &[4], vec![weights("w", &[4])], nodes));
}

#[test]
fn classical_models_take_a_row_for_each_item() {
    assert_independent(one(13, &[4], "ai.onnx.ml::Scaler", &["x"], vec![], vec![]));
    assert_independent(one(
        13,
        &[4],
        "ai.onnx.ml::TreeEnsembleRegressor",
        &["x"],
        vec![],
        vec![],
    ));
    // A single dimension is taken for the features of one item.
    assert_mixed(
        one(
            13,
            &[],
            "ai.onnx.ml::TreeEnsembleRegressor",
            &["x"],
            vec![],
            vec![],
        ),
        "features",
    );
}
