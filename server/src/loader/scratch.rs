//! A copy of the plugin's file for every generation, at a path that was never used before.
//!
//! The dynamic linker recognises a library that it has by its path and by its inode: opening a path again gives the old
//! code, whatever the file holds by now, and a file overwritten in place pulls the code from under the running server. So
//! each load copies the file into a new folder of this server's own, and nothing but the copy is ever opened.
//!
//! # How long a copy stays
//! As long as its generation: plugins open neighbours (`$ORIGIN`) at any time, and a backtrace reads the file again. The
//! folder goes when the generation goes. The mapping outlives it, and with it the space of the file, until the process
//! ends: on a scratch folder in memory (tmpfs), each reload costs the size of the library.
//!
//! # After a crash
//! The scratch folder of a process is locked (`flock`) from before it gets its name until the process ends, however it
//! ends. A scratch folder that is not locked belongs to nobody and is removed by the next server that starts here.

use std::fs::{File, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::header::{self, HeaderError};
use crate::clock;

/// What the scratch folders of all servers begin with.
const PREFIX: &str = "inference-server-";
/// What they begin with until they are locked.
const UNLOCKED_PREFIX: &str = ".inference-server-";
/// Most neighbours of a plugin that are linked beside its copy.
const MOST_NEIGHBOURS: usize = 1000;

/// Why there is no copy.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The file cannot be read.
    #[error(transparent)]
    Source(#[from] HeaderError),
    /// The file was written to meanwhile.
    #[error("the file changed while it was copied; is a build still writing it?")]
    Changed,
    /// The copy cannot be written.
    #[error("cannot copy the library to the scratch folder {}", .folder.display())]
    Write {
        /// Where the copy was to be.
        folder: PathBuf,
        /// Why it is not.
        source: io::Error,
    },
    /// There is no scratch folder to be had.
    #[error("cannot make a scratch folder in {}; set another one", .parent.display())]
    Scratch {
        /// Where it was to be.
        parent: PathBuf,
        /// Why it is not.
        source: io::Error,
    },
    /// Libraries cannot be opened there.
    #[error(
        "the scratch folder {} is on a file system mounted `noexec`, plugins cannot be opened there; set another one",
        .parent.display()
    )]
    NoExec {
        /// The folder that was given.
        parent: PathBuf,
    },
}

/// This process's scratch folder. Removed once it and all its copies are dropped.
#[derive(Debug)]
pub struct Scratch {
    folder: PathBuf,
    /// Numbers are never reused, nor are the paths made of them.
    next_generation: AtomicU64,
    /// Holds the lock.
    _lock: File,
}

impl Scratch {
    /// Makes a scratch folder in `parent` and removes those that dead servers left there.
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
        // An absolute path: the linker takes one without a slash for a name to search for.
        let parent = parent.canonicalize()?;
        let unlocked = tempfile::Builder::new()
            .prefix(UNLOCKED_PREFIX)
            .permissions(Permissions::from_mode(0o700))
            .tempdir_in(&parent)?;
        let lock = File::open(unlocked.path())?;
        lock.try_lock()?;
        let random = unlocked.path().file_name().unwrap_or_default().to_string_lossy();
        let random = random.trim_start_matches(UNLOCKED_PREFIX);
        let folder = parent.join(format!("{PREFIX}{}-{random}", std::process::id()));
        std::fs::rename(unlocked.path(), &folder)?;
        // It has another name by now and is ours to remove.
        let _ = unlocked.keep();
        Ok(Arc::new(Self {
            folder,
            next_generation: AtomicU64::new(1),
            _lock: lock,
        }))
    }

    /// Its path.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Copies `file` into a folder of its own, with links to its neighbours.
    pub fn copy(self: &Arc<Self>, file: &Path) -> Result<PluginCopy, CopyError> {
        let number = self.next_generation.fetch_add(1, Ordering::Relaxed);
        let folder = self.folder.join(format!("generation-{number}"));
        let failed = |source| CopyError::Write {
            folder: folder.clone(),
            source,
        };
        std::fs::create_dir(&folder).map_err(failed)?;
        let name = file.file_name().unwrap_or_default();
        // From here on the folder is removed if anything fails.
        let copy = PluginCopy {
            file: folder.join(name),
            folder: folder.clone(),
            _scratch: Arc::clone(self),
        };
        copy_unchanged(file, &copy.file, failed)?;
        link_neighbours(file, &folder);
        Ok(copy)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        remove(&self.folder);
    }
}

/// Removes a folder of this process, which may have been removed already on the way out.
fn remove(folder: &Path) {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            log::warn!(
                "cannot remove the scratch directory {}: {error}",
                folder.display()
            );
        }
        _ => {}
    }
}

/// A generation's copy of its plugin. Its folder is removed when it is dropped.
#[derive(Debug)]
pub struct PluginCopy {
    file: PathBuf,
    folder: PathBuf,
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
        remove(&self.folder);
    }
}

/// Copies the file, by reference where the file system can, and makes sure that it stood still meanwhile.
fn copy_unchanged(from: &Path, to: &Path, failed: impl Fn(io::Error) -> CopyError) -> Result<(), CopyError> {
    let (mut source, _) = header::open(from)?;
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
    // Written to by nobody any more: the code that runs comes from it.
    target
        .set_permissions(Permissions::from_mode(0o500))
        .map_err(failed)
}

