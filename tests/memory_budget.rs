//! Batches stay within their memory budget, as measured from outside.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use inference_server::batcher::cost_model::{BatchShape, CostModel, Sample, TaskCosts};
use inference_server::batching::WeightRule;
use inference_server::calibration::{CalibrationKey, Measured};
use serde_json::{Value as Json, json};

use crate::harness::resources::Resources;
use crate::harness::{Scenario, Server, eventually, plugins};

const MIB: u64 = 1 << 20;

/// The coefficients of the task `padded_memory`, in bytes: of a batch, of each item, and of each `B·L` and `B·L²`.
const COEFFICIENTS: [u64; 4] = [MIB, 256 << 10, 64 << 10, 256];

/// A batch of the maximum size needs 337 MiB with these weights.
const MAX_BATCH_SIZE: u64 = 64;
const MAX_WEIGHT: u64 = 64;

/// Bytes that a batch allocates.
fn bytes(items: u64, heaviest: u64) -> u64 {
    let [c0, c1, c2, c3] = COEFFICIENTS;
    c0 + items * (c1 + heaviest * (c2 + heaviest * c3))
}

/// The tables of a model, whose calibration must be written with [`write_calibration`].
pub(crate) fn model(name: &str, keys: &str) -> String {
    tables(
        name,
        &format!("calibration = \"{name}.json\"\n{keys}"),
        COEFFICIENTS,
    )
}

fn tables(name: &str, keys: &str, [c0, c1, c2, c3]: [u64; 4]) -> String {
    format!(
        "[[models]]\nname = \"{name}\"\nplugin = \"misbehave\"\nisolation = \"process\"\ncpus = 1\n{keys}\n\
         [models.settings.padded_memory]\nc0 = {c0}\nc1 = {c1}\nc2 = {c2}\nc3 = {c3}\nns_per_weight = 2000\n\
         [models.batching]\nmax_batch_size = {MAX_BATCH_SIZE}\n"
    )
}

/// Writes the calibration of a model by hand. Its batches were measured with this number of threads.
pub(crate) fn write_calibration(dir: &Path, name: &str, threads: u32) {
    let [c0, c1, c2, c3] = COEFFICIENTS;
    let settings = json!({"padded_memory": {"c0": c0, "c1": c1, "c2": c2, "c3": c3, "ns_per_weight": 2000}});
    let key = CalibrationKey::of(Measured {
        plugin: &plugins::library("misbehave"),
        files: &[],
        settings: &settings,
        details: &BTreeMap::new(),
        threads,
    });
    let cells = [1, 4, 16, 64]
        .into_iter()
        .flat_map(|items| [1, 8, 64].map(|weight| (items, weight)));
    let samples: Vec<Sample> = cells
        .map(|(items, weight)| Sample {
            shape: BatchShape::of((0..items).map(|_| weight)),
            measured: bytes(items, weight) as f64,
        })
        .collect();
    let costs = TaskCosts {
        memory: Some(CostModel::fit(WeightRule::Padded, &samples).expect("the samples are valid")),
        time: None,
    };
    let calibration = json!({
        "format_version": 1,
        "model": name,
        "key": key.expect("the plugin can be read"),
        "measured_unix_seconds": 1_700_000_000,
        "memory_source": "process",
        "idle_bytes": 0,
        "tasks": {"padded_memory": {
            "weight_rule": "padded",
            "costs": costs,
            "not_fitted": {},
            "cores_used": 1.0,
            "points": [],
            "skipped": [],
        }},
    });
    let file = dir.join(format!("{name}.json"));
    std::fs::write(file, calibration.to_string()).expect("write the calibration");
}

/// Starts a server with these models, each of which is calibrated.
fn start(server: &str, models: &[(&str, &str)]) -> Server {
    let tables: String = models.iter().map(|(name, keys)| model(name, keys)).collect();
    let scenario = Scenario::new(&format!("{server}\n{tables}"));
    for (name, _) in models {
        write_calibration(scenario.dir(), name, 1);
    }
    scenario.start()
}

/// Items of these weights, for the task `padded_memory`.
pub(crate) fn weights(weights: impl IntoIterator<Item = u64>) -> Json {
    weights
        .into_iter()
        .map(|weight| json!({"weight": weight}))
        .collect()
}

/// Sends requests of 32 items of various weights to these models, many at a time. Returns the bytes of the largest batch.
fn send_mixed(server: &Server, models: &[&str], requests: u64) -> u64 {
    let pending: Vec<_> = (0..requests)
        .map(|request| {
            let model = models[request as usize % models.len()];
            let mixed = (0..32).map(|item| 1 + (request * 7919 + item * 104_729) % MAX_WEIGHT);
            server
                .client()
                .predict_in_background(model, "padded_memory", &weights(mixed))
        })
        .collect();
    let outputs = pending
        .into_iter()
        .flat_map(|pending| pending.reply().expect(200).outputs());
    let bytes = outputs.map(|output| output["bytes"].as_u64().expect("a number of bytes"));
    bytes.max().expect("there are outputs")
}

