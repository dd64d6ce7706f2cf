//! Paths, as they are written.

use std::path::{Path, PathBuf};

use crate::config::error::Origin;
use crate::config::section::Located;

/// Resolves relative paths.
pub(super) struct Paths<'a> {
    pub(super) base_dir: &'a Path,
}

impl Paths<'_> {
    /// A directory or a file. Relative paths start at the directory of the file if they are written there, otherwise at the
    /// working directory.
    pub(super) fn directory(&self, written: Located<String>) -> PathBuf {
        match written.origin {
            Origin::File(_) => self.base_dir.join(written.value),
            Origin::Environment(_) | Origin::Flag(_) | Origin::BuiltIn => PathBuf::from(written.value),
        }
    }

    /// The file of a plugin that is given by path, or the files that it can be if it is given by name.
    pub(super) fn plugin(&self, written: &str, plugin_dirs: &[PathBuf]) -> Vec<PathBuf> {
        if written.contains('/') || written.ends_with(".so") {
            vec![self.base_dir.join(written)]
        } else {
            let file = format!("lib{written}.so");
            plugin_dirs
                .iter()
                .map(|directory| directory.join(&file))
                .collect()
        }
    }
}
