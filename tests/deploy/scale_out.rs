//! Three servers behind a real proxy with the configuration of `config/deploy`, under load from clients that do not retry.

use std::net::SocketAddr;

use hyper::body::Bytes;
use serde_json::json;

use crate::harness::grpc::Grpc;
use crate::harness::load::Load;
use crate::harness::misbehave::echoes;
use crate::harness::shipped_proxy::{Backend, ShippedProxy};
use crate::harness::{Scenario, Server, Signal, eventually, rounds};

const PATH: &str = "/v1/models/m/tasks/text/predict";
const CLIENTS: usize = 8;

/// Each batch takes so long that every server always has requests in progress. The delay is longer than the health checks
/// that HAProxy needs to notice it.
fn config(tag: &str) -> String {
    format!(
        "[server]\nshutdown_delay = \"3s\"\ndrain_timeout = \"60s\"\n\n\
         [[models]]\nname = \"m\"\nplugin = \"misbehave\"\n\n\
         [models.settings]\ntag = \"{tag}\"\nbatch_ms = 10\n"
    )
}

fn start(http: &str, grpc: &str) -> Server {
    Scenario::new(&config("a"))
        .argument("--port")
        .argument(http)
        .argument("--grpc-port")
        .argument(grpc)
        .start()
}

fn backend(server: &Server) -> Backend {
    Backend {
        http: server.address(),
        grpc: server.grpc_address(),
        agent_port: 1,
    }
}

fn restart_at(address: SocketAddr, grpc: SocketAddr) -> Server {
    start(&address.port().to_string(), &grpc.port().to_string())
}

fn answered(server: &Server) -> u64 {
    let metrics = server.metrics();
    metrics.count(
        "inference_items_total",
        &[("task", "text"), ("outcome", "success")],
    )
}

/// Waits until the proxy uses a server that has been restarted.
fn wait_until_used(server: &Server) {
    eventually("requests to a server that was restarted", || {
        match answered(server) {
            0 => Err("none"),
            _ => Ok(()),
        }
    });
}

/// Asserts that the servers answer the same number of requests, up to 10%.
#[track_caller]
fn assert_even_share(load: &Load, servers: &[Server; 3]) {
    load.wait_for_replies(30);
    let before = servers.each_ref().map(answered);
    load.wait_for_replies(rounds(900, 9000) as u64);
    let after = servers.each_ref().map(answered);
    let shares = [0, 1, 2].map(|index: usize| (after[index] - before[index]) as f64);
    let mean = shares.iter().sum::<f64>() / 3.0;
    for share in shares {
        assert!((share / mean - 1.0).abs() < 0.1, "uneven: {shares:?}");
    }
    eprintln!("requests per server: {shares:?}");
}

/// Drains, reloads and kills servers under load.
fn exercise(start_proxy: fn([Backend; 3]) -> Option<ShippedProxy>) {
    let mut servers = [(); 3].map(|()| start("0", "0"));
    let Some(proxy) = start_proxy(servers.each_ref().map(backend)) else {
        return;
    };
    let body = json!({ "inputs": echoes(["text"]) }).to_string();
    for round in 0..rounds(1, 10) {
        let load = Load::start(CLIENTS, proxy.http(), PATH, &body);
        assert_even_share(&load, &servers);

        let Backend { http, grpc, .. } = backend(&servers[0]);
        servers[0].signal(Signal::TERM);
        assert_eq!(servers[0].wait_for_exit().code(), Some(0));
        load.wait_for_replies(100);
        servers[0] = restart_at(http, grpc);
        wait_until_used(&servers[0]);
        load.wait_for_replies(100);
        assert_eq!(
            load.stop(),
            Vec::<String>::new(),
            "requests failed during a drain"
        );

        let load = Load::start(CLIENTS, proxy.http(), PATH, &body);
        load.wait_for_replies(100);
        servers[1].write_config(&config(&format!("b{round}")));
        assert!(servers[1].reload());
        load.wait_for_replies(100);
        assert_eq!(
            load.stop(),
            Vec::<String>::new(),
            "requests failed during a reload"
        );

        let load = Load::start(CLIENTS, proxy.http(), PATH, &body);
        load.wait_for_replies(100);
        let Backend { http, grpc, .. } = backend(&servers[2]);
        eventually("a request to be in progress", || {
            match servers[2].metrics().count("inference_executing_items", &[]) {
                0 => Err("none"),
                _ => Ok(()),
            }
        });
        servers[2].signal(Signal::KILL);
        servers[2].wait_for_exit();
        load.wait_for_replies(300);
        servers[2] = restart_at(http, grpc);
        wait_until_used(&servers[2]);
        load.wait_for_replies(100);
        assert_eq!(load.stop(), Vec::<String>::new(), "requests failed after a kill");
    }
}

#[test]
fn behind_haproxy_no_request_fails_while_servers_drain_reload_and_are_killed() {
    exercise(ShippedProxy::haproxy);
}

#[test]
fn behind_nginx_no_request_fails_while_servers_drain_reload_and_are_killed() {
    exercise(ShippedProxy::nginx);
}

#[test]
fn haproxy_repeats_the_requests_of_a_killed_server() {
    let servers = [(); 3].map(|()| start("0", "0"));
    let Some(proxy) = ShippedProxy::haproxy(servers.each_ref().map(backend)) else {
        return;
    };
    let occupied = servers.each_ref().map(|server| server.occupy("m"));
    let body = json!({ "inputs": echoes(["text"]) }).to_string();
    let load = Load::start(6, proxy.http(), PATH, &body);
    for server in &servers {
        server.wait_for_queued("m", "text", 2);
    }
    servers[2].signal(Signal::KILL);
    // Both requests of the killed server are in the queues of the others.
    eventually("the requests to be repeated", || {
        let queued = |server: &Server| {
            server
                .metrics()
                .count("inference_queue_items", &[("task", "text")])
        };
        match queued(&servers[0]) + queued(&servers[1]) {
            6 => Ok(()),
            other => Err(other),
        }
    });
    let [first, second, _] = occupied;
    first.release();
    second.release();
    load.wait_for_replies(6);
    assert_eq!(load.stop(), Vec::<String>::new());
    let repeated = proxy.haproxy_statistic("BACKEND", "wredis");
    assert!(repeated.is_some_and(|count| count.parse::<u64>().unwrap_or(0) >= 2));
}

#[tokio::test]
async fn calls_of_one_grpc_connection_are_balanced_by_each_proxy() {
    let servers = [(); 3].map(|()| start("0", "0"));
    let backends = servers.each_ref().map(backend);
    let mut expected = 0;
    for proxy in [ShippedProxy::haproxy(backends), ShippedProxy::nginx(backends)] {
        let Some(proxy) = proxy else { return };
        let mut client = Grpc::connect(proxy.grpc()).await;
        for _ in 0..6 {
            let (answer, mut body) = client.begin("ServerMetadata", b"\0\0\0\0\0");
            body.send_data(Bytes::new(), true).expect("the call is open");
            let answer = answer.await.expect("an answer");
            assert_eq!(answer.status(), 200);
            let mut content = answer.into_body();
            while content.data().await.is_some() {}
        }
        expected += 2;
        for server in &servers {
            let metrics = server.metrics();
            let calls = metrics.count(
                "grpc_requests_total",
                &[("method", "ServerMetadata"), ("status", "OK")],
            );
            assert_eq!(calls, expected);
        }
    }
}
