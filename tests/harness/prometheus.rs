//! A real Prometheus with the configuration of `config/deploy`.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::Value as Json;
use tempfile::TempDir;

use super::client::Client;
use super::eventually::eventually;
use super::shipped_proxy::deployment;
use super::tools;

/// A running Prometheus. It is killed on drop.
pub(crate) struct Prometheus {
    child: Child,
    client: Client,
    _dir: TempDir,
}

/// A program of the package `prometheus`, if it is installed.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let variable = format!("INFERENCE_TEST_{}", name.to_uppercase());
    tools::find(&variable, &[name], "apt-get install prometheus")
}

impl Prometheus {
    /// Starts Prometheus, which scrapes these servers twice per second, with these rules. Returns `None` if it is not installed.
    pub(crate) fn start(targets: &[SocketAddr], rules: &str) -> Option<Self> {
        let program = program("prometheus")?;
        let dir = tempfile::tempdir().expect("create a temporary directory");
        let config = std::fs::read_to_string(deployment("prometheus/prometheus.yml"));
        let mut config = config.expect("read the configuration");
        let list = targets.iter().map(|target| format!("          - {target}\n"));
        for (from, to) in [
            ("          - server:8080\n", list.collect::<String>()),
            ("scrape_interval: 15s", "scrape_interval: 500ms".to_owned()),
            (
                "evaluation_interval: 15s",
                "evaluation_interval: 500ms".to_owned(),
            ),
        ] {
            assert!(config.contains(from), "no {from:?} in the configuration");
            config = config.replace(from, &to);
        }
        std::fs::write(dir.path().join("prometheus.yml"), config).expect("write a file");
        std::fs::write(dir.path().join("alerts.yml"), rules).expect("write a file");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("it listens");
        drop(listener);
        let mut child = Command::new(program)
            .arg(format!(
                "--config.file={}",
                dir.path().join("prometheus.yml").display()
            ))
            .arg(format!(
                "--storage.tsdb.path={}",
                dir.path().join("data").display()
            ))
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("Prometheus can be started");
        let client = Client::new(address);
        eventually("Prometheus to be ready", || {
            let status = child.try_wait().expect("get the status of the child");
            assert!(status.is_none(), "Prometheus has exited: {status:?}");
            match client.request("GET", "/-/ready").try_send() {
                Ok(reply) if reply.status == 200 => Ok(()),
                other => Err(other.map(|reply| reply.status)),
            }
        });
        Some(Self {
            child,
            client,
            _dir: dir,
        })
    }

    /// Calls the API and returns its data.
    #[track_caller]
    pub(crate) fn api(&self, path: &str, parameters: &[(&str, &str)]) -> Json {
        let form: Vec<String> = parameters
            .iter()
            .map(|(name, value)| format!("{name}={}", encode(value)))
            .collect();
        let separator = if form.is_empty() { "" } else { "?" };
        let path = format!("/api/v1/{path}{separator}{}", form.join("&"));
        self.client.get(&path).expect(200).json()["data"].take()
    }

    /// Evaluates an expression now. Returns its samples: labels and value.
    #[track_caller]
    pub(crate) fn query(&self, expression: &str) -> Vec<(Json, f64)> {
        let data = self.api("query", &[("query", expression)]);
        let samples = data["result"].as_array().expect("a list of samples");
        let samples = samples.iter().map(|sample| {
            let value = sample["value"][1].as_str().and_then(|value| value.parse().ok());
            (sample["metric"].clone(), value.expect("a value"))
        });
        samples.collect()
    }

    /// Returns the names of the alerts that fire.
    pub(crate) fn firing(&self) -> Vec<String> {
        let samples = self.query("count by (alertname) (ALERTS{alertstate=\"firing\"})");
        let names = samples.iter().map(|(labels, _)| labels["alertname"].as_str());
        names.map(|name| name.unwrap_or_default().to_owned()).collect()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // Fails if the process has already exited.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Encodes a value for the query of a URL.
fn encode(value: &str) -> String {
    let encoded = value.bytes().map(|byte| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    });
    encoded.collect()
}
