//! Visits the nodes of a graph in execution order and checks each one.

use std::collections::{HashMap, HashSet};

use rten_onnx::onnx::{DataType, GraphProto, ModelProto, NodeProto};

use super::attributes::Attributes;
use super::combined::{self, Producers};
use super::fact::{Bounds, Fact, Integers};
use super::features::{Feature, features, loosens};
use super::floats::{Floats, floats};
use super::guard::{Condition, Guard, conditions};
use super::infer::infer;
use super::subgraphs::{defined, subgraphs};
use super::table::{Class, Outside, Table};
use super::{Problem, Reason};

/// Operators that move integers without computing with them, so constants that exceed 32 bits can pass through.
const MOVING: [&str; 6] = ["Concat", "Gather", "Identity", "Reshape", "Squeeze", "Unsqueeze"];

/// A node with the properties that its verification depends on.
#[derive(Debug)]
pub struct NodeFeatures {
    /// The operator, qualified by its domain unless it is in the default domain.
    pub operator: String,
    /// Version of the operator set.
    pub opset: i64,
    /// Names and values of the features.
    pub features: Vec<Feature>,
}

pub(super) type Scope = HashMap<String, Fact>;

/// State of the traversal of a model.
pub(super) struct Walk<'a> {
    table: &'a Table,
    opsets: HashMap<&'a str, i64>,
    /// Maximum size of a dynamic dimension of an input.
    max_dimension: i64,
    pub(super) reasons: Vec<Reason>,
    pub(super) guards: Vec<Guard>,
    /// The subgraphs that enclose the current node, in the form of [`Guard::path`].
    pub(super) path: Vec<(usize, String)>,
    /// Whether one of the enclosing subgraphs is a loop body.
    pub(super) within_loop: bool,
    /// Names of all values that the current graph and those around it define, if the current one has subgraphs.
    pub(super) enclosing: HashSet<String>,
    pub(super) nodes: Vec<NodeFeatures>,
    /// For each output of the model, whether its BOOL elements may represent true as an integer other than 1.
    pub(super) loose: Vec<bool>,
}

/// Normalizes the name of a domain: the default domain has two names.
fn domain(name: Option<&str>) -> &str {
    match name {
        None | Some("ai.onnx") => "",
        Some(name) => name,
    }
}

impl<'a> Walk<'a> {
    pub(super) fn new(model: &'a ModelProto, table: &'a Table, max_dimension: i64) -> Self {
        let mut opsets = HashMap::new();
        for import in &model.opset_import {
            let version = import.version.unwrap_or_default();
            let known = opsets.entry(domain(import.domain.as_deref())).or_insert(version);
            if *known != version {
                // Runtimes may choose different ones of several versions; no operator is verified in this one.
                *known = i64::MAX;
            }
        }
        Self {
            table,
            opsets,
            max_dimension,
            reasons: Vec::new(),
            guards: Vec::new(),
            path: Vec::new(),
            within_loop: false,
            enclosing: HashSet::new(),
            nodes: Vec::new(),
            loose: Vec::new(),
        }
    }

    /// Checks the graph of the model. Returns the facts about its outputs.
    pub(super) fn model(&mut self, graph: &GraphProto) -> Vec<Fact> {
        let inputs = graph.input.iter().map(|value| {
            let fact = Fact {
                floats: Floats::GIVEN,
                ..Fact::declared(value, self.max_dimension)
            };
            // The plugin rejects items with values outside this range.
            let integers = fact.datatype == Some(DataType::INT64);
            fact.with_integers(integers.then_some(Integers::within(Bounds::I32)))
        });
        let inputs: Vec<_> = inputs.collect();
        for (value, fact) in graph.input.iter().zip(&inputs) {
            self.check_precision(value.name.as_deref().unwrap_or_default(), fact);
        }
        let outputs = self.graph(graph, &Scope::new(), inputs);
        self.loose = outputs.iter().map(|fact| fact.loose).collect();
        for (value, fact) in graph.output.iter().zip(&outputs) {
            let name = value.name.as_deref().unwrap_or_default();
            self.check_precision(name, fact);
            if fact.datatype == Some(DataType::INT64) && !fact.bounds().fits_32_bits() {
                self.reject("output", name, Problem::Range(fact.bounds()));
            }
        }
        outputs
    }

    fn check_precision(&mut self, name: &str, fact: &Fact) {
        if fact.datatype == Some(DataType::DOUBLE) {
            self.reject("tensor", name, Problem::Precision);
        }
    }

