//! Serializes outcomes as JSON.

use plugin_sdk::serde::ser::{Error, Serialize, SerializeMap, SerializeSeq, Serializer};
use plugin_sdk::serde_json;
use plugin_sdk::serde_json::value::RawValue;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};

/// Maximum nesting depth, which also detects values that contain themselves. Same as `_outcomes.MAX_DEPTH`.
const MAX_DEPTH: usize = 200;

/// Serializes `value`. `plain` converts values that JSON cannot represent; see `_outcomes.plain`.
///
/// # Errors
/// The value is not representable in JSON. `_outcomes.problem` locates the error.
pub(crate) fn write(value: &Bound<'_, PyAny>, plain: &Bound<'_, PyAny>) -> Result<String, String> {
    let part = Part {
        value,
        plain,
        depth: 0,
    };
    serde_json::to_string(&part).map_err(|error| error.to_string())
}

#[derive(Clone, Copy)]
struct Part<'a, 'py> {
    value: &'a Bound<'py, PyAny>,
    plain: &'a Bound<'py, PyAny>,
    depth: usize,
}

impl<'py> Part<'_, 'py> {
    fn sequence<S: Serializer>(
        self,
        serializer: S,
        length: usize,
        members: impl Iterator<Item = Bound<'py, PyAny>>,
    ) -> Result<S::Ok, S::Error> {
        let mut sequence = serializer.serialize_seq(Some(length))?;
        for value in members {
            sequence.serialize_element(&self.inner(&value))?;
        }
        sequence.end()
    }

    fn map<S: Serializer>(self, serializer: S, dict: &Bound<'py, PyDict>) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(dict.len()))?;
        for (key, value) in dict {
            let text = match key.cast::<PyString>() {
                Ok(text) => text.clone(),
                Err(_) if key.is_instance_of::<PyInt>() && !key.is_instance_of::<PyBool>() => {
                    let text = key
                        .call_method1("__format__", ("d",))
                        .and_then(|text| Ok(text.cast_into::<PyString>()?));
                    let text = text.map_err(S::Error::custom)?;
                    if dict.contains(&text).map_err(S::Error::custom)? {
                        return Err(S::Error::custom("a dict has the same key as an int and as a str"));
                    }
                    text
                }
                Err(_) => {
                    return Err(S::Error::custom(
                        "a dict has a key that is neither a str nor an int",
                    ));
                }
            };
            map.serialize_entry(&*text.to_cow().map_err(S::Error::custom)?, &self.inner(&value))?;
        }
        map.end()
    }

    fn inner<'b>(&self, value: &'b Bound<'py, PyAny>) -> Part<'b, 'py>
    where
        Self: 'b,
    {
        Part {
            value,
            plain: self.plain,
            depth: self.depth + 1,
        }
    }
}

impl Serialize for Part<'_, '_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let value = self.value;
        if self.depth > MAX_DEPTH {
            return Err(S::Error::custom("it is nested too deeply, or contains itself"));
        }
        if let Ok(text) = value.cast::<PyString>() {
            return serializer.serialize_str(&text.to_cow().map_err(S::Error::custom)?);
        }
        if let Ok(number) = value.cast::<PyFloat>() {
            // serde_json would write null for other values.
            return match number.value() {
                finite if finite.is_finite() => serializer.serialize_f64(finite),
                other => Err(S::Error::custom(format_args!(
                    "{other} is not representable in JSON"
                ))),
            };
        }
        if let Ok(truth) = value.cast::<PyBool>() {
            return serializer.serialize_bool(truth.is_true());
        }
        if let Ok(number) = value.cast::<PyInt>() {
            return match number.extract::<i64>() {
                Ok(small) => serializer.serialize_i64(small),
                Err(_) => large(number).map_err(S::Error::custom)?.serialize(serializer),
            };
        }
        if value.is_none() {
            return serializer.serialize_unit();
        }
        if let Ok(dict) = value.cast::<PyDict>() {
            return self.map(serializer, dict);
        }
        if let Ok(list) = value.cast::<PyList>() {
            return self.sequence(serializer, list.len(), list.iter());
        }
        if let Ok(tuple) = value.cast::<PyTuple>() {
            return self.sequence(serializer, tuple.len(), tuple.iter());
        }
        let plain = self.plain.call1((value,)).map_err(S::Error::custom)?;
        self.inner(&plain).serialize(serializer)
    }
}

/// Converts an integer of any size to its digits. Uses `__format__`, because a subclass can override `__str__`.
fn large(number: &Bound<'_, PyInt>) -> PyResult<Box<RawValue>> {
    let digits = number.call_method1("__format__", ("d",))?.extract()?;
    RawValue::from_string(digits).map_err(|error| PyValueError::new_err(error.to_string()))
}
