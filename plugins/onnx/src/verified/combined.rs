//! Groups of nodes that the runtime replaces by one operator when it loads a file, although the operator computes other results.
//!
//! The table of verified operators covers single nodes. The runtime's patterns for groups are verified with random graphs
//! (`tests/onnx_conformance/operators/patterns.py`); this module finds the groups that match a pattern but not what its operator
//! computes. The runtime has no declared or inferred shapes (see [`declared_shapes`](crate::declared_shapes)), so patterns that
//! depend on shapes do not occur.

use std::collections::HashMap;

use rten_onnx::onnx::{GraphProto, NodeProto};

use super::attributes::Attributes;
use super::fact::Fact;

/// Tolerance with which the runtime compares constants with those of its patterns. Larger than the actual one, which is absolute as
/// well.
const TOLERANCE: f32 = 2e-4;

/// Relative difference below which a constant is the rounded constant of a pattern.
const ROUNDING: f32 = 2e-6;

/// The nodes that compute the values of a graph, by the names of the values.
pub(super) struct Producers<'a> {
    nodes: HashMap<&'a str, &'a NodeProto>,
    has_activation: bool,
}

impl<'a> Producers<'a> {
    pub(super) fn of(graph: &'a GraphProto) -> Self {
        let outputs = |node: &'a NodeProto| node.output.iter().map(move |name| (name.as_str(), node));
        Self {
            nodes: graph.node.iter().flat_map(outputs).collect(),
            has_activation: graph
                .node
                .iter()
                .any(|node| matches!(operator(node), "Erf" | "Tanh")),
        }
    }

    /// The node that computes an input of a node.
    fn before(&self, node: &NodeProto, input: usize) -> Option<&'a NodeProto> {
        self.nodes.get(node.input.get(input)?.as_str()).copied()
    }
}

/// Describes with what the group that ends with `node` is not verified; `None` if there is no such group. `fact` returns the facts
/// about a value.
pub(super) fn unverified<'f>(
    node: &NodeProto,
    producers: &Producers<'_>,
    fact: impl Fn(&str) -> Option<&'f Fact>,
) -> Option<&'static str> {
    let input = |node: &NodeProto, index: usize| node.input.get(index).and_then(|name| fact(name));
    let single = |index: usize| input(node, index).and_then(|fact| fact.single);
    let before = |index: usize| producers.before(node, index);
    let is = |index: usize, name: &str| before(index).is_some_and(|node| operator(node) == name);
    // A mean without its dimension, which the runtime takes for one that keeps it, unless there is only this dimension.
    let removes_dimension = |index: usize| {
        let mean = before(index).filter(|node| operator(node) == "ReduceMean");
        mean.is_some_and(|mean| {
            !Attributes::of(mean).flag("keepdims", true)
                && input(mean, 0).is_none_or(|fact| fact.rank() != Some(1))
        })
    };
    let scales = |node: &NodeProto| {
        matches!(operator(node), "Mul" | "Div")
            && (0..2).any(|index| {
                input(node, index)
                    .and_then(|fact| fact.single)
                    .is_some_and(is_extreme)
            })
    };
    match operator(node) {
        "Sub" if removes_dimension(1) => Some("a mean over a removed dimension"),
        "Add" if removes_dimension(0) || removes_dimension(1) => Some("a mean over a removed dimension"),
        "Where" if is(0, "IsNaN") && is_almost_zero(input(node, 1), input(node, 2)) => {
            Some("a replacement of NaN that is almost a scalar 0")
        }
        "Slice" if has_range_of_constant(before(0), |shape| input(shape, 0)) => {
            Some("a part of the shape of a constant")
        }
        // Scales of factors and of the product become one scale.
        "MatMul" if (0..2).any(|index| before(index).is_some_and(scales)) => Some("an extreme scale"),
        "Mul" | "Div" if (is(0, "MatMul") || is(1, "MatMul")) && scales(node) => Some("an extreme scale"),
        "Div" if single(0).is_some_and(|value| is_near(value, &[1.0])) => Some("a constant near 1"),
        "Add" | "Mul" | "Div" | "Pow" if producers.has_activation => {
            let constants = constants_of_activations(operator(node));
            let found = (0..2).any(|index| single(index).is_some_and(|value| is_near(value, constants)));
            found.then_some("a constant near that of an activation function")
        }
        _ => None,
    }
}

