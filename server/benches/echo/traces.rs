//! What traces cost: the CPU time of servers that export some of them, relative to a server without traces.
//!
//! Two servers run at the same time with the same load, so that they share whatever the machine does. Processes of the same
//! program still differ by a few percent, so there are several pairs. Those that trace nothing are the same server twice, which
//! shows how much of a difference is noise. The collector is a thread of this program.

use std::error::Error;
use std::fmt;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::harness::load::{Connections, post};
use crate::harness::server::Server;

/// Time for which each pair of servers is measured.
const TURN: Duration = Duration::from_secs(4);

/// Time before each measurement, in which the exporter reaches its steady state.
const WARM_UP: Duration = Duration::from_secs(2);

/// Servers that trace, compared with one that does not.
pub(crate) struct Traces {
    pub(crate) connections: usize,
    pub(crate) costs: Vec<Cost>,
}

/// The cost of tracing this share of the requests.
pub(crate) struct Cost {
    pub(crate) ratio: f64,
    /// The CPU time of a request relative to the server without traces, for each pair, sorted.
    pub(crate) cpu: Vec<f64>,
    /// Exports that the collector received.
    pub(crate) exports: usize,
    /// Spans that the servers dropped because there were too many.
    pub(crate) dropped: usize,
}

impl Cost {
    pub(crate) fn mean(&self) -> f64 {
        self.cpu.iter().sum::<f64>() / self.cpu.len() as f64
    }

    /// The standard error of the mean.
    pub(crate) fn error(&self) -> f64 {
        let mean = self.mean();
        let squares: f64 = self.cpu.iter().map(|ratio| (ratio - mean).powi(2)).sum();
        let pairs = self.cpu.len() as f64;
        (squares / (pairs * (pairs - 1.0))).sqrt()
    }
}

pub(crate) fn measure(
    models: &str,
    ratios: &[f64],
    connections: usize,
    text: &str,
    duration: Duration,
) -> Result<Traces, Box<dyn Error>> {
    let request = post("/v1/models/template/tasks/echo/predict", &format!("\"{text}\""));
    // Two at least, for their standard deviation.
    let pairs = (duration.as_secs_f64() / TURN.as_secs_f64()).ceil().max(2.0) as usize;
    let mut costs = Vec::new();
    for &ratio in ratios {
        let collector = Collector::start()?;
        let tracing = match ratio {
            0.0 => String::new(),
            ratio => format!(
                "[tracing]\nendpoint = \"http://{}\"\nsample_ratio = {ratio:?}\n",
                collector.address
            ),
        };
        let mut cpu = Vec::new();
        let mut dropped = 0;
        for _ in 0..pairs {
            let plain = Side::start(models, connections)?;
            let traced = Side::start(&format!("{models}{tracing}"), connections)?;
            let mut pair = Pair { plain, traced };
            cpu.push(pair.compare(&request)?);
            let Pair { plain, traced } = pair;
            dropped += traced.server.dropped_spans()?;
            traced.server.stop()?;
            plain.server.stop()?;
        }
        cpu.sort_unstable_by(f64::total_cmp);
        costs.push(Cost {
            ratio,
            cpu,
            exports: collector.exports.load(Ordering::Relaxed),
            dropped,
        });
    }
    Ok(Traces { connections, costs })
}

/// Two servers that are compared.
struct Pair {
    plain: Side,
    traced: Side,
}

impl Pair {
    /// Puts the same load on both at the same time. Returns the CPU time of a request to the one that traces relative to one to
    /// the other.
    fn compare(&mut self, request: &[u8]) -> Result<f64, Box<dyn Error>> {
        let (plain, traced) = (&mut self.plain, &mut self.traced);
        let (with, without) = thread::scope(|scope| {
            let with = scope.spawn(|| traced.cpu_time_of_request(request));
            let without = plain.cpu_time_of_request(request);
            (with.join(), without)
        });
        let with = with.map_err(|_| "the load on the traced server panicked")?;
        Ok(with? / without?)
    }
}

/// A server and the connections to it.
struct Side {
    server: Server,
    connections: Connections,
}

impl Side {
    fn start(models: &str, connections: usize) -> Result<Self, Box<dyn Error>> {
        let server = Server::start(models)?;
        let connections = Connections::open(server.address, connections, None)?;
        Ok(Self { server, connections })
    }

    /// The CPU time of a request, in seconds.
    fn cpu_time_of_request(&mut self, request: &[u8]) -> Result<f64, String> {
        let mut measure = || {
            self.connections.run(request, WARM_UP)?;
            let before = self.server.cpu_time()?;
            let latencies = self.connections.run(request, TURN)?;
            let cpu = self.server.cpu_time()? - before;
            Ok(cpu.as_secs_f64() / latencies.count() as f64)
        };
        measure().map_err(|error: Box<dyn Error>| error.to_string())
    }
}

impl fmt::Display for Traces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "CPU time with traces, {} connections", self.connections)?;
        writeln!(
            f,
            "{:>8} {:>32} {:>8} {:>14}",
            "traced", "CPU ratio", "exports", "dropped spans"
        )?;
        for cost in &self.costs {
            let (lowest, highest) = (cost.cpu[0], cost.cpu[cost.cpu.len() - 1]);
            let (mean, error) = (cost.mean(), cost.error());
            let ratio = format!("{mean:.4} ± {error:.4} ({lowest:.3}–{highest:.3})");
            let share = format!("{} %", cost.ratio * 100.0);
            writeln!(
                f,
                "{share:>8} {ratio:>32} {:>8} {:>14}",
                cost.exports, cost.dropped
            )?;
        }
        Ok(())
    }
}

/// Accepts whatever is exported over HTTP. Its threads end with this program.
struct Collector {
    address: SocketAddr,
    exports: Arc<AtomicUsize>,
}

impl Collector {
    fn start() -> Result<Self, Box<dyn Error>> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let exports = Arc::new(AtomicUsize::new(0));
        let counted = exports.clone();
        thread::Builder::new()
            .name("collector".to_owned())
            .spawn(move || {
                for socket in listener.incoming().flatten() {
                    let counted = counted.clone();
                    thread::spawn(move || serve(&socket, &counted));
                }
            })?;
        Ok(Self { address, exports })
    }
}

/// Answers requests until the connection is closed.
fn serve(socket: &TcpStream, exports: &AtomicUsize) -> Option<()> {
    let (mut reader, mut writer) = (BufReader::new(socket), socket);
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            let line = line.trim_end().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().ok()?;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        writer
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
            .ok()?;
        exports.fetch_add(1, Ordering::Relaxed);
    }
}
