//! Addressing: finds the model and task of a request, and submits its items to the queue. Shared by all protocols.

use std::sync::Arc;
use std::time::{Duration, Instant};

use plugin_abi::manifest::TaskManifest;

use super::api_keys::Client;
use super::execution::{Checked, Execution, ItemsOutcome};
use super::failure::{Code, Failure};
use super::model_view::ModelView;
use super::request_options::RequestOptions;
use super::request_record::RequestRecord;
use crate::batching::Priority;
use crate::byte_budget::Reservation;
use crate::clock;
use crate::engine::{Reply, Request};
use crate::error::ItemError;
use crate::model::Health;
use crate::registry::{Generation, ModelEntry, ModelState, Registry};
use crate::values::ItemInput;

/// A request's model and task. It keeps the generation alive until the request is answered.
#[derive(Clone)]
pub struct Call {
    /// The model.
    pub entry: Arc<ModelEntry>,
    /// The generation that answers the request.
    pub generation: Arc<Generation>,
    /// Index of the task in the manifest.
    pub task: usize,
    client: Client,
}

impl Call {
    /// Finds a task by the name of the model and that of the task.
    pub fn to_task(view: &ModelView, model: &str, task: &str) -> Result<Self, Failure> {
        let entry = view.model(model)?;
        let generation = find_generation(entry)?;
        let Some(task) = entry.task_index(task) else {
            let tasks = generation.manifest.tasks.iter().map(|task| task.name.as_str());
            return Err(Failure::unknown_task(model, task, tasks));
        };
        Self::ready(view.client(), entry, task)
    }

    /// Finds the default task of a model.
    pub fn to_default_task(view: &ModelView, model: &str) -> Result<Self, Failure> {
        let entry = view.model(model)?;
        let generation = find_generation(entry)?;
        let Some(task) = entry.default_task else {
            let tasks = generation.manifest.tasks.iter().map(|task| task.name.as_str());
            return Err(Failure::no_default_task(model, tasks));
        };
        Self::ready(view.client(), entry, task)
    }

    /// Finds a task by the single name that the Open Inference Protocol and KServe V1 use: `model.task`, or `model`
    /// for its default task.
    pub fn to_name(view: &ModelView, name: &str, version: Option<&str>) -> Result<Self, Failure> {
        let (entry, task) = Self::find(view, name, version)?;
        match task.or(entry.default_task) {
            Some(task) => Self::ready(view.client(), entry, task),
            None => {
                let generation = find_generation(entry)?;
                let tasks = generation.manifest.tasks.iter();
                let names: Vec<String> = tasks.map(|task| format!("{name}.{}", task.name)).collect();
                let message = format!(
                    "model `{name}` has several tasks and no default task; use one of: {}",
                    names.join(", ")
                );
                Err(Failure::new(Code::NotFound, message))
            }
        }
    }

    /// Finds a task by a TensorFlow Serving signature: the task with that name, or the default task if the signature
    /// is missing, empty, or [`DEFAULT_SIGNATURE`].
    pub fn to_signature(
        view: &ModelView,
        name: &str,
        version: Option<&str>,
        signature: Option<&str>,
    ) -> Result<Self, Failure> {
        let Some(signature) = signature.filter(|signature| !matches!(*signature, "" | DEFAULT_SIGNATURE))
        else {
            return Self::to_name(view, name, version);
        };
        let (entry, named) = Self::find(view, name, version)?;
        let tasks = &find_generation(entry)?.manifest.tasks;
        let found = tasks.iter().position(|task| task.name == signature);
        match found.filter(|found| named.is_none_or(|named| named == *found)) {
            Some(task) => Self::ready(view.client(), entry, task),
            None => {
                let signature: String = signature.chars().take(100).collect();
                let signatures = Self::signatures(view, name, version)?;
                let known: Vec<&str> = signatures.iter().map(|(name, _)| name.as_str()).collect();
                let known = known.join(", ");
                let message =
                    format!("unknown signature `{signature}` of model `{name}`; expected one of {known}");
                Err(Failure::new(Code::Malformed, message))
            }
        }
    }

