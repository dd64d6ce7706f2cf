//! Reloads with SIGHUP.

use std::fs;
use std::path::Path;

use serde_json::json;

use crate::harness::misbehave::echoes;
use crate::harness::plugins::library;
use crate::harness::{Scenario, Server, Signal, eventually};

/// Returns the configuration of a model `m` with this plugin and these settings.
pub(crate) fn model(plugin: &str, settings: &str) -> String {
    format!("[[models]]\nname = \"m\"\nplugin = \"{plugin}\"\n[models.settings]\n{settings}\n")
}

pub(crate) fn tagged(tag: &str) -> String {
    model("misbehave", &format!("tag = \"{tag}\""))
}

pub(crate) fn tag(server: &Server) -> String {
    server
        .predict("m", "text", &echoes(["which?"]))
        .report()
        .tag()
        .to_owned()
}

/// Starts a server whose model reports the tag "old".
pub(crate) fn serving_the_old() -> Server {
    Scenario::new(&tagged("old")).start()
}

#[test]
fn a_reload_with_a_changed_setting_loads_a_new_generation() {
    let server = serving_the_old();
    assert_eq!(server.generation("m"), 1);
    server.write_config(&tagged("new"));
    assert!(server.reload());
    assert_eq!((tag(&server), server.generation("m")), ("new".to_owned(), 2));
    server.wait_for_metric("inference_generations_live", &[], 1);
}

#[test]
fn a_reload_without_a_change_keeps_the_generation() {
    let server = serving_the_old();
    assert!(server.reload());
    assert_eq!((tag(&server), server.generation("m")), ("old".to_owned(), 1));
}

#[test]
fn a_change_of_batching_does_not_reload_the_model() {
    let server = serving_the_old();
    server.write_config(&format!(
        "{}[models.batching]\nmax_batch_size = 2\n",
        tagged("old")
    ));
    assert!(server.reload());
    assert_eq!(server.generation("m"), 1);
    let occupied = server.occupy("m");
    let pending = server.predict_in_background("m", "text", &echoes(0..4));
    server.wait_for_queued("m", "text", 4);
    occupied.release();
    assert!(
        pending
            .reply()
            .reports()
            .iter()
            .all(|report| report.batch_size() == 2)
    );
}

#[test]
fn models_are_added_and_removed_with_the_configuration() {
    let server = serving_the_old();
    let second = "[[models]]\nname = \"second\"\nplugin = \"template\"\n";
    server.write_config(&format!("{}{second}", tagged("old")));
    assert!(server.reload());
    assert_eq!(
        server.predict("second", "echo", &json!(["hi"])).outputs(),
        [json!("hi")]
    );
    assert_eq!(server.generation("m"), 1);
    server.write_config(second);
    assert!(server.reload());
    server.predict("m", "text", &echoes([1])).expect(404);
    assert_eq!(
        server.predict("second", "echo", &json!(["hi"])).outputs(),
        [json!("hi")]
    );
    let metrics = server.get("/metrics").text();
    assert!(
        !metrics.contains("model=\"m\""),
        "a model that is gone has metrics"
    );
}

#[test]
fn queued_work_of_the_old_generation_is_completed_by_it() {
    let server = serving_the_old();
    let occupied = server.occupy("m");
    let queued = server.predict_in_background("m", "text", &echoes(["queued"]));
    server.wait_for_queued("m", "text", 1);
    server.write_config(&tagged("new"));
    assert!(server.reload());
    assert_eq!(tag(&server), "new");
    assert!(!queued.is_answered());
    assert_eq!(occupied.release().tag(), "old");
    assert_eq!(queued.reply().report().tag(), "old");
    server.wait_for_metric("inference_generations_live", &[], 1);
}

