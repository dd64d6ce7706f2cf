//! Weights in external files, in both runtimes.

#[allow(dead_code, reason = "every test file uses a part of it")]
mod common;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use common::{load, onnx_runtime};
use plugin_sdk::serde_json::json;
use rten_onnx::onnx::{
    AttributeProto, DataLocation, DataType, Dimension, GraphProto, ModelProto, NodeProto, OperatorSetIdProto,
    StringStringEntryProto, TensorProto, TensorShapeProto, TypeProto, TypeProtoTensor, ValueInfoProto,
};

/// A separate directory for a test.
fn directory(name: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("external-{name}"));
    if directory.exists() {
        fs::remove_dir_all(&directory).expect("an old directory");
    }
    fs::create_dir_all(&directory).expect("a directory");
    directory
}

/// Three floats, stored externally at the location given by `entries`.
fn weights(name: Option<&str>, entries: &[(&str, &str)]) -> TensorProto {
    let entry = |(key, value): &(&str, &str)| StringStringEntryProto {
        key: Some((*key).to_owned()),
        value: Some((*value).to_owned()),
    };
    TensorProto {
        dims: vec![3],
        data_type: Some(DataType::FLOAT),
        name: name.map(str::to_owned),
        external_data: entries.iter().map(entry).collect(),
        data_location: Some(DataLocation::EXTERNAL),
        ..TensorProto::default()
    }
}

fn node(kind: &str, inputs: &[&str], output: &str, value: Option<TensorProto>) -> NodeProto {
    let attribute = value.map(|tensor| AttributeProto {
        name: Some("value".to_owned()),
        r#type: Some(rten_onnx::onnx::AttributeType::TENSOR),
        t: Some(tensor),
        ..AttributeProto::default()
    });
    NodeProto {
        input: inputs.iter().map(|name| (*name).to_owned()).collect(),
        output: vec![output.to_owned()],
        op_type: Some(kind.to_owned()),
        attribute: attribute.into_iter().collect(),
        ..NodeProto::default()
    }
}

fn value(name: &str) -> ValueInfoProto {
    let dim = |size: Option<i64>| Dimension {
        dim_value: size,
        dim_param: size.is_none().then(|| "batch".to_owned()),
    };
    ValueInfoProto {
        name: Some(name.to_owned()),
        r#type: Some(TypeProto {
            tensor_type: Some(TypeProtoTensor {
                elem_type: Some(DataType::FLOAT),
                shape: Some(TensorShapeProto {
                    dim: vec![dim(None), dim(Some(3))],
                }),
            }),
            sequence: None,
        }),
    }
}

/// Writes `model.onnx`, which computes `y = x + w + c`: `w` is an initializer, `c` the value of a `Constant` node.
fn write(directory: &Path, initializer: &[(&str, &str)], constant: &[(&str, &str)]) {
    let graph = GraphProto {
        node: vec![
            node("Constant", &[], "c", Some(weights(None, constant))),
            node("Add", &["x", "w"], "sum", None),
            node("Add", &["sum", "c"], "y", None),
        ],
        initializer: vec![weights(Some("w"), initializer)],
        input: vec![value("x")],
        output: vec![value("y")],
        value_info: Vec::new(),
    };
    let model = ModelProto {
        ir_version: Some(8),
        graph: Some(graph),
        opset_import: vec![OperatorSetIdProto {
            domain: Some(String::new()),
            version: Some(17),
        }],
        ..ModelProto::default()
    };
    fs::write(directory.join("model.onnx"), model.write_buf().expect("a model")).expect("a file");
}

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// The settings of every runtime that is installed.
fn runtimes() -> Vec<String> {
    ["runtime = \"rten\"".to_owned()]
        .into_iter()
        .chain(onnx_runtime())
        .collect()
}

#[test]
fn weights_are_found_under_any_name_and_in_directories_below() {
    let directory = directory("names");
    fs::create_dir(directory.join("parts")).expect("a directory");
    fs::write(directory.join("weights of the model"), floats(&[1.0, 2.0, 3.0])).expect("a file");
    fs::write(directory.join("parts/0.bin"), floats(&[0.5, 10.0, 20.0, 30.0])).expect("a file");
    // Without `offset` and `length`, the tensor is the whole file.
    write(
        &directory,
        &[("location", "weights of the model")],
        &[("location", "parts/0.bin"), ("offset", "4"), ("length", "12")],
    );
    for runtime in runtimes() {
        let model = load(&format!("model = \"model.onnx\"\n{runtime}"), &directory);
        let model = model.unwrap_or_else(|failure| panic!("{runtime}: {failure}"));
        let mut outcomes = model.predict("predict", &[json!([0.0, 0.0, 1.0])]);
        let answer = outcomes.remove(0).expect("an answer");
        assert_eq!(answer, json!({"y": [11.0, 22.0, 34.0]}), "{runtime}");
    }
}

