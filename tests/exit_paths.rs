//! Problems in the environment of the process: outputs that cannot be written, few open files, and signals. The process exits with one
//! line and an exit code, or keeps serving.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, kill_process};

use crate::harness::misbehave::echoes;
use crate::harness::plugins::library;
use crate::harness::{Client, Scenario, Signal, eventually};

const CONFIG: &str = "[[models]]\nname = \"words\"\nplugin = \"template\"\n";

/// Returns commands that succeed and print something.
fn commands() -> Vec<Vec<String>> {
    let template = library("template").to_string_lossy().into_owned();
    let commands = [
        &["--help"][..],
        &["--version"],
        &["bench", "--help"],
        &["check", "--config", "models.toml"],
        &["config-reference"],
        &["config-reference", "--markdown"],
        &["inspect", &template],
        &["inspect", "--json", &template],
    ];
    let owned = |command: &&[&str]| command.iter().map(|word| (*word).to_owned()).collect();
    commands.iter().map(owned).collect()
}

fn run(
    scenario: &Scenario,
    arguments: &[String],
    redirect: impl FnOnce(&mut Command),
) -> (Option<i32>, String) {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut command = scenario.to_run(&arguments);
    command.stderr(Stdio::piped());
    redirect(&mut command);
    let output = command.output().expect("the executable can be started");
    (
        output.status.code(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

fn full_disk() -> File {
    let options = File::options().write(true).open("/dev/full");
    options.expect("Linux has a device that is always full")
}

#[test]
fn all_commands_exit_quietly_when_their_output_pipe_is_closed() {
    let scenario = Scenario::new(CONFIG);
    for arguments in commands() {
        let (reader, writer) = std::io::pipe().expect("the system has pipes");
        drop(reader);
        let ended = run(&scenario, &arguments, |command| {
            command.stdout(writer);
        });
        assert_eq!(ended, (Some(0), String::new()), "{arguments:?}");
    }
}

#[test]
fn all_commands_report_a_full_disk_in_one_line_and_with_an_exit_code() {
    let scenario = Scenario::new(CONFIG);
    for arguments in commands() {
        let (code, errors) = run(&scenario, &arguments, |command| {
            command.stdout(full_disk());
        });
        let expected = "cannot write to standard output: No space left on device (os error 28)\n";
        assert_eq!((code, errors.as_str()), (Some(1), expected), "{arguments:?}");
    }
}

#[test]
fn an_error_that_cannot_be_printed_keeps_its_exit_code() {
    let scenario = Scenario::new("[server]\nprot = 1\n");
    for (arguments, code) in [
        (&["--no-such-flag"][..], 2),
        (&["check", "--config", "models.toml"], 2),
        (&["inspect", "missing.so"], 1),
    ] {
        let arguments: Vec<String> = arguments.iter().map(|word| (*word).to_owned()).collect();
        let (ended, _) = run(&scenario, &arguments, |command| {
            command.stderr(full_disk());
        });
        assert_eq!(ended, Some(code), "{arguments:?}");
    }
}

#[test]
fn too_few_open_files_are_reported_in_one_line_before_serving() {
    for (limit, isolation) in [
        (16, "thread"),
        (20, "thread"),
        (24, "process"),
        (40, "process"),
        (64, "process"),
    ] {
        let scenario = Scenario::new(&format!(
            "[server]\nport = 0\n\n[[models]]\nname = \"m\"\nplugin = \"misbehave\"\nisolation = \"{isolation}\"\n"
        ))
        .open_files(limit);
        let output = scenario.run(&["--config", "models.toml"]);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        let says = format!("the limit on open files is {limit}, but this configuration needs at least ");
        assert_eq!(output.status.code(), Some(1), "{limit}: {errors}");
        assert!(
            errors.starts_with(&says) && errors.lines().count() == 1,
            "{errors}"
        );
    }
}

#[test]
fn a_server_with_the_required_number_of_open_files_runs_its_processes() {
    let config = "[server]\nprepare_threads = 2\n\n\
                  [[models]]\nname = \"m\"\nplugin = \"misbehave\"\nisolation = \"process\"\nworkers = 2\n";
    let asked = Scenario::new(config)
        .open_files(32)
        .run(&["--config", "models.toml"]);
    let errors = String::from_utf8_lossy(&asked.stderr).into_owned();
    let needed = errors
        .split("at least ")
        .nth(1)
        .and_then(|rest| rest.split(':').next()?.parse().ok())
        .unwrap_or_else(|| panic!("no number in {errors:?}"));
    let server = Scenario::new(config).open_files(needed).start();
    let before = server.processes();
    assert_eq!(before.len(), 2);
    // The connection remains open, and a new process can open the files that it needs.
    before[0].signal(Signal::KILL);
    before[0].wait_until_gone();
    server.wait_until_ready();
    server.predict("m", "text", &echoes(["works"])).expect(200);
}

#[test]
fn signals_other_than_termination_are_ignored_by_the_server_and_its_processes() {
    let signals = [
        (Signal::USR1, "SIGUSR1"),
        (Signal::USR2, "SIGUSR2"),
        (Signal::ALARM, "SIGALRM"),
        (Signal::VTALARM, "SIGVTALRM"),
        (Signal::PROF, "SIGPROF"),
        (Signal::IO, "SIGIO"),
        (Signal::XFSZ, "SIGXFSZ"),
    ];
    let server =
        Scenario::new("[[models]]\nname = \"m\"\nplugin = \"misbehave\"\nisolation = \"process\"\n").start();
    let processes = server.processes();
    for (signal, name) in signals {
        server.signal(signal);
        server.wait_for_log(&format!("ignoring {name}"));
        processes[0].signal(signal);
    }
    for signal in [Signal::PIPE, Signal::WINCH, Signal::URG, Signal::CONT] {
        server.signal(signal);
        processes[0].signal(signal);
    }
    server.predict("m", "text", &echoes(["still there"])).expect(200);
    assert_eq!(server.processes(), processes);
    server.shut_down();
}

#[test]
fn a_closed_log_pipe_does_not_terminate_the_server() {
    let scenario = Scenario::new("[[models]]\nname = \"m\"\nplugin = \"misbehave\"\n");
    let mut command = scenario.to_run(&["--config", "models.toml", "--host", "127.0.0.1", "--port", "0"]);
    let mut server = Killed(command.stderr(Stdio::piped()).spawn().expect("it can be started"));
    let mut log = BufReader::new(server.0.stderr.take().expect("it is piped"));
    let mut line = String::new();
    let address = loop {
        line.clear();
        assert_ne!(
            log.read_line(&mut line).expect("the log is text"),
            0,
            "the server has ended"
        );
        if let Some((_, address)) = line.trim().split_once("listening on http://") {
            break address.parse().expect("the log names an address");
        }
    };
    drop(log);
    let client = Client::new(address);
    eventually("the model to be ready", || match client.get("/readyz").status {
        200 => Ok(()),
        status => Err(status),
    });
    client.predict("m", "text", &echoes(["unseen"])).expect(200);
    kill_process(Pid::from_child(&server.0), Signal::TERM).expect("the server lives");
    let code = eventually("the server to end", || {
        server
            .0
            .try_wait()
            .expect("a child can be asked")
            .ok_or("it runs")
    });
    assert_eq!(code.code(), Some(0));
}

#[test]
fn a_server_that_adopts_orphans_reaps_them_and_forwards_signals() {
    let scenario = Scenario::new(
        "[[models]]\nname = \"m\"\nplugin = \"misbehave\"\nisolation = \"process\"\non_crash = \"fail\"\n",
    );
    let mut server = scenario.adopting_orphans().start();
    let config = "[[models]]\nname = \"m\"\nplugin = \"misbehave\"\nisolation = \"process\"\non_crash = \"fail\"\n\
                  [models.settings]\ntag = \"new\"\n";
    for _ in 0..3 {
        // The shell that kills the process outlives it, and becomes a child of the process that adopts orphans.
        server
            .predict("m", "text", &serde_json::json!([{"do": "kill"}]))
            .expect(500);
        server.wait_until_ready();
    }
    let first = server.pid().as_raw_pid();
    eventually("all orphans to be reaped", || match zombies_of(first) {
        zombies if zombies.is_empty() => Ok(()),
        zombies => Err(zombies),
    });
    server.write_config(config);
    assert!(server.reload(), "SIGHUP is passed on");
    assert_eq!(server.predict("m", "text", &echoes([1])).report().tag(), "new");
    server.signal(Signal::TERM);
    assert_eq!(server.wait_for_exit().code(), Some(0));
}

/// Returns the descendants of a process that have exited but have not been reaped.
fn zombies_of(process: i32) -> Vec<i32> {
    let status = |entry: &std::fs::DirEntry| {
        let number: i32 = entry.file_name().to_str()?.parse().ok()?;
        let text = std::fs::read_to_string(entry.path().join("status")).ok()?;
        let field = |name: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(name).map(str::trim).map(str::to_owned))
        };
        Some((
            number,
            field("PPid:")?.parse::<i32>().ok()?,
            field("State:")?.starts_with('Z'),
        ))
    };
    let entries = std::fs::read_dir("/proc").expect("Linux lists its processes");
    let all: Vec<(i32, i32, bool)> = entries.flatten().filter_map(|entry| status(&entry)).collect();
    let children: Vec<i32> = all
        .iter()
        .filter(|(_, parent, _)| *parent == process)
        .map(|(number, ..)| *number)
        .collect();
    let of_these = |parent: &i32| *parent == process || children.contains(parent);
    all.iter()
        .filter(|(_, parent, zombie)| *zombie && of_these(parent))
        .map(|(number, ..)| *number)
        .collect()
}

/// A process that is killed on drop.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
