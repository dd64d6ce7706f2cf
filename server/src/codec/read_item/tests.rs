use super::*;

fn task(kinds: &[Kind], tensors: &[(&str, &str, &[i64])]) -> TaskManifest {
    let mut task = TaskManifest {
        name: "scan".to_owned(),
        ..TaskManifest::default()
    };
    task.input.kinds = kinds.to_vec();
    task.input.tensors = tensors
        .iter()
        .map(|(name, dtype, shape)| TensorManifest::new(*name, *dtype, *shape))
        .collect();
    task
}

fn read(text: &str, task: &TaskManifest) -> Result<Value, String> {
    let body = Bytes::from(text.to_owned());
    let text = std::str::from_utf8(&body).expect("it was a string");
    read_item(&body, text, task).map_err(|error| {
        assert!(matches!(error, ItemError::Invalid(_)), "got {error:?}");
        error.to_string()
    })
}

#[test]
fn text_is_decoded() {
    let task = task(&[Kind::Text], &[]);
    let text = |text: &str| Ok(Value::Text(Bytes::from(text.to_owned())));
    assert_eq!(read(r#""plain""#, &task), text("plain"));
    assert_eq!(read(r#""""#, &task), text(""));
    assert_eq!(read(r#""a\n\u00e9\ud83d\ude00\"""#, &task), text("a\né😀\""));
    assert!(
        read(r#""\ud800""#, &task)
            .expect_err("the surrogate is unpaired")
            .starts_with("invalid string")
    );
    assert_eq!(
        read("5", &task),
        Err("expected a string, got a number".to_owned())
    );
}

#[test]
fn text_without_escapes_shares_the_body() {
    let body = Bytes::from_static(b"{\"input\":\"plain\"}");
    let item = std::str::from_utf8(&body[9..16]).expect("it is text");
    let value = read_item(&body, item, &task(&[Kind::Text], &[]));
    let Ok(Value::Text(text)) = value else {
        panic!("expected text, got {value:?}");
    };
    assert_eq!(text.as_ptr(), body[10..].as_ptr());
}

#[test]
fn bytes_are_base64_or_data_uris() {
    let mut task = task(&[Kind::Bytes], &[]);
    task.input.media_types = vec!["image/*".to_owned()];
    let bytes = |data: &'static [u8], media_type: &str| {
        Ok(Value::Bytes {
            data: data.into(),
            media_type: media_type.to_owned(),
        })
    };
    assert_eq!(read(r#"{"b64":"AAE="}"#, &task), bytes(b"\x00\x01", ""));
    assert_eq!(
        read(r#"{"media_type":"image/png","b64":"AAE"}"#, &task),
        bytes(b"\x00\x01", "image/png")
    );
    assert_eq!(
        read(r#""data:image\/png;base64,AAE=""#, &task),
        bytes(b"\x00\x01", "image/png")
    );
    let cases = [
        (
            r#"{"b64":"A*E="}"#,
            "`b64`: invalid base64: Invalid symbol 42, offset 1.",
        ),
        (r#"{"b64":5}"#, "`b64`: expected a string, got a number"),
        (
            r#"{"base64":"AAE="}"#,
            "unknown member `base64`; expected b64 or media_type",
        ),
        (r#"{}"#, "missing member `b64`: expected base64 data"),
        (r#"{"b64":"","b64":""}"#, "duplicate member `b64`"),
        (
            r#"{"b64":"","media_type":"text/css"}"#,
            "unsupported media type `text/css`: task `scan` accepts image/*",
        ),
        (
            r#""AAE=""#,
            "expected an object {\"b64\": …, \"media_type\": …} or a data URI in base64, got a string",
        ),
        (
            r#""data:text/css;base64,""#,
            "unsupported media type `text/css`: task `scan` accepts image/*",
        ),
    ];
    for (item, expected) in cases {
        assert_eq!(read(item, &task), Err(expected.to_owned()), "for {item}");
    }
}

#[test]
fn the_json_type_of_an_item_determines_its_kind() {
    let kind = |text: &str, kinds: &[Kind]| choose_kind(kinds, JsonForm::of(text), text);
    use Kind::{Bytes, Json, Tensors, Text};
    let all = [Text, Bytes, Json, Tensors];
    assert_eq!(kind("\"a\"", &all), Some(Text));
    assert_eq!(kind("{\"b64\":\"\"}", &all), Some(Bytes));
    assert_eq!(kind("{\"a\":\"\"}", &all), Some(Json));
    assert_eq!(kind("{\"a\":[]}", &[Text, Tensors]), Some(Tensors));
    assert_eq!(kind("[1]", &all), Some(Tensors));
    assert_eq!(kind("[1]", &[Text, Json]), Some(Json));
    assert_eq!(kind("5", &[Text, Bytes]), None);
}

#[test]
fn a_single_tensor_needs_no_name() {
    let one = task(&[Kind::Tensors], &[("x", "UINT8", &[2])]);
    assert_eq!(read("[1,2]", &one), read("{\"x\":[1,2]}", &one));
    let two = task(&[Kind::Tensors], &[("x", "UINT8", &[2]), ("mask", "BOOL", &[1])]);
    let value = read("{\"mask\":[true],\"x\":[1,2]}", &two);
    let Ok(Value::Tensors(tensors)) = value else {
        panic!("expected tensors, got {value:?}");
    };
    let names: Vec<&str> = tensors.iter().map(|tensor| tensor.name()).collect();
    assert_eq!(names, ["x", "mask"]);
    assert_eq!(tensors[1].data(), &[1u8][..]);
    let cases = [
        ("{\"x\":[1,2]}", "missing tensor `mask`; expected `x`, `mask`"),
        (
            "{\"musk\":[true]}",
            "unknown tensor `musk`, did you mean `mask`?; expected `x`, `mask`",
        ),
        (
            "[1,2]",
            "expected an object with the tensors `x`, `mask`, got an array",
        ),
    ];
    for (item, expected) in cases {
        assert_eq!(read(item, &two), Err(expected.to_owned()), "for {item}");
    }
}
