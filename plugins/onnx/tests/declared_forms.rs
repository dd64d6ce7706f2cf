//! Declared tasks with small models of every form: layouts of predictions, models that take other tensors in addition to an
//! image, and errors for settings that do not match the model.

#[allow(dead_code, reason = "every test file uses a part of it")]
mod common;

use std::io::Cursor;

use common::{bytes_item, declared_answers, load, numbers, onnx_runtime};
use plugin_sdk::serde_json::{Value as Json, json};
use plugin_sdk::testing::FailureKind;

const MODELS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/models");

/// A white image with a black square of `size` pixels at `[x, y]`.
fn square([width, height]: [u32; 2], at: [u32; 2], size: u32, inside: u8, outside: u8) -> Json {
    let is_inside = |place: u32, from: u32| (from..from + size).contains(&place);
    let picture = image::GrayImage::from_fn(width, height, |x, y| {
        let inside_square = is_inside(x, at[0]) && is_inside(y, at[1]);
        image::Luma([if inside_square { inside } else { outside }])
    });
    let mut png = Cursor::new(Vec::new());
    picture
        .write_to(&mut png, image::ImageFormat::Png)
        .expect("a PNG can be written");
    bytes_item(png.get_ref(), "image/png")
}

const CAT: [f32; 6] = [50.0, 50.0, 20.0, 40.0, 0.75, 0.25];
const SAME_CAT: [f32; 6] = [51.0, 50.0, 20.0, 40.0, 0.5, 0.25];
const NOTHING: [f32; 6] = [0.0; 6];
const DOG: [f32; 6] = [10.0, 10.0, 4.0, 4.0, 0.0, 0.5];

#[test]
fn rows_and_columns_of_predictions_give_the_same_detections_alone_and_in_a_batch() {
    let cat = json!({"label": "cat", "score": 0.75, "box": [40.0, 30.0, 60.0, 70.0]});
    let dog = json!({"label": "dog", "score": 0.5, "box": [8.0, 8.0, 12.0, 12.0]});
    let expected = [json!({"detections": [cat, dog]}), json!({"detections": []})];
    let settings = |name: &str| {
        format!("model = \"{name}.onnx\"\n[tasks.t]\ndetection = {{}}\nlabels = [\"cat\", \"dog\"]")
    };
    let rows = [json!([CAT, SAME_CAT, DOG]), json!([NOTHING, NOTHING, NOTHING])];
    let columns = |rows: [[f32; 6]; 3]| json!([0, 1, 2, 3, 4, 5].map(|number| rows.map(|row| row[number])));
    let columns = [columns([CAT, SAME_CAT, DOG]), columns([NOTHING; 3])];
    for (name, items) in [("prediction_rows", rows), ("prediction_columns", columns)] {
        for count in [1, 2] {
            let Some(answers) = declared_answers(&settings(name), MODELS, &items[..count]) else {
                return;
            };
            assert_eq!(answers, expected[..count], "{name}");
        }
    }
}

