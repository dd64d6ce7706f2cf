//! The files that a model was loaded from, as processes find them that are started later.
//!
//! A process that replaces another one loads the model again. If a file was edited in the meantime, for example for a reload
//! that was rejected, it must not load the edit. So the files that settings name and those that the model reports are
//! remembered, and small ones are copied; larger ones are cloned, where the file system can share their blocks. If a file
//! has changed when a process is started, the process finds the files as they were in a copy of the configuration's
//! directory. If a changed file cannot be restored, the process is not started.
//!
//! Not covered are files that the model reads and does not report, and deleted files: without one, a load fails by itself.

use std::any::Any;
use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Component, Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value as Json;

use super::fingerprint::{FileFacts, Fingerprint, touched};
use crate::config::ModelSettings;
use crate::isolation::{ChangedFiles, ModelFiles};

/// Maximum length of a file that is copied.
const MAX_COPY: u64 = 16 << 20;
/// Maximum length of all copies of one model.
const MAX_COPIES: u64 = 64 << 20;

/// See the module.
pub(super) struct LoadedFiles {
    /// The copy of the plugin, which every process opens.
    _plugin: Box<dyn Any + Send + Sync>,
    /// For what is kept. It goes with the copy of the plugin.
    folder: PathBuf,
    model: String,
    base_dir: PathBuf,
    /// What settings name by an absolute path, which leads to the file itself and never to a copy.
    absolute: Vec<PathBuf>,
    /// Time since 1970 at which the load began.
    since: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    files: BTreeMap<PathBuf, Known>,
    copied_bytes: u64,
    /// Directories with restored files, with the files that each restores.
    restored: Vec<(Vec<PathBuf>, PathBuf)>,
}

/// A file as it was loaded.
struct Known {
    facts: FileFacts,
    kept: Option<Kept>,
}

/// What is kept of a file.
struct Kept {
    /// Where it is, relative to the configuration's directory.
    place: PathBuf,
    copy: PathBuf,
    facts: FileFacts,
}

