use plugin_abi::manifest::{Kind, TaskManifest, TensorManifest, ValueManifest};

use super::*;
use crate::config::TokenIds;

mod routes;

/// The default settings.
static EMBEDDINGS: EmbeddingSettings = EmbeddingSettings {
    dimensions: Dimensions::Fixed,
    token_ids: TokenIds::Cl100kBase,
    search_query: None,
    search_document: None,
    classification: None,
    clustering: None,
};

/// An example model with a task of every kind.
fn manifest() -> ModelManifest {
    let classify = TaskManifest {
        name: "classify".to_owned(),
        description: "Names what an image shows.".to_owned(),
        input: ValueManifest {
            media_types: vec!["image/png".to_owned(), "image/jpeg".to_owned()],
            ..ValueManifest::of(Kind::Bytes)
        },
        output: ValueManifest {
            schema: json!({
                "$schema": "https://json-schema.org/draft/2020-12/schema",
                "type": "array",
                "items": {"$ref": "#/$defs/Label"},
                "$defs": {
                    "Label": {
                        "type": "object",
                        "properties": {
                            "name": {"type": "string"},
                            "parts": {"type": "array", "items": {"$ref": "#/$defs/Label"}},
                            "all": {"$ref": "#"},
                        },
                    },
                },
            }),
            ..ValueManifest::of(Kind::Json)
        },
        parameters_schema: json!({"type": "object", "properties": {"top": {"type": "integer"}}}),
        examples: vec![json!({"b64": "AAEC", "media_type": "image/png"})],
        ..TaskManifest::default()
    };
    let embed = TaskManifest {
        name: "embed".to_owned(),
        input: ValueManifest::of(Kind::Text),
        output: ValueManifest::of_tensors([TensorManifest {
            description: "Of unit length.".to_owned(),
            ..TensorManifest::new("embedding", "FP32", [384])
        }]),
        examples: vec![json!("a text"), json!("another")],
        ..TaskManifest::default()
    };
    let raw = TaskManifest {
        name: "raw pixels".to_owned(),
        input: ValueManifest::of_tensors([TensorManifest::new("pixels", "UINT8", [8, 8])]),
        output: ValueManifest {
            media_types: vec!["image/png".to_owned()],
            ..ValueManifest::of(Kind::Bytes)
        },
        ..TaskManifest::default()
    };
    ModelManifest {
        platform: "rust".to_owned(),
        tasks: vec![classify, embed, raw],
        ..ModelManifest::default()
    }
}

fn documented(manifest: &ModelManifest) -> DocumentedModel<'_> {
    DocumentedModel {
        name: "vision",
        description: "Looks at things.",
        manifest,
        default_task: Some(1),
        routes: &[("/text", 1)],
        embeddings: &EMBEDDINGS,
    }
}

fn example_document() -> Json {
    to_json(&[documented(&manifest())])
}

const NO_KEYS: KeySettings = KeySettings {
    clients: false,
    admin: false,
    named: false,
};

const ALL_KEYS: KeySettings = KeySettings {
    clients: true,
    admin: true,
    named: true,
};

