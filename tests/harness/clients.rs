//! Client libraries of other servers, in a virtual environment that `tests/install` creates.
//!
//! A test whose client is not installed does nothing and reports it, see [`tools`]. `INFERENCE_TEST_CLIENTS` names another
//! environment.

use std::path::PathBuf;
use std::process::Command;

use super::plugins::repository;
use super::{Server, tools};

/// Runs a script of `tests/clients`, which asserts by itself. A script that hangs is killed, and prints where it hung.
/// Returns false if it did not run, as the client libraries are not installed.
pub(crate) fn run(name: &str, arguments: &[&str]) -> bool {
    let Some(script) = script(name, arguments) else {
        return false;
    };
    let output = Command::new("timeout")
        .args(["--signal=ABRT", "400"])
        .arg(script.get_program())
        .args(["-X", "faulthandler"])
        .args(script.get_args())
        .output()
        .expect("`timeout` of the coreutils can be started");
    assert!(
        output.status.success(),
        "{name} failed:\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    true
}

/// The command that runs a script of `tests/clients`.
pub(crate) fn script(name: &str, arguments: &[&str]) -> Option<Command> {
    let mut command = python()?;
    command.arg(source(name)).args(arguments);
    Some(command)
}

/// A source file of `tests/clients`.
pub(crate) fn source(name: &str) -> PathBuf {
    repository().join("tests/clients").join(name)
}

/// The command that runs the Python of the client libraries.
pub(crate) fn python() -> Option<Command> {
    Some(Command::new(installed()?.join("bin/python3")))
}

/// The command that runs Triton's load generator.
pub(crate) fn perf_analyzer() -> Option<Command> {
    let environment = installed()?;
    let mut command = Command::new(environment.join("bin/perf_analyzer"));
    command.env("LD_LIBRARY_PATH", environment.join("lib/perf_analyzer"));
    Some(command)
}

/// Fuzzes the server from its OpenAPI document with every check that there is: every reply has a documented status, type
/// and shape, what the document allows is accepted, what it forbids is rejected, and no reply is a 500.
pub(crate) fn schemathesis(server: &Server) {
    let Some(mut command) = python() else { return };
    let output = command
        .args(["-m", "schemathesis.cli", "--config-file"])
        .arg(repository().join("tests/clients/schemathesis.toml"))
        .arg("run")
        .arg(format!("http://{}/openapi.json", server.address()))
        .args(["--max-examples", "20", "--seed", "1"])
        // With two threads that parse Python, CPython 3.11 loses count of its depth now and then.
        .args(["--generation-database", "none", "--workers", "1"])
        .current_dir(server.dir())
        .output()
        .expect("Python can be started");
    let report = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{report}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = server.get("/metrics").expect(200).text();
    let failed: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with("http_requests_total") && line.contains("status=\"500\""))
        .collect();
    assert!(failed.is_empty(), "{failed:?}");
}

/// The virtual environment of the clients, if it is up to date.
fn installed() -> Option<PathBuf> {
    let environment = environment();
    let sources = ["requirements.txt", "install"].map(|name| {
        let file = repository().join("tests/clients").join(name);
        std::fs::read_to_string(file).expect("it is part of the repository")
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
        "INFERENCE_TEST_CLIENTS",
        "tests/install",
    );
    None
}

fn environment() -> PathBuf {
    let named = std::env::var_os("INFERENCE_TEST_CLIENTS").map(PathBuf::from);
    named.unwrap_or_else(|| {
        let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let home = || PathBuf::from(std::env::var_os("HOME").expect("HOME is set")).join(".cache");
        cache.unwrap_or_else(home).join("inference-server/clients")
    })
}
