//! The command line of `bench`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use hyper::HeaderMap;

use super::arrivals::Arrivals;
use super::error::BenchError;
use super::report::Load;
use crate::client::{ServerArgs, ServerUrl, Variables};
use crate::tls::Trust;

/// The environment variables of the command.
#[derive(Clone, Copy, Debug)]
pub(super) struct Environment;

impl Variables for Environment {
    const URL: &'static str = "INFERENCE_BENCH_URL";
    const KEY: &'static str = "INFERENCE_BENCH_KEY";
}

/// The arguments, in the order of `--help`.
#[derive(Clone, Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct BenchArgs {
    #[command(flatten)]
    server: ServerArgs<Environment>,
    /// Model to send requests to
    #[arg(long, short)]
    model: Option<String>,
    /// Task of the model; optional if it has only one task, or a default task
    #[arg(long, short)]
    task: Option<String>,

    /// Closed loop: number of clients, each of which sends its next request as soon as it has received a reply; each number
    /// is a separate step
    #[arg(
        long, short, value_name = "CLIENTS,…", value_delimiter = ',', default_value = "1,4,16,64",
        value_parser = clap::value_parser!(u32).range(1..=10_000), help_heading = "Load"
    )]
    concurrency: Vec<u32>,
    /// Open loop: requests per second, independent of replies; each rate is a separate step
    #[arg(
        long, short, value_name = "REQUESTS/S,…", value_delimiter = ',', value_parser = rate,
        conflicts_with = "concurrency", help_heading = "Load"
    )]
    rate: Vec<f64>,
    /// Arrivals of an open loop: poisson, constant, or burst:8 for bursts of eight
    #[arg(
        long, value_name = "KIND", default_value = "poisson", value_parser = Arrivals::parse, requires = "rate",
        help_heading = "Load"
    )]
    arrivals: Arrivals,
    /// Maximum number of connections of an open loop; the latency of a request includes its wait for one
    #[arg(
        long, value_name = "COUNT", default_value = "256", value_parser = clap::value_parser!(u32).range(1..=10_000),
        help_heading = "Load"
    )]
    max_connections: u32,
    /// Duration of the measurement of each step
    #[arg(long, short, value_name = "DURATION", default_value = "10s", value_parser = positive, help_heading = "Load")]
    duration: Duration,
    /// Duration of the load before each measurement
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = duration, help_heading = "Load")]
    warm_up: Duration,
    /// Timeout after which an unanswered request counts as failed
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = positive, help_heading = "Load")]
    timeout: Duration,
    /// Seed of the random arrivals of an open loop
    #[arg(long, value_name = "NUMBER", default_value = "1", help_heading = "Load")]
    seed: u64,

    /// File with the body of every request; the default is the example that the task declares
    #[arg(long, value_name = "FILE", help_heading = "Request")]
    body: Option<PathBuf>,
    /// Content type of the body; the default depends on the name of the file
    #[arg(long, value_name = "TYPE", requires = "body", help_heading = "Request")]
    content_type: Option<String>,
    /// Number of copies of the example in each request
    #[arg(
        long, value_name = "COUNT", conflicts_with = "body", value_parser = clap::value_parser!(u32).range(1..),
        help_heading = "Request"
    )]
    items: Option<u32>,

    /// Label of the run in tables and plots, such as the policy under test
    #[arg(long, value_name = "TEXT", help_heading = "Output")]
    label: Option<String>,
    /// File for the results as JSON; - writes to standard output
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    json: Option<PathBuf>,
    /// File for an HTML page with plots
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    html: Option<PathBuf>,
    /// Do not report progress
    #[arg(long, short, help_heading = "Output")]
    quiet: bool,
    /// Compare two results of --json, without a server
    #[arg(
        long, num_args = 2, value_names = ["A", "B"], help_heading = "Output",
        conflicts_with_all = ["model", "task", "concurrency", "rate", "body", "items", "json"]
    )]
    compare: Vec<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  inference-server bench --model digits
      1, 4, 16 and 64 clients in turn, with the example that the model declares
  inference-server bench --model digits --body digit.png --concurrency 32 --duration 30s
      your own request
  INFERENCE_BENCH_KEY=… inference-server bench --url gpu-7:8080 --model digits --header 'x-priority: low'
      another host, an API key, and a header
  inference-server bench --model digits --rate 100,500,1000 --html digits.html
      an open loop, and a page with plots
  inference-server bench --model digits --rate 200 --arrivals burst:8 --items 4
      bursts of eight requests with four items each
  inference-server bench --model digits --label greedy --json greedy.json
  inference-server bench --compare greedy.json fixed.json
      two configurations side by side

