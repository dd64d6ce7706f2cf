//! Starts child processes that confine themselves and then attempt actions that must be denied.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::num::NonZeroUsize;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use super::cpus::{self, CpuError};
use super::{Confinement, ProcessResources, ResourceAllocator, memory};
use crate::error::Chain;
use crate::resources::{Cpus, Resources, Sandbox};
use crate::secret::Secret;

/// What a child attempts after it has confined itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum Action {
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
const ACTION_VARIABLE: &str = "CONFINE_TEST_ACTION";
/// Prefix of the line with the result.
const RESULT_PREFIX: &str = "result: ";

/// The child process of these tests; see [`Scenario`].
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

/// The resources of a child process, and a directory for its files.
struct Scenario {
    directory: TempDir,
    resources: ProcessResources,
}

impl Scenario {
    fn with(resources: Resources) -> Self {
        let directory = tempfile::tempdir().expect("the directory is writable");
        let resource_allocator = ResourceAllocator::new(directory.path().to_owned());
        let resources = resource_allocator
            .allocate(&resources, "m", 0)
            .expect("the resources are available");
        Self { directory, resources }
    }

    fn in_sandbox(sandbox: Sandbox) -> Self {
        Self::with(Resources {
            sandbox,
            ..Resources::default()
        })
    }

    fn scratch(&self) -> &Path {
        Path::new(self.resources.env()["TMPDIR"].expose())
    }

    /// A file outside of the scratch directory.
    fn outside(&self) -> PathBuf {
        let file = self.directory.path().join("outside");
        fs::write(&file, "old").expect("the directory is writable");
        file
    }

    fn attempt(&self, action: Action) -> String {
        let json = serde_json::to_string(&(self.resources.confinement(), action))
            .expect("an action is serializable");
        let name = concat!(module_path!(), "::confined_child");
        let (_, test) = name.split_once("::").expect("the path starts with the crate");
        let output = Command::new(std::env::current_exe().expect("this test has an executable"))
            .args(["--exact", test, "--ignored", "--nocapture"])
            .env(ACTION_VARIABLE, json)
            .envs(
                self.resources
                    .env()
                    .iter()
                    .map(|(name, value)| (name, value.expose())),
            )
            .output()
            .expect("the child can be started");
        let output_text = String::from_utf8_lossy(&output.stderr).into_owned();
        let answer = output_text
            .lines()
            .find_map(|line| line.split_once(RESULT_PREFIX));
        answer.map_or_else(
            || format!("{}: {output_text}", output.status),
            |(_, answer)| answer.to_owned(),
        )
    }
}

const DENIED: &str = "denied: PermissionDenied";

#[test]
fn without_limits_everything_is_allowed() {
    let scenario = Scenario::with(Resources::default());
    let listener = TcpListener::bind("127.0.0.1:0").expect("this machine has a network");
    let port = listener.local_addr().expect("the listener is bound").port();
    let outside = scenario.outside();
    for action in [
        Action::Nothing,
        Action::ConnectTcp(port),
        Action::SendUdp(port),
        Action::Write(outside.clone()),
        Action::Truncate(outside.clone()),
        Action::Signal(std::process::id()),
        Action::Remove(outside),
    ] {
        assert_eq!(scenario.attempt(action.clone()), "done", "{action:?}");
    }
    assert!(!scenario.resources.needs_memory_polling());
}

#[test]
fn the_sandbox_denies_network_access() {
    let scenario = Scenario::in_sandbox(Sandbox::On);
    let listener = TcpListener::bind("127.0.0.1:0").expect("this machine has a network");
    let port = listener.local_addr().expect("the listener is bound").port();
    let socket = scenario.directory.path().join("socket");
    let _local = UnixListener::bind(&socket).expect("the directory is writable");
    for action in [
        Action::ConnectTcp(port),
        Action::SendUdp(port),
        Action::ConnectUnix(socket),
    ] {
        assert_eq!(scenario.attempt(action.clone()), DENIED, "{action:?}");
    }
}

#[cfg(target_arch = "x86_64")]
#[test]
fn the_sandbox_denies_system_calls_of_other_architectures() {
    // The last one is `ptrace`, whose number in the x32 table differs from that of x86-64.
    const X32_PTRACE: i64 = 521;
    let scenario = Scenario::in_sandbox(Sandbox::On);
    for number in [libc::SYS_getpid, libc::SYS_socket, X32_PTRACE] {
        assert_eq!(scenario.attempt(Action::CallX32(number)), DENIED, "{number}");
    }
    let answer = scenario.attempt(Action::CallI386);
    assert!(answer.starts_with("signal: "), "{answer}");
}

#[test]
fn a_connection_from_before_the_sandbox_remains_usable() {
    let scenario = Scenario::in_sandbox(Sandbox::On);
    let listener = TcpListener::bind("127.0.0.1:0").expect("this machine has a network");
    let port = listener.local_addr().expect("the listener is bound").port();
    assert_eq!(scenario.attempt(Action::UseOpenTcp(port)), "done");
    let (mut stream, _) = listener.accept().expect("the child has connected");
    let mut received = String::new();
    stream
        .read_to_string(&mut received)
        .expect("the child has sent data");
    assert_eq!(received, "hello");
}

