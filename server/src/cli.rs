//! The command line: commands, flags and their help.
//!
//! The flags that set configuration keys are not declared here: they are generated from the keys.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{PossibleValue, StringValueParser, TypedValueParser};
use clap::{Arg, ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand};

#[cfg(feature = "batch")]
use crate::batch::BatchArgs;
#[cfg(feature = "bench")]
use crate::bench::BenchArgs;
use crate::build_info;
use crate::config::{self, Flag, Overrides};
use crate::isolation::CHILD_COMMAND;
use crate::isolation::confine::CONFINE_OPTION;
use crate::loader::PROBE_COMMAND;
#[cfg(feature = "status")]
use crate::status::StatusArgs;

/// Serve machine-learning models over HTTP and gRPC, with dynamic batching and hot reload
#[derive(Debug, Parser)]
#[command(
    name = "inference-server",
    version,
    long_version = build_info::describe(),
    args_conflicts_with_subcommands = true,
    after_help = "Signals:\n  SIGHUP   reload the configuration without failing a request, as `inference-server reload`\n  \
                  SIGTERM  finish accepted requests, then exit; a second signal exits immediately\n\n\
                  Precedence, highest first: command line, environment (INFERENCE_…), configuration file,\n\
                  plugin defaults, built-in defaults. `inference-server config-reference` lists all keys."
)]
pub struct Cli {
    /// The command. Without one, the server runs.
    #[command(subcommand)]
    pub command: Option<Command>,

    /// The flags of the server.
    #[command(flatten)]
    pub serve: ServeArgs,
}

/// The commands other than running the server.
#[derive(Debug, Subcommand)]
#[allow(clippy::large_enum_variant, reason = "a process has only one")]
pub enum Command {
    /// Check a configuration and the plugins it names; report all errors at once, ordered by line
    Check {
        /// The flags of the server.
        #[command(flatten)]
        serve: ServeArgs,
        /// Also load and warm up every model
        #[arg(long)]
        load: bool,
    },
    /// Write an example of a model, with its configuration, that runs as it is: a plugin crate in Rust, or a model in Python
    #[command(after_help = NEW_EXAMPLES)]
    New {
        /// Write a model in Python instead of a plugin crate in Rust
        #[arg(long)]
        python: bool,
        /// Directory `plugin-sdk` of a checkout to build the crate with, instead of the published SDK
        #[arg(long, value_name = "DIRECTORY", conflicts_with = "python")]
        sdk: Option<PathBuf>,
        /// Directory for the files; created if it does not exist. Its name becomes that of the crate and of its model
        #[arg(value_name = "NAME")]
        directory: PathBuf,
    },
    /// Print every configuration key with its meaning, accepted values and default
    ConfigReference {
        /// Print Markdown tables instead of an annotated TOML file
        #[arg(long)]
        markdown: bool,
    },
    /// Print what a plugin declares and check it; exit with 1 if the server would reject it
    Inspect {
        /// Plugin: a shared library built with plugin-sdk
        file: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
        /// Also exit with 1 if there are warnings, such as for a debug build
        #[arg(long)]
        strict: bool,
    },
    /// Ask a running server on this machine to reload; exit with 1 and the reason if the reload fails
    Reload {
        /// Process ID of the server; not needed if only one is running
        #[arg(long)]
        pid: Option<u32>,
        /// Maximum time to wait for the reload
        #[arg(long, value_name = "DURATION", default_value = "15m", value_parser = timeout)]
        timeout: Duration,
    },
    /// Generate API keys
    Key {
        /// What to do.
        #[command(subcommand)]
        command: KeyCommand,
    },
    /// Measure the memory and the time of a model's batches, and suggest limits
    #[cfg(feature = "calibrate")]
    Calibrate(CalibrateArgs),
    /// Run the requests of a file as durable jobs, and write their results to another file; continues after an interruption
    #[cfg(feature = "batch")]
    Batch(BatchArgs),
    /// Load-test a running server and report throughput and latency
    #[cfg(feature = "bench")]
    Bench(BenchArgs),
    /// Show the state of a running server, live in a terminal: its models, their load, and what limits them
    #[cfg(feature = "status")]
    Status(StatusArgs),
    /// Print a completion script for a shell
    Completions {
        /// Shell that the script is for
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    Man {
        /// Write the pages of all commands to this directory instead
        #[arg(long)]
        directory: Option<PathBuf>,
    },
    /// Open a plugin and report its manifest; the server runs this in a child process, because it may crash
    #[command(name = PROBE_COMMAND, hide = true)]
    ProbePlugin {
        /// Confinement to apply first, as JSON.
        #[arg(long = CONFINE_OPTION)]
        confine: Option<String>,
        /// The plugin.
        file: PathBuf,
    },
    /// Run a model for the server that started this process
    #[command(name = CHILD_COMMAND, hide = true)]
    ModelProcess {
        /// Name of the model, which process listings show.
        model: String,
    },
}

const NEW_EXAMPLES: &str = "\
Examples:
  inference-server new words
      a plugin crate with a model, a task, tests and a configuration
  inference-server new words --sdk ../inference-server/plugin-sdk
      the same, built with the SDK of a checkout
  inference-server new demo --python
      a class in Python whose methods are tasks, and a configuration";

/// The commands for API keys.
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Generate a key: print its entry for the file of keys, and the key itself
    New(NewKeyArgs),
}

