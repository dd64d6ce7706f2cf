//! Compatibility with unmodified clients of Triton, KServe and OpenAI, a load generator and a fuzzer.
//!
//! Each is a script in `tests/clients` with its own assertions. [`crate::harness::clients`] describes their installation.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use serde_json::{Value as Json, json};

use crate::harness::misbehave::echo;
use crate::harness::{Scenario, Server, Signal, clients, eventually, misbehave::Batches, tools};

const ADMIN_KEY: &str = "an-administrator";

/// Starts a server with the models `words` and `m`, over HTTP and gRPC.
fn start() -> Server {
    start_with("", "")
}

/// Same as [`start`], with additional keys for the server and for `m`.
fn start_with(server: &str, model: &str) -> Server {
    crate::harness::plugins::library("misbehave");
    Scenario::new(&format!(
        "[server]\nadmin_key = \"{ADMIN_KEY}\"\n{server}\n\
         [[models]]\nname = \"words\"\nplugin = \"template\"\ndefault_task = \"stats\"\n\n\
         [[models]]\nname = \"m\"\nplugin = \"misbehave\"\n{model}"
    ))
    .argument("--grpc-port")
    .argument("0")
    .start()
}

/// A script that prints a line when it is ready. Tests wait for that line before they start anything with a deadline, because on a
/// busy machine Python can take a minute to import its modules.
struct Script {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Script {
    /// Starts the script and waits for `line`.
    fn start(mut command: Command, line: &str) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("Python can be started");
        let output = child.stdout.take().expect("standard output is piped");
        let mut script = Self {
            child,
            output: BufReader::new(output),
        };
        assert_eq!(script.read_line(), line);
        script
    }

    fn read_line(&mut self) -> String {
        let mut line = String::new();
        self.output
            .read_line(&mut line)
            .expect("standard output can be read");
        line.trim_end().to_owned()
    }
}

/// A client with a gRPC connection that sends one command to `m.text` on request.
struct GrpcCaller(Script);

impl GrpcCaller {
    /// `None` if the client libraries are not installed.
    fn connect(server: &Server, value: &str) -> Option<Self> {
        let address = server.grpc_address().to_string();
        let command = clients::script("one_grpc_request.py", &[&address, value])?;
        Some(Self(Script::start(command, "ready")))
    }

    fn send(&mut self) {
        let stdin = self.0.child.stdin.as_mut().expect("standard input is piped");
        stdin.write_all(b"\n").expect("the script reads it");
    }

    /// Returns the report, or the status and message of the error.
    fn reply(mut self) -> Json {
        let reply = serde_json::from_str(&self.0.read_line()).expect("the script prints JSON");
        self.0.child.wait().expect("Python exits");
        reply
    }
}

#[test]
fn tritonclient_works_over_http() {
    let server = start();
    clients::run("triton_http.py", &[&server.address().to_string(), ADMIN_KEY]);
}

#[test]
fn tritonclient_works_over_grpc() {
    let server = start();
    if !clients::run("triton_grpc.py", &[&server.grpc_address().to_string(), ADMIN_KEY]) {
        return;
    }
    let metrics = server.metrics();
    let calls =
        |method, status| metrics.count("grpc_requests_total", &[("method", method), ("status", status)]);
    assert!(calls("ModelInfer", "OK") >= 5);
    assert_eq!(calls("ModelInfer", "NOT_FOUND"), 1);
    // Rejected because of its length, before it is read.
    assert_eq!(calls("ModelInfer", "OUT_OF_RANGE"), 1);
    assert_eq!(calls("ModelStreamInfer", "OK"), 1);
    assert_eq!(calls("ServerLive", "OK"), 0, "machines ask that every second");
    for line in ["ModelInfer status=0", "ModelInfer status=11"] {
        assert!(server.log().has(line), "{line}");
    }
}

#[test]
fn the_rest_client_of_kserve_works() {
    let server = start();
    clients::run("kserve_rest.py", &[&server.address().to_string()]);
}

#[test]
fn the_grpc_client_of_kserve_works() {
    let server = start();
    clients::run("kserve_grpc.py", &[&server.grpc_address().to_string()]);
}

#[test]
fn the_client_of_openai_works() {
    let server = start();
    clients::run("openai_embeddings.py", &[&server.address().to_string()]);
}

/// Runs perf_analyzer with a hundred requests and checks its report.
fn analyze(model: &str, protocol: &str, address: SocketAddr) {
    let Some(mut command) = clients::perf_analyzer() else {
        return;
    };
    command
        .args(["-m", model, "-i", protocol, "-u", &address.to_string()])
        .args([
            "--request-count",
            "100",
            "--concurrency-range",
            "2",
            "--shape",
            "numbers:8",
        ]);
    let report = tools::run(&mut command);
    assert!(report.contains("Concurrency: 2, throughput: "), "{report}");
    for complaint in ["error", "fail", "WARNING"] {
        assert!(
            !report.to_lowercase().contains(&complaint.to_lowercase()),
            "{report}"
        );
    }
}

#[test]
fn perf_analyzer_works_over_http_and_grpc() {
    let server = start();
    analyze("m.tensor", "http", server.address());
    analyze("m.tensor", "grpc", server.grpc_address());
}