impl LoadedFiles {
    /// Remembers the files that the settings name, which are about to be loaded. What is kept of them goes to `folder`,
    /// which has to be removed with `plugin`.
    pub(super) fn before_load(
        settings: &ModelSettings,
        folder: PathBuf,
        plugin: Box<dyn Any + Send + Sync>,
        since: Duration,
    ) -> Self {
        let files = Self {
            _plugin: plugin,
            folder,
            model: settings.name.clone(),
            base_dir: settings.base_dir.clone(),
            absolute: absolute_paths(&settings.settings),
            since,
            state: Mutex::default(),
        };
        let mut state = files.lock();
        for path in Fingerprint::of(settings).named_files() {
            // The plugin has been copied already.
            if *path != settings.plugin {
                files.remember(&mut state, path);
            }
        }
        drop(state);
        files
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remember(&self, state: &mut State, path: &Path) {
        let Ok(metadata) = fs::metadata(path) else {
            return;
        };
        let kept = self
            .place_of(path)
            .and_then(|place| self.keep(state, path, place, &metadata));
        let facts = FileFacts::from(&metadata);
        state.files.insert(path.to_owned(), Known { facts, kept });
    }

    /// Where a file is in the configuration's directory. `None` if it is found by another way, such as an absolute path or
    /// a link that leads elsewhere: then a process would not find its copy.
    fn place_of(&self, path: &Path) -> Option<PathBuf> {
        if self.absolute.iter().any(|named| path.starts_with(named)) {
            return None;
        }
        let base = fs::canonicalize(&self.base_dir).ok()?;
        let place = path
            .strip_prefix(&self.base_dir)
            .or_else(|_| path.strip_prefix(&base))
            .ok()?;
        let plain = place
            .components()
            .all(|component| matches!(component, Component::Normal(_)));
        (plain && fs::canonicalize(path).ok()? == base.join(place)).then(|| place.to_owned())
    }

    fn keep(&self, state: &mut State, path: &Path, place: PathBuf, metadata: &Metadata) -> Option<Kept> {
        let folder = self.folder.join("kept");
        fs::create_dir_all(&folder).ok()?;
        let copy = folder.join(state.files.len().to_string());
        let length = metadata.len();
        if length <= MAX_COPY && state.copied_bytes + length <= MAX_COPIES {
            fs::copy(path, &copy).ok()?;
            state.copied_bytes += length;
        } else {
            clone(path, &copy).ok()?;
        }
        let facts = FileFacts::from(&fs::metadata(&copy).ok()?);
        Some(Kept { place, copy, facts })
    }

    /// Names the files in the log; the error is also seen by clients, which learn no paths.
    fn cannot_restore(&self, files: &[PathBuf], why: &str) -> ChangedFiles {
        log::error!(
            "model `{}`: these files changed since it was loaded: {}; its process cannot start from the loaded ones, as {why}; \
             reload the configuration to load the new ones",
            self.model,
            listed(files)
        );
        ChangedFiles
    }

    /// A directory like the configuration's in which known files are as they were loaded, and all others are links.
    fn restore(&self, state: &mut State, changed: Vec<PathBuf>) -> io::Result<PathBuf> {
        if let Some((_, folder)) = state.restored.iter().find(|(files, _)| *files == changed) {
            return Ok(folder.clone());
        }
        let folder = self.folder.join(format!("restored-{}", state.restored.len() + 1));
        fs::create_dir_all(&self.folder)?;
        // All of them: a module that did not change finds its neighbors beside it, and they may have.
        for kept in state.files.values().filter_map(|known| known.kept.as_ref()) {
            self.link_on_the_way(&folder, &kept.place)?;
            let place = folder.join(&kept.place);
            // Two names may lead to the same file, and the link to the live one has been made already.
            let _ = fs::remove_file(&place);
            link_or_copy(&kept.copy, &place)?;
        }
        state.restored.push((changed, folder.clone()));
        Ok(folder)
    }

    /// Makes the directories down to `place` real ones, with links to everything else in them.
    fn link_on_the_way(&self, folder: &Path, place: &Path) -> io::Result<()> {
        let mut inside = PathBuf::new();
        let parents = place.parent().unwrap_or(Path::new("")).components();
        let steps = std::iter::once(None).chain(parents.map(Some));
        for step in steps {
            if let Some(component) = step {
                inside.push(component);
            }
            let own = folder.join(&inside);
            if own.is_symlink() {
                fs::remove_file(&own)?;
            } else if own.is_dir() {
                continue;
            }
            fs::create_dir(&own)?;
            let live = std::path::absolute(self.base_dir.join(&inside))?;
            for entry in fs::read_dir(&live)?.flatten() {
                symlink(entry.path(), own.join(entry.file_name()))?;
            }
        }
        Ok(())
    }
}

/// A copy that shares its blocks with the file. A hard link would be changed by an edit in place.
fn clone(from: &Path, to: &Path) -> io::Result<()> {
    let target = fs::File::create_new(to)?;
    let cloned = rustix::fs::ioctl_ficlone(&target, fs::File::open(from)?);
    Ok(cloned.inspect_err(|_| drop(fs::remove_file(to)))?)
}

/// No symbolic link: Python resolves these, and would look for neighbors beside the kept copy.
fn link_or_copy(kept: &Path, place: &Path) -> io::Result<()> {
    fs::hard_link(kept, place).or_else(|_| fs::copy(kept, place).map(drop))
}

impl ModelFiles for LoadedFiles {
    fn loaded(&self, reported: &[PathBuf]) {
        let mut state = self.lock();
        // What was touched during the load may have been read before or after that.
        state
            .files
            .retain(|path, known| is_as(path, known.facts) != Some(false));
        for path in reported {
            let settled = fs::metadata(path).is_ok_and(|metadata| touched(&metadata) < self.since);
            if settled && !state.files.contains_key(path) {
                self.remember(&mut state, path);
            }
        }
    }

