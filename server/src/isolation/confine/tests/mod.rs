//! Starts child processes that confine themselves and then attempt actions that must be denied.

mod child;

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::net::TcpListener;
use std::num::NonZeroUsize;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use child::{ACTION_VARIABLE, Action, CHILD_TEST, RESULT_PREFIX};

use super::cpus::{self, CpuError};
use super::{ProcessResources, ResourceAllocator, memory};
use crate::resources::{Cpus, Resources, Sandbox};
use crate::secret::Secret;

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
        let (_, test) = CHILD_TEST
            .split_once("::")
            .expect("the path starts with the crate");
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
