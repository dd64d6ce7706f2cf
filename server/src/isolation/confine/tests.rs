//! Real child processes that confine themselves and then try what must be refused.

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
use super::{Confinement, Enclosure, Enclosures, memory};
use crate::error::Chain;
use crate::resources::{Cpus, Resources, Sandbox};
use crate::secret::Secret;

/// What a child tries once it is confined.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum Deed {
    Nothing,
    ConnectTcp(u16),
    SendUdp(u16),
    ConnectUnix(PathBuf),
    /// With a connection that was there before.
    TalkTcp(u16),
    Write(PathBuf),
    Truncate(PathBuf),
    Remove(PathBuf),
    Link(PathBuf, PathBuf),
    Read(PathBuf),
    /// As a shell would, in a process of its own.
    WriteByShell(PathBuf),
    Signal(u32),
    Allocate(usize),
    CountCpus,
    /// On a kernel without Landlock.
    WithoutLandlock,
    /// A system call of the x32 ABI.
    CallX32(i64),
    /// A system call of 32-bit x86.
    CallI386,
}

/// The variable by which a child is told.
const ORDERS: &str = "CONFINE_TEST_ORDERS";
/// What the child's answer begins with.
const ANSWER: &str = "the child says ";

/// The child's side of these tests; see [`Run`].
#[test]
#[ignore = "is run by the other tests, in a process of its own"]
fn confined_child() {
    let Ok(orders) = std::env::var(ORDERS) else {
        return;
    };
    let (confinement, deed): (Confinement, Deed) = serde_json::from_str(&orders).expect("orders are JSON");
    let open = match &deed {
        Deed::TalkTcp(port) => Some(TcpStream::connect(("127.0.0.1", *port)).expect("the test listens")),
        Deed::WithoutLandlock => {
            take_landlock_away();
            None
        }
        _ => None,
    };
    let answer = match confinement.apply() {
        Err(error) => format!("not confined: {}", Chain(&error)),
        Ok(()) => match act(&deed, open) {
            Ok(answer) => answer,
            Err(error) => format!("refused: {:?}", error.kind()),
        },
    };
    // Not through the harness of the tests, which may keep it back.
    eprintln!("{ANSWER}{answer}");
}

fn act(deed: &Deed, open: Option<TcpStream>) -> std::io::Result<String> {
    match deed {
        Deed::Nothing | Deed::WithoutLandlock => {}
        Deed::ConnectTcp(port) => drop(TcpStream::connect(("127.0.0.1", *port))?),
        Deed::SendUdp(port) => drop(UdpSocket::bind("127.0.0.1:0")?.send_to(b"x", ("127.0.0.1", *port))?),
        Deed::ConnectUnix(path) => drop(UnixStream::connect(path)?),
        Deed::TalkTcp(_) => open.expect("it was opened before").write_all(b"hello")?,
        Deed::Write(path) => fs::write(path, "new")?,
        Deed::Truncate(path) => fs::OpenOptions::new().append(true).open(path)?.set_len(0)?,
        Deed::Remove(path) => fs::remove_file(path)?,
        Deed::Link(from, to) => fs::rename(from, to)?,
        Deed::Read(path) => return fs::read_to_string(path),
        Deed::WriteByShell(path) => {
            let script = format!("echo new > {}", path.display());
            let status = Command::new("sh").arg("-c").arg(script).output()?.status;
            return Ok(format!("the shell ends with {:?}", status.code()));
        }
        Deed::Signal(pid) => {
            let pid = i32::try_from(*pid).ok().and_then(rustix::process::Pid::from_raw);
            rustix::process::test_kill_process(pid.expect("a process has a number"))?;
        }
        Deed::Allocate(bytes) => {
            let mut memory: Vec<u8> = Vec::new();
            memory
                .try_reserve_exact(*bytes)
                .map_err(|_| std::io::ErrorKind::OutOfMemory)?;
            memory.resize(*bytes, 1);
            return Ok(format!("{} MiB", memory.len() >> 20));
        }
        #[cfg(target_arch = "x86_64")]
        Deed::CallX32(number) => call_x32(*number)?,
        #[cfg(target_arch = "x86_64")]
        Deed::CallI386 => call_i386(),
        #[cfg(not(target_arch = "x86_64"))]
        Deed::CallX32(_) | Deed::CallI386 => return Err(std::io::ErrorKind::Unsupported.into()),
        Deed::CountCpus => {
            let parallelism = thread::available_parallelism()?.get();
            let pool = rayon::ThreadPoolBuilder::new()
                .build()
                .expect("a pool can be made");
            let inside = pool.install(cpus::allowed)?;
            return Ok(format!(
                "{parallelism} cpus, {} threads, on {}",
                pool.current_num_threads(),
                cpus::show(&inside)
            ));
        }
    }
    Ok("done".to_owned())
}

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code, reason = "the system call is what the sandbox must reject")]
fn call_x32(number: i64) -> std::io::Result<()> {
    // SAFETY: The calls that the test makes take no pointers.
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

/// Makes this process believe that the kernel has no Landlock.
fn take_landlock_away() {
    let rules = BTreeMap::from([(libc::SYS_landlock_create_ruleset, Vec::new())]);
    let missing = SeccompAction::Errno(libc::ENOSYS as u32);
    let arch = std::env::consts::ARCH
        .try_into()
        .expect("filters exist for this processor");
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, missing, arch).expect("the filter is sound");
    let program = BpfProgram::try_from(filter).expect("the filter is sound");
    seccompiler::apply_filter(&program).expect("this kernel has filters");
}

