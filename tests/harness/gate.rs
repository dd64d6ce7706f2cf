//! A gate in the form of a file: the plugin `misbehave` blocks each batch until the file exists.

use std::path::PathBuf;

/// A gate, which is closed until it is opened.
pub(crate) struct Gate {
    path: PathBuf,
}

impl Gate {
    /// Creates a closed gate at this path.
    pub(crate) fn at(path: PathBuf) -> Self {
        assert!(!path.exists(), "{} is a gate already", path.display());
        Self { path }
    }

    /// Opens the gate permanently.
    pub(crate) fn open(&self) {
        std::fs::write(&self.path, "open").expect("write the file of the gate");
    }
}
