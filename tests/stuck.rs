//! A model of threads that never returns from a batch keeps its thread, and nothing else: it is reported, and given up in time.

use serde_json::json;

use crate::harness::misbehave::echoes;
use crate::harness::{Pending, Scenario, Server, Signal};

fn config(tag: &str) -> String {
    format!(
        "[server]\ndrain_timeout = \"500ms\"\n\n\
         [[models]]\nname = \"stuck\"\nplugin = \"misbehave\"\n[models.settings]\ntag = \"{tag}\"\n\n\
         [[models]]\nname = \"well\"\nplugin = \"misbehave\"\n"
    )
}

/// Gives the model `stuck` a batch that never ends.
fn hang(server: &Server) -> Pending {
    let pending = server.in_background(|client| {
        let call = client.request("POST", "/v1/models/stuck/tasks/text/predict");
        call.header("x-request-timeout", "200ms")
            .json(&json!({"inputs": [{"do": "hang"}]}))
            .try_send()
    });
    server.wait_for_metric("inference_executing_items", &[("model", "stuck")], 1);
    pending
}

#[test]
fn its_clients_are_answered_at_their_deadline_and_other_models_never_notice() {
    let server = Scenario::new(&config("")).start();
    let late = hang(&server).reply();
    assert_eq!((late.status, late.error().0.as_str()), (504, "deadline_exceeded"));
    server.predict("well", "text", &echoes([1])).expect(200);
    server.get("/livez").expect(200);
}

#[test]
fn the_end_of_the_server_does_not_wait_for_it_and_names_it() {
    let mut server = Scenario::new(&config("")).start();
    hang(&server).reply();
    server.signal(Signal::TERM);
    assert_eq!(
        server.wait_for_exit().code(),
        Some(1),
        "work was lost, and the code says so"
    );
    let line = server.wait_for_log("shutdown gave up waiting");
    assert!(line.contains("stuck"), "{line}");
}

#[test]
fn a_reload_replaces_it_and_reports_that_it_lives_on() {
    let mut server = Scenario::new(&config("old")).start();
    hang(&server).reply();
    server.write_config(&config("new"));
    assert!(server.reload());
    assert_eq!(
        server.predict("stuck", "text", &echoes([1])).report().tag(),
        "new"
    );
    let line = server.wait_for_log("still computes");
    assert!(line.contains("`stuck`"), "{line}");
    server.signal(Signal::TERM);
    assert_eq!(server.wait_for_exit().code(), Some(1));
}
