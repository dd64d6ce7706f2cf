//! Walks a graph from its inputs to its outputs, including the subgraphs of its nodes.

use std::cell::Cell;
use std::collections::HashMap;

use rten_onnx::onnx::{GraphProto, NodeProto, OperatorSetIdProto, ValueInfoProto};

use super::constant;
use super::node::{Op, Outcome, label};
use super::record::{Lifetimes, Record};
use super::rules;
use super::size::{Size, Symbols};
use super::sizes::Sizes;
use super::value::{Content, Inseparable, Role, Value};

/// Maximum number of nodes to analyze. The bodies of nested loops are analyzed many times.
const MAX_NODES: usize = 1_000_000;

/// The values of a graph by name, with a link to the scope of the enclosing graph.
#[derive(Default)]
pub(super) struct Scope<'a> {
    values: HashMap<&'a str, Value>,
    around: Option<&'a Scope<'a>>,
}

impl Scope<'_> {
    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        match self.values.get(name) {
            Some(value) => Some(value),
            None => self.around?.get(name),
        }
    }
}

/// One analysis.
pub(super) struct Walk<'m> {
    opsets: &'m [OperatorSetIdProto],
    symbols: Symbols,
    /// Number of nodes that can still be analyzed.
    left: Cell<usize>,
    /// The recorded sizes, if the analysis computes sizes. In this mode, inputs have no batch, and [`Content::Count`] means that
    /// a value depends on the values of the graph's inputs.
    pub(super) sizes: Option<Record>,
}

impl<'m> Walk<'m> {
    pub(super) fn new(opsets: &'m [OperatorSetIdProto]) -> Self {
        Self {
            opsets,
            symbols: Symbols::default(),
            left: Cell::new(MAX_NODES),
            sizes: None,
        }
    }

    /// An analysis that records sizes.
    pub(super) fn sizing(opsets: &'m [OperatorSetIdProto]) -> Self {
        Self {
            sizes: Some(Record::default()),
            ..Self::new(opsets)
        }
    }

    pub(super) fn symbols(&self) -> &Symbols {
        &self.symbols
    }

    /// Returns the recorded sizes, and whether any size depends on the values of the graph's inputs.
    pub(super) fn recorded(self) -> (Sizes, bool) {
        self.sizes.unwrap_or_default().into_sizes()
    }

