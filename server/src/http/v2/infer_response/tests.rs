use serde_json::{Value as Json, json};

use super::super::infer_request::RequestedOutput;
use super::*;

fn output(name: &str, dtype: DType, shape: &[u64], rows: &[&[u8]]) -> OutputTensor {
    OutputTensor {
        name: name.to_owned(),
        dtype,
        shape: shape.to_vec(),
        rows: rows.iter().map(|row| Bytes::copy_from_slice(row)).collect(),
    }
}

fn numbers() -> OutputTensor {
    output("x", DType::Int16, &[2, 2], &[&[1, 0, 2, 0], &[3, 0, 255, 255]])
}

fn write(outputs: Vec<OutputTensor>, requested: &RequestedOutputs) -> Result<(Json, Vec<u8>), String> {
    let reply = ResponseHead {
        model: "m.t",
        id: Some("7"),
        task: &TaskManifest::default(),
    };
    let encoded = write_response(&reply, outputs, requested).map_err(|failure| failure.message)?;
    let json = serde_json::from_slice(&encoded.json).expect("the text is JSON");
    Ok((json, encoded.binary.concat()))
}

#[test]
fn data_is_a_flat_array_in_json() {
    let text = output("t", DType::Bytes, &[2, 1], &[b"\x01\0\0\0a", b"\x02\0\0\0\"\n"]);
    let empty = output("e", DType::Fp32, &[2, 0], &[b"", b""]);
    let (json, binary) = write(
        vec![numbers(), text, empty],
        &RequestedOutputs::All { binary: false },
    )
    .expect("the text is JSON");
    let expected = json!({"model_name": "m.t", "model_version": "1", "id": "7", "outputs": [
        {"name": "x", "datatype": "INT16", "shape": [2, 2], "data": [1, 2, 3, -1]},
        {"name": "t", "datatype": "BYTES", "shape": [2, 1], "data": ["a", "\"\n"]},
        {"name": "e", "datatype": "FP32", "shape": [2, 0], "data": []},
    ]});
    assert_eq!(json, expected);
    assert!(binary.is_empty());
}

#[test]
fn binary_data_follows_the_json_in_the_requested_order() {
    let other = output("y", DType::Uint8, &[2, 1], &[&[7], &[8]]);
    let requested = |name: &str, binary| RequestedOutput {
        name: name.to_owned(),
        binary,
    };
    let these = RequestedOutputs::Named(vec![requested("y", true), requested("x", true)]);
    let (json, binary) = write(vec![numbers(), other.clone()], &these).expect("the outputs are valid");
    let head = |at: usize| {
        (
            json["outputs"][at]["name"].clone(),
            json["outputs"][at]["parameters"].clone(),
        )
    };
    assert_eq!(head(0), (json!("y"), json!({"binary_data_size": 2})));
    assert_eq!(head(1), (json!("x"), json!({"binary_data_size": 8})));
    assert_eq!(binary, [7, 8, 1, 0, 2, 0, 3, 0, 255, 255]);
    let one = RequestedOutputs::Named(vec![requested("y", false)]);
    let (json, _) = write(vec![numbers(), other], &one).expect("the text is JSON");
    assert_eq!(json["outputs"].as_array().map(Vec::len), Some(1));
}

#[test]
fn outputs_that_json_cannot_express_must_be_requested_as_binary_data() {
    let nan = output("x", DType::Fp32, &[1, 2], &[&[0, 0, 0, 0, 0, 0, 0xc0, 0x7f]]);
    let bytes = output("x", DType::Bytes, &[1, 1], &[b"\x01\0\0\0\xff"]);
    let half = output("x", DType::Fp16, &[1, 1], &[&[0, 0]]);
    let cases = [
        (
            nan,
            "element 1 of output `x` is NaN, which JSON cannot express; request it as binary data",
        ),
        (
            bytes,
            "element 0 of output `x` is not UTF-8, which JSON cannot express; request it as binary data",
        ),
        (
            half,
            "output `x` has datatype FP16, which JSON cannot express; request it as binary data",
        ),
    ];
    for (output, expected) in cases {
        let json = write(vec![output.clone()], &RequestedOutputs::All { binary: false });
        assert_eq!(json.expect_err(expected), expected);
        assert!(write(vec![output], &RequestedOutputs::All { binary: true }).is_ok());
    }
}
