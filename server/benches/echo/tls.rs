//! CPU time of the server for a request over TLS next to one without, on connections that are kept.
//!
//! Two servers run at the same time and are measured in turns, so that other programs on the machine burden both alike. The
//! connections are opened before the measurement, so that handshakes are not part of it.

use std::error::Error;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};
use serde_json::json;

use crate::ECHO;
use crate::harness::load::{Connections, post};
use crate::harness::server::Server;

const TURN: Duration = Duration::from_millis(500);

/// The CPU times of a request, and their ratio in each turn.
pub(crate) struct Overhead {
    connections: usize,
    plain: Duration,
    tls: Duration,
    /// Sorted.
    ratios: Vec<f64>,
}

/// A server and the connections to it.
struct Side {
    server: Server,
    connections: Connections,
    cpu: Duration,
    requests: usize,
}

pub(crate) fn measure(
    connections: usize,
    text: &str,
    duration: Duration,
) -> Result<Overhead, Box<dyn Error>> {
    let request = post("/v1/models/template/tasks/echo/predict", &format!("\"{text}\""));
    let directory = tempfile::tempdir()?;
    let config = certificate(directory.path())?;
    let server = Server::start(ECHO)?;
    let mut plain = Side::new(server, connections, None)?;
    let files = format!(
        "management_port = 0\ntls = {{ cert = {:?}, key = {:?} }}",
        directory.path().join("server.pem"),
        directory.path().join("server-key.pem")
    );
    let server = Server::start_with(&files, ECHO)?;
    let mut tls = Side::new(server, connections, Some(&config))?;
    for side in [&mut plain, &mut tls] {
        side.connections.run(&request, TURN)?;
    }
    let turns = (duration.as_secs_f64() / TURN.as_secs_f64()).ceil() as u32;
    let mut ratios = Vec::new();
    for _ in 0..turns.max(1) {
        let without = plain.turn(&request)?;
        let with = tls.turn(&request)?;
        ratios.push(with / without);
    }
    ratios.sort_unstable_by(f64::total_cmp);
    Ok(Overhead {
        connections,
        plain: plain.finish()?,
        tls: tls.finish()?,
        ratios,
    })
}

/// Writes a certificate and its key to `directory`. Returns the settings of a client that trusts it.
fn certificate(directory: &Path) -> Result<Arc<ClientConfig>, Box<dyn Error>> {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["127.0.0.1".to_owned()])?;
    let key: &KeyPair = &signing_key;
    std::fs::write(directory.join("server.pem"), cert.pem())?;
    std::fs::write(directory.join("server-key.pem"), key.serialize_pem())?;
    let mut roots = RootCertStore::empty();
    roots.add(cert.der().clone())?;
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

impl Side {
    fn new(
        server: Server,
        connections: usize,
        tls: Option<&Arc<ClientConfig>>,
    ) -> Result<Self, Box<dyn Error>> {
        Ok(Self {
            connections: Connections::open(server.address, connections, tls)?,
            server,
            cpu: Duration::ZERO,
            requests: 0,
        })
    }

    /// The CPU time of one request, in seconds.
    fn turn(&mut self, request: &[u8]) -> Result<f64, Box<dyn Error>> {
        let before = self.server.cpu_time()?;
        let requests = self.connections.run(request, TURN)?.count();
        let cpu = self.server.cpu_time()? - before;
        self.cpu += cpu;
        self.requests += requests;
        Ok(cpu.as_secs_f64() / requests as f64)
    }

    /// Stops the server, and returns the mean CPU time of a request.
    fn finish(self) -> Result<Duration, Box<dyn Error>> {
        let requests = u32::try_from(self.requests)?;
        drop(self.connections);
        self.server.stop()?;
        Ok(self.cpu / requests)
    }
}

impl Overhead {
    fn ratio(&self) -> f64 {
        self.ratios[self.ratios.len() / 2]
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        json!({
            "connections": self.connections,
            "cpu_us_per_request": self.plain.as_secs_f64() * 1e6,
            "cpu_us_per_request_tls": self.tls.as_secs_f64() * 1e6,
            "cpu_ratio": self.ratio(),
        })
    }
}

impl fmt::Display for Overhead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} connections: {:.2} us of CPU time for a request, {:.2} us over TLS; ratio {:.3} ({:.3}–{:.3})",
            self.connections,
            self.plain.as_secs_f64() * 1e6,
            self.tls.as_secs_f64() * 1e6,
            self.ratio(),
            self.ratios[0],
            self.ratios[self.ratios.len() - 1],
        )
    }
}
