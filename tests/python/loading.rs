//! What is told to the operator whose model cannot be loaded.

use super::{class, config, python, write};
use crate::harness::{Scenario, Server};

/// The line of the log that says why the model does not load.
fn refusal(server: &Server) -> String {
    server.wait_for_log("model `m`")
}

#[test]
fn every_mistake_is_named_with_what_is_to_be_done() {
    let Some(python) = python() else { return };
    let cases = [
        (
            "modle.py:Model",
            "",
            "modle.py does not exist; did you mean `model.py`?",
        ),
        (
            "model.py",
            "",
            "`model.py`, expected `path/to/file.py:Name` or `package.module:Name`",
        ),
        (
            "model.py:Modle",
            "class Model: pass",
            "model.py has no `Modle`; did you mean `Model`?",
        ),
        (
            "model.py:x",
            "x = 3",
            "`x` in model.py is a value of type `int`, expected a class or a function",
        ),
        (
            "no_such.module:Model",
            "",
            "there is no module `no_such.module` in ",
        ),
        (
            "model.py:Model",
            "def f(:\n",
            "model.py:1: invalid syntax: `def f(:`",
        ),
        ("model.py:Model", "import torchh", "imports `torchh`, which "),
        (
            "model.py:Model",
            "x = 1\nraise RuntimeError('no disk')",
            "raised RuntimeError: no disk (",
        ),
        (
            "model.py:Model",
            "class Model: pass",
            "`Model` has no task: no public method that takes a list of items",
        ),
        (
            "model.py:Model",
            "class Model:\n    def load(self, settings):\n        open('missing.bin')\n    def f(self, items): ...",
            "`load` raised FileNotFoundError: [Errno 2] No such file or directory: 'missing.bin' (",
        ),
        (
            "model.py:Model",
            "import datetime, typing\nclass Model:\n    def f(self, items: typing.List[datetime.date]): ...",
            "`f`: `date` cannot be read from JSON; expected str, int,",
        ),
        (
            "model.py:Model",
            "import typing, numpy\nclass Model:\n    def f(self, items: typing.List[numpy.ndarray[typing.Any, numpy.dtype[numpy.str_]]]): ...",
            "is an array of no definite type, expected one of bool, uint8,",
        ),
        (
            "model.py:Model",
            "class Model:\n    max_batch_size = 0\n    def f(self, items): ...",
            "`max_batch_size` of `Model` is 0, expected an integer from 1",
        ),
        (
            "model.py:Model",
            "class Model:\n    def __init__(self, size): ...",
            "making a `Model` raised TypeError: ",
        ),
    ];
    for (class, text, expected) in cases {
        let scenario = Scenario::new(&config(&python, class, ""));
        write(scenario.dir(), "model.py", text);
        let server = scenario.start_unready();
        let said = refusal(&server);
        assert!(
            said.contains(expected),
            "{class}: {text}\nexpected {expected}\ngot {said}"
        );
        assert!(
            said.contains("models.toml:7:9"),
            "the line of `class` is named: {said}"
        );
    }
}

#[test]
fn settings_are_read_as_their_hint_has_them() {
    let Some(python) = python() else { return };
    let text = "from dataclasses import dataclass\n\
                @dataclass\nclass Size:\n    width: int\n\
                @dataclass\nclass Settings:\n    size: Size\n\
                class Model:\n\
                \x20   def load(self, settings: Settings, base_dir):\n\
                \x20       self.seen = [settings.size.width, (base_dir / 'model.py').is_file()]\n\
                \x20   def see(self, items):\n        return [self.seen] * len(items)\n";
    let scenario = |settings: &str| {
        let config = config(&python, "model.py:Model", "");
        let scenario = Scenario::new(&format!("{config}{settings}"));
        write(scenario.dir(), "model.py", text);
        scenario
    };
    let server = scenario("[models.settings.settings]\nsize = { width = 3 }\n").start();
    let seen = server.predict("m", "see", &serde_json::json!([1])).outputs();
    assert_eq!(seen, [serde_json::json!([3, true])]);

    let server = scenario("[models.settings.settings]\nsize = { width = \"wide\" }\n").start_unready();
    let said = refusal(&server);
    assert!(
        said.contains("models.toml:9:18")
            && said.contains("`settings.size.width`: expected an integer, got the string \"wide\""),
        "{said}"
    );
    let server = Scenario::new(&format!(
        "{}[models.settings.settings]\na = 1\n",
        config(&python, &class("kinds.py", "Kinds"), "")
    ))
    .start_unready();
    let said = refusal(&server);
    assert!(
        said.contains("`Kinds` has no method `load` that would take them"),
        "{said}"
    );
}

