//! Tests of `inference-server batch` with a real server.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value as Json, json};

use crate::harness::{Scenario, Server, eventually, plugins};

struct Ran {
    code: Option<i32>,
    err: String,
}

fn command(server: &Server, arguments: &[&str]) -> Command {
    let mut command = Command::new(plugins::executable());
    command
        .args(["batch", "--url", &format!("http://{}", server.address())])
        .args(["--input", "in.jsonl", "--output", "out.jsonl"])
        .args(arguments)
        .current_dir(server.dir());
    command
}

fn batch(server: &Server, arguments: &[&str]) -> Ran {
    let output = command(server, arguments).output().expect("start the executable");
    Ran {
        code: output.status.code(),
        err: String::from_utf8(output.stderr).expect("it prints text"),
    }
}

fn write(file: &Path, lines: impl IntoIterator<Item = String>) {
    let text: String = lines.into_iter().map(|line| line + "\n").collect();
    std::fs::write(file, text).expect("write the input");
}

fn results(server: &Server) -> Vec<Json> {
    let text = std::fs::read_to_string(server.dir().join("out.jsonl")).expect("the output exists");
    let line = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    text.lines().map(line).collect()
}

fn words() -> Server {
    Scenario::new("[[models]]\nname = \"words\"\nplugin = \"template\"\ndefault_task = \"echo\"\n").start()
}

#[test]
fn each_line_has_a_result_in_the_order_of_the_input() {
    let server = words();
    let lines = (0..200).map(|number| match number % 10 {
        7 => String::new(),
        _ => json!({"inputs": [format!("text {number}")]}).to_string(),
    });
    write(&server.dir().join("in.jsonl"), lines);
    let ran = batch(
        &server,
        &["--model", "words", "--concurrency", "16", "--label", "mine"],
    );
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let expected: Vec<usize> = (0..200).filter(|number| number % 10 != 7).collect();
    let results = results(&server);
    assert_eq!(results.len(), expected.len());
    for (number, result) in expected.into_iter().zip(results) {
        assert_eq!(result["line"], number + 1);
        assert_eq!(result["status"], 200);
        assert_eq!(result["body"]["outputs"], json!([format!("text {number}")]));
    }
    assert!(!server.dir().join("out.jsonl.progress").exists());
    let labeled = server.get("/v1/jobs?label=mine&limit=1000").expect(200).json();
    assert_eq!(labeled["data"].as_array().map(Vec::len), Some(180));
    // The results of a run are not replaced by mistake.
    let again = batch(&server, &["--model", "words"]);
    assert_eq!(again.code, Some(1));
    assert!(again.err.contains("--restart"), "{}", again.err);
    let restarted = batch(&server, &["--model", "words", "--restart"]);
    assert_eq!(restarted.code, Some(0), "{}", restarted.err);
    let created = [("outcome", "created")];
    let count = server
        .metrics()
        .count("inference_job_submissions_total", &created);
    assert_eq!(count, 360, "a new run submits its own jobs");
}

#[test]
fn an_interrupted_run_continues_without_repeating_or_losing_a_line() {
    let scenario = Scenario::misbehave("gate = \"$DIR/gate\"", "max_batch_size = 4");
    let server = scenario.start();
    let lines = (0..60).map(|number| json!({ "value": number }).to_string());
    write(&server.dir().join("in.jsonl"), lines);
    let arguments = ["--model", "m", "--task", "text", "--items", "--concurrency", "20"];
    let mut interrupted = command(&server, &arguments)
        .stderr(Stdio::null())
        .spawn()
        .expect("start the executable");
    let created = [("outcome", "created")];
    server.wait_for_metric("inference_job_submissions_total", &created, 20);
    interrupted.kill().expect("kill the command");
    interrupted.wait().expect("reap the command");
    // A result that was cut off is written again.
    std::fs::write(server.dir().join("out.jsonl"), "{\"line\":1,\"sta").expect("write the output");
    std::fs::write(server.dir().join("gate"), "open").expect("open the gate");
    let ran = batch(&server, &arguments);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let results = results(&server);
    assert_eq!(results.len(), 60);
    for (number, result) in results.iter().enumerate() {
        assert_eq!(result["line"], number + 1);
        assert_eq!(result["body"]["output"]["value"], number, "{result}");
    }
    let metrics = server.metrics();
    assert_eq!(metrics.count("inference_job_submissions_total", &created), 60);
    let repeated = [("outcome", "repeated")];
    assert_eq!(metrics.count("inference_job_submissions_total", &repeated), 20);
}

