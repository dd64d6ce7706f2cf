use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::*;

fn head(form: Form) -> ReplyHead<'static> {
    ReplyHead {
        model: "digits",
        task: "image",
        form,
        request_size: 100_000,
        inference: Duration::from_millis(5),
        request_id: None,
    }
}

fn encode(form: Form, outcomes: &[Result<Value, ItemError>]) -> (u16, String) {
    let reply = encode_reply(&head(form), outcomes);
    (reply.status, String::from_utf8(reply.body).expect("JSON is text"))
}

fn tensor(dtype: DType, shape: &[u64], data: Vec<u8>) -> Result<Value, ItemError> {
    let tensor = Tensor::new("y", dtype, shape.to_vec(), data.into()).expect("the data matches the shape");
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
fn replies_have_the_order_and_the_form_of_the_request() {
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
fn a_failed_item_is_an_error_at_its_position() {
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
fn if_all_items_fail_the_most_severe_error_determines_the_status() {
    let outcomes = [
        Err(ItemError::Invalid("too dark".to_owned())),
        Err(ItemError::Fault("it broke".to_owned())),
    ];
    let (status, reply) = encode(Form::List, &outcomes);
    assert_eq!(status, 500);
    let reply: Json = serde_json::from_str(&reply).expect("the text is JSON");
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
            "error": {"code": "model_fault", "message": "all items failed; inputs[1]: it broke"},
        })
    );
}

#[test]
fn an_output_that_json_cannot_express_fails_only_its_item() {
    let nan = || {
        tensor(
            DType::Fp32,
            &[2],
            [1f32.to_le_bytes(), f32::NAN.to_le_bytes()].concat(),
        )
    };
    let (status, reply) = encode(Form::List, &[nan(), text("b")]);
    assert_eq!(status, 200);
    let reply: Json = serde_json::from_str(&reply).expect("the text is JSON");
    assert_eq!(
        reply["outputs"],
        json!([
            {"error": {"code": "model_fault", "message": "element 1 of output `y` is NaN, which JSON cannot express"}},
            "b",
        ])
    );
    assert_eq!(encode(Form::Single, &[nan()]).0, 500);
    let infinite = output(tensor(
        DType::Fp64,
        &[1],
        f64::NEG_INFINITY.to_le_bytes().to_vec(),
    ));
    assert!(
        infinite.contains("element 0 of output `y` is -inf"),
        "got {infinite}"
    );
    let bytes = output(tensor(DType::Bytes, &[1], b"\x01\0\0\0\xff".to_vec()));
    assert!(bytes.contains("not UTF-8"), "got {bytes}");
}

#[test]
fn bytes_are_base64_unless_the_client_accepts_their_media_type() {
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

/// Outcomes, including some with the longest possible JSON for their data.
fn outcomes() -> impl Strategy<Value = Result<Value, ItemError>> {
    let texts = prop_oneof!["[\u{0}-\u{1f}]{0,40}", ".{0,40}"];
    let numbers = (
        0..12usize,
        proptest::collection::vec(any::<[u8; 8]>(), 0..6),
        0..4usize,
    );
    let tensors = numbers.prop_map(|(dtype, elements, outer)| {
        let dtype = DType::all().nth(dtype).expect("the index is in range");
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
        // If all items fail, the reply repeats the most severe error.
        prop_assert!(reply.len() <= head + max_size(&outcomes) + 64 + 6 * MAX_MESSAGE);
    }
}

#[test]
fn the_errors_of_many_small_items_are_shortened_in_proportion_to_the_request() {
    let message = "\u{1}expected an object of tensors, got a number".repeat(20);
    let outcomes = vec![Err(ItemError::Invalid(message)); 1000];
    for request_size in [2_000, 10_000] {
        let head = ReplyHead {
            request_size,
            ..head(Form::List)
        };
        let reply = encode_reply(&head, &outcomes);
        let size = reply.body.len();
        assert!(
            size < MAX_ERROR_FACTOR * request_size + (12 << 10),
            "{size} bytes for {request_size}"
        );
        let reply: Json = serde_json::from_slice(&reply.body).expect("JSON");
        let items = reply["outputs"].as_array().expect("a list");
        assert_eq!(items.len(), 1000);
        for item in items {
            let message = item["error"]["message"].as_str().expect("a message");
            assert!(message.ends_with('…') && message.len() > 20, "{message}");
        }
    }
}

#[test]
fn the_error_message_of_an_item_is_truncated() {
    let (_, reply) = encode(
        Form::List,
        &[text("a"), Err(ItemError::Invalid("x".repeat(100_000)))],
    );
    assert!(reply.len() < 2000, "{} bytes", reply.len());
}
