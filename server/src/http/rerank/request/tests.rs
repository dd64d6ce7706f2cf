use super::*;

const LIMITS: BodyLimits = BodyLimits { items: 4, depth: 8 };

fn read(body: &Json) -> Result<RerankRequest, Failure> {
    RerankRequest::read(body.to_string().as_bytes(), false, LIMITS)
}

#[test]
fn the_member_with_the_texts_tells_the_families_apart() {
    let tei = read(&json!({"query": "q", "texts": ["a", "b"], "return_text": true})).expect("valid");
    assert_eq!(
        (tei.family, tei.returns_texts, tei.truncate),
        (Family::TextEmbeddingsInference, true, Some(false))
    );
    let documents = json!(["a", {"text": "b\n", "title": "ignored"}]);
    let cohere =
        read(&json!({"model": "m", "query": "q", "documents": documents, "top_n": 1})).expect("valid");
    assert_eq!(
        (cohere.family, cohere.top_n, cohere.truncate),
        (Family::Cohere, Some(1), None)
    );
    assert_eq!(cohere.question(), json!({"query": "q", "passages": ["a", "b\n"]}));
}

#[test]
fn members_of_other_clients_mean_the_same() {
    let with = |name: &str, value: Json| {
        let mut body = json!({"query": "q", "documents": ["a"]});
        body[name] = value;
        read(&body).expect("valid")
    };
    assert_eq!(
        with("use_activation", json!(false)),
        with("raw_scores", json!(true))
    );
    assert_eq!(with("activation", json!(true)), with("raw_scores", json!(false)));
    assert_eq!(
        with("return_text", json!(false)),
        with("return_documents", json!(false))
    );
    assert_eq!(
        with("truncation_side", json!("left")),
        with("truncation_direction", json!("Left"))
    );
    for (name, value) in [
        ("rank_fields", json!(["text"])),
        ("priority", json!(0)),
        ("top_n", Json::Null),
    ] {
        assert_eq!(with(name, value), with("user", json!("u")), "{name}");
    }
    let texts = json!({"query": "q", "texts": ["a"], "return_documents": true});
    assert!(read(&texts).expect("valid").returns_texts);
}

#[test]
fn documents_are_returned_by_default_only_at_the_paths_of_jina() {
    let body = json!({"query": "q", "documents": ["a"]}).to_string();
    let returns = |is_v2| {
        let request = RerankRequest::read(body.as_bytes(), is_v2, LIMITS).expect("valid");
        request.returns_texts
    };
    assert_eq!((returns(false), returns(true)), (true, false));
}

#[test]
fn malformed_and_unsupported_requests_are_rejected_with_the_member() {
    let cases = [
        (
            json!({"documents": ["a"]}),
            400,
            "query",
            "missing member `query`",
        ),
        (
            json!({"query": "q"}),
            400,
            "documents",
            "missing member `documents` or `texts`",
        ),
        (
            json!({"query": "q", "documents": ["a"], "texts": ["a"]}),
            400,
            "documents",
            "both `texts` and `documents` are present; send one of them",
        ),
        (
            json!({"query": "q", "documents": []}),
            400,
            "documents",
            "`documents` has no items; expected at least one",
        ),
        (
            json!({"query": "q", "texts": ["a", "a", "a", "a", "a"]}),
            400,
            "texts",
            "`texts` has too many items: expected at most 4 per request",
        ),
        (
            json!({"query": "q", "documents": ["a", 3]}),
            400,
            "documents",
            "`documents[1]`: expected a string or an object with `text`, got a number",
        ),
        (
            json!({"query": "q", "documents": ["a"], "top_n": 0}),
            400,
            "top_n",
            "invalid value 0 for `top_n`: expected at least 1",
        ),
        (
            json!({"query": "q", "documents": ["a"], "max_tokens_per_doc": 100}),
            422,
            "max_tokens_per_doc",
            "`max_tokens_per_doc` is not supported; remove it",
        ),
        (
            json!({"query": "q", "documents": [{"text": "a", "title": "b"}], "rank_fields": ["title", "text"]}),
            422,
            "rank_fields",
            "`rank_fields` is not supported, except for [\"text\"]; remove it",
        ),
        (
            json!({"query": "q", "documents": ["a"], "return_embeddings": true}),
            422,
            "return_embeddings",
            "`return_embeddings` = true is not supported; remove it",
        ),
        (
            json!({"query": "q", "documents": ["a"], "priority": 3}),
            422,
            "priority",
            "`priority` = 3 is not supported; send the header `x-priority`",
        ),
        (
            json!({"query": "q", "documents": ["a"], "raw_scores": true, "use_activation": true}),
            400,
            "use_activation",
            "`raw_scores` and `use_activation` contradict each other; send one of them",
        ),
        (
            json!({"query": "q", "documents": ["a"], "truncation_side": "left", "truncation_direction": "Right"}),
            400,
            "truncation_side",
            "`truncation_direction` and `truncation_side` differ; send one of them",
        ),
        (
            json!({"query": "q", "texts": ["a"], "truncation_direction": "up"}),
            400,
            "truncation_direction",
            "invalid value `up` for `truncation_direction`: expected Left or Right",
        ),
        (
            json!({"query": "q", "texts": ["a"], "prompt_name": "query"}),
            422,
            "prompt_name",
            "`prompt_name` is not supported; remove it",
        ),
    ];
    for (body, status, param, message) in cases {
        let failure = read(&body).expect_err("invalid");
        assert_eq!(
            (failure.code.status(), failure.param, failure.message.as_str()),
            (status, Some(param), message),
            "{body}"
        );
    }
}

#[test]
fn parameters_that_the_task_does_not_have_are_rejected_unless_they_are_the_default() {
    let with = TaskManifest {
        parameters_schema: json!({"properties": {"raw_scores": {}, "truncate": {}, "truncation_direction": {}}}),
        ..TaskManifest::default()
    };
    let without = TaskManifest::default();
    let tei = read(&json!({"query": "q", "texts": ["a"]})).expect("valid");
    assert_eq!(
        tei.parameters(&with),
        Ok(Bytes::from_static(b"{\"raw_scores\":false,\"truncate\":false}"))
    );
    assert_eq!(tei.parameters(&without), Ok(Bytes::new()));
    let raw =
        read(&json!({"query": "q", "texts": ["a"], "raw_scores": true, "truncate": true})).expect("valid");
    assert_eq!(
        raw.parameters(&with),
        Ok(Bytes::from_static(b"{\"raw_scores\":true,\"truncate\":true}"))
    );
    assert_eq!(
        raw.parameters(&without).map_err(|failure| failure.param),
        Err(Some("raw_scores"))
    );
    let left = read(&json!({"query": "q", "texts": ["a"], "truncation_direction": "Left"})).expect("valid");
    assert_eq!(
        left.parameters(&with),
        Ok(Bytes::from_static(
            b"{\"raw_scores\":false,\"truncate\":false,\"truncation_direction\":\"left\"}"
        ))
    );
    assert_eq!(
        left.parameters(&without).map_err(|failure| failure.param),
        Err(Some("truncation_direction"))
    );
}