#[test]
fn queued_work_of_a_removed_model_is_completed() {
    let server = serving_the_old();
    let occupied = server.occupy("m");
    let queued = server.predict_in_background("m", "text", &echoes(["queued"]));
    server.wait_for_queued("m", "text", 1);
    server.write_config("");
    assert!(server.reload());
    server.predict("m", "text", &echoes(["too late"])).expect(404);
    occupied.release();
    assert_eq!(queued.reply().values(), [json!("queued")]);
    server.wait_for_metric("inference_generations_live", &[], 0);
}

#[test]
fn a_replaced_generation_is_dropped_after_it_has_drained() {
    let server = Scenario::new(&model("misbehave", "farewell = \"the old model says goodbye\"")).start();
    let occupied = server.occupy("m");
    server.write_config(&tagged("new"));
    assert!(server.reload());
    assert!(!server.log().has("the old model says goodbye"));
    occupied.release();
    server.wait_for_log("the old model says goodbye");
}

/// Overwrites a library in place: the same file with different content.
fn overwrite(path: &Path, plugin: &str) {
    let bytes = fs::read(library(plugin)).expect("the plugin can be read");
    fs::write(path, bytes).expect("the file can be overwritten");
}

#[test]
fn overwriting_a_plugin_file_has_no_effect_before_sighup() {
    let scenario = Scenario::new(&model("./libmine.so", ""));
    let file = scenario.dir().join("libmine.so");
    fs::copy(library("template"), &file).expect("there is room");
    let mut server = scenario.start();
    let echo = |server: &Server| server.predict("m", "echo", &json!(["hi"])).expect(200).outputs();
    assert_eq!(echo(&server), [json!("hi")]);
    overwrite(&file, "misbehave");
    for _ in 0..20 {
        assert_eq!(echo(&server), [json!("hi")]);
    }
    // Code pages that were not used before are also read from the old file.
    let summary = server
        .predict("m", "stats", &json!([{"text": "to be or not"}]))
        .expect(200)
        .outputs();
    assert_eq!(summary[0]["words"], 4);
    assert!(server.lives());

    assert!(server.reload());
    server.predict("m", "echo", &json!(["hi"])).expect(404);
    assert_eq!(
        server.predict("m", "text", &echoes(["hi"])).values(),
        [json!("hi")]
    );
    assert_eq!(server.generation("m"), 2);
}

#[test]
fn a_plugin_file_replaced_by_a_rename_is_loaded_on_sighup() {
    let scenario = Scenario::new(&model("./libmine.so", ""));
    let file = scenario.dir().join("libmine.so");
    fs::copy(library("template"), &file).expect("there is room");
    let server = scenario.start();
    let next = server.dir().join("next");
    fs::copy(library("misbehave"), &next).expect("there is room");
    fs::rename(next, &file).expect("a file can be renamed");
    assert_eq!(
        server.predict("m", "echo", &json!(["hi"])).outputs(),
        [json!("hi")]
    );
    assert!(server.reload());
    assert_eq!(
        server.predict("m", "text", &echoes(["hi"])).values(),
        [json!("hi")]
    );
}

#[test]
fn signals_that_arrive_faster_than_reloads_result_in_the_last_configuration() {
    let server = serving_the_old();
    for round in 0..10 {
        server.write_config(&tagged(&format!("round {round}")));
        server.signal(Signal::HUP);
    }
    eventually("the last configuration to serve", || match tag(&server) {
        tag if tag == "round 9" => Ok(()),
        tag => Err(tag),
    });
}

#[test]
fn only_settings_that_require_a_restart_are_reported_as_such() {
    let config =
        |server: &str| format!("[server]\n{server}\n[[models]]\nname = \"m\"\nplugin = \"misbehave\"\n");
    let server = Scenario::new(&config("")).start();
    server.write_config(&config("request_timeout = \"1ms\""));
    assert!(server.reload());
    assert!(
        !server.log().has("restart the server to apply changes"),
        "models take request_timeout at once"
    );
    let late = server.predict("m", "text", &json!([{"do": "sleep", "ms": 500}]));
    late.expect(504);
    server.write_config(&config("keep_alive = \"5s\""));
    assert!(server.reload());
    server.wait_for_log("restart the server to apply changes");
}
