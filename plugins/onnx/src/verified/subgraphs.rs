//! Checks nodes with subgraphs: branches and loops.

use rten_onnx::onnx::{DataType, GraphProto, NodeProto};

use super::Problem;
use super::attributes::Attributes;
use super::fact::{Bounds, Fact, Integers};
use super::floats::Floats;
use super::walk::{Scope, Walk};

impl Walk<'_> {
    /// A value within a subgraph of a node although a graph around it has a value of that name, which the runtime takes for the
    /// same. It distinguishes only inputs, outputs and stored values.
    pub(super) fn hidden(&self, node: &NodeProto) -> Option<String> {
        let mut names = subgraphs(node).flat_map(|graph| {
            let is_output = |name: &str| {
                graph
                    .output
                    .iter()
                    .any(|output| output.name.as_deref() == Some(name))
            };
            computed(graph).filter(move |name| !is_output(name))
        });
        names
            .find(|name| self.enclosing.contains(*name))
            .map(str::to_owned)
    }

    pub(super) fn branches(&mut self, index: usize, node: &NodeProto, scope: &Scope) -> Vec<Fact> {
        let attributes = Attributes::of(node);
        let mut branch = |name: &str| {
            self.path.push((index, name.to_owned()));
            let graph = attributes.graph(name);
            let facts = graph.map(|graph| self.graph(graph, scope, Vec::new()));
            self.path.pop();
            facts.unwrap_or_default()
        };
        let (then, otherwise) = (branch("then_branch"), branch("else_branch"));
        then.into_iter()
            .zip(otherwise)
            .map(|(a, b)| either(&a, &b))
            .collect()
    }

    pub(super) fn repetition(
        &mut self,
        node: &NodeProto,
        scope: &Scope,
        inputs: &[Option<Fact>],
    ) -> Vec<Fact> {
        let outside = std::mem::replace(&mut self.within_loop, true);
        let facts = self.iterations(node, scope, inputs);
        self.within_loop = outside;
        facts
    }

    fn iterations(&mut self, node: &NodeProto, scope: &Scope, inputs: &[Option<Fact>]) -> Vec<Fact> {
        let Some(body) = Attributes::of(node).graph("body") else {
            return Vec::new();
        };
        let scalar = |datatype, bounds| {
            Fact::new(Some(datatype), Some(Vec::new())).with_integers(Some(Integers::within(bounds)))
        };
        let mut facts = vec![
            scalar(DataType::INT64, Bounds::SIZE),
            scalar(DataType::BOOL, Bounds::new(0, 1)),
        ];
        let initial = inputs
            .iter()
            .skip(2)
            .map(|input| input.clone().unwrap_or_default());
        facts.extend(initial.map(|initial| {
            let int64 = initial.datatype == Some(DataType::INT64);
            Fact {
                // Sizes may change between iterations.
                shape: initial.shape.map(|shape| vec![Bounds::SIZE; shape.len()]),
                integers: int64.then_some(Integers::within(Bounds::I32)),
                constant: false,
                single: None,
                // Each iteration's results are the inputs of the next.
                floats: Floats::default(),
                ..initial
            }
        }));
        let states = facts.len() - 2;
        let (nodes, reasons) = (self.nodes.len(), self.reasons.len());
        let mut outputs = self.graph(body, scope, facts.clone());
        let stable = |outputs: &[Fact]| {
            let after = outputs.iter().skip(1);
            facts[2..]
                .iter()
                .zip(after)
                .all(|(before, after)| before.rank() == after.rank())
        };
        // A condition may become an integer other than 1 in the first iteration.
        let loosened: Vec<_> = outputs.iter().map(|after| after.loose).collect();
        let is_loosened = facts[1..]
            .iter()
            .zip(&loosened)
            .any(|(before, after)| *after && !before.loose);
        let is_stable = stable(&outputs);
        if !is_stable || is_loosened {
            self.nodes.truncate(nodes);
            self.reasons.truncate(reasons);
            if !is_stable {
                facts[2..].iter_mut().for_each(|fact| fact.shape = None);
            }
            for (fact, loosened) in facts[1..].iter_mut().zip(loosened) {
                fact.loose |= loosened;
            }
            outputs = self.graph(body, scope, facts.clone());
        }
        // The next iteration takes them for integers of 32 bits.
        let exceeding = outputs
            .iter()
            .skip(1)
            .find(|fact| fact.datatype == Some(DataType::INT64) && !fact.bounds().fits_32_bits());
        if let Some(fact) = exceeding {
            self.reject_node(node, Problem::Range(fact.bounds()));
        }
        let outputs = outputs.into_iter().skip(1).enumerate();
        outputs
            .map(|(index, fact)| match fact.shape {
                Some(_) if index < states => either(
                    &facts[2 + index],
                    &Fact {
                        constant: false,
                        ..fact
                    },
                ),
                // Scan outputs of all iterations are stacked.
                Some(ref shape) => {
                    let stacked = std::iter::once(Bounds::SIZE)
                        .chain(shape.iter().copied())
                        .collect();
                    Fact {
                        shape: Some(stacked),
                        constant: false,
                        integers: fact.integers.map(|integers| Integers::within(integers.all)),
                        ..fact
                    }
                }
                None => Fact {
                    constant: false,
                    ..fact
                },
            })
            .collect()
    }
}

/// Names of the values that a graph defines, apart from its subgraphs.
pub(super) fn defined(graph: &GraphProto) -> impl Iterator<Item = &str> {
    let inputs = graph.input.iter().filter_map(|value| value.name.as_deref());
    let stored = graph
        .initializer
        .iter()
        .filter_map(|tensor| tensor.name.as_deref());
    inputs.chain(stored).chain(computed(graph))
}

/// Names of the values that the nodes of a graph compute.
fn computed(graph: &GraphProto) -> impl Iterator<Item = &str> {
    let names = graph
        .node
        .iter()
        .flat_map(|node| node.output.iter().map(String::as_str));
    names.filter(|name| !name.is_empty())
}

pub(super) fn subgraphs(node: &NodeProto) -> impl Iterator<Item = &GraphProto> {
    node.attribute.iter().filter_map(|attribute| attribute.g.as_ref())
}

/// Facts that hold for both values.
fn either(a: &Fact, b: &Fact) -> Fact {
    let shape = match (&a.shape, &b.shape) {
        (Some(a), Some(b)) if a.len() == b.len() => Some(a.iter().zip(b).map(|(a, b)| a.union(*b)).collect()),
        _ => None,
    };
    let integers = match (&a.integers, &b.integers) {
        (Some(a), Some(b)) => Some(Integers::within(a.all.union(b.all))),
        _ => None,
    };
    Fact {
        loose: a.loose || b.loose,
        floats: a.floats.either(b.floats),
        ..Fact::new(a.datatype.filter(|datatype| b.datatype == Some(*datatype)), shape)
            .with_integers(integers)
    }
}
