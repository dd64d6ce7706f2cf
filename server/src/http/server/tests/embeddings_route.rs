use serde_json::{Value as Json, json};

use super::test_server::TestServer;

const PATH: &str = "/v1/embeddings";

#[actix_web::test]
async fn a_string_or_an_array_of_strings_is_embedded() {
    let server = TestServer::start();
    let expected = |vectors: Json| {
        let data: Vec<Json> = vectors
            .as_array()
            .expect("the embeddings are an array")
            .iter()
            .enumerate()
            .map(|(index, vector)| json!({"object": "embedding", "index": index, "embedding": vector}))
            .collect();
        json!({"object": "list", "data": data, "model": "vision",
            // The task does not state weights.
            "usage": {"prompt_tokens": 0, "total_tokens": 0}})
    };
    let one = server
        .post(PATH, &json!({"model": "vision", "input": "abc", "user": "me"}))
        .await;
    assert_eq!((one.status, one.json()), (200, expected(json!([[3.0, 0.5]]))));
    let two = json!({"model": "vision", "input": ["a", "ä\n"], "encoding_format": "float", "dimensions": 2});
    let two = server.post(PATH, &two).await;
    assert_eq!(
        (two.status, two.json()),
        (200, expected(json!([[1.0, 0.5], [3.0, 0.5]])))
    );
    let base64 = json!({"model": "vision.embed", "input": ["abc"], "encoding_format": "base64"});
    let base64 = server.post(PATH, &base64).await.json();
    assert_eq!(base64["data"][0]["embedding"], "AABAQAAAAD8=");
    assert_eq!(base64["model"], "vision.embed");
}

#[actix_web::test]
async fn invalid_requests_get_errors_in_the_format_of_openai() {
    let server = TestServer::start();
    let cases = [
        (
            json!({"model": "visoin", "input": "a"}),
            (404, "model"),
            "unknown model `visoin`, did you mean `vision`?; known models: later, vision, vision.embed, vision.flip, \
             vision.negate, vision.upper, vision.wait, vision.whole",
        ),
        (
            json!({"model": "vision.upper", "input": "a"}),
            (400, "model"),
            "`vision.upper` does not produce embeddings; available: vision.embed",
        ),
        (
            json!({"model": "vision", "input": [9906, 100_256]}),
            (400, "input"),
            "`input[0]`: token id 100256 is not in the vocabulary cl100k_base; send texts (in LangChain, \
             `check_embedding_ctx_length=False`), or set `token_ids = \"model\"` in [models.embeddings] if the ids are those of \
             the model",
        ),
        (
            json!({"model": "vision", "input": [[1], []]}),
            (400, "input"),
            "`input[1]` has no token ids",
        ),
        (
            json!({"model": "vision", "input": []}),
            (400, "input"),
            "`input` has no items; expected at least one",
        ),
        (
            json!({"model": "vision", "input": ["a", null]}),
            (400, "input"),
            "`input`: expected strings or token ids, got null",
        ),
        (
            json!({"model": "vision", "input": {"a": 1}}),
            (400, "input"),
            "`input`: expected a string or an array, got an object",
        ),
        (
            json!({"model": "vision", "input": vec!["a"; 9]}),
            (400, "input"),
            "`input` has too many items: expected at most 8 per request",
        ),
        (
            json!({"model": "vision", "input": "a", "encoding_format": "hex"}),
            (400, "encoding_format"),
            "invalid value `hex` for `encoding_format`: expected float or base64",
        ),
        (
            json!({"model": "vision", "input": "a", "dimensions": 3}),
            (400, "dimensions"),
            "invalid value 3 for `dimensions`: the embeddings of `vision` always have 2 dimensions; `dimensions = \"truncate\"` \
             in [models.embeddings] permits fewer",
        ),
    ];
    for (request, (status, param), message) in cases {
        let answer = server.post(PATH, &request).await;
        let error = &answer.json()["error"];
        assert_eq!(
            (answer.status, &error["message"]),
            (status, &json!(message)),
            "{request}"
        );
        assert_eq!(
            (&error["param"], &error["type"]),
            (&json!(param), &json!("invalid_request_error"))
        );
        assert!(error["code"].is_string());
    }
    // Only one model embeds.
    let answer = server.post(PATH, &json!({"input": "a"})).await;
    assert_eq!(answer.status, 200);
    let answer = server.post(PATH, &json!({"model": "later", "input": "a"})).await;
    assert_eq!(
        (answer.status, &answer.json()["error"]["type"]),
        (503, &json!("server_error"))
    );
    assert_eq!(server.get(PATH).await.status, 405);
}

#[actix_web::test]
async fn clients_must_send_a_key_if_keys_are_configured() {
    let server = TestServer::start_with("api_keys = [\"0123456789abcdef\"]");
    let body = json!({"model": "vision", "input": "a"}).to_string();
    let refused = server.send(&format!("POST {PATH}"), body.as_bytes()).await;
    assert_eq!(
        (refused.status, refused.header("www-authenticate")),
        (401, Some("Bearer"))
    );
    assert_eq!(refused.json()["error"]["code"], "unauthorized");
    let let_in = format!("POST {PATH}\nauthorization: Bearer 0123456789abcdef");
    assert_eq!(server.send(&let_in, body.as_bytes()).await.status, 200);
    let in_v2 = server.get("/v2/models/vision").await;
    assert_eq!(
        (in_v2.status, in_v2.json()),
        (
            401,
            json!({"error": "missing API key: expected the header `authorization: Bearer KEY`"})
        )
    );
    for open in ["/livez", "/metrics", "/v2/health/live", "/openapi.json"] {
        assert_eq!(server.get(open).await.status, 200, "{open}");
    }
}
