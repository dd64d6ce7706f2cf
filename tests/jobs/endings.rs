//! How jobs end, and which of them run again.

use serde_json::json;

use super::{ECHO, M, TEXT, WORDS, id_of, job, result, start, submit, wait, wait_for_state, waiting};
use crate::harness::misbehave::echoes;

#[test]
fn a_job_is_cancelled_while_it_waits_and_while_it_runs_and_removed_after_its_end() {
    let server = start("", &format!("{M}[models.batching]\nmax_batch_size = 1\n"));
    let gate = server.dir().join("gate");
    let running = submit(&server, TEXT, &json!({"inputs": waiting(&gate)}));
    wait_for_state(&server, &running, "running");
    let later = job(&server, TEXT, &json!({"inputs": echoes(["b"])}))
        .header("x-job-not-before", "1h")
        .send();
    let waiting = id_of(&later.expect(202));
    for id in [&running, &waiting] {
        let cancelled = server
            .request("DELETE", &format!("/v1/jobs/{id}"))
            .send()
            .expect(200);
        assert_eq!(cancelled.json()["state"], "cancelled");
        let (code, message) = result(&server, id).expect(410).error();
        assert_eq!(code, "gone");
        assert!(message.contains("is cancelled"), "{message}");
    }
    std::fs::write(&gate, "open").expect("open the gate");
    let removed = server
        .request("DELETE", &format!("/v1/jobs/{running}"))
        .send()
        .expect(200)
        .json();
    assert_eq!(removed, json!({"id": running, "object": "job", "deleted": true}));
    server.get(&format!("/v1/jobs/{running}")).expect(404);
    let allowed = server
        .request("PUT", &format!("/v1/jobs/{waiting}"))
        .send()
        .expect(405);
    assert_eq!(allowed.header("allow"), Some("GET, HEAD, DELETE"));
}

#[test]
fn a_job_that_waits_too_long_expires() {
    let server = start("", M);
    let call = job(&server, TEXT, &json!({"inputs": echoes(["a"])}))
        .header("x-job-not-before", "1h")
        .header("x-job-ttl", "100ms");
    let id = id_of(&call.send().expect(202));
    assert_eq!(wait(&server, &id)["state"], "expired");
    result(&server, &id).expect(410);
}

#[test]
fn a_result_that_is_too_large_fails_its_job() {
    let server = start("max_result_size = \"1KiB\"", WORDS);
    let id = submit(&server, ECHO, &json!({"inputs": ["a".repeat(2000)]}));
    let ended = wait(&server, &id);
    assert_eq!(ended["state"], "failed");
    assert_eq!(ended["error"]["code"], "result_too_large");
    let (_, message) = result(&server, &id).expect(410).error();
    assert!(message.contains("max_result_size"), "{message}");
}

#[test]
fn a_crash_of_the_model_costs_an_attempt_and_a_rejected_input_none() {
    let isolated = format!("{M}isolation = \"process\"\non_crash = \"fail\"\nrestart_delay = \"1ms\"\n");
    let server = start("max_attempts = 2", &isolated);
    let once = server.dir().join("once");
    let body = json!({"inputs": [{"do": "abort", "once": once, "value": "survivor"}]});
    let survivor = submit(&server, TEXT, &body);
    let ended = wait(&server, &survivor);
    assert_eq!(
        (&ended["state"], &ended["attempts"]),
        (&json!("succeeded"), &json!(2))
    );
    assert_eq!(
        result(&server, &survivor).expect(200).values(),
        [json!("survivor")]
    );

    let dead = submit(&server, TEXT, &json!({"inputs": [{"do": "abort"}]}));
    let ended = wait(&server, &dead);
    assert_eq!(
        (&ended["state"], &ended["attempts"]),
        (&json!("failed"), &json!(2))
    );
    assert_eq!(ended["can_retry"], true);
    assert_eq!(ended["error"]["code"], "model_fault");
    result(&server, &dead).expect(410);
    let letters = server.get("/v1/jobs?state=dead_letter").expect(200).json();
    assert_eq!(letters["data"][0]["id"], dead.as_str());
    server
        .request("POST", &format!("/v1/jobs/{dead}/retry"))
        .send()
        .expect(202);
    assert_eq!(
        wait(&server, &dead)["attempts"],
        2,
        "it had both of its attempts again"
    );

    let rejected = submit(
        &server,
        TEXT,
        &json!({"inputs": [{"do": "fail_item", "message": "no"}]}),
    );
    let ended = wait(&server, &rejected);
    assert_eq!(
        (&ended["state"], &ended["can_retry"]),
        (&json!("failed"), &json!(false))
    );
    assert_eq!(ended["attempts"], 1);
    assert_eq!(result(&server, &rejected).expect(422).error().0, "invalid_input");
    let (_, message) = server
        .request("POST", &format!("/v1/jobs/{rejected}/retry"))
        .send()
        .expect(409)
        .error();
    assert!(message.contains("can be retried"), "{message}");
}
