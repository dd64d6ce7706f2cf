//! Commands from clients to load or unload one model. The thread that owns the models executes them one at a time.

use std::sync::Arc;

use serde_json::{Map, Value as Json};
use tokio::sync::oneshot;

use super::failure::{Code, Failure};

/// A command for one model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelCommand {
    /// Reads the configuration again and loads the model from it, while the current generation keeps serving.
    Load,
    /// Stops serving the model until it is loaded again.
    Unload,
}

impl ModelCommand {
    /// Rejects parameters that the server does not support.
    ///
    /// # Errors
    /// Names the first such parameter.
    pub fn check_parameters(self, parameters: &Map<String, Json>) -> Result<(), Failure> {
        let problem = parameters
            .iter()
            .find_map(|(name, value)| self.parameter_problem(name, value));
        problem.map_or(Ok(()), |problem| Err(Failure::new(Code::Malformed, problem)))
    }

    fn parameter_problem(self, name: &str, value: &Json) -> Option<String> {
        let short: String = name.chars().take(100).collect();
        match (self, name) {
            // No model depends on another, so both values have the same effect.
            (Self::Unload, UNLOAD_DEPENDENTS) if value.is_boolean() => None,
            (Self::Unload, UNLOAD_DEPENDENTS) => {
                Some(format!("invalid value for parameter `{short}`: expected true or false"))
            }
            (Self::Load, "config") => Some(
                "parameter `config` is not supported: edit the server's configuration file, then load the model \
                without `config`"
                    .to_owned(),
            ),
            (Self::Load, name) if name.starts_with("file:") => Some(format!(
                "parameter `{short}` is not supported: place the file where the model's settings expect it, then load \
                the model without this parameter"
            )),
            (Self::Load, _) => Some(format!("unknown parameter `{short}`; `load` takes no parameters")),
            (Self::Unload, _) => Some(format!("unknown parameter `{short}`; expected `{UNLOAD_DEPENDENTS}`")),
        }
    }
}

/// Rejects repository names: the configuration is the only repository and has no name.
///
/// # Errors
/// If the name is not empty.
pub fn check_repository(name: &str) -> Result<(), Failure> {
    if name.is_empty() {
        return Ok(());
    }
    let name: String = name.chars().take(100).collect();
    let message = format!(
        "unknown repository `{name}`: the configuration is the only repository; leave `repository_name` empty"
    );
    Err(Failure::new(Code::Malformed, message))
}

/// Triton's parameter for unloading the models that an ensemble depends on.
const UNLOAD_DEPENDENTS: &str = "unload_dependents";

/// A command that has not been executed yet.
pub struct PendingCommand {
    /// The command.
    pub command: ModelCommand,
    /// Name of the model.
    pub model: String,
    /// Receives the result.
    pub reply: oneshot::Sender<Result<(), Failure>>,
}

/// Sends commands to the thread that owns the models.
#[derive(Clone)]
pub struct ModelControl(Arc<dyn Fn(PendingCommand) + Send + Sync>);

impl ModelControl {
    /// Creates a handle that passes commands to `send`. A command that is dropped fails with "the server is shutting
    /// down".
    pub fn new(send: impl Fn(PendingCommand) + Send + Sync + 'static) -> Self {
        Self(Arc::new(send))
    }

    /// Sends a command and waits for its result.
    ///
    /// # Errors
    /// If the command failed, or the server is shutting down.
    pub async fn execute(&self, command: ModelCommand, model: &str) -> Result<(), Failure> {
        let (reply, result) = oneshot::channel();
        (self.0)(PendingCommand {
            command,
            model: model.to_owned(),
            reply,
        });
        result
            .await
            .unwrap_or_else(|_| Err(Failure::new(Code::Unavailable, "the server is shutting down")))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_unsupported_parameter_is_rejected_by_name() {
        let check = |command: ModelCommand, parameters: Json| {
            let Json::Object(parameters) = parameters else {
                panic!("parameters are an object")
            };
            command
                .check_parameters(&parameters)
                .map_err(|failure| failure.message)
        };
        assert_eq!(check(ModelCommand::Load, json!({})), Ok(()));
        assert_eq!(
            check(ModelCommand::Unload, json!({"unload_dependents": false})),
            Ok(())
        );
        assert_eq!(
            check(ModelCommand::Unload, json!({"unload_dependents": true})),
            Ok(())
        );
        for (command, parameters, start) in [
            (
                ModelCommand::Load,
                json!({"config": "{}"}),
                "parameter `config` is not supported: ",
            ),
            (
                ModelCommand::Load,
                json!({"file:1/model.onnx": "AA=="}),
                "parameter `file:1/model.onnx` is not supported: ",
            ),
            (
                ModelCommand::Load,
                json!({"unload_dependents": true}),
                "unknown parameter `unload_dependents`; ",
            ),
            (
                ModelCommand::Unload,
                json!({"unload_dependents": 1}),
                "invalid value for parameter `unload_dependents`: expected true or false",
            ),
            (
                ModelCommand::Unload,
                json!({"config": "{}"}),
                "unknown parameter `config`; expected `unload_dependents`",
            ),
        ] {
            let message = check(command, parameters).expect_err(start);
            assert!(message.starts_with(start), "{message}");
        }
    }
}
