//! The members of requests that clients of Cohere, Jina and vLLM document are honored, or rejected with an error that names the
//! member.

use serde_json::{Value as Json, json};

use crate::harness::plugins::{library, repository};
use crate::harness::vectors::list;
use crate::harness::{Scenario, Server};

/// A server with one model `m` of sentence-transformers.
fn start(folder: &str, more: &str) -> Server {
    library("sentence_embeddings");
    let models = repository().join("plugins/sentence-embeddings/tests/models");
    Scenario::new(&format!(
        "[[models]]\nname = \"m\"\nplugin = \"sentence_embeddings\"\n{more}\n[models.settings]\nfolder = \"{}\"\n",
        models.join(folder).display()
    ))
    .start()
}

/// The request with one more member.
fn with(request: &Json, name: &str, value: Json) -> Json {
    let mut request = request.clone();
    request[name] = value;
    request
}

#[test]
fn types_of_inputs_that_a_model_does_not_embed_are_errors_that_list_the_others() {
    // The default task does not embed, and `query` and `passage` do.
    let server = start(
        "bge",
        "default_task = \"similarity\"\n[models.embeddings]\nclustering = \"query\"",
    );
    let cohere = |kind: &str, status| {
        let request = json!({"model": "m", "texts": ["a"], "input_type": kind});
        server.post("/v2/embed", &request).expect(status).json()
    };
    for known in ["search_query", "search_document", "clustering"] {
        cohere(known, 200);
    }
    for unknown in ["classification", "image"] {
        assert_eq!(
            cohere(unknown, 400)["message"],
            format!(
                "invalid value `{unknown}` for `input_type`: model `m` accepts search_query, search_document, clustering"
            )
        );
    }
    let jina = |member: &str, kind: &str, status| {
        let request = with(&json!({"model": "m", "input": "a"}), member, json!(kind));
        server.post("/v1/embeddings", &request).expect(status).json()
    };
    let query = |reply: Json| reply["data"][0]["embedding"].clone();
    assert_eq!(
        query(jina("task", "retrieval.query", 200)),
        query(jina("task", "separation", 200))
    );
    assert_eq!(
        query(jina("input_type", "search_query", 200)),
        query(jina("task", "retrieval.query", 200))
    );
    let error = jina("task", "code.query", 400)["error"].clone();
    assert_eq!(
        (&error["param"], &error["message"]),
        (
            &json!("task"),
            &json!(
                "invalid value `code.query` for `task`: model `m` accepts retrieval.query, retrieval.passage, separation"
            )
        )
    );
    // The document lists the same types.
    let document = server.get("/openapi.json").expect(200).json();
    let schemas = document["components"]["schemas"].as_object().expect("schemas");
    let is_listed = schemas.values().any(|schema| {
        schema["properties"]["input_type"]["enum"] == json!(["search_query", "search_document", "clustering"])
    });
    assert!(is_listed, "{schemas:?}");
    // If one of the tasks is the default, it embeds inputs of the other types.
    let server = start("bge", "default_task = \"passage\"");
    let request = json!({"texts": ["a"], "input_type": "classification"});
    server.post("/v2/embed", &request).expect(200);
}

#[test]
fn scores_and_rankings_are_raw_if_the_client_wants_no_activation() {
    let server = start("cross", "");
    let ranking = json!({"query": "How tall is it?", "documents": ["It is tall.", "It is deep."]});
    let ranked = |more: &str, value: Json| {
        let reply = server
            .post("/v1/rerank", &with(&ranking, more, value))
            .expect(200)
            .json();
        let mut results: Vec<(u64, f64)> = list(&reply["results"])
            .iter()
            .map(|result| {
                let number = result["relevance_score"].as_f64();
                (
                    result["index"].as_u64().expect("an index"),
                    number.expect("a score"),
                )
            })
            .collect();
        results.sort_by_key(|(index, _)| *index);
        results.into_iter().map(|(_, score)| score).collect::<Vec<f64>>()
    };
    let scored = |more: &str, value: Json| {
        let request = json!({"queries": "How tall is it?", "items": ["It is tall.", "It is deep."]});
        let reply = server
            .post("/v1/score", &with(&request, more, value))
            .expect(200)
            .json();
        let scores = list(&reply["data"])
            .iter()
            .map(|result| result["score"].as_f64().expect("a score"));
        scores.collect::<Vec<f64>>()
    };
    let raw = ranked("raw_scores", json!(true));
    let activated = ranked("use_activation", json!(true));
    assert_eq!(ranked("use_activation", json!(false)), raw);
    assert_eq!(ranked("activation", json!(false)), raw);
    assert_eq!(scored("use_activation", json!(false)), raw);
    assert_eq!(scored("use_activation", json!(true)), activated);
    for (raw, activated) in raw.iter().zip(&activated) {
        let sigmoid = 1.0 / (1.0 + (-raw).exp());
        assert!((sigmoid - activated).abs() < 1e-5, "{raw} {activated}");
    }
    for (path, request, member, value) in [
        ("/v1/rerank", &ranking, "max_tokens_per_doc", json!(9)),
        ("/v1/rerank", &ranking, "return_embeddings", json!(true)),
        ("/v2/rerank", &ranking, "priority", json!(1)),
        ("/v1/rerank", &ranking, "truncate_prompt_tokens", json!(9)),
        ("/v1/rerank", &ranking, "rank_fields", json!(["title"])),
        (
            "/v1/score",
            &json!({"text_1": "a", "text_2": "b"}),
            "truncate_prompt_tokens",
            json!(9),
        ),
    ] {
        let error = server
            .post(path, &with(request, member, value))
            .expect(422)
            .json();
        let message = error["message"].as_str().expect("a message");
        assert!(message.contains(&format!("`{member}`")), "{message}");
    }
}
