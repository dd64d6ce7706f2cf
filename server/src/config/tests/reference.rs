//! The generated reference is committed, and is true.

use std::path::Path;

use super::super::keys::{Fallback, Section, WrittenModel};
use super::super::resolve::{built_in, fill_in_defaults};
use super::super::{reference_markdown, reference_toml};
use super::file;

/// The reference with each commented key and header made real.
fn uncommented() -> String {
    let is_written = |line: &str| {
        line.starts_with('[') || line.split_once(" = ").is_some_and(|(key, _)| !key.contains(' '))
    };
    reference_toml()
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if is_written(rest) => rest.to_owned(),
            _ => line.to_owned(),
        })
        .collect::<Vec<_>>()
        .join("\n")
}

/// Compares a committed file with what is generated. `UPDATE_REFERENCE=1` writes it anew.
fn assert_committed(name: &str, generated: impl FnOnce(&str) -> String) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name);
    let mut committed = std::fs::read_to_string(&path).expect("the file is committed");
    let generated = generated(&committed);
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        std::fs::write(&path, &generated).expect("the repository can be written");
        committed.clone_from(&generated);
    }
    assert!(
        committed == generated,
        "{name} is out of date: run this test with UPDATE_REFERENCE=1"
    );
}

#[test]
fn the_committed_reference_is_the_generated_one() {
    assert_committed("config/reference.toml", |_| reference_toml());
}

#[test]
fn the_configuration_page_has_the_generated_tables() {
    const BEGIN: &str = "<!-- begin: inference-server config-reference --markdown -->\n";
    const END: &str = "<!-- end -->\n";
    assert_committed("config/README.md", |page| {
        let (before, rest) = page.split_once(BEGIN).expect("the page marks the beginning");
        let (_, after) = rest.split_once(END).expect("the page marks the end");
        format!("{before}{BEGIN}\n{}\n{END}{after}", reference_markdown())
    });
}

#[test]
fn the_reference_as_it_is_changes_nothing() {
    assert_eq!(file(&reference_toml()).settings(), file("").settings());
}

#[test]
fn the_reference_with_every_key_written_is_accepted() {
    // Some keys need a process.
    let text = uncommented().replace("isolation = \"thread\"", "isolation = \"process\"");
    let settings = file(&text).settings();
    assert_eq!(settings.models.len(), 1);
    for key in [
        "\nhost = ",
        "\n[[models]]\n",
        "\n[models.tasks.text]\n",
        "\nroute = ",
        "\n[models.settings]",
        "\n[models.env]",
    ] {
        assert!(text.contains(key), "{key} is not in the reference");
    }
}

#[test]
fn every_built_in_default_obeys_its_own_rule() {
    let mut layer = built_in();
    let mut model = WrittenModel::empty();
    fill_in_defaults(&mut model);
    let sections = layer.sections().map(|(_, section)| section);
    for section in sections.into_iter().chain([&mut model as &mut dyn Section]) {
        let defaults = section
            .keys()
            .iter()
            .filter(|key| matches!(key.fallback, Fallback::Value(_)))
            .count();
        assert_eq!(section.origins().len(), defaults);
    }
}

#[test]
fn every_variable_and_flag_belongs_to_one_key() {
    let mut layer = built_in();
    let mut ways: Vec<&str> = layer
        .sections()
        .iter()
        .flat_map(|(_, section)| Section::keys(*section))
        .flat_map(|key| [key.variable, key.flag])
        .flatten()
        .collect();
    let all = ways.len();
    ways.sort_unstable();
    ways.dedup();
    assert_eq!(ways.len(), all);
}

#[test]
fn the_markdown_has_a_row_for_each_key() {
    let text = reference_markdown();
    let rows = text.lines().filter(|line| line.starts_with("| `")).count();
    assert_eq!(rows, 24 + 4 + 3 + 7 + 1 + 16);
    assert!(text.contains("| `port` | `8080` |"));
    assert!(
        text.lines()
            .filter(|line| line.starts_with('|'))
            .all(|line| line.matches(" | ").count() == 3),
        "{text}"
    );
}
