//! The file of named keys: text in, keys or messages out.

use std::time::Duration;

use super::file;
use crate::config::{KeySettings, RateSettings, parse_keys, unmatched_models};
use crate::digest::Digest;

/// The digest of "a".
const HASH: &str = "sha256:ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb";

/// A key with these lines.
fn key(lines: &str) -> String {
    format!("[[key]]\nname = \"a\"\nhash = \"{HASH}\"\n{lines}\n")
}

fn keys(text: &str) -> Vec<KeySettings> {
    parse_keys("keys.toml", text).unwrap_or_else(|errors| panic!("{errors:?}"))
}

fn errors(text: &str) -> String {
    let errors = parse_keys("keys.toml", text).expect_err("the file is invalid");
    let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

#[test]
fn a_key_needs_only_a_name_and_a_hash() {
    let KeySettings {
        name,
        hash,
        models,
        admin,
        expires,
        requests,
        items,
        ..
    } = keys(&key("")).remove(0);
    assert_eq!((name.as_str(), hash), ("a", Digest::of(b"a")));
    assert_eq!(
        (models, admin, expires, requests, items),
        (None, false, None, None, None)
    );
    assert!(keys("").is_empty());
}

#[test]
fn a_burst_is_the_rate_unless_it_is_written() {
    let rates = |lines: &str| {
        let key = keys(&key(lines)).remove(0);
        let burst = |rate: Option<RateSettings>| rate.map(|rate| (rate.per_second, rate.burst.get()));
        (burst(key.requests), burst(key.items))
    };
    assert_eq!(rates("requests_per_second = 10"), (Some((10.0, 10)), None));
    assert_eq!(rates("requests_per_second = 0.25"), (Some((0.25, 1)), None));
    assert_eq!(rates("items_per_second = 2.5"), (None, Some((2.5, 3))));
    assert_eq!(
        rates("items_per_second = 1_000\nitem_burst = 5000"),
        (None, Some((1000.0, 5000)))
    );
    let rate = keys(&key("items_per_second = 4\nitem_burst = 6")).remove(0).items;
    let rate = rate.expect("the key has a limit");
    assert_eq!(rate.interval(), Duration::from_millis(250));
    assert_eq!(rate.window(), Duration::from_millis(1500));
}

#[test]
fn an_expiry_is_a_date_or_a_time_in_utc() {
    let expires = |value: &str| keys(&key(&format!("expires = {value}"))).remove(0).expires;
    assert_eq!(expires("2027-01-31"), Some(1_801_353_600));
    assert_eq!(expires("2027-01-31T00:00:01Z"), Some(1_801_353_601));
    assert_eq!(expires("2027-01-31 00:00:01Z"), Some(1_801_353_601));
    assert_eq!(expires("\"2027-01-31\""), Some(1_801_353_600));
    for value in [
        "2027-01-31T00:00:00+01:00",
        "2027-01-31T00:00:00",
        "00:00:00",
        "\"never\"",
        "1801353600",
    ] {
        let errors = errors(&key(&format!("expires = {value}")));
        assert!(
            errors.starts_with("keys.toml:4:11: invalid value ")
                && errors.contains("for `expires` in [[key]]: expected a date-time in UTC"),
            "{value}: {errors}"
        );
    }
}

#[test]
fn every_error_has_its_place_and_says_what_was_expected() {
    let twice = format!("{}{}", key(""), key(""));
    for (text, expected) in [
        (
            "[[key]]\nname = \"a\"\n".to_owned(),
            "keys.toml:1:1: missing key `hash` in [[key]]",
        ),
        (
            key("model = [\"m\"]"),
            "keys.toml:4:1: unknown key `model` in [[key]]\n    hint: did you mean `models`?",
        ),
        (
            key("route = \"/x\""),
            "keys.toml:4:1: unknown key `route` in [[key]]",
        ),
        (
            key("models = [\"a b\"]"),
            "keys.toml:4:11: invalid element \"a b\" of `models` in [[key]]: expected the name of a model",
        ),
        (
            key("models = [\"*\"]"),
            "hint: remove `models` to allow all models",
        ),
        (
            key("requests_per_second = 0"),
            "keys.toml:4:23: invalid value 0 for `requests_per_second` in [[key]]: expected a number from 0.001 to 1000000",
        ),
        (
            key("requests_per_second = nan"),
            "invalid value nan for `requests_per_second`",
        ),
        (
            key("item_burst = 3"),
            "keys.toml:4:14: `item_burst` has no effect without `items_per_second`",
        ),
        (
            key("items_per_second = 0.001\nitem_burst = 100"),
            "keys.toml:5:14: at 0.001 per second, 100 are available again only after 100000 s: expected at most 86400 s",
        ),
        (twice.clone(), "keys.toml:5:1: duplicate key name \"a\""),
        (twice, "the keys \"a\" and \"a\" have the same hash"),
        (
            "key = 3\n".to_owned(),
            "start each key with [[key]], in double brackets",
        ),
        (
            "[server]\nport = 1\n".to_owned(),
            "unknown table `server` at the top level",
        ),
    ] {
        let errors = errors(&text);
        assert!(errors.contains(expected), "{expected}\n---\n{errors}");
    }
}

#[test]
fn no_message_shows_what_may_be_a_key() {
    for line in [
        "hash = \"hunter2\"",
        "hash = hunter2",
        "key = \"hunter2\"",
        "secret = \"hunter2\"",
        "hash = \"hunter2",
        "hash = [\"hunter2\"]",
        "admin = false hunter2",
    ] {
        let errors = errors(&format!("[[key]]\nname = \"a\"\n{line}\n"));
        assert!(!errors.contains("hunter2"), "{line}:\n{errors}");
    }
}

#[test]
fn too_many_keys_are_rejected() {
    let text: String = (0..1001)
        .map(|number| {
            let hash = Digest::of(format!("{number}").as_bytes());
            format!("[[key]]\nname = \"k{number}\"\nhash = \"sha256:{hash}\"\n")
        })
        .collect();
    assert!(errors(&text).contains("too many keys: found 1001, expected at most 1000"));
}

#[test]
fn patterns_that_match_no_model_are_warnings() {
    let models =
        file("[[models]]\nname = \"digits\"\nplugin = \"p\"\n[[models]]\nname = \"a.b\"\nplugin = \"p\"\n")
            .settings()
            .models;
    let warnings = |models_of_key: &str| {
        let keys = keys(&key(&format!("models = [{models_of_key}]")));
        unmatched_models(&keys, &models).len()
    };
    for matched in [
        "\"digits\"",
        "\"digits.classify\"",
        "\"digits.*\"",
        "\"dig*\"",
        "\"a.b\"",
        "\"a.*\"",
        "\"a.b.t\"",
    ] {
        assert_eq!(warnings(matched), 0, "{matched}");
    }
    for unmatched in ["\"digit\"", "\"digits2\"", "\"a\"", "\"b*\""] {
        assert_eq!(warnings(unmatched), 1, "{unmatched}");
    }
}
