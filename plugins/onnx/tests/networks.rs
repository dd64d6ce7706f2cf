//! Small networks of many kinds (`models/make.py` writes them), served with and without further settings.

#[allow(dead_code, reason = "every test file uses a part of it")]
mod common;

use std::io::Cursor;

use common::graph::{Graph, int};
use common::{bytes_item, load, onnx_runtime};
use onnx::Onnx;
use plugin_sdk::serde_json::json;
use plugin_sdk::testing::{FailureKind, Harness};
use rten_onnx::onnx::{DataType, ValueInfoProto};

const MODELS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/models");

/// Loads a network with further settings.
fn network(name: &str, settings: &str) -> Harness<Onnx> {
    load(&format!("model = \"{name}.onnx\"\n{settings}"), MODELS).expect("the network loads")
}

fn warnings(model: &Harness<Onnx>) -> usize {
    model
        .logs()
        .iter()
        .filter(|line| line.message.contains("one by one"))
        .count()
}

#[test]
fn a_network_without_settings_has_one_task_of_all_its_tensors() {
    let tokens = network("tokens", "");
    let task = &tokens.manifest().tasks[0];
    let tensors = |tensors: &[plugin_sdk::manifest::TensorManifest]| {
        let shown = tensors
            .iter()
            .map(|tensor| format!("{} {} {:?}", tensor.name, tensor.dtype, tensor.shape));
        shown.collect::<Vec<_>>().join(", ")
    };
    assert_eq!((&*task.name, tokens.manifest().tasks.len()), ("predict", 1));
    assert_eq!(tensors(&task.input.tensors), "ids INT32 [-1], mask INT32 [-1]");
    assert_eq!(tensors(&task.output.tensors), "sum INT32 [], kept INT32 [-1]");
    tokens.check_examples();
    let item = json!({"ids": [5, 6, 7], "mask": [1, 1, 0]});
    assert_eq!(
        tokens.predict("predict", &[item]),
        [Ok(json!({"sum": 11, "kept": [5, 6, 0]}))]
    );
}

#[test]
fn items_of_different_shapes_are_grouped_and_weighed_by_their_open_dimensions() {
    let tokens = network("tokens", "");
    let cost = |length: usize| {
        let item = json!({"ids": vec![1; length], "mask": vec![1; length]});
        tokens.prepare("predict", &item).expect("a good item")
    };
    assert_eq!((cost(3).weight, cost(5).weight), (3, 5));
    assert_eq!(cost(3).group, cost(3).group);
    assert_ne!(cost(3).group, cost(5).group);
}

#[test]
fn a_batch_of_mixed_shapes_is_computed_item_by_item() {
    let tokens = network("tokens", "tasks.sum.outputs = [\"sum\"]");
    let items = [3, 5, 2].map(|length| json!({"ids": vec![1; length], "mask": vec![1; length]}));
    let sums: Vec<_> = tokens
        .predict("sum", &items)
        .into_iter()
        .map(|sum| sum.expect("computed")["sum"].clone())
        .collect();
    assert_eq!(sums, [json!(3), json!(5), json!(2)]);
}

#[test]
fn every_datatype_comes_back_as_it_went_in() {
    let dtypes = network("dtypes", "");
    dtypes.check_examples();
    let item = json!({
        "float": [0.5, -1.5], "int64": [-7, 2_147_483_647], "int32": [-7, 7],
        "int8": [-128, 127], "uint8": [0, 255], "bool": [true, false],
    });
    let answer = dtypes.predict("predict", &[item.clone(), item.clone()]);
    for answer in answer {
        let answer = answer.expect("computed");
        for (name, values) in item.as_object().expect("an object") {
            assert_eq!(answer[format!("{name}_out")], *values, "{name}");
        }
    }
    for (given, tensor) in dtypes.manifest().tasks[0]
        .input
        .tensors
        .iter()
        .zip(&dtypes.manifest().tasks[0].output.tensors)
    {
        assert_eq!(given.dtype, tensor.dtype);
    }
}

#[test]
fn half_precision_is_served_as_single() {
    let half = network("half", "");
    assert_eq!(half.manifest().tasks[0].input.tensors[0].dtype, "FP32");
    // The runtime computes with 32 bits, but the model has 16.
    let answers = half.predict("predict", &[json!([1.0, 2.0]), json!([1.0001, 1e-9])]);
    assert_eq!(
        answers,
        [Ok(json!({"y": [1.0, 2.0]})), Ok(json!({"y": [1.0, 0.0]}))]
    );
}

