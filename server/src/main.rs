//! The executable: from the command line to an exit code.

use std::process::ExitCode;

use clap::Parser;
use inference_server::app;
use inference_server::cli::{Cli, Command};
use inference_server::error::Chain;
use inference_server::{bench, config};

fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.command {
        None => report(app::serve(cli.serve)),
        Some(Command::Check { serve, load }) => check(&serve, load),
        Some(Command::ConfigReference { markdown }) => print_reference(markdown),
        Some(Command::Inspect { file, json }) => inspect(&file, json),
        Some(Command::Bench(args)) => bench(args),
        Some(Command::TrialLoad { confine, file }) => app::run_trial(confine.as_deref(), &file),
        Some(Command::ModelProcess { model: _ }) => app::run_model_process(),
    }
}

fn report(result: Result<(), app::AppError>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}", Chain(&error));
            ExitCode::from(error.exit_code())
        }
    }
}

#[allow(clippy::print_stdout, reason = "the command's output")]
fn check(args: &inference_server::cli::ServeArgs, load: bool) -> ExitCode {
    match app::check(args, load) {
        Ok(settings) => {
            for warning in &settings.warnings {
                eprintln!("warning: {warning}");
            }
            println!("{}: ok, {} models", args.config.display(), settings.models.len());
            ExitCode::SUCCESS
        }
        Err(error) => report(Err(error)),
    }
}

#[allow(clippy::print_stdout, reason = "the command's output")]
fn print_reference(markdown: bool) -> ExitCode {
    print!(
        "{}",
        if markdown {
            config::reference_markdown()
        } else {
            config::reference_toml()
        }
    );
    ExitCode::SUCCESS
}

fn bench(args: bench::BenchArgs) -> ExitCode {
    match bench::run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}", Chain(&error));
            ExitCode::from(error.exit_code())
        }
    }
}

#[allow(clippy::print_stdout, reason = "the command's output")]
fn inspect(file: &std::path::Path, json: bool) -> ExitCode {
    let inspection = match app::inspect(file) {
        Ok(inspection) => inspection,
        Err(error) => {
            eprintln!("{}", Chain(&error));
            return ExitCode::FAILURE;
        }
    };
    if json {
        match serde_json::to_string_pretty(&inspection) {
            Ok(text) => println!("{text}"),
            Err(error) => {
                eprintln!("cannot write the manifest as JSON: {error}");
                return ExitCode::FAILURE;
            }
        }
    } else {
        print!("{inspection}");
    }
    ExitCode::SUCCESS
}
