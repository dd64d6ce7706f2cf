//! Models that fail to load at startup: they are not ready, show the reason, and are loaded by SIGHUP after a fix.

use serde_json::{Value as Json, json};

use crate::harness::misbehave::echoes;
use crate::harness::{Scenario, Server, eventually};

fn config(settings: &str) -> String {
    format!(
        "[[models]]\nname = \"m\"\nplugin = \"misbehave\"\n[models.settings]\n{settings}\n\n\
         [[models]]\nname = \"fine\"\nplugin = \"template\"\n"
    )
}

/// Waits until the model has failed and returns its entry in `/v1/models/m`.
#[track_caller]
fn failed(server: &Server) -> Json {
    eventually("the model to have failed", || match server.model("m") {
        model if model["state"] == "failed" => Ok(model),
        model => Err(model["state"].clone()),
    })
}

#[test]
fn a_model_whose_warm_up_fails_is_not_ready_and_shows_the_reason() {
    let server = Scenario::new(&config("fail_warm_up = true")).start_unready();
    let model = failed(&server);
    assert_eq!(model["ready"], false);
    let reason = model["reason"].as_str().unwrap_or_default();
    assert!(
        reason.contains("warm-up") && reason.contains("misbehave fails its warm-up as requested"),
        "{model}"
    );
    server.wait_for_log("misbehave fails its warm-up as requested");
    server.get("/readyz").expect(503);
    server.get("/health").expect(503);
    server.get("/livez").expect(200);
    assert_eq!(
        server.metrics().count("inference_model_ready", &[("model", "m")]),
        0
    );
    let rejected = server.predict("m", "text", &echoes([1])).expect(503);
    assert_eq!(rejected.error().0, "unavailable");
}

#[test]
fn a_failed_model_does_not_delay_the_others() {
    let server = Scenario::new(&config("on_load = \"panic\"")).start_unready();
    failed(&server);
    eventually("the other model to serve", || {
        match server.predict("fine", "echo", &json!(["hi"])) {
            reply if reply.status == 200 => Ok(()),
            reply => Err(reply.text()),
        }
    });
}

#[test]
fn a_plugin_that_panics_or_fails_while_loading_is_reported_and_the_server_keeps_running() {
    for fault in ["panic", "error"] {
        let mut server = Scenario::new(&config(&format!("on_load = \"{fault}\""))).start_unready();
        let model = failed(&server);
        assert!(
            model["reason"].as_str().is_some_and(|reason| !reason.is_empty()),
            "{model}"
        );
        assert!(server.lives());
    }
}

#[test]
fn a_failed_model_is_repaired_by_a_reload() {
    let server = Scenario::new(&config("fail_warm_up = true")).start_unready();
    failed(&server);
    server.write_config(&config("fail_warm_up = false"));
    assert!(server.reload());
    server.get("/readyz").expect(200);
    assert_eq!(
        server.predict("m", "text", &echoes(["hi"])).values(),
        [json!("hi")]
    );
    let model = server.model("m");
    assert!(model.get("reason").is_none(), "{model}");
}

#[test]
fn while_a_model_loads_the_server_responds_and_is_not_ready() {
    let server = Scenario::new(&config("on_load = \"slow\"\nload_ms = 60000")).start_unready();
    server.get("/livez").expect(200);
    assert_eq!(server.get("/readyz").expect(503).json(), json!({"ready": false}));
    let rejected = server.predict("m", "text", &echoes([1])).expect(503);
    assert_eq!(rejected.error().0, "unavailable");
    assert_eq!(server.model("m")["state"], "loading");
    assert_eq!(
        server.metrics().count("inference_model_ready", &[("model", "m")]),
        0
    );
}

#[test]
fn a_server_without_models_is_ready_and_logs_what_to_do() {
    let server = Scenario::new("").start();
    server.wait_for_log("no models are configured");
    assert_eq!(server.get("/v1/models").expect(200).json()["data"], json!([]));
}

#[test]
fn an_invalid_configuration_exits_with_code_two_and_all_errors() {
    let scenario = Scenario::new("[server]\nprot = 1\n\n[[models]]\nname = \"m\"\n");
    let output = scenario.run(&["--config", "models.toml"]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(
        text.contains("models.toml:2") && text.contains("did you mean `port`?"),
        "{text}"
    );
    assert!(
        text.contains("models.toml:4") && text.contains("`plugin`"),
        "{text}"
    );
}

#[test]
fn a_port_in_use_is_a_startup_error_that_names_it() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    let port = taken.local_addr().expect("it has an address").port().to_string();
    let scenario = Scenario::new("");
    let output = scenario.run(&["--host", "127.0.0.1", "--port", &port]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains(&format!("127.0.0.1:{port}")), "{text}");
}
