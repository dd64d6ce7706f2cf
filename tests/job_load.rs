//! A backlog of jobs beside online requests: what the jobs get done, what they cost the requests, and what memory they take.
//!
//! The long form (`INFERENCE_TEST_LONG=1`) has 100,000 jobs and checks the figures; the short form is for every change.

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::{Value as Json, json};

use crate::harness::client::predict_path;
use crate::harness::misbehave::echoes;
use crate::harness::numbered_jobs::SetOnDrop;
use crate::harness::resources::Resources;
use crate::harness::{Client, Scenario, Server, plugins, rounds};

/// Items in a batch, and what a batch takes, in milliseconds: mostly overhead, without using a CPU.
const BATCH: usize = 16;
const BATCH_MS: u64 = 40;
const ITEM_US: u64 = 500;

/// Threads that submit jobs.
const SUBMITTERS: usize = 8;

fn start() -> Server {
    let model = format!(
        "[[models]]\nname = \"m\"\nplugin = \"misbehave\"\n[models.settings]\nbatch_ms = {BATCH_MS}\nitem_us = {ITEM_US}\n\
         [models.batching]\nmax_batch_size = {BATCH}\n"
    );
    Scenario::new(&format!("[logging]\naccess_log = false\n{model}")).start()
}

/// One step of a load test.
struct Step {
    requests_per_second: f64,
    p99: f64,
}

/// Loads the server with the command `bench`.
fn bench(server: &Server, load: &[&str], seconds: usize) -> Step {
    let output = Command::new(plugins::executable())
        .args([
            "bench",
            "--url",
            &format!("http://{}", server.address()),
            "--model",
            "m",
        ])
        .args([
            "--task",
            "text",
            "--quiet",
            "--json",
            "-",
            "--duration",
            &format!("{seconds}s"),
        ])
        .args(load)
        .output()
        .expect("the command can be started");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let report: Json = serde_json::from_slice(&output.stdout).expect("the report is JSON");
    let step = &report["steps"][0];
    assert_eq!(step["errors"], json!([]), "no request fails");
    let number = |value: &Json| value.as_f64().expect("a number");
    Step {
        requests_per_second: number(&step["requests_per_second"]),
        p99: number(&step["latency_seconds"]["p99"]),
    }
}

/// Number of items of jobs that have run.
fn items_of_jobs(server: &Server) -> u64 {
    let task = [("model", "m"), ("task", "text")];
    server.metrics().count("inference_background_items_total", &task)
}

/// Submits jobs, each with one item.
fn submit(client: &Client, jobs: usize) {
    let body = json!({ "inputs": echoes(["x".repeat(100)]) });
    for _ in 0..jobs {
        let call = client
            .request("POST", &predict_path("m", "text"))
            .header("prefer", "respond-async");
        call.json(&body).send().expect(202);
    }
}

#[test]
fn a_backlog_of_jobs_uses_the_free_capacity_and_leaves_online_requests_as_they_are() {
    let (jobs, seconds) = (rounds(600, 100_000), rounds(2, 60));
    let server = start();
    let capacity = bench(&server, &["--concurrency", "64"], seconds.div_ceil(4)).requests_per_second;
    let rate = format!("{:.0}", capacity / 2.0);
    let online = ["--rate", rate.as_str(), "--max-connections", "512"];
    let without = bench(&server, &online, seconds);

    let before = server.resident_bytes();
    thread::scope(|scope| {
        for _ in 0..SUBMITTERS {
            let client = server.client();
            scope.spawn(move || submit(&client, jobs / SUBMITTERS));
        }
    });
    let submitted = server.resident_bytes();
    let is_over = &AtomicBool::new(false);
    let (with, done, elapsed, peak) = thread::scope(|scope| {
        let over = SetOnDrop(is_over);
        let process = server.pid().as_raw_nonzero().get().unsigned_abs();
        let memory = scope.spawn(move || {
            let mut peak = 0;
            while !is_over.load(Ordering::Relaxed) {
                peak = peak.max(Resources::of(process).resident_bytes);
                thread::park_timeout(Duration::from_millis(200));
            }
            peak
        });
        let (items, began) = (items_of_jobs(&server), inference_server::clock::now());
        let with = bench(&server, &online, seconds);
        let (done, elapsed) = (items_of_jobs(&server) - items, began.elapsed().as_secs_f64());
        drop(over);
        (
            with,
            done,
            elapsed,
            memory.join().expect("the memory can be read"),
        )
    });

    let free = capacity - with.requests_per_second;
    let share = done as f64 / elapsed / free;
    let full_batch = (BATCH_MS as f64 + BATCH as f64 * ITEM_US as f64 / 1e3) / 1e3;
    let mib = |bytes: u64| bytes >> 20;
    eprintln!(
        "{jobs} jobs, capacity {capacity:.0}/s, online {:.0}/s: p99 {:.1} ms without jobs, {:.1} ms with jobs (a full batch takes \
         {:.1} ms); jobs {:.0}/s, {share:.2} of the free capacity; memory {} MiB before, {} MiB with the backlog, {} MiB at most",
        with.requests_per_second,
        without.p99 * 1e3,
        with.p99 * 1e3,
        full_batch * 1e3,
        done as f64 / elapsed,
        mib(before),
        mib(submitted),
        mib(peak),
    );
    assert!(done > 0, "jobs run beside online requests");
    // Bodies are in the store, not in memory.
    assert!(
        peak.saturating_sub(before) < 64 << 20,
        "{} MiB more",
        mib(peak.saturating_sub(before))
    );
    if rounds(0, 1) == 1 {
        let promised = 1.1 * without.p99 + full_batch;
        assert!(
            with.p99 <= promised,
            "{:.4} s instead of {promised:.4} s",
            with.p99
        );
        assert!(share >= 0.8, "{share:.2} of the free capacity");
    }
}
