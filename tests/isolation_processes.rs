//! Life cycle of model processes: their number, their end with the server, and cleanup.

use std::collections::BTreeSet;

use serde_json::json;

use crate::harness::effort::rounds;
use crate::harness::misbehave::{echoes, perform};
use crate::harness::{Scenario, Server, Signal, eventually};

fn config(keys: &str) -> String {
    format!("[[models]]\nname = \"m\"\nplugin = \"misbehave\"\nisolation = \"process\"\n{keys}\n")
}

fn scenario(keys: &str) -> Scenario {
    Scenario::new(&config(keys))
}

fn pids(server: &Server, concurrency: usize) -> BTreeSet<u64> {
    let pending: Vec<_> = (0..concurrency)
        .map(|value| {
            let item = json!([{"do": "sleep", "ms": 50, "value": value}]);
            server.predict_in_background("m", "text", &item)
        })
        .collect();
    pending
        .into_iter()
        .filter_map(|pending| pending.reply().outputs()[0]["pid"].as_u64())
        .collect()
}

#[test]
fn each_worker_has_a_process_and_all_share_one_queue() {
    let server = scenario("workers = 3\n[models.batching]\nmax_batch_size = 1").start();
    assert_eq!(server.processes().len(), 3);
    assert_eq!(
        server
            .metrics()
            .count("inference_worker_processes", &[("model", "m")]),
        3
    );
    let first = server.occupy("m");
    let second = server.occupy("m");
    let third = server.occupy("m");
    for occupied in [first, second, third] {
        occupied.release();
    }
    eventually("all three processes to have run a batch", || {
        match pids(&server, 12).len() {
            3 => Ok(()),
            count => Err(count),
        }
    });
    server.shut_down();
}

#[test]
fn losing_one_of_several_processes_leaves_the_model_ready() {
    let server = scenario(
        "workers = 2\n[models.batching]\nmax_batch_size = 1\n[models.settings]\nload_fault_until = \"loads\"\non_load = \"error\"",
    );
    std::fs::write(server.dir().join("loads"), "").expect("change the directory of the scenario");
    let server = server.start();
    std::fs::remove_file(server.dir().join("loads")).expect("change the directory of the scenario");
    server.processes()[0].signal(Signal::KILL);
    server.wait_for_metric("inference_worker_processes", &[("model", "m")], 1);
    server.get("/readyz").expect(200);
    assert_eq!(pids(&server, 6).len(), 1);
    std::fs::write(server.dir().join("loads"), "").expect("change the directory of the scenario");
    server.wait_for_metric("inference_worker_processes", &[("model", "m")], 2);
    server.shut_down();
}

#[test]
fn processes_exit_with_the_server_even_if_it_is_killed() {
    for signal in [Signal::TERM, Signal::KILL] {
        let mut server = scenario("workers = 2").start();
        let processes = server.processes();
        assert_eq!(processes.len(), 2);
        // One of them is running a batch, which does not delay its exit.
        let _busy = server.in_background(|client| {
            let call = client.request("POST", "/v1/models/m/tasks/text/predict");
            call.json(&json!({"inputs": [{"do": "sleep", "ms": 1500}]}))
                .try_send()
        });
        server.wait_for_metric("inference_executing_items", &[("model", "m")], 1);
        server.signal(signal);
        server.wait_for_exit();
        for process in processes {
            process.wait_until_gone();
        }
    }
}

#[test]
fn a_process_that_does_not_exit_is_killed() {
    let mut server = Scenario::new(&format!("[server]\ndrain_timeout = \"500ms\"\n{}", config(""))).start();
    let processes = server.processes();
    let _hung = server.in_background(|client| {
        let call = client.request("POST", "/v1/models/m/tasks/text/predict");
        call.json(&json!({"inputs": [{"do": "hang"}]})).try_send()
    });
    server.wait_for_metric("inference_executing_items", &[("model", "m")], 1);
    server.signal(Signal::TERM);
    assert_eq!(
        server.wait_for_exit().code(),
        Some(1),
        "work was lost, and the code says so"
    );
    processes
        .into_iter()
        .for_each(|process| process.wait_until_gone());
}

#[test]
fn a_process_whose_requests_have_all_been_answered_is_killed_at_once_on_shutdown() {
    for task in ["text", "prepared"] {
        let config = format!(
            "[server]\ndrain_timeout = \"10m\"\n{}",
            config("predict_timeout = \"1h\"")
        );
        let mut server = Scenario::new(&config).start();
        let processes = server.processes();
        let action = if task == "text" { "hang" } else { "hang_in_prepare" };
        let path = format!("/v1/models/m/tasks/{task}/predict");
        let late = server
            .request("POST", &path)
            .header("x-request-timeout", "200ms")
            .json(&json!({"inputs": [{"do": action}]}))
            .send();
        assert_eq!(late.status, 504, "{task}");
        server.signal(Signal::TERM);
        assert_eq!(server.wait_for_exit().code(), Some(0), "{task}: nothing was lost");
        for process in processes {
            process.wait_until_gone();
        }
        let log = server.log().text();
        assert!(
            !log.contains("still running a batch") && !log.contains(" ERROR "),
            "{log}"
        );
    }
}

