//! The messages about keys, tables, names and routes.

use insta::assert_snapshot;

use super::file;

#[test]
fn an_unknown_key_names_the_nearest() {
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
fn an_unknown_table_names_the_nearest() {
    assert_snapshot!(file(r#"[loging]
level = "info"
[[model]]
name = "digits"
"#).errors(), @r"
    models.toml:1:2: unknown table `loging` at the top of the file
        1 | [loging]
          |  ^^^^^^
        hint: did you mean `logging`?

    models.toml:3:3: unknown table `model` at the top of the file
        3 | [[model]]
          |   ^^^^^
        hint: did you mean `models`?
    ");
}

#[test]
fn a_key_in_the_wrong_table_is_told_its_place() {
    assert_snapshot!(file(r#"port = 80
[server]
max_batch_size = 8
settings = {}
[batching]
route = "/text"
"#).errors(), @r#"
    models.toml:1:1: unknown key `port` at the top of the file
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
fn an_unknown_key_like_no_other_is_told_all() {
    assert_snapshot!(file(r#"[logging]
qqqqqqqq = 1
"#).errors(), @r"
    models.toml:2:1: unknown key `qqqqqqqq` in [logging]
        2 | qqqqqqqq = 1
          | ^^^^^^^^
        hint: known here are `level`, `format`, `access_log` and `access_log_exclude`
    ");
}

#[test]
fn required_keys_are_asked_for() {
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
fn a_bad_name_says_which_character() {
    assert_snapshot!(file(r#"[[models]]
name = "my model"
plugin = ""
default_task = ".hidden"
[models.tasks."a/b"]
"#).errors(), @r#"
    models.toml:2:8: `name` in [[models]] is "my model", expected a name of 1 to 64 letters, digits, `.`, `_` or `-`, not starting with `.`
        2 | name = "my model"
          |        ^^^^^^^^^^
        hint: ' ' is not allowed; use `-` or `_` instead

    models.toml:3:10: `plugin` in [[models]] is "", expected the name of a plugin or the path of a shared library
        3 | plugin = ""
          |          ^^
        hint: it may not be empty

    models.toml:4:16: `default_task` in [[models]] is ".hidden", expected a name of 1 to 64 letters, digits, `.`, `_` or `-`, not starting with `.`
        4 | default_task = ".hidden"
          |                ^^^^^^^^^
        hint: begin with a letter or a digit

    models.toml:5:15: the task in [models.tasks.a/b] is "a/b", expected a name of 1 to 64 letters, digits, `.`, `_` or `-`, not starting with `.`
        5 | [models.tasks."a/b"]
          |               ^^^^^
        hint: '/' is not allowed; use `-` or `_` instead
    "#);
}

#[test]
fn two_models_of_one_name_are_refused() {
    assert_snapshot!(file(r#"[[models]]
name = "digits"
plugin = "a"
[[models]]
name = "digits"
plugin = "b"
"#).errors(), @r#"
    models.toml:5:8: model name "digits" is used twice
        5 | name = "digits"
          |        ^^^^^^^^
        hint: models.toml:2:8 has it already; give each model a name of its own
    "#);
}

#[test]
fn two_tasks_of_one_route_are_refused() {
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
    models.toml:9:9: route "/text" is used twice
        9 | route = "/text"
          |         ^^^^^^^
        hint: models.toml:4:17 has it already; give each task a route of its own
    "#
    );
}

#[test]
fn a_route_leaves_the_servers_own_paths_alone() {
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
    models.toml:5:9: `route` in [models.tasks.x] is "/v1/x", expected a path such as "/text"
        5 | route = "/v1/x"
          |         ^^^^^^^
        hint: `/v1` and everything below it is answered by the server itself; choose another path

    models.toml:7:9: `route` in [models.tasks.y] is "text", expected a path such as "/text"
        7 | route = "text"
          |         ^^^^^^
        hint: begin with a slash: "/text"

    models.toml:9:9: `route` in [models.tasks.z] is "/a b", expected a path such as "/text"
        9 | route = "/a b"
          |         ^^^^^^
        hint: ' ' is not allowed; use letters, digits, `.`, `_`, `~`, `-` and `/`
    "#
    );
}

#[test]
fn tables_of_the_wrong_shape_are_told_the_right_one() {
    assert_snapshot!(file(r#"server = 8080
[models]
name = "a"
"#).errors(), @r"
    models.toml:1:10: [server] is an integer, expected a table
        1 | server = 8080
          |          ^^^^

    models.toml:2:1: `models` is one table, expected a list of tables
        2 | [models]
          | ^^^^^^^^
        hint: begin each model with [[models]], in double brackets
    ");
    assert_snapshot!(file(r#"models = [1]
[[logging]]
level = "info"
"#).errors(), @r"
    models.toml:1:11: a model in `models` is an integer, expected a table
        1 | models = [1]
          |           ^
        hint: write it as [[models]]

    models.toml:2:1: [logging] is an array, expected a table
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
    models.toml:4:12: [models.settings] is a string, expected a table
        4 | settings = "x"
          |            ^^^

    models.toml:6:9: `route` in [models.tasks] is a string, expected a table
        6 | route = "/text"
          |         ^^^^^^^
        hint: name the task in the header, such as [models.tasks.text]
    "#);
}
