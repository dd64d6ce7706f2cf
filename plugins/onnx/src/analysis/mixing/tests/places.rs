//! Operators that move or select elements, and so can move them from one item to another.

use super::*;

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
    // Self-attention within each item is a product of elements of the same item.
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
        "values for its position in the batch",
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
fn selections_of_items_by_their_position_mix_them() {
    let first = vec![
        integers("s", &[1], &[0]),
        integers("e", &[1], &[1]),
        integers("a", &[1], &[0]),
    ];
    assert_mixed(
        one(13, &[4], "Slice", &["x", "s", "e", "a"], first, vec![]),
        "by their position",
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
        "by their position",
    );
    let index = || vec![integers("i", &[1], &[0])];
    assert_mixed(
        one(13, &[4], "Gather", &["x", "i"], index(), vec![]),
        "by their position",
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
    assert_mixed(one(13, &[4], "NonZero", &["x"], vec![], vec![]), "all items");
    assert_mixed(one(13, &[4], "Unique", &["x"], vec![], vec![]), "all items");
    let condition = || vec![integers("c", &[2], &[1, 0])];
    assert_mixed(
        one(13, &[4], "Compress", &["x", "c"], condition(), vec![]),
        "all items",
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
        "all items",
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
    assert_mixed(found(13, &[10, 4], vec![], nodes), "all items");
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
    // A token that is repeated for each item, such as the class token of vision transformers.
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
fn a_row_of_each_item_that_is_found_by_its_position_is_its_own() {
    // `x[arange(batch), argmax(x)]`, with which text encoders select the state of the last token.
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
