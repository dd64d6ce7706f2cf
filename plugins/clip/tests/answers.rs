//! Compares the outputs of the tasks with transformers, on two small models: one in the current directory format and one in the
//! format of the first checkpoints. `reference/make.py` generates them with random weights.

#[allow(dead_code, reason = "each test file uses a part of it")]
mod common;

use std::io::Cursor;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use clip::Clip;
use common::{assert_close, base64, image, list, load, numbers, plain, reference, vector};
use plugin_sdk::serde_json::{Value as Json, json};
use plugin_sdk::testing::{FailureKind, Harness};

const FOLDERS: [&str; 2] = ["new", "old"];

fn question(name: &str, reference: &Json) -> Json {
    let image = format!("data:image/png;base64,{}", base64(name));
    json!({"image": image, "labels": reference["labels"], "template": reference["template"]})
}

/// Asserts that an output has these probabilities, which are in the order of `labels`, most probable first.
fn assert_classified(answer: &Json, labels: &Json, probabilities: &Json, what: &str) {
    let mut expected: Vec<_> = list(labels).iter().zip(numbers(probabilities)).collect();
    expected.sort_by(|(_, one), (_, other)| other.total_cmp(one));
    let scores = list(&answer["scores"]);
    let order: Vec<_> = scores.iter().map(|score| &score["label"]).collect();
    let expected_order: Vec<_> = expected.iter().map(|(label, _)| *label).collect();
    assert_eq!(order, expected_order, "{what}");
    let got: Vec<_> = scores
        .iter()
        .filter_map(|score| score["score"].as_f64())
        .collect();
    let expected_order: Vec<_> = expected.iter().map(|(_, score)| *score).collect();
    assert_close(&got, &expected_order, what);
    assert_eq!(
        (&answer["label"], &answer["score"]),
        (&scores[0]["label"], &scores[0]["score"])
    );
}

#[test]
fn text_vectors_match_transformers_alone_and_in_a_batch() {
    let reference = reference();
    let texts = list(&reference["texts"]);
    for folder in FOLDERS {
        let (model, expected) = (plain(folder), &reference["expected"][folder]);
        let together = model.predict("text", texts);
        for (index, text) in texts.iter().enumerate() {
            let what = format!("{folder}: {text}");
            assert_close(
                &vector(&together[index]),
                &numbers(&expected["text"][index]),
                &what,
            );
            let alone = model.predict("text", std::slice::from_ref(text));
            assert_close(&vector(&alone[0]), &numbers(&expected["text"][index]), &what);
            let cost = model.prepare("text", text).expect("every text is accepted");
            assert_eq!(
                cost.weight as usize,
                list(&expected["ids"][index]).len(),
                "{what}"
            );
        }
    }
}

#[test]
fn image_vectors_match_transformers_alone_and_in_a_batch() {
    let reference = reference();
    let names: Vec<_> = list(&reference["exact"])
        .iter()
        .filter_map(Json::as_str)
        .collect();
    let images: Vec<_> = names.iter().map(|name| image(name)).collect();
    for (folder, tokens) in [("new", 17), ("old", 17)] {
        let (model, expected) = (plain(folder), &reference["expected"][folder]["image"]);
        let together = model.predict("image", &images);
        for ((name, item), together) in names.iter().zip(&images).zip(&together) {
            let what = format!("{folder}: {name}");
            assert_close(&vector(together), &numbers(&expected[name]), &what);
            let alone = model.predict("image", std::slice::from_ref(item));
            assert_close(&vector(&alone[0]), &numbers(&expected[name]), &what);
            let cost = model.prepare("image", item).expect("every image is accepted");
            assert_eq!(cost.weight, tokens, "{what}");
        }
    }
}

