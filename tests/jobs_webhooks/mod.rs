//! Webhooks of jobs: signed messages to receivers that the operator allows.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use serde_json::{Value as Json, json};

use crate::harness::client::predict_path;
use crate::harness::eventually::PATIENCE;
use crate::harness::{Reply, Scenario, Server};

/// 24 bytes in base64.
const KEY: &str = "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// A server with this configuration of webhooks.
fn start(webhooks: &str) -> Server {
    let model = "[[models]]\nname = \"words\"\nplugin = \"template\"\n";
    Scenario::new(&format!("[jobs]\n{webhooks}\n{model}")).start()
}

/// A server that delivers webhooks to this machine.
fn start_with_receivers() -> Server {
    start(&format!(
        "webhook_secret = \"whsec_{KEY}\"\nwebhook_allowed_hosts = [\"127.0.0.1\"]"
    ))
}

fn submit(server: &Server, task: &str, input: &Json, webhook: &str) -> Reply {
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

/// A message, as it was received.
struct Message {
    path: String,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl Message {
    /// Reads a request of HTTP/1.1.
    fn read(stream: &TcpStream) -> Self {
        let mut reader = BufReader::new(stream);
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).expect("the sender sends a head");
            match line.trim_end() {
                "" => break,
                line => lines.push(line.to_owned()),
            }
        }
        let path = lines[0].split(' ').nth(1).expect("a path").to_owned();
        let headers: BTreeMap<String, String> = lines[1..]
            .iter()
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        let length = headers["content-length"].parse().expect("a number");
        let mut body = vec![0; length];
        reader.read_exact(&mut body).expect("the sender sends a body");
        Self { path, headers, body }
    }

    /// Checks the signature as a receiver does. Returns the body.
    #[track_caller]
    fn verified(&self) -> Json {
        let (id, timestamp) = (&self.headers["webhook-id"], &self.headers["webhook-timestamp"]);
        let mut signed = format!("{id}.{timestamp}.").into_bytes();
        signed.extend_from_slice(&self.body);
        let key = hmac::Key::new(hmac::HMAC_SHA256, &STANDARD.decode(KEY).expect("it is base64"));
        let signature = self.headers["webhook-signature"].strip_prefix("v1,");
        let tag = STANDARD
            .decode(signature.expect("a version"))
            .expect("it is base64");
        hmac::verify(&key, &signed, &tag).expect("the signature is valid");
        serde_json::from_slice(&self.body).expect("the body is JSON")
    }
}

/// Receives messages, and answers them with these statuses in turn, then with 204.
fn receiver(mut statuses: Vec<&'static str>) -> (SocketAddr, Receiver<Message>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    let (sender, messages) = channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let message = Message::read(&stream);
            let status = match statuses.is_empty() {
                true => "204 No Content",
                false => statuses.remove(0),
            };
            let reply = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            stream.write_all(reply.as_bytes()).expect("the sender reads");
            if sender.send(message).is_err() {
                return;
            }
        }
    });
    (address, messages)
}

#[track_caller]
fn next(messages: &Receiver<Message>) -> Message {
    messages.recv_timeout(PATIENCE).expect("a message arrives")
}

fn wait_for_outcome(server: &Server, outcome: &str, count: u64) {
    server.wait_for_metric("inference_job_webhooks_total", &[("outcome", outcome)], count);
}

#[test]
fn each_job_that_ends_sends_one_signed_message() {
    let server = start_with_receivers();
    let (address, messages) = receiver(Vec::new());
    let url = format!("http://{address}/hook?from=test");
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
        let message = next(&messages);
        assert_eq!(message.path, "/hook?from=test");
        assert_eq!(message.headers["content-type"], "application/json");
        let body = message.verified();
        let job = body["data"]["id"].as_str().expect("the job").to_owned();
        assert_eq!(
            body["data"],
            server.get(&format!("/v1/jobs/{job}")).expect(200).json()
        );
        assert_eq!(body["timestamp"], body["data"]["finished_at"]);
        received.insert(job, body["type"].as_str().expect("a type").to_owned());
    }
    assert_eq!(received, expected);
    wait_for_outcome(&server, "delivered", 2);
    server.shut_down();
    assert!(messages.try_recv().is_err(), "one message per job");
}

#[test]
fn a_receiver_that_fails_gets_the_message_again_with_its_id() {
    let server = start_with_receivers();
    let (address, messages) = receiver(vec!["503 Service Unavailable"]);
    submit(&server, "echo", &json!("to be"), &format!("http://{address}/")).expect(202);
    let (first, second) = (next(&messages), next(&messages));
    assert_eq!(first.verified(), second.verified());
    assert_eq!(first.headers["webhook-id"], second.headers["webhook-id"]);
    wait_for_outcome(&server, "delivered", 1);
    assert_eq!(
        server
            .metrics()
            .count("inference_job_webhooks_total", &[("outcome", "retried")]),
        1
    );
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
        let server = start(webhooks);
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
