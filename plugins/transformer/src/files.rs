//! Reading of JSON files in a model directory.
//!
//! A model directory describes how its results are computed, so a key that is ignored silently means wrong results. A
//! [`ConfigFile`] is therefore read together with tables of [`Key`]s, which state for each key whether it is honored, irrelevant,
//! or supported only with certain values. All other keys are errors.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt::Display;
use std::fs;
use std::path::{Path, PathBuf};

use plugin_sdk::serde_json::{Map, Value as Json};
use plugin_sdk::{LoadError, json_error, serde_json};
use serde::de::DeserializeOwned;

/// Reads a JSON file. `None` if it does not exist.
///
/// # Errors
/// The file cannot be read or is invalid. The error names the setting `folder`.
pub fn read<T: DeserializeOwned>(file: &Path) -> Result<Option<T>, LoadError> {
    if !file.exists() {
        return Ok(None);
    }
    let text = fs::read(file).map_err(|error| file_error(file, &format!("cannot be read: {error}")))?;
    serde_json::from_slice(&text).map(Some).map_err(|error| {
        let message = json_error::message_with_position(&error);
        file_error(file, &format!("is not valid: {message}"))
    })
}

/// Creates an error about a file that names the setting `folder`.
pub fn file_error(file: &Path, problem: &str) -> LoadError {
    LoadError::setting("folder", format_args!("`{}` {problem}", file.display()))
}

/// What is known about a key of a configuration file.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// How it is handled.
    pub rule: Rule,
}

/// How a key of a configuration file is handled.
#[derive(Clone, Copy, Debug)]
pub enum Rule {
    /// It affects the results as in the reference implementation.
    Honored,
    /// It does not affect the results, for this reason.
    Irrelevant(&'static str),
    /// Only these values, written as JSON, are supported.
    Only(&'static [&'static str]),
}

/// Creates the entries of keys that are honored.
pub const fn honored<const N: usize>(names: [&'static str; N]) -> [Key; N] {
    with_rule(names, Rule::Honored)
}

/// Creates the entries of keys that are irrelevant for the same reason.
pub const fn irrelevant<const N: usize>(reason: &'static str, names: [&'static str; N]) -> [Key; N] {
    with_rule(names, Rule::Irrelevant(reason))
}

