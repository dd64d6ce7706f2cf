//! Which submissions are accepted.

use serde_json::json;

use super::{ECHO, M, TEXT, WORDS, id_of, job, start, submit, wait};
use crate::harness::Reply;
use crate::harness::misbehave::echoes;

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
    // A repeated request that asks for something else is not silently answered with the first job.
    for (name, value) in [
        ("content-type", "application/json; charset=utf-8"),
        ("x-priority", "high"),
        ("x-job-ttl", "1h"),
        ("x-job-not-before", "1h"),
        ("x-job-label", "l"),
        ("x-request-timeout", "1h"),
    ] {
        let mut call = server
            .request("POST", ECHO)
            .header("prefer", "respond-async")
            .header("idempotency-key", "k");
        call = match name {
            "content-type" => call.body(value, r#"{"inputs":["a"]}"#),
            _ => call.header(name, value).json(&json!({"inputs": ["a"]})),
        };
        assert_eq!(call.send().expect(409).error().0, "conflict", "{name}");
    }
    let normal = job(&server, ECHO, &json!({"inputs": ["a"]})).header("x-priority", "normal");
    assert_eq!(
        id_of(&normal.header("idempotency-key", "k").send().expect(202)),
        first,
        "it is the default"
    );
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
        ("x-job-ttl", "0"),
        ("x-job-ttl", "367d"),
        ("x-job-not-before", "never"),
        ("x-job-not-before", "9999-01-01T00:00:00Z"),
        ("x-priority", "urgent"),
        ("x-request-timeout", "0"),
        ("idempotency-key", ""),
        ("x-job-label", " "),
        ("x-job-label", "\u{85}"),
        ("x-webhook-url", "https://example.com/"),
    ] {
        let (_, message) = job(&server, ECHO, &body)
            .header(name, value)
            .send()
            .expect(400)
            .error();
        assert!(message.contains(name), "{message}");
    }
    for name in ["x-job-label", "idempotency-key", "x-priority"] {
        let call = job(&server, ECHO, &body).header(name, "a").header(name, "b");
        let (_, message) = call.send().expect(400).error();
        assert_eq!(message, format!("header {name}: expected one value, got 2"));
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
        "/v1/jobs?label=a&label=b",
        "/v1/jobs?label=%00",
        "/v1/jobs?model=%00",
        "/v1/jobs?state=queued,",
        "/v1/jobs?limit=1001",
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
    for query in [
        "wait=1h",
        "wait=x",
        "wait=5parsecs",
        "wait=",
        "wait=1s&wait=2s",
        "for=1s",
    ] {
        server.get(&format!("/v1/jobs/{id}?{query}")).expect(400).error();
    }
    for (method, path) in [("DELETE", ""), ("POST", "/retry"), ("GET", "/result")] {
        let path = format!("/v1/jobs/{id}{path}?wait=1s");
        server.request(method, &path).send().expect(400).error();
    }
}

#[test]
fn a_label_can_have_any_text_and_a_start_can_be_in_the_past() {
    let server = start("", WORDS);
    for label in ["é", "日本語 🦀", &"é".repeat(127)] {
        let call = job(&server, ECHO, &json!({"inputs": ["a"]}))
            .header("x-job-label", label)
            .header("x-job-not-before", "2020-01-01T00:00:00Z");
        let accepted = call.send().expect(202);
        assert_eq!(accepted.json()["label"], label);
        assert_eq!(wait(&server, &id_of(&accepted))["state"], "succeeded");
        let encoded: String = label.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let found = server
            .get(&format!("/v1/jobs?label={encoded}"))
            .expect(200)
            .json();
        assert_eq!(found["data"][0]["label"], label);
        assert_eq!(found["data"].as_array().map(Vec::len), Some(1));
    }
    let long = job(&server, ECHO, &json!({"inputs": ["a"]})).header("x-job-label", &"é".repeat(128));
    assert!(long.send().expect(400).error().1.contains("got 256 bytes"));
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