#[test]
fn a_link_may_lead_to_weights_in_the_directory_or_beside_the_linked_model_but_not_elsewhere() {
    let outside = directory("outside");
    fs::write(outside.join("w.bin"), floats(&[1.0, 2.0, 3.0])).expect("a file");
    let directory = directory("links");
    let location = [("location", "w.bin")];
    write(&directory, &location, &location);
    let loaded = |directory: &Path, runtime: &str| {
        let model = load(&format!("model = \"model.onnx\"\n{runtime}"), directory);
        model.map(drop).map_err(|failure| failure.to_string())
    };
    // As a volume of Kubernetes: the file is in a directory below.
    fs::create_dir(directory.join("data")).expect("a directory");
    fs::write(directory.join("data/w.bin"), floats(&[1.0, 2.0, 3.0])).expect("a file");
    symlink("data/w.bin", directory.join("w.bin")).expect("a link");
    for runtime in runtimes() {
        assert_eq!(loaded(&directory, &runtime), Ok(()), "{runtime}");
    }
    fs::remove_file(directory.join("w.bin")).expect("a link");
    symlink(outside.join("w.bin"), directory.join("w.bin")).expect("a link");
    for runtime in runtimes() {
        let failure = loaded(&directory, &runtime).expect_err("the link leads out of the directory");
        let reason = "`w.bin`, a link that leads out of the directory of the model file";
        assert!(failure.contains(reason), "{failure}");
    }
    // As the cache of Hugging Face: the model is a link to the same directory as well.
    fs::rename(directory.join("model.onnx"), outside.join("model")).expect("a file");
    symlink(outside.join("model"), directory.join("model.onnx")).expect("a link");
    assert_eq!(loaded(&directory, "runtime = \"rten\""), Ok(()));
}

#[test]
fn weights_that_are_not_in_the_directory_are_named() {
    let directory = directory("wrong");
    fs::write(directory.join("w.bin"), floats(&[1.0, 2.0, 3.0])).expect("a file");
    fs::write(directory.join("short.bin"), [0; 8]).expect("a file");
    let right = [("location", "w.bin")];
    for (entries, reason) in [
        (
            vec![("location", "none.bin")],
            "keeps the weights `w` in another file, `none.bin`, which cannot be opened: No such file",
        ),
        (
            vec![("location", "short.bin")],
            "`short.bin`, of which it takes 8 bytes, expected 12 for a tensor of the shape [3]",
        ),
        (
            vec![("location", "short.bin"), ("length", "12")],
            "`short.bin`, which has 8 bytes, expected 12 from byte 0 on",
        ),
        (
            vec![("location", "w.bin"), ("length", "900000000000000")],
            "`w.bin`, which has 12 bytes, expected 900000000000000 from byte 0 on",
        ),
        (
            vec![
                ("location", "w.bin"),
                ("offset", "18446744073709551615"),
                ("length", "12"),
            ],
            "`w.bin`, which has 12 bytes",
        ),
        (
            vec![("location", "../external-names/parts/0.bin")],
            "expected a path within the directory of the model file",
        ),
        (
            vec![("location", "/etc/hostname")],
            "expected a path within the directory of the model file",
        ),
        (vec![("location", ".")], "`.`, which is not a file"),
        (vec![("offset", "0")], "whose name is missing (`location`)"),
        (
            vec![("location", "w.bin"), ("offset", "-4")],
            "invalid offset `-4`, expected a number of bytes",
        ),
    ] {
        for runtime in runtimes() {
            write(&directory, &entries, &right);
            let failure = load(&format!("model = \"model.onnx\"\n{runtime}"), &directory);
            let failure = failure.err().unwrap_or_else(|| panic!("{entries:?} loaded"));
            assert!(failure.to_string().contains(reason), "{entries:?}: {failure}");
        }
    }
    // The same applies to the value of a `Constant` node.
    write(&directory, &right, &[("location", "none.bin")]);
    let failure = load("model = \"model.onnx\"\nruntime = \"rten\"", &directory).err();
    let failure = failure.expect("a file is missing").to_string();
    assert!(
        failure.contains("`none.bin`, which cannot be opened"),
        "{failure}"
    );
}
