//! Which files a model comes from, and whether they are still the same ones.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value as Json;

use crate::config::ModelSettings;

/// The files of a model, with what a rebuild or replacement changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Fingerprint {
    /// The plugin and every file that a string in the settings names. Of a folder that the settings name, the files
    /// directly in it.
    named: BTreeMap<PathBuf, FileFacts>,
    /// Those that the loaded model has reported; none where there was no telling which content it has read.
    reported: BTreeMap<PathBuf, Option<FileFacts>>,
}

/// What a change of a file changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileFacts {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
}

impl From<&Metadata> for FileFacts {
    fn from(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }
}

/// Most files of one folder that are looked at.
const FOLDER_LIMIT: usize = 1000;
/// Most files that a model may report.
const REPORT_LIMIT: usize = 10_000;

impl Fingerprint {
    /// Looks at the files of a model. A file that cannot be looked at is left out: loading will say what is wrong with it.
    pub(super) fn of(settings: &ModelSettings) -> Self {
        let mut fingerprint = Self::default();
        fingerprint.add(&settings.plugin);
        fingerprint.add_named_in(&settings.settings, &settings.base_dir);
        fingerprint
    }

    /// The plugin and the files that settings name.
    pub(super) fn named_files(&self) -> impl Iterator<Item = &PathBuf> {
        self.named.keys()
    }

    /// With the files that a model has reported, as they are now.
    pub(super) fn with(self, reported: &[PathBuf]) -> Self {
        self.with_those(reported, |_| true)
    }

    /// With the files that a model has reported once it was loaded, which began at `since`. One that was touched meanwhile
    /// may have been read before or after that: whatever it is at the next reload counts as a change.
    pub(super) fn with_loaded(self, reported: &[PathBuf], since: Duration) -> Self {
        self.with_those(reported, |metadata| touched(metadata) < since)
    }

    fn with_those(mut self, reported: &[PathBuf], is_known: impl Fn(&Metadata) -> bool) -> Self {
        let look = |path: &PathBuf| {
            let metadata = std::fs::metadata(path).ok().filter(&is_known);
            (path.clone(), metadata.as_ref().map(FileFacts::from))
        };
        self.reported = reported.iter().take(REPORT_LIMIT).map(look).collect();
        self
    }

    /// The files that are not the same in `other`: changed, added or missing.
    pub(super) fn changed_files(&self, other: &Self) -> Vec<PathBuf> {
        let named = differences(&self.named, &other.named);
        let reported = differences(&self.reported, &other.reported);
        let all: BTreeSet<&PathBuf> = named.chain(reported).collect();
        all.into_iter().cloned().collect()
    }

    fn add_named_in(&mut self, value: &Json, base_dir: &Path) {
        match value {
            Json::String(text) if !text.is_empty() && text.len() < 4096 && !text.contains('\0') => {
                self.add(&base_dir.join(text));
            }
            Json::Array(values) => values.iter().for_each(|value| self.add_named_in(value, base_dir)),
            Json::Object(members) => members
                .values()
                .for_each(|value| self.add_named_in(value, base_dir)),
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
                .take(FOLDER_LIMIT);
            for entry in entries {
                if let Ok(metadata) = std::fs::metadata(entry.path())
                    && metadata.is_file()
                {
                    self.named.insert(entry.path(), FileFacts::from(&metadata));
                }
            }
        } else if metadata.is_file() {
            self.named.insert(path.to_owned(), FileFacts::from(&metadata));
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

/// When a file was last written, replaced or renamed, since 1970.
pub(super) fn touched(metadata: &Metadata) -> Duration {
    Duration::new(
        u64::try_from(metadata.ctime()).unwrap_or_default(),
        u32::try_from(metadata.ctime_nsec()).unwrap_or_default(),
    )
}
