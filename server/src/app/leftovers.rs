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
        // A load that was abandoned may still create files by their paths, which no longer exist once it is renamed.
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
