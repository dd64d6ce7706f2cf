//! The executable: runs the command of the command line and returns its exit code.

use std::fmt::Display;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory, Parser};
use inference_server::allocator::{self, Allocator};
use inference_server::app;
#[cfg(feature = "batch")]
use inference_server::batch;
#[cfg(feature = "bench")]
use inference_server::bench;
#[cfg(feature = "calibrate")]
use inference_server::cli::CalibrateArgs;
use inference_server::cli::{Cli, Command, KeyCommand, NewKeyArgs, ServeArgs};
use inference_server::error::Chain;
#[cfg(feature = "status")]
use inference_server::status;
use inference_server::{config, console, crash, init, scaffold};
use plugin_abi::check::{Finding, Severity};

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

/// The system calls it before anything allocates.
#[used]
#[allow(
    unsafe_code,
    reason = "a function is called before `main` through a section of the executable"
)]
#[unsafe(link_section = ".init_array")]
static CONFIGURE_ALLOCATOR: extern "C" fn() = allocator::configure;

fn main() -> ExitCode {
    let code = run();
    crash::expect_exit();
    code
}

fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    match cli.command {
        None => serve(cli.serve),
        Some(Command::Check { serve, load }) => check(&serve, load),
        Some(Command::New {
            python,
            sdk,
            directory,
        }) => new_model(python, sdk.as_deref(), &directory),
        Some(Command::ConfigReference { markdown }) => print_reference(markdown),
        Some(Command::Inspect { file, json, strict }) => inspect(&file, json, strict),
        Some(Command::Reload { pid, timeout }) => reload(pid, timeout),
        Some(Command::Key {
            command: KeyCommand::New(args),
        }) => new_key(&args),
        #[cfg(feature = "batch")]
        Some(Command::Batch(args)) => batch(args),
        #[cfg(feature = "bench")]
        Some(Command::Bench(args)) => bench(args),
        #[cfg(feature = "calibrate")]
        Some(Command::Calibrate(args)) => calibrate(&args),
        #[cfg(feature = "status")]
        Some(Command::Status(args)) => status(&args),
        Some(Command::Completions { shell }) => print_completions(shell),
        Some(Command::Man { directory: None }) => print_man_page(),
        Some(Command::Man {
            directory: Some(directory),
        }) => write_man_pages(&directory),
        Some(Command::ProbePlugin { confine, file }) => app::run_probe(confine.as_deref(), &file),
        Some(Command::ModelProcess { model: _ }) => app::run_model_process(),
    }
}

/// Prints the message of clap: help, the version, or an error in the arguments.
fn usage(message: &clap::Error) -> ExitCode {
    let printed = message.print().and_then(|()| io::stdout().flush());
    match console::ignore_closed_pipe(printed) {
        Err(error) if !message.use_stderr() => cannot_print(&error),
        _ => ExitCode::from(u8::try_from(message.exit_code()).unwrap_or(1)),
    }
}

fn serve(args: ServeArgs) -> ExitCode {
    if !init::adopts_orphans() {
        init::exit_with_parent();
        return report(app::serve(args));
    }
    match init::run_as_child() {
        Ok(code) => code,
        Err(error) => {
            console::report(format_args!(
                "cannot start the server as a child process: {error}"
            ));
            ExitCode::FAILURE
        }
    }
}

fn report(result: Result<(), app::AppError>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error, error.exit_code()),
    }
}

fn fail(error: &dyn std::error::Error, code: u8) -> ExitCode {
    console::report(Chain(error));
    ExitCode::from(code)
}

/// Prints the output of a command that succeeded.
fn print(output: impl Display) -> ExitCode {
    match console::print(&output.to_string()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => cannot_print(&error),
    }
}

fn cannot_print(error: &io::Error) -> ExitCode {
    console::report(format_args!("cannot write to standard output: {error}"));
    ExitCode::FAILURE
}

