//! The `parameters` of a request in the Open Inference Protocol. Some are for the server, the others for the task.

use std::collections::HashSet;

use bytes::Bytes;
use plugin_abi::manifest::TaskManifest;
use serde_json::Value as Json;

use super::failure::{Code, Failure, excerpt};
use crate::codec::bounded_json::visit_members;

/// Parameters for the server, which are not passed to the task.
const SERVER_PARAMETERS: [&str; 9] = [
    "binary_data_output",
    "content_type",
    "headers",
    "priority",
    "sequence_end",
    "sequence_id",
    "sequence_start",
    "timeout",
    "triton_enable_empty_final_response",
];

/// The parameters of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parameters {
    /// Request timeout in microseconds.
    pub timeout: Option<u64>,
    /// Priority; 1 is the highest.
    pub priority: Option<u64>,
    /// Whether outputs are binary by default.
    pub binary_output: bool,
    /// The parameters for the task as a JSON object; empty if there are none or the task takes none.
    pub for_task: Bytes,
}

impl Parameters {
    /// Reads parameters from a JSON object.
    ///
    /// # Errors
    /// If a parameter for the server is invalid, a parameter is repeated, or there are too many.
    pub fn read_json(object: &str, task: &TaskManifest) -> Result<Self, Failure> {
        let mut reader = Reader::new(task);
        visit_members(object, &mut |name, value| reader.add(&name, value))
            .map_err(|error| Failure::new(Code::Malformed, format!("`parameters`: {}", error.message())))??;
        Ok(reader.finish())
    }

    /// Reads parameters from names and values.
    ///
    /// # Errors
    /// Same as [`read_json`](Self::read_json).
    pub fn read(
        parameters: impl IntoIterator<Item = (String, Json)>,
        task: &TaskManifest,
    ) -> Result<Self, Failure> {
        let mut reader = Reader::new(task);
        for (name, value) in parameters {
            reader.add(&name, &value.to_string())?;
        }
        Ok(reader.finish())
    }
}

/// Maximum number of parameters in a request.
const MAX_PARAMETERS: usize = 1024;

/// Separates the parameters for the server from those for the task, whose values are copied as text. Parameters for a
/// task that takes none are ignored, as clients of this protocol expect.
struct Reader {
    read: Parameters,
    seen: HashSet<String>,
    /// The JSON object for the task so far, without the closing brace; `None` if the task takes no parameters.
    for_task: Option<Vec<u8>>,
}

impl Reader {
    fn new(task: &TaskManifest) -> Self {
        Self {
            read: Parameters::default(),
            seen: HashSet::new(),
            for_task: (!task.parameters_schema.is_null()).then(Vec::new),
        }
    }

    fn add(&mut self, name: &str, value: &str) -> Result<(), Failure> {
        let malformed = |message| Err(Failure::new(Code::Malformed, message));
        if self.seen.len() == MAX_PARAMETERS {
            return malformed(format!(
                "`parameters` has too many members: expected at most {MAX_PARAMETERS}"
            ));
        }
        if !self.seen.insert(name.to_owned()) {
            return malformed(format!("duplicate parameter `{}`", excerpt(name)));
        }
        match name {
            "timeout" => self.read.timeout = number(name, "a number of microseconds", value)?,
            "priority" => self.read.priority = number(name, "a number, where 1 is the highest", value)?,
            "binary_data_output" => self.read.binary_output = boolean(name, value)?,
            _ if SERVER_PARAMETERS.contains(&name) => {}
            _ => {
                if let Some(object) = &mut self.for_task {
                    object.push(if object.is_empty() { b'{' } else { b',' });
                    // Writing to memory cannot fail.
                    let _ = serde_json::to_writer(&mut *object, name);
                    object.push(b':');
                    object.extend_from_slice(value.as_bytes());
                }
            }
        }
        Ok(())
    }

    fn finish(self) -> Parameters {
        let mut object = self.for_task.unwrap_or_default();
        if !object.is_empty() {
            object.push(b'}');
        }
        Parameters {
            for_task: object.into(),
            ..self.read
        }
    }
}

