//! The child process of the tests: confines itself, attempts one action and prints the result.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::net::{TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;
use std::thread;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
use serde::{Deserialize, Serialize};

use crate::error::Chain;
use crate::isolation::confine::{Confinement, cpus};

/// The name of the test that is the child process.
pub(super) const CHILD_TEST: &str = concat!(module_path!(), "::confined_child");

/// What a child attempts after it has confined itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Action {
    Nothing,
    ConnectTcp(u16),
    SendUdp(u16),
    ConnectUnix(PathBuf),
    /// Uses a connection that was opened before.
    UseOpenTcp(u16),
    Write(PathBuf),
    Truncate(PathBuf),
    Remove(PathBuf),
    Link(PathBuf, PathBuf),
    Read(PathBuf),
    /// Runs a shell that writes the file.
    WriteByShell(PathBuf),
    Signal(u32),
    Allocate(usize),
    CountCpus,
    /// Confines itself on a kernel without Landlock.
    WithoutLandlock,
    /// Makes a system call of the x32 ABI.
    CallX32(i64),
    /// Makes a system call of 32-bit x86.
    CallI386,
}

/// Environment variable with the confinement and the action, as JSON.
pub(super) const ACTION_VARIABLE: &str = "CONFINE_TEST_ACTION";
/// Prefix of the line with the result.
pub(super) const RESULT_PREFIX: &str = "result: ";

/// The child process of these tests; see [`Scenario`](super::Scenario).
#[test]
#[ignore = "run by other tests in a child process"]
fn confined_child() {
    let Ok(json) = std::env::var(ACTION_VARIABLE) else {
        return;
    };
    let (confinement, action): (Confinement, Action) =
        serde_json::from_str(&json).expect("the variable is JSON");
    let open = match &action {
        Action::UseOpenTcp(port) => Some(TcpStream::connect(("127.0.0.1", *port)).expect("the test listens")),
        Action::WithoutLandlock => {
            block_landlock();
            None
        }
        _ => None,
    };
    let answer = match confinement.apply() {
        Err(error) => format!("not confined: {}", Chain(&error)),
        Ok(()) => match perform(&action, open) {
            Ok(answer) => answer,
            Err(error) => format!("denied: {:?}", error.kind()),
        },
    };
    // Not captured by the test harness.
    eprintln!("{RESULT_PREFIX}{answer}");
}

fn perform(action: &Action, open: Option<TcpStream>) -> std::io::Result<String> {
    match action {
        Action::Nothing | Action::WithoutLandlock => {}
        Action::ConnectTcp(port) => drop(TcpStream::connect(("127.0.0.1", *port))?),
        Action::SendUdp(port) => drop(UdpSocket::bind("127.0.0.1:0")?.send_to(b"x", ("127.0.0.1", *port))?),
        Action::ConnectUnix(path) => drop(UnixStream::connect(path)?),
        Action::UseOpenTcp(_) => open
            .expect("the connection was opened before")
            .write_all(b"hello")?,
        Action::Write(path) => fs::write(path, "new")?,
        Action::Truncate(path) => fs::OpenOptions::new().append(true).open(path)?.set_len(0)?,
        Action::Remove(path) => fs::remove_file(path)?,
        Action::Link(from, to) => fs::rename(from, to)?,
        Action::Read(path) => return fs::read_to_string(path),
        Action::WriteByShell(path) => {
            let script = format!("echo new > {}", path.display());
            let status = Command::new("sh").arg("-c").arg(script).output()?.status;
            return Ok(format!("the shell exits with {:?}", status.code()));
        }
        Action::Signal(pid) => {
            let pid = i32::try_from(*pid).ok().and_then(rustix::process::Pid::from_raw);
            rustix::process::test_kill_process(pid.expect("a process has an id"))?;
        }
        Action::Allocate(bytes) => {
            let mut memory: Vec<u8> = Vec::new();
            memory
                .try_reserve_exact(*bytes)
                .map_err(|_| std::io::ErrorKind::OutOfMemory)?;
            memory.resize(*bytes, 1);
            return Ok(format!("{} MiB", memory.len() >> 20));
        }
        #[cfg(target_arch = "x86_64")]
        Action::CallX32(number) => call_x32(*number)?,
        #[cfg(target_arch = "x86_64")]
        Action::CallI386 => call_i386(),
        #[cfg(not(target_arch = "x86_64"))]
        Action::CallX32(_) | Action::CallI386 => return Err(std::io::ErrorKind::Unsupported.into()),
        Action::CountCpus => {
            let parallelism = thread::available_parallelism()?.get();
            let pool = rayon::ThreadPoolBuilder::new()
                .build()
                .expect("a pool can be created");
            let inside = pool.install(cpus::allowed)?;
            return Ok(format!(
                "{parallelism} cpus, {} threads, on {}",
                pool.current_num_threads(),
                cpus::format_ranges(&inside)
            ));
        }
    }
    Ok("done".to_owned())
}

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code, reason = "the system call is what the sandbox must reject")]
fn call_x32(number: i64) -> std::io::Result<()> {
    // SAFETY: None of the system calls that the tests make takes a pointer.
    let returned = unsafe { libc::syscall(number | 0x4000_0000, 0, 0, 0, 0) };
    if returned == -1 {
        return Err(std::io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code, reason = "the system call is what the sandbox must reject")]
fn call_i386() {
    const GETPID: i64 = 20;
    // SAFETY: The call takes no arguments and changes no memory.
    unsafe {
        std::arch::asm!("int 0x80", inlateout("rax") GETPID => _, out("r8") _, out("r9") _, out("r10") _, out("r11") _);
    }
}

/// Makes Landlock fail in this process as on a kernel without it.
fn block_landlock() {
    let rules = BTreeMap::from([(libc::SYS_landlock_create_ruleset, Vec::new())]);
    let missing = SeccompAction::Errno(libc::ENOSYS as u32);
    let arch = std::env::consts::ARCH
        .try_into()
        .expect("filters exist for this architecture");
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, missing, arch).expect("the filter is valid");
    let program = BpfProgram::try_from(filter).expect("the filter is valid");
    seccompiler::apply_filter(&program).expect("this kernel supports filters");
}
