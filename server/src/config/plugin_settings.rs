//! `[models.settings]`: the settings that are passed to a plugin, as JSON, with the place of each value.
//!
//! Only the plugin knows its keys. If it rejects one, it reports the path of the key, and the place is looked up here.

use std::collections::BTreeMap;
use std::ops::Range;

use serde_json::{Map, Number, Value};
use toml::de::{DeTable, DeValue};

use super::document::Document;
use super::error::ConfigError;
use super::settings::UncomparedLocation;

/// The settings for the plugin of one model.
pub(super) struct PluginSettings {
    /// Always an object.
    pub(super) value: Value,
    /// By dotted path. The empty path is the table itself, if there is one.
    pub(super) places: BTreeMap<String, UncomparedLocation>,
}

impl PluginSettings {
    /// Empty settings.
    pub(super) fn empty() -> Self {
        Self {
            value: Value::Object(Map::new()),
            places: BTreeMap::new(),
        }
    }

    /// Converts the table to JSON. Adds an error for every number that JSON cannot represent.
    pub(super) fn read(
        document: &Document<'_>,
        header: &Range<usize>,
        table: &DeTable<'_>,
        errors: &mut Vec<ConfigError>,
    ) -> Self {
        let mut places = BTreeMap::from([(String::new(), UncomparedLocation(document.locate(header.start)))]);
        let value = Conversion {
            document,
            errors,
            places: &mut places,
        }
        .table(table, "");
        Self { value, places }
    }
}

struct Conversion<'a, 'd> {
    document: &'a Document<'d>,
    errors: &'a mut Vec<ConfigError>,
    places: &'a mut BTreeMap<String, UncomparedLocation>,
}

impl Conversion<'_, '_> {
    fn table(&mut self, table: &DeTable<'_>, path: &str) -> Value {
        let members = table.iter().map(|(key, value)| {
            let name = key.get_ref().to_string();
            let path = join(path, &name);
            // The place of a table is its name; the place of anything else is its value.
            let span = if value.get_ref().is_table() {
                key.span()
            } else {
                value.span()
            };
            let value = self.value(value.get_ref(), &span, path);
            (name, value)
        });
        Value::Object(members.collect())
    }

    fn value(&mut self, value: &DeValue<'_>, span: &Range<usize>, path: String) -> Value {
        let converted = match value {
            DeValue::String(text) => Value::String(text.to_string()),
            DeValue::Boolean(value) => Value::Bool(*value),
            DeValue::Datetime(value) => Value::String(value.to_string()),
            DeValue::Integer(integer) => match i128::from_str_radix(integer.as_str(), integer.radix()) {
                Ok(integer) => Number::from_i128(integer).map_or(Value::Null, Value::Number),
                Err(_) => Value::Null,
            },
            DeValue::Float(float) => float
                .as_str()
                .parse()
                .ok()
                .and_then(Number::from_f64)
                .map_or(Value::Null, Value::Number),
            DeValue::Table(table) => self.table(table, &path),
            DeValue::Array(array) => {
                let elements = array.iter().enumerate();
                Value::Array(
                    elements
                        .map(|(index, element)| {
                            self.value(
                                element.get_ref(),
                                &element.span(),
                                join(&path, &index.to_string()),
                            )
                        })
                        .collect(),
                )
            }
        };
        if converted.is_null() {
            self.errors.push(self.document.error(
                span,
                format!("invalid value for `{path}` in [models.settings]: JSON cannot represent this number"),
                Some("use a finite number of at most 64 bits".to_owned()),
            ));
        }
        self.places
            .insert(path, UncomparedLocation(self.document.locate(span.start)));
        converted
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}
