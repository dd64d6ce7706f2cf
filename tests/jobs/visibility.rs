//! Who sees a job.

use serde_json::json;

use super::{ECHO, M, TEXT, WORDS, id_of, job, waiting};
use crate::harness::client::Call;
use crate::harness::misbehave::echoes;
use crate::harness::{Scenario, eventually};
use crate::key_file::{secret, with_hashes};

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

#[test]
fn a_key_that_has_lost_its_permission_still_sees_its_jobs_and_they_still_run() {
    crate::harness::plugins::library("misbehave");
    let config =
        format!("[server]\napi_keys_file = \"keys.toml\"\n{M}[models.batching]\nmax_batch_size = 1\n{WORDS}");
    let scenario = Scenario::new(&config);
    let keys = scenario.dir().join("keys.toml");
    let write_keys = |model: &str| {
        let text = format!("[[key]]\nname = \"client\"\nmodels = [\"{model}\"]\n");
        std::fs::write(&keys, with_hashes(&text)).expect("the file can be written");
    };
    write_keys("m");
    let server = scenario.start();
    let send = |call: Call<'_>| {
        call.header("authorization", &format!("Bearer {}", secret("client")))
            .send()
    };
    let gate = server.dir().join("gate");
    let ids = [0, 1].map(|_| {
        let body = json!({"inputs": waiting(&gate)});
        id_of(&send(job(&server, TEXT, &body)).expect(202))
    });
    eventually("the first job to run", || {
        let job = send(server.request("GET", &format!("/v1/jobs/{}", ids[0]))).json();
        if job["state"] == "running" {
            Ok(())
        } else {
            Err(job)
        }
    });
    write_keys("words");
    assert!(server.reload());
    send(job(&server, TEXT, &json!({"inputs": echoes(["a"])}))).expect(403);
    std::fs::write(&gate, "open").expect("open the gate");
    for id in &ids {
        let path = format!("/v1/jobs/{id}");
        let ended = send(server.request("GET", &format!("{path}?wait=30s")))
            .expect(200)
            .json();
        assert_eq!(ended["state"], "succeeded", "{ended}");
        let result = send(server.request("GET", &format!("{path}/result"))).expect(200);
        assert_eq!(result.values(), [json!("waited")]);
    }
}
