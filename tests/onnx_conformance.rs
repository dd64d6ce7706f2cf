//! Compares the plugin `onnx` with Python's onnxruntime: the short form of `tests/onnx_conformance`, with a few of ONNX's backend
//! tests and three models from PyPI packages.
//!
//! The test requires the Python packages that `tests/install` installs; see [`tools`].

use std::process::Command;

use crate::harness::{plugins, tools};

#[test]
fn results_match_pythons_onnxruntime_or_the_model_is_rejected() {
    plugins::library("onnx");
    let install = "tests/install";
    let Some(python) = tools::find("INFERENCE_TEST_PYTHON", &["python3"], install) else {
        return;
    };
    let imports = Command::new(&python)
        .args(["-c", "import onnx, onnxruntime"])
        .output()
        .expect("Python can be started");
    if !imports.status.success() {
        let what = format!("{} lacks the packages onnx and onnxruntime", python.display());
        return tools::absent(&what, "INFERENCE_TEST_PYTHON", install);
    }
    let output = Command::new(&python)
        .arg(plugins::repository().join("tests/onnx_conformance/conformance.py"))
        .args(["--short", "--require-all"])
        .arg("--server")
        .arg(plugins::executable())
        .arg("--plugin-dir")
        .arg(plugins::directory())
        .output()
        .expect("Python can be started");
    let text = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert!(output.status.success(), "{}", text.concat());
}
