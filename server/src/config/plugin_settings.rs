//! `[models.settings]`: the operator's table for a plugin, as JSON, with the place of each of its values.
//!
//! What the keys mean, the plugin alone knows. When it refuses one it names its path, and the place is found here.

use std::collections::BTreeMap;
use std::ops::Range;

use serde_json::{Map, Number, Value};
use toml::de::{DeTable, DeValue};

use super::document::Document;
use super::error::ConfigError;
use super::settings::Place;

/// The settings of one model's plugin.
pub(super) struct PluginSettings {
    /// Always an object.
    pub(super) value: Value,
    /// By dotted path; the empty path is the table itself, if it is written.
    pub(super) places: BTreeMap<String, Place>,
}

impl PluginSettings {
    /// The settings of a model that has none.
    pub(super) fn empty() -> Self {
        Self {
            value: Value::Object(Map::new()),
            places: BTreeMap::new(),
        }
    }

    /// Turns the table into JSON. What JSON has no word for is reported.
    pub(super) fn read(
        document: &Document<'_>,
        header: &Range<usize>,
        table: &DeTable<'_>,
        errors: &mut Vec<ConfigError>,
    ) -> Self {
        let mut places = BTreeMap::from([(String::new(), Place(document.locate(header.start)))]);
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
    places: &'a mut BTreeMap<String, Place>,
}

impl Conversion<'_, '_> {
    fn table(&mut self, table: &DeTable<'_>, path: &str) -> Value {
        let members = table.iter().map(|(key, value)| {
            let name = key.get_ref().to_string();
            let path = join(path, &name);
            // A table is best found by its name, anything else by its value.
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
                format!("`{path}` in [models.settings] is a number that JSON cannot carry, so no plugin could read it"),
                Some("write a finite number, at most 64 bits wide".to_owned()),
            ));
        }
        self.places.insert(path, Place(self.document.locate(span.start)));
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
