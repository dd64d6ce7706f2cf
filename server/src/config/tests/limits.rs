//! Limits of worker processes.

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
fn there_are_no_limits_by_default() {
    assert_eq!(resources(""), Resources::default());
}

#[test]
fn every_limit_can_be_set() {
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
fn a_change_of_limits_requires_new_processes() {
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
fn niceness_does_not_require_a_process() {
    let model = file("[[models]]\nname = \"a\"\nplugin = \"b\"\nnice = 12\n").model();
    assert_eq!(model.nice, Some(12));
}

#[test]
fn invalid_limits_are_rejected() {
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
    models.toml:5:14: invalid value "1MiB" for `max_memory` in [[models]]: expected a size from 16MiB to 1024TiB
        5 | max_memory = "1MiB"
          |              ^^^^^^

    models.toml:6:8: invalid value 0 for `cpus` in [[models]]: expected an integer from 1 to 1024, or a list of CPU numbers from 0 to 1023
        6 | cpus = 0
          |        ^

    models.toml:7:11: invalid value "yes" for `sandbox` in [[models]]: expected "off", "on" or "best-effort"
        7 | sandbox = "yes"
          |           ^^^^^

    models.toml:8:8: invalid value 20 for `nice` in [[models]]: expected an integer from 0 to 19
        8 | nice = 20
          |        ^^

    models.toml:10:1: invalid variable name "A" in [models.env]: found `=`, a NUL character, or nothing
        hint: write `NAME = "value"`

    models.toml:11:10: invalid value for `DEVICE` in [models.env]: expected a string without NUL characters
        hint: put the value in quotes

    models.toml:16:8: invalid value for `cpus` in [[models]]: found an empty list, expected an integer from 1 to 1024, or a list of CPU numbers from 0 to 1023
        16 | cpus = []
           |        ^^

    models.toml:21:12: invalid element "1" of `cpus` in [[models]]: expected an integer from 0 to 1023
        21 | cpus = [0, "1"]
           |            ^^^
        hint: remove the quotes: 1

    models.toml:22:7: invalid value for [models.env]: found a string, expected a table
    "#
    );
}

#[test]
fn limits_require_a_process() {
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
    models.toml:4:14: `max_memory` requires `isolation = "process"`
        4 | max_memory = "1GiB"
          |              ^^^^^^
        hint: add `isolation = "process"` to the model, or remove `max_memory`

    models.toml:6:1: [models.env] requires `isolation = "process"`
        6 | [models.env]
          | ^^^^^^^^^^^^
        hint: add `isolation = "process"` to the model, or remove [models.env]
    "#
    );
}
