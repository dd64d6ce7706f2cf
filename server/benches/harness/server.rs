//! The server under test: a child process with its log on a pipe, and its statistics from `/proc`.

use std::error::Error;
use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use inference_server::clock;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::load;

/// A running server that is ready. If it is dropped without [`stop`](Self::stop), it is killed.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) management_address: Option<SocketAddr>,
    /// Time from its start to the log line that reports that it is ready.
    pub(crate) start_to_ready: Duration,
    child: Child,
    log: Option<JoinHandle<()>>,
    directory: TempDir,
}

impl Server {
    /// Starts the server with these models and waits until it is ready.
    pub(crate) fn start(models: &str) -> Result<Self, Box<dyn Error>> {
        Self::start_with("", models)
    }

    /// Like `start`, with an additional line in `[server]`.
    pub(crate) fn start_with(line: &str, models: &str) -> Result<Self, Box<dyn Error>> {
        let directory = tempfile::tempdir()?;
        let config = directory.path().join("models.toml");
        std::fs::write(&config, configuration(line, models))?;
        let mut command = Command::new(binary());
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("INFERENCE_") {
                command.env_remove(name);
            }
        }
        let begin = clock::now();
        let mut child = command
            .arg("--config")
            .arg(&config)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let (lines, log) = read_lines(child.stderr.take().ok_or("the child has no standard error")?);
        // From here on, the child is killed when this value is dropped.
        let mut server = Self {
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            management_address: None,
            start_to_ready: Duration::ZERO,
            child,
            log: Some(log),
            directory,
        };
        let mut seen = String::new();
        loop {
            let line = lines
                .recv_timeout(Duration::from_secs(60))
                .map_err(|_| format!("the server did not become ready:\n{seen}"))?;
            let listening = ["listening on http://", "listening on https://"];
            if let Some((_, address)) = listening.iter().find_map(|start| line.split_once(start)) {
                server.address = address.trim().parse()?;
            } else if let Some((_, address)) = line.split_once("listening for management on http://") {
                server.management_address = Some(address.trim().parse()?);
            } else if line.contains("ready after") {
                server.start_to_ready = begin.elapsed();
                break;
            } else if line.contains(" ERROR ") {
                return Err(line.into());
            }
            seen.push_str(&line);
            seen.push('\n');
        }
        // Without TLS, if there is such a port.
        let address = server.management_address.unwrap_or(server.address);
        let readiness = load::once(address, "/readyz")?;
        if !readiness.starts_with("HTTP/1.1 200 ") {
            return Err(
                format!("the server logged that it is ready, but /readyz returned: {readiness}").into(),
            );
        }
        Ok(server)
    }

    /// Reloads the server with these models. Does not wait for the reload.
    pub(crate) fn reload(&self, models: &str) -> io::Result<()> {
        let written = self.directory.path().join("models.toml.new");
        std::fs::write(&written, configuration("", models))?;
        // Atomic: the server never reads a partial file.
        std::fs::rename(written, self.directory.path().join("models.toml"))?;
        Ok(kill_process(Pid::from_child(&self.child), Signal::HUP)?)
    }

    /// Number of successful reloads.
    pub(crate) fn reloads(&self) -> Result<usize, Box<dyn Error>> {
        let series = "inference_reloads_total{result=\"success\"}";
        let reloads = self.counter(series)?;
        reloads.ok_or_else(|| format!("/metrics has no `{series}`").into())
    }

    /// Number of spans that were dropped. The metric is absent as long as there are none.
    pub(crate) fn dropped_spans(&self) -> Result<usize, Box<dyn Error>> {
        let dropped = self.counter("inference_trace_spans_dropped_total")?;
        Ok(dropped.unwrap_or(0))
    }

    /// The value of a counter; `None` if there is no such series.
    fn counter(&self, series: &str) -> Result<Option<usize>, Box<dyn Error>> {
        let metrics = load::once(self.address, "/metrics")?;
        let value = metrics
            .lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        Ok(value.map(str::parse).transpose()?)
    }

    /// CPU time of all threads since the start.
    pub(crate) fn cpu_time(&self) -> Result<Duration, Box<dyn Error>> {
        cpu_time_of(self.child.id())
    }

    /// CPU time of the threads with these names since the start.
    pub(crate) fn cpu_time_of_threads(
        &self,
        is_counted: impl Fn(&str) -> bool,
    ) -> Result<Duration, Box<dyn Error>> {
        cpu_time_of_threads(self.child.id(), is_counted)
    }

    /// CPU time, including that of all child processes that have exited.
    pub(crate) fn cpu_time_with_children(&self) -> Result<Duration, Box<dyn Error>> {
        self.sum_of_times(&["utime", "stime", "cutime", "cstime"])
    }

    /// The sum of the first fields among `utime`, `stime`, `cutime` and `cstime` of `/proc/PID/stat`.
    fn sum_of_times(&self, fields: &[&'static str]) -> Result<Duration, Box<dyn Error>> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // The name in parentheses can contain spaces. The times are fields 14 to 17, counted from 1.
        let (_, stat) = stat.rsplit_once(')').ok_or("/proc/PID/stat has no name")?;
        let mut times = stat.split_ascii_whitespace().skip(11);
        let mut ticks = 0;
        for field in fields {
            ticks += times.next().ok_or(*field)?.parse::<u64>()?;
        }
        Ok(TICK * u32::try_from(ticks)?)
    }

    /// Resident memory.
    pub(crate) fn resident_bytes(&self) -> Result<u64, Box<dyn Error>> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let kilobytes: u64 = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"))
            .ok_or("/proc/PID/status has no VmRSS")?
            .parse()?;
        Ok(kilobytes * 1024)
    }

    /// Shuts the server down with SIGTERM.
    pub(crate) fn stop(mut self) -> Result<(), Box<dyn Error>> {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::TERM)?;
        let status = self.child.wait()?;
        if !status.success() {
            return Err(format!("the server exited with {status}").into());
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // After `stop`, the process has exited, and killing it fails, which is ignored.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(log) = self.log.take() {
            let _ = log.join();
        }
    }
}

