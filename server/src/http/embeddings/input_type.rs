//! The types of inputs in the protocols of Cohere and Jina, and the task or prompt of a model for each of them.

use plugin_abi::manifest::TaskManifest;

use crate::api::{Call, Code, Failure, ModelName, ModelView, TaskRole};
use crate::config::EmbeddingSettings;
use crate::registry::ModelEntry;

/// What the embeddings of inputs are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::http) enum InputType {
    SearchQuery,
    SearchDocument,
    Classification,
    Clustering,
}

impl InputType {
    pub(in crate::http) const ALL: [Self; 4] = [
        Self::SearchQuery,
        Self::SearchDocument,
        Self::Classification,
        Self::Clustering,
    ];

    /// The name in a protocol.
    pub(in crate::http) fn name(self, naming: Naming) -> &'static str {
        let (cohere, jina) = match self {
            Self::SearchQuery => ("search_query", "retrieval.query"),
            Self::SearchDocument => ("search_document", "retrieval.passage"),
            Self::Classification => ("classification", "classification"),
            Self::Clustering => ("clustering", "separation"),
        };
        match naming {
            Naming::Cohere => cohere,
            Naming::Jina => jina,
        }
    }

    /// The task or prompt of a model for inputs of this type: the configured one, or else the task that usually embeds them.
    /// `None` if there is none, so that the default task embeds them.
    pub(in crate::http) fn prompt<'a>(
        self,
        settings: &'a EmbeddingSettings,
        tasks: &[TaskManifest],
    ) -> Option<&'a str> {
        let (configured, usual): (_, &[&'static str]) = match self {
            Self::SearchQuery => (&settings.search_query, &["query"]),
            Self::SearchDocument => (&settings.search_document, &["passage", "document"]),
            Self::Classification => (&settings.classification, &[]),
            Self::Clustering => (&settings.clustering, &[]),
        };
        let is_task = |name: &&&'static str| tasks.iter().any(|task| task.embedding && task.name == **name);
        configured
            .as_deref()
            .or_else(|| usual.iter().find(is_task).copied())
    }
}

/// The protocol that names a type, in a member with the same meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::http) enum Naming {
    Cohere,
    Jina,
}

impl Naming {
    fn member(self) -> &'static str {
        match self {
            Self::Cohere => "input_type",
            Self::Jina => "task",
        }
    }
}

/// Jina's name for inputs of no specific type.
pub(in crate::http) const ANY_JINA_TYPE: &str = "text-matching";

/// Whether a model embeds inputs of no specific type: one of its embedding tasks is its default, or the only one.
pub(in crate::http) fn embeds_any(tasks: &[TaskManifest], default_task: Option<usize>) -> bool {
    let is_default = default_task
        .and_then(|task| tasks.get(task))
        .is_some_and(|task| task.embedding);
    is_default || tasks.iter().filter(|task| task.embedding).count() == 1
}

/// The types of inputs that a model embeds: all if it embeds inputs of no specific type, otherwise those with a task or prompt.
pub(in crate::http) fn accepted(
    settings: &EmbeddingSettings,
    tasks: &[TaskManifest],
    default_task: Option<usize>,
) -> Vec<InputType> {
    let embeds_any = embeds_any(tasks, default_task);
    let is_accepted = |kind: &InputType| embeds_any || kind.prompt(settings, tasks).is_some();
    InputType::ALL.into_iter().filter(is_accepted).collect()
}

/// Finds the task for inputs of a type, and the prompt that it has to be told. The type is written as `naming` says; `None`
/// stands for no specific type.
///
/// # Errors
/// There is no such task, or the model does not embed inputs of the type.
pub(super) fn find(
    view: &ModelView,
    model: Option<&str>,
    input_type: Option<(Naming, &str)>,
) -> Result<(Call, Option<String>), Failure> {
    let model = ModelName::InBody(model);
    let (entry, task) = Call::model_with(view, model, TaskRole::Embedding)?;
    let prompt = match input_type {
        None => None,
        Some((naming, text)) => read(entry, task.is_some(), naming, text)?,
    };
    // If there is no name, this is the only model with embeddings.
    let model = match model {
        ModelName::InBody(Some(_)) => model,
        _ => ModelName::InBody(Some(entry.name())),
    };
    let (call, needs_prompt) = Call::to_embedding(view, model, TaskRole::Embedding, prompt)?;
    Ok((call, prompt.filter(|_| needs_prompt).map(str::to_owned)))
}

