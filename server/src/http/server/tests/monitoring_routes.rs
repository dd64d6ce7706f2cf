use serde_json::{Value as Json, json};

use super::test_server::TestServer;

#[actix_web::test]
async fn the_list_of_models_serves_clients_of_every_protocol() {
    let server = TestServer::start();
    let list = server.get("/v1/models").await.json();
    assert_eq!(list["object"], json!("list"));
    assert_eq!(list["data"], list["models"]);
    let ready: Vec<_> = list["data"]
        .as_array()
        .expect("the value is an array")
        .iter()
        .map(|model| {
            (
                model["id"].clone(),
                model["ready"].clone(),
                model["state"].clone(),
            )
        })
        .collect();
    assert_eq!(
        ready,
        [
            (json!("later"), json!(false), json!("loading")),
            (json!("vision"), json!(true), json!("ready"))
        ]
    );
    let later = server.get("/v1/models/later").await.json();
    assert_eq!(later["explanation"][0]["code"], json!("loading"));
    assert_eq!(later["recent"], json!(null));
    let model = server.get("/v1/models/vision").await.json();
    assert_eq!(model["default_task"], json!("upper"));
    assert_eq!(model["generation"], json!(1));
    assert_eq!(model["tasks"][0]["route"], json!("/shout"));
    assert_eq!(server.get("/v1/models/nobody").await.error().0, 404);
}

