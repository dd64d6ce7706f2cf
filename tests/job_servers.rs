//! Servers that share the jobs in a PostgreSQL database.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::{Value as Json, json};

use crate::harness::haproxy::HaProxy;
use crate::harness::load::Load;
use crate::harness::misbehave::echoes;
use crate::harness::numbered_jobs::{NumberedJobs, SetOnDrop, WORDS};
use crate::harness::postgres::Postgres;
use crate::harness::{Client, Scenario, Server, Signal, eventually, rounds};

const PREDICT: &str = "/v1/models/m/tasks/text/predict";

fn start(database: &str) -> Server {
    crate::harness::plugins::library("misbehave");
    Scenario::new("[jobs]\nlease = \"5s\"\n[[models]]\nname = \"m\"\nplugin = \"misbehave\"\n")
        .env("INFERENCE_JOBS_STORE", database)
        .start()
}

/// Submits a job. Returns its id, or the status if it was rejected.
fn submit(client: &Client, inputs: &Json) -> Result<String, u16> {
    let call = client.request("POST", PREDICT).header("prefer", "respond-async");
    let reply = call.json(&json!({ "inputs": inputs })).send();
    match reply.status {
        202 => Ok(reply.json()["id"].as_str().expect("a job has an id").to_owned()),
        status => Err(status),
    }
}

fn wait_for_state(client: &Client, id: &str, state: &str) -> Json {
    eventually(state, || {
        let job = client.get(&format!("/v1/jobs/{id}?wait=5s")).expect(200).json();
        if job["state"] == state { Ok(job) } else { Err(job) }
    })
}

#[test]
fn another_server_continues_the_jobs_of_one_that_was_killed() {
    let Some(postgres) = Postgres::start() else { return };
    let database = postgres.create_database("shared");
    let home = Scenario::new("");
    let gate = home.dir().join("gate");
    let mut first = start(&database);
    let waiting = json!([{"do": "wait", "path": gate, "value": "waited"}]);
    let id = submit(&first, &waiting).expect("the job is accepted");
    wait_for_state(&first, &id, "running");
    let second = start(&database);
    first.signal(Signal::KILL);
    first.wait_for_exit();
    std::fs::write(&gate, "open").expect("the gate can be opened");
    let ended = wait_for_state(&second, &id, "succeeded");
    assert_eq!(ended["attempts"], 2);
    let result = second.get(&format!("/v1/jobs/{id}/result")).expect(200);
    assert_eq!(result.values(), [json!("waited")]);
}

/// The long form lets the database be down for a minute.
#[test]
fn a_database_that_is_down_only_rejects_jobs() {
    let Some(postgres) = Postgres::start() else { return };
    let database = postgres.create_database("down");
    let home = Scenario::new("");
    let gate = home.dir().join("gate");
    let server = start(&database);
    let before = submit(&server, &echoes([1])).expect("the job is accepted");
    wait_for_state(&server, &before, "succeeded");
    let waiting = json!([{"do": "wait", "path": gate, "value": "waited"}]);
    let running = submit(&server, &waiting).expect("the job is accepted");
    wait_for_state(&server, &running, "running");
    postgres.kill();
    // The job ends while its result cannot be stored.
    std::fs::write(&gate, "open").expect("the gate can be opened");
    let body = json!({"inputs": echoes([3])}).to_string();
    let online = Load::start(2, server.address(), PREDICT, &body);
    for _ in 0..rounds(1, 60) {
        assert_eq!(submit(&server, &echoes([2])), Err(503));
        server.get("/readyz").expect(200);
        thread::park_timeout(Duration::from_secs(1));
    }
    online.wait_for_replies(1);
    assert_eq!(
        online.stop(),
        Vec::<String>::new(),
        "online requests do not notice"
    );
    postgres.run();
    let after = eventually("the server to reconnect", || submit(&server, &echoes([4])));
    wait_for_state(&server, &after, "succeeded");
    for (id, value) in [(&before, json!(1)), (&running, json!("waited"))] {
        wait_for_state(&server, id, "succeeded");
        let result = server.get(&format!("/v1/jobs/{id}/result")).expect(200);
        assert_eq!(result.values(), [value]);
    }
}

/// Makes the database wait until the table `gate` has a row before it counts an attempt, and takes its time to return a job.
/// `waiting` has a row for each attempt that waits.
const SLOW: &str = "\
    CREATE TABLE gate (is_open bool);
    CREATE VIEW waiting AS SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ShareLock';
    CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM pg_advisory_xact_lock_shared(1);
        WHILE NOT EXISTS (SELECT FROM gate) LOOP PERFORM pg_sleep(0.01); END LOOP;
        RETURN NEW;
    END $$;
    CREATE FUNCTION sleep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(1); RETURN NEW; END';
    CREATE TRIGGER slow_attempt BEFORE UPDATE ON inference_server.jobs FOR EACH ROW
    WHEN (NEW.attempts > OLD.attempts) EXECUTE FUNCTION wait();
    CREATE TRIGGER slow_return BEFORE UPDATE ON inference_server.jobs FOR EACH ROW
    WHEN (NEW.state = 'queued' AND NEW.lease_until IS NULL) EXECUTE FUNCTION sleep()";

