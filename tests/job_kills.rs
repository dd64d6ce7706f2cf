//! Servers, and their database, are killed at random moments while jobs run. Every job that was accepted has exactly one result,
//! equal to that of the synchronous call.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::harness::numbered_jobs::{NumberedJobs, SetOnDrop, WORDS};
use crate::harness::postgres::Postgres;
use crate::harness::{Client, Scenario, Server, Signal, eventually, rounds, seed};

const JOBS: &str = "[jobs]\nmax_attempts = 1000\nlease = \"2s\"\n[logging]\naccess_log = false\n";

/// Servers that share a database.
const SERVERS: usize = 3;

/// Of this many kills, one is that of the database.
const KILLS_PER_DATABASE: usize = 6;

fn scenario() -> Scenario {
    Scenario::new(&format!("{JOBS}{WORDS}"))
}

/// Starts a server on the jobs of the previous one.
fn start(database: &Path) -> Server {
    let database = database.to_str().expect("a path is text");
    scenario().env("INFERENCE_JOBS_PATH", database).start_unready()
}

#[test]
fn every_accepted_job_has_exactly_one_result_however_often_the_server_is_killed() {
    let (kills, jobs) = (rounds(20, 1000), rounds(300, 20_000));
    let mut random = fastrand::Rng::with_seed(seed());
    let home = Scenario::new("");
    let database = home.dir().join("jobs.sqlite");
    let submitted = NumberedJobs::default();
    for kill in 0..kills {
        let mut server = start(&database);
        // A part of the jobs per life of the server, and all of them at the end.
        let until = jobs * (kill + 1) / kills;
        let (client, is_killed) = (server.client(), AtomicBool::new(false));
        let delay = Duration::from_millis(random.u64(1..300));
        thread::scope(|scope| {
            let stop = SetOnDrop(&is_killed);
            scope.spawn(|| submitted.submit(submitted.accepted()..until, &[client], &is_killed));
            eventually("the server to be ready", || match server.get("/readyz").status {
                200 => Ok(()),
                status => Err(status),
            });
            thread::park_timeout(delay);
            drop(stop);
            server.signal(Signal::KILL);
            server.wait_for_exit();
        });
    }
    let server = start(&database);
    server.wait_until_ready();
    let is_killed = AtomicBool::new(false);
    submitted.submit(submitted.accepted()..jobs, &[server.client()], &is_killed);
    assert_eq!(submitted.accepted(), jobs);
    let repeated = submitted.verify(&server);
    eprintln!("{jobs} jobs and {kills} kills: {repeated} attempts were repeated");
}

/// Starts a server that shares a database, on a port that the previous one may have used.
fn start_sharing(database: &str, port: &str) -> Server {
    let scenario = scenario().env("INFERENCE_JOBS_STORE", database);
    scenario.argument("--port").argument(port).start_unready()
}

#[test]
fn every_accepted_job_has_exactly_one_result_however_often_servers_and_their_database_are_killed() {
    let Some(postgres) = Postgres::start() else { return };
    let (kills, jobs) = (rounds(12, 1000), rounds(200, 20_000));
    let mut random = fastrand::Rng::with_seed(seed());
    let database = postgres.create_database("killed");
    let mut servers: Vec<Server> = (0..SERVERS).map(|_| start_sharing(&database, "0")).collect();
    let clients: Vec<Client> = servers.iter().map(|server| server.client()).collect();
    let submitted = NumberedJobs::default();
    // A part of the jobs for each kill, and all of them at the end.
    let (until, has_failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        let submitter = scope.spawn(|| {
            while submitted.accepted() < jobs && !has_failed.load(Ordering::Relaxed) {
                let part = submitted.accepted()..until.load(Ordering::Relaxed);
                submitted.submit(part, &clients, &has_failed);
                thread::park_timeout(Duration::from_millis(1));
            }
        });
        let failure = SetOnDrop(&has_failed);
        for kill in 0..kills {
            until.store(jobs * (kill + 1) / kills, Ordering::Relaxed);
            thread::park_timeout(Duration::from_millis(random.u64(1..300)));
            if kill % KILLS_PER_DATABASE == KILLS_PER_DATABASE - 1 {
                match random.bool() {
                    true => postgres.kill(),
                    false => postgres.stop(),
                }
                postgres.run();
            } else {
                let server = &mut servers[random.usize(..SERVERS)];
                let port = server.address().port().to_string();
                server.signal(Signal::KILL);
                server.wait_for_exit();
                *server = start_sharing(&database, &port);
            }
        }
        submitter.join().expect("the jobs are accepted");
        drop(failure);
    });
    let last = &servers[0];
    last.wait_until_ready();
    let repeated = submitted.verify(last);
    eprintln!("{jobs} jobs, {SERVERS} servers and {kills} kills: {repeated} attempts were repeated");
}
