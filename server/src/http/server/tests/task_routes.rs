use serde_json::json;

use super::test_server::{TestServer, exchange};

const SHOUT: &[u8] = b"{\"input\":\"hello\"}";

/// The lines of `http_requests_total` for a route.
async fn counts(server: &TestServer, endpoint: &str) -> Vec<String> {
    let prefix = format!("http_requests_total{{endpoint=\"{endpoint}\",");
    let text = server.get("/metrics").await.text();
    let lines = text.lines().filter_map(|line| line.strip_prefix(&prefix));
    lines.map(str::to_owned).collect()
}

#[actix_web::test]
async fn a_request_is_answered_alike_whether_or_not_it_passes_through_actix() {
    let server = TestServer::start_with("cors_allowed_origins = [\"https://a.example\"]");
    for path in [
        "/v1/models/vision/tasks/upper/predict",
        "/v1/models/vision/predict",
        "/v1/models/vision:predict",
        "/v1/models/vision/versions/1:predict",
        "/v2/models/vision/infer",
        "/v1/embeddings",
    ] {
        let encoded = path.replace("vision", "visio%6e");
        for body in [SHOUT, b"{"] {
            let direct = server.send(&format!("POST {path}"), body).await;
            let through_actix = server.send(&format!("POST {encoded}"), body).await;
            let from_page = server
                .send(&format!("POST {path}\norigin: https://a.example"), body)
                .await;
            let without_times = |body: &[u8]| {
                let text = String::from_utf8_lossy(body).into_owned();
                let end = text.find("\"inference_time\"").or(text.find("\"request_id\""));
                text[..end.unwrap_or(text.len())].to_owned()
            };
            for other in [&through_actix, &from_page] {
                assert_eq!(other.status, direct.status, "{path}");
                assert_eq!(without_times(&other.body), without_times(&direct.body), "{path}");
                for name in ["content-type", "vary"] {
                    let vary = |answer: &super::test_server::Answer| {
                        let value = answer.header(name).unwrap_or_default().to_lowercase();
                        value.contains("accept-encoding") || name != "vary"
                    };
                    assert_eq!(vary(other), vary(&direct), "{path}");
                }
            }
            assert_eq!(
                from_page.header("access-control-allow-origin"),
                Some("https://a.example"),
                "{path}"
            );
        }
    }
}

#[actix_web::test]
async fn a_header_that_must_not_be_repeated_is_an_error_in_the_format_of_the_protocol() {
    let server = TestServer::start();
    for (path, member) in [
        ("/v1/models/vision/tasks/upper/predict", "/error/message"),
        // Passes through actix-web.
        ("/v1/models/visio%6e/tasks/upper/predict", "/error/message"),
        ("/shout", "/error/message"),
        ("/v1/models/vision:predict", "/error"),
        ("/v2/models/vision/infer", "/error"),
        ("/v1/embeddings", "/error/message"),
        ("/rerank", "/message"),
        ("/v2/embed", "/message"),
    ] {
        let head = format!("POST {path}\nx-priority: high\nx-priority: low");
        let answer = server.send(&head, SHOUT).await;
        assert_eq!(
            (answer.status, answer.json().pointer(member)),
            (400, Some(&json!("header x-priority: expected one value, got 2"))),
            "{path}"
        );
    }
    for header in ["authorization: Bearer a", "host: test"] {
        let answer = server
            .send(&format!("GET /v1/models\n{header}\n{header}"), b"")
            .await;
        assert_eq!(answer.status, 400, "{header}");
    }
    for list in [
        "accept: */*",
        "cookie: a=b",
        "x-forwarded-proto: https",
        "x-request-id: a",
    ] {
        let answer = server.send(&format!("GET /v1/models\n{list}\n{list}"), b"").await;
        assert_eq!(answer.status, 200, "{list}");
    }
}

#[actix_web::test]
async fn every_request_to_a_task_is_counted_once_by_its_route() {
    let server = TestServer::start_with("api_keys = [\"a-key-of-a-client\"]\ncors_allowed_origins = [\"*\"]");
    let path = "/v1/models/vision/tasks/upper/predict";
    let key = "authorization: Bearer a-key-of-a-client";
    let with_key = format!("POST {path}\n{key}");
    assert_eq!(server.send(&with_key, SHOUT).await.status, 200);
    let from_page = format!("{with_key}\norigin: https://a.example");
    assert_eq!(server.send(&from_page, SHOUT).await.status, 200);
    let encoded = with_key.replace("/predict", "/%70redict");
    assert_eq!(server.send(&encoded, SHOUT).await.status, 200);
    assert_eq!(server.send(&format!("POST {path}"), SHOUT).await.status, 401);
    assert_eq!(server.send(&format!("GET {path}\n{key}"), b"").await.status, 405);
    let none = format!("{with_key}\naccept-encoding: identity;q=0");
    assert_eq!(server.send(&none, SHOUT).await.status, 406);
    assert_eq!(
        counts(&server, "/v1/models/{model}/tasks/{task}/predict").await,
        [
            "method=\"GET\",status=\"405\"} 1",
            "method=\"POST\",status=\"200\"} 3",
            "method=\"POST\",status=\"401\"} 1",
            "method=\"POST\",status=\"406\"} 1",
        ]
    );
}

#[actix_web::test]
async fn a_request_without_a_key_is_counted_by_its_route() {
    let server = TestServer::start_with("api_keys = [\"a-key-of-a-client\"]");
    assert_eq!(server.get("/v1/models").await.status, 401);
    assert_eq!(
        counts(&server, "/v1/models").await,
        ["method=\"GET\",status=\"401\"} 1"]
    );
}

#[actix_web::test]
async fn a_connection_can_send_probes_and_predictions_in_any_order() {
    let server = TestServer::start();
    let probe = b"GET /livez HTTP/1.1\r\nhost: test\r\n\r\n".to_vec();
    let predict = [
        format!(
            "POST /shout HTTP/1.1\r\nhost: test\r\ncontent-length: {}\r\n\r\n",
            SHOUT.len()
        )
        .as_bytes(),
        SHOUT,
    ]
    .concat();
    let mut stream = server.connect().await;
    for request in [&probe, &probe, &predict, &probe, &predict] {
        assert_eq!(exchange(&mut stream, request).await.status, 200);
    }
    // In one packet, and with the start of a request after the end of another one.
    let mut stream = server.connect().await;
    let (start, rest) = predict.split_at(10);
    let first = exchange(&mut stream, &[&probe, &predict, &probe, start].concat()).await;
    assert_eq!(first.status, 200);
    assert!(exchange(&mut stream, b"").await.text().contains("HELLO"));
    assert_eq!(exchange(&mut stream, b"").await.status, 200);
    assert!(exchange(&mut stream, rest).await.text().contains("HELLO"));
    assert_eq!(exchange(&mut stream, &probe).await.status, 200);
    // A request whose first packet is too short to tell.
    let mut stream = server.connect().await;
    stream.set_nodelay(true).expect("the socket is open");
    tokio::io::AsyncWriteExt::write_all(&mut stream, b"GET /li")
        .await
        .expect("the server reads the request");
    let rest = exchange(&mut stream, b"vez HTTP/1.1\r\nhost: test\r\n\r\n").await;
    assert_eq!(rest.status, 200);
}
