//! How items are combined into runs of a model: in batches, one by one, or as whole requests, depending on what the file declares
//! and on a trial at load.

#[allow(dead_code, reason = "every test file uses a part of it")]
mod common;

use common::graph::{Graph, floats, int, ints, node, value};
use common::{load, onnx_runtime};
use onnx::Onnx;
use plugin_sdk::manifest::{TaskManifest, Trial};
use plugin_sdk::serde_json::{Value as Json, json};
use plugin_sdk::testing::{Failure, Harness};
use rten_onnx::onnx::{AttributeProto, DataType};

const MODELS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/models");

/// Loads a model in ONNX Runtime, which supports all models of these tests. `None` if it is not installed.
fn served(name: &str, settings: &str) -> Option<Harness<Onnx>> {
    let settings = format!("model = \"{name}.onnx\"\n{}\n{settings}", onnx_runtime()?);
    Some(load(&settings, MODELS).unwrap_or_else(|failure| panic!("{name}: {failure}")))
}

fn task(model: &Harness<Onnx>) -> &TaskManifest {
    &model.manifest().tasks[0]
}

/// The batch mode of the only task, according to the manifest.
fn mode(model: &Harness<Onnx>) -> &'static str {
    match (task(model).unbatched, task(model).limits.max_batch_size) {
        (true, Some(1)) => "unbatched",
        (false, Some(1)) => "item by item",
        (false, None) => "batched",
        other => panic!("no mode has {other:?}"),
    }
}

fn warnings(model: &Harness<Onnx>) -> Vec<String> {
    let lines = model.logs().into_iter();
    let warnings = lines.filter(|line| line.level == plugin_sdk::log::Level::Warn);
    warnings.map(|line| line.message).collect()
}

fn predict(model: &Harness<Onnx>, items: &[Json]) -> Vec<Json> {
    let outcomes = model.predict("predict", items).into_iter();
    outcomes
        .map(|outcome| outcome.unwrap_or_else(|failure| panic!("an item failed: {failure}")))
        .collect()
}

#[test]
fn items_that_would_affect_each_other_run_one_by_one_with_a_warning() {
    for (name, item, answer) in [
        ("less_their_mean", json!([1.0, 2.0, 3.0]), json!([0.0, 0.0, 0.0])),
        ("scaled_together", json!([0.0, 255.0]), json!([0.0, 255.0])),
    ] {
        let Some(model) = served(name, "") else { return };
        assert_eq!(mode(&model), "item by item", "{name}");
        let said = warnings(&model);
        assert!(
            said.iter()
                .any(|line| line.contains("output `y` depends on the other items of a batch")),
            "{name}: {said:?}"
        );
        // In a batch, the second item would change the answer for the first.
        let far = json!([2550.0, -9.0, 1.0].map(f64::from)[..item.as_array().expect("a list").len()]);
        assert_eq!(predict(&model, &[item, far])[0], json!({"y": answer}), "{name}");
    }
}

#[test]
fn items_that_made_up_ones_do_not_show_to_affect_each_other_run_one_by_one() {
    let runtimes = ["runtime = \"rten\"".to_owned()]
        .into_iter()
        .chain(onnx_runtime());
    for runtime in runtimes {
        let settings = format!("model = \"less_their_excess.onnx\"\n{runtime}");
        let model = load(&settings, MODELS).unwrap_or_else(|failure| panic!("{runtime}: {failure}"));
        assert_eq!(mode(&model), "item by item", "{runtime}");
        let said = warnings(&model);
        let reason = "ReduceMax node that computes `most` takes the maximum over the batch dimension";
        assert!(said.iter().any(|line| line.contains(reason)), "{said:?}");
        let answers = predict(&model, &[json!([1.0, 2.0, 3.0]), json!([2000.0, 0.0, 0.0])]);
        assert_eq!(answers[0], json!({"y": [1.0, 2.0, 3.0]}), "{runtime}");

        let forced = load(&format!("{settings}\nbatch = \"force\""), MODELS);
        let forced = forced.unwrap_or_else(|failure| panic!("{runtime}: {failure}"));
        assert_eq!(mode(&forced), "batched", "{runtime}");
        assert!(warnings(&forced)[0].contains("but `batch` is \"force\""));
    }
}

