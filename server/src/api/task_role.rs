//! Addressing in protocols that name a model and not its task: finds the task of the model that does what the route is for.

use std::sync::Arc;

use plugin_abi::manifest::TaskManifest;

use super::call::{Call, find_generation};
use super::failure::{Code, Failure};
use super::model_view::ModelView;
use crate::registry::ModelEntry;

/// What a task is declared to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskRole {
    /// It produces embeddings.
    Embedding,
    /// It produces sparse embeddings.
    SparseEmbedding,
    /// It produces a vector for each token.
    TokenEmbeddings,
    /// It ranks documents.
    Reranker,
    /// It scores labels.
    Classifier,
    /// It splits texts into tokens.
    Tokenizer,
    /// It converts tokens to texts.
    Detokenizer,
}

impl TaskRole {
    /// Whether a task is declared to do this.
    pub fn is_of(self, task: &TaskManifest) -> bool {
        match self {
            Self::Embedding => task.embedding,
            Self::SparseEmbedding => task.sparse_embedding,
            Self::TokenEmbeddings => task.token_embeddings,
            Self::Reranker => task.reranker,
            Self::Classifier => task.classifier,
            Self::Tokenizer => task.tokenizer,
            Self::Detokenizer => task.detokenizer,
        }
    }

    /// Whether a prompt selects one of several tasks of a model that do this, as [`Call::to_embedding`] does.
    pub fn has_prompts(self) -> bool {
        matches!(
            self,
            Self::Embedding | Self::SparseEmbedding | Self::TokenEmbeddings
        )
    }

    /// How a request without a name finds one of `tasks`, which are all tasks that do this. Each is the name of its model, and
    /// whether it is the default task of the model.
    pub fn unnamed<'a>(self, tasks: impl IntoIterator<Item = (&'a str, bool)>) -> Unnamed {
        let tasks: Vec<(&str, bool)> = tasks.into_iter().collect();
        let is_one_model = tasks.windows(2).all(|pair| pair[0].0 == pair[1].0);
        if tasks.is_empty() || !is_one_model {
            return Unnamed::Impossible;
        }
        if tasks.len() == 1 || tasks.iter().any(|(_, is_default)| *is_default) {
            return Unnamed::Found;
        }
        match self.has_prompts() {
            true => Unnamed::NeedsPrompt,
            false => Unnamed::Impossible,
        }
    }

    /// What such a task does, as in "no model …" and "does not …".
    fn phrases(self) -> (&'static str, &'static str) {
        match self {
            Self::Embedding => ("produces embeddings", "produce embeddings"),
            Self::SparseEmbedding => ("produces sparse embeddings", "produce sparse embeddings"),
            Self::TokenEmbeddings => ("produces vectors of tokens", "produce vectors of tokens"),
            Self::Reranker => ("ranks documents", "rank documents"),
            Self::Classifier => ("scores labels", "score labels"),
            Self::Tokenizer => ("tokenizes texts", "tokenize texts"),
            Self::Detokenizer => ("decodes tokens", "decode tokens"),
        }
    }
}

/// How a request that names no model finds a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unnamed {
    /// There is only one that it can mean.
    Found,
    /// One model has several, of which the request must select one by a prompt.
    NeedsPrompt,
    /// There is none, or several models have one.
    Impossible,
}

/// The name of the model in a request, and where it is expected.
#[derive(Clone, Copy, Debug)]
pub enum ModelName<'a> {
    /// In the member `model` of the body.
    InBody(Option<&'a str>),
    /// In front of the path.
    InPath(Option<&'a str>),
}

impl<'a> ModelName<'a> {
    fn name(self) -> Option<&'a str> {
        match self {
            Self::InBody(name) | Self::InPath(name) => name.filter(|name| !name.is_empty()),
        }
    }

    /// The error if the name is missing, and there are several models.
    fn missing(self, names: &str) -> Failure {
        let message = match self {
            Self::InBody(_) => format!("missing member `model`: expected one of {names}"),
            Self::InPath(_) => format!(
                "several tasks can answer: put the name of one in front of the path, as in `/MODEL/embed`: {names}"
            ),
        };
        malformed(message)
    }
}

