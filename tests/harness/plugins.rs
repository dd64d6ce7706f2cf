//! The server and the plugins that cargo has built.

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

/// The folder of the plugins.
///
/// Tests of a workspace build each plugin into `deps` and leave what an earlier `cargo build` has put beside the executable
/// as it was, so `deps` goes first.
pub(crate) fn folder() -> PathBuf {
    let beside = executable().parent().expect("the executable is in a folder");
    let built = beside.join("deps");
    let found = if built.join("libtemplate.so").exists() {
        &built
    } else {
        beside
    };
    found.to_owned()
}

/// The library of a plugin, such as `template`.
pub(crate) fn library(name: &str) -> PathBuf {
    let library = folder().join(format!("lib{name}.so"));
    assert!(
        library.exists(),
        "{} is missing: run `cargo test --workspace`, or `cargo build --workspace` first",
        library.display()
    );
    library
}
