//! A child as the operating system sees it: started, watched, ended and reaped.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::confine::{Enclosure, Excess};
use super::descriptor_passing::{Handover, MOST_PREPARE_LANES};
use super::lane::{self, Lane, socket_pair};
use crate::clock;
use crate::crash::signal_name;
use crate::metrics::RestartReason;

/// How to start a child: `executable arguments… MODEL` has to call [`run_child`](super::run_child). The name of the model is
/// there for people who look at the list of processes.
#[derive(Clone, Debug)]
pub struct Program {
    /// The program, as a rule this one.
    pub executable: PathBuf,
    /// What precedes the name of the model.
    pub arguments: Vec<String>,
}

impl Program {
    /// This program, started with [`CHILD_COMMAND`](super::CHILD_COMMAND). Also after its file was replaced by an upgrade.
    pub fn this_server() -> Self {
        Self {
            executable: "/proc/self/exe".into(),
            arguments: vec![super::CHILD_COMMAND.to_owned()],
        }
    }
}

/// Open files of the server for one child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenFiles {
    /// While it runs.
    pub running: u64,
    /// In addition, while it is started.
    pub starting: u64,
}

impl OpenFiles {
    /// For a child that prepares up to this many items at the same time.
    pub fn of_process(prepare_lanes: usize) -> Self {
        // A lane is a socket and two memory files, and as many for the other side until the child has received them.
        let lanes = prepare_lanes.clamp(1, MOST_PREPARE_LANES) as u64 + 1;
        Self {
            // The log, standard error, the pidfd, and two eventfds.
            running: 3 * lanes + 5,
            // The other ends of these, and the pipe by which the standard library learns whether a process has started.
            starting: 3 * lanes + 8,
        }
    }
}

/// A child that has just been started.
pub(super) struct Launched {
    pub(super) process: Arc<Process>,
    /// The lane of the start and of the batches.
    pub(super) main: Lane,
    /// The lanes on which items are prepared.
    pub(super) prepare: Vec<Lane>,
    /// What it prints to its standard output and standard error.
    pub(super) stderr: ChildStderr,
    /// Where its records for the log come in.
    pub(super) records: OwnedFd,
}

/// Starts a child in an enclosure, with so many lanes on which items are prepared.
pub(super) fn launch(
    program: &Program,
    model: &str,
    prepare_lanes: usize,
    enclosure: Enclosure,
) -> io::Result<Launched> {
    let (control, child_control) = socket_pair()?;
    let (records, child_records) = socket_pair()?;
    let (main, far_main) = Lane::pair()?;
    let (prepare, far_prepare): (Vec<_>, Vec<_>) = (0..prepare_lanes)
        .map(|_| Lane::pair())
        .collect::<io::Result<Vec<_>>>()?
        .into_iter()
        .unzip();
    let mut child = Command::new(&program.executable)
        .arg0("inference-server")
        .args(&program.arguments)
        .arg(model)
        .envs(enclosure.env().iter().map(|(name, value)| (name, value.expose())))
        .stdin(Stdio::from(child_control))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        // Out of the terminal's group: Ctrl-C is meant for the server, which still has to answer what it has accepted.
        .process_group(0)
        .spawn()?;
    let stderr = child.stderr.take().ok_or(Errno::BADF)?;
    let sockets = std::iter::once(&main).chain(&prepare).map(Lane::socket).collect();
    let process = Process::new(child, sockets, enclosure)?;
    // Before it hears what to load. If it cannot be, it is ended.
    process.enclosure.admit(process.id)?;
    let handover = Handover {
        records: child_records,
        main: far_main,
        prepare: far_prepare,
    };
    handover.send(&control)?;
    Ok(Launched {
        process: Arc::new(process),
        main,
        prepare,
        stderr,
        records,
    })
}

/// A child, for whoever speaks with it or keeps it: any of them can end it, and learn how it ended. It has been launched by a
/// thread that lives longer: the kernel ends it when that thread ends.
pub(super) struct Process {
    id: u32,
    pidfd: OwnedFd,
    sockets: Vec<Arc<OwnedFd>>,
    fate: Mutex<Fate>,
    /// Goes after the child.
    enclosure: Enclosure,
}

struct Fate {
    child: Child,
    cause: Option<Cause>,
    death: Option<Death>,
}

/// How a wait for a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waited {
    /// The child has ended.
    Ended,
    /// The bell rang.
    Called,
    /// Nothing happened in time.
    TimedOut,
}

/// How long a child that has closed its connection may take to end by itself, so that its own reason is told.
const LAST_BREATH: Duration = Duration::from_secs(2);

