//! Time to embed a batch of texts, by the shape of the batch, optionally compared with Python's onnxruntime.
//!
//! ```sh
//! plugins/sentence-embeddings/fetch-minilm /tmp/minilm
//! cargo bench -p plugin-sentence-embeddings --bench forward -- /tmp/minilm [--threads 2] [--python venv/bin/python3]
//! ```
//! Both sides alternate within seconds, so that other load on the machine affects both. The ratio is the median over the rounds.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a benchmark reads the clock and prints its results"
)]

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use plugin_sdk::serde_json::{from_value, json};
use sentence_embeddings::SentenceEmbeddings;

const SHAPES: [(usize, usize); 8] = [
    (1, 16),
    (1, 64),
    (1, 128),
    (8, 16),
    (8, 64),
    (8, 128),
    (32, 16),
    (32, 128),
];
const ROUNDS: usize = 15;
/// Approximate duration of each side in a round.
const TURN: Duration = Duration::from_millis(300);

struct Options {
    folder: PathBuf,
    threads: usize,
    python: Option<PathBuf>,
}

fn main() {
    let options = Options::read();
    let settings = from_value(json!({"folder": options.folder})).expect("valid settings");
    let model = SentenceEmbeddings::open(settings, Path::new(""), 1, options.threads);
    let model = model.unwrap_or_else(|error| panic!("{error}"));
    let mut other = options
        .python
        .as_ref()
        .map(|python| OnnxRuntime::start(python, &options));
    println!("{} threads, {ROUNDS} rounds", options.threads);
    for (batch, length) in SHAPES {
        let texts: Vec<Vec<u32>> = (0..batch as u32)
            .map(|text| {
                (0..length as u32)
                    .map(|token| 1000 + (text * 7919 + token * 104_729) % 19_000)
                    .collect()
            })
            .collect();
        let run = |runs: u32| {
            let begin = Instant::now();
            for _ in 0..runs {
                model.vectors(&texts).expect("compute the vectors");
            }
            begin.elapsed() / runs
        };
        run(2);
        let runs = (TURN.as_secs_f64() / run(2).as_secs_f64()).ceil() as u32;
        let (mut own, mut ratios) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let seconds = run(runs).as_secs_f64();
            own.push(seconds);
            if let Some(other) = &mut other {
                ratios.push(other.run(batch, length, runs) / seconds);
            }
        }
        let seconds = median(&mut own);
        let rate = batch as f64 / seconds;
        let mut line = format!(
            "{batch:3} × {length:3}  {:8.2} ms  {rate:7.0} texts/s",
            seconds * 1e3
        );
        if other.is_some() {
            line += &format!("  {:.2} × onnxruntime", median(&mut ratios));
        }
        println!("{line}");
    }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

impl Options {
    fn read() -> Self {
        let mut options = Self {
            folder: PathBuf::new(),
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            python: None,
        };
        let mut arguments = std::env::args_os().skip(1);
        while let Some(argument) = arguments.next() {
            match argument.to_str() {
                Some("--bench") => {}
                Some("--threads") => {
                    let threads = arguments.next().and_then(|number| number.to_str()?.parse().ok());
                    options.threads = threads.expect("--threads requires a number");
                }
                Some("--python") => options.python = arguments.next().map(PathBuf::from),
                _ => options.folder = argument.into(),
            }
        }
        options
    }
}

/// Python's onnxruntime in a separate process.
struct OnnxRuntime {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl OnnxRuntime {
    fn start(python: &Path, options: &Options) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/onnxruntime_forward.py");
        let mut child = Command::new(python)
            .arg(script)
            .arg(&options.folder)
            .arg(options.threads.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start Python");
        let mut other = Self {
            orders: child.stdin.take().expect("standard streams are piped"),
            answers: BufReader::new(child.stdout.take().expect("standard streams are piped")),
            child,
        };
        other.run(1, 8, 1);
        other
    }

    /// Returns the average duration of a run in seconds.
    fn run(&mut self, batch: usize, length: usize, runs: u32) -> f64 {
        writeln!(self.orders, "{batch} {length} {runs}").expect("write to Python");
        let mut answer = String::new();
        self.answers.read_line(&mut answer).expect("read from Python");
        let seconds: f64 = answer.trim().parse().expect("a number of seconds");
        seconds / f64::from(runs)
    }
}

impl Drop for OnnxRuntime {
    fn drop(&mut self) {
        // Fails if the process has already exited.
        let _result = self.child.kill();
        let _status = self.child.wait();
    }
}