#[test]
fn a_forced_batch_is_computed_together() {
    let Some(model) = served("less_their_mean", "batch = \"force\"") else {
        return;
    };
    assert_eq!(mode(&model), "batched");
    assert!(
        warnings(&model)[0].contains("`batch` is \"force\""),
        "{:?}",
        warnings(&model)
    );
    let answers = predict(&model, &[json!([1.0, 2.0, 3.0]), json!([3.0, 4.0, 5.0])]);
    assert_eq!(answers[0], json!({"y": [-1.0, -1.0, -1.0]}));
}

#[test]
fn a_model_without_a_batch_takes_whole_requests() {
    let rows = json!([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [7.0, 8.0]]);
    let doubled = json!([[2.0, 4.0], [6.0, 8.0], [10.0, 12.0], [14.0, 16.0]]);
    for (name, item, answer) in [
        ("scalar", json!({"x": 1.5}), json!({"y": 3.0})),
        ("four", json!({"x": rows}), json!({"y": doubled})),
        (
            "anchors",
            json!({"x": [[1.0, 2.0]]}),
            json!({"y": [[2.0, 4.0]], "anchors": [1.0, 2.0, 3.0]}),
        ),
        (
            "state",
            json!({"x": [[1.0, 2.0]], "state": [[[0.0, 0.0, 0.0]], [[2.0, 2.0, 2.0]]], "rate": 2.0}),
            json!({"y": [[7.0, 7.0, 7.0]], "next": [[[6.0, 6.0, 6.0]], [[8.0, 8.0, 8.0]]]}),
        ),
        (
            "places",
            json!({"x": [[0.0, 1.0, 1.0]]}),
            json!({"y": [[0, 1], [0, 2]]}),
        ),
        (
            "running_sum",
            json!({"x": [[1.0, 2.0], [3.0, 4.0]]}),
            json!({"y": [[1.0, 2.0], [4.0, 6.0]]}),
        ),
        (
            "steps",
            json!({"x": [[vec![1.0; 9], vec![2.0; 9]]]}),
            json!({"y": [[[1.0, 2.0]], [[1.0, 2.0]]]}),
        ),
        (
            "pairs",
            json!({"images": [[1.0, 2.0]], "texts": [[1.0, 0.0], [0.0, 1.0]]}),
            json!({"y": [[1.0, 2.0]]}),
        ),
    ] {
        let Some(model) = served(name, "") else { return };
        assert_eq!(
            (mode(&model), &task(&model).trial),
            ("unbatched", &Some(Trial::Succeeded)),
            "{name}"
        );
        assert_eq!(predict(&model, &[item]), [answer], "{name}");
    }
}

#[test]
fn an_unbatched_task_declares_the_shapes_of_the_file() {
    let Some(model) = served("state", "") else { return };
    let tensors = task(&model)
        .input
        .tensors
        .iter()
        .chain(&task(&model).output.tensors);
    let shapes: Vec<_> = tensors
        .map(|tensor| (&*tensor.name, tensor.shape.clone()))
        .collect();
    assert_eq!(
        shapes,
        [
            ("x", vec![-1, -1]),
            ("state", vec![2, -1, 3]),
            ("rate", vec![]),
            ("y", vec![-1, 3]),
            ("next", vec![2, -1, 3]),
        ]
    );
}

#[test]
fn a_setting_makes_any_model_unbatched() {
    for settings in ["batch = \"none\"", "[tasks.predict]\nbatch = \"none\""] {
        let Some(model) = served("less_their_mean", settings) else {
            return;
        };
        assert_eq!(mode(&model), "unbatched", "{settings}");
        let answer = predict(&model, &[json!({"x": [[1.0, 2.0, 3.0], [3.0, 4.0, 5.0]]})]);
        assert_eq!(
            answer,
            [json!({"y": [[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]]})],
            "{settings}"
        );
    }
}

#[test]
fn dimensions_of_size_0_and_sums_of_dimensions_are_served() {
    let Some(model) = served("cache", "") else { return };
    assert_eq!(
        (mode(&model), &task(&model).trial),
        ("batched", &Some(Trial::Succeeded))
    );
    let first = json!({"past": [], "x": [[1.0, 2.0]], "mask": [[1.0]]});
    let second = json!({"past": [[1.0, 2.0]], "x": [[3.0, 4.0]], "mask": [[1.0], [0.5]]});
    assert_eq!(
        predict(&model, &[first, second]),
        [
            json!({"y": [1.0, 2.0], "present": [[1.0, 2.0]]}),
            json!({"y": [2.5, 4.0], "present": [[1.0, 2.0], [3.0, 4.0]]}),
        ]
    );
}

