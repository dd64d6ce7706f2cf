//! Removes the scratch directory of this process, whichever way it ends but by being killed. What a killed server leaves is
//! removed by the next one.

use std::io;
use std::path::PathBuf;

use crate::reload::Reloader;

/// The scratch directory. It is removed when this is dropped, even if a model that was abandoned still uses it.
pub(super) struct Leftovers(PathBuf);

impl Leftovers {
    pub(super) fn of(reloader: &Reloader) -> Self {
        Self(reloader.scratch_folder().to_owned())
    }
}

impl Drop for Leftovers {
    fn drop(&mut self) {
        match std::fs::remove_dir_all(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                log::warn!(
                    "cannot remove the scratch directory {}: {error}",
                    self.0.display()
                );
            }
            _ => {}
        }
    }
}
