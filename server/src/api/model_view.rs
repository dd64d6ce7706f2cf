//! The models that the client of a request may use.

use std::sync::Arc;

use super::api_keys::Client;
use super::failure::Failure;
use crate::registry::{ModelEntry, Snapshot};

/// The models of a snapshot, as one client may use them. A client that may use one task of a model sees the model.
///
/// For a name that none of its models can have, the client gets the same error whether there is such a model or not.
#[derive(Clone)]
pub struct ModelView {
    snapshot: Arc<Snapshot>,
    client: Client,
}

impl ModelView {
    /// The models of `snapshot` that `client` may use.
    pub fn new(snapshot: Arc<Snapshot>, client: Client) -> Self {
        Self { snapshot, client }
    }

    /// The client.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// All models, also those that the client may not use.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// The models that the client may use, in the order of their names.
    pub fn models(&self) -> impl Iterator<Item = &Arc<ModelEntry>> + Clone {
        let models = self.snapshot.models();
        models.filter(move |entry| self.client.sees_model(entry.name()))
    }

    /// Finds a model by its name.
    ///
    /// # Errors
    /// `Forbidden` if the client may not use it; `NotFound` if it does not exist.
    pub fn model(&self, name: &str) -> Result<&Arc<ModelEntry>, Failure> {
        self.client.check_model(name)?;
        let unknown = || Failure::unknown_model(name, self.models().map(|entry| entry.name()));
        self.snapshot.model(name).ok_or_else(unknown)
    }

    /// Finds a model by `model` or `model.task`, as [`Snapshot::named`] does.
    ///
    /// # Errors
    /// `Forbidden` if the client may not use it; `NotFound` if it does not exist.
    pub fn named(&self, name: &str) -> Result<(&Arc<ModelEntry>, Option<usize>), Failure> {
        self.client.check_name(name)?;
        match self.snapshot.named(name) {
            Some((entry, task)) => {
                self.client.check_model(entry.name())?;
                Ok((entry, task))
            }
            None => Err(Failure::unknown_model(name, self.names())),
        }
    }

    /// Whether [`named`](Self::named) finds a model. Does not count as a request for it.
    pub fn has_name(&self, name: &str) -> bool {
        let found = self.snapshot.named(name);
        found.is_some_and(|(entry, _)| self.client.sees_name(name) && self.client.sees_model(entry.name()))
    }

    /// The names that [`named`](Self::named) finds for models that are serving.
    fn names(&self) -> impl Iterator<Item = &str> + Clone {
        let names = self.snapshot.names();
        names.filter(move |name| self.client.sees_name(name))
    }
}