    /// The signatures that [`to_signature`](Self::to_signature) accepts from this client, with their tasks.
    pub fn signatures(
        view: &ModelView,
        name: &str,
        version: Option<&str>,
    ) -> Result<Vec<(String, Self)>, Failure> {
        let (entry, named) = Self::find(view, name, version)?;
        let tasks = &find_generation(entry)?.manifest.tasks;
        let is_allowed = |task: usize| view.client().sees_task(entry.name(), &tasks[task].name);
        let default = named.or(entry.default_task);
        let default = default.map(|task| (DEFAULT_SIGNATURE.to_owned(), task));
        let all = tasks
            .iter()
            .enumerate()
            .map(|(index, task)| (task.name.clone(), index));
        default
            .into_iter()
            .chain(all.filter(|(_, index)| named.is_none_or(|named| named == *index)))
            .filter(|(_, task)| is_allowed(*task))
            .map(|(name, task)| Ok((name, Self::ready(view.client(), entry, task)?)))
            .collect()
    }

    /// Finds a model by `model` or `model.task`, ready or not. Returns the index of the task if the name includes
    /// one.
    pub fn find<'a>(
        view: &'a ModelView,
        name: &str,
        version: Option<&str>,
    ) -> Result<(&'a Arc<ModelEntry>, Option<usize>), Failure> {
        let found = view.named(name)?;
        check_version(name, version)?;
        Ok(found)
    }

    /// Checks that the model exists and is ready. For requests that name their task in the body.
    pub fn check_serves(view: &ModelView, name: &str, version: Option<&str>) -> Result<(), Failure> {
        let (entry, _) = Self::find(view, name, version)?;
        find_generation(entry).map(|_| ())
    }

    /// Finds a task by its index.
    pub fn ready(client: &Client, entry: &Arc<ModelEntry>, task: usize) -> Result<Self, Failure> {
        // The tasks of a model that is not serving are not known.
        client.check_model(entry.name())?;
        let generation = find_generation(entry)?.clone();
        if let Some(manifest) = generation.manifest.tasks.get(task) {
            client.check_task(entry.name(), &manifest.name)?;
        }
        Ok(Self {
            entry: entry.clone(),
            generation,
            task,
            client: client.clone(),
        })
    }

    /// The manifest of the task.
    pub fn manifest(&self) -> &TaskManifest {
        &self.generation.manifest.tasks[self.task]
    }

    /// Counts the items for the limits of the client, queues them, and waits for their outcomes. They run in batches with
    /// the items of other requests. `decoded` is what [`Decoding::keep`](super::Decoding::keep) returned for them.
    /// Dropping the future cancels the items that have not started. If the request is only checked, the items do not run.
    pub async fn run(
        &self,
        items: Vec<Result<ItemInput, ItemError>>,
        decoded: Option<Reservation>,
        options: RequestOptions,
        record: &mut RequestRecord,
    ) -> Result<Reply, Failure> {
        self.client.admit_items(items.len())?;
        let priority = match &options.execution {
            Execution::Interactive => options.priority,
            Execution::Job(job) => {
                record.discard();
                // Invalid items do not run.
                if items.iter().any(Result::is_ok) {
                    job.start().await?;
                }
                Priority::Background
            }
            Execution::Check(checked) => {
                record.discard();
                let _ = checked.set(self.checked(&items, options.priority));
                return Err(Execution::checked());
            }
        };
        let pending = self.generation.engine.submit(Request {
            task: self.task,
            items,
            decoded,
            received: record.received(),
            timeout: options.timeout,
            priority,
            tracking: record.track(options.request_id),
        })?;
        if let Execution::Job(job) = &options.execution {
            job.queued(pending.progress());
        }
        let mut reply = pending.reply().await;
        record.ran(&mut reply);
        if let Execution::Job(job) = &options.execution {
            job.finish(items_outcome(&reply));
        }
        Ok(reply)
    }

    fn checked(&self, items: &[Result<ItemInput, ItemError>], priority: Priority) -> Checked {
        Checked {
            model: self.entry.name().to_owned(),
            task: self.manifest().name.clone(),
            items: items.len(),
            priority,
        }
    }

    /// Records the time since `started` as the encoding time of the reply, and whether all items succeeded. Returns
    /// the time.
    pub(super) fn observe_encode(&self, started: Instant, succeeded: bool) -> Duration {
        let elapsed = clock::now().saturating_duration_since(started);
        self.generation.engine.encoded(self.task, succeeded, elapsed);
        elapsed
    }
}

