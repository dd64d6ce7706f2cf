//! `[models.env]`: variables for the environment of a model's processes.

use std::collections::BTreeMap;
use std::ops::Range;

use toml::de::{DeTable, DeValue};

use super::document::Document;
use super::error::{ConfigError, Location};

/// The table of one model.
pub(super) struct EnvTable {
    pub(super) header: Location,
    pub(super) variables: BTreeMap<String, String>,
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
                    format!("{name:?} in [models.env] cannot be the name of a variable"),
                    Some("leave out `=` and control characters".to_owned()),
                ));
                continue;
            }
            match value.get_ref() {
                DeValue::String(text) if !text.contains('\0') => {
                    variables.insert(name.to_owned(), text.to_string());
                }
                other => errors.push(document.error(
                    &value.span(),
                    format!("`{name}` in [models.env] is no text that a variable can hold"),
                    quoted(other).map(|text| format!("put it in quotes: {text:?}")),
                )),
            }
        }
        Self {
            header: document.locate(header.start),
            variables,
        }
    }
}

/// What somebody meant who left out the quotes.
fn quoted(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::Integer(integer) => Some(integer.to_string()),
        DeValue::Float(float) => Some(float.to_string()),
        DeValue::Boolean(value) => Some(value.to_string()),
        _ => None,
    }
}
