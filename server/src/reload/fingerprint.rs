//! Identifies the files that a model is loaded from, to detect changes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value as Json;

use crate::config::{CalibrationSource, ModelSettings};

/// The files of a model and their identities.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Fingerprint {
    /// The plugin and every file that a string in the settings names. For a directory that the settings name, the files
    /// directly in it.
    named: BTreeMap<PathBuf, FileIdentity>,
    /// The files that the loaded model has reported. `None` if it is unknown which content the model has read.
    reported: BTreeMap<PathBuf, Option<FileIdentity>>,
    /// The file with the costs of its batches, if the configuration names it. The model does not read it.
    calibration: BTreeMap<PathBuf, FileIdentity>,
}

/// Metadata that differs after a file was edited or replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileIdentity {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
}

impl From<&Metadata> for FileIdentity {
    fn from(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }
}

/// Maximum number of files that are considered in one directory.
const MAX_FILES_PER_DIRECTORY: usize = 1000;
/// Maximum number of files that a model can report.
const MAX_REPORTED_FILES: usize = 10_000;

impl Fingerprint {
    /// The fingerprint of a model's current files. Files that cannot be read are omitted; loading the model reports them.
    pub(super) fn of(settings: &ModelSettings) -> Self {
        let mut fingerprint = Self::default();
        fingerprint.add(&settings.plugin);
        fingerprint.add_paths_in(&settings.settings, &settings.base_dir);
        if let Some(CalibrationSource::File(path)) = &settings.calibration
            && let Ok(metadata) = std::fs::metadata(path)
        {
            let identity = FileIdentity::from(&metadata);
            fingerprint.calibration.insert(path.clone(), identity);
        }
        fingerprint
    }

    /// The plugin and the files that the settings name.
    pub(super) fn named_files(&self) -> impl Iterator<Item = &PathBuf> {
        self.named.keys()
    }

    /// Adds the current state of the files that a model has reported.
    pub(super) fn with_reported(self, reported: &[PathBuf]) -> Self {
        self.with_reported_if(reported, |_| true)
    }

    /// Adds the files that a model has reported after a load that began at `since`. If a file changed during the load, it is
    /// unknown which content was read, so it counts as changed at the next reload.
    pub(super) fn with_reported_by_load(self, reported: &[PathBuf], since: Duration) -> Self {
        self.with_reported_if(reported, |metadata| last_change(metadata) < since)
    }

    fn with_reported_if(mut self, reported: &[PathBuf], accept: impl Fn(&Metadata) -> bool) -> Self {
        let identify = |path: &PathBuf| {
            let metadata = std::fs::metadata(path).ok().filter(&accept);
            (path.clone(), metadata.as_ref().map(FileIdentity::from))
        };
        self.reported = reported.iter().take(MAX_REPORTED_FILES).map(identify).collect();
        self
    }

    /// The files that differ in `other`: changed, added or missing.
    pub(super) fn changed_files(&self, other: &Self) -> Vec<PathBuf> {
        let named = differences(&self.named, &other.named);
        let reported = differences(&self.reported, &other.reported);
        let calibration = differences(&self.calibration, &other.calibration);
        let all: BTreeSet<&PathBuf> = named.chain(reported).chain(calibration).collect();
        all.into_iter().cloned().collect()
    }

    fn add_paths_in(&mut self, value: &Json, base_dir: &Path) {
        match value {
            Json::String(text) if !text.is_empty() && text.len() < 4096 && !text.contains('\0') => {
                self.add(&base_dir.join(text));
            }
            Json::Array(values) => values.iter().for_each(|value| self.add_paths_in(value, base_dir)),
            Json::Object(members) => members
                .values()
                .for_each(|value| self.add_paths_in(value, base_dir)),
            _ => {}
        }
    }

    fn add(&mut self, path: &Path) {
        let Ok(metadata) = std::fs::metadata(path) else {
            return;
        };
        if metadata.is_dir() {
            let entries = std::fs::read_dir(path)
                .into_iter()
                .flatten()
                .flatten()
                .take(MAX_FILES_PER_DIRECTORY);
            for entry in entries {
                if let Ok(metadata) = std::fs::metadata(entry.path())
                    && metadata.is_file()
                {
                    self.named.insert(entry.path(), FileIdentity::from(&metadata));
                }
            }
        } else if metadata.is_file() {
            self.named.insert(path.to_owned(), FileIdentity::from(&metadata));
        }
    }
}

/// The keys whose values differ.
fn differences<'a, K: Ord, V: PartialEq>(
    a: &'a BTreeMap<K, V>,
    b: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = &'a K> {
    let keys = a.keys().chain(b.keys().filter(|key| !a.contains_key(key)));
    keys.filter(|key| a.get(key) != b.get(key))
}

/// Time since 1970 at which a file was last written, replaced or renamed.
pub(super) fn last_change(metadata: &Metadata) -> Duration {
    Duration::new(
        u64::try_from(metadata.ctime()).unwrap_or_default(),
        u32::try_from(metadata.ctime_nsec()).unwrap_or_default(),
    )
}
