//! A child process from the perspective of the operating system: started, monitored, killed and reaped.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::channel::{self, Channel, socket_pair};
use super::confine::{MemoryExcess, ProcessResources};
use super::descriptor_passing::{ChildDescriptors, MAX_PREPARE_CHANNELS};
use super::event_fd::{self, EventFd};
use crate::crash::signal_name;
use crate::metrics::RestartReason;

/// How to start a child process: `executable arguments… MODEL` must call [`run_child`](super::run_child). The name of the model
/// only serves to identify the process in process lists.
#[derive(Clone, Debug)]
pub struct Program {
    /// The program, usually this one.
    pub executable: PathBuf,
    /// The arguments before the name of the model.
    pub arguments: Vec<String>,
}

impl Program {
    /// This program with [`CHILD_COMMAND`](super::CHILD_COMMAND). Works even if an upgrade has replaced its file.
    pub fn this_server() -> Self {
        Self {
            executable: "/proc/self/exe".into(),
            arguments: vec![super::CHILD_COMMAND.to_owned()],
        }
    }
}

/// Number of files that the server has open for one child process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenFiles {
    /// While it runs.
    pub running: u64,
    /// In addition while it starts.
    pub starting: u64,
}

impl OpenFiles {
    /// For a process that prepares up to `prepare_channels` items concurrently.
    pub fn for_process(prepare_channels: usize) -> Self {
        // A channel has a socket and two memory files. The other ends are open too until the child has received them.
        let channels = prepare_channels.clamp(1, MAX_PREPARE_CHANNELS) as u64 + 1;
        Self {
            // The log socket, standard error, the pidfd, and two eventfds.
            running: 3 * channels + 5,
            // The other ends, and the pipe by which the standard library detects whether the process has started.
            starting: 3 * channels + 8,
        }
    }
}

/// A child process that has just been started.
pub(super) struct Launched {
    pub(super) process: Arc<Process>,
    /// The channel for loading and for batches.
    pub(super) main: Channel,
    /// The channels for preparing items.
    pub(super) prepare: Vec<Channel>,
    /// Its standard output and standard error.
    pub(super) stderr: ChildStderr,
    /// Receives its log records.
    pub(super) log_socket: OwnedFd,
}

/// Starts a child process with the given resources and number of prepare channels.
pub(super) fn launch(
    program: &Program,
    model: &str,
    prepare_channels: usize,
    resources: ProcessResources,
) -> io::Result<Launched> {
    let (control, child_control) = socket_pair()?;
    let (log_socket, child_log) = socket_pair()?;
    let (main, peer_main) = Channel::pair()?;
    let (prepare, peer_prepare): (Vec<_>, Vec<_>) = (0..prepare_channels)
        .map(|_| Channel::pair())
        .collect::<io::Result<Vec<_>>>()?
        .into_iter()
        .unzip();
    let mut child = Command::new(&program.executable)
        .arg0("inference-server")
        .args(&program.arguments)
        .arg(model)
        .envs(resources.env().iter().map(|(name, value)| (name, value.expose())))
        .stdin(Stdio::from(child_control))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        // In its own process group, so that Ctrl-C does not reach it: the server still needs it to answer accepted requests.
        .process_group(0)
        .spawn()?;
    let stderr = child.stderr.take().ok_or(Errno::BADF)?;
    let sockets = std::iter::once(&main)
        .chain(&prepare)
        .map(Channel::socket)
        .collect();
    let process = Process::new(child, sockets, resources)?;
    // Before the process receives what to load. If this fails, `process` is dropped, which kills it.
    process.resources.add_process(process.id)?;
    let descriptors = ChildDescriptors {
        log_socket: child_log,
        main: peer_main,
        prepare: peer_prepare,
    };
    descriptors.send(&control)?;
    Ok(Launched {
        process: Arc::new(process),
        main,
        prepare,
        stderr,
        log_socket,
    })
}

/// A child process, shared by its supervisor and the callers of its channels. Each of them can kill it and get its exit reason.
/// The thread that started it must outlive it, because the kernel kills it when that thread exits.
pub(super) struct Process {
    id: u32,
    pidfd: OwnedFd,
    sockets: Vec<Arc<OwnedFd>>,
    state: Mutex<ProcessState>,
    /// Freed after the process has been reaped.
    resources: ProcessResources,
}

struct ProcessState {
    child: Child,
    kill_reason: Option<KillReason>,
    exit: Option<ProcessExit>,
}

/// The result of waiting for a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WaitOutcome {
    /// The process has exited.
    Exited,
    /// `stop` was signaled.
    Stopped,
    /// The timeout elapsed.
    TimedOut,
}

/// How long a process that closed its connection may take to exit, so that its own exit reason can be reported.
const EXIT_TIMEOUT: Duration = Duration::from_secs(2);

