//! Guards: checks at run time for data for which an operator is not verified. A guard checks one input of one node.

use std::fmt;

use rten_onnx::onnx::{DataType, NodeProto};

use super::attributes::Attributes;
use super::fact::Fact;
use super::floats::{Floats, Range};
use super::table::{Class, Unusual};

/// An input of a node that must not contain certain data.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Guard {
    /// The enclosing subgraphs, outermost first: the index of a node in its graph, and the attribute that holds the subgraph.
    pub(crate) path: Vec<(usize, String)>,
    /// Index of the node in its graph.
    pub(crate) node_index: usize,
    /// Description of the node for messages.
    pub(crate) node: String,
    /// Name of the input.
    pub(crate) value: String,
    pub(crate) condition: Condition,
}

/// Data that an input must not contain.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Condition {
    Nan,
    /// Infinities, and values that cannot be distinguished from them cheaply: NaN, and values whose sum of squares overflows.
    Infinite,
    /// A dimension of size 0.
    Empty,
    /// A zero, whose sign the operator depends on.
    Zero,
    /// NaN, or a number that is outside an inclusive range of integers after truncation.
    Outside(i32, i32),
}

impl Condition {
    /// Removes the data from what floats may include.
    pub(super) fn exclude_from(self, floats: &mut Floats) {
        match self {
            Self::Nan => floats.may_be_nan = false,
            Self::Infinite => (floats.may_be_nan, floats.may_be_infinite) = (false, false),
            Self::Zero => floats.may_have_unverified_zeros = false,
            Self::Empty | Self::Outside(..) => {}
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nan => formatter.write_str("NaN"),
            Self::Infinite => formatter.write_str("NaN, infinities, and numbers near them"),
            Self::Empty => formatter.write_str("dimensions of 0"),
            Self::Zero => formatter.write_str("zeros of unverified sign"),
            Self::Outside(low, high) => write!(formatter, "NaN and numbers outside {low} to {high}"),
        }
    }
}

impl fmt::Display for Guard {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { node, condition, .. } = self;
        write!(formatter, "{node} is not verified with {condition}")
    }
}

/// Conditions that an input may meet although the operator is not verified for them. `class` is the entry of the node in the
/// table.
pub(super) fn conditions(
    node: &NodeProto,
    inputs: &[Option<Fact>],
    position: usize,
    class: &Class,
) -> Vec<Condition> {
    let Some(fact) = inputs.get(position).and_then(Option::as_ref) else {
        return Vec::new();
    };
    let floats = fact.floats;
    let lacks = |unusual: Unusual| class.without.contains(&unusual);
    let of_floats = if !fact.holds_floats() {
        None
    } else if lacks(Unusual::Infinite) && floats.may_be_infinite {
        Some(Condition::Infinite)
    } else if lacks(Unusual::Nan) && floats.may_be_nan {
        Some(Condition::Nan)
    } else {
        None
    };
    let may_be_empty = !fact.constant && fact.count().low == 0;
    let of_shape = (lacks(Unusual::Empty) && may_be_empty).then_some(Condition::Empty);
    let of_zeros = (class.zero_signs.contains(&position) && depends_on_zero_sign(node, inputs, fact))
        .then_some(Condition::Zero);
    let unverified = of_floats.into_iter().chain(of_shape).chain(of_zeros);
    unverified.chain(conversion(node, inputs, position)).collect()
}

/// Whether the result of an operator that depends on the sign of zeros in the input `fact` may differ: the input may contain a
/// zero of unverified sign. A power depends on it only if the exponent is negative.
fn depends_on_zero_sign(node: &NodeProto, inputs: &[Option<Fact>], fact: &Fact) -> bool {
    let has_negative_exponent = || {
        let exponent = inputs.get(1).and_then(Option::as_ref);
        exponent.is_none_or(|exponent| match exponent.holds_floats() {
            true => exponent.floats.range == Range::Any,
            false => exponent.bounds().low < 0,
        })
    };
    let is_power = node.op_type.as_deref() == Some("Pow");
    fact.holds_floats()
        && fact.floats.may_have_unverified_zeros
        && fact.floats.range != Range::Positive
        && (!is_power || has_negative_exponent())
}

/// The condition for a conversion from float to integer. The standard does not define the result if the integer type cannot
/// represent the number, and runtimes differ.
fn conversion(node: &NodeProto, inputs: &[Option<Fact>], position: usize) -> Option<Condition> {
    let fact = |index: usize| inputs.get(index).and_then(Option::as_ref);
    let target = match node.op_type.as_deref().unwrap_or_default() {
        "Cast" => Attributes::of(node).datatype("to"),
        "CastLike" => fact(1).and_then(|fact| fact.datatype),
        _ => None,
    };
    if position != 0 || !fact(0)?.holds_floats() {
        return None;
    }
    match target? {
        DataType::INT32 | DataType::INT64 => Some(Condition::Outside(i32::MIN, i32::MAX)),
        DataType::INT8 => Some(Condition::Outside(i8::MIN.into(), i8::MAX.into())),
        DataType::UINT8 => Some(Condition::Outside(0, u8::MAX.into())),
        _ => None,
    }
}