#[test]
fn label_probabilities_match_transformers_alone_and_in_a_batch() {
    let reference = reference();
    let names: Vec<_> = list(&reference["exact"])
        .iter()
        .filter_map(Json::as_str)
        .collect();
    let questions: Vec<_> = names.iter().map(|name| question(name, &reference)).collect();
    for folder in FOLDERS {
        let model = load(json!({"folder": folder})).expect("the model loads");
        let expected = &reference["expected"][folder]["probabilities"];
        // All labels are new for the first image, and cached after that.
        for (name, item) in names.iter().zip(&questions) {
            let answer = model
                .predict("classify", std::slice::from_ref(item))
                .remove(0)
                .expect("computed");
            assert_classified(
                &answer,
                &reference["labels"],
                &expected[name],
                &format!("{folder}: {name}"),
            );
        }
        for (name, answer) in names.iter().zip(model.predict("classify", &questions)) {
            let answer = answer.expect("computed");
            assert_classified(
                &answer,
                &reference["labels"],
                &expected[name],
                &format!("{folder}: {name}"),
            );
        }
    }
}

#[test]
fn items_of_a_batch_can_have_different_labels() {
    let model = load(json!({"folder": "new", "cached_labels": 1})).expect("the model loads");
    let items = [
        json!({"image": image("large.png"), "labels": ["a", "b", "c"]}),
        json!({"image": image("one_wide.png"), "labels": ["c"]}),
        json!({"image": image("rgba.png"), "labels": ["d", "a"], "template": "{}"}),
    ];
    let alone: Vec<_> = items
        .iter()
        .map(|item| {
            model
                .predict("classify", std::slice::from_ref(item))
                .remove(0)
                .expect("computed")
        })
        .collect();
    assert_eq!(alone[1]["score"], json!(1.0));
    for (together, alone) in model.predict("classify", &items).into_iter().zip(alone) {
        let together = together.expect("computed");
        let scores = |answer: &Json| {
            list(&answer["scores"])
                .iter()
                .filter_map(|score| score["score"].as_f64())
                .collect::<Vec<_>>()
        };
        assert_close(&scores(&together), &scores(&alone), "in a batch and alone");
        assert_eq!(together["label"], alone["label"]);
    }
}

#[test]
fn cached_labels_have_no_weight() {
    let (model, reference) = (plain("new"), reference());
    let question = question("tiny.png", &reference);
    let weight = |model: &Harness<Clip>| model.prepare("classify", &question).expect("accepted").weight;
    assert!(
        weight(&model) > 17 + 4 * 3,
        "each label has at least a start token, a word and an end token"
    );
    model
        .predict("classify", std::slice::from_ref(&question))
        .remove(0)
        .expect("computed");
    assert_eq!(weight(&model), 17);
}

#[test]
fn vectors_have_length_1_by_default() {
    let model = load(json!({"folder": "new"})).expect("the model loads");
    let raw = plain("new");
    model.check_examples();
    raw.check_examples();
    for (task, item) in [("text", json!("a cat")), ("image", image("rgba.png"))] {
        let scaled = vector(&model.predict(task, std::slice::from_ref(&item))[0]);
        let raw = vector(&raw.predict(task, &[item])[0]);
        let length = raw.iter().map(|value| value * value).sum::<f64>().sqrt();
        assert!(
            (length - 1.0).abs() > 0.1,
            "{task}: expected an unscaled vector, got length {length}"
        );
        let expected: Vec<_> = raw.iter().map(|value| value / length).collect();
        assert_close(&scaled, &expected, task);
    }
}

#[test]
fn the_template_of_the_settings_is_the_default_for_requests() {
    let reference = reference();
    let settings = json!({"folder": "new", "template": reference["template"]});
    let model = load(settings).expect("the model loads");
    let mut question = question("rgba.png", &reference);
    question["template"] = Json::Null;
    let answer = model
        .predict("classify", &[question])
        .remove(0)
        .expect("computed");
    let expected = &reference["expected"]["new"]["probabilities"]["rgba.png"];
    assert_classified(&answer, &reference["labels"], expected, "the template");
}