/// CPU time of all threads of a process that have not exited, to the nanosecond.
pub(crate) fn cpu_time_of(pid: u32) -> Result<Duration, Box<dyn Error>> {
    cpu_time_of_threads(pid, |_| true)
}

/// CPU time of the threads of a process with these names.
fn cpu_time_of_threads(pid: u32, is_counted: impl Fn(&str) -> bool) -> Result<Duration, Box<dyn Error>> {
    let mut nanoseconds = 0;
    for thread in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let thread = thread?.path();
        // A thread may exit meanwhile.
        if let Ok(name) = std::fs::read_to_string(thread.join("comm"))
            && is_counted(name.trim_end())
            && let Ok(times) = std::fs::read_to_string(thread.join("schedstat"))
        {
            let running = times.split_ascii_whitespace().next();
            nanoseconds += running
                .ok_or("`schedstat` of a thread is empty")?
                .parse::<u64>()?;
        }
    }
    Ok(Duration::from_nanos(nanoseconds))
}

fn configuration(line: &str, models: &str) -> String {
    format!("[server]\nhost = \"127.0.0.1\"\nport = 0\n{line}\n[logging]\naccess_log = false\n{models}")
}

/// A tick of `/proc/PID/stat`: Linux reports 100 per second to user space.
const TICK: Duration = Duration::from_millis(10);

/// Reads the log until it ends, so that the server never blocks on a full pipe.
fn read_lines(log: ChildStderr) -> (Receiver<String>, JoinHandle<()>) {
    let (lines, receiver) = channel();
    let reader = thread::spawn(move || {
        for line in BufReader::new(log).lines().map_while(Result::ok) {
            // Once the server is ready, the receiver is dropped.
            let _ = lines.send(line);
        }
    });
    (receiver, reader)
}

/// The executable that cargo built for this benchmark.
pub(crate) fn binary() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_inference-server"))
}

/// The file of a plugin, in the directory of the executable.
pub(crate) fn plugin(name: &str) -> PathBuf {
    binary().with_file_name(format!("lib{name}.so"))
}

/// Size of a file without symbols, or its full size if `strip` is not installed.
pub(crate) fn stripped_bytes(file: &Path) -> Result<u64, Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let copy = directory.path().join("stripped");
    let stripped = Command::new("strip").arg("-o").arg(&copy).arg(file).status();
    let measured = if stripped.is_ok_and(|status| status.success()) {
        &copy
    } else {
        file
    };
    Ok(std::fs::metadata(measured)
        .map_err(|error| {
            format!(
                "{}: {error}; build it with `cargo build --release --workspace`",
                file.display()
            )
        })?
        .len())
}