fn check(args: &ServeArgs, load: bool) -> ExitCode {
    match app::check(args, load) {
        Ok(checked) => {
            for warning in &checked.warnings {
                console::report(format_args!("warning: {warning}"));
            }
            let mut lines = format!("{}: ok, {} models\n", args.config.display(), checked.models);
            for unchecked in &checked.unchecked {
                lines.push_str(&format!("not checked: {unchecked}\n"));
            }
            print(lines)
        }
        Err(error) => report(Err(error)),
    }
}

fn reload(pid: Option<u32>, timeout: Duration) -> ExitCode {
    match app::reload(pid, timeout) {
        Ok(summary) => print(format_args!("reloaded: {summary}\n")),
        Err(error) => fail(&error, 1),
    }
}

/// Prints the entry of a new key to standard output, and the key to standard error.
fn new_key(args: &NewKeyArgs) -> ExitCode {
    match app::new_key(args) {
        Ok(key) => {
            let printed = print(&key.entry);
            if printed == ExitCode::SUCCESS {
                console::report(format_args!(
                    "the key `{}`, which is not stored and cannot be shown again:\n{}",
                    args.name, key.secret
                ));
            }
            printed
        }
        Err(error) => fail(&error, 1),
    }
}

fn new_model(python: bool, sdk: Option<&Path>, directory: &Path) -> ExitCode {
    let written = match python {
        true => scaffold::write_python_model(directory),
        false => scaffold::write_plugin_crate(directory, sdk),
    };
    match written {
        Ok(next_steps) => print(next_steps),
        Err(error) => fail(&error, 1),
    }
}

fn print_reference(markdown: bool) -> ExitCode {
    print(if markdown {
        config::reference_markdown()
    } else {
        config::reference_toml()
    })
}

fn print_completions(shell: clap_complete::Shell) -> ExitCode {
    let mut command = Cli::command();
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, name, &mut script);
    print(String::from_utf8_lossy(&script))
}

fn print_man_page() -> ExitCode {
    let mut page = Vec::new();
    match clap_mangen::Man::new(Cli::command()).render(&mut page) {
        Ok(()) => print(String::from_utf8_lossy(&page)),
        Err(error) => cannot_print(&error),
    }
}

fn write_man_pages(directory: &Path) -> ExitCode {
    let written =
        std::fs::create_dir_all(directory).and_then(|()| clap_mangen::generate_to(Cli::command(), directory));
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            console::report(format_args!(
                "cannot write the manual pages to {}: {error}",
                directory.display()
            ));
            ExitCode::FAILURE
        }
    }
}

#[cfg(feature = "batch")]
fn batch(args: batch::BatchArgs) -> ExitCode {
    match batch::run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error, error.exit_code()),
    }
}

#[cfg(feature = "bench")]
fn bench(args: bench::BenchArgs) -> ExitCode {
    match bench::run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error, error.exit_code()),
    }
}

#[cfg(feature = "status")]
fn status(args: &status::StatusArgs) -> ExitCode {
    match status::run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error, error.exit_code()),
    }
}

#[cfg(feature = "calibrate")]
fn calibrate(args: &CalibrateArgs) -> ExitCode {
    match app::calibrate(args) {
        Ok(report) => print(report),
        Err(error) => report(Err(error)),
    }
}

fn inspect(file: &Path, json: bool, strict: bool) -> ExitCode {
    let inspection = match app::inspect(file) {
        Ok(inspection) => inspection,
        Err(error) => return fail(&error, 1),
    };
    let printed = if json {
        match serde_json::to_string_pretty(&inspection) {
            Ok(text) => print(format_args!("{text}\n")),
            Err(error) => {
                console::report(format_args!("cannot encode the manifest as JSON: {error}"));
                return ExitCode::FAILURE;
            }
        }
    } else {
        print(&inspection)
    };
    let is_rejected = |finding: &Finding| strict || finding.severity == Severity::Error;
    if inspection.findings.iter().any(is_rejected) {
        ExitCode::FAILURE
    } else {
        printed
    }
}
