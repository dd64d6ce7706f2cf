//! Networks of many kinds (`kinds/make.py` exports them from PyTorch), compared with the results of Python's onnxruntime: in one
//! batch and one by one, in each runtime.

#[allow(dead_code, reason = "every test file uses a part of it")]
mod common;

use std::path::{Path, PathBuf};

use common::{assert_same, load, onnx_runtime, read_json};
use onnx::Onnx;
use plugin_sdk::log::Level;
use plugin_sdk::serde_json::json;
use plugin_sdk::testing::Harness;

/// Networks for which the embedded runtime is verified.
const COMMON: [&str; 8] = [
    "residual",
    "separable",
    "unet",
    "lstm",
    "gru",
    "transformer",
    "mixed",
    "detector",
];

/// Networks for which it is not verified: it overflows in Softplus, and rounds differently in QuantizeLinear.
const UNVERIFIED: [&str; 2] = ["waves", "quantized"];

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kinds")
}

fn model(name: &str, settings: &str) -> Harness<Onnx> {
    load(&format!("model = \"{name}.onnx\"\n{settings}"), directory()).expect("the network loads")
}

/// Compares the answers to all items, in one batch and one by one. In some networks, the items have different shapes.
fn check(name: &str, settings: &str) {
    let model = model(name, settings);
    let reference = read_json(directory().join(format!("{name}.json")));
    let list = |key: &str| reference[key].as_array().expect("it is a list").clone();
    let (items, expected) = (list("items"), list("outputs"));
    let together = model.predict("predict", &items);
    for (index, outcome) in together.into_iter().enumerate() {
        let alone = model.predict("predict", &items[index..=index]).remove(0);
        for (how, outcome) in [("in a batch", outcome), ("alone", alone)] {
            let what = format!("{name}, item {index} {how}");
            let outcome = outcome.unwrap_or_else(|failure| panic!("{what}: {failure}"));
            assert_same(&outcome, &expected[index], &what);
        }
    }
}

#[test]
fn the_embedded_runtime_answers_as_onnx_runtime() {
    for name in COMMON {
        check(name, "runtime = \"rten\"");
    }
}

#[test]
fn the_library_answers_as_its_python_package() {
    let Some(settings) = onnx_runtime() else { return };
    for name in COMMON.into_iter().chain(UNVERIFIED) {
        check(name, &settings);
    }
}

#[test]
fn the_library_knows_strings_and_trees() {
    let Some(settings) = onnx_runtime() else { return };
    check("words", &settings);
    check("trees", &settings);
}

#[test]
fn what_the_embedded_runtime_lacks_is_rejected_by_its_name() {
    for (name, reason) in [
        ("words", "declares its input `word` with the datatype STRING"),
        ("trees", "TreeEnsembleRegressor"),
        ("waves", "`Softplus` (`/Softplus`): the operator is not verified"),
        (
            "quantized",
            "`QuantizeLinear` (`xq`): the operator is not verified",
        ),
    ] {
        let settings = format!("model = \"{name}.onnx\"\nruntime = \"rten\"");
        let failure = load(&settings, directory()).expect_err("it cannot be served");
        assert_eq!(failure.key, "model");
        assert!(failure.message.contains(reason), "{}", failure.message);
    }
}

#[test]
fn a_provider_that_is_missing_is_an_error_and_never_the_processor_instead() {
    let Some(settings) = onnx_runtime() else { return };
    for provider in ["cuda", "tensorrt"] {
        let settings = settings.replace(" }", &format!(", providers = [\"{provider}\"] }}"));
        let failure = load(&format!("model = \"mixed.onnx\"\n{settings}"), directory())
            .expect_err("there is no GPU, or no library for one, where tests run");
        assert_eq!(failure.key, "ort.providers");
        assert!(failure.message.starts_with("cannot be used: "), "{failure}");
    }
}

#[test]
fn a_library_that_is_not_there_is_blamed_on_its_setting() {
    for (settings, key, message) in [
        (
            "runtime = \"rten\"\nort = { library = \"a.so\" }",
            "ort",
            "is for the runtimes `auto` and `ort`",
        ),
        (
            "ort = { library = \"a.so\", python = \"b\", providers = [\"cuda\"] }",
            "ort",
            "has both `library` and `python`",
        ),
        (
            "runtime = \"ort\"\nort = { library = \"make.py\" }",
            "ort.library",
            "make.py` cannot be loaded: ",
        ),
        (
            "runtime = \"ort\"\nort = { library = \"absent.so\" }",
            "ort.library",
            "absent.so` cannot be loaded: there is no such file",
        ),
        (
            "runtime = \"ort\"\nort = { python = \"absent\" }",
            "ort.python",
            "expected its directory, as `python3 -m venv` makes one, with the package onnxruntime",
        ),
    ] {
        let failure =
            load(&format!("model = \"mixed.onnx\"\n{settings}"), directory()).expect_err("rejected");
        assert_eq!(failure.key, key, "{failure}");
        assert!(failure.message.contains(message), "{failure}");
    }
}