impl Process {
    pub(super) fn new(
        mut child: Child,
        sockets: Vec<Arc<OwnedFd>>,
        resources: ProcessResources,
    ) -> io::Result<Self> {
        let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).inspect_err(|_| {
            // Without a pidfd it cannot be monitored. Neither call affects a process that has exited.
            let _ = child.kill();
            let _ = child.wait();
        })?;
        Ok(Self {
            id: child.id(),
            pidfd,
            sockets,
            state: Mutex::new(ProcessState {
                child,
                kill_reason: None,
                exit: None,
            }),
            resources,
        })
    }

    /// Its process id.
    pub(super) fn id(&self) -> u32 {
        self.id
    }

    /// The resources that belong to it.
    pub(super) fn resources(&self) -> &ProcessResources {
        &self.resources
    }

    /// Kills the process if it exceeds its memory limit.
    pub(super) fn check_memory(&self) {
        if let Some(excess) = self.resources.memory_excess(self.id) {
            self.kill_for(KillReason::MemoryLimit(excess));
        }
    }

    fn state(&self) -> MutexGuard<'_, ProcessState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the process exits, `stop` is signaled, or `timeout` elapses.
    pub(super) fn wait(&self, stop: Option<&EventFd>, timeout: Option<Duration>) -> io::Result<WaitOutcome> {
        let ready = event_fd::wait_readable(&[Some(self.pidfd.as_fd()), stop.map(EventFd::fd)], timeout)?;
        Ok(match ready {
            [true, _] => WaitOutcome::Exited,
            [false, true] => WaitOutcome::Stopped,
            [false, false] => WaitOutcome::TimedOut,
        })
    }

    /// Kills the process. The first reason is the one that is reported.
    pub(super) fn kill_for(&self, kill_reason: KillReason) {
        self.state().kill_reason.get_or_insert(kill_reason);
        self.kill();
    }

    pub(super) fn kill(&self) {
        // It may have exited already.
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
    }

    /// Handles a closed connection: waits for the process to exit, and kills it if it does not.
    pub(super) fn connection_closed(&self) {
        if !matches!(self.wait(None, Some(EXIT_TIMEOUT)), Ok(WaitOutcome::Exited)) {
            self.kill_for(KillReason::ProtocolViolation("closed its connection".to_owned()));
        }
    }

    /// Closes all channels, which tells the process to exit, and makes all pending calls fail.
    pub(super) fn close_channels(&self) {
        self.sockets.iter().for_each(channel::close);
    }

    /// Waits for the exit of a process that was killed or is exiting, reaps it, and returns how it exited.
    pub(super) fn reap(&self) -> ProcessExit {
        let mut state = self.state();
        if let Some(exit) = &state.exit {
            return exit.clone();
        }
        let exit = match state.child.wait() {
            Ok(status) => {
                let kill_reason = state
                    .kill_reason
                    .take()
                    .or_else(|| self.resources.oom_kill().map(KillReason::MemoryLimit));
                ProcessExit::new(status, kill_reason)
            }
            Err(error) => ProcessExit {
                reason: RestartReason::Exit,
                description: format!("exited for an unknown reason: {error}"),
                public_description: None,
            },
        };
        state.exit = Some(exit.clone());
        drop(state);
        // A process that it has started may keep its ends of the channels open.
        self.close_channels();
        exit
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        self.reap();
    }
}

/// Why the server killed a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum KillReason {
    /// It did not reply in time.
    Hang {
        /// The timeout.
        limit: Duration,
        /// The configuration key of the timeout.
        key: &'static str,
    },
    /// It sent an invalid message, or closed its connection without exiting.
    ProtocolViolation(String),
    /// It exceeded its memory limit. The kernel may have killed it for that.
    MemoryLimit(MemoryExcess),
}

/// How a process exited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ProcessExit {
    /// The label in the metrics.
    pub(super) reason: RestartReason,
    /// A predicate for messages, such as "crashed: …".
    pub(super) description: String,
    /// The predicate for clients, if `description` contains private details.
    pub(super) public_description: Option<String>,
}

impl ProcessExit {
    /// Interprets an exit status. `kill_reason` is set if the server killed the process.
    pub(super) fn new(status: ExitStatus, kill_reason: Option<KillReason>) -> Self {
        let (reason, description) = match (status.signal(), kill_reason) {
            (Some(9), Some(KillReason::Hang { limit, key })) => (
                RestartReason::Hang,
                format!("did not reply within {} s (`{key}`)", limit.as_secs_f64()),
            ),
            (Some(9), Some(KillReason::ProtocolViolation(breach))) => (RestartReason::Breach, breach),
            (Some(9), Some(KillReason::MemoryLimit(excess))) => (RestartReason::Memory, excess.to_string()),
            (Some(9), None) => (RestartReason::Killed, format!("was {}", signal_name(9))),
            (Some(signal), _) => (RestartReason::Crash, format!("crashed: {}", signal_name(signal))),
            (None, _) => (
                RestartReason::Exit,
                format!("exited with code {}", status.code().unwrap_or(-1)),
            ),
        };
        Self {
            reason,
            description,
            public_description: None,
        }
    }
}
