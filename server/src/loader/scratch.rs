//! Copies the plugin's file for every generation, to a path that was never used before.
//!
//! The dynamic linker identifies a library by its path and inode. Opening a path again returns the old code, whatever the
//! file contains now, and overwriting a file in place changes the code of the running server. Therefore each load copies the
//! file into a new directory, and only the copy is opened.
//!
//! # Lifetime of a copy
//! A copy exists as long as its generation, because plugins may open neighboring files (`$ORIGIN`) at any time, and a
//! backtrace reads the library again. The mapping outlives it and occupies the space of the file until the process exits: if
//! the scratch directory is in memory (tmpfs), each reload costs the size of the library.
//!
//! # After a crash
//! The scratch directory of a process is locked (`flock`) before it gets its final name, until the process exits for any
//! reason. The next server that starts with the same parent directory removes scratch directories that are not locked.

use std::fs::{File, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::header::{self, HeaderError};
use super::trust::UntrustedFile;
use crate::clock;

/// Prefix of the names of scratch directories of all servers.
const PREFIX: &str = "inference-server-";
/// Prefix until the directory is locked.
const UNLOCKED_PREFIX: &str = ".inference-server-";
/// Maximum number of the plugin's neighboring files that are linked next to its copy.
const MAX_NEIGHBORS: usize = 1000;

/// Why a plugin cannot be copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The file cannot be read.
    #[error(transparent)]
    Source(#[from] HeaderError),
    /// Other users can change the file.
    #[error(transparent)]
    Untrusted(#[from] UntrustedFile),
    /// The file was modified during the copy.
    #[error("the file changed while it was copied; a build may still be writing it")]
    Changed,
    /// The copy cannot be written.
    #[error("cannot copy the library to the scratch directory {}", .directory.display())]
    Write {
        /// Directory of the copy.
        directory: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The scratch directory cannot be created.
    #[error("cannot create a scratch directory in {}; set `scratch_dir` to another directory", .parent.display())]
    Scratch {
        /// Its parent directory.
        parent: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The file system does not allow execution.
    #[error(
        "the scratch directory {} is on a file system mounted `noexec`, where plugins cannot be opened; set `scratch_dir` to another directory",
        .parent.display()
    )]
    NoExec {
        /// The configured directory.
        parent: PathBuf,
    },
}

/// The scratch directory of this process. Removed when it and all its copies are dropped.
#[derive(Debug)]
pub struct Scratch {
    directory: PathBuf,
    /// Number of the next copy. Numbers, and the paths that contain them, are never reused.
    next_generation: AtomicU64,
    /// Holds the lock.
    _lock: File,
}

impl Scratch {
    /// Creates a scratch directory in `parent`, and removes those that crashed servers left there.
    pub fn new(parent: &Path) -> Result<Arc<Self>, CopyError> {
        let failed = |source| CopyError::Scratch {
            parent: parent.to_owned(),
            source,
        };
        let mount = rustix::fs::statvfs(parent).map_err(|error| failed(error.into()))?;
        if mount.f_flag.contains(rustix::fs::StatVfsMountFlags::NOEXEC) {
            return Err(CopyError::NoExec {
                parent: parent.to_owned(),
            });
        }
        remove_abandoned(parent);
        Self::make(parent).map_err(failed)
    }

    fn make(parent: &Path) -> io::Result<Arc<Self>> {
        // The path is absolute, because the linker searches its path for a name without a slash.
        let parent = parent.canonicalize()?;
        let unlocked = tempfile::Builder::new()
            .prefix(UNLOCKED_PREFIX)
            .permissions(Permissions::from_mode(0o700))
            .tempdir_in(&parent)?;
        let lock = File::open(unlocked.path())?;
        lock.try_lock()?;
        let random = unlocked.path().file_name().unwrap_or_default().to_string_lossy();
        let random = random.trim_start_matches(UNLOCKED_PREFIX);
        let directory = parent.join(format!("{PREFIX}{}-{random}", std::process::id()));
        std::fs::rename(unlocked.path(), &directory)?;
        // It has another name now, and `Scratch` removes it.
        let _ = unlocked.keep();
        Ok(Arc::new(Self {
            directory,
            next_generation: AtomicU64::new(1),
            _lock: lock,
        }))
    }

    /// The path of the directory.
    pub(super) fn path(&self) -> &Path {
        &self.directory
    }

    /// Copies `file` into a new directory, with links to its neighbors, if `check` accepts the metadata of the file.
    pub fn copy(
        self: &Arc<Self>,
        file: &Path,
        check: impl FnOnce(&Metadata) -> Result<(), UntrustedFile>,
    ) -> Result<PluginCopy, CopyError> {
        let number = self.next_generation.fetch_add(1, Ordering::Relaxed);
        let directory = self.directory.join(format!("generation-{number}"));
        let failed = |source| CopyError::Write {
            directory: directory.clone(),
            source,
        };
        std::fs::create_dir(&directory).map_err(failed)?;
        let name = file.file_name().unwrap_or_default();
        // From here on, the directory is removed if anything fails.
        let copy = PluginCopy {
            file: directory.join(name),
            directory: directory.clone(),
            _scratch: Arc::clone(self),
        };
        copy_unchanged(file, &copy.file, check, failed)?;
        link_neighbors(file, &directory);
        Ok(copy)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        remove(&self.directory);
    }
}

/// Removes a directory of this process. Shutdown may have removed it already.
fn remove(directory: &Path) {
    match std::fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            log::warn!(
                "cannot remove the scratch directory {}: {error}",
                directory.display()
            );
        }
        _ => {}
    }
}

