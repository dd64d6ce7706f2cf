//! The command line of `batch`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use hyper::HeaderMap;
use hyper::header::HeaderValue;

use super::error::BatchError;
use crate::client::{ServerArgs, ServerUrl, Variables};
use crate::tls::Trust;

/// The environment variables of the command.
#[derive(Clone, Copy, Debug)]
pub(super) struct Environment;

impl Variables for Environment {
    const URL: &'static str = "INFERENCE_BATCH_URL";
    const KEY: &'static str = "INFERENCE_BATCH_KEY";
}

/// The arguments, in the order of `--help`.
#[derive(Clone, Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct BatchArgs {
    #[command(flatten)]
    server: ServerArgs<Environment>,
    /// Model to send requests to
    #[arg(long, short)]
    model: String,
    /// Task of the model; optional if it has only one task, or a default task
    #[arg(long, short)]
    task: Option<String>,
    /// File with one JSON request per line, such as {"inputs": ["a", "b"]}; empty lines are skipped
    #[arg(long, short, value_name = "FILE")]
    input: PathBuf,
    /// File for the results: one line per request, in the order of the input
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    /// Each line of the input is one item, such as "a", instead of a request
    #[arg(long)]
    items: bool,

    /// Label of the jobs, by which `GET /v1/jobs?label=…` finds them
    #[arg(long, value_name = "TEXT", help_heading = "Jobs")]
    label: Option<String>,
    /// Order among the jobs of the model: high, normal or low
    #[arg(
        long, value_name = "CLASS", default_value = "normal", value_parser = ["high", "normal", "low"],
        help_heading = "Jobs"
    )]
    priority: String,
    /// Maximum number of jobs that wait or run at the same time
    #[arg(
        long, value_name = "COUNT", default_value = "128", value_parser = clap::value_parser!(u32).range(1..=4096),
        help_heading = "Jobs"
    )]
    concurrency: u32,
    /// Maximum time for which the command waits for a server that does not answer
    #[arg(
        long, value_name = "DURATION", default_value = "10m", value_parser = humantime::parse_duration,
        help_heading = "Jobs"
    )]
    patience: Duration,
    /// Discard the results and the progress of a previous run with this output
    #[arg(long, help_heading = "Output")]
    restart: bool,
    /// Do not report progress
    #[arg(long, short, help_heading = "Output")]
    quiet: bool,
}

const EXAMPLES: &str = "\
Examples:
  inference-server batch --model digits --input requests.jsonl --output results.jsonl
      each line of the input is the body of a request: {\"inputs\": [...]} or {\"input\": ...}
  inference-server batch --model minilm --task passage --items --input texts.jsonl --output vectors.jsonl
      each line of the input is one item: \"a text\"
  INFERENCE_BATCH_KEY=… inference-server batch --url https://gpu-7:8443 --model digits --label nightly \\
      --priority low --input requests.jsonl --output results.jsonl
      another host, an API key, and jobs that others overtake

Each line of the output has the number of the line of the input, the HTTP status, and the reply:
  {\"line\":1,\"status\":200,\"body\":{\"model\":\"digits\",\"task\":\"classify\",\"outputs\":[…]}}

The requests run as durable jobs: they fill the time that online requests leave free, and survive restarts of the server.

The command can be interrupted at any time, such as with Ctrl-C. Run it again with the same arguments to continue: results that
were written are kept, and jobs that were submitted are not submitted again. Its progress is in OUTPUT.progress, which is removed
at the end. Results can be fetched again for as long as the server keeps finished jobs (`retention` in [jobs]).

The exit code is 0 if every request succeeded, and 1 if one failed; its line has the error.";

/// What the command does.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) url: ServerUrl,
    /// Which certificates are accepted if the URL is secure.
    pub(super) trust: Trust,
    /// Headers of every request.
    pub(super) headers: HeaderMap,
    /// Headers of submissions.
    pub(super) job_headers: HeaderMap,
    pub(super) model: String,
    pub(super) task: Option<String>,
    pub(super) label: Option<String>,
    pub(super) priority: String,
    pub(super) input: PathBuf,
    pub(super) output: PathBuf,
    /// Whether each line is an item.
    pub(super) is_items: bool,
    pub(super) concurrency: usize,
    pub(super) patience: Duration,
    pub(super) restart: bool,
    pub(super) quiet: bool,
}

impl BatchArgs {
    pub(super) fn plan(self) -> Result<Plan, BatchError> {
        let mut job_headers = HeaderMap::new();
        job_headers.insert("prefer", HeaderValue::from_static("respond-async"));
        if let Ok(priority) = HeaderValue::from_str(&self.priority) {
            job_headers.insert("x-priority", priority);
        }
        if let Some(label) = &self.label {
            let label = HeaderValue::from_bytes(label.as_bytes()).map_err(|_| BatchError::Label)?;
            job_headers.insert("x-job-label", label);
        }
        Ok(Plan {
            trust: self.server.trust()?,
            headers: self.server.headers()?,
            job_headers,
            url: self.server.url,
            model: self.model,
            task: self.task,
            label: self.label,
            priority: self.priority,
            input: self.input,
            output: self.output,
            is_items: self.items,
            concurrency: self.concurrency as usize,
            patience: self.patience,
            restart: self.restart,
            quiet: self.quiet,
        })
    }
}
