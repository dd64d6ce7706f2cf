//! What the server itself costs: the real executable with the template plugin, over loopback.
//!
//! The model answers at once, so everything that is measured is the server: HTTP, admission, the batcher, the plugin boundary
//! and the reply. Next to it, the same load goes to actix-web alone. Client and servers share the machine.

#![allow(clippy::print_stdout, reason = "the report is the output")]

mod bare;
#[path = "../harness/mod.rs"]
mod harness;
mod overhead;
mod probes;
mod report;
mod tls;
mod traces;

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use bare::Bare;
use harness::server::{self, Server};
use overhead::Cell;
use report::Report;

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
    #[arg(long, conflicts_with_all = ["probes", "traces"])]
    overhead: bool,
    /// Measure probes under load, and nothing else
    #[arg(long, conflicts_with = "traces")]
    probes: bool,
    /// Compare kept connections over TLS with those without, and measure nothing else
    #[arg(long, conflicts_with_all = ["probes", "overhead", "traces"])]
    tls: bool,
    /// Measure the cost of traces of these shares of the requests, and nothing else
    #[arg(long, value_delimiter = ',', num_args = 0..=1, default_missing_value = "0,0.01,0.1,1")]
    traces: Option<Vec<f64>>,
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
    } else if args.tls {
        compare_tls(&args)
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
    if args.probes {
        return Ok(Report {
            overhead: Vec::new(),
            rest: None,
            probes: Some(probes::measure(duration)?),
            traces: None,
        });
    }
    if let Some(ratios) = &args.traces {
        let connections = args.connections.get(1).copied().unwrap_or(1);
        let text = "x".repeat(args.characters);
        return Ok(Report {
            overhead: Vec::new(),
            rest: None,
            probes: None,
            traces: Some(traces::measure(ECHO, ratios, connections, &text, duration)?),
        });
    }
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
            binary_bytes: server::stripped_bytes(&server::binary())?,
            plugin_bytes: server::stripped_bytes(&server::plugin("template"))?,
        })
    };
    let probes = if args.overhead {
        None
    } else {
        Some(probes::measure(duration)?)
    };
    Ok(Report {
        overhead,
        rest,
        probes,
        traces: None,
    })
}

/// Measures and prints the overhead of TLS.
fn compare_tls(args: &Args) -> Result<(), Box<dyn Error>> {
    let text = "x".repeat(args.characters);
    let duration = Duration::from_secs(args.seconds);
    for &connections in &args.connections {
        let overhead = tls::measure(connections, &text, duration)?;
        match args.json {
            true => println!("{}", overhead.json()),
            false => print!("{overhead}"),
        }
    }
    Ok(())
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
