//! `[models.env]`: environment variables of a model's worker processes.

use std::collections::BTreeMap;
use std::ops::Range;

use toml::de::{DeTable, DeValue};

use super::document::Document;
use super::error::{ConfigError, Location};
use crate::secret::Secret;

/// The table `[models.env]` of one model.
pub(super) struct EnvTable {
    pub(super) header: Location,
    pub(super) variables: BTreeMap<String, Secret>,
}

impl EnvTable {
    /// Reads the table. Adds an error for every name or value that an environment variable cannot have.
    pub(super) fn read(
        document: &Document<'_>,
        header: &Range<usize>,
        table: &DeTable<'_>,
        errors: &mut Vec<ConfigError>,
    ) -> Self {
        let mut variables = BTreeMap::new();
        for (key, value) in table.iter() {
            let name: &str = key.get_ref();
            if name.is_empty() || name.contains(['=', '\0']) {
                errors.push(document.error(
                    &key.span(),
                    // The part after `=` may be the value, which is secret.
                    format!(
                        "invalid variable name {:?} in [models.env]: found `=`, a NUL character, or nothing",
                        name.split('=').next().unwrap_or_default()
                    ),
                    Some("write `NAME = \"value\"`".to_owned()),
                ));
                continue;
            }
            match value.get_ref() {
                DeValue::String(text) if !text.contains('\0') => {
                    variables.insert(name.to_owned(), Secret::new(text.to_string()));
                }
                other => errors.push(document.error(
                    &value.span(),
                    format!(
                        "invalid value for `{name}` in [models.env]: expected a string without NUL characters"
                    ),
                    is_scalar(other).then(|| "put the value in quotes".to_owned()),
                )),
            }
        }
        Self {
            header: document.locate(header.start),
            variables,
        }
    }
}

/// Whether the value only lacks quotes.
fn is_scalar(value: &DeValue<'_>) -> bool {
    matches!(
        value,
        DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_)
    )
}
