//! Models of scikit-learn, XGBoost and LightGBM (`tabular/make.py` trains and exports them), compared with the predictions of the
//! libraries: as tensors and as classifications.

#[allow(dead_code, reason = "every test file uses a part of it")]
mod common;

use std::path::{Path, PathBuf};

use common::{assert_same, load, onnx_runtime, read_json};
use onnx::Onnx;
use plugin_sdk::serde_json::{Value as Json, json};
use plugin_sdk::testing::{FailureKind, Harness};

/// Models whose files do not contain class names.
const UNNAMED: [&str; 2] = ["double_classifier", "neighbors"];

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tabular")
}

fn reference() -> Vec<(String, Json)> {
    let reference = read_json(directory().join("reference.json"));
    let models = reference.as_object().expect("an object").clone();
    assert_eq!(models.len(), 26);
    models.into_iter().collect()
}

fn model(name: &str, runtime: &str, settings: &str) -> Harness<Onnx> {
    let settings = format!("model = \"{name}.onnx\"\n{runtime}\n{settings}");
    load(&settings, directory()).unwrap_or_else(|failure| panic!("{name}: {failure}"))
}

fn list<'a>(value: &'a Json, key: &str) -> &'a Vec<Json> {
    value[key].as_array().expect("it is a list")
}

#[test]
fn tabular_models_predict_what_their_libraries_predict() {
    let Some(runtime) = onnx_runtime() else { return };
    for (name, expected) in reference() {
        let model = model(&name, &runtime, "");
        let (items, outputs) = (list(&expected, "items"), list(&expected, "outputs"));
        for (index, outcome) in model.predict("predict", items).into_iter().enumerate() {
            let what = format!("{name}, row {index}");
            let outcome = outcome.unwrap_or_else(|failure| panic!("{what}: {failure}"));
            assert_same(&outcome, &outputs[index], &what);
        }
        let input = &model.manifest().tasks[0].input;
        assert!(!model.manifest().tasks[0].unbatched, "{name}: {input:?}");
    }
}

#[test]
fn classifiers_answer_the_label_of_the_model_with_the_scores_of_all_labels() {
    let Some(runtime) = onnx_runtime() else { return };
    for (name, expected) in reference() {
        if expected["labels"].is_null() {
            continue;
        }
        let labels = list(&expected, "labels");
        let named = if UNNAMED.contains(&&*name) {
            format!("labels = {}\n", expected["labels"])
        } else {
            String::new()
        };
        let settings = format!("[tasks.classify]\nclassification = {{}}\n{named}");
        let model = model(&name, &runtime, &settings);
        let answers = model.predict("classify", list(&expected, "items"));
        for (row, answer) in answers.into_iter().enumerate() {
            let what = format!("{name}, row {row}");
            let answer = answer.unwrap_or_else(|failure| panic!("{what}: {failure}"));
            assert_eq!(answer["label"], expected["label"][row], "{what}");
            let scores = list(&answer, "scores");
            assert_eq!(scores.len(), labels.len(), "{what}");
            for score in scores {
                let label = labels
                    .iter()
                    .position(|label| *label == score["label"])
                    .expect("a label");
                assert_same(&score["score"], &expected["probabilities"][row][label], &what);
                if score["label"] == answer["label"] {
                    assert_eq!(score["score"], answer["score"], "{what}");
                }
            }
        }
    }
}

#[test]
fn a_row_with_wrong_columns_fails_with_their_names() {
    let Some(runtime) = onnx_runtime() else { return };
    let model = model("columns", &runtime, "[tasks.classify]\nclassification = {}");
    let row = json!({"age": 41, "city": "Oslo", "visits": 3, "plan": "a"});
    model.prepare("classify", &row).expect("a good row");
    let changed = |name: &str, value: Option<Json>| {
        let mut row = row.clone();
        let members = row.as_object_mut().expect("an object");
        match value {
            Some(value) => members.insert(name.to_owned(), value),
            None => members.remove(name),
        };
        row
    };
    model
        .prepare("classify", &changed("age", Some(Json::Null)))
        .expect("a missing number is NaN");
    for (row, named) in [
        (changed("city", None), "`city`"),
        (changed("town", Some(json!("Oslo"))), "`town`"),
        (changed("age", Some(json!("41"))), "`age`"),
        (changed("city", Some(json!(5))), "`city`"),
        (changed("city", Some(Json::Null)), "`city`"),
        (changed("visits", Some(Json::Null)), "`visits`"),
        (changed("visits", Some(json!(1.5))), "`visits`"),
    ] {
        let failure = model.prepare("classify", &row).expect_err(named);
        assert_eq!(failure.kind, FailureKind::InvalidInput, "{failure}");
        assert!(failure.message.contains(named), "{failure}");
    }
}

#[test]
fn a_classification_that_the_model_cannot_give_fails_to_load() {
    let Some(runtime) = onnx_runtime() else { return };
    for (name, task, key, problem) in [
        (
            "neighbors",
            "classification = {}",
            "tasks.a.classification",
            "the file does not name the classes of output `probabilities`: set `labels`",
        ),
        (
            "neighbors",
            "classification = {}\nlabels = [\"x\", \"y\"]",
            "tasks.a.labels",
            "2 labels, expected 3: output `probabilities` has that many elements",
        ),
        (
            "columns",
            "classification = { scores = \"label\" }",
            "tasks.a.classification.scores",
            "output `label` is BYTES",
        ),
        (
            "columns_maps",
            "classification = {}\nlabels = [\"no\", \"yes\"]",
            "tasks.a.labels",
            "are not for maps, whose keys are the labels",
        ),
        (
            "columns",
            "outputs = [\"label\"]\nclassification = {}",
            "tasks.a.classification.scores",
            "the task has no output of scores",
        ),
    ] {
        let settings = format!("model = \"{name}.onnx\"\n{runtime}\n[tasks.a]\n{task}");
        let Err(failure) = load(&settings, directory()) else {
            panic!("{name} loads with {task}");
        };
        assert_eq!(failure.key, key, "{failure}");
        assert!(failure.message.contains(problem), "{failure}");
    }
}
