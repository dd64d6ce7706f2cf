//! A model in a thread that never returns from a batch only blocks its own thread. It is reported and abandoned.

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

/// Sends a batch that never returns to the model `stuck`.
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
fn clients_get_a_reply_at_their_deadline_and_other_models_are_not_affected() {
    let server = Scenario::new(&config("")).start();
    let late = hang(&server).reply();
    let (code, message) = late.error();
    assert_eq!((late.status, code.as_str()), (504, "deadline_exceeded"));
    assert!(message.contains("in the model"), "{message}");
    server.predict("well", "text", &echoes([1])).expect(200);
    server.get("/livez").expect(200);
}

#[test]
fn the_shutdown_does_not_wait_for_a_stuck_model_and_names_it() {
    let mut server = Scenario::new(&config("")).start();
    hang(&server).reply();
    server.signal(Signal::TERM);
    assert_eq!(
        server.wait_for_exit().code(),
        Some(1),
        "work was lost, and the code says so"
    );
    let line = server.wait_for_log("shutdown incomplete");
    assert!(line.contains("stuck"), "{line}");
}

#[test]
fn a_reload_replaces_a_stuck_model_and_reports_that_it_is_still_running() {
    let mut server = Scenario::new(&config("old")).start();
    hang(&server).reply();
    server.write_config(&config("new"));
    assert!(server.reload());
    assert_eq!(
        server.predict("stuck", "text", &echoes([1])).report().tag(),
        "new"
    );
    let line = server.wait_for_log("is still running a batch");
    assert!(line.contains("`stuck`"), "{line}");
    server.signal(Signal::TERM);
    assert_eq!(server.wait_for_exit().code(), Some(1));
}

#[test]
fn a_worker_that_is_busy_beyond_the_deadlines_of_its_clients_is_reported() {
    for isolation in ["thread", "process"] {
        let server = Scenario::new(&format!(
            "[[models]]\nname = \"m\"\nplugin = \"misbehave\"\nisolation = \"{isolation}\"\nrequest_timeout = \"300ms\"\n"
        ))
        .start();
        let idle = server.metrics();
        assert!(idle.sum("inference_oldest_batch_seconds", &[("model", "m")]) < f64::EPSILON);
        let late = server
            .request("POST", "/v1/models/m/tasks/text/predict")
            .header("x-request-id", "the-stuck-one")
            .json(&json!({"inputs": [{"do": "hang"}]}))
            .send()
            .expect(504);
        assert!(late.error().1.contains("in the model"), "{}", late.text());
        let line = server.wait_for_log("longer than request_timeout");
        assert!(line.contains("WARN"), "{line}");
        assert!(line.contains("worker 0 of model `m`"), "{line}");
        assert!(
            line.ends_with("model=m task=text requests=the-stuck-one"),
            "{line}"
        );
        let age = server
            .metrics()
            .sum("inference_oldest_batch_seconds", &[("model", "m")]);
        assert!(age >= 0.3, "{age}");
    }
}

#[test]
fn a_deadline_error_states_where_the_item_was() {
    let server = Scenario::misbehave("", "").start();
    let occupied = server.occupy("m");
    let late = server
        .request("POST", "/v1/models/m/tasks/prepared/predict")
        .header("x-request-timeout", "100ms")
        .json(&json!({"inputs": echoes(["late"])}))
        .send()
        .expect(504);
    assert!(late.error().1.contains("in the queue"), "{}", late.text());
    occupied.release();
    let late = server
        .request("POST", "/v1/models/m/tasks/text/predict")
        .header("x-request-timeout", "1us")
        .json(&json!({"inputs": echoes(["late"])}))
        .send()
        .expect(504);
    assert!(
        late.error().1.contains("before the request was queued"),
        "{}",
        late.text()
    );
    let late = server
        .request("POST", "/v1/models/m/tasks/prepared/predict")
        .header("x-request-timeout", "300ms")
        .json(&json!({"inputs": [{"do": "hang_in_prepare"}]}))
        .send()
        .expect(504);
    assert!(
        late.error().1.contains("waiting for its preparation"),
        "{}",
        late.text()
    );
}
