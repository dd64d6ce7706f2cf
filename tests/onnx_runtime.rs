//! Selection of the runtime of the `onnx` plugin, as seen by operators and clients.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value as Json;

use crate::harness::plugins::{library, repository};
use crate::harness::{Scenario, Server, eventually, tools};

/// Returns the path of ONNX Runtime in the Python of the tests.
fn onnx_runtime() -> Option<PathBuf> {
    let python = tools::find("INFERENCE_TEST_PYTHON", &["python3"], "apt-get install python3")?;
    let script = "import glob, os, onnxruntime\n\
                  print(glob.glob(os.path.dirname(onnxruntime.__file__) + '/capi/libonnxruntime.so*')[0])";
    let output = Command::new(&python).args(["-c", script]).output();
    match output {
        Ok(output) if output.status.success() => {
            let path = String::from_utf8(output.stdout).expect("the path is UTF-8");
            Some(path.trim().into())
        }
        _ => {
            tools::absent(
                &format!("{} has no module onnxruntime", python.display()),
                "INFERENCE_TEST_PYTHON",
                "pip install onnxruntime",
            );
            None
        }
    }
}

/// Returns a scenario with a model `m` from a file of the plugin's tests. No variable leads to ONNX Runtime.
fn scenario(file: &str, keys: &str, settings: &str) -> Scenario {
    library("onnx");
    let model = repository().join("plugins/onnx/tests").join(file);
    let config = format!(
        "[[models]]\nname = \"m\"\nplugin = \"onnx\"\n{keys}\n\n[models.settings]\nmodel = \"{}\"\n{settings}\n",
        model.display()
    );
    let scenario = Scenario::new(&config);
    let home = scenario.dir().display().to_string();
    ["ORT_DYLIB_PATH", "VIRTUAL_ENV", "CONDA_PREFIX", "LD_LIBRARY_PATH"]
        .into_iter()
        .fold(scenario, |scenario, name| scenario.env(name, ""))
        .env("PATH", "/nonexistent")
        .env("HOME", &home)
}

fn details(server: &Server) -> (String, String) {
    let model = server.model("m");
    let detail = |name: &str| model["details"][name].as_str().unwrap_or_default().to_owned();
    (detail("runtime"), detail("runtime_reason"))
}

#[test]
fn a_library_named_by_the_environment_runs_models_that_the_embedded_runtime_does_not_support() {
    let Some(library) = onnx_runtime() else { return };
    let server = scenario("kinds/trees.onnx", "", "")
        .env("ORT_DYLIB_PATH", &library.display().to_string())
        .start();
    let (runtime, reason) = details(&server);
    assert!(runtime.starts_with("ONNX Runtime 1."), "{runtime}");
    assert!(reason.contains("TreeEnsembleRegressor"), "{reason}");
    server.wait_for_log("found by ORT_DYLIB_PATH");
    server.wait_for_log(&format!("runs on {runtime}: "));
    let model = server.model("m");
    assert_eq!(model["state"], "ready", "{model}");
    assert_eq!(model["tasks"][0]["trial"]["outcome"], "succeeded", "{model}");
    server.shut_down();
}

#[test]
fn a_sandboxed_process_finds_the_library_in_the_python_environment_that_its_variables_name() {
    let Some(library) = onnx_runtime() else { return };
    // .../lib/python3.11/site-packages/onnxruntime/capi/libonnxruntime.so
    let prefix = library.ancestors().nth(6).unwrap_or(Path::new("/"));
    let keys = format!(
        "isolation = \"process\"\nsandbox = \"best-effort\"\nenv = {{ VIRTUAL_ENV = \"{}\" }}",
        prefix.display()
    );
    let server = scenario("kinds/words.onnx", &keys, "").start();
    let (runtime, reason) = details(&server);
    assert!(runtime.starts_with("ONNX Runtime 1."), "{runtime}");
    assert!(reason.contains("STRING"), "{reason}");
    server.wait_for_log("found by the Python environment of VIRTUAL_ENV");
    server.shut_down();
}

#[test]
fn without_a_library_a_model_that_needs_it_is_rejected_with_installation_instructions() {
    let server = scenario("kinds/trees.onnx", "", "").start_unready();
    let model: Json = eventually("the model to have failed", || match server.model("m") {
        model if model["state"] == "failed" => Ok(model),
        model => Err(model["state"].clone()),
    });
    assert_eq!(model["ready"], false);
    server.wait_for_log("TreeEnsembleRegressor");
    server.wait_for_log("no library of ONNX Runtime was found");
    server.wait_for_log("/opt/onnxruntime/bin/pip install onnxruntime");
}

#[test]
fn log_records_of_onnx_runtime_are_in_the_log_with_the_name_of_the_model() {
    let Some(library) = onnx_runtime() else { return };
    let settings = format!(
        "runtime = \"ort\"\nort = {{ library = \"{}\" }}",
        library.display()
    );
    let server = scenario("models/left_over.onnx", "", &settings).start();
    let line = server.wait_for_log("appears in graph inputs");
    assert!(
        line.contains("model::m::onnxruntime") && line.contains("WARN"),
        "{line}"
    );
    assert!(!line.contains("[W:onnxruntime"), "{line}");
    server.shut_down();
}