/// A child in an enclosure, and a folder for both.
struct Run {
    folder: TempDir,
    enclosure: Enclosure,
}

impl Run {
    fn with(resources: Resources) -> Self {
        let folder = tempfile::tempdir().expect("there is room");
        let enclosures = Enclosures::new(folder.path().to_owned());
        let enclosure = enclosures
            .enclose(&resources, "m", 0)
            .expect("the machine has it");
        Self { folder, enclosure }
    }

    fn in_sandbox(sandbox: Sandbox) -> Self {
        Self::with(Resources {
            sandbox,
            ..Resources::default()
        })
    }

    fn scratch(&self) -> &Path {
        Path::new(self.enclosure.env()["TMPDIR"].expose())
    }

    /// A file outside of the scratch folder.
    fn outside(&self) -> PathBuf {
        let file = self.folder.path().join("outside");
        fs::write(&file, "old").expect("there is room");
        file
    }

    fn try_to(&self, deed: Deed) -> String {
        let orders = serde_json::to_string(&(self.enclosure.confinement(), deed)).expect("orders are JSON");
        let name = concat!(module_path!(), "::confined_child");
        let (_, test) = name.split_once("::").expect("a module is in a crate");
        let output = Command::new(std::env::current_exe().expect("this test has an executable"))
            .args(["--exact", test, "--ignored", "--nocapture"])
            .env(ORDERS, orders)
            .envs(
                self.enclosure
                    .env()
                    .iter()
                    .map(|(name, value)| (name, value.expose())),
            )
            .output()
            .expect("the child can be started");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let answer = said.lines().find_map(|line| line.split_once(ANSWER));
        answer.map_or_else(
            || format!("{}: {said}", output.status),
            |(_, answer)| answer.to_owned(),
        )
    }
}

const DENIED: &str = "refused: PermissionDenied";

#[test]
fn without_limits_everything_is_allowed() {
    let run = Run::with(Resources::default());
    let listener = TcpListener::bind("127.0.0.1:0").expect("this machine has a network");
    let port = listener.local_addr().expect("it is bound").port();
    let outside = run.outside();
    for deed in [
        Deed::Nothing,
        Deed::ConnectTcp(port),
        Deed::SendUdp(port),
        Deed::Write(outside.clone()),
        Deed::Truncate(outside.clone()),
        Deed::Signal(std::process::id()),
        Deed::Remove(outside),
    ] {
        assert_eq!(run.try_to(deed.clone()), "done", "{deed:?}");
    }
    assert!(!run.enclosure.needs_watching());
}

