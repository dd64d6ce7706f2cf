//! Probes while the server is saturated: 64 clients post vectors as JSON to a model that multiplies matrices.

use std::error::Error;
use std::net::SocketAddr;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use inference_server::clock;

use crate::harness::load::{Latencies, Load, get, post};
use crate::harness::server::Server;

const MATRIX: &str = "[[models]]\nname = \"matrix\"\nplugin = \"misbehave\"\nworkers = 2\n\
    settings = { multiplications = 2 }\n";

const CLIENTS: usize = 64;
const NUMBERS: usize = 384;
const PATHS: [&str; 3] = ["/livez", "/readyz", "/metrics"];

/// Pause between two probes.
const INTERVAL: Duration = Duration::from_millis(5);

/// The latencies of all kinds of probes.
pub(crate) struct Probes {
    pub(crate) probes: Vec<Probe>,
    /// Throughput of the clients meanwhile.
    pub(crate) per_second: f64,
}

/// The latencies of one kind of probe.
pub(crate) struct Probe {
    pub(crate) port: &'static str,
    pub(crate) path: &'static str,
    pub(crate) latencies: Latencies,
}

pub(crate) fn measure(duration: Duration) -> Result<Probes, Box<dyn Error>> {
    let server = Server::start_with("management_port = 0", MATRIX)?;
    let management = server
        .management_address
        .ok_or("the server has no management port")?;
    let vector = vec!["0.25"; NUMBERS].join(",");
    let request = post(
        "/v1/models/matrix/tasks/tensor/predict",
        &format!("{{\"numbers\":[{vector}]}}"),
    );
    let load = Load {
        address: server.address,
        request: &request,
        connections: CLIENTS,
    };
    let cells = [("main", server.address), ("management", management)];
    let cells: Vec<_> = cells
        .into_iter()
        .flat_map(|(port, address)| PATHS.map(|path| (port, address, path)))
        .collect();
    let total = duration * cells.len() as u32 + Duration::from_secs(1);
    let (probes, per_second) = thread::scope(|scope| {
        let clients = scope.spawn(move || load.run(total).map_err(|error| error.to_string()));
        // Runs first if that is permitted, so that only delays of the server count.
        let _ = rustix::process::setpriority_process(None, -20);
        let probes = cells
            .into_iter()
            .map(|(port, address, path)| {
                let latencies = probe(address, path, duration)?;
                Ok(Probe {
                    port,
                    path,
                    latencies,
                })
            })
            .collect::<Result<Vec<_>, Box<dyn Error>>>()?;
        let answered = clients.join().map_err(|_| "the clients panicked")??;
        let per_second = answered.count() as f64 / answered.elapsed.as_secs_f64();
        Ok::<_, Box<dyn Error>>((probes, per_second))
    })?;
    server.stop()?;
    Ok(Probes { probes, per_second })
}

/// Sends a request every few milliseconds, each on a new connection, as most probers do.
fn probe(address: SocketAddr, path: &str, duration: Duration) -> Result<Latencies, Box<dyn Error>> {
    let request = get(path);
    let load = Load {
        address,
        request: &request,
        connections: 1,
    };
    let (_never, pace) = channel::<()>();
    let end = clock::now() + duration;
    let mut all = load.run(Duration::ZERO)?;
    while clock::now() < end {
        if let Err(RecvTimeoutError::Timeout) = pace.recv_timeout(INTERVAL) {
            all.append(load.run(Duration::ZERO)?);
        }
    }
    Ok(all)
}