fn boolean(name: &str, value: &str) -> Result<bool, Failure> {
    match value {
        "null" | "false" => Ok(false),
        "true" => Ok(true),
        other => Err(unexpected(name, "true or false", other)),
    }
}

fn number(name: &str, expected: &str, value: &str) -> Result<Option<u64>, Failure> {
    // Some gRPC clients send every number as a string.
    let digits = value
        .strip_prefix('"')
        .and_then(|text| text.strip_suffix('"'))
        .unwrap_or(value);
    match digits.parse() {
        _ if value == "null" => Ok(None),
        Ok(number) => Ok(Some(number)),
        Err(_) => Err(unexpected(name, expected, value)),
    }
}

fn unexpected(name: &str, expected: &str, got: &str) -> Failure {
    let message = format!(
        "invalid value {} for parameter `{name}`: expected {expected}",
        excerpt(got)
    );
    Failure::new(Code::Malformed, message)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(parameters: Json, takes_some: bool) -> Result<Parameters, String> {
        let task = TaskManifest {
            parameters_schema: if takes_some {
                json!({"type": "object"})
            } else {
                Json::Null
            },
            ..TaskManifest::default()
        };
        let text = parameters.to_string();
        let from_text = Parameters::read_json(&text, &task).map_err(|failure| failure.message);
        let Json::Object(parameters) = parameters else {
            panic!("parameters are an object")
        };
        let from_values = Parameters::read(parameters, &task).map_err(|failure| failure.message);
        assert_eq!(from_text, from_values);
        from_values
    }

    #[test]
    fn parameters_for_the_server_are_not_passed_to_the_task() {
        let sent =
            json!({"timeout": 250, "priority": 1, "binary_data_output": true, "sequence_id": 7, "top": 3});
        let read = read(sent, true).expect("the parameters are valid");
        assert_eq!(
            (read.timeout, read.priority, read.binary_output),
            (Some(250), Some(1), true)
        );
        assert_eq!(&read.for_task[..], b"{\"top\":3}");
    }

    #[test]
    fn a_task_that_takes_no_parameters_gets_none() {
        assert_eq!(read(json!({"top": 3}), false), Ok(Parameters::default()));
        assert_eq!(read(json!({}), true), Ok(Parameters::default()));
    }

    #[test]
    fn an_invalid_value_is_rejected_with_the_name_of_the_parameter() {
        for (sent, expected) in [
            (
                json!({"timeout": -1}),
                "invalid value -1 for parameter `timeout`: expected a number of microseconds",
            ),
            (
                json!({"priority": "low"}),
                "invalid value \"low\" for parameter `priority`: expected a number, where 1 is the highest",
            ),
            (
                json!({"binary_data_output": 1}),
                "invalid value 1 for parameter `binary_data_output`: expected true or false",
            ),
        ] {
            assert_eq!(read(sent, true), Err(expected.to_owned()));
        }
    }

    #[test]
    fn values_for_the_task_are_copied_as_text() {
        let task = TaskManifest {
            parameters_schema: json!({"type": "object"}),
            ..TaskManifest::default()
        };
        let read = |text| Parameters::read_json(text, &task).map_err(|failure| failure.message);
        let read_one = read(r#"{"a": 1.50, "headers": {"x": 1}, "b\"": [ 1 ], "timeout": "5"}"#)
            .expect("the parameters are valid");
        assert_eq!(&read_one.for_task[..], br#"{"a":1.50,"b\"":[ 1 ]}"#);
        assert_eq!(read_one.timeout, Some(5));
        assert_eq!(
            read(r#"{"a": 1, "a": 2}"#),
            Err("duplicate parameter `a`".to_owned())
        );
    }

    #[test]
    fn a_request_can_have_up_to_1024_parameters() {
        let object = |count: usize| {
            let members: Vec<String> = (0..count).map(|index| format!("\"p{index}\":1")).collect();
            format!("{{{}}}", members.join(","))
        };
        let read = |count| Parameters::read_json(&object(count), &TaskManifest::default());
        assert!(read(1024).is_ok());
        let failure = read(1025).expect_err("there are too many parameters");
        assert_eq!(
            failure.message,
            "`parameters` has too many members: expected at most 1024"
        );
    }
}
