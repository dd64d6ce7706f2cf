mod graphs;
mod places;
mod statistics;

use std::cell::RefCell;
use std::fs;
use std::path::Path;

use rten_onnx::onnx::{
    AttributeProto, DataType, Dimension, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto,
    TensorShapeProto, TypeProto, TypeProtoTensor, ValueInfoProto,
};

use super::{Verdict, analyze};

/// The value of an attribute.
enum Setting {
    Int(i64),
    Ints(Vec<i64>),
    Text(&'static str),
    Graph(GraphProto),
}

fn node(kind: &str, inputs: &[&str], outputs: &[&str], settings: Vec<(&str, Setting)>) -> NodeProto {
    let attribute = |(name, setting): (&str, Setting)| {
        let mut attribute = AttributeProto {
            name: Some(name.to_owned()),
            ..AttributeProto::default()
        };
        match setting {
            Setting::Int(value) => attribute.i = Some(value),
            Setting::Ints(values) => attribute.ints = values,
            Setting::Text(text) => attribute.s = Some(text.to_owned()),
            Setting::Graph(graph) => attribute.g = Some(graph),
        }
        attribute
    };
    let (domain, kind) = kind.rsplit_once("::").unwrap_or(("", kind));
    NodeProto {
        domain: Some(domain.to_owned()),
        name: Some("n".to_owned()),
        input: inputs.iter().map(|name| (*name).to_owned()).collect(),
        output: outputs.iter().map(|name| (*name).to_owned()).collect(),
        op_type: Some(kind.to_owned()),
        attribute: settings.into_iter().map(attribute).collect(),
    }
}

/// A value with its shape. Negative dimensions are open.
fn info(name: &str, dims: &[i64]) -> ValueInfoProto {
    typed(name, DataType::FLOAT, dims)
}

/// Like [`info`], with this datatype.
pub(in crate::analysis) fn typed(name: &str, datatype: DataType, dims: &[i64]) -> ValueInfoProto {
    let dim = |size: &i64| Dimension {
        dim_value: Some(*size).filter(|size| *size >= 0),
        dim_param: None,
    };
    ValueInfoProto {
        name: Some(name.to_owned()),
        r#type: Some(TypeProto {
            tensor_type: Some(TypeProtoTensor {
                elem_type: Some(datatype),
                shape: Some(TensorShapeProto {
                    dim: dims.iter().map(dim).collect(),
                }),
            }),
            sequence: None,
        }),
    }
}

pub(in crate::analysis) fn integers(name: &str, dims: &[i64], values: &[i64]) -> TensorProto {
    TensorProto {
        dims: dims.to_vec(),
        data_type: Some(DataType::INT64),
        int64_data: values.to_vec(),
        name: Some(name.to_owned()),
        ..TensorProto::default()
    }
}

fn weights(name: &str, dims: &[i64]) -> TensorProto {
    let count: i64 = dims.iter().product();
    TensorProto {
        dims: dims.to_vec(),
        data_type: Some(DataType::FLOAT),
        raw_data: Some(RefCell::new(vec![0; 4 * count as usize])),
        name: Some(name.to_owned()),
        ..TensorProto::default()
    }
}

fn graph(
    inputs: Vec<ValueInfoProto>,
    constants: Vec<TensorProto>,
    nodes: Vec<NodeProto>,
    outputs: &[&str],
) -> GraphProto {
    GraphProto {
        node: nodes,
        initializer: constants,
        input: inputs,
        output: outputs.iter().map(|name| info(name, &[])).collect(),
        value_info: Vec::new(),
    }
}

/// The verdict for a graph that computes `y` from an input `x` of shape `[batch, …dims]`, in the given opset.
fn found(opset: i64, dims: &[i64], constants: Vec<TensorProto>, nodes: Vec<NodeProto>) -> Verdict {
    let dims = [&[-1], dims].concat();
    let import = |domain: &str, version| OperatorSetIdProto {
        domain: Some(domain.to_owned()),
        version: Some(version),
    };
    let model = ModelProto {
        graph: Some(graph(vec![info("x", &dims)], constants, nodes, &["y"])),
        opset_import: vec![
            import("", opset),
            import("ai.onnx.ml", 3),
            import("com.microsoft", 1),
        ],
        ..ModelProto::default()
    };
    analyze(&model).remove(0)
}

#[track_caller]
fn assert_independent(found: Verdict) {
    assert_eq!(found, Verdict::Independent);
}

#[track_caller]
fn assert_mixed(found: Verdict, reason: &str) {
    match found {
        Verdict::Mixed(found) => assert!(found.contains(reason), "{found}"),
        other => panic!("expected a mixture because it {reason}, found {other:?}"),
    }
}

/// The verdict for a single node with an input `x` of shape `[batch, …dims]`.
#[track_caller]
fn one(
    opset: i64,
    dims: &[i64],
    kind: &str,
    inputs: &[&str],
    constants: Vec<TensorProto>,
    settings: Vec<(&str, Setting)>,
) -> Verdict {
    found(opset, dims, constants, vec![node(kind, inputs, &["y"], settings)])
}

use Setting::{Graph, Int, Ints, Text};
