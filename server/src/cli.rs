//! The command line: what operators type, and the help that teaches it.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::bench::BenchArgs;
use crate::config::Overrides;
use crate::isolation::CHILD_COMMAND;
use crate::isolation::confine::CONFINE_OPTION;
use crate::loader::TRIAL_COMMAND;

/// Serves models that are loaded as plugins, with dynamic batching and hot reload.
#[derive(Debug, Parser)]
#[command(
    name = "inference-server",
    version,
    args_conflicts_with_subcommands = true,
    after_help = "Signals:\n  SIGHUP   reads the configuration again, loads what changed beside what serves, and swaps; no request fails\n  \
                  SIGTERM  stops being ready, finishes what was accepted, and ends; a second one ends at once\n\n\
                  Settings are taken from the command line, then the environment (INFERENCE_…), then the file, then what a\n\
                  plugin declares, then the defaults. `inference-server config-reference` lists every key."
)]
pub struct Cli {
    /// What to do; without a command, the server runs.
    #[command(subcommand)]
    pub command: Option<Command>,

    /// How to run it.
    #[command(flatten)]
    pub serve: ServeArgs,
}

/// What else the program does.
#[derive(Debug, Subcommand)]
#[allow(clippy::large_enum_variant, reason = "there is one of it in a process")]
pub enum Command {
    /// Check a configuration and the plugin files it names; report every error at once, ordered by line
    Check {
        /// What to check.
        #[command(flatten)]
        serve: ServeArgs,
        /// Also load and warm up every model
        #[arg(long)]
        load: bool,
    },
    /// Prints every configuration key with its type, default and meaning
    ConfigReference {
        /// Print it as a Markdown table instead of an annotated TOML file
        #[arg(long)]
        markdown: bool,
    },
    /// Print what a plugin file declares and check it; exits with 1 if the server would reject it
    Inspect {
        /// The plugin: a shared library built against plugin-sdk
        file: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
        /// Also exit with 1 if there are only warnings, such as a debug build
        #[arg(long)]
        strict: bool,
    },
    /// Load-test a running server and report throughput and latency
    Bench(BenchArgs),
    /// Loads a plugin once and prints its manifest; the server runs this in a child process, in case it crashes
    #[command(name = TRIAL_COMMAND, hide = true)]
    TrialLoad {
        /// What the process applies to itself before.
        #[arg(long = CONFINE_OPTION)]
        confine: Option<String>,
        /// The plugin.
        file: PathBuf,
    },
    /// Runs a model for the server that started this process
    #[command(name = CHILD_COMMAND, hide = true)]
    ModelProcess {
        /// Its name, for the list of processes.
        model: String,
    },
}

/// Flags that change what the configuration says.
#[derive(Clone, Debug, Args)]
pub struct ServeArgs {
    /// The configuration file
    #[arg(
        long,
        short,
        value_name = "FILE",
        env = "INFERENCE_CONFIG",
        default_value = "models.toml"
    )]
    pub config: PathBuf,
    /// Address to listen on
    #[arg(long)]
    pub host: Option<String>,
    /// Port to listen on; 0 takes any free one
    #[arg(long)]
    pub port: Option<String>,
    /// Port for gRPC, which is not spoken without it; 0 takes any free one
    #[arg(long, value_name = "PORT")]
    pub grpc_port: Option<String>,
    /// Deadline of requests that set none, such as 30s
    #[arg(long, value_name = "DURATION")]
    pub request_timeout: Option<String>,
    /// Folder of plugins that are given by name
    #[arg(long, value_name = "DIR")]
    pub plugin_dir: Option<String>,
    /// Folder for the copies from which plugins are loaded
    #[arg(long, value_name = "DIR")]
    pub scratch_dir: Option<String>,
    /// What to log, such as info or debug,actix=warn
    #[arg(long, value_name = "FILTER")]
    pub log_level: Option<String>,
    /// text or json
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<String>,
    /// When a batch is closed, for every task: adaptive, greedy, fixed or off
    #[arg(long, help_heading = "Batching")]
    pub policy: Option<String>,
    /// Most items in a batch, for every task
    #[arg(long, value_name = "ITEMS", help_heading = "Batching")]
    pub max_batch_size: Option<String>,
    /// Most weight in a batch, for every task
    #[arg(long, value_name = "WEIGHT", help_heading = "Batching")]
    pub max_batch_weight: Option<String>,
    /// Longest wait of a batch for company, with the policies adaptive and fixed
    #[arg(long, value_name = "DURATION", help_heading = "Batching")]
    pub max_delay: Option<String>,
    /// Most items that wait, for every task
    #[arg(long, value_name = "ITEMS", help_heading = "Batching")]
    pub max_queue_size: Option<String>,
}

impl ServeArgs {
    /// The flags, as the configuration takes them.
    pub fn overrides(&self) -> Overrides {
        let args = self.clone();
        Overrides {
            host: args.host,
            port: args.port,
            grpc_port: args.grpc_port,
            request_timeout: args.request_timeout,
            plugin_dir: args.plugin_dir,
            scratch_dir: args.scratch_dir,
            log_level: args.log_level,
            log_format: args.log_format,
            policy: args.policy,
            max_batch_size: args.max_batch_size,
            max_batch_weight: args.max_batch_weight,
            max_delay: args.max_delay,
            max_queue_size: args.max_queue_size,
        }
    }
}
