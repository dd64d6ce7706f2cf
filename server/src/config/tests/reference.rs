//! The generated reference is committed, up to date, and valid.

use std::path::Path;

use super::super::keys::WrittenModel;
use super::super::resolve::{built_in, fill_in_defaults};
use super::super::section::{KeyDefault, Section};
use super::super::{reference_markdown, reference_toml};
use super::file;

/// The reference with every key and header uncommented.
fn uncommented() -> String {
    let is_toml = |line: &str| {
        line.starts_with('[') || line.split_once(" = ").is_some_and(|(key, _)| !key.contains(' '))
    };
    reference_toml()
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if is_toml(rest) => rest.to_owned(),
            _ => line.to_owned(),
        })
        .collect::<Vec<_>>()
        .join("\n")
}

/// Compares a committed file with the generated text. `UPDATE_REFERENCE=1` updates the file.
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
fn the_committed_reference_is_up_to_date() {
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
fn the_reference_without_edits_is_equivalent_to_an_empty_file() {
    assert_eq!(file(&reference_toml()).settings(), file("").settings());
}

#[test]
fn the_reference_with_every_key_uncommented_is_valid() {
    // Some keys require a process.
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
fn every_built_in_default_obeys_its_rule() {
    let mut layer = built_in();
    let mut model = WrittenModel::empty();
    fill_in_defaults(&mut model);
    let sections = layer.sections().map(|(_, section)| section);
    for section in sections.into_iter().chain([&mut model as &mut dyn Section]) {
        let defaults = section
            .keys()
            .iter()
            .filter(|key| matches!(key.default, KeyDefault::Value(_)))
            .count();
        assert_eq!(section.origins().len(), defaults);
    }
}

#[test]
fn every_variable_and_flag_belongs_to_one_key() {
    let mut layer = built_in();
    let mut names: Vec<&str> = layer
        .sections()
        .iter()
        .flat_map(|(_, section)| Section::keys(*section))
        .flat_map(|key| [key.variable, key.flag])
        .flatten()
        .collect();
    let all = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all);
}

#[test]
fn the_markdown_reference_has_a_row_for_each_key() {
    let text = reference_markdown();
    let rows = text.lines().filter(|line| line.starts_with("| `")).count();
    assert_eq!(rows, 32 + 3 + 5 + 6 + 3 + 14 + 8 + 1 + 20 + 6 + 9);
    assert!(text.contains("| `port` | `8080` |"));
    assert!(
        text.lines()
            .filter(|line| line.starts_with('|'))
            .all(|line| line.matches(" | ").count() == 3),
        "{text}"
    );
}
