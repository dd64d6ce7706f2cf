//! Errors, in the format of the protocol.

use serde_json::json;

use super::{error, start};
use crate::harness::Scenario;
use crate::harness::plugins::{library, repository};

#[test]
fn errors_have_the_shape_of_the_protocol() {
    let server = start();
    for (path, body, status, kind, part) in [
        ("/embed", json!({}), 400, "Validation", "missing member `inputs`"),
        (
            "/embed",
            json!({"inputs": []}),
            400,
            "Empty",
            "`inputs` has no items",
        ),
        (
            "/embed",
            json!({"inputs": "a", "dimensions": 2}),
            400,
            "Validation",
            "always have 3 dimensions",
        ),
        ("/embed", json!({"inputs": "nan"}), 500, "Backend", "NaN"),
        (
            "/embed_all",
            json!({"inputs": "a", "dimensions": 2}),
            422,
            "Validation",
            "`dimensions`",
        ),
        (
            "/embed_sparse",
            json!({"inputs": "a", "truncation_direction": "Left"}),
            422,
            "Validation",
            "Left",
        ),
        (
            "/similarity",
            json!({"inputs": {"sentences": ["a"]}}),
            400,
            "Validation",
            "`source_sentence`",
        ),
        (
            "/similarity",
            json!({"inputs": {"source_sentence": "a", "sentences": "b"}}),
            400,
            "Validation",
            "`sentences`: expected an array of strings, got a string",
        ),
        (
            "/embed_sparse",
            json!({"inputs": "a", "normalize": false}),
            422,
            "Validation",
            "`normalize`",
        ),
        (
            "/predict",
            json!({"inputs": "a", "prompt_name": "q"}),
            422,
            "Validation",
            "`prompt_name`",
        ),
        (
            "/predict",
            json!({"inputs": "a", "parameters": {"function_to_apply": "softmax"}}),
            422,
            "Validation",
            "`softmax`",
        ),
        (
            "/predict",
            json!({"inputs": ["a"]}),
            400,
            "Validation",
            "expected a pair",
        ),
        (
            "/decode",
            json!({"ids": "a"}),
            400,
            "Validation",
            "expected an array of token ids",
        ),
        (
            "/decode",
            json!({"ids": [101]}),
            422,
            "Validation",
            "unknown token 101",
        ),
        (
            "/tokenize",
            json!({"inputs": [1, 2]}),
            400,
            "Validation",
            "expected a string",
        ),
        (
            "/tokenize",
            json!({"inputs": "a", "prompt_name": "q"}),
            422,
            "Validation",
            "`prompt_name`",
        ),
        (
            "/nothing/embed",
            json!({"inputs": "a"}),
            404,
            "Validation",
            "unknown model `nothing`",
        ),
    ] {
        let (got, got_kind, message) = error(&server, path, &body);
        assert_eq!(
            (got, got_kind.as_str()),
            (status, kind),
            "{path} {body}: {message}"
        );
        assert!(message.contains(part), "{path} {body}: {message}");
    }
    let words = Scenario::new("[[models]]\nname = \"words\"\nplugin = \"template\"\n").start();
    for (path, part) in [
        ("/embed", "no model produces embeddings"),
        ("/embed_sparse", "no model produces sparse embeddings"),
        ("/embed_all", "no model produces vectors of tokens"),
        ("/predict", "no model scores labels"),
        ("/tokenize", "no model tokenizes texts"),
        (
            "/words/embed",
            "`words` does not produce embeddings; available: none",
        ),
    ] {
        let (status, kind, message) = error(&words, path, &json!({"inputs": "a"}));
        assert_eq!((status, kind.as_str()), (424, "Backend"), "{path}: {message}");
        assert!(message.contains(part), "{path}: {message}");
    }
    assert_eq!(words.get("/info").status, 424);
}

#[test]
fn a_request_without_the_prompt_that_selects_a_task_is_malformed() {
    library("sentence_embeddings");
    let folder = repository().join("plugins/sentence-embeddings/tests/models/bge");
    let config = format!(
        "[[models]]\nname = \"m\"\nplugin = \"sentence_embeddings\"\ndefault_task = \"similarity\"\n[models.settings]\n\
         folder = \"{}\"\n",
        folder.display()
    );
    let server = Scenario::new(&config).start();
    let sentences = json!({"inputs": {"source_sentence": "a", "sentences": ["b"]}});
    for (path, request) in [
        ("/embed", json!({"inputs": "a"})),
        ("/m/embed", json!({"inputs": "a"})),
        ("/m", json!({"inputs": "a"})),
        ("/similarity", sentences),
    ] {
        let (status, kind, message) = error(&server, path, &request);
        assert_eq!((status, kind.as_str()), (400, "Validation"), "{path}: {message}");
        assert_eq!(
            message, "missing member `prompt_name`: expected one of query, passage",
            "{path}"
        );
    }
    let (status, kind, message) = error(&server, "/embed", &json!({"inputs": "a", "prompt_name": "find"}));
    assert_eq!((status, kind.as_str()), (400, "Validation"), "{message}");
    assert_eq!(
        message,
        "invalid value `find` for `prompt_name`: expected one of query, passage"
    );
    for (path, prompt) in [
        ("/embed", json!("query")),
        ("/m", json!("passage")),
        ("/m.query/embed", json!(null)),
    ] {
        let request = json!({"inputs": "a", "prompt_name": prompt});
        server.post(path, &request).expect(200);
    }
}
