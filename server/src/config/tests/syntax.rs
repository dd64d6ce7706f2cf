//! Errors about invalid TOML.

use insta::assert_snapshot;
use proptest::prelude::*;

use super::file;

#[test]
fn unquoted_strings_and_missing_values_are_reported() {
    assert_snapshot!(file(r#"[server]
host = localhost
port =
keep_alive = 75s
"#).errors(), @r#"
    models.toml:2:8: invalid TOML: unquoted string
        2 | host = localhost
          |        ^^^^^^^^^
        hint: write "localhost"

    models.toml:3:7: invalid TOML: missing value
        3 | port =
          |       ^
        hint: add a value after `=`, or remove the line

    models.toml:4:14: invalid TOML: unquoted string
        4 | keep_alive = 75s
          |              ^^^
        hint: write "75s"
    "#);
}

#[test]
fn duplicate_keys_are_reported() {
    assert_snapshot!(file(r#"[server]
port = 1
port = 2
[server]
host = "::"
"#).errors(), @r"
    models.toml:3:1: invalid TOML: duplicate key `port`
        3 | port = 2
          | ^^^^
        hint: remove one of the two

    models.toml:4:2: invalid TOML: duplicate key `server`
        4 | [server]
          |  ^^^^^^
        hint: merge the two tables; every model starts with its own [[models]]
    ");
}

#[test]
fn a_syntax_error_does_not_hide_other_errors() {
    assert_snapshot!(file(r#"[server]
port = 
[batching]
max_batch_size = 0
max_dealy = "5ms"
"#).errors(), @r#"
    models.toml:2:8: invalid TOML: missing value
        2 | port = 
          |        ^
        hint: add a value after `=`, or remove the line

    models.toml:4:18: invalid value 0 for `max_batch_size` in [batching]: expected an integer from 1 to 65536
        4 | max_batch_size = 0
          |                  ^

    models.toml:5:1: unknown key `max_dealy` in [batching]
        5 | max_dealy = "5ms"
          | ^^^^^^^^^
        hint: did you mean `max_delay`?
    "#);
}

#[test]
fn a_broken_header_is_the_only_error() {
    assert_snapshot!(file(r#"[[models]
name = "digits"
plugin = "onnx"
"#).errors(), @r"
    models.toml:1:10: invalid TOML: unclosed array table, expected `]`
        1 | [[models]
          |          ^
    ");
    assert_snapshot!(file(r#"[server
port = 8080
"#).errors(), @r"
    models.toml:1:8: invalid TOML: unclosed table, expected `]`
        1 | [server
          |        ^
    ");
}

#[test]
fn unclosed_strings_and_capitalized_booleans_are_reported() {
    assert_snapshot!(file(r#"[server]
host = "0.0.0.0
docs = True
compression true
"#).errors(), @r#"
    models.toml:2:16: invalid TOML: invalid basic string, expected `"`
        2 | host = "0.0.0.0
          |                ^
        hint: close the string with the quote that opens it, on the same line

    models.toml:3:8: invalid TOML: invalid boolean, expected `true`
        3 | docs = True
          |        ^^^^
        hint: write true or false, in lower case

    models.toml:4:13: invalid TOML: key with no value, expected `=`
        4 | compression true
          |             ^
        hint: write `key = value`, or [name] for a table
    "#);
}

proptest! {
    /// Errors have places in the file and are in its order.
    #[test]
    fn errors_of_any_text_are_in_the_order_of_the_file(
        lines in proptest::collection::vec(
            prop_oneof![
                Just("[server]"), Just("[[models]]"), Just("[models.settings]"), Just("[models.tasks.a]"), Just("[batching"),
                Just("port = 80"), Just("name = \"a\""), Just("plugin = \"b\""), Just("a.b = [1, {c = 2}]"), Just("é = 'ü"),
                Just("max_batch_size = \"8\""), Just("x = \"\"\""), Just("policy = fixed"), Just("route = '/a'"), Just("\t"), Just("]\u{0}"),
            ],
            0..12,
        ),
        separator in prop_oneof![Just("\n"), Just("\r\n")],
    ) {
        let text = lines.join(separator);
        if let Err(errors) = file(&text).resolve() {
            let origins: Vec<_> = errors.iter().map(|error| error.origin.clone()).collect();
            prop_assert!(origins.is_sorted());
            prop_assert!(!errors.to_string().is_empty());
        }
    }

    #[test]
    fn no_text_causes_a_panic(text: String) {
        let _ = file(&text).resolve();
    }
}
