//! Health checks and metrics respond while models use all cores.

use std::time::Duration;

use rustix::process::getpriority_process;
use serde_json::json;

use crate::harness::eventually::eventually;
use crate::harness::plugins::{library, repository};
use crate::harness::resources::niceness_of_threads;
use crate::harness::{Scenario, Server};

/// Maximum latency. Generous, because the machine may be running other tests. Benchmarks measure the actual latency.
const LIMIT: Duration = Duration::from_millis(50);

/// Maximum ratio to the latency with an idle model, if the machine itself exceeds the limit.
const FACTOR: u32 = 5;

/// Maximum number of attempts. Other load on the machine is temporary, a fault of the server is not.
const ROUNDS: usize = 10;

#[test]
fn health_and_metrics_respond_while_all_cores_are_busy() {
    let server = Scenario::misbehave("", "").start();
    let mut rounds = Vec::new();
    while rounds.len() < ROUNDS {
        let idle = p99(&server, || true);
        let busy = p99_while_every_core_computes(&server);
        if busy < LIMIT.max(idle * FACTOR) {
            return;
        }
        rounds.push((idle, busy));
    }
    panic!("p99 of each round with an idle and with a busy model: {rounds:?}");
}

/// Starts a server with a model whose plugin starts its own threads while loading, and has a prepare step.
fn with_threads_of_its_own(isolation: &str) -> Server {
    library("sentence_embeddings");
    let folder = repository().join("plugins/sentence-embeddings/tests/models/e5");
    Scenario::new(&format!(
        "[server]\nmodel_nice = 7\n\n[[models]]\nname = \"m\"\nplugin = \"sentence_embeddings\"\n\
         isolation = \"{isolation}\"\n\n[models.settings]\nfolder = \"{}\"\n",
        folder.display()
    ))
    .start()
}

#[test]
fn all_threads_that_run_models_have_a_higher_niceness_than_those_that_serve_clients() {
    let server = with_threads_of_its_own("thread");
    let own = own_niceness();
    // A thread sets its name and its niceness when it first runs.
    eventually("every thread to have its niceness", || {
        let threads = niceness_of_threads(server.pid().as_raw_pid());
        let all_have = |name: &str, niceness| {
            let mut named = threads
                .iter()
                .filter(|(thread, _)| thread.starts_with(name))
                .peekable();
            named.peek().is_some() && named.all(|(_, nice)| *nice == niceness)
        };
        let are_right = ["model m", "prepare", "encoder"]
            .iter()
            .all(|name| all_have(name, own.max(7)))
            && all_have("actix", own);
        are_right.then_some(()).ok_or(threads)
    });
}

#[test]
fn all_threads_of_a_model_process_have_a_higher_niceness_than_those_that_serve_clients() {
    let server = with_threads_of_its_own("process");
    let expected = own_niceness().max(7);
    for process in server.processes() {
        eventually("every thread to have its niceness", || {
            let threads = niceness_of_threads(process.number());
            let are_right = threads.iter().all(|(_, nice)| *nice == expected);
            are_right.then_some(()).ok_or(threads)
        });
    }
}

/// Returns the niceness of this test, which the server inherits and never lowers.
fn own_niceness() -> i64 {
    getpriority_process(None)
        .expect("the calling process has a niceness")
        .into()
}

fn p99_while_every_core_computes(server: &Server) -> Duration {
    let busy = server.in_background(|client| {
        let call = client.request("POST", "/v1/models/m/tasks/text/predict");
        call.json(&json!({"inputs": [{"do": "busy", "ms": 1500}]}))
            .try_send()
    });
    server.wait_for_metric("inference_executing_items", &[("model", "m")], 1);
    let p99 = p99(server, || !busy.is_answered());
    busy.reply().expect(200);
    p99
}

/// Sends requests for a while, as long as `go_on` returns true. Returns the 99th percentile of the latency.
fn p99(server: &Server, go_on: impl Fn() -> bool) -> Duration {
    let mut times = Vec::new();
    let paths = ["/livez", "/readyz", "/health", "/metrics", "/v1/models"];
    for path in paths.iter().cycle().take(200) {
        let took = server.get(path).expect(200).took();
        if !go_on() {
            break;
        }
        times.push(took);
    }
    times.sort_unstable();
    let p99 = times.len() * 99 / 100;
    // No reply while the model was busy means that replies were too slow.
    times.get(p99).copied().unwrap_or(Duration::MAX)
}