#[test]
fn long_texts_are_truncated_or_rejected_depending_on_the_settings() {
    let text = json!("word ".repeat(100));
    assert_eq!(plain("new").prepare("text", &text).expect("truncated").weight, 20);
    let strict = load(json!({"folder": "new", "truncate": false})).expect("the model loads");
    let failure = strict.prepare("text", &text).expect_err("too long");
    assert_eq!(failure.kind, FailureKind::InvalidInput);
    assert!(
        failure.message.ends_with("tokens, expected at most 20"),
        "{}",
        failure.message
    );
}

#[test]
fn images_that_cannot_be_decoded_are_client_errors() {
    let model = load(json!({"folder": "new", "max_pixels": 200_000})).expect("the model loads");
    for (name, problem) in [
        ("animated.png", "image is animated, expected a still image"),
        ("animated.webp", "image is animated, expected a still image"),
        (
            "animated.gif",
            "image is in an unknown format, expected PNG, JPEG or WebP",
        ),
        ("cut.png", "cannot decode the image: the file is truncated: "),
        ("cut.jpg", "cannot decode the image: the file is truncated: "),
        ("cut.webp", "cannot decode the image: the file is truncated: "),
        (
            "bomb.png",
            "image has 65535×65535 = 4294836225 pixels, expected at most 200000",
        ),
        (
            "bomb.webp",
            "cannot decode the image: the file is corrupt: its header declares 10×10 pixels, but its image data has 16383×16383",
        ),
        (
            "large.png",
            "image has 640×480 = 307200 pixels, expected at most 200000",
        ),
    ] {
        let question = json!({"image": image(name), "labels": ["a"]});
        for (task, item) in [("image", image(name)), ("classify", question)] {
            let failure = model.prepare(task, &item).expect_err(name);
            assert_eq!(failure.kind, FailureKind::InvalidInput, "{name}");
            assert!(
                failure.message.starts_with(problem),
                "{name}: {}",
                failure.message
            );
        }
    }
}

#[test]
fn a_truncated_jpeg_is_decoded_if_the_settings_accept_it() {
    let mut jpeg = Cursor::new(Vec::new());
    image::RgbImage::from_fn(64, 64, |x, y| image::Rgb([x as u8 * 4, y as u8 * 4, 99]))
        .write_to(&mut jpeg, image::ImageFormat::Jpeg)
        .expect("encode a JPEG");
    let half = &jpeg.get_ref()[..jpeg.get_ref().len() / 2 + 300];
    let item = json!({"b64": BASE64_STANDARD.encode(half), "media_type": "image/jpg"});
    let model =
        |truncated| load(json!({"folder": "new", "truncated_images": truncated})).expect("the model loads");
    let failure = model("reject").prepare("image", &item).expect_err("truncated");
    assert_eq!(failure.kind, FailureKind::InvalidInput);
    model("accept").prepare("image", &item).expect("accepted");
}

#[test]
fn invalid_questions_are_client_errors() {
    let model = load(json!({"folder": "new", "max_labels": 2})).expect("the model loads");
    let picture = image("tiny.png");
    for (question, problem) in [
        (
            json!({"image": picture, "labels": []}),
            "`labels` is empty, expected at least one",
        ),
        (
            json!({"image": picture, "labels": ["a", "b", "c"]}),
            "`labels` has 3 texts, expected at most 2",
        ),
        (
            json!({"image": picture, "labels": ["a", "a"]}),
            "`labels` has `a` more than once",
        ),
        (
            json!({"image": picture, "labels": ["a"], "template": "a photo"}),
            "`template`: `a photo` has `{}` 0 times",
        ),
        (
            json!({"image": "AAEC", "labels": ["a"]}),
            "`image`: expected a data URI",
        ),
        (
            json!({"image": {"b64": "*"}, "labels": ["a"]}),
            "`image`: invalid base64",
        ),
        (json!({"labels": ["a"]}), "missing field `image`"),
        (
            json!({"image": picture, "label": ["a"]}),
            "`label`: unknown field `label`",
        ),
    ] {
        let failure = model
            .prepare("classify", &question)
            .expect_err("an invalid question");
        assert_eq!(failure.kind, FailureKind::InvalidInput);
        assert!(failure.message.starts_with(problem), "{}", failure.message);
    }
}
