//! The setting `pad`: items of different lengths share a batch and have the same answers as alone, in both runtimes.

#[allow(dead_code, reason = "every test file uses a part of it")]
mod common;

use common::graph::{Graph, integers, node};
use common::{assert_close, load, numbers, onnx_runtime};
use onnx::Onnx;
use plugin_sdk::log::Level;
use plugin_sdk::serde_json::{Value as Json, json};
use plugin_sdk::testing::{FailureKind, Harness};
use rten_onnx::onnx::DataType;

const MODELS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/models");

/// The tokens of "the lake" are 2, 114, 16, 43, 36, 37 and 3, and those of an empty text 2 and 3.
const TOKENIZER: &str = "../../../sentence-embeddings/tests/models/bge/tokenizer.json";

/// The sum of the `ids` that the `mask` keeps, and each of them.
const TOKENS: &str = "model = \"tokens.onnx\"\n[tasks.t]\npad = { ids = 7, mask = 0 }\n";

/// Settings for both runtimes, or for the embedded one if ONNX Runtime is not installed.
fn runtimes() -> impl Iterator<Item = String> {
    ["runtime = \"rten\"".to_owned()]
        .into_iter()
        .chain(onnx_runtime())
}

fn loaded(settings: &str) -> Harness<Onnx> {
    load(settings, MODELS).unwrap_or_else(|failure| panic!("{settings}\n{failure}"))
}

/// The answers to items that share a batch, which must not run one by one.
fn together(model: &Harness<Onnx>, items: &[Json]) -> Vec<Json> {
    let answers = model
        .predict("t", items)
        .into_iter()
        .map(|outcome| outcome.unwrap_or_else(|failure| panic!("an item failed: {failure}")));
    let answers = answers.collect();
    let logs: Vec<_> = model.logs().into_iter().map(|line| line.message).collect();
    assert!(
        !logs.iter().any(|line| line.contains("item by item")),
        "they ran one by one: {logs:?}"
    );
    answers
}

/// The sample for a requested weight, which must be an item of the task with `weight`.
#[track_caller]
fn sampled(model: &Harness<Onnx>, task: &str, requested: u64, weight: u64) -> Json {
    let sample = model.sample(task, requested).expect("a sample").expect("an item");
    let prepared = model.prepare(task, &sample).expect("a valid item");
    assert_eq!(prepared.weight, weight, "{sample}");
    sample
}

/// The settings [`TOKENS`] with another table `pad`.
fn padded_by(pad: &str) -> String {
    TOKENS.replace("{ ids = 7, mask = 0 }", pad)
}

fn tokens(ids: &[i32], mask: &[i32]) -> Json {
    json!({"ids": ids, "mask": mask})
}

#[test]
fn items_of_different_lengths_share_a_batch_and_are_answered_as_if_alone() {
    let items = [
        tokens(&[5, 6, 8], &[1, 0, 1]),
        tokens(&[9], &[1]),
        tokens(&[1, 2, 3, 4, 5], &[1, 1, 1, 1, 1]),
    ];
    let expected = [
        json!({"sum": 13, "kept": [5, 0, 8]}),
        json!({"sum": 9, "kept": [9]}),
        json!({"sum": 15, "kept": [1, 2, 3, 4, 5]}),
    ];
    for runtime in runtimes() {
        let model = loaded(&format!("{runtime}\n{TOKENS}"));
        assert_eq!(together(&model, &items), expected, "{runtime}");
        let costs: Vec<_> = items
            .iter()
            .map(|item| model.prepare("t", item).expect("a valid item"))
            .collect();
        assert_eq!(
            costs.iter().map(|cost| cost.weight).collect::<Vec<_>>(),
            [3, 1, 5],
            "{runtime}"
        );
        assert!(costs.iter().all(|cost| cost.group == costs[0].group), "{costs:?}");
        model.check_examples();
    }
}

#[test]
fn without_the_setting_items_of_different_lengths_do_not_share_batches() {
    let settings = TOKENS.replace("pad = { ids = 7, mask = 0 }", "");
    let model = loaded(&format!("runtime = \"rten\"\n{settings}"));
    let group = |item: &Json| model.prepare("t", item).expect("a valid item").group;
    assert_ne!(group(&tokens(&[1], &[1])), group(&tokens(&[1, 2], &[1, 1])));
}

#[test]
fn an_item_without_elements_is_not_padded() {
    for runtime in runtimes() {
        let model = loaded(&format!("{runtime}\n{TOKENS}"));
        let group = |item: &Json| model.prepare("t", item).expect("a valid item").group;
        assert_ne!(group(&tokens(&[], &[])), group(&tokens(&[1], &[1])), "{runtime}");
    }
}

