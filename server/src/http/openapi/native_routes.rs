//! The native routes: one per task, and the state of the server.

use plugin_abi::manifest::{Kind, TaskManifest};
use serde_json::{Value as Json, json};

use super::components::{Components, snake_case};
use super::operations::{
    Operation, Operations, examples, json_body, json_response, path_parameter, path_segment,
};
use super::server_schemas::ServerSchemas;
use super::task_schemas::TaskSchemas;
use super::{Access, DocumentedModel, SERVER};
use crate::http::native::request_items::accepted_media_types;

/// Error statuses of requests that run a model.
pub(super) const RUN_FAILURES: &[u16] = &[400, 404, 406, 408, 413, 415, 422, 429, 500, 503, 504];

/// Adds the routes of one model: first one per task, then the alternative routes to the same tasks.
pub(super) fn add_model(
    operations: &mut Operations,
    model: &DocumentedModel<'_>,
    tag: &str,
    schemas: &[TaskSchemas],
) {
    let root = format!("/v1/models/{}", path_segment(model.name));
    let tasks = || model.manifest.tasks.iter().zip(schemas).enumerate();
    for (_, (task, schemas)) in tasks() {
        let path = format!("{root}/tasks/{}/predict", path_segment(&task.name));
        let id = format!("predict {} {}", model.name, task.name);
        operations.add(predict(model.name, task, schemas, tag, path, &id, ""));
    }
    for (index, (task, schemas)) in tasks() {
        if model.default_task == Some(index) {
            let id = format!("predict {}", model.name);
            let path = format!("{root}/predict");
            operations.add(predict(
                model.name,
                task,
                schemas,
                tag,
                path,
                &id,
                " (default task)",
            ));
        }
        for (route, _) in model.routes.iter().filter(|(_, task)| *task == index) {
            let id = format!("predict route {}", snake_case(route));
            let path = route.replace('{', "%7B").replace('}', "%7D");
            operations.add(predict(
                model.name,
                task,
                schemas,
                tag,
                path,
                &id,
                " (short route)",
            ));
        }
    }
}

fn predict<'a>(
    model: &str,
    task: &TaskManifest,
    schemas: &TaskSchemas,
    tag: &'a str,
    path: String,
    id: &'a str,
    note: &str,
) -> Operation<'a> {
    let header = |name: &str, description: &str, schema: Json| json!({"name": name, "in": "header", "required": false, "description": description, "schema": schema});
    Operation {
        method: "post",
        path,
        id: id.to_owned(),
        tag,
        summary: format!("Run `{}` of `{model}`{note}", task.name),
        description: task.description.clone(),
        parameters: vec![
            header(
                "x-request-timeout",
                "Maximum time until the reply, such as `250ms` or `2s`. A number without a unit is in seconds.",
                json!({"type": "string", "pattern": r"^(0\.0{0,2}[1-9]|[1-9][0-9]{0,3}(\.[0-9]{1,3})?|[1-9][0-9]{0,3}(ms|s))$"}),
            ),
            header(
                "x-priority",
                "Priority of the request's items in the queue.",
                json!({"type": "string", "enum": ["high", "normal", "low"]}),
            ),
        ],
        body: Some(body(task, schemas)),
        responses: vec![(200, answer(task, schemas))],
        failures: RUN_FAILURES,
        all_failed: Some(schemas.all_failed.clone()),
        access: Access::Client,
    }
}

fn body(task: &TaskManifest, schemas: &TaskSchemas) -> Json {
    let bodies = task.examples.iter().map(|example| json!({ "inputs": [example] }));
    let mut body = json_body(&schemas.request, true, examples(bodies));
    for media_type in accepted_media_types(task) {
        let schema = match media_type {
            "application/json" => continue,
            "text/plain" => json!({"type": "string"}),
            _ => binary(),
        };
        body["content"][media_type] = json!({ "schema": schema });
    }
    body
}

fn answer(task: &TaskManifest, schemas: &TaskSchemas) -> Json {
    let mut answer = json_response(
        "Outputs in the order of the inputs. At least one item succeeded.",
        &schemas.reply,
    );
    if task.output.kinds.contains(&Kind::Bytes) {
        for media_type in &task.output.media_types {
            answer["content"][media_type] = json!({"schema": binary()});
        }
    }
    answer
}

/// Schema of a raw body.
pub(super) fn binary() -> Json {
    json!({"type": "string", "format": "binary"})
}

/// Adds the routes that do not depend on the loaded models.
pub(super) fn add_server(operations: &mut Operations, components: &mut Components, models: &[String]) {
    let schemas = ServerSchemas::add(components);
    let get = |path: &str, id: &'static str, summary: &str, responses: Vec<(u16, Json)>, access: Access| {
        Operation {
            method: "get",
            path: path.to_owned(),
            id: id.to_owned(),
            tag: SERVER,
            summary: summary.to_owned(),
            description: String::new(),
            parameters: Vec::new(),
            body: None,
            responses,
            failures: &[406],
            all_failed: None,
            access,
        }
    };
    let both = |description: &str, schema: &Json| {
        vec![
            (200, json_response(description, schema)),
            (
                503,
                json_response("A model is not ready, or the server is shutting down.", schema),
            ),
        ]
    };
    let list = vec![(200, json_response("All models.", &schemas.models))];
    operations.add(get(
        "/v1/models",
        "list models",
        "List the models",
        list,
        Access::Client,
    ));
    let describe = vec![(
        200,
        json_response("The state and tasks of the model.", &schemas.model),
    )];
    operations.add(Operation {
        parameters: vec![path_parameter("model", models)],
        failures: &[404, 406],
        ..get(
            "/v1/models/{model}",
            "describe model",
            "Describe a model",
            describe,
            Access::Client,
        )
    });
    let health = both("Every model is ready.", &schemas.health);
    operations.add(get(
        "/health",
        "health",
        "Get the state of the server and its models",
        health,
        Access::Open,
    ));
    let live = vec![(200, json_response("The process is alive.", &schemas.live))];
    operations.add(get("/livez", "liveness", "Check liveness", live, Access::Open));
    let ready = both("Every model is ready.", &schemas.ready);
    operations.add(get(
        "/readyz",
        "readiness",
        "Check readiness",
        ready,
        Access::Open,
    ));
    let document = vec![(200, json_response("The document.", &schemas.openapi))];
    operations.add(get(
        "/openapi.json",
        "openapi",
        "Get this document",
        document,
        Access::Open,
    ));
    let text = json!({"description": "Metrics.", "content": {"text/plain": {"schema": {"type": "string"}}}});
    operations.add(get(
        "/metrics",
        "metrics",
        "Get metrics in the Prometheus text format",
        vec![(200, text)],
        Access::Open,
    ));
    let mut root = json_response(
        "Name, version and paths of the server; an HTML page for browsers.",
        &schemas.root,
    );
    root["content"]["text/html"] = json!({"schema": {"type": "string"}});
    operations.add(get(
        "/",
        "root",
        "Describe the server",
        vec![(200, root)],
        Access::Open,
    ));
}
