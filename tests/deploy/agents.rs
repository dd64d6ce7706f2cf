//! HAProxy's agent check with the agent of `config/deploy`, which reads the load reports of the servers.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use serde_json::json;

use crate::harness::load::Load;
use crate::harness::misbehave::echoes;
use crate::harness::shipped_proxy::{Backend, ShippedProxy, deployment};
use crate::harness::{Scenario, Server, eventually, tools};

/// The agent of a server. It is killed on drop.
struct Agent {
    child: Child,
    port: u16,
}

impl Agent {
    fn start(server: &Server) -> Option<Self> {
        let python = tools::find("INFERENCE_TEST_PYTHON", &["python3"], "apt-get install python3")?;
        let mut child = Command::new(python)
            .arg(deployment("haproxy/agent.py"))
            .arg(format!("http://{}", server.address()))
            .args(["--port", "0"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("Python can be started");
        let mut line = String::new();
        let output = child.stdout.take().expect("it is piped");
        BufReader::new(output).read_line(&mut line).expect("it prints");
        let port = line.trim().rsplit(' ').next().and_then(|port| port.parse().ok());
        Some(Self {
            child,
            port: port.unwrap_or_else(|| panic!("no port in {line:?}")),
        })
    }

    /// Asks for the weight, as HAProxy does.
    fn answer(&self) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).expect("it listens");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        answer
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Fails if the process has already exited.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A server whose batches of up to `max_batch_size` items take this time.
fn start(batch_ms: u32, max_batch_size: u32) -> Server {
    let settings = format!("batch_ms = {batch_ms}");
    let batching = format!("max_batch_size = {max_batch_size}\npolicy = \"greedy\"");
    Scenario::misbehave(&settings, &batching)
        .argument("--grpc-port")
        .argument("0")
        .start()
}

#[test]
fn an_idle_server_gets_the_full_weight_and_one_that_is_gone_gets_no_answer() {
    let server = start(1, 1);
    let Some(agent) = Agent::start(&server) else {
        return;
    };
    assert_eq!(agent.answer(), "100%\n");
    drop(server);
    assert_eq!(agent.answer(), "");
}

#[test]
fn load_reports_steer_requests_away_from_a_slow_server() {
    let servers = [start(1, 1), start(1, 1), start(100, 1)];
    let agents: Option<Vec<Agent>> = servers.iter().map(Agent::start).collect();
    let Some(agents) = agents else { return };
    let backends = [0, 1, 2].map(|index: usize| Backend {
        http: servers[index].address(),
        grpc: servers[index].grpc_address(),
        agent_port: agents[index].port,
    });
    let Some(proxy) = ShippedProxy::haproxy(backends) else {
        return;
    };
    let body = json!({ "inputs": echoes(["text"]) }).to_string();
    let load = Load::start(8, proxy.http(), "/v1/models/m/tasks/text/predict", &body);
    let answered = |server: &Server| {
        let metrics = server.metrics();
        metrics.sum(
            "inference_items_total",
            &[("task", "text"), ("outcome", "success")],
        )
    };
    // With equal weights, a third of the requests go to the slow server.
    eventually("requests to avoid the slow server", || {
        let before = servers.each_ref().map(answered);
        load.wait_for_replies(100);
        let after = servers.each_ref().map(answered);
        let share = |index: usize| after[index] - before[index];
        match share(2) / (share(0) + share(1) + share(2)) {
            slow if slow < 0.15 => Ok(()),
            slow => Err(slow),
        }
    });
    let weight = |server: &str| {
        let weight = proxy.haproxy_statistic(server, "weight");
        weight
            .and_then(|weight| weight.parse::<u32>().ok())
            .expect("a weight")
    };
    assert!(weight("server3") < weight("server1"));
    assert!(weight("server3") < weight("server2"));
    assert_eq!(load.stop(), Vec::<String>::new());
}
