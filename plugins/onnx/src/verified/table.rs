//! The table of verified operators, which `tests/onnx_conformance/verify_operators.py` derives from comparisons with ONNX Runtime.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::LazyLock;

use serde::Deserialize;

use super::features::Feature;

/// The table in this build.
pub(crate) static TABLE: LazyLock<Table> = LazyLock::new(|| {
    // Tests would fail with a damaged table; an empty one rejects every model.
    Table::parse(include_str!("table.json")).unwrap_or_default()
});

/// Verified operators.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Table {
    operators: BTreeMap<String, Vec<Class>>,
    /// Why an operator is not verified, by its qualified name, if there is more to say than that.
    #[serde(default)]
    rejected: BTreeMap<String, String>,
}

/// A class of nodes of one operator that were verified together.
#[derive(Debug, Deserialize)]
pub(crate) struct Class {
    /// First and last version of the operator set.
    opset: (i64, i64),
    /// The values of each feature; a node must not have other features.
    features: HashMap<String, BTreeSet<String>>,
    /// Data with which the results differ.
    #[serde(default)]
    without: BTreeSet<Unusual>,
}

/// Data that the plugin can keep from a model.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Unusual {
    /// Not a number.
    Nan,
    /// Positive or negative infinity.
    Infinite,
    /// A dimension of size 0.
    Empty,
}

/// In a table, the value of a feature that a node may lack.
const ABSENT: &str = "absent";

/// In a table, the value of a feature that may have any value, even an unknown one.
const ANY: &str = "any";

/// Why a node is outside the table.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outside {
    /// Has the reason, if it is known.
    Operator(Option<String>),
    Opset(i64),
    /// In the class that comes closest.
    Features(Vec<Feature>),
}

impl Table {
    pub(crate) fn parse(text: &str) -> Result<Self, plugin_sdk::serde_json::Error> {
        plugin_sdk::serde_json::from_str(text)
    }

    /// Looks up a node by its operator's qualified name. Returns the data that must be kept from it.
    pub(crate) fn verify(
        &self,
        operator: &str,
        opset: i64,
        features: &[Feature],
    ) -> Result<&BTreeSet<Unusual>, Outside> {
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
                return Ok(&class.without);
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
    /// The features of a node that this class lacks.
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
