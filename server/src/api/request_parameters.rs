//! The `parameters` of a request in the Open Inference Protocol: some are meant for the server, the rest for the task.

use std::collections::HashSet;

use bytes::Bytes;
use plugin_abi::manifest::TaskManifest;
use serde_json::Value as Json;

use super::failure::{Code, Failure, cut};
use crate::codec::bounded_json::visit_members;

/// Parameters that a client or its library sends for the server, and that no task is shown.
const FOR_THE_SERVER: [&str; 9] = [
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

/// The parameters of a request, sorted by whom they are for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parameters {
    /// Microseconds that the reply may take.
    pub timeout: Option<u64>,
    /// 1 is the highest.
    pub priority: Option<u64>,
    /// Whether outputs are wanted as binary where nothing else is said.
    pub binary_output: bool,
    /// A JSON object for the task; empty if there is nothing in it, or the task takes none.
    pub for_task: Bytes,
}

impl Parameters {
    /// Reads them from a JSON object.
    ///
    /// # Errors
    /// One that is for the server is not what it should be, one is given twice, or there are too many.
    pub fn read_json(object: &str, task: &TaskManifest) -> Result<Self, Failure> {
        let mut reader = Reader::new(task);
        visit_members(object, &mut |name, value| reader.add(&name, value))
            .map_err(|error| Failure::new(Code::Malformed, format!("`parameters`: {}", error.message())))??;
        Ok(reader.finish())
    }

    /// Reads them from names and values.
    ///
    /// # Errors
    /// As [`read_json`](Self::read_json).
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

/// Maximum number of parameters of a request.
const MAX_PARAMETERS: usize = 1024;

/// Sorts parameters as they come. Those of a task stay the text that they are. What a task that takes no parameters is
/// sent is ignored, as the clients of this protocol expect.
struct Reader {
    read: Parameters,
    seen: HashSet<String>,
    /// The object for the task so far, without its last brace; `None` if the task takes no parameters.
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
                "`parameters` has more than {MAX_PARAMETERS} members, the maximum"
            ));
        }
        if !self.seen.insert(name.to_owned()) {
            return malformed(format!("parameter `{}` is given twice", cut(name)));
        }
        match name {
            "timeout" => self.read.timeout = number(name, "microseconds", value)?,
            "priority" => self.read.priority = number(name, "a number, where 1 is the highest", value)?,
            "binary_data_output" => self.read.binary_output = boolean(name, value)?,
            _ if FOR_THE_SERVER.contains(&name) => {}
            _ => {
                if let Some(object) = &mut self.for_task {
                    object.push(if object.is_empty() { b'{' } else { b',' });
                    // Writing to memory does not fail.
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
    // gRPC clients that do not know better send every number as text.
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
    let message = format!("parameter `{name}`: expected {expected}, got {}", cut(got));
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
    fn the_servers_own_are_not_shown_to_the_task() {
        let sent =
            json!({"timeout": 250, "priority": 1, "binary_data_output": true, "sequence_id": 7, "top": 3});
        let read = read(sent, true).expect("they are well-formed");
        assert_eq!(
            (read.timeout, read.priority, read.binary_output),
            (Some(250), Some(1), true)
        );
        assert_eq!(&read.for_task[..], b"{\"top\":3}");
    }

    #[test]
    fn a_task_without_parameters_is_sent_none() {
        assert_eq!(read(json!({"top": 3}), false), Ok(Parameters::default()));
        assert_eq!(read(json!({}), true), Ok(Parameters::default()));
    }

    #[test]
    fn what_is_not_a_number_is_refused_by_name() {
        for (sent, expected) in [
            (
                json!({"timeout": -1}),
                "parameter `timeout`: expected microseconds, got -1",
            ),
            (
                json!({"priority": "low"}),
                "parameter `priority`: expected a number, where 1 is the highest, got \"low\"",
            ),
            (
                json!({"binary_data_output": 1}),
                "parameter `binary_data_output`: expected true or false, got 1",
            ),
        ] {
            assert_eq!(read(sent, true), Err(expected.to_owned()));
        }
    }

    #[test]
    fn parameters_of_the_task_keep_their_text() {
        let task = TaskManifest {
            parameters_schema: json!({"type": "object"}),
            ..TaskManifest::default()
        };
        let read = |text| Parameters::read_json(text, &task).map_err(|failure| failure.message);
        let read_one =
            read(r#"{"a": 1.50, "headers": {"x": 1}, "b\"": [ 1 ], "timeout": "5"}"#).expect("it is valid");
        assert_eq!(&read_one.for_task[..], br#"{"a":1.50,"b\"":[ 1 ]}"#);
        assert_eq!(read_one.timeout, Some(5));
        assert_eq!(
            read(r#"{"a": 1, "a": 2}"#),
            Err("parameter `a` is given twice".to_owned())
        );
    }

    #[test]
    fn there_are_at_most_1024_parameters() {
        let object = |count: usize| {
            let members: Vec<String> = (0..count).map(|index| format!("\"p{index}\":1")).collect();
            format!("{{{}}}", members.join(","))
        };
        let read = |count| Parameters::read_json(&object(count), &TaskManifest::default());
        assert!(read(1024).is_ok());
        let failure = read(1025).expect_err("there are too many");
        assert_eq!(
            failure.message,
            "`parameters` has more than 1024 members, the maximum"
        );
    }
}
