//! Determines from the graph alone, without running it, whether items that are computed together affect each other.
//!
//! The analysis assumes that every input has the batch in dimension 0. It tracks where the items are in each value: in which
//! dimension, and in which order. Tracking continues through operators that keep the items independent; an operator that combines
//! elements along the batch dimension mixes the items. The rules are exact or conservative: an output is `Independent` only if
//! every operator it depends on is known to keep the items independent. If the graph is not sufficient to decide, the verdict is
//! `Unknown`; the caller can then compare the results of items computed together and alone.

use rten_onnx::onnx::{ModelProto, ValueInfoProto};

use super::graph::Walk;
use super::size::Size;
use super::value::{Batch, Content, Inseparable, Role, Value};

/// Whether the items of an output are independent. The reasons are clauses that name the node or the output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Row `i` of the output is computed from item `i` alone, in the same way in every batch.
    Independent,
    /// The result of an item depends on the other items in the batch, or on its index in the batch.
    Mixed(String),
    /// The output cannot be divided into items along its first dimension.
    NotBatchFirst(String),
    /// The graph is not sufficient to decide.
    Unknown(String),
}

/// Returns the verdict for each output of the graph, in order, assuming that all inputs have the batch in dimension 0.
pub(crate) fn analyze(model: &ModelProto) -> Vec<Verdict> {
    let Some(graph) = &model.graph else {
        return Vec::new();
    };
    let walk = Walk::new(&model.opset_import);
    let scope = walk.follow(graph, |input, name| batched(&walk, input, name));
    let output = |info: &ValueInfoProto| {
        let name = info.name.as_deref().unwrap_or_default();
        match scope.get(name) {
            Some(value) => verdict(name, value),
            None => Verdict::Unknown(format!("no node computes output `{name}`")),
        }
    };
    graph.output.iter().map(output).collect()
}

/// An input with the batch in dimension 0.
fn batched(walk: &Walk<'_>, input: &ValueInfoProto, name: &str) -> Value {
    match walk.declared(input, name).filter(|dims| !dims.is_empty()) {
        Some(mut dims) => {
            dims[0] = Size::batch();
            Value::items(dims, Batch::at(0))
        }
        None => Value::inseparable(Inseparable::Unknown(
            format!("input `{name}` has no declared dimension for the batch").into(),
        )),
    }
}

fn verdict(name: &str, value: &Value) -> Verdict {
    match &value.content {
        Content::Inseparable(Inseparable::Mixed(reason)) => Verdict::Mixed(reason.to_string()),
        Content::Inseparable(Inseparable::Unknown(reason)) => Verdict::Unknown(reason.to_string()),
        Content::Constant | Content::Count => {
            Verdict::NotBatchFirst(format!("output `{name}` does not depend on the items"))
        }
        Content::Items(batch) if batch.role != Role::Data => Verdict::Mixed(format!(
            "output `{name}` is the position of each item in the batch"
        )),
        Content::Items(batch) if batch.axis != 0 => Verdict::NotBatchFirst(format!(
            "output `{name}` has the batch in dimension {}",
            batch.axis
        )),
        Content::Items(_) => {
            let rows = value.dims.as_ref().and_then(|dims| dims.first());
            if rows == Some(&Size::batch()) {
                Verdict::Independent
            } else {
                Verdict::NotBatchFirst(format!(
                    "output `{name}` has another number of rows than the batch has items"
                ))
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
