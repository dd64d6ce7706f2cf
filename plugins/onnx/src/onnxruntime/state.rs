//! Detects nodes whose results depend on earlier runs of the model.

use std::collections::HashSet;

use rten_onnx::onnx::{GraphProto, NodeProto};

/// Inputs of `BatchNormalization` that hold its statistics: mean and variance.
const STATISTICS: [usize; 2] = [3, 4];

/// Name of a `BatchNormalization` node in training mode whose statistics are constants. ONNX Runtime overwrites them in place,
/// and the next run starts from the updated values.
pub(super) fn updated_statistics(graph: &GraphProto) -> Option<&str> {
    in_graph(graph, &HashSet::new())
}

/// Like [`updated_statistics`], for a graph whose enclosing graphs have the constants `outer`.
fn in_graph<'g>(graph: &'g GraphProto, outer: &HashSet<&'g str>) -> Option<&'g str> {
    let mut constants = outer.clone();
    constants.extend(
        graph
            .initializer
            .iter()
            .filter_map(|tensor| tensor.name.as_deref()),
    );
    for node in &graph.node {
        if is_training(node)
            && STATISTICS.iter().any(|index| {
                node.input
                    .get(*index)
                    .is_some_and(|name| constants.contains(name.as_str()))
            })
        {
            let name = node.name.as_deref().filter(|name| !name.is_empty());
            return name.or(node.output.first().map(String::as_str));
        }
        let mut subgraphs = node.attribute.iter().filter_map(|attribute| attribute.g.as_ref());
        if let Some(found) = subgraphs.find_map(|graph| in_graph(graph, &constants)) {
            return Some(found);
        }
        // Values computed only from constants are computed once, at load.
        if node
            .input
            .iter()
            .all(|name| name.is_empty() || constants.contains(name.as_str()))
        {
            constants.extend(node.output.iter().map(String::as_str));
        }
    }
    None
}

fn is_training(node: &NodeProto) -> bool {
    let is_set = node
        .attribute
        .iter()
        .any(|attribute| attribute.name.as_deref() == Some("training_mode") && attribute.i == Some(1));
    node.op_type.as_deref() == Some("BatchNormalization") && is_set
}
