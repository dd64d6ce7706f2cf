//! Webhooks to receivers on this machine.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use hyper::body::Bytes;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};

use super::super::sqlite::SqliteStore;
use super::super::{
    Claim, Completion, JobId, JobStore, ModelRoom, NewJob, StoreClock, StoreLimits, StoredReply,
    StoredRequest, Submission, Viewer, WebhookState, WorkerId,
};
use super::*;
use crate::batching::Priority;
use crate::metrics::WebhookOutcome;
use crate::tls::{ClientTls, Trust};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// A request that a receiver has read.
#[derive(Clone, Debug)]
struct Received {
    path: String,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl Received {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// Panics unless the signature is right.
    fn verify(&self) {
        let secret = WebhookSecret::parse(SECRET).expect("it is valid");
        let timestamp = self.header("webhook-timestamp").parse().expect("a number");
        let expected = secret.sign(self.header("webhook-id"), timestamp, &self.body);
        assert_eq!(self.header("webhook-signature"), expected);
    }
}

/// Reads a request.
async fn read(stream: &mut TcpStream) -> Option<Received> {
    let mut bytes = Vec::new();
    let head = loop {
        let mut part = [0; 4096];
        let count = stream.read(&mut part).await.ok().filter(|count| *count > 0)?;
        bytes.extend_from_slice(&part[..count]);
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
    };
    let text = String::from_utf8(bytes[..head].to_vec()).expect("the head is ASCII");
    let mut lines = text.lines();
    let path = lines.next()?.split(' ').nth(1)?.to_owned();
    let headers: BTreeMap<String, String> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let length: usize = headers.get("content-length")?.parse().ok()?;
    let mut body = bytes.split_off(head + 4);
    while body.len() < length {
        let mut part = [0; 4096];
        let count = stream.read(&mut part).await.ok().filter(|count| *count > 0)?;
        body.extend_from_slice(&part[..count]);
    }
    Some(Received { path, headers, body })
}

/// A receiver that replies with what `reply` returns, or never.
struct Receiver {
    address: SocketAddr,
    received: mpsc::UnboundedReceiver<Received>,
}

impl Receiver {
    async fn start(reply: impl Fn(&Received) -> Option<String> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let (sender, received) = mpsc::unbounded_channel();
        let reply = Arc::new(reply);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (reply, sender) = (reply.clone(), sender.clone());
                tokio::spawn(async move {
                    let Some(request) = read(&mut stream).await else {
                        return;
                    };
                    let response = reply(&request);
                    let _ = sender.send(request);
                    match response {
                        Some(response) => {
                            let _ = stream.write_all(response.as_bytes()).await;
                        }
                        None => std::future::pending().await,
                    }
                });
            }
        });
        Self { address, received }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

fn status(line: &str) -> Option<String> {
    Some(format!("HTTP/1.1 {line}\r\ncontent-length: 0\r\n\r\n"))
}

fn redirect(location: &str) -> Option<String> {
    Some(format!(
        "HTTP/1.1 307 Temporary Redirect\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n"
    ))
}

/// Resolves every name to the same addresses, and counts how often.
struct FixedResolver {
    addresses: Vec<SocketAddr>,
    calls: Arc<AtomicUsize>,
}

impl Resolve for FixedResolver {
    fn resolve<'a>(&'a self, _: &'a str, _: u16) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let addresses = self.addresses.clone();
        Box::pin(async move { Ok(addresses) })
    }
}

fn settings(allowed: &[&str], timeout: Duration) -> WebhookSettings {
    WebhookSettings {
        allowed_hosts: allowed.iter().map(|host| HostPattern::parse(host)).collect(),
        secret: WebhookSecret::parse(SECRET),
        timeout,
        max_concurrency: 8,
    }
}

const PATIENT: Duration = Duration::from_secs(60);

/// A sender, and the number of names that it has resolved, all of them to these addresses.
fn sender(settings: WebhookSettings, addresses: &[SocketAddr]) -> (Sender, Arc<AtomicUsize>) {
    let calls = Arc::new(AtomicUsize::new(0));
    let resolver = FixedResolver {
        addresses: addresses.to_vec(),
        calls: calls.clone(),
    };
    let tls = ClientTls::new(&Trust::Anything).expect("TLS is available");
    (Sender::new(settings, Box::new(resolver), Some(tls)), calls)
}

fn message() -> Message {
    let body = Bytes::from_static(b"{}");
    let secret = WebhookSecret::parse(SECRET).expect("it is valid");
    Message {
        id: "msg_1".to_owned(),
        timestamp: 1_614_265_330,
        signature: secret.sign("msg_1", 1_614_265_330, &body),
        body,
    }
}

