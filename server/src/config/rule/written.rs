//! A value as it was written, before a rule has read it.

use toml::de::DeValue;

use super::Found;
use crate::secret::has_password;

/// Longer values are truncated in messages.
const MAX_SHOWN_CHARACTERS: usize = 60;

/// A value as it was written.
pub(in crate::config) enum Written<'a> {
    /// In the configuration file.
    Toml(&'a DeValue<'a>),
    /// In an environment variable, or as the argument of a flag.
    Text(&'a str),
}

impl Written<'_> {
    /// The value, as a message shows it.
    pub(super) fn found(&self) -> Found {
        let quoted = |text: &str| match text.char_indices().nth(MAX_SHOWN_CHARACTERS) {
            _ if has_password(text) => Found::Description("a URL with a password".to_owned()),
            Some((end, _)) => Found::Value(format!("{:?}…", &text[..end])),
            None => Found::Value(format!("{text:?}")),
        };
        match self {
            Self::Text("") => Found::Description("an empty string".to_owned()),
            Self::Text(text) => quoted(text),
            Self::Toml(DeValue::String(text)) => quoted(text),
            Self::Toml(DeValue::Integer(integer)) => Found::Value(integer.to_string()),
            Self::Toml(DeValue::Float(float)) => Found::Value(float.to_string()),
            Self::Toml(DeValue::Boolean(value)) => Found::Value(value.to_string()),
            Self::Toml(DeValue::Datetime(value)) => Found::Value(value.to_string()),
            Self::Toml(DeValue::Array(_)) => Found::Description("an array".to_owned()),
            Self::Toml(DeValue::Table(_)) => Found::Description("a table".to_owned()),
        }
    }

    /// A description of the value that does not reveal it.
    pub(super) fn found_without_value(&self) -> Found {
        Found::Description(match self {
            Self::Text("") => "an empty string".to_owned(),
            Self::Text(text) => characters(text),
            Self::Toml(DeValue::String(text)) => characters(text),
            Self::Toml(DeValue::Integer(_)) => "an integer".to_owned(),
            Self::Toml(DeValue::Float(_)) => "a float".to_owned(),
            Self::Toml(DeValue::Boolean(_)) => "a boolean".to_owned(),
            Self::Toml(DeValue::Datetime(_)) => "a date-time".to_owned(),
            Self::Toml(DeValue::Array(_)) => "an array".to_owned(),
            Self::Toml(DeValue::Table(_)) => "a table".to_owned(),
        })
    }

    /// The text, if the value is a string.
    pub(in crate::config) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Toml(value) => value.as_str(),
        }
    }

    /// The value, if it is an integer. One that does not fit in `i128` is out of every range.
    pub(in crate::config) fn integer(&self) -> Option<i128> {
        match self {
            Self::Text(text) => text.trim().parse().ok(),
            Self::Toml(DeValue::Integer(integer)) => {
                Some(i128::from_str_radix(integer.as_str(), integer.radix()).unwrap_or(i128::MAX))
            }
            Self::Toml(_) => None,
        }
    }

    /// The value, if it is a number.
    pub(super) fn number(&self) -> Option<f64> {
        match self {
            Self::Text(text) => text.trim().parse().ok(),
            Self::Toml(DeValue::Float(float)) => float.as_str().parse().ok(),
            Self::Toml(_) => self.integer().map(|integer| integer as f64),
        }
    }

    /// A hint for a number or a boolean that has quotes in the file.
    pub(in crate::config) fn quotes_hint(&self, is_value: impl Fn(&str) -> bool) -> Option<String> {
        match self {
            Self::Toml(DeValue::String(text)) if is_value(text) => Some(format!("remove the quotes: {text}")),
            _ => None,
        }
    }
}

fn characters(text: &str) -> String {
    format!("a string of {} characters", text.chars().count())
}
