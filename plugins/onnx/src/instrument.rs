//! Adds flags to a graph: outputs that report whether a value holds data for which an operator is not verified.
//!
//! A flag is a scalar: NaN if the run must fail, any other number otherwise. A flag within a branch of an `If` becomes an
//! additional output of the `If`.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use rten_onnx::onnx::{
    AttributeProto, DataType, GraphProto, NodeProto, TensorProto, TensorShapeProto, TypeProto,
    TypeProtoTensor, ValueInfoProto,
};

use crate::verified::{Condition, Guard};

/// A flag output that was added to a graph.
#[derive(Debug)]
pub(crate) struct Flag {
    /// Reason for the failure of a run that raises the flag.
    pub(crate) reason: String,
    /// Indexes of the outputs that depend on the watched value.
    outputs: BTreeSet<usize>,
}

impl Flag {
    /// Whether an output depends on the watched value.
    pub(crate) fn concerns(&self, output: usize) -> bool {
        self.outputs.contains(&output)
    }
}

/// Adds flags for the guards, as the last outputs of the graph.
pub(crate) fn add_flags(graph: &mut GraphProto, guards: &[Guard]) -> Vec<Flag> {
    let readers = readers(graph);
    let mut names = Names::new(graph);
    let guards: Vec<_> = guards.iter().collect();
    let added = add(graph, &guards, 0, &mut names);
    let flags = added.into_iter().map(|added| {
        graph.output.push(scalar(&added.name));
        let outputs = readers.iter().enumerate();
        let outputs = outputs.filter(|(_, nodes)| !nodes.is_disjoint(&added.readers));
        Flag {
            reason: added.reason,
            outputs: outputs.map(|(index, _)| index).collect(),
        }
    });
    flags.collect()
}

/// A flag value that was added to a graph.
struct Added {
    name: String,
    reason: String,
    /// Indexes of the nodes that read the watched value, or of the `If` whose branch contains the node of the guard. Nodes without a
    /// guard also rely on it.
    readers: BTreeSet<usize>,
}

/// Adds the flag values for `guards` to a graph that is nested `depth` subgraphs deep.
fn add(graph: &mut GraphProto, guards: &[&Guard], depth: usize, names: &mut Names) -> Vec<Added> {
    let (here, within): (Vec<&Guard>, Vec<&Guard>) =
        guards.iter().partition(|guard| guard.path.len() == depth);
    let mut added = Vec::new();
    let readers = match here.is_empty() {
        true => HashMap::new(),
        false => nodes_that_read(graph),
    };
    for guard in here {
        added.push(Added {
            name: watch(graph, guard, names),
            reason: guard.to_string(),
            readers: readers.get(&guard.value).cloned().unwrap_or_default(),
        });
    }
    let mut by_node: BTreeMap<usize, Vec<&Guard>> = BTreeMap::new();
    for guard in within {
        by_node.entry(guard.path[depth].0).or_default().push(guard);
    }
    for (node_index, guards) in by_node {
        let Some(node) = graph.node.get_mut(node_index) else {
            continue;
        };
        added.push(Added {
            name: add_to_branches(node, &guards, depth, names),
            reason: reasons(&guards),
            readers: BTreeSet::from([node_index]),
        });
    }
    added
}

/// The combined reason of several guards, any of which may have failed.
fn reasons(guards: &[&Guard]) -> String {
    let mut reasons: Vec<_> = guards.iter().map(|guard| guard.to_string()).collect();
    reasons.dedup();
    reasons.join(", or ")
}

