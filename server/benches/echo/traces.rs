//! What traces cost: the CPU time of servers that export some of them, relative to a server without traces.
//!
//! Two servers at a time run in turns, whose order alternates, and both have the same load. Processes of the same program differ
//! by a few percent, so there are several pairs. Those that trace nothing are the same server twice, which shows how much of a
//! difference is noise. The collector is a thread of this program.

use std::error::Error;
use std::fmt;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::harness::load::post;
use crate::harness::server::Server;
use crate::overhead::{Cell, Side, TURN};

/// Pairs of servers for each share of traced requests.
const PAIRS: u32 = 20;

/// Servers that trace, compared with one that does not.
pub(crate) struct Traces {
    pub(crate) connections: usize,
    pub(crate) costs: Vec<Cost>,
}

/// The cost of tracing this share of the requests.
pub(crate) struct Cost {
    pub(crate) ratio: f64,
    /// The median of the CPU time relative to the server without traces, for each pair, sorted.
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
}

pub(crate) fn measure(
    models: &str,
    ratios: &[f64],
    connections: usize,
    text: &str,
    duration: Duration,
) -> Result<Traces, Box<dyn Error>> {
    let request = post("/v1/models/template/tasks/echo/predict", &format!("\"{text}\""));
    let cell = Cell {
        connections,
        items: 1,
    };
    let turns = (duration / PAIRS).as_secs_f64() / TURN.as_secs_f64();
    let turns = (turns.ceil() as u32).max(1);
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
        for _ in 0..PAIRS {
            let (of_pair, more) = compare(models, &tracing, &request, cell, turns)?;
            cpu.push(of_pair);
            dropped += more;
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

/// The CPU time of a server with these settings of traces relative to one without, as the median of the turns, and the number of
/// spans that it dropped.
fn compare(
    models: &str,
    tracing: &str,
    request: &[u8],
    cell: Cell,
    turns: u32,
) -> Result<(f64, usize), Box<dyn Error>> {
    let plain = Server::start(models)?;
    let traced = Server::start(&format!("{models}{tracing}"))?;
    let mut of_plain = Side::new(plain.address, request.to_vec(), cell);
    let mut of_traced = Side::new(traced.address, request.to_vec(), cell);
    let mut ratios = Vec::new();
    for turn in 0..turns {
        let mut with = || of_traced.turn(|| traced.cpu_time());
        let mut without = || of_plain.turn(|| plain.cpu_time());
        let (with, without) = match turn % 2 {
            0 => {
                let with = with()?;
                (with, without()?)
            }
            _ => {
                let without = without()?;
                (with()?, without)
            }
        };
        ratios.push(with / without);
    }
    ratios.sort_unstable_by(f64::total_cmp);
    let dropped = match tracing {
        "" => 0,
        _ => traced.counter("inference_trace_spans_dropped_total")?,
    };
    traced.stop()?;
    plain.stop()?;
    Ok((ratios[ratios.len() / 2], dropped))
}

impl fmt::Display for Traces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "CPU time with traces, {} connections", self.connections)?;
        writeln!(
            f,
            "{:>8} {:>20} {:>8} {:>14}",
            "traced", "CPU ratio", "exports", "dropped spans"
        )?;
        for cost in &self.costs {
            let (lowest, highest) = (cost.cpu[0], cost.cpu[cost.cpu.len() - 1]);
            let ratio = format!("{:.3} ({lowest:.3}–{highest:.3})", cost.mean());
            let share = format!("{} %", cost.ratio * 100.0);
            writeln!(
                f,
                "{share:>8} {ratio:>20} {:>8} {:>14}",
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
