//! What open pages for operators cost: CPU time of the server and bytes per second.
//!
//! The long form prints figures of 50 pages. CPU time is not asserted, because it depends on the machine:
//!
//! ```sh
//! INFERENCE_TEST_LONG=1 cargo nextest run --workspace --no-capture -E 'test(open_pages_cost)'
//! ```

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use inference_server::clock;
use serde_json::json;

use crate::harness::browser::PATIENCE;
use crate::harness::{Scenario, Server, eventually, rounds};

/// Models of the server, some of which are busy.
const MODELS: usize = 20;
const BUSY: usize = 4;

/// Pause between two requests under load. The load has to be the same with and without pages.
const PAUSE: Duration = Duration::from_millis(25);

/// Maximum size of an event with its framing in bytes.
const MAX_PER_SECOND: f64 = 1040.0;

/// Pages that are open at the same time.
struct Pages {
    stop: AtomicBool,
    received: AtomicU64,
    events: AtomicU64,
}

impl Pages {
    /// Reads the events of a page until all are to stop.
    fn read(&self, address: SocketAddr, path: &str) {
        let mut stream = TcpStream::connect(address).expect("it listens");
        write!(stream, "GET {path} HTTP/1.1\r\nhost: test\r\n\r\n").expect("it reads");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        let mut buffer = [0; 16384];
        while !self.stop.load(Ordering::Relaxed) {
            let count = stream.read(&mut buffer).expect("the stream is open");
            assert!(count > 0, "the stream of {path} has ended");
            let events = buffer[..count].windows(6).filter(|window| window == b"data: ");
            self.events.fetch_add(events.count() as u64, Ordering::Relaxed);
            self.received.fetch_add(count as u64, Ordering::Relaxed);
        }
    }
}

/// CPU time of a server since its start.
fn cpu_time(server: &Server) -> Duration {
    let path = format!("/proc/{}/stat", server.pid().as_raw_pid());
    let text = fs::read_to_string(path).expect("a running process");
    let fields: Vec<&str> = text.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let ticks = |field: usize| -> u64 { fields[field].parse().expect("a number") };
    // utime and stime, in hundredths of a second.
    Duration::from_millis((ticks(11) + ticks(12)) * 10)
}

/// Shares of a CPU that the server uses while `work` runs.
fn measure(server: &Server, work: impl FnOnce()) -> (f64, Duration) {
    let (before, started): (Duration, Instant) = (cpu_time(server), clock::now());
    work();
    let elapsed = clock::now().saturating_duration_since(started);
    let used = cpu_time(server).saturating_sub(before);
    (used.as_secs_f64() / elapsed.as_secs_f64(), elapsed)
}

/// Waits until each page has received this many more events, one of which arrives per second.
fn wait_for_events(pages: &Pages, count: u64, each: u64) {
    let before = pages.events.load(Ordering::Relaxed);
    eventually("events of all pages", || {
        let received = pages.events.load(Ordering::Relaxed) - before;
        if received >= count * each {
            Ok(())
        } else {
            Err(received)
        }
    });
}

/// Opens pages, and prints what they cost.
fn measure_pages(server: &Server, what: &str, path: &str, count: usize, seconds: u64, idle: f64) {
    let pages = Pages {
        stop: AtomicBool::new(false),
        received: AtomicU64::new(0),
        events: AtomicU64::new(0),
    };
    thread::scope(|scope| {
        for _ in 0..count {
            scope.spawn(|| pages.read(server.address(), path));
        }
        // The first event of each has all of its cells.
        wait_for_events(&pages, count as u64, 2);
        let before = pages.received.load(Ordering::Relaxed);
        let (used, elapsed) = measure(server, || wait_for_events(&pages, count as u64, seconds));
        let received = (pages.received.load(Ordering::Relaxed) - before) as f64;
        pages.stop.store(true, Ordering::Relaxed);
        let per_second = received / elapsed.as_secs_f64() / count as f64;
        eprintln!(
            "{count} pages of {what}: {:.4}% CPU and {per_second:.0} bytes per second for each (server without pages: {:.2}% CPU)",
            (used - idle).max(0.0) / count as f64 * 100.0,
            idle * 100.0
        );
        assert!(per_second <= MAX_PER_SECOND, "{per_second} bytes per second");
    });
}

/// Sends requests to some models at a steady rate until it is to stop.
fn send_requests(server: &Server, stop: &AtomicBool) {
    for model in (0..BUSY).cycle() {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let reply = server.predict(&format!("m{model}"), "echo", &json!(["a"]));
        assert_eq!(reply.status, 200);
        thread::park_timeout(PAUSE);
    }
}

#[test]
fn open_pages_cost_at_most_one_kilobyte_per_second() {
    let (count, seconds) = (rounds(4, 50), rounds(2, 30) as u64);
    let models: String = (0..MODELS)
        .map(|number| format!("[[models]]\nname = \"m{number}\"\nplugin = \"template\"\n"))
        .collect();
    let server = Scenario::new(&models).start();
    for number in 0..20 {
        let call = server
            .request("POST", "/v1/models/m0/tasks/echo/predict")
            .header("prefer", "respond-async")
            .header("x-job-not-before", "1h")
            .json(&json!({ "inputs": [number] }));
        call.send();
    }
    let ids: Vec<String> = match server.get("/v1/jobs").expect(200).json()["data"].as_array() {
        Some(jobs) => jobs
            .iter()
            .filter_map(|job| Some(job["id"].as_str()?.to_owned()))
            .collect(),
        None => Vec::new(),
    };
    let jobs = format!("/ui/jobs/events?ids={}", ids.join(","));
    let views = [
        ("the overview", "/ui/events"),
        ("a model", "/ui/events?model=m0&task=echo"),
        ("jobs", &jobs),
    ];
    for is_busy in [false, true] {
        eprintln!("{}:", if is_busy { "under load" } else { "without load" });
        let stop = AtomicBool::new(!is_busy);
        thread::scope(|scope| {
            scope.spawn(|| send_requests(&server, &stop));
            let (idle, _) = measure(&server, || {
                // Passing time is what is measured.
                thread::park_timeout(Duration::from_secs(seconds));
            });
            for (what, path) in views {
                measure_pages(&server, what, path, count, seconds, idle);
            }
            stop.store(true, Ordering::Relaxed);
        });
    }
}
