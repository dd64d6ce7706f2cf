use super::test_server::{TestServer, send_to};

#[actix_web::test]
async fn the_management_port_serves_everything_except_tasks() {
    let server = TestServer::start_with("management_port = 0");
    let address = server.server.management_addresses()[0];
    assert_ne!(address, server.address);
    let get = async |path: &str| send_to(address, &format!("GET {path}"), b"").await;
    for path in [
        "/livez",
        "/metrics",
        "/v1/models",
        "/v1/models/vision",
        "/docs/",
        "/",
    ] {
        assert_eq!(get(path).await.status, 200, "{path}");
    }
    // One of the models is loading.
    assert_eq!(get("/readyz").await.status, 503);
    let load = send_to(address, "POST /v2/repository/models/vision/load", b"").await;
    assert_eq!(load.status, 403, "the route exists and requires a key");
    for path in [
        "/v1/models/vision/tasks/upper/predict",
        "/v1/models/vision/predict",
        "/v1/models/vision:predict",
        "/v2/models/vision/infer",
        "/v1/embeddings",
        "/shout",
        "/v1/models/vision/%70redict",
    ] {
        let answer = send_to(address, &format!("POST {path}"), b"{\"input\":\"hello\"}").await;
        assert_eq!(answer.status, 404, "{path}");
        assert!(
            answer
                .text()
                .contains("send predictions to the server's main port"),
            "{path}: {}",
            answer.text()
        );
    }
}

#[actix_web::test]
async fn the_main_port_serves_probes_and_management_next_to_a_management_port() {
    let server = TestServer::start_with("management_port = 0");
    for path in ["/livez", "/metrics", "/v1/models"] {
        assert_eq!(server.get(path).await.status, 200, "{path}");
    }
    assert_eq!(
        server.send("POST /shout", b"{\"input\":\"hello\"}").await.status,
        200
    );
}

#[actix_web::test]
async fn the_management_port_has_its_own_limit_on_connections() {
    let server = TestServer::start_with("management_port = 0\nmax_connections = 1");
    let _only = server.connect().await;
    let address = server.server.management_addresses()[0];
    assert_eq!(send_to(address, "GET /livez", b"").await.status, 200);
}

#[actix_web::test]
async fn management_only_moves_metrics_and_the_loading_of_models_to_the_management_port() {
    let server = TestServer::start_with("management_port = 0\nmanagement_only = true");
    let management = server.server.management_addresses()[0];
    for (request, at_management) in [
        ("GET /metrics", 200),
        ("HEAD /metrics", 200),
        ("GET /%6Detrics", 404),
        ("POST /v2/repository/models/vision/load", 403),
        ("POST /v2/repository/models/vision/unload", 403),
        ("GET /v2/repository/models/vision/load", 405),
    ] {
        assert_eq!(server.send(request, b"").await.status, 404, "{request}");
        let answer = send_to(management, request, b"").await;
        assert_eq!(answer.status, at_management, "{request}");
    }
    for path in ["/livez", "/v1/models", "/docs/"] {
        assert_eq!(server.get(path).await.status, 200, "{path}");
    }
}

#[cfg(feature = "docs")]
#[actix_web::test]
async fn the_documentation_of_each_port_describes_the_routes_that_the_port_serves() {
    let moved = [
        "/metrics",
        "/v2/repository/models/{model}/load",
        "/v2/repository/models/{model}/unload",
    ];
    for (setting, main_lists_them) in [("", true), ("\nmanagement_only = true", false)] {
        let server = TestServer::start_with(&format!("management_port = 0{setting}"));
        let management = server.server.management_addresses()[0];
        let main = server.get("/openapi.json").await.json();
        let all = send_to(management, "GET /openapi.json", b"").await.json();
        for path in moved {
            assert_eq!(
                main["paths"].get(path).is_some(),
                main_lists_them,
                "{path}{setting}"
            );
            assert!(all["paths"].get(path).is_some(), "{path}{setting}");
        }
        assert!(main["paths"].get("/v2/repository/index").is_some());
    }
}
