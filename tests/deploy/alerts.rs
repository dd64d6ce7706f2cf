//! Each alert fires in a real Prometheus after its fault, with shorter windows and without delays. The long form also provokes the
//! faults that take time.

use std::net::TcpListener;

use serde_json::json;

use super::prometheus::rules;
use crate::harness::misbehave::{echoes, perform};
use crate::harness::prometheus::Prometheus;
use crate::harness::raw::Raw;
use crate::harness::tls::Authority;
use crate::harness::{Scenario, Server, Signal, eventually, rounds};
use crate::{tls, tls_reload};

const PREDICT: &str = "/v1/models/m/tasks/text/predict";

/// The rules with shorter windows, and with a minimal duration of each condition.
fn hurried_rules() -> String {
    let lines = rules()
        .lines()
        .map(|line| match line.split_once("for: ") {
            Some((indent, _)) if indent.trim().is_empty() => format!("{indent}for: 1s\n"),
            _ => line.replace("[5m]", "[15s]").replace("[15m]", "[2m]") + "\n",
        })
        .collect::<String>();
    assert_eq!(lines.matches("[15s]").count(), 8, "{lines}");
    assert_eq!(lines.matches("[2m]").count(), 4, "{lines}");
    lines
}

fn config() -> String {
    let model =
        |name: &str, rest: &str| format!("[[models]]\nname = \"{name}\"\nplugin = \"misbehave\"\n{rest}\n\n");
    let models = [
        model("m", "[models.batching]\nmax_queue_size = 2"),
        model("slow", "request_timeout = \"10m\""),
        model("stuck", "request_timeout = \"10m\""),
        model("broken", "[models.settings]\non_load = \"error\""),
        model("heavy", "[models.settings]\nout_of_memory_above = 2"),
        model("processes", "isolation = \"process\""),
        model(
            "loop",
            "isolation = \"process\"\n[models.settings]\nload_fault_until = \"loads\"\non_load = \"abort\"",
        ),
    ];
    format!("[server]\nmax_inflight_bytes = \"1MiB\"\n\n{}", models.concat())
}

fn start() -> Server {
    let scenario = Scenario::new(&config());
    std::fs::write(scenario.dir().join("loads"), "").expect("write a file");
    let server = scenario.start_unready();
    for model in ["m", "slow", "stuck", "heavy", "processes", "loop"] {
        eventually(&format!("the model {model} to be ready"), || {
            let description = server.model(model);
            match description["ready"].as_bool() {
                Some(true) => Ok(()),
                _ => Err(description["state"].clone()),
            }
        });
    }
    server
}

fn start_with_expired_certificate() -> Server {
    let authority = Authority::new();
    let server = tls::start(&authority, "", "");
    authority.issue_until(2001).write(server.dir());
    tls_reload::reload(&server, "success");
    server
}

#[track_caller]
fn wait_for_alert(prometheus: &Prometheus, name: &str, mut provoke: impl FnMut()) {
    eventually(&format!("{name} to fire"), || {
        provoke();
        let firing = prometheus.firing();
        if firing.iter().any(|firing| firing == name) {
            eprintln!("{name} fires");
            return Ok(());
        }
        Err(firing)
    });
}

/// A request that announces a body of this size.
fn announce(server: &Server, size: usize) -> Raw {
    let mut connection = server.connect();
    connection.send(format!(
        "POST {PREDICT} HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\ncontent-length: {size}\r\n\r\n"
    ));
    connection
}

#[test]
fn every_alert_fires_after_its_fault() {
    let server = start();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let unused = listener.local_addr().expect("it listens");
    drop(listener);
    let restarting = Scenario::new("").start();
    let crowded = Scenario::new("").open_files(400).start();
    let expired = start_with_expired_certificate();
    let targets = [
        server.address(),
        unused,
        restarting.address(),
        crowded.address(),
        expired.management_address(),
    ];
    let Some(prometheus) = Prometheus::start(&targets, &hurried_rules()) else {
        return;
    };
    eventually("the first scrapes", || match prometheus.query("up == 1").len() {
        4 => Ok(()),
        up => Err(up),
    });
    wait_for_alert(&prometheus, "InferenceCertificateExpires", || {});
    quick_faults(&server, &prometheus);
    if rounds(0, 1) == 1 {
        slow_faults(&server, &prometheus);
        too_many_open_files(&crowded, &prometheus);
        restarts(restarting, &prometheus);
    }
}

fn quick_faults(server: &Server, prometheus: &Prometheus) {
    let alert = |name: &str, provoke: &mut dyn FnMut()| wait_for_alert(prometheus, name, provoke);
    alert("InferenceServerDown", &mut || {});
    alert("InferenceModelNotReady", &mut || {});
    alert("InferenceRequestsFail", &mut || {
        server
            .predict("m", "text", &json!([perform("fail_batch", 1)]))
            .expect(500);
    });
    alert("InferenceRequestsRejected", &mut || {
        let reply = server.predict("m", "text", &echoes([1, 2, 3]));
        assert!(reply.status >= 400, "{}", reply.status);
    });
    alert("InferenceOutOfMemory", &mut || {
        server.predict("heavy", "text", &echoes([1, 2, 3, 4])).expect(200);
    });

    let mut holding = announce(server, 900_000);
    holding.send("{\"inputs\":");
    server.wait_for_metric("inference_inflight_bytes", &[], 900_000);
    alert("InferenceMemoryBudgetExhausted", &mut || {
        let reply = announce(server, 200_000).reply().expect("a reply");
        assert_eq!(reply.status, 429);
    });
    drop(holding);

    server.write_config("[server]\nport = \"none\"\n");
    server.signal(Signal::HUP);
    alert("InferenceReloadFailed", &mut || {});

    std::fs::remove_file(server.dir().join("loads")).expect("remove a file");
    alert("InferenceWorkersRestart", &mut || {
        for process in server.processes() {
            process.try_signal(Signal::KILL);
        }
    });
    alert("InferenceWorkerCrashLoop", &mut || {});
}

fn slow_faults(server: &Server, prometheus: &Prometheus) {
    let stuck = server.occupy("stuck");
    let sleeping = server.predict_in_background("slow", "text", &json!([{"do": "sleep", "ms": 6000}]));
    server.wait_for_metric("inference_executing_items", &[("model", "slow")], 1);
    let waiting = server.predict_in_background("slow", "text", &echoes([1]));
    server.wait_for_queued("slow", "text", 1);
    sleeping.reply().expect(200);
    waiting.reply().expect(200);
    wait_for_alert(prometheus, "InferenceQueueWaitLong", || {});
    wait_for_alert(prometheus, "InferenceLatencyHigh", || {});
    wait_for_alert(prometheus, "InferenceBatchStuck", || {});
    stuck.release();
}

fn too_many_open_files(server: &Server, prometheus: &Prometheus) {
    let _connections: Vec<Raw> = (0..360).map(|_| server.connect()).collect();
    wait_for_alert(prometheus, "InferenceOpenFilesNearLimit", || {});
}

fn restarts(server: Server, prometheus: &Prometheus) {
    let port = server.address().port().to_string();
    let mut server = Some(server);
    wait_for_alert(prometheus, "InferenceServerRestarting", || {
        // First, so that the port is free.
        drop(server.take());
        server = Some(Scenario::new("").argument("--port").argument(&port).start());
    });
}