/// Links the files beside the plugin beside its copy, so that `$ORIGIN` and data files are found. What cannot be linked is
/// left out: if the plugin needs it, it will say so.
fn link_neighbours(file: &Path, folder: &Path) {
    // The folder of the name as given: a plugin may be a link into a store, but its neighbours are where it is named.
    let Some(parent) = std::path::absolute(file)
        .ok()
        .and_then(|file| file.parent().map(Path::to_owned))
    else {
        return;
    };
    let Ok(entries) = std::fs::read_dir(&parent) else {
        return;
    };
    // Libraries first: where there are too many files, they are what is missed most.
    let mut entries: Vec<_> = entries.flatten().collect();
    entries.sort_by_key(|entry| !entry.file_name().to_string_lossy().contains(".so"));
    let mut linked = 0;
    for entry in entries {
        let name = entry.file_name();
        // A scratch folder in the plugin's folder is no neighbour.
        if Some(name.as_os_str()) == file.file_name() || name.to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        if linked == MOST_NEIGHBOURS {
            log::warn!(
                "more than {MOST_NEIGHBOURS} files beside the plugin {}: it will not find all of them by $ORIGIN",
                file.display()
            );
            return;
        }
        if std::os::unix::fs::symlink(entry.path(), folder.join(&name)).is_ok() {
            linked += 1;
        }
    }
}

/// Whether a folder was made so long ago that no server is still starting with it.
fn is_old(metadata: &Metadata) -> bool {
    let modified = Duration::from_secs(u64::try_from(metadata.mtime()).unwrap_or_default());
    clock::unix_time().saturating_sub(modified) > Duration::from_secs(3600)
}

/// Removes scratch folders in `parent` that no living process has locked. Nothing here is worth failing for.
fn remove_abandoned(parent: &Path) {
    let Ok(entries) = std::fs::read_dir(parent) else {
        return;
    };
    let own = rustix::process::geteuid().as_raw();
    for entry in entries.flatten() {
        // `DirEntry::metadata` does not follow links: another user's link in a shared folder leads nowhere.
        let name = entry.file_name().to_string_lossy().into_owned();
        let ours = entry.metadata().is_ok_and(|metadata| {
            // One that has no lock yet is another server's that is starting, or what is left of one that was killed then.
            let named = name.starts_with(PREFIX) || name.starts_with(UNLOCKED_PREFIX) && is_old(&metadata);
            named && metadata.is_dir() && metadata.uid() == own
        });
        if !ours {
            continue;
        }
        let folder = entry.path();
        let Ok(lock) = File::open(&folder) else {
            continue;
        };
        if lock.try_lock().is_err() {
            continue;
        }
        match std::fs::remove_dir_all(&folder) {
            Ok(()) => log::info!("removed the scratch folder {} of a dead server", folder.display()),
            Err(error) => log::warn!("cannot remove the scratch folder {}: {error}", folder.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().expect("a temporary folder")
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).expect("folder is readable");
        let mut names: Vec<String> = entries
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn every_copy_has_a_path_of_its_own_that_is_never_reused() {
        let (parent, plugins) = (folder(), folder());
        let file = plugins.path().join("libplugin.so");
        std::fs::write(&file, "one").expect("file is written");
        let scratch = Scratch::new(parent.path()).expect("scratch");
        let first = scratch.copy(&file).expect("copy");
        let first_path = first.file().to_owned();
        std::fs::write(&file, "two").expect("file is overwritten");
        assert_eq!(std::fs::read(&first_path).expect("copy is read"), b"one");
        drop(first);
        assert!(!first_path.exists());
        let second = scratch.copy(&file).expect("copy");
        assert_ne!(second.file(), first_path);
        assert_eq!(std::fs::read(second.file()).expect("copy is read"), b"two");
    }

    #[test]
    fn neighbours_are_reachable_beside_the_copy() {
        let (parent, plugins) = (folder(), folder());
        let file = plugins.path().join("libplugin.so");
        std::fs::write(&file, "plugin").expect("file is written");
        std::fs::write(plugins.path().join("libneighbour.so.1"), "neighbour").expect("file is written");
        let scratch = Scratch::new(parent.path()).expect("scratch");
        let copy = scratch.copy(&file).expect("copy");
        let beside = copy.file().with_file_name("libneighbour.so.1");
        assert_eq!(std::fs::read(beside).expect("neighbour is read"), b"neighbour");
        drop(copy);
        assert_eq!(names(plugins.path()), ["libneighbour.so.1", "libplugin.so"]);
    }

    #[test]
    fn the_scratch_folder_goes_with_its_last_copy() {
        let (parent, plugins) = (folder(), folder());
        let file = plugins.path().join("libplugin.so");
        std::fs::write(&file, "plugin").expect("file is written");
        let scratch = Scratch::new(parent.path()).expect("scratch");
        let copy = scratch.copy(&file).expect("copy");
        drop(scratch);
        assert!(copy.file().exists());
        drop(copy);
        assert_eq!(names(parent.path()), [""; 0]);
    }

    #[test]
    fn the_folder_of_a_dead_server_is_removed_and_that_of_a_living_one_is_not() {
        let parent = folder();
        let dead = parent.path().join(format!("{PREFIX}1-dead"));
        std::fs::create_dir_all(dead.join("generation-1")).expect("folder is made");
        let foreign = parent.path().join("inference");
        std::fs::create_dir(&foreign).expect("folder is made");
        let living = Scratch::new(parent.path()).expect("scratch");
        let other = Scratch::new(parent.path()).expect("scratch");
        assert!(!dead.exists());
        assert!(foreign.exists());
        assert!(living.folder.exists());
        assert!(other.folder.exists());
    }

    #[test]
    fn a_missing_scratch_parent_is_named() {
        let parent = folder();
        let error = Scratch::new(&parent.path().join("absent")).expect_err("there is no such folder");
        assert!(error.to_string().contains("absent"), "{error}");
    }
}
