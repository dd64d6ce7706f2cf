//! The overhead of the server: the real executable with the template plugin, over loopback.
//!
//! The model returns immediately, so everything that is measured is the server: HTTP, admission, the batcher, the plugin
//! boundary and the reply. Client and server share the machine. `GET /livez` with the same client is the baseline: the cost of
//! HTTP alone.

#![allow(clippy::print_stdout, reason = "the report is the output")]

#[path = "../harness/mod.rs"]
mod harness;
mod report;

use std::error::Error;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use clap::Parser;
use inference_server::clock;

use harness::load::{Load, get, post};
use harness::server::{self, Server};
use report::{Health, Report, Row};

/// Measure requests per second, latency, CPU time per request, memory and startup time of the server
#[derive(Debug, Parser)]
struct Args {
    /// Duration of each measurement, in seconds
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Number of keep-alive connections of the parallel measurements
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Length of the text that is sent, in characters
    #[arg(long, default_value_t = 200)]
    characters: usize,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Passed by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match measure(&args) {
        Ok(report) if args.json => println!("{}", report.json()),
        Ok(report) => print!("{report}"),
        Err(error) => {
            eprintln!("echo: {error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// `greedy`, so that work is measured rather than waiting.
const ECHO: &str =
    "[[models]]\nname = \"template\"\nplugin = \"template\"\n[models.batching]\npolicy = \"greedy\"\n";

fn measure(args: &Args) -> Result<Report, Box<dyn Error>> {
    let mut starts = (0..STARTS)
        .map(|_| {
            let server = Server::start(ECHO)?;
            let time = server.start_to_ready;
            server.stop()?;
            Ok(time)
        })
        .collect::<Result<Vec<_>, Box<dyn Error>>>()?;
    starts.sort_unstable();
    let server = Server::start(ECHO)?;
    let idle_rss = server.resident_bytes()?;
    let echo = post(
        "/v1/models/template/tasks/echo/predict",
        &format!("\"{}\"", "x".repeat(args.characters)),
    );
    let livez = get("/livez");
    let duration = Duration::from_secs(args.seconds);
    let mut rows = Vec::new();
    for (name, request, connections) in [
        ("GET /livez", &livez, 1),
        ("GET /livez", &livez, args.connections),
        ("echo", &echo, 1),
        ("echo", &echo, args.connections),
    ] {
        rows.push(row(&server, name, request, connections, duration)?);
    }
    let busy_rss = server.resident_bytes()?;
    server.stop()?;
    Ok(Report {
        rows,
        start_to_ready: starts[STARTS / 2],
        idle_rss,
        busy_rss,
        health: health_while_computing(duration).map_err(|error| error.to_string()),
        binary_bytes: server::stripped_bytes(&server::binary())?,
        plugin_bytes: server::stripped_bytes(&server::plugin("template"))?,
    })
}

const STARTS: usize = 5;

fn row(
    server: &Server,
    name: &'static str,
    request: &[u8],
    connections: usize,
    duration: Duration,
) -> Result<Row, Box<dyn Error>> {
    let load = Load {
        address: server.address,
        request,
        connections,
    };
    load.run(duration / 10)?;
    let before = server.cpu_time()?;
    let latencies = load.run(duration)?;
    let cpu = server.cpu_time()? - before;
    Ok(Row {
        name,
        connections,
        per_second: latencies.count() as f64 / latencies.elapsed.as_secs_f64(),
        p50: latencies.quantile(0.5),
        p99: latencies.quantile(0.99),
        cpu_per_request: cpu / u32::try_from(latencies.count())?,
    })
}

const BUSY: &str =
    "[[models]]\nname = \"busy\"\nplugin = \"misbehave\"\n[models.batching]\npolicy = \"off\"\n";

/// Latency of health checks and metrics while a model keeps every core busy.
fn health_while_computing(duration: Duration) -> Result<Health, Box<dyn Error>> {
    let server = Server::start(BUSY)?;
    let address = server.address;
    let spin = post(
        "/v1/models/busy/tasks/text/predict",
        "{\"do\":\"busy\",\"ms\":200}",
    );
    let health = thread::scope(|scope| {
        let burner = scope.spawn(|| {
            // Two connections, so that one item waits while the other runs, and the model is never idle.
            let load = Load {
                address,
                request: &spin,
                connections: 2,
            };
            load.run(2 * duration + Duration::from_secs(1))
                .map_err(|error| error.to_string())
        });
        let health = probe(address, "/readyz", duration).and_then(|readyz| {
            Ok(Health {
                readyz,
                metrics: probe(address, "/metrics", duration)?,
            })
        });
        burner
            .join()
            .map_err(|_| "the client that keeps the model busy panicked")??;
        health
    });
    server.stop()?;
    health
}

/// The 99th percentile of requests at intervals of a few milliseconds, like those of a prober.
fn probe(address: SocketAddr, path: &str, duration: Duration) -> Result<Duration, Box<dyn Error>> {
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
        if let Err(RecvTimeoutError::Timeout) = pace.recv_timeout(Duration::from_millis(5)) {
            all.append(load.run(Duration::ZERO)?);
        }
    }
    Ok(all.quantile(0.99))
}
