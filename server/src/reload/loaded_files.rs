//! Keeps the files that a model was loaded from, for worker processes that start later.
//!
//! A process that replaces another one loads the model again. If a file was edited in the meantime, for example for a reload
//! that was rejected, the process must not load the edit. Therefore the files that settings name and those that the model
//! reports are recorded. Small files are copied; larger ones are cloned if the file system can share their blocks. If a file
//! has changed when a process starts, the process gets a copy of the configuration's directory that contains the original
//! files. If a changed file cannot be restored, the process is not started.
//!
//! Not covered are files that the model reads without reporting them, and deleted files: if one is missing, loading fails.

use std::any::Any;
use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Component, Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value as Json;

use super::fingerprint::{FileIdentity, Fingerprint, last_change};
use crate::config::ModelSettings;
use crate::isolation::{ChangedFiles, ModelFiles};

/// Maximum size of a file that is copied.
const MAX_COPY: u64 = 16 << 20;
/// Maximum total size of the copies for one model.
const MAX_COPIES: u64 = 64 << 20;

/// The files of one generation of a model.
pub(super) struct LoadedFiles {
    /// The copy of the plugin, which every process opens.
    _plugin: Box<dyn Any + Send + Sync>,
    /// Directory of the kept and restored files. It is removed with the copy of the plugin.
    directory: PathBuf,
    model: String,
    base_dir: PathBuf,
    /// Absolute paths in the settings. A process would open these files instead of their copies.
    absolute: Vec<PathBuf>,
    /// Time since 1970 at which the load began.
    since: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    files: BTreeMap<PathBuf, LoadedFile>,
    copied_bytes: u64,
    /// Directories with restored files. Each is listed with the changed files that it was created for.
    restored: Vec<(Vec<PathBuf>, PathBuf)>,
}

/// A file at the time of the load.
struct LoadedFile {
    identity: FileIdentity,
    kept: Option<KeptCopy>,
}

/// A copy of a file.
struct KeptCopy {
    /// Its path relative to the configuration's directory.
    relative: PathBuf,
    copy: PathBuf,
    identity: FileIdentity,
}

impl LoadedFiles {
    /// Records the files that the settings name, which are about to be loaded. Copies are kept in `directory`, which must be
    /// removed together with `plugin`.
    pub(super) fn before_load(
        settings: &ModelSettings,
        directory: PathBuf,
        plugin: Box<dyn Any + Send + Sync>,
        since: Duration,
    ) -> Self {
        let files = Self {
            _plugin: plugin,
            directory,
            model: settings.name.clone(),
            base_dir: settings.base_dir.clone(),
            absolute: absolute_paths(&settings.settings),
            since,
            state: Mutex::default(),
        };
        let mut state = files.lock();
        for path in Fingerprint::of(settings).named_files() {
            // The plugin has its own copy.
            if *path != settings.plugin {
                files.record(&mut state, path);
            }
        }
        drop(state);
        files
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record(&self, state: &mut State, path: &Path) {
        let Ok(metadata) = fs::metadata(path) else {
            return;
        };
        let kept = self
            .relative_path(path)
            .and_then(|relative| self.keep_copy(state, path, relative, &metadata));
        let identity = FileIdentity::from(&metadata);
        state.files.insert(path.to_owned(), LoadedFile { identity, kept });
    }

    /// The path of a file relative to the configuration's directory. `None` if the file is reached in another way, such as by
    /// an absolute path or through a link, because then a process would not find its copy.
    fn relative_path(&self, path: &Path) -> Option<PathBuf> {
        if self.absolute.iter().any(|named| path.starts_with(named)) {
            return None;
        }
        let base = fs::canonicalize(&self.base_dir).ok()?;
        let relative = path
            .strip_prefix(&self.base_dir)
            .or_else(|_| path.strip_prefix(&base))
            .ok()?;
        let is_normal = relative
            .components()
            .all(|component| matches!(component, Component::Normal(_)));
        (is_normal && fs::canonicalize(path).ok()? == base.join(relative)).then(|| relative.to_owned())
    }

    fn keep_copy(
        &self,
        state: &mut State,
        path: &Path,
        relative: PathBuf,
        metadata: &Metadata,
    ) -> Option<KeptCopy> {
        let directory = self.directory.join("kept");
        fs::create_dir_all(&directory).ok()?;
        let copy = directory.join(state.files.len().to_string());
        let length = metadata.len();
        if length <= MAX_COPY && state.copied_bytes + length <= MAX_COPIES {
            fs::copy(path, &copy).ok()?;
            state.copied_bytes += length;
        } else {
            clone(path, &copy).ok()?;
        }
        let identity = FileIdentity::from(&fs::metadata(&copy).ok()?);
        Some(KeptCopy {
            relative,
            copy,
            identity,
        })
    }

    /// Logs the names of the files. The returned error is shown to clients, so it does not contain paths.
    fn cannot_restore(&self, files: &[PathBuf], why: &str) -> ChangedFiles {
        log::error!(
            "model `{}`: these files changed after it was loaded: {}; a worker process cannot start from the original files: {why}; \
             reload the configuration to load the new ones",
            self.model,
            list(files)
        );
        ChangedFiles
    }

    /// Creates a directory like the configuration's that contains the original files, and links to all other files.
    fn restore(&self, state: &mut State, changed: Vec<PathBuf>) -> io::Result<PathBuf> {
        if let Some((_, directory)) = state.restored.iter().find(|(files, _)| *files == changed) {
            return Ok(directory.clone());
        }
        let directory = self
            .directory
            .join(format!("restored-{}", state.restored.len() + 1));
        fs::create_dir_all(&self.directory)?;
        // Restores unchanged files as well: a module finds its neighbors by its own location, and they may have changed.
        for kept in state.files.values().filter_map(|file| file.kept.as_ref()) {
            self.create_parents(&directory, &kept.relative)?;
            let target = directory.join(&kept.relative);
            // Two paths may lead to the same file, in which case a link to the current file exists already.
            let _ = fs::remove_file(&target);
            link_or_copy(&kept.copy, &target)?;
        }
        state.restored.push((changed, directory.clone()));
        Ok(directory)
    }

    /// Creates the parent directories of `relative`, with links to everything else in them.
    fn create_parents(&self, directory: &Path, relative: &Path) -> io::Result<()> {
        let mut inside = PathBuf::new();
        let parents = relative.parent().unwrap_or(Path::new("")).components();
        let steps = std::iter::once(None).chain(parents.map(Some));
        for step in steps {
            if let Some(component) = step {
                inside.push(component);
            }
            let own = directory.join(&inside);
            if own.is_symlink() {
                fs::remove_file(&own)?;
            } else if own.is_dir() {
                continue;
            }
            fs::create_dir(&own)?;
            let original = std::path::absolute(self.base_dir.join(&inside))?;
            for entry in fs::read_dir(&original)?.flatten() {
                symlink(entry.path(), own.join(entry.file_name()))?;
            }
        }
        Ok(())
    }
}

/// Copies a file by sharing its blocks. A hard link would follow edits in place.
fn clone(from: &Path, to: &Path) -> io::Result<()> {
    let target = fs::File::create_new(to)?;
    let cloned = rustix::fs::ioctl_ficlone(&target, fs::File::open(from)?);
    Ok(cloned.inspect_err(|_| drop(fs::remove_file(to)))?)
}

/// Not a symbolic link: Python resolves these and would search for neighbors next to the kept copy.
fn link_or_copy(kept: &Path, target: &Path) -> io::Result<()> {
    fs::hard_link(kept, target).or_else(|_| fs::copy(kept, target).map(drop))
}

impl ModelFiles for LoadedFiles {
    fn loaded(&self, reported: &[PathBuf]) {
        let mut state = self.lock();
        // If a file changed during the load, it is unknown which content was read.
        state
            .files
            .retain(|path, file| is_unchanged(path, file.identity) != Some(false));
        for path in reported {
            let is_stable = fs::metadata(path).is_ok_and(|metadata| last_change(&metadata) < self.since);
            if is_stable && !state.files.contains_key(path) {
                self.record(&mut state, path);
            }
        }
    }

