//! The protocol of systemd: notifications, the watchdog, sockets, and the format of the journal. The tests take the part of the
//! service manager.

use std::fs::File;
use std::net::TcpListener;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::harness::client::Client;
use crate::harness::eventually::PATIENCE;
use crate::harness::{Scenario, Server, Signal, eventually};

/// The socket for notifications.
struct Notifications {
    socket: UnixDatagram,
    path: PathBuf,
    _dir: TempDir,
}

impl Notifications {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("create a temporary directory");
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("bind a socket");
        socket.set_read_timeout(Some(PATIENCE)).expect("set a timeout");
        Self {
            socket,
            path,
            _dir: dir,
        }
    }

    fn start(&self, scenario: Scenario) -> Server {
        scenario
            .env("NOTIFY_SOCKET", &self.path.to_string_lossy())
            .start()
    }

    /// Returns the next notification: its lines.
    fn next(&self) -> Vec<String> {
        let mut bytes = [0; 4096];
        let length = self.socket.recv(&mut bytes).expect("a notification");
        let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
        text.lines().map(str::to_owned).collect()
    }

    /// Like [`next`](Self::next), but skips signs of life.
    fn next_state(&self) -> Vec<String> {
        loop {
            match self.next() {
                alive if alive == ["WATCHDOG=1"] => {}
                state => return state,
            }
        }
    }
}

fn scenario() -> Scenario {
    Scenario::new("[[models]]\nname = \"m\"\nplugin = \"template\"\n")
}

#[test]
fn the_server_reports_that_it_is_ready_reloading_and_stopping() {
    let notifications = Notifications::new();
    let mut server = notifications.start(scenario());
    assert_eq!(notifications.next(), ["READY=1", "STATUS=1 of 1 models ready"]);

    server.signal(Signal::HUP);
    let reloading = notifications.next();
    assert_eq!(
        (reloading.len(), reloading[0].as_str()),
        (3, "RELOADING=1"),
        "{reloading:?}"
    );
    let time = reloading[1]
        .strip_prefix("MONOTONIC_USEC=")
        .expect("the time of the clock");
    assert!(time.parse::<u64>().expect("a number") > 0);
    assert_eq!(reloading[2], "STATUS=reloading");
    assert_eq!(notifications.next(), ["READY=1", "STATUS=1 of 1 models ready"]);

    server.write_config("no configuration");
    server.signal(Signal::HUP);
    assert_eq!(notifications.next()[0], "RELOADING=1");
    let failed = notifications.next();
    assert_eq!(failed[0], "READY=1");
    assert!(
        failed[1].starts_with("STATUS=1 of 1 models ready; the last reload failed: "),
        "{failed:?}"
    );

    server.signal(Signal::TERM);
    assert_eq!(
        notifications.next(),
        ["STOPPING=1", "STATUS=finishing accepted requests"]
    );
    assert_eq!(server.wait_for_exit().code(), Some(0));
}

#[test]
fn a_server_whose_model_cannot_be_loaded_has_started_and_its_status_says_so() {
    let notifications = Notifications::new();
    let broken = Scenario::misbehave("on_load = \"error\"", "");
    let _server = broken
        .env("NOTIFY_SOCKET", &notifications.path.to_string_lossy())
        .start_unready();
    assert_eq!(notifications.next(), ["READY=1", "STATUS=0 of 1 models ready"]);
}

/// Starts the server in a shell that sets the variables which contain its process ID.
fn start_with_pid(scenario: &Scenario, variables: &str, stderr: Stdio) -> std::process::Child {
    let mut server = scenario.to_run(&["--config", "models.toml", "--host", "127.0.0.1", "--port", "0"]);
    server.arg("--scratch-dir").arg(scenario.dir());
    let mut shell = Command::new("bash");
    shell
        .args(["-c", &format!("{variables} exec \"$0\" \"$@\"")])
        .arg(server.get_program())
        .args(server.get_args())
        .current_dir(scenario.dir())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(stderr);
    for (name, value) in server.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    shell.spawn().expect("start the server")
}

/// Kills the process on drop.
struct Killed(std::process::Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // Fails if the process has already exited.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_watchdog_is_fed_while_event_loops_react_and_not_while_the_process_is_stopped() {
    let notifications = Notifications::new();
    let path = notifications.path.to_string_lossy().into_owned();
    let scenario = scenario().env("NOTIFY_SOCKET", &path);
    let variables = "WATCHDOG_USEC=400000 WATCHDOG_PID=$$";
    let server = Killed(start_with_pid(&scenario, variables, Stdio::null()));
    assert_eq!(notifications.next_state()[0], "READY=1");
    for _ in 0..5 {
        assert_eq!(notifications.next(), ["WATCHDOG=1"]);
    }
    let pid = rustix::process::Pid::from_child(&server.0);
    rustix::process::kill_process(pid, Signal::STOP).expect("it runs");
    let stopped = format!("/proc/{}/stat", server.0.id());
    eventually("the process to be stopped", || {
        let stat = std::fs::read_to_string(&stopped).expect("it exists");
        match stat.rsplit(") ").next().map(|rest| rest.starts_with('T')) {
            Some(true) => Ok(()),
            _ => Err(stat),
        }
    });
    // Takes what was sent before. From then on, silence.
    let short = Duration::from_millis(500);
    notifications
        .socket
        .set_read_timeout(Some(short))
        .expect("set a timeout");
    let mut bytes = [0; 64];
    while notifications.socket.recv(&mut bytes).is_ok() {}
    assert!(notifications.socket.recv(&mut bytes).is_err());
    notifications
        .socket
        .set_read_timeout(Some(PATIENCE))
        .expect("set a timeout");
    rustix::process::kill_process(pid, Signal::CONT).expect("it exists");
    assert_eq!(notifications.next(), ["WATCHDOG=1"]);
}