fn to_json(models: &[DocumentedModel<'_>]) -> Json {
    serde_json::to_value(document(models, 256, NO_KEYS)).expect("a document is JSON")
}

/// Every object in the document, with the path to it.
fn objects(document: &Json) -> Vec<(String, &Map<String, Json>)> {
    let mut found = Vec::new();
    let mut pending = vec![(String::new(), document)];
    while let Some((path, value)) = pending.pop() {
        match value {
            Json::Array(values) => {
                let values = values.iter().enumerate();
                pending.extend(values.map(|(index, value)| (format!("{path}/{index}"), value)));
            }
            Json::Object(members) => {
                found.push((path.clone(), members));
                pending.extend(
                    members
                        .iter()
                        .map(|(key, value)| (format!("{path}/{key}"), value)),
                );
            }
            _ => {}
        }
    }
    found
}

/// Every operation: path, method, operation.
fn operations(document: &Json) -> Vec<(String, String, &Json)> {
    let paths = document["paths"].as_object().expect("a document has paths");
    let operations = paths.iter().flat_map(|(path, item)| {
        let methods = item.as_object().expect("a path has methods").iter();
        methods.map(move |(method, operation)| (path.clone(), method.clone(), operation))
    });
    operations.collect()
}

/// The operations, and the schemas of the model's tasks: what does not depend on the model is in the document of the
/// default configuration.
#[test]
fn the_document_of_an_example_model() {
    let document = example_document();
    let listed = operations(&document)
        .into_iter()
        .map(|(path, method, operation)| {
            let id = operation["operationId"].as_str().unwrap_or_default();
            format!(
                "{} {path} ({id}, {})",
                method.to_uppercase(),
                operation["tags"][0]
            )
        });
    let schemas = document["components"]["schemas"]
        .as_object()
        .expect("the document has schemas");
    let schemas: Map<String, Json> = schemas
        .iter()
        .filter(|(name, _)| name.starts_with("Vision"))
        .map(|(name, schema)| (name.clone(), schema.clone()))
        .collect();
    insta::assert_json_snapshot!(json!({"operations": listed.collect::<Vec<_>>(), "schemas": schemas}));
}

#[test]
fn every_reference_points_to_a_component_and_every_array_has_items() {
    let document = example_document();
    let mut count = 0;
    for (path, object) in objects(&document) {
        if let Some(target) = object.get("$ref").and_then(Json::as_str) {
            let name = target.strip_prefix("#/components/schemas/").expect(target);
            assert!(
                document["components"]["schemas"][name].is_object(),
                "{path}: {target} leads nowhere"
            );
            count += 1;
        }
        let kind = &object.get("type").cloned().unwrap_or_default();
        if kind == "array"
            || kind
                .as_array()
                .is_some_and(|kinds| kinds.contains(&json!("array")))
        {
            assert!(object["items"].is_object(), "{path} has no items");
        }
    }
    assert!(count > 50, "only {count} references were found");
}

#[test]
fn the_native_route_of_a_task_comes_first_and_other_protocols_have_separate_tags() {
    let text = serialize(&document(&[documented(&manifest())], 256, NO_KEYS));
    let position = |path: &str| {
        text.find(&format!("\"{path}\":"))
            .unwrap_or_else(|| panic!("no {path}"))
    };
    let order = [
        "/v1/models/vision/tasks/classify/predict",
        "/v1/models/vision/tasks/raw%20pixels/predict",
        "/v1/models/vision/predict",
        "/text",
        "/v1/models",
        "/v1/models/vision:predict",
        "/v2/models/vision.embed/infer",
    ];
    assert!(order.map(position).is_sorted(), "{:?}", order.map(position));
    let document: Json = serde_json::from_str(&text).expect("the text is JSON");
    let tags: Vec<&str> = document["tags"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|tag| tag["name"].as_str())
        .collect();
    assert_eq!(tags, ["vision", SERVER, V1, OPEN_INFERENCE, JOBS, TEI, ALIASES]);
}

#[test]
fn every_error_status_has_an_example_for_each_of_its_codes() {
    use crate::api::Code;
    for (path, _, operation) in operations(&example_document()) {
        let responses = operation["responses"]
            .as_object()
            .expect("the operation has responses");
        for (status, response) in responses {
            let Some(examples) = response["content"]["application/json"]["examples"].as_object() else {
                continue;
            };
            let codes: Vec<&str> = Code::ALL
                .iter()
                .filter(|code| code.status().to_string() == *status)
                .map(|code| code.name())
                .collect();
            let mut named: Vec<&String> = examples.keys().collect();
            named.sort_by_key(|name| codes.iter().position(|code| code == name));
            assert_eq!(named, codes, "{path}: {status}");
            for (code, example) in examples {
                let error = &example["value"]["error"];
                assert!(
                    error.is_string() || error["code"] == **code,
                    "{path}: {status}: {error}"
                );
            }
        }
    }
}

#[test]
fn operations_require_keys_only_if_keys_are_configured() {
    let manifest = manifest();
    let model = DocumentedModel {
        name: "vision",
        description: "",
        manifest: &manifest,
        default_task: None,
        routes: &[],
        embeddings: &EMBEDDINGS,
    };
    let bare = to_json(&[model]);
    assert!(bare["components"]["securitySchemes"].is_null() && bare["security"].is_null());
    assert!(
        objects(&bare)
            .iter()
            .all(|(_, object)| !object.contains_key("security") && !object.contains_key("401"))
    );
    let document = serde_json::to_value(document(&[model], 256, ALL_KEYS)).expect("a document is JSON");
    assert_eq!(document["security"], json!([{"apiKey": []}]));
    for scheme in ["apiKey", "adminKey"] {
        let scheme = &document["components"]["securitySchemes"][scheme];
        assert_eq!(
            (&scheme["type"], &scheme["scheme"]),
            (&json!("http"), &json!("bearer"))
        );
    }
    for (path, security, statuses) in [
        (
            "/v1/models/vision/tasks/embed/predict",
            Json::Null,
            &["401", "403"][..],
        ),
        ("/livez", json!([]), &[]),
        ("/v2/health/ready", json!([]), &[]),
        (
            "/v2/repository/models/{model}/load",
            json!([{"adminKey": []}]),
            &["401", "403"],
        ),
    ] {
        let methods = document["paths"][path].as_object().expect(path);
        let operation = methods.values().next().expect("the path has a method");
        assert_eq!(operation["security"], security, "{path}");
        let keys: Vec<&str> = ["401", "403"]
            .into_iter()
            .filter(|status| !operation["responses"][status].is_null())
            .collect();
        assert_eq!(keys, statuses, "{path}");
    }
}

#[test]
fn the_server_url_is_relative_or_the_prefix_of_the_proxy() {
    let text = serialize(&document(&[], 256, NO_KEYS));
    let servers = |prefix| {
        let document: Json = serde_json::from_str(&with_server(&text, prefix)).expect("the text is JSON");
        document["servers"].clone()
    };
    assert_eq!(servers(None), json!([{"url": "."}]));
    assert_eq!(servers(Some("/ml")), json!([{"url": "/ml"}]));
    for (value, prefix) in [
        ("/ml/", Some("/ml")),
        ("/a/b", Some("/a/b")),
        ("/", None),
        ("ml", None),
        ("//evil.example", None),
        ("https://evil.example", None),
        ("/\"><script>", None),
    ] {
        assert_eq!(forwarded_prefix(value), prefix, "{value}");
    }
}

#[test]
fn a_plugin_with_invalid_schemas_does_not_break_the_document() {
    let mut manifest = manifest();
    manifest.tasks[0].parameters_schema =
        json!({"$ref": "https://example.org/x", "type": 7, "properties": ["a"]});
    manifest.tasks[0].output.schema = json!("not a schema");
    let model = DocumentedModel {
        name: "vision",
        description: "",
        manifest: &manifest,
        default_task: None,
        routes: &[],
        embeddings: &EMBEDDINGS,
    };
    let schemas = &to_json(&[model])["components"]["schemas"];
    assert_eq!(schemas["VisionClassifyParameters"], json!({}));
    assert_eq!(schemas["VisionClassifyOutput"], json!({}));
}

#[test]
fn conflicting_names_are_made_unique() {
    let task = |name: &str| TaskManifest {
        name: name.to_owned(),
        ..TaskManifest::default()
    };
    let one = ModelManifest {
        tasks: vec![task("b.c"), task("b c"), task("b_c")],
        ..ModelManifest::default()
    };
    let two = ModelManifest {
        tasks: vec![task("c")],
        ..ModelManifest::default()
    };
    let model = |name: &'static str, manifest| DocumentedModel {
        name,
        description: "",
        manifest,
        default_task: None,
        routes: &[],
        embeddings: &EMBEDDINGS,
    };
    let document = to_json(&[model("a", &one), model("a.b", &two)]);
    let requests = document["components"]["schemas"]
        .as_object()
        .expect("schemas are an object")
        .keys()
        .filter(|name| name.starts_with("ABCRequest"))
        .count();
    assert_eq!(requests, 4);
    let mut ids: Vec<&str> = operations(&document)
        .iter()
        .filter_map(|(_, _, one)| one["operationId"].as_str())
        .collect();
    let count = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), count, "{ids:?}");
}

#[test]
fn only_statuses_that_the_code_can_send_are_documented() {
    use crate::api::Code;
    let document = example_document();
    let responses = document
        .pointer("/paths/~1v1~1models~1vision~1predict/post/responses")
        .and_then(Json::as_object)
        .expect("the default task has a route");
    for status in responses.keys().filter(|status| !status.starts_with('2')) {
        assert!(
            Code::ALL.iter().any(|code| code.status().to_string() == *status),
            "{status} is never sent"
        );
    }
}
