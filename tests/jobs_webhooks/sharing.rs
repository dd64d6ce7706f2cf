//! Servers that share the jobs in a PostgreSQL database, and deliver the messages of all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::{Value as Json, json};

use super::receiver::{Message, Receiver};
use super::{ACCEPTED, UNAVAILABLE, submit, wait_for_webhook, with_receivers};
use crate::harness::postgres::Postgres;
use crate::harness::{Client, Server, Signal, eventually, rounds, seed};

fn start(database: &str) -> Server {
    let settings = "webhook_concurrency = 64\nlease = \"5s\"";
    with_receivers(settings)
        .env("INFERENCE_JOBS_STORE", database)
        .start()
}

/// What a receiver has seen of a message.
#[derive(Clone, Copy, Default)]
struct Attempts {
    running: u32,
    failed: u32,
    accepted: u32,
}

/// What a receiver has seen of all messages, by identifier.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<BTreeMap<String, Attempts>>>);

impl Seen {
    fn update<T>(&self, message: &Message, update: impl FnOnce(&mut Attempts) -> T) -> T {
        let mut seen = self.0.lock().expect("no thread panicked");
        update(seen.entry(message.id()).or_default())
    }

    fn all(&self) -> Vec<Attempts> {
        let seen = self.0.lock().expect("no thread panicked");
        seen.values().copied().collect()
    }
}

/// The states of the deliveries of all jobs.
fn states(client: &Client) -> BTreeMap<String, usize> {
    let mut states = BTreeMap::new();
    let mut cursor = String::new();
    loop {
        let page = client
            .get(&format!("/v1/jobs?limit=1000{cursor}"))
            .expect(200)
            .json();
        for job in page["data"].as_array().expect("a list") {
            let state = job["webhook"]["state"].as_str().expect("every job has a webhook");
            *states.entry(state.to_owned()).or_insert(0) += 1;
        }
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return states,
        }
    }
}

/// The long form sends 10,000 messages.
#[test]
fn every_message_arrives_once_at_a_receiver_that_fails_half_of_the_time() {
    let max_failures = rounds(1, 3) as u32;
    let Some(postgres) = Postgres::start() else { return };
    let messages = rounds(40, 10_000);
    let database = postgres.create_database("webhooks");
    let servers = [start(&database), start(&database)];
    let (seen, random) = (Seen::default(), Mutex::new(fastrand::Rng::with_seed(seed())));
    let receiver = Receiver::start({
        let seen = seen.clone();
        move |message| {
            message.verified();
            let attempts = seen.update(message, |attempts| {
                attempts.running += 1;
                assert_eq!(attempts.running, 1, "two servers send a message at the same time");
                *attempts
            });
            // Long enough for the other server to look for messages.
            thread::park_timeout(Duration::from_millis(20));
            let fails = attempts.failed < max_failures && random.lock().expect("no thread panicked").bool();
            seen.update(message, |attempts| {
                attempts.running -= 1;
                match fails {
                    true => attempts.failed += 1,
                    false => attempts.accepted += 1,
                }
            });
            if fails { UNAVAILABLE } else { ACCEPTED }
        }
    });
    let url = receiver.url("/");
    thread::scope(|scope| {
        for server in &servers {
            let (client, url) = (server.client(), url.as_str());
            scope.spawn(move || {
                for number in 0..messages / 2 {
                    submit(&client, "echo", &json!(number.to_string()), url).expect(202);
                }
            });
        }
    });
    let expected = BTreeMap::from([("delivered".to_owned(), messages)]);
    eventually("every message to be delivered", || match states(&servers[0]) {
        states if states == expected => Ok(()),
        states => Err(states),
    });
    let seen = seen.all();
    assert_eq!(seen.len(), messages);
    assert!(seen.iter().all(|attempts| attempts.accepted == 1));
    let failed: u32 = seen.iter().map(|attempts| attempts.failed).sum();
    eprintln!("{messages} messages, {failed} failed attempts");
    assert!(failed > 0);
}

/// Takes as long as a claim: longer than an attempt can take.
#[test]
fn another_server_sends_the_messages_of_one_that_was_killed() {
    if rounds(0, 1) == 0 {
        return;
    }
    let Some(postgres) = Postgres::start() else { return };
    let database = postgres.create_database("killed");
    let mut first = start(&database);
    let held = Arc::new(Mutex::new(BTreeSet::new()));
    let receiver = Receiver::start({
        let held = held.clone();
        move |message| {
            // The first attempt is never answered.
            if held.lock().expect("no thread panicked").insert(message.id()) {
                thread::park_timeout(Duration::from_secs(600));
            }
            ACCEPTED
        }
    });
    let accepted = submit(&first, "echo", &json!("a"), &receiver.url("/")).expect(202);
    let id = super::id_of(&accepted);
    eventually("the first attempt", || {
        match held.lock().expect("no thread panicked").len() {
            0 => Err("none"),
            _ => Ok(()),
        }
    });
    let second = start(&database);
    first.signal(Signal::KILL);
    first.wait_for_exit();
    let delivered: Json = wait_for_webhook(&second, &id, "delivered", 1);
    assert_eq!(delivered["last_status"], 204);
    assert_eq!(receiver.next().verified()["data"]["id"], id.as_str());
}
