use bytes::Bytes;
use serde_json::{Value as Json, json};

use super::*;
use crate::error::ItemError;

fn write(form: Form, outcomes: Vec<Outcome>) -> Result<Json, (u16, String)> {
    write_reply(form, &TaskManifest::default(), &outcomes)
        .map(|body| serde_json::from_slice(&body).expect("the text is JSON"))
        .map_err(|failure| (failure.code.status(), failure.message))
}

fn bytes(name: &str, dtype: DType, shape: &[u64], data: &'static [u8]) -> Tensor {
    Tensor::new(name, dtype, shape.to_vec(), Bytes::from_static(data)).expect("the data matches the shape")
}

#[test]
fn the_name_of_the_only_output_is_omitted() {
    let row = |data| Ok(Value::Tensors(vec![bytes("y", DType::Uint8, &[2], data)]));
    let outcomes = || vec![row(&[1, 2]), row(&[3, 4])];
    assert_eq!(
        write(Form::Rows, outcomes()),
        Ok(json!({"predictions": [[1, 2], [3, 4]]}))
    );
    assert_eq!(
        write(Form::Columns, outcomes()),
        Ok(json!({"outputs": [[1, 2], [3, 4]]}))
    );
    let scalar = || vec![Ok(Value::Tensors(vec![bytes("y", DType::Uint8, &[], &[7])]))];
    assert_eq!(write(Form::Rows, scalar()), Ok(json!({"predictions": [7]})));
    assert_eq!(write(Form::Columns, scalar()), Ok(json!({"outputs": [7]})));
}

#[test]
fn several_outputs_are_objects_in_rows_and_lists_in_columns() {
    let row = |x, y| {
        Ok(Value::Tensors(vec![
            bytes("x", DType::Uint8, &[2], x),
            bytes("y", DType::Bool, &[], y),
        ]))
    };
    let outcomes = || vec![row(&[1, 2], &[1]), row(&[3, 4], &[0])];
    let rows = json!({"predictions": [{"x": [1, 2], "y": true}, {"x": [3, 4], "y": false}]});
    assert_eq!(write(Form::Rows, outcomes()), Ok(rows));
    let columns = json!({"outputs": {"x": [[1, 2], [3, 4]], "y": [true, false]}});
    assert_eq!(write(Form::Columns, outcomes()), Ok(columns));
}

#[test]
fn text_bytes_and_json_are_values() {
    let outcomes = || {
        vec![
            Ok(Value::Text(Bytes::from_static(b"a\"b"))),
            Ok(Value::Json(Bytes::from_static(b"{\"a\":1}"))),
            Ok(Value::Bytes {
                data: Bytes::from_static(&[0, 1, 2]),
                media_type: String::new(),
            }),
        ]
    };
    let values = json!(["a\"b", {"a": 1}, {"b64": "AAEC"}]);
    assert_eq!(write(Form::Rows, outcomes()), Ok(json!({"predictions": values})));
    assert_eq!(write(Form::Columns, outcomes()), Ok(json!({"outputs": values})));
}

#[test]
fn strings_are_base64_if_the_name_of_the_tensor_ends_in_bytes() {
    let outcomes = |name: &str| {
        let data = b"\x01\0\0\0a\x01\0\0\0\xff";
        vec![Ok(Value::Tensors(vec![bytes(name, DType::Bytes, &[2], data)]))]
    };
    assert_eq!(
        write(Form::Rows, outcomes("image_bytes")),
        Ok(json!({"predictions": [[{"b64": "YQ=="}, {"b64": "/w=="}]]}))
    );
    let (status, message) = write(Form::Rows, outcomes("image")).expect_err("it is not UTF-8");
    assert_eq!(status, 500, "{message}");
}

#[test]
fn one_failed_item_fails_the_request() {
    let outcomes = || {
        vec![
            Ok(Value::Text(Bytes::from_static(b"a"))),
            Err(ItemError::Invalid("no".to_owned())),
            Err(ItemError::Fault("broken".to_owned())),
        ]
    };
    for form in [Form::Rows, Form::Columns] {
        let (status, message) = write(form, outcomes()).expect_err("an item failed");
        assert_eq!(status, 500);
        assert!(message.starts_with("item 2 of 3: "), "{message}");
    }
}
