//! The routes of text-embeddings-inference, except for `/rerank`: at the root if only one model can answer, and otherwise below the
//! name of each model.

use serde_json::{Value as Json, json};

use super::components::Components;
use super::embeddings_route::dimensions_schema;
use super::operations::{Operation, Operations, examples, json_body, json_response, path_segments};
use super::tei_schemas::{Route, info_schema, routes};
use super::{Access, NamedTask, TEI, is_name_optional};
use crate::api::TaskRole;
use crate::http::tei::ROOT_ROLES;

/// Error statuses of these routes: those of every task, and that of a model without a task for the route.
pub(super) const FAILURES: &[u16] = &[400, 404, 406, 408, 413, 415, 422, 424, 429, 500, 503, 504];

/// A place at which a role can be used: the root, or the name of a model or task in front of the path.
struct Address<'a> {
    /// `/model`, or empty.
    prefix: String,
    /// The tasks that can answer.
    tasks: Vec<&'a NamedTask<'a>>,
}

/// Where a role can be used: at the root, or below every name that can only mean one task.
fn addresses<'a>(tasks: &'a [NamedTask<'a>], role: TaskRole) -> Vec<Address<'a>> {
    let of_role = || tasks.iter().filter(move |named| role.is_of(named.task));
    if is_name_optional(tasks, role) {
        let (prefix, tasks) = (String::new(), of_role().collect());
        return vec![Address { prefix, tasks }];
    }
    let address = |named: &'a NamedTask<'a>| {
        let is_only = of_role().filter(|other| other.model == named.model).count() == 1;
        let name = match named.short_name {
            Some(name) => name,
            None if is_only => named.model,
            None => &named.name,
        };
        Address {
            prefix: format!("/{}", path_segments(name)),
            tasks: vec![named],
        }
    };
    of_role().map(address).collect()
}

/// Schemas of the requests to a route, by the prefix of the path.
struct Requests {
    role: TaskRole,
    by_prefix: Vec<(String, Json)>,
}

/// Adds each route that a task can answer. `ranking` is the schema of the requests to rerankers.
pub(super) fn add(
    operations: &mut Operations,
    components: &mut Components,
    tasks: &[NamedTask<'_>],
    ranking: Option<&Json>,
) {
    let has = |role: TaskRole| tasks.iter().any(|named| role.is_of(named.task));
    let routes = routes(&dimensions_schema(tasks.iter())).into_iter();
    let mut requests: Vec<Requests> = routes
        .filter(|route| has(route.role))
        .map(|route| add_route(operations, components, tasks, route))
        .collect();
    if let Some(ranking) = ranking {
        let of_prefix = |address: Address<'_>| (address.prefix, ranking.clone());
        requests.push(Requests {
            role: TaskRole::Reranker,
            by_prefix: addresses(tasks, TaskRole::Reranker)
                .into_iter()
                .map(of_prefix)
                .collect(),
        });
    }
    add_root(operations, components, tasks, &requests);
    if ROOT_ROLES.into_iter().any(has) {
        add_info(operations, components, tasks);
    }
}

fn add_route(
    operations: &mut Operations,
    components: &mut Components,
    tasks: &[NamedTask<'_>],
    route: Route,
) -> Requests {
    let id = route.path.trim_start_matches('/');
    let name = |suffix: &str| {
        let words = id.split('_').map(|word| word[..1].to_uppercase() + &word[1..]);
        format!("Tei{}{suffix}", words.collect::<String>())
    };
    let reply = components.add(&name("Reply"), route.reply.1);
    // Models whose embeddings differ in size have different requests.
    let mut known: Vec<(Json, Json)> = Vec::new();
    let mut by_prefix = Vec::new();
    for address in addresses(tasks, route.role) {
        let mut schema = route.request.0.clone();
        if schema["properties"].get("dimensions").is_some() {
            schema["properties"]["dimensions"] = dimensions_schema(address.tasks.iter().copied());
        }
        let request = match known.iter().find(|(other, _)| *other == schema) {
            Some((_, request)) => request.clone(),
            None => {
                let request = components.add(&name("Request"), schema.clone());
                known.push((schema, request.clone()));
                request
            }
        };
        operations.add(Operation {
            method: "post",
            path: format!("{}{}", address.prefix, route.path),
            id: format!("tei {id} {}", address.prefix),
            tag: TEI,
            summary: route.summary.to_owned(),
            description: route.description.to_owned(),
            parameters: Vec::new(),
            body: Some(json_body(&request, true, examples([route.request.1.clone()]))),
            responses: vec![(200, json_response(route.reply.0, &reply))],
            failures: FAILURES,
            all_failed: None,
            access: Access::Client,
        });
        by_prefix.push((address.prefix, request));
    }
    Requests {
        role: route.role,
        by_prefix,
    }
}

/// Whether a task with this role can be meant by a prefix, alone or together with others.
fn has_role(tasks: &[NamedTask<'_>], role: TaskRole, prefix: &str) -> bool {
    let is_meant = |named: &NamedTask<'_>| {
        let names = [named.model, &named.name];
        prefix.is_empty() || names.into_iter().any(|name| path_segments(name) == prefix[1..])
    };
    tasks
        .iter()
        .any(|named| role.is_of(named.task) && is_meant(named))
}

/// Adds the routes that consist of the name of a model alone, or of nothing. The first role that it has answers, and rerankers
/// answer requests with a query.
fn add_root(
    operations: &mut Operations,
    components: &mut Components,
    tasks: &[NamedTask<'_>],
    requests: &[Requests],
) {
    let with_role = |role: TaskRole| requests.iter().filter(move |requests| requests.role == role);
    let at = |role: TaskRole, prefix: &str| {
        with_role(role)
            .flat_map(|requests| &requests.by_prefix)
            .filter(|(other, _)| other == prefix)
            .map(|(_, request)| request.clone())
            .collect::<Vec<Json>>()
    };
    let mut prefixes: Vec<(&str, TaskRole)> = Vec::new();
    for (index, role) in ROOT_ROLES.into_iter().enumerate() {
        let is_first = |prefix: &str| {
            let earlier = &ROOT_ROLES[..index];
            !earlier.iter().any(|earlier| has_role(tasks, *earlier, prefix))
        };
        for (prefix, _) in with_role(role).flat_map(|requests| &requests.by_prefix) {
            if is_first(prefix) && prefixes.iter().all(|(known, _)| known != prefix) {
                prefixes.push((prefix, role));
            }
        }
    }
    for (prefix, role) in prefixes {
        let mut bodies = at(role, prefix);
        if role != TaskRole::Reranker {
            bodies.extend(at(TaskRole::Reranker, prefix));
        }
        let request = components.add("TeiRequest", json!({"anyOf": bodies}));
        let reply = components.add(
            "TeiReply",
            json!({"anyOf": [
                {"type": "array", "items": {}},
                {"type": "object", "additionalProperties": true, "description": "The reply to `documents`."},
            ]}),
        );
        operations.add(Operation {
            method: "post",
            path: match prefix {
                "" => "/".to_owned(),
                prefix => prefix.to_owned(),
            },
            id: format!("tei {prefix}"),
            tag: TEI,
            summary: "Run the model".to_owned(),
            description:
                "Embeds, compares, classifies or ranks texts, depending on the request and the model."
                    .to_owned(),
            parameters: Vec::new(),
            body: Some(json_body(&request, true, examples([]))),
            responses: vec![(200, json_response("The reply of that route.", &reply))],
            failures: FAILURES,
            all_failed: None,
            access: Access::Client,
        });
    }
}

/// Adds the routes that describe a model.
fn add_info(operations: &mut Operations, components: &mut Components, tasks: &[NamedTask<'_>]) {
    let info = components.add("TeiInfo", info_schema());
    let models_with = |role: TaskRole| {
        let of_role = tasks.iter().filter(|named| role.is_of(named.task));
        let mut models: Vec<&str> = of_role.map(|named| named.model).collect();
        models.dedup();
        models
    };
    let at_root = ROOT_ROLES.into_iter().any(|role| models_with(role).len() == 1);
    let mut models: Vec<&str> = ROOT_ROLES.into_iter().flat_map(models_with).collect();
    models.sort_unstable();
    models.dedup();
    let mut add = |path: String, summary: &str, failures, response| {
        operations.add(Operation {
            method: "get",
            id: format!("tei {path}"),
            path,
            tag: TEI,
            summary: summary.to_owned(),
            description: String::new(),
            parameters: Vec::new(),
            body: None,
            responses: vec![(200, response)],
            failures,
            all_failed: None,
            access: Access::Client,
        });
    };
    let described = json_response("The model.", &info);
    if at_root {
        let failures: &[u16] = &[404, 406, 424, 503];
        add(
            "/info".to_owned(),
            "Describe the model",
            failures,
            described.clone(),
        );
    }
    let status =
        json!({"type": "object", "required": ["status"], "properties": {"status": {"type": "string"}}});
    let ready = json_response("The model is ready.", &components.add("TeiHealth", status));
    for model in models {
        let prefix = format!("/{}", path_segments(model));
        let failures: &[u16] = &[404, 406, 424, 503];
        add(
            format!("{prefix}/info"),
            "Describe the model",
            failures,
            described.clone(),
        );
        let failures: &[u16] = &[404, 406, 503];
        add(
            format!("{prefix}/health"),
            "Check whether the model is ready",
            failures,
            ready.clone(),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::super::native_routes::RUN_FAILURES;
    use super::*;

    #[test]
    fn the_failures_are_those_of_every_task_and_one_more() {
        let more: Vec<u16> = FAILURES
            .iter()
            .copied()
            .filter(|status| !RUN_FAILURES.contains(status))
            .collect();
        assert_eq!(more, [424]);
        assert_eq!(FAILURES.len(), RUN_FAILURES.len() + 1);
    }
}
