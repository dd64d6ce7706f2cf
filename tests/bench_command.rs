//! Tests of `inference-server bench` with a real server.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::Pid;
use serde_json::Value as Json;

use crate::harness::eventually::eventually;
use crate::harness::{Scenario, Server, Signal, plugins};

struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

/// Runs the command in its own directory.
fn bench(folder: &Scenario, arguments: &str) -> Ran {
    let arguments: Vec<&str> = std::iter::once("bench")
        .chain(arguments.split_whitespace())
        .collect();
    let output = folder.run(&arguments);
    Ran {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).expect("it prints text"),
        err: String::from_utf8(output.stderr).expect("it prints text"),
    }
}

fn folder() -> Scenario {
    Scenario::new("")
}

fn words() -> Server {
    Scenario::new("[[models]]\nname = \"words\"\nplugin = \"template\"\n").start()
}

/// Options of a short run that contains all parts of a step.
const BRIEF: &str = "--duration 300ms --warm-up 50ms";

fn json(path: &Path) -> Json {
    let text = std::fs::read_to_string(path).expect("the command has written it");
    serde_json::from_str(&text).expect("it is JSON")
}

fn number(json: &Json) -> f64 {
    json.as_f64().unwrap_or_else(|| panic!("{json} is no number"))
}

#[test]
fn results_measured_before_an_interruption_are_reported() {
    let server = words();
    let mut command = Command::new(plugins::executable())
        .args(["bench", "--url", &format!("http://{}", server.address())])
        .args(["--model", "words", "--task", "echo", "--concurrency", "1,2"])
        .args(["--duration", "1s", "--warm-up", "50ms"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command can be started");
    let told = BufReader::new(command.stderr.take().expect("it is piped"));
    let mut lines = told.lines().map(|line| line.expect("it prints text"));
    assert!(lines.any(|line| line.contains("step 2 of 2")));
    rustix::process::kill_process(Pid::from_child(&command), Signal::INT).expect("it runs");
    assert!(lines.any(|line| line.contains("interrupted: 1 of 2 steps were measured")));
    let output = command.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(1));
    let table = String::from_utf8(output.stdout).expect("it prints text");
    assert!(
        table.contains("1 client ") && !table.contains("2 clients"),
        "{table}"
    );
}

#[test]
fn a_closed_loop_is_measured_at_each_number_of_clients() {
    let (server, folder) = (words(), folder());
    let url = format!("http://{}", server.address());
    let ran = bench(
        &folder,
        &format!(
            "--url {url} --model words --task echo --concurrency 1,2 --items 3 {BRIEF} --json a.json --html a.html"
        ),
    );
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(ran.err.contains("step 2 of 2: 2 clients"), "{}", ran.err);
    assert!(
        ran.out.contains("p99.9") && ran.out.contains("1 client "),
        "{}",
        ran.out
    );

    let report = json(&folder.dir().join("a.json"));
    assert_eq!(
        (&report["version"], &report["items_per_request"]),
        (&1.into(), &3.into())
    );
    assert_eq!(
        (&report["model"], &report["task"]),
        (&"words".into(), &"echo".into())
    );
    let steps = report["steps"].as_array().expect("there are steps");
    let callers: Vec<&Json> = steps.iter().map(|step| &step["load"]["callers"]).collect();
    assert_eq!(callers, [1, 2]);
    for step in steps {
        assert_eq!(step["errors"], Json::Array(Vec::new()));
        let (requests, items) = (
            number(&step["requests_per_second"]),
            number(&step["items_per_second"]),
        );
        assert!(requests > 0.0 && (items / requests - 3.0).abs() < 1e-9, "{step}");
        let latency = &step["latency_seconds"];
        let percentiles = ["p50", "p90", "p99", "p99_9", "max"].map(|name| number(&latency[name]));
        assert!(percentiles[0] > 0.0 && percentiles.is_sorted(), "{latency}");
        let inside = &step["server"];
        assert!(
            number(&inside["batch_size"]) >= 1.0 && number(&inside["batches"]) > 0.0,
            "{inside}"
        );
        assert!(number(&inside["items_succeeded"]) > 0.0, "{inside}");
        for stage in ["queue_seconds", "inference_seconds", "encode_seconds"] {
            assert!(number(&inside[stage]) > 0.0, "{stage} of {inside}");
        }
    }
    let page = std::fs::read_to_string(folder.dir().join("a.html")).expect("the page was written");
    assert!(page.contains("<svg") && page.contains("Throughput"), "{page}");

    let compared = bench(&folder, "--compare a.json a.json");
    assert_eq!(compared.code, Some(0), "{}", compared.err);
    assert!(
        compared.out.contains("A: words/echo") && compared.out.contains("1.00"),
        "{}",
        compared.out
    );
}

#[test]
fn an_open_loop_sends_at_the_requested_rate() {
    let (server, folder) = (words(), folder());
    let url = format!("http://{}", server.address());
    let arguments =
        format!("--url {url} --model words --task echo --rate 200 --arrivals constant {BRIEF} --json -");
    let ran = bench(&folder, &arguments);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let report: Json = serde_json::from_str(&ran.out).expect("nothing but JSON is on standard output");
    let step = &report["steps"][0];
    assert_eq!(step["load"]["arrivals"], "constant");
    // All requests that are due in the window of 300 ms, regardless of their latency. Rounding can shift the first and the last.
    let sent = number(&step["requests"]);
    assert!(
        (59.0..=61.0).contains(&sent) && step["errors"] == Json::Array(Vec::new()),
        "{step}"
    );
}

#[test]
fn rejected_requests_are_counted_by_status_with_the_first_message() {
    let (server, folder) = (words(), folder());
    std::fs::write(folder.dir().join("wrong.json"), "{\"input\": ").expect("there is room");
    let url = format!("http://{}", server.address());
    let arguments = format!("--url {url} -m words -t stats --body wrong.json --concurrency 1 {BRIEF}");
    let ran = bench(&folder, &arguments);
    assert_eq!(ran.code, Some(1), "{}", ran.out);
    assert!(ran.out.contains(" × 400: "), "{}", ran.out);
    assert!(
        ran.err.contains("no request succeeded with 1 client: 400: "),
        "{}",
        ran.err
    );
}

#[test]
fn invalid_options_are_rejected_with_a_reason() {
    let (server, folder) = (words(), folder());
    let url = format!("http://{}", server.address());
    let missing = server.get("/v1/models/wrods").expect(404).error().1;
    for (arguments, code, part) in [
        (format!("--url {url} --model wrods"), 1, missing.as_str()),
        (
            format!("--url {url} --model words"),
            2,
            "select one of its tasks with --task: echo, stats",
        ),
        (
            format!("--url {url} --model words --task ehco"),
            2,
            "has no task `ehco`; its tasks are echo, stats",
        ),
        (
            format!("--url {url} --model words --task echo --body none.json"),
            1,
            "cannot read none.json",
        ),
        (
            format!("--url https://{} --model words --insecure", server.address()),
            1,
            "the TLS handshake failed",
        ),
        (
            format!(
                "--url https://{} --model words --cacert none.pem",
                server.address()
            ),
            1,
            "cannot read the trusted certificates of none.pem",
        ),
        (
            format!("--url {url} --model words --insecure"),
            2,
            "require a URL that starts with https://",
        ),
        (format!("--url {url}"), 2, "use --model"),
        (
            format!("--url {url} --model words --header s3cret"),
            2,
            "--header number 1: missing colon",
        ),
        ("--compare a.json b.json".to_owned(), 1, "cannot read a.json"),
    ] {
        let ran = bench(&folder, &arguments);
        assert_eq!(ran.code, Some(code), "{arguments}: {}", ran.err);
        assert!(
            ran.err.contains(part) && ran.out.is_empty(),
            "{arguments}: {}{}",
            ran.err,
            ran.out
        );
    }
}

/// Starts a server that handles one connection at a time, until the client closes it.
fn one_connection_at_a_time() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    let address = listener.local_addr().expect("it is bound");
    let model = r#"{"ready": true, "state": "ready", "tasks": [{"name": "echo", "examples": ["text"]}]}"#;
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.expect("a client connects"));
            loop {
                let mut head = String::new();
                while !head.ends_with("\r\n\r\n")
                    && stream.read_line(&mut head).is_ok_and(|length| length > 0)
                {}
                let header = |name: &str| head.lines().find_map(|line| line.strip_prefix(name));
                if head.is_empty() {
                    break;
                }
                let length = header("content-length: ").map_or(0, |length| length.parse().expect("a number"));
                stream.read_exact(&mut vec![0; length]).expect("the body follows");
                let reply = format!(
                    "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{model}",
                    model.len()
                );
                stream
                    .get_mut()
                    .write_all(reply.as_bytes())
                    .expect("the client reads");
            }
        }
    });
    address
}

