//! Clients of others, unchanged: those of Triton, KServe and OpenAI, and tools that load or fuzz a server.
//!
//! Each is a script in `tests/clients` that fails by itself; see [`crate::harness::clients`] for how they are installed.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use inference_server::clock;
use serde_json::json;

use crate::harness::misbehave::echo;
use crate::harness::{Scenario, Server, clients, eventually, misbehave::Batches};

const ADMIN_KEY: &str = "an-administrator";

/// The models `words` and `m`, over HTTP and gRPC.
fn start() -> Server {
    crate::harness::plugins::library("misbehave");
    Scenario::new(&format!(
        "[server]\nadmin_key = \"{ADMIN_KEY}\"\n\n\
         [[models]]\nname = \"words\"\nplugin = \"template\"\ndefault_task = \"stats\"\n\n\
         [[models]]\nname = \"m\"\nplugin = \"misbehave\"\n"
    ))
    .argument("--grpc-port")
    .argument("0")
    .start()
}

fn run(script: &str, arguments: &[&str]) {
    let output = clients::script(script, arguments)
        .output()
        .expect("Python can be started");
    assert!(
        output.status.success(),
        "{script} failed:\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn tritonclient_over_http() {
    let server = start();
    run("triton_http.py", &[&server.address().to_string(), ADMIN_KEY]);
}

#[test]
fn tritonclient_over_grpc() {
    let server = start();
    run("triton_grpc.py", &[&server.grpc_address().to_string(), ADMIN_KEY]);
}

#[test]
fn the_rest_client_of_kserve() {
    let server = start();
    run("kserve_rest.py", &[&server.address().to_string()]);
}

#[test]
fn the_grpc_client_of_kserve() {
    let server = start();
    run("kserve_grpc.py", &[&server.grpc_address().to_string()]);
}

#[test]
fn the_client_of_openai() {
    let server = start();
    run("openai_embeddings.py", &[&server.address().to_string()]);
}

/// Runs perf_analyzer for a hundred requests, and looks at its report.
fn analyze(model: &str, protocol: &str, address: SocketAddr) {
    let output = clients::perf_analyzer()
        .args(["-m", model, "-i", protocol, "-u", &address.to_string()])
        .args([
            "--request-count",
            "100",
            "--concurrency-range",
            "2",
            "--shape",
            "numbers:8",
        ])
        .output()
        .expect("perf_analyzer can be started");
    let report = [output.stdout, output.stderr].concat();
    let report = String::from_utf8_lossy(&report);
    assert!(output.status.success(), "{report}");
    assert!(report.contains("Concurrency: 2, throughput: "), "{report}");
    for complaint in ["error", "fail", "WARNING"] {
        assert!(
            !report.to_lowercase().contains(&complaint.to_lowercase()),
            "{report}"
        );
    }
}

#[test]
fn perf_analyzer_over_http_and_grpc() {
    let server = start();
    analyze("m.tensor", "http", server.address());
    analyze("m.tensor", "grpc", server.grpc_address());
}

#[test]
fn requests_of_every_protocol_share_batches() {
    let server = start();
    let occupied = server.occupy("m");
    let native = server.predict_in_background("m", "text", &json!([echo("native")]));
    let v2 = server.in_background(|client| {
        let item = json!({"inputs": [{"name": "JSON", "datatype": "BYTES", "shape": [1],
            "data": [echo("v2").to_string()]}], "parameters": {"timeout": 600_000_000u64}});
        client
            .request("POST", "/v2/models/m.text/infer")
            .json(&item)
            .try_send()
    });
    let grpc = clients::script(
        "one_grpc_request.py",
        &[&server.grpc_address().to_string(), "grpc"],
    )
    .stdout(Stdio::piped())
    .spawn()
    .expect("Python can be started");
    server.wait_for_queued("m", "text", 3);
    occupied.release();
    assert_eq!(native.reply().report().batch_size(), 3);
    v2.reply().expect(200);
    let grpc = grpc.wait_with_output().expect("Python ends");
    let report: serde_json::Value = serde_json::from_slice(&grpc.stdout).expect("it prints a report");
    assert_eq!(
        (&report["value"], &report["batch_size"]),
        (&json!("grpc"), &json!(3))
    );
    let batches = Batches::of(&server, "m", "text");
    // The one that occupied the model, and the shared one.
    assert_eq!((batches.count, batches.items), (2, 4), "{batches:?}");
    let line = server.wait_for_log("request_id=grpc");
    assert!(
        line.contains("path=/inference.GRPCInferenceService/ModelInfer status=0"),
        "{line}"
    );
}

#[test]
fn a_grpc_client_that_goes_away_gives_up_its_place() {
    let server = start();
    let occupied = server.occupy("m");
    let mut client = clients::script(
        "one_grpc_request.py",
        &[&server.grpc_address().to_string(), "gone"],
    )
    .spawn()
    .expect("Python can be started");
    server.wait_for_queued("m", "text", 1);
    client.kill().expect("it waits for its answer");
    client.wait().expect("it was killed");
    server.wait_for_queued("m", "text", 0);
    let labels = [("model", "m"), ("task", "text"), ("outcome", "cancelled")];
    assert_eq!(server.metrics().count("inference_items_total", &labels), 1);
    eventually("the log to say that the client went away", || {
        server.log().has("status=499").then_some(()).ok_or("it does not")
    });
    occupied.release();
}

#[test]
fn open_streams_do_not_hold_up_the_end() {
    let server = start();
    let mut client = clients::script("open_streams.py", &[&server.grpc_address().to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .expect("Python can be started");
    let mut line = String::new();
    let output = client.stdout.take().expect("its output is piped");
    BufReader::new(output)
        .read_line(&mut line)
        .expect("it can be read");
    assert_eq!(line, "open\n");
    let begun = clock::now();
    server.shut_down();
    // The drain would last 30 seconds.
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    assert!(
        client.wait().expect("Python ends").success(),
        "the streams did not end well"
    );
}

/// What the document says is what the server does, whatever a fuzzer makes of it: no answer that is not documented, of no
/// other shape, and never status 500.
#[test]
fn schemathesis_finds_no_answer_that_is_not_documented() {
    let server = Scenario::of_the_repository().start();
    let output = clients::python()
        .args(["-m", "schemathesis.cli", "run"])
        .arg(format!("http://{}/openapi.json", server.address()))
        .args([
            "--checks",
            "status_code_conformance,content_type_conformance,response_schema_conformance",
        ])
        .args([
            "--max-examples",
            "20",
            "--seed",
            "1",
            "--generation-database",
            "none",
            "--workers",
            "2",
        ])
        .current_dir(server.dir())
        .output()
        .expect("Python can be started");
    let report = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{report}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = server.get("/metrics").expect(200).text();
    let failed: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with("http_requests_total") && line.contains("status=\"500\""))
        .collect();
    assert!(failed.is_empty(), "{failed:?}");
}
