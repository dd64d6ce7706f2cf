//! What a job returns, and how it is described.

use serde_json::{Value as Json, json};

use super::{
    ECHO, M, TEXT, WORDS, id_of, job, result, start, submit, timeless, wait, wait_for_jobs, wait_for_state,
    waiting,
};
use crate::harness::client::predict_path;
use crate::harness::eventually;
use crate::harness::misbehave::echo;

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
fn items_done_grows_while_a_job_runs_and_starts_again_with_the_next_attempt() {
    let model = format!(
        "{M}isolation = \"process\"\non_crash = \"fail\"\nrestart_delay = \"1ms\"\n[models.batching]\nmax_batch_size = 1\n"
    );
    let server = start("max_attempts = 1", &model);
    let file = |name: &str| server.dir().join(name);
    let items = json!([
        echo(0),
        echo(1),
        {"do": "wait", "path": file("first"), "value": 2},
        echo(3),
        {"do": "wait", "path": file("second"), "value": 4},
        {"do": "abort", "once": file("once"), "value": 5},
        {"do": "wait", "path": file("third"), "value": 6},
    ]);
    // In this protocol, a request fails with any of its items.
    let id = submit(
        &server,
        "/v1/models/m.text:predict",
        &json!({ "instances": items }),
    );
    let items_done = |job: &Json| job["items_done"].as_u64().expect("a number");
    let wait_for_items = |before: u64, count: u64| {
        let mut last = before;
        eventually(&format!("{count} items to be done"), || {
            let job = server.get(&format!("/v1/jobs/{id}")).expect(200).json();
            let done = items_done(&job);
            assert!((last..=count).contains(&done), "after {last}: {job}");
            last = done;
            if done == count && job["state"] == "running" {
                Ok(())
            } else {
                Err(job)
            }
        });
    };
    wait_for_items(0, 2);
    std::fs::write(file("first"), "open").expect("open the gate");
    wait_for_items(2, 4);
    // An item crashes the process of the model, so the only attempt has no outcome.
    for gate in ["second", "third"] {
        std::fs::write(file(gate), "open").expect("open the gate");
    }
    let ended = wait(&server, &id);
    assert_eq!(
        (&ended["state"], &ended["can_retry"]),
        (&json!("failed"), &json!(true))
    );
    std::fs::remove_file(file("third")).expect("close the gate");
    let retried = server
        .request("POST", &format!("/v1/jobs/{id}/retry"))
        .send()
        .expect(202)
        .json();
    assert_eq!((items_done(&retried), &retried["state"]), (0, &json!("queued")));
    wait_for_items(0, 6);
    std::fs::write(file("third"), "open").expect("open the gate");
    let ended = wait(&server, &id);
    assert_eq!((&ended["state"], items_done(&ended)), (&json!("succeeded"), 7));
}

#[test]
fn a_model_reports_its_jobs_as_the_metrics_do() {
    let server = start("", &format!("{M}{WORDS}"));
    let gate = server.dir().join("gate");
    let running = submit(&server, TEXT, &json!({"inputs": waiting(&gate)}));
    wait_for_state(&server, &running, "running");
    let later = job(&server, TEXT, &json!({"inputs": waiting(&gate)})).header("x-job-not-before", "1h");
    later.send().expect(202);
    wait_for_jobs(&server, "m", "queued", 1);
    wait_for_jobs(&server, "m", "running", 1);
    let jobs = server.model("m")["jobs"].clone();
    assert_eq!(
        (&jobs["queued"], &jobs["running"]),
        (&json!(1), &json!(1)),
        "{jobs}"
    );
    for age in ["oldest_queued_age_seconds", "oldest_running_age_seconds"] {
        let seconds = jobs[age].as_f64().expect("a number");
        assert!((0.0..300.0).contains(&seconds), "{age} of {jobs}");
    }
    let list = server.get("/v1/models").expect(200).json();
    let words = list["data"]
        .as_array()
        .expect("a list")
        .iter()
        .find(|model| model["id"] == "words");
    let none = json!({
        "queued": 0, "running": 0, "oldest_queued_age_seconds": null, "oldest_running_age_seconds": null,
    });
    assert_eq!(words.expect("a model")["jobs"], none);
    std::fs::write(&gate, "open").expect("open the gate");
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