#[test]
fn an_output_without_a_declared_type_has_the_type_that_the_graph_computes() {
    let untyped = |output: &mut ValueInfoProto| output.r#type = None;
    let without_elements = |output: &mut ValueInfoProto| {
        let kind = output.r#type.as_mut().and_then(|kind| kind.tensor_type.as_mut());
        kind.expect("a tensor").elem_type = None;
    };
    let runtimes = || {
        ["runtime = \"rten\"".to_owned()]
            .into_iter()
            .chain(onnx_runtime())
    };
    for (undeclare, in_all_runtimes) in [
        (untyped as fn(&mut ValueInfoProto), true),
        // ONNX Runtime does not load a file with a tensor type without the type of its elements.
        (without_elements, false),
    ] {
        let to_integers = int("to", DataType::INT64.0.into());
        let mut model = Graph::one(17, DataType::FLOAT, &[-1, 2], "Cast", &[to_integers]).model();
        undeclare(&mut model.graph.as_mut().expect("a graph").output[0]);
        let directory = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"));
        let file = format!("untyped-{}.onnx", std::process::id());
        std::fs::write(directory.join(&file), model.write_buf().expect("a model")).expect("a file");
        for runtime in runtimes().take(if in_all_runtimes { 2 } else { 1 }) {
            let model = load(&format!("model = \"{file}\"\n{runtime}"), directory);
            let model = model.unwrap_or_else(|failure| panic!("{runtime}: {failure}"));
            assert_eq!(
                model.manifest().tasks[0].output.tensors[0].dtype,
                "INT64",
                "{runtime}"
            );
            assert_eq!(
                model.predict("predict", &[json!([1.5, -2.5])]),
                [Ok(json!({"y": [1, -2]}))],
                "{runtime}"
            );
        }
    }
}

#[test]
fn integers_beyond_the_runtime_are_rejected_and_not_truncated() {
    let lookup = network("lookup", "runtime = \"rten\"");
    let outcomes = lookup.predict("predict", &[json!(2), json!(4_294_967_296_i64)]);
    assert_eq!(outcomes[0], Ok(json!({"row": [4.0, 5.0]})));
    let failure = outcomes[1].as_ref().expect_err("too large");
    assert_eq!(failure.kind, FailureKind::InvalidInput);
    assert_eq!(
        failure.message,
        "the model cannot compute this item: tensor `index`: 4294967296 at index 0 exceeds 32 bits, the width in which the embedded \
         runtime computes; set `runtime = \"ort\"`"
    );
}

#[test]
fn an_item_that_the_graph_cannot_compute_fails_alone() {
    let lookup = network("lookup", "");
    let outcomes = lookup.predict("predict", &[json!(2), json!(99), json!(0)]);
    assert_eq!(outcomes[0], Ok(json!({"row": [4.0, 5.0]})));
    assert_eq!(outcomes[2], Ok(json!({"row": [0.0, 1.0]})));
    let failure = outcomes[1].as_ref().expect_err("there is no such row");
    assert_eq!(failure.kind, FailureKind::InvalidInput);
    assert!(
        failure
            .message
            .starts_with("the model cannot compute this item: "),
        "{failure}"
    );
}

#[test]
fn a_batch_fixed_to_one_runs_item_by_item_and_says_so() {
    for (name, task) in [("one", [2.0, 4.0]), ("secretly_one", [1.0, 2.0])] {
        let model = network(name, "");
        assert_eq!(model.manifest().tasks[0].limits.max_batch_size, Some(1), "{name}");
        assert_eq!(warnings(&model), 1, "{name}");
        let outcomes = model.predict("predict", &[json!([1.0, 2.0]), json!([1.0, 2.0])]);
        assert_eq!(
            outcomes,
            [Ok(json!({"y": task})), Ok(json!({"y": task}))],
            "{name}"
        );
    }
}

#[test]
fn logits_become_probabilities_of_the_labels() {
    let settings =
        "[tasks.color]\nlabels = [\"red\", \"green\", \"blue\"]\nactivation = \"softmax\"\ntop_k = 2";
    let colors = network("channels", settings);
    let item = json!({"image": [[[0.0]], [[2.0]], [[1.0]]]});
    let answer = colors.predict("color", &[item]).remove(0).expect("computed");
    let sum: f64 = 1.0 + 1_f64.exp() + 2_f64.exp();
    assert_eq!(answer["label"], "green");
    assert!((answer["score"].as_f64().expect("a number") - 2_f64.exp() / sum).abs() < 1e-6);
    let labels: Vec<_> = answer["scores"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|score| &score["label"])
        .collect();
    assert_eq!(labels, ["green", "blue"]);
}

