//! Models of the plugin `sentence_embeddings`.

use serde_json::{Value as Json, json};

use super::error;
use crate::harness::plugins::{library, repository};
use crate::harness::vectors::{assert_close, list};
use crate::harness::{Scenario, Server, tools};

#[test]
fn models_of_sentence_transformers_answer_the_routes_of_their_kind() {
    library("sentence_embeddings");
    let models = repository().join("plugins/sentence-embeddings/tests/models/architectures");
    let model = |name: &str, folder: &str| {
        format!(
            "[[models]]\nname = \"{name}\"\nplugin = \"sentence_embeddings\"\n\n[models.settings]\nfolder = \"{}\"\n\n",
            models.join(folder).display()
        )
    };
    let config =
        model("sparse", "sparse_bert") + &model("tokens", "tokens") + &model("labels", "labels_bert");
    let server = Scenario::new(&config).start();
    let text = "How tall is Mont Blanc?";
    let native = |model: &str, task: &str| server.predict(model, task, &json!([text])).expect(200).outputs();
    let post = |path: &str, request: Json| server.post(path, &request).expect(200).json();
    let sparse = native("sparse", "query");
    for request in [
        ("/sparse.query/embed_sparse", json!({"inputs": text})),
        ("/embed_sparse", json!({"inputs": text, "prompt_name": "query"})),
    ] {
        assert_eq!(post(request.0, request.1), json!(sparse));
    }
    assert!(!list(&sparse[0]).is_empty());
    let tokens = &native("tokens", "passage")[0]["embeddings"];
    assert_eq!(
        post("/tokens.passage/embed_all", json!({"inputs": [text]})),
        json!([tokens])
    );
    assert_eq!(
        post("/labels/predict", json!({"inputs": text})),
        native("labels", "classify")[0]
    );
    let info = |model: &str| {
        let info = server.get(&format!("/{model}/info")).expect(200).json();
        assert_eq!(info["max_input_length"], 64, "{info}");
        info["model_type"].clone()
    };
    let labels = ["lake", "mountain", "city"].into_iter().enumerate();
    let by_id: serde_json::Map<_, _> = labels
        .clone()
        .map(|(id, label)| (id.to_string(), label.into()))
        .collect();
    let by_label: serde_json::Map<_, _> = labels.map(|(id, label)| (label.to_owned(), id.into())).collect();
    assert_eq!(
        info("labels"),
        json!({"classifier": {"id2label": by_id, "label2id": by_label}})
    );
    assert_eq!(info("sparse"), json!({"embedding": {"pooling": "splade"}}));
    assert_eq!(info("tokens"), json!({"embedding": {"pooling": "none"}}));
    // Every model has a tokenizer. Their vocabularies have no punctuation.
    for model in ["sparse", "tokens", "labels"] {
        let request = json!({"inputs": text.trim_end_matches('?'), "add_special_tokens": false});
        let tokens = post(&format!("/{model}/tokenize"), request);
        let ids: Vec<&Json> = list(&tokens[0]).iter().map(|token| &token["id"]).collect();
        let decoded = post(&format!("/{model}/decode"), json!({"ids": ids}));
        // The files of these small models have no decoder, which would join the parts of words.
        let joined = decoded[0].as_str().expect("a text").replace(" ##", "");
        assert_eq!(joined.replace(' ', ""), "howtallismontblanc", "{model}");
    }
    assert_eq!(
        post("/labels", json!({"inputs": text})),
        native("labels", "classify")[0]
    );
}

/// A server with all-MiniLM-L6-v2, if `tests/install` has downloaded it.
fn minilm() -> Option<Server> {
    let folder = tools::cached("models/all-MiniLM-L6-v2", "model.safetensors")?;
    library("sentence_embeddings");
    let config = format!(
        "[[models]]\nname = \"minilm\"\nplugin = \"sentence_embeddings\"\n\n[models.embeddings]\ntoken_ids = \"model\"\n\
         \n[models.settings]\nfolder = \"{}\"\n",
        folder.display()
    );
    Some(Scenario::new(&config).start())
}

