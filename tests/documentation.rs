//! Tests of the documentation: commands, links and replies.

use std::process::Command;

use crate::harness::plugins::{self, repository};
use crate::harness::tools;

/// Runs the script that checks the pages. Panics with its output if it fails.
fn readme(arguments: &[&str]) {
    let Some(python) = tools::find("INFERENCE_TEST_PYTHON", &["python3"], "apt-get install python3") else {
        return;
    };
    tools::run(
        Command::new(python)
            .arg(repository().join(".ci/readme.py"))
            .args(arguments)
            .env("INFERENCE_PLUGIN_DIR", plugins::directory()),
    );
}

#[test]
fn pages_have_working_links_and_all_shell_commands_are_run_or_state_why_not() {
    readme(&["check"]);
}

#[test]
fn replies_match_the_documentation() {
    if tools::find("INFERENCE_TEST_CURL", &["curl"], "apt-get install curl").is_none() {
        return;
    }
    for plugin in ["onnx", "clip"] {
        plugins::library(plugin);
    }
    let executable = plugins::executable().to_str().expect("the path is text");
    readme(&["try", "--offline", "--executable", executable]);
}
