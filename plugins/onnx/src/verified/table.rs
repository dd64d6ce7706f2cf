//! The table of verified operators, which `tests/onnx_conformance/verify_operators.py` generates from comparisons with ONNX
//! Runtime.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::LazyLock;

use serde::Deserialize;

use super::features::Feature;

/// The table compiled into this build.
pub(crate) static TABLE: LazyLock<Table> = LazyLock::new(|| {
    // Tests catch a malformed table. An empty table rejects every model.
    Table::parse(include_str!("table.json")).unwrap_or_default()
});

/// Verified operators.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Table {
    operators: BTreeMap<String, Vec<Class>>,
    /// Why an operator is not verified, by its qualified name, for operators with a specific reason.
    #[serde(default)]
    rejected: BTreeMap<String, String>,
}

/// A class of nodes of one operator that were verified together.
#[derive(Debug, Deserialize)]
pub(crate) struct Class {
    /// First and last version of the operator set, inclusive.
    opset: (i64, i64),
    /// Allowed values of each feature. A node must not have any other features.
    features: HashMap<String, BTreeSet<String>>,
    /// Data for which the results differ from those of ONNX Runtime.
    #[serde(default)]
    pub(super) without: BTreeSet<Unusual>,
    /// Inputs of which the sign of a zero changes the results, by index.
    #[serde(default)]
    pub(super) zero_signs: BTreeSet<usize>,
}

/// Unusual data, which the plugin can detect and keep from an operator.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Unusual {
    Nan,
    Infinite,
    /// A dimension of size 0.
    Empty,
}

/// Entry in the table for a feature that a node may lack.
const ABSENT: &str = "absent";

/// Entry in the table for a feature that may have any value, including an unknown one.
const ANY: &str = "any";

/// Why the table does not cover a node.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outside {
    /// The operator is not verified, with the reason if there is a specific one.
    Operator(Option<String>),
    Opset(i64),
    /// The features that the closest class does not allow.
    Features(Vec<Feature>),
}

impl Table {
    pub(crate) fn parse(text: &str) -> Result<Self, plugin_sdk::serde_json::Error> {
        plugin_sdk::serde_json::from_str(text)
    }

    /// Looks up the class of a node by its operator's qualified name.
    pub(crate) fn verify(&self, operator: &str, opset: i64, features: &[Feature]) -> Result<&Class, Outside> {
        let unverified = || Outside::Operator(self.rejected.get(operator).cloned());
        let classes = self.operators.get(operator).ok_or_else(unverified)?;
        let in_opset = || {
            classes
                .iter()
                .filter(|class| (class.opset.0..=class.opset.1).contains(&opset))
        };
        let mut closest: Option<Vec<Feature>> = None;
        for class in in_opset() {
            let unverified = class.unverified(features);
            if unverified.is_empty() {
                return Ok(class);
            }
            if closest
                .as_ref()
                .is_none_or(|closest| unverified.len() < closest.len())
            {
                closest = Some(unverified);
            }
        }
        Err(closest.map_or(Outside::Opset(opset), Outside::Features))
    }

    /// Names of the operators, sorted.
    pub(crate) fn operators(&self) -> impl Iterator<Item = &str> {
        self.operators.keys().map(String::as_str)
    }
}

impl Class {
    /// Features of a node that this class does not allow, and required features that the node lacks.
    fn unverified(&self, features: &[Feature]) -> Vec<Feature> {
        let allows = |(name, value): &Feature| {
            let allowed = self.features.get(name);
            allowed.is_some_and(|allowed| allowed.contains(value) || allowed.contains(ANY))
        };
        let present = features.iter().filter(|feature| !allows(feature)).cloned();
        let missing = self
            .features
            .iter()
            .filter(|(name, allowed)| {
                !allowed.contains(ABSENT) && features.iter().all(|(known, _)| known != *name)
            })
            .map(|(name, _)| (name.clone(), ABSENT.to_owned()));
        present.chain(missing).collect()
    }
}