const fn with_rule<const N: usize>(names: [&'static str; N], rule: Rule) -> [Key; N] {
    let mut keys = [Key { name: "", rule }; N];
    let mut index = 0;
    while index < N {
        keys[index].name = names[index];
        index += 1;
    }
    keys
}

/// Creates the entry of a key of which only some values are supported.
pub const fn only(name: &'static str, values: &'static [&'static str]) -> Key {
    Key {
        name,
        rule: Rule::Only(values),
    }
}

/// Unknown keys that the operator has declared irrelevant.
#[derive(Debug, Default)]
pub struct IgnoredKeys {
    names: Vec<String>,
    used: RefCell<BTreeSet<String>>,
}

impl IgnoredKeys {
    /// Creates the list from a setting.
    pub fn new(names: Vec<String>) -> Self {
        Self {
            names,
            used: RefCell::default(),
        }
    }

    fn contains(&self, key: &str) -> bool {
        let contains = self.names.iter().any(|name| name == key);
        if contains {
            self.used.borrow_mut().insert(key.to_owned());
        }
        contains
    }

    /// Checks that all names were keys of a file.
    ///
    /// # Errors
    /// A name was not. The error names the setting `ignored_keys`.
    pub fn check_all_used(&self) -> Result<(), LoadError> {
        let used = self.used.borrow();
        match self.names.iter().find(|name| !used.contains(*name)) {
            None => Ok(()),
            Some(name) => Err(LoadError::setting(
                "ignored_keys",
                format_args!("`{name}` is not an unknown key of a file in the model directory: remove it"),
            )),
        }
    }
}

/// A JSON file with an object, all of whose keys are known.
#[derive(Clone, Debug)]
pub struct ConfigFile {
    path: PathBuf,
    values: Map<String, Json>,
}

impl ConfigFile {
    /// Reads a file. `None` if it does not exist. Its keys are not checked yet.
    ///
    /// # Errors
    /// The file cannot be read or does not contain an object. The error names the setting `folder`.
    pub fn read(path: &Path) -> Result<Option<Self>, LoadError> {
        let values: Option<Map<String, Json>> = read(path)?;
        Ok(values.map(|values| Self {
            path: path.to_owned(),
            values,
        }))
    }

    /// Returns an object within the file as if it were a file. `None` if the key is absent or null.
    ///
    /// # Errors
    /// The value is not an object.
    pub fn section(&self, key: &str) -> Result<Option<Self>, LoadError> {
        match self.values.get(key) {
            None | Some(Json::Null) => Ok(None),
            Some(Json::Object(values)) => Ok(Some(Self {
                path: self.path.clone(),
                values: values.clone(),
            })),
            Some(_) => Err(self.unsupported(key, "an object")),
        }
    }

    /// Returns the path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the names of all keys.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.values.keys().map(String::as_str)
    }

    /// Checks that all keys are in one of the tables or ignored, and that their values are supported.
    ///
    /// # Errors
    /// A key is not known, or its value is not supported. The error names the file, the key and the value.
    pub fn check(&self, tables: &[&[Key]], ignored: &IgnoredKeys) -> Result<(), LoadError> {
        for (name, value) in &self.values {
            let key = tables
                .iter()
                .find_map(|table| table.iter().find(|key| key.name == name));
            match key.map(|key| key.rule) {
                Some(Rule::Honored | Rule::Irrelevant(_)) => {}
                Some(Rule::Only(values)) => {
                    let is_supported =
                        |text: &&str| serde_json::from_str::<Json>(text).is_ok_and(|known| known == *value);
                    if !values.iter().any(is_supported) {
                        return Err(self.unsupported(name, values.join(" or ")));
                    }
                }
                None if ignored.contains(name) => {}
                None => {
                    return Err(file_error(
                        &self.path,
                        &format!(
                            "has the unknown key `{name}` with the value {}, which may affect the results: if it does not, add \
                             \"{name}\" to `ignored_keys`",
                            shortened(value)
                        ),
                    ));
                }
            }
        }
        Ok(())
    }

    /// Returns a value. `None` if the key is absent or null.
    ///
    /// # Errors
    /// The value has the wrong type.
    pub fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, LoadError> {
        match self.values.get(key) {
            None | Some(Json::Null) => Ok(None),
            Some(value) => serde_json::from_value(value.clone()).map(Some).map_err(|error| {
                let value = shortened(value);
                file_error(&self.path, &format!("has `{key}` {value}: {error}"))
            }),
        }
    }

    /// Returns the value of the first key that is present and not null.
    ///
    /// # Errors
    /// The value has the wrong type.
    pub fn first<T: DeserializeOwned>(&self, keys: &[&str]) -> Result<Option<T>, LoadError> {
        for key in keys {
            if let Some(value) = self.get(key)? {
                return Ok(Some(value));
            }
        }
        Ok(None)
    }

    /// Returns a positive number, or the default.
    ///
    /// # Errors
    /// The value is not a positive integer, or it is absent and there is no default.
    pub fn size(&self, key: &str, default: Option<usize>) -> Result<usize, LoadError> {
        match self.get::<usize>(key)?.or(default) {
            Some(0) => Err(self.unsupported(key, "a positive integer")),
            Some(size) => Ok(size),
            None => Err(file_error(&self.path, &format!("has no `{key}`"))),
        }
    }

    /// Creates an error about a value that is not supported.
    pub fn unsupported(&self, key: &str, expected: impl Display) -> LoadError {
        let value = self.values.get(key).unwrap_or(&Json::Null);
        file_error(
            &self.path,
            &format!("has `{key}` {}, expected {expected}", shortened(value)),
        )
    }
}

/// Returns the JSON of a value, at most about 100 characters of it.
fn shortened(value: &Json) -> String {
    const MAX: usize = 100;
    let text = value.to_string();
    match text.char_indices().nth(MAX) {
        None => text,
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: &[Key] = &honored(["size"]);
    const MORE: &[Key] = &[only("is_decoder", &["false", "null"])];
    const RATES: &[Key] = &irrelevant("dropout applies only to training", ["dropout"]);

    fn check(text: &str, ignored: &[&str]) -> Result<(), String> {
        let file = ConfigFile {
            path: PathBuf::from("config.json"),
            values: serde_json::from_str(text).expect("valid JSON"),
        };
        let ignored = IgnoredKeys::new(ignored.iter().map(|name| (*name).to_owned()).collect());
        file.check(&[KEYS, MORE, RATES], &ignored)
            .and_then(|()| ignored.check_all_used())
            .map_err(|error| error.message().to_owned())
    }

    #[test]
    fn keys_that_are_not_honored_are_errors() {
        assert_eq!(
            check(r#"{"size": 3, "dropout": 0.1, "is_decoder": false}"#, &[]),
            Ok(())
        );
        assert_eq!(
            check(r#"{"is_decoder": true}"#, &[]),
            Err("`config.json` has `is_decoder` true, expected false or null".to_owned())
        );
        assert_eq!(
            check(r#"{"speed": [1, 2]}"#, &[]),
            Err(
                "`config.json` has the unknown key `speed` with the value [1,2], which may affect the results: if it does not, \
                 add \"speed\" to `ignored_keys`"
                    .to_owned()
            )
        );
        assert_eq!(check(r#"{"speed": [1, 2]}"#, &["speed"]), Ok(()));
        assert_eq!(
            check(r#"{"size": 3}"#, &["size"]),
            Err("`size` is not an unknown key of a file in the model directory: remove it".to_owned())
        );
    }
}