/// Adds flags to the branches of an `If`, adds their sum to its outputs, and returns the name of that output. The sum is NaN if
/// any of the flags is.
fn add_to_branches(node: &mut NodeProto, guards: &[&Guard], depth: usize, names: &mut Names) -> String {
    let mut outputs = node.output.len();
    for attribute in &mut node.attribute {
        let name = attribute.name.clone().unwrap_or_default();
        let Some(branch) = &mut attribute.g else {
            continue;
        };
        outputs = branch.output.len();
        let of_branch: Vec<_> = guards
            .iter()
            .copied()
            .filter(|guard| guard.path[depth].1 == name)
            .collect();
        let flags: Vec<_> = add(branch, &of_branch, depth + 1, names)
            .into_iter()
            .map(|added| added.name)
            .collect();
        let sum = names.next();
        branch.node.push(match flags.is_empty() {
            true => zero(&sum),
            false => node_of("Sum", flags, &sum),
        });
        branch.output.push(scalar(&sum));
    }
    // The node may omit trailing outputs that are not used.
    node.output.resize(outputs, String::new());
    let name = names.next();
    node.output.push(name.clone());
    name
}

/// Adds nodes that compute a flag, and returns its name.
fn watch(graph: &mut GraphProto, guard: &Guard, names: &mut Names) -> String {
    let mut nodes = Nodes { graph, names };
    let value = guard.value.as_str();
    match guard.condition {
        // Squares cannot cancel each other: in a plain sum, infinities of opposite sign would also produce NaN.
        Condition::Nan => nodes.add("ReduceSumSquare", &[value]),
        // Zero times infinity is NaN.
        Condition::Infinite => {
            let (sum, zero) = (nodes.add("ReduceSumSquare", &[value]), nodes.constant(0.0));
            nodes.add("Mul", &[&sum, &zero])
        }
        Condition::Empty => {
            let size = nodes.add("Size", &[value]);
            let size = nodes.add("Cast", &[&size]);
            let (inverse, zero) = (nodes.add("Reciprocal", &[&size]), nodes.constant(0.0));
            nodes.add("Mul", &[&inverse, &zero])
        }
        Condition::Zero => {
            let zero = nodes.constant(0.0);
            let are_zero = nodes.add("Equal", &[value, &zero]);
            let are_zero = nodes.add("Cast", &[&are_zero]);
            let count = nodes.add("ReduceSum", &[&are_zero]);
            nodes.nan_unless_zero(&count)
        }
        // Numbers in the range do not differ from themselves after clipping.
        Condition::Outside(low, high) => {
            let (low, high) = (f64::from(low) - 1.0, f64::from(high) + 1.0);
            let least = Some(low as f32).filter(|least| f64::from(*least) > low);
            let least = nodes.constant(least.unwrap_or((low as f32).next_up()));
            let most = Some(high as f32).filter(|most| f64::from(*most) < high);
            let most = nodes.constant(most.unwrap_or((high as f32).next_down()));
            let clipped = nodes.add("Clip", &[value, &least, &most]);
            let differences = nodes.add("Sub", &[value, &clipped]);
            let sum = nodes.add("ReduceSumSquare", &[&differences]);
            nodes.nan_unless_zero(&sum)
        }
    }
}

/// Adds nodes to a graph.
struct Nodes<'a> {
    graph: &'a mut GraphProto,
    names: &'a mut Names,
}

impl Nodes<'_> {
    /// Adds a node and returns the name of its output.
    fn add(&mut self, operator: &str, inputs: &[&str]) -> String {
        let inputs = inputs.iter().map(|name| (*name).to_owned()).collect();
        let output = self.names.next();
        self.graph.node.push(node_of(operator, inputs, &output));
        output
    }

    fn constant(&mut self, value: f32) -> String {
        let name = self.names.next();
        self.graph.initializer.push(tensor(&name, value));
        name
    }

    /// The flag for a number that is at least 0 or NaN: raised unless it is 0. The square root of a negative number is NaN.
    fn nan_unless_zero(&mut self, number: &str) -> String {
        let negative = self.add("Neg", &[number]);
        self.add("Sqrt", &[&negative])
    }
}

/// Generates names that no value of a graph uses.
struct Names {
    prefix: String,
    count: usize,
}

impl Names {
    fn new(graph: &GraphProto) -> Self {
        let mut taken = HashSet::new();
        collect_names(graph, &mut taken);
        let mut prefix = "guard".to_owned();
        while taken.iter().any(|name| name.starts_with(&prefix)) {
            prefix.push('_');
        }
        Self { prefix, count: 0 }
    }