/// A generation's copy of its plugin. Its directory is removed when it is dropped.
#[derive(Debug)]
pub struct PluginCopy {
    file: PathBuf,
    directory: PathBuf,
    _scratch: Arc<Scratch>,
}

impl PluginCopy {
    /// The copied library.
    pub fn file(&self) -> &Path {
        &self.file
    }
}

impl Drop for PluginCopy {
    fn drop(&mut self) {
        remove(&self.directory);
    }
}

/// Copies the file, sharing its blocks if the file system supports that, and checks that it did not change meanwhile.
fn copy_unchanged(
    from: &Path,
    to: &Path,
    check: impl FnOnce(&Metadata) -> Result<(), UntrustedFile>,
    failed: impl Fn(io::Error) -> CopyError,
) -> Result<(), CopyError> {
    let (mut source, _) = header::open(from)?;
    check(&source.metadata().map_err(HeaderError::Unreadable)?)?;
    let state = |source: &File| {
        let metadata = source.metadata().map_err(HeaderError::Unreadable)?;
        Ok::<_, HeaderError>((metadata.len(), metadata.mtime(), metadata.mtime_nsec()))
    };
    let before = state(&source)?;
    let mut target = File::create_new(to).map_err(&failed)?;
    let copied = io::copy(&mut source, &mut target).map_err(&failed)?;
    if state(&source)? != before || copied != before.0 {
        return Err(CopyError::Changed);
    }
    // Not writable, because the code that runs is mapped from it.
    target
        .set_permissions(Permissions::from_mode(0o500))
        .map_err(failed)
}

/// Links the files next to the plugin into the directory of its copy, so that `$ORIGIN` and data files are found. Files that
/// cannot be linked are skipped: a plugin that needs one reports an error.
fn link_neighbors(file: &Path, directory: &Path) {
    // The parent of the path as given: a plugin may be a link into a store, but its neighbors are next to the link.
    let Some(parent) = std::path::absolute(file)
        .ok()
        .and_then(|file| file.parent().map(Path::to_owned))
    else {
        return;
    };
    let Ok(entries) = std::fs::read_dir(&parent) else {
        return;
    };
    // Libraries first, because they are needed most if there are too many files.
    let mut entries: Vec<_> = entries.flatten().collect();
    entries.sort_by_key(|entry| !entry.file_name().to_string_lossy().contains(".so"));
    let mut linked = 0;
    for entry in entries {
        let name = entry.file_name();
        // A scratch directory in the plugin's directory is not linked.
        if Some(name.as_os_str()) == file.file_name() || name.to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        if linked == MAX_NEIGHBORS {
            log::warn!(
                "more than {MAX_NEIGHBORS} files are next to the plugin {}: only the first ones can be found by $ORIGIN",
                file.display()
            );
            return;
        }
        if std::os::unix::fs::symlink(entry.path(), directory.join(&name)).is_ok() {
            linked += 1;
        }
    }
}

/// Whether a directory is so old that no server can still be starting with it.
fn is_old(metadata: &Metadata) -> bool {
    let modified = Duration::from_secs(u64::try_from(metadata.mtime()).unwrap_or_default());
    clock::unix_time().saturating_sub(modified) > Duration::from_secs(3600)
}

