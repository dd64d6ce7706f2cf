//! Tests of the output and exit codes of the commands other than `serve`.

use std::process::Output;

use rustix::process::{Pid, kill_process};

use crate::harness::plugins::library;
use crate::harness::{Scenario, Signal, eventually};

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
fn check_reports_no_problems_in_a_valid_configuration() {
    let scenario = Scenario::new("[[models]]\nname = \"words\"\nplugin = \"template\"\n");
    let ran = run(&scenario, &["check", "--config", "models.toml"]);
    assert_eq!(
        (ran.code, ran.out.as_str(), ran.err.as_str()),
        (
            Some(0),
            "models.toml: ok, 1 models\n\
             not checked: whether the models load and warm up (use --load)\n",
            ""
        )
    );
}

#[test]
fn check_compares_the_configuration_with_the_declarations_of_plugins_and_reports_lines() {
    let scenario = Scenario::new(
        "[[models]]\nname = \"a\"\nplugin = \"template\"\ndefault_task = \"ecko\"\n\n[models.tasks.stat]\nmax_batch_size = 4\n\n\
         [models.settings]\nshortest_word = \"long\"\nshortest_wrod = 4\n\n\
         [[models]]\nname = \"b\"\nplugin = \"./libmissing.so\"\nworkers = 0\n\n\
         [[models]]\nname = \"c\"\nplugin = \"./libtext.so\"\n\n\
         [[models]]\nname = \"d\"\nplugin = \"misdeclared\"\n[models.settings]\nsize = 11\n",
    );
    std::fs::write(scenario.dir().join("libtext.so"), "a text file").expect("there is room");
    let ran = run(&scenario, &["check", "--config", "models.toml"]);
    assert_eq!((ran.code, ran.out.as_str()), (Some(2), ""), "{}", ran.err);
    let places: Vec<&str> = ran
        .err
        .lines()
        .filter(|line| line.starts_with("models.toml:"))
        .collect();
    let expected = [
        ("models.toml:4:", "no task `ecko`"),
        ("models.toml:6:", "no task `stat`; its tasks are `echo`, `stats`"),
        (
            "models.toml:10:",
            "[models.settings] `shortest_word`: \"long\" is not of type \"integer\"",
        ),
        (
            "models.toml:11:",
            "[models.settings] `shortest_wrod`: unknown key",
        ),
        ("models.toml:15:", "the file does not exist"),
        ("models.toml:16:", "workers"),
        (
            "models.toml:20:",
            "expected a shared library (ELF), got a text file",
        ),
        ("models.toml:24:", "declares no tensor: add `.output_tensor(…)`"),
        ("models.toml:24:", "invalid task name `wrong example`"),
        ("models.toml:24:", "two tasks are named `twice`"),
        ("models.toml:26:", "11 is greater than the maximum of 10"),
    ];
    assert_eq!(places.len(), expected.len(), "{}", ran.err);
    for (line, (place, message)) in places.iter().zip(expected) {
        assert!(
            line.starts_with(place) && line.contains(message),
            "{place} {message}: {line}"
        );
    }
}

