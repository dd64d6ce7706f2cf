//! Memory budgets and calibrations.

use std::path::PathBuf;
use std::time::Duration;

use insta::assert_snapshot;

use super::file;
use crate::config::{CalibrationSource, ModelSettings};
use crate::resources::MemoryBudget;

fn model(keys: &str) -> ModelSettings {
    file(&format!("[[models]]\nname = \"a\"\nplugin = \"b\"\n{keys}\n")).model()
}

#[test]
fn memory_is_not_limited_by_default() {
    let model = model("");
    assert_eq!((model.memory_budget, model.calibration), (None, None));
    assert_eq!(model.calibration_timeout, Duration::from_secs(120));
}

#[test]
fn a_budget_is_a_size_or_a_percentage() {
    for (text, budget) in [
        ("2GiB", MemoryBudget::Bytes(2 << 30)),
        ("80%", MemoryBudget::Percent(80)),
        ("100 %", MemoryBudget::Percent(100)),
    ] {
        let model = model(&format!("memory_budget = \"{text}\"\ncalibration = \"auto\""));
        assert_eq!(model.memory_budget, Some(budget), "{text}");
        let settings = file("")
            .variables(&[("INFERENCE_MEMORY_BUDGET", text)])
            .settings();
        assert_eq!(settings.server.memory_budget, Some(budget), "{text}");
    }
}

#[test]
fn a_calibration_is_measured_or_read_from_a_file_beside_the_configuration() {
    let calibration = |text: &str| model(&format!("calibration = \"{text}\"")).calibration;
    assert_eq!(calibration("auto"), Some(CalibrationSource::Auto));
    let file = PathBuf::from("/etc/inference/text.json");
    assert_eq!(calibration("text.json"), Some(CalibrationSource::File(file)));
    let file = PathBuf::from("/srv/auto");
    assert_eq!(calibration("/srv/auto"), Some(CalibrationSource::File(file)));
}

#[test]
fn a_new_size_applies_to_the_loaded_model_and_a_new_percentage_or_calibration_loads_it_again() {
    let with = |budget: &str, calibration: &str| {
        model(&format!(
            "memory_budget = \"{budget}\"\ncalibration = \"{calibration}\""
        ))
    };
    let before = with("1GiB", "auto");
    assert!(!before.needs_reload(&with("2GiB", "auto")));
    assert!(before.needs_reload(&with("50%", "auto")));
    assert!(before.needs_reload(&with("1GiB", "a.json")));
    assert!(!with("50%", "auto").needs_reload(&before));
    assert!(!with("50%", "auto").needs_reload(&with("50%", "auto")));
}

#[test]
fn the_budget_of_the_server_changes_with_a_restart() {
    let settings = |text: &str| file(text).settings();
    let changed = settings("").needs_restart(&settings("[server]\nmemory_budget = \"1GiB\"\n"));
    assert_eq!(changed, ["`memory_budget` in [server]"]);
}

#[test]
fn invalid_budgets_are_reported_with_what_is_accepted() {
    assert_snapshot!(
        file(r#"[server]
memory_budget = "lots"
[[models]]
name = "a"
plugin = "b"
calibration = "auto"
memory_budget = "0%"
[[models]]
name = "c"
plugin = "b"
calibration = "auto"
memory_budget = 2000
[[models]]
name = "d"
plugin = "b"
memory_budget = "2GiB"
"#).errors(),
        @r#"
    models.toml:2:17: invalid value "lots" for `memory_budget` in [server]: expected a size from 1MiB to 1024TiB, or a percentage from "1%" to "100%"
        2 | memory_budget = "lots"
          |                 ^^^^^^
        hint: write an integer and a unit (`B`, `KiB`, `MiB` or `GiB`), such as "64MiB"

    models.toml:7:17: invalid value "0%" for `memory_budget` in [[models]]: expected a size from 1MiB to 1024TiB, or a percentage from "1%" to "100%"
        7 | memory_budget = "0%"
          |                 ^^^^

    models.toml:12:17: invalid value 2000 for `memory_budget` in [[models]]: expected a size from 1MiB to 1024TiB, or a percentage from "1%" to "100%"
        12 | memory_budget = 2000
           |                 ^^^^
        hint: add a unit: "2000B"

    models.toml:16:17: `memory_budget` requires `calibration`
        16 | memory_budget = "2GiB"
           |                 ^^^^^^
        hint: add `calibration = "auto"` to the model, or the file that `inference-server calibrate` writes
    "#
    );
}

#[test]
fn a_timeout_of_a_calibration_that_never_runs_is_a_warning() {
    let text =
        "[[models]]\nname = \"a\"\nplugin = \"b\"\ncalibration = \"a.json\"\ncalibration_timeout = \"1m\"\n";
    assert_snapshot!(file(text).warnings(), @r#"
    models.toml:5:23: `calibration_timeout` has no effect without `calibration = "auto"`
        hint: set `calibration = "auto"`, or remove `calibration_timeout`
    "#);
}
