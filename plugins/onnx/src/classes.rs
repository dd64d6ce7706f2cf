//! Extracts the class names from the graph of a classifier, as written by exporters for scikit-learn, XGBoost and LightGBM. Does
//! not perform I/O.

use rten_onnx::onnx::GraphProto;

/// Attributes with class names, of the `ai.onnx.ml` classifiers and of ZipMap.
const ATTRIBUTES: [&str; 3] = ["classlabels_strings", "classlabels_int64s", "classlabels_ints"];

/// The operators whose attributes name the classes of the model.
const OPERATORS: [&str; 4] = [
    "LinearClassifier",
    "SVMClassifier",
    "TreeEnsembleClassifier",
    "ZipMap",
];

/// The class names in the order of the scores; `None` if the graph contains none or contradictory ones.
pub(crate) fn names(graph: &GraphProto) -> Option<Vec<String>> {
    let mut found: Option<Vec<String>> = None;
    for node in &graph.node {
        let operator = node.op_type.as_deref().unwrap_or_default();
        if !OPERATORS.contains(&operator) {
            continue;
        }
        for attribute in &node.attribute {
            if !ATTRIBUTES.contains(&attribute.name.as_deref().unwrap_or_default()) {
                continue;
            }
            let names = match attribute.strings.is_empty() {
                true => attribute.ints.iter().map(i64::to_string).collect(),
                false => attribute.strings.clone(),
            };
            match &found {
                _ if names.is_empty() => {}
                None => found = Some(names),
                Some(known) if *known == names => {}
                Some(_) => return None,
            }
        }
    }
    found
}
