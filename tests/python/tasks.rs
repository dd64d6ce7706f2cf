//! Which methods of a class become tasks, and the reasons that are logged for other methods.

use serde_json::json;

use super::{serve, written};
use crate::harness::Server;
use crate::harness::vectors::list;

fn task_names(server: &Server) -> Vec<String> {
    let tasks = list(&server.model("m")["tasks"]).to_vec();
    let name = |task: &serde_json::Value| task["name"].as_str().unwrap_or_default().to_owned();
    tasks.iter().map(name).collect()
}

#[test]
fn only_methods_with_list_hints_and_marked_ones_become_routes() {
    let Some(server) = serve("helpers.py", "Helpers", "") else {
        return;
    };
    assert_eq!(
        task_names(&server),
        [
            "inherited",
            "listed",
            "sequence",
            "fixed",
            "whole",
            "marked",
            "marked_static"
        ]
    );
    server.predict("m", "save", &json!(["/tmp/x"])).expect(404);
    server.predict("m", "store", &json!(["/tmp/x"])).expect(404);
    for (task, inputs, outputs) in [
        ("listed", json!(["a", "b"]), json!(["a", "b"])),
        ("inherited", json!(["a"]), json!(["a"])),
        ("sequence", json!(["a"]), json!(["a"])),
        ("fixed", json!(["a"]), json!(["tuple"])),
        ("marked", json!([1, {"a": 2}]), json!([1, {"a": 2}])),
        ("marked_static", json!([1]), json!([1])),
        (
            "whole",
            json!([[1, 2], [3, 4]]),
            json!([{"output": [3.0, 4.0]}, {"output": [5.0, 6.0]}]),
        ),
    ] {
        let got = server.predict("m", task, &inputs).expect(200).outputs();
        assert_eq!(json!(got), outputs, "{task}");
    }
}

#[test]
fn each_public_method_that_is_not_a_task_is_logged_once_with_the_fix() {
    let Some(server) = serve("helpers.py", "Helpers", "workers = 3") else {
        return;
    };
    for (method, reason) in [
        (
            "save",
            "`path` has no type hint; give it one such as `list[str]`, or mark it with `@inference_server.task`",
        ),
        ("store", "it returns `NoneType`, expected a list"),
        ("one", "`text` is `str`, expected a list such as `list[str]`"),
        ("normalize", "`vectors` is `numpy.ndarray["),
        (
            "many",
            "it has the parameters texts, count, expected a list of items",
        ),
        ("untyped", "its first parameter is not positional"),
        (
            "unreadable",
            "evaluating its type hints raised NameError: name 'Missing' is not defined",
        ),
        ("static", "it is a static method; to serve it, mark it"),
        ("of_class", "it is a class method; to serve it, mark it"),
        ("cached", "it is not a function written in Python"),
        ("stored", "it is a function stored on the instance"),
        ("overridden", "`text` is `str`, expected a list"),
    ] {
        let line = format!("`{method}` is not a task: {reason}");
        server.wait_for_log(&line);
        let log = server.log().text();
        assert_eq!(log.matches(&line).count(), 1, "{line}\n{log}");
    }
    let log = server.log().text();
    for silent in ["`_private`", "`broken`", "`load`"] {
        assert!(!log.contains(&format!("{silent} is not a task")), "{log}");
    }
}

#[test]
fn the_attribute_tasks_lists_the_tasks() {
    let Some(server) = serve("helpers.py", "Listed", "") else {
        return;
    };
    assert_eq!(task_names(&server), ["stored", "one_by_one"]);
    let outputs = server
        .predict("m", "stored", &json!([1, "a"]))
        .expect(200)
        .outputs();
    assert_eq!(outputs, [json!(1), json!("a")]);
    let line = server.wait_for_log("`listed` is not a task");
    assert!(
        line.contains("the class attribute `tasks` does not list it"),
        "{line}"
    );
}

#[test]
fn a_class_without_a_task_fails_to_load_with_the_reason_for_each_method() {
    for (text, expected) in [
        (
            "class Model:\n    def save(self, path): ...\n    def shout(self, text: str): ...\n",
            vec![
                "it has no tasks, expected a method such as `def shout(self, texts: list[str])`",
                "; `save`: `path` has no type hint",
                "; `shout`: `text` is `str`, expected a list",
            ],
        ),
        (
            "class Model:\n    tasks = ['shuot']\n    def shout(self, texts): ...\n",
            vec!["`tasks` lists `shuot`, which is not a method: did you mean `shout`?"],
        ),
        (
            "class Model:\n    tasks = 'shout'\n    def shout(self, texts): ...\n",
            vec!["`tasks` is 'shout', expected a list of the names of methods"],
        ),
        (
            "class Model:\n    tasks = ['shout']\n    def shout(self, text: str): ...\n",
            vec!["`shout`: `text` is `str`, expected a list such as `list[str]`"],
        ),
        (
            "import inference_server\nclass Model:\n    tasks = []\n    @inference_server.task\n    def shout(self, texts): ...\n",
            vec!["`shout` is marked with @inference_server.task, but `tasks` does not list it"],
        ),
        (
            "class Model:\n    def größe(self, texts: list): ...\n",
            vec!["invalid task name `größe`"],
        ),
    ] {
        let Some(scenario) = written(text, "") else { return };
        let server = scenario.start_unready();
        let said = server.wait_for_log("model `m`: ");
        for expected in expected {
            assert!(said.contains(expected), "{text}\nexpected {expected}\ngot {said}");
        }
    }
}
