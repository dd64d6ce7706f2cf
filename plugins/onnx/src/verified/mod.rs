//! Decides whether the embedded runtime may run a model: only if every node has been verified.
//!
//! `table.json` records for each operator which versions, attributes, datatypes and ranks gave the results of ONNX Runtime in
//! comparisons with edge values. A node outside the table is rejected, and so are INT64 values that may exceed 32 bits, which is
//! what the runtime computes with. The functions here are pure: they read a parsed file and report what they found.

mod attributes;
mod fact;
mod features;
mod floats;
mod guard;
mod infer;
mod integers;
mod shapes;
mod table;
mod walk;
mod windows;

use std::fmt;

use rten_onnx::onnx::ModelProto;

use self::fact::Bounds;
use self::features::Feature;
pub(crate) use self::guard::{Condition, Guard};
use self::table::TABLE;
pub(crate) use self::table::Table;
pub use self::walk::NodeFeatures;
use self::walk::Walk;

/// Sizes that an open dimension of an input may have, largest first. The first with which no integer exceeds 32 bits is the limit.
const MAX_DIMENSIONS: [i64; 7] = [
    i32::MAX as i64,
    1 << 24,
    1 << 20,
    1 << 16,
    46_340,
    1 << 14,
    1 << 12,
];

/// How many reasons an error names.
const MAX_REASONS: usize = 3;

/// What a verified model may compute with.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Limits {
    /// Maximum size of a dimension of an input; with a larger one, integers could exceed 32 bits.
    pub(crate) max_dimension: usize,
    /// What must be watched for during a run.
    pub(crate) guards: Vec<Guard>,
}

impl Limits {
    pub(crate) const NONE: Self = Self {
        max_dimension: usize::MAX,
        guards: Vec::new(),
    };
}

/// Why a model is rejected.
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
    /// An iteration of a loop may hold data for which the operator is not verified. Guards do not watch loops.
    Unwatched(Condition),
    Declared(String),
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
        }
    }
}

/// A feature in words: `attribute mode "cubic"`.
fn feature_text((name, value): &Feature) -> String {
    match value.as_str() {
        "absent" => format!("no {name}"),
        value => format!("{name} {value}"),
    }
}

/// Describes reasons, with the fix.
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
/// All reasons against it.
pub(crate) fn check(model: &ModelProto) -> Result<Limits, Vec<Reason>> {
    check_against(model, &TABLE)
}

/// Decides the same with another table.
///
/// # Errors
/// All reasons against it.
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
        // Smaller dimensions help against large integers alone.
        if reasons
            .iter()
            .any(|reason| !matches!(reason.problem, Problem::Range(_)))
        {
            break;
        }
    }
    Err(reasons)
}

/// The features of all nodes, from which the table is derived, and for each output whether a BOOL in it may be true as another integer
/// than 1.
pub(crate) fn describe(model: &ModelProto) -> (Vec<NodeFeatures>, Vec<bool>) {
    let mut walk = Walk::new(model, &TABLE, i64::from(i32::MAX));
    if let Some(graph) = &model.graph {
        walk.model(graph);
    }
    (walk.nodes, walk.loose)
}

/// Names of the verified operators, sorted.
pub(crate) fn operators() -> Vec<String> {
    TABLE.operators().map(str::to_owned).collect()
}
