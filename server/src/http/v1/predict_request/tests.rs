use plugin_abi::manifest::TensorManifest;
use serde_json::{Value as Json, json};

use super::*;
use crate::values::Tensor;

const LIMITS: BodyLimits = BodyLimits { items: 3, depth: 8 };

fn task(kind: Kind, tensors: &[(&str, &str, &[i64])]) -> TaskManifest {
    let mut task = TaskManifest {
        name: "t".to_owned(),
        ..TaskManifest::default()
    };
    task.input.kinds = vec![kind];
    task.input.tensors = tensors
        .iter()
        .map(|(name, dtype, shape)| TensorManifest::new(*name, *dtype, shape.to_vec()))
        .collect();
    task
}

fn read(task: &TaskManifest, body: Json) -> Result<Vec<Value>, String> {
    let body = Bytes::from(body.to_string());
    let request = read_request(&body, LIMITS).map_err(|failure| failure.message)?;
    let items = request
        .items(&body, task, LIMITS)
        .map_err(|failure| failure.message)?;
    let values = items.into_iter().map(|item| item.map(|item| item.value));
    values
        .collect::<Result<_, _>>()
        .map_err(|error| error.to_string())
}

fn floats(name: &str, shape: &[u64], values: &[f32]) -> Tensor {
    let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    Tensor::new(name, DType::Fp32, shape.to_vec(), Bytes::from(data)).expect("the data matches the shape")
}

fn text(text: &'static str) -> Value {
    Value::Text(Bytes::from_static(text.as_bytes()))
}

#[test]
fn rows_and_columns_are_the_same_items() {
    let single = task(Kind::Tensors, &[("x", "FP32", &[2])]);
    let expected = vec![
        Value::Tensors(vec![floats("x", &[2], &[1., 2.])]),
        Value::Tensors(vec![floats("x", &[2], &[3., 4.])]),
    ];
    for body in [
        json!({"instances": [[1, 2], [3, 4]]}),
        json!({"instances": [{"x": [1, 2]}, {"x": [3, 4]}]}),
        json!({"inputs": [[1, 2], [3, 4]]}),
        json!({"inputs": {"x": [[1, 2], [3, 4]]}}),
        json!({"signature_name": "serving_default", "instances": [[1, 2], [3, 4]], "parameters": null}),
    ] {
        assert_eq!(read(&single, body.clone()), Ok(expected.clone()), "{body}");
    }
    let several = task(Kind::Tensors, &[("x", "FP32", &[2]), ("y", "FP32", &[])]);
    let expected = vec![
        Value::Tensors(vec![floats("x", &[2], &[1., 2.]), floats("y", &[], &[5.])]),
        Value::Tensors(vec![floats("x", &[2], &[3., 4.]), floats("y", &[], &[6.])]),
    ];
    for body in [
        json!({"instances": [{"x": [1, 2], "y": 5}, {"y": 6, "x": [3, 4]}]}),
        json!({"inputs": {"y": [5, 6], "x": [[1, 2], [3, 4]]}}),
    ] {
        assert_eq!(read(&several, body.clone()), Ok(expected.clone()), "{body}");
    }
}

#[test]
fn a_scalar_input_is_a_list_of_numbers() {
    let scalar = task(Kind::Tensors, &[("x", "FP32", &[])]);
    let expected = vec![
        Value::Tensors(vec![floats("x", &[], &[2.])]),
        Value::Tensors(vec![floats("x", &[], &[3.])]),
    ];
    for body in [json!({"instances": [2.0, 3.0]}), json!({"inputs": [2.0, 3.0]})] {
        assert_eq!(read(&scalar, body.clone()), Ok(expected.clone()), "{body}");
    }
}

