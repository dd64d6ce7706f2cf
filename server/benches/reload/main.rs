//! Measures the cost of a reload: CPU time, and the latency of models that are not reloaded.
//!
//! A model whose batches take 5 ms serves closed-loop clients while another model is reloaded periodically, in a thread or in a
//! worker process. Intervals with and without reloads alternate, and each pair yields a ratio, so that slow changes of the load
//! of the machine cancel out.

#![allow(clippy::print_stdout, reason = "the report is the output")]

#[path = "../harness/mod.rs"]
mod harness;

use std::error::Error;
use std::process::ExitCode;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use clap::Parser;

use harness::load::{Latencies, Load, post};
use harness::server::Server;

/// Measure the cost of a reload and its effect on other models
#[derive(Debug, Parser)]
struct Args {
    /// Number of pairs of an interval without and one with reloads
    #[arg(long, default_value_t = 10)]
    pairs: usize,
    /// Length of an interval in seconds
    #[arg(long, default_value_t = 6.0)]
    seconds: f64,
    /// Seconds between reloads
    #[arg(long, default_value_t = 2.0)]
    every: f64,
    /// Number of closed-loop clients of the model that is not reloaded
    #[arg(long, default_value_t = 8)]
    callers: usize,
    /// Passed by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    println!(
        "isolation        CPU time of a reload   p99 quiet   p99 under reloads   ratio, median and quartiles"
    );
    for isolation in ["thread", "process"] {
        match measure(&args, isolation) {
            Ok(line) => println!("{isolation:<9}  {line}"),
            Err(error) => {
                eprintln!("reload: {error}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

fn models(isolation: &str, round: usize) -> String {
    format!(
        "[[models]]\nname = \"steady\"\nplugin = \"misbehave\"\n[models.settings]\nbatch_ms = 5\n\
         [[models]]\nname = \"other\"\nplugin = \"misbehave\"\nisolation = \"{isolation}\"\n\
         [models.settings]\ntag = \"{round}\"\n"
    )
}

fn measure(args: &Args, isolation: &str) -> Result<String, Box<dyn Error>> {
    let server = Server::start(&models(isolation, 0))?;
    let mut round = 0;
    let cost = cost_of_a_reload(&server, isolation, &mut round)?;
    let mut pairs = Vec::with_capacity(args.pairs);
    // The first interval of each kind is the warm-up.
    for _ in 0..=args.pairs {
        let quiet = interval(args, &server, || Ok(()))?.quantile(0.99);
        let busy = interval(args, &server, || {
            round += 1;
            Ok(server.reload(&models(isolation, round))?)
        })?;
        pairs.push((quiet, busy.quantile(0.99)));
    }
    pairs.remove(0);
    server.stop()?;
    let quiet = quartiles(pairs.iter().map(|(quiet, _)| millis(*quiet)));
    let busy = quartiles(pairs.iter().map(|(_, busy)| millis(*busy)));
    let ratio = quartiles(pairs.iter().map(|(quiet, busy)| millis(*busy) / millis(*quiet)));
    Ok(format!(
        "{:>23.1} ms   {:>6.2} ms   {:>14.2} ms   {:.2} ({:.2} to {:.2})",
        millis(cost),
        quiet[1],
        busy[1],
        ratio[1],
        ratio[0],
        ratio[2]
    ))
}

/// Number of reloads per measurement of CPU time, whose resolution is low.
const RELOADS: u32 = 20;

/// CPU time of the server and its worker processes for one reload. The server does nothing else except reporting the number of
/// reloads ten times a second.
fn cost_of_a_reload(server: &Server, isolation: &str, round: &mut usize) -> Result<Duration, Box<dyn Error>> {
    let before = server.cpu_time_with_children()?;
    for _ in 0..RELOADS {
        *round += 1;
        server.reload(&models(isolation, *round))?;
        while server.reloads()? < *round {
            thread::park_timeout(Duration::from_millis(100));
        }
    }
    Ok((server.cpu_time_with_children()? - before) / RELOADS)
}

/// The latencies of the steady model while `background` is called.
fn interval(
    args: &Args,
    server: &Server,
    mut background: impl FnMut() -> Result<(), Box<dyn Error>>,
) -> Result<Latencies, Box<dyn Error>> {
    let request = post("/v1/models/steady/tasks/text/predict", "{}");
    let load = Load {
        address: server.address,
        request: &request,
        connections: args.callers,
    };
    let (end, ended) = channel::<()>();
    thread::scope(|scope| {
        let latencies = scope.spawn(move || {
            let _end = end;
            load.run(Duration::from_secs_f64(args.seconds))
        });
        let every = Duration::from_secs_f64(args.every);
        while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(every) {
            background()?;
        }
        Ok(latencies.join().map_err(|_| "the client panicked")??)
    })
}

/// The first quartile, the median and the third.
fn quartiles(values: impl Iterator<Item = f64>) -> [f64; 3] {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    [1, 2, 3].map(|quarter| sorted[(sorted.len() - 1) * quarter / 4])
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