    fn next(&mut self) -> String {
        self.count += 1;
        format!("{}{}", self.prefix, self.count)
    }
}

/// Collects the names of all values of a graph and of its subgraphs.
fn collect_names<'a>(graph: &'a GraphProto, names: &mut HashSet<&'a str>) {
    let values = graph.input.iter().chain(&graph.output);
    names.extend(values.filter_map(|value| value.name.as_deref()));
    names.extend(
        graph
            .initializer
            .iter()
            .filter_map(|tensor| tensor.name.as_deref()),
    );
    for node in &graph.node {
        names.extend(node.output.iter().map(String::as_str));
        for graph in node.attribute.iter().filter_map(|attribute| attribute.g.as_ref()) {
            collect_names(graph, names);
        }
    }
}

/// For each output of a graph, the indexes of all nodes that it depends on.
fn readers(graph: &GraphProto) -> Vec<BTreeSet<usize>> {
    let mut producers = HashMap::new();
    for (index, node) in graph.node.iter().enumerate() {
        producers.extend(node.output.iter().map(|name| (name.as_str(), index)));
    }
    let of_output = |output: &ValueInfoProto| {
        let mut nodes = BTreeSet::new();
        let mut open: Vec<_> = output
            .name
            .as_deref()
            .and_then(|name| producers.get(name))
            .into_iter()
            .collect();
        while let Some(index) = open.pop() {
            if nodes.insert(*index) {
                let mut read = HashSet::new();
                collect_reads(&graph.node[*index], &mut read);
                open.extend(read.into_iter().filter_map(|name| producers.get(name)));
            }
        }
        nodes
    };
    graph.output.iter().map(of_output).collect()
}

/// Indexes of the nodes that read each value.
fn nodes_that_read(graph: &GraphProto) -> HashMap<String, BTreeSet<usize>> {
    let mut readers: HashMap<String, BTreeSet<usize>> = HashMap::new();
    for (index, node) in graph.node.iter().enumerate() {
        let mut names = HashSet::new();
        collect_reads(node, &mut names);
        for name in names {
            readers.entry(name.to_owned()).or_default().insert(index);
        }
    }
    readers
}

/// Collects the names of all values that a node reads, including those read in its subgraphs. Some of them may be defined in the
/// subgraphs themselves.
fn collect_reads<'a>(node: &'a NodeProto, names: &mut HashSet<&'a str>) {
    names.extend(node.input.iter().map(String::as_str));
    for graph in node.attribute.iter().filter_map(|attribute| attribute.g.as_ref()) {
        names.extend(graph.output.iter().filter_map(|value| value.name.as_deref()));
        graph.node.iter().for_each(|node| collect_reads(node, names));
    }
}

fn node_of(operator: &str, inputs: Vec<String>, output: &str) -> NodeProto {
    let int = |name: &str, value: i64| AttributeProto {
        name: Some(name.to_owned()),
        i: Some(value),
        ..AttributeProto::default()
    };
    let attribute = match operator {
        "ReduceSum" | "ReduceSumSquare" => vec![int("keepdims", 0)],
        "Cast" => vec![int("to", DataType::FLOAT.0.into())],
        _ => Vec::new(),
    };
    NodeProto {
        op_type: Some(operator.to_owned()),
        input: inputs,
        output: vec![output.to_owned()],
        attribute,
        ..NodeProto::default()
    }
}

fn zero(output: &str) -> NodeProto {
    NodeProto {
        attribute: vec![AttributeProto {
            name: Some("value".to_owned()),
            t: Some(tensor("", 0.0)),
            ..AttributeProto::default()
        }],
        ..node_of("Constant", Vec::new(), output)
    }
}

fn tensor(name: &str, value: f32) -> TensorProto {
    TensorProto {
        name: Some(name.to_owned()),
        data_type: Some(DataType::FLOAT),
        float_data: vec![value],
        ..TensorProto::default()
    }
}

fn scalar(name: &str) -> ValueInfoProto {
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
