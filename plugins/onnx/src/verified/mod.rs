//! Decides whether the embedded runtime may run a model, which requires that every node has been verified.
//!
//! `table.json` lists, for each operator, the versions, attributes, datatypes and ranks whose results matched those of ONNX
//! Runtime in comparisons on edge cases. A node that the table does not cover is rejected, as are INT64 values that may exceed 32
//! bits, the width in which the runtime computes. The functions here are pure: they read a parsed model and report what they
//! find.

mod attributes;
mod combined;
mod fact;
mod features;
mod floats;
mod guard;
mod infer;
mod integers;
mod shapes;
mod subgraphs;
mod table;
mod walk;
mod windows;

use std::fmt;

use rten_onnx::onnx::{DataType, ModelProto};

use self::fact::Bounds;
use self::features::Feature;
pub(crate) use self::guard::{Condition, Guard};
use self::table::TABLE;
pub(crate) use self::table::Table;
pub use self::walk::NodeFeatures;
use self::walk::Walk;

/// Candidates for the maximum size of a dynamic dimension of an input, in descending order. The first for which no integer can
/// exceed 32 bits becomes the limit.
const MAX_DIMENSIONS: [i64; 7] = [
    i32::MAX as i64,
    1 << 24,
    1 << 20,
    1 << 16,
    46_340,
    1 << 14,
    1 << 12,
];

/// Maximum number of reasons in an error message.
const MAX_REASONS: usize = 3;

/// Conditions under which the results of a model are verified.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Limits {
    /// Maximum size of an input dimension. With a larger one, integers could exceed 32 bits.
    pub(crate) max_dimension: usize,
    /// Checks of intermediate values that each run must perform.
    pub(crate) guards: Vec<Guard>,
}

impl Limits {
    pub(crate) const NONE: Self = Self {
        max_dimension: usize::MAX,
        guards: Vec::new(),
    };
}

/// A reason for which a model is rejected.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Reason {
    operator: String,
    node: String,
    problem: Problem,
}

#[derive(Clone, Debug, PartialEq)]
enum Problem {
    Operator(Option<String>),
    Opset(i64),
    Features(Vec<Feature>),
    Range(Bounds),
    Precision,
    /// An iteration of a loop may process data for which the operator is not verified. Guards do not cover loop bodies.
    Unwatched(Condition),
    Declared(String),
    /// A name in a subgraph that a value outside has as well.
    Hidden(String),
    /// The runtime combines the node with others, with different results.
    Combined(&'static str),
}

impl fmt::Display for Reason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { operator, node, .. } = self;
        write!(formatter, "`{operator}` (`{node}`): ")?;
        match &self.problem {
            Problem::Operator(None) => formatter.write_str("the operator is not verified"),
            Problem::Operator(Some(reason)) => write!(formatter, "the operator is not verified: {reason}"),
            Problem::Opset(opset) => write!(
                formatter,
                "the operator is not verified in version {opset} of the operator set"
            ),
            Problem::Features(features) => {
                let features: Vec<_> = features.iter().map(feature_text).collect();
                write!(formatter, "not verified with {}", features.join(" and "))
            }
            Problem::Range(_) => formatter.write_str("INT64 values may exceed 32 bits"),
            Problem::Unwatched(condition) => {
                write!(
                    formatter,
                    "not verified with {condition}, which may occur within a loop"
                )
            }
            Problem::Precision => formatter.write_str("FP64 would be rounded to FP32"),
            Problem::Declared(value) => {
                write!(
                    formatter,
                    "the file declares `{value}` with another datatype or number of dimensions than it has"
                )
            }
            Problem::Hidden(value) => {
                write!(
                    formatter,
                    "its subgraph has a value `{value}`, which is also the name of a value outside"
                )
            }
            Problem::Combined(with) => {
                write!(
                    formatter,
                    "not verified with {with}, since the runtime combines it with the nodes before it"
                )
            }
        }
    }
}

/// Describes a feature, as in `attribute mode "cubic"`.
fn feature_text((name, value): &Feature) -> String {
    match value.as_str() {
        "absent" => format!("no {name}"),
        value => format!("{name} {value}"),
    }
}

/// Error message that lists the reasons and suggests a fix.
pub(crate) fn explain(reasons: &[Reason]) -> String {
    let mut texts: Vec<_> = reasons.iter().map(Reason::to_string).collect();
    texts.dedup();
    let more = texts.len().saturating_sub(MAX_REASONS);
    texts.truncate(MAX_REASONS);
    if more > 0 {
        texts.push(format!("and {more} more"));
    }
    format!(
        "cannot be computed by the embedded runtime with verified results: {}; set `runtime = \"ort\"`",
        texts.join("; ")
    )
}

/// Decides whether the embedded runtime may run a model.
///
/// # Errors
/// All reasons for which the model is rejected.
pub(crate) fn check(model: &ModelProto) -> Result<Limits, Vec<Reason>> {
    check_against(model, &TABLE)
}

/// Like [`check`], with a different table.
///
/// # Errors
/// All reasons for which the model is rejected.
pub(crate) fn check_against(model: &ModelProto, table: &Table) -> Result<Limits, Vec<Reason>> {
    let mut reasons = Vec::new();
    for max_dimension in MAX_DIMENSIONS {
        let mut walk = Walk::new(model, table, max_dimension);
        if let Some(graph) = &model.graph {
            walk.model(graph);
        }
        if walk.reasons.is_empty() {
            return Ok(Limits {
                max_dimension: usize::try_from(max_dimension).unwrap_or(usize::MAX),
                guards: walk.guards,
            });
        }
        reasons = walk.reasons;
        // Smaller dimensions only help if integers are too large.
        if reasons
            .iter()
            .any(|reason| !matches!(reason.problem, Problem::Range(_)))
        {
            break;
        }
    }
    Err(reasons)
}

/// Features of all nodes, from which the table is generated, and for each output whether its BOOL elements may represent true as
/// an integer other than 1.
pub(crate) fn describe(model: &ModelProto) -> (Vec<NodeFeatures>, Vec<bool>) {
    let mut walk = Walk::new(model, &TABLE, i64::from(i32::MAX));
    if let Some(graph) = &model.graph {
        walk.model(graph);
    }
    (walk.nodes, walk.loose)
}

/// Names and datatypes of the outputs of a model, as far as they can be inferred.
pub(crate) fn output_types(model: &ModelProto) -> Vec<(String, Option<DataType>)> {
    let Some(graph) = &model.graph else {
        return Vec::new();
    };
    let mut walk = Walk::new(model, &TABLE, i64::from(i32::MAX));
    let facts = walk.model(graph);
    let names = graph
        .output
        .iter()
        .map(|output| output.name.clone().unwrap_or_default());
    names.zip(facts.into_iter().map(|fact| fact.datatype)).collect()
}

/// Names of the verified operators, sorted.
pub(crate) fn operators() -> Vec<String> {
    TABLE.operators().map(str::to_owned).collect()
}
