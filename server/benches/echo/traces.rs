//! What traces cost: the CPU time of a request while some requests are traced, relative to that while none is.
//!
//! Both are measured with one server, in short turns, because processes of the same program differ by a few percent. The order of
//! the turns is random: what the server does once per second must not always happen in the same ones. The clients decide which
//! requests are traced, by the header `traceparent`, which all requests have. The thread that exports spans works for earlier turns
//! as well, so its time is counted apart. Turns without traces on both sides show how much of a difference is noise. The collector
//! is a thread of this program.

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

/// Time for which the same share of the requests is traced.
const TURN: Duration = Duration::from_millis(250);

/// Time before the first turn, in which the exporter reaches its steady state.
const WARM_UP: Duration = Duration::from_secs(5);

/// The name of the thread that exports spans.
const EXPORTER: &str = "traces";

/// Requests of which some are traced, compared with requests of which none is.
pub(crate) struct Traces {
    pub(crate) connections: usize,
    pub(crate) costs: Vec<Cost>,
}

/// The cost of tracing this share of the requests.
pub(crate) struct Cost {
    pub(crate) traced: f64,
    /// The logarithm of the CPU time of a request relative to the turn without traces, for each pair of turns, without the
    /// exporter. The mean of the ratios themselves would grow with their noise.
    pub(crate) log_ratios: Vec<f64>,
    /// The CPU time of the exporter, relative to that of all other threads in turns with traces.
    pub(crate) exporter: f64,
    /// Exports that the collector received.
    pub(crate) exports: usize,
    /// Spans that the server dropped because there were too many.
    pub(crate) dropped: usize,
}

impl Cost {
    /// The CPU time of a request with traces, relative to one without.
    pub(crate) fn ratio(&self) -> f64 {
        self.mean().exp() * (1.0 + self.exporter)
    }

    fn mean(&self) -> f64 {
        self.log_ratios.iter().sum::<f64>() / self.log_ratios.len() as f64
    }

    /// The standard error of the ratio, approximately.
    pub(crate) fn error(&self) -> f64 {
        let mean = self.mean();
        let squares: f64 = self.log_ratios.iter().map(|ratio| (ratio - mean).powi(2)).sum();
        let turns = self.log_ratios.len() as f64;
        (squares / (turns * (turns - 1.0))).sqrt()
    }
}

pub(crate) fn measure(
    models: &str,
    shares: &[f64],
    connections: usize,
    text: &str,
    duration: Duration,
) -> Result<Traces, Box<dyn Error>> {
    let costs = shares.iter().map(|&share| {
        let collector = Collector::start()?;
        let tracing = format!("[tracing]\nendpoint = \"http://{}\"\n", collector.address);
        let server = Server::start(&format!("{models}{tracing}"))?;
        let mut load = TracedLoad {
            connections: Connections::open(server.address, connections, None)?,
            requests: [request(text, "00"), request(text, "01")],
            server,
        };
        let mut cost = load.compare(share, duration)?;
        cost.exports = collector.exports.load(Ordering::Relaxed);
        load.server.stop()?;
        Ok(cost)
    });
    Ok(Traces {
        connections,
        costs: costs.collect::<Result<_, Box<dyn Error>>>()?,
    })
}

/// A request with these flags of its trace.
fn request(text: &str, flags: &str) -> Vec<u8> {
    let request = post("/v1/models/template/tasks/echo/predict", &format!("\"{text}\""));
    let end = request
        .iter()
        .position(|&byte| byte == b'\n')
        .map_or(0, |at| at + 1);
    let header = format!("traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-{flags}\r\n");
    [&request[..end], header.as_bytes(), &request[end..]].concat()
}

/// The load on a server that traces.
struct TracedLoad {
    server: Server,
    connections: Connections,
    /// One that is not traced, and one that is.
    requests: [Vec<u8>; 2],
}

impl TracedLoad {
    fn compare(&mut self, share: f64, duration: Duration) -> Result<Cost, Box<dyn Error>> {
        self.run(share, WARM_UP)?;
        let exported_before = self.server.cpu_time_of_threads(|name| name == EXPORTER)?;
        let turns = (duration.as_secs_f64() / TURN.as_secs_f64()).ceil().max(2.0) as usize;
        let mut log_ratios = Vec::with_capacity(turns);
        let mut of_traced_turns = Duration::ZERO;
        for _ in 0..turns {
            let (with, without) = match fastrand::bool() {
                true => {
                    let with = self.turn(share)?;
                    (with, self.turn(0.0)?)
                }
                false => {
                    let without = self.turn(0.0)?;
                    (self.turn(share)?, without)
                }
            };
            log_ratios.push((with.per_request() / without.per_request()).ln());
            of_traced_turns += with.cpu;
        }
        let exporter = self.server.cpu_time_of_threads(|name| name == EXPORTER)? - exported_before;
        Ok(Cost {
            traced: share,
            log_ratios,
            exporter: exporter.as_secs_f64() / of_traced_turns.as_secs_f64(),
            exports: 0,
            dropped: self.server.dropped_spans()?,
        })
    }

    fn turn(&mut self, share: f64) -> Result<Turn, Box<dyn Error>> {
        let before = self.server.cpu_time_of_threads(|name| name != EXPORTER)?;
        let requests = self.run(share, TURN)?;
        let cpu = self.server.cpu_time_of_threads(|name| name != EXPORTER)? - before;
        Ok(Turn { cpu, requests })
    }

    /// Runs for this duration. Returns the number of requests.
    fn run(&mut self, share: f64, duration: Duration) -> Result<usize, Box<dyn Error>> {
        let [untraced, traced] = &self.requests;
        // A request is traced if the number of those that have to be traced grows with it.
        let due = |count: usize| (count as f64 * share) as usize;
        let request = |number| match due(number + 1) > due(number) {
            true => traced.as_slice(),
            false => untraced.as_slice(),
        };
        Ok(self.connections.run_mix(request, duration)?.count())
    }
}

/// What a turn used.
struct Turn {
    cpu: Duration,
    requests: usize,
}

impl Turn {
    /// CPU time of a request, in seconds.
    fn per_request(&self) -> f64 {
        self.cpu.as_secs_f64() / self.requests as f64
    }
}

impl fmt::Display for Traces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "CPU time with traces, {} connections", self.connections)?;
        writeln!(
            f,
            "{:>8} {:>17} {:>10} {:>8} {:>14}",
            "traced", "CPU ratio", "exporter", "exports", "dropped spans"
        )?;
        for cost in &self.costs {
            let share = format!("{} %", cost.traced * 100.0);
            let ratio = format!("{:.4} ± {:.4}", cost.ratio(), cost.error());
            let exporter = format!("{:.2} %", cost.exporter * 100.0);
            writeln!(
                f,
                "{share:>8} {ratio:>17} {exporter:>10} {:>8} {:>14}",
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
