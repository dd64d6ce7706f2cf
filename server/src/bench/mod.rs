//! `inference-server bench`: load-tests a running server and reports throughput and latency.
//!
//! This is an ordinary HTTP client, which only shares the foundation layer with the server, and `client` with other commands. It reads the server's own times
//! from `/metrics`. Everything runs on one thread, except for the `pacer`, which wakes that thread when a request is due.

mod args;
mod arrivals;
mod compare;
mod drive;
mod error;
mod pacer;
mod page;
mod plot;
mod record;
mod report;
mod server_side;
mod table;
mod target;

pub use args::BenchArgs;
pub use error::BenchError;

use std::io::IsTerminal as _;
use std::path::Path;
use std::rc::Rc;

use self::args::{Comparison, Plan, Work};
use self::drive::{Drive, Outcome, Progress};
use self::report::{REPORT_VERSION, Report};
use self::target::Target;
use crate::clock;
use crate::console;

/// Runs the command. It is an error if no request of a step succeeded, but the report is written in any case.
pub fn run(args: BenchArgs) -> Result<(), BenchError> {
    match args.work()? {
        Work::Compare(comparison) => compare(&comparison),
        Work::Load(plan) => load(&plan),
    }
}

fn load(plan: &Plan) -> Result<(), BenchError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(BenchError::Runtime)?;
    let (report, ended) = tokio::task::LocalSet::new().block_on(&runtime, measure(plan))?;
    let json_to_stdout = plan.json.as_deref().is_some_and(is_stdout);
    if !json_to_stdout {
        print(&table::of_report(&report))?;
    }
    if let Some(path) = &plan.json {
        write(path, &report.to_json()?)?;
    }
    if let Some(path) = &plan.html {
        write(path, &page::of(&[&report])?)?;
    }
    if let Ended::Interrupted { partial } = ended {
        return Err(BenchError::Interrupted {
            measured: report.steps.len(),
            planned: plan.steps.len(),
            partial,
        });
    }
    match report.steps.iter().find(|step| step.requests == 0) {
        None => Ok(()),
        Some(step) => Err(BenchError::NothingSucceeded {
            load: step.load.to_string(),
            why: step.first_error(),
        }),
    }
}

/// How a run ended.
enum Ended {
    AsPlanned,
    Interrupted { partial: bool },
}

async fn measure(plan: &Plan) -> Result<(Report, Ended), BenchError> {
    let target = Rc::new(Target::find(plan).await?);
    let progress = match (plan.quiet, std::io::stderr().is_terminal()) {
        (true, _) => Progress::None,
        (false, true) => Progress::Bar,
        (false, false) => Progress::Lines,
    };
    let mut report = Report {
        version: REPORT_VERSION,
        server_url: plan.url.to_string(),
        label: plan.label.clone().unwrap_or_else(|| target.name()),
        model: target.model.clone(),
        task: target.task.clone(),
        started_unix_seconds: clock::unix_seconds(),
        items_per_request: target.items,
        body_bytes: target.body_bytes(),
        warm_up_seconds: plan.timing.warm_up.as_secs_f64(),
        timeout_seconds: plan.timing.timeout.as_secs_f64(),
        seed: plan.seed,
        steps: Vec::new(),
    };
    let drive = Drive {
        target: &target,
        timing: plan.timing,
        max_connections: plan.max_connections,
        seed: plan.seed,
        progress,
    };
    for (index, load) in plan.steps.iter().enumerate() {
        let place = format!("step {} of {}", index + 1, plan.steps.len());
        match drive.step(*load, &place).await? {
            Outcome::Complete(step) => report.steps.push(step),
            Outcome::Interrupted(step) => {
                let partial = step.is_some();
                report.steps.extend(step);
                return Ok((report, Ended::Interrupted { partial }));
            }
        }
    }
    Ok((report, Ended::AsPlanned))
}

fn compare(comparison: &Comparison) -> Result<(), BenchError> {
    let [a, b] = &comparison.files;
    let (a, b) = (Report::read(a)?, Report::read(b)?);
    print(&compare::table(&a, &b))?;
    match &comparison.html {
        Some(path) => write(path, &page::of(&[&a, &b])?),
        None => Ok(()),
    }
}

fn is_stdout(path: &Path) -> bool {
    path == Path::new("-")
}

fn write(path: &Path, text: &str) -> Result<(), BenchError> {
    if is_stdout(path) {
        return print(text);
    }
    std::fs::write(path, text).map_err(|source| BenchError::Write {
        path: path.to_owned(),
        source,
    })
}

/// Prints to standard output.
fn print(text: &str) -> Result<(), BenchError> {
    console::print(&format!("{text}\n")).map_err(BenchError::Output)
}
