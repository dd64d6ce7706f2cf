//! What a reload costs: processor time, and the latency of the models that are not reloaded.
//!
//! A model whose batches take 5 ms serves in a closed loop, while another one is loaded anew every now and then, as a thread's
//! and in a process of its own. Quiet spells and spells with reloads take turns, and each pair of them gives a ratio: what
//! else the machine does changes more slowly than that.

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

/// Measures what a reload costs, and the models that it does not concern.
#[derive(Debug, Parser)]
struct Args {
    /// Pairs of a quiet spell and one with reloads
    #[arg(long, default_value_t = 10)]
    pairs: usize,
    /// Seconds for each spell
    #[arg(long, default_value_t = 6.0)]
    seconds: f64,
    /// Seconds from one reload to the next
    #[arg(long, default_value_t = 2.0)]
    every: f64,
    /// Callers of the model that is not reloaded
    #[arg(long, default_value_t = 8)]
    callers: usize,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    println!(
        "isolation  processor time of a reload   p99 quiet   p99 under reloads   ratio, median and quartiles"
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
    // The first spell of each kind warms up.
    for _ in 0..=args.pairs {
        let quiet = spell(args, &server, || Ok(()))?.quantile(0.99);
        let busy = spell(args, &server, || {
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

/// How many reloads share the ticks of the system's clock.
const RELOADS: u32 = 20;

/// Processor time of the server and of the processes that it starts, with nothing else to do but to say ten times a second
/// how many reloads there were.
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

/// The latencies of the steady model, while `now_and_then` is called.
fn spell(
    args: &Args,
    server: &Server,
    mut now_and_then: impl FnMut() -> Result<(), Box<dyn Error>>,
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
            now_and_then()?;
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