#[test]
fn in_the_sandbox_there_is_no_network() {
    let run = Run::in_sandbox(Sandbox::On);
    let listener = TcpListener::bind("127.0.0.1:0").expect("this machine has a network");
    let port = listener.local_addr().expect("it is bound").port();
    let socket = run.folder.path().join("socket");
    let _local = UnixListener::bind(&socket).expect("there is room");
    for deed in [
        Deed::ConnectTcp(port),
        Deed::SendUdp(port),
        Deed::ConnectUnix(socket),
    ] {
        assert_eq!(run.try_to(deed.clone()), DENIED, "{deed:?}");
    }
}

#[cfg(target_arch = "x86_64")]
#[test]
fn in_the_sandbox_the_system_calls_of_other_architectures_are_denied() {
    // The second is `ptrace`, whose number in the x32 table is not that of x86-64.
    const X32_PTRACE: i64 = 521;
    let run = Run::in_sandbox(Sandbox::On);
    for number in [libc::SYS_getpid, libc::SYS_socket, X32_PTRACE] {
        assert_eq!(run.try_to(Deed::CallX32(number)), DENIED, "{number}");
    }
    let answer = run.try_to(Deed::CallI386);
    assert!(answer.starts_with("signal: "), "{answer}");
}

#[test]
fn a_connection_from_before_the_sandbox_goes_on() {
    let run = Run::in_sandbox(Sandbox::On);
    let listener = TcpListener::bind("127.0.0.1:0").expect("this machine has a network");
    let port = listener.local_addr().expect("it is bound").port();
    assert_eq!(run.try_to(Deed::TalkTcp(port)), "done");
    let (mut stream, _) = listener.accept().expect("the child has connected");
    let mut heard = String::new();
    stream.read_to_string(&mut heard).expect("the child has spoken");
    assert_eq!(heard, "hello");
}

#[test]
fn in_the_sandbox_files_can_be_read_but_changed_in_the_scratch_folder_only() {
    let run = Run::in_sandbox(Sandbox::On);
    let outside = run.outside();
    assert_eq!(run.try_to(Deed::Read(outside.clone())), "old");
    for deed in [
        Deed::Write(outside.clone()),
        Deed::Write(run.folder.path().join("new")),
        Deed::Truncate(outside.clone()),
        Deed::Remove(outside.clone()),
    ] {
        assert_eq!(run.try_to(deed.clone()), DENIED, "{deed:?}");
    }
    let shell = run.try_to(Deed::WriteByShell(outside.clone()));
    assert!(
        shell.starts_with("the shell ends with") && !shell.ends_with("Some(0)"),
        "{shell}"
    );
    assert_eq!(fs::read_to_string(&outside).expect("it is still there"), "old");

    let inside = run.scratch().join("inside");
    for deed in [
        Deed::Write(inside.clone()),
        Deed::Truncate(inside.clone()),
        Deed::Link(inside, run.scratch().join("other")),
        Deed::Remove(run.scratch().join("other")),
        Deed::Write("/dev/null".into()),
    ] {
        assert_eq!(run.try_to(deed.clone()), "done", "{deed:?}");
    }
}

#[test]
fn the_scratch_folder_goes_with_its_enclosure() {
    let Run { folder, enclosure } = Run::in_sandbox(Sandbox::On);
    let scratch = PathBuf::from(enclosure.env()["TMPDIR"].expose());
    assert!(scratch.is_dir() && scratch.starts_with(folder.path()));
    drop(enclosure);
    assert!(!scratch.exists());
}

#[test]
fn in_the_sandbox_the_server_gets_no_signals() {
    let run = Run::in_sandbox(Sandbox::On);
    let answer = run.try_to(Deed::Signal(std::process::id()));
    // Older kernels than 6.12 cannot keep it from that.
    assert!([DENIED, "done"].contains(&answer.as_str()), "{answer}");
}