#[tokio::test]
async fn a_message_is_posted_with_its_signature() {
    let mut receiver = Receiver::start(|_| status("204 No Content")).await;
    let (sender, _) = sender(settings(&["127.0.0.1"], PATIENT), &[]);
    let attempt = sender.send(&receiver.url("/hook?a=b"), &message()).await;
    assert!(matches!(attempt, Attempt::Delivered(_)), "{attempt:?}");
    let received = receiver.received.recv().await.expect("it was sent");
    received.verify();
    assert_eq!(received.path, "/hook?a=b");
    assert_eq!(received.header("host"), receiver.address.to_string());
    assert_eq!(received.header("content-type"), "application/json");
    assert_eq!(received.body, b"{}");
}

#[tokio::test]
async fn the_status_decides_whether_a_message_is_sent_again() {
    for (line, expected) in [
        ("200 OK", "Delivered"),
        ("299 Fine", "Delivered"),
        ("410 Gone", "Gone"),
        ("400 Bad Request", "status 400"),
        ("500 Internal Server Error", "status 500"),
        ("303 See Other", "status 303"),
    ] {
        let receiver = Receiver::start(move |_| status(line)).await;
        let (sender, _) = sender(settings(&["127.0.0.1"], PATIENT), &[]);
        let attempt = sender.send(&receiver.url("/"), &message()).await;
        assert!(format!("{attempt:?}").contains(expected), "{line}: {attempt:?}");
    }
}

#[tokio::test]
async fn a_receiver_can_ask_for_a_delay() {
    let reply = "HTTP/1.1 429 Too Many Requests\r\nretry-after: 120\r\ncontent-length: 0\r\n\r\n";
    let receiver = Receiver::start(move |_| Some(reply.to_owned())).await;
    let (sender, _) = sender(settings(&["127.0.0.1"], PATIENT), &[]);
    let attempt = sender.send(&receiver.url("/"), &message()).await;
    assert!(
        matches!(attempt, Attempt::Failed { retry_after: Some(after), .. } if after.as_secs() == 120),
        "{attempt:?}"
    );
}

#[tokio::test]
async fn a_redirect_is_followed_to_an_allowed_target_only() {
    let receiver = Receiver::start(|request| match request.path.as_str() {
        "/start" => redirect("/end"),
        "/private" => redirect("http://10.0.0.1/"),
        "/metadata" => redirect("https://169.254.169.254/latest"),
        "/loop" => redirect("/loop"),
        _ => status("200 OK"),
    })
    .await;
    let (sender, _) = sender(settings(&["127.0.0.1"], PATIENT), &[]);
    let attempt = sender.send(&receiver.url("/start"), &message()).await;
    assert!(matches!(attempt, Attempt::Delivered(_)), "{attempt:?}");
    for path in ["/private", "/metadata"] {
        let attempt = sender.send(&receiver.url(path), &message()).await;
        assert!(
            matches!(attempt, Attempt::Rejected(TargetError::NotAllowed(_))),
            "{path}: {attempt:?}"
        );
    }
    let attempt = sender.send(&receiver.url("/loop"), &message()).await;
    assert!(
        matches!(&attempt, Attempt::Failed { reason, .. } if reason.contains("redirects")),
        "{attempt:?}"
    );
}

#[tokio::test]
async fn a_name_with_an_address_that_is_not_public_receives_nothing() {
    let mut receiver = Receiver::start(|_| status("200 OK")).await;
    let (sender, resolved) = sender(settings(&[], PATIENT), &[receiver.address]);
    let attempt = sender.send("https://rebind.example.com/", &message()).await;
    assert!(
        matches!(
            &attempt,
            Attempt::Rejected(TargetError::NotPublic {
                class: AddressClass::Loopback,
                ..
            })
        ),
        "{attempt:?}"
    );
    assert_eq!(resolved.load(Ordering::Relaxed), 1);
    assert!(receiver.received.try_recv().is_err());
}

