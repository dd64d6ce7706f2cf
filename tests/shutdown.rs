//! Shutdown with SIGTERM: immediately not ready, accepted requests are served, and the server exits by the drain timeout.

use serde_json::json;

use crate::harness::misbehave::echoes;
use crate::harness::{Client, Scenario, Server, Signal, eventually};

fn scenario(server: &str) -> Scenario {
    Scenario::new(&format!(
        "[server]\n{server}\n\n[[models]]\nname = \"m\"\nplugin = \"misbehave\"\n"
    ))
}

fn wait_until_not_ready(server: &Server) {
    eventually("the server to say that it is not ready", || {
        match server.get("/readyz").status {
            503 => Ok(()),
            status => Err(status),
        }
    });
}

#[test]
fn an_idle_server_exits_with_code_zero() {
    scenario("").start().shut_down();
}

#[test]
fn sigint_terminates_the_server_like_sigterm() {
    let mut server = scenario("").start();
    server.signal(Signal::INT);
    assert_eq!(server.wait_for_exit().code(), Some(0));
}

#[test]
fn after_sigterm_the_server_is_immediately_not_ready_and_keeps_serving_for_its_delay() {
    let mut server = scenario("shutdown_delay = \"1h\"").start();
    server.signal(Signal::TERM);
    wait_until_not_ready(&server);
    server.get("/livez").expect(200);
    assert_eq!(server.get("/health").expect(503).json()["status"], "stopping");
    assert_eq!(
        server.predict("m", "text", &echoes(["late guest"])).values(),
        [json!("late guest")]
    );
    assert!(server.lives());
}

#[test]
fn requests_accepted_before_sigterm_are_served() {
    let mut server = scenario("drain_timeout = \"1h\"").start();
    let occupied = server.occupy("m");
    let pending: Vec<_> = (0..8)
        .map(|value| server.predict_in_background("m", "text", &echoes([value])))
        .collect();
    server.wait_for_queued("m", "text", 8);
    server.signal(Signal::TERM);
    server.wait_for_log("shutting down");
    occupied.release();
    for (value, pending) in pending.into_iter().enumerate() {
        assert_eq!(pending.reply().values(), [json!(value)]);
    }
    assert_eq!(server.wait_for_exit().code(), Some(0));
}

#[test]
fn sigterm_under_load_serves_or_rejects_connections_and_never_truncates_a_reply() {
    let mut server = scenario("").start();
    let clients: Vec<_> = (0..4)
        .map(|number| {
            let client = server.client();
            std::thread::spawn(move || until_rejected(&client, number))
        })
        .collect();
    let task = [("model", "m"), ("task", "text"), ("outcome", "success")];
    eventually("load", || {
        match server.metrics().count("inference_items_total", &task) {
            count if count >= 50 => Ok(()),
            count => Err(count),
        }
    });
    server.signal(Signal::TERM);
    assert_eq!(server.wait_for_exit().code(), Some(0));
    for client in clients {
        let statuses = client.join().expect("a client ends");
        assert!(
            statuses.iter().all(|status| [200, 503].contains(status)),
            "{statuses:?}"
        );
        assert!(statuses.contains(&200));
    }
}

/// Sends requests on separate connections until the server no longer accepts them. Returns the statuses of the replies.
fn until_rejected(client: &Client, number: usize) -> Vec<u16> {
    let mut statuses = Vec::new();
    loop {
        let call = client
            .request("POST", "/v1/models/m/tasks/text/predict")
            .header("connection", "close");
        match call.json(&json!({"inputs": echoes([number])})).try_send() {
            Ok(reply) => statuses.push(reply.status),
            // The server did not accept the connection, so it made no promise.
            Err(_) => return statuses,
        }
    }
}

#[test]
fn idle_keep_alive_connections_do_not_delay_the_shutdown() {
    let mut server = scenario("keep_alive = \"10m\"\ndrain_timeout = \"10m\"").start();
    let mut idle: Vec<_> = (0..8)
        .map(|_| {
            let mut connection = server.connect();
            connection.send("GET /livez HTTP/1.1\r\nhost: test\r\n\r\n");
            assert_eq!(connection.reply().expect("an answer").status, 200);
            connection
        })
        .collect();
    let fresh = server.connect();
    server.signal(Signal::TERM);
    assert_eq!(server.wait_for_exit().code(), Some(0));
    assert!(idle.iter_mut().all(|connection| connection.is_closed()));
    drop(fresh);
}

#[test]
fn a_model_that_does_not_finish_is_abandoned_at_the_drain_timeout() {
    let mut server = scenario("drain_timeout = \"500ms\"").start();
    let hung = server.in_background(|client| {
        let call = client.request("POST", "/v1/models/m/tasks/text/predict");
        call.json(&json!({"inputs": [{"do": "hang"}]})).try_send()
    });
    server.wait_for_metric("inference_executing_items", &[("model", "m")], 1);
    server.signal(Signal::TERM);
    let status = server.wait_for_exit();
    assert_eq!(status.code(), Some(1), "work was lost, and the code says so");
    server.wait_for_log("shutdown incomplete");
    drop(hung);
}

#[test]
fn sigterm_while_a_model_loads_terminates_the_server() {
    let scenario = Scenario::new(
        "[server]\ndrain_timeout = \"500ms\"\n\n[[models]]\nname = \"m\"\nplugin = \"misbehave\"\n\
         [models.settings]\non_load = \"hang\"\n",
    );
    let mut server = scenario.start_unready();
    server.get("/readyz").expect(503);
    server.signal(Signal::TERM);
    assert_eq!(server.wait_for_exit().code(), Some(0));
}

#[test]
fn a_second_sigterm_terminates_the_server_immediately() {
    let mut server = scenario("drain_timeout = \"10m\"").start();
    let occupied = server.occupy("m");
    server.signal(Signal::TERM);
    server.wait_for_log("shutting down");
    // A signal within a second of the first counts as the same request.
    eventually("the server to exit", || {
        server.try_signal(Signal::TERM);
        match server.lives() {
            false => Ok(()),
            true => Err("it runs"),
        }
    });
    assert_eq!(
        server.wait_for_exit().code(),
        Some(1),
        "work was lost, and the code says so"
    );
    server.wait_for_log("received a second termination signal");
    let scratch = std::fs::read_dir(server.dir().join("scratch")).expect("it is there");
    assert_eq!(scratch.count(), 0, "the copies of plugins are gone");
    drop(occupied);
}

#[test]
fn two_termination_signals_at_once_are_one_request() {
    let mut server = scenario("drain_timeout = \"10m\"").start();
    let occupied = server.occupy("m");
    // Like `timeout`, which signals the process and its group.
    server.signal(Signal::TERM);
    server.signal(Signal::INT);
    server.wait_for_log("shutting down");
    assert_eq!(occupied.release().value(), "occupies the model");
    assert_eq!(server.wait_for_exit().code(), Some(0));
}
