//! The other routes, and jobs.

use serde_json::{Value as Json, json};

use super::start;
use crate::harness::vectors::assert_close;

#[test]
fn every_other_route_runs_the_task_that_is_declared_for_it() {
    let server = start();
    let post = |path: &str, body: Json| server.post(path, &body).expect(200).json();
    assert_eq!(
        post("/embed_sparse", json!({"inputs": "to bee"})),
        json!([[{"index": 2, "value": 0.5}, {"index": 3, "value": 0.5}]])
    );
    assert_eq!(
        post("/embed_all", json!({"inputs": ["to bee", "a"]})),
        json!([[[2.0, 1.0], [3.0, 1.0]], [[1.0, 1.0]]])
    );
    let scores = |letters: f64, words: f64| json!([{"score": letters, "label": "letters"}, {"score": words, "label": "words"}]);
    assert_eq!(
        post("/predict", json!({"inputs": "a bc"})),
        scores(4.0 / 6.0, 2.0 / 6.0).rounded()
    );
    assert_eq!(
        post("/predict", json!({"inputs": ["a", "bc"], "raw_scores": true})),
        scores(4.0, 2.0)
    );
    assert_eq!(
        post(
            "/predict",
            json!({"inputs": [["a"], ["a", "bc"]], "raw_scores": true})
        ),
        json!([scores(1.0, 1.0).sorted_as_written(), scores(4.0, 2.0)])
    );
    let token = |id: u64, text: &str, start: u64| json!({"id": id, "text": text, "special": false, "start": start, "stop": start + id});
    let special = json!({"id": 0, "text": "[CLS]", "special": true, "start": null, "stop": null});
    assert_eq!(
        post("/tokenize", json!({"inputs": ["to bee"]})),
        json!([[special, token(2, "to", 0), token(3, "bee", 3)]])
    );
    assert_eq!(
        post("/tokenize", json!({"inputs": "to", "add_special_tokens": false})),
        json!([[token(2, "to", 0)]])
    );
    assert_eq!(post("/decode", json!({"ids": [0, 2, 3]})), json!(["xx xxx"]));
    assert_eq!(
        post(
            "/decode",
            json!({"ids": [[0, 2], [1]], "skip_special_tokens": false})
        ),
        json!(["[CLS] xx", "x"])
    );
    let sentences = json!({"source_sentence": "to be", "sentences": ["to be", "a"]});
    let cosine = (5.0 + 2.0 + 0.25) / ((25.0 + 4.0 + 0.25f64).sqrt() * 2.25f64.sqrt());
    for body in [
        json!({"inputs": sentences}),
        json!({"inputs": sentences, "parameters": {"truncate": true}}),
    ] {
        assert_close(
            &post("/similarity", body.clone()),
            &json!([1.0, cosine]),
            "similarity",
        );
        // What the model is for follows from the request.
        assert_close(&post("/", body), &json!([1.0, cosine]), "similarity");
    }
    assert_eq!(
        post("/", json!({"inputs": "to be", "normalize": false})),
        json!([[5.0, 2.0, 0.5]])
    );
    assert_eq!(
        post(
            "/predict",
            json!({"inputs": "a bc", "parameters": {"function_to_apply": "none", "top_k": 1}})
        ),
        json!([{"score": 4.0, "label": "letters"}])
    );
    let info = server.get("/info").expect(200).json();
    assert_eq!(
        (&info["model_id"], &info["model_type"]["embedding"]["pooling"]),
        (&json!("m"), &json!("unknown"))
    );
    assert!(info["max_client_batch_size"].is_u64(), "{info}");
    server.get("/health").expect(200);
}

/// Comparison of scores, which are computed in single precision.
trait Scores {
    fn rounded(self) -> Json;
    fn sorted_as_written(self) -> Json;
}

impl Scores for Json {
    fn rounded(mut self) -> Json {
        for scored in self.as_array_mut().into_iter().flatten() {
            let score = scored["score"].as_f64().unwrap_or_default() as f32;
            // The shortest decimal of the single-precision number, as in the reply.
            scored["score"] = serde_json::from_str(&score.to_string()).expect("a number");
        }
        self
    }

    /// Labels with equal scores are in the order of the task.
    fn sorted_as_written(mut self) -> Json {
        if let Some(list) = self.as_array_mut() {
            list.reverse();
        }
        self
    }
}

#[test]
fn a_request_to_the_name_of_a_model_alone_can_be_a_job() {
    let server = start();
    let request = json!({"inputs": "to be", "normalize": false});
    for path in ["/", "/m"] {
        let job = server
            .request("POST", path)
            .header("prefer", "respond-async")
            .json(&request)
            .send()
            .expect(202)
            .json();
        let id = job["id"].as_str().expect("an ID").to_owned();
        let finished = server.get(&format!("/v1/jobs/{id}?wait=30s")).expect(200).json();
        assert_eq!(finished["state"], "succeeded", "{finished}");
        let result = server.get(&format!("/v1/jobs/{id}/result")).expect(200).json();
        assert_eq!(result, json!([[5.0, 2.0, 0.5]]), "{path}");
    }
}
