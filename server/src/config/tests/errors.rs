//! Errors about invalid values.

use insta::assert_snapshot;

use super::file;

#[test]
fn the_error_for_an_integer_out_of_range_shows_the_range() {
    assert_snapshot!(
        file(r#"[server]
port = 65536
model_nice = -1
[[models]]
name = "a"
plugin = "b"
workers = 257
[models.batching]
max_batch_size = 0
max_batch_weight = 0
max_queue_size = 99999999999999999999999999999999999999999999
"#).errors(),
        @r#"
    models.toml:2:8: invalid value 65536 for `port` in [server]: expected an integer from 0 to 65535
        2 | port = 65536
          |        ^^^^^

    models.toml:3:14: invalid value -1 for `model_nice` in [server]: expected an integer from 0 to 19
        3 | model_nice = -1
          |              ^^

    models.toml:7:11: invalid value 257 for `workers` in [[models]]: expected an integer from 1 to 256
        7 | workers = 257
          |           ^^^

    models.toml:9:18: invalid value 0 for `max_batch_size` in [models.batching]: expected an integer from 1 to 65536
        9 | max_batch_size = 0
          |                  ^

    models.toml:10:20: invalid value 0 for `max_batch_weight` in [models.batching]: expected a positive integer or "none"
        10 | max_batch_weight = 0
           |                    ^
        hint: write "none" for no limit

    models.toml:11:18: invalid value 99999999999999999999999999999999999999999999 for `max_queue_size` in [models.batching]: expected an integer from 1 to 10000000
        11 | max_queue_size = 99999999999999999999999999999999999999999999
           |                  ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
    "#
    );
}

#[test]
fn the_error_for_a_value_of_the_wrong_type_shows_the_right_one() {
    assert_snapshot!(
        file(r#"[server]
port = "8080"
host = 7
compression = "true"
docs = 1
max_connections = 1.5
cors_allowed_origins = "*"
max_json_depth = [1]
http_workers = 2024-01-01
[batching]
max_batch_weight = "4096"
max_queue_weight = { a = 1 }
"#).errors(),
        @r#"
    models.toml:2:8: invalid value "8080" for `port` in [server]: expected an integer from 0 to 65535
        2 | port = "8080"
          |        ^^^^^^
        hint: remove the quotes: 8080

    models.toml:3:8: invalid value 7 for `host` in [server]: expected an IP address or a host name
        3 | host = 7
          |        ^

    models.toml:4:15: invalid value "true" for `compression` in [server]: expected true or false
        4 | compression = "true"
          |               ^^^^^^
        hint: remove the quotes: true

    models.toml:5:8: invalid value 1 for `docs` in [server]: expected true or false
        5 | docs = 1
          |        ^
        hint: write true

    models.toml:6:19: invalid value 1.5 for `max_connections` in [server]: expected an integer from 1 to 1000000
        6 | max_connections = 1.5
          |                   ^^^

    models.toml:7:24: invalid value "*" for `cors_allowed_origins` in [server]: expected a list in which each element is "*" or an origin such as "https://example.com"
        7 | cors_allowed_origins = "*"
          |                        ^^^
        hint: put it in brackets: ["*"]

    models.toml:8:18: invalid value for `max_json_depth` in [server]: found an array, expected an integer from 1 to 1024
        8 | max_json_depth = [1]
          |                  ^^^

    models.toml:9:16: invalid value 2024-01-01 for `http_workers` in [server]: expected an integer from 1 to 1024
        9 | http_workers = 2024-01-01
          |                ^^^^^^^^^^

    models.toml:11:20: invalid value "4096" for `max_batch_weight` in [batching]: expected a positive integer or "none"
        11 | max_batch_weight = "4096"
           |                    ^^^^^^
        hint: remove the quotes: 4096

    models.toml:12:20: invalid value for `max_queue_weight` in [batching]: found a table, expected a positive integer or "none"
        12 | max_queue_weight = { a = 1 }
           |                    ^^^^^^^^^
    "#
    );
}

#[test]
fn durations_require_a_unit() {
    assert_snapshot!(
        file(r#"[server]
keep_alive = 75
header_timeout = "10"
body_timeout = 1.5
request_timeout = "5 parsecs"
reload_timeout = true
"#).errors(),
        @r#"
    models.toml:2:14: invalid value 75 for `keep_alive` in [server]: expected a duration from 0s to 24h
        2 | keep_alive = 75
          |              ^^
        hint: add a unit: "75ms", "75s" or "75m"

    models.toml:3:18: invalid value "10" for `header_timeout` in [server]: expected a duration from 1ms to 1h
        3 | header_timeout = "10"
          |                  ^^^^
        hint: add a unit: "10ms", "10s" or "10m"

    models.toml:4:16: invalid value 1.5 for `body_timeout` in [server]: expected a duration from 1ms to 1h
        4 | body_timeout = 1.5
          |                ^^^
        hint: use a duration with a unit, such as "500ms" or "2s"

    models.toml:5:19: invalid value "5 parsecs" for `request_timeout` in [server]: expected a duration from 1ms to 24h
        5 | request_timeout = "5 parsecs"
          |                   ^^^^^^^^^^^
        hint: write a number and a unit (`ms`, `s`, `m` or `h`), such as "5ms" or "1m 30s"

    models.toml:6:18: invalid value true for `reload_timeout` in [server]: expected a duration from 1s to 24h
        6 | reload_timeout = true
          |                  ^^^^
    "#
    );
}

#[test]
fn the_error_for_a_duration_out_of_range_shows_the_range() {
    assert_snapshot!(file(r#"[server]
header_timeout = "0s"
drain_timeout = "5M"
[batching]
max_delay = "2m"
"#).errors(), @r#"
    models.toml:2:18: invalid value "0s" for `header_timeout` in [server]: expected a duration from 1ms to 1h
        2 | header_timeout = "0s"
          |                  ^^^^

    models.toml:3:17: invalid value "5M" for `drain_timeout` in [server]: expected a duration from 0s to 1h
        3 | drain_timeout = "5M"
          |                 ^^^^
        hint: `M` stands for months; write `m` for minutes

    models.toml:5:13: invalid value "2m" for `max_delay` in [batching]: expected a duration from 0s to 1m
        5 | max_delay = "2m"
          |             ^^^^
    "#);
}

#[test]
fn sizes_require_a_unit() {
    for (written, hint) in [
        ("67108864", "\"64MiB\""),
        ("1000", "\"1000B\""),
        ("\"64\"", "\"64B\""),
        (
            "\"64M\"",
            "\"64MiB\" for powers of 1024, or \"64MB\" for powers of 1000",
        ),
        ("\"1.5GiB\"", "an integer and a unit"),
    ] {
        let message = file(&format!("[server]\nmax_body_size = {written}\n")).errors();
        assert!(message.contains(hint), "{message}");
    }
    assert_snapshot!(file(r#"[server]
max_body_size = 67108864
"#).errors(), @r#"
    models.toml:2:17: invalid value 67108864 for `max_body_size` in [server]: expected a size from 1KiB to 64GiB
        2 | max_body_size = 67108864
          |                 ^^^^^^^^
        hint: add a unit: "64MiB"
    "#);
}

#[test]
fn the_error_for_a_size_out_of_range_shows_the_range() {
    assert_snapshot!(file(r#"[server]
max_body_size = "1B"
"#).errors(), @r#"
    models.toml:2:17: invalid value "1B" for `max_body_size` in [server]: expected a size from 1KiB to 64GiB
        2 | max_body_size = "1B"
          |                 ^^^^
    "#);
}

#[test]
fn the_error_for_an_unknown_word_suggests_a_similar_one() {
    assert_snapshot!(file(r#"[logging]
format = "jsno"
[batching]
policy = "adaptve"
weight_rule = 3
"#).errors(), @r#"
    models.toml:2:10: invalid value "jsno" for `format` in [logging]: expected "text" or "json"
        2 | format = "jsno"
          |          ^^^^^^
        hint: did you mean `json`?

    models.toml:4:10: invalid value "adaptve" for `policy` in [batching]: expected "adaptive", "greedy", "fixed" or "off"
        4 | policy = "adaptve"
          |          ^^^^^^^^^
        hint: did you mean `adaptive`?

    models.toml:5:15: invalid value 3 for `weight_rule` in [batching]: expected "padded" or "sum"
        5 | weight_rule = 3
          |               ^
    "#);
}

#[test]
fn a_misspelled_log_level_is_an_error() {
    assert_snapshot!(file(r#"[logging]
level = "warning"
"#).errors(), @r#"
    models.toml:2:9: invalid value "warning" for `level` in [logging]: expected a log level or a filter such as "info,actix_web=warn"
        2 | level = "warning"
          |         ^^^^^^^^^
        hint: did you mean `warn`?
    "#);
}

#[test]
fn the_error_for_a_list_shows_the_invalid_element() {
    assert_snapshot!(file(r#"[server]
cors_allowed_origins = ["https://a.example", "https://b.example/"]
[logging]
access_log_exclude = ["health"]
"#).errors(), @r#"
    models.toml:2:46: invalid element "https://b.example/" of `cors_allowed_origins` in [server]: expected "*" or an origin such as "https://example.com"
        2 | cors_allowed_origins = ["https://a.example", "https://b.example/"]
          |                                              ^^^^^^^^^^^^^^^^^^^^
        hint: remove the path and the slash at the end

    models.toml:4:23: invalid element "health" of `access_log_exclude` in [logging]: expected a path, or a prefix followed by `*`, such as "/v2/health/*"
        4 | access_log_exclude = ["health"]
          |                       ^^^^^^^^
        hint: start with a slash: "/health"
    "#);
}

#[test]
fn the_error_for_a_host_with_a_port_names_the_key_for_ports() {
    assert_snapshot!(file(r#"[server]
host = "0.0.0.0:8080"
"#).errors(), @r#"
    models.toml:2:8: invalid value "0.0.0.0:8080" for `host` in [server]: expected an IP address or a host name
        2 | host = "0.0.0.0:8080"
          |        ^^^^^^^^^^^^^^
        hint: set the port with `port`
    "#);
}

#[test]
fn a_setting_that_json_cannot_represent_is_rejected() {
    assert_snapshot!(file(r#"[[models]]
name = "a"
plugin = "a"
[models.settings]
scale = [1.0, nan]
big = 99999999999999999999
"#).errors(), @r"
    models.toml:5:15: invalid value for `scale.1` in [models.settings]: JSON cannot represent this number
        5 | scale = [1.0, nan]
          |               ^^^
        hint: use a finite number of at most 64 bits

    models.toml:6:7: invalid value for `big` in [models.settings]: JSON cannot represent this number
        6 | big = 99999999999999999999
          |       ^^^^^^^^^^^^^^^^^^^^
        hint: use a finite number of at most 64 bits
    ");
}

#[test]
fn long_lines_are_not_quoted() {
    let text = format!("[server]\nhost = \"{}\"\n", "x:".repeat(100));
    assert_eq!(file(&text).errors().lines().count(), 2, "the error and its hint");
}

#[test]
fn the_mark_is_in_the_right_column_after_tabs_and_multibyte_characters() {
    assert_snapshot!(file(r#"[server]
	cors_allowed_origins = ["ü"]
"#).errors(), @r#"
    models.toml:2:26: invalid element "ü" of `cors_allowed_origins` in [server]: expected "*" or an origin such as "https://example.com"
        2 | 	cors_allowed_origins = ["ü"]
          | 	                        ^^^
        hint: start with `https://` or `http://`
    "#);
}

#[test]
fn buckets_must_be_ascending_durations() {
    assert_snapshot!(file(r#"[metrics]
inference_buckets = ["1ms", "2s", "500ms"]
request_buckets = ["0s"]
stage_buckets = [0.1]
"#).errors(), @r#"
    models.toml:2:21: invalid value for `inference_buckets` in [metrics]: found "500ms" after "2s", expected a list of up to 64 elements in ascending order, each a duration from 1us to 24h
        2 | inference_buckets = ["1ms", "2s", "500ms"]
          |                     ^^^^^^^^^^^^^^^^^^^^^^

    models.toml:3:20: invalid element "0s" of `request_buckets` in [metrics]: expected a duration from 1us to 24h
        3 | request_buckets = ["0s"]
          |                    ^^^^

    models.toml:4:18: invalid element 0.1 of `stage_buckets` in [metrics]: expected a duration from 1us to 24h
        4 | stage_buckets = [0.1]
          |                  ^^^
        hint: use a duration with a unit, such as "500ms" or "2s"
    "#);
}
