//! Tracks which values of a graph may contain NaN or infinities. An operator that is not verified for them needs a guard only if
//! its input may contain them.
//!
//! Clients may send both, and any arithmetic may overflow, so the analysis covers only operators that move, select or bound
//! numbers. Every other operator is assumed to produce both.

use rten_onnx::onnx::{DataType, NodeProto, TensorProto};

use super::fact::Fact;

/// Special values that the floats of a tensor may include.
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

    /// Facts about a tensor stored in the file. Nothing is known if its data is in an external file or is not FP32.
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

    /// Facts that hold for both.
    pub(crate) fn either(self, other: Self) -> Self {
        Self {
            may_be_nan: self.may_be_nan || other.may_be_nan,
            may_be_infinite: self.may_be_infinite || other.may_be_infinite,
        }
    }
}

/// Special values that the outputs of a node may include, if its inputs contain none of the data that its guards reject.
pub(crate) fn floats(node: &NodeProto, inputs: &[Option<Fact>]) -> Floats {
    let given = inputs.iter().flatten().filter(|fact| fact.holds_floats());
    let inherited = given.fold(Floats::FINITE, |all, fact| all.either(fact.floats));
    match node.op_type.as_deref().unwrap_or_default() {
        // `Cast` turns integers into finite floats.
        "Abs" | "Cast" | "CastLike" | "Clip" | "Concat" | "DepthToSpace" | "Dropout" | "Expand"
        | "Flatten" | "Gather" | "GatherElements" | "GatherND" | "GlobalMaxPool" | "Identity" | "Max"
        | "MaxPool" | "Min" | "Neg" | "Pad" | "ReduceMax" | "ReduceMin" | "Relu" | "Reshape"
        | "ReverseSequence" | "Slice" | "Split" | "Squeeze" | "Tile" | "Transpose" | "Trilu"
        | "Unsqueeze" | "Where" => inherited,
        "Erf" | "Sigmoid" | "Tanh" => Floats {
            may_be_infinite: false,
            ..inherited
        },
        // Subtracting an infinite maximum yields NaN.
        "Softmax" => Floats {
            may_be_nan: inherited.may_be_nan || inherited.may_be_infinite,
            may_be_infinite: false,
        },
        _ => Floats::UNKNOWN,
    }
}
