//! The command `status`: shows the state of a running server, live in a terminal or once.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::Command;
use std::thread;

use serde_json::{Value as Json, json};

use crate::harness::load::Load;
use crate::harness::misbehave::echo;
use crate::harness::plugins::{executable, repository};
use crate::harness::{Scenario, Server, eventually, tools};

/// Runs the command for a server: exit code, standard output and standard error.
fn status(server: &Server, arguments: &[&str]) -> (Option<i32>, String, String) {
    status_of(&server.address().to_string(), arguments)
}

fn status_of(url: &str, arguments: &[&str]) -> (Option<i32>, String, String) {
    let arguments = [&["status", "--url", url], arguments].concat();
    let output = Scenario::new("").run(&arguments);
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn the_state_is_printed_once_as_json() {
    let server = Scenario::misbehave("batch_ms = 2", "").start();
    let body = json!({"input": echo("a")}).to_string();
    let load = Load::start(2, server.address(), "/v1/models/m/tasks/text/predict", &body);
    eventually("the figures of the load", || {
        let (code, out, err) = status(&server, &["--json"]);
        assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
        let state: Json = serde_json::from_str(&out).expect("it prints JSON");
        assert_eq!(state["ready"], true);
        let model = &state["models"][0];
        assert_eq!(
            (&model["name"], &model["state"], &model["generation"]),
            (&json!("m"), &json!("ready"), &json!(1))
        );
        let busy = model["worker_busy_share"].as_f64() > Some(0.0);
        let explained = model["explanation"][0]["code"] == "limit_client";
        let figures = [
            "requests_per_second",
            "latency_p50_seconds",
            "latency_p99_seconds",
            "batch_fill",
        ];
        let known = figures.iter().all(|figure| model[*figure].as_f64() > Some(0.0));
        if busy && explained && known {
            Ok(())
        } else {
            Err(out)
        }
    });
    load.stop();
}

#[test]
fn the_state_is_printed_once_as_a_table_without_a_terminal() {
    let server = Scenario::new("[[models]]\nname = \"words\"\nplugin = \"template\"\n").start();
    eventually("the explanation of an idle model", || {
        let (code, out, err) = status(&server, &[]);
        assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
        assert!(out.contains(" is ready\n") && out.contains("MODEL"), "{out}");
        let line = out
            .lines()
            .find(|line| line.starts_with("words "))
            .expect("a line of the model");
        assert!(line.contains(" ready "), "{line}");
        match out.contains("words: no requests arrived in the last ") {
            true => Ok(()),
            false => Err(out),
        }
    });
}

#[test]
fn the_exit_code_tells_a_server_that_is_not_ready_from_one_that_cannot_be_reached() {
    let server = Scenario::misbehave("on_load = \"error\"", "").start_unready();
    server.wait_for_log("not ready: fix the errors");
    let (code, out, err) = status(&server, &["--json"]);
    assert_eq!(code, Some(3), "{err}");
    assert!(
        err.contains("the server is not ready: model `m` is failed"),
        "{err}"
    );
    let state: Json = serde_json::from_str(&out).expect("it prints JSON");
    assert_eq!(
        (&state["ready"], &state["models"][0]["explanation"][0]["code"]),
        (&json!(false), &json!("load_failed"))
    );

    // The port of a server that has exited.
    let address = server.address().to_string();
    drop(server);
    let (code, out, err) = status_of(&address, &["--json"]);
    assert_eq!((code, out.as_str()), (Some(1), ""), "{err}");
    assert!(err.contains(&format!("no server at http://{address}")), "{err}");
}

#[test]
fn an_error_names_the_request_that_failed() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = listener.local_addr().expect("it has an address").to_string();
    let other = thread::spawn(move || {
        let (mut connection, _) = listener.accept().expect("the command connects");
        let _ = connection.read(&mut [0; 1024]);
        let reply = "HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n";
        connection.write_all(reply.as_bytes()).expect("the command reads");
    });
    let (code, _, err) = status_of(&address, &["--json"]);
    other.join().expect("the other server does not panic");
    assert_eq!(code, Some(1));
    assert!(err.contains(&format!("http://{address}/readyz")), "{err}");
}

#[test]
fn a_missing_key_and_an_invalid_argument_are_reported_with_a_hint() {
    let config = "[server]\napi_keys = [\"a-key-of-a-client\"]\n\n[[models]]\nname = \"words\"\nplugin = \"template\"\n";
    let server = Scenario::new(config).start();
    let (code, _, err) = status(&server, &[]);
    assert_eq!(code, Some(1));
    assert!(
        err.contains("401") && err.contains("INFERENCE_STATUS_KEY"),
        "{err}"
    );
    let (code, out, err) = status(&server, &["--key", "a-key-of-a-client"]);
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    let (code, _, err) = status(&server, &["--header", "no colon"]);
    assert_eq!(code, Some(2));
    assert!(err.contains("--header number 1: missing colon"), "{err}");
    let (code, _, err) = status(&server, &["--insecure"]);
    assert_eq!(code, Some(2));
    assert!(err.contains("require a URL that starts with https://"), "{err}");
}

#[test]
fn the_live_view_shows_the_models_in_a_terminal_until_q_is_pressed() {
    let Some(python) = tools::find("INFERENCE_TEST_PYTHON", &["python3"], "apt-get install python3") else {
        return;
    };
    let server = Scenario::new("[[models]]\nname = \"words\"\nplugin = \"template\"\n").start();
    let shown = tools::run(
        Command::new(python)
            .arg(repository().join("tests/clients/in_terminal.py"))
            .args(["words", "q"])
            .arg(executable())
            .args(["status", "--url", &server.address().to_string()]),
    );
    for part in ["is ready", "MODEL", "q quit"] {
        assert!(shown.contains(part), "{part}: {shown:?}");
    }
    // The command has left the alternate screen.
    assert!(shown.contains("\u{1b}[?1049l"), "{shown:?}");
}