#[test]
fn a_sandbox_that_cannot_be_had_is_an_error_that_names_what_the_kernel_lacks() {
    let answer = Run::in_sandbox(Sandbox::On).try_to(Deed::WithoutLandlock);
    assert!(
        answer.starts_with("not confined: cannot be put into its sandbox"),
        "{answer}"
    );
    assert!(answer.contains("Linux 6.2 or newer with Landlock"), "{answer}");
    assert_eq!(
        Run::in_sandbox(Sandbox::BestEffort).try_to(Deed::WithoutLandlock),
        "done"
    );
}

#[test]
fn more_memory_than_allowed_is_refused() {
    let limited = Resources {
        max_memory: Some(256 << 20),
        ..Resources::default()
    };
    let run = Run::with(limited);
    if run.enclosure.needs_watching() {
        assert_eq!(run.try_to(Deed::Allocate(64 << 20)), "64 MiB");
        assert_eq!(run.try_to(Deed::Allocate(512 << 20)), "refused: OutOfMemory");
    }
    let own = std::process::id();
    assert_eq!(run.enclosure.excess(own), None);
    assert_eq!(run.enclosure.excess(u32::MAX), None);
}

#[test]
fn memory_that_is_past_the_limit_is_seen() {
    let run = Run::with(Resources {
        max_memory: Some(1 << 20),
        ..Resources::default()
    });
    let own = std::process::id();
    let ballast = vec![1_u8; 2 << 20];
    let excess = run
        .enclosure
        .excess(own)
        .expect("it is past the limit")
        .to_string();
    assert!(
        excess.starts_with("held ") && excess.ends_with("and `max_memory` is 1 MiB"),
        "{excess}"
    );
    assert!(memory::held_by(own).is_some_and(|held| held > ballast.len() as u64));
}

#[test]
fn a_child_runs_on_its_processors_and_pools_follow() {
    let allowed = cpus::allowed().expect("Linux says");
    let run = Run::with(Resources {
        cpus: Some(Cpus::Count(NonZeroUsize::MIN)),
        ..Resources::default()
    });
    let answer = run.try_to(Deed::CountCpus);
    assert!(answer.starts_with("1 cpus, 1 threads, on "), "{answer}");

    let last = *allowed.last().expect("there is one");
    let run = Run::with(Resources {
        cpus: Some(Cpus::These(vec![last])),
        ..Resources::default()
    });
    assert_eq!(
        run.try_to(Deed::CountCpus),
        format!("1 cpus, 1 threads, on {last}")
    );
}

#[test]
fn processors_of_a_count_lie_side_by_side() {
    let allowed = [0, 1, 2, 3, 8, 9];
    let two = Cpus::Count(NonZeroUsize::new(2).expect("not zero"));
    let mut taken: Vec<usize> = (0..3)
        .flat_map(|slot| cpus::choose(&two, &allowed, "m", slot).expect("there are enough"))
        .collect();
    taken.sort_unstable();
    assert_eq!(taken, allowed);
    let seven = Cpus::Count(NonZeroUsize::new(7).expect("not zero"));
    assert_eq!(
        cpus::choose(&seven, &allowed, "m", 0),
        Err(CpuError::TooMany {
            wanted: 7,
            allowed: 6
        })
    );
    let error = cpus::choose(&Cpus::These(vec![3, 4]), &allowed, "m", 0).expect_err("4 is not there");
    assert_eq!(
        error.to_string(),
        "`cpus` names 4, but the server itself may run on 0-3,8-9 only"
    );
}

#[test]
fn variables_are_passed_on_and_a_temporary_folder_of_ones_own_stays() {
    let env = BTreeMap::from([
        ("TMPDIR".to_owned(), Secret::new("/mine")),
        ("A".to_owned(), Secret::new("b")),
    ]);
    let run = Run::with(Resources {
        env: env.clone(),
        sandbox: Sandbox::On,
        ..Resources::default()
    });
    assert_eq!(*run.enclosure.env(), env);
}
