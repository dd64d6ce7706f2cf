//! SIGHUP: what changes, what stays, and that no request notices.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use serde_json::json;

use crate::harness::misbehave::echoes;
use crate::harness::plugins::library;
use crate::harness::{Scenario, Server, Signal, eventually};

/// One model called `m`, of this plugin, with these settings.
fn model(plugin: &str, settings: &str) -> String {
    format!("[[models]]\nname = \"m\"\nplugin = \"{plugin}\"\n[models.settings]\n{settings}\n")
}

fn tagged(tag: &str) -> String {
    model("misbehave", &format!("tag = \"{tag}\""))
}

fn tag(server: &Server) -> String {
    server
        .predict("m", "text", &echoes(["which?"]))
        .report()
        .tag()
        .to_owned()
}

/// A reload that must be refused: the old model serves on, the failure is counted, and the reason is shown without paths.
/// The answer is what the log says of it.
#[track_caller]
fn refused(server: &Server) -> String {
    let (generation, lines) = (server.generation("m"), server.log().lines().len());
    assert!(!server.reload(), "the reload went well:\n{}", server.log().text());
    server.wait_for_log("reload refused");
    assert_eq!(server.generation("m"), generation);
    assert_eq!(tag(server), "old");
    server.get("/readyz").expect(200);
    let model = server.model("m");
    let reason = model["last_reload_error"]
        .as_str()
        .unwrap_or_else(|| panic!("no reason in {model}"));
    let folder = server.dir().to_string_lossy().into_owned();
    for path in [folder.as_str(), "/tmp", ".so", ".toml"] {
        assert!(!reason.contains(path), "clients see {path:?} in {reason:?}");
    }
    let log = server.log().lines()[lines..].join("\n");
    assert!(!log.contains("panicked at server/"), "{log}");
    log
}

#[track_caller]
fn assert_names(log: &str, parts: &[&str]) {
    for part in parts {
        assert!(log.contains(part), "{part:?} is not in the log:\n{log}");
    }
}

/// A server whose model reports the tag "old", beside which a configuration is refused that is written next.
fn serving_the_old() -> Server {
    Scenario::new(&tagged("old")).start()
}

