//! Clients of Cohere, Jina, vLLM and text-embeddings-inference rank documents without a change.

use serde_json::{Value as Json, json};

use crate::harness::plugins::{library, repository};
use crate::harness::vectors::{assert_close, list, reference};
use crate::harness::{Scenario, Server, clients};
use crate::key_file::{post, with_hashes};

const REFERENCE: &str = "plugins/sentence-embeddings/tests/reference/small.json";

const PATHS: [&str; 3] = ["/rerank", "/v1/rerank", "/v2/rerank"];

/// A server with cross-encoders of these names.
fn start(rerankers: &[&str]) -> Server {
    start_with(rerankers, &[])
}

/// The same with models of embeddings.
fn start_with(rerankers: &[&str], embeddings: &[&str]) -> Server {
    Scenario::new(&models(rerankers, embeddings)).start()
}

/// The configuration of cross-encoders and models of embeddings with these names.
fn models(rerankers: &[&str], embeddings: &[&str]) -> String {
    library("sentence_embeddings");
    let models = repository().join("plugins/sentence-embeddings/tests/models");
    let model = |name: &str, folder: &str| {
        format!(
            "[[models]]\nname = \"{name}\"\nplugin = \"sentence_embeddings\"\n\n[models.settings]\nfolder = \"{}\"\n\n",
            models.join(folder).display()
        )
    };
    let rerankers = rerankers.iter().map(|name| model(name, "cross"));
    let embeddings = embeddings.iter().map(|name| model(name, "e5"));
    rerankers.chain(embeddings).collect()
}

/// The reference's query, passages, and scores in their order.
fn question() -> (Json, Json, Vec<f64>) {
    let reference = reference(REFERENCE);
    let scores = list(&reference["expected"]["cross"]["scores"]);
    let scores = scores.iter().map(|score| score.as_f64().expect("a number"));
    (
        reference["query"].clone(),
        reference["passages"].clone(),
        scores.collect(),
    )
}

/// Checks that results are sorted, and have the scores of the reference.
fn assert_ranking(results: &Json, score: &str, expected: &[f64]) {
    let results = list(results);
    let scores: Vec<f64> = results
        .iter()
        .map(|result| result[score].as_f64().expect("a number"))
        .collect();
    assert!(scores.is_sorted_by(|one, other| one >= other), "{scores:?}");
    for (result, score) in results.iter().zip(scores) {
        let index = result["index"].as_u64().expect("an index") as usize;
        assert_close(&json!([score]), &json!([expected[index]]), &format!("{result}"));
    }
}

#[test]
fn documents_are_ranked_at_every_path() {
    let server = start(&["m"]);
    let (query, passages, scores) = question();
    for (path, returns_documents) in PATHS.into_iter().zip([true, true, false]) {
        let request = json!({"model": "m", "query": query, "documents": passages});
        let reply = server.post(path, &request).expect(200).json();
        assert_ranking(&reply["results"], "relevance_score", &scores);
        let first = &reply["results"][0];
        let index = first["index"].as_u64().expect("an index") as usize;
        let text = match returns_documents {
            true => passages[index].clone(),
            false => Json::Null,
        };
        assert_eq!(first["document"]["text"], text, "{path}");
        assert_eq!(reply["model"], "m");
        assert!(
            reply["usage"]["total_tokens"]
                .as_u64()
                .is_some_and(|tokens| tokens > 10)
        );
        assert!(reply["id"].is_string(), "{reply}");
    }
    let request = json!({"query": query, "documents": passages, "top_n": 2, "return_documents": false});
    let reply = server.post("/v1/rerank", &request).expect(200).json();
    let results = list(&reply["results"]);
    assert_eq!(results.len(), 2);
    assert!(results[0]["document"].is_null());
}

#[test]
fn texts_are_ranked_as_by_text_embeddings_inference() {
    let server = start(&["m"]);
    let (query, passages, scores) = question();
    let reply = server
        .post(
            "/rerank",
            &json!({"query": query, "texts": passages, "truncate": true}),
        )
        .expect(200)
        .json();
    let sigmoid = |score: &f64| 1.0 / (1.0 + (-score).exp());
    let sigmoids: Vec<f64> = scores.iter().map(sigmoid).collect();
    assert_ranking(&reply, "score", &sigmoids);
    assert!(reply[0]["text"].is_null());
    let mut request = json!({"query": query, "texts": passages, "truncate": true});
    request["raw_scores"] = true.into();
    request["return_text"] = true.into();
    let raw = server.post("/rerank", &request).expect(200).json();
    assert_ranking(&raw, "score", &scores);
    for ranked in list(&raw) {
        let index = ranked["index"].as_u64().expect("an index") as usize;
        assert_eq!(ranked["text"], passages[index]);
    }

    // Texts that are too long are rejected unless the client permits truncation.
    let long = "word ".repeat(1000);
    let mut request = json!({"query": query, "texts": [long]});
    let error = server.post("/rerank", &request).expect(422).json();
    assert_eq!(error["error_type"], "Validation");
    let message = error["error"].as_str().expect("a message");
    assert!(message.contains("set `truncate` to true"), "{message}");
    assert_eq!(error["message"], message);
    request["truncate"] = true.into();
    server.post("/rerank", &request).expect(200);
    let request = json!({"query": query, "documents": [long]});
    server.post("/rerank", &request).expect(200);
}

