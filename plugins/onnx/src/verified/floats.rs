//! Which values of a graph may hold NaN or infinities. An operator that is not verified for them needs a guard only if its
//! input may.
//!
//! Clients may send both, and any arithmetic may overflow, so the analysis follows only the operators that move, select or bound
//! numbers. Everything else may compute both.

use rten_onnx::onnx::{DataType, NodeProto, TensorProto};

use super::fact::Fact;

/// What the floats of a value may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Floats {
    pub(crate) may_be_nan: bool,
    pub(crate) may_be_infinite: bool,
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
    };

    pub(crate) const FINITE: Self = Self {
        may_be_nan: false,
        may_be_infinite: false,
    };

    pub(crate) fn of_constants(values: impl IntoIterator<Item = f32>) -> Self {
        let of_one = |value: f32| Self {
            may_be_nan: value.is_nan(),
            may_be_infinite: value.is_infinite(),
        };
        values.into_iter().map(of_one).fold(Self::FINITE, Self::either)
    }

    /// A tensor in the file; nothing is known if it is in another file or not of FP32.
    pub(crate) fn of_tensor(tensor: &TensorProto) -> Self {
        if tensor.data_type != Some(DataType::FLOAT) || !tensor.external_data.is_empty() {
            return Self::UNKNOWN;
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

    /// What is known of a value that comes from either.
    pub(crate) fn either(self, other: Self) -> Self {
        Self {
            may_be_nan: self.may_be_nan || other.may_be_nan,
            may_be_infinite: self.may_be_infinite || other.may_be_infinite,
        }
    }
}

/// What the floats that a node computes may be, from inputs that hold nothing for which the node has a guard.
pub(crate) fn floats(node: &NodeProto, inputs: &[Option<Fact>]) -> Floats {
    let given = inputs.iter().flatten().filter(|fact| fact.holds_floats());
    let inherited = given.fold(Floats::FINITE, |all, fact| all.either(fact.floats));
    match node.op_type.as_deref().unwrap_or_default() {
        // Integers become finite floats.
        "Abs" | "Cast" | "CastLike" | "Clip" | "Concat" | "DepthToSpace" | "Dropout" | "Expand"
        | "Flatten" | "Gather" | "GatherElements" | "GatherND" | "GlobalMaxPool" | "Identity" | "Max"
        | "MaxPool" | "Min" | "Neg" | "Pad" | "ReduceMax" | "ReduceMin" | "Relu" | "Reshape"
        | "ReverseSequence" | "Slice" | "Split" | "Squeeze" | "Tile" | "Transpose" | "Trilu"
        | "Unsqueeze" | "Where" => inherited,
        "Erf" | "Sigmoid" | "Tanh" => Floats {
            may_be_infinite: false,
            ..inherited
        },
        // The difference from an infinite maximum is NaN.
        "Softmax" => Floats {
            may_be_nan: inherited.may_be_nan || inherited.may_be_infinite,
            may_be_infinite: false,
        },
        _ => Floats::UNKNOWN,
    }
}
