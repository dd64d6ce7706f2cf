use rten_onnx::onnx::{NodeProto, TensorProto};

use super::*;
use crate::analysis::mixing::tests::{integers, typed};

fn node(kind: &str, inputs: &[&str], output: &str) -> NodeProto {
    NodeProto {
        name: Some(format!("the {kind}")),
        input: inputs.iter().map(|name| (*name).to_owned()).collect(),
        output: vec![output.to_owned()],
        op_type: Some(kind.to_owned()),
        ..NodeProto::default()
    }
}

fn outline(inputs: &[(&str, usize)], constants: Vec<TensorProto>, nodes: Vec<NodeProto>) -> Outline {
    let input = |(name, rank): &(&str, usize)| typed(name, DataType::INT64, &vec![-1; *rank]);
    Outline::new(ModelProto {
        graph: Some(GraphProto {
            node: nodes,
            initializer: constants,
            input: inputs.iter().map(input).collect(),
            ..GraphProto::default()
        }),
        opset_import: vec![OperatorSetIdProto {
            domain: None,
            version: Some(17),
        }],
        ..ModelProto::default()
    })
}

fn known<'a>(name: &'a str, shape: &'a [usize], elements: Option<&[f64]>) -> Known<'a> {
    Known {
        name,
        shape,
        elements: elements.map(<[f64]>::to_vec),
    }
}

#[test]
fn the_largest_tensor_follows_from_the_dimensions_of_the_inputs() {
    let outline = outline(
        &[("x", 2)],
        vec![],
        vec![
            node("Transpose", &["x"], "t"),
            node("MatMul", &["t", "x"], "product"),
            node("Abs", &["x"], "y"),
        ],
    );
    let sizes = outline.of_run(&[known("x", &[3, 1_000_000], None)]);
    assert_eq!(
        sizes.largest,
        Some((1_000_000_000_000, "MatMul node `the MatMul`".to_owned()))
    );
    assert_eq!(sizes.unbounded, None);
    // The sizes of a huge run are not used for smaller runs.
    let small = outline.of_run(&[known("x", &[3, 10], None)]);
    assert_eq!(small.largest.as_ref().expect("a size").0, 100);
    // An even smaller run gets the cached sizes as an upper bound.
    assert_eq!(outline.of_run(&[known("x", &[3, 9], None)]), small);
    let larger = outline.of_run(&[known("x", &[3, 2_000_000], None)]);
    assert_eq!(larger.largest.expect("a size").0, 4_000_000_000_000);
}

#[test]
fn tensors_count_together_from_the_node_that_computes_them_to_the_last_one_that_reads_them() {
    let peak = |nodes: Vec<NodeProto>| {
        let outline = outline(&[("x", 1)], vec![], nodes);
        outline.of_run(&[known("x", &[1000], None)]).peak
    };
    let chain = vec![
        node("Neg", &["x"], "a"),
        node("Abs", &["a"], "b"),
        node("Exp", &["b"], "c"),
        node("Sin", &["c"], "y"),
    ];
    assert_eq!(peak(chain), 2000);
    let fan = vec![
        node("Neg", &["x"], "a"),
        node("Abs", &["x"], "b"),
        node("Exp", &["x"], "c"),
        node("Sum", &["a", "b", "c"], "y"),
        node("Sin", &["y"], "z"),
    ];
    assert_eq!(peak(fan), 4000);
    // No node reads `a`.
    let unread = vec![node("Neg", &["x"], "a"), node("Abs", &["x"], "y")];
    assert_eq!(peak(unread), 1000);
}

#[test]
fn numbers_of_a_client_are_followed() {
    let range = || {
        let constants = vec![integers("zero", &[], &[0]), integers("one", &[], &[1])];
        outline(
            &[("n", 0)],
            constants,
            vec![node("Range", &["zero", "n", "one"], "y")],
        )
    };
    for (outline, shape, elements, count) in [
        (range(), &[][..], &[2e11][..], 200_000_000_000),
        (
            outline(&[("n", 1)], vec![], vec![node("ConstantOfShape", &["n"], "y")]),
            &[3],
            &[1e5; 3],
            1_000_000_000_000_000,
        ),
        (
            outline(
                &[("n", 1)],
                vec![integers("x", &[1], &[7])],
                vec![node("Expand", &["x", "n"], "y")],
            ),
            &[2],
            &[1e9, 1e12],
            i64::MAX,
        ),
        (
            outline(
                &[("n", 1)],
                vec![integers("x", &[2], &[7, 8])],
                vec![node("Tile", &["x", "n"], "y")],
            ),
            &[1],
            &[5e10],
            100_000_000_000,
        ),
    ] {
        let sizes = outline.of_run(&[known("n", shape, Some(elements))]);
        assert_eq!(sizes.largest.expect("a size").0, count);
        assert_eq!(outline.unbounded(), None);
        // A later run with the same shapes but other values does not get the cached sizes.
        let ones = vec![1.0; elements.len()];
        let small = outline.of_run(&[known("n", shape, Some(&ones))]);
        assert!(small.largest.expect("a size").0 <= 3);
    }
}

#[test]
fn sizes_that_cannot_be_followed_are_said_to_be_so() {
    let outline = outline(
        &[("x", 1)],
        vec![integers("zero", &[1], &[0])],
        vec![
            node("Exp", &["x"], "power"),
            node("ReduceMax", &["power"], "most"),
            node("ConstantOfShape", &["most"], "y"),
        ],
    );
    let expected = Some("ConstantOfShape node `the ConstantOfShape`".to_owned());
    assert_eq!(outline.unbounded(), expected);
    assert_eq!(outline.of_run(&[known("x", &[4], None)]).unbounded, expected);
}

#[test]
fn sizes_without_inputs_are_known_at_once() {
    let shape = integers("shape", &[2], &[1 << 20, 1 << 20]);
    let outline = outline(
        &[("x", 1)],
        vec![shape],
        vec![node("ConstantOfShape", &["shape"], "y")],
    );
    assert_eq!(outline.constant().largest.expect("a size").0, 1 << 40);
}
