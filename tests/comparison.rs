//! The comparison with other servers runs: a small part of it, with all servers.
//!
//! The test needs the servers that `tests/install` installs.

use std::process::Command;

use crate::harness::{plugins, tools};

#[test]
fn this_server_and_others_answer_the_same_requests_of_the_comparison() {
    let install = "tests/install";
    let Some(python) = tools::find("INFERENCE_TEST_PYTHON", &["python3"], install) else {
        return;
    };
    let comparison = |arguments: &[&str]| {
        let script = plugins::repository().join("server/benches/comparison/compare.py");
        let mut command = Command::new(&python);
        command.arg(script).args(arguments);
        command
    };
    let installed = comparison(&["installed"])
        .output()
        .expect("Python can be started");
    if !installed.status.success() {
        return tools::absent(
            "the servers of the comparison are not installed",
            "XDG_CACHE_HOME",
            install,
        );
    }
    for plugin in ["misbehave", "python", "python_bridge", "template"] {
        plugins::library(plugin);
    }
    let rows = |arguments: &[&str]| {
        let output = comparison(arguments)
            .args([
                "--clients",
                "4",
                "--rounds",
                "1",
                "--seconds",
                "0.2",
                "--executable",
            ])
            .arg(plugins::executable())
            .arg("--plugin-dir")
            .arg(plugins::directory())
            .output()
            .expect("Python can be started");
        let text = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{errors}");
        let rows: Vec<&str> = text.lines().filter(|line| line.starts_with("| 4 |")).collect();
        for row in &rows {
            assert!(row.ends_with("| 0 |"), "requests failed: {row}\n{errors}");
        }
        rows.len()
    };
    // Three servers are compared with the first one, in two workloads.
    assert_eq!(rows(&["--only", "echo,sleep"]), 6);
    // Of the servers for embeddings, those that need no large packages.
    plugins::library("sentence_embeddings");
    assert_eq!(rows(&["embedding", "--servers", "this,fastapi"]), 2);
}