/// The arguments of `key new`.
#[derive(Clone, Debug, Args)]
#[command(after_long_help = NEW_KEY_HELP)]
pub struct NewKeyArgs {
    /// Name of the key in the log, in metrics and in messages, such as that of its client
    pub name: String,
    /// Models that the key may use, by name, or tasks as `model.task`; a `*` at the end matches any suffix; all by default
    #[arg(long, value_name = "PATTERN", value_delimiter = ',')]
    pub models: Vec<String>,
    /// Allow loading and unloading models, and reading full error messages
    #[arg(long)]
    pub admin: bool,
    /// Time from which the key is rejected, in UTC, such as 2027-01-31 or 2027-01-31T12:00:00Z
    #[arg(long, value_name = "TIME")]
    pub expires: Option<String>,
    /// Requests per second, on average
    #[arg(long, value_name = "RATE")]
    pub requests_per_second: Option<f64>,
    /// Maximum number of requests in a burst
    #[arg(long, value_name = "COUNT")]
    pub request_burst: Option<u32>,
    /// Items per second, on average
    #[arg(long, value_name = "RATE")]
    pub items_per_second: Option<f64>,
    /// Maximum number of items in a burst
    #[arg(long, value_name = "COUNT")]
    pub item_burst: Option<u32>,
}

const NEW_KEY_HELP: &str = "\
Examples:
  inference-server key new batch-jobs >> keys.toml
      a key for all models, without limits
  inference-server key new mobile-app --models minilm,digits.classify --requests-per-second 10 --request-burst 50 >> keys.toml
      a key for one model and one task of another, with a limit

The entry is written to standard output, to append it to the file of keys. The key is written to standard error, once: the file
has only its SHA-256, from which it cannot be computed. Clients send the key as `authorization: Bearer KEY`.

To use the file, set `api_keys_file = \"keys.toml\"` in [server] and restart the server. Later changes of the file apply after
`inference-server reload` or SIGHUP. To replace a key without an interruption, add a second one under another name, reload, move
its clients, and remove the first one.";

/// The arguments of `calibrate`.
#[cfg(feature = "calibrate")]
#[derive(Clone, Debug, Args)]
#[command(after_long_help = CALIBRATE_EXAMPLES)]
pub struct CalibrateArgs {
    /// The flags of the server.
    #[command(flatten)]
    pub serve: ServeArgs,
    /// Model to measure; optional if only one is configured
    #[arg(long, short, help_heading = "Measurement")]
    pub model: Option<String>,
    /// Task to measure; all tasks for which there are items by default
    #[arg(long, short, help_heading = "Measurement")]
    pub task: Option<String>,
    /// Maximum memory of a batch, in addition to that of the idle model; half of the memory that the server can use by default
    #[arg(long, value_name = "SIZE", value_parser = config::parse_size, help_heading = "Measurement")]
    pub budget: Option<u64>,
    /// File with recorded requests, one JSON body per line, whose items are measured; the plugin creates items by default
    #[arg(long, value_name = "FILE", help_heading = "Measurement")]
    pub requests: Option<PathBuf>,
    /// Maximum duration of the measurements of the model
    #[arg(
        long, value_name = "DURATION", default_value = "60s", value_parser = humantime::parse_duration,
        help_heading = "Measurement"
    )]
    pub max_time: Duration,
    /// Number of other, random batches whose memory is compared with the prediction of the fit
    #[arg(
        long, value_name = "COUNT", default_value = "0", value_parser = clap::value_parser!(u32).range(..=10_000),
        help_heading = "Measurement"
    )]
    pub check: u32,
    /// File for an HTML page with plots
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub html: Option<PathBuf>,
    /// Do not report progress
    #[arg(long, short, help_heading = "Output")]
    pub quiet: bool,
}

#[cfg(feature = "calibrate")]
const CALIBRATE_EXAMPLES: &str = "\
Examples:
  inference-server calibrate --config models.toml --model minilm
      all tasks of a model, with items that its plugin creates
  inference-server calibrate --config models.toml --model minilm --task passage --budget 2GiB --html minilm.html
      one task, with batches of up to 2 GiB, and a page with plots
  inference-server calibrate --config models.toml --model old --requests requests.jsonl
      items of recorded requests, one per line, such as {\"task\": \"echo\", \"inputs\": [\"to be\"]}

The model runs in a dedicated process, which is replaced if it runs out of memory. The measurements are written to
calibration/MODEL.json in the directory of the configuration file.";

/// The flags of the server: its configuration file, and the flags that override keys of it.
#[derive(Clone, Debug)]
pub struct ServeArgs {
    /// The configuration file.
    pub config: PathBuf,
    /// The flags that override keys, and the environment variables that the command line reads.
    pub overrides: Overrides,
}

/// The flags of the server that do not set a key.
#[derive(Clone, Debug, Args)]
struct FileArgs {
    /// Configuration file
    #[arg(
        long,
        short,
        value_name = "FILE",
        env = "INFERENCE_CONFIG",
        default_value = "models.toml"
    )]
    config: PathBuf,
}

