//! Embedding tasks in Python at `/v1/embeddings`.

use serde_json::{Value as Json, json};

use super::{class, config, python, serve};
use crate::harness::{Scenario, Server};

fn embed(server: &Server, model: &str) -> Json {
    let body = json!({"model": model, "input": ["to be", "or not to be"]});
    server.post("/v1/embeddings", &body).expect(200).json()
}

#[test]
fn an_embedding_task_is_served_with_the_token_counts_of_the_class() {
    for keys in ["", "isolation = \"thread\""] {
        let Some(server) = serve("vectors.py", "Vectors", keys) else {
            return;
        };
        let reply = embed(&server, "m");
        assert_eq!(reply["data"][0]["embedding"], json!([5.0, 1.0]), "{reply}");
        assert_eq!(reply["data"][1]["embedding"], json!([12.0, 1.0]), "{reply}");
        assert_eq!(reply["usage"], json!({"prompt_tokens": 6, "total_tokens": 6}));
        let single = server.post("/v1/embeddings", &json!({"model": "m.embed", "input": "one"}));
        assert_eq!(single.expect(200).json()["usage"]["total_tokens"], 1);
        assert_eq!(
            server.model("m")["tasks"].as_array().map(Vec::len),
            Some(1),
            "`count_tokens` is not a task"
        );
    }
}

#[test]
fn without_token_counts_usage_is_zero() {
    let Some(server) = serve("vectors.py", "Uncounted", "") else {
        return;
    };
    let reply = embed(&server, "m");
    assert_eq!(reply["data"][1]["embedding"], json!([12.0]), "{reply}");
    assert_eq!(reply["usage"], json!({"prompt_tokens": 0, "total_tokens": 0}));
}

#[test]
fn invalid_token_counts_are_a_model_fault() {
    let Some(server) = serve("vectors.py", "Miscounted", "") else {
        return;
    };
    let body = json!({"model": "m", "input": ["to be", "or not to be"]});
    server.post("/v1/embeddings", &body).expect(500);
    server.wait_for_log("`count_tokens` returned [1] for 2 texts, expected a list of 2 integers");
}

#[test]
fn a_task_that_cannot_be_an_embedding_fails_to_load() {
    let Some(python) = python() else { return };
    let server = Scenario::new(&config(&python, &class("vectors.py", "NoVectors"), "")).start_unready();
    let said = server.wait_for_log("model `m`: ");
    let expected =
        "`embed`: it is declared as an embedding task, expected `list[str]` to `list[NDArray[np.float32]]`";
    assert!(said.contains(expected), "{said}");
}
