//! The trial: a plugin is opened in a child process first, so that one that crashes, hangs or exits on opening takes the
//! child with it and not the server.
//!
//! The child is this same program. It writes one line, `trial-report {…}`, to what was its standard output; whatever the
//! plugin prints goes to standard error. The server ends the child as soon as it has the line: how a plugin behaves at
//! `exit` is of no interest here.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::time::Duration;

use plugin_abi::manifest::PluginManifest;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::{Deserialize, Serialize};

use super::open::{OpenError, OpenedPlugin};
use crate::clock;
use crate::crash::signal_name;
use crate::json;

/// What the child's line starts with; the rest is a [`Report`] as JSON.
const MARK: &str = "trial-report ";
/// Most bytes of a report: a manifest with its schemas.
const MOST_REPORT: usize = 4 << 20;
/// Most bytes kept of what the child printed.
const MOST_STDERR: usize = 2 << 10;
/// How often to look whether the child has ended, should something else hold its outputs open.
const TICK: Duration = Duration::from_millis(10);

/// Why the trial failed, where the plugin itself could not say.
#[derive(Debug, thiserror::Error)]
pub enum TrialError {
    /// The child could not be started.
    #[error("cannot start {} to try the library in", .executable.display())]
    Spawn {
        /// This program.
        executable: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The child could not be watched.
    #[error("cannot watch the process that tries the library")]
    Watch(#[source] io::Error),
    /// Opening it crashed the child.
    #[error("opening the library crashes the process: {name}{stderr}")]
    Crash {
        /// Name and number of the signal.
        name: String,
        /// What the child printed last: starts with `; ` or is empty.
        stderr: String,
    },
    /// Opening it ended the child.
    #[error("opening the library ends the process with code {code}; does a constructor call exit?{stderr}")]
    Exit {
        /// Exit code.
        code: i32,
        /// What the child printed last: starts with `; ` or is empty.
        stderr: String,
    },
    /// Opening it takes too long.
    #[error("opening the library takes more than {} s{stderr}", .limit.as_secs_f64())]
    Timeout {
        /// The time it had.
        limit: Duration,
        /// What the child printed last: starts with `; ` or is empty.
        stderr: String,
    },
    /// The report is no report.
    #[error("the process that tried the library reports nonsense: {0}")]
    Garbage(String),
    /// The plugin cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
}

/// What a trial tells.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// What the plugin says of itself.
    pub manifest: PluginManifest,
    /// Version of the plugin ABI that it was built for.
    pub abi_version: String,
}

/// The hidden command of this program that calls [`run_trial`] with the file that follows.
pub const TRIAL_COMMAND: &str = "trial-load";

/// How to start the child: `executable arguments… options… FILE` has to call [`run_trial`] with that file.
#[derive(Clone, Debug)]
pub struct TrialProgram {
    /// The program, as a rule this one.
    pub executable: PathBuf,
    /// What precedes the file.
    pub arguments: Vec<String>,
}

impl TrialProgram {
    /// This program, started with [`TRIAL_COMMAND`]. Also after its file was replaced by an upgrade.
    pub fn this_server() -> Self {
        Self {
            executable: "/proc/self/exe".into(),
            arguments: vec![TRIAL_COMMAND.to_owned()],
        }
    }
}

/// What the child says: the trial, or why it failed.
type Report = Result<Trial, OpenError>;

/// The child's side: confines itself with `confine`, opens `file` and reports. The process is of no use for anything else
/// afterwards.
pub fn run_trial(file: &Path, confine: impl FnOnce() -> Result<(), String>) -> ExitCode {
    restrict_this_process();
    let mut output = match take_stdout() {
        Ok(output) => output,
        Err(error) => {
            log::error!("cannot take the standard output: {error}");
            return ExitCode::FAILURE;
        }
    };
    let open = || {
        confine().map_err(OpenError::Confine)?;
        let plugin = OpenedPlugin::open(file)?;
        Ok(Trial {
            manifest: plugin.describe()?,
            abi_version: plugin.abi_version().to_owned(),
        })
    };
    let report: Report = open();
    let written = serde_json::to_string(&report)
        .map_err(io::Error::from)
        .and_then(|report| writeln!(output, "{MARK}{report}"));
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// No core dump of a crash that is expected, and no life beyond the server's. Neither is worth failing for.
fn restrict_this_process() {
    use rustix::process::{Resource, Rlimit, Signal, set_parent_process_death_signal, setrlimit};
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    let _ = setrlimit(Resource::Core, none);
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
}

/// The standard output, which from now on leads to standard error for everybody else.
fn take_stdout() -> io::Result<std::fs::File> {
    let output = io::stdout().as_fd().try_clone_to_owned()?;
    rustix::stdio::dup2_stdout(io::stderr().as_fd())?;
    Ok(std::fs::File::from(output))
}

/// The server's side: tries `file` in a child process, for at most `timeout`. What else the child is to know is in `options`.
/// Leaves no process behind.
pub fn trial_load(
    program: &TrialProgram,
    options: &[String],
    file: &Path,
    timeout: Duration,
) -> Result<Trial, TrialError> {
    let mut command = Command::new(&program.executable);
    command.args(&program.arguments).args(options).arg(file);
    try_with(command, timeout)
}

fn try_with(mut command: Command, timeout: Duration) -> Result<Trial, TrialError> {
    let deadline = clock::now() + timeout;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map(Reaped)
        .map_err(|source| TrialError::Spawn {
            executable: command.get_program().into(),
            source,
        })?;
    let mut outputs = Outputs {
        report: Output::new(child.0.stdout.take()),
        searched: 0,
        chatter: Output::new(child.0.stderr.take()),
    };
    let status = loop {
        let left = deadline.saturating_duration_since(clock::now());
        outputs.read(left.min(TICK)).map_err(TrialError::Watch)?;
        if let Some(report) = outputs.report_line() {
            return parse_report(report);
        }
        if outputs.report.kept.len() > MOST_REPORT {
            return Err(TrialError::Garbage(format!("more than {MOST_REPORT} bytes")));
        }
        if let Some(status) = child.0.try_wait().map_err(TrialError::Watch)? {
            break status;
        }
        if left.is_zero() {
            return Err(TrialError::Timeout {
                limit: timeout,
                stderr: outputs.last_words(),
            });
        }
    };
    // What the child wrote before it ended is in the pipes, which hold 64 KiB; nobody is waited for any more.
    for _ in 0..32 {
        outputs.read(Duration::ZERO).map_err(TrialError::Watch)?;
    }
    match outputs.report_line() {
        Some(report) => parse_report(report),
        None => Err(failure(status, &outputs)),
    }
}

fn parse_report(line: &[u8]) -> Result<Trial, TrialError> {
    let report: Report = json::from_slice(line).map_err(|error| TrialError::Garbage(error.to_string()))?;
    if let Err(OpenError::Layout { mismatches, .. }) = &report {
        log::debug!("the plugin's types differ from the server's: {mismatches}");
    }
    Ok(report?)
}

/// What it means that the child ended without a report.
fn failure(status: ExitStatus, outputs: &Outputs) -> TrialError {
    let stderr = outputs.last_words();
    match (status.signal(), status.code()) {
        (Some(signal), _) => TrialError::Crash {
            name: signal_name(signal),
            stderr,
        },
        (None, code) => TrialError::Exit {
            code: code.unwrap_or(-1),
            stderr,
        },
    }
}

/// Ends and reaps the child, whichever way its trial is left.
struct Reaped(Child);

impl Drop for Reaped {
    fn drop(&mut self) {
        // Both do nothing for a child that has been waited for.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The child's two outputs.
struct Outputs {
    report: Output<std::process::ChildStdout>,
    /// Where the first line of it starts that is not known to be noise.
    searched: usize,
    chatter: Output<std::process::ChildStderr>,
}

impl Outputs {
    /// Reads what there is; waits for at most `patience` if there is nothing.
    fn read(&mut self, patience: Duration) -> io::Result<()> {
        let ready = {
            let mut polled: Vec<PollFd<'_>> = [self.report.fd(), self.chatter.fd()]
                .into_iter()
                .flatten()
                .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
                .collect();
            // With both closed, all there is to wait for is the end of the process.
            let patience = if polled.is_empty() {
                patience.min(Duration::from_millis(1))
            } else {
                patience
            };
            let timeout = Timespec {
                tv_sec: 0,
                tv_nsec: patience.subsec_nanos().into(),
            };
            match poll(&mut polled, Some(&timeout)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let mut ready = polled.iter().map(|fd| !fd.revents().is_empty());
            let mut next = |open: bool| open && ready.next().unwrap_or(false);
            [
                next(self.report.fd().is_some()),
                next(self.chatter.fd().is_some()),
            ]
        };
        if ready[0] {
            self.report.read_once()?;
        }
        if ready[1] {
            self.chatter.read_once()?;
            let surplus = self.chatter.kept.len().saturating_sub(MOST_STDERR);
            self.chatter.kept.drain(..surplus);
        }
        Ok(())
    }

    /// The report, once it is complete. Looks at each line once.
    fn report_line(&mut self) -> Option<&[u8]> {
        let kept = &self.report.kept;
        while let Some(length) = kept[self.searched..].iter().position(|&byte| byte == b'\n') {
            let line = &kept[self.searched..self.searched + length];
            if let Some(report) = line.strip_prefix(MARK.as_bytes()) {
                return Some(report);
            }
            self.searched += length + 1;
        }
        None
    }

    /// The end of what the child printed, for an error message: one line, starting with `; `, or nothing.
    fn last_words(&self) -> String {
        let printed = String::from_utf8_lossy(&self.chatter.kept);
        let lines: Vec<&str> = printed
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .collect();
        match lines.as_slice() {
            [] => String::new(),
            [.., _] => format!(
                "; it printed: {}",
                lines[lines.len().saturating_sub(4)..].join(" | ")
            ),
        }
    }
}

/// One output of the child and what was kept of it.
struct Output<R> {
    stream: Option<R>,
    kept: Vec<u8>,
}

impl<R: Read + AsFd> Output<R> {
    fn new(stream: Option<R>) -> Self {
        Self {
            stream,
            kept: Vec::new(),
        }
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.stream.as_ref().map(AsFd::as_fd)
    }

    /// One read of a stream that `poll` found readable: it does not block.
    fn read_once(&mut self) -> io::Result<()> {
        let Some(stream) = &mut self.stream else {
            return Ok(());
        };
        let mut buffer = [0; 16 << 10];
        match stream.read(&mut buffer) {
            Ok(0) => self.stream = None,
            Ok(read) => self.kept.extend_from_slice(&buffer[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn try_script(script: &str, timeout: Duration) -> Result<Trial, TrialError> {
        let mut command = Command::new("sh");
        command.arg("-c").arg(script);
        try_with(command, timeout)
    }

    #[test]
    fn every_end_of_the_child_has_an_error_of_its_own() {
        let cases = [
            (
                "kill -SEGV $$",
                "opening the library crashes the process: segmentation fault (SIGSEGV)",
            ),
            (
                "echo stack smashed >&2; kill -ABRT $$",
                "opening the library crashes the process: abort (SIGABRT); it printed: stack smashed",
            ),
            (
                "exit 0",
                "opening the library ends the process with code 0; does a constructor call exit?",
            ),
            (
                "exit 3",
                "opening the library ends the process with code 3; does a constructor call exit?",
            ),
            (
                "echo hello; exit 2",
                "opening the library ends the process with code 2; does a constructor call exit?",
            ),
            (
                "echo trial-report 1",
                "the process that tried the library reports nonsense: expected a JSON value at line 1 column 1",
            ),
            (
                r#"echo 'trial-report {"Err":{"initialise":"no licence"}}'"#,
                "the plugin failed to initialise: no licence",
            ),
        ];
        for (script, expected) in cases {
            let error = try_script(script, Duration::from_secs(20)).expect_err(script);
            assert_eq!(error.to_string(), expected, "{script}");
        }
    }

    #[test]
    fn a_child_that_hangs_is_ended_at_the_limit() {
        let error = try_script("exec sleep 1000", Duration::from_millis(50)).expect_err("it hangs");
        assert_eq!(error.to_string(), "opening the library takes more than 0.05 s");
    }

    #[test]
    fn a_grandchild_that_holds_the_outputs_open_delays_nothing() {
        let error = try_script("sleep 5 & exit 4", Duration::from_secs(4)).expect_err("no report");
        assert!(matches!(error, TrialError::Exit { code: 4, .. }), "{error}");
    }

    #[test]
    fn a_report_counts_whatever_the_child_does_afterwards() {
        let report: Report = Ok(Trial {
            manifest: PluginManifest {
                name: "echo".to_owned(),
                ..PluginManifest::default()
            },
            abi_version: "1.0.0".to_owned(),
        });
        let report = serde_json::to_string(&report).expect("a report is JSON");
        let script = format!("echo noise; echo '{MARK}{report}'; exec sleep 1000");
        let trial = try_script(&script, Duration::from_secs(20)).expect("a report");
        assert_eq!(trial.manifest.name, "echo");
    }

    #[test]
    fn endless_output_is_not_kept() {
        let error = try_script("exec yes", Duration::from_secs(20)).expect_err("no report");
        assert!(matches!(error, TrialError::Garbage(_)), "{error}");
        let error = try_script("exec yes >&2", Duration::from_millis(100)).expect_err("no report");
        assert!(matches!(error, TrialError::Timeout { .. }), "{error}");
        assert!(error.to_string().len() < 2 * MOST_STDERR, "{error}");
    }

    #[test]
    fn a_program_that_does_not_exist_is_named() {
        let program = TrialProgram {
            executable: "/nonexistent/server".into(),
            arguments: Vec::new(),
        };
        let error =
            trial_load(&program, &[], Path::new("x.so"), Duration::from_secs(1)).expect_err("no program");
        assert_eq!(
            error.to_string(),
            "cannot start /nonexistent/server to try the library in"
        );
    }
}