/// A task with a role.
struct Candidate<'a> {
    entry: &'a Arc<ModelEntry>,
    task: usize,
    /// `model.task`
    name: String,
}

impl<'a> Candidate<'a> {
    fn task_name(&self) -> &'a str {
        &self.entry.task_manifests()[self.task].name
    }
}

impl Call {
    /// Finds the task with a role that a request without a task names: the task that the name includes, or the model's default
    /// task, or its only task with the role. Without a name, that of the only model with such tasks.
    ///
    /// # Errors
    /// There is no such task, or there are several.
    pub fn to_role(view: &ModelView, model: ModelName<'_>, role: TaskRole) -> Result<Self, Failure> {
        let all = candidates(view, role);
        let (one, all_of) = role.phrases();
        let Some(name) = model.name() else {
            let Some(first) = all.first() else {
                return Err(malformed(format!("no model {one}")));
            };
            let is_only = all.iter().all(|other| Arc::ptr_eq(other.entry, first.entry));
            return match choose(first.entry, None, &all).filter(|_| is_only) {
                Some(task) => Self::ready(view.client(), first.entry, task),
                None => Err(model.missing(&names(&all))),
            };
        };
        let (entry, task) = view.named(name).map_err(|failure| failure.with_param("model"))?;
        if let Some(manifest) = task.and_then(|task| entry.task_manifests().get(task)) {
            view.client().check_task(entry.name(), &manifest.name)?;
        }
        if let Some(task) = choose(entry, task, &all) {
            return Self::ready(view.client(), entry, task);
        }
        // The tasks of a model that is not ready are unknown.
        find_generation(entry)?;
        let of_entry: Vec<Candidate<'_>> = all
            .into_iter()
            .filter(|candidate| Arc::ptr_eq(candidate.entry, entry))
            .collect();
        Err(malformed(match of_entry.len() > 1 && task.is_none() {
            true => format!(
                "model `{name}` has several tasks that {all_of} and no default task; use one of: {}",
                names(&of_entry)
            ),
            false => format!(
                "`{name}` does not {all_of}; available: {}",
                names(&candidates(view, role))
            ),
        }))
    }