/// Runs `work`, and returns by how many bytes the resident memory of all processes exceeded its initial value, and the result. It
/// runs once before, since the first requests also allocate what the server needs for any request.
fn observed<T>(server: &Server, work: impl Fn() -> T) -> (u64, T) {
    work();
    let pids: Vec<u32> = server
        .processes()
        .iter()
        .map(|process| process.number().unsigned_abs())
        .collect();
    let resident = || -> u64 { pids.iter().map(|pid| Resources::of(*pid).resident_bytes).sum() };
    let (before, most, done) = (resident(), AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                most.fetch_max(resident(), Ordering::Relaxed);
                thread::park_timeout(Duration::from_millis(1));
            }
        });
        let result = work();
        done.store(true, Ordering::Relaxed);
        (most.load(Ordering::Relaxed).saturating_sub(before), result)
    })
}

/// The measured memory may exceed the budget by this much.
fn tolerated(budget: u64) -> u64 {
    budget + budget / 20
}

#[test]
fn batches_fill_the_budget_and_stay_within_it() {
    let budget = 96 * MIB;
    let server = start("", &[("m", "memory_budget = \"96MiB\"")]);
    let (peak, largest) = observed(&server, || send_mixed(&server, &["m"], 24));
    assert!(largest <= budget, "{largest} bytes in a batch");
    assert!(
        largest > budget / 2,
        "a budget that does not bind: {largest} bytes"
    );
    assert!(peak <= tolerated(budget), "{peak} bytes were resident");

    let metrics = server.metrics();
    let task = [("model", "m"), ("task", "padded_memory")];
    let limited = [("model", "m"), ("task", "padded_memory"), ("reason", "memory")];
    assert!(metrics.count("inference_batches_total", &limited) > 0);
    assert_eq!(metrics.count("inference_out_of_memory_total", &task), 0);
    assert_eq!(
        metrics.count("inference_memory_budget_bytes", &[("model", "m")]),
        budget
    );
    let batches = metrics.count("inference_batch_size_count", &task);
    assert_eq!(
        metrics.count("inference_batch_memory_predicted_bytes_count", &task),
        batches
    );
    let predicted = metrics.count("inference_batch_memory_predicted_bytes_sum", &task);
    assert!(
        predicted / batches <= budget,
        "{predicted} bytes in {batches} batches"
    );
    assert!(metrics.count("inference_batch_memory_measured_bytes_count", &task) > 0);
    let padded = metrics.count("inference_batch_weight_sum", &task);
    let weight = metrics.count("inference_item_weight_total", &task);
    assert!(weight > 0 && padded >= weight, "{padded} {weight}");

    let model = server.model("m");
    assert_eq!(model["memory"]["budget_bytes"], budget);
    let tasks = model["tasks"].as_array().expect("a list of tasks");
    let task = tasks
        .iter()
        .find(|task| task["name"] == "padded_memory")
        .expect("the task");
    let shown = &task["memory"];
    assert_eq!(shown["budget_bytes"], budget);
    assert!(
        shown["predicted_bytes"]
            .as_u64()
            .is_some_and(|bytes| bytes <= budget),
        "{shown}"
    );
    assert!(shown["measured_bytes"].as_u64().is_some(), "{shown}");
    assert!(
        shown["limited_batches"]
            .as_u64()
            .is_some_and(|batches| batches > 0),
        "{shown}"
    );
    assert!(
        shown["margin"].as_f64().is_some_and(|margin| margin >= 0.0),
        "{shown}"
    );
    let share = task["padding_share"].as_f64().expect("a share");
    assert!((share - padded as f64 / weight as f64).abs() < 1e-6, "{share}");
}

#[test]
fn the_workers_of_a_model_share_its_budget() {
    let budget = 96 * MIB;
    let server = start("", &[("m", "workers = 2\nmemory_budget = \"96MiB\"")]);
    let (peak, largest) = observed(&server, || send_mixed(&server, &["m"], 24));
    assert!(largest <= budget / 2, "{largest} bytes in a batch");
    assert!(peak <= tolerated(budget), "{peak} bytes were resident");
}

