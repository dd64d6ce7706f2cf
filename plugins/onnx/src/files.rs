//! The files of a model, and whether they have changed since they were read.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The model file and the files with its external data.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Files(Vec<(PathBuf, Version)>);

/// Identifies the content of a file, without reading it.
#[derive(Debug, PartialEq, Eq)]
struct Version {
    device: u64,
    inode: u64,
    size: u64,
    /// Time of the last modification, in seconds and nanoseconds.
    modified: (i64, i64),
}

impl Version {
    fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs::metadata(path)?;
        Ok(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        })
    }
}

impl Files {
    pub(crate) fn new(model: &Path, external: BTreeSet<PathBuf>) -> io::Result<Self> {
        let paths = std::iter::once(model.to_owned()).chain(external);
        let files = paths.map(|path| Version::of(&path).map(|version| (path, version)));
        files.collect::<io::Result<_>>().map(Self)
    }

    /// Size of all files in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.0.iter().map(|(_, version)| version.size).sum()
    }

    /// Whether any file is missing or was modified or replaced after it was read.
    pub(crate) fn have_changed(&self) -> bool {
        let has_changed =
            |(path, version): &(PathBuf, Version)| Version::of(path).ok().as_ref() != Some(version);
        self.0.iter().any(has_changed)
    }
}
