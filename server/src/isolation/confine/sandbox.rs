//! The sandbox: no network access, and files can be read but only changed in one directory.
//!
//! Landlock, which needs no privileges, restricts file access. It could also forbid TCP, but not other network access.
//! Therefore a system call filter denies sockets, and system calls that could create sockets in other ways. Sockets that are
//! already open, such as those to the server, remain usable.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access as _, AccessFs, CompatLevel, Compatible, PathFdError, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, Scope, path_beneath_rules,
};
use seccompiler::{BackendError, BpfProgram, SeccompAction, SeccompFilter, TargetArch, sock_filter};

use super::SandboxSettings;
use crate::error::Chain;

/// The first version that can forbid truncation, since Linux 6.2.
const FILES_ABI: ABI = ABI::V3;
/// Adds control of devices, since Linux 6.10.
const DEVICES_ABI: ABI = ABI::V5;
/// Adds signals to other processes, since Linux 6.12.
const SIGNALS_ABI: ABI = ABI::V6;

/// Devices that store nothing, and compute devices. They remain writable.
const WRITABLE_DEVICES: [&str; 8] = [
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
    "/dev/dri",
    "/dev/kfd",
    "/dev/accel",
];
/// Prefix of the names of NVIDIA's devices in `/dev`.
const NVIDIA_PREFIX: &str = "nvidia";

/// System calls that could escape from the sandbox: sockets, io_uring (which can create sockets), access to other processes and
/// their files, and changes to the kernel or the machine, in case the server runs as root.
const DENIED_SYSTEM_CALLS: [i64; 34] = [
    libc::SYS_socket,
    libc::SYS_io_uring_setup,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_open_by_handle_at,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_mount_setattr,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
];

/// On x86-64, the numbers of system calls of the x32 ABI, which has its own table, contain this bit.
#[cfg(target_arch = "x86_64")]
const X32_BIT: Option<u32> = Some(0x4000_0000);
#[cfg(not(target_arch = "x86_64"))]
const X32_BIT: Option<u32> = None;

/// Why the sandbox cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// Landlock is missing or too old.
    #[error(
        "this kernel cannot restrict file access: Linux 6.2 or newer with Landlock is required, which \
         /sys/kernel/security/lsm lists if it is enabled"
    )]
    Files(#[from] RulesetError),
    /// The scratch directory cannot be opened.
    #[error("cannot open the scratch directory {}", directory.display())]
    Scratch {
        /// The directory.
        directory: PathBuf,
        /// The cause.
        source: PathFdError,
    },
    /// System call filters are not supported.
    #[error("this kernel cannot restrict network access: CONFIG_SECCOMP_FILTER is required")]
    Network(#[from] seccompiler::Error),
    /// System call filters are not supported on this processor.
    #[error("network access cannot be restricted on this processor")]
    Processor(#[from] BackendError),
}

/// Puts this thread, and those that it starts, into the sandbox.
pub(super) fn enter(settings: &SandboxSettings) -> Result<(), SandboxError> {
    for result in [
        restrict_files(settings.scratch.as_deref()),
        reject_x32_calls(),
        filter_system_calls(),
    ] {
        match result {
            Err(error) if settings.best_effort => log::warn!("the sandbox is incomplete: {}", Chain(&error)),
            result => result?,
        }
    }
    Ok(())
}

fn restrict_files(scratch: Option<&Path>) -> Result<(), SandboxError> {
    if let Some(directory) = scratch {
        landlock::PathFd::new(directory).map_err(|source| SandboxError::Scratch {
            directory: directory.to_owned(),
            source,
        })?;
    }
    let write_access = AccessFs::from_write(DEVICES_ABI);
    Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_write(FILES_ABI))?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(write_access)?
        .scope(Scope::from_all(SIGNALS_ABI))?
        .create()?
        // Paths that do not exist are omitted.
        .add_rules(path_beneath_rules(scratch, write_access))?
        .add_rules(path_beneath_rules(
            writable_devices(),
            write_access & AccessFs::from_file(DEVICES_ABI),
        ))?
        .restrict_self()?;
    Ok(())
}

fn writable_devices() -> Vec<PathBuf> {
    let nvidia = std::fs::read_dir("/dev")
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(NVIDIA_PREFIX))
        .map(|entry| entry.path());
    WRITABLE_DEVICES.iter().map(PathBuf::from).chain(nvidia).collect()
}

/// Rejects every system call of the x32 ABI, because its numbers differ from those in [`DENIED_SYSTEM_CALLS`]. Libraries for
/// x86-64 do not use it.
fn reject_x32_calls() -> Result<(), SandboxError> {
    let Some(bit) = X32_BIT else {
        return Ok(());
    };
    let statement = |code: u32, k: u32, jt: u8, jf: u8| sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    };
    let number = std::mem::offset_of!(libc::seccomp_data, nr) as u32;
    let filter: BpfProgram = vec![
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, number, 0, 0),
        statement(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, bit, 0, 1),
        statement(
            libc::BPF_RET | libc::BPF_K,
            u32::from(SeccompAction::Errno(libc::EPERM as u32)),
            0,
            0,
        ),
        statement(libc::BPF_RET | libc::BPF_K, u32::from(SeccompAction::Allow), 0, 0),
    ];
    Ok(seccompiler::apply_filter(&filter)?)
}

/// Denies network access. The filter also kills a process that makes a system call of another architecture, such as a 32-bit
/// x86 call.
fn filter_system_calls() -> Result<(), SandboxError> {
    let rules: BTreeMap<i64, Vec<_>> = DENIED_SYSTEM_CALLS
        .into_iter()
        .map(|number| (number, Vec::new()))
        .collect();
    let filter = SeccompFilter::new(
        rules,
        SeccompAction::Allow,
        SeccompAction::Errno(libc::EPERM as u32),
        TargetArch::try_from(std::env::consts::ARCH)?,
    )?;
    let program = BpfProgram::try_from(filter)?;
    Ok(seccompiler::apply_filter(&program)?)
}