#[test]
fn text_bytes_and_json_are_lists_of_items() {
    let texts = task(Kind::Text, &[]);
    for body in [
        json!({"instances": ["a", "b"]}),
        json!({"instances": [{"b64": "YQ=="}, {"b64": "Yg=="}]}),
        json!({"inputs": ["a", "b"]}),
        json!({"inputs": {"TEXT": ["a", "b"]}}),
    ] {
        assert_eq!(
            read(&texts, body.clone()),
            Ok(vec![text("a"), text("b")]),
            "{body}"
        );
    }
    let bytes = Value::Bytes {
        data: Bytes::from_static(&[0, 1, 2]),
        media_type: String::new(),
    };
    let images = task(Kind::Bytes, &[]);
    for body in [
        json!({"instances": [{"b64": "AA\nEC"}]}),
        json!({"inputs": [{"b64": "AAEC"}]}),
        json!({"inputs": {"BYTES": [{"b64": "AAEC"}]}}),
    ] {
        assert_eq!(read(&images, body.clone()), Ok(vec![bytes.clone()]), "{body}");
    }
    let documents = task(Kind::Json, &[]);
    let document = Value::Json(Bytes::from_static(br#"{"text":"a"}"#));
    for body in [
        json!({"instances": [{"text": "a"}]}),
        json!({"inputs": [{"text": "a"}]}),
        json!({"inputs": {"JSON": [{"text": "a"}]}}),
    ] {
        assert_eq!(
            read(&documents, body.clone()),
            Ok(vec![document.clone()]),
            "{body}"
        );
    }
}

#[test]
fn an_element_of_a_tensor_of_strings_may_be_base64() {
    let strings = task(Kind::Tensors, &[("s", "BYTES", &[2])]);
    let data = b"\x01\0\0\0a\x03\0\0\0\0\x01\x02";
    let tensor = Tensor::new("s", DType::Bytes, vec![2], Bytes::from_static(data))
        .expect("the data matches the shape");
    for body in [
        json!({"instances": [["a", {"b64": "AAEC"}]]}),
        json!({"inputs": {"s": [[{"b64": "YQ=="}, {"b64": "AAEC"}]]}}),
    ] {
        assert_eq!(
            read(&strings, body.clone()),
            Ok(vec![Value::Tensors(vec![tensor.clone()])]),
            "{body}"
        );
    }
    let error = read(&strings, json!({"inputs": {"s": [["a", {"b46": "AAEC"}]]}}));
    assert_eq!(
        error,
        Err("input `s`: element 1: expected a string or {\"b64\": …}, got an object".to_owned())
    );
}

#[test]
fn malformed_requests_are_rejected_with_the_reason() {
    let x = || task(Kind::Tensors, &[("x", "FP32", &[2])]);
    let two = || task(Kind::Tensors, &[("x", "FP32", &[2]), ("y", "FP32", &[])]);
    let cases = [
        (
            x(),
            json!({"instances": [[1, 2]], "inputs": [[1, 2]]}),
            "both `instances` and `inputs` are present; send one of them",
        ),
        (
            x(),
            json!({}),
            "missing member `instances` (rows) or `inputs` (columns)",
        ),
        (
            x(),
            json!({"instances": []}),
            "`instances` has no items; expected at least one",
        ),
        (
            x(),
            json!({"instances": 5}),
            "`instances`: expected an array, got a number",
        ),
        (
            x(),
            json!({"instances": [1, 2, 3, 4]}),
            "`instances` has too many items: expected at most 3 per request",
        ),
        (
            x(),
            json!({"inputs": [1, 2]}),
            "input `x` has shape [2], expected [-1, 2], where -1 means any size",
        ),
        (
            x(),
            json!({"inputs": {"z": [[1, 2]]}}),
            "unknown input `z`, did you mean `x`?; expected `x` FP32 [-1, 2]",
        ),
        (
            two(),
            json!({"inputs": [[1, 2]]}),
            "`inputs`: expected an object with `x`, `y`, got an array",
        ),
        (
            two(),
            json!({"inputs": {"x": [[1, 2]], "y": [1, 2]}}),
            "input `y` has 2 items, but input `x` has 1; the first dimensions must be equal",
        ),
        (
            task(Kind::Text, &[]),
            json!({"instances": [{"b64": "/w=="}]}),
            "`b64` is not UTF-8: invalid byte at offset 0",
        ),
        (
            x(),
            json!({"instances": [[1, 2]], "parameters": {"a": 1}}),
            "task `t` takes no parameters",
        ),
        (
            x(),
            json!({"instances": [[1, 2]], "parameters": [1]}),
            "`parameters`: expected an object, got an array",
        ),
    ];
    for (task, body, expected) in cases {
        assert_eq!(read(&task, body.clone()), Err(expected.to_owned()), "{body}");
    }
    let unknown = read(&x(), json!({"instance": [[1, 2]]})).expect_err("there is no such member");
    assert!(
        unknown.starts_with("malformed request body: unknown field `instance`, expected one of `instances`"),
        "{unknown}"
    );
    let array = read(&x(), json!([[[1, 2]]])).expect_err("an array is not a request");
    assert!(
        array.starts_with("malformed request body: got an array, expected an object"),
        "{array}"
    );
}
