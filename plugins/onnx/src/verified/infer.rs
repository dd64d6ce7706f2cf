//! Infers the datatypes, shapes and bounds of a node's outputs. Nothing is inferred for unknown operators.

use rten_onnx::onnx::{DataType, NodeProto};

use super::attributes::{Attributes, axis};
use super::fact::{Bounds, Fact};
use super::integers;
use super::shapes::{Shape, shapes};

/// Operators that move the elements of their first input without changing them, or that round them to FP32.
const MOVING: [&str; 6] = ["Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"];

/// A node during inference: its operator, attributes and inputs.
pub(super) struct Site<'a> {
    pub(super) operator: &'a str,
    pub(super) attributes: Attributes<'a>,
    pub(super) inputs: &'a [Option<Fact>],
    pub(super) output_count: usize,
}

impl Site<'_> {
    pub(super) fn input(&self, index: usize) -> Option<&Fact> {
        self.inputs.get(index).and_then(Option::as_ref)
    }

    pub(super) fn shape(&self, index: usize) -> Option<&Shape> {
        self.input(index)?.shape.as_ref()
    }

    pub(super) fn rank(&self, index: usize) -> Option<usize> {
        self.input(index)?.rank()
    }

    pub(super) fn datatype(&self, index: usize) -> Option<DataType> {
        self.input(index)?.datatype
    }

    /// The attribute, or the constant input that replaced it in later opsets.
    pub(super) fn list(&self, attribute: &str, index: usize) -> Option<Vec<i64>> {
        match self.attributes.ints(attribute) {
            Some(list) => Some(list.to_vec()),
            None => self.input(index)?.values(),
        }
    }

    /// Index of the dimension of the first input that the attribute `axis` selects.
    pub(super) fn axis(&self, default: i64) -> Option<usize> {
        axis(self.attributes.int_or("axis", default), self.rank(0)?)
    }
}

/// Facts about the outputs of a node.
pub(crate) fn infer(node: &NodeProto, inputs: &[Option<Fact>]) -> Vec<Fact> {
    let site = Site {
        operator: node.op_type.as_deref().unwrap_or_default(),
        attributes: Attributes::of(node),
        inputs,
        output_count: node.output.len(),
    };
    let constant = inputs.iter().flatten().all(|input| input.constant) && !inputs.is_empty();
    let shapes = shapes(&site);
    let outputs = (0..node.output.len()).map(|index| {
        let datatype = datatype(&site, index);
        let shape = shapes.get(index).cloned().flatten();
        let shape = shape.map(|shape| shape.into_iter().map(Bounds::as_size).collect());
        let mut fact = Fact::new(datatype, shape);
        fact.integers = integers::integers(&site, index, &fact);
        // The runtime folds constants, so a value computed only from constants is also a constant.
        fact.constant = constant;
        if MOVING.contains(&site.operator) {
            fact.single = site.input(0).and_then(|input| input.single);
        }
        fact
    });
    outputs.collect()
}

fn datatype(site: &Site<'_>, output: usize) -> Option<DataType> {
    match site.operator {
        "Equal" | "Greater" | "GreaterOrEqual" | "Less" | "LessOrEqual" | "And" | "Or" | "Xor" | "Not"
        | "IsInf" | "IsNaN" => Some(DataType::BOOL),
        "Shape" | "Size" | "ArgMax" | "ArgMin" | "NonZero" | "NonMaxSuppression" | "SequenceLength" => {
            Some(DataType::INT64)
        }
        "TopK" | "MaxPool" if output == 1 => Some(DataType::INT64),
        "Cast" | "BitCast" => site.attributes.datatype("to"),
        "CastLike" | "Where" => site.datatype(1),
        "EyeLike" => site.attributes.datatype("dtype").or(site.datatype(0)),
        "ConstantOfShape" => match site.attributes.tensor("value") {
            Some(value) => value.data_type,
            None => Some(DataType::FLOAT),
        },
        "OneHot" => site.datatype(2),
        "QuantizeLinear" => match site.input(2) {
            Some(zero_point) => zero_point.datatype,
            None => site.attributes.datatype("output_dtype").or(Some(DataType::UINT8)),
        },
        "DequantizeLinear" => site.datatype(1),
        "DynamicQuantizeLinear" if output == 1 => Some(DataType::FLOAT),
        "DynamicQuantizeLinear" => Some(DataType::UINT8),
        "MatMulInteger" | "ConvInteger" => Some(DataType::INT32),
        "MatMulNBits" | "DynamicQuantizeLSTM" => Some(DataType::FLOAT),
        "GatherElements" | "GatherND" | "Gather" | "Concat" => site.datatype(0),
        "If" | "Loop" | "Scan" => None,
        operator
            if operator.starts_with("Sequence")
                || operator.contains("Sequence") && operator != "ReverseSequence" =>
        {
            None
        }
        _ => site.datatype(0),
    }
}
