//! A gate that a test opens by a file: plugin `misbehave` waits before it while it has a batch.

use std::path::PathBuf;

/// Closed until it is opened.
pub(crate) struct Gate {
    path: PathBuf,
}

impl Gate {
    /// A gate at this path, closed.
    pub(crate) fn at(path: PathBuf) -> Self {
        assert!(!path.exists(), "{} is a gate already", path.display());
        Self { path }
    }

    /// Lets everything pass, from now on.
    pub(crate) fn open(&self) {
        std::fs::write(&self.path, "open").expect("a gate can be opened");
    }
}