    fn reject(&mut self, operator: &str, node: &str, problem: Problem) {
        self.reasons.push(Reason {
            operator: operator.to_owned(),
            node: node.to_owned(),
            problem,
        });
    }

    /// Facts about the outputs of a graph, which can refer to values of the `outer` scope.
    pub(super) fn graph(&mut self, graph: &GraphProto, outer: &Scope, inputs: Vec<Fact>) -> Vec<Fact> {
        let mut scope = outer.clone();
        for (value, fact) in graph.input.iter().zip(inputs) {
            scope.insert(value.name.clone().unwrap_or_default(), fact);
        }
        for tensor in &graph.initializer {
            scope.insert(tensor.name.clone().unwrap_or_default(), Fact::of_tensor(tensor));
        }
        let declared: HashMap<_, _> = graph
            .value_info
            .iter()
            .filter_map(|value| Some((value.name.as_deref()?, Fact::declared(value, Bounds::SIZE.high))))
            .collect();
        let producers = Producers::of(graph);
        let outside = self.enclosing.clone();
        if graph.node.iter().any(|node| subgraphs(node).next().is_some()) {
            self.enclosing.extend(defined(graph).map(str::to_owned));
        }
        for (index, node) in graph.node.iter().enumerate() {
            if let Some(with) = combined::unverified(node, &producers, |name| scope.get(name)) {
                self.reject_node(node, Problem::Combined(with));
            }
            if let Some(name) = self.hidden(node) {
                self.reject_node(node, Problem::Hidden(name));
            }
            for value in combined::bounded(node, &producers, |name| scope.get(name)) {
                if self.watch(index, node, value, Condition::Infinite) {
                    let fact = scope.get_mut(value).into_iter();
                    fact.for_each(|fact| Condition::Infinite.exclude_from(&mut fact.floats));
                }
            }
            let outputs = self.node(index, node, &mut scope);
            for (name, mut fact) in node.output.iter().zip(outputs) {
                if let Some(declared) = declared.get(name.as_str()) {
                    fact.datatype = fact.datatype.or(declared.datatype);
                    fact.shape = fact.shape.or(declared.shape.clone());
                    if fact.datatype != declared.datatype && declared.datatype.is_some()
                        || fact.rank() != declared.rank() && declared.rank().is_some()
                    {
                        self.reject_node(node, Problem::Declared(name.clone()));
                    }
                }
                scope.insert(name.clone(), fact);
            }
        }
        self.enclosing = outside;
        let output = |value: &rten_onnx::onnx::ValueInfoProto| {
            let name = value.name.as_deref().unwrap_or_default();
            scope.get(name).cloned().unwrap_or_default()
        };
        graph.output.iter().map(output).collect()
    }

    pub(super) fn reject_node(&mut self, node: &NodeProto, problem: Problem) {
        let (operator, name) = names(node);
        self.reject(operator, name, problem);
    }

    /// Adds guards for the data for which a node is not verified. Downstream analysis can then assume that such data does not
    /// occur.
    fn guard(
        &mut self,
        index: usize,
        node: &NodeProto,
        inputs: &mut [Option<Fact>],
        scope: &mut Scope,
        class: &Class,
    ) {
        for position in 0..inputs.len() {
            for condition in conditions(node, inputs, position, class) {
                let value = &node.input[position];
                if self.watch(index, node, value, condition) {
                    for fact in inputs[position].iter_mut().chain(scope.get_mut(value)) {
                        condition.exclude_from(&mut fact.floats);
                    }
                }
            }
        }
    }

    /// Adds a guard on a value for a node. Within a loop, rejects the node instead and returns `false`.
    fn watch(&mut self, index: usize, node: &NodeProto, value: &str, condition: Condition) -> bool {
        let (operator, name) = names(node);
        if self.within_loop {
            self.reject(operator, name, Problem::Unwatched(condition));
            return false;
        }
        self.guards.push(Guard {
            path: self.path.clone(),
            node_index: index,
            node: format!("`{operator}` (`{name}`)"),
            value: value.to_owned(),
            condition,
        });
        true
    }

