//! Where a request can mean a task by what it does: at the root, or below the name of a model.

use super::NamedTask;
use super::operations::path_segments;
use crate::api::{TaskRole, Unnamed};

/// A place at which a role can be used: the root, or the name of a model or task in front of the path.
pub(super) struct Address<'a> {
    /// `/model`, or empty at the root.
    pub(super) prefix: String,
    /// The tasks that can answer.
    pub(super) tasks: Vec<&'a NamedTask<'a>>,
    /// Whether a request has to name one of these tasks as its prompt.
    pub(super) needs_prompt: bool,
}

impl<'a> Address<'a> {
    /// The prompts of which a request must have one; empty if it needs none.
    pub(super) fn prompts(&self) -> Vec<&'a str> {
        let tasks = self.tasks.iter().filter(|_| self.needs_prompt);
        tasks.map(|named| named.task.name.as_str()).collect()
    }
}

/// All tasks with a role.
pub(super) fn with_role<'a>(
    tasks: &'a [NamedTask<'a>],
    role: TaskRole,
) -> impl Iterator<Item = &'a NamedTask<'a>> + Clone {
    tasks.iter().filter(move |named| role.is_of(named.task))
}

/// How a request without a name finds a task with a role.
pub(super) fn unnamed(tasks: &[NamedTask<'_>], role: TaskRole) -> Unnamed {
    let of_role = with_role(tasks, role);
    role.unnamed(of_role.map(|named| (named.model, named.short_name.is_some())))
}

/// The root, if a request there can mean a task with a role.
pub(super) fn root<'a>(tasks: &'a [NamedTask<'a>], role: TaskRole) -> Option<Address<'a>> {
    let needs_prompt = match unnamed(tasks, role) {
        Unnamed::Found => false,
        Unnamed::NeedsPrompt => true,
        Unnamed::Impossible => return None,
    };
    Some(Address {
        prefix: String::new(),
        tasks: with_role(tasks, role).collect(),
        needs_prompt,
    })
}

/// Every name of a model or task that means a task with a role.
pub(super) fn of_models<'a>(tasks: &'a [NamedTask<'a>], role: TaskRole) -> Vec<Address<'a>> {
    let address = |name: &str, tasks, needs_prompt| Address {
        prefix: format!("/{}", path_segments(name)),
        tasks,
        needs_prompt,
    };
    let mut addresses = Vec::new();
    let all: Vec<&NamedTask<'_>> = with_role(tasks, role).collect();
    // The tasks of a model are next to each other.
    for of_model in all.chunk_by(|one, other| one.model == other.model) {
        let model = of_model[0].model;
        if let [only] = of_model {
            addresses.push(address(model, vec![*only], false));
            continue;
        }
        let has_default = of_model.iter().any(|named| named.short_name.is_some());
        if !has_default && role.has_prompts() {
            addresses.push(address(model, of_model.to_vec(), true));
        }
        let names = of_model
            .iter()
            .map(|named| address(named.shortest_name(), vec![*named], false));
        addresses.extend(names);
    }
    addresses
}
