//! Orders of clients to load and unload single models. They are carried out by whoever owns the models, one after the other.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::error::{Code, Failure};

/// What a client orders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Read the configuration again and load the model as it is there, beside the one that serves.
    Load,
    /// Take the model out of service until it is loaded again.
    Unload,
}

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
