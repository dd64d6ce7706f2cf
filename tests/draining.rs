//! SIGTERM while clients keep their connections: they are told to reconnect, and no request is lost.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{SocketAddr, TcpStream};
use std::process::Stdio;

use serde_json::{Value as Json, json};

use crate::harness::haproxy::HaProxy;
use crate::harness::misbehave::echoes;
use crate::harness::raw::Raw;
use crate::harness::{Scenario, Server, Signal, clients, eventually, rounds};

const ECHO: &str = "/v1/models/m/tasks/text/predict";
const LIVE: &str = "GET /livez HTTP/1.1\r\nhost: test\r\n\r\n";

fn scenario(server: &str) -> Scenario {
    Scenario::new(&format!(
        "[server]\n{server}\n\n[[models]]\nname = \"m\"\nplugin = \"misbehave\"\n"
    ))
}

/// Returns an idle connection that has received a reply.
fn idle(server: &Server) -> Raw {
    let mut connection = server.connect();
    connection.send(LIVE);
    let reply = connection.reply().expect("a reply");
    assert_eq!((reply.status, reply.header("connection")), (200, None));
    connection
}

fn wait_until_draining(server: &Server) {
    eventually("the server to say that it is not ready", || {
        match server.get("/readyz").status {
            503 => Ok(()),
            status => Err(status),
        }
    });
}

fn wait_until_rejected(address: SocketAddr) {
    eventually("the server to stop listening", || {
        match TcpStream::connect(address) {
            Err(_) => Ok(()),
            Ok(_) => Err("it accepts connections"),
        }
    });
}

#[test]
fn after_sigterm_every_reply_announces_that_the_connection_closes() {
    let server = scenario("shutdown_delay = \"10m\"").start();
    let occupied = server.occupy("m");
    let mut busy = server.connect();
    busy.send_json(ECHO, &json!({ "inputs": echoes(["in progress"]) }).to_string());
    server.wait_for_queued("m", "text", 1);
    let mut kept: Vec<Raw> = (0..5).map(|_| idle(&server)).collect();
    let mut half = server.connect();
    half.send(&LIVE[..20]);
    server.signal(Signal::TERM);
    wait_until_draining(&server);
    occupied.release();

    let mut replies = vec![(200, busy)];
    half.send(&LIVE[20..]);
    replies.push((200, half));
    kept.push(server.connect());
    for (mut connection, (request, status)) in kept.into_iter().zip([
        (LIVE.to_owned(), 200),
        (
            "GET /no/such/route HTTP/1.1\r\nhost: test\r\n\r\n".to_owned(),
            404,
        ),
        (format!("GET {ECHO} HTTP/1.1\r\nhost: test\r\n\r\n"), 405),
        ("OPTIONS * HTTP/1.1\r\nhost: test\r\n\r\n".to_owned(), 204),
        ("GET /livez HTTP/1.1\r\nno colon\r\n\r\n".to_owned(), 400),
        ("GET /readyz HTTP/1.1\r\nhost: test\r\n\r\n".to_owned(), 503),
    ]) {
        connection.send(request);
        replies.push((status, connection));
    }
    for (status, mut connection) in replies {
        let reply = connection.reply().expect("a reply");
        assert_eq!(
            (reply.status, reply.header("connection")),
            (status, Some("close"))
        );
        assert!(connection.is_closed());
    }
}

#[test]
fn idle_connections_are_closed_after_the_delay_and_the_server_exits() {
    let mut server =
        scenario("keep_alive = \"10m\"\nshutdown_delay = \"1s\"\ndrain_timeout = \"10m\"").start();
    let mut kept: Vec<Raw> = (0..8).map(|_| idle(&server)).collect();
    server.signal(Signal::TERM);
    assert!(kept.iter_mut().all(|connection| connection.is_closed()));
    assert_eq!(server.wait_for_exit().code(), Some(0));
}

#[test]
fn idle_connections_are_closed_after_keep_alive_if_that_is_shorter_than_the_delay() {
    let server = scenario("keep_alive = \"300ms\"\nshutdown_delay = \"10m\"").start();
    let mut kept = idle(&server);
    server.signal(Signal::TERM);
    assert!(kept.is_closed());
}

#[test]
fn a_request_in_flight_when_the_server_stops_accepting_is_served() {
    let mut server = scenario("header_timeout = \"10m\"\ndrain_timeout = \"10m\"").start();
    let body = json!({ "inputs": echoes(["late"]) }).to_string();
    let request = format!(
        "POST {ECHO} HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let cuts = [10, request.len() - 5];
    let mut started: Vec<Raw> = cuts.iter().map(|_| idle(&server)).collect();
    for (connection, cut) in started.iter_mut().zip(cuts) {
        connection.send(&request[..cut]);
    }
    // All bytes sent so far have been read when this request returns, or are read before connections are closed.
    idle(&server);
    server.signal(Signal::TERM);
    wait_until_rejected(server.address());
    for (mut connection, cut) in started.into_iter().zip(cuts) {
        connection.send(&request[cut..]);
        let reply = connection.reply().expect("a reply");
        assert!([200, 503].contains(&reply.status), "{}", reply.text());
        assert_eq!(reply.header("connection"), Some("close"));
        assert!(connection.is_closed());
    }
    assert_eq!(server.wait_for_exit().code(), Some(0));
}

/// Starts a server on these ports for HTTP and gRPC, which a previous server may have used.
fn start_at(http: u16, grpc: u16) -> Server {
    scenario("shutdown_delay = \"2s\"\ndrain_timeout = \"60s\"")
        .ports(http, grpc)
        .start()
}

#[test]
fn a_rolling_restart_behind_a_layer_4_balancer_loses_no_request_of_clients_that_do_not_retry() {
    let mut servers = [(); 2].map(|()| start_at(0, 0));
    let Some(balancer) = HaProxy::start(&servers) else {
        return;
    };
    let (http, grpc) = (balancer.http().to_string(), balancer.grpc().to_string());
    let Some(mut script) = clients::script("keep_asking.py", &[&http, &grpc, ECHO, "asked"]) else {
        return;
    };
    let mut asking = script
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("Python can be started");
    let mut output = BufReader::new(asking.stdout.take().expect("it is piped"));
    let mut line = String::new();
    output.read_line(&mut line).expect("it prints");
    assert_eq!(line, "asking\n");

    for _ in 0..rounds(1, 5) {
        balancer.restart_all(&mut servers, start_at);
    }
    drop(asking.stdin.take());
    let mut report = String::new();
    output.read_to_string(&mut report).expect("it prints");
    asking.wait().expect("it ends");
    let report: Json = serde_json::from_str(&report).expect("it prints JSON");
    eprintln!("{report:#}");
    for (client, counts) in report.as_object().expect("one entry for each client") {
        assert_eq!(counts["failures"], json!([]), "{client}");
        assert!(counts["replies"].as_u64() > Some(0), "{client}");
    }
}