#[tokio::test]
async fn a_listed_name_is_resolved_once_and_can_have_any_address() {
    let receiver = Receiver::start(|_| status("200 OK")).await;
    let (sender, resolved) = sender(settings(&["hooks.internal"], PATIENT), &[receiver.address]);
    let url = format!("http://hooks.internal:{}/", receiver.address.port());
    let attempt = sender.send(&url, &message()).await;
    assert!(matches!(attempt, Attempt::Delivered(_)), "{attempt:?}");
    assert_eq!(resolved.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_receiver_that_never_replies_costs_only_the_timeout() {
    let receiver = Receiver::start(|_| None).await;
    let (sender, _) = sender(settings(&["127.0.0.1"], Duration::from_millis(50)), &[]);
    let attempt = sender.send(&receiver.url("/"), &message()).await;
    assert!(
        matches!(&attempt, Attempt::Failed { reason, .. } if reason.contains("no reply within 50ms")),
        "{attempt:?}"
    );
}

/// Stores jobs that have ended, with webhooks to this URL.
async fn ended_jobs(store: &SqliteStore, count: usize, url: &str) -> Vec<JobId> {
    let mut ids = Vec::new();
    for _ in 0..count {
        let job = NewJob {
            request: StoredRequest {
                method: "POST".to_owned(),
                path: "/v1/models/m/tasks/t/predict".to_owned(),
                query: None,
                headers: Vec::new(),
                content_type: None,
                body: Bytes::from_static(b"x"),
            },
            model: "m".to_owned(),
            task: "t".to_owned(),
            owner: None,
            priority: Priority::Normal,
            ttl: None,
            not_before: None,
            label: None,
            idempotency_key: None,
            webhook_url: Some(url.to_owned()),
            max_attempts: 3,
            items: 1,
        };
        let submission = store.submit(job).await.expect("the store works");
        let Submission::Created(record) = submission else {
            panic!("{submission:?}");
        };
        ids.push(record.id);
    }
    let claim = Claim {
        worker: WorkerId::new("test".to_owned()),
        lease: PATIENT,
        room: vec![ModelRoom {
            model: "m".to_owned(),
            items: u32::try_from(count).expect("few"),
        }],
        max_bytes: u64::MAX,
    };
    for job in store.claim(claim).await.expect("the store works") {
        let (id, fence) = (job.record.id, job.fence);
        store.begin_attempt(id, fence).await.expect("the store works");
        let reply = StoredReply {
            status: 200,
            content_type: None,
            headers: Vec::new(),
            body: Bytes::from_static(b"y"),
        };
        let completed = store.complete(id, fence, Completion::Succeeded(reply)).await;
        completed.expect("the store works");
    }
    ids
}

#[tokio::test]
async fn every_message_arrives_at_a_receiver_that_fails_half_of_the_time() {
    const JOBS: usize = 60;
    let directory = tempfile::tempdir().expect("a directory");
    let clock = StoreClock::default();
    let limits = StoreLimits {
        max_queued: 1000,
        max_bytes: 1 << 30,
        retention: Duration::from_secs(1 << 20),
    };
    let path = directory.path().join("jobs.sqlite");
    let opened = SqliteStore::open(&path, limits, clock.clone()).await;
    let store = Arc::new(opened.expect("the store opens"));
    // Fails the first time that it receives a message, so half of the time.
    let (seen, accepted) = (Mutex::new(BTreeSet::new()), Arc::new(Mutex::new(BTreeMap::new())));
    let counts = accepted.clone();
    let receiver = Receiver::start(move |request| {
        request.verify();
        if seen
            .lock()
            .expect("no panics")
            .insert(request.header("webhook-id").to_owned())
        {
            return status("503 Service Unavailable");
        }
        let body: Value = serde_json::from_slice(&request.body).expect("the body is JSON");
        assert_eq!(body["type"], "job.succeeded");
        let job = body["data"]["id"].as_str().expect("the job").to_owned();
        *counts.lock().expect("no panics").entry(job).or_insert(0) += 1;
        status("200 OK")
    })
    .await;
    let ids = ended_jobs(&store, JOBS, &receiver.url("/hook")).await;
    let (sender, _) = sender(settings(&["127.0.0.1"], PATIENT), &[]);
    let (counted, mut outcomes) = mpsc::unbounded_channel();
    let task = DeliveryTask::new(
        store.clone(),
        sender,
        Arc::new(|record| json!({"id": record.id.to_string()})),
        Arc::new(move |outcome| {
            let _ = counted.send(outcome);
        }),
        clock.clone(),
    );
    let (stop, stopping) = oneshot::channel::<()>();
    let running = tokio::spawn(task.run(async move {
        let _ = stopping.await;
    }));
    let mut delivered = 0;
    for nth in 0..2 * JOBS {
        let outcome = outcomes.recv().await.expect("the task runs");
        assert_ne!(outcome, WebhookOutcome::Abandoned);
        delivered += usize::from(outcome == WebhookOutcome::Delivered);
        if nth + 1 == JOBS {
            // The first retries are due.
            clock.advance(Duration::from_secs(5));
        }
    }
    assert_eq!(delivered, JOBS);
    drop(stop);
    running.await.expect("the task ends");
    let accepted = accepted.lock().expect("no panics").clone();
    for id in &ids {
        assert_eq!(accepted.get(&id.to_string()), Some(&1), "once");
        let record = store.get(*id, &Viewer::All).await.expect("the store works");
        assert_eq!(
            record
                .and_then(|record| record.webhook)
                .map(|webhook| (webhook.state, webhook.attempts)),
            Some((WebhookState::Delivered, 2))
        );
    }
}