#[test]
fn by_default_the_library_computes_what_the_embedded_runtime_does_not_and_says_why() {
    let Some(settings) = onnx_runtime() else { return };
    let settings = settings.replace("runtime = \"ort\"", "");
    check("trees", &settings);
    let trees = model("trees", &settings);
    let details = &trees.manifest().details;
    assert!(details["runtime"].starts_with("ONNX Runtime 1."), "{details:?}");
    let reason = &details["runtime_reason"];
    assert!(
        reason.contains("`trees.onnx`") && reason.contains("TreeEnsembleRegressor"),
        "{reason}"
    );
    let shown = directory().display().to_string();
    assert!(!reason.contains(&shown), "clients see this: {reason}");
    let logs = trees.logs();
    let line = format!("runs on {}: {reason}", details["runtime"]);
    assert!(logs.iter().any(|logged| logged.message == line), "{logs:?}");
}

#[test]
fn by_default_the_library_computes_what_fails_in_the_embedded_runtime_only_when_it_runs() {
    let Some(settings) = onnx_runtime() else { return };
    let settings = settings.replace("runtime = \"ort\"", "");
    let enlarged = load(
        &format!("model = \"../models/enlarged.onnx\"\n{settings}"),
        directory(),
    )
    .expect("a model");
    let details = &enlarged.manifest().details;
    assert!(details["runtime"].starts_with("ONNX Runtime 1."), "{details:?}");
    let reason = &details["runtime_reason"];
    assert!(
        reason.starts_with("the embedded runtime cannot compute the trial: "),
        "{reason}"
    );
    let logs = enlarged.logs();
    assert!(
        logs.iter().all(|line| !line.message.contains("the trial failed")),
        "{logs:?}"
    );
}

#[test]
fn a_model_that_is_meant_for_a_gpu_never_runs_on_the_embedded_runtime() {
    let Some(settings) = onnx_runtime() else { return };
    let settings = settings
        .replace("runtime = \"ort\"", "")
        .replace(" }", ", providers = [\"cuda\", \"cpu\"] }");
    let failure = load(&format!("model = \"mixed.onnx\"\n{settings}"), directory())
        .expect_err("there is no GPU, or no library for one, where tests run");
    assert_eq!(failure.key, "ort.providers", "{failure}");
}

#[test]
fn a_named_library_that_cannot_be_used_is_to_blame_also_if_the_runtime_is_chosen() {
    let settings = "model = \"trees.onnx\"\nort = { library = \"absent.so\" }";
    let failure = load(settings, directory()).expect_err("there is no such library");
    assert_eq!(failure.key, "ort.library", "{failure}");
    for part in [
        "absent.so` cannot be loaded: there is no such file; it is needed, since the embedded runtime does not run the model: ",
        "TreeEnsembleRegressor",
    ] {
        assert!(failure.message.contains(part), "{failure}");
    }
}

#[test]
fn what_the_library_logs_goes_to_the_log_of_the_model_but_not_what_it_also_returns() {
    let Some(settings) = onnx_runtime() else { return };
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models");
    // Its weights are also inputs, so ONNX Runtime logs a warning.
    let left_over = format!("model = \"left_over.onnx\"\n{settings}");
    let left_over = toml::from_str(&left_over).expect("the settings of a test are TOML");
    // Each of the three workers has its own session, which would log the same warning.
    let left_over = Harness::<Onnx>::load_with(left_over, models.clone(), 3, 1);
    let logs = left_over.expect("the network loads").logs();
    let warnings = logs.iter().filter(|line| {
        let is_warning = line.target == "onnxruntime" && line.level == Level::Warn;
        is_warning && line.message.contains("appears in graph inputs")
    });
    assert_eq!(warnings.count(), 1, "{logs:?}");

    let lookup = load(&format!("model = \"lookup.onnx\"\n{settings}"), models);
    let lookup = lookup.expect("the network loads");
    let failure = lookup.predict("predict", &[json!(99)]).remove(0);
    assert!(failure.is_err(), "there is no such row: {failure:?}");
    let logs = lookup.logs();
    assert!(
        !logs.iter().any(|line| line.level == Level::Error),
        "the client's error is no error of the server: {logs:?}"
    );
}

#[test]
fn clients_see_the_names_that_the_settings_give() {
    let settings = "[tasks.price]\noutputs = [\"price\"]\nrename = { image = \"photo\", price = \"euros\" }";
    let model = model("mixed", settings);
    let reference = read_json(directory().join("mixed.json"));
    let mut item = reference["items"][0].clone();
    let fields = item.as_object_mut().expect("an object");
    let image = fields.remove("image").expect("the image");
    fields.insert("photo".to_owned(), image);
    let outcome = model.predict("price", &[item]).remove(0).expect("computed");
    assert_same(
        &outcome,
        &json!({"euros": reference["outputs"][0]["price"]}),
        "the price",
    );
    for (rename, message) in [
        ("{ absent = \"x\" }", "the task has no input or output `absent`"),
        (
            "{ image = \"numbers\" }",
            "two tensors of the task are called `numbers`",
        ),
    ] {
        let settings = format!("model = \"mixed.onnx\"\ntasks.price.rename = {rename}");
        let failure = load(&settings, directory()).expect_err("rejected");
        assert_eq!(failure.message, message);
    }
}
