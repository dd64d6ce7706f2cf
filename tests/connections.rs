//! More connections than the limits of the server and of the system.

use serde_json::json;

use crate::harness::misbehave::echoes;
use crate::harness::raw::Raw;
use crate::harness::{Client, Reply, Scenario, Signal, eventually};

#[test]
fn connections_beyond_the_limit_wait_and_all_are_served() {
    let mut server =
        Scenario::new("[server]\nmax_connections = 4\n\n[[models]]\nname = \"m\"\nplugin = \"misbehave\"\n")
            .start();
    let pending: Vec<_> = (0..64)
        .map(|value| {
            server.client().in_background(move |client| {
                let call = client
                    .request("POST", "/v1/models/m/tasks/text/predict")
                    .header("connection", "close");
                call.json(&json!({ "inputs": echoes([value]) })).try_send()
            })
        })
        .collect();
    for (value, pending) in pending.into_iter().enumerate() {
        assert_eq!(pending.reply().values(), [json!(value)]);
    }
    assert!(server.lives());
}

fn start(server: &str) -> Scenario {
    Scenario::new(&format!(
        "[server]\n{server}\n\n[[models]]\nname = \"m\"\nplugin = \"misbehave\"\n"
    ))
}

/// Sends a request on a separate connection.
fn predict(client: &Client, value: usize) -> Result<Reply, ureq::Error> {
    let call = client
        .request("POST", "/v1/models/m/tasks/text/predict")
        .header("connection", "close");
    call.json(&json!({ "inputs": echoes([value]) })).try_send()
}

#[test]
fn silent_connections_are_closed_in_favor_of_waiting_ones() {
    let mut server = start("max_connections = 8\nheader_timeout = \"100ms\"").start();
    let mut silent: Vec<Raw> = (0..16).map(|_| server.connect()).collect();
    let pending: Vec<_> = (0..16)
        .map(|value| {
            server
                .client()
                .in_background(move |client| predict(client, value))
        })
        .collect();
    for (value, pending) in pending.into_iter().enumerate() {
        assert_eq!(pending.reply().values(), [json!(value)]);
    }
    for connection in &mut silent {
        if let Some(reply) = connection.reply() {
            assert_eq!(reply.status, 408);
        }
    }
    assert!(server.lives());
}

#[test]
fn connections_beyond_the_file_limit_wait_and_leave_files_for_reloads() {
    let mut server = start("").open_files(128).start();
    server.wait_for_log("accepting 64 connections per port instead of");
    let before = server.resources().open_files;
    let crowd: Vec<Raw> = (0..1000).map(|_| server.connect()).collect();
    eventually("the places to be taken", || {
        match server.resources().open_files - before {
            more if more >= 60 => Ok(()),
            more => Err(more),
        }
    });
    // A reload starts a process and opens files. Its result is in the log, because no further connection is possible.
    server
        .write_config("[[models]]\nname = \"m\"\nplugin = \"misbehave\"\n[models.settings]\ntag = \"new\"\n");
    server.signal(Signal::HUP);
    server.wait_for_log("reload: loaded m");
    drop(crowd);
    let report = server.predict("m", "text", &echoes(["after the crowd"])).report();
    assert_eq!(report.tag(), "new");
    assert!(server.lives());
}