#[test]
fn requests_of_every_protocol_share_batches() {
    let server = start();
    let Some(mut grpc) = GrpcCaller::connect(&server, "grpc") else {
        return;
    };
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
    grpc.send();
    server.wait_for_queued("m", "text", 3);
    occupied.release();
    assert_eq!(native.reply().report().batch_size(), 3);
    v2.reply().expect(200);
    let report = grpc.reply();
    assert_eq!(
        (&report["value"], &report["batch_size"]),
        (&json!("grpc"), &json!(3))
    );
    let batches = Batches::of(&server, "m", "text");
    // The batch that occupied the model, and the shared batch.
    assert_eq!((batches.count, batches.items), (2, 4), "{batches:?}");
    let line = server.wait_for_log("request_id=grpc");
    assert!(
        line.contains("path=/inference.GRPCInferenceService/ModelInfer status=0"),
        "{line}"
    );
}

#[test]
fn a_grpc_client_that_disconnects_frees_its_place_in_the_queue() {
    let server = start();
    let Some(mut grpc) = GrpcCaller::connect(&server, "gone") else {
        return;
    };
    let occupied = server.occupy("m");
    grpc.send();
    server.wait_for_queued("m", "text", 1);
    grpc.0.child.kill().expect("it waits for its reply");
    grpc.0.child.wait().expect("it was killed");
    server.wait_for_queued("m", "text", 0);
    let labels = [("model", "m"), ("task", "text"), ("outcome", "cancelled")];
    assert_eq!(server.metrics().count("inference_items_total", &labels), 1);
    eventually("the log to say that the client went away", || {
        server.log().has("status=499").then_some(()).ok_or("it does not")
    });
    occupied.release();
}

#[test]
fn a_full_queue_is_reported_in_every_protocol() {
    let server = start_with("", "\n[models.batching]\nmax_queue_size = 1\n");
    let Some(mut grpc) = GrpcCaller::connect(&server, "grpc") else {
        return;
    };
    let occupied = server.occupy("m");
    let native = server.predict_in_background("m", "text", &json!([echo("native")]));
    server.wait_for_queued("m", "text", 1);
    let item = json!({"inputs": [{"name": "JSON", "datatype": "BYTES", "shape": [1], "data": ["{}"]}]});
    let v2 = server.client().post("/v2/models/m.text/infer", &item).expect(429);
    assert!(v2.header("retry-after").is_some());
    let message = v2.json()["error"].as_str().map(str::to_owned).expect("a message");
    assert!(message.contains("1 of 1"), "{message}");
    let v1 = server
        .client()
        .post("/v1/models/m.text:predict", &json!({"instances": [{}]}))
        .expect(429);
    assert!(v1.header("retry-after").is_some());
    grpc.send();
    let grpc = grpc.reply();
    assert_eq!(grpc["status"], "StatusCode.RESOURCE_EXHAUSTED");
    assert_eq!(grpc["message"], message);
    occupied.release();
    assert_eq!(native.reply().values(), [json!("native")]);
}

#[test]
fn requests_accepted_over_grpc_are_served_before_the_server_exits() {
    let mut server = start();
    let Some(mut grpc) = GrpcCaller::connect(&server, "accepted") else {
        return;
    };
    let occupied = server.occupy("m");
    grpc.send();
    server.wait_for_queued("m", "text", 1);
    server.signal(Signal::TERM);
    server.wait_for_log("shutting down: no longer ready");
    occupied.release();
    assert_eq!(grpc.reply()["value"], "accepted");
    assert!(server.wait_for_exit().success());
}

#[test]
fn grpc_connections_beyond_the_limit_wait() {
    let server = start_with("max_connections = 1\n", "");
    // The preface of an HTTP/2 client with an empty SETTINGS frame, to which the server replies with its own.
    let connect = || {
        let mut connection = TcpStream::connect(server.grpc_address()).expect("the backlog takes it");
        let hello = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
        connection.write_all(hello).expect("the backlog takes it");
        connection
    };
    let heard = |connection: &mut TcpStream, patience: u64| {
        let patience = Some(Duration::from_millis(patience));
        connection
            .set_read_timeout(patience)
            .expect("sockets have timeouts");
        connection.read_exact(&mut [0; 9]).is_ok()
    };
    let mut first = connect();
    assert!(heard(&mut first, 10_000));
    let mut second = connect();
    assert!(!heard(&mut second, 200), "there is no place for it");
    drop(first);
    assert!(heard(&mut second, 10_000));
}

#[test]
fn open_streams_do_not_delay_the_shutdown() {
    // The test would time out long before the server would stop waiting for the streams.
    let server = start_with("drain_timeout = \"1h\"\n", "");
    let Some(command) = clients::script("open_streams.py", &[&server.grpc_address().to_string()]) else {
        return;
    };
    let mut streams = Script::start(command, "open");
    server.shut_down();
    assert!(
        streams.child.wait().expect("Python exits").success(),
        "the streams were not closed in order"
    );
}

#[test]
fn schemathesis_finds_no_undocumented_reply() {
    clients::schemathesis(&Scenario::of_the_repository().start());
}
