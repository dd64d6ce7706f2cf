//! The document and the table of routes agree, for models of every role.

use plugin_abi::manifest::TaskManifest;

use super::*;
use crate::routes::{self, Page, Route};

fn task(name: &str, declare: fn(&mut TaskManifest)) -> TaskManifest {
    let mut task = TaskManifest {
        name: name.to_owned(),
        ..TaskManifest::default()
    };
    declare(&mut task);
    task
}

fn embedding(name: &str) -> TaskManifest {
    let mut task = task(name, |task| task.embedding = true);
    task.output = ValueManifest::of_tensors([TensorManifest::new("embedding", "FP32", [3])]);
    task
}

fn model(tasks: Vec<TaskManifest>) -> ModelManifest {
    ModelManifest {
        tasks,
        ..ModelManifest::default()
    }
}

/// A model for each role, and one without any.
fn manifests() -> [(&'static str, ModelManifest); 6] {
    let tokenizer = [
        task("tokenize", |task| task.tokenizer = true),
        task("decode", |task| task.detokenizer = true),
    ];
    [
        (
            "words",
            model([embedding("embed")].into_iter().chain(tokenizer).collect()),
        ),
        ("ranks", model(vec![task("rerank", |task| task.reranker = true)])),
        (
            "sparse",
            model(vec![task("embed", |task| task.sparse_embedding = true)]),
        ),
        (
            "tokens",
            model(vec![task("embed", |task| task.token_embeddings = true)]),
        ),
        (
            "labels",
            model(vec![task("classify", |task| task.classifier = true)]),
        ),
        ("plain", model(vec![task("echo", |_| {})])),
    ]
}

fn document_of(namespace: &str, manifests: &[(&str, ModelManifest)], embeddings: &EmbeddingSettings) -> Json {
    let named: Vec<(String, &ModelManifest)> = manifests
        .iter()
        .map(|(name, manifest)| (format!("{namespace}{name}"), manifest))
        .collect();
    let models: Vec<DocumentedModel<'_>> = named
        .iter()
        .map(|(name, manifest)| DocumentedModel {
            name,
            description: "",
            manifest,
            default_task: (manifest.tasks.len() == 1).then_some(0),
            routes: &[],
            embeddings,
        })
        .collect();
    to_json(&models)
}

/// The requests that the document describes, with each example of the parameters in their paths. In these, slashes in names are
/// not encoded.
fn requests(document: &Json) -> Vec<(bool, String)> {
    let mut requests = Vec::new();
    for (path, method, operation) in operations(document) {
        let mut paths = vec![path];
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            let name = format!(
                "{{{}}}",
                parameter["name"].as_str().expect("a parameter has a name")
            );
            let examples = parameter["schema"]["examples"].as_array();
            let examples: Vec<&str> = match examples {
                Some(examples) => examples.iter().filter_map(Json::as_str).collect(),
                None => vec!["x"],
            };
            let mut filled = Vec::new();
            for path in &paths {
                filled.extend(examples.iter().map(|example| path.replace(&name, example)));
            }
            paths = filled;
        }
        let paths = paths.into_iter().map(|path| path.replace("%2F", "/"));
        requests.extend(paths.map(|path| (method == "post", path)));
    }
    requests
}

/// Whether a route has a place in the document: it is not a page for browsers, and does not only reply with an error.
fn is_documented(route: &Route) -> bool {
    let pages = [routes::DOCS, routes::DOCS_ROOT, routes::FAVICON];
    let unsupported = [routes::V1_OTHER, routes::V1_LABEL];
    route.page != Some(Page::Ui) && !pages.contains(route) && !unsupported.contains(route)
}

