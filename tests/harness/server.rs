//! A running server.

use std::net::SocketAddr;
use std::ops::Deref;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, ExitStatus};
use std::time::Duration;

use rustix::process::{Pid, kill_process};
use tempfile::TempDir;

use super::client::Client;
use super::eventually::{PATIENCE, eventually, eventually_within};
use super::log::Log;
use super::metrics::Metrics;
use super::raw::Raw;
use super::resources::Resources;
use super::scenario::write_config;

pub(crate) use rustix::process::Signal;

/// A server that a test has started. It is killed and reaped on drop. If the test fails, its log is printed.
///
/// It dereferences to a [`Client`].
pub(crate) struct Server {
    child: Child,
    log: Log,
    dir: TempDir,
    address: SocketAddr,
    client: Client,
}

impl Deref for Server {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Server {
    /// Waits until the log contains the address.
    #[track_caller]
    pub(super) fn listening(mut child: Child, log: Log, dir: TempDir) -> Self {
        // `http` or `https`.
        let line = log.wait_for("listening on http", PATIENCE);
        let address = line
            .as_deref()
            .and_then(|line| line.split("listening on http").nth(1))
            .and_then(|rest| rest.split("://").nth(1))
            .and_then(|rest| {
                rest.split(|c: char| c == '"' || c.is_whitespace())
                    .next()?
                    .parse()
                    .ok()
            });
        let Some(address) = address else {
            let _ = child.kill();
            let status = child.wait();
            panic!(
                "the server does not listen ({status:?}); its log:\n{}",
                log.text()
            );
        };
        Self {
            child,
            log,
            dir,
            address,
            client: Client::new(address),
        }
    }

    /// Waits until `/readyz` succeeds.
    #[track_caller]
    pub(crate) fn wait_until_ready(&self) {
        eventually("the server to be ready", || {
            assert!(
                !self.log.has("not ready: fix the errors"),
                "a model failed to load:\n{}",
                self.log.text()
            );
            // A new client, so that no pooled connection is used while the server closes it.
            let call = self.request("GET", "/readyz").header("connection", "close");
            match call.send() {
                reply if reply.status == 200 => Ok(()),
                reply => Err(reply.text()),
            }
        });
    }

    /// Returns the address for gRPC, which the server logs before that for HTTP.
    #[track_caller]
    pub(crate) fn grpc_address(&self) -> SocketAddr {
        let line = self.wait_for_log("listening for gRPC on ");
        let address = line.rsplit("listening for gRPC on ").next().unwrap_or_default();
        address.trim().parse().expect("an address in the log")
    }

    /// Returns the address of the management port, which the server logs before that for HTTP.
    #[track_caller]
    pub(crate) fn management_address(&self) -> SocketAddr {
        let line = self.wait_for_log("listening for management on http://");
        let address = line.rsplit("http://").next().unwrap_or_default();
        address.trim().parse().expect("an address in the log")
    }

    /// Returns the address for HTTP.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns a client for another thread.
    pub(crate) fn client(&self) -> Client {
        Client::new(self.address)
    }

    /// Opens a raw connection.
    pub(crate) fn connect(&self) -> Raw {
        Raw::connect(self.address)
    }

    /// Returns the directory of the scenario.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Returns the log.
    pub(crate) fn log(&self) -> &Log {
        &self.log
    }

    /// Waits for a line in the log that contains `part`.
    #[track_caller]
    pub(crate) fn wait_for_log(&self, part: &str) -> String {
        self.wait_for_log_after(0, part)
    }

    /// Like [`wait_for_log`](Self::wait_for_log), ignoring the first `seen` lines.
    #[track_caller]
    pub(crate) fn wait_for_log_after(&self, seen: usize, part: &str) -> String {
        self.log
            .wait_for_after(seen, part, PATIENCE)
            .unwrap_or_else(|| panic!("the log does not contain {part:?}:\n{}", self.log.text()))
    }

