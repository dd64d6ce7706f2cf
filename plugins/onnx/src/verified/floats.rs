//! Which floats of a graph may become NaN. An operator that is verified only for data without NaN must not be given one that
//! the graph makes itself, such as the square root of a negative number.
//!
//! NaN that needs an infinity first, as in the difference of two infinities, is not followed: it takes numbers at the end of the
//! range of FP32.

use rten_onnx::onnx::{DataType, NodeProto, TensorProto};

use super::attributes::Attributes;
use super::fact::Fact;

/// What is known about the floats of a value.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Floats {
    sign: Sign,
    /// Whether the graph may have made a NaN in it.
    pub(crate) may_be_nan: bool,
    /// The element of a constant that has only one.
    single: Option<f32>,
}

/// The sign of all elements, from what is known least to what is known best.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Sign {
    #[default]
    Any,
    /// Zero or above.
    NonNegative,
    /// Above zero.
    Positive,
}

impl Sign {
    fn of(values: impl IntoIterator<Item = f32>) -> Self {
        let sign = |value: f32| match value {
            value if value > 0.0 => Self::Positive,
            0.0 => Self::NonNegative,
            _ => Self::Any,
        };
        values.into_iter().map(sign).min().unwrap_or_default()
    }
}

impl Floats {
    /// Of which only this is known.
    pub(crate) fn any(may_be_nan: bool) -> Self {
        Self {
            may_be_nan,
            ..Self::default()
        }
    }

    pub(crate) fn of_constants(values: &[f32]) -> Self {
        Self {
            sign: Sign::of(values.iter().copied()),
            may_be_nan: false,
            single: match values {
                [single] => Some(*single),
                _ => None,
            },
        }
    }

    /// A tensor in the file; nothing is known if it is in another file or not of FP32.
    pub(crate) fn of_tensor(tensor: &TensorProto) -> Self {
        if tensor.data_type != Some(DataType::FLOAT) || !tensor.external_data.is_empty() {
            return Self::default();
        }
        let raw = tensor.raw_data.as_ref().map(|raw| raw.borrow());
        match raw.as_deref().filter(|raw| !raw.is_empty()) {
            Some(raw) => {
                let values = raw
                    .as_chunks::<4>()
                    .0
                    .iter()
                    .map(|bytes| f32::from_le_bytes(*bytes));
                Self::of_constants(&values.collect::<Vec<_>>())
            }
            None => Self::of_constants(&tensor.float_data),
        }
    }

    /// What is known of a value that is one or the other.
    pub(crate) fn either(self, other: Self) -> Self {
        Self {
            sign: self.sign.min(other.sign),
            may_be_nan: self.may_be_nan || other.may_be_nan,
            single: None,
        }
    }
}

/// What is known about the floats that a node computes.
pub(crate) fn floats(node: &NodeProto, inputs: &[Option<Fact>]) -> Floats {
    let operator = node.op_type.as_deref().unwrap_or_default();
    let input = |index: usize| inputs.get(index).and_then(Option::as_ref);
    let known = |index: usize| input(index).map(|fact| fact.floats).unwrap_or_default();
    let (first, second) = (known(0), known(1));
    let inherited = inputs.iter().flatten().any(|fact| fact.floats.may_be_nan);
    let made = match operator {
        "Sqrt" | "Log" | "ReduceLogSum" => first.sign == Sign::Any,
        "Pow" => first.sign == Sign::Any && !second.single.is_some_and(|exponent| exponent.fract() == 0.0),
        // A number divided by zero is infinite, but zero is not.
        "Div" => second.sign != Sign::Positive && !second.single.is_some_and(|divisor| divisor != 0.0),
        "Mod" | "Acos" | "Acosh" | "Asin" | "Atanh" => true,
        _ => false,
    };
    Floats {
        sign: sign(node, operator, inputs),
        may_be_nan: inherited || made,
        single: None,
    }
}

/// The sign of what a node computes.
fn sign(node: &NodeProto, operator: &str, inputs: &[Option<Fact>]) -> Sign {
    let of = |index: usize| {
        let input = inputs.get(index).and_then(Option::as_ref);
        input.map(|fact| fact.floats.sign).unwrap_or_default()
    };
    let all = || {
        let signs = inputs.iter().flatten().map(|fact| fact.floats.sign);
        signs.min().unwrap_or_default()
    };
    match operator {
        "Abs" | "Exp" | "Relu" | "Sigmoid" | "HardSigmoid" | "Softmax" | "ReduceL1" | "ReduceL2"
        | "ReduceSumSquare" => Sign::NonNegative,
        "Sqrt" => of(0).max(Sign::NonNegative),
        "Pow" => match inputs
            .get(1)
            .and_then(Option::as_ref)
            .and_then(|fact| fact.floats.single)
        {
            Some(exponent) if exponent % 2.0 == 0.0 => Sign::NonNegative,
            _ => of(0).min(Sign::NonNegative),
        },
        "Mul" if is_square(node) => Sign::NonNegative,
        // A product of small numbers may be rounded to zero, and so may a quotient.
        "Mul" => all().min(Sign::NonNegative),
        "Div" if of(1) == Sign::Positive => of(0).min(Sign::NonNegative),
        "Add" | "Sum" => match all() {
            Sign::Any => Sign::Any,
            _ => inputs
                .iter()
                .flatten()
                .map(|fact| fact.floats.sign)
                .max()
                .unwrap_or_default(),
        },
        "Max" => inputs
            .iter()
            .flatten()
            .map(|fact| fact.floats.sign)
            .max()
            .unwrap_or_default(),
        "Clip" => {
            let attribute = Attributes::of(node).float("min").map(|low| Sign::of([low]));
            of(0).max(attribute.unwrap_or_else(|| of(1)))
        }
        "Concat" | "Min" => all(),
        "Where" => of(1).min(of(2)),
        "ReduceMean" | "ReduceSum" | "AveragePool" | "GlobalAveragePool" => of(0).min(Sign::NonNegative),
        "Cast" | "Dropout" | "Expand" | "Flatten" | "Gather" | "GatherElements" | "GatherND"
        | "GlobalMaxPool" | "Identity" | "MaxPool" | "ReduceMax" | "ReduceMin" | "Reshape" | "Slice"
        | "Split" | "Squeeze" | "Tile" | "Transpose" | "Unsqueeze" => of(0),
        _ => Sign::Any,
    }
}

/// Whether a node multiplies a value by itself.
fn is_square(node: &NodeProto) -> bool {
    matches!(&node.input[..], [left, right] if left == right)
}
