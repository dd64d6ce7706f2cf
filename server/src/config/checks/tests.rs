use proptest::prelude::*;

use super::*;
use crate::routes;

#[test]
fn each_check_accepts_valid_text_and_rejects_invalid_text() {
    type Case = (
        fn(&str) -> Result<(), String>,
        &'static [&'static str],
        &'static [&'static str],
    );
    let cases: [Case; 11] = [
        (
            model_pattern,
            &["minilm", "digits.*", "digits.classify", "m*"],
            &["", "*", "a*b", "**", ".a", "a b"],
        ),
        (
            job_store,
            &[
                "sqlite",
                "postgres://user:password@host/database",
                "postgresql://host:5433/database?sslmode=require",
            ],
            &[
                "",
                "postgres://",
                "mysql://host/database",
                "postgres://host:port/database",
                "postgres://host/database?sslmode=perhaps",
                "postgres://host/database?color=red",
            ],
        ),
        (
            otlp_endpoint,
            &[
                "http://localhost:4318",
                "http://[::1]:4318/v1",
                "http://host",
                "http://[::1]",
            ],
            &[
                "http://",
                "https://host",
                "http://host:port",
                "http://host:99999",
                "http://host:0",
                "http://[::1]:port",
                "http://user@host",
            ],
        ),
        (
            name,
            &["a", "all-MiniLM-L6-v2", "bge.m3_1"],
            &["", ".a", "a b", "a/b", "é", "../x"],
        ),
        (
            host,
            &["0.0.0.0", "::", "::1", "localhost", "my_host.example-1.com"],
            &["", "[::1]", "0.0.0.0:80", "http://x", "a b"],
        ),
        (
            webhook_host,
            &[
                "hooks.example.com",
                "*.example.com",
                "localhost",
                "127.0.0.1",
                "::1",
            ],
            &[
                "",
                ".",
                "*",
                "*.",
                "*.10.0.0.1",
                "a.*.com",
                "https://example.com",
                "example.com:443",
                "[::1]",
                "10.0.0.0/8",
                "a b",
            ],
        ),
        (
            webhook_secret,
            &["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"],
            &[
                "",
                "whsec_",
                "whsec_c2hvcnQ=",
                "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
                "whsec_ä",
            ],
        ),
        (
            route,
            &["/text", "/a/b", "/v1x", "/docs-of-mine", "/a.b~c_d"],
            &[
                "", "text", "/", "/v1", "/v2/x", "/health/", "/a//b", "/a/", "/a/..", "/{x}", "/a?b",
            ],
        ),
        (
            log_filter,
            &[
                "info",
                "WARN",
                "info,actix_web=warn",
                "my_crate",
                "a::b=debug,off",
                "info/timeout",
                "my_crate=",
            ],
            &["", "inof", "warning", "info,actix=loud", "debg,x=info"],
        ),
        (
            origin,
            &["*", "https://a.example", "http://localhost:3000"],
            &["a.example", "https://", "https://a/", "https://*.a"],
        ),
        (
            path_pattern,
            &["/health", "/v2/health/*", "/*"],
            &["health", "/*/x", "/a**", ""],
        ),
    ];
    for (check, good, bad) in cases {
        for text in good {
            assert_eq!(check(text), Ok(()), "{text}");
        }
        for text in bad {
            assert!(check(text).is_err(), "{text}");
        }
    }
}

/// Paths that resemble those of the server, and paths that an operator might choose.
fn paths() -> impl Strategy<Value = String> {
    let names: Vec<&str> = routes::ALL
        .iter()
        .flat_map(|route| route.patterns.iter())
        .flat_map(|pattern| pattern.split('/'))
        .filter(|segment| !segment.is_empty() && !segment.contains('{'))
        .chain(["docs-of-mine", "metrics2", "text", ".", "..", ""])
        .collect();
    let segment = (proptest::sample::select(names), "[-A-Za-z0-9._~%/]{0,3}");
    let segment = segment.prop_map(|(name, rest)| format!("/{name}{rest}"));
    proptest::collection::vec(segment, 1..4).prop_map(|segments| segments.concat())
}

proptest! {
    #[test]
    fn every_valid_route_of_a_task_requires_a_client_key(path in paths()) {
        if route(&path).is_ok() {
            prop_assert_eq!(routes::find(&path), None);
            for served in [true, false] {
                let pages = routes::Pages { docs: served, ui: served };
                prop_assert_eq!(routes::required_access(true, &path, pages), routes::Access::Client);
            }
        }
    }
}

#[test]
fn a_name_has_at_most_64_characters() {
    assert!(name(&"a".repeat(64)).is_ok());
    assert!(name(&"a".repeat(65)).is_err());
}

#[test]
fn the_name_of_a_model_can_have_a_slash() {
    for valid in ["bge", "BAAI/bge-small-en", "a.b/c_d", "v1/x", &"a".repeat(128)] {
        assert_eq!(model_name(valid), Ok(()), "{valid}");
    }
    for (invalid, hint) in [
        ("", "use at least one character"),
        ("/bge", "use at least one character"),
        ("BAAI/", "use at least one character"),
        ("a/b/c", "use at most one `/`, as in \"BAAI/bge-small-en\""),
        ("BAAI/.bge", "start with a letter or a digit"),
        ("BAAI/b c", "' ' is not allowed; use `-` or `_` instead"),
        (
            "BAAI/embed",
            "`embed` after the slash is part of the server's paths; choose another name",
        ),
        (
            "BAAI/tasks",
            "`tasks` after the slash is part of the server's paths; choose another name",
        ),
    ] {
        assert_eq!(model_name(invalid), Err(hint.to_owned()), "{invalid}");
    }
    for pattern in ["BAAI/*", "BAAI/bge.query", "BAAI/bge*", "bge*"] {
        assert_eq!(model_pattern(pattern), Ok(()), "{pattern}");
    }
    for pattern in ["/bge", "a/b/c", "*"] {
        assert!(model_pattern(pattern).is_err(), "{pattern}");
    }
}
