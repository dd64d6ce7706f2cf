//! The sandbox: no network, and files may be read but changed in one folder only.
//!
//! Files are Landlock's business, which needs no privileges. It could forbid TCP as well, but not the rest of the network;
//! so a filter of system calls takes all sockets away, and with them what could make one without asking for it. Sockets
//! that are open already, such as those to the server, go on.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access as _, AccessFs, CompatLevel, Compatible, PathFdError, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, Scope, path_beneath_rules,
};
use seccompiler::{BackendError, BpfProgram, SeccompAction, SeccompFilter, TargetArch, sock_filter};

use super::SandboxPlan;
use crate::error::Chain;

/// The first version that keeps files from being truncated, which Linux has since 6.2.
const FILES: ABI = ABI::V3;
/// Adds the control of devices, since Linux 6.10.
const DEVICES: ABI = ABI::V5;
/// Adds signals to other processes, since Linux 6.12.
const SIGNALS: ABI = ABI::V6;

/// Devices that hold nothing, and those that compute. Each may be written to, where it exists.
const OPEN_DEVICES: [&str; 8] = [
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
    "/dev/dri",
    "/dev/kfd",
    "/dev/accel",
];
/// What the names of an NVIDIA GPU's devices begin with, in `/dev`.
const NVIDIA: &str = "nvidia";

/// System calls that open a way out: sockets; rings that make sockets by themselves; other processes and their files; and what
/// changes the kernel or the machine, should the server run as root.
const FORBIDDEN: [i64; 34] = [
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

/// On x86-64, system calls with this bit in their number are those of the x32 ABI, which has its own table.
#[cfg(target_arch = "x86_64")]
const X32_BIT: Option<u32> = Some(0x4000_0000);
#[cfg(not(target_arch = "x86_64"))]
const X32_BIT: Option<u32> = None;

/// What the kernel lacks for a sandbox.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// Landlock is not there, or too old.
    #[error(
        "this kernel cannot keep it from changing files, which takes Linux 6.2 or newer with Landlock, listed in \
         /sys/kernel/security/lsm where it is on"
    )]
    Files(#[from] RulesetError),
    /// The scratch folder cannot be opened.
    #[error("its scratch folder {} cannot be used", folder.display())]
    Scratch {
        /// The folder.
        folder: PathBuf,
        /// Why not.
        source: PathFdError,
    },
    /// Filters of system calls are not there.
    #[error("this kernel cannot keep it from the network, which takes CONFIG_SECCOMP_FILTER")]
    Network(#[from] seccompiler::Error),
    /// The filter cannot be written for this machine.
    #[error("on this kind of processor it cannot be kept from the network")]
    Processor(#[from] BackendError),
}

/// Puts this thread, and those that it will start, into the sandbox.
pub(super) fn enter(plan: &SandboxPlan) -> Result<(), SandboxError> {
    for result in [
        keep_files(plan.scratch.as_deref()),
        reject_x32_calls(),
        keep_from_network(),
    ] {
        match result {
            Err(error) if plan.best_effort => log::warn!("the sandbox has a gap: {}", Chain(&error)),
            result => result?,
        }
    }
    Ok(())
}

fn keep_files(scratch: Option<&Path>) -> Result<(), SandboxError> {
    if let Some(folder) = scratch {
        landlock::PathFd::new(folder).map_err(|source| SandboxError::Scratch {
            folder: folder.to_owned(),
            source,
        })?;
    }
    let writing = AccessFs::from_write(DEVICES);
    Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_write(FILES))?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(writing)?
        .scope(Scope::from_all(SIGNALS))?
        .create()?
        // What does not exist is left out.
        .add_rules(path_beneath_rules(scratch, writing))?
        .add_rules(path_beneath_rules(
            open_devices(),
            writing & AccessFs::from_file(DEVICES),
        ))?
        .restrict_self()?;
    Ok(())
}

fn open_devices() -> Vec<PathBuf> {
    let nvidia = std::fs::read_dir("/dev")
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(NVIDIA))
        .map(|entry| entry.path());
    OPEN_DEVICES.iter().map(PathBuf::from).chain(nvidia).collect()
}

/// Rejects every system call of the x32 ABI: its numbers differ from those in [`FORBIDDEN`], and no library for x86-64
/// uses it.
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

/// Takes the network away. The filter also kills a process that makes a system call of another architecture, such as the
/// 32-bit calls of x86.
fn keep_from_network() -> Result<(), SandboxError> {
    let rules: BTreeMap<i64, Vec<_>> = FORBIDDEN.into_iter().map(|number| (number, Vec::new())).collect();
    let filter = SeccompFilter::new(
        rules,
        SeccompAction::Allow,
        SeccompAction::Errno(libc::EPERM as u32),
        TargetArch::try_from(std::env::consts::ARCH)?,
    )?;
    let program = BpfProgram::try_from(filter)?;
    Ok(seccompiler::apply_filter(&program)?)
}
