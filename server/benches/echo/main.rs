//! What the server itself costs: the real executable with the template plugin, over loopback.
//!
//! The model answers at once, so everything that is measured is the server: HTTP, admission, the batcher, the plugin boundary
//! and the reply. Next to it, the same load goes to actix-web alone. Client and servers share the machine.

#![allow(clippy::print_stdout, reason = "the report is the output")]

mod bare;
#[path = "../harness/mod.rs"]
mod harness;
mod overhead;
mod report;

use std::error::Error;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use clap::Parser;
use inference_server::clock;

use bare::Bare;
use harness::load::{Load, get, post};
use harness::server::{self, Server};
use overhead::Cell;
use report::{Health, Report};

/// Compares the server with actix-web alone, and measures its memory, its start, and its probes under load.
#[derive(Debug, Parser)]
struct Args {
    /// Seconds for each measurement
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Numbers of keep-alive connections
    #[arg(long, value_delimiter = ',', default_value = "1,64,256")]
    connections: Vec<usize>,
    /// Items in each request of the last measurement
    #[arg(long, default_value_t = 64)]
    items: usize,
    /// Characters of the text that is sent
    #[arg(long, default_value_t = 200)]
    characters: usize,
    /// Compare with actix-web, and measure nothing else
    #[arg(long)]
    overhead: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Be the baseline
    #[arg(long, hide = true)]
    bare: bool,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let result = if args.bare {
        bare::serve().map_err(Into::into)
    } else {
        measure(&args).map(|report| {
            if args.json {
                println!("{}", report.json());
            } else {
                print!("{report}");
            }
        })
    };
    if let Err(error) = result {
        eprintln!("echo: {error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// `greedy`, so that what is measured is work and not waiting, and a queue for all items of all connections.
const ECHO: &str = "[[models]]\nname = \"template\"\nplugin = \"template\"\n\
    [models.batching]\npolicy = \"greedy\"\nmax_queue_size = 1000000\n";

fn measure(args: &Args) -> Result<Report, Box<dyn Error>> {
    let duration = Duration::from_secs(args.seconds);
    let server = Server::start(ECHO)?;
    let idle_rss = server.resident_bytes()?;
    let bare = Bare::start()?;
    let text = "x".repeat(args.characters);
    let single = args.connections.iter().map(|&connections| Cell {
        connections,
        items: 1,
    });
    let several = Cell {
        connections: args.connections.get(1).copied().unwrap_or(1),
        items: args.items,
    };
    let overhead = single
        .chain([several])
        .map(|cell| overhead::measure(&server, &bare, cell, &text, duration))
        .collect::<Result<_, _>>()?;
    let busy_rss = server.resident_bytes()?;
    server.stop()?;
    drop(bare);
    let rest = if args.overhead {
        None
    } else {
        Some(report::Rest {
            start_to_ready: start_to_ready()?,
            idle_rss,
            busy_rss,
            health: health_while_computing(duration).map_err(|error| error.to_string()),
            binary_bytes: server::stripped_bytes(&server::binary())?,
            plugin_bytes: server::stripped_bytes(&server::plugin("template"))?,
        })
    };
    Ok(Report { overhead, rest })
}

const STARTS: usize = 5;

/// The median of a few starts.
fn start_to_ready() -> Result<Duration, Box<dyn Error>> {
    let mut starts = (0..STARTS)
        .map(|_| {
            let server = Server::start(ECHO)?;
            let time = server.start_to_ready;
            server.stop()?;
            Ok(time)
        })
        .collect::<Result<Vec<_>, Box<dyn Error>>>()?;
    starts.sort_unstable();
    Ok(starts[STARTS / 2])
}

const BUSY: &str =
    "[[models]]\nname = \"busy\"\nplugin = \"misbehave\"\n[models.batching]\npolicy = \"off\"\n";

/// How fast health and metrics are answered while a model keeps every core busy.
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

/// The 99th percentile of requests that come every few milliseconds, as a prober's would.
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
