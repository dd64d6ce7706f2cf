//! Removes the shapes that a file declares for its values, since the embedded runtime trusts them.
//!
//! It assumes that dimensions with the same name have the same size, and that intermediate values have the shapes that the file
//! declares. Files need not fulfill either: `?` is a common name for any dimension, and many exporters declare the shapes of a batch
//! of one. The plugin checks the shapes of inputs itself.

use rten_onnx::onnx::{GraphProto, ValueInfoProto};

/// Removes the declared shapes of all values of a graph and of its subgraphs. Only the inputs of the graph itself keep their
/// datatypes.
pub(crate) fn remove(graph: &mut GraphProto) {
    for input in &mut graph.input {
        let tensor = input
            .r#type
            .as_mut()
            .and_then(|declared| declared.tensor_type.as_mut());
        if let Some(tensor) = tensor {
            tensor.shape = None;
        }
    }
    remove_types(&mut graph.output);
    remove_below(graph);
}

fn remove_below(graph: &mut GraphProto) {
    graph.value_info.clear();
    let attributes = graph.node.iter_mut().flat_map(|node| &mut node.attribute);
    for subgraph in attributes.filter_map(|attribute| attribute.g.as_mut()) {
        remove_types(&mut subgraph.input);
        remove_types(&mut subgraph.output);
        remove_below(subgraph);
    }
}

fn remove_types(values: &mut [ValueInfoProto]) {
    for value in values {
        value.r#type = None;
    }
}

#[cfg(test)]
mod tests {
    use rten_onnx::onnx::{
        AttributeProto, DataType, NodeProto, TensorShapeProto, TypeProto, TypeProtoTensor,
    };

    use super::*;

    fn value(name: &str) -> ValueInfoProto {
        ValueInfoProto {
            name: Some(name.to_owned()),
            r#type: Some(TypeProto {
                tensor_type: Some(TypeProtoTensor {
                    elem_type: Some(DataType::FLOAT),
                    shape: Some(TensorShapeProto::default()),
                }),
                ..TypeProto::default()
            }),
        }
    }

    #[test]
    fn inputs_of_the_graph_keep_their_datatypes_and_nothing_else_remains() {
        let body = GraphProto {
            input: vec![value("a")],
            output: vec![value("b")],
            value_info: vec![value("c")],
            ..GraphProto::default()
        };
        let node = NodeProto {
            attribute: vec![AttributeProto {
                g: Some(body),
                ..AttributeProto::default()
            }],
            ..NodeProto::default()
        };
        let mut graph = GraphProto {
            input: vec![value("x")],
            output: vec![value("y")],
            value_info: vec![value("z")],
            node: vec![node],
            ..GraphProto::default()
        };
        remove(&mut graph);
        let input = graph.input[0]
            .r#type
            .as_ref()
            .and_then(|declared| declared.tensor_type.as_ref());
        let input = input.expect("the datatype remains");
        assert_eq!(
            (input.elem_type, input.shape.is_none()),
            (Some(DataType::FLOAT), true)
        );
        assert!(graph.output[0].r#type.is_none() && graph.value_info.is_empty());
        let body = graph.node[0].attribute[0].g.as_ref().expect("a body");
        assert!(body.input[0].r#type.is_none() && body.output[0].r#type.is_none());
        assert!(body.value_info.is_empty());
    }
}
