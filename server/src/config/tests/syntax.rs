//! The messages about a file that is not TOML.

use insta::assert_snapshot;
use proptest::prelude::*;

use super::file;

#[test]
fn text_without_quotes_is_told_to_take_them() {
    assert_snapshot!(file("[server]\nhost = localhost\nport =\nkeep_alive = 75s\n").errors(), @"");
}

#[test]
fn a_key_written_twice_is_named() {
    assert_snapshot!(file("[server]\nport = 1\nport = 2\n[server]\nhost = \"::\"\n").errors(), @"");
}

#[test]
fn a_syntax_error_does_not_hide_the_other_errors() {
    assert_snapshot!(file("[server]\nport = \n[batching]\nmax_batch_size = 0\nmax_dealy = \"5ms\"\n").errors(), @"");
}

#[test]
fn a_broken_header_is_the_only_error() {
    assert_snapshot!(file("[[models]\nname = \"digits\"\nplugin = \"onnx\"\n").errors(), @"");
    assert_snapshot!(file("[server\nport = 8080\n").errors(), @"");
}

#[test]
fn an_open_string_and_a_capital_boolean_are_pointed_at() {
    assert_snapshot!(file("[server]\nhost = \"0.0.0.0\ndocs = True\ncompression true\n").errors(), @"");
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
