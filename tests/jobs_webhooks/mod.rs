//! Webhooks of jobs: signed messages to receivers that the operator allows.

mod receiver;
mod sharing;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value as Json, json};

use crate::harness::client::predict_path;
use crate::harness::tls::Authority;
use crate::harness::{Client, Reply, Scenario, Server, eventually};
use receiver::Receiver;

/// 24 bytes in base64.
const KEY: &str = "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// A server with this configuration of webhooks.
fn scenario(webhooks: &str) -> Scenario {
    let model = "[[models]]\nname = \"words\"\nplugin = \"template\"\n";
    Scenario::new(&format!("[jobs]\n{webhooks}\n{model}"))
}

/// A server that delivers webhooks to this machine, with more settings of jobs.
fn with_receivers(settings: &str) -> Scenario {
    scenario(&format!(
        "webhook_secret = \"whsec_{KEY}\"\nwebhook_allowed_hosts = [\"127.0.0.1\"]\n{settings}"
    ))
}

fn submit(server: &Client, task: &str, input: &Json, webhook: &str) -> Reply {
    server
        .request("POST", &predict_path("words", task))
        .header("prefer", "respond-async")
        .header("x-webhook-url", webhook)
        .json(&json!({ "inputs": [input] }))
        .send()
}

fn id_of(reply: &Reply) -> String {
    reply.json()["id"].as_str().expect("a job has an id").to_owned()
}

const ACCEPTED: &str = "204 No Content";
const UNAVAILABLE: &str = "503 Service Unavailable";

/// Waits until the job reports that its message was delivered, or an attempt to deliver it if `state` is `pending`.
fn wait_for_webhook(client: &Client, id: &str, state: &str, attempts: u64) -> Json {
    eventually("an attempt to deliver the message", || {
        let job = client.get(&format!("/v1/jobs/{id}")).expect(200).json();
        let webhook = job["webhook"].clone();
        let is_due = webhook["state"] == state && webhook["attempts"] == attempts;
        if is_due { Ok(webhook) } else { Err(job) }
    })
}

fn wait_for_outcome(server: &Server, outcome: &str, count: u64) {
    server.wait_for_metric("inference_job_webhooks_total", &[("outcome", outcome)], count);
}

#[test]
fn each_job_that_ends_sends_one_signed_message() {
    let server = with_receivers("").start();
    let receiver = Receiver::start(|_| ACCEPTED);
    let url = receiver.url("/hook?from=test");
    let mut expected = BTreeMap::new();
    // The second input is rejected by the task.
    for (task, input, kind) in [
        ("echo", json!("to be"), "job.succeeded"),
        ("stats", json!(5), "job.failed"),
    ] {
        let accepted = submit(&server, task, &input, &url).expect(202);
        expected.insert(id_of(&accepted), kind.to_owned());
    }
    let mut received = BTreeMap::new();
    for _ in 0..expected.len() {
        let message = receiver.next();
        assert_eq!(message.path, "/hook?from=test");
        assert_eq!(message.headers["content-type"], "application/json");
        let body = message.verified();
        let id = body["data"]["id"].as_str().expect("the job").to_owned();
        let mut job = server.get(&format!("/v1/jobs/{id}")).expect(200).json();
        // Each attempt sends the same.
        job.as_object_mut().expect("a job").remove("webhook");
        assert_eq!(body["data"], job);
        assert_eq!(body["timestamp"], body["data"]["finished_at"]);
        received.insert(id, body["type"].as_str().expect("a type").to_owned());
    }
    assert_eq!(received, expected);
    wait_for_outcome(&server, "delivered", 2);
    server.shut_down();
    assert!(!receiver.has_message(), "one message per job");
}