#[test]
fn jobs_that_begin_while_their_server_stops_are_run_by_it() {
    let Some(postgres) = Postgres::start() else { return };
    let database = postgres.create_database("slow");
    let home = Scenario::new("");
    let mut first = start(&database);
    let sql = |sql: &str| postgres.sql_in("slow", sql);
    sql(SLOW);
    let file = home.dir().join("gate");
    let waiting = json!([{"do": "wait", "path": file, "value": "waited"}]);
    let ids = [(); 3].map(|()| submit(&first, &waiting).expect("the job is accepted"));
    let wait_for_count = |expected: &str, rows: &str| {
        eventually(rows, || {
            match sql(&format!("SELECT count(*) FROM {rows}")).trim() {
                count if count == expected => Ok(()),
                other => Err(other.to_owned()),
            }
        });
    };
    wait_for_count("3", "waiting");
    first.signal(Signal::TERM);
    first.wait_for_log("shutting down");
    // The server decides what to do with the jobs. If that takes longer, the test cannot fail.
    thread::park_timeout(Duration::from_millis(100));
    sql("INSERT INTO gate VALUES (true)");
    // Each of them runs, or was returned.
    wait_for_count(
        "0",
        "inference_server.jobs WHERE state = 'queued' AND lease_until IS NOT NULL",
    );
    std::fs::write(&file, "open").expect("the gate can be opened");
    assert_eq!(first.wait_for_exit().code(), Some(0));
    let second = start(&database);
    for id in &ids {
        let ended = wait_for_state(&second, id, "succeeded");
        assert_eq!(ended["attempts"], 1, "{ended}");
    }
}

/// Starts a server behind a load balancer, on ports that the previous one may have used.
fn start_at(database: &str, http: u16, grpc: u16) -> Server {
    let server = "[server]\nshutdown_delay = \"2s\"\ndrain_timeout = \"60s\"\n";
    Scenario::new(&format!("{server}{WORDS}"))
        .env("INFERENCE_JOBS_STORE", database)
        .ports(http, grpc)
        .start()
}

#[test]
fn a_rolling_restart_behind_a_balancer_loses_neither_jobs_nor_requests() {
    let Some(postgres) = Postgres::start() else { return };
    let database = postgres.create_database("rolling");
    let mut servers = [(); 2].map(|()| start_at(&database, 0, 0));
    let Some(balancer) = HaProxy::start(&servers) else {
        return;
    };
    let body = json!({"inputs": ["to be"]}).to_string();
    let online = Load::start(4, balancer.http(), "/v1/models/words/tasks/echo/predict", &body);
    let submitted = NumberedJobs::default();
    let (is_over, submissions) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        let over = SetOnDrop(&is_over);
        scope.spawn(|| {
            let client = [Client::new(balancer.http())];
            while !is_over.load(Ordering::Relaxed) {
                let number = submissions.fetch_add(1, Ordering::Relaxed);
                submitted.submit(number..number + 1, &client, &is_over);
                // Online requests need some of the time as well.
                thread::park_timeout(Duration::from_millis(5));
            }
        });
        for _ in 0..rounds(1, 10) {
            balancer.restart_all(&mut servers, |http, grpc| start_at(&database, http, grpc));
        }
        drop(over);
    });
    online.wait_for_replies(1);
    assert_eq!(online.stop(), Vec::<String>::new(), "no request fails");
    // The last one may have been stopped before it was accepted.
    let all = submissions.load(Ordering::Relaxed);
    submitted.submit(
        all - 1..all,
        &[Client::new(balancer.http())],
        &AtomicBool::new(false),
    );
    assert_eq!(submitted.accepted(), all);
    let repeated = submitted.verify(&servers[0]);
    assert_eq!(repeated, 0, "jobs that run finish before their server exits");
    eprintln!("{all} jobs");
}

#[test]
fn submissions_with_one_idempotency_key_to_two_servers_at_the_same_time_create_one_job() {
    let Some(postgres) = Postgres::start() else { return };
    let database = postgres.create_database("idempotent");
    let servers = [start(&database), start(&database)];
    for round in 0..10 {
        let replies = thread::scope(|scope| {
            let submit = |number: usize| {
                let client = servers[number % 2].client();
                let call = move || {
                    let call = client
                        .request("POST", PREDICT)
                        .header("prefer", "respond-async")
                        .header("idempotency-key", &format!("key {round}"));
                    call.json(&json!({"inputs": echoes([round])}))
                        .send()
                        .expect(202)
                        .json()
                };
                scope.spawn(call)
            };
            let replies = [0, 1, 2, 3].map(submit);
            replies.map(|reply| reply.join().expect("it is accepted"))
        });
        let ids = replies.map(|job| job["id"].clone());
        assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    }
    let jobs = servers[0].get("/v1/jobs").expect(200).json();
    assert_eq!(jobs["data"].as_array().map(Vec::len), Some(10));
}
