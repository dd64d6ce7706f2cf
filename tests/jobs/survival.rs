//! What jobs survive: the death and the end of the server, a store that cannot be used, a model that is not ready.

use serde_json::json;

use super::{ECHO, M, TEXT, WORDS, id_of, job, result, start, submit, wait, wait_for_jobs, wait_for_state, waiting};
use crate::harness::misbehave::echoes;
use crate::harness::{Scenario, Signal, eventually};

#[test]
fn jobs_survive_the_death_of_the_server() {
    let home = Scenario::new("");
    let database = home.dir().join("jobs.sqlite");
    let database = database.to_str().expect("a path is text");
    let gate = home.dir().join("gate");
    let scenario = || Scenario::new(M).env("INFERENCE_JOBS_PATH", database);
    let mut server = scenario().start();
    let running = submit(&server, TEXT, &json!({"inputs": waiting(&gate)}));
    wait_for_state(&server, &running, "running");
    let waiting: Vec<String> = (0..5)
        .map(|value| submit(&server, TEXT, &json!({"inputs": echoes([value])})))
        .collect();
    server.signal(Signal::KILL);
    server.wait_for_exit();
    std::fs::write(&gate, "open").expect("open the gate");
    let server = scenario().start();
    let ended = wait(&server, &running);
    assert_eq!(
        (&ended["state"], &ended["attempts"]),
        (&json!("succeeded"), &json!(2))
    );
    for (value, id) in waiting.iter().enumerate() {
        assert_eq!(wait(&server, id)["state"], "succeeded");
        assert_eq!(result(&server, id).expect(200).values(), [json!(value)]);
    }
}

#[test]
fn running_jobs_finish_before_the_server_exits_and_others_wait_for_the_next_one() {
    let home = Scenario::new("");
    let database = home.dir().join("jobs.sqlite");
    let database = database.to_str().expect("a path is text");
    let gate = home.dir().join("gate");
    let scenario = || {
        Scenario::new(&format!("[server]\ndrain_timeout = \"1h\"\n{M}")).env("INFERENCE_JOBS_PATH", database)
    };
    let mut server = scenario().start();
    let running = submit(&server, TEXT, &json!({"inputs": waiting(&gate)}));
    wait_for_state(&server, &running, "running");
    let later = job(&server, TEXT, &json!({"inputs": echoes(["later"])}))
        .header("x-job-not-before", "1s")
        .send();
    let later = id_of(&later.expect(202));
    // A client that waits is answered at once.
    let path = format!("/v1/jobs/{running}?wait=300s");
    let polling = server.in_background(move |client| client.request("GET", &path).try_send());
    server.wait_for_metric("inference_executing_items", &[("model", "m")], 1);
    server.signal(Signal::TERM);
    server.wait_for_log("shutting down");
    std::fs::write(&gate, "open").expect("open the gate");
    polling.reply().expect(200);
    assert_eq!(server.wait_for_exit().code(), Some(0));
    let server = scenario().start();
    let ended = wait(&server, &running);
    assert_eq!(
        (&ended["state"], &ended["attempts"]),
        (&json!("succeeded"), &json!(1))
    );
    assert_eq!(wait(&server, &later)["state"], "succeeded");
}

#[test]
fn a_second_server_with_the_same_file_rejects_jobs_and_serves_everything_else() {
    let home = Scenario::new("");
    let database = home.dir().join("jobs.sqlite");
    let database = database.to_str().expect("a path is text");
    let scenario = || Scenario::new(WORDS).env("INFERENCE_JOBS_PATH", database);
    let first = scenario().start();
    let id = submit(&first, ECHO, &json!({"inputs": ["a"]}));
    let second = scenario().start();
    let (code, message) = job(&second, ECHO, &json!({"inputs": ["a"]}))
        .send()
        .expect(503)
        .error();
    assert_eq!(code, "unavailable");
    assert!(message.contains("another server uses it"), "{message}");
    assert!(!message.contains("jobs.sqlite"), "{message}");
    second.wait_for_log("is used by another server");
    second.get(&format!("/v1/jobs/{id}")).expect(503);
    second.post(ECHO, &json!({"inputs": ["a"]})).expect(200);
    first.shut_down();
    // It takes over without a restart.
    eventually("the second server to accept jobs", || {
        match job(&second, ECHO, &json!({"inputs": ["a"]})).send() {
            reply if reply.status == 202 => Ok(()),
            reply => Err(reply.text()),
        }
    });
    second.get(&format!("/v1/jobs/{id}")).expect(200);
}

#[test]
fn a_store_that_cannot_be_created_only_rejects_jobs() {
    let server = Scenario::new(WORDS)
        .env("INFERENCE_JOBS_PATH", "/proc/jobs.sqlite")
        .start();
    let rejected = job(&server, ECHO, &json!({"inputs": ["a"]})).send().expect(503);
    assert!(
        rejected.error().1.starts_with("the job store is unavailable"),
        "{}",
        rejected.text()
    );
    server.post(ECHO, &json!({"inputs": ["a"]})).expect(200);
    assert_eq!(server.get("/v1/jobs").expect(200).json()["data"], json!([]));
}

#[test]
fn a_job_waits_for_a_model_that_is_not_ready() {
    let home = Scenario::new("");
    let database = home.dir().join("jobs.sqlite");
    let database = database.to_str().expect("a path is text");
    let scenario = |model: &str| Scenario::new(model).env("INFERENCE_JOBS_PATH", database);
    let first = scenario(WORDS).start();
    let later = job(&first, ECHO, &json!({"inputs": ["a"]}))
        .header("x-job-not-before", "1s")
        .send();
    let id = id_of(&later.expect(202));
    first.shut_down();
    let other = WORDS.replace("words", "other");
    let second = scenario(&other).start();
    wait_for_jobs(&second, "words", "queued", 1);
    second.write_config(WORDS);
    assert!(second.reload());
    assert_eq!(wait(&second, &id)["state"], "succeeded");
}
