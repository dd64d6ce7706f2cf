//! Orders of clients to load and unload single models. They are carried out by whoever owns the models, one after the other.

use std::sync::Arc;

use serde_json::{Map, Value as Json};
use tokio::sync::oneshot;

use super::failure::{Code, Failure};

/// What a client orders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Read the configuration again and load the model as it is there, beside the one that serves.
    Load,
    /// Take the model out of service until it is loaded again.
    Unload,
}

impl Order {
    /// Rejects parameters of an order that the server does not honor.
    ///
    /// # Errors
    /// The first such parameter.
    pub fn check_parameters(self, parameters: &Map<String, Json>) -> Result<(), Failure> {
        let problem = parameters
            .iter()
            .find_map(|(name, value)| self.parameter_problem(name, value));
        problem.map_or(Ok(()), |problem| Err(Failure::new(Code::Malformed, problem)))
    }

    fn parameter_problem(self, name: &str, value: &Json) -> Option<String> {
        let short: String = name.chars().take(100).collect();
        match (self, name) {
            // No model depends on another one, so both values mean the same.
            (Self::Unload, UNLOAD_DEPENDENTS) if value.is_boolean() => None,
            (Self::Unload, UNLOAD_DEPENDENTS) => {
                Some(format!("parameter `{short}`: expected true or false"))
            }
            (Self::Load, "config") => Some(
                "parameter `config` is not supported: change the server's configuration file, then load the model \
                 without `config`"
                    .to_owned(),
            ),
            (Self::Load, name) if name.starts_with("file:") => Some(format!(
                "parameter `{short}` is not supported: put the file where the model's settings expect it, then load the \
                 model without it"
            )),
            (Self::Load, _) => Some(format!("unknown parameter `{short}`; loading a model takes no parameters")),
            (Self::Unload, _) => Some(format!("unknown parameter `{short}`; known: {UNLOAD_DEPENDENTS}")),
        }
    }
}

/// Rejects the name of a repository: the configuration is the only one, and it has no name.
///
/// # Errors
/// There is a name.
pub fn check_repository(name: &str) -> Result<(), Failure> {
    if name.is_empty() {
        return Ok(());
    }
    let name: String = name.chars().take(100).collect();
    let message = format!(
        "unknown repository `{name}`: the server's configuration is the only repository; leave `repository_name` empty"
    );
    Err(Failure::new(Code::Malformed, message))
}

/// Triton's parameter for models that others are built from.
const UNLOAD_DEPENDENTS: &str = "unload_dependents";

/// An order on its way.
pub struct Pending {
    /// What is to be done.
    pub order: Order,
    /// With which model.
    pub model: String,
    /// Where the client waits for its end.
    pub done: oneshot::Sender<Result<(), Failure>>,
}

/// The way to the owner of the models.
#[derive(Clone)]
pub struct Control(Arc<dyn Fn(Pending) + Send + Sync>);

impl Control {
    /// Sends orders this way. An order that is dropped is answered with "shutting down".
    pub fn new(send: impl Fn(Pending) + Send + Sync + 'static) -> Self {
        Self(Arc::new(send))
    }

    /// Gives an order, and waits until it is carried out.
    ///
    /// # Errors
    /// Why it could not be.
    pub async fn give(&self, order: Order, model: &str) -> Result<(), Failure> {
        let (done, end) = oneshot::channel();
        (self.0)(Pending {
            order,
            model: model.to_owned(),
            done,
        });
        end.await
            .unwrap_or_else(|_| Err(Failure::new(Code::Unavailable, "the server is shutting down")))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_parameter_that_is_not_honored_is_rejected_by_name() {
        let check = |order: Order, parameters: Json| {
            let Json::Object(parameters) = parameters else {
                panic!("parameters are an object")
            };
            order
                .check_parameters(&parameters)
                .map_err(|failure| failure.message)
        };
        assert_eq!(check(Order::Load, json!({})), Ok(()));
        assert_eq!(check(Order::Unload, json!({"unload_dependents": false})), Ok(()));
        assert_eq!(check(Order::Unload, json!({"unload_dependents": true})), Ok(()));
        for (order, parameters, start) in [
            (
                Order::Load,
                json!({"config": "{}"}),
                "parameter `config` is not supported: ",
            ),
            (
                Order::Load,
                json!({"file:1/model.onnx": "AA=="}),
                "parameter `file:1/model.onnx` is not supported: ",
            ),
            (
                Order::Load,
                json!({"unload_dependents": true}),
                "unknown parameter `unload_dependents`; ",
            ),
            (
                Order::Unload,
                json!({"unload_dependents": 1}),
                "parameter `unload_dependents`: expected true or false",
            ),
            (
                Order::Unload,
                json!({"config": "{}"}),
                "unknown parameter `config`; known: unload_dependents",
            ),
        ] {
            let message = check(order, parameters).expect_err(start);
            assert!(message.starts_with(start), "{message}");
        }
    }
}