impl Process {
    pub(super) fn new(
        mut child: Child,
        sockets: Vec<Arc<OwnedFd>>,
        enclosure: Enclosure,
    ) -> io::Result<Self> {
        let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).inspect_err(|_| {
            // Without one it cannot be watched. Both do nothing for a child that has ended.
            let _ = child.kill();
            let _ = child.wait();
        })?;
        Ok(Self {
            id: child.id(),
            pidfd,
            sockets,
            fate: Mutex::new(Fate {
                child,
                cause: None,
                death: None,
            }),
            enclosure,
        })
    }

    /// Its number in the system.
    pub(super) fn id(&self) -> u32 {
        self.id
    }

    /// What it lives in.
    pub(super) fn enclosure(&self) -> &Enclosure {
        &self.enclosure
    }

    /// Ends the child if it holds more memory than it may.
    pub(super) fn check_memory(&self) {
        if let Some(excess) = self.enclosure.excess(self.id) {
            self.condemn(Cause::Memory(excess));
        }
    }

    fn fate(&self) -> MutexGuard<'_, Fate> {
        self.fate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the child ends, the bell rings, or `patience` is over.
    pub(super) fn wait(&self, bell: Option<&Bell>, patience: Option<Duration>) -> io::Result<Waited> {
        let ready = wait_for(&[Some(self.pidfd.as_fd()), bell.map(Bell::fd)], patience)?;
        Ok(match ready {
            [true, _] => Waited::Ended,
            [false, true] => Waited::Called,
            [false, false] => Waited::TimedOut,
        })
    }

    /// Ends the child. The first cause is the one that counts.
    pub(super) fn condemn(&self, cause: Cause) {
        self.fate().cause.get_or_insert(cause);
        self.kill();
    }

    pub(super) fn kill(&self) {
        // It may have ended already.
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
    }

    /// Its connection is closed. If it lives on all the same, it is ended.
    pub(super) fn hung_up(&self) {
        if !matches!(self.wait(None, Some(LAST_BREATH)), Ok(Waited::Ended)) {
            self.condemn(Cause::Breach("closed its connection".to_owned()));
        }
    }

    /// Tells the child that it is not needed any more, and everybody who waits for an answer that there is none.
    pub(super) fn close(&self) {
        self.sockets.iter().for_each(lane::close);
    }

    /// Waits for the end of a child that is ending or has been ended, reaps it, and says how it ended.
    pub(super) fn bury(&self) -> Death {
        let mut fate = self.fate();
        if let Some(death) = &fate.death {
            return death.clone();
        }
        let death = match fate.child.wait() {
            Ok(status) => {
                let cause = fate
                    .cause
                    .take()
                    .or_else(|| self.enclosure.overrun().map(Cause::Memory));
                Death::new(status, cause)
            }
            Err(error) => Death {
                reason: RestartReason::Exit,
                text: format!("is gone: {error}"),
                public: None,
            },
        };
        fate.death = Some(death.clone());
        drop(fate);
        // A process that it has left behind may hold its ends of the lanes.
        self.close();
        death
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        self.bury();
    }
}

/// Why the server ended a child.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// It did not answer within this time.
    Hang(Duration),
    /// It sent what is no message, or closed its connection and lived on.
    Breach(String),
    /// It took more memory than it may. The kernel may have ended it for that.
    Memory(Excess),
}

/// How a child ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Death {
    /// For the metrics.
    pub(super) reason: RestartReason,
    /// For people: what follows "its process".
    pub(super) text: String,
    /// The same for clients, if the text names what is not for them.
    pub(super) public: Option<String>,
}

impl Death {
    /// What an exit status means, and, if the server ended the child, why it did.
    pub(super) fn new(status: ExitStatus, cause: Option<Cause>) -> Self {
        let (reason, text) = match (status.signal(), cause) {
            (Some(9), Some(Cause::Hang(limit))) => (
                RestartReason::Hang,
                format!(
                    "did not answer within {} s, which is `predict_timeout`",
                    limit.as_secs_f64()
                ),
            ),
            (Some(9), Some(Cause::Breach(breach))) => (RestartReason::Breach, breach),
            (Some(9), Some(Cause::Memory(excess))) => (RestartReason::Memory, excess.to_string()),
            (Some(9), None) => (RestartReason::Killed, format!("was {}", signal_name(9))),
            (Some(signal), _) => (RestartReason::Crash, format!("crashed: {}", signal_name(signal))),
            (None, _) => (
                RestartReason::Exit,
                format!("ended itself with code {}", status.code().unwrap_or(-1)),
            ),
        };
        Self {
            reason,
            text,
            public: None,
        }
    }
}

/// Calls a thread that waits. Once rung, it goes on ringing.
pub(super) struct Bell(OwnedFd);

impl Bell {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
    }

    pub(super) fn ring(&self) {
        // Fails only once it has been rung more often than anybody can.
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Whether it rings within `patience`.
    pub(super) fn wait(&self, patience: Duration) -> io::Result<bool> {
        wait_for(&[Some(self.fd()), None], Some(patience)).map(|ready| ready[0])
    }
}

/// Waits until one of the descriptors can be read, and says which.
fn wait_for(fds: &[Option<BorrowedFd<'_>>; 2], patience: Option<Duration>) -> io::Result<[bool; 2]> {
    let deadline = patience.map(|patience| clock::now() + patience);
    loop {
        let mut polled: Vec<PollFd<'_>> = fds
            .iter()
            .flatten()
            .map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN))
            .collect();
        let left = deadline.map(|deadline| deadline.saturating_duration_since(clock::now()));
        let timeout = left.map(|left| Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        });
        match poll(&mut polled, timeout.as_ref()) {
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(errno) => return Err(errno.into()),
        }
        let mut ready = polled.iter().map(|fd| !fd.revents().is_empty());
        return Ok(fds.map(|fd| fd.is_some() && ready.next().unwrap_or(false)));
    }
}