#[test]
fn signals_for_the_server_do_not_terminate_its_processes() {
    let server = scenario("").start();
    let before = server.processes();
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        before[0].signal(signal);
        server.predict("m", "text", &echoes(["still there"])).expect(200);
    }
    assert_eq!(server.processes(), before);
    server.shut_down();
}

#[test]
fn a_process_does_not_inherit_the_servers_connections() {
    let server = scenario("workers = 2").start();
    let connection = server.connect();
    server.processes()[0].signal(Signal::KILL);
    server.wait_for_metric("inference_worker_restarts_total", &[("model", "m")], 1);
    server.wait_for_metric("inference_worker_processes", &[("model", "m")], 2);
    let mut seen = sockets_of(server.pid().as_raw_pid());
    for process in server.processes() {
        let sockets = sockets_of(process.number());
        assert!(!sockets.is_empty(), "it is spoken with over sockets");
        assert!(seen.is_disjoint(&sockets), "{sockets:?} are not all its own");
        seen.extend(sockets);
    }
    drop(connection);
}

/// Returns the open sockets of a process.
fn sockets_of(process: i32) -> BTreeSet<String> {
    let entries = std::fs::read_dir(format!("/proc/{process}/fd")).expect("the process lives");
    let targets = entries.flatten().filter_map(|entry| {
        Some(
            std::fs::read_link(entry.path())
                .ok()?
                .to_string_lossy()
                .into_owned(),
        )
    });
    targets.filter(|target| target.starts_with("socket:")).collect()
}

#[test]
fn a_thousand_restarts_leave_nothing_behind() {
    let server = scenario("on_crash = \"fail\"\nwarm_up = false\nrestart_delay = \"1ms\"").start();
    let crash = json!([perform("exit", 1)]);
    let once = || {
        server.predict("m", "text", &crash).expect(500);
        server.predict("m", "text", &echoes([1])).expect(200);
    };
    (0..10).for_each(|_| once());
    let before = server.resources().threads_and_files();
    let memory = server.resident_bytes();
    (0..990).for_each(|_| once());
    wait_until_no_more_is_held(&server, before);
    let grown = server.resident_bytes().saturating_sub(memory);
    assert!(grown < 2 << 20, "{grown} bytes more than before");
    assert_eq!(
        server
            .metrics()
            .count("inference_worker_restarts_total", &[("model", "m")]),
        1000
    );
    server.shut_down();
}

/// Waits until the server has no more threads and open files than `before`, since exiting can take a moment.
#[track_caller]
fn wait_until_no_more_is_held(server: &Server, before: (u64, u64)) {
    eventually("what was held to be given back", || {
        let now = server.resources().threads_and_files();
        let is_more = now.0 > before.0 || now.1 > before.1;
        if is_more { Err((now, before)) } else { Ok(()) }
    });
}

/// Maximum memory that the allocator retains, regardless of the number of reloads.
const SLACK: u64 = 4 << 20;

#[test]
fn reloads_of_a_model_in_processes_leave_nothing_behind() {
    let grown = growth_by_reloads("process", rounds(30, 1000));
    assert!(grown < SLACK, "{grown} bytes more than before");
}

/// An opened library is never closed. A release build occupies 75 kB, a debug build twice that, and many of them make exiting the
/// process slow.
#[test]
fn reloads_of_a_model_in_a_thread_leave_little_behind() {
    let reloads = rounds(30, 300);
    let grown = growth_by_reloads("thread", reloads);
    let left = reloads as u64 * 300_000;
    assert!(grown < SLACK + left, "{grown} bytes more than before");
}

/// Returns by how many bytes the server's memory grows with this number of reloads, after some warm-up reloads.
fn growth_by_reloads(isolation: &str, reloads: usize) -> u64 {
    const UNCOUNTED: usize = 10;
    let config = |number: usize| {
        format!(
            "[[models]]\nname = \"m\"\nplugin = \"misbehave\"\nisolation = \"{isolation}\"\n\
             [models.settings]\ntag = \"{number}\"\n"
        )
    };
    let server = Scenario::new(&config(0)).start();
    let reload = |number: usize| {
        server.write_config(&config(number));
        assert!(server.reload());
    };
    (1..=UNCOUNTED).for_each(reload);
    server.wait_for_metric("inference_generations_live", &[], 1);
    let (before, processes) = (server.resources().threads_and_files(), server.processes().len());
    let memory = server.resident_bytes();
    (UNCOUNTED + 1..=UNCOUNTED + reloads).for_each(reload);
    server.wait_for_metric("inference_generations_live", &[], 1);
    wait_until_no_more_is_held(&server, before);
    assert_eq!(server.processes().len(), processes);
    let grown = server.resident_bytes().saturating_sub(memory);
    eprintln!("{reloads} reloads in isolation = \"{isolation}\": {grown} bytes more");
    server.shut_down();
    grown
}