    fn directory(&self) -> Result<Option<PathBuf>, ChangedFiles> {
        let mut state = self.lock();
        let changed: Vec<PathBuf> = state
            .files
            .iter()
            .filter(|(path, known)| is_as(path, known.facts) == Some(false))
            .map(|(path, _)| path.clone())
            .collect();
        if changed.is_empty() {
            return Ok(None);
        }
        let lost: Vec<PathBuf> = changed
            .iter()
            .filter(|path| {
                let kept = state.files.get(*path).and_then(|known| known.kept.as_ref());
                kept.is_none_or(|kept| is_as(&kept.copy, kept.facts) != Some(true))
            })
            .cloned()
            .collect();
        if !lost.is_empty() {
            return Err(self.cannot_restore(&lost, "no copy of them was kept"));
        }
        let names = listed(&changed);
        let restored = self.restore(&mut state, changed.clone());
        let folder = restored.map_err(|error| self.cannot_restore(&changed, &error.to_string()))?;
        log::warn!(
            "model `{}`: these files changed since it was loaded: {names}; its process starts from copies of the loaded ones, \
             and a reload loads the new ones",
            self.model
        );
        Ok(Some(folder))
    }

    fn check(&self, reported: &[PathBuf]) -> Result<(), ChangedFiles> {
        let state = self.lock();
        let is_changed = |path: &&PathBuf| {
            let known = state.files.get(*path);
            known.is_some_and(|known| is_as(path, known.facts) == Some(false))
        };
        let files: Vec<PathBuf> = reported.iter().filter(is_changed).cloned().collect();
        if files.is_empty() {
            return Ok(());
        }
        Err(self.cannot_restore(
            &files,
            "the model finds them by another way than the configuration's directory",
        ))
    }
}

/// All texts in the settings that are absolute paths.
fn absolute_paths(settings: &Json) -> Vec<PathBuf> {
    match settings {
        Json::String(text) if text.starts_with('/') => vec![PathBuf::from(text)],
        Json::Array(values) => values.iter().flat_map(absolute_paths).collect(),
        Json::Object(members) => members.values().flat_map(absolute_paths).collect(),
        _ => Vec::new(),
    }
}

fn listed(files: &[PathBuf]) -> String {
    let names: Vec<String> = files.iter().map(|path| path.display().to_string()).collect();
    names.join(", ")
}

/// Whether a file is as it was. `None` if it is gone.
fn is_as(path: &Path, facts: FileFacts) -> Option<bool> {
    let metadata = fs::metadata(path).ok()?;
    Some(FileFacts::from(&metadata) == facts)
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::clock;
    use crate::config::{Facts, Overrides, Source, resolve};

    const HOUR: Duration = Duration::from_secs(3600);

    /// A configuration's directory with a file `weights`, a package with a module, and a file that nothing names.
    struct Scenario {
        dir: TempDir,
        scratch: TempDir,
    }

    impl Scenario {
        fn new() -> Self {
            let scenario = Self {
                dir: tempfile::tempdir().expect("there is room"),
                scratch: tempfile::tempdir().expect("there is room"),
            };
            fs::create_dir(scenario.path("package")).expect("there is room");
            for file in ["weights", "package/module.py", "package/data", "unnamed"] {
                scenario.write(file, "old");
            }
            scenario
        }

        fn path(&self, file: &str) -> PathBuf {
            self.dir.path().join(file)
        }

        /// In place, as an editor that keeps the file does.
        fn write(&self, file: &str, text: &str) {
            fs::write(self.path(file), text).expect("there is room");
        }

        fn replace(&self, file: &str, text: &str) {
            let new = self.path("new");
            fs::write(&new, text).expect("there is room");
            fs::rename(new, self.path(file)).expect("there is room");
        }

        fn load(&self, settings: &str, reported: &[&str]) -> LoadedFiles {
            let source = Source {
                file_name: "models.toml",
                text: &format!("[[models]]\nname = 'm'\nplugin = 'a'\n[models.settings]\n{settings}\n"),
                base_dir: self.dir.path(),
            };
            let facts = Facts {
                executable_dir: PathBuf::from("/opt"),
                cores: std::num::NonZeroUsize::MIN,
                temp_dir: PathBuf::from("/tmp"),
            };
            let settings = resolve(source, &BTreeMap::new(), &Overrides::none(), &facts);
            let settings = settings.expect("the configuration is valid").models.remove(0);
            let (folder, since) = (self.scratch.path().join("files"), clock::unix_time() + HOUR);
            let files = LoadedFiles::before_load(&settings, folder, Box::new(()), since);
            let base = fs::canonicalize(self.dir.path()).expect("it exists");
            let reported: Vec<PathBuf> = reported.iter().map(|file| base.join(file)).collect();
            files.loaded(&reported);
            files
        }
    }

    fn read(folder: &Path, file: &str) -> String {
        fs::read_to_string(folder.join(file)).expect("it is there")
    }

    #[test]
    fn files_that_did_not_change_are_loaded_from_where_they_are() {
        let scenario = Scenario::new();
        let files = scenario.load("file = 'weights'", &["package/module.py"]);
        scenario.write("unnamed", "new");
        assert_eq!(files.directory(), Ok(None));
    }

    #[test]
    fn files_that_were_edited_are_restored_among_all_others() {
        let scenario = Scenario::new();
        let files = scenario.load("file = 'weights'", &["package/module.py"]);
        scenario.write("weights", "edited");
        scenario.replace("package/module.py", "edited");
        scenario.write("unnamed", "edited");
        let folder = files
            .directory()
            .expect("there are copies")
            .expect("files have changed");
        assert_eq!(read(&folder, "weights"), "old");
        assert_eq!(read(&folder, "package/module.py"), "old");
        assert_eq!(read(&folder, "package/data"), "old");
        assert_eq!(read(&folder, "unnamed"), "edited");
        let module = fs::canonicalize(folder.join("package/module.py")).expect("it is there");
        assert!(
            module.starts_with(fs::canonicalize(&folder).expect("it is there")),
            "{module:?}"
        );
        assert_eq!(files.directory(), Ok(Some(folder.clone())), "it is used again");
        assert_eq!(read(scenario.dir.path(), "weights"), "edited", "the edit stays");
        assert_eq!(files.check(&[folder.join("package/module.py")]), Ok(()));
        let live = fs::canonicalize(scenario.path("package/module.py")).expect("it is there");
        assert_eq!(
            files.check(&[live]),
            Err(ChangedFiles),
            "it was read all the same"
        );
    }

    #[test]
    fn a_file_in_a_directory_that_settings_name_is_restored() {
        let scenario = Scenario::new();
        let files = scenario.load("folder = 'package'", &[]);
        scenario.write("package/data", "edited");
        let folder = files
            .directory()
            .expect("there are copies")
            .expect("a file has changed");
        assert_eq!(read(&folder, "package/data"), "old");
    }

    #[test]
    fn a_file_that_is_not_found_by_the_directory_cannot_be_restored() {
        let scenario = Scenario::new();
        let files = scenario.load(&format!("file = '{}'", scenario.path("weights").display()), &[]);
        assert_eq!(files.directory(), Ok(None));
        scenario.write("weights", "edited");
        assert_eq!(files.directory(), Err(ChangedFiles));
    }

    #[test]
    fn an_edit_of_a_large_file_is_undone_where_files_can_be_cloned_and_else_an_error() {
        let scenario = Scenario::new();
        let weights = fs::File::create(scenario.path("weights")).expect("there is room");
        weights.set_len(MAX_COPY + 1).expect("it is sparse");
        let files = scenario.load("file = 'weights'", &[]);
        scenario.write("weights", "edited");
        match files.directory() {
            Ok(folder) => {
                let folder = folder.expect("the edit is noticed");
                let restored = fs::metadata(folder.join("weights")).expect("it is there");
                assert_eq!(restored.len(), MAX_COPY + 1);
            }
            Err(error) => assert_eq!(error, ChangedFiles),
        }
    }

    #[test]
    fn a_file_that_is_gone_is_left_to_the_load_to_complain_of() {
        let scenario = Scenario::new();
        let files = scenario.load("file = 'weights'", &[]);
        fs::remove_file(scenario.path("weights")).expect("it is there");
        assert_eq!(files.directory(), Ok(None));
    }

    #[test]
    fn a_file_that_was_touched_during_the_load_is_not_known_and_not_compared() {
        let scenario = Scenario::new();
        let files = scenario.load("file = 'weights'", &[]);
        scenario.write("weights", "during the load");
        files.loaded(&[]);
        scenario.write("weights", "after it");
        assert_eq!(files.directory(), Ok(None));
    }
}
