//! What jobs survive: the death and the end of the server, a store that cannot be used, a model that is not ready.

use std::io::Write as _;

use serde_json::json;

use super::{ECHO, M, TEXT, WORDS, id_of, job, result, submit, wait, wait_for_jobs, wait_for_state, waiting};
use crate::harness::misbehave::echoes;
use crate::harness::small_disk::SmallDisk;
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
fn a_full_disk_only_rejects_jobs_and_loses_none_that_was_accepted() {
    let test = "jobs::survival::a_full_disk_only_rejects_jobs_and_loses_none_that_was_accepted";
    let Some(disk) = SmallDisk::enter(test) else {
        return;
    };
    let database = disk.path().join("jobs.sqlite");
    let database = database.to_str().expect("a path is text");
    crate::harness::plugins::library("misbehave");
    let server = Scenario::new(&format!("{M}[models.batching]\nmax_batch_size = 1\n{WORDS}"))
        .env("INFERENCE_JOBS_PATH", database)
        .start();
    let gate = server.dir().join("gate");
    let running = submit(&server, TEXT, &json!({"inputs": waiting(&gate)}));
    wait_for_state(&server, &running, "running");
    let large = "x".repeat(300_000);
    // The results are small.
    let body = json!({"inputs": [{"value": 7, "message": large}]});
    let submit_large = || job(&server, TEXT, &body).send();
    let mut accepted = Vec::new();
    let rejected = loop {
        match submit_large() {
            reply if reply.status == 202 => accepted.push(id_of(&reply)),
            reply => break reply.expect(507),
        }
    };
    assert_eq!(rejected.error().0, "storage_full");
    assert!(accepted.len() > 10, "{} jobs", accepted.len());
    // Another program takes the rest of the disk.
    let filler = disk.path().join("filler");
    let mut file = std::fs::File::create(&filler).expect("a file can be created");
    while file.write_all(&[1; 4096]).is_ok() {}
    drop(file);
    std::fs::write(&gate, "open").expect("open the gate");
    server.post(ECHO, &json!({"inputs": ["a"]})).expect(200);
    server.get("/readyz").expect(200);
    submit_large().expect(507);
    std::fs::remove_file(&filler).expect("the file exists");
    let ended = wait(&server, &running);
    assert_eq!(
        (&ended["state"], &ended["attempts"]),
        (&json!("succeeded"), &json!(1)),
        "the result is stored as soon as there is space, at the latest"
    );
    for id in &accepted {
        assert_eq!(wait(&server, id)["state"], "succeeded");
        assert_eq!(result(&server, id).expect(200).values(), [json!(7)]);
    }
    server.shut_down();
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

#[test]
fn a_job_of_a_model_that_a_reload_removes_runs_to_its_end_or_waits_for_the_model() {
    let only_words = format!("[jobs]\n{WORDS}");
    let with_m = format!("{only_words}{M}[models.batching]\nmax_batch_size = 1\n");
    crate::harness::plugins::library("misbehave");
    let server = Scenario::new(&with_m).start();
    let gate = server.dir().join("gate");
    let running = submit(&server, TEXT, &json!({"inputs": waiting(&gate)}));
    wait_for_state(&server, &running, "running");
    let queued: Vec<String> = (0..4)
        .map(|value| submit(&server, TEXT, &json!({"inputs": echoes([value])})))
        .collect();
    server.write_config(&only_words);
    server.signal(Signal::HUP);
    eventually("the model to be removed", || {
        match server.get("/v1/models/m").status {
            404 => Ok(()),
            status => Err(status),
        }
    });
    std::fs::write(&gate, "open").expect("open the gate");
    let ended = wait(&server, &running);
    assert_eq!(
        (&ended["state"], &ended["attempts"]),
        (&json!("succeeded"), &json!(1))
    );
    server.wait_for_metric("inference_reloads_total", &[("result", "success")], 1);
    server.write_config(&with_m);
    assert!(server.reload());
    for (value, id) in queued.iter().enumerate() {
        assert_eq!(wait(&server, id)["state"], "succeeded");
        assert_eq!(result(&server, id).expect(200).values(), [json!(value)]);
    }
}
