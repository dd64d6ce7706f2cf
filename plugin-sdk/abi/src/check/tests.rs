//! Tests of the rules with valid and invalid declarations and outputs.

use abi_stable::std_types::{RSlice, RStr};
use serde_json::{Value as Json, json};

use super::*;
use crate::codes::{dtype, kind};
use crate::manifest::{Kind, ModelManifest, PluginManifest, TensorManifest, ValueManifest};
use crate::{RawTensor, RawValue};

/// Returns the messages of the findings for these tasks.
fn check(tasks: Json) -> Vec<String> {
    let manifest: ModelManifest = serde_json::from_value(json!({ "tasks": tasks })).expect("valid manifest");
    model(&manifest).iter().map(ToString::to_string).collect()
}

fn assert_only_finding(found: &[String], expected_start: &str) {
    assert!(
        matches!(found, [message] if message.starts_with(expected_start)),
        "expected only {expected_start:?}, got {found:?}"
    );
}

#[test]
fn a_valid_manifest_has_no_findings() {
    let tensors = json!({"kinds": ["tensors", "json"], "tensors": [
        {"name": "ids", "dtype": "INT64", "shape": [-1]}, {"name": "pixel values", "dtype": "FP32", "shape": [3, 224, 224]}
    ]});
    let text = json!({"kinds": ["text"]});
    assert_eq!(
        check(
            json!([{"name": "text", "input": tensors, "output": text}, {"name": "query-2_b", "input": text, "output": text}])
        ),
        Vec::<String>::new()
    );
}

#[test]
fn each_error_names_its_task() {
    let text = json!({"kinds": ["text"]});
    let tensor =
        |tensor| json!({"kinds": ["tensors"], "tensors": [tensor, {"name": "other", "dtype": "FP32"}]});
    let output = |output| json!([{"name": "t", "input": text, "output": output}]);
    let cases = [
        (json!([]), "the model has no tasks, expected at least one"),
        (
            json!([{"name": "a/b", "input": text, "output": text}]),
            "invalid task name `a/b`: expected",
        ),
        (
            json!([{"input": text, "output": text}]),
            "invalid task name ``: expected",
        ),
        (
            json!([{"name": "a", "input": text, "output": text}, {"name": "a", "input": text, "output": text}]),
            "two tasks are named `a`",
        ),
        (
            json!([
                {"name": "a", "default": true, "input": text, "output": text},
                {"name": "b", "default": true, "input": text, "output": text},
            ]),
            "the tasks `a` and `b` are both the default task, expected at most one",
        ),
        (
            json!([{"name": "t", "output": text}]),
            "the input of task `t` has no kind",
        ),
        (output(json!({})), "the output of task `t` has no kind"),
        (
            output(json!({"kinds": ["text", "json"]})),
            "the output of task `t` has 2 kinds, expected one",
        ),
        (
            json!([{"name": "t", "input": {"kinds": ["text", "text"]}, "output": text}]),
            "the input of task `t` declares the kind text twice",
        ),
        (
            output(json!({"kinds": ["tensors"]})),
            "the output of task `t` has the kind tensors but declares no tensor: add `.output_tensor(…)`",
        ),
        (
            output(tensor(json!({"name": "other", "dtype": "FP32"}))),
            "the output of task `t` has two tensors named `other`",
        ),
        (
            output(tensor(json!({"name": "", "dtype": "FP32"}))),
            "the output of task `t` has a tensor with the invalid name \"\"",
        ),
        (
            output(tensor(json!({"name": "x", "dtype": "float"}))),
            "the output of task `t` has the tensor `x` with the unknown datatype `float`, expected one of BOOL, UINT8,",
        ),
        (
            output(tensor(json!({"name": "x", "dtype": "FP32", "shape": [3, -2]}))),
            "the output of task `t` has the tensor `x` with the dimension -2",
        ),
        (
            json!([{"name": "t", "input": text, "output": text, "limits": {"max_batch_size": 0}}]),
            "task `t` declares `max_batch_size` as 0, expected at least 1",
        ),
        (
            json!([{"name": "t", "embedding": true, "input": {"kinds": ["bytes"]}, "output": text}]),
            "task `t` is declared as an embedding task, but its input is not text",
        ),
        (
            json!([{"name": "t", "embedding": true, "input": text, "output": text}]),
            "task `t` is declared as an embedding task, but its output is not a single tensor",
        ),
        (
            json!([{"name": "t", "embedding": true, "input": text, "output": {"kinds": ["tensors"], "tensors": [
                {"name": "x", "dtype": "FP32", "shape": [2, 3]}
            ]}}]),
            "task `t` is declared as an embedding task, but its output tensor has a different datatype or shape",
        ),
        (
            json!([{"name": "t", "reranker": true, "input": text, "output": {"kinds": ["json"]}}]),
            "task `t` is declared as a reranker, but its input or output is not JSON",
        ),
    ];
    for (tasks, expected) in cases {
        assert_only_finding(&check(tasks), expected);
    }
}

