//! Tracks which special values the floats of a graph may include: NaN, infinities, and zeros whose sign may differ from that in
//! ONNX Runtime. An operator that is not verified for them needs a guard only if its input may contain them.
//!
//! Clients may send NaN and infinities, and any arithmetic may overflow, so the analysis covers only operators that move, select
//! or bound numbers. Every other operator is assumed to produce both, and zeros of either sign.

use rten_onnx::onnx::{DataType, NodeProto, TensorProto};

use super::attributes::Attributes;
use super::fact::Fact;

/// Operators that copy elements, so that zeros keep their sign.
const COPYING: [&str; 18] = [
    "Concat",
    "DepthToSpace",
    "Dropout",
    "Expand",
    "Flatten",
    "Gather",
    "GatherElements",
    "GatherND",
    "Identity",
    "Reshape",
    "ReverseSequence",
    "Slice",
    "Split",
    "Squeeze",
    "Tile",
    "Transpose",
    "Unsqueeze",
    "Where",
];

/// What is known about the floats of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Floats {
    pub(crate) may_be_nan: bool,
    pub(crate) may_be_infinite: bool,
    /// Whether a zero may have another sign than in ONNX Runtime. Comparisons of operators treat zeros of both signs as equal.
    pub(crate) may_have_unverified_zeros: bool,
    pub(crate) range: Range,
    /// Whether all values are even integers.
    are_even: bool,
}

/// Lower bound of all values except NaN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Range {
    Any,
    /// At least 0, of either sign.
    NonNegative,
    /// At least [`f32::MIN_POSITIVE`].
    Positive,
}

impl Default for Floats {
    fn default() -> Self {
        Self::UNKNOWN
    }
}

impl Floats {
    const UNKNOWN: Self = Self {
        may_be_nan: true,
        may_be_infinite: true,
        may_have_unverified_zeros: true,
        range: Range::Any,
        are_even: false,
    };

    /// Values from outside the graph, which the runtime holds exactly.
    pub(crate) const GIVEN: Self = Self {
        may_have_unverified_zeros: false,
        ..Self::UNKNOWN
    };

    /// Facts about an empty set of values.
    const NONE: Self = Self {
        may_be_nan: false,
        may_be_infinite: false,
        may_have_unverified_zeros: false,
        range: Range::Positive,
        are_even: true,
    };

    pub(crate) fn of_constants(values: impl IntoIterator<Item = f32>) -> Self {
        let of_one = |value: f32| Self {
            may_be_nan: value.is_nan(),
            may_be_infinite: value.is_infinite(),
            may_have_unverified_zeros: false,
            range: if value >= f32::MIN_POSITIVE || value.is_nan() {
                Range::Positive
            } else if value >= 0.0 {
                Range::NonNegative
            } else {
                Range::Any
            },
            are_even: value % 2.0 == 0.0,
        };
        values.into_iter().map(of_one).fold(Self::NONE, Self::either)
    }

    /// Facts about a tensor stored in the file. The values are not read if they are in an external file or are not FP32.
    pub(crate) fn of_tensor(tensor: &TensorProto) -> Self {
        if tensor.data_type != Some(DataType::FLOAT) || !tensor.external_data.is_empty() {
            return Self::GIVEN;
        }
        let raw = tensor.raw_data.as_ref().map(|raw| raw.borrow());
        match raw.as_deref().filter(|raw| !raw.is_empty()) {
            Some(raw) => {
                let chunks = raw.as_chunks::<4>().0.iter();
                Self::of_constants(chunks.map(|bytes| f32::from_le_bytes(*bytes)))
            }
            None => Self::of_constants(tensor.float_data.iter().copied()),
        }
    }

    /// Facts that hold for both.
    pub(crate) fn either(self, other: Self) -> Self {
        Self {
            may_be_nan: self.may_be_nan || other.may_be_nan,
            may_be_infinite: self.may_be_infinite || other.may_be_infinite,
            may_have_unverified_zeros: self.may_have_unverified_zeros || other.may_have_unverified_zeros,
            range: self.range.min(other.range),
            are_even: self.are_even && other.are_even,
        }
    }
}

/// Facts about the outputs of a node, if its inputs contain none of the data that its guards reject.
pub(crate) fn floats(node: &NodeProto, inputs: &[Option<Fact>]) -> Floats {
    let operator = node.op_type.as_deref().unwrap_or_default();
    let given = inputs.iter().flatten().filter(|fact| fact.holds_floats());
    let inherited = given.fold(Floats::NONE, |all, fact| all.either(fact.floats));
    if COPYING.contains(&operator) {
        return inherited;
    }
    let (may_be_nan, may_be_infinite) = match operator {
        // `Cast` turns integers into finite floats.
        "Abs" | "Cast" | "CastLike" | "Clip" | "GlobalMaxPool" | "Max" | "MaxPool" | "Min" | "Neg"
        | "Pad" | "ReduceMax" | "ReduceMin" | "Relu" | "Trilu" => {
            (inherited.may_be_nan, inherited.may_be_infinite)
        }
        "Erf" | "Sigmoid" | "Tanh" => (inherited.may_be_nan, false),
        // Subtracting an infinite maximum yields NaN.
        "Softmax" => (inherited.may_be_nan || inherited.may_be_infinite, false),
        _ => (true, true),
    };
    Floats {
        may_be_nan,
        may_be_infinite,
        may_have_unverified_zeros: true,
        range: range(node, operator, inputs, inherited.range),
        are_even: false,
    }
}

