//! The plugin probe: opens a plugin in a child process first. A plugin that crashes, hangs or exits when it is opened
//! terminates the child instead of the server.
//!
//! The child is this same program. It writes one line, `probe-report {…}`, to its original standard output. Whatever the
//! plugin prints goes to standard error. The server kills the child when it has the line, because the plugin's behavior at
//! `exit` does not matter here.

mod child_output;

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::time::Duration;

use plugin_abi::manifest::PluginManifest;
use serde::{Deserialize, Serialize};

use child_output::{ChildOutput, MAX_REPORT_BYTES};

use super::open::{OpenError, OpenedPlugin};
use crate::clock;
use crate::crash::signal_name;
use crate::json;

/// Prefix of the line with the report. The rest of the line is a [`ProbeResult`] as JSON.
const REPORT_PREFIX: &str = "probe-report ";
/// How often to check whether the child has exited, in case another process holds its output open.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Why the probe failed, unless the plugin reported the reason itself.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The child could not be started.
    #[error("cannot start {} to probe the library", .executable.display())]
    Spawn {
        /// The program to start.
        executable: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The child could not be monitored.
    #[error("cannot monitor the plugin probe")]
    Watch(#[source] io::Error),
    /// The child crashed when it opened the library.
    #[error("opening the library crashed the probe process: {name}{stderr}")]
    Crash {
        /// Name and number of the signal.
        name: String,
        /// The last output of the child. Starts with `; `, or is empty.
        stderr: String,
    },
    /// The child exited when it opened the library.
    #[error(
        "the probe process exited with code {code} while it opened the library; a constructor may call exit{stderr}"
    )]
    Exit {
        /// Exit code.
        code: i32,
        /// The last output of the child. Starts with `; `, or is empty.
        stderr: String,
    },
    /// Opening the library timed out.
    #[error("opening the library took longer than {} s{stderr}", .limit.as_secs_f64())]
    Timeout {
        /// The timeout.
        limit: Duration,
        /// The last output of the child. Starts with `; `, or is empty.
        stderr: String,
    },
    /// The child's report cannot be parsed.
    #[error("the plugin probe returned an invalid report: {0}")]
    InvalidReport(String),
    /// The plugin cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
}

/// What the probe found out about a plugin.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProbeReport {
    /// The plugin's manifest.
    pub manifest: PluginManifest,
    /// ABI version that the plugin was built for.
    pub abi_version: String,
}

/// The hidden command of this program that calls [`run_probe`]. The file follows it.
pub const PROBE_COMMAND: &str = "probe-plugin";

/// How to start the child: `executable arguments… options… FILE` must call [`run_probe`] with that file.
#[derive(Clone, Debug)]
pub struct ProbeProgram {
    /// The program, usually this one.
    pub executable: PathBuf,
    /// The arguments before the options and the file.
    pub arguments: Vec<String>,
}

impl ProbeProgram {
    /// This program with [`PROBE_COMMAND`]. Works even if an upgrade has replaced its file.
    pub fn this_server() -> Self {
        Self {
            executable: "/proc/self/exe".into(),
            arguments: vec![PROBE_COMMAND.to_owned()],
        }
    }
}

/// The child's message: the report, or why the library cannot be opened.
type ProbeResult = Result<ProbeReport, OpenError>;