#[test]
fn tensors_of_unbatched_tasks_can_be_scalars_and_sequences() {
    let text = json!({"kinds": ["text"]});
    let tensors = |tensors: Json| json!({"kinds": ["tensors"], "tensors": tensors});
    let scalar = json!({"name": "x", "dtype": "FP32", "shape": []});
    let sequence = json!({"name": "s", "dtype": "FP32", "shape": [-1], "sequence": true});
    let valid = json!([
        {"name": "t", "unbatched": true, "input": tensors(json!([scalar, sequence])), "output": text},
        {"name": "u", "unbatched": true, "input": text, "output": tensors(json!([sequence])), "trial": {"outcome": "succeeded"}},
    ]);
    assert_eq!(check(valid), Vec::<String>::new());
    let vector = tensors(json!([{"name": "x", "dtype": "FP32", "shape": [2]}]));
    let cases = [
        (
            json!([{"name": "t", "unbatched": true, "input": text, "output": text}]),
            "task `t` is declared as unbatched, but has neither input nor output tensors",
        ),
        (
            json!([{"name": "t", "unbatched": true, "embedding": true, "input": text, "output": vector}]),
            "task `t` is declared both as unbatched and as an embedding task",
        ),
        (
            json!([{"name": "t", "input": text, "output": tensors(json!([sequence]))}]),
            "the output of task `t` declares the sequence `s`, which is only supported in unbatched tasks",
        ),
        (
            json!([{"name": "t", "unbatched": true, "input": text, "output": tensors(json!([
                sequence, {"name": "s.10", "dtype": "FP32"}
            ]))}]),
            "the output of task `t` has a tensor named `s.10`, which is also a member of the sequence `s`",
        ),
        (
            json!([{"name": "t", "input": text, "output": text, "trial": {"outcome": "failed", "reason": "x".repeat(5000)}}]),
            "the reason of the failed trial of task `t` has 5000 bytes, expected at most 4096",
        ),
    ];
    for (tasks, expected) in cases {
        assert_only_finding(&check(tasks), expected);
    }
}