#[test]
fn requests_without_a_reply_are_reported_as_failures() {
    let (address, folder) = (one_connection_at_a_time(), folder());
    let arguments = format!("--url {address} -m words --concurrency 6 --timeout 60s {BRIEF} --json a.json");
    bench(&folder, &arguments);
    let step = &json(&folder.dir().join("a.json"))["steps"][0];
    let error = &step["errors"][0];
    // All but the one that is served. On a very busy machine, that one can fail as well.
    assert!(
        error["kind"] == "unanswered" && number(&error["count"]) >= 5.0,
        "{step}"
    );
    let ran = bench(
        &folder,
        &format!("--url {address} -m words --concurrency 6 --timeout 60s {BRIEF}"),
    );
    assert!(ran.out.contains(" × unanswered: "), "{}{}", ran.out, ran.err);
}

#[test]
fn a_key_comes_from_the_environment_and_is_never_printed() {
    let config = "[server]\napi_keys = [\"s3cret-key-of-a-client\"]\n\n[[models]]\nname = \"words\"\nplugin = \"template\"\n";
    let server = Scenario::new(config).start();
    let arguments = format!(
        "--url http://{}/ -m words -t echo --concurrency 1 {BRIEF} --json a.json",
        server.address()
    );
    let rejected = bench(&folder(), &arguments);
    assert_eq!(rejected.code, Some(1), "{}", rejected.out);
    assert!(
        rejected.err.contains(" failed with 401: ") && rejected.err.contains("--key or INFERENCE_BENCH_KEY"),
        "{}",
        rejected.err
    );
    let with_key = folder().env("INFERENCE_BENCH_KEY", "s3cret-key-of-a-client");
    let ran = bench(&with_key, &arguments);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let report = std::fs::read_to_string(with_key.dir().join("a.json")).expect("the report was written");
    let help = bench(&with_key, "--help");
    for text in [&ran.out, &ran.err, &report, &help.out] {
        assert!(!text.contains("s3cret"), "{text}");
    }
    let by_header = bench(
        &folder(),
        &format!("{arguments} --header authorization:Bearer=nothing"),
    );
    assert_eq!(by_header.code, Some(1), "a header is sent: {}", by_header.out);
    let by_flag = bench(&folder(), &format!("{arguments} --key s3cret-key-of-a-client"));
    assert_eq!(by_flag.code, Some(0), "{}", by_flag.err);
}

