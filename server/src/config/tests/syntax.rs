//! The messages about a file that is not TOML.

use insta::assert_snapshot;
use proptest::prelude::*;

use super::file;

#[test]
fn text_without_quotes_is_told_to_take_them() {
    assert_snapshot!(file(r#"[server]
host = localhost
port =
keep_alive = 75s
"#).errors(), @r#"
    models.toml:2:8: not valid TOML: text must stand in quotes
        2 | host = localhost
          |        ^^^^^^^^^
        hint: write "localhost"

    models.toml:3:7: not valid TOML: a value is missing
        3 | port =
          |       ^
        hint: write a value behind `=`, or take the line out

    models.toml:4:14: not valid TOML: text must stand in quotes
        4 | keep_alive = 75s
          |              ^^^
        hint: write "75s"
    "#);
}

#[test]
fn a_key_written_twice_is_named() {
    assert_snapshot!(file(r#"[server]
port = 1
port = 2
[server]
host = "::"
"#).errors(), @r"
    models.toml:3:1: not valid TOML: `port` is written a second time
        3 | port = 2
          | ^^^^
        hint: keep one of the two

    models.toml:4:2: not valid TOML: `server` is written a second time
        4 | [server]
          |  ^^^^^^
        hint: put all its keys under one header; a further model begins with [[models]]
    ");
}

#[test]
fn a_syntax_error_does_not_hide_the_other_errors() {
    assert_snapshot!(file(r#"[server]
port = 
[batching]
max_batch_size = 0
max_dealy = "5ms"
"#).errors(), @r#"
    models.toml:2:8: not valid TOML: a value is missing
        2 | port = 
          |        ^
        hint: write a value behind `=`, or take the line out

    models.toml:4:18: `max_batch_size` in [batching] is the integer 0, expected an integer from 1 to 65536
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
    models.toml:1:10: not valid TOML: unclosed array table, expected `]`
        1 | [[models]
          |          ^
    ");
    assert_snapshot!(file(r#"[server
port = 8080
"#).errors(), @r"
    models.toml:1:8: not valid TOML: unclosed table, expected `]`
        1 | [server
          |        ^
    ");
}

#[test]
fn an_open_string_and_a_capital_boolean_are_pointed_at() {
    assert_snapshot!(file(r#"[server]
host = "0.0.0.0
docs = True
compression true
"#).errors(), @r#"
    models.toml:2:16: not valid TOML: invalid basic string, expected `"`
        2 | host = "0.0.0.0
          |                ^
        hint: end the text with the quote that it begins with, on the same line

    models.toml:3:8: not valid TOML: invalid boolean, expected `true`
        3 | docs = True
          |        ^^^^
        hint: write true or false, in lower case

    models.toml:4:13: not valid TOML: key with no value, expected `=`
        4 | compression true
          |             ^
        hint: write `key = value`, or [name] for a table
    "#);
}

proptest! {
    /// Whatever is in the file, each error has a place in it, and they come in its order.
    #[test]
    fn any_text_is_resolved_or_refused_in_order(
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
    fn no_text_makes_it_panic(text: String) {
        let _ = file(&text).resolve();
    }
}
