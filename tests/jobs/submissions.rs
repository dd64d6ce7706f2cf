//! Which submissions are accepted.

use serde_json::json;

use super::{ECHO, M, TEXT, WORDS, id_of, job, start, submit, wait};
use crate::harness::misbehave::echoes;
use crate::harness::Reply;

#[test]
fn an_idempotency_key_stands_for_one_job() {
    let server = start("", WORDS);
    let send = |key: &str, text: &str| {
        job(&server, ECHO, &json!({"inputs": [text]}))
            .header("idempotency-key", key)
            .send()
    };
    let first = id_of(&send("k", "a").expect(202));
    wait(&server, &first);
    assert_eq!(id_of(&send("k", "a").expect(202)), first, "also after its end");
    let (code, message) = send("k", "b").expect(409).error();
    assert_eq!(code, "conflict");
    assert!(message.contains(&first), "{message}");
    assert_ne!(id_of(&send("other", "a").expect(202)), first);
    let all = server.get("/v1/jobs").expect(200).json();
    assert_eq!(all["data"].as_array().map(Vec::len), Some(2));
}

#[test]
fn a_request_that_is_not_valid_gets_the_error_of_the_synchronous_call_and_is_not_stored() {
    let server = start("max_job_size = \"1KiB\"", WORDS);
    for (path, body) in [
        (ECHO, json!({"inputs": []})),
        (ECHO, json!({"input": "a", "inputs": ["b"]})),
        ("/v1/models/word/predict", json!({"input": "a"})),
        ("/v1/models/words/tasks/eko/predict", json!({"input": "a"})),
        ("/v1/models/words:predict", json!({"instances": []})),
        ("/v2/models/words/infer", json!({"inputs": []})),
        ("/v1/embeddings", json!({"model": "words", "input": "a"})),
    ] {
        let synchronous = server.post(path, &body);
        let rejected = job(&server, path, &body).send().expect(synchronous.status);
        assert!(synchronous.status >= 400, "{path}");
        let message = |reply: &Reply| {
            let json = reply.json();
            let error = json["error"].clone();
            error["message"].as_str().or(error.as_str()).map(str::to_owned)
        };
        assert_eq!(message(&rejected), message(&synchronous), "{path}");
    }
    let large = json!({"inputs": ["a".repeat(2000)]});
    let (code, message) = job(&server, ECHO, &large).send().expect(413).error();
    assert_eq!(code, "body_too_large");
    assert!(message.contains("1024 bytes"), "{message}");
    server.post(ECHO, &large).expect(200);
    assert_eq!(server.get("/v1/jobs").expect(200).json()["data"], json!([]));
}

#[test]
fn headers_and_parameters_that_cannot_be_honored_are_rejected() {
    let server = start("", WORDS);
    let body = json!({"inputs": ["a"]});
    for (name, value) in [
        ("x-job-ttl", "soon"),
        ("x-job-not-before", "never"),
        ("x-priority", "urgent"),
        ("idempotency-key", ""),
    ] {
        let (_, message) = job(&server, ECHO, &body)
            .header(name, value)
            .send()
            .expect(400)
            .error();
        assert!(message.contains(name), "{message}");
    }
    let call = server
        .request("POST", ECHO)
        .header("x-job-label", "a")
        .json(&body);
    let (_, message) = call.send().expect(400).error();
    assert!(message.contains("prefer: respond-async"), "{message}");
    for path in [
        "/v1/jobs?state=done",
        "/v1/jobs?limit=0",
        "/v1/jobs?cursor=7",
        "/v1/jobs?order=up",
    ] {
        server.get(path).expect(400).error();
    }
    for path in [
        "/v1/jobs/7",
        "/v1/jobs/01890a5d-ac96-774b-bcce-b302099a8057/result",
    ] {
        assert_eq!(server.get(path).expect(404).error().0, "not_found");
    }
    let id = submit(&server, ECHO, &body);
    for query in ["wait=1h", "wait=x", "for=1s"] {
        server.get(&format!("/v1/jobs/{id}?{query}")).expect(400).error();
    }
}

#[test]
fn too_many_jobs_are_rejected_with_a_time_to_retry() {
    let server = start("max_queued_jobs = 2", M);
    let later = || {
        job(&server, TEXT, &json!({"inputs": echoes(["a"])}))
            .header("x-job-not-before", "1h")
            .send()
    };
    later().expect(202);
    later().expect(202);
    let rejected = later().expect(429);
    assert_eq!(rejected.header("retry-after"), Some("10"));
    let (code, message) = rejected.error();
    assert_eq!(code, "queue_full");
    assert!(message.contains("2 of at most 2"), "{message}");
}

#[test]
fn jobs_can_be_disabled() {
    let server = start("enabled = false", WORDS);
    let rejected = job(&server, ECHO, &json!({"inputs": ["a"]})).send().expect(403);
    assert!(
        rejected.error().1.contains("jobs are disabled"),
        "{}",
        rejected.text()
    );
    server.post(ECHO, &json!({"inputs": ["a"]})).expect(200);
    assert!(!server.dir().join("jobs.sqlite").exists());
}
