//! Paths of the server and the plugins that cargo has built.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Returns the path of the server's executable: that of `INFERENCE_TEST_EXECUTABLE`, such as a release build, or the one that cargo
/// has built for the tests. Its plugins are next to it.
pub(crate) fn executable() -> &'static Path {
    static EXECUTABLE: OnceLock<PathBuf> = OnceLock::new();
    EXECUTABLE.get_or_init(|| {
        let Some(path) = std::env::var_os("INFERENCE_TEST_EXECUTABLE") else {
            return env!("CARGO_BIN_EXE_inference-server").into();
        };
        // Tests of a package run in its directory.
        repository()
            .join(path)
            .canonicalize()
            .expect("INFERENCE_TEST_EXECUTABLE is the path of a file, relative to the repository")
    })
}

/// Returns the root of the repository.
pub(crate) fn repository() -> PathBuf {
    let server = Path::new(env!("CARGO_MANIFEST_DIR"));
    server
        .parent()
        .expect("the server is in the repository")
        .to_owned()
}

/// Returns a directory that contains only links to the plugins.
///
/// Tests of a workspace build each plugin into `deps`, among thousands of files, and leave what an earlier `cargo build`
/// put next to the executable unchanged. The server links the files next to a plugin each time it loads it, which takes
/// seconds for that many.
pub(crate) fn directory() -> PathBuf {
    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    DIRECTORY.get_or_init(link_plugins).clone()
}

fn link_plugins() -> PathBuf {
    let beside = executable().parent().expect("the executable is in a directory");
    let deps = beside.join("deps");
    let built = if deps.join("libtemplate.so").exists() {
        &deps
    } else {
        beside
    };
    // Those of a release build, for example, are elsewhere.
    let profile = beside.file_name().unwrap_or_default().to_string_lossy();
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("plugins-{profile}"));
    std::fs::create_dir_all(&directory).expect("the directory can be created");
    for entry in std::fs::read_dir(built)
        .expect("the directory of the plugins can be read")
        .flatten()
    {
        let name = entry.file_name();
        // Procedural macros have a hash after a hyphen.
        let is_plugin = name
            .to_str()
            .is_some_and(|name| name.starts_with("lib") && name.ends_with(".so") && !name.contains('-'));
        if is_plugin {
            link(&entry.path(), &directory.join(name));
        }
    }
    directory
}

/// Makes `link` point to `target`. Tests do this concurrently in several processes.
fn link(target: &Path, link: &Path) {
    if std::fs::read_link(link).is_ok_and(|current| current == target) {
        return;
    }
    let own = link.with_extension(format!("{}.new", std::process::id()));
    std::os::unix::fs::symlink(target, &own).expect("a link can be created");
    std::fs::rename(&own, link).expect("a link can be replaced");
}

/// Returns the path of a plugin's library, such as `template`.
pub(crate) fn library(name: &str) -> PathBuf {
    let library = directory().join(format!("lib{name}.so"));
    assert!(
        library.exists(),
        "{} is missing: run `cargo test --workspace`, or `cargo build --workspace` first",
        library.display()
    );
    library
}
