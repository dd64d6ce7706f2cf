//! Clients of others, in a virtual environment of their own in the user's cache folder.
//!
//! The first test that needs one installs them all, from PyPI; where that is not possible, it fails and says why.
//! `INFERENCE_TEST_CLIENTS` names another folder.

use std::fs::File;
use std::path::PathBuf;
use std::process::Command;

use rustix::fs::{FlockOperation, flock};

use super::Server;
use super::plugins::repository;

/// Runs a script of `tests/clients`, which fails by itself. One that hangs says where, after two minutes.
pub(crate) fn run(name: &str, arguments: &[&str]) {
    let script = script(name, arguments);
    let output = Command::new("timeout")
        .args(["--signal=ABRT", "120"])
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
}

/// A script of `tests/clients`, to be run.
pub(crate) fn script(name: &str, arguments: &[&str]) -> Command {
    let mut command = python();
    command
        .arg(repository().join("tests/clients").join(name))
        .args(arguments);
    command
}

/// The Python that has them, to be run.
pub(crate) fn python() -> Command {
    Command::new(installed().join("bin/python3"))
}

/// Triton's tool to put load on a server, to be run.
pub(crate) fn perf_analyzer() -> Command {
    let folder = installed();
    let mut command = Command::new(folder.join("bin/perf_analyzer"));
    command.env("LD_LIBRARY_PATH", folder.join("lib/perf_analyzer"));
    command
}

/// What the document says is what the server does, whatever a fuzzer makes of it: no answer that is not documented, of no
/// other shape, and never status 500.
pub(crate) fn schemathesis(server: &Server) {
    let output = python()
        .args(["-m", "schemathesis.cli", "run"])
        .arg(format!("http://{}/openapi.json", server.address()))
        .args([
            "--checks",
            "status_code_conformance,content_type_conformance,response_schema_conformance",
        ])
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

/// The folder that they are in. Tests run in processes of their own, so a lock lets only one of them install.
fn installed() -> PathBuf {
    let folder = folder();
    let parent = folder.parent().expect("the folder is in another");
    std::fs::create_dir_all(parent).expect("the user's cache folder can be written");
    let lock = File::create(folder.with_extension("lock")).expect("the user's cache folder can be written");
    flock(&lock, FlockOperation::LockExclusive).expect("a file can be locked");
    let output = Command::new(repository().join("tests/clients/install"))
        .arg(&folder)
        .output()
        .expect("bash can be started");
    assert!(
        output.status.success(),
        "the clients cannot be installed into {}; they need Python 3 with venv, PyPI, and Debian's package libb64-0d:\n{}{}",
        folder.display(),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    folder
}

fn folder() -> PathBuf {
    let named = std::env::var_os("INFERENCE_TEST_CLIENTS").map(PathBuf::from);
    named.unwrap_or_else(|| {
        let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let home = || PathBuf::from(std::env::var_os("HOME").expect("the user has a home")).join(".cache");
        cache.unwrap_or_else(home).join("inference-server/clients")
    })
}
