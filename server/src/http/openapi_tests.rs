use plugin_abi::manifest::{Kind, TaskManifest, TensorManifest, ValueManifest};
use serde_json::json;

use super::*;

/// A made-up model with a task of every kind.
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

fn made_up() -> Json {
    let manifest = manifest();
    let model = DocumentedModel {
        name: "vision",
        description: "Looks at things.",
        manifest: &manifest,
        default_task: Some(1),
        routes: &[("/text", 1)],
    };
    document(&[model], 256)
}

#[test]
fn the_document_of_a_made_up_model() {
    insta::assert_json_snapshot!(made_up());
}

#[test]
fn every_reference_leads_somewhere() {
    let document = made_up();
    let mut pending = vec![&document];
    let mut count = 0;
    while let Some(value) = pending.pop() {
        match value {
            Json::Array(values) => pending.extend(values),
            Json::Object(members) => {
                for (key, value) in members {
                    if let ("$ref", Some(target)) = (key.as_str(), value.as_str()) {
                        let pointer = target.strip_prefix('#').expect("a local reference");
                        assert!(document.pointer(pointer).is_some(), "{target} leads nowhere");
                        count += 1;
                    }
                    pending.push(value);
                }
            }
            _ => {}
        }
    }
    assert!(count > 10, "only {count} references were found");
}

#[test]
fn names_that_clash_are_kept_apart() {
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
    };
    let document = document(&[model("a", &one), model("a.b", &two)], 1);
    let requests = document["components"]["schemas"]
        .as_object()
        .expect("schemas are an object")
        .keys()
        .filter(|name| name.contains(".Request"))
        .count();
    assert_eq!(requests, 4);
}

#[test]
fn only_statuses_that_the_code_can_send_are_documented() {
    use crate::api::Code;
    let document = made_up();
    let responses = document
        .pointer("/paths/~1v1~1models~1vision~1predict/post/responses")
        .and_then(Json::as_object)
        .expect("the default task has a route");
    for status in responses.keys().filter(|status| *status != "200") {
        assert!(
            Code::ALL.iter().any(|code| code.status().to_string() == *status),
            "{status} is never sent"
        );
    }
}