#[test]
fn the_lengths_of_the_inputs_of_an_item_must_agree() {
    let model = loaded(&format!("runtime = \"rten\"\n{TOKENS}"));
    let failure = model
        .prepare("t", &tokens(&[1, 2, 3], &[1, 1]))
        .expect_err("the mask is shorter");
    assert_eq!(failure.kind, FailureKind::InvalidInput);
    assert_eq!(
        failure.message,
        "tensor `mask` has the length 2, expected 3, the length of tensor `ids`"
    );
    // The other items of a request are answered.
    let outcomes = model.predict("t", &[tokens(&[4], &[1]), tokens(&[1, 2, 3], &[1, 1])]);
    assert_eq!(outcomes[0], Ok(json!({"sum": 4, "kept": [4]})));
    assert!(outcomes[1].is_err());
}

#[test]
fn a_model_whose_answers_depend_on_padding_is_rejected() {
    for runtime in runtimes() {
        // The mask of the padding keeps the 7.
        let settings = TOKENS.replace("mask = 0", "mask = 1");
        let failure = load(&format!("{runtime}\n{settings}"), MODELS).expect_err("the sum changes");
        assert_eq!(
            (failure.kind, &*failure.key),
            (FailureKind::Settings, "tasks.t.pad"),
            "{failure}"
        );
        for part in [
            "output `sum` depends on padding: for an item of the length",
            "mask",
        ] {
            assert!(failure.message.contains(part), "{part:?} is not in {failure}");
        }
        // Even if the operator allows items to affect one another.
        let forced = format!("batch = \"force\"\n{runtime}\n{settings}");
        let failure = load(&forced, MODELS).expect_err("the sum changes");
        assert!(failure.message.contains("depends on padding"), "{failure}");
    }
}

#[test]
fn examples_take_part_in_the_check() {
    // For 0 and 1, which made-up tokens consist of, the product with the mask is the same.
    let examples = "examples = [{ ids = [3, 4, 5], mask = [1, 1, 1] }, { ids = [8], mask = [1] }]\n";
    for runtime in runtimes() {
        let model = loaded(&format!("{runtime}\n{TOKENS}{examples}"));
        assert_eq!(
            together(&model, &[tokens(&[1], &[1]), tokens(&[2, 3], &[1, 1])]),
            [json!({"sum": 1, "kept": [1]}), json!({"sum": 5, "kept": [2, 3]})]
        );
        model.check_examples();
        let contradictory = "examples = [{ ids = [3, 4, 5], mask = [1] }]\n";
        let failure = load(&format!("{runtime}\n{TOKENS}{contradictory}"), MODELS).expect_err("an example");
        assert_eq!(failure.key, "tasks.t.examples");
        assert!(
            failure.message.contains("tensor `mask` has the length 1"),
            "{failure}"
        );
    }
}

#[test]
fn an_output_whose_length_is_derived_from_that_of_the_item_cannot_be_cut_back() {
    for runtime in runtimes() {
        // Every second element.
        let graph = Graph {
            constants: vec![
                integers("start", &[1], &[0]),
                integers("end", &[1], &[1 << 20]),
                integers("axis", &[1], &[1]),
                integers("step", &[1], &[2]),
            ],
            nodes: vec![node("Slice", &["x", "start", "end", "axis", "step"], "y", &[])],
            ..Graph::one(17, DataType::FLOAT, &[-1, -1], "Identity", &[])
        };
        let directory = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"));
        let file = format!("every-second-{}.onnx", std::process::id());
        std::fs::write(directory.join(&file), graph.model().write_buf().expect("a model")).expect("a file");
        let settings = format!("model = \"{file}\"\n{runtime}\n[tasks.t]\npad = {{ x = 0 }}\n");
        let failure = load(&settings, directory).expect_err("the length is halved");
        assert_eq!(failure.key, "tasks.t.pad");
        let part = "output `y` cannot be cut back: an item of the length 4 has the shape [2], and [3] if it is padded to 5";
        assert!(failure.message.contains(part), "{failure}");
    }
}

#[test]
fn texts_of_different_lengths_share_a_batch() {
    let settings = format!(
        "model = \"text_vector.onnx\"\n[tasks.t]\ntokenizer = {{ file = \"{TOKENIZER}\" }}\npad = {{ input_ids = 0, position_ids = 0 }}\n\
         embedding = {{ normalize = false }}"
    );
    // Sums of the tokens and of the positions.
    let (lake, empty) = ([251.0, 21.0], [5.0, 1.0]);
    for runtime in runtimes() {
        let model = loaded(&format!("{runtime}\n{settings}"));
        let answers = together(&model, &[json!("the lake"), json!(""), json!("the lake")]);
        for (answer, expected) in answers.iter().zip([lake, empty, lake]) {
            assert_close(&numbers(&answer["embedding"]), &expected, 1e-3, &runtime);
        }
        let cost = |text: &str| model.prepare("t", &json!(text)).expect("a text");
        assert_eq!((cost("the lake").weight, cost("").weight), (7, 2));
        assert_eq!(cost("the lake").group, cost("").group);
        for weight in [3, 5, 64] {
            sampled(&model, "t", weight, weight);
        }
    }
    // A position counts, wherever it is.
    let dependent = settings.replace("position_ids = 0", "position_ids = 1");
    let failure = load(&format!("runtime = \"rten\"\n{dependent}"), MODELS).expect_err("the sum changes");
    assert!(
        failure.message.contains("output `vector` depends on padding"),
        "{failure}"
    );
}