In an open loop, latency is measured from the moment a request was due, even if it could not be sent then. Server times
(queue, prepare, inference, encode) are means of its /metrics over the step, and include requests of other clients.

A request that was due before the measurement and was not answered by its end counts as failed (`unanswered`). Ctrl-C
ends the current step early and reports what was measured. The exit code is 0 if requests succeeded in every step.";

/// What the command does.
#[derive(Debug)]
pub(super) enum Work {
    Load(Box<Plan>),
    Compare(Comparison),
}

/// A load test of one task.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) url: ServerUrl,
    /// Which certificates are accepted if the URL is secure.
    pub(super) trust: Trust,
    /// Headers that are added to every request.
    pub(super) headers: HeaderMap,
    pub(super) model: String,
    pub(super) task: Option<String>,
    pub(super) steps: Vec<Load>,
    pub(super) max_connections: usize,
    pub(super) timing: Timing,
    pub(super) seed: u64,
    pub(super) request: RequestSource,
    pub(super) label: Option<String>,
    pub(super) json: Option<PathBuf>,
    pub(super) html: Option<PathBuf>,
    pub(super) quiet: bool,
}

/// Durations of a step.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timing {
    pub(super) warm_up: Duration,
    pub(super) duration: Duration,
    pub(super) timeout: Duration,
}

/// Where the body of the requests comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RequestSource {
    /// The example of the task, as one item.
    Example,
    /// This many copies of the example.
    Examples(usize),
    /// A file.
    File {
        path: PathBuf,
        content_type: Option<String>,
    },
}

/// A comparison of two reports.
#[derive(Debug)]
pub(super) struct Comparison {
    pub(super) files: [PathBuf; 2],
    pub(super) html: Option<PathBuf>,
}

impl BenchArgs {
    pub(super) fn work(self) -> Result<Work, BenchError> {
        if let Ok(files) = <[PathBuf; 2]>::try_from(self.compare) {
            let html = self.html;
            return Ok(Work::Compare(Comparison { files, html }));
        }
        let steps = if self.rate.is_empty() {
            let closed = |clients: &u32| Load::Closed { clients: *clients };
            self.concurrency.iter().map(closed).collect()
        } else {
            let arrivals = self.arrivals;
            let open = |rate: &f64| Load::Open {
                rate: *rate,
                arrivals,
            };
            self.rate.iter().map(open).collect()
        };
        let request = match (self.body, self.items) {
            (Some(path), _) => RequestSource::File {
                path,
                content_type: self.content_type,
            },
            (None, Some(items)) => RequestSource::Examples(items as usize),
            (None, None) => RequestSource::Example,
        };
        Ok(Work::Load(Box::new(Plan {
            trust: self.server.trust()?,
            headers: self.server.headers()?,
            url: self.server.url,
            model: self.model.ok_or(BenchError::NoModel)?,
            task: self.task,
            steps,
            max_connections: self.max_connections as usize,
            timing: Timing {
                warm_up: self.warm_up,
                duration: self.duration,
                timeout: self.timeout,
            },
            seed: self.seed,
            request,
            label: self.label,
            json: self.json,
            html: self.html,
            quiet: self.quiet,
        })))
    }
}

/// Long enough for any load, and short enough that sums of times cannot overflow.
const MAX_DURATION: Duration = Duration::from_secs(24 * 60 * 60);

fn duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(duration) if duration <= MAX_DURATION => Ok(duration),
        Ok(_) => Err("expected at most 24h".to_owned()),
        Err(_) => Err("expected a number and a unit, such as `500ms`, `10s` or `2m`".to_owned()),
    }
}