#[test]
fn every_route_has_a_path() {
    let manifests = manifests();
    let mut described = requests(&document_of("", &manifests, &EMBEDDINGS));
    described.extend(requests(&document_of("org/", &manifests, &EMBEDDINGS)));
    let mut missing = Vec::new();
    for route in routes::ALL.iter().filter(|route| is_documented(route)) {
        let is_at_root = |pattern: &str| {
            described.iter().any(|(is_post, path)| {
                let found = routes::find_for(*is_post, path);
                found == Some(route) && route.pattern_of(path) == Some(pattern)
            })
        };
        let is_below = |suffix: &str| {
            described.iter().any(|(_, path)| {
                let found = routes::below_model(path);
                found.is_some_and(|(model, found)| found == route && path[1 + model.len()..] == *suffix)
            })
        };
        let patterns = route.patterns.iter().filter(|pattern| !is_at_root(pattern));
        missing.extend(patterns.map(|pattern| (*pattern).to_owned()));
        let suffixes = route.paths_below_models().filter(|suffix| !is_below(suffix));
        missing.extend(suffixes.map(|suffix| format!("/{{model}}{suffix}")));
    }
    for (name, _) in &manifests[..5] {
        for path in [format!("/{name}"), format!("/org/{name}")] {
            if !described.contains(&(true, path.clone())) {
                missing.push(path);
            }
        }
    }
    assert_eq!(missing, Vec::<String>::new());
}

#[test]
fn every_path_belongs_to_a_route() {
    let manifests = manifests();
    for (is_post, path) in requests(&document_of("", &manifests, &EMBEDDINGS)) {
        let is_name = manifests.iter().any(|(name, manifest)| {
            let names = manifest.tasks.iter().map(|task| format!("/{name}.{}", task.name));
            names.chain([format!("/{name}")]).any(|name| name == path)
        });
        let is_known = routes::find_for(is_post, &path).is_some() || routes::below_model(&path).is_some();
        assert!(is_known || is_name, "{path}");
    }
}

#[test]
fn requests_to_several_tasks_of_a_kind_name_a_prompt() {
    let asymmetric = [("e5", model(vec![embedding("query"), embedding("passage")]))];
    let document = document_of("", &asymmetric, &EMBEDDINGS);
    let schema = |path: &str| {
        let body = &document["paths"][path]["post"]["requestBody"]["content"]["application/json"];
        let name = body["schema"]["$ref"].as_str().expect(path);
        let name = name.rsplit('/').next().unwrap_or_default();
        document["components"]["schemas"][name].clone()
    };
    for path in ["/embed", "/e5/embed"] {
        let schema = schema(path);
        assert_eq!(schema["required"], json!(["inputs", "prompt_name"]), "{path}");
        assert_eq!(
            schema["properties"]["prompt_name"]["enum"],
            json!(["query", "passage"])
        );
    }
    assert_eq!(schema("/e5.query/embed")["required"], json!(["inputs"]));
    let similarity = schema("/similarity");
    assert_eq!(similarity["required"], json!(["inputs", "parameters"]));
    assert_eq!(
        similarity["properties"]["parameters"]["required"],
        json!(["prompt_name"])
    );
}

#[test]
fn the_types_of_inputs_are_those_that_the_model_embeds() {
    let types = |manifests: &[(&str, ModelManifest)], embeddings: &EmbeddingSettings| -> Vec<Json> {
        let document = document_of("", manifests, embeddings);
        let schemas = document["components"]["schemas"].as_object().expect("schemas");
        let requests = schemas
            .iter()
            .filter(|(name, _)| name.starts_with("CohereTextsRequest"));
        requests
            .map(|(_, request)| request["properties"]["input_type"].clone())
            .collect()
    };
    let all = ["search_query", "search_document", "classification", "clustering"];
    let nullable = json!(
        all.map(Json::from)
            .into_iter()
            .chain([Json::Null])
            .collect::<Vec<_>>()
    );
    let settings = EmbeddingSettings {
        search_query: Some("find".to_owned()),
        ..EMBEDDINGS.clone()
    };
    let one = types(&[("m", model(vec![embedding("embed")]))], &settings);
    assert_eq!(one.len(), 1);
    assert_eq!(one[0]["enum"], nullable);
    assert_eq!(
        one[0]["description"],
        "`search_query` selects the task or prompt `find`."
    );
    let several = types(
        &[("m", model(vec![embedding("query"), embedding("passage")]))],
        &EMBEDDINGS,
    );
    let enums: Vec<&Json> = several.iter().map(|schema| &schema["enum"]).collect();
    assert_eq!(enums, [&nullable, &json!(["search_query", "search_document"])]);
    assert_eq!(
        several[1]["description"],
        "`search_query` selects the task or prompt `query`; `search_document` selects the task or prompt `passage`."
    );
}
