//! Soak test with load, errors, deadlines, disconnects, crashes and reloads.
//!
//! `INFERENCE_SOAK_SECONDS` sets the duration. Memory must be stable and every accepted request must be served. If the test runs for
//! [`THROUGHPUT_SECONDS`] or longer, throughput must be stable as well; in a shorter run it depends on other load on the machine.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use inference_server::clock;
use serde_json::{Value as Json, json};

use crate::harness::misbehave::{echoes, perform};
use crate::harness::{Client, Scenario, Server};

/// Default duration.
const SECONDS: u64 = 16;

/// Minimum duration for comparing throughput, so that each quarter takes at least a minute.
const THROUGHPUT_SECONDS: Duration = Duration::from_secs(240);

fn config(round: u64) -> String {
    format!(
        "[[models]]\nname = \"thread\"\nplugin = \"misbehave\"\n[models.settings]\nbatch_ms = 2\ntag = \"{}\"\n\n\
         [[models]]\nname = \"process\"\nplugin = \"misbehave\"\nisolation = \"process\"\nrestart_delay = \"1ms\"\n\
         [models.settings]\nbatch_ms = 2\ntag = \"{round}\"\n\n\
         [[models]]\nname = \"steady\"\nplugin = \"template\"\n",
        // Each reload of a model in the server's process leaves its library mapped, which is not a leak.
        round / 8
    )
}

fn seconds() -> Duration {
    let seconds = std::env::var("INFERENCE_SOAK_SECONDS").map(|seconds| seconds.parse());
    Duration::from_secs(seconds.map_or(SECONDS, |seconds| seconds.expect("a whole number of seconds")))
}

/// One turn of a client: sends a request and checks its status.
fn act(client: &Client, turn: u64) -> Result<(), String> {
    let model = if turn.is_multiple_of(2) {
        "thread"
    } else {
        "process"
    };
    let (task, inputs, expected): (&str, Json, &[u16]) = match turn % 16 {
        0..=7 => ("text", echoes([turn, turn + 1]), &[200]),
        8..=11 => ("prepared", echoes([turn]), &[200]),
        12 => ("text", json!([perform("fail_item", turn)]), &[422]),
        13 => ("text", json!([perform("panic", turn)]), &[500]),
        14 => ("text", json!([{"do": "sleep", "ms": 30}]), &[200, 504]),
        _ => ("text", json!([{"no such": "field"}]), &[422]),
    };
    // A failed batch also fails the other items in it.
    let may_be_company = [500, 504];
    let call = client
        .request("POST", &format!("/v1/models/{model}/tasks/{task}/predict"))
        .header("x-request-timeout", if turn % 16 == 14 { "20ms" } else { "20s" });
    let reply = call
        .json(&json!({ "inputs": inputs }))
        .try_send()
        .map_err(|error| format!("no answer: {error}"))?;
    match reply.status {
        status if expected.contains(&status) || may_be_company.contains(&status) => Ok(()),
        // The queue is longer than a short deadline allows.
        429 if expected.contains(&504) && reply.error().0 == "overloaded" => Ok(()),
        status => Err(format!("{model}/{task} answered {status}: {}", reply.text())),
    }
}

struct Sample {
    at: Instant,
    memory: u64,
    answered: u64,
}

#[test]
fn memory_and_throughput_are_stable_under_load_errors_timeouts_crashes_and_reloads() {
    let server = Scenario::new(&config(0)).start();
    let (stop, answered) = (AtomicBool::new(false), AtomicU64::new(0));
    let samples = thread::scope(|scope| {
        let clients: Vec<_> = (0..6u64)
            .map(|number| {
                let (client, stop, answered) = (server.client(), &stop, &answered);
                scope.spawn(move || {
                    let mut turn = number * 1000;
                    while !stop.load(Ordering::Relaxed) {
                        act(&client, turn)?;
                        answered.fetch_add(1, Ordering::Relaxed);
                        turn += 1;
                    }
                    Ok::<(), String>(())
                })
            })
            .collect();
        let samples = disturb(&server, &answered);
        stop.store(true, Ordering::Relaxed);
        for client in clients {
            assert_eq!(client.join().expect("a client ends"), Ok(()));
        }
        samples
    });
    assert_flat(&samples);
    // Clients that disconnect directly after their request count as half-closed, so their items still run.
    server.wait_for_metric("inference_queue_items", &[], 0);
    server.wait_for_metric("inference_executing_items", &[], 0);
    let metrics = server.metrics();
    assert_eq!(metrics.count("inference_items_total", &[("outcome", "lost")]), 0);
    server.wait_for_metric("inference_generations_live", &[], 3);
    assert_eq!(server.processes().len(), 1);
    server.shut_down();
}

/// Minimum number of rounds, so that their quarters can be compared.
const MIN_ROUNDS: usize = 8;

/// Reloads models, causes crashes and disconnects clients until the time is over. Returns samples taken in the meantime.
fn disturb(server: &Server, answered: &AtomicU64) -> Vec<Sample> {
    let end = clock::now() + seconds();
    let mut samples = Vec::new();
    let mut round = 0;
    while clock::now() < end || samples.len() < MIN_ROUNDS {
        round += 1;
        server.write_config(&config(round));
        assert!(server.reload(), "reload {round} failed");
        server
            .predict("process", "text", &json!([perform("abort", round)]))
            .expect(500);
        for _ in 0..4 {
            let mut leaves = server.connect();
            leaves.send(
                "POST /v1/models/thread/tasks/text/predict HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\n\
                 content-length: 21\r\n\r\n{\"inputs\":[{\"ms\":1}]}",
            );
        }
        samples.push(Sample {
            at: clock::now(),
            memory: server.resident_bytes(),
            answered: answered.load(Ordering::Relaxed),
        });
    }
    samples
}

/// Compares the memory and throughput of the last quarter with those of the second one.
fn assert_flat(samples: &[Sample]) {
    let quarter = samples.len() / 4;
    let (early, late) = (
        &samples[quarter..2 * quarter],
        &samples[samples.len() - quarter..],
    );
    let mean =
        |samples: &[Sample]| samples.iter().map(|sample| sample.memory).sum::<u64>() / samples.len() as u64;
    let grown = mean(late).saturating_sub(mean(early));
    let allowed = (8 << 20) + samples.len() as u64 / 8 * (100 << 10);
    assert!(
        grown < allowed,
        "memory has grown by {grown} bytes in {} rounds",
        samples.len()
    );
    let rate = |samples: &[Sample]| {
        let (first, last) = (&samples[0], &samples[samples.len() - 1]);
        (last.answered - first.answered) as f64 / (last.at - first.at).as_secs_f64()
    };
    let (first, last) = (rate(early), rate(late));
    assert!(
        seconds() < THROUGHPUT_SECONDS || last >= first * 0.98,
        "throughput has fallen from {first:.0} to {last:.0} requests a second"
    );
    eprintln!(
        "{} rounds, {first:.0} and then {last:.0} requests a second, memory {} and then {} KiB",
        samples.len(),
        mean(early) >> 10,
        mean(late) >> 10
    );
}
