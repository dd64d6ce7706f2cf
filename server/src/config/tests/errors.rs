//! The messages about values that a key does not accept.

use insta::assert_snapshot;

use super::file;

#[test]
fn an_integer_out_of_range_is_told_the_range() {
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
    models.toml:2:8: `port` in [server] is the integer 65536, expected an integer from 0 to 65535
        2 | port = 65536
          |        ^^^^^

    models.toml:3:14: `model_nice` in [server] is the integer -1, expected an integer from 0 to 19
        3 | model_nice = -1
          |              ^^

    models.toml:7:11: `workers` in [[models]] is the integer 257, expected an integer from 1 to 256
        7 | workers = 257
          |           ^^^

    models.toml:9:18: `max_batch_size` in [models.batching] is the integer 0, expected an integer from 1 to 65536
        9 | max_batch_size = 0
          |                  ^

    models.toml:10:20: `max_batch_weight` in [models.batching] is the integer 0, expected an integer from 1 up, or "none"
        10 | max_batch_weight = 0
           |                    ^
        hint: for no limit at all write "none"

    models.toml:11:18: `max_queue_size` in [models.batching] is the integer 99999999999999999999999999999999999999999999, expected an integer from 1 to 10000000
        11 | max_queue_size = 99999999999999999999999999999999999999999999
           |                  ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
    "#
    );
}

#[test]
fn a_value_of_the_wrong_type_is_told_the_right_one() {
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
    models.toml:2:8: `port` in [server] is "8080", expected an integer from 0 to 65535
        2 | port = "8080"
          |        ^^^^^^
        hint: write it without quotes: 8080

    models.toml:3:8: `host` in [server] is the integer 7, expected an IP address or a host name
        3 | host = 7
          |        ^

    models.toml:4:15: `compression` in [server] is "true", expected true or false
        4 | compression = "true"
          |               ^^^^^^
        hint: write it without quotes: true

    models.toml:5:8: `docs` in [server] is the integer 1, expected true or false
        5 | docs = 1
          |        ^
        hint: write true

    models.toml:6:19: `max_connections` in [server] is the float 1.5, expected an integer from 1 to 1000000
        6 | max_connections = 1.5
          |                   ^^^

    models.toml:7:24: `cors_allowed_origins` in [server] is "*", expected a list, each "*" or an origin such as "https://example.com"
        7 | cors_allowed_origins = "*"
          |                        ^^^
        hint: put it in brackets: ["*"]

    models.toml:8:18: `max_json_depth` in [server] is an array, expected an integer from 1 to 1024
        8 | max_json_depth = [1]
          |                  ^^^

    models.toml:9:16: `http_workers` in [server] is the date-time 2024-01-01, expected an integer from 1 to 1024
        9 | http_workers = 2024-01-01
          |                ^^^^^^^^^^

    models.toml:11:20: `max_batch_weight` in [batching] is "4096", expected an integer from 1 up, or "none"
        11 | max_batch_weight = "4096"
           |                    ^^^^^^
        hint: write it without quotes: 4096

    models.toml:12:20: `max_queue_weight` in [batching] is a table, expected an integer from 1 up, or "none"
        12 | max_queue_weight = { a = 1 }
           |                    ^^^^^^^^^
    "#
    );
}

