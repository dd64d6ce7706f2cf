//! Whole graphs, and the subgraphs of conditionals and loops.

use super::*;

#[test]
fn exported_networks_of_many_kinds_keep_their_items_apart() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kinds");
    let mut checked = 0;
    for entry in fs::read_dir(directory).expect("the directory of networks") {
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
    // The result of an unknown operator on weights alone is the same for all items.
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
    // These operators interpret a one-dimensional tensor as the features of a single item.
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