#[test]
fn pairs_are_scored_in_their_order() {
    let server = start(&["m"]);
    let (query, passages, scores) = question();
    let passages = list(&passages);
    let one_with_all = json!({"model": "m", "text_1": query, "text_2": passages});
    let one_by_one = json!({"text_1": vec![query; passages.len()], "text_2": passages});
    for (path, request) in [("/v1/score", one_with_all), ("/score", one_by_one)] {
        let reply = server.post(path, &request).expect(200).json();
        for (index, result) in list(&reply["data"]).iter().enumerate() {
            assert_eq!(result["index"], index);
            assert_close(
                &json!([result["score"]]),
                &json!([scores[index]]),
                &format!("pair {index}"),
            );
        }
        assert_eq!(list(&reply["data"]).len(), scores.len());
    }
}

#[test]
fn the_model_is_optional_if_only_one_is_a_reranker() {
    let server = start_with(&["one", "other"], &["vectors"]);
    let request = |model: Option<&str>| json!({"model": model, "query": "q", "documents": ["a"]});
    let error = |model, status| {
        let reply = server.post("/v1/rerank", &request(model)).expect(status).json();
        reply["message"].as_str().expect("a message").to_owned()
    };
    assert_eq!(
        error(None, 400),
        "missing member `model`: expected one of one.rerank, other.rerank"
    );
    assert_eq!(
        error(Some("vectors"), 400),
        "`vectors` does not rank documents; available: one.rerank, other.rerank"
    );
    assert!(error(Some("nothing"), 404).starts_with("unknown model `nothing`"));
    for name in ["one", "other.rerank"] {
        let reply = server.post("/v1/rerank", &request(Some(name))).expect(200).json();
        assert_eq!(reply["model"], name);
    }
    let labels = [
        ("model", "one"),
        ("task", "rerank"),
        ("protocol", "rerank"),
        ("status", "200"),
    ];
    assert_eq!(server.metrics().count("inference_requests_total", &labels), 1);
}

#[test]
fn schemathesis_finds_no_undocumented_reply() {
    let server = start(&["m"]);
    let document = server.get("/openapi.json").expect(200).json();
    for path in PATHS.into_iter().chain(["/v1/score"]) {
        assert!(document["paths"][path].is_object(), "{path}");
    }
    clients::schemathesis(&server);
}

#[test]
fn a_key_ranks_and_scores_only_with_the_models_that_it_may_use_and_within_its_limit() {
    let server = "[server]\napi_keys_file = \"keys.toml\"\n";
    let scenario = Scenario::new(&format!("{server}{}", models(&["mine", "other"], &[])));
    let keys =
        "[[key]]\nname = \"limited\"\nmodels = [\"mine\"]\nrequests_per_second = 0.001\nrequest_burst = 10\n";
    std::fs::write(scenario.dir().join("keys.toml"), with_hashes(keys)).expect("write a file");
    let server = scenario.start();
    let documents = json!(["one", "two"]);
    let requests = |model: &str| {
        [
            (
                "/rerank",
                json!({"model": model, "query": "a", "documents": documents}),
            ),
            (
                "/v1/rerank",
                json!({"model": model, "query": "a", "documents": documents}),
            ),
            (
                "/v2/rerank",
                json!({"model": model, "query": "a", "documents": documents}),
            ),
            (
                "/score",
                json!({"model": model, "text_1": "a", "text_2": documents}),
            ),
            (
                "/v1/score",
                json!({"model": model, "text_1": "a", "text_2": documents}),
            ),
        ]
    };
    // These count as well, since the model is in the body, which is received after the request is counted.
    for (path, body) in requests("other") {
        let reply = post(&server, "limited", path, &body).expect(403);
        assert!(
            reply.text().contains("API key `limited` may not use "),
            "{path}: {}",
            reply.text()
        );
    }
    for (path, body) in requests("mine") {
        post(&server, "limited", path, &body).expect(200);
    }
    for (path, body) in requests("mine") {
        let reply = post(&server, "limited", path, &body).expect(429);
        assert!(reply.header("retry-after").is_some(), "{path}");
    }
}
