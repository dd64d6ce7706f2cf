//! The command line of `status`.

use std::time::Duration;

use clap::Args;

use crate::client::{ServerArgs, Variables};

/// The environment variables of the command.
#[derive(Clone, Copy, Debug)]
pub(super) struct Environment;

impl Variables for Environment {
    const URL: &'static str = "INFERENCE_STATUS_URL";
    const KEY: &'static str = "INFERENCE_STATUS_KEY";
}

/// The arguments, in the order of `--help`.
#[derive(Clone, Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct StatusArgs {
    #[command(flatten)]
    pub(super) server: ServerArgs<Environment>,
    /// Interval between updates
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = duration)]
    pub(super) interval: Duration,
    /// Maximum time to wait for a reply
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration)]
    pub(super) timeout: Duration,
    /// Print the state once as JSON, and exit
    #[arg(long)]
    pub(super) json: bool,
}

const EXAMPLES: &str = "\
Examples:
  inference-server status
      a live view of the server on this machine; the arrow keys select a model, q quits
  INFERENCE_STATUS_KEY=… inference-server status --url gpu-7:8080
      another host, and an API key; with the admin key, failures are shown with their full reasons
  inference-server status --json | jq '.models[] | {name, explanation}'
      once, for a script

Columns: requests per second, median and 99th percentile of their latency, waiting items, items in a batch relative to the
maximum, part of the time in which workers ran batches, and failed items and rejected requests per second. They cover the last ten
seconds. The explanation below the table covers the last minute; the operations guide describes its codes.

If standard input or output is not a terminal, the state is printed once as a table.

Exit codes: 0 if the server is ready, or after q; 1 if it cannot be reached; 2 for an error in the command line; 3 if it is not
ready.";

/// Short enough to be useful, and long enough not to load the server.
fn duration(text: &str) -> Result<Duration, String> {
    const LIMITS: std::ops::RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(3600);
    match humantime::parse_duration(text) {
        Ok(duration) if LIMITS.contains(&duration) => Ok(duration),
        _ => Err("expected a number and a unit, from `100ms` to `1h`".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        status: StatusArgs,
    }

    fn parse(line: &str) -> Result<StatusArgs, String> {
        let line = Line::try_parse_from(std::iter::once("status").chain(line.split_whitespace()));
        line.map(|line| line.status).map_err(|error| error.to_string())
    }

    #[test]
    fn nothing_is_required() {
        let args = parse("").expect("it is valid");
        assert_eq!(args.server.url.to_string(), "http://127.0.0.1:8080");
        assert_eq!((args.interval, args.json), (Duration::from_secs(1), false));
    }

    #[test]
    fn invalid_arguments_are_rejected_with_a_hint() {
        for (line, part) in [
            ("--interval 1", "a number and a unit"),
            ("--interval 0s", "from `100ms` to `1h`"),
            ("--timeout 2h", "from `100ms` to `1h`"),
            ("--url ftp://here", "http://HOST:PORT"),
            ("--insecure --cacert ca.pem", "cannot be used with"),
        ] {
            let error = parse(line).expect_err(line);
            assert!(error.contains(part), "{line:?} is rejected with {error:?}");
        }
    }
}
