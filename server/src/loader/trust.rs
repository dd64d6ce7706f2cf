//! What must hold for a plugin's file before any of its code runs: that other users cannot change it, or that it has the
//! expected content.
//!
//! The directories of the file are not checked: who can write to a directory can replace the file. Volumes of containers are
//! often writable by everyone, although nobody else is there. The expected content (`sha256`) covers that case.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::digest::Digest;

/// The requirements for a plugin's file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileTrust {
    /// The digest of the file. If it is set, it does not matter who can write to the file.
    pub sha256: Option<Digest>,
    /// Whether other users can be allowed to write to the file.
    pub allow_writable: bool,
}

/// Why a file is not loaded.
#[derive(Debug, thiserror::Error)]
pub enum UntrustedFile {
    /// Other users can change it.
    #[error(
        "{who} can change the file (mode {mode:o}, owner {owner}, group {group}): run `chmod {fix}` on it, pin it with `sha256`, or set `allow_writable_plugins = true` in [server]"
    )]
    Writable {
        /// Who can write to it.
        who: &'static str,
        /// Its permissions.
        mode: u32,
        /// ID of the owner.
        owner: u32,
        /// ID of its group.
        group: u32,
        /// The argument of `chmod` that fixes it.
        fix: &'static str,
    },
    /// It does not have the expected content.
    #[error("the SHA-256 of the file is {found}, but `sha256` of the model is {expected}")]
    Content {
        /// The digest of the file.
        found: Digest,
        /// The configured digest.
        expected: Digest,
    },
    /// Its copy cannot be read.
    #[error("the copy of the file cannot be read")]
    Unreadable(#[source] io::Error),
}

impl FileTrust {
    /// Checks who can change the file. `metadata` is that of the open file.
    pub(super) fn check_writers(&self, metadata: &Metadata) -> Result<(), UntrustedFile> {
        if self.sha256.is_some() || self.allow_writable {
            return Ok(());
        }
        let (mode, owner, group) = (metadata.mode() & 0o7777, metadata.uid(), metadata.gid());
        let Some((who, fix)) = other_writers(mode, owner, group) else {
            return Ok(());
        };
        Err(UntrustedFile::Writable {
            who,
            mode,
            owner,
            group,
            fix,
        })
    }

    /// Checks the content of a copy, which nobody else can change.
    pub(super) fn check_content(&self, copy: &Path) -> Result<(), UntrustedFile> {
        let Some(expected) = self.sha256 else {
            return Ok(());
        };
        let found = File::open(copy).and_then(Digest::of_reader);
        let found = found.map_err(UntrustedFile::Unreadable)?;
        match found == expected {
            true => Ok(()),
            false => Err(UntrustedFile::Content { found, expected }),
        }
    }
}

const ALL: u32 = 0o002;
const GROUP: u32 = 0o020;

/// Who besides the owner and root can write to a file, and how to prevent it.
///
/// A group with the ID of the owner is taken for the owner's private group: systems that give each user such a group make files
/// writable by it (umask 002). Group 0 has no members other than root, or, in containers that run as an arbitrary user, it is
/// the group of everything in the image. The user of this process does not matter.
fn other_writers(mode: u32, owner: u32, group: u32) -> Option<(&'static str, &'static str)> {
    if mode & ALL != 0 {
        return Some(("every user", "go-w"));
    }
    let is_private = group == owner || group == 0;
    (mode & GROUP != 0 && !is_private).then_some(("its group", "g-w"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_rejected_if_everyone_or_a_shared_group_can_change_it() {
        for (mode, owner, group, rejected) in [
            (0o755, 1000, 1000, false),
            (0o644, 0, 0, false),
            (0o555, 0, 50, false),
            // umask 002 with a private group.
            (0o775, 1000, 1000, false),
            (0o775, 0, 0, false),
            // An image for arbitrary users.
            (0o775, 1001, 0, false),
            (0o775, 1000, 100, true),
            (0o664, 0, 50, true),
            (0o757, 1000, 1000, true),
            (0o777, 0, 0, true),
            (0o002, 0, 0, true),
        ] {
            let found = other_writers(mode, owner, group).is_some();
            assert_eq!(found, rejected, "{mode:o} {owner}:{group}");
        }
    }

    #[test]
    fn a_file_with_the_expected_content_can_be_writable() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().expect("a temporary directory");
        let file = directory.path().join("libplugin.so");
        std::fs::write(&file, "abc").expect("the file is written");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o666)).expect("it is the owner's");
        let metadata = std::fs::metadata(&file).expect("the file exists");
        let trust = FileTrust::default();
        let error = trust.check_writers(&metadata).expect_err("everyone can write");
        assert!(
            error
                .to_string()
                .starts_with("every user can change the file (mode 666, "),
            "{error}"
        );
        let allowed = FileTrust {
            allow_writable: true,
            ..trust
        };
        assert!(allowed.check_writers(&metadata).is_ok());
        let pinned = FileTrust {
            sha256: Some(Digest::of(b"abc")),
            ..trust
        };
        assert!(pinned.check_writers(&metadata).is_ok() && pinned.check_content(&file).is_ok());
        std::fs::write(&file, "xyz").expect("the file is overwritten");
        let error = pinned.check_content(&file).expect_err("the content is another");
        let (found, expected) = (Digest::of(b"xyz").to_string(), Digest::of(b"abc").to_string());
        let message = error.to_string();
        assert!(
            message.contains(&found) && message.contains(&expected),
            "{message}"
        );
    }
}
