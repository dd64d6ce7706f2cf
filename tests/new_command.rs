//! The command `new`: the plugin crate that it writes builds, passes its tests and is served as it is.

use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::harness::plugins::repository;
use crate::harness::scenario::write_config;
use crate::harness::{Scenario, tools};

const NAME: &str = "word-moods";

/// The output of a command: exit code, standard output and standard error.
fn run(scenario: &Scenario, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = scenario.run(arguments);
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn the_plugin_crate_builds_passes_its_tests_and_is_served_as_it_is() {
    let scenario = Scenario::new("");
    // The same directory each time, so that dependencies are compiled only once.
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("new-command");
    let (directory, target) = (directory.join(NAME), directory.join("target"));
    let _ = std::fs::remove_dir_all(&directory);
    let sdk = repository().join("plugin-sdk");
    let path = |path: &Path| path.to_string_lossy().into_owned();
    let arguments = ["new", &path(&directory), "--sdk", &path(&sdk)];
    let (code, out, err) = run(&scenario, &arguments);
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    assert!(out.contains("cargo test"), "{out}");

    // The versions of the workspace, which have been downloaded.
    std::fs::copy(repository().join("Cargo.lock"), directory.join("Cargo.lock")).expect("copy the file");
    let tested = tools::run(
        Command::new(env!("CARGO"))
            .args(["test", "--offline", "--quiet"])
            .current_dir(&directory)
            .env("CARGO_TARGET_DIR", &target)
            .env("CARGO_PROFILE_DEV_DEBUG", "0"),
    );
    assert!(tested.contains("4 passed"), "{tested}");

    let library = "libword_moods.so";
    let release = directory.join("target/release");
    std::fs::create_dir_all(&release).expect("create the directory");
    std::fs::copy(target.join("debug/deps").join(library), release.join(library)).expect("copy the plugin");
    let config = std::fs::read_to_string(directory.join("models.toml")).expect("it is written");
    let request = "/v1/models/word-moods/tasks/classify/predict";
    assert!(config.contains(request), "{config}");
    let plugin = format!("{}/target/release/{library}", path(&directory));
    write_config(
        scenario.dir(),
        &config.replace(&format!("target/release/{library}"), &plugin),
    );
    let server = scenario.start();
    let inputs = json!({"inputs": ["what a lovely day", "bad weather", ""]});
    assert_eq!(
        server.post(request, &inputs).expect(200).outputs(),
        [
            json!({"label": "positive", "score": 0.25}),
            json!({"label": "negative", "score": -0.5}),
            json!({"error": {"code": "invalid_input", "message": "the text is empty"}}),
        ]
    );
}

#[test]
fn a_name_that_no_crate_can_have_is_rejected_and_nothing_is_written() {
    let scenario = Scenario::new("");
    for (name, part) in [
        ("2words", "expected a letter"),
        ("match", "a keyword of Rust"),
        ("serde", "the name of a crate that it uses"),
        (".", "expected a letter"),
    ] {
        let (code, out, err) = run(&scenario, &["new", name]);
        assert_eq!((code, out.as_str()), (Some(1), ""), "{name}");
        assert!(
            err.contains(&format!("invalid name {name:?}")) && err.contains(part),
            "{err}"
        );
        assert!(!scenario.dir().join(name).join("Cargo.toml").exists(), "{name}");
    }
    std::fs::create_dir(scenario.dir().join("words")).expect("create the directory");
    std::fs::write(scenario.dir().join("words/Cargo.toml"), "mine").expect("write the file");
    let (code, _, err) = run(&scenario, &["new", "words"]);
    assert_eq!(code, Some(1));
    assert!(
        err.contains("words/Cargo.toml exists already; choose another directory"),
        "{err}"
    );
}