/// Removes scratch directories in `parent` that are not locked by a running process. This is best effort.
fn remove_abandoned(parent: &Path) {
    let Ok(entries) = std::fs::read_dir(parent) else {
        return;
    };
    let user = rustix::process::geteuid().as_raw();
    for entry in entries.flatten() {
        // `DirEntry::metadata` does not follow links, so a link of another user in a shared directory has no effect.
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_candidate = entry.metadata().is_ok_and(|metadata| {
            // A directory without a lock belongs to a server that is starting, or that was killed while it started.
            let has_prefix =
                name.starts_with(PREFIX) || name.starts_with(UNLOCKED_PREFIX) && is_old(&metadata);
            has_prefix && metadata.is_dir() && metadata.uid() == user
        });
        if !is_candidate {
            continue;
        }
        let directory = entry.path();
        let Ok(lock) = File::open(&directory) else {
            continue;
        };
        if lock.try_lock().is_err() {
            continue;
        }
        match std::fs::remove_dir_all(&directory) {
            Ok(()) => log::info!(
                "removed the scratch directory {} of a crashed server",
                directory.display()
            ),
            Err(error) => log::warn!(
                "cannot remove the scratch directory {}: {error}",
                directory.display()
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory() -> tempfile::TempDir {
        tempfile::tempdir().expect("a temporary directory")
    }

    fn names(directory: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(directory).expect("directory is readable");
        let mut names: Vec<String> = entries
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn every_copy_has_its_own_path_that_is_never_reused() {
        let (parent, plugins) = (directory(), directory());
        let file = plugins.path().join("libplugin.so");
        std::fs::write(&file, "one").expect("file is written");
        let scratch = Scratch::new(parent.path()).expect("scratch");
        let first = scratch.copy(&file, |_| Ok(())).expect("copy");
        let first_path = first.file().to_owned();
        std::fs::write(&file, "two").expect("file is overwritten");
        assert_eq!(std::fs::read(&first_path).expect("copy is read"), b"one");
        drop(first);
        assert!(!first_path.exists());
        let second = scratch.copy(&file, |_| Ok(())).expect("copy");
        assert_ne!(second.file(), first_path);
        assert_eq!(std::fs::read(second.file()).expect("copy is read"), b"two");
    }

    #[test]
    fn neighbors_are_found_next_to_the_copy() {
        let (parent, plugins) = (directory(), directory());
        let file = plugins.path().join("libplugin.so");
        std::fs::write(&file, "plugin").expect("file is written");
        std::fs::write(plugins.path().join("libneighbor.so.1"), "neighbor").expect("file is written");
        let scratch = Scratch::new(parent.path()).expect("scratch");
        let copy = scratch.copy(&file, |_| Ok(())).expect("copy");
        let linked = copy.file().with_file_name("libneighbor.so.1");
        assert_eq!(std::fs::read(linked).expect("neighbor is read"), b"neighbor");
        drop(copy);
        assert_eq!(names(plugins.path()), ["libneighbor.so.1", "libplugin.so"]);
    }

    #[test]
    fn the_scratch_directory_is_removed_with_its_last_copy() {
        let (parent, plugins) = (directory(), directory());
        let file = plugins.path().join("libplugin.so");
        std::fs::write(&file, "plugin").expect("file is written");
        let scratch = Scratch::new(parent.path()).expect("scratch");
        let copy = scratch.copy(&file, |_| Ok(())).expect("copy");
        drop(scratch);
        assert!(copy.file().exists());
        drop(copy);
        assert_eq!(names(parent.path()), [""; 0]);
    }

    #[test]
    fn the_directory_of_a_crashed_server_is_removed_and_that_of_a_running_one_is_kept() {
        let parent = directory();
        let crashed = parent.path().join(format!("{PREFIX}1-crashed"));
        std::fs::create_dir_all(crashed.join("generation-1")).expect("directory is made");
        let unrelated = parent.path().join("inference");
        std::fs::create_dir(&unrelated).expect("directory is made");
        let running = Scratch::new(parent.path()).expect("scratch");
        let other = Scratch::new(parent.path()).expect("scratch");
        assert!(!crashed.exists());
        assert!(unrelated.exists());
        assert!(running.directory.exists());
        assert!(other.directory.exists());
    }

    #[test]
    fn the_error_about_a_missing_scratch_parent_names_it() {
        let parent = directory();
        let error = Scratch::new(&parent.path().join("absent")).expect_err("there is no such directory");
        assert!(error.to_string().contains("absent"), "{error}");
    }
}