fn items_outcome(reply: &Reply) -> ItemsOutcome {
    let failures = reply.outcomes.iter().filter_map(|outcome| outcome.as_ref().err());
    let most_severe = failures.max_by_key(|error| Code::of_item(error));
    ItemsOutcome {
        succeeded: reply.outcomes.iter().filter(|outcome| outcome.is_ok()).count(),
        failure: most_severe.map(Failure::from),
    }
}

/// The version of every model; requests for another version are rejected. Generations are not versions, since only
/// one of them serves.
pub const VERSION: &str = "1";

/// TensorFlow Serving's name for the default signature.
pub const DEFAULT_SIGNATURE: &str = "serving_default";

/// Checks that a model accepts requests. `name` is `model` or `model.task`.
///
/// # Errors
/// Returns the reason if it does not.
pub fn is_ready(
    registry: &Registry,
    client: &Client,
    name: &str,
    version: Option<&str>,
) -> Result<(), Failure> {
    let view = ModelView::new(registry.snapshot(), client.clone());
    let (entry, _) = Call::find(&view, name, version)?;
    find_generation(entry)?;
    if let Some(reason) = entry.reason() {
        let message = format!("model `{}` is not ready: {reason}", entry.name());
        return Err(Failure::new(Code::Unavailable, message));
    }
    if registry.is_draining() {
        return Err(Failure::new(Code::Unavailable, "the server is shutting down"));
    }
    Ok(())
}

/// Checks a requested version. A missing or empty version matches any.
fn check_version(name: &str, version: Option<&str>) -> Result<(), Failure> {
    match version {
        None | Some("" | VERSION) => Ok(()),
        Some(version) => {
            let version: String = version.chars().take(40).collect();
            Err(Failure::new(
                Code::NotFound,
                format!("unknown version `{version}` of model `{name}`; expected `{VERSION}`"),
            ))
        }
    }
}

pub(super) fn find_generation(entry: &Arc<ModelEntry>) -> Result<&Arc<Generation>, Failure> {
    let name = entry.name();
    match &entry.state {
        ModelState::Ready(generation) => match generation.engine.health() {
            // Requests are queued while the model recovers, which does not take long.
            Health::Ready | Health::Recovering { .. } => Ok(generation),
            Health::CrashLoop { reason } => Err(Failure {
                retry_after: Some(Duration::from_secs(1)),
                ..Failure::new(
                    Code::Unavailable,
                    format!("model `{name}` is in a crash loop: {reason}"),
                )
            }),
            Health::Failed { reason } => Err(Failure::new(
                Code::Unavailable,
                format!("model `{name}` has failed: {reason}"),
            )),
        },
        ModelState::Loading => Err(Failure {
            retry_after: Some(Duration::from_secs(1)),
            ..Failure::new(Code::Unavailable, format!("model `{name}` is loading"))
        }),
        ModelState::Unloaded => Err(Failure::new(
            Code::Unavailable,
            format!("model `{name}` is unloaded"),
        )),
        ModelState::Failed { reason } => Err(Failure::new(
            Code::Unavailable,
            format!("model `{name}` failed to load: {}", reason.public),
        )),
    }
}
