//! Which files a model comes from, and whether they are still the same ones.

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde_json::Value as Json;

use crate::config::ModelSettings;

/// The plugin and every file that a string in the settings names, with what a rebuild or replacement changes. Of a folder
/// that the settings name, the files directly in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Fingerprint(BTreeMap<PathBuf, FileFacts>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileFacts {
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

impl Fingerprint {
    /// Looks at the files of a model. A file that cannot be looked at is left out: loading will say what is wrong with it.
    pub(super) fn of(settings: &ModelSettings) -> Self {
        let mut fingerprint = Self::default();
        fingerprint.add(&settings.plugin);
        fingerprint.add_named_in(&settings.settings, &settings.base_dir);
        fingerprint
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
                    self.0.insert(entry.path(), FileFacts::from(&metadata));
                }
            }
        } else if metadata.is_file() {
            self.0.insert(path.to_owned(), FileFacts::from(&metadata));
        }
    }
}
