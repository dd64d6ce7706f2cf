//! Who sees a job.

use serde_json::json;

use super::{ECHO, WORDS, id_of, job};
use crate::harness::client::Call;
use crate::harness::{Scenario, eventually};

#[test]
fn a_job_is_visible_only_to_its_key_and_to_the_admin_key() {
    let keys = "[server]\napi_keys = [\"the-first-key-1234\", \"the-second-key-123\"]\nadmin_key = \"the-admin-key-1234\"\n";
    let server = Scenario::new(&format!("{keys}{WORDS}")).start_unready();
    let with = |key: &str, call: Call<'_>| call.header("authorization", &format!("Bearer {key}")).send();
    let [first, second, admin] = ["the-first-key-1234", "the-second-key-123", "the-admin-key-1234"];
    eventually("the server to be ready", || match server.get("/readyz").status {
        200 => Ok(()),
        status => Err(status),
    });
    let submitted = with(first, job(&server, ECHO, &json!({"inputs": ["a"]}))).expect(202);
    let id = id_of(&submitted);
    job(&server, ECHO, &json!({"inputs": ["a"]})).send().expect(401);
    server.get("/v1/jobs").expect(401);
    let path = format!("/v1/jobs/{id}");
    with(first, server.request("GET", &format!("{path}?wait=30s"))).expect(200);
    with(admin, server.request("GET", &path)).expect(200);
    for (method, path) in [
        ("GET", path.clone()),
        ("GET", format!("{path}/result")),
        ("DELETE", path.clone()),
        ("POST", format!("{path}/retry")),
    ] {
        with(second, server.request(method, &path)).expect(404);
    }
    for (key, count) in [(first, 1), (second, 0), (admin, 1)] {
        let list = with(key, server.request("GET", "/v1/jobs")).expect(200).json();
        assert_eq!(list["data"].as_array().map(Vec::len), Some(count), "{key}");
    }
    // The scope of an idempotency key is the API key.
    let idempotent = |key| {
        let call = job(&server, ECHO, &json!({"inputs": ["a"]})).header("idempotency-key", "same");
        id_of(&with(key, call).expect(202))
    };
    assert_ne!(idempotent(first), idempotent(second));
    assert_eq!(idempotent(first), idempotent(first));
}
