//! Tests of `python -m inference_server test`, which runs the examples of a class without a server.

use std::process::{Command, Output};

use serde_json::json;

use super::{class, python, write};
use crate::harness::Scenario;
use crate::harness::plugins::{library, repository};

/// Runs the command in a directory with this `model.py`.
fn test(text: &str, arguments: &[&str]) -> Option<(i32, String, String)> {
    let python = python()?;
    let directory = tempfile::tempdir().expect("a temporary directory");
    write(directory.path(), "model.py", text);
    let output = Command::new(python)
        .args(["-m", "inference_server", "test"])
        .args(arguments)
        .current_dir(directory.path())
        .env("PYTHONPATH", repository().join("plugins/python"))
        .output()
        .expect("run Python");
    Some(read(&output))
}

fn read(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code().unwrap_or(-1),
        text(&output.stdout),
        text(&output.stderr),
    )
}

const MODEL: &str = "from typing import List
class Model:
    examples = {'shout': ['a', 'b'], 'wrong': ['x'], 'nan': ['x'], 'raise_': ['x'], 'few': ['a', 'b']}
    def load(self, settings): self.settings = settings
    def shout(self, texts: List[str]) -> List[str]: return [text + self.settings.get('mark', '!') for text in texts]
    def quiet(self, texts: List[str]) -> List[str]: return texts
    def wrong(self, texts: List[str]) -> List[int]: return texts
    def nan(self, texts: List[str]) -> List[dict]: return [{'score': float('nan')} for _ in texts]
    def raise_(self, texts: List[str]) -> List[str]: raise ValueError('not a good text')
    def few(self, texts: List[str]) -> List[str]: return texts[:1]
    def save(self, path): ...
";

#[test]
fn each_task_is_reported_and_a_failure_sets_the_exit_code() {
    let Some((code, out, err)) = test(MODEL, &["model.py:Model"]) else {
        return;
    };
    assert_eq!(code, 1, "{out}{err}");
    for line in [
        "shout: ok (2 examples)",
        "quiet: not run: the task has no `examples`",
        "examples[0]: the output does not match its type hint: expected an integer, got the string \"x\"",
        "examples[0]: cannot send the output: `score` is nan, which is not representable in JSON",
        "examples[0]: not a good text",
        "in a batch of all 2: task `few` returned 1 outcomes for 2 items, expected one for each",
    ] {
        assert!(out.contains(line), "expected {line}\ngot {out}");
    }
    assert!(
        err.contains("`save` is not a task: `path` has no type hint"),
        "{err}"
    );
}

#[test]
fn successful_examples_exit_with_zero() {
    let settings = [
        "model.py:Model",
        "--task",
        "shout",
        "--settings",
        "{\"mark\": \"?\"}",
    ];
    let Some((code, out, err)) = test(MODEL, &settings) else {
        return;
    };
    assert_eq!((code, out.as_str()), (0, "shout: ok (2 examples)\n"), "{err}");
    let phrases = repository().join("plugins/python/examples/phrases.py");
    let target = format!("{}:Phrases", phrases.display());
    let Some((code, out, err)) = test("", &[&target, "--settings", "{\"phrases\": [\"good morning\"]}"])
    else {
        return;
    };
    assert_eq!(code, 0, "{out}{err}");
    let kinds = class("kinds.py", "Kinds");
    let Some((code, out, err)) = test("", &[&kinds]) else {
        return;
    };
    assert_eq!(code, 0, "{out}{err}");
}

#[test]
fn load_errors_are_the_same_as_in_the_server() {
    for (text, arguments, expected) in [
        (
            "class Model:\n    def save(self, path): ...\n",
            vec!["model.py:Model"],
            "failed to load model.py:Model: cannot serve `Model`: it has no tasks",
        ),
        (
            "",
            vec!["modle.py:Model"],
            "does not exist: did you mean `model.py`?",
        ),
        (
            MODEL,
            vec!["model.py:Model", "--settings", "[]"],
            "settings: expected an object, got an array of 0",
        ),
    ] {
        let Some((code, out, err)) = test(text, &arguments) else {
            return;
        };
        assert_eq!(code, 1, "{out}{err}");
        assert!(err.contains(expected), "expected {expected}\ngot {err}");
    }
}

#[test]
fn the_command_in_the_readme_succeeds() {
    let Some(python) = python() else { return };
    let readme =
        std::fs::read_to_string(repository().join("plugins/python/README.md")).expect("read the README");
    let command = readme
        .lines()
        .find(|line| line.starts_with("PYTHONPATH=plugins/python "))
        .expect("the README shows how to run the examples");
    let command = command.replace("config/venv/bin/python", &python.display().to_string());
    let output = Command::new("sh")
        .args(["-c", &command])
        .current_dir(repository())
        .output()
        .expect("run sh");
    let (code, out, err) = read(&output);
    assert_eq!(
        (code, out.contains("closest: ok (1 example)")),
        (0, true),
        "{out}{err}"
    );
}

#[test]
fn the_example_that_the_command_new_writes_is_served_as_it_is() {
    let Some(python) = python() else { return };
    library("python");
    let scenario = Scenario::new("");
    std::fs::remove_file(scenario.dir().join("models.toml")).expect("the scenario has a configuration");
    let (code, out, err) = read(&scenario.run(&["new", "--python", "."]));
    assert_eq!(code, 0, "{out}{err}");
    let config = std::fs::read_to_string(scenario.dir().join("models.toml")).expect("it is written");
    let request = "/v1/models/sentiment/tasks/classify/predict";
    assert!(config.contains(request), "{config}");
    let directory = python.parent().expect("an interpreter is in a directory");
    let path = format!(
        "{}:{}",
        directory.display(),
        std::env::var("PATH").unwrap_or_default()
    );
    let server = scenario.env("PATH", &path).env("VIRTUAL_ENV", "").start();
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
