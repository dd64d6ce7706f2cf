//! What a job returns, and how it is described.

use serde_json::{Value as Json, json};

use super::{ECHO, M, TEXT, WORDS, id_of, job, result, start, submit, timeless, wait, wait_for_jobs, wait_for_state, waiting};
use crate::harness::client::predict_path;

#[test]
fn the_result_of_a_job_is_the_reply_of_the_synchronous_call_in_every_protocol() {
    let server = start("", &format!("{WORDS}{M}"));
    let v2 = json!({"id": "7", "inputs": [{"name": "TEXT", "datatype": "BYTES", "shape": [1], "data": ["to be"]}]});
    let binary = json!({"inputs": [{"name": "TEXT", "datatype": "BYTES", "shape": [1], "data": ["to be"]}],
        "parameters": {"binary_data_output": true}});
    let embeddings = json!({"model": "m.embed", "input": ["a", "b"]});
    for (path, body) in [
        (ECHO, json!({"inputs": ["to be", "or not"]})),
        ("/v1/models/words/predict", json!({"input": "to be"})),
        ("/v1/models/w%6Frds/predict", json!({"input": "to be"})),
        ("/say", json!({"inputs": ["to be"]})),
        ("/v1/models/words:predict", json!({"instances": ["to be"]})),
        (
            "/v1/models/words/versions/1:predict",
            json!({"inputs": ["to be"]}),
        ),
        ("/v2/models/words/infer", v2),
        ("/v2/models/words.echo/versions/1/infer", binary),
        ("/v1/embeddings", embeddings.clone()),
        ("/openai/deployments/m.embed/embeddings", embeddings),
        // An item that the task rejects.
        ("/v1/models/words/tasks/stats/predict", json!({"inputs": [5]})),
    ] {
        let synchronous = server.post(path, &body);
        let accepted = job(&server, path, &body).send().expect(202);
        assert_eq!(
            accepted.header("preference-applied"),
            Some("respond-async"),
            "{path}"
        );
        let id = id_of(&accepted);
        assert_eq!(
            accepted.header("location"),
            Some(format!("/v1/jobs/{id}").as_str())
        );
        let ended = wait(&server, &id);
        let expected = if synchronous.status == 200 {
            "succeeded"
        } else {
            "failed"
        };
        assert_eq!(ended["state"], expected, "{path}: {ended}");
        let result = result(&server, &id);
        assert_eq!(result.status, synchronous.status, "{path}: {}", result.text());
        for name in ["content-type", "inference-header-content-length"] {
            assert_eq!(result.header(name), synchronous.header(name), "{path}");
        }
        match synchronous.text().contains("inference_time") {
            true => assert_eq!(timeless(&result), timeless(&synchronous), "{path}"),
            false if synchronous.status == 200 => assert_eq!(result.body, synchronous.body, "{path}"),
            false => assert_eq!(timeless(&result), timeless(&synchronous), "{path}"),
        }
    }
}

#[test]
fn a_job_is_described_from_its_submission_to_its_end() {
    let server = start("", M);
    let gate = server.dir().join("gate");
    let submitted = job(&server, TEXT, &json!({"inputs": waiting(&gate)}))
        .header("x-job-label", "nightly")
        .header("x-priority", "high")
        .header("x-job-ttl", "1h")
        .send()
        .expect(202)
        .json();
    for (member, value) in [
        ("object", json!("job")),
        ("state", json!("queued")),
        ("model", json!("m")),
        ("task", json!("text")),
        ("label", json!("nightly")),
        ("priority", json!("high")),
        ("attempts", json!(0)),
        ("items", json!(1)),
        ("items_done", json!(0)),
        ("error", Json::Null),
        ("finished_at", Json::Null),
    ] {
        assert_eq!(submitted[member], value, "{member} of {submitted}");
    }
    assert!(submitted["expires_at"].is_string(), "{submitted}");
    let id = submitted["id"].as_str().expect("an id");
    wait_for_state(&server, id, "running");
    let (code, message) = result(&server, id).expect(409).error();
    assert_eq!(code, "conflict");
    assert!(message.contains("is running"), "{message}");
    // A wait ends with its time, and not with an error.
    let waited = server.get(&format!("/v1/jobs/{id}?wait=10ms")).expect(200).json();
    assert_eq!(
        (&waited["state"], &waited["attempts"]),
        (&json!("running"), &json!(1))
    );
    std::fs::write(&gate, "open").expect("open the gate");
    let ended = wait(&server, id);
    for (member, value) in [
        ("state", json!("succeeded")),
        ("attempts", json!(1)),
        ("items_done", json!(1)),
        ("result_status", json!(200)),
        ("can_retry", json!(false)),
    ] {
        assert_eq!(ended[member], value, "{member} of {ended}");
    }
    assert!(ended["finished_at"].is_string(), "{ended}");
    let found = server
        .get("/v1/jobs?label=nightly&state=succeeded&model=m")
        .expect(200)
        .json();
    assert_eq!(found["data"][0]["id"], id);
    for other in ["label=other", "state=failed", "model=words"] {
        let found = server.get(&format!("/v1/jobs?{other}")).expect(200).json();
        assert_eq!(found["data"], json!([]), "{other}");
    }
}

#[test]
fn metrics_count_jobs_by_outcome_and_only_their_runs_count_as_items() {
    let server = start("", WORDS);
    let id = submit(&server, ECHO, &json!({"inputs": ["a", "b"]}));
    wait(&server, &id);
    server.wait_for_metric("inference_job_claims_total", &[("outcome", "succeeded")], 1);
    wait_for_jobs(&server, "words", "succeeded", 1);
    let metrics = server.metrics();
    let count = |name: &str, labels: &[(&str, &str)]| metrics.count(name, labels);
    assert_eq!(
        count("inference_job_submissions_total", &[("outcome", "created")]),
        1
    );
    assert_eq!(count("inference_job_attempts_total", &[]), 1);
    assert_eq!(
        count(
            "inference_items_total",
            &[("task", "echo"), ("outcome", "success")]
        ),
        2
    );
    // No client waited for it.
    let text = server.get("/metrics").expect(200).text();
    assert!(!text.contains("inference_requests_total{"), "{text}");
    let path = predict_path("words", "echo");
    server.post(&path, &json!({"inputs": ["a"]})).expect(200);
    assert_eq!(
        server
            .metrics()
            .count("inference_requests_total", &[("task", "echo")]),
        1
    );
}
