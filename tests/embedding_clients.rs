//! Clients of embeddings and rerankers from PyPI work without a change: LangChain, LlamaIndex, Haystack, Cohere, LiteLLM and
//! huggingface_hub; and the requests of Jina's documentation, which has no client.
//!
//! Each is a script in `tests/clients/embeddings` with its own assertions.

use serde_json::json;

use crate::harness::plugins::{library, repository};
use crate::harness::{Scenario, Server, clients};

/// A server with the embeddings `org/letters`, which are the number of letters, that of words, and 0.5; and the reranker `cross`.
fn start() -> Server {
    library("misbehave");
    library("sentence_embeddings");
    let cross = repository().join("plugins/sentence-embeddings/tests/models/cross");
    Scenario::new(&format!(
        "[[models]]\nname = \"org/letters\"\nplugin = \"misbehave\"\n\n[[models]]\nname = \"cross\"\n\
         plugin = \"sentence_embeddings\"\n\n[models.settings]\nfolder = \"{}\"\n",
        cross.display()
    ))
    .start()
}

fn run(script: &str) {
    let server = start();
    clients::run_embedding_client(script, &[&server.address().to_string()]);
}

#[test]
fn langchain_works_with_openai_huggingface_and_cohere() {
    run("langchain.py");
}

#[test]
fn both_versions_of_the_client_of_cohere_work() {
    run("cohere_sdk.py");
}

#[test]
fn llama_index_and_haystack_work() {
    run("llama_index_and_haystack.py");
}

#[test]
fn litellm_embeds_and_ranks_in_every_protocol() {
    run("litellm_client.py");
}

#[test]
fn the_inference_client_of_huggingface_works() {
    run("huggingface.py");
}

#[test]
fn requests_as_in_the_documentation_of_jina_work() {
    let server = start();
    let request = json!({
        "model": "org/letters",
        "task": "retrieval.passage",
        "embedding_type": "float",
        "late_chunking": false,
        "truncate": true,
        "input": ["to be"],
    });
    let reply = server.post("/v1/embeddings", &request).expect(200).json();
    assert_eq!(reply["data"][0]["embedding"], json!([5.0, 2.0, 0.5]));
    let request = json!({
        "model": "cross",
        "query": "How tall is Mont Blanc?",
        "top_n": 1,
        "documents": ["The lake is deep.", "Mont Blanc is high."],
        "return_documents": true,
    });
    let reply = server.post("/v1/rerank", &request).expect(200).json();
    assert!(reply["results"][0]["document"]["text"].is_string(), "{reply}");
    for (member, value) in [
        ("late_chunking", json!(true)),
        ("embedding_type", json!("binary")),
        ("task", json!("code.query")),
    ] {
        let mut request = json!({"model": "org/letters", "input": ["to be"]});
        request[member] = value;
        let error = server.post("/v1/embeddings", &request);
        assert!(matches!(error.status, 400 | 422), "{}", error.text());
        assert_eq!(error.json()["error"]["param"], member);
    }
}
