//! The routes of text-embeddings-inference, except for `/rerank`: at the root if only one model can answer, and below the name of
//! each model.

use serde_json::{Value as Json, json};

use super::addresses::{self, Address};
use super::body_routes::Request;
use super::components::Components;
use super::embeddings_route::dimensions_schema;
use super::operations::{Operation, Operations, examples, json_body, json_response, path_segments};
use super::tei_schemas::{Route, info_schema, require_prompt, routes};
use super::{Access, NamedTask, TEI};
use crate::api::TaskRole;
use crate::http::tei::ROOT_ROLES;

/// Error statuses of these routes: those of every task, and that of a model without a task for the route.
pub(super) const FAILURES: &[u16] = &[400, 404, 406, 408, 413, 415, 422, 424, 429, 500, 503, 504];

/// The requests to a route.
struct Requests {
    role: TaskRole,
    by_prefix: Vec<Request>,
}

/// Adds each route that a task can answer. `rankings` are the requests to rerankers.
pub(super) fn add(
    operations: &mut Operations,
    components: &mut Components,
    tasks: &[NamedTask<'_>],
    rankings: Vec<Request>,
) {
    let has = |role: TaskRole| addresses::with_role(tasks, role).next().is_some();
    let routes = routes(&dimensions_schema(tasks.iter())).into_iter();
    let mut requests: Vec<Requests> = routes
        .filter(|route| has(route.role))
        .map(|route| add_route(operations, components, tasks, route))
        .collect();
    requests.push(Requests {
        role: TaskRole::Reranker,
        by_prefix: rankings,
    });
    add_root(operations, components, tasks, &requests);
    if ROOT_ROLES.into_iter().any(has) {
        add_info(operations, components, tasks);
    }
}

/// Adds a route at the root, if a request there can mean a task, and below the name of each model.
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
    let root = addresses::root(tasks, route.role);
    // At the root, the operation is the same, unless only one of the two needs a prompt.
    let is_alias = |address: &Address<'_>| {
        let prompts = address.prompts();
        root.as_ref()
            .is_some_and(|root| !address.prefix.is_empty() && root.prompts() == prompts)
    };
    let mut by_prefix = Vec::new();
    for address in root.iter().chain(&addresses::of_models(tasks, route.role)) {
        let (mut schema, mut example) = route.request.clone();
        if schema["properties"].get("dimensions").is_some() {
            schema["properties"]["dimensions"] = dimensions_schema(address.tasks.iter().copied());
        }
        require_prompt(&mut schema, &mut example, &address.prompts());
        let request = components.share(&name("Request"), schema);
        let operation = Operation {
            method: "post",
            path: format!("{}{}", address.prefix, route.path),
            id: format!("tei {id} {}", address.prefix),
            tag: TEI,
            summary: route.summary.to_owned(),
            description: route.description.to_owned(),
            parameters: Vec::new(),
            body: Some(json_body(&request, true, examples([example.clone()]))),
            responses: vec![(200, json_response(route.reply.0, &reply))],
            failures: FAILURES,
            all_failed: None,
            access: Access::Client,
        };
        if is_alias(address) {
            let path = operation.path.clone();
            let original = Operation {
                path: route.path.to_owned(),
                ..operation
            };
            operations.add_alias(original.at(path));
        } else {
            operations.add(operation);
        }
        by_prefix.push(Request {
            prefix: address.prefix.clone(),
            schema: request,
            example: Some(example),
        });
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
    let with_role = |role: TaskRole| {
        let of_role = requests.iter().filter(move |requests| requests.role == role);
        of_role.flat_map(|requests| &requests.by_prefix)
    };
    let at = |role: TaskRole, prefix: &str| {
        let requests = with_role(role).filter(|request| request.prefix == prefix);
        requests.collect::<Vec<&Request>>()
    };
    let mut prefixes: Vec<(&str, TaskRole)> = Vec::new();
    for (index, role) in ROOT_ROLES.into_iter().enumerate() {
        let is_first = |prefix: &str| {
            let earlier = &ROOT_ROLES[..index];
            // Only rerankers are asked with a query.
            role == TaskRole::Reranker || !earlier.iter().any(|earlier| has_role(tasks, *earlier, prefix))
        };
        for Request { prefix, .. } in with_role(role) {
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
        let example = bodies.first().and_then(|request| request.example.clone());
        let bodies: Vec<&Json> = bodies.into_iter().map(|request| &request.schema).collect();
        let request = components.share("TeiRequest", json!({"anyOf": bodies}));
        let reply = components.share(
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
            body: Some(json_body(&request, true, examples(example))),
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
        let of_role = addresses::with_role(tasks, role);
        let mut models: Vec<&str> = of_role.map(|named| named.model).collect();
        models.dedup();
        models
    };
    let at_root = ROOT_ROLES.into_iter().any(|role| models_with(role).len() == 1);
    let failures: &[u16] = &[404, 406, 424, 503];
    let mut models: Vec<&str> = ROOT_ROLES.into_iter().flat_map(models_with).collect();
    models.sort_unstable();
    models.dedup();
    let paths = models
        .into_iter()
        .map(|model| format!("/{}/info", path_segments(model)));
    let paths = at_root.then(|| "/info".to_owned()).into_iter().chain(paths);
    for path in paths {
        let described = json_response("The model.", &info);
        operations.add(read(path, "Describe the model", failures, described));
    }
}

/// Adds the routes that tell whether a model is ready.
pub(super) fn add_health(operations: &mut Operations, components: &mut Components, models: &[String]) {
    let status =
        json!({"type": "object", "required": ["status"], "properties": {"status": {"type": "string"}}});
    for model in models {
        let ready = json_response(
            "The model is ready.",
            &components.share("TeiHealth", status.clone()),
        );
        let path = format!("/{}/health", path_segments(model));
        operations.add(read(
            path,
            "Check whether the model is ready",
            &[404, 406, 503],
            ready,
        ));
    }
}

fn read(path: String, summary: &str, failures: &'static [u16], response: Json) -> Operation<'static> {
    Operation {
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
