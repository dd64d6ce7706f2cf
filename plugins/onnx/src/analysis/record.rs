//! Records tensor sizes while a graph is analyzed: the largest single tensor, and the peak of all tensors that are live at the
//! same time.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use rten_onnx::onnx::{GraphProto, NodeProto};

use super::node::{Op, label};
use super::rules;
use super::size::Size;
use super::sizes::Sizes;
use super::value::{Content, Value};

/// The recorded sizes of values.
#[derive(Default)]
pub(super) struct Record {
    /// Number of elements of the largest tensor, and the input or node it comes from.
    largest: RefCell<Option<(i64, String)>>,
    /// Total number of elements of the tensors that are live at this point of the run.
    live: Cell<i64>,
    /// Maximum of `live` at any point.
    peak: Cell<i64>,
    /// The first node that produces a tensor of unknown size that depends on the values of the graph's inputs.
    unbounded: RefCell<Option<String>>,
    /// Whether any node produces a tensor whose size depends on the values of the graph's inputs.
    by_elements: Cell<bool>,
}

impl Record {
    /// Returns the recorded sizes, and whether any size depends on the values of the graph's inputs.
    pub(super) fn into_sizes(self) -> (Sizes, bool) {
        let sizes = Sizes {
            largest: self.largest.into_inner(),
            peak: self.peak.get(),
            unbounded: self.unbounded.into_inner(),
        };
        (sizes, self.by_elements.get())
    }

    /// Records the outputs of a node. `by_elements` is true if the inputs of the node depend on the values of the graph's inputs.
    pub(super) fn add(&self, op: &Op<'_>, outputs: &[Value], by_elements: bool) {
        let by_elements = by_elements && rules::grows(op.kind()) && !keeps_its_size(op);
        self.by_elements.set(self.by_elements.get() || by_elements);
        for value in outputs {
            let is_known = self.add_tensor(value, || label(op.node));
            if by_elements && !is_known {
                self.unbounded.borrow_mut().get_or_insert_with(|| label(op.node));
            }
        }
    }

    /// Records the size of a tensor if it is known, and returns whether it is.
    pub(super) fn add_tensor(&self, value: &Value, name: impl FnOnce() -> String) -> bool {
        let Some(count) = value.dims.as_ref().and_then(|dims| elements(dims)) else {
            return false;
        };
        let mut largest = self.largest.borrow_mut();
        if largest.as_ref().is_none_or(|(known, _)| *known < count) {
            *largest = Some((count, name()));
        }
        true
    }
}

/// Tracks which values of a graph are live, and how many elements they have in total.
pub(super) struct Lifetimes<'g, 'r> {
    record: &'r Record,
    /// Index of the last node that reads each value. Outputs of the graph have no entry: they stay live.
    last_reads: HashMap<&'g str, usize>,
    /// Live values of known size, with their numbers of elements.
    live: HashMap<&'g str, i64>,
}

impl<'g, 'r> Lifetimes<'g, 'r> {
    pub(super) fn new(graph: &'g GraphProto, record: &'r Record) -> Self {
        let mut last_reads = HashMap::new();
        for (index, node) in graph.node.iter().enumerate() {
            // A value that no node reads is dropped as soon as it has been computed.
            last_reads.extend(node.output.iter().map(|name| (name.as_str(), index)));
            each_read(node, &mut |name| {
                last_reads.insert(name, index);
            });
        }
        for output in &graph.output {
            last_reads.remove(output.name.as_deref().unwrap_or_default());
        }
        Self {
            record,
            last_reads,
            live: HashMap::new(),
        }
    }

    /// Called when a node computes a value.
    pub(super) fn begin(&mut self, name: &'g str, value: &Value) {
        let Some(count) = value.dims.as_deref().and_then(elements) else {
            return;
        };
        let before = self.live.insert(name, count).unwrap_or_default();
        let Record { live, peak, .. } = self.record;
        live.set(live.get().saturating_sub(before).saturating_add(count));
        peak.set(peak.get().max(live.get()));
    }

    /// Called after the node at `index` has run. Drops the values that no later node reads.
    pub(super) fn end(&mut self, index: usize) {
        let Self {
            record,
            last_reads,
            live,
        } = self;
        live.retain(|name, count| {
            let is_read = last_reads.get(name).is_none_or(|last| *last > index);
            if !is_read {
                record.live.set(record.live.get().saturating_sub(*count));
            }
            is_read
        });
    }
}

impl Drop for Lifetimes<'_, '_> {
    /// Drops the remaining values. The outputs of a subgraph are then counted as outputs of the node that contains it.
    fn drop(&mut self) {
        for count in self.live.values() {
            self.record
                .live
                .set(self.record.live.get().saturating_sub(*count));
        }
    }
}

/// Visits the names of all values that a node reads, including those that its subgraphs read.
fn each_read<'g>(node: &'g NodeProto, visit: &mut impl FnMut(&'g str)) {
    node.input.iter().for_each(|name| visit(name));
    for graph in node.attribute.iter().filter_map(|attribute| attribute.g.as_ref()) {
        let outputs = graph.output.iter().filter_map(|output| output.name.as_deref());
        outputs.for_each(&mut *visit);
        graph.node.iter().for_each(|node| each_read(node, visit));
    }
}

/// The number of elements of a tensor, saturating at `i64::MAX`; `None` if a dimension is unknown.
fn elements(dims: &[Size]) -> Option<i64> {
    let sizes = dims.iter().map(Size::value).collect::<Option<Vec<_>>>()?;
    if sizes.contains(&0) {
        return Some(0);
    }
    let product = sizes
        .iter()
        .try_fold(1_i64, |product, size| product.checked_mul(*size));
    Some(product.unwrap_or(i64::MAX))
}

/// Whether the inputs that determine the size of the result are independent of the values of the graph's inputs.
fn keeps_its_size(op: &Op<'_>) -> bool {
    rules::sizing_inputs(op.kind())
        .filter_map(|index| op.get(index))
        .all(|value| value.content == Content::Constant)
}