    fn directory(&self) -> Result<Option<PathBuf>, ChangedFiles> {
        let mut state = self.lock();
        let changed: Vec<PathBuf> = state
            .files
            .iter()
            .filter(|(path, file)| is_unchanged(path, file.identity) == Some(false))
            .map(|(path, _)| path.clone())
            .collect();
        if changed.is_empty() {
            return Ok(None);
        }
        let unrestorable: Vec<PathBuf> = changed
            .iter()
            .filter(|path| {
                let kept = state.files.get(*path).and_then(|file| file.kept.as_ref());
                kept.is_none_or(|kept| is_unchanged(&kept.copy, kept.identity) != Some(true))
            })
            .cloned()
            .collect();
        if !unrestorable.is_empty() {
            return Err(self.cannot_restore(&unrestorable, "the server has no copies of them"));
        }
        let names = list(&changed);
        let restored = self.restore(&mut state, changed.clone());
        let directory = restored.map_err(|error| self.cannot_restore(&changed, &error.to_string()))?;
        log::warn!(
            "model `{}`: these files changed after it was loaded: {names}; a worker process starts from copies of the original \
             files; reload the configuration to load the new ones",
            self.model
        );
        Ok(Some(directory))
    }

    fn check(&self, reported: &[PathBuf]) -> Result<(), ChangedFiles> {
        let state = self.lock();
        let has_changed = |path: &&PathBuf| {
            let file = state.files.get(*path);
            file.is_some_and(|file| is_unchanged(path, file.identity) == Some(false))
        };
        let files: Vec<PathBuf> = reported.iter().filter(has_changed).cloned().collect();
        if files.is_empty() {
            return Ok(());
        }
        Err(self.cannot_restore(
            &files,
            "the model does not access them through the configuration's directory",
        ))
    }
}

/// The strings in the settings that are absolute paths.
fn absolute_paths(settings: &Json) -> Vec<PathBuf> {
    match settings {
        Json::String(text) if text.starts_with('/') => vec![PathBuf::from(text)],
        Json::Array(values) => values.iter().flat_map(absolute_paths).collect(),
        Json::Object(members) => members.values().flat_map(absolute_paths).collect(),
        _ => Vec::new(),
    }
}

fn list(files: &[PathBuf]) -> String {
    let names: Vec<String> = files.iter().map(|path| path.display().to_string()).collect();
    names.join(", ")
}

/// Whether a file is unchanged. `None` if it does not exist.
fn is_unchanged(path: &Path, identity: FileIdentity) -> Option<bool> {
    let metadata = fs::metadata(path).ok()?;
    Some(FileIdentity::from(&metadata) == identity)
}

#[cfg(test)]
mod tests;
