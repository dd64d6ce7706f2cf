use super::*;

const ALL_PAGES: Pages = Pages { docs: true, ui: true };

#[test]
fn only_the_paths_of_open_routes_are_open() {
    let open = [
        "/",
        "/favicon.ico",
        "/health",
        "/livez",
        "/readyz",
        "/metrics",
        "/docs",
        "/docs/",
        "/docs/index.css",
        "/openapi.json",
        "/ui",
        "/ui/",
        "/ui/login",
        "/ui/models/m",
        "/ui/jobs",
        "/ui/static/app.js",
        "/v2/health/live",
        "/v2/health/ready",
    ];
    for path in open {
        assert_eq!(required_access(false, path, ALL_PAGES), Access::Open, "{path}");
    }
    let closed = [
        "",
        "//",
        "/docs-of-mine",
        "/docsx/y",
        "/Docs/",
        "/health/",
        "/healthz",
        "//health",
        "/health/../v1/models",
        "/metrics2",
        "/metrics/x",
        "/openapi.json/x",
        "/openapi.jsonx",
        "/v2/health",
        "/v2/health/",
        "/v2/health/x",
        "/v2/health/live/x",
        "/ui/events",
        "/ui/history/m",
        "/ui/jobs/events",
        "/ui/jobs/x",
        "/ui/x",
        "/ui/models/m/x",
        "/v1/models",
        "/v2",
        "/anything",
        "*",
    ];
    for path in closed {
        assert_eq!(required_access(false, path, ALL_PAGES), Access::Client, "{path}");
    }
}

#[test]
fn disabled_pages_are_not_open() {
    let none = Pages {
        docs: false,
        ui: false,
    };
    for path in [
        "/docs",
        "/docs/",
        "/docs/x",
        "/openapi.json",
        "/ui",
        "/ui/",
        "/ui/login",
    ] {
        assert_eq!(required_access(false, path, none), Access::Client, "{path}");
    }
    assert_eq!(required_access(false, "/health", none), Access::Open);
    let docs = Pages {
        docs: true,
        ui: false,
    };
    assert_eq!(
        (
            required_access(false, "/docs/", docs),
            required_access(false, "/ui/", docs)
        ),
        (Access::Open, Access::Client)
    );
}

#[test]
fn loading_and_unloading_models_requires_the_admin_key() {
    for path in ["/v2/repository/models/m/load", "/v2/repository/models/m/unload"] {
        assert_eq!(required_access(false, path, ALL_PAGES), Access::Admin, "{path}");
    }
    assert_eq!(
        required_access(true, "/v2/repository/index", ALL_PAGES),
        Access::Client
    );
}

#[test]
fn metrics_the_loading_of_models_and_the_page_for_operators_belong_to_the_management_port() {
    for path in [
        "/metrics",
        "/v2/repository/models/m/load",
        "/v2/repository/models/m/unload",
        "/ui",
        "/ui/",
        "/ui/models/m",
        "/ui/login",
        "/ui/events",
    ] {
        assert!(is_management(path), "{path}");
    }
    for path in [
        "/",
        "/health",
        "/readyz",
        "/v1/models",
        "/v2/repository/index",
        "/metrics2",
    ] {
        assert!(!is_management(path), "{path}");
    }
}

#[test]
fn everything_below_the_first_segment_of_a_route_is_reserved() {
    for (path, root) in [
        ("/v1", "/v1"),
        ("/v1/x/y", "/v1"),
        ("/v2/health/x", "/v2"),
        ("/docs/x", "/docs"),
        ("/metrics/x", "/metrics"),
        ("/", "/"),
    ] {
        assert_eq!(reserved_prefix(path), Some(root), "{path}");
    }
    for path in ["/docs-of-mine", "/v1x", "/metrics2", "/x/docs", "/x"] {
        assert_eq!(reserved_prefix(path), None, "{path}");
    }
}

