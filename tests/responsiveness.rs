//! Health and metrics answer while models use every core.

use std::time::Duration;

use serde_json::json;

use crate::harness::Scenario;

/// Generous: the machine that runs this may run other tests, too. What is reached is a benchmark's to say.
const LIMIT: Duration = Duration::from_millis(50);

#[test]
fn health_and_metrics_answer_while_every_core_computes() {
    let server = Scenario::misbehave("", "").start();
    let busy = server.in_background(|client| {
        let call = client.request("POST", "/v1/models/m/tasks/text/predict");
        call.json(&json!({"inputs": [{"do": "busy", "ms": 4000}]})).send()
    });
    server.wait_for_metric("inference_executing_items", &[("model", "m")], 1);
    let mut times = Vec::new();
    for path in ["/livez", "/readyz", "/health", "/metrics", "/v1/models"].iter().cycle().take(300) {
        times.push(server.get(path).expect(200).took());
        if busy.is_answered() {
            break;
        }
    }
    assert!(times.len() >= 100, "only {} answers while every core computed", times.len());
    times.sort_unstable();
    let p99 = times[times.len() * 99 / 100];
    assert!(p99 < LIMIT, "p99 of {} answers is {p99:?}, the longest {:?}", times.len(), times.last());
    busy.reply().expect(200);
}