impl Args for ServeArgs {
    fn augment_args(command: clap::Command) -> clap::Command {
        config::flags().fold(FileArgs::augment_args(command), |command, flag| {
            command.arg(argument(&flag))
        })
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for ServeArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut overrides = Overrides::none();
        for flag in config::flags() {
            if let Some(text) = matches.get_one::<String>(flag.name) {
                overrides.set(&flag, text);
            }
        }
        for variable in variables(&Cli::command()) {
            overrides.add_variable(variable);
        }
        Ok(Self {
            config: FileArgs::from_arg_matches(matches)?.config,
            overrides,
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// The argument for a flag that sets a key.
fn argument(flag: &Flag) -> Arg {
    let meaning = flag.meaning();
    let summary = meaning.split(". ").next().unwrap_or_default();
    let variable = flag
        .variable()
        .map_or_else(String::new, |name| format!("[env: {name}]\n"));
    let argument = Arg::new(flag.name)
        .long(flag.name.trim_start_matches('-'))
        .value_name(flag.value_name())
        .value_parser(AnyText(flag.words()))
        .help(summary.trim_end_matches('.').to_owned())
        .long_help(format!("{meaning}\n\n{variable}[default: {}]", flag.default()));
    match flag.heading {
        Some(heading) => argument.help_heading(heading),
        None => argument,
    }
}

/// Accepts any text, since the configuration validates values and reports all errors at once. The words are for help and
/// completions.
#[derive(Clone)]
struct AnyText(Vec<&'static str>);

impl TypedValueParser for AnyText {
    type Value = String;

    fn parse_ref(
        &self,
        command: &clap::Command,
        argument: Option<&Arg>,
        value: &OsStr,
    ) -> Result<String, clap::Error> {
        StringValueParser::new().parse_ref(command, argument, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        let words = self.0.iter().map(PossibleValue::new);
        (!self.0.is_empty()).then(|| Box::new(words) as Box<dyn Iterator<Item = PossibleValue>>)
    }
}

fn timeout(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        _ => Err("expected a number greater than zero and a unit, such as `30s` or `5m`".to_owned()),
    }
}

/// The environment variables that a command and its subcommands read.
fn variables(command: &clap::Command) -> Vec<String> {
    let own = command.get_arguments().filter_map(Arg::get_env);
    let own = own.map(|name| name.to_string_lossy().into_owned());
    own.chain(command.get_subcommands().flat_map(variables)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(print: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut bytes = Vec::new();
        print(&mut bytes);
        String::from_utf8(bytes).expect("it is text")
    }

    #[test]
    fn help_man_page_and_completions_have_every_flag_with_its_variable() {
        let mut command = Cli::command();
        let help = command.render_long_help().to_string();
        let man = printed(|bytes| {
            clap_mangen::Man::new(Cli::command())
                .render(bytes)
                .expect("it can be written")
        });
        let completions = printed(|bytes| {
            clap_complete::generate(
                clap_complete::Shell::Bash,
                &mut command,
                "inference-server",
                bytes,
            );
        });
        assert!(config::flags().count() > 10);
        for flag in config::flags() {
            assert!(help.contains(flag.name), "{} in the help", flag.name);
            assert!(
                completions.contains(flag.name),
                "{} in the completions",
                flag.name
            );
            let escaped = flag.name.replace('-', "\\-");
            assert!(man.contains(&escaped), "{} in the man page", flag.name);
            for word in flag.words() {
                assert!(help.contains(word) && completions.contains(word), "{word}");
            }
            let variable = flag.variable().expect("every flag has a variable");
            assert!(
                help.contains(&format!("[env: {variable}]")),
                "{variable} in the help"
            );
        }
    }

    #[test]
    fn a_flag_overrides_its_key_before_and_after_a_command() {
        let cli = Cli::try_parse_from(["inference-server", "--port", "1", "--policy", "gredy"]);
        let mut expected = Overrides::none();
        for flag in config::flags() {
            match flag.name {
                "--port" => expected.set(&flag, "1"),
                "--policy" => expected.set(&flag, "gredy"),
                _ => {}
            }
        }
        for name in [
            "INFERENCE_CONFIG",
            "INFERENCE_BATCH_URL",
            "INFERENCE_BATCH_KEY",
            "INFERENCE_BENCH_URL",
            "INFERENCE_BENCH_KEY",
            "INFERENCE_STATUS_URL",
            "INFERENCE_STATUS_KEY",
        ] {
            expected.add_variable(name);
        }
        assert_eq!(cli.expect("it is valid").serve.overrides, expected);
        let check = Cli::try_parse_from(["inference-server", "check", "--policy", "gredy", "--port", "1"]);
        match check.expect("it is valid").command {
            Some(Command::Check { serve, load: false }) => assert_eq!(serve.overrides, expected),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
