//! The commands beside serving: what they print, and with which code they end.

use std::process::Output;

use crate::harness::Scenario;
use crate::harness::plugins::library;

struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

fn run(scenario: &Scenario, arguments: &[&str]) -> Ran {
    let Output {
        status,
        stdout,
        stderr,
    } = scenario.run(arguments);
    Ran {
        code: status.code(),
        out: String::from_utf8(stdout).expect("it prints text"),
        err: String::from_utf8(stderr).expect("it prints text"),
    }
}

#[test]
fn check_finds_nothing_wrong_with_a_right_configuration() {
    let scenario = Scenario::new("[[models]]\nname = \"words\"\nplugin = \"template\"\n");
    let ran = run(&scenario, &["check", "--config", "models.toml"]);
    assert_eq!(
        (ran.code, ran.out.as_str(), ran.err.as_str()),
        (Some(0), "models.toml: ok, 1 models\n", "")
    );
}

#[test]
fn check_reports_every_error_with_its_place_and_a_hint() {
    let scenario = Scenario::new(
        "[server]\nprot = 8080\nmax_body_size = 64\n\n[batching]\npolicy = \"eager\"\n\n\
         [[models]]\nname = \"two words\"\n\n[[models]]\nname = \"m\"\nplugin = \"template\"\nworkers = 0\n",
    );
    let ran = run(&scenario, &["check", "--config", "models.toml"]);
    assert_eq!((ran.code, ran.out.as_str()), (Some(2), ""));
    insta::assert_snapshot!("check_reports_every_error", ran.err);
}

#[test]
fn check_names_a_file_that_is_not_there() {
    let ran = run(&Scenario::new(""), &["check", "--config", "elsewhere.toml"]);
    assert_eq!(ran.code, Some(2));
    assert!(
        ran.err.contains("elsewhere.toml") && ran.err.contains("No such file"),
        "{}",
        ran.err
    );
}

#[test]
fn check_with_load_also_loads_and_warms_up_every_model() {
    let right = Scenario::misbehave("", "");
    let ran = run(&right, &["check", "--load", "--config", "models.toml"]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(ran.out.contains("models.toml: ok, 1 models"), "{}", ran.out);

    let wrong = Scenario::misbehave("fail_warm_up = true", "");
    let without = run(&wrong, &["check", "--config", "models.toml"]);
    assert_eq!(without.code, Some(0), "{}", without.err);
    let with = run(&wrong, &["check", "--load", "--config", "models.toml"]);
    assert_eq!(with.code, Some(1), "{}", with.err);
    assert!(
        with.err.contains("misbehave was told to fail its warm-up"),
        "{}",
        with.err
    );
}

#[test]
fn the_configuration_reference_is_the_file_in_the_repository_and_a_right_configuration_itself() {
    let ran = run(&Scenario::new(""), &["config-reference"]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let kept = crate::harness::plugins::repository().join("config/reference.toml");
    let kept = std::fs::read_to_string(kept).expect("the repository has a reference");
    assert_eq!(
        ran.out, kept,
        "write the output of `inference-server config-reference` to config/reference.toml"
    );
    let again = run(&Scenario::new(&ran.out), &["check", "--config", "models.toml"]);
    assert_eq!(again.code, Some(0), "{}", again.err);
}

#[test]
fn the_configuration_reference_is_a_table_if_asked_for() {
    let ran = run(&Scenario::new(""), &["config-reference", "--markdown"]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(ran.out.contains("| `max_batch_size` |"), "{}", ran.out);
}

/// What differs between builds and machines.
fn without_facts_of_the_build(text: &str) -> String {
    let kept = |line: &&str| {
        !line.starts_with("file ") && !line.starts_with("needs ") && !line.starts_with("run path")
    };
    text.lines()
        .filter(kept)
        .map(|line| format!("{line}\n"))
        .collect()
}

/// A release changes no snapshot.
fn without_versions(text: &str) -> String {
    text.replace(env!("CARGO_PKG_VERSION"), "[version]")
}

#[test]
fn inspect_prints_what_a_plugin_says_of_itself() {
    let file = library("template");
    let ran = run(&Scenario::new(""), &["inspect", &file.to_string_lossy()]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(ran.out.contains("bytes"), "{}", ran.out);
    insta::assert_snapshot!(
        "inspect_template",
        without_versions(&without_facts_of_the_build(&ran.out))
    );
}

#[test]
fn inspect_prints_json_if_asked_for() {
    let file = library("template");
    let ran = run(
        &Scenario::new(""),
        &["inspect", "--json", &file.to_string_lossy()],
    );
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let mut json: serde_json::Value = serde_json::from_str(&ran.out).expect("it prints JSON");
    let object = json.as_object_mut().expect("it prints an object");
    for fact in ["size", "machine", "needed", "run_path"] {
        assert!(object.remove(fact).is_some(), "no `{fact}`");
    }
    let text = serde_json::to_string_pretty(&json).expect("what was read can be written");
    insta::assert_snapshot!("inspect_template_json", without_versions(&text));
}

#[test]
fn inspect_says_what_is_wrong_with_a_file_that_is_no_plugin() {
    let scenario = Scenario::new("");
    std::fs::write(scenario.dir().join("libtext.so"), "this is no library").expect("there is room");
    let text = run(&scenario, &["inspect", "libtext.so"]);
    assert_eq!((text.code, text.out.as_str()), (Some(1), ""));
    assert!(text.err.contains("ELF"), "{}", text.err);
    let missing = run(&scenario, &["inspect", "libmissing.so"]);
    assert_eq!(missing.code, Some(1));
    assert!(missing.err.contains("does not exist"), "{}", missing.err);
    let executable = crate::harness::plugins::executable()
        .to_string_lossy()
        .into_owned();
    assert_eq!(run(&scenario, &["inspect", &executable]).code, Some(1));
}

#[test]
fn help_names_every_command_and_a_flag_that_is_unknown_is_refused() {
    let scenario = Scenario::new("");
    let help = run(&scenario, &["--help"]);
    assert_eq!(help.code, Some(0));
    for part in [
        "check",
        "config-reference",
        "inspect",
        "bench",
        "--config",
        "SIGHUP",
        "SIGTERM",
    ] {
        assert!(
            help.out.contains(part),
            "{part:?} is not in the help:\n{}",
            help.out
        );
    }
    let unknown = run(&scenario, &["--max-batch-sise", "4"]);
    assert_eq!(unknown.code, Some(2));
    assert!(unknown.err.contains("--max-batch-size"), "{}", unknown.err);
}

#[test]
fn the_version_is_that_of_the_package() {
    let ran = run(&Scenario::new(""), &["--version"]);
    assert_eq!(
        ran.out.trim(),
        concat!("inference-server ", env!("CARGO_PKG_VERSION"))
    );
}
