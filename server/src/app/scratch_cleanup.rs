//! Removes the scratch directory when the process exits, unless it is killed. The next server removes what a killed one left.

use std::io;
use std::path::{Path, PathBuf};

/// The scratch directory, which is removed on drop, even if an abandoned model still uses it.
pub(super) struct ScratchCleanup(PathBuf);

impl ScratchCleanup {
    pub(super) fn of(scratch_directory: &Path) -> Self {
        Self(scratch_directory.to_owned())
    }
}

impl Drop for ScratchCleanup {
    fn drop(&mut self) {
        // Renamed first, so that an abandoned load cannot create further files in it.
        let mut renamed = self.0.clone().into_os_string();
        renamed.push("-removed");
        let removed = std::fs::rename(&self.0, &renamed).and_then(|()| std::fs::remove_dir_all(&renamed));
        match removed {
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
