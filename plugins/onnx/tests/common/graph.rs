//! Builders for small models.

use std::cell::RefCell;

use onnx::direct::Check;
use rten_onnx::onnx::{
    AttributeProto, AttributeType, DataType, Dimension, GraphProto, ModelProto, NodeProto,
    OperatorSetIdProto, TensorProto, TensorShapeProto, TypeProto, TypeProtoTensor, ValueInfoProto,
};

pub(crate) fn value(name: &str, datatype: DataType, dims: &[i64]) -> ValueInfoProto {
    // A negative size stands for an open dimension.
    let dim = |(index, size): (usize, &i64)| Dimension {
        dim_value: (*size >= 0).then_some(*size),
        dim_param: (*size < 0).then(|| format!("{name}_{index}")),
    };
    ValueInfoProto {
        name: Some(name.to_owned()),
        r#type: Some(TypeProto {
            tensor_type: Some(TypeProtoTensor {
                elem_type: Some(datatype),
                shape: Some(TensorShapeProto {
                    dim: dims.iter().enumerate().map(dim).collect(),
                }),
            }),
            ..TypeProto::default()
        }),
    }
}

pub(crate) fn integers(name: &str, dims: &[i64], values: &[i64]) -> TensorProto {
    TensorProto {
        name: Some(name.to_owned()),
        dims: dims.to_vec(),
        data_type: Some(DataType::INT64),
        raw_data: Some(RefCell::new(
            values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        )),
        ..TensorProto::default()
    }
}

pub(crate) fn node(
    operator: &str,
    inputs: &[&str],
    output: &str,
    attributes: &[AttributeProto],
) -> NodeProto {
    NodeProto {
        op_type: Some(operator.to_owned()),
        input: inputs.iter().map(|name| (*name).to_owned()).collect(),
        output: vec![output.to_owned()],
        attribute: attributes.to_vec(),
        ..NodeProto::default()
    }
}

pub(crate) fn text(name: &str, value: &str) -> AttributeProto {
    AttributeProto {
        name: Some(name.to_owned()),
        s: Some(value.to_owned()),
        r#type: Some(AttributeType::STRING),
        ..AttributeProto::default()
    }
}

pub(crate) fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto {
        name: Some(name.to_owned()),
        i: Some(value),
        r#type: Some(AttributeType::INT),
        ..AttributeProto::default()
    }
}

pub(crate) fn ints(name: &str, values: &[i64]) -> AttributeProto {
    AttributeProto {
        name: Some(name.to_owned()),
        ints: values.to_vec(),
        r#type: Some(AttributeType::INTS),
        ..AttributeProto::default()
    }
}

/// A model to build, with a single output.
pub(crate) struct Graph {
    pub(crate) opset: i64,
    pub(crate) inputs: Vec<ValueInfoProto>,
    pub(crate) constants: Vec<TensorProto>,
    pub(crate) nodes: Vec<NodeProto>,
    pub(crate) output: (&'static str, DataType),
    /// Declared shape of the output, if any.
    pub(crate) output_dims: Option<Vec<i64>>,
}

impl Graph {
    /// A graph with a single node, from `x` to `y`.
    pub(crate) fn one(
        opset: i64,
        datatype: DataType,
        dims: &[i64],
        operator: &str,
        attributes: &[AttributeProto],
    ) -> Self {
        Self {
            opset,
            inputs: vec![value("x", datatype, dims)],
            constants: Vec::new(),
            nodes: vec![node(operator, &["x"], "y", attributes)],
            output: ("y", datatype),
            output_dims: None,
        }
    }

    pub(crate) fn model(self) -> ModelProto {
        let dims = self.output_dims.as_deref();
        let mut output = value(self.output.0, self.output.1, dims.unwrap_or_default());
        let tensor = output
            .r#type
            .as_mut()
            .and_then(|declared| declared.tensor_type.as_mut());
        if let (Some(tensor), None) = (tensor, dims) {
            tensor.shape = None;
        }
        ModelProto {
            ir_version: Some(8),
            opset_import: vec![OperatorSetIdProto {
                domain: None,
                version: Some(self.opset),
            }],
            graph: Some(GraphProto {
                node: self.nodes,
                initializer: self.constants,
                input: self.inputs,
                output: vec![output],
                ..GraphProto::default()
            }),
            ..ModelProto::default()
        }
    }

    /// Checks whether the embedded runtime is verified for this graph.
    pub(crate) fn check(self) -> Result<(), String> {
        Check::built_in().model(&self.model())
    }
}

pub(crate) fn floats(name: &str, dims: &[i64], values: &[f32]) -> TensorProto {
    TensorProto {
        name: Some(name.to_owned()),
        dims: dims.to_vec(),
        data_type: Some(DataType::FLOAT),
        raw_data: Some(RefCell::new(
            values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        )),
        ..TensorProto::default()
    }
}

/// An attribute with a subgraph that reads values of the outer graph.
pub(crate) fn subgraph(name: &str, nodes: Vec<NodeProto>, outputs: &[&str]) -> AttributeProto {
    let output = |name: &&str| ValueInfoProto {
        name: Some((*name).to_owned()),
        r#type: None,
    };
    AttributeProto {
        name: Some(name.to_owned()),
        r#type: Some(AttributeType::GRAPH),
        g: Some(GraphProto {
            node: nodes,
            output: outputs.iter().map(output).collect(),
            ..GraphProto::default()
        }),
        ..AttributeProto::default()
    }
}