#[test]
fn equal_placeholders_are_different_dimensions() {
    let Some(model) = served("placeholders", "") else {
        return;
    };
    assert_eq!(mode(&model), "batched");
    let item = json!({"x": [[[1.0, 2.0, 3.0]], [[4.0, 5.0, 6.0]]]});
    assert_eq!(predict(&model, &[item]), [json!({"y": [6.0, 15.0]})]);
}

#[test]
fn a_dimension_of_one_name_may_have_several_sizes_if_the_model_computes_them() {
    let Some(model) = served("tokens", "") else { return };
    // ONNX broadcasts the mask.
    let answer = predict(&model, &[json!({"ids": [5, 6], "mask": [1]})]);
    assert_eq!(answer, [json!({"sum": 11, "kept": [5, 6]})]);
    let failure = model
        .predict("predict", &[json!({"ids": [5, 6], "mask": [1, 1, 1]})])
        .remove(0);
    assert!(
        failure
            .expect_err("no such broadcast")
            .message
            .contains("cannot compute this item")
    );
}

#[test]
fn a_model_whose_trial_fails_is_ready_and_says_so() {
    let Some(model) = served("thirty_seven", "") else {
        return;
    };
    assert!(
        matches!(&task(&model).trial, Some(Trial::Failed { .. })),
        "{:?}",
        task(&model).trial
    );
    // The graph alone shows that the items are independent.
    assert_eq!((mode(&model), task(&model).examples.len()), ("batched", 0));
    assert!(
        warnings(&model)
            .iter()
            .any(|line| line.contains("the trial failed")),
        "{:?}",
        warnings(&model)
    );
    assert_eq!(
        predict(&model, &[json!({"x": vec![1.0; 37]})]),
        [json!({"y": [37.0]})]
    );
}

#[test]
fn examples_of_the_settings_are_what_the_trial_runs() {
    let example = format!("[tasks.predict]\nexamples = [{{ x = {:?} }}]", vec![1.0; 37]);
    let Some(model) = served("thirty_seven", &example) else {
        return;
    };
    assert_eq!(
        (mode(&model), &task(&model).trial),
        ("batched", &Some(Trial::Succeeded))
    );
}

#[test]
fn weights_among_the_inputs_and_dropout_are_of_no_concern_to_clients() {
    let Some(model) = served("left_over", "") else {
        return;
    };
    assert_eq!(task(&model).input.tensors.len(), 1);
    assert_eq!(predict(&model, &[json!([1.0, 2.0])]), [json!({"y": [2.0, 3.0]})]);
}

#[test]
fn a_sequence_is_served_as_numbered_tensors() {
    let Some(model) = served("sequence", "") else {
        return;
    };
    assert_eq!(
        (mode(&model), &task(&model).trial),
        ("unbatched", &Some(Trial::Succeeded))
    );
    let x = json!([[5.0, 6.0]]);
    for (item, answer) in [
        (json!({"x": x}), json!({"longer.0": x})),
        (
            json!({"list.0": [[1.0, 2.0]], "list.1": [[3.0, 4.0], [0.0, 0.0]], "x": x}),
            json!({"longer.0": [[1.0, 2.0]], "longer.1": [[3.0, 4.0], [0.0, 0.0]], "longer.2": x}),
        ),
    ] {
        assert_eq!(predict(&model, &[item]), [answer]);
    }
}

#[test]
fn a_model_without_inputs_and_one_of_any_shape_are_served() {
    let any = json!([[[1.0], [2.0]]]);
    for (name, item, answer) in [
        ("no_inputs", json!({}), json!({"y": [1.0, 2.0]})),
        ("any_shape", json!({"x": 1.5}), json!({"y": -1.5})),
        ("any_shape", json!({"x": any}), json!({"y": [[[-1.0], [-2.0]]]})),
        (
            "passed_through",
            json!({"x": [1.0, 2.0]}),
            json!({"y": [-1.0, -2.0], "x": [1.0, 2.0]}),
        ),
    ] {
        let Some(model) = served(name, "") else {
            return;
        };
        assert_eq!(task(&model).trial, Some(Trial::Succeeded), "{name}");
        assert_eq!(predict(&model, &[item]), [answer], "{name}");
    }
}

