//! Tests of the plugin `sentence_embeddings` through the server.

use serde_json::{Value as Json, json};

use crate::harness::plugins::{library, repository};
use crate::harness::vectors::{assert_close, list, reference};
use crate::harness::{Scenario, Server, clients};

const REFERENCE: &str = "plugins/sentence-embeddings/tests/reference/small.json";

fn start(folder: &str) -> Server {
    library("sentence_embeddings");
    let models = repository().join("plugins/sentence-embeddings/tests/models");
    Scenario::new(&format!(
        "[[models]]\nname = \"m\"\nplugin = \"sentence_embeddings\"\n\n[models.settings]\nfolder = \"{}\"\n",
        models.join(folder).display()
    ))
    .start()
}

/// With an embedding task, the document also contains OpenAI's route.
#[test]
fn schemathesis_finds_no_undocumented_reply() {
    let server = start("e5");
    let document = server.get("/openapi.json").expect(200).json();
    assert!(document["paths"]["/v1/embeddings"].is_object());
    clients::schemathesis(&server);
}

#[test]
fn texts_of_concurrent_clients_have_the_vectors_of_the_reference() {
    let server = start("e5");
    let reference = reference(REFERENCE);
    let texts = list(&reference["texts"]);
    let pending: Vec<_> = texts
        .iter()
        .enumerate()
        .map(|(index, text)| {
            let task = ["query", "passage"][index % 2];
            (
                index,
                task,
                server.predict_in_background("m", task, &json!([text])),
            )
        })
        .collect();
    for (index, task, pending) in pending {
        let reply = pending.reply().expect(200).json();
        let expected = &reference["expected"]["e5"][task][index];
        assert_close(
            &reply["outputs"][0]["embedding"],
            expected,
            &format!("text {index}"),
        );
    }
}

#[test]
fn passages_are_ranked_by_a_cross_encoder() {
    let server = start("cross");
    let reference = reference(REFERENCE);
    let question = json!({"query": reference["query"], "passages": reference["passages"]});
    let reply = server
        .predict("m", "rerank", &json!([question]))
        .expect(200)
        .json();
    let scores = list(&reference["expected"]["cross"]["scores"]);
    for result in list(&reply["outputs"][0]["results"]) {
        let index = result["index"].as_u64().expect("a place in the request") as usize;
        assert_close(
            &json!([result["score"]]),
            &json!([scores[index]]),
            &format!("passage {index}"),
        );
    }
}

#[test]
fn a_question_without_passages_is_a_client_error() {
    let reply = start("e5").post(
        "/v1/models/m/tasks/similarity/predict",
        &json!({"input": {"query": "a", "passages": []}}),
    );
    assert!(
        reply.expect(422).text().contains("`passages` is empty"),
        "expected an explanation"
    );
}

#[test]
fn openai_clients_get_the_same_vectors_and_token_counts() {
    let server = start("bge");
    let reference = reference(REFERENCE);
    let request = json!({"model": "m.passage", "input": reference["texts"]});
    let reply = server.post("/v1/embeddings", &request).expect(200).json();
    let expected = &reference["expected"]["bge"];
    let vectors = list(&reply["data"]);
    assert_eq!(vectors.len(), list(&reference["texts"]).len());
    for (index, vector) in vectors.iter().enumerate() {
        assert_close(
            &vector["embedding"],
            &expected["passage"][index],
            &format!("text {index}"),
        );
    }
    let tokens: u64 = list(&expected["tokens"]).iter().filter_map(Json::as_u64).sum();
    assert_eq!(reply["usage"]["prompt_tokens"], json!(tokens));
}

#[test]
fn a_long_text_takes_little_more_memory_than_its_body() {
    let server = start("e5");
    server.predict("m", "query", &json!(["short"])).expect(200);
    let text = "Mont Blanc rises 4806 m above sea level. ".repeat(400_000);
    let body = json!({ "inputs": [&text] }).to_string();
    let grown = server.peak_growth(|| {
        let reply = server
            .request("POST", "/v1/models/m/tasks/query/predict")
            .body("application/json", body)
            .send()
            .expect(200);
        let beginning = &text[..10_000];
        let expected = server.predict("m", "query", &json!([beginning])).expect(200);
        assert_eq!(reply.outputs(), expected.outputs());
    });
    // The buffer of the body grows by doubling.
    let limit = 3 * text.len() as u64 + (8 << 20);
    assert!(
        grown < limit,
        "{} MiB for a text of {} MiB",
        grown >> 20,
        text.len() >> 20
    );
}