/// Lower bound of the outputs of an operator that computes. `inherited` is that of all inputs that hold floats.
fn range(node: &NodeProto, operator: &str, inputs: &[Option<Fact>], inherited: Range) -> Range {
    let input = |index: usize| inputs.get(index).and_then(Option::as_ref);
    let of = |index: usize| input(index).map_or(Range::Any, |fact| fact.floats.range);
    let attribute = |name: &str| {
        let value = Attributes::of(node).float(name);
        value.map(|value| Floats::of_constants([value]).range)
    };
    let bound = |index: usize, name: &str| input(index).map(|fact| fact.floats.range).or(attribute(name));
    match operator {
        "Abs" | "Relu" | "Sqrt" => inherited.max(Range::NonNegative),
        "Exp" | "HardSigmoid" | "ReduceL1" | "ReduceL2" | "ReduceSumSquare" | "Sigmoid" | "Softmax" => {
            Range::NonNegative
        }
        "Mul" if node.input.len() == 2 && node.input[0] == node.input[1] => Range::NonNegative,
        "Pow" if input(1).is_some_and(|exponent| exponent.floats.are_even && exponent.holds_floats()) => {
            Range::NonNegative
        }
        "Pow" => of(0).min(Range::NonNegative),
        // Products and quotients of positive numbers may underflow, and sums over no elements are 0.
        "Mul" | "Div" | "GlobalAveragePool" | "Mean" | "ReduceMax" | "ReduceMean" | "ReduceMin"
        | "ReduceSum" | "Trilu" => inherited.min(Range::NonNegative),
        "Min" => inherited,
        "Add" | "Sum" if inherited >= Range::NonNegative => highest(inputs),
        "Max" => highest(inputs),
        "Clip" => {
            let low = bound(1, "min").unwrap_or(Range::Any);
            let high = bound(2, "max").unwrap_or(Range::Positive);
            of(0).max(low).min(high)
        }
        "Cast" | "CastLike" => match input(0) {
            Some(fact) if !fact.holds_floats() => match fact.bounds().low {
                low if low > 0 => Range::Positive,
                0 => Range::NonNegative,
                _ => Range::Any,
            },
            _ => inherited.min(Range::NonNegative),
        },
        _ => Range::Any,
    }
}

/// The highest lower bound of the inputs.
fn highest(inputs: &[Option<Fact>]) -> Range {
    let ranges = inputs.iter().flatten().map(|fact| fact.floats.range);
    ranges.max().unwrap_or(Range::Any)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bound of the output of an operator on inputs with these bounds.
    fn range_of(operator: &str, inputs: &[Range]) -> Range {
        let node = NodeProto {
            op_type: Some(operator.to_owned()),
            input: (0..inputs.len()).map(|index| format!("x{index}")).collect(),
            ..NodeProto::default()
        };
        let fact = |range: &Range| {
            Some(Fact {
                floats: Floats {
                    range: *range,
                    ..Floats::GIVEN
                },
                ..Fact::new(Some(DataType::FLOAT), None)
            })
        };
        floats(&node, &inputs.iter().map(fact).collect::<Vec<_>>()).range
    }

    #[test]
    fn a_sum_with_a_positive_constant_and_its_root_are_positive() {
        use Range::{Any, NonNegative, Positive};
        for (operator, inputs, expected) in [
            ("Add", &[NonNegative, Positive][..], Positive),
            ("Add", &[Any, Positive], Any),
            ("Add", &[NonNegative, NonNegative], NonNegative),
            ("Sqrt", &[Positive], Positive),
            ("Sqrt", &[Any], NonNegative),
            ("Max", &[Any, Positive], Positive),
            ("Clip", &[Any, Positive], Positive),
            ("Clip", &[Positive, Positive, Any], Any),
            // The product may underflow.
            ("Mul", &[Positive, Positive], NonNegative),
            ("Exp", &[Any], NonNegative),
            ("Sub", &[Positive, Positive], Any),
            ("Expand", &[Positive], Positive),
            ("Tanh", &[Positive], Any),
        ] {
            assert_eq!(range_of(operator, inputs), expected, "{operator} {inputs:?}");
        }
    }

    #[test]
    fn a_lower_bound_of_constants_is_exact_and_ignores_nan() {
        for (values, expected) in [
            (&[1.0, f32::NAN, f32::INFINITY][..], Range::Positive),
            (&[1.0, 0.0], Range::NonNegative),
            (&[-0.0], Range::NonNegative),
            // Runtimes may round subnormal numbers to zero.
            (&[1e-40], Range::NonNegative),
            (&[1.0, -1e-40], Range::Any),
        ] {
            assert_eq!(
                Floats::of_constants(values.iter().copied()).range,
                expected,
                "{values:?}"
            );
        }
    }
}
