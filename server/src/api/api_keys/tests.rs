use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use super::*;
use crate::api::failure::{Code, Failure};
use crate::config::{Facts, Overrides, Settings, Source, parse_keys, resolve};
use crate::metrics::Buckets;
use crate::routes::Access;

pub(super) const CLIENT: &str = "the-key-of-a-client";
pub(super) const ADMIN: &str = "the-key-of-the-admin";

/// Settings with these lines in `[server]`.
fn settings(server: &str) -> Settings {
    let text = format!("[server]\n{server}\n");
    let source = Source {
        file_name: "models.toml",
        text: &text,
        base_dir: Path::new("/etc"),
    };
    let facts = Facts {
        executable_dir: PathBuf::new(),
        cores: NonZeroUsize::MIN,
        temp_dir: PathBuf::new(),
        memory: None,
    };
    resolve(source, &BTreeMap::new(), &Overrides::none(), &facts).expect("the settings are valid")
}

pub(super) fn metrics() -> Metrics {
    Metrics::new(Buckets::NONE).expect("the metrics are valid")
}

pub(super) fn keys(server: &str) -> ApiKeys {
    ApiKeys::new(&settings(server).server, &[], &metrics()).expect("the metrics are registered once")
}

/// The keys of a file, as it is after these lines. A key is `key-of-NAME`.
pub(super) fn named(text: &str) -> Vec<KeySettings> {
    let mut file = String::new();
    for line in text.lines() {
        if let Some(name) = line.trim().strip_prefix("name = ") {
            let name = name.trim_matches('"');
            let hash = Digest::of(secret(name).as_bytes());
            file.push_str(&format!("hash = \"sha256:{hash}\"\n"));
        }
        file.push_str(line.trim());
        file.push('\n');
    }
    parse_keys("keys.toml", &file).expect("the file is valid")
}

pub(super) fn secret(name: &str) -> String {
    format!("key-of-{name}")
}

pub(super) fn with_file(file: &str, metrics: &Metrics) -> ApiKeys {
    let server = settings(&format!(
        "api_keys_file = \"keys.toml\"\napi_keys = [\"{CLIENT}\"]\nadmin_key = \"{ADMIN}\""
    ));
    ApiKeys::new(&server.server, &named(file), metrics).expect("the metrics are registered once")
}

fn client(keys: &ApiKeys, key: &str) -> Client {
    keys.identify(Some(format!("Bearer {key}").as_bytes()), None)
}

fn code(result: Result<(), Failure>) -> Option<Code> {
    result.err().map(|failure| failure.code)
}

/// The count of `inference_key_requests_total`; `None` if there is no such series.
fn count(metrics: &Metrics, key: &str, outcome: &str) -> Option<u64> {
    let families = metrics.registry().gather();
    let family = families
        .iter()
        .find(|family| family.name() == "inference_key_requests_total")?;
    let series = family.get_metric().iter().find(|series| {
        let labels: Vec<&str> = series.get_label().iter().map(|label| label.value()).collect();
        labels == [key, outcome]
    })?;
    Some(series.get_counter().get_value() as u64)
}

#[test]
fn a_client_key_and_the_admin_key_allow_client_requests() {
    let keys = keys(&format!("api_keys = [\"{CLIENT}\"]\nadmin_key = \"{ADMIN}\""));
    for header in [
        format!("Bearer {CLIENT}"),
        format!("bearer {CLIENT} "),
        format!("BEARER {ADMIN}"),
    ] {
        let client = keys.identify(Some(header.as_bytes()), None);
        assert_eq!(code(client.check(Access::Client)), None);
        assert_eq!(client.key_name(), None);
    }
}

#[test]
fn a_request_without_a_valid_key_is_unauthorized() {
    let keys = keys(&format!("api_keys = [\"{CLIENT}\"]\nadmin_key = \"{ADMIN}\""));
    let shorter = format!("Bearer {}", &CLIENT[1..]);
    let other_scheme = format!("Basic {CLIENT}");
    for header in [
        Some(shorter.as_bytes()),
        Some(b"Bearer "),
        Some(other_scheme.as_bytes()),
        Some(CLIENT.as_bytes()),
        Some(b""),
        None,
    ] {
        let client = keys.identify(header, None);
        for access in [Access::Client, Access::Admin] {
            assert_eq!(code(client.check(access)), Some(Code::Unauthorized));
        }
        assert_eq!(code(client.check(Access::Open)), None);
    }
}

#[test]
fn a_client_key_does_not_allow_administration() {
    let keys = keys(&format!("api_keys = [\"{CLIENT}\"]\nadmin_key = \"{ADMIN}\""));
    let check = |key| code(client(&keys, key).check(Access::Admin));
    assert_eq!(check(ADMIN), None);
    assert_eq!(check(CLIENT), Some(Code::Forbidden));
}

