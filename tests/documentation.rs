//! The pages of the documentation: their commands run as written, and their links lead somewhere.

use std::process::Command;

use crate::harness::plugins::{self, repository};
use crate::harness::tools;

/// Runs the script that checks the pages, and shows its output if it fails.
fn readme(arguments: &[&str]) {
    let Some(python) = tools::find("INFERENCE_TEST_PYTHON", &["python3"], "apt-get install python3") else {
        return;
    };
    let output = Command::new(python)
        .arg(repository().join(".ci/readme.py"))
        .args(arguments)
        .env("INFERENCE_PLUGIN_DIR", plugins::directory())
        .output()
        .expect("Python can be started");
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn pages_have_working_links_and_every_shell_command_is_run_or_says_why_it_is_not() {
    readme(&["check"]);
}

#[test]
fn requests_are_answered_as_the_documentation_says() {
    if tools::find("INFERENCE_TEST_CURL", &["curl"], "apt-get install curl").is_none() {
        return;
    }
    for plugin in ["onnx", "clip"] {
        plugins::library(plugin);
    }
    let executable = plugins::executable().to_str().expect("the path is text");
    readme(&["try", "--offline", "--executable", executable]);
}