/// The task or prompt of a model for a type of inputs. If the request names a task, only the configuration can select a prompt.
fn read<'a>(
    entry: &'a ModelEntry,
    names_task: bool,
    naming: Naming,
    text: &str,
) -> Result<Option<&'a str>, Failure> {
    let settings = &entry.settings.embeddings;
    let tasks = entry.task_manifests();
    if !tasks.iter().any(|task| task.embedding) {
        // The error says that the model is not ready, or does not produce embeddings.
        return Ok(None);
    }
    let (tasks, accepted): (&[TaskManifest], _) = match names_task {
        true => (&[], InputType::ALL.to_vec()),
        false => (tasks, accepted(settings, tasks, entry.default_task)),
    };
    let known = accepted.iter().find(|kind| kind.name(naming) == text);
    match known {
        Some(kind) => Ok(kind.prompt(settings, tasks)),
        None => {
            let mut names: Vec<&str> = accepted.iter().map(|kind| kind.name(naming)).collect();
            if naming == Naming::Jina && (names_task || embeds_any(tasks, entry.default_task)) {
                names.push(ANY_JINA_TYPE);
            }
            Err(unknown(naming, text, entry.name(), &names))
        }
    }
}

fn unknown(naming: Naming, text: &str, model: &str, known: &[&str]) -> Failure {
    let member = naming.member();
    let text: String = text.chars().take(40).collect();
    let known = match known {
        [] => "none, because it has no default task".to_owned(),
        known => known.join(", "),
    };
    let message = format!("invalid value `{text}` for `{member}`: model `{model}` accepts {known}");
    Failure::new(Code::Malformed, message).with_param(member)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Dimensions, TokenIds};

    fn settings(search_query: Option<&str>, clustering: Option<&str>) -> EmbeddingSettings {
        EmbeddingSettings {
            dimensions: Dimensions::Fixed,
            token_ids: TokenIds::Cl100kBase,
            search_query: search_query.map(str::to_owned),
            search_document: None,
            classification: None,
            clustering: clustering.map(str::to_owned),
        }
    }

    fn tasks(names: &[&str]) -> Vec<TaskManifest> {
        let task = |name: &&str| TaskManifest {
            name: (*name).to_owned(),
            embedding: true,
            ..TaskManifest::default()
        };
        names.iter().map(task).collect()
    }

    #[test]
    fn settings_and_usual_names_select_a_task_or_prompt() {
        use InputType::{Clustering, SearchDocument, SearchQuery};
        let (none, some) = (settings(None, None), settings(Some("find"), Some("topic")));
        let asymmetric = tasks(&["document", "query"]);
        for (kind, settings, tasks, prompt) in [
            (SearchQuery, &none, &asymmetric, Some("query")),
            (SearchQuery, &some, &asymmetric, Some("find")),
            (SearchDocument, &some, &asymmetric, Some("document")),
            (Clustering, &none, &asymmetric, None),
            (Clustering, &some, &asymmetric, Some("topic")),
            (SearchQuery, &none, &tasks(&["embed"]), None),
        ] {
            assert_eq!(kind.prompt(settings, tasks), prompt, "{kind:?}");
        }
    }

    #[test]
    fn a_model_without_a_default_task_embeds_only_the_types_that_select_one() {
        let asymmetric = tasks(&["passage", "query"]);
        let names = |settings: &EmbeddingSettings, tasks: &[TaskManifest], default_task| -> Vec<&str> {
            let accepted = accepted(settings, tasks, default_task).into_iter();
            accepted.map(|kind| kind.name(Naming::Cohere)).collect()
        };
        let all = ["search_query", "search_document", "classification", "clustering"];
        assert_eq!(names(&settings(None, None), &tasks(&["embed"]), None), all);
        assert_eq!(names(&settings(None, None), &asymmetric, Some(0)), all);
        assert_eq!(
            names(&settings(None, None), &asymmetric, None),
            ["search_query", "search_document"]
        );
        assert_eq!(
            names(&settings(None, Some("passage")), &asymmetric, None),
            ["search_query", "search_document", "clustering"]
        );
    }
}
