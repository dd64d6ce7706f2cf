//! Operators that compute statistics, and so can compute them over the batch.

use super::*;

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
    // From opset 18, the axes are an input.
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
    // After the transposition, the batch is dimension 1. Before opset 13, axes 0 and 1 both include it; from opset 13, only
    // axis 1 does.
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
        "position in the batch",
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
    assert_mixed(lstm(false), "treats the items as the steps of one sequence");
    // In later opsets, layout 1 has the batch in dimension 0.
    let settings = vec![("layout", Int(1)), ("hidden_size", Int(5))];
    assert_independent(one(14, &[-1, 3], "LSTM", &["x", "w", "r"], constants(), settings));
}