#[test]
fn in_the_sandbox_files_can_be_read_but_only_changed_in_the_scratch_directory() {
    let scenario = Scenario::in_sandbox(Sandbox::On);
    let outside = scenario.outside();
    assert_eq!(scenario.attempt(Action::Read(outside.clone())), "old");
    for action in [
        Action::Write(outside.clone()),
        Action::Write(scenario.directory.path().join("new")),
        Action::Truncate(outside.clone()),
        Action::Remove(outside.clone()),
    ] {
        assert_eq!(scenario.attempt(action.clone()), DENIED, "{action:?}");
    }
    let shell = scenario.attempt(Action::WriteByShell(outside.clone()));
    assert!(
        shell.starts_with("the shell exits with") && !shell.ends_with("Some(0)"),
        "{shell}"
    );
    assert_eq!(
        fs::read_to_string(&outside).expect("the file still exists"),
        "old"
    );

    let inside = scenario.scratch().join("inside");
    for action in [
        Action::Write(inside.clone()),
        Action::Truncate(inside.clone()),
        Action::Link(inside, scenario.scratch().join("other")),
        Action::Remove(scenario.scratch().join("other")),
        Action::Write("/dev/null".into()),
    ] {
        assert_eq!(scenario.attempt(action.clone()), "done", "{action:?}");
    }
}

#[test]
fn the_scratch_directory_is_removed_with_the_process_resources() {
    let Scenario { directory, resources } = Scenario::in_sandbox(Sandbox::On);
    let scratch = PathBuf::from(resources.env()["TMPDIR"].expose());
    assert!(scratch.is_dir() && scratch.starts_with(directory.path()));
    drop(resources);
    assert!(!scratch.exists());
}

#[test]
fn the_sandbox_denies_signals_to_the_server() {
    let scenario = Scenario::in_sandbox(Sandbox::On);
    let answer = scenario.attempt(Action::Signal(std::process::id()));
    // Kernels before 6.12 do not support this restriction.
    assert!([DENIED, "done"].contains(&answer.as_str()), "{answer}");
}

#[test]
fn a_sandbox_that_is_not_supported_is_an_error_that_names_the_missing_feature() {
    let answer = Scenario::in_sandbox(Sandbox::On).attempt(Action::WithoutLandlock);
    assert!(
        answer.starts_with("not confined: cannot enter the sandbox"),
        "{answer}"
    );
    assert!(answer.contains("Linux 6.2 or newer with Landlock"), "{answer}");
    assert_eq!(
        Scenario::in_sandbox(Sandbox::BestEffort).attempt(Action::WithoutLandlock),
        "done"
    );
}

#[test]
fn allocations_beyond_the_limit_fail() {
    let limited = Resources {
        max_memory: Some(256 << 20),
        ..Resources::default()
    };
    let scenario = Scenario::with(limited);
    if scenario.resources.needs_memory_polling() {
        assert_eq!(scenario.attempt(Action::Allocate(64 << 20)), "64 MiB");
        assert_eq!(
            scenario.attempt(Action::Allocate(512 << 20)),
            "denied: OutOfMemory"
        );
    }
    let own = std::process::id();
    assert_eq!(scenario.resources.memory_excess(own), None);
    assert_eq!(scenario.resources.memory_excess(u32::MAX), None);
}

#[test]
fn memory_beyond_the_limit_is_detected() {
    let scenario = Scenario::with(Resources {
        max_memory: Some(1 << 20),
        ..Resources::default()
    });
    let own = std::process::id();
    let memory = vec![1_u8; 2 << 20];
    let excess = scenario
        .resources
        .memory_excess(own)
        .expect("the limit is exceeded")
        .to_string();
    assert!(
        excess.starts_with("used ") && excess.ends_with("(`max_memory` is 1 MiB)"),
        "{excess}"
    );
    assert!(memory::memory_usage(own).is_some_and(|used| used > memory.len() as u64));
}

#[test]
fn a_child_runs_on_its_cpus_and_thread_pools_have_the_same_size() {
    let allowed = cpus::allowed().expect("the affinity is known");
    let scenario = Scenario::with(Resources {
        cpus: Some(Cpus::Count(NonZeroUsize::MIN)),
        ..Resources::default()
    });
    let answer = scenario.attempt(Action::CountCpus);
    assert!(answer.starts_with("1 cpus, 1 threads, on "), "{answer}");

    let last = *allowed.last().expect("there is one");
    let scenario = Scenario::with(Resources {
        cpus: Some(Cpus::These(vec![last])),
        ..Resources::default()
    });
    assert_eq!(
        scenario.attempt(Action::CountCpus),
        format!("1 cpus, 1 threads, on {last}")
    );
}

#[test]
fn cpus_of_a_count_are_adjacent() {
    let allowed = [0, 1, 2, 3, 8, 9];
    let two = Cpus::Count(NonZeroUsize::new(2).expect("not zero"));
    let mut chosen: Vec<usize> = (0..3)
        .flat_map(|slot| cpus::choose(&two, &allowed, "m", slot).expect("there are enough CPUs"))
        .collect();
    chosen.sort_unstable();
    assert_eq!(chosen, allowed);
    let seven = Cpus::Count(NonZeroUsize::new(7).expect("not zero"));
    assert_eq!(
        cpus::choose(&seven, &allowed, "m", 0),
        Err(CpuError::TooMany {
            requested: 7,
            allowed: 6
        })
    );
    let error = cpus::choose(&Cpus::These(vec![3, 4]), &allowed, "m", 0).expect_err("CPU 4 does not exist");
    assert_eq!(
        error.to_string(),
        "`cpus` names 4, but the server can use only CPUs 0-3,8-9"
    );
}

#[test]
fn variables_are_passed_and_a_configured_temporary_directory_is_kept() {
    let env = BTreeMap::from([
        ("TMPDIR".to_owned(), Secret::new("/mine")),
        ("A".to_owned(), Secret::new("b")),
    ]);
    let scenario = Scenario::with(Resources {
        env: env.clone(),
        sandbox: Sandbox::On,
        ..Resources::default()
    });
    assert_eq!(*scenario.resources.env(), env);
}
