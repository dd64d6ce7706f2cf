use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::*;

fn head(form: Form) -> ReplyHead<'static> {
    ReplyHead {
        model: "digits",
        task: "image",
        form,
        inference: Duration::from_millis(5),
        request_id: None,
    }
}

fn encode(form: Form, outcomes: &[Result<Value, ItemError>]) -> (u16, String) {
    let reply = encode_reply(&head(form), outcomes);
    (reply.status, String::from_utf8(reply.body).expect("JSON is text"))
}

fn tensor(dtype: DType, shape: &[u64], data: Vec<u8>) -> Result<Value, ItemError> {
    let tensor = Tensor::new("y", dtype, shape.to_vec(), data.into()).expect("a good tensor");
    Ok(Value::Tensors(vec![tensor]))
}

fn text(text: &'static str) -> Result<Value, ItemError> {
    Ok(Value::Text(Bytes::from_static(text.as_bytes())))
}

/// The JSON of one output, or the whole reply if the item failed.
fn output(outcome: Result<Value, ItemError>) -> String {
    let (_, reply) = encode(Form::Single, &[outcome]);
    let output = reply
        .strip_prefix(r#"{"model":"digits","task":"image","output":"#)
        .and_then(|rest| rest.strip_suffix(r#","inference_time":0.005}"#));
    output.unwrap_or(&reply).to_owned()
}

#[test]
fn replies_keep_the_order_and_the_form_of_the_request() {
    assert_eq!(
        encode(Form::List, &[text("a\n"), text("b")]),
        (
            200,
            r#"{"model":"digits","task":"image","outputs":["a\n","b"],"inference_time":0.005}"#.to_owned()
        )
    );
    assert_eq!(
        encode(
            Form::Single,
            &[Ok(Value::Json(Bytes::from_static(b"{\"a\": 1}")))]
        ),
        (
            200,
            r#"{"model":"digits","task":"image","output":{"a": 1},"inference_time":0.005}"#.to_owned()
        )
    );
}

#[test]
fn a_failed_item_is_an_error_in_its_place() {
    let invalid = || Err(ItemError::Invalid("too dark".to_owned()));
    let (status, reply) = encode(Form::List, &[text("a"), invalid()]);
    assert_eq!(status, 200);
    assert!(reply.contains(r#""outputs":["a",{"error":{"code":"invalid_input","message":"too dark"}}]"#));

    let (status, reply) = encode(Form::Single, &[invalid()]);
    assert_eq!(status, 422);
    assert_eq!(
        reply,
        r#"{"error":{"code":"invalid_input","message":"too dark"}}"#
    );
}

#[test]
fn if_every_item_failed_the_worst_decides() {
    let outcomes = [
        Err(ItemError::Invalid("too dark".to_owned())),
        Err(ItemError::Fault("it broke".to_owned())),
    ];
    let (status, reply) = encode(Form::List, &outcomes);
    assert_eq!(status, 500);
    let reply: Json = serde_json::from_str(&reply).expect("it is JSON");
    assert_eq!(
        reply,
        json!({
            "model": "digits",
            "task": "image",
            "outputs": [
                {"error": {"code": "invalid_input", "message": "too dark"}},
                {"error": {"code": "model_fault", "message": "it broke"}},
            ],
            "inference_time": 0.005,
            "error": {"code": "model_fault", "message": "every item failed; inputs[1]: it broke"},
        })
    );
}

#[test]
fn tensors_are_nested_by_their_shape() {
    let bytes = |n: u8| (0..n).collect::<Vec<u8>>();
    assert_eq!(
        output(tensor(DType::Uint8, &[2, 3], bytes(6))),
        r#"{"y":[[0,1,2],[3,4,5]]}"#
    );
    assert_eq!(
        output(tensor(DType::Uint8, &[2, 2, 2], bytes(8))),
        r#"{"y":[[[0,1],[2,3]],[[4,5],[6,7]]]}"#
    );
    assert_eq!(
        output(tensor(DType::Uint8, &[1, 1, 1], bytes(1))),
        r#"{"y":[[[0]]]}"#
    );
    assert_eq!(output(tensor(DType::Uint8, &[], bytes(1))), r#"{"y":0}"#);
    assert_eq!(output(tensor(DType::Uint8, &[0], vec![])), r#"{"y":[]}"#);
    assert_eq!(output(tensor(DType::Uint8, &[0, 3], vec![])), r#"{"y":[]}"#);
    assert_eq!(output(tensor(DType::Uint8, &[2, 0], vec![])), r#"{"y":[[],[]]}"#);
    assert_eq!(
        output(tensor(DType::Uint8, &[2, 2, 0], vec![])),
        r#"{"y":[[[],[]],[[],[]]]}"#
    );
    assert_eq!(
        output(tensor(DType::Uint8, &[u64::MAX, 0], vec![])),
        r#"{"y":[]}"#
    );
}

#[test]
fn every_datatype_has_its_json() {
    let le = |value: f32| value.to_le_bytes().to_vec();
    assert_eq!(
        output(tensor(DType::Bool, &[2], vec![0, 1])),
        r#"{"y":[false,true]}"#
    );
    assert_eq!(output(tensor(DType::Int8, &[1], vec![0xff])), r#"{"y":[-1]}"#);
    assert_eq!(
        output(tensor(DType::Uint64, &[1], vec![0xff; 8])),
        r#"{"y":[18446744073709551615]}"#
    );
    assert_eq!(
        output(tensor(DType::Fp32, &[2], [le(0.1), le(1.0)].concat())),
        r#"{"y":[0.1,1.0]}"#
    );
    assert_eq!(
        output(tensor(DType::Fp64, &[1], 0.1f64.to_le_bytes().to_vec())),
        r#"{"y":[0.1]}"#
    );
    assert_eq!(
        output(tensor(DType::Fp16, &[1], vec![0x00, 0x3e])),
        r#"{"y":[1.5]}"#
    );
    assert_eq!(
        output(tensor(DType::Bf16, &[1], vec![0xc0, 0xbf])),
        r#"{"y":[-1.5]}"#
    );
    assert_eq!(
        output(tensor(DType::Bytes, &[2], b"\x01\0\0\0\"\0\0\0\0".to_vec())),
        r#"{"y":["\"",""]}"#
    );
}

#[test]
fn what_json_cannot_express_fails_the_item_alone() {
    let nan = || {
        tensor(
            DType::Fp32,
            &[2],
            [1f32.to_le_bytes(), f32::NAN.to_le_bytes()].concat(),
        )
    };
    let (status, reply) = encode(Form::List, &[nan(), text("b")]);
    assert_eq!(status, 200);
    let reply: Json = serde_json::from_str(&reply).expect("it is JSON");
    assert_eq!(
        reply["outputs"],
        json!([
            {"error": {"code": "model_fault", "message": "output `y` has NaN at element 1, which JSON cannot express"}},
            "b",
        ])
    );
    assert_eq!(encode(Form::Single, &[nan()]).0, 500);
    let infinite = output(tensor(
        DType::Fp64,
        &[1],
        f64::NEG_INFINITY.to_le_bytes().to_vec(),
    ));
    assert!(infinite.contains("has -inf at element 0"), "got {infinite}");
    let bytes = output(tensor(DType::Bytes, &[1], b"\x01\0\0\0\xff".to_vec()));
    assert!(bytes.contains("not UTF-8"), "got {bytes}");
}

#[test]
fn bytes_are_base64_unless_asked_for_as_they_are() {
    let bytes = |media_type: &str| {
        [Ok(Value::Bytes {
            data: Bytes::from_static(b"\0\x01"),
            media_type: media_type.to_owned(),
        })]
    };
    let [image] = bytes("image/png");
    assert_eq!(output(image), r#"{"b64":"AAE=","media_type":"image/png"}"#);
    let [plain] = bytes("");
    assert_eq!(output(plain), r#"{"b64":"AAE="}"#);

    let raw = |accept| raw_output(accept, &bytes("image/png")).is_some();
    assert!(raw(Some("text/html, image/*;q=0.5")));
    assert!(raw(Some("image/png")));
    assert!(!raw(Some("*/*")));
    assert!(!raw(None));
}

proptest! {
    #[test]
    fn floats_survive_the_round_trip(values in prop::collection::vec(prop::num::f32::NORMAL | prop::num::f32::SUBNORMAL | prop::num::f32::ZERO, 0..50)) {
        let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let json = output(tensor(DType::Fp32, &[values.len() as u64], data));
        let numbers = json.trim_start_matches("{\"y\":[").trim_end_matches("]}");
        let read: Vec<f32> = numbers
            .split(',')
            .filter(|number| !number.is_empty())
            .map(|number| number.parse().expect("a number"))
            .collect();
        prop_assert_eq!(read, values);
    }

    #[test]
    fn nesting_is_what_serde_would_write(shape in prop::collection::vec(0u64..4, 0..4)) {
        let elements: u64 = shape.iter().product();
        let data: Vec<u8> = (0..elements).map(|i| i as u8).collect();
        let json: Json = serde_json::from_str(&output(tensor(DType::Uint8, &shape, data.clone()))).expect("it is JSON");
        let mut flat = Vec::new();
        let mut at = vec![&json["y"]];
        while let Some(value) = at.pop() {
            match value {
                Json::Array(values) => at.extend(values.iter().rev()),
                value => flat.push(value.as_u64().expect("a number") as u8),
            }
        }
        prop_assert_eq!(flat, data);
    }
}

/// Outcomes whose JSON is as long as it can be for their data, and others.
fn outcomes() -> impl Strategy<Value = Result<Value, ItemError>> {
    let texts = prop_oneof!["[\u{0}-\u{1f}]{0,40}", ".{0,40}"];
    let numbers = (
        0..12usize,
        proptest::collection::vec(any::<[u8; 8]>(), 0..6),
        0..4usize,
    );
    let tensors = numbers.prop_map(|(dtype, elements, outer)| {
        let dtype = DType::all().nth(dtype).expect("there are more");
        let size = dtype.size().expect("numbers have a size");
        let data: Vec<u8> = elements
            .iter()
            .flat_map(|element| &element[..size])
            .copied()
            .collect();
        let mut shape = vec![1; outer];
        shape.push(elements.len() as u64);
        tensor(dtype, &shape, data)
    });
    let strings = proptest::collection::vec("[\u{0}-\u{1f}]{0,3}", 0..6).prop_map(|texts| {
        let lengths = texts
            .iter()
            .flat_map(|text| [&(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat());
        tensor(DType::Bytes, &[texts.len() as u64, 1], lengths.collect())
    });
    let bytes = proptest::collection::vec(any::<u8>(), 0..40).prop_map(|data| {
        let media_type = "image/png".to_owned();
        Ok(Value::Bytes {
            data: data.into(),
            media_type,
        })
    });
    prop_oneof![
        texts.prop_map(|text| Ok(Value::Text(text.into()))),
        "[\u{0}-\u{1f}]{0,2000}".prop_map(|message| Err(ItemError::Invalid(message))),
        tensors,
        strings,
        bytes,
        Just(tensor(DType::Uint8, &[1000, 0], Vec::new())),
    ]
}

proptest! {
    #[test]
    fn a_reply_is_never_longer_than_its_maximum(outcomes in proptest::collection::vec(outcomes(), 1..6)) {
        let head = 256;
        let (_, reply) = encode(Form::List, &outcomes);
        // If all items fail, the most severe error is repeated for the request.
        prop_assert!(reply.len() <= head + max_size(&outcomes) + 64 + 6 * MAX_MESSAGE);
    }
}

#[test]
fn a_message_of_an_item_is_bounded() {
    let (_, reply) = encode(
        Form::List,
        &[text("a"), Err(ItemError::Invalid("x".repeat(100_000)))],
    );
    assert!(reply.len() < 2000, "{} bytes", reply.len());
}