#[test]
fn a_color_image_becomes_planes_scaled_by_mean_and_deviation() {
    let settings = "[tasks.sums]\nimage = { width = 2, height = 2, mean = [0.5, 0, 0], std = [0.5, 1, 0.5] }";
    let channels = network("channels", settings);
    channels.check_examples();
    // The left half is red, the right half white.
    let picture = image::RgbImage::from_fn(20, 10, |x, _| {
        image::Rgb(if x < 10 { [255, 0, 0] } else { [255; 3] })
    });
    // Red: (1 - 0.5) / 0.5 for each of four pixels. Green: 1 for the two white pixels. Blue: the same, divided by 0.5.
    assert_sums(&channels, picture, [4.0, 2.0, 4.0]);
}

/// Asserts the sum of each channel of an image, as the task `sums` computes them.
#[track_caller]
fn assert_sums(channels: &Harness<Onnx>, picture: image::RgbImage, expected: [f64; 3]) {
    let item = bytes_item(&encoded(picture, image::ImageFormat::Png), "image/png");
    let answer = channels.predict("sums", &[item]).remove(0).expect("computed");
    let sums = common::numbers(&answer["logits"]);
    common::assert_close(&sums, &expected, 1e-4, "sums of the channels");
}

fn encoded(picture: impl Into<image::DynamicImage>, format: image::ImageFormat) -> Vec<u8> {
    let mut file = Cursor::new(Vec::new());
    let written = picture.into().write_to(&mut file, format);
    written.expect("an image can be written");
    file.into_inner()
}

#[test]
fn channels_in_the_order_blue_green_red_are_scaled_in_that_order() {
    let settings = "[tasks.sums]\nimage = { width = 2, height = 2, channels = \"bgr\", mean = [0.5, 0, 0] }";
    let channels = network("channels", settings);
    let picture = image::RgbImage::from_pixel(4, 4, image::Rgb([255, 0, 51]));
    // Four pixels, each with blue 0.2 - 0.5, green 0 and red 1.
    assert_sums(&channels, picture, [-1.2, 0.0, 4.0]);
}

#[test]
fn a_truncated_jpeg_is_rejected_unless_the_settings_accept_it() {
    let picture = image::RgbImage::from_fn(64, 64, |x, y| image::Rgb([x as u8 * 4, y as u8 * 4, 99]));
    let jpeg = encoded(picture, image::ImageFormat::Jpeg);
    let half = &jpeg[..jpeg.len() / 2 + 300];
    let item = |data| bytes_item(data, "image/jpg");
    let image = "[tasks.sums]\nimage = { width = 2, height = 2";
    let strict = network("channels", &format!("{image} }}"));
    strict.prepare("sums", &item(&jpeg)).expect("it is valid");
    let failure = strict.prepare("sums", &item(half)).expect_err("it is truncated");
    assert_eq!(failure.kind, FailureKind::InvalidInput);
    assert_eq!(
        failure.message,
        "cannot decode the image: the file is truncated: it ends within the image data"
    );
    let lenient = network("channels", &format!("{image}, truncated_images = \"accept\" }}"));
    lenient.prepare("sums", &item(half)).expect("it is accepted");
}

#[test]
fn an_image_that_is_too_large_is_rejected_before_it_is_decoded() {
    let channels = network(
        "channels",
        "[tasks.sums]\nimage = { width = 2, height = 2, max_pixels = 99 }",
    );
    let png = encoded(image::GrayImage::new(10, 10), image::ImageFormat::Png);
    // Little more than the header is sent, because the pixels are never read.
    let failure = channels
        .prepare("sums", &bytes_item(&png[..45], "image/png"))
        .expect_err("too large");
    assert!(
        failure
            .message
            .contains("10×10 = 100 pixels, expected at most 99"),
        "{failure}"
    );
}

#[test]
fn a_file_may_have_any_name() {
    let directory = std::env::temp_dir().join(format!("onnx-names-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a directory for the test's files");
    for name in ["model", "model.bin"] {
        std::fs::copy(format!("{MODELS}/one.onnx"), directory.join(name)).expect("it can be copied");
        let model = load(&format!("model = \"{name}\"\nruntime = \"rten\""), &directory);
        let model = model.unwrap_or_else(|failure| panic!("{name}: {failure}"));
        assert_eq!(
            model.predict("predict", &[json!([1.0, 2.0])]),
            [Ok(json!({"y": [2.0, 4.0]}))]
        );
    }
    std::fs::remove_dir_all(directory).expect("it can be removed");
}