#[test]
fn the_measured_part_of_an_interrupted_step_is_reported() {
    let server = words();
    let command = Command::new(plugins::executable())
        .args(["bench", "--url", &server.address().to_string()])
        .args(["--model", "words", "--task", "echo", "--concurrency", "1,2"])
        .args(["--duration", "300s", "--warm-up", "0s"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command can be started");
    let answered = || {
        let stats = server.get("/v2/models/words.echo/stats").expect(200).json();
        number(&stats["model_stats"][0]["inference_stats"]["success"]["count"])
    };
    eventually("requests are answered", || {
        let count = answered();
        if count > 20.0 { Ok(()) } else { Err(count) }
    });
    rustix::process::kill_process(Pid::from_child(&command), Signal::INT).expect("it runs");
    let output = command.wait_with_output().expect("it ends");
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert_eq!(output.status.code(), Some(1));
    assert!(
        err.contains("interrupted: 1 of 2 steps were measured, the last one in part"),
        "{err}"
    );
    assert!(out.contains("1 client "), "{out}");
}

#[test]
fn a_closed_output_pipe_is_not_a_failure() {
    let server = words();
    let mut command = Command::new(plugins::executable())
        .args(["bench", "--url", &server.address().to_string()])
        .args(["--model", "words", "--task", "echo", "--concurrency", "1"])
        .args(["--duration", "100ms", "--warm-up", "0s"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command can be started");
    drop(command.stdout.take());
    let output = command.wait_with_output().expect("it ends");
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn an_unreachable_server_is_distinguished_from_one_that_rejects_requests() {
    // No process listens on the first port, and it is never assigned.
    let address = "127.0.0.1:1";
    let ran = bench(&folder(), &format!("--url http://{address} --model words"));
    assert_eq!(ran.code, Some(1));
    let expected = format!("no server at http://{address}: Connection refused");
    assert!(
        ran.err.contains(&expected) && ran.err.contains("start one with"),
        "{}",
        ran.err
    );
}
