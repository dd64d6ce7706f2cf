//! The server is killed at random moments while jobs run. Every job that was accepted has exactly one result, equal to that of the
//! synchronous call.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value as Json, json};

use crate::harness::{Client, Scenario, Server, Signal, eventually, rounds, seed};

const ECHO: &str = "/v1/models/words/tasks/echo/predict";

const CONFIG: &str = "[jobs]\nmax_attempts = 1000\n[logging]\naccess_log = false\n\
                      [[models]]\nname = \"words\"\nplugin = \"template\"\n[models.batching]\nmax_batch_size = 8\n";

/// Starts a server on the jobs of the previous one.
fn start(database: &Path) -> Server {
    let database = database.to_str().expect("a path is text");
    Scenario::new(CONFIG)
        .env("INFERENCE_JOBS_PATH", database)
        .start_unready()
}

/// The texts of a job.
fn texts(number: usize) -> Json {
    (0..number % 5 + 1)
        .map(|item| format!("text {item} of job {number}"))
        .collect()
}

/// Submits jobs until the server does not answer or all are accepted. `next` is the first one that is not.
fn submit(client: &Client, accepted: &mut BTreeMap<usize, String>, all: usize, is_killed: &AtomicBool) {
    while accepted.len() < all && !is_killed.load(Ordering::Relaxed) {
        let number = accepted.len();
        let call = client
            .request("POST", ECHO)
            .header("prefer", "respond-async")
            .header("idempotency-key", &format!("job {number}"))
            .json(&json!({ "inputs": texts(number) }));
        match call.try_send() {
            Ok(reply) if reply.status == 202 => {
                let id = reply.json()["id"].as_str().expect("an id").to_owned();
                accepted.insert(number, id);
            }
            // The model is being loaded.
            Ok(reply) => assert_eq!(reply.status, 503, "{}", reply.text()),
            Err(_) => return,
        }
    }
}

#[test]
fn every_accepted_job_has_exactly_one_result_however_often_the_server_is_killed() {
    let (kills, jobs) = (rounds(20, 1000), rounds(300, 20_000));
    let mut random = fastrand::Rng::with_seed(seed());
    let home = Scenario::new("");
    let database = home.dir().join("jobs.sqlite");
    let mut accepted = BTreeMap::new();
    for kill in 0..kills {
        let mut server = start(&database);
        // A part of the jobs per life of the server, and all of them at the end.
        let until = jobs * (kill + 1) / kills;
        let (client, is_killed) = (server.client(), AtomicBool::new(false));
        let delay = Duration::from_millis(random.u64(1..300));
        std::thread::scope(|scope| {
            scope.spawn(|| submit(&client, &mut accepted, until, &is_killed));
            eventually("the server to be ready", || match server.get("/readyz").status {
                200 => Ok(()),
                status => Err(status),
            });
            std::thread::park_timeout(delay);
            is_killed.store(true, Ordering::Relaxed);
            server.signal(Signal::KILL);
            server.wait_for_exit();
        });
    }
    let server = start(&database);
    server.wait_until_ready();
    submit(&server.client(), &mut accepted, jobs, &AtomicBool::new(false));
    assert_eq!(accepted.len(), jobs);
    let mut repeated = 0;
    for (number, id) in &accepted {
        let job = eventually("a job to end", || {
            let job = server.get(&format!("/v1/jobs/{id}?wait=30s")).expect(200).json();
            match job["state"].as_str() {
                Some("queued" | "running") => Err(job),
                _ => Ok(job),
            }
        });
        assert_eq!(job["state"], "succeeded", "{job}");
        repeated += job["attempts"].as_u64().expect("a number") - 1;
        let result = server.get(&format!("/v1/jobs/{id}/result")).expect(200);
        let synchronous = server
            .post(ECHO, &json!({ "inputs": texts(*number) }))
            .expect(200);
        let comparable = |mut reply: Json| {
            reply["inference_time"] = 0.into();
            reply
        };
        assert_eq!(
            comparable(result.json()),
            comparable(synchronous.json()),
            "job {number}"
        );
    }
    eprintln!("{jobs} jobs and {kills} kills: {repeated} attempts were repeated");
    // There are no others, such as a second one for the same idempotency key.
    eventually("the metrics to report the jobs", || {
        let text = server.get("/metrics").expect(200).text();
        let found: Vec<&str> = text
            .lines()
            .filter(|line| line.starts_with("inference_jobs{"))
            .collect();
        let expected = format!("inference_jobs{{model=\"words\",state=\"succeeded\"}} {jobs}");
        if found == [expected.as_str()] {
            Ok(())
        } else {
            Err(found.join("\n"))
        }
    });
}