#[test]
fn an_item_that_exceeds_the_budget_alone_is_rejected_and_the_others_run() {
    let server = start("", &[("m", "memory_budget = \"96MiB\"")]);
    let reply = server.predict("m", "padded_memory", &weights([1500]));
    assert_eq!(reply.status, 422, "{}", reply.text());
    let (code, message) = reply.error();
    assert_eq!(code, "invalid_input");
    let predicted = bytes(1, 1500) as f64 / MIB as f64;
    let expected =
        format!("the item needs {predicted:.1} MiB of memory, more than the memory budget of 96.0 MiB");
    assert!(message.contains(&expected), "{message}");
    assert!(message.contains("raise `memory_budget`"), "{message}");
    server
        .predict("m", "padded_memory", &weights([1, 64, 2]))
        .expect(200);
}

#[test]
fn a_new_budget_applies_without_loading_the_model_again() {
    let server = start("", &[("m", "memory_budget = \"96MiB\"")]);
    let heavy = weights([800]);
    assert_eq!(server.predict("m", "padded_memory", &heavy).status, 422);
    let generation = server.generation("m");
    server.write_config(&model("m", "memory_budget = \"1GiB\""));
    assert!(server.reload());
    assert_eq!(server.generation("m"), generation);
    server.predict("m", "padded_memory", &heavy).expect(200);
    server.write_config(&model("m", "memory_budget = \"96MiB\""));
    assert!(server.reload());
    eventually("the item to be rejected", || {
        match server.predict("m", "padded_memory", &heavy).status {
            422 => Ok(()),
            status => Err(status),
        }
    });
}

#[test]
fn models_share_the_budget_of_the_server() {
    let budget = 64 * MIB;
    let server = start(
        "[server]\nmemory_budget = \"64MiB\"",
        &[("one", ""), ("other", "")],
    );
    let (peak, largest) = observed(&server, || send_mixed(&server, &["one", "other"], 24));
    assert!(largest <= budget, "{largest} bytes in a batch");
    assert!(peak <= tolerated(budget), "{peak} bytes were resident");
    let metrics = server.metrics();
    for model in ["one", "other"] {
        let of_model = [("model", model)];
        assert_eq!(metrics.count("inference_memory_budget_bytes", &of_model), budget);
        server.wait_for_metric("inference_memory_reserved_bytes", &of_model, 0);
    }
}

#[test]
fn a_stale_calibration_is_reported_and_not_used() {
    let scenario = Scenario::new(&model("m", "memory_budget = \"96MiB\""));
    write_calibration(scenario.dir(), "m", 7);
    let server = scenario.start();
    let warning = server.wait_for_log("is stale");
    assert!(
        warning.contains("it was measured with 7 threads, and the model has 1"),
        "{warning}"
    );
    assert!(server.model("m")["memory"].is_null());
    server.predict("m", "padded_memory", &weights([800])).expect(200);
}

#[test]
fn a_calibration_that_does_not_exist_fails_the_load() {
    let server = Scenario::new(&model("m", "memory_budget = \"96MiB\"")).start_unready();
    let error = server.wait_for_log("there is no calibration");
    assert!(error.contains("inference-server calibrate"), "{error}");
}

#[test]
fn an_automatic_calibration_is_complete_before_the_model_is_ready_and_is_kept() {
    let config = |coefficients| {
        let keys = "calibration = \"auto\"\ncalibration_timeout = \"15s\"\nmemory_budget = \"96MiB\"";
        format!(
            "[server]\nadmin_key = \"an-administrator\"\n\n{}",
            tables("m", keys, coefficients)
        )
    };
    let server = Scenario::new(&config(COEFFICIENTS)).start();
    let heavy = server.predict("m", "padded_memory", &weights([1500]));
    assert_eq!(heavy.status, 422, "{}", heavy.text());
    server
        .predict("m", "padded_memory", &weights([1, 64, 2]))
        .expect(200);
    assert_eq!(server.model("m")["memory"]["budget_bytes"], 96 * MIB);
    let measurements = || server.log().text().matches("measuring its batches").count();
    assert_eq!(measurements(), 1);
    assert!(server.dir().join("calibration/m.json").is_file());

    // The file is valid for the same model.
    for action in ["unload", "load"] {
        server
            .request("POST", &format!("/v2/repository/models/m/{action}"))
            .header("authorization", "Bearer an-administrator")
            .send()
            .expect(200);
    }
    assert_eq!(measurements(), 1);
    assert_eq!(server.predict("m", "padded_memory", &weights([1500])).status, 422);

    // It is not for a model with other settings.
    let [c0, c1, c2, c3] = COEFFICIENTS;
    server.write_config(&config([c0, c1, c2 / 2, c3 / 2]));
    assert!(server.reload());
    let again = server.wait_for_log("measuring its batches again");
    assert!(again.contains("stale"), "{again}");
}