#[test]
fn check_reports_that_tasks_that_depend_on_settings_are_not_checked() {
    let scenario = Scenario::new(
        "[[models]]\nname = \"digits\"\nplugin = \"onnx\"\n[models.settings]\nmodel = \"digits.onnx\"\n",
    );
    let ran = run(&scenario, &["check", "--config", "models.toml"]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(
        ran.out.contains("not checked: the task names of model `digits`"),
        "{}",
        ran.out
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
fn check_names_a_missing_file() {
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
    assert!(
        without.out.contains("not checked: whether the models load"),
        "{}",
        without.out
    );
    let with = run(&wrong, &["check", "--load", "--config", "models.toml"]);
    assert_eq!(with.code, Some(1), "{}", with.err);
    assert!(
        with.err.contains("misbehave fails its warm-up as requested"),
        "{}",
        with.err
    );
}

#[test]
fn check_with_load_leaves_nothing_behind() {
    for (settings, isolation, code) in [
        ("", "thread", 0),
        ("", "process", 0),
        ("on_load = \"error\"", "thread", 1),
        ("fail_warm_up = true", "process", 1),
    ] {
        let scenario = Scenario::new(&format!(
            "[server]\nscratch_dir = \"scratch\"\n[[models]]\nname = \"m\"\nplugin = \"misbehave\"\n\
             isolation = \"{isolation}\"\n[models.settings]\n{settings}\n"
        ));
        let scratch = scenario.dir().join("scratch");
        std::fs::create_dir(&scratch).expect("change the directory of the scenario");
        let ran = run(&scenario, &["check", "--load", "--config", "models.toml"]);
        assert_eq!(ran.code, Some(code), "{settings} {isolation}: {}", ran.err);
        let left: Vec<_> = std::fs::read_dir(&scratch)
            .expect("it is there")
            .flatten()
            .collect();
        assert!(left.is_empty(), "{settings} {isolation}: {left:?}");
    }
}

#[test]
fn check_with_load_leaves_nothing_behind_when_interrupted() {
    let scenario = Scenario::new(
        "[server]\nscratch_dir = \"scratch\"\n[[models]]\nname = \"m\"\nplugin = \"misbehave\"\n\
         [models.settings]\non_load = \"hang\"\n",
    );
    let scratch = scenario.dir().join("scratch");
    std::fs::create_dir(&scratch).expect("change the directory of the scenario");
    let left = || {
        std::fs::read_dir(&scratch)
            .expect("it is there")
            .flatten()
            .count()
    };
    for signal in [Signal::INT, Signal::TERM] {
        let mut check = scenario
            .to_run(&["check", "--load", "--config", "models.toml"])
            .spawn()
            .expect("the executable can be started");
        eventually("the plugin to be copied", || match left() {
            0 => Err("nothing is there"),
            _ => Ok(()),
        });
        kill_process(Pid::from_child(&check), signal).expect("it runs");
        let status = eventually("the command to end", || {
            check.try_wait().expect("a child can be asked").ok_or("it runs")
        });
        assert_eq!(status.code(), Some(1));
        assert_eq!(left(), 0);
    }
}

#[test]
fn an_example_that_fails_with_valid_settings_is_a_warning() {
    let config =
        "[[models]]\nname = \"words\"\nplugin = \"template\"\n[models.settings]\nshortest_word = 4\n";
    let scenario = Scenario::new(config);
    let ran = run(&scenario, &["check", "--load", "--config", "models.toml"]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let says = "model `words`: warm-up of task `stats` failed: example 1: ";
    assert!(ran.err.contains(says), "{}", ran.err);
    for isolation in ["thread", "process"] {
        let isolated = config.replace(
            "[models.settings]",
            &format!("isolation = \"{isolation}\"\n[models.settings]"),
        );
        let server = Scenario::new(&isolated).start();
        server.wait_for_log(says);
        let reply = server.predict("words", "stats", &serde_json::json!([{"text": "longer words"}]));
        assert_eq!(reply.expect(200).outputs()[0]["words"], 2, "{isolation}");
    }
}

#[test]
fn the_configuration_reference_matches_the_file_in_the_repository_and_is_valid() {
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
fn the_configuration_reference_can_be_printed_as_a_table() {
    let ran = run(&Scenario::new(""), &["config-reference", "--markdown"]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(ran.out.contains("| `max_batch_size` |"), "{}", ran.out);
}

/// Removes lines that differ between builds and machines.
fn without_facts_of_the_build(text: &str) -> String {
    let kept = |line: &&str| {
        let facts = [
            "file ",
            "sha256 ",
            "requires ",
            "run path",
            "warning      the plugin is a debug build",
        ];
        !facts.iter().any(|fact| line.starts_with(fact))
    };
    text.lines()
        .filter(kept)
        .map(|line| format!("{line}\n"))
        .collect()
}

/// Replaces version numbers, so that a release does not change snapshots.
fn without_versions(text: &str) -> String {
    text.replace(env!("CARGO_PKG_VERSION"), "[version]")
}

#[test]
fn inspect_prints_the_manifest_of_a_plugin() {
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
fn inspect_can_print_json() {
    let file = library("template");
    let ran = run(
        &Scenario::new(""),
        &["inspect", "--json", &file.to_string_lossy()],
    );
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let mut json: serde_json::Value = serde_json::from_str(&ran.out).expect("it prints JSON");
    let object = json.as_object_mut().expect("it prints an object");
    for fact in ["size", "sha256", "machine", "needed", "run_path", "findings"] {
        assert!(object.remove(fact).is_some(), "no `{fact}`");
    }
    json["manifest"]
        .as_object_mut()
        .expect("it has a manifest")
        .remove("debug_build");
    let text = serde_json::to_string_pretty(&json).expect("what was read can be written");
    insta::assert_snapshot!("inspect_template_json", without_versions(&text));
}

#[test]
fn inspect_reports_all_invalid_declarations_and_fails() {
    let file = library("misdeclared");
    let ran = run(&Scenario::new(""), &["inspect", &file.to_string_lossy()]);
    assert_eq!(ran.code, Some(1), "{}", ran.err);
    let found: Vec<&str> = ran
        .out
        .lines()
        .filter(|line| line.starts_with("error "))
        .collect();
    let expected = [
        "the output of task `bare_tensor` has the kind tensors but declares no tensor: add `.output_tensor(…)`",
        "invalid task name `wrong example`",
        "two tasks are named `twice`",
        "example 1 of task `wrong example` is not valid input for the task: `name`: missing required key",
    ];
    assert_eq!(found.len(), expected.len(), "{}", ran.out);
    for (line, expected) in found.iter().zip(expected) {
        assert!(line.contains(expected), "{line}");
    }
    for warning in [
        "task `bare_tensor` has no description",
        "task `bare_tensor` has no example",
    ] {
        assert!(ran.out.contains(warning), "{}", ran.out);
    }

    let json = run(
        &Scenario::new(""),
        &["inspect", "--json", &file.to_string_lossy()],
    );
    assert_eq!(json.code, Some(1), "{}", json.err);
    let json: serde_json::Value = serde_json::from_str(&json.out).expect("it prints JSON");
    assert_eq!(json["findings"][0]["severity"], "error");
    assert_eq!(json["findings"][0]["task"], "bare_tensor");
}

#[test]
fn inspect_with_strict_fails_on_warnings() {
    let file = library("template").to_string_lossy().into_owned();
    let strict = run(&Scenario::new(""), &["inspect", "--strict", &file]);
    let is_debug = strict.out.contains("the plugin is a debug build");
    assert_eq!(is_debug, cfg!(debug_assertions), "{}", strict.out);
    assert_eq!(strict.code, Some(i32::from(is_debug)), "{}", strict.err);
}

#[test]
fn inspect_explains_why_a_file_is_not_a_plugin() {
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
fn help_lists_all_commands_and_unknown_flags_are_rejected() {
    let scenario = Scenario::new("");
    let help = run(&scenario, &["--help"]);
    assert_eq!(help.code, Some(0));
    for part in [
        "check",
        "config-reference",
        "inspect",
        "batch",
        "bench",
        "status",
        "new",
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
fn the_version_is_that_of_the_package_and_its_long_form_describes_the_build() {
    let scenario = Scenario::new("[[models]]\nname = \"words\"\nplugin = \"template\"\n");
    let first = concat!("inference-server ", env!("CARGO_PKG_VERSION"));
    assert_eq!(run(&scenario, &["-V"]).out.trim(), first);
    let long = run(&scenario, &["--version"]).out;
    assert_eq!(long.lines().next(), Some(first));
    let fact = |name: &str| -> String {
        let line = long
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap_or_else(|| panic!("no {name}: {long}"))
            .trim()
            .to_owned()
    };
    assert!(fact("target").contains("-linux-"), "{long}");

    // The log, `GET /` and the metrics have the same facts.
    let server = scenario.start();
    let build = &server.get("/").expect(200).json()["build"];
    let unknown = |value: &serde_json::Value| value.as_str().unwrap_or("unknown").to_owned();
    for (name, member) in [
        ("commit", "commit"),
        ("built", "date"),
        ("plugin ABI", "abi_version"),
        ("target", "target"),
    ] {
        assert_eq!(fact(name), unknown(&build[member]), "{name}");
    }
    let line = server.wait_for_log("inference-server 0.");
    assert!(
        line.contains(&fact("commit")) && line.contains(&fact("target")),
        "{line}"
    );
    let labels = [("commit", &*fact("commit")), ("target", &*fact("target"))];
    assert_eq!(server.metrics().count("inference_build_info", &labels), 1);
}

#[test]
fn completions_and_manual_pages_cover_the_commands() {
    let scenario = Scenario::new("");
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let ran = run(&scenario, &["completions", shell]);
        assert_eq!(ran.code, Some(0), "{shell}: {}", ran.err);
        for part in ["status", "reload", "max-batch-size"] {
            assert!(ran.out.contains(part), "{shell}: no {part}");
        }
    }
    assert_eq!(run(&scenario, &["completions", "cmd"]).code, Some(2));
    let page = run(&scenario, &["man"]).out;
    assert!(page.contains(".TH inference-server 1"), "{page}");
    let ran = run(&scenario, &["man", "--directory", "pages"]);
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
    for command in ["", "-check", "-new", "-reload", "-status"] {
        let file = scenario.dir().join(format!("pages/inference-server{command}.1"));
        assert!(file.is_file(), "{}", file.display());
    }
}