fn positive(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("expected a duration greater than zero".to_owned()),
        duration => Ok(duration),
    }
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate > 0.0 && rate <= 1e6 => Ok(rate),
        _ => Err("expected requests per second, greater than 0 and at most 1000000".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        bench: BenchArgs,
    }

    fn parse(line: &str) -> Result<Work, String> {
        let line = Line::try_parse_from(std::iter::once("bench").chain(line.split_whitespace()));
        line.map_err(|error| error.to_string())?
            .bench
            .work()
            .map_err(|error| error.to_string())
    }

    fn plan(line: &str) -> Plan {
        match parse(line) {
            Ok(Work::Load(plan)) => *plan,
            other => panic!("{other:?}"),
        }
    }

    fn error(line: &str) -> String {
        parse(line).expect_err(line)
    }

    #[test]
    fn a_model_is_the_only_required_argument() {
        let plan = plan("--model digits");
        assert_eq!(plan.url.to_string(), "http://127.0.0.1:8080");
        assert_eq!((plan.model.as_str(), plan.task), ("digits", None));
        let steps = [1, 4, 16, 64].map(|clients| Load::Closed { clients });
        assert_eq!(plan.steps, steps);
        assert_eq!(plan.request, RequestSource::Example);
    }

    #[test]
    fn rates_select_an_open_loop() {
        let steps = plan("-m m --rate 100,2.5 --arrivals burst:8").steps;
        let arrivals = Arrivals::Burst(8);
        assert_eq!(steps, [100.0, 2.5].map(|rate| Load::Open { rate, arrivals }));
    }

    #[test]
    fn the_key_and_headers_are_sent_with_every_request() {
        let headers = plan("-m m --key k1 --header x-a:1 -H x-b:2").headers;
        assert_eq!(headers["authorization"], "Bearer k1");
        assert_eq!(
            (&headers["x-a"], &headers["x-b"]),
            (&"1".parse().expect("valid"), &"2".parse().expect("valid"))
        );
    }

    #[test]
    fn the_accepted_certificates_of_the_server_are_chosen() {
        for (options, trust) in [
            ("", Trust::System),
            ("--cacert ca.pem", Trust::File("ca.pem".into())),
            ("--insecure", Trust::Anything),
        ] {
            assert_eq!(plan(&format!("-m m --url https://h:1 {options}")).trust, trust);
        }
    }

    #[test]
    fn durations_have_units() {
        let timing = plan("-m m --duration 250ms --warm-up 0s --timeout 2m").timing;
        let millis = [timing.duration, timing.warm_up, timing.timeout].map(|duration| duration.as_millis());
        assert_eq!(millis, [250, 0, 120_000]);
    }

    #[test]
    fn the_body_is_copies_of_the_example_or_a_file() {
        assert_eq!(plan("-m m --items 3").request, RequestSource::Examples(3));
        let file = RequestSource::File {
            path: "a.bin".into(),
            content_type: Some("image/png".to_owned()),
        };
        assert_eq!(plan("-m m --body a.bin --content-type image/png").request, file);
    }

    #[test]
    fn two_reports_are_compared_without_a_server() {
        match parse("--compare a.json b.json --html ab.html") {
            Ok(Work::Compare(comparison)) => {
                assert_eq!(comparison.files, ["a.json", "b.json"].map(PathBuf::from));
                assert_eq!(comparison.html, Some("ab.html".into()));
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn invalid_arguments_are_rejected_with_a_hint() {
        for (line, part) in [
            ("", "use --model"),
            ("-m m --url http://here:1 --insecure", "https://"),
            (
                "-m m --url https://here:1 --insecure --cacert a.pem",
                "cannot be used with",
            ),
            ("-m m --url ftp://here:1", "http://HOST:PORT"),
            ("-m m --url ::1", "[::1]"),
            ("-m m --header invalid", "--header number 1"),
            ("-m m --duration 10", "a unit"),
            ("-m m --duration 9999h", "24h"),
            ("-m m --duration 0s", "greater than zero"),
            ("-m m --rate 0", "greater than 0"),
            ("-m m --rate NaN", "greater than 0"),
            ("-m m --rate 1 --arrivals sometimes", "burst:8"),
            ("-m m --arrivals constant", "--rate"),
            ("-m m --concurrency 0", "1..=10000"),
            ("-m m --concurrency 1 --rate 1", "cannot be used with"),
            ("-m m --items 2 --body a.json", "cannot be used with"),
            ("--compare a.json", "2"),
            ("--compare a.json b.json --model m", "cannot be used with"),
        ] {
            let error = error(line);
            assert!(error.contains(part), "{line:?} is rejected with {error:?}");
        }
    }
}
