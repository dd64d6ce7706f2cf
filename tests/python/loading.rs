//! Errors that operators see when a Python model fails to load.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use super::{class, config, python, write};
use crate::harness::Scenario;

/// Starts a server with one model per configuration, named `m0`, `m1` and so on. Each has its own directory, which `prepare`
/// fills. Returns the line in the log about each model.
fn load_errors(configs: &[String], prepare: impl Fn(usize, &Path)) -> Vec<String> {
    let named: Vec<String> = (0..)
        .zip(configs)
        .map(|(index, config)| {
            config
                .replace("name = \"m\"", &format!("name = \"m{index}\""))
                .replace("$HERE", &format!("$DIR/{index}"))
        })
        .collect();
    let scenario = Scenario::new(&named.concat());
    for index in 0..configs.len() {
        prepare(index, &scenario.dir().join(index.to_string()));
    }
    let server = scenario.start_unready();
    (0..configs.len())
        .map(|index| server.wait_for_log(&format!("model `m{index}`: ")))
        .collect()
}

#[test]
fn each_error_states_the_problem_and_the_fix() {
    let Some(python) = python() else { return };
    let cases = [
        (
            "modle.py:Model",
            "",
            "modle.py does not exist: did you mean `model.py`?",
        ),
        (
            "model.py",
            "",
            "model.py`, expected `path/to/file.py:Name` or `package.module:Name`",
        ),
        (
            "model.py:Modle",
            "class Model: pass",
            "model.py: did you mean `Model`?",
        ),
        (
            "model.py:x",
            "x = 3",
            "model.py is a value of type `int`, expected a class or a function",
        ),
        (
            "no_such.module:Model",
            "",
            "module `no_such.module` not found in ",
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
            "cannot serve `Model`: it has no tasks, expected a method such as `def shout(self, texts: list[str])`",
        ),
        (
            "model.py:Model",
            "class Model:\n    def load(self, settings):\n        open('missing.bin')\n    def f(self, items: list): ...",
            "`load` raised FileNotFoundError: [Errno 2] No such file or directory: 'missing.bin' (",
        ),
        (
            "model.py:Model",
            "import datetime, typing\nclass Model:\n    def f(self, items: typing.List[datetime.date]): ...",
            "`f`: unsupported type hint `date`, expected str, int,",
        ),
        (
            "model.py:Model",
            "import typing, numpy\nclass Model:\n    def f(self, items: typing.List[numpy.ndarray[typing.Any, numpy.dtype[numpy.str_]]]): ...",
            "is an array of an unsupported datatype, expected one of bool, uint8,",
        ),
        (
            "model.py:Model",
            "class Model:\n    def predict(self, text: str): ...",
            "; `predict`: `text` is `str`, expected a list such as `list[str]`",
        ),
        (
            "model.py:Model",
            "class Model:\n    max_batch_size = 0\n    def f(self, items: list): ...",
            "`max_batch_size` of `Model` is 0, expected a positive integer",
        ),
        (
            "model.py:Model",
            "class Model:\n    @property\n    def files(self): return self.missing\n    def f(self, items: list): ...",
            "reading `files` raised AttributeError: 'Model' object has no attribute 'missing'",
        ),
        (
            "model.py:Model",
            "from dataclasses import dataclass\nimport typing\n@dataclass\nclass Node:\n    next: typing.Optional['Node']\n\
             class Model:\n    def f(self, items: typing.List[Node]): ...",
            "`f`: `Node` is recursive, which is not supported",
        ),
        (
            "model.py:Model",
            "class Model:\n    def f(self, items: list, parameters: dict): ...",
            "`f`: `parameters` is `dict`, expected a list such as `list[dict]`",
        ),
        (
            "model.py:Model",
            "class Model:\n    examples = {'g': [1]}\n    def f(self, items: list): ...",
            "`examples` has an entry for `g`, which is not a task",
        ),
        (
            "model.py:Model",
            "class Model:\n    def __init__(self, size): ...",
            "instantiating `Model` raised TypeError: ",
        ),
    ];
    let config = |class: &str| {
        let class = if class.contains(".py") {
            format!("$HERE/{class}")
        } else {
            class.to_owned()
        };
        config(&python, &class, "")
    };
    let configs = cases.map(|(class, ..)| config(class));
    let lines = load_errors(&configs, |index, folder| {
        write(folder, "model.py", cases[index].1)
    });
    for ((class, text, expected), said) in cases.into_iter().zip(lines) {
        assert!(
            said.contains(expected),
            "{class}: {text}\nexpected {expected}\ngot {said}"
        );
        let column = said.contains(":9: model") && said.contains("[models.settings] `class`: ");
        assert!(column, "expected the position of `class`: {said}");
    }
}

#[test]
fn settings_are_converted_to_the_type_of_their_hint() {
    let Some(python) = python() else { return };
    let text = "from dataclasses import dataclass\n\
                @dataclass\nclass Size:\n    width: int\n\
                @dataclass\nclass Settings:\n    size: Size\n\
                class Model:\n\
                \x20   def load(self, settings: Settings, base_dir):\n\
                \x20       self.seen = [settings.size.width, (base_dir / 'model.py').is_file()]\n\
                \x20   def see(self, items: list):\n        return [self.seen] * len(items)\n";
    let scenario = |settings: &str| {
        let config = config(&python, "model.py:Model", "");
        let scenario = Scenario::new(&format!("{config}{settings}"));
        write(scenario.dir(), "model.py", text);
        scenario
    };
    let server = scenario("[models.settings.settings]\nsize = { width = 3 }\n").start();
    let seen = server.predict("m", "see", &json!([1])).outputs();
    assert_eq!(seen, [json!([3, true])]);

    let server = scenario("[models.settings.settings]\nsize = { width = \"wide\" }\n").start_unready();
    let said = server.wait_for_log("model `m`: ");
    assert!(
        said.contains("models.toml:9:18")
            && said.contains("`settings.size.width`: expected an integer, got the string \"wide\""),
        "{said}"
    );
}

