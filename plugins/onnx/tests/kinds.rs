//! Networks of many kinds (`kinds/make.py` exports them from PyTorch), compared with what Python's onnxruntime answers: in one
//! batch and one by one, with each of the runtimes.

#[allow(dead_code, reason = "every test file uses a part of it")]
mod common;

use std::path::{Path, PathBuf};

use common::{load, onnx_runtime, read_json};
use onnx::Onnx;
use plugin_sdk::serde_json::{Value as Json, json};
use plugin_sdk::testing::Harness;

const TOLERANCE: f64 = 1e-4;

/// Those that the embedded runtime can compute.
const COMMON: [&str; 10] = [
    "residual",
    "separable",
    "unet",
    "lstm",
    "gru",
    "transformer",
    "mixed",
    "waves",
    "detector",
    "quantised",
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kinds")
}

fn model(name: &str, settings: &str) -> Harness<Onnx> {
    load(&format!("model = \"{name}.onnx\"\n{settings}"), folder()).expect("the network loads")
}

/// Compares the answers to all items, which have different shapes in some networks, one by one and in one batch.
fn check(name: &str, settings: &str) {
    let model = model(name, settings);
    let reference = read_json(folder().join(format!("{name}.json")));
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

/// Numbers may differ by the tolerance; all else is equal, shapes included.
fn assert_same(got: &Json, expected: &Json, what: &str) {
    match (got, expected) {
        (Json::Array(got), Json::Array(expected)) => {
            assert_eq!(got.len(), expected.len(), "{what}: number of elements");
            got.iter()
                .zip(expected)
                .for_each(|(got, expected)| assert_same(got, expected, what));
        }
        (Json::Object(got), Json::Object(expected)) => {
            assert_eq!(got.len(), expected.len(), "{what}: number of outputs");
            for (name, expected) in expected {
                assert_same(&got[name], expected, &format!("{what}, output {name}"));
            }
        }
        (Json::Number(got), Json::Number(expected)) => {
            let difference = got
                .as_f64()
                .zip(expected.as_f64())
                .map(|(one, other)| (one - other).abs());
            assert!(
                difference.is_some_and(|difference| difference <= TOLERANCE),
                "{what}: {got}, expected {expected}"
            );
        }
        _ => assert_eq!(got, expected, "{what}"),
    }
}

#[test]
fn the_embedded_runtime_answers_as_onnx_runtime() {
    for name in COMMON {
        check(name, "");
    }
}

#[test]
fn the_library_answers_as_its_python_package() {
    let Some(settings) = onnx_runtime() else { return };
    for name in COMMON {
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
fn what_the_embedded_runtime_lacks_is_refused_by_its_name() {
    for (name, reason) in [
        ("words", "declares its input `word` with the datatype STRING"),
        ("trees", "TreeEnsembleRegressor"),
    ] {
        let failure = load(&format!("model = \"{name}.onnx\""), folder()).expect_err("it cannot be served");
        assert_eq!(failure.key, "model");
        assert!(failure.message.contains(reason), "{}", failure.message);
    }
}

#[test]
fn a_provider_that_is_missing_is_an_error_and_never_the_processor_instead() {
    let Some(settings) = onnx_runtime() else { return };
    for provider in ["cuda", "tensorrt"] {
        let settings = settings.replace(" }", &format!(", providers = [\"{provider}\"] }}"));
        let failure = load(&format!("model = \"mixed.onnx\"\n{settings}"), folder())
            .expect_err("there is no GPU, or no library for one, where tests run");
        assert_eq!(failure.key, "ort.providers");
        assert!(failure.message.starts_with("cannot be used: "), "{failure}");
    }
}

#[test]
fn a_library_that_is_not_there_is_blamed_on_its_setting() {
    for (settings, key, message) in [
        ("runtime = \"ort\"", "runtime", "needs a table `ort`"),
        ("ort = { library = \"a.so\" }", "ort", "is for the runtime `ort`"),
        ("runtime = \"ort\"\nort = {}", "ort", "expected either `library`"),
        (
            "runtime = \"ort\"\nort = { library = \"absent.so\" }",
            "ort.library",
            "absent.so` cannot be loaded: there is no such file",
        ),
        (
            "runtime = \"ort\"\nort = { python = \"absent\" }",
            "ort.python",
            "expected an environment with the package onnxruntime",
        ),
    ] {
        let failure = load(&format!("model = \"mixed.onnx\"\n{settings}"), folder()).expect_err("refused");
        assert_eq!(failure.key, key, "{failure}");
        assert!(failure.message.contains(message), "{failure}");
    }
}

#[test]
fn clients_see_the_names_that_the_settings_give() {
    let settings = "[tasks.price]\noutputs = [\"price\"]\nrename = { image = \"photo\", price = \"euros\" }";
    let model = model("mixed", settings);
    let reference = read_json(folder().join("mixed.json"));
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
        let failure = load(&settings, folder()).expect_err("refused");
        assert_eq!(failure.message, message);
    }
}
