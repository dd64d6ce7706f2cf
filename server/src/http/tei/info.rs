//! `GET /info` and `/{model}/health`: describe a model to clients of text-embeddings-inference.

use actix_web::http::Method;
use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use serde_json::{Map, Value as Json, json};

use crate::api::open_inference::SERVER_VERSION;
use crate::api::{Call, Code, Failure, ModelName, TaskRole, is_ready};
use crate::http::error_format::ErrorFormat;
use crate::http::request_headers::RequestHead;
use crate::http::respond;
use crate::http::server::Shared;

/// `GET /info`
pub(in crate::http) async fn root(request: HttpRequest, shared: Data<Shared>) -> HttpResponse {
    info(&request, &shared, None)
}

/// `GET /{model}/info`
pub(super) fn below_model(request: &HttpRequest, shared: &Shared, model: &str) -> HttpResponse {
    match is_read(request.method()) {
        true => info(request, shared, Some(model)),
        false => respond::unhandled_method(request, "GET, HEAD"),
    }
}

/// `GET /{model}/health`
pub(super) fn health(request: &HttpRequest, shared: &Shared, model: &str) -> HttpResponse {
    if !is_read(request.method()) {
        return respond::unhandled_method(request, "GET, HEAD");
    }
    match is_ready(&shared.registry, &request.client(), model, None) {
        Ok(()) => respond::json(200, json!({"status": "ok"}).to_string()),
        Err(failure) => respond::failure_in(ErrorFormat::Rerank, request, &failure),
    }
}

fn is_read(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

/// The roles that `/info` describes, most specific first.
const ROLES: [TaskRole; 5] = [
    TaskRole::Embedding,
    TaskRole::SparseEmbedding,
    TaskRole::Reranker,
    TaskRole::Classifier,
    TaskRole::TokenEmbeddings,
];

fn info(request: &HttpRequest, shared: &Shared, model: Option<&str>) -> HttpResponse {
    let view = shared.view(request);
    let name = ModelName::InPath(model);
    let found = ROLES.into_iter().map(|role| {
        let (entry, _) = Call::model_with(&view, name, role)?;
        Call::check_serves(&view, entry.name(), None)?;
        let task = entry.task_manifests().iter().position(|task| role.is_of(task));
        let missing = || {
            Failure::new(
                Code::UnsuitableModel,
                "the model does not embed, rank or classify texts",
            )
        };
        let call = Call::ready(view.client(), entry, task.ok_or_else(missing)?)?;
        Ok(describe(shared, &call, role))
    });
    let mut found: Vec<Result<Json, Failure>> = found.collect();
    let position = found.iter().position(Result::is_ok).unwrap_or(0);
    match found.swap_remove(position) {
        Ok(info) => respond::json(200, info.to_string()),
        Err(failure) => respond::failure_in(ErrorFormat::Rerank, request, &super::unsuitable(failure)),
    }
}

fn describe(shared: &Shared, call: &Call, role: TaskRole) -> Json {
    let details = &call.generation.manifest.details;
    let number = |name: &str| details.get(name).and_then(|value| value.parse::<u64>().ok());
    let text = |name: &str| details.get(name).map(String::as_str);
    let settings = call.entry.tasks.get(call.task);
    json!({
        "model_id": call.entry.name(),
        "model_sha": null,
        "model_dtype": text("dtype").unwrap_or("float32"),
        "served_model_name": call.entry.name(),
        "model_type": model_type(call, role),
        "max_concurrent_requests": settings.map(|task| task.max_queue_size),
        "max_input_length": number("max_length"),
        "max_batch_tokens": settings.and_then(|task| task.batching.max_batch_weight),
        "max_batch_requests": settings.map(|task| task.batching.max_batch_size),
        "max_client_batch_size": shared.body.items,
        "auto_truncate": false,
        "tokenization_workers": shared.prepare_threads,
        "version": SERVER_VERSION,
        "sha": null,
        "docker_label": null,
    })
}

fn model_type(call: &Call, role: TaskRole) -> Json {
    let details = &call.generation.manifest.details;
    let detail = |name: &str, default| details.get(name).map_or(default, String::as_str);
    match role {
        TaskRole::Reranker => json!({"reranker": labels(&[detail("label", "LABEL_0")])}),
        TaskRole::Classifier => {
            // Without such a declaration, the names of the labels are known only from replies.
            let declared = &call.manifest().output.schema["items"]["properties"]["label"]["enum"];
            let declared = declared.as_array().into_iter().flatten();
            json!({"classifier": labels(&declared.filter_map(Json::as_str).collect::<Vec<_>>())})
        }
        TaskRole::SparseEmbedding => json!({"embedding": {"pooling": "splade"}}),
        TaskRole::TokenEmbeddings => json!({"embedding": {"pooling": "none"}}),
        _ => json!({"embedding": {"pooling": detail("pooling", "unknown")}}),
    }
}

fn labels(names: &[&str]) -> Json {
    let names = || names.iter().enumerate();
    let by_id = names().map(|(id, label)| (id.to_string(), Json::from(*label)));
    let by_label = names().map(|(id, label)| ((*label).to_owned(), Json::from(id)));
    json!({"id2label": by_id.collect::<Map<_, _>>(), "label2id": by_label.collect::<Map<_, _>>()})
}