#[test]
fn a_reload_with_another_setting_loads_a_new_generation() {
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
fn a_change_of_batching_alone_does_not_load_the_model_again() {
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
fn models_come_and_go_with_the_configuration() {
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
fn work_that_waits_for_the_old_generation_is_finished_by_it() {
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
fn work_that_waits_for_a_model_that_is_removed_is_finished() {
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
fn a_generation_that_is_replaced_is_dropped_when_it_has_drained() {
    let server = Scenario::new(&model("misbehave", "farewell = \"the old model says goodbye\"")).start();
    let occupied = server.occupy("m");
    server.write_config(&tagged("new"));
    assert!(server.reload());
    assert!(!server.log().has("the old model says goodbye"));
    occupied.release();
    server.wait_for_log("the old model says goodbye");
}

#[test]
fn broken_toml_is_refused_with_its_line() {
    let server = serving_the_old();
    server.write_config(&format!(
        "{}\n[models.batching\nmax_batch_size = 4\n",
        tagged("new")
    ));
    assert_names(&refused(&server), &["models.toml:7", "not valid TOML"]);
}

#[test]
fn an_unknown_key_is_refused_with_its_line_and_the_nearest_known_one() {
    let server = serving_the_old();
    server.write_config(&format!(
        "{}[models.batching]\nmax_batch_sise = 4\n",
        tagged("new")
    ));
    assert_names(
        &refused(&server),
        &[
            "models.toml:7",
            "max_batch_sise",
            "did you mean `max_batch_size`?",
        ],
    );
}

#[test]
fn a_configuration_that_is_gone_is_refused_with_its_name() {
    let server = serving_the_old();
    fs::remove_file(server.dir().join("models.toml")).expect("the file is there");
    assert_names(&refused(&server), &["models.toml", "No such file"]);
}

#[test]
fn a_plugin_file_that_is_missing_is_refused_with_its_name_and_place() {
    let server = serving_the_old();
    server.write_config(&model("./libmissing.so", ""));
    assert_names(&refused(&server), &["models.toml:3", "libmissing.so"]);
}

#[test]
fn a_truncated_plugin_file_is_refused() {
    let server = serving_the_old();
    let whole = fs::read(library("misbehave")).expect("the plugin can be read");
    let path = server.dir().join("libtruncated.so");
    for length in [0, 3, 40, 4096, whole.len() / 2] {
        fs::write(&path, &whole[..length]).expect("there is room");
        server.write_config(&model("./libtruncated.so", "tag = \"new\""));
        assert_names(&refused(&server), &["models.toml:3", "libtruncated.so"]);
    }
}

#[test]
fn a_plugin_file_of_another_architecture_is_refused_and_the_log_says_which() {
    let server = serving_the_old();
    let mut library = fs::read(library("misbehave")).expect("the plugin can be read");
    // The field `e_machine` of the ELF header: AArch64 here, x86-64 there.
    let other: u16 = if cfg!(target_arch = "x86_64") { 183 } else { 62 };
    library[18..20].copy_from_slice(&other.to_le_bytes());
    fs::write(server.dir().join("libforeign.so"), library).expect("there is room");
    server.write_config(&model("./libforeign.so", "tag = \"new\""));
    let log = refused(&server).to_lowercase();
    let named = if cfg!(target_arch = "x86_64") {
        "aarch64"
    } else {
        "x86"
    };
    assert_names(&log, &["models.toml:3", "libforeign.so", named]);
}

#[test]
fn a_file_that_is_no_plugin_is_refused() {
    let server = serving_the_old();
    fs::write(server.dir().join("libtext.so"), "this is no library").expect("there is room");
    server.write_config(&model("./libtext.so", ""));
    assert_names(&refused(&server), &["models.toml:3", "libtext.so"]);
}

#[test]
fn a_load_that_panics_or_fails_or_ends_its_process_is_refused() {
    let server = serving_the_old();
    for fault in ["panic", "error"] {
        server.write_config(&model(
            "misbehave",
            &format!("tag = \"new\"\non_load = \"{fault}\""),
        ));
        let log = refused(&server);
        assert_names(&log, &["models.toml:", "model `m`"]);
    }
}

#[test]
fn a_setting_that_the_plugin_refuses_is_named_with_its_line() {
    let server = serving_the_old();
    server.write_config(&model("misbehave", "tag = \"new\"\non_load = \"error\""));
    assert_names(
        &refused(&server),
        &["models.toml:6", "on_load", "misbehave was told to fail"],
    );
    server.write_config(&model("misbehave", "tag = \"new\"\ntagg = \"typo\""));
    assert_names(&refused(&server), &["models.toml:6", "tagg"]);
}

#[test]
fn a_warm_up_that_fails_is_refused_with_the_reason() {
    let server = serving_the_old();
    server.write_config(&model("misbehave", "tag = \"new\"\nfail_warm_up = true"));
    assert_names(
        &refused(&server),
        &[
            "models.toml:",
            "warm-up",
            "misbehave was told to fail its warm-up",
        ],
    );
    let reason = server.model("m")["last_reload_error"].to_string();
    assert!(reason.contains("warm-up"), "{reason}");
}

#[test]
fn a_load_that_takes_longer_than_the_limit_is_refused() {
    let config = |settings: &str| {
        format!(
            "[server]\nreload_timeout = \"1s\"\n\n{}",
            model("misbehave", settings)
        )
    };
    let server = Scenario::new(&config("tag = \"old\"")).start();
    server.write_config(&config("tag = \"new\"\non_load = \"hang\""));
    assert_names(&refused(&server), &["model `m`", "longer than `reload_timeout`"]);
}

#[test]
fn one_model_that_fails_holds_back_the_whole_reload() {
    let server = serving_the_old();
    let broken =
        "[[models]]\nname = \"broken\"\nplugin = \"misbehave\"\n[models.settings]\nfail_warm_up = true\n";
    server.write_config(&format!("{}{broken}", tagged("new")));
    assert_names(&refused(&server), &["model `broken`"]);
    server.get("/v1/models/broken").expect(404);
    server.write_config(&tagged("new"));
    assert!(server.reload());
    assert_eq!(tag(&server), "new");
    let model = server.model("m");
    assert!(
        model.get("last_reload_error").is_none(),
        "a reload that went well leaves no reason: {model}"
    );
}

#[test]
fn all_errors_of_a_configuration_are_reported_together() {
    let server = serving_the_old();
    server.write_config(
        "[server]\nprot = 1\nmax_body_size = 5\n\n[[models]]\nnam = \"m\"\nplugin = \"misbehave\"\n",
    );
    assert_names(
        &refused(&server),
        &[
            "models.toml:2",
            "`port`",
            "models.toml:3",
            "models.toml:5",
            "models.toml:6",
        ],
    );
}

/// Writes a library over another in place: the same file, other bytes.
fn overwrite(path: &Path, plugin: &str) {
    let bytes = fs::read(library(plugin)).expect("the plugin can be read");
    fs::write(path, bytes).expect("the file can be overwritten");
}

#[test]
fn a_plugin_file_that_is_overwritten_while_it_serves_changes_nothing_before_sighup() {
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
    // Code that was never run before is read from the old file, too.
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
fn a_plugin_file_that_is_replaced_by_a_rename_serves_after_sighup() {
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
fn twenty_reloads_under_load_fail_no_request() {
    let config = |round: usize| {
        format!(
            "{}\n[[models]]\nname = \"bystander\"\nplugin = \"template\"\n",
            tagged(&format!("round {round}"))
        )
    };
    let server = Scenario::new(&config(0)).start();
    let (stop, answered) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|number| {
                let (client, stop, answered) = (server.client(), &stop, &answered);
                scope.spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        let reply = match number {
                            0 => client.predict("bystander", "echo", &json!(["still here"])),
                            _ => client.predict("m", "text", &echoes([number, number + 1])),
                        };
                        if reply.status != 200 {
                            return Err(reply.text());
                        }
                        answered.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok(())
                })
            })
            .collect();
        for round in 1..=20 {
            let before = answered.load(Ordering::Relaxed);
            server.write_config(&config(round));
            assert!(server.reload(), "reload {round} failed");
            assert_eq!(tag(&server), format!("round {round}"));
            eventually("requests to go on", || match answered.load(Ordering::Relaxed) {
                now if now > before => Ok(()),
                now => Err(now),
            });
        }
        stop.store(true, Ordering::Relaxed);
        for client in clients {
            assert_eq!(client.join().expect("a client ends"), Ok(()));
        }
    });
    assert_eq!(
        server.generation("bystander"),
        1,
        "what did not change was loaded again"
    );
    server.wait_for_metric("inference_generations_live", &[], 2);
    let lost = server
        .metrics()
        .count("inference_items_total", &[("outcome", "lost")]);
    assert_eq!(lost, 0);
}

#[test]
fn signals_that_come_faster_than_reloads_end_in_the_last_configuration() {
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
