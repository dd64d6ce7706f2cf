//! Servers that share the jobs in a PostgreSQL database.

use serde_json::{Value as Json, json};

use crate::harness::misbehave::echoes;
use crate::harness::postgres::Postgres;
use crate::harness::{Client, Scenario, Server, Signal, eventually};

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

#[test]
fn a_database_that_is_down_only_rejects_jobs() {
    let Some(postgres) = Postgres::start() else { return };
    let database = postgres.create_database("down");
    let server = start(&database);
    let before = submit(&server, &echoes([1])).expect("the job is accepted");
    wait_for_state(&server, &before, "succeeded");
    postgres.kill();
    assert_eq!(submit(&server, &echoes([2])), Err(503));
    server.post(PREDICT, &json!({"inputs": echoes([3])})).expect(200);
    server.get("/readyz").expect(200);
    postgres.run();
    let after = eventually("the server to reconnect", || submit(&server, &echoes([4])));
    wait_for_state(&server, &after, "succeeded");
    let result = server.get(&format!("/v1/jobs/{before}/result")).expect(200);
    assert_eq!(result.values(), [json!(1)]);
}
