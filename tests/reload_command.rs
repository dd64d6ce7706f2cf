//! The command `reload` asks a running server to reload and returns the outcome.

use std::process::{Command, Output};

use crate::harness::plugins::executable;
use crate::harness::{Scenario, Server, eventually};

fn config(batch_size: u32) -> String {
    format!(
        "[batching]\nmax_batch_size = {batch_size}\n\n[[models]]\nname = \"m\"\nplugin = \"misbehave\"\n\
         [models.settings]\ntag = \"{batch_size}\"\n"
    )
}

fn start() -> Server {
    Scenario::new(&config(1)).start()
}

/// Runs the command. Returns its exit code and what it printed to standard output and standard error.
fn reload(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(executable()).arg("reload").args(arguments).output();
    let Output {
        status,
        stdout,
        stderr,
    } = output.expect("start the executable");
    let text = |bytes| String::from_utf8(bytes).expect("it prints text");
    (status.code(), text(stdout), text(stderr))
}

fn reload_of(server: &Server) -> (Option<i32>, String, String) {
    reload(&["--pid", &server.pid().as_raw_pid().to_string()])
}

#[test]
fn a_reload_that_succeeds_is_live_when_the_command_exits_with_0() {
    let server = start();
    let before = server.generation("m");
    for batch_size in 2..5 {
        server.write_config(&config(batch_size));
        let (code, out, err) = reload_of(&server);
        assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
        assert!(out.starts_with("reloaded: loaded m; took "), "{out}");
        assert_eq!(server.generation("m"), before + u64::from(batch_size) - 1);
    }
    let (_, out, _) = reload_of(&server);
    assert!(out.starts_with("reloaded: 1 unchanged; took "), "{out}");
}

#[test]
fn a_reload_that_needs_a_restart_says_so() {
    let server = start();
    server.write_config(&format!("[server]\nkeep_alive = \"7s\"\n\n{}", config(1)));
    let (code, out, _) = reload_of(&server);
    assert_eq!(code, Some(0));
    assert!(out.contains("; restart the server to apply changes of "), "{out}");
    assert!(out.contains("keep_alive"), "{out}");
}

#[test]
fn a_reload_that_fails_exits_with_1_and_every_reason() {
    let server = start();
    let before = server.generation("m");
    for (broken, reasons) in [
        (
            "[server]\nprot = 1\nport = \"x\"\n",
            ["models.toml:2:", "models.toml:3:"],
        ),
        (
            "[[models]]\nname = \"m\"\nplugin = \"misbehave\"\n[models.settings]\non_load = \"error\"\n\n\
             [[models]]\nname = \"n\"\nplugin = \"missing\"\n",
            ["`m`", "`n`"],
        ),
    ] {
        server.write_config(broken);
        let (code, out, err) = reload_of(&server);
        assert_eq!((code, out.as_str()), (Some(1), ""), "{err}");
        assert!(
            err.starts_with("reload failed; the server keeps its current configuration: "),
            "{err}"
        );
        for reason in reasons {
            assert!(err.contains(reason), "{reason}: {err}");
        }
        assert_eq!(server.generation("m"), before);
    }
}

#[test]
fn a_process_that_is_not_a_server_is_not_signaled() {
    let own = std::process::id().to_string();
    let (code, out, err) = reload(&["--pid", &own]);
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert!(
        err.starts_with(&format!("cannot reach a server with the process ID {own}")),
        "{err}"
    );
}

#[test]
fn a_reload_of_a_server_that_is_killed_fails() {
    let server = start();
    server.write_config(
        "[[models]]\nname = \"m\"\nplugin = \"misbehave\"\n[models.settings]\non_load = \"hang\"\n",
    );
    let waiting = std::thread::spawn({
        let pid = server.pid().as_raw_pid().to_string();
        move || reload(&["--pid", &pid])
    });
    server.wait_for_log("reloading ");
    let pid = server.pid().as_raw_pid();
    drop(server);
    let (code, out, err) = waiting.join().expect("it does not panic");
    assert_eq!((code, out.as_str()), (Some(1), ""));
    let expected = format!("the server with the process ID {pid} did not answer: ");
    assert!(err.starts_with(&expected), "{err}");
}

#[test]
fn the_command_does_not_wait_longer_than_it_should() {
    let server = start();
    server.write_config(
        "[[models]]\nname = \"m\"\nplugin = \"misbehave\"\n[models.settings]\non_load = \"hang\"\n",
    );
    let pid = server.pid().as_raw_pid().to_string();
    let (code, _, err) = reload(&["--pid", &pid, "--timeout", "100ms"]);
    assert_eq!(code, Some(1));
    assert_eq!(err, "the reload has not finished after 0.1 s; it continues\n");
    // The next client is served although this one has left.
    eventually("the reload to begin", || {
        server.log().has("reloading ").then_some(()).ok_or("not yet")
    });
    let (code, _, err) = reload(&["--timeout", "0s"]);
    assert_eq!(code, Some(2), "{err}");
}