#[test]
fn without_client_keys_only_administration_requires_a_key() {
    let keys = keys(&format!("admin_key = \"{ADMIN}\""));
    assert_eq!(code(keys.identify(None, None).check(Access::Client)), None);
    assert_eq!(
        code(keys.identify(None, None).check(Access::Admin)),
        Some(Code::Unauthorized)
    );
    assert_eq!(code(client(&keys, ADMIN).check(Access::Admin)), None);
}

#[test]
fn without_an_admin_key_administration_is_disabled() {
    let keys = keys("");
    assert_eq!(code(keys.identify(None, None).check(Access::Client)), None);
    assert_eq!(
        code(keys.identify(Some(b"Bearer "), None).check(Access::Admin)),
        Some(Code::Forbidden)
    );
}

#[test]
fn a_file_without_keys_requires_a_key_nevertheless() {
    let server = settings("api_keys_file = \"keys.toml\"");
    let keys = ApiKeys::new(&server.server, &[], &metrics()).expect("the metrics are registered once");
    assert_eq!(
        code(keys.identify(None, None).check(Access::Client)),
        Some(Code::Unauthorized)
    );
}

#[test]
fn the_default_client_is_unauthorized() {
    for access in [Access::Client, Access::Admin] {
        assert_eq!(code(Client::default().check(access)), Some(Code::Unauthorized));
    }
}

#[test]
fn keys_of_the_file_and_of_the_configuration_are_valid_at_the_same_time() {
    let keys = with_file(
        "[[key]]\nname = \"a\"\n[[key]]\nname = \"ops\"\nadmin = true",
        &metrics(),
    );
    for (key, access, expected) in [
        (secret("a"), Access::Client, None),
        (secret("a"), Access::Admin, Some(Code::Forbidden)),
        (secret("ops"), Access::Admin, None),
        (CLIENT.to_owned(), Access::Client, None),
        (ADMIN.to_owned(), Access::Admin, None),
        (secret("b"), Access::Client, Some(Code::Unauthorized)),
        // The hash is not the key.
        (
            format!("sha256:{}", Digest::of(secret("a").as_bytes())),
            Access::Client,
            Some(Code::Unauthorized),
        ),
    ] {
        assert_eq!(code(client(&keys, &key).check(access)), expected, "{key}");
    }
    assert_eq!(client(&keys, &secret("a")).key_name(), Some("a"));
    assert!(client(&keys, &secret("ops")).is_admin() && !client(&keys, &secret("a")).is_admin());
}

#[test]
fn an_expired_key_is_unauthorized_and_the_error_names_it() {
    let file = "[[key]]\nname = \"old\"\nadmin = true\nexpires = 2001-01-01\n\
                [[key]]\nname = \"new\"\nexpires = 2999-01-01T00:00:00Z";
    let keys = with_file(file, &metrics());
    let old = client(&keys, &secret("old"));
    let failure = old.check(Access::Client).expect_err("it has expired");
    assert_eq!(
        (failure.code, failure.message.as_str()),
        (
            Code::Unauthorized,
            "API key `old` expired at 2001-01-01T00:00:00Z"
        )
    );
    assert!(!old.is_admin());
    assert_eq!(code(client(&keys, &secret("new")).check(Access::Client)), None);
}

#[test]
fn a_key_is_limited_to_its_models_and_does_not_reveal_others() {
    let file = "[[key]]\nname = \"a\"\nmodels = [\"minilm\", \"digits.classify\"]\n[[key]]\nname = \"all\"";
    let keys = with_file(file, &metrics());
    let limited = client(&keys, &secret("a"));
    assert_eq!(code(limited.check_task("minilm", "query")), None);
    assert_eq!(code(limited.check_name("digits.classify")), None);
    let failure = limited.check_name("other").expect_err("it is not allowed");
    assert_eq!(
        (failure.code, failure.message.as_str()),
        (
            Code::Forbidden,
            "API key `a` may not use model `other`; it may use: minilm, digits.classify"
        )
    );
    let failure = limited
        .check_task("digits", "embed")
        .expect_err("it is not allowed");
    assert_eq!(
        failure.message,
        "API key `a` may not use task `embed` of model `digits`; it may use: minilm, digits.classify"
    );
    assert!(limited.sees_model("digits") && !limited.sees_model("other"));
    for unlimited in [client(&keys, &secret("all")), client(&keys, CLIENT)] {
        assert_eq!(code(unlimited.check_name("other")), None);
        assert!(unlimited.sees_model("other"));
    }
}