#[test]
fn the_watchdog_and_the_sockets_of_another_process_are_ignored() {
    let notifications = Notifications::new();
    let mut server = notifications.start(scenario().env("WATCHDOG_USEC", "1000").env("WATCHDOG_PID", "1"));
    assert_eq!(notifications.next()[0], "READY=1");
    server.signal(Signal::TERM);
    assert_eq!(notifications.next()[0], "STOPPING=1");
    server.wait_for_exit();
}

/// Starts the server with these sockets, which have these names. Its standard error goes to the file `log` in the directory.
fn start_with_sockets(scenario: &Scenario, sockets: &[&TcpListener], names: &str) -> Killed {
    // The first descriptor is 3. The sockets are duplicated to high numbers first, so that none is overwritten.
    let (mut up, mut down) = (String::new(), String::new());
    for (index, socket) in sockets.iter().enumerate() {
        let high = 100 + index;
        up.push_str(&format!("{high}<&{} ", socket.as_raw_fd()));
        down.push_str(&format!("{}<&{high} {high}<&- ", 3 + index));
    }
    let variables = format!(
        "exec {up}; exec {down}; LISTEN_PID=$$ LISTEN_FDS={} LISTEN_FDNAMES={names}",
        sockets.len()
    );
    let log = File::create(scenario.dir().join("log")).expect("create a file");
    for socket in sockets {
        rustix::io::fcntl_setfd(socket, rustix::io::FdFlags::empty()).expect("set a flag");
    }
    Killed(start_with_pid(scenario, &variables, log.into()))
}

fn log_of(scenario: &Scenario) -> String {
    std::fs::read_to_string(scenario.dir().join("log")).expect("read the log")
}

#[test]
fn sockets_of_the_service_manager_are_used_instead_of_the_configured_ports() {
    let [http, grpc] = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a port is free"));
    let address = http.local_addr().expect("it listens");
    let grpc_address = grpc.local_addr().expect("it listens");
    // A connection that is made before the server starts is answered as soon as it runs.
    let early = Client::new(address).in_background(|client| client.request("GET", "/livez").try_send());
    let scenario = scenario();
    let mut server = start_with_sockets(&scenario, &[&grpc, &http], "grpc:http");
    early.reply().expect(200);
    let log = log_of(&scenario);
    assert!(log.contains(&format!("listening on http://{address}")), "{log}");
    assert!(
        log.contains(&format!("listening for gRPC on {grpc_address}")),
        "{log}"
    );

    // The sockets stay open while the server restarts.
    let pid = rustix::process::Pid::from_child(&server.0);
    rustix::process::kill_process(pid, Signal::TERM).expect("it runs");
    assert_eq!(server.0.wait().expect("it exits").code(), Some(0));
    let waiting = Client::new(address).in_background(|client| client.request("GET", "/livez").try_send());
    let _server = start_with_sockets(&scenario, &[&grpc, &http], "grpc:http");
    waiting.reply().expect(200);
}

#[test]
fn a_socket_that_the_server_cannot_use_is_an_error() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let scenario = scenario();
    let mut server = start_with_sockets(&scenario, &[&listener], "htp");
    assert_eq!(server.0.wait().expect("it exits").code(), Some(1));
    let log = log_of(&scenario);
    let expected = "cannot use the sockets that the service manager passed: unknown socket name `htp`: expected `http` or \
                    `grpc` in `FileDescriptorName=`\n";
    assert_eq!(log, expected);
}

#[test]
fn the_log_for_the_journal_has_priorities_and_no_times() {
    let scenario = scenario();
    let file = File::create(scenario.dir().join("journal")).expect("create a file");
    let metadata = file.metadata().expect("get its inode");
    let journal = format!("{}:{}", metadata.dev(), metadata.ino());
    let scenario = scenario.env("JOURNAL_STREAM", &journal);
    let mut command = scenario.to_run(&["--config", "models.toml", "--host", "127.0.0.1", "--port", "0"]);
    command.arg("--scratch-dir").arg(scenario.dir()).process_group(0);
    let child = command.stdout(Stdio::null()).stderr(file).spawn();
    let _server = Killed(child.expect("start the server"));
    let read = || std::fs::read_to_string(scenario.dir().join("journal")).expect("read the log");
    eventually("the server to be ready", || match read() {
        log if log.contains("ready after ") => Ok(()),
        log => Err(log),
    });
    for line in read().lines() {
        let text = line.strip_prefix("<6>").expect("the priority");
        assert!(text.starts_with(char::is_alphabetic), "{line}");
    }
}

#[test]
fn a_log_that_goes_elsewhere_than_to_the_journal_has_times() {
    // The variable is inherited, and standard error is redirected.
    let server = scenario().env("JOURNAL_STREAM", "1:1").start();
    for line in server.log().lines() {
        assert!(line.starts_with('['), "{line}");
    }
}
