//! `inference-server batch`: runs the requests of a file as durable jobs, and writes their results to another file.
//!
//! This is an ordinary HTTP client, which only shares the foundation layer with the server, and `client` with other commands.
//! Everything runs on one thread. A number of jobs are in flight at the same time; results are written in the order of the input.

mod args;
mod error;
mod exchange;
mod progress_file;

pub use args::BatchArgs;
pub use error::BatchError;

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, IsTerminal as _};
use std::path::Path;
use std::rc::Rc;

use futures_util::{StreamExt as _, stream};
use hyper::body::Bytes;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::value::RawValue;
use tokio::task::LocalSet;

use self::args::{Environment, Plan};
use self::exchange::{Exchange, ExchangeError, JobResult, Target};
use self::progress_file::Run;
use crate::client::{QueryError, client_tls, resolve};
use crate::console;

/// Runs the command.
pub fn run(args: BatchArgs) -> Result<(), BatchError> {
    let plan = args.plan()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(BatchError::Runtime)?;
    LocalSet::new().block_on(&runtime, run_plan(plan))
}

async fn run_plan(plan: Plan) -> Result<(), BatchError> {
    let all = count_requests(&plan.input)?;
    let mut run = Run::open(&plan)?;
    let output = plan.output.clone();
    let tls = client_tls(&plan.url, &plan.trust)?;
    let endpoints = resolve(&plan.url, tls.as_ref()).await;
    let endpoints = endpoints.map_err(|failure| QueryError::new::<Environment>(&plan.url, "", failure))?;
    let bar = progress_bar(&plan, all);
    if run.done > 0 && !plan.quiet {
        console::report(format_args!("continuing after {} of {all} requests", run.done));
    }
    bar.set_position(run.done);
    let written = write_results(Rc::new(Target { plan, endpoints }), &mut run, &bar).await;
    bar.finish_and_clear();
    written?;
    let failed = run.failed;
    let finished = run.finish();
    finished.map_err(|source| BatchError::Output {
        file: output.clone(),
        source,
    })?;
    match failed {
        0 => Ok(()),
        failed => Err(BatchError::Failed {
            failed,
            all,
            file: output,
        }),
    }
}

fn progress_bar(plan: &Plan, all: u64) -> ProgressBar {
    if plan.quiet || !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(all);
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} requests, {per_sec}, {eta} left {msg}");
    bar.set_style(style.expect("the template is valid"));
    bar
}

/// Runs the lines that have no result yet, and writes their results in order.
async fn write_results(target: Rc<Target>, run: &mut Run, bar: &ProgressBar) -> Result<(), BatchError> {
    let plan = &target.plan;
    let lines = Lines::open(&plan.input, run.last_line)?;
    // Each job in flight uses one.
    let idle = Rc::new(RefCell::new(Vec::<Exchange>::new()));
    let identity = run.identity();
    let results = stream::iter(lines).map(|line| {
        let (target, idle, identity) = (target.clone(), idle.clone(), identity.clone());
        async move {
            let (number, text) = line?;
            let Some(body) = request_body(&text, target.plan.is_items) else {
                return Ok((number, Ok(malformed())));
            };
            let taken = idle.borrow_mut().pop();
            let mut exchange = taken.unwrap_or_else(|| Exchange::new(target.clone()));
            let result = exchange.run(&identity.key(number, &text), body).await;
            idle.borrow_mut().push(exchange);
            Ok::<_, BatchError>((number, result))
        }
    });
    let results = results.buffered(plan.concurrency);
    tokio::pin!(results);
    while let Some(result) = results.next().await {
        let (number, result) = result?;
        let result = result.map_err(|error| match error {
            ExchangeError::Rejected(status, message) => BatchError::Rejected {
                line: number,
                status,
                message,
            },
            ExchangeError::NoServer(why) => BatchError::NoServer {
                url: plan.url.to_string(),
                patience: plan.patience,
                why,
            },
        })?;
        let written = run.write(number, result.status, &body_member(&result.body));
        written.map_err(|source| BatchError::Output {
            file: plan.output.clone(),
            source,
        })?;
        bar.inc(1);
    }
    Ok(())
}

/// The body of the request of a line. `None` if the line is not JSON.
fn request_body(line: &[u8], is_item: bool) -> Option<Bytes> {
    serde_json::from_slice::<&RawValue>(line).ok()?;
    Some(match is_item {
        true => [b"{\"input\":".as_slice(), line, b"}"].concat().into(),
        false => Bytes::copy_from_slice(line),
    })
}

/// The result of a line that is not JSON.
fn malformed() -> JobResult {
    JobResult {
        status: 400,
        body: Bytes::from_static(
            br#"{"error":{"code":"malformed_request","message":"the line is not JSON; it was not sent"}}"#,
        ),
    }
}

/// The member of a result that has the reply: as it is if it is JSON, otherwise as text.
fn body_member(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    // A line break within the reply would end the line of the result.
    let is_one_line = !text.contains(['\n', '\r']);
    match serde_json::from_str::<serde_json::Value>(&text) {
        Ok(_) if is_one_line => format!("\"body\":{text}"),
        Ok(json) => format!("\"body\":{json}"),
        Err(_) => format!("\"body\":{}", serde_json::Value::from(text)),
    }
}

/// The lines of the input that are not empty, with their numbers from 1.
struct Lines<'a> {
    file: &'a Path,
    reader: BufReader<File>,
    number: u64,
    /// Lines up to this one are skipped.
    after: u64,
}

impl<'a> Lines<'a> {
    fn open(file: &'a Path, after: u64) -> Result<Self, BatchError> {
        let opened = File::open(file).map_err(|source| BatchError::Input {
            file: file.to_owned(),
            source,
        })?;
        Ok(Self {
            file,
            reader: BufReader::new(opened),
            number: 0,
            after,
        })
    }

    fn read(&mut self) -> io::Result<Option<(u64, Vec<u8>)>> {
        loop {
            let mut line = Vec::new();
            if self.reader.read_until(b'\n', &mut line)? == 0 {
                return Ok(None);
            }
            self.number += 1;
            let text = line.trim_ascii();
            if self.number > self.after && !text.is_empty() {
                return Ok(Some((self.number, text.to_vec())));
            }
        }
    }
}

impl Iterator for Lines<'_> {
    type Item = Result<(u64, Vec<u8>), BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        let line = self.read().map_err(|source| BatchError::Input {
            file: self.file.to_owned(),
            source,
        });
        line.transpose()
    }
}

fn count_requests(file: &Path) -> Result<u64, BatchError> {
    let mut count = 0;
    for line in Lines::open(file, 0)? {
        line?;
        count += 1;
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_is_one_line_whatever_the_reply() {
        for (body, member) in [
            (r#"{"outputs":[1.50]}"#, r#""body":{"outputs":[1.50]}"#),
            ("{\n\"a\": 1}", r#""body":{"a":1}"#),
            ("no JSON\n", r#""body":"no JSON\n""#),
        ] {
            assert_eq!(body_member(body.as_bytes()), member);
        }
    }

    #[test]
    fn a_line_is_a_request_or_an_item() {
        let body = |line: &str, is_item| request_body(line.as_bytes(), is_item);
        assert_eq!(
            body(r#"{"inputs":[1]}"#, false),
            Some(Bytes::from(r#"{"inputs":[1]}"#))
        );
        assert_eq!(body(r#""a""#, true), Some(Bytes::from(r#"{"input":"a"}"#)));
        assert_eq!(body("not JSON", true), None);
    }
}
