//! Durable jobs: submission, states, results, limits, visibility, and what survives.

mod endings;
mod results;
mod submissions;
mod survival;
mod visibility;

use std::path::Path;

use serde_json::{Value as Json, json};

use crate::harness::client::Call;
use crate::harness::{Client, Reply, Scenario, Server, eventually};

/// Configuration of one model `words` of the plugin `template`.
const WORDS: &str = "[[models]]\nname = \"words\"\nplugin = \"template\"\ndefault_task = \"echo\"\n\
                     [models.tasks.echo]\nroute = \"/say\"\n";

/// Configuration of one model `m` of the plugin `misbehave`.
const M: &str = "[[models]]\nname = \"m\"\nplugin = \"misbehave\"\n";

const ECHO: &str = "/v1/models/words/tasks/echo/predict";
const TEXT: &str = "/v1/models/m/tasks/text/predict";

fn start(jobs: &str, models: &str) -> Server {
    crate::harness::plugins::library("misbehave");
    Scenario::new(&format!("[jobs]\n{jobs}\n{models}")).start()
}

/// A request for a job.
fn job<'a>(client: &'a Client, path: &str, body: &Json) -> Call<'a> {
    client
        .request("POST", path)
        .header("prefer", "respond-async")
        .json(body)
}

/// Submits a job, and returns its id.
#[track_caller]
fn submit(client: &Client, path: &str, body: &Json) -> String {
    id_of(&job(client, path, body).send().expect(202))
}

#[track_caller]
fn id_of(reply: &Reply) -> String {
    reply.json()["id"].as_str().expect("a job has an id").to_owned()
}

/// Waits until a job has ended.
#[track_caller]
fn wait(client: &Client, id: &str) -> Json {
    eventually("a job to end", || {
        let job = client.get(&format!("/v1/jobs/{id}?wait=30s")).expect(200).json();
        match job["state"].as_str() {
            Some("queued" | "running") => Err(job),
            _ => Ok(job),
        }
    })
}

fn wait_for_state(client: &Client, id: &str, state: &str) {
    eventually(state, || {
        let job = client.get(&format!("/v1/jobs/{id}")).expect(200).json();
        if job["state"] == state { Ok(()) } else { Err(job) }
    });
}

fn result(client: &Client, id: &str) -> Reply {
    client.get(&format!("/v1/jobs/{id}/result"))
}

/// Waits until the metrics report this number of jobs of a model in a state.
fn wait_for_jobs(server: &Server, model: &str, state: &str, count: usize) {
    let line = format!("inference_jobs{{model=\"{model}\",state=\"{state}\"}} {count}");
    eventually(&line, || {
        let text = server.get("/metrics").expect(200).text();
        let jobs = text.lines().filter(|line| line.starts_with("inference_jobs{"));
        let jobs: Vec<String> = jobs.map(str::to_owned).collect();
        if jobs.contains(&line) { Ok(()) } else { Err(jobs) }
    });
}

/// An item that waits until the file exists.
fn waiting(file: &Path) -> Json {
    json!([{"do": "wait", "path": file, "value": "waited"}])
}

/// The parts of a native reply that do not depend on time.
fn timeless(reply: &Reply) -> Json {
    let mut json = reply.json();
    json["inference_time"] = 0.into();
    json["error"]["request_id"] = Json::Null;
    json
}