#[actix_web::test]
async fn a_model_reports_which_tasks_have_run_and_the_details_of_its_plugin() {
    let server = TestServer::start();
    let trials = |model: &Json| -> Vec<Json> {
        let tasks = model["tasks"].as_array().cloned().unwrap_or_default();
        tasks
            .iter()
            .map(|task| task["trial"]["outcome"].clone())
            .collect()
    };
    let model = server.get("/v1/models/vision").await.json();
    assert_eq!(model["details"], json!({"runtime": "made up"}));
    assert_eq!(trials(&model)[..3], ["succeeded", "untried", "untried"]);
    assert_eq!(
        model["tasks"][2]["trial"]["reason"],
        json!("the task has no example")
    );
    assert_eq!(model["tasks"][5]["unbatched"], json!(true));

    let body = json!({"inputs": [{"x": [1, 2]}]});
    let answer = server.post("/v1/models/vision/tasks/negate/predict", &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let model = server.get("/v1/models/vision").await.json();
    assert_eq!(trials(&model)[..3], ["succeeded", "untried", "succeeded"]);
}

#[actix_web::test]
async fn readiness_is_not_liveness() {
    let server = TestServer::start();
    assert_eq!(server.get("/livez").await.status, 200);
    assert_eq!(server.get("/readyz").await.status, 503);
    let health = server.get("/health").await;
    assert_eq!(health.status, 503);
    assert_eq!(
        health.json(),
        json!({"status": "not ready", "ready": false, "models": {"later": "loading", "vision": "ready"}})
    );
    server.remove_later();
    assert_eq!(server.get("/readyz").await.json(), json!({"ready": true}));
    assert_eq!(server.get("/health").await.json()["status"], json!("ok"));
    server.registry.start_draining();
    assert_eq!(server.get("/readyz").await.status, 503);
    assert_eq!(server.get("/health").await.json()["status"], json!("stopping"));
    assert_eq!(server.get("/livez").await.status, 200);
}

/// Models catch the panics of plugins, so this is a panic of the server itself.
#[actix_web::test]
async fn a_model_whose_worker_panicked_three_times_in_a_row_has_failed_and_the_server_is_not_ready() {
    let server = TestServer::start();
    server.remove_later();
    let ready = "inference_model_ready{model=\"vision\"}";
    let path = "/v1/models/vision/tasks/upper/predict";
    assert_eq!(server.get("/readyz").await.status, 200);
    assert_eq!(server.metric(ready).await, Some(1.0));
    for _ in 0..3 {
        let answer = server.post(path, &json!({"inputs": ["panic"]})).await;
        let message = "all items failed; inputs[0]: the server panicked while it ran this item";
        assert_eq!(
            answer.error(),
            (500, "model_fault".to_owned(), message.to_owned())
        );
    }
    server.metric_becomes(ready, 0.0).await;
    assert_eq!(server.get("/readyz").await.status, 503);
    assert_eq!(
        server.get("/health").await.json()["models"],
        json!({"vision": "failed"})
    );
    let model = server.get("/v1/models/vision").await.json();
    let reason = "its workers panicked 3 times in a row; the model has to be reloaded";
    assert_eq!(
        (&model["ready"], &model["state"], &model["reason"]),
        (&json!(false), &json!("failed"), &json!(reason))
    );
    assert_eq!(model["explanation"][0]["code"], json!("panics"));
    let answer = server.post(path, &json!({"inputs": ["hello"]})).await;
    assert_eq!(answer.error().0, 503);
    assert_eq!(server.get("/livez").await.status, 200);
}

#[actix_web::test]
async fn head_is_get_without_a_body() {
    let server = TestServer::start();
    for path in [
        "/",
        "/livez",
        "/v1/models",
        "/v1/models/vision",
        "/openapi.json",
        "/docs/",
        "/metrics",
    ] {
        let answer = server.send(&format!("HEAD {path}"), b"").await;
        assert_eq!(answer.status, 200, "for {path}");
        assert!(answer.body.is_empty(), "for {path}");
        assert_ne!(answer.header("content-length"), Some("0"), "for {path}");
    }
}

#[actix_web::test]
async fn an_unsupported_method_is_rejected_with_the_supported_ones() {
    let server = TestServer::start();
    let answer = server.send("DELETE /v1/models/vision", b"").await;
    assert_eq!(answer.error().0, 405);
    assert_eq!(answer.header("allow"), Some("GET, HEAD"));
    for path in ["/shout", "/v1/models/vision/predict", "/v1/models/vision:predict"] {
        let answer = server.get(path).await;
        assert_eq!(answer.error().0, 405, "for {path}");
        assert_eq!(answer.header("allow"), Some("POST"), "for {path}");
    }
    assert_eq!(server.send("BREW /shout", b"").await.error().0, 405);
}

#[actix_web::test]
async fn the_documentation_is_embedded_in_the_executable() {
    let server = TestServer::start();
    let answer = server.get("/docs").await;
    assert_eq!((answer.status, answer.header("location")), (308, Some("docs/")));
    let page = server.get("/docs/").await;
    assert!(page.text().contains("swagger-ui"));
    assert!(
        page.header("content-type")
            .is_some_and(|kind| kind.starts_with("text/html"))
    );
    assert!(
        server
            .get("/docs/swagger-initializer.js")
            .await
            .text()
            .contains("../openapi.json")
    );
    for file in ["swagger-ui-bundle.js", "swagger-ui.css"] {
        assert!(page.text().contains(&format!("\"{file}\"")), "for {file}");
        let served = server.get(&format!("/docs/{file}")).await;
        assert!(served.body.len() > 100_000, "for {file}");
    }
    // Those that the page does not load are empty in releases.
    for file in ["nothing.js", "swagger-ui-es-bundle.js", "favicon-32x32.png"] {
        assert_eq!(
            server.get(&format!("/docs/{file}")).await.error().0,
            404,
            "for {file}"
        );
    }

    let document = server.get("/openapi.json").await.json();
    assert_eq!(document["openapi"], json!("3.1.0"));
    for path in [
        "/shout",
        "/v1/models/vision/predict",
        "/v1/models/vision/tasks/flip/predict",
    ] {
        assert!(document["paths"][path]["post"].is_object(), "no {path}");
    }
    assert!(document["paths"]["/v1/models/later/predict"].is_null());
    server.registry.publish(server.registry.snapshot().next([]));
    let document = server.get("/openapi.json").await.json();
    assert!(
        document["paths"]["/shout"].is_null(),
        "the document is out of date"
    );
}

#[actix_web::test]
async fn browsers_get_a_page_at_the_root_and_other_clients_get_json() {
    let server = TestServer::start_with("ui = false");
    for accept in ["", "\naccept: */*", "\naccept: application/json"] {
        let answer = server.send(&format!("GET /{accept}"), b"").await;
        assert_eq!(answer.json()["name"], json!("inference-server"), "{accept}");
        assert!(answer.header("vary").is_some_and(|vary| vary.contains("accept")));
    }
    let page = server.send("GET /\naccept: text/html,*/*;q=0.8", b"").await;
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    assert!(page.header("vary").is_some_and(|vary| vary.contains("accept")));
    assert!(
        page.header("content-security-policy")
            .is_some_and(|policy| policy.contains("default-src 'none'"))
    );
    let text = page.text();
    for part in [
        "vision",
        "later",
        "loading",
        "href=\"docs/\"",
        "href=\"metrics\"",
        "href=\"health\"",
        "href=\"v1/models\"",
    ] {
        assert!(text.contains(part), "{part} is missing: {text}");
    }
    assert!(!text.contains("href=\"/") && !text.contains("<script"), "{text}");
    let behind = server
        .send("GET /\naccept: text/html\nx-forwarded-prefix: /ml", b"")
        .await;
    assert!(behind.text().contains("href=\"/ml/docs/\""), "{}", behind.text());
}

#[actix_web::test]
async fn the_icon_is_embedded_and_requires_no_key() {
    let server = TestServer::start_with("api_keys = [\"a-key-of-a-client\"]");
    let icon = server.get("/favicon.ico").await;
    assert_eq!(
        (icon.status, icon.header("content-type")),
        (200, Some("image/svg+xml"))
    );
}

#[actix_web::test]
async fn the_documentation_can_be_disabled() {
    let server = TestServer::start_with("docs = false\nui = false");
    let page = server.send("GET /\naccept: text/html", b"").await;
    assert!(!page.text().contains("docs/"), "{}", page.text());
    assert_eq!(server.get("/docs/").await.error().0, 404);
    assert_eq!(server.get("/openapi.json").await.error().0, 404);
}

#[actix_web::test]
async fn a_request_keeps_its_id_if_it_is_safe_to_log() {
    let server = TestServer::start();
    let id = async |sent: &str| {
        let answer = server
            .send(&format!("GET /livez\nx-request-id: {sent}"), b"")
            .await;
        answer
            .header("x-request-id")
            .expect("the reply has an id")
            .to_owned()
    };
    assert_eq!(id("abc-1").await, "abc-1");
    let (one, two) = (id("a b").await, id("a\"b").await);
    assert_ne!(one, two);
    assert_eq!(one.len(), 24);
}

#[actix_web::test]
async fn clients_cannot_add_label_values() {
    let server = TestServer::start();
    server.get("/v1/models/vision").await;
    server.get("/v1/models/made-up").await;
    server.get("/made-up").await;
    server.send("MADEUP /v1/models", b"").await;
    server.get("/livez").await;
    let text = server.get("/metrics").await.text();
    assert!(
        text.contains("http_requests_total{endpoint=\"/v1/models/{model}\",method=\"GET\",status=\"200\"} 1")
    );
    assert!(text.contains("endpoint=\"other\""), "got {text}");
    assert!(
        !text.to_lowercase().contains("made-up\"") && !text.contains("MADEUP"),
        "got {text}"
    );
    assert!(!text.contains("/livez"));
    assert!(text.contains("inference_model_ready") || text.contains("inference_queue_items"));
}

#[actix_web::test]
async fn other_origins_are_allowed_only_if_configured() {
    let origin = "OPTIONS /shout\norigin: https://a.example\naccess-control-request-method: POST";
    let server = TestServer::start();
    assert_eq!(
        server
            .send(origin, b"")
            .await
            .header("access-control-allow-origin"),
        None
    );
    let server = TestServer::start_with("cors_allowed_origins = [\"https://a.example\"]");
    let answer = server.send(origin, b"").await;
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.header("access-control-allow-origin"),
        Some("https://a.example")
    );
    let other = origin.replace("a.example", "b.example");
    assert_eq!(
        server
            .send(&other, b"")
            .await
            .header("access-control-allow-origin"),
        None
    );
}