#[test]
fn details_have_snake_case_names_and_bounded_text() {
    let details = |details: Json| {
        let text = json!({"kinds": ["text"]});
        let manifest = json!({"tasks": [{"name": "t", "input": text, "output": text}], "details": details});
        let manifest: ModelManifest = serde_json::from_value(manifest).expect("valid manifest");
        let findings = model(&manifest);
        findings.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let right = json!({"runtime": "ONNX Runtime 1.23", "runtime_reason_2": cut_text("ä".repeat(9000))});
    assert_eq!(details(right), Vec::<String>::new());
    let many: serde_json::Map<_, _> = (0..65).map(|number| (format!("d{number}"), json!("x"))).collect();
    for (invalid, expected) in [
        (
            json!({"Run time": "x"}),
            "invalid detail name \"Run time\": expected",
        ),
        (json!({"": "x"}), "invalid detail name \"\": expected"),
        (
            json!({"long": "x".repeat(4097)}),
            "the detail `long` has 4097 bytes, expected at most 4096",
        ),
        (many.into(), "the model has 65 details, expected at most 64"),
    ] {
        assert_only_finding(&details(invalid), expected);
    }
}

#[test]
fn the_tensors_of_a_sequence_are_numbered_from_zero_without_gaps() {
    let sequence = TensorManifest {
        sequence: true,
        ..TensorManifest::new("s", "FP32", [-1])
    };
    let declared = ValueManifest::of_tensors([TensorManifest::new("x", "FP32", []), sequence]);
    let check = |names: &[&str]| {
        let tensors: Vec<_> = names
            .iter()
            .map(|name| RawTensor {
                name: RStr::from_str(name),
                dtype: dtype::FP32,
                reserved: 0,
                shape: RSlice::from_slice(if *name == "x" { &[] } else { &[0] }),
                data: RSlice::EMPTY,
            })
            .collect();
        let value = RawValue {
            kind: kind::TENSORS,
            reserved: 0,
            data: RSlice::EMPTY,
            media_type: RStr::empty(),
            tensors: RSlice::from_slice(&tensors),
            reserved_word: 0,
        };
        output(&value, &declared).map(|_| ())
    };
    for valid in [&["x"][..], &["x", "s.0"], &["s.1", "x", "s.0"]] {
        assert_eq!(check(valid), Ok(()), "{valid:?}");
    }
    for (invalid, expected) in [
        (
            &["s.0"][..],
            "the plugin's output lacks the tensor `x`, which its manifest declares",
        ),
        (&["x", "x"], "the plugin's output has a tensor twice"),
        (
            &["x", "s.1"],
            "the plugin's output has the tensor `s.1` of the sequence `s`, but not `s.0`",
        ),
        (
            &["x", "s.0", "s.0"],
            "the plugin's output has the tensor `s.0` twice",
        ),
        (
            &["x", "s"],
            "the plugin's output has a tensor `s`, its manifest declares x, s",
        ),
        (
            &["x", "s.00"],
            "the plugin's output has a tensor `s.00`, its manifest declares x, s",
        ),
    ] {
        assert_eq!(check(invalid), Err(expected.to_owned()), "{invalid:?}");
    }
}

#[test]
fn all_errors_of_a_model_are_reported_together() {
    let text = json!({"kinds": ["text"]});
    let found = check(json!([
        {"name": "a/b", "input": text, "output": {"kinds": ["tensors"]}},
        {"name": "c", "input": {}, "output": text},
        {"name": "c", "input": text, "output": text},
        {"name": "c", "input": text, "output": text},
    ]));
    assert_eq!(found.len(), 4, "{found:?}");
}

fn findings_of_plugin(manifest: Json) -> Vec<(Severity, String)> {
    let manifest: PluginManifest = serde_json::from_value(manifest).expect("valid manifest");
    plugin(&manifest)
        .into_iter()
        .map(|finding| (finding.severity, finding.message))
        .collect()
}

#[test]
fn a_plugin_without_settings_must_declare_tasks() {
    let none = json!({"type": "object", "additionalProperties": false});
    let found = findings_of_plugin(json!({"settings_schema": none}));
    assert!(
        matches!(&found[..], [(Severity::Error, message)] if message.starts_with("the model has no tasks")),
        "{found:?}"
    );
    let some = json!({"type": "object", "properties": {"tasks": {}}, "additionalProperties": false});
    assert_eq!(findings_of_plugin(json!({"settings_schema": some})), []);
}

#[test]
fn probable_mistakes_are_warnings() {
    let text = json!({"kinds": ["text"]});
    let found = findings_of_plugin(json!({
        "settings_schema": {"type": "object", "properties": {"size": {}}},
        "tasks": [{"name": "t", "input": text, "output": {"kinds": ["bytes"], "media_types": ["png"]}}],
    }));
    let expected = [
        "the settings accept unknown keys",
        "task `t` has no description",
        "task `t` has no example",
        "task `t` declares the media type `png`",
    ];
    assert_eq!(found.len(), expected.len(), "{found:?}");
    for ((severity, message), expected) in found.iter().zip(expected) {
        assert_eq!(*severity, Severity::Warning);
        assert!(message.starts_with(expected), "{message}");
    }
}

fn tensor<'a>(name: &'a str, dtype: u32, shape: &'a [u64]) -> RawTensor<'a> {
    RawTensor {
        name: RStr::from_str(name),
        dtype,
        reserved: 0,
        shape: RSlice::from_slice(shape),
        data: RSlice::EMPTY,
    }
}

#[test]
fn outputs_are_compared_with_their_declaration() {
    let declared = ValueManifest::of_tensors([
        TensorManifest::new("scores", "FP32", [-1, 2]),
        TensorManifest::new("label", "BYTES", []),
    ]);
    let label = tensor("label", dtype::BYTES, &[]);
    for (tensors, expected) in [
        (vec![tensor("scores", dtype::FP32, &[5, 2]), label], ""),
        (vec![label, tensor("scores", dtype::FP32, &[0, 2])], ""),
        (
            vec![label, tensor("scores", dtype::FP64, &[5, 2])],
            "the plugin's tensor `scores` is FP64 [5, 2], its manifest declares FP32 [-1, 2]",
        ),
        (
            vec![label, tensor("scores", dtype::FP32, &[5, 3])],
            "the plugin's tensor `scores` is FP32 [5, 3], its manifest declares FP32 [-1, 2]",
        ),
        (
            vec![label, tensor("scores", dtype::FP32, &[2])],
            "the plugin's tensor `scores` is FP32 [2], its manifest declares FP32 [-1, 2]",
        ),
        (
            vec![label, tensor("other", dtype::FP32, &[5, 2])],
            "the plugin's output has a tensor `other`, its manifest declares scores, label",
        ),
        (
            vec![label],
            "the plugin's output lacks the tensor `scores`, which its manifest declares",
        ),
        (
            vec![label, label, tensor("scores", dtype::FP32, &[5, 2])],
            "the plugin's output has a tensor twice",
        ),
        (
            vec![tensor("scores", 99, &[5, 2])],
            "the plugin's tensor `scores` has the unknown datatype 99",
        ),
    ] {
        let value = RawValue {
            kind: kind::TENSORS,
            reserved: 0,
            data: RSlice::EMPTY,
            media_type: RStr::from_str(""),
            tensors: RSlice::from_slice(&tensors),
            reserved_word: 0,
        };
        let checked = output(&value, &declared).map(|_| ());
        assert_eq!(checked.err().unwrap_or_default(), expected);
    }
}

#[test]
fn batch_outputs_are_compared_without_the_batch_dimension() {
    let declared = ValueManifest::of_tensors([TensorManifest::new("x", "FP32", [2])]);
    let rows = |shape| output_rows(&[tensor("x", dtype::FP32, shape)], 3, &declared);
    assert_eq!(rows(&[3, 2]), Ok(()));
    let too_few = rows(&[2, 2]).expect_err("two rows for three items");
    assert!(too_few.contains("expected 3 rows, one per item"), "{too_few}");
    assert!(rows(&[3, 4]).is_err() && rows(&[]).is_err());
}

#[test]
fn media_types_match_patterns_regardless_of_case_and_parameters() {
    let input = |media_types: &[&str]| ValueManifest {
        media_types: media_types
            .iter()
            .map(|&media_type| media_type.to_owned())
            .collect(),
        ..ValueManifest::of(Kind::Bytes)
    };
    for (declared, media_type, accepts) in [
        (&[][..], "image/png", true),
        (&["image/png"], "image/PNG; charset=x", true),
        (&["image/png"], "image/jpeg", false),
        (&["text/plain", "image/*"], "image/jpeg", true),
        (&["*/*"], "x/y", true),
        (&["image/jpeg"], "image/jpg", true),
        (&["image/jpeg"], "image/JPG; q=1", true),
        (&["image/jpg"], "image/jpeg", true),
        (&["image/png"], "image/jpg", false),
    ] {
        assert_eq!(
            accepts_media_type(&input(declared), media_type),
            accepts,
            "{declared:?} {media_type}"
        );
    }
}
