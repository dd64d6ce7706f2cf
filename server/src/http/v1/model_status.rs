//! Status and metadata of models in TensorFlow Serving's format.

use actix_web::web::{Data, Path};
use actix_web::{HttpRequest, HttpResponse};
use plugin_abi::manifest::{Kind, ValueManifest};
use serde_json::{Map, Value as Json, json};

use crate::api::tensors::{self, TensorSpec};
use crate::api::{Call, Code, Failure, VERSION};
use crate::http::respond;
use crate::http::server::Shared;
use crate::http::task_routes::TaskPath;
use crate::model::Health;
use crate::registry::{ModelEntry, ModelState};
use crate::values::DType;

/// `GET /v1/models/{model}/versions/{version}`
pub(in crate::http) async fn version(
    request: HttpRequest,
    shared: Data<Shared>,
    name: Path<TaskPath>,
) -> HttpResponse {
    let view = shared.view(&request);
    match Call::find(&view, &name.model, name.version.as_deref()) {
        Ok((entry, _)) => {
            let status = json!({"model_version_status": version_status(entry)});
            respond::json(200, status.to_string())
        }
        Err(failure) => respond::failure(&request, &failure),
    }
}

/// `GET /v1/models/{model}/metadata`
pub(in crate::http) async fn metadata(
    request: HttpRequest,
    shared: Data<Shared>,
    name: Path<TaskPath>,
) -> HttpResponse {
    let view = shared.view(&request);
    match Call::signatures(&view, &name.model, name.version.as_deref()) {
        Ok(signatures) => respond::json(200, describe(&name.model, &signatures).to_string()),
        Err(failure) => respond::failure(&request, &failure),
    }
}

/// All paths with `/labels/{label}`: version labels are not supported.
pub(in crate::http) async fn label(request: HttpRequest) -> HttpResponse {
    let message = format!(
        "version labels are not supported: remove the label from the path, or use version `{VERSION}`"
    );
    respond::failure(&request, &Failure::new(Code::NotFound, message))
}

/// The state of a model's only version, as in a `GetModelStatusResponse`.
pub(in crate::http) fn version_status(entry: &ModelEntry) -> Json {
    let (state, code, message) = match (&entry.state, entry.health()) {
        (ModelState::Loading, _) => ("LOADING", "OK", String::new()),
        (ModelState::Unloaded, _) => ("END", "OK", String::new()),
        (ModelState::Failed { .. }, _) => ("END", "INTERNAL", entry.reason().unwrap_or_default()),
        (_, Some(Health::CrashLoop { reason } | Health::Failed { reason })) => ("END", "UNAVAILABLE", reason),
        // Requests are queued while the model recovers.
        (_, Some(Health::Ready | Health::Recovering { .. }) | None) => ("AVAILABLE", "OK", String::new()),
    };
    json!([{
        "version": VERSION,
        "state": state,
        "status": {"error_code": code, "error_message": message},
    }])
}

/// Writes a `GetModelMetadataResponse`.
fn describe(model: &str, signatures: &[(String, Call)]) -> Json {
    let definitions: Map<String, Json> = signatures
        .iter()
        .map(|(name, call)| {
            let task = call.manifest();
            let definition = json!({
                "inputs": tensor_infos(&task.input, &tensors::inputs(task)),
                "outputs": tensor_infos(&task.output, &tensors::outputs(task)),
                "method_name": "tensorflow/serving/predict",
            });
            (name.clone(), definition)
        })
        .collect();
    json!({
        "model_spec": {"name": model, "signature_name": "", "version": VERSION},
        "metadata": {"signature_def": {"signature_def": definitions}},
    })
}

/// Writes the tensors of an input or output. A list of texts, byte strings or JSON documents has one dimension.
fn tensor_infos(value: &ValueManifest, specs: &[TensorSpec<'_>]) -> Json {
    let is_list = !value.kinds.contains(&Kind::Tensors);
    let infos: Map<String, Json> = specs
        .iter()
        .map(|spec| {
            let shape = match is_list && spec.batched {
                true => vec![-1],
                false => spec.shape(),
            };
            let dims: Vec<Json> = shape
                .iter()
                .filter(|_| !spec.unranked)
                .map(|dim| json!({"size": dim.to_string(), "name": ""}))
                .collect();
            let info = json!({
                "dtype": data_type(spec.dtype),
                "tensor_shape": {"dim": dims, "unknown_rank": spec.unranked},
                "name": spec.name,
            });
            (spec.name.to_owned(), info)
        })
        .collect();
    Json::Object(infos)
}

/// TensorFlow's name for an element type.
fn data_type(dtype: DType) -> &'static str {
    match dtype {
        DType::Bool => "DT_BOOL",
        DType::Uint8 => "DT_UINT8",
        DType::Uint16 => "DT_UINT16",
        DType::Uint32 => "DT_UINT32",
        DType::Uint64 => "DT_UINT64",
        DType::Int8 => "DT_INT8",
        DType::Int16 => "DT_INT16",
        DType::Int32 => "DT_INT32",
        DType::Int64 => "DT_INT64",
        DType::Fp16 => "DT_HALF",
        DType::Fp32 => "DT_FLOAT",
        DType::Fp64 => "DT_DOUBLE",
        DType::Bf16 => "DT_BFLOAT16",
        DType::Bytes => "DT_STRING",
    }
}
