//! `[models.env]`: variables for the environment of a model's processes.

use std::collections::BTreeMap;
use std::ops::Range;

use toml::de::{DeTable, DeValue};

use super::document::Document;
use super::error::{ConfigError, Location};
use crate::secret::Secret;

/// The table of one model.
pub(super) struct EnvTable {
    pub(super) header: Location,
    pub(super) variables: BTreeMap<String, Secret>,
}

impl EnvTable {
    /// Reads the table. What the environment cannot carry is reported.
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
                    // What stands after `=` may be the value.
                    format!(
                        "{:?} in [models.env] cannot be the name of a variable",
                        name.split('=').next().unwrap_or_default()
                    ),
                    Some("leave out `=` and control characters".to_owned()),
                ));
                continue;
            }
            match value.get_ref() {
                DeValue::String(text) if !text.contains('\0') => {
                    variables.insert(name.to_owned(), Secret::new(text.to_string()));
                }
                other => errors.push(document.error(
                    &value.span(),
                    format!("`{name}` in [models.env]: expected a string without NUL characters"),
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

/// Whether only the quotes are missing.
fn is_scalar(value: &DeValue<'_>) -> bool {
    matches!(
        value,
        DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_)
    )
}