#[test]
fn samples_have_the_requested_weight_and_can_be_computed() {
    for runtime in runtimes() {
        let model = loaded(&format!("{runtime}\n{TOKENS}"));
        let samples: Vec<_> = [1, 2, 3, 100]
            .map(|weight| sampled(&model, "t", weight, weight))
            .into();
        let answers = together(&model, &samples);
        let lengths = answers.iter().map(|answer| numbers(&answer["kept"]).len());
        assert_eq!(lengths.collect::<Vec<_>>(), [1, 2, 3, 100]);
        assert_eq!(model.sample("t", 1 << 40), Ok(None), "{runtime}");
    }
    // Both dimensions of an image are open.
    let model = loaded("model = \"channels.onnx\"\nruntime = \"rten\"");
    let sample = sampled(&model, "predict", 100, 100);
    assert_eq!(numbers(&sample["image"]).len(), 300);
    // Nothing is open.
    let model = loaded("model = \"token_vectors.onnx\"\nruntime = \"rten\"");
    sampled(&model, "predict", 100, 1);
}

#[test]
fn settings_that_do_not_fit_are_reported_for_their_key() {
    for (settings, key, message) in [
        (
            padded_by("{ ids = 7, masks = 0 }"),
            "tasks.t.pad.masks",
            "the task has no input `masks`, expected `ids`, `mask`",
        ),
        (
            padded_by("{ ids = 7, mask = 0.5 }"),
            "tasks.t.pad.mask",
            "0.5, expected an integer from -2147483648 to 2147483647: input `mask` is INT32",
        ),
        (
            padded_by("{ ids = 7, mask = 3000000000 }"),
            "tasks.t.pad.mask",
            "3000000000, expected an integer from -2147483648 to 2147483647",
        ),
        (
            padded_by("{ ids = 7, mask = false }"),
            "tasks.t.pad.mask",
            "false, expected an integer",
        ),
        (
            padded_by("{ ids = 7 }"),
            "tasks.t.pad.mask",
            "missing: input `mask` has the padded dimension `length` as well, expected its fill value",
        ),
        (
            padded_by("{}"),
            "tasks.t.pad",
            "is empty, expected a fill value for at least one input of `ids`, `mask`",
        ),
        (
            format!("{TOKENS}batch = \"none\"\n"),
            "tasks.t.pad",
            "requires a model whose items are batched: `batch` is \"none\"",
        ),
        (
            "model = \"token_vectors.onnx\"\n[tasks.t]\npad = { input_ids = 0 }".to_owned(),
            "tasks.t.pad.input_ids",
            "input `input_ids` has no open dimension: its items have the shape [8]",
        ),
        (
            "model = \"one.onnx\"\n[tasks.t]\npad = { x = 0 }".to_owned(),
            "tasks.t.pad",
            "requires a model whose items are batched: the batch of the model is fixed to 1",
        ),
        (
            "model = \"channels.onnx\"\n[tasks.t]\npad = { image = \"black\" }".to_owned(),
            "tasks.t.pad.image",
            "\"black\", expected a number within its range: input `image` is FP32",
        ),
    ] {
        for runtime in runtimes() {
            let settings = format!("{runtime}\n{settings}");
            let failure = load(&settings, MODELS).expect_err(key);
            assert_eq!(
                (failure.kind, &*failure.key),
                (FailureKind::Settings, key),
                "{failure}"
            );
            assert!(failure.message.contains(message), "{failure}");
        }
    }
}

#[test]
fn a_renamed_input_is_padded_by_its_name_in_the_file() {
    let model = loaded(&format!(
        "runtime = \"rten\"\n{TOKENS}rename = {{ ids = \"words\" }}\n"
    ));
    let items = [
        json!({"words": [5, 6], "mask": [1, 1]}),
        json!({"words": [9], "mask": [1]}),
    ];
    let expected = [json!({"sum": 11, "kept": [5, 6]}), json!({"sum": 9, "kept": [9]})];
    assert_eq!(together(&model, &items), expected);
}

#[test]
fn two_dimensions_are_padded_together() {
    // The sum over an image does not depend on black pixels.
    let settings = "model = \"channels.onnx\"\n[tasks.t]\npad = { image = 0 }\n";
    let image = |value: f32, height: usize, width: usize| json!(vec![vec![vec![value; width]; height]; 3]);
    for runtime in runtimes() {
        let model = loaded(&format!("{runtime}\n{settings}"));
        let answers = together(&model, &[image(1.0, 2, 5), image(2.0, 4, 3), image(1.0, 1, 1)]);
        let expected = [10.0, 24.0, 1.0].map(|sum| json!({"logits": [sum, sum, sum]}));
        assert_eq!(answers, expected, "{runtime}");
        assert_eq!(model.prepare("t", &image(1.0, 2, 5)).expect("an item").weight, 10);
        let warnings = model.logs().into_iter().filter(|line| line.level == Level::Warn);
        assert_eq!(warnings.count(), 0);
    }
}