/// Values that must not be so large that a product overflows, since the runtime multiplies the factors of the group that contains
/// `node` in another order: the inputs of Gelu, and the factors of a scaled product of matrices.
pub(super) fn bounded<'n, 'f>(
    node: &'n NodeProto,
    producers: &Producers<'n>,
    fact: impl Fn(&str) -> Option<&'f Fact>,
) -> Vec<&'n str> {
    let is_single = |name: &str| fact(name).is_some_and(|fact| fact.single.is_some());
    // The operand of a multiplication by a constant.
    let scaled = |index: usize| {
        let scaling = producers.before(node, index)?;
        let is_scaling =
            matches!(operator(scaling), "Mul" | "Div") && scaling.input.iter().any(|name| is_single(name));
        scaling.input.iter().find(|name| is_scaling && !is_single(name))
    };
    let input = |index: usize| node.input.get(index);
    let found: Vec<Option<&'n String>> = match operator(node) {
        "Erf" => vec![scaled(0)],
        "Pow"
            if producers.has_activation
                && fact_of(input(1), &fact).is_some_and(|fact| fact.single.is_some()) =>
        {
            vec![input(0)]
        }
        "MatMul" if scaled(0).is_some() || scaled(1).is_some() => {
            vec![scaled(0).or(input(0)), scaled(1).or(input(1))]
        }
        _ => Vec::new(),
    };
    let may_be_large = |name: &&String| fact(name).is_none_or(|fact| fact.floats.may_be_infinite);
    found
        .into_iter()
        .flatten()
        .filter(may_be_large)
        .map(String::as_str)
        .collect()
}

fn fact_of<'f>(name: Option<&String>, fact: &impl Fn(&str) -> Option<&'f Fact>) -> Option<&'f Fact> {
    name.and_then(|name| fact(name))
}

fn operator(node: &NodeProto) -> &str {
    node.op_type.as_deref().unwrap_or_default()
}

/// Whether the runtime takes a constant for a scalar 0 that replaces elements of a tensor, although it is another number or has more
/// dimensions than the tensor.
fn is_almost_zero(constant: Option<&Fact>, tensor: Option<&Fact>) -> bool {
    let Some(constant) = constant else { return true };
    let has_more_dimensions = || match (constant.rank(), tensor.and_then(Fact::rank)) {
        (Some(rank), Some(other)) => rank > other,
        (rank, _) => rank != Some(0),
    };
    match constant.single {
        Some(0.0) => has_more_dimensions(),
        Some(value) => value.abs() <= TOLERANCE,
        None => constant.constant && constant.count().low <= 1,
    }
}

/// Whether a node returns a part of the shape of a constant. The runtime ignores which part.
fn has_range_of_constant<'f>(
    node: Option<&NodeProto>,
    source: impl Fn(&NodeProto) -> Option<&'f Fact>,
) -> bool {
    node.filter(|node| operator(node) == "Shape")
        .is_some_and(|shape| {
            let attributes = Attributes::of(shape);
            let has_range = attributes.int("start").or(attributes.int("end")).is_some();
            has_range && source(shape).is_none_or(|fact| fact.constant)
        })
}

/// Whether a scale, or its inverse, loses what it multiplies.
fn is_extreme(scale: f32) -> bool {
    !scale.is_normal() || !scale.recip().is_normal()
}

/// Constants in the forms of Gelu that the runtime knows.
fn constants_of_activations(operator: &str) -> &'static [f32] {
    use std::f32::consts::{FRAC_1_SQRT_2, SQRT_2};
    /// The square root of 2/π.
    const SQRT_2_BY_PI: f32 = 0.797_884_6;
    match operator {
        "Add" => &[1.0],
        "Div" => &[SQRT_2],
        "Mul" => &[0.044_715, 0.5, FRAC_1_SQRT_2, SQRT_2_BY_PI],
        "Pow" => &[3.0],
        _ => &[],
    }
}

/// Whether the runtime takes a value for one of the constants, although it is another number.
fn is_near(value: f32, constants: &[f32]) -> bool {
    constants.iter().any(|constant| {
        let difference = (value - constant).abs();
        difference <= TOLERANCE && difference > ROUNDING * constant
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rounded_constant_is_not_near_but_another_number_is() {
        let constants = constants_of_activations("Mul");
        assert!(!is_near(0.5, constants) && !is_near(0.797_885, constants));
        assert!(is_near(0.500_05, constants) && is_near(0.044_8, constants));
        assert!(!is_near(0.6, constants));
    }

    #[test]
    fn scales_whose_inverse_is_not_a_normal_number_are_extreme() {
        for (scale, extreme) in [
            (8.0, false),
            (1e-30, false),
            (0.0, true),
            (1e-40, true),
            (3e38, true),
            (f32::NAN, true),
        ] {
            assert_eq!(is_extreme(scale), extreme, "{scale}");
        }
    }
}
