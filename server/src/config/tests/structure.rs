//! Errors about keys, tables, names and routes.

use insta::assert_snapshot;

use super::file;

#[test]
fn the_error_for_an_unknown_key_suggests_a_similar_one() {
    assert_snapshot!(file(r#"[[models]]
name = "digits"
plugin = "onnx"
[models.batching]
max_bacth_size = 8
"#).errors(), @r"
    models.toml:5:1: unknown key `max_bacth_size` in [models.batching]
        5 | max_bacth_size = 8
          | ^^^^^^^^^^^^^^
        hint: did you mean `max_batch_size`?
    ");
}

#[test]
fn the_error_for_an_unknown_table_suggests_a_similar_one() {
    assert_snapshot!(file(r#"[loging]
level = "info"
[[model]]
name = "digits"
"#).errors(), @r"
    models.toml:1:2: unknown table `loging` at the top level
        1 | [loging]
          |  ^^^^^^
        hint: did you mean `logging`?

    models.toml:3:3: unknown table `model` at the top level
        3 | [[model]]
          |   ^^^^^
        hint: did you mean `models`?
    ");
}

#[test]
fn the_error_for_a_key_in_the_wrong_table_names_the_right_one() {
    assert_snapshot!(file(r#"port = 80
[server]
max_batch_size = 8
settings = {}
[batching]
route = "/text"
"#).errors(), @r#"
    models.toml:1:1: unknown key `port` at the top level
        1 | port = 80
          | ^^^^
        hint: `port` belongs in [server]

    models.toml:3:1: unknown key `max_batch_size` in [server]
        3 | max_batch_size = 8
          | ^^^^^^^^^^^^^^
        hint: `max_batch_size` belongs in [batching], [models.batching] or [models.tasks.…]

    models.toml:4:1: unknown table `settings` in [server]
        4 | settings = {}
          | ^^^^^^^^
        hint: `settings` belongs in [[models]], as [models.settings]

    models.toml:6:1: unknown key `route` in [batching]
        6 | route = "/text"
          | ^^^^^
        hint: `route` belongs in [models.tasks.…]
    "#);
}

#[test]
fn the_error_for_an_unknown_key_without_a_similar_one_lists_all_keys() {
    assert_snapshot!(file(r#"[logging]
qqqqqqqq = 1
"#).errors(), @r"
    models.toml:2:1: unknown key `qqqqqqqq` in [logging]
        2 | qqqqqqqq = 1
          | ^^^^^^^^
        hint: expected `level`, `format`, `access_log`, `access_log_exclude` or `slow_request_log`
    ");
}

#[test]
fn missing_required_keys_are_reported() {
    assert_snapshot!(file(r#"[[models]]
name = "digits"

[[models]]
plugin = "onnx"
"#).errors(), @r#"
    models.toml:1:1: missing key `plugin` in [[models]]
        1 | [[models]]
          | ^^^^^^^^^^
        hint: add a line such as `plugin = "onnx"`

    models.toml:4:1: missing key `name` in [[models]]
        4 | [[models]]
          | ^^^^^^^^^^
        hint: add a line such as `name = "digits"`
    "#);
}

#[test]
fn the_error_for_an_invalid_name_shows_the_character() {
    assert_snapshot!(file(r#"[[models]]
name = "my model"
plugin = ""
default_task = ".hidden"
[models.tasks."a/b"]
"#).errors(), @r#"
    models.toml:2:8: invalid value "my model" for `name` in [[models]]: expected a name of 1 to 128 letters, digits, `.`, `_` or `-`, with at most one `/`, whose parts do not start with `.`
        2 | name = "my model"
          |        ^^^^^^^^^^
        hint: ' ' is not allowed; use `-` or `_` instead

    models.toml:3:10: invalid value "" for `plugin` in [[models]]: expected the name of a plugin, or the path of a shared library
        3 | plugin = ""
          |          ^^
        hint: it must not be empty

    models.toml:4:16: invalid value ".hidden" for `default_task` in [[models]]: expected a name of 1 to 64 letters, digits, `.`, `_` or `-`, not starting with `.`
        4 | default_task = ".hidden"
          |                ^^^^^^^^^
        hint: start with a letter or a digit

    models.toml:5:15: invalid task name "a/b" in [models.tasks.a/b]: expected a name of 1 to 64 letters, digits, `.`, `_` or `-`, not starting with `.`
        5 | [models.tasks."a/b"]
          |               ^^^^^
        hint: '/' is not allowed; use `-` or `_` instead
    "#);
}

#[test]
fn duplicate_model_names_are_rejected() {
    assert_snapshot!(file(r#"[[models]]
name = "digits"
plugin = "a"
[[models]]
name = "digits"
plugin = "b"
"#).errors(), @r#"
    models.toml:5:8: duplicate model name "digits"
        5 | name = "digits"
          |        ^^^^^^^^
        hint: first used at models.toml:2:8; give each model its own name
    "#);
}

#[test]
fn duplicate_routes_are_rejected() {
    assert_snapshot!(
        file(r#"[[models]]
name = "a"
plugin = "a"
tasks.x.route = "/text"
[[models]]
name = "b"
plugin = "b"
[models.tasks.text]
route = "/text"
"#).errors(),
        @r#"
    models.toml:9:9: duplicate route "/text"
        9 | route = "/text"
          |         ^^^^^^^
        hint: first used at models.toml:4:17; give each task its own route
    "#
    );
}

#[test]
fn routes_must_be_valid_paths_that_are_not_reserved() {
    assert_snapshot!(
        file(r#"[[models]]
name = "a"
plugin = "a"
[models.tasks.x]
route = "/v1/x"
[models.tasks.y]
route = "text"
[models.tasks.z]
route = "/a b"
"#).errors(),
        @r#"
    models.toml:5:9: invalid value "/v1/x" for `route` in [models.tasks.x]: expected a path such as "/text"
        5 | route = "/v1/x"
          |         ^^^^^^^
        hint: `/v1` and all paths below it are reserved by the server; choose another path

    models.toml:7:9: invalid value "text" for `route` in [models.tasks.y]: expected a path such as "/text"
        7 | route = "text"
          |         ^^^^^^
        hint: start with a slash: "/text"

    models.toml:9:9: invalid value "/a b" for `route` in [models.tasks.z]: expected a path such as "/text"
        9 | route = "/a b"
          |         ^^^^^^
        hint: ' ' is not allowed; use letters, digits, `.`, `_`, `~`, `-` and `/`
    "#
    );
}

#[test]
fn the_error_for_a_value_instead_of_a_table_shows_the_header() {
    assert_snapshot!(file(r#"server = 8080
[models]
name = "a"
"#).errors(), @r"
    models.toml:1:10: invalid value for [server]: found an integer, expected a table
        1 | server = 8080
          |          ^^^^

    models.toml:2:1: invalid value for `models`: found one table, expected a list of tables
        2 | [models]
          | ^^^^^^^^
        hint: start each model with [[models]], in double brackets
    ");
    assert_snapshot!(file(r#"models = [1]
[[logging]]
level = "info"
"#).errors(), @r"
    models.toml:1:11: invalid element of `models`: found an integer, expected a table
        1 | models = [1]
          |           ^
        hint: write it as [[models]]

    models.toml:2:1: invalid value for [logging]: found an array, expected a table
        2 | [[logging]]
          | ^^^^^^^^^^^
        hint: write its header in single brackets
    ");
    assert_snapshot!(file(r#"[[models]]
name = "a"
plugin = "a"
settings = "x"
[models.tasks]
route = "/text"
"#).errors(), @r#"
    models.toml:4:12: invalid value for [models.settings]: found a string, expected a table
        4 | settings = "x"
          |            ^^^

    models.toml:6:9: invalid value for `route` in [models.tasks]: found a string, expected a table
        6 | route = "/text"
          |         ^^^^^^^
        hint: name the task in the header, such as [models.tasks.text]
    "#);
}