    /// Whether a task with a role can be meant by a name, alone or together with others.
    pub fn has_role(view: &ModelView, model: ModelName<'_>, role: TaskRole) -> bool {
        let all = candidates(view, role);
        let Some(name) = model.name() else {
            return !all.is_empty();
        };
        view.named(name).is_ok_and(|(entry, task)| {
            let is_meant = |candidate: &Candidate<'_>| {
                Arc::ptr_eq(candidate.entry, entry) && task.is_none_or(|task| task == candidate.task)
            };
            all.iter().any(is_meant)
        })
    }

    /// How a request without a name finds a task with a role.
    pub fn unnamed(view: &ModelView, role: TaskRole) -> Unnamed {
        let all = candidates(view, role);
        role.unnamed(all.iter().map(|candidate| {
            let entry = candidate.entry;
            (entry.name(), entry.default_task == Some(candidate.task))
        }))
    }

    /// Finds the model that a request names, and the index of the task if the name includes one. Without a name, the only model
    /// with such tasks.
    ///
    /// # Errors
    /// There is no such model, or there are several.
    pub fn model_with<'v>(
        view: &'v ModelView,
        model: ModelName<'_>,
        role: TaskRole,
    ) -> Result<(&'v Arc<ModelEntry>, Option<usize>), Failure> {
        if let Some(name) = model.name() {
            return view.named(name).map_err(|failure| failure.with_param("model"));
        }
        let all = candidates(view, role);
        let Some(first) = all.first() else {
            return Err(malformed(format!("no model {}", role.phrases().0)));
        };
        match all.iter().all(|other| Arc::ptr_eq(other.entry, first.entry)) {
            true => Ok((first.entry, None)),
            false => Err(model.missing(&names(&all))),
        }
    }

    /// The tasks of which a request has to select one by a prompt: those with a role of the model that it means, if there are
    /// several and none is the default. Otherwise empty.
    pub fn prompts<'v>(view: &'v ModelView, model: ModelName<'_>, role: TaskRole) -> Vec<&'v str> {
        let all = candidates(view, role);
        let Ok((entry, None)) = Self::model_with(view, model, role) else {
            return Vec::new();
        };
        if choose(entry, None, &all).is_some() {
            return Vec::new();
        }
        let of_entry = all.iter().filter(|candidate| Arc::ptr_eq(candidate.entry, entry));
        of_entry.map(Candidate::task_name).collect()
    }

    /// Finds an embedding task for texts with a prompt: the task of the model that has the name of the prompt, or else the task
    /// that [`to_role`](Self::to_role) finds, if it has the parameter `prompt_name`. Returns whether that parameter must be
    /// set.
    ///
    /// # Errors
    /// There is no such task, or no such prompt.
    pub fn to_embedding(
        view: &ModelView,
        model: ModelName<'_>,
        role: TaskRole,
        prompt: Option<&str>,
    ) -> Result<(Self, bool), Failure> {
        let Some(prompt) = prompt else {
            return Ok((Self::to_role(view, model, role)?, false));
        };
        let (entry, task) = Self::model_with(view, model, role)?;
        let all = candidates(view, role);
        let of_entry = || {
            all.iter()
                .filter(move |candidate| Arc::ptr_eq(candidate.entry, entry))
        };
        let named = of_entry().find(|candidate| candidate.task_name() == prompt);
        if let Some(candidate) = named.filter(|_| task.is_none()) {
            return Ok((Self::ready(view.client(), entry, candidate.task)?, false));
        }
        let call = Self::to_role(view, model, role)?;
        let task = call.manifest();
        if !task.parameters_schema["properties"]["prompt_name"].is_null() {
            return Ok((call, true));
        }
        if task.name == prompt {
            return Ok((call, false));
        }
        let prompt: String = prompt.chars().take(40).collect();
        let known: Vec<&str> = of_entry().map(Candidate::task_name).collect();
        let message = format!(
            "model `{}` has no prompt `{prompt}`; expected one of {}",
            entry.name(),
            known.join(", ")
        );
        Err(Failure::new(Code::InvalidInput, message).with_param("prompt_name"))
    }
}

/// All tasks with a role that the client may use.
fn candidates<'a>(view: &'a ModelView, role: TaskRole) -> Vec<Candidate<'a>> {
    let of_entry = |entry: &'a Arc<ModelEntry>| {
        let tasks = entry.task_manifests().iter().enumerate();
        let is_allowed = move |task: &TaskManifest| view.client().sees_task(entry.name(), &task.name);
        let tasks = tasks.filter(move |(_, task)| role.is_of(task) && is_allowed(task));
        tasks.map(move |(task, manifest)| Candidate {
            entry,
            task,
            name: format!("{}.{}", entry.name(), manifest.name),
        })
    };
    view.models().flat_map(of_entry).collect()
}

/// The task that a request names, or the default task, or the only one of the model; `None` if it is not a candidate, or there are
/// several.
fn choose(entry: &Arc<ModelEntry>, named: Option<usize>, all: &[Candidate<'_>]) -> Option<usize> {
    let of_entry: Vec<usize> = all
        .iter()
        .filter(|candidate| Arc::ptr_eq(candidate.entry, entry))
        .map(|candidate| candidate.task)
        .collect();
    match named
        .or(entry.default_task)
        .filter(|task| of_entry.contains(task))
    {
        None if named.is_none() => of_entry.first().copied().filter(|_| of_entry.len() == 1),
        found => found,
    }
}

fn names(candidates: &[Candidate<'_>]) -> String {
    match candidates {
        [] => "none".to_owned(),
        some => {
            let names: Vec<&str> = some.iter().map(|candidate| candidate.name.as_str()).collect();
            names.join(", ")
        }
    }
}

fn malformed(message: String) -> Failure {
    Failure::new(Code::Malformed, message).with_param("model")
}
