//! The plugins that cargo has built beside the server.

use std::path::{Path, PathBuf};

/// The server's executable.
pub(crate) fn executable() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_inference-server"))
}

/// The root of the repository.
pub(crate) fn repository() -> PathBuf {
    let server = Path::new(env!("CARGO_MANIFEST_DIR"));
    server
        .parent()
        .expect("the server is in the repository")
        .to_owned()
}

/// The library of a plugin, such as `template`.
pub(crate) fn library(name: &str) -> PathBuf {
    let beside = executable().parent().expect("the executable is in a folder");
    let library = beside.join(format!("lib{name}.so"));
    assert!(
        library.exists(),
        "{} is missing: run `cargo test --workspace`, or `cargo build --workspace` first",
        library.display()
    );
    library
}
