//! Numbered jobs: submits each of them until it is accepted, and checks that each has exactly one result, equal to that of the
//! synchronous call.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::{Value as Json, json};

use super::client::{Client, predict_path};
use super::eventually::eventually;
use super::server::Server;

/// Configuration of the model `words`, which runs the jobs.
pub(crate) const WORDS: &str =
    "[[models]]\nname = \"words\"\nplugin = \"template\"\n[models.batching]\nmax_batch_size = 8\n";

/// Number of threads that check results.
const READERS: usize = 4;

/// The jobs that servers have accepted, by number.
#[derive(Default)]
pub(crate) struct NumberedJobs(Mutex<BTreeMap<usize, String>>);

/// Sets a flag when it is dropped, so that the threads of a test that fails end.
pub(crate) struct SetOnDrop<'a>(pub(crate) &'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The texts of a job.
fn texts(number: usize) -> Json {
    (0..number % 5 + 1)
        .map(|item| format!("text {item} of job {number}"))
        .collect()
}

/// A reply without what depends on time.
fn timeless(mut reply: Json) -> Json {
    reply["inference_time"] = 0.into();
    reply
}

impl NumberedJobs {
    /// Number of jobs that were accepted.
    pub(crate) fn accepted(&self) -> usize {
        self.0.lock().expect("no thread panicked").len()
    }

    /// Submits the jobs with these numbers, each until it is accepted, or until `stop` is set. Each attempt uses the next client:
    /// an attempt without a reply may have been stored, and is repeated with the same idempotency key.
    pub(crate) fn submit(&self, numbers: Range<usize>, clients: &[Client], stop: &AtomicBool) {
        let mut clients = clients.iter().cycle();
        for number in numbers {
            let id = loop {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                match submit(clients.next().expect("there is a client"), number) {
                    Some(id) => break id,
                    None => thread::park_timeout(Duration::from_millis(5)),
                }
            };
            self.0.lock().expect("no thread panicked").insert(number, id);
        }
    }

    /// Waits until all jobs have ended, and checks their results, and that there are no others. Returns how many attempts were
    /// repeated.
    pub(crate) fn verify(&self, server: &Server) -> u64 {
        let accepted = self.0.lock().expect("no thread panicked").clone();
        let jobs: Vec<(usize, String)> = accepted.into_iter().collect();
        let repeated = thread::scope(|scope| {
            let check = |part| {
                let client = server.client();
                scope.spawn(move || verify(&client, part))
            };
            let parts = jobs.chunks(jobs.len().div_ceil(READERS).max(1));
            let readers: Vec<_> = parts.map(check).collect();
            let counts = readers.into_iter().map(|reader| reader.join());
            counts.map(|count| count.expect("the results are correct")).sum()
        });
        // Such as a second one for the same idempotency key.
        let expected = format!(
            "inference_jobs{{model=\"words\",state=\"succeeded\"}} {}",
            jobs.len()
        );
        eventually("the metrics to report these jobs, and no others", || {
            let text = server.get("/metrics").expect(200).text();
            let found: Vec<&str> = text
                .lines()
                .filter(|line| line.starts_with("inference_jobs{"))
                .collect();
            if found == [expected.as_str()] {
                Ok(())
            } else {
                Err(found.join("\n"))
            }
        });
        repeated
    }
}

/// Submits a job. Returns its id if it was accepted.
fn submit(client: &Client, number: usize) -> Option<String> {
    let call = client
        .request("POST", &predict_path("words", "echo"))
        .header("prefer", "respond-async")
        .header("idempotency-key", &format!("job {number}"))
        .json(&json!({ "inputs": texts(number) }));
    let reply = call.try_send().ok()?;
    match reply.status {
        202 => Some(reply.json()["id"].as_str().expect("a job has an id").to_owned()),
        // The model is being loaded, or the store cannot be reached.
        503 => None,
        status => panic!("job {number} is rejected with {status}: {}", reply.text()),
    }
}

/// Checks the results of jobs. Returns how many attempts were repeated.
fn verify(client: &Client, jobs: &[(usize, String)]) -> u64 {
    let mut repeated = 0;
    for (number, id) in jobs {
        let job = eventually("a job to end", || {
            let job = client.get(&format!("/v1/jobs/{id}?wait=30s")).expect(200).json();
            match job["state"].as_str() {
                Some("queued" | "running") => Err(job),
                _ => Ok(job),
            }
        });
        assert_eq!(job["state"], "succeeded", "{job}");
        repeated += job["attempts"].as_u64().expect("a number") - 1;
        let result = client.get(&format!("/v1/jobs/{id}/result")).expect(200);
        let synchronous = client.predict("words", "echo", &texts(*number)).expect(200);
        assert_eq!(
            timeless(result.json()),
            timeless(synchronous.json()),
            "job {number}"
        );
    }
    repeated
}