    /// Facts about the outputs of a node.
    fn node(&mut self, index: usize, node: &NodeProto, scope: &mut Scope) -> Vec<Fact> {
        let domain = domain(node.domain.as_deref());
        let operator = node.op_type.as_deref().unwrap_or_default();
        if operator == "Constant" && domain.is_empty() {
            return vec![constant(node)];
        }
        let mut inputs: Vec<_> = node
            .input
            .iter()
            .map(|name| (!name.is_empty()).then(|| scope.get(name).cloned().unwrap_or_default()))
            .collect();
        while inputs.last().is_some_and(Option::is_none) {
            inputs.pop();
        }
        let qualified = match domain {
            "" => operator.to_owned(),
            domain => format!("{domain}.{operator}"),
        };
        let opset = self.opsets.get(domain).copied().unwrap_or_default();
        let features = features(node, opset, &inputs);
        let table = self.table;
        match table.verify(&qualified, opset, &features) {
            Ok(class) => self.guard(index, node, &mut inputs, scope, class),
            Err(Outside::Operator(reason)) => self.reject_node(node, Problem::Operator(reason)),
            Err(Outside::Opset(opset)) => self.reject_node(node, Problem::Opset(opset)),
            Err(Outside::Features(unverified)) => self.reject_node(node, Problem::Features(unverified)),
        }
        self.nodes.push(NodeFeatures {
            operator: qualified,
            opset,
            features,
        });
        let mut outputs = match operator {
            "If" => self.branches(index, node, scope),
            "Loop" => self.repetition(node, scope, &inputs),
            _ => {
                let floats = floats(node, &inputs);
                let mut outputs = infer(node, &inputs);
                for output in outputs.iter_mut().filter(|output| output.holds_floats()) {
                    output.floats = floats;
                }
                outputs
            }
        };
        let loose = loosens(node, &inputs);
        for output in outputs.iter_mut().filter(|_| loose) {
            output.loose = output.datatype == Some(DataType::BOOL);
        }
        self.check_integers(node, &inputs, &outputs);
        outputs
    }

    /// Rejects INT64 values that may exceed 32 bits.
    fn check_integers(&mut self, node: &NodeProto, inputs: &[Option<Fact>], outputs: &[Fact]) {
        let operator = node.op_type.as_deref().unwrap_or_default();
        let exceeds = |fact: &Fact| fact.datatype == Some(DataType::INT64) && !fact.bounds().fits_32_bits();
        let moves = MOVING.contains(&operator);
        // A slice to the end of a dimension often has `i64::MAX` as its end, which the runtime saturates to `i32::MAX`.
        let allows = |index: usize| moves || operator == "Slice" && (index == 1 || index == 2);
        let excess = |fact: &Fact| Problem::Range(fact.bounds());
        let consumed = inputs.iter().enumerate().find_map(|(index, input)| {
            let input = input.as_ref().filter(|input| exceeds(input) && !allows(index))?;
            Some(excess(input))
        });
        let produced = outputs
            .iter()
            .find(|output| exceeds(output) && !moves)
            .map(excess);
        if let Some(problem) = consumed.or(produced) {
            self.reject_node(node, problem);
        }
    }
}

/// Operator and name of a node. The name defaults to that of its first output.
fn names(node: &NodeProto) -> (&str, &str) {
    let name = node.name.as_deref().filter(|name| !name.is_empty());
    let name = name.or(node.output.first().map(String::as_str));
    (
        node.op_type.as_deref().unwrap_or_default(),
        name.unwrap_or_default(),
    )
}

/// Facts about the value of a `Constant` node.
fn constant(node: &NodeProto) -> Fact {
    let attributes = Attributes::of(node);
    let vector = |length: usize| Some(vec![Bounds::exactly(length as i64)]);
    let integers = |values: &[i64]| Integers::each(values.iter().copied().map(Bounds::exactly).collect());
    let mut fact = if let Some(tensor) = attributes.tensor("value") {
        Fact::of_tensor(tensor)
    } else if let Some(value) = attributes.int("value_int") {
        Fact::new(Some(DataType::INT64), Some(Vec::new())).with_integers(Some(integers(&[value])))
    } else if let Some(values) = attributes.ints("value_ints") {
        Fact::new(Some(DataType::INT64), vector(values.len())).with_integers(Some(integers(values)))
    } else if let Some(value) = attributes.float("value_float") {
        Fact {
            floats: Floats::of_constants([value]),
            single: Some(value),
            ..Fact::new(Some(DataType::FLOAT), Some(Vec::new()))
        }
    } else if let Some(values) = attributes.floats("value_floats") {
        Fact {
            floats: Floats::of_constants(values.iter().copied()),
            single: values.first().copied().filter(|_| values.len() == 1),
            ..Fact::new(Some(DataType::FLOAT), vector(values.len()))
        }
    } else {
        Fact::default()
    };
    fact.constant = true;
    fact
}
