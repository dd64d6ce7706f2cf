//! Clients that take their time, on purpose or by accident: cut off by a deadline, and nobody else waits for them.

use std::time::Duration;

use serde_json::json;

use crate::harness::raw::Raw;
use crate::hostile_input::{ECHO, assert_well, start};

#[test]
fn a_client_that_is_slow_with_its_head_is_cut_off_and_others_are_served_meanwhile() {
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
fn a_client_that_is_slow_with_its_body_is_told_so_and_others_are_served_meanwhile() {
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
fn clients_that_do_not_read_their_answers_do_not_stop_the_others() {
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
    let reply = server.predict("t", "echo", &json!(["meanwhile"])).expect(200);
    assert!(reply.took() < Duration::from_secs(10));
    drop(unread);
    assert_well(&mut server);
}