#[test]
fn rows_with_the_index_of_a_label_are_declared() {
    let settings = "model = \"prediction_rows.onnx\"\n[tasks.t]\nlabels = [\"cat\", \"dog\"]\n\
                    detection = { rows = \"label\", first_label = 1 }";
    let items = [json!([
        [10.0, 10.0, 20.0, 20.0, 0.5, 1.0],
        [10.0, 10.0, 20.0, 20.0, 0.75, 2.0],
        [0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    ])];
    let Some(answers) = declared_answers(settings, MODELS, &items) else {
        return;
    };
    let edges = [10.0, 10.0, 20.0, 20.0];
    assert_eq!(
        answers,
        [json!({"detections": [
            {"label": "dog", "score": 0.75, "box": edges},
            {"label": "cat", "score": 0.5, "box": edges},
        ]})]
    );
}

#[test]
fn a_model_that_takes_the_size_of_the_image_answers_boxes_in_its_pixels() {
    let settings = "model = \"boxes_in_the_original.onnx\"\n[tasks.t]\n\
        detection = { boxes = \"boxes\", scores = \"scores\", labels = \"labels\", coordinates = \"original\" }\n\
        image = { width = 4, height = 4, sizes = { sizes = [\"width\", \"height\"] } }";
    let items = [
        square([200, 100], [0, 0], 9, 0, 255),
        square([40, 80], [0, 0], 9, 0, 255),
    ];
    let Some(answers) = declared_answers(settings, MODELS, &items) else {
        return;
    };
    let expected = |width: f32, height: f32| {
        json!({"detections": [
            // The box is clipped to the height.
            {"label": "2", "score": 0.75, "box": [width * 0.25, height * 0.5, width * 0.75, height]},
            {"label": "1", "score": 0.5, "box": [0.0, 0.0, width * 0.5, height * 0.5]},
        ]})
    };
    assert_eq!(answers, [expected(200.0, 100.0), expected(40.0, 80.0)]);
}

#[test]
fn a_detector_of_one_image_answers_any_number_of_boxes() {
    let settings = "model = \"boxes_of_one_image.onnx\"\n[tasks.t]\nlabels = [\"near\", \"far\"]\n\
        detection = { boxes = \"boxes\", scores = \"scores\", labels = \"labels\", box_format = \"yxyx\" }\n\
        image = { width = 8, height = 8, fit = \"letterbox\", resize = \"area\" }";
    // The image is twice as wide as the input and as high as it, so it is halved, with 2 rows of padding above and below.
    let items = [
        square([16, 8], [4, 2], 2, 255, 0),
        square([16, 8], [0, 0], 0, 0, 0),
    ];
    let Some(answers) = declared_answers(settings, MODELS, &items) else {
        return;
    };
    assert_eq!(
        answers,
        [
            json!({"detections": [{"label": "near", "score": 0.5, "box": [4.0, 2.0, 6.0, 4.0]}]}),
            json!({"detections": []}),
        ]
    );
}

#[test]
fn text_is_read_from_scores_of_characters() {
    let settings = "model = \"prediction_rows.onnx\"\n[tasks.t]\nactivation = \"softmax\"\ntext = { dictionary = \"letters.txt\", \
        blank = \"last\", space = true }";
    let step = |best: usize| {
        let mut scores = [0.0; 6];
        scores[best] = 20.0;
        scores
    };
    // The classes are a, b, c, ß, space and blank.
    let items = [
        json!([0, 0, 5, 0, 4, 3].map(step)),
        json!([5, 5, 5, 5, 5, 5].map(step)),
    ];
    let Some(answers) = declared_answers(settings, MODELS, &items) else {
        return;
    };
    let texts: Vec<_> = answers.iter().map(|answer| answer["text"].clone()).collect();
    assert_eq!(texts, ["aa ß", ""]);
    assert!(numbers(&json!([answers[0]["score"]]))[0] > 0.999_999);
    assert_eq!(answers[1]["score"], 0.0);
}

#[test]
fn scores_that_are_no_probabilities_are_an_error_that_names_the_setting() {
    let Some(runtime) = onnx_runtime() else { return };
    let row = [10.0, 50.0, 20.0, 40.0, 20.0, 0.0];
    for task in [
        "text = { dictionary = \"letters.txt\", space = true }",
        "detection = {}\nlabels = [\"cat\", \"dog\"]",
    ] {
        let settings = format!("{runtime}\nmodel = \"prediction_rows.onnx\"\n[tasks.t]\n{task}");
        let model = load(&settings, MODELS).expect("the settings fit");
        let failure = model.predict("t", &[json!([row])]).remove(0).expect_err(task);
        assert_eq!(failure.kind, FailureKind::Internal, "{failure}");
        assert!(failure.message.contains("`activation`"), "{failure}");
    }
}

#[test]
fn labels_that_do_not_exclude_each_other_are_scored_one_by_one() {
    let settings = "model = \"channels.onnx\"\n[tasks.t]\nlabels = [\"red\", \"green\", \"blue\"]\nactivation = \"sigmoid\"\n\
        score_threshold = 0.5";
    // The logits are the sums of the pixels per channel: 0, 4 and -4.
    let Some(answers) = declared_answers(settings, MODELS, &[json!([[[0.0]], [[4.0]], [[-4.0]]])]) else {
        return;
    };
    assert_eq!(answers[0]["label"], "green");
    let scores = answers[0]["scores"].as_array().expect("it is a list");
    let labels: Vec<_> = scores.iter().map(|score| score["label"].clone()).collect();
    assert_eq!(labels, ["green", "red"]);
    assert_eq!(scores[1]["score"], 0.5);
}

/// A model, the settings of a task, and the key and a part of the message of the expected error.
const WRONG: &[(&str, &str, &str, &str)] = &[
    (
        "prediction_rows",
        "detection = {}",
        "tasks.t.detection",
        "expected `labels`, or `rows`, to say what follows a box",
    ),
    (
        "prediction_rows",
        "detection = {}\nlabels = [\"a\", \"b\", \"c\"]",
        "tasks.t.labels",
        "output `y` has 6 numbers for each prediction, expected 7 (a box and 3 scores, for 3 labels) or 8",
    ),
    (
        "prediction_rows",
        "detection = { rows = \"scores\", boxes = \"y\" }",
        "tasks.t.detection.rows",
        "is for predictions in one output",
    ),
    (
        "prediction_rows",
        "detection = { scores = \"y\" }",
        "tasks.t.detection.scores",
        "requires `boxes`",
    ),
    (
        "prediction_rows",
        "detection = { rows = \"label\", background = 0 }",
        "tasks.t.detection.background",
        "is for models that compute scores of each class",
    ),
    (
        "prediction_rows",
        "detection = { rows = \"scores\", first_label = 1 }",
        "tasks.t.detection.first_label",
        "is for models that compute the index",
    ),
    (
        "prediction_rows",
        "detection = { rows = \"scores\", coordinates = \"grid\" }",
        "tasks.t.detection.coordinates",
        "requires `image` with a fixed width",
    ),
    (
        "prediction_rows",
        "detection = { rows = \"scores\", max_detections = 0 }",
        "tasks.t.detection.max_detections",
        "got 0, expected a positive integer",
    ),
    (
        "prediction_rows",
        "detection = { rows = \"scores\" }\nscore_threshold = 2",
        "tasks.t.score_threshold",
        "2, expected a number from 0 to 1",
    ),
    (
        "prediction_rows",
        "detection = { rows = \"scores\" }\nlabels = [\"a\", \"b\"]\ntop_k = 1",
        "tasks.t.top_k",
        "does not apply to the kind of answer",
    ),
    (
        "prediction_rows",
        "score_threshold = 0.5",
        "tasks.t.score_threshold",
        "is for tasks with `labels`",
    ),
    (
        "boxes_in_the_original",
        "detection = {}",
        "tasks.t.detection",
        "the task has the outputs `boxes`, `scores`, `labels`, expected",
    ),
    (
        "boxes_in_the_original",
        "image = { width = 4, height = 4 }",
        "tasks.t.image",
        "inputs that take the size of the image are listed in `sizes`",
    ),
    (
        "boxes_in_the_original",
        "image = { width = 4, height = 4, sizes = { sizes = [\"width\"] } }",
        "tasks.t.image.sizes.sizes",
        "1 numbers, expected what the input takes: INT64 in [2]",
    ),
    (
        "boxes_in_the_original",
        "image = { width = 4, height = 4, sizes = { sizes = [\"scale_x\", \"scale_y\"] } }",
        "tasks.t.image.sizes.sizes",
        "a scale is a fraction",
    ),
    (
        "boxes_in_the_original",
        "image = { width = 4, height = 4, sizes = { size = [\"width\"] } }",
        "tasks.t.image.sizes.size",
        "the task has no input `size`",
    ),
    (
        "prediction_rows",
        "text = { dictionary = \"letters.txt\" }",
        "tasks.t.text.dictionary",
        "4 characters and the blank, expected 6 classes",
    ),
    (
        "prediction_rows",
        "text = { dictionary = \"none.txt\" }",
        "tasks.t.text.dictionary",
        "none.txt` cannot be read",
    ),
    (
        "prediction_rows",
        "text = { dictionary = { metadata = \"chars\" } }",
        "tasks.t.text.dictionary.metadata",
        "the model file has no metadata `chars`: it has none",
    ),
    (
        "prediction_rows",
        "embedding = {}",
        "tasks.t.embedding",
        "requires `tokenizer`",
    ),
    (
        "prediction_rows",
        "tokenizer = { file = \"none.json\" }",
        "tasks.t.tokenizer",
        "input `x` takes FP32 in items of the shape [count, 6]",
    ),
    (
        "tokens",
        "tokenizer = { file = \"none.json\" }\nrename = { ids = \"input_ids\", mask = \"attention_mask\" }",
        "tasks.t.tokenizer.file",
        "none.json` cannot be used",
    ),
    (
        "tokens",
        "tokenizer = { file = \"none.json\" }",
        "tasks.t.tokenizer",
        "input `ids` is not among those that a tokenizer fills",
    ),
    (
        "channels",
        "image = { width = \"wide\", height = 4 }",
        "tasks.t.image.width",
        "expected a positive integer, or \"proportional\"",
    ),
    (
        "channels",
        "image = { width = 4, height = 4, fill = 300, fit = \"letterbox\" }",
        "tasks.t.image.fill",
        "300, expected a number from 0 to 255",
    ),
    (
        "channels",
        "image = { width = 4, height = 4, fill = 3 }",
        "tasks.t.image.fill",
        "stretched images have no padding",
    ),
    (
        "channels",
        "image = { width = 4, height = 4, position = \"center\" }",
        "tasks.t.image.position",
        "requires `fit = \"letterbox\"`",
    ),
];

#[test]
fn settings_that_do_not_fit_are_reported_for_their_key() {
    let Some(runtime) = onnx_runtime() else { return };
    for (name, task, key, message) in WRONG {
        let settings = format!("model = \"{name}.onnx\"\n{runtime}\n[tasks.t]\n{task}");
        let failure = load(&settings, MODELS).expect_err(&settings);
        assert_eq!(
            (failure.kind, &*failure.key),
            (FailureKind::Settings, *key),
            "{settings}\n{failure}"
        );
        assert!(failure.message.contains(message), "{settings}\n{failure}");
    }
}