#[test]
fn limits_are_reported_and_their_state_survives_a_reload_that_does_not_change_them() {
    // The rates are so low that no token is replenished during the test.
    let file = "[[key]]\nname = \"a\"\nrequests_per_second = 0.001\nrequest_burst = 2\n\
                items_per_second = 0.001\nitem_burst = 10";
    let keys = with_file(file, &metrics());
    let first = client(&keys, &secret("a"));
    assert!(first.rate_limit_fields().is_empty());
    assert_eq!(code(first.admit_request()), None);
    assert_eq!(code(first.admit_items(4)), None);
    let policy = "\"requests\";q=2;w=2000, \"items\";q=10;qu=\"items\";w=10000".to_owned();
    let limits = "\"requests\";r=1;t=1000, \"items\";r=6;t=4000".to_owned();
    assert_eq!(
        first.rate_limit_fields(),
        [("ratelimit-policy", policy), ("ratelimit", limits)]
    );

    let failure = first.admit_items(11).expect_err("a burst has 10 items");
    assert_eq!(
        (failure.code, failure.message.as_str()),
        (
            Code::Malformed,
            "the request has 11 items, more than API key `a` allows at once (10): split it"
        )
    );

    keys.replace(&named(file));
    let second = client(&keys, &secret("a"));
    assert_eq!(code(second.admit_request()), None);
    let failure = second.admit_request().expect_err("the burst is spent");
    assert_eq!(failure.code, Code::RateLimited);
    assert!(
        failure.message.starts_with(
            "API key `a` exceeds its limit of 0.001 requests per second, with bursts of up to 2; retry in "
        ),
        "{}",
        failure.message
    );
    let retry = failure.retry_after_seconds().expect("it can be retried");
    assert!((1..=1000).contains(&retry), "{retry}");
    let fields = second.rate_limit_fields();
    assert!(fields[1].1.starts_with("\"requests\";r=0;t="), "{fields:?}");

    // The changed limit starts fresh; the unchanged one keeps its state.
    keys.replace(&named(&file.replace("request_burst = 2", "request_burst = 3")));
    let third = client(&keys, &secret("a"));
    assert_eq!(code(third.admit_request()), None);
    assert_eq!(code(third.admit_items(7)), Some(Code::RateLimited));
    assert_eq!(code(third.admit_items(6)), None);
}

#[test]
fn requests_are_counted_by_key_and_outcome_and_removed_with_the_key() {
    let file = "[[key]]\nname = \"a\"\nmodels = [\"m\"]\nrequests_per_second = 0.001\n\
                [[key]]\nname = \"old\"\nexpires = 2001-01-01";
    let metrics = metrics();
    let keys = with_file(file, &metrics);
    // A request to a route that requires no key.
    client(&keys, &secret("a")).finish(true);
    assert_eq!(count(&metrics, "a", "success"), None);

    let answered = client(&keys, &secret("a"));
    assert_eq!(code(answered.check(Access::Client)), None);
    assert_eq!(code(answered.admit_request()), None);
    answered.finish(true);
    drop(answered);
    let limited = client(&keys, &secret("a"));
    assert_eq!(code(limited.check(Access::Client)), None);
    assert_eq!(code(limited.admit_request()), Some(Code::RateLimited));
    limited.finish(false);
    drop(limited);
    let forbidden = client(&keys, &secret("a"));
    assert_eq!(code(forbidden.check(Access::Client)), None);
    assert_eq!(code(forbidden.check_name("other")), Some(Code::Forbidden));
    forbidden.finish(false);
    drop(forbidden);
    let disconnected = client(&keys, &secret("a"));
    assert_eq!(code(disconnected.check(Access::Client)), None);
    drop(disconnected);
    let expired = client(&keys, &secret("old"));
    assert_eq!(code(expired.check(Access::Client)), Some(Code::Unauthorized));
    drop(expired);
    for (key, outcome) in [
        ("a", "success"),
        ("a", "rate_limited"),
        ("a", "forbidden"),
        ("a", "error"),
        ("old", "expired"),
    ] {
        assert_eq!(count(&metrics, key, outcome), Some(1), "{key} {outcome}");
    }
    keys.replace(&named("[[key]]\nname = \"a\""));
    assert_eq!(count(&metrics, "a", "success"), Some(1));
    assert_eq!(count(&metrics, "old", "expired"), None);
}

#[test]
fn a_key_is_found_among_the_maximum_number_of_keys() {
    let file: String = (0..1000)
        .map(|number| format!("[[key]]\nname = \"k{number}\"\n"))
        .collect();
    let keys = with_file(&file, &metrics());
    for number in [0, 500, 999] {
        let name = format!("k{number}");
        assert_eq!(client(&keys, &secret(&name)).key_name(), Some(name.as_str()));
    }
    assert_eq!(client(&keys, &secret("k1000")).key_name(), None);
}