#[test]
fn clients_of_text_embeddings_inference_use_minilm_without_settings() {
    let Some(server) = minilm() else { return };
    let post = |path: &str, request: Json| server.post(path, &request).expect(200).json();
    let info = server.get("/info").expect(200).json();
    for (member, expected) in [
        ("model_id", json!("minilm")),
        ("model_type", json!({"embedding": {"pooling": "mean"}})),
        ("model_dtype", json!("float32")),
        ("max_input_length", json!(256)),
        ("auto_truncate", json!(false)),
    ] {
        assert_eq!(info[member], expected, "{info}");
    }
    let text = "Hello, Mont Blanc";
    let tokens = post("/tokenize", json!({"inputs": text}));
    let special =
        |id: u64, text: &str| json!({"id": id, "text": text, "special": true, "start": null, "stop": null});
    let token = |id: u64, text: &str, start: u64| json!({"id": id, "text": text, "special": false, "start": start, "stop": start + text.len() as u64});
    assert_eq!(
        tokens,
        json!([[
            special(101, "[CLS]"),
            token(7592, "Hello", 0),
            token(1010, ",", 5),
            token(18318, "Mont", 7),
            token(18698, "Blanc", 12),
            special(102, "[SEP]"),
        ]])
    );
    let ids: Vec<&Json> = list(&tokens[0]).iter().map(|token| &token["id"]).collect();
    assert_eq!(post("/decode", json!({"ids": ids})), json!(["hello, mont blanc"]));
    assert_eq!(
        post("/decode", json!({"ids": [ids], "skip_special_tokens": false})),
        json!(["[CLS] hello, mont blanc [SEP]"])
    );
    // The ids of the whole sequence stand for the text, in both protocols.
    let vector = post("/embed", json!({"inputs": text}));
    assert_eq!(list(&vector[0]).len(), 384);
    assert_eq!(post("/embed", json!({"inputs": ids})), vector);
    assert_eq!(
        post("/minilm/embed", json!({"inputs": [ids, text]}))[0],
        vector[0]
    );
    for path in ["/v1/embeddings", "/embeddings", "/minilm/v1/embeddings"] {
        let openai = post(path, json!({"model": "minilm", "input": [ids]}));
        assert_close(&openai["data"][0]["embedding"], &vector[0], path);
        assert_eq!(openai["usage"]["prompt_tokens"], 6);
    }
    // The mean of the vectors of all tokens is the unscaled vector of the text.
    let all = post("/embed_all", json!({"inputs": text}));
    let rows = list(&all[0]);
    assert_eq!(rows.len(), 6);
    let number = |value: &Json| value.as_f64().expect("a number");
    let mean: Vec<f64> = (0..384)
        .map(|column| rows.iter().map(|row| number(&row[column])).sum::<f64>() / 6.0)
        .collect();
    let raw = post("/", json!({"inputs": text, "normalize": false}));
    assert_close(&raw[0], &json!(mean), "mean");
    for (path, request, status, kind, part) in [
        ("/embed", json!({"inputs": []}), 400, "Empty", "no items"),
        (
            "/embed",
            json!({"inputs": vec!["a"; 2049]}),
            413,
            "Validation",
            "too many",
        ),
        (
            "/embed",
            json!({"inputs": "word ".repeat(300)}),
            422,
            "Validation",
            "302 tokens",
        ),
        ("/embed", json!({"inputs": [30_522]}), 422, "Validation", "30522"),
        ("/decode", json!({"ids": [30_522]}), 422, "Validation", "30522"),
        (
            "/embed_all",
            json!({"inputs": "a", "normalize": true}),
            422,
            "Validation",
            "`normalize`",
        ),
        (
            "/tokenize",
            json!({"inputs": "a", "prompt_name": "x"}),
            422,
            "Validation",
            "unknown prompt",
        ),
        (
            "/embed_sparse",
            json!({"inputs": "a"}),
            424,
            "Backend",
            "sparse embeddings",
        ),
        ("/predict", json!({"inputs": "a"}), 424, "Backend", "labels"),
        (
            "/rerank",
            json!({"query": "a", "texts": ["b"]}),
            424,
            "Backend",
            "ranks documents",
        ),
    ] {
        let (got, got_kind, message) = error(&server, path, &request);
        assert_eq!((got, got_kind.as_str()), (status, kind), "{path}: {message}");
        assert!(message.contains(part), "{path}: {message}");
    }
}

#[test]
fn a_pair_is_truncated_at_the_side_that_the_client_chooses() {
    library("sentence_embeddings");
    let cross = repository().join("plugins/sentence-embeddings/tests/models/cross");
    let config = format!(
        "[[models]]\nname = \"cross\"\nplugin = \"sentence_embeddings\"\n[models.settings]\nfolder = \"{}\"\n",
        cross.display()
    );
    let server = Scenario::new(&config).start();
    let (start, end) = ("lake ".repeat(200), "deep ".repeat(200));
    let score = |text: &str, direction: Option<&str>| {
        let mut request =
            json!({"query": "How tall?", "texts": [text], "truncate": true, "raw_scores": true});
        if let Some(direction) = direction {
            request["truncation_direction"] = direction.into();
        }
        server.post("/rerank", &request).expect(200).json()[0]["score"].clone()
    };
    let both = format!("{start}{end}");
    assert_eq!(score(&both, Some("Right")), score(&start, None));
    assert_eq!(score(&both, Some("Left")), score(&end, Some("Left")));
    assert_ne!(score(&both, Some("Left")), score(&both, Some("Right")));
    // A model that only ranks does so at its name alone.
    let ranked = server.post("/", &json!({"query": "How tall?", "texts": ["a"]}));
    assert_eq!(list(&ranked.expect(200).json()).len(), 1);
    let (status, kind, message) = error(&server, "/", &json!({"inputs": "a"}));
    assert_eq!((status, kind.as_str()), (400, "Validation"), "{message}");
    assert!(message.contains("missing member `query`"), "{message}");
    let (status, kind, _) = error(&server, "/rerank", &json!({"query": "a", "texts": []}));
    assert_eq!((status, kind.as_str()), (400, "Empty"));
    let (status, kind, _) = error(
        &server,
        "/rerank",
        &json!({"query": "a", "texts": vec!["b"; 2049]}),
    );
    assert_eq!((status, kind.as_str()), (413, "Validation"));
    assert_eq!(
        server.get("/info").expect(200).json()["model_type"],
        json!({"reranker": {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}})
    );
}