/// The child's side: confines the process with `confine`, opens `file` and writes the report. The process must not be used
/// for anything else afterwards.
pub fn run_probe(file: &Path, confine: impl FnOnce() -> Result<(), String>) -> ExitCode {
    restrict_this_process();
    let mut output = match take_stdout() {
        Ok(output) => output,
        Err(error) => {
            log::error!("cannot redirect standard output: {error}");
            return ExitCode::FAILURE;
        }
    };
    let open = || {
        confine().map_err(OpenError::Confine)?;
        let plugin = OpenedPlugin::open(file)?;
        Ok(ProbeReport {
            manifest: plugin.describe()?,
            abi_version: plugin.abi_version().to_owned(),
        })
    };
    let report: ProbeResult = open();
    let written = serde_json::to_string(&report)
        .map_err(io::Error::from)
        .and_then(|report| writeln!(output, "{REPORT_PREFIX}{report}"));
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Disables core dumps, since a crash is expected here, and ties the process to the server's lifetime. Both are best effort.
fn restrict_this_process() {
    use rustix::process::{Resource, Rlimit, Signal, set_parent_process_death_signal, setrlimit};
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    let _ = setrlimit(Resource::Core, none);
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
}

/// Returns the original standard output and redirects standard output to standard error.
fn take_stdout() -> io::Result<std::fs::File> {
    let output = io::stdout().as_fd().try_clone_to_owned()?;
    rustix::stdio::dup2_stdout(io::stderr().as_fd())?;
    Ok(std::fs::File::from(output))
}

/// The server's side: opens `file` in a child process, for at most `timeout`. `options` are passed to the program. The child
/// has exited when this returns.
pub fn probe_library(
    program: &ProbeProgram,
    options: &[String],
    file: &Path,
    timeout: Duration,
) -> Result<ProbeReport, ProbeError> {
    let mut command = Command::new(&program.executable);
    command.args(&program.arguments).args(options).arg(file);
    run_child(command, timeout)
}

fn run_child(mut command: Command, timeout: Duration) -> Result<ProbeReport, ProbeError> {
    let deadline = clock::now() + timeout;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map(KillOnDrop)
        .map_err(|source| ProbeError::Spawn {
            executable: command.get_program().into(),
            source,
        })?;
    let mut child_output = ChildOutput::of(&mut child.0);
    let status = loop {
        let left = deadline.saturating_duration_since(clock::now());
        child_output
            .read(left.min(POLL_INTERVAL))
            .map_err(ProbeError::Watch)?;
        if let Some(report) = child_output.report_line() {
            return parse_report(report);
        }
        if child_output.is_too_long() {
            return Err(ProbeError::InvalidReport(format!(
                "more than {MAX_REPORT_BYTES} bytes"
            )));
        }
        if let Some(status) = child.0.try_wait().map_err(ProbeError::Watch)? {
            break status;
        }
        if left.is_zero() {
            return Err(ProbeError::Timeout {
                limit: timeout,
                stderr: child_output.stderr_tail(),
            });
        }
    };
    // The pipes, which hold 64 KiB, may still contain output from before the exit. This does not wait for more.
    for _ in 0..32 {
        child_output.read(Duration::ZERO).map_err(ProbeError::Watch)?;
    }
    match child_output.report_line() {
        Some(report) => parse_report(report),
        None => Err(failure(status, &child_output)),
    }
}

fn parse_report(line: &[u8]) -> Result<ProbeReport, ProbeError> {
    let report: ProbeResult =
        json::from_slice(line).map_err(|error| ProbeError::InvalidReport(error.to_string()))?;
    if let Err(OpenError::Layout { mismatches, .. }) = &report {
        log::debug!("the plugin's types differ from the server's: {mismatches}");
    }
    Ok(report?)
}

/// The error for a child that exited without a report.
fn failure(status: ExitStatus, child_output: &ChildOutput) -> ProbeError {
    let stderr = child_output.stderr_tail();
    match (status.signal(), status.code()) {
        (Some(signal), _) => ProbeError::Crash {
            name: signal_name(signal),
            stderr,
        },
        (None, code) => ProbeError::Exit {
            code: code.unwrap_or(-1),
            stderr,
        },
    }
}

/// Kills and reaps the child on every path.
struct KillOnDrop(Child);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        // Neither call affects a child that has been reaped.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::child_output::MAX_STDERR_BYTES;
    use super::*;

    fn probe_script(script: &str, timeout: Duration) -> Result<ProbeReport, ProbeError> {
        let mut command = Command::new("sh");
        command.arg("-c").arg(script);
        run_child(command, timeout)
    }

    #[test]
    fn every_way_in_which_the_child_exits_has_its_own_error() {
        let cases = [
            (
                "kill -SEGV $$",
                "opening the library crashed the probe process: segmentation fault (SIGSEGV)",
            ),
            (
                "echo stack smashed >&2; kill -ABRT $$",
                "opening the library crashed the probe process: abort (SIGABRT); it printed: stack smashed",
            ),
            (
                "exit 0",
                "the probe process exited with code 0 while it opened the library; a constructor may call exit",
            ),
            (
                "exit 3",
                "the probe process exited with code 3 while it opened the library; a constructor may call exit",
            ),
            (
                "echo hello; exit 2",
                "the probe process exited with code 2 while it opened the library; a constructor may call exit",
            ),
            (
                "echo probe-report 1",
                "the plugin probe returned an invalid report: expected a JSON value at line 1 column 1",
            ),
            (
                r#"echo 'probe-report {"Err":{"initialize":"no license"}}'"#,
                "the plugin failed to initialize: no license",
            ),
        ];
        for (script, expected) in cases {
            let error = probe_script(script, Duration::from_secs(20)).expect_err(script);
            assert_eq!(error.to_string(), expected, "{script}");
        }
    }

    #[test]
    fn a_child_that_hangs_is_killed_after_the_timeout() {
        let error = probe_script("exec sleep 1000", Duration::from_millis(50)).expect_err("it hangs");
        assert_eq!(error.to_string(), "opening the library took longer than 0.05 s");
    }

    #[test]
    fn a_grandchild_that_holds_the_output_open_does_not_delay_the_error() {
        let error = probe_script("sleep 5 & exit 4", Duration::from_secs(4)).expect_err("no report");
        assert!(matches!(error, ProbeError::Exit { code: 4, .. }), "{error}");
    }

    #[test]
    fn a_report_is_valid_whatever_the_child_does_afterwards() {
        let report: ProbeResult = Ok(ProbeReport {
            manifest: PluginManifest {
                name: "echo".to_owned(),
                ..PluginManifest::default()
            },
            abi_version: "1.0.0".to_owned(),
        });
        let report = serde_json::to_string(&report).expect("a report is JSON");
        let script = format!("echo noise; echo '{REPORT_PREFIX}{report}'; exec sleep 1000");
        let report = probe_script(&script, Duration::from_secs(20)).expect("a report");
        assert_eq!(report.manifest.name, "echo");
    }

    #[test]
    fn endless_output_is_discarded() {
        let error = probe_script("exec yes", Duration::from_secs(20)).expect_err("no report");
        assert!(matches!(error, ProbeError::InvalidReport(_)), "{error}");
        let error = probe_script("exec yes >&2", Duration::from_millis(100)).expect_err("no report");
        assert!(matches!(error, ProbeError::Timeout { .. }), "{error}");
        assert!(error.to_string().len() < 2 * MAX_STDERR_BYTES, "{error}");
    }

    #[test]
    fn the_error_about_a_missing_program_names_it() {
        let program = ProbeProgram {
            executable: "/nonexistent/server".into(),
            arguments: Vec::new(),
        };
        let error =
            probe_library(&program, &[], Path::new("x.so"), Duration::from_secs(1)).expect_err("no program");
        assert_eq!(
            error.to_string(),
            "cannot start /nonexistent/server to probe the library"
        );
    }
}