#[test]
fn maps_become_the_values_and_their_keys() {
    let Some(model) = served("maps", "") else {
        return;
    };
    assert_eq!(mode(&model), "batched");
    let answers = predict(&model, &[json!([0.25, 0.75]), json!([1.0, 0.0])]);
    assert_eq!(
        answers,
        [
            json!({"scores": [0.75, 0.25], "scores.keys": ["fig", "pear"]}),
            json!({"scores": [0.0, 1.0], "scores.keys": ["fig", "pear"]}),
        ]
    );
}

/// Loads a graph as a model in ONNX Runtime. `None` if it is not installed.
fn served_graph(name: &str, graph: Graph) -> Option<Result<Harness<Onnx>, Failure>> {
    let runtime = onnx_runtime()?;
    let directory = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"));
    let file = format!("{name}-{}.onnx", std::process::id());
    std::fs::write(directory.join(&file), graph.model().write_buf().expect("a model")).expect("a file");
    Some(load(&format!("model = \"{file}\"\n{runtime}"), directory))
}

#[test]
fn elements_that_depend_on_one_another_are_no_items_if_the_result_names_another_dimension() {
    let mut graph = Graph::one(17, DataType::FLOAT, &[-1], "Unique", &[]);
    graph.output_dims = Some(vec![-1]);
    let Some(model) = served_graph("unique", graph) else {
        return;
    };
    let model = model.expect("a model");
    let item = json!({"x": [3.0, 1.0, 3.0, 2.0]});
    assert_eq!(predict(&model, &[item]), [json!({"y": [1.0, 2.0, 3.0]})]);
}

#[test]
fn a_whole_request_is_an_item_if_the_result_has_one_row_whatever_the_number_of_rows() {
    let mut graph = Graph::one(17, DataType::FLOAT, &[-1, 2], "ReduceMax", &[ints("axes", &[0])]);
    graph.output_dims = Some(vec![1, 2]);
    let Some(model) = served_graph("one-row", graph) else {
        return;
    };
    let model = model.expect("a model");
    let item = json!({"x": [[3.0, 1.0], [2.0, 5.0]]});
    assert_eq!(predict(&model, &[item]), [json!({"y": [[3.0, 5.0]]})]);
}

#[test]
fn rows_that_the_trial_has_not_seen_are_not_taken_off_the_result() {
    // The result has one row for an item alone, but not for several: its first dimension is not the batch dimension.
    let graph = Graph {
        nodes: vec![
            node("Transpose", &["x"], "turned", &[]),
            node("Neg", &["turned"], "y", &[]),
        ],
        ..Graph::one(17, DataType::FLOAT, &[-1, 1], "Identity", &[])
    };
    let Some(model) = served_graph("turned", graph) else {
        return;
    };
    let model = model.expect("a model");
    assert_eq!(mode(&model), "unbatched");
    let item = json!({"x": [[1.0], [2.0], [3.0]]});
    assert_eq!(predict(&model, &[item]), [json!({"y": [[-1.0, -2.0, -3.0]]})]);
}

#[test]
fn a_model_that_keeps_statistics_from_run_to_run_is_rejected() {
    let channels = || [floats("scale", &[4], &[1.0; 4]), floats("mean", &[4], &[0.0; 4])];
    let inputs = ["x", "scale", "mean", "mean", "scale"];
    let graph = |attributes: &[AttributeProto]| {
        let mut normalization = node("BatchNormalization", &inputs, "y", attributes);
        if !attributes.is_empty() {
            normalization
                .output
                .extend(["new_mean".to_owned(), "new_variance".to_owned()]);
        }
        Graph {
            inputs: vec![value("x", DataType::FLOAT, &[-1, 4])],
            constants: channels().into(),
            nodes: vec![normalization],
            ..Graph::one(17, DataType::FLOAT, &[-1, 4], "Identity", &[])
        }
    };
    let Some(model) = served_graph("training", graph(&[int("training_mode", 1)])) else {
        return;
    };
    let message = model
        .expect_err("answers would depend on earlier requests")
        .to_string();
    assert!(
        message.contains("`BatchNormalization` node `y` in training mode"),
        "{message}"
    );
    let model = served_graph("inference", graph(&[]))
        .expect("ONNX Runtime")
        .expect("a model");
    let item = json!({"x": [1.0, 2.0, 3.0, 4.0]});
    assert_eq!(
        predict(&model, std::slice::from_ref(&item)),
        predict(&model, &[item])
    );
}
