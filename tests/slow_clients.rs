//! Slow clients are disconnected at a deadline and do not delay others.

use serde_json::json;

use crate::harness::grpc::{self, Grpc};
use crate::harness::raw::Raw;
use crate::harness::{Signal, eventually};
use crate::hostile_input::{ECHO, assert_well, start};

#[test]
fn a_client_that_sends_its_head_slowly_is_disconnected_while_others_are_served() {
    let mut server = start("header_timeout = \"500ms\"");
    let mut slow: Vec<Raw> = (0..50).map(|_| server.connect()).collect();
    for connection in &mut slow {
        connection.send("GET /livez HT");
    }
    assert_well(&mut server);
    for mut connection in slow {
        if let Some(reply) = connection.reply() {
            assert_eq!(reply.status, 408);
        }
        assert!(connection.is_closed());
    }
}

#[test]
fn a_client_that_sends_its_body_slowly_gets_an_error_while_others_are_served() {
    let mut server = start("body_timeout = \"500ms\"");
    let mut slow: Vec<Raw> = (0..50).map(|_| server.connect()).collect();
    for connection in &mut slow {
        connection.send(format!(
            "POST {ECHO} HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n{{\"inputs\""
        ));
    }
    assert_well(&mut server);
    for mut connection in slow {
        let reply = connection.reply().expect("an answer");
        assert_eq!(reply.status, 408);
        assert!(reply.text().contains("request_timeout"), "{}", reply.text());
    }
    assert_well(&mut server);
}

#[test]
fn clients_that_do_not_read_their_replies_do_not_block_others() {
    let mut server = start("");
    let body = format!("{{\"inputs\":[\"{}\"]}}", "x".repeat(8 << 20));
    let unread: Vec<Raw> = (0..4)
        .map(|_| {
            let mut connection = server.connect();
            connection.send_json(ECHO, &body);
            connection
        })
        .collect();
    let success = [("model", "t"), ("task", "echo"), ("outcome", "success")];
    server.wait_for_metric("inference_items_total", &success, 4);
    server.predict("t", "echo", &json!(["meanwhile"])).expect(200);
    drop(unread);
    assert_well(&mut server);
}

#[tokio::test]
async fn a_grpc_client_that_sends_its_message_slowly_gets_an_error_but_streams_can_be_slow() {
    let mut server = start("grpc_port = 0\nbody_timeout = \"500ms\"");
    let mut client = Grpc::connect(server.grpc_address()).await;
    let (stream, mut rest) = client.begin("ModelStreamInfer", b"\0\0");
    let (call, _body) = client.begin("ModelInfer", b"\0\0\0\0\x40at least 64 bytes");
    let answer = call.await.expect("an answer");
    let expected = "the request body did not arrive within 0.5 s".to_owned();
    assert_eq!(grpc::status(&answer), ("4", expected));
    server.wait_for_log("path=/inference.GRPCInferenceService/ModelInfer status=4");
    // The message of the stream is empty and names no model.
    rest.send_data((&b"\0\0\0"[..]).into(), true)
        .expect("the stream is open");
    let mut answers = stream.await.expect("an answer").into_body();
    let message = answers.data().await.expect("a message").expect("it is read");
    let message = String::from_utf8_lossy(&message);
    assert!(message.contains("unknown model ``"), "{message}");
    assert_well(&mut server);
}

/// Writes single bytes until the server closes the connection. Each byte arrives in time, but the whole message does not.
fn trickle(connection: &mut Raw) {
    eventually("the server to close the connection", || {
        match connection.try_send("x") {
            Ok(()) => Err("it takes one more byte"),
            Err(_) => Ok(()),
        }
    });
}

#[test]
fn a_client_that_never_finishes_its_head_is_disconnected() {
    let mut server = start("header_timeout = \"500ms\"");
    let mut connection = server.connect();
    connection.send("GET /livez HTTP/1.1\r\nx-long: ");
    trickle(&mut connection);
    assert_well(&mut server);
}

#[test]
fn a_client_that_never_finishes_its_body_is_disconnected() {
    let mut server = start("body_timeout = \"500ms\"");
    let mut connection = server.connect();
    connection.send(format!(
        "POST {ECHO} HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\ncontent-length: 100000\r\n\r\n"
    ));
    trickle(&mut connection);
    assert_well(&mut server);
}

#[test]
fn an_idle_connection_is_closed_after_keep_alive_even_if_that_is_very_short() {
    for keep_alive in ["100ms", "1s"] {
        let server = start(&format!("keep_alive = \"{keep_alive}\""));
        let mut connection = server.connect();
        connection.send("GET /livez HTTP/1.1\r\nhost: test\r\n\r\n");
        assert_eq!(connection.reply().expect("an answer").status, 200);
        assert!(connection.is_closed(), "{keep_alive}");
    }
}

#[test]
fn a_request_that_arrives_byte_by_byte_is_served() {
    let server = start("");
    let mut connection = server.connect();
    let body = "{\"inputs\":[\"slowly\"]}";
    let request = format!(
        "POST {ECHO} HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    for byte in request.bytes() {
        connection.send([byte]);
    }
    assert_eq!(
        connection.reply().expect("an answer").json()["outputs"][0],
        "slowly"
    );
}

#[test]
fn unread_replies_use_no_more_memory_than_their_size_and_release_it() {
    const SIZE: usize = 4 << 20;
    const CLIENTS: usize = 16;
    let mut server = start("");
    assert_well(&mut server);
    let before = server.resources();
    let body = format!("{{\"inputs\":[\"{}\"]}}", "x".repeat(SIZE));
    let unread: Vec<Raw> = (0..CLIENTS)
        .map(|_| {
            let mut connection = server.connect();
            connection.send_json(ECHO, &body);
            connection
        })
        .collect();
    let success = [("model", "t"), ("task", "echo"), ("outcome", "success")];
    server.wait_for_metric("inference_items_total", &success, 1 + CLIENTS as u64);
    // The request, the outputs of the plugin and the reply, with a margin for the allocator.
    let most = before.anonymous_bytes + (CLIENTS * SIZE * 4) as u64;
    let now = server.resources();
    assert!(now.anonymous_bytes < most, "{before:?} {now:?}");
    drop(unread);
    eventually("the connections to be gone", || {
        match server.resources().open_files {
            files if files <= before.open_files => Ok(()),
            files => Err(files),
        }
    });
    assert_well(&mut server);
}

#[test]
fn clients_that_do_not_read_their_replies_delay_the_shutdown_at_most_until_the_drain_timeout() {
    let mut server = start("drain_timeout = \"1s\"");
    let mut connection = server.connect();
    connection.send_json(ECHO, &format!("{{\"inputs\":[\"{}\"]}}", "x".repeat(32 << 20)));
    let success = [("model", "t"), ("task", "echo"), ("outcome", "success")];
    server.wait_for_metric("inference_items_total", &success, 1);
    server.signal(Signal::TERM);
    server.wait_for_exit();
}