#[test]
fn a_class_of_an_installed_package_is_served_in_the_active_environment() {
    let Some(python) = python() else { return };
    let environment = python
        .parent()
        .and_then(Path::parent)
        .expect("it is in a folder `bin`");
    let library = real_library(&python);
    for settings in [String::new(), format!("libpython = \"{library}\"\n")] {
        let scenario = Scenario::new(&format!(
            "[[models]]\nname = \"m\"\nplugin = \"python\"\n\
             [models.settings]\nclass = \"package.models:Outer.Model\"\n{settings}"
        ));
        let text = "from . import part\nclass Outer:\n    class Model:\n        def see(self, items: list):\n            \
                    return [part.VALUE] * len(items)\n";
        write(
            scenario.dir(),
            "installed/package/__init__.py",
            "print('noise')\n",
        );
        write(scenario.dir(), "installed/package/models.py", text);
        write(scenario.dir(), "installed/package/part.py", "VALUE = 1\n");
        write(
            scenario.dir(),
            "installed/sitecustomize.py",
            "print('more noise')\n",
        );
        let installed = scenario.dir().join("installed").display().to_string();
        let server = scenario
            .env("PYTHONPATH", &installed)
            .env("VIRTUAL_ENV", &environment.display().to_string())
            .start();
        let see = || server.predict("m", "see", &json!([0])).outputs();
        assert_eq!(see(), [json!(1)]);
        write(server.dir(), "installed/package/part.py", "VALUE = 22\n");
        assert!(server.reload());
        assert_eq!((see(), server.generation("m")), (vec![json!(22)], 2));
    }
}

#[test]
fn settings_for_a_model_without_settings_are_rejected() {
    let Some(python) = python() else { return };
    let configs = ["Kinds", "shout"].map(|name| {
        let config = config(&python, &class("kinds.py", name), "");
        format!("{config}settings = {{ a = 1 }}\n")
    });
    let lines = load_errors(&configs, |_, _| ());
    for (said, expected) in lines.iter().zip([
        "`settings`: `Kinds` has no method `load` to pass them to",
        "`settings`: functions do not accept settings: use a class with a method `load`",
    ]) {
        assert!(said.contains(expected), "expected {expected}, got {said}");
    }
}

#[test]
fn errors_name_a_python_that_cannot_be_used() {
    let Some(python) = python() else { return };
    let cases = [
        (
            "/no/such/venv",
            None,
            "/no/such/venv does not exist, expected the directory of a virtual environment",
        ),
        (
            "$HERE",
            None,
            "bin/python does not exist, expected the directory of a virtual environment",
        ),
        ("/bin/cat", None, "/bin/cat failed with exit status"),
        (
            "$HERE/python",
            Some(("cpython", "[3, 8, 1]")),
            "/python is Python 3.8.1, expected CPython 3.9 or newer",
        ),
        (
            "$HERE/python",
            Some(("pypy", "[3, 11, 0]")),
            "/python is an interpreter of the implementation `pypy`, expected CPython 3.9 or newer",
        ),
        (
            "$HERE/python",
            Some(("cpython", "[3, 11, 0]")),
            "/usr/bin/python has no libpython3.11.so.1.0 in /tmp/",
        ),
        (
            "$HERE/python",
            Some(("cpython", "[3, 99, 0]")),
            "the library in this process is Python 3.",
        ),
    ];
    let configs = cases.map(|(written, ..)| config(written.as_ref(), "model.py:Model", ""));
    let lines = load_errors(&configs, |index, folder| {
        write(folder, "empty", "");
        if let (_, Some((implementation, version)), _) = cases[index] {
            write_fake_interpreter(folder, implementation, version);
            let library = folder.join("libpython3.99.so.1.0");
            std::os::unix::fs::symlink(real_library(&python), library).expect("create a symbolic link");
        }
    });
    for ((written, _, expected), said) in cases.into_iter().zip(lines) {
        assert!(
            said.contains(expected),
            "{written}: expected {expected}, got {said}"
        );
        let place = said.contains(":10: model") && said.contains("[models.settings] `python`: ");
        assert!(place, "expected the position of `python`: {said}");
    }
}

/// Returns the path of the shared library of a Python.
fn real_library(python: &Path) -> String {
    let script = "import os, sys, sysconfig\n\
                  name = 'libpython%d.%d.so.1.0' % sys.version_info[:2]\n\
                  folders = [sysconfig.get_config_var('LIBDIR'), sys.base_prefix + '/lib']\n\
                  print(next(f + '/' + name for f in folders if os.path.exists(f + '/' + name)))";
    let output = Command::new(python)
        .args(["-c", script])
        .output()
        .expect("run Python");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Writes a program `python` that claims to be an interpreter with these properties, whose library is in the same directory.
fn write_fake_interpreter(folder: &Path, implementation: &str, version: &str) {
    let text = format!(
        "#!/bin/sh\necho '{{\"implementation\": \"{implementation}\", \"version\": {version}, \"free_threaded\": false, \
         \"executable\": \"/usr/bin/python\", \"prefix\": \"/usr\", \"library_directories\": [\"{}\"]}}'\n",
        folder.display()
    );
    write(folder, "python", &text);
    std::fs::set_permissions(folder.join("python"), Permissions::from_mode(0o755)).expect("set permissions");
}