#[test]
fn the_values_of_placeholders_are_read_from_the_path() {
    let parameters = |path| {
        let route = find(path).expect("the path matches a route");
        route.parameters(path).collect::<Vec<_>>()
    };
    assert_eq!(
        parameters("/v1/models/m/tasks/t:predict/predict"),
        [("model", "m"), ("task", "t:predict")]
    );
    assert_eq!(parameters("/v1/models/a:b:predict"), [("model", "a:b")]);
    assert_eq!(
        parameters("/v1/models/m/versions/1:predict"),
        [("model", "m"), ("version", "1")]
    );
    assert_eq!(parameters("/v2/models/m.t/infer"), [("model", "m.t")]);
    assert!(parameters("/v1/embeddings").is_empty());
    assert_eq!(
        parameters("/openai/deployments/m.query/embeddings"),
        [("model", "m.query")]
    );
}

#[test]
fn a_placeholder_matches_within_one_segment() {
    let route = |path| find(path).copied();
    assert_eq!(route("/v1/models/m"), Some(MODEL));
    assert_eq!(route("/v1/models/m:predict"), Some(V1_PREDICT));
    assert_eq!(route("/v1/models/m:explain"), Some(V1_OTHER));
    assert_eq!(route("/v1/models/m/versions/1:predict"), Some(V1_PREDICT));
    assert_eq!(route("/v1/models/a/b"), Some(MODEL));
    assert_eq!(route("/v1/models/a/b/c"), None);
    assert_eq!(route("/v1/models/"), None);
    assert_eq!(route("/v2/models/m/versions/1/infer"), Some(V2_INFER));
    assert_eq!(route("/v2/models/stats"), Some(V2_ALL_STATISTICS));
}

#[test]
fn a_name_with_a_slash_matches_two_segments() {
    let found = |path| {
        let route = find(path).expect("the path matches a route");
        (*route, route.parameters(path).collect::<Vec<_>>())
    };
    let name = [("namespace", "BAAI"), ("model", "bge")];
    for (path, route) in [
        ("/v1/models/BAAI/bge", MODEL),
        ("/v1/models/BAAI/bge/predict", PREDICT_DEFAULT),
        ("/v1/models/BAAI/bge:predict", V1_PREDICT),
        ("/v1/models/BAAI/bge/metadata", V1_METADATA),
        ("/v2/models/BAAI/bge", V2_MODEL),
        ("/v2/models/BAAI/bge/infer", V2_INFER),
        ("/v2/repository/models/BAAI/bge/load", V2_LOAD),
    ] {
        assert_eq!(found(path), (route, name.to_vec()), "{path}");
    }
    assert_eq!(
        found("/v1/models/BAAI/bge/tasks/query/predict"),
        (PREDICT_TASK, [&name[..], &[("task", "query")]].concat())
    );
    // The same paths as without names with a slash.
    assert_eq!(
        found("/v1/models/m/predict"),
        (PREDICT_DEFAULT, vec![("model", "m")])
    );
    assert_eq!(found("/v2/models/m/stats"), (V2_STATISTICS, vec![("model", "m")]));
    for word in [
        "predict", "tasks", "infer", "versions", "load", "embed", "rerank", "health",
    ] {
        assert!(follows_models(word), "{word}");
    }
    for word in ["bge-small-en", "v1", "models", "score"] {
        assert!(!follows_models(word), "{word}");
    }
}

#[test]
fn routes_below_a_model_are_those_of_text_embeddings_inference() {
    let below = |path| below_model(path).map(|(model, route)| (model, *route));
    assert_eq!(below("/bge/embed"), Some(("bge", TEI_EMBED)));
    assert_eq!(below("/BAAI/bge/similarity"), Some(("BAAI/bge", TEI_SIMILARITY)));
    assert_eq!(below("/bge/rerank"), Some(("bge", RERANK)));
    assert_eq!(below("/bge/v2/rerank"), Some(("bge", RERANK)));
    assert_eq!(below("/BAAI/bge/v1/embeddings"), Some(("BAAI/bge", EMBEDDINGS)));
    assert_eq!(below("/bge/info"), Some(("bge", TEI_INFO)));
    for path in [
        "/embed",
        "/bge",
        "/bge/score",
        "/bge/metrics",
        "//embed",
        "/bge/embed/",
    ] {
        assert_eq!(below(path), None, "{path}");
    }
}

#[test]
fn a_request_that_runs_a_model_at_the_root_requires_a_key() {
    assert_eq!(required_access(false, "/", ALL_PAGES), Access::Open);
    assert_eq!(required_access(true, "/", ALL_PAGES), Access::Client);
}
