//! The `parameters` of a request in the Open Inference Protocol: some are meant for the server, the rest for the task.

use bytes::Bytes;
use plugin_abi::manifest::TaskManifest;
use serde_json::{Map, Value as Json};

use super::error::{Code, Failure};

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
    /// Sorts them. What a task that takes no parameters is sent is ignored, as the clients of this protocol are used to.
    ///
    /// # Errors
    /// One that is for the server is not what it should be.
    pub fn read(mut parameters: Map<String, Json>, task: &TaskManifest) -> Result<Self, Failure> {
        let read = Self {
            timeout: number(&parameters, "timeout", "microseconds")?,
            priority: number(&parameters, "priority", "a number, where 1 is the highest")?,
            binary_output: match parameters.get("binary_data_output") {
                None | Some(Json::Null) => false,
                Some(Json::Bool(wanted)) => *wanted,
                Some(other) => return Err(unexpected("binary_data_output", "true or false", other)),
            },
            for_task: Bytes::new(),
        };
        if task.parameters_schema.is_null() {
            return Ok(read);
        }
        parameters.retain(|name, _| !FOR_THE_SERVER.contains(&name.as_str()));
        if parameters.is_empty() {
            return Ok(read);
        }
        Ok(Self {
            for_task: Json::Object(parameters).to_string().into(),
            ..read
        })
    }
}

fn number(parameters: &Map<String, Json>, name: &str, wanted: &str) -> Result<Option<u64>, Failure> {
    match parameters.get(name) {
        None | Some(Json::Null) => Ok(None),
        // The gRPC client sends every number as text where it does not know better.
        Some(Json::String(text)) if text.parse::<u64>().is_ok() => Ok(text.parse().ok()),
        Some(value) => match value.as_u64() {
            Some(number) => Ok(Some(number)),
            None => Err(unexpected(name, wanted, value)),
        },
    }
}

fn unexpected(name: &str, wanted: &str, got: &Json) -> Failure {
    let got: String = got.to_string().chars().take(100).collect();
    Failure::new(
        Code::Malformed,
        format!("parameter `{name}`: expected {wanted}, got {got}"),
    )
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
        let Json::Object(parameters) = parameters else {
            panic!("parameters are an object")
        };
        Parameters::read(parameters, &task).map_err(|failure| failure.message)
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
}