    /// Computes the values of a graph. `input` returns the value of each of its inputs.
    pub(super) fn follow<'g>(
        &self,
        graph: &'g GraphProto,
        input: impl Fn(&ValueInfoProto, &str) -> Value,
    ) -> Scope<'g> {
        let mut scope = Scope::default();
        self.initialize(graph, &mut scope);
        for info in &graph.input {
            let name = info.name.as_deref().unwrap_or_default();
            // Old models also list their initializers as inputs.
            if scope.values.contains_key(name) {
                continue;
            }
            let value = input(info, name);
            if let Some(sizes) = &self.sizes {
                sizes.add_tensor(&value, || format!("input `{name}`"));
            }
            scope.values.insert(name, value);
        }
        self.nodes(graph, &mut scope);
        scope
    }

    /// The declared shape of a tensor, in which open dimensions are symbols.
    pub(super) fn declared(&self, info: &ValueInfoProto, name: &str) -> Option<Vec<Size>> {
        let shape = info.r#type.as_ref()?.tensor_type.as_ref()?.shape.as_ref()?;
        let dims = shape.dim.iter().enumerate();
        let size = |(axis, dim): (usize, &rten_onnx::onnx::Dimension)| match dim.dim_value {
            Some(size) if size > 0 => Size::known(size),
            _ => self
                .symbols
                .dimension(&format!("dimension {axis} of {name}"), &[]),
        };
        Some(dims.map(size).collect())
    }

    fn initialize<'g>(&self, graph: &'g GraphProto, scope: &mut Scope<'g>) {
        for tensor in &graph.initializer {
            let name = tensor.name.as_deref().unwrap_or_default();
            scope.values.insert(name, constant::tensor(tensor, &self.symbols));
        }
    }

    fn nodes<'g>(&self, graph: &'g GraphProto, scope: &mut Scope<'g>) {
        let mut lifetimes = self.sizes.as_ref().map(|record| Lifetimes::new(graph, record));
        for (index, node) in graph.node.iter().enumerate() {
            let values = self.outputs(node, scope);
            for (name, value) in node.output.iter().zip(values) {
                if !name.is_empty() {
                    if let Some(lifetimes) = &mut lifetimes {
                        lifetimes.begin(name, &value);
                    }
                    scope.values.insert(name, value);
                }
            }
            if let Some(lifetimes) = &mut lifetimes {
                lifetimes.end(index);
            }
        }
    }

    /// Computes a value for each output of a node.
    fn outputs(&self, node: &NodeProto, scope: &Scope<'_>) -> Vec<Value> {
        let known = |name: &String| {
            (!name.is_empty()).then(|| {
                scope.get(name).cloned().unwrap_or_else(|| {
                    let reason = format!("{} uses `{name}`, which is not computed yet", label(node));
                    Value::inseparable(Inseparable::Unknown(reason.into()))
                })
            })
        };
        let inputs: Vec<_> = node.input.iter().map(known).collect();
        let count = node.output.len();
        let left = self.left.get();
        if left == 0 {
            let reason = "the graph has loops that are nested too deep";
            return vec![Value::inseparable(Inseparable::Unknown(reason.into())); count];
        }
        self.left.set(left - 1);
        let contents = || inputs.iter().flatten().map(|value| &value.content);
        if let Some(inseparable) = worst(contents()) {
            return vec![Value::inseparable(inseparable); count];
        }
        let has_items = contents().any(|content| matches!(content, Content::Items(_)));
        let has_count = contents().any(|content| *content == Content::Count);
        let op = Op {
            node,
            opset: self.opset(node),
            inputs,
            symbols: &self.symbols,
            sizing: self.sizes.is_some(),
        };
        let outcome = self.outcome(&op, scope);
        let values = match outcome {
            Ok(values) => values,
            Err(inseparable @ Inseparable::Mixed(_)) => return vec![Value::inseparable(inseparable); count],
            // A subgraph of the node may use items that are not inputs of the node.
            Err(inseparable) if has_items || has_graph(node) => {
                return vec![Value::inseparable(inseparable); count];
            }
            Err(_) => Vec::new(),
        };
        let mut values = values.into_iter();
        // The shape of a tensor does not depend on its elements.
        let by_elements = self.sizes.is_some() && !matches!(op.kind(), "Shape" | "Size");
        let depends = |value: &Value| {
            has_count && (value.numbers.is_none() || by_elements) && value.content == Content::Constant
        };
        let value = |_| match values.next() {
            Some(value) if depends(&value) => Value {
                content: Content::Count,
                ..value
            },
            Some(value) => value,
            None if has_items => {
                Value::inseparable(op.unknown("has more outputs than the analysis supports"))
            }
            None => Value {
                content: if has_count {
                    Content::Count
                } else {
                    Content::Constant
                },
                ..Value::constant(None)
            },
        };
        let values: Vec<Value> = (0..count).map(value).collect();
        if let Some(sizes) = &self.sizes {
            sizes.add(&op, &values, has_count);
        }
        values
    }

    fn outcome(&self, op: &Op<'_>, scope: &Scope<'_>) -> Outcome {
        let domain = op.node.domain.as_deref().unwrap_or_default();
        let placed = op.inputs.iter().flatten().filter_map(Value::batch);
        if placed.into_iter().any(|batch| batch.role != Role::Data) && !rules::keeps_places(op.kind()) {
            return Err(op.unknown("computes with the positions of items in the batch"));
        }
        match (domain, op.kind()) {
            ("" | "ai.onnx", "Constant") => match constant::node(op.node, &self.symbols) {
                Some(value) => Ok(vec![value]),
                None => Ok(vec![Value::constant(None)]),
            },
            ("" | "ai.onnx", "If") => self.branches(op, scope),
            ("" | "ai.onnx", "Loop") => self.repeat(op, scope),
            ("" | "ai.onnx", "Scan") => self.scan(op, scope),
            (domain, kind) => match rules::find(domain, kind) {
                Some(rule) => rule(op),
                None => Err(op.unknown("is an operator that the analysis does not support")),
            },
        }
    }

    fn opset(&self, node: &NodeProto) -> i64 {
        let plain = |domain: Option<&str>| match domain.unwrap_or_default() {
            "ai.onnx" => String::new(),
            domain => domain.to_owned(),
        };
        let domain = plain(node.domain.as_deref());
        let import = self
            .opsets
            .iter()
            .find(|import| plain(import.domain.as_deref()) == domain);
        import.and_then(|import| import.version).unwrap_or(1)
    }

    /// Computes the outputs of a subgraph from the values of its inputs.
    pub(super) fn inner(&self, graph: &GraphProto, inputs: &[Value], scope: &Scope<'_>) -> Vec<Value> {
        let mut inner = Scope {
            values: HashMap::new(),
            around: Some(scope),
        };
        self.initialize(graph, &mut inner);
        for (input, value) in graph.input.iter().zip(inputs) {
            inner
                .values
                .insert(input.name.as_deref().unwrap_or_default(), value.clone());
        }
        self.nodes(graph, &mut inner);
        let output = |info: &ValueInfoProto| {
            let name = info.name.as_deref().unwrap_or_default();
            inner.get(name).cloned().unwrap_or_else(|| {
                Value::inseparable(Inseparable::Unknown(format!("`{name}` is not computed").into()))
            })
        };
        graph.output.iter().map(output).collect()
    }
}

fn has_graph(node: &NodeProto) -> bool {
    node.attribute.iter().any(|attribute| attribute.g.is_some())
}

/// The first inseparable among the values. [`Inseparable::Mixed`] takes precedence.
pub(super) fn worst<'c>(contents: impl Iterator<Item = &'c Content> + Clone) -> Option<Inseparable> {
    let mut found = contents.filter_map(|content| match content {
        Content::Inseparable(inseparable) => Some(inseparable),
        _ => None,
    });
    let first = found.clone().next()?;
    let mixed = found.find(|inseparable| matches!(inseparable, Inseparable::Mixed(_)));
    Some(mixed.unwrap_or(first).clone())
}
