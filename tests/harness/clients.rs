//! Client libraries of other servers, in a virtual environment that `tests/install` creates.
//!
//! If a client is not installed, its test prints a note and passes; see [`tools`]. `INFERENCE_TEST_CLIENTS` and
//! `INFERENCE_TEST_EMBEDDING_CLIENTS` name different environments.

use std::path::PathBuf;
use std::process::Command;

use super::plugins::repository;
use super::{Server, tools};

/// Runs a script of `tests/clients`, which has its own assertions. A script that hangs is killed and prints where it hung. Returns
/// false if the client libraries are not installed.
pub(crate) fn run(name: &str, arguments: &[&str]) -> bool {
    let Some(script) = script(name, arguments) else {
        return false;
    };
    tools::run(
        Command::new("timeout")
            .args(["--signal=ABRT", "400"])
            .arg(script.get_program())
            .args(["-X", "faulthandler"])
            .args(script.get_args()),
    );
    true
}

/// Returns the command that runs a script of `tests/clients`.
pub(crate) fn script(name: &str, arguments: &[&str]) -> Option<Command> {
    let mut command = python()?;
    command.arg(source(name)).args(arguments);
    Some(command)
}

/// Returns the path of a source file in `tests/clients`.
pub(crate) fn source(name: &str) -> PathBuf {
    repository().join("tests/clients").join(name)
}

/// Returns the command that runs the Python of the client libraries.
pub(crate) fn python() -> Option<Command> {
    Some(Command::new(installed()?.join("bin/python3")))
}

/// Returns the command that runs Triton's load generator.
pub(crate) fn perf_analyzer() -> Option<Command> {
    let environment = installed()?;
    let mut command = Command::new(environment.join("bin/perf_analyzer"));
    command.env("LD_LIBRARY_PATH", environment.join("lib/perf_analyzer"));
    Some(command)
}

/// Fuzzes the server from its OpenAPI document with all checks: replies have a documented status, type and shape, valid requests are
/// accepted, invalid ones are rejected, and no reply is a 500.
pub(crate) fn schemathesis(server: &Server) {
    let Some(mut command) = python() else { return };
    command
        .args(["-m", "schemathesis.cli", "--config-file"])
        .arg(repository().join("tests/clients/schemathesis.toml"))
        .arg("run")
        .arg(format!("http://{}/openapi.json", server.address()))
        .args(["--max-examples", "20", "--seed", "1"])
        // CPython 3.11 sometimes miscounts its recursion depth if two threads parse Python.
        .args(["--generation-database", "none", "--workers", "1"])
        .current_dir(server.dir());
    tools::run(&mut command);
    let text = server.get("/metrics").expect(200).text();
    let failed: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with("http_requests_total") && line.contains("status=\"500\""))
        .collect();
    assert!(failed.is_empty(), "{failed:?}");
}

/// Runs a script of `tests/clients/embeddings`, like [`run`].
pub(crate) fn run_embedding_client(name: &str, arguments: &[&str]) -> bool {
    let Some(environment) = up_to_date(
        "embedding-clients",
        "tests/clients/embeddings",
        EMBEDDING_VARIABLE,
    ) else {
        return false;
    };
    tools::run(
        Command::new("timeout")
            .args(["--signal=ABRT", "400"])
            .arg(environment.join("bin/python3"))
            .args(["-X", "faulthandler"])
            .arg(source("embeddings").join(name))
            .args(arguments),
    );
    true
}

const VARIABLE: &str = "INFERENCE_TEST_CLIENTS";
const EMBEDDING_VARIABLE: &str = "INFERENCE_TEST_EMBEDDING_CLIENTS";

/// Returns the virtual environment of the clients if it is up to date.
fn installed() -> Option<PathBuf> {
    up_to_date("clients", "tests/clients", VARIABLE)
}

/// Returns a virtual environment if it was installed from the files in `folder` as they are.
fn up_to_date(name: &str, folder: &str, variable: &str) -> Option<PathBuf> {
    let environment = environment(name, variable);
    let sources = ["requirements.txt", "install"].map(|name| {
        let file = repository().join(folder).join(name);
        std::fs::read_to_string(file).expect("read a file of the repository")
    });
    let state = std::fs::read_to_string(environment.join("state"));
    if state.is_ok_and(|state| state == sources.concat()) {
        return Some(environment);
    }
    tools::absent(
        &format!(
            "the client libraries are not installed, or are out of date, in {}",
            environment.display()
        ),
        variable,
        "tests/install",
    );
    None
}

fn environment(name: &str, variable: &str) -> PathBuf {
    let named = std::env::var_os(variable).map(PathBuf::from);
    named.unwrap_or_else(|| {
        let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let home = || PathBuf::from(std::env::var_os("HOME").expect("HOME is set")).join(".cache");
        cache.unwrap_or_else(home).join("inference-server").join(name)
    })
}