    /// Returns the current metrics.
    pub(crate) fn metrics(&self) -> Metrics {
        Metrics::parse(&self.get("/metrics").expect(200).text())
    }

    /// Waits until a metric has this value.
    #[track_caller]
    pub(crate) fn wait_for_metric(&self, name: &str, labels: &[(&str, &str)], value: u64) {
        eventually(&format!("{name}{labels:?} to be {value}"), || {
            match self.metrics().count(name, labels) {
                count if count == value => Ok(()),
                count => Err(count),
            }
        });
    }

    /// Returns the document at `/v1/models/NAME`.
    pub(crate) fn model(&self, name: &str) -> serde_json::Value {
        self.get(&format!("/v1/models/{name}")).expect(200).json()
    }

    /// Returns the live generation of a model.
    pub(crate) fn generation(&self, model: &str) -> u64 {
        self.metrics()
            .count("inference_model_generation", &[("model", model)])
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("a running server");
    }

    /// Sends a signal, unless the server has exited.
    pub(crate) fn try_signal(&self, signal: Signal) {
        let _ = kill_process(self.pid(), signal);
    }

    /// Returns the process ID.
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Replaces the configuration file, without a signal to the server.
    pub(crate) fn write_config(&self, config: &str) {
        write_config(self.dir(), config);
    }

    /// Sends SIGHUP and waits for the reload. Returns whether it succeeded.
    #[track_caller]
    pub(crate) fn reload(&self) -> bool {
        let before = Reloads::of(self);
        self.signal(Signal::HUP);
        eventually("a reload to end", || {
            let now = Reloads::of(self);
            match (now.succeeded - before.succeeded, now.failed - before.failed) {
                (0, 0) => Err("it has not"),
                (1, 0) => Ok(true),
                (0, 1) => Ok(false),
                other => panic!("expected one reload after SIGHUP, got {other:?} (succeeded, failed)"),
            }
        })
    }

    /// Returns the resident memory in bytes.
    pub(crate) fn resident_bytes(&self) -> u64 {
        Resources::of(self.child.id()).resident_bytes
    }

    /// Runs `work` and returns by how many bytes the peak of the resident memory exceeded its initial value.
    pub(crate) fn peak_growth(&self, work: impl FnOnce()) -> u64 {
        Resources::peak_growth(self.child.id(), work)
    }

    /// Returns the current resources of the process.
    pub(crate) fn resources(&self) -> Resources {
        Resources::of(self.child.id())
    }

    /// Whether the server is still running.
    pub(crate) fn lives(&mut self) -> bool {
        self.child
            .try_wait()
            .expect("get the status of the child")
            .is_none()
    }

    /// Waits until the server exits.
    #[track_caller]
    pub(crate) fn wait_for_exit(&mut self) -> ExitStatus {
        self.wait_for_exit_within(PATIENCE)
    }

    /// Waits until the server exits and its log is complete, for up to `patience`.
    #[track_caller]
    pub(crate) fn wait_for_exit_within(&mut self, patience: Duration) -> ExitStatus {
        let status = eventually_within(patience, "the server to end", || {
            let status = self.child.try_wait().expect("get the status of the child");
            status.ok_or("it runs")
        });
        // The last lines can still be in the pipe.
        self.log.finish();
        status
    }

    /// Terminates the server and asserts that it exits successfully.
    #[track_caller]
    pub(crate) fn shut_down(mut self) {
        self.signal(Signal::TERM);
        let status = self.wait_for_exit();
        assert_eq!(status.code(), Some(0), "signal {:?}", status.signal());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Fails if the server has already exited.
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.log.finish();
        if std::thread::panicking() {
            eprintln!("--- log of the server\n{}\n--- end of the log", self.log.text());
        }
    }
}

struct Reloads {
    succeeded: u64,
    failed: u64,
}

impl Reloads {
    fn of(server: &Server) -> Self {
        let metrics = server.metrics();
        let count = |result| metrics.count("inference_reloads_total", &[("result", result)]);
        Self {
            succeeded: count("success"),
            failed: count("failure"),
        }
    }
}