#[test]
fn a_line_that_fails_does_not_stop_the_others_and_is_reported() {
    let server = words();
    let lines = [
        "{\"inputs\":[\"a\"]}",
        "{\"inputs\":",
        "{\"inputs\":[]}",
        "{\"inputs\":[7]}",
        "{\"inputs\":[\"b\"]}",
    ];
    write(&server.dir().join("in.jsonl"), lines.map(str::to_owned));
    let ran = batch(&server, &["--model", "words"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.err.contains("3 of 5 requests failed"), "{}", ran.err);
    let statuses: Vec<Json> = results(&server)
        .iter()
        .map(|result| result["status"].clone())
        .collect();
    assert_eq!(json!(statuses), json!([200, 400, 400, 422, 200]));
}

#[test]
fn errors_that_concern_every_line_end_the_command() {
    let server = words();
    write(&server.dir().join("in.jsonl"), ["{\"input\":\"a\"}".to_owned()]);
    let unknown = batch(&server, &["--model", "wrods"]);
    assert_eq!(unknown.code, Some(1));
    assert!(unknown.err.contains("404"), "{}", unknown.err);
    assert!(unknown.err.contains("did you mean `words`?"), "{}", unknown.err);
    let other = batch(&server, &["--model", "words"]);
    assert!(other.err.contains("the progress of another run"), "{}", other.err);
    let invalid = batch(&server, &["--model", "words", "--header", "no colon"]);
    assert_eq!(invalid.code, Some(2), "{}", invalid.err);
    let missing = Command::new(plugins::executable())
        .args([
            "batch",
            "--model",
            "m",
            "--input",
            "missing.jsonl",
            "--output",
            "o",
        ])
        .current_dir(server.dir())
        .output()
        .expect("start the executable");
    let text = String::from_utf8_lossy(&missing.stderr).into_owned();
    assert!(text.contains("missing.jsonl"), "{text}");
    assert!(!server.dir().join("o").exists());
}

#[test]
fn the_command_waits_for_a_server_that_restarts() {
    let home = Scenario::new("");
    let database = home.dir().join("jobs.sqlite");
    let database = database.to_str().expect("a path is text").to_owned();
    let config = "[[models]]\nname = \"words\"\nplugin = \"template\"\ndefault_task = \"echo\"\n";
    let first = Scenario::new(config)
        .env("INFERENCE_JOBS_PATH", &database)
        .start();
    write(&home.dir().join("in.jsonl"), ["{\"input\":\"a\"}".to_owned()]);
    let port = first.address().port().to_string();
    first.shut_down();
    let child = Command::new(plugins::executable())
        .args([
            "batch",
            "--url",
            &format!("http://127.0.0.1:{port}"),
            "--model",
            "words",
        ])
        .args(["--input", "in.jsonl", "--output", "out.jsonl", "--quiet"])
        .current_dir(home.dir())
        .spawn()
        .expect("start the executable");
    let progress = home.dir().join("out.jsonl.progress");
    eventually("the command to start", || {
        if progress.exists() { Ok(()) } else { Err("not yet") }
    });
    let _second = Scenario::new(config)
        .env("INFERENCE_JOBS_PATH", &database)
        .argument("--port")
        .argument(&port)
        .start();
    let output = child.wait_with_output().expect("the command ends");
    assert_eq!(output.status.code(), Some(0));
    let text = std::fs::read_to_string(home.dir().join("out.jsonl")).expect("the output exists");
    assert!(text.contains("\"output\":\"a\""), "{text}");
}