#[test]
fn a_python_that_cannot_be_used_is_named() {
    let Some(_) = python() else { return };
    for (written, expected) in [
        (
            "/no/such/venv",
            "/no/such/venv does not exist, expected the folder of a virtual environment",
        ),
        (
            "$DIR",
            "bin/python does not exist, expected the folder of a virtual environment",
        ),
        ("/bin/cat", "/bin/cat does not "),
        (
            "$DIR/old",
            "$DIR/old is Python 3.8.1, expected CPython 3.9 or newer",
        ),
        (
            "$DIR/other",
            "$DIR/other is an interpreter of the implementation `pypy`, expected CPython 3.9 or newer",
        ),
        (
            "$DIR/static",
            "/usr/bin/static has no libpython3.11.so.1.0 in /nowhere; on Debian install libpython3.11, with pyenv",
        ),
        ("$DIR/lying", "the library in this process is that of Python 3."),
    ] {
        let config = config(written.as_ref(), "model.py:Model", "");
        let scenario = Scenario::new(&config);
        let folder = real_library();
        for (name, implementation, version, folder) in [
            ("old", "cpython", "[3, 8, 1]", "/nowhere"),
            ("other", "pypy", "[3, 11, 0]", "/nowhere"),
            ("static", "cpython", "[3, 11, 0]", "/nowhere"),
            (
                "lying",
                "cpython",
                "[3, 99, 0]",
                scenario.dir().to_str().expect("UTF-8"),
            ),
        ] {
            pretend(scenario.dir(), name, implementation, version, folder);
        }
        std::os::unix::fs::symlink(folder, scenario.dir().join("libpython3.99.so.1.0")).expect("a link");
        let expected = expected.replace("$DIR", scenario.dir().to_str().expect("UTF-8"));
        let server = scenario.start_unready();
        let said = refusal(&server);
        assert!(
            said.contains(&expected),
            "{written}: expected {expected}, got {said}"
        );
        assert!(
            said.contains("models.toml:6:10"),
            "the line of `python` is named: {said}"
        );
    }
}

/// The library of the Python of the tests.
fn real_library() -> String {
    let python = python().expect("it was found before");
    let script = "import os, sys, sysconfig\n\
                  name = 'libpython%d.%d.so.1.0' % sys.version_info[:2]\n\
                  folders = [sysconfig.get_config_var('LIBDIR'), sys.base_prefix + '/lib']\n\
                  print(next(f + '/' + name for f in folders if os.path.exists(f + '/' + name)))";
    let output = std::process::Command::new(python)
        .args(["-c", script])
        .output()
        .expect("it runs");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Writes a program that says of itself that it is such an interpreter.
fn pretend(folder: &std::path::Path, name: &str, implementation: &str, version: &str, library_folder: &str) {
    use std::os::unix::fs::PermissionsExt;
    let text = format!(
        "#!/bin/sh\necho '{{\"implementation\": \"{implementation}\", \"version\": {version}, \"free_threaded\": false, \
         \"executable\": \"/usr/bin/{name}\", \"prefix\": \"/usr\", \"library_folders\": [\"{library_folder}\"]}}'\n"
    );
    let file = folder.join(name);
    write(folder, name, &text);
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o755)).expect("it is ours");
}
