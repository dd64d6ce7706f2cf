//! Tests of the plugin `python` through the server.
//!
//! They require a Python with numpy and pydantic, which `INFERENCE_TEST_PYTHON` names, and its `libpython`. Without it, they print
//! a note and pass, or fail if `INFERENCE_TEST_TOOLS=required` is set.

mod asynchronous;
mod embeddings;
mod examples;
mod faults;
mod life;
mod loading;
mod minilm;
mod outcomes;
mod poison;
mod tasks;
mod values;
mod versions;
mod weights;

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value as Json, json};

use crate::harness::plugins::{library, repository};
use crate::harness::{Scenario, Server, tools};

/// Prints the interpreter's version, and fails if a requirement is missing.
const CHECK: &str = "
import os, sys, sysconfig
name = 'libpython%d.%d.so.1.0' % sys.version_info[:2]
folders = [sysconfig.get_config_var('LIBDIR'), sys.base_prefix + '/lib']
assert any(os.path.exists(os.path.join(folder, name)) for folder in folders), name + ' is missing'
import numpy, pydantic
print('%d.%d' % sys.version_info[:2])
";

/// Returns the Python for the tests.
fn python() -> Option<PathBuf> {
    let python = tools::find("INFERENCE_TEST_PYTHON", &["python3"], "apt-get install python3")?;
    match check(&python) {
        Ok(_) => Some(python),
        Err(problem) => {
            let install = "tests/install, apt-get install libpython3.x";
            tools::absent(
                &format!("{}: {problem}", python.display()),
                "INFERENCE_TEST_PYTHON",
                install,
            );
            None
        }
    }
}

/// Returns the version of an interpreter, or the reason why the tests cannot use it.
fn check(python: &Path) -> Result<String, String> {
    let output = Command::new(python)
        .args(["-c", CHECK])
        .output()
        .map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(said.lines().next_back().unwrap_or_default().to_owned())
}

/// Returns the configuration of a model `m` with this class and additional keys. Further settings can be appended.
fn config(python: &Path, class: &str, keys: &str) -> String {
    library("python");
    library("python_bridge");
    format!(
        "[[models]]\nname = \"m\"\nplugin = \"python\"\n{keys}\n\
         [models.settings]\npython = \"{}\"\nclass = \"{class}\"\n",
        python.display()
    )
}

/// Returns the path and name of a class in `tests/python/models`.
fn class(file: &str, name: &str) -> String {
    let folder = repository().join("tests/python/models");
    format!("{}:{name}", folder.join(file).display())
}

/// Starts a server with a class of `tests/python/models`.
pub(crate) fn serve(file: &str, name: &str, keys: &str) -> Option<Server> {
    let python = python()?;
    Some(Scenario::new(&config(&python, &class(file, name), keys)).start())
}

/// Returns a scenario with a file `model.py`, whose class `Model` is the model `m`.
fn written(text: &str, keys: &str) -> Option<Scenario> {
    let scenario = Scenario::new(&config(&python()?, "model.py:Model", keys));
    write(scenario.dir(), "model.py", text);
    Some(scenario)
}

fn write(folder: &Path, name: &str, text: &str) {
    let file = folder.join(name);
    let parent = file.parent().expect("a parent directory");
    std::fs::create_dir_all(parent).expect("create the directory");
    std::fs::write(file, text).expect("write the file");
}

#[test]
fn the_example_returns_the_outputs_in_the_readme() {
    let Some(python) = python() else { return };
    let root = repository();
    let read = |name: &str| std::fs::read_to_string(root.join(name)).expect("read a file of the repository");
    let config = read("config/python.toml")
        .replace("python = \"venv\"", &format!("python = \"{}\"", python.display()))
        .replace("../plugins", &root.join("plugins").display().to_string());
    let server = Scenario::new(&config).start();
    let inputs = json!(["good mornign", "how art thou", ""]);
    let got = server.predict("phrases", "closest", &inputs).expect(200).json();
    let readme = read("plugins/python/README.md");
    let shown = readme
        .split("```json\n")
        .nth(1)
        .and_then(|rest| rest.split("```").next());
    let shown: Json = serde_json::from_str(shown.expect("a reply")).expect("valid JSON");
    let outputs = |reply: &Json| reply["outputs"].as_array().cloned().unwrap_or_default();
    let (got, shown) = (outputs(&got), outputs(&shown));
    assert_eq!(got.len(), shown.len());
    for (got, shown) in got.iter().zip(&shown) {
        assert_eq!(
            (&got["phrase"], &got["error"]),
            (&shown["phrase"], &shown["error"])
        );
        let score = |output: &Json| output["score"].as_f64().unwrap_or_default();
        assert!((score(got) - score(shown)).abs() < 1e-6, "{got} and {shown}");
    }
}