#[test]
fn a_receiver_that_fails_gets_the_message_again_with_its_id() {
    let server = with_receivers("").start();
    let count = AtomicUsize::new(0);
    let receiver = Receiver::start(move |_| match count.fetch_add(1, Ordering::Relaxed) {
        0 => UNAVAILABLE,
        _ => ACCEPTED,
    });
    let accepted = submit(&server, "echo", &json!("to be"), &receiver.url("/")).expect(202);
    let id = id_of(&accepted);
    let waiting = json!({
        "state": "waiting", "attempts": 0, "last_attempt_at": null, "last_status": null, "last_error": null,
        "next_attempt_at": null, "delivered_at": null,
    });
    assert_eq!(accepted.json()["webhook"], waiting);
    let failed = wait_for_webhook(&server, &id, "pending", 1);
    assert_eq!(failed["last_status"], 503, "{failed}");
    assert_eq!(failed["last_error"], "the receiver replied with status 503");
    assert!(
        failed["next_attempt_at"].as_str() > failed["last_attempt_at"].as_str(),
        "{failed}"
    );
    assert_eq!(failed["delivered_at"], Json::Null);
    let (first, second) = (receiver.next(), receiver.next());
    assert_eq!(first.verified(), second.verified());
    assert_eq!(first.id(), second.id());
    let delivered = wait_for_webhook(&server, &id, "delivered", 2);
    assert_eq!(
        (
            &delivered["last_status"],
            &delivered["last_error"],
            &delivered["next_attempt_at"]
        ),
        (&json!(204), &Json::Null, &Json::Null)
    );
    assert!(delivered["delivered_at"].is_string(), "{delivered}");
    wait_for_outcome(&server, "delivered", 1);
    let retried = [("outcome", "retried")];
    assert_eq!(
        server.metrics().count("inference_job_webhooks_total", &retried),
        1
    );
}

#[test]
fn a_message_is_sent_over_tls_to_a_receiver_with_a_certificate_that_is_trusted() {
    let (authority, other) = (Authority::new(), Authority::new());
    let home = Scenario::new("");
    let file = home.dir().join("authority.pem");
    std::fs::write(&file, authority.pem()).expect("write the certificate");
    let file = file.to_str().expect("a path is text");
    let server = with_receivers("").env("SSL_CERT_FILE", file).start();
    let receiver = Receiver::start_with_tls(&authority.issue(), |_| ACCEPTED);
    let impostor = Receiver::start_with_tls(&other.issue(), |_| ACCEPTED);
    let send = |receiver: &Receiver| {
        id_of(&submit(&server, "echo", &json!("to be"), &receiver.url("/")).expect(202))
    };
    let [id, rejected] = [send(&receiver), send(&impostor)];
    assert_eq!(receiver.next().verified()["data"]["id"], id.as_str());
    assert_eq!(wait_for_webhook(&server, &id, "delivered", 1)["last_status"], 204);
    let failed = wait_for_webhook(&server, &rejected, "pending", 1);
    let error = failed["last_error"].as_str().expect("an error");
    assert!(error.contains("TLS") && error.contains("certificate"), "{error}");
    assert_eq!(failed["last_status"], Json::Null);
    assert!(!impostor.has_message(), "it receives nothing");
}

#[test]
fn a_target_that_is_not_allowed_is_rejected_at_submission() {
    let secret = format!("webhook_secret = \"whsec_{KEY}\"");
    let secret = secret.as_str();
    for (webhooks, url, part) in [
        (secret, "https://10.0.0.1/", "`10.0.0.1` has a private address"),
        (secret, "https://[::ffff:127.0.0.1]/", "has a loopback address"),
        (secret, "https://169.254.169.254/", "has a link-local address"),
        ("", "https://hooks.example.com/", "`webhook_secret` in [jobs]"),
    ] {
        let server = scenario(webhooks).start();
        let (code, message) = submit(&server, "echo", &json!("to be"), url).expect(400).error();
        assert_eq!(code, "malformed_request", "{message}");
        assert!(
            message.contains("x-webhook-url") && message.contains(part),
            "{message}"
        );
        let jobs = server.get("/v1/jobs").expect(200).json();
        assert_eq!(jobs["data"], json!([]), "nothing is stored");
    }
}