#[test]
fn a_duration_needs_a_unit() {
    assert_snapshot!(
        file(r#"[server]
keep_alive = 75
header_timeout = "10"
body_timeout = 1.5
request_timeout = "5 parsecs"
reload_timeout = true
"#).errors(),
        @r#"
    models.toml:2:14: `keep_alive` in [server] is the integer 75, expected a duration from 0s to 24h
        2 | keep_alive = 75
          |              ^^
        hint: write it as text with its unit: "75ms", "75s" or "75m"

    models.toml:3:18: `header_timeout` in [server] is "10", expected a duration from 1ms to 1h
        3 | header_timeout = "10"
          |                  ^^^^
        hint: write it as text with its unit: "10ms", "10s" or "10m"

    models.toml:4:16: `body_timeout` in [server] is the float 1.5, expected a duration from 1ms to 1h
        4 | body_timeout = 1.5
          |                ^^^
        hint: write it as text with its unit: "500ms", "2s"

    models.toml:5:19: `request_timeout` in [server] is "5 parsecs", expected a duration from 1ms to 24h
        5 | request_timeout = "5 parsecs"
          |                   ^^^^^^^^^^^
        hint: write a number and a unit: `ms`, `s`, `m` or `h`, such as "5ms" or "1m 30s"

    models.toml:6:18: `reload_timeout` in [server] is the boolean true, expected a duration from 1s to 24h
        6 | reload_timeout = true
          |                  ^^^^
    "#
    );
}

#[test]
fn a_duration_out_of_range_is_told_the_range() {
    assert_snapshot!(file(r#"[server]
header_timeout = "0s"
drain_timeout = "5M"
[batching]
max_delay = "2m"
"#).errors(), @r#"
    models.toml:2:18: `header_timeout` in [server] is "0s", expected a duration from 1ms to 1h
        2 | header_timeout = "0s"
          |                  ^^^^

    models.toml:3:17: `drain_timeout` in [server] is "5M", expected a duration from 0s to 1h
        3 | drain_timeout = "5M"
          |                 ^^^^
        hint: `M` means months; minutes are `m`

    models.toml:5:13: `max_delay` in [batching] is "2m", expected a duration from 0s to 1m
        5 | max_delay = "2m"
          |             ^^^^
    "#);
}

#[test]
fn a_size_needs_a_unit() {
    for (written, hint) in [
        ("67108864", "\"64MiB\""),
        ("1000", "\"1000B\""),
        ("\"64\"", "\"64B\""),
        ("\"64M\"", "\"64MiB\" counts in 1024s, \"64MB\" in 1000s"),
        ("\"1.5GiB\"", "a whole number and a unit"),
    ] {
        let message = file(&format!("[server]\nmax_body_size = {written}\n")).errors();
        assert!(message.contains(hint), "{message}");
    }
    assert_snapshot!(file(r#"[server]
max_body_size = 67108864
"#).errors(), @r#"
    models.toml:2:17: `max_body_size` in [server] is the integer 67108864, expected a size from 1KiB to 64GiB
        2 | max_body_size = 67108864
          |                 ^^^^^^^^
        hint: write it as text with its unit: "64MiB"
    "#);
}

#[test]
fn a_size_out_of_range_is_told_the_range() {
    assert_snapshot!(file(r#"[server]
max_body_size = "1B"
"#).errors(), @r#"
    models.toml:2:17: `max_body_size` in [server] is "1B", expected a size from 1KiB to 64GiB
        2 | max_body_size = "1B"
          |                 ^^^^
    "#);
}

#[test]
fn a_wrong_word_names_the_nearest() {
    assert_snapshot!(file(r#"[logging]
format = "jsno"
[batching]
policy = "adaptve"
weight_rule = 3
"#).errors(), @r#"
    models.toml:2:10: `format` in [logging] is "jsno", expected "text" or "json"
        2 | format = "jsno"
          |          ^^^^^^
        hint: did you mean `json`?

    models.toml:4:10: `policy` in [batching] is "adaptve", expected "adaptive", "greedy", "fixed" or "off"
        4 | policy = "adaptve"
          |          ^^^^^^^^^
        hint: did you mean `adaptive`?

    models.toml:5:15: `weight_rule` in [batching] is the integer 3, expected "padded" or "sum"
        5 | weight_rule = 3
          |               ^
    "#);
}

#[test]
fn a_mistyped_log_level_is_not_taken_for_a_module() {
    assert_snapshot!(file(r#"[logging]
level = "warning"
"#).errors(), @r#"
    models.toml:2:9: `level` in [logging] is "warning", expected a log level or a filter such as "info,actix_web=warn"
        2 | level = "warning"
          |         ^^^^^^^^^
        hint: did you mean `warn`?
    "#);
}

#[test]
fn a_bad_element_of_a_list_is_named() {
    assert_snapshot!(file(r#"[server]
cors_allowed_origins = ["https://a.example", "https://b.example/"]
[logging]
access_log_exclude = ["health"]
"#).errors(), @r#"
    models.toml:2:46: `cors_allowed_origins` in [server] is a list with "https://b.example/", expected a list, each "*" or an origin such as "https://example.com"
        2 | cors_allowed_origins = ["https://a.example", "https://b.example/"]
          |                                              ^^^^^^^^^^^^^^^^^^^^
        hint: an origin has no path and no slash at its end

    models.toml:4:23: `access_log_exclude` in [logging] is a list with "health", expected a list, each a path, or the start of one followed by `*`, such as "/v2/health/*"
        4 | access_log_exclude = ["health"]
          |                       ^^^^^^^^
        hint: begin with a slash: "/health"
    "#);
}

#[test]
fn a_host_with_a_port_is_told_where_the_port_goes() {
    assert_snapshot!(file(r#"[server]
host = "0.0.0.0:8080"
"#).errors(), @r#"
    models.toml:2:8: `host` in [server] is "0.0.0.0:8080", expected an IP address or a host name
        2 | host = "0.0.0.0:8080"
          |        ^^^^^^^^^^^^^^
        hint: write the port in `port`
    "#);
}

#[test]
fn a_setting_that_json_cannot_carry_is_refused() {
    assert_snapshot!(file(r#"[[models]]
name = "a"
plugin = "a"
[models.settings]
scale = [1.0, nan]
big = 99999999999999999999
"#).errors(), @r"
    models.toml:5:15: `scale.1` in [models.settings] is a number that JSON cannot carry, so no plugin could read it
        5 | scale = [1.0, nan]
          |               ^^^
        hint: write a finite number, at most 64 bits wide

    models.toml:6:7: `big` in [models.settings] is a number that JSON cannot carry, so no plugin could read it
        6 | big = 99999999999999999999
          |       ^^^^^^^^^^^^^^^^^^^^
        hint: write a finite number, at most 64 bits wide
    ");
}

#[test]
fn a_long_line_is_not_quoted() {
    let text = format!("[server]\nhost = \"{}\"\n", "x:".repeat(100));
    assert_eq!(
        file(&text).errors().lines().count(),
        2,
        "the message and its hint"
    );
}

#[test]
fn a_line_with_tabs_and_wide_letters_is_marked_where_it_is_wrong() {
    assert_snapshot!(file(r#"[server]
	cors_allowed_origins = ["ü"]
"#).errors(), @r#"
    models.toml:2:26: `cors_allowed_origins` in [server] is a list with "ü", expected a list, each "*" or an origin such as "https://example.com"
        2 | 	cors_allowed_origins = ["ü"]
          | 	                        ^^^
        hint: begin with `https://` or `http://`
    "#);
}

#[test]
fn buckets_that_are_not_ascending_durations_are_rejected() {
    assert_snapshot!(file(r#"[metrics]
inference_buckets = ["1ms", "2s", "500ms"]
request_buckets = ["0s"]
stage_buckets = [0.1]
"#).errors(), @r#"
    models.toml:2:21: `inference_buckets` in [metrics] is a list with "500ms" after "2s", expected a list of at most 64 elements in ascending order, each a duration from 1us to 24h
        2 | inference_buckets = ["1ms", "2s", "500ms"]
          |                     ^^^^^^^^^^^^^^^^^^^^^^

    models.toml:3:20: `request_buckets` in [metrics] is a list with "0s", expected a list of at most 64 elements in ascending order, each a duration from 1us to 24h
        3 | request_buckets = ["0s"]
          |                    ^^^^

    models.toml:4:18: `stage_buckets` in [metrics] is a list with the float 0.1, expected a list of at most 64 elements in ascending order, each a duration from 1us to 24h
        4 | stage_buckets = [0.1]
          |                  ^^^
        hint: write it as text with its unit: "500ms", "2s"
    "#);
}
