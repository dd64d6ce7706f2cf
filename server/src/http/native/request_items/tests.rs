use serde_json::json;

use super::*;

const LIMITS: BodyLimits = BodyLimits { items: 4, depth: 16 };

fn task(kinds: &[Kind], media_types: &[&str]) -> TaskManifest {
    let mut task = TaskManifest {
        name: "scan".to_owned(),
        ..TaskManifest::default()
    };
    task.input.kinds = kinds.to_vec();
    task.input.media_types = media_types.iter().map(|&name| name.to_owned()).collect();
    task
}

#[test]
fn parameters_are_rejected_if_the_task_takes_none() {
    let body = Bytes::from_static(b"{\"input\":\"a\",\"parameters\":{\"k\":1}}");
    let mut task = task(&[Kind::Text], &[]);
    let read = |task: &TaskManifest| read_body(&body, None, task, LIMITS);
    assert_eq!(
        read(&task).expect_err("the task takes no parameters").to_string(),
        "task `scan` takes no parameters"
    );
    task.parameters_schema = json!({"type": "object"});
    let items = read(&task).expect("the task takes parameters").items;
    assert_eq!(
        items,
        [Ok(ItemInput {
            value: Value::Text(Bytes::from_static(b"a")),
            parameters: Bytes::from_static(b"{\"k\":1}"),
        })]
    );
}

#[test]
fn a_raw_body_is_one_item() {
    let body = Bytes::from_static(b"abc");
    let read = |content_type: &str, task: &TaskManifest| {
        read_body(&body, Some(content_type), task, LIMITS).map(|body| {
            assert_eq!(body.form, Form::Single);
            let item = body.items.into_iter().next().expect("one item");
            item.expect("the item is valid").value
        })
    };
    let bytes = |media_type: &str| {
        Ok(Value::Bytes {
            data: body.clone(),
            media_type: media_type.to_owned(),
        })
    };
    let image = task(&[Kind::Bytes], &["image/png", "audio/*"]);
    assert_eq!(read("image/PNG; q=1", &image), bytes("image/png"));
    assert_eq!(read("audio/wav", &image), bytes("audio/wav"));
    assert_eq!(
        read("application/octet-stream", &image),
        bytes("application/octet-stream")
    );
    assert_eq!(
        read("image/gif", &image)
            .expect_err("GIF is not accepted")
            .to_string(),
        "unsupported media type `image/gif`: task `scan` accepts application/json, \
         application/octet-stream, image/png, audio/*"
    );
    let text = task(&[Kind::Text], &[]);
    assert_eq!(
        read("text/plain; charset=\"UTF-8\"", &text),
        Ok(Value::Text(body.clone()))
    );
    assert!(read("text/plain; charset=latin1", &text).is_err());
    assert_eq!(
        read(FORM, &text).expect_err("the body is not JSON").to_string(),
        "unsupported media type `application/x-www-form-urlencoded`: task `scan` accepts application/json, text/plain; \
        set the header `content-type` (`curl -d` sends the form type by default)"
    );
    let anything = task(&[Kind::Bytes], &[]);
    assert_eq!(read(FORM, &anything), bytes(FORM));
    assert_eq!(
        read_body(&Bytes::from_static(b"a\xff"), Some("text/plain"), &text, LIMITS),
        Err(RequestError::NotUtf8 { offset: 1 })
    );
}

#[test]
fn json_is_accepted_with_the_content_types_of_common_tools() {
    let request = Bytes::from_static(b" {\"input\": \"a\"}");
    let kinds = [&[Kind::Text][..], &[Kind::Text, Kind::Bytes], &[Kind::Json]];
    for kinds in kinds {
        let task = task(kinds, &[]);
        let read = |content_type| {
            let body = read_body(&request, content_type, &task, LIMITS);
            body.unwrap_or_else(|error| panic!("{content_type:?}: {error}"))
                .form
        };
        let json = [
            None,
            Some(""),
            Some("application/json"),
            Some("application/json; charset=utf-8"),
            Some("Application/JSON;charset=UTF-8"),
            Some("text/json"),
            Some("application/problem+json"),
            Some("application/x-www-form-urlencoded"),
            Some("application/x-www-form-urlencoded; charset=utf-8"),
        ];
        for content_type in json {
            assert_eq!(read(content_type), Form::Single);
        }
    }
    let text = task(&[Kind::Text], &[]);
    let raw = read_body(&request, Some("text/plain"), &text, LIMITS).expect("the task takes text");
    assert_eq!(raw.items.len(), 1);
    assert_eq!(
        raw.items[0].as_ref().map(|item| &item.value),
        Ok(&Value::Text(request.clone()))
    );
    let empty = read_body(&Bytes::new(), Some(FORM), &text, LIMITS);
    assert!(matches!(empty, Err(RequestError::Malformed { .. })), "{empty:?}");
}
