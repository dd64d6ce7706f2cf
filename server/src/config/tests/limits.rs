//! Limits of the processes of a model.

use std::num::NonZeroUsize;

use insta::assert_snapshot;

use super::file;
use crate::resources::{Cpus, Resources, Sandbox};
use crate::secret::Secret;

fn resources(keys: &str) -> Resources {
    let text = format!("[[models]]\nname = \"a\"\nplugin = \"b\"\nisolation = \"process\"\n{keys}\n");
    file(&text).model().resources
}

#[test]
fn without_a_word_there_are_no_limits() {
    assert_eq!(resources(""), Resources::default());
}

#[test]
fn every_limit_is_read() {
    let read = resources(
        "max_memory = \"2GiB\"\ncpus = [3, 1, 3]\nsandbox = \"best-effort\"\n[models.env]\nA = \"b\"\nC = \"\"",
    );
    let env = [("A", "b"), ("C", "")].map(|(name, value)| (name.to_owned(), Secret::new(value)));
    let expected = Resources {
        max_memory: Some(2 << 30),
        cpus: Some(Cpus::These(vec![1, 3])),
        env: env.into(),
        sandbox: Sandbox::BestEffort,
    };
    assert_eq!(read, expected);
    let two = NonZeroUsize::new(2).expect("2 is not 0");
    assert_eq!(resources("cpus = 2").cpus, Some(Cpus::Count(two)));
}

#[test]
fn a_change_of_limits_takes_new_processes() {
    let model = |keys: &str| {
        let text = format!("[[models]]\nname = \"a\"\nplugin = \"b\"\nisolation = \"process\"\n{keys}\n");
        file(&text).model()
    };
    assert!(!model("cpus = 2").needs_reload(&model("cpus = 2")));
    for keys in [
        "cpus = 1",
        "nice = 3",
        "max_memory = \"1GiB\"",
        "sandbox = \"on\"",
        "[models.env]\nA = \"b\"",
    ] {
        assert!(model("").needs_reload(&model(keys)), "{keys}");
    }
}

#[test]
fn niceness_needs_no_process() {
    let model = file("[[models]]\nname = \"a\"\nplugin = \"b\"\nnice = 12\n").model();
    assert_eq!(model.nice, Some(12));
}

#[test]
fn limits_that_make_no_sense_are_told_what_would() {
    assert_snapshot!(
        file(r#"[[models]]
name = "a"
plugin = "b"
isolation = "process"
max_memory = "1MiB"
cpus = 0
sandbox = "yes"
nice = 20
[models.env]
"A=B" = "c"
DEVICE = 0
[[models]]
name = "c"
plugin = "d"
isolation = "process"
cpus = []
[[models]]
name = "d"
plugin = "d"
isolation = "process"
cpus = [0, "1"]
env = "A=B"
"#).errors(),
        @r#"
    models.toml:5:14: `max_memory` in [[models]] is "1MiB", expected a size from 16MiB to 1048576GiB
        5 | max_memory = "1MiB"
          |              ^^^^^^

    models.toml:6:8: `cpus` in [[models]] is the integer 0, expected an integer from 1 to 1024, or a list of processors, each an integer from 0 to 1023
        6 | cpus = 0
          |        ^

    models.toml:7:11: `sandbox` in [[models]] is "yes", expected "off", "on" or "best-effort"
        7 | sandbox = "yes"
          |           ^^^^^

    models.toml:8:8: `nice` in [[models]] is the integer 20, expected an integer from 0 to 19
        8 | nice = 20
          |        ^^

    models.toml:10:1: "A" in [models.env] cannot be the name of a variable
        hint: leave out `=` and control characters

    models.toml:11:10: `DEVICE` in [models.env]: expected a string without NUL characters
        hint: put the value in quotes

    models.toml:16:8: `cpus` in [[models]] is an empty list, expected an integer from 1 to 1024, or a list of processors, each an integer from 0 to 1023
        16 | cpus = []
           |        ^^

    models.toml:21:12: `cpus` in [[models]] is a list with "1", expected an integer from 1 to 1024, or a list of processors, each an integer from 0 to 1023
        21 | cpus = [0, "1"]
           |            ^^^
        hint: write it without quotes: 1

    models.toml:22:7: [models.env] is a string, expected a table
    "#
    );
}

#[test]
fn limits_without_a_process_are_told_what_is_missing() {
    assert_snapshot!(
        file(r#"[[models]]
name = "a"
plugin = "b"
max_memory = "1GiB"
sandbox = "off"
[models.env]
A = "b"
"#).errors(),
        @r#"
    models.toml:4:14: `max_memory` needs a process of the model's own, and `isolation` does not ask for one
        4 | max_memory = "1GiB"
          |              ^^^^^^
        hint: add `isolation = "process"` to the model, or take `max_memory` out

    models.toml:6:1: [models.env] needs a process of the model's own, and `isolation` does not ask for one
        6 | [models.env]
          | ^^^^^^^^^^^^
        hint: add `isolation = "process"` to the model, or take [models.env] out
    "#
    );
}
