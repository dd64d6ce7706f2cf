//! The command `new`: writes an example of a model that builds and runs as it is.

mod crate_name;

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate_name::CrateName;

/// The files of the example in Python, with their names.
const PYTHON: [(&str, &str); 2] = [
    ("model.py", include_str!("scaffold/python/model.py")),
    ("models.toml", include_str!("scaffold/python/models.toml")),
];

/// The files of the example in Rust, with their names. The crate is named `my-model`, and its library `my_model`.
const RUST: [(&str, &str); 5] = [
    ("Cargo.toml", include_str!("scaffold/rust/manifest.toml")),
    ("src/lib.rs", include_str!("scaffold/rust/lib.rs")),
    ("tests/model.rs", include_str!("scaffold/rust/tests.rs")),
    ("models.toml", include_str!("scaffold/rust/models.toml")),
    (".gitignore", include_str!("scaffold/rust/gitignore")),
];

/// Why the example was not written.
#[derive(Debug, thiserror::Error)]
pub enum ScaffoldError {
    /// A file has the name of one of the example's.
    #[error("{} exists already; choose another directory", .0.display())]
    Exists(PathBuf),
    /// The name of the directory cannot be that of a crate.
    #[error("invalid name {name:?} for a crate: {problem}")]
    Name {
        /// The name.
        name: String,
        /// The rule that it breaks.
        problem: String,
    },
    /// The directory of the SDK has no such crate.
    #[error("{} does not contain the crate plugin-sdk: expected the directory `plugin-sdk` of a checkout", .0.display())]
    NoSdk(PathBuf),
    /// A file or the directory cannot be created.
    #[error("cannot write {}", .0.display())]
    Write(PathBuf, #[source] io::Error),
}

/// Writes the example of a model in Python to a directory, which is created if it does not exist. Returns a text that says how to
/// run it.
///
/// # Errors
/// If a file exists or cannot be written. No existing file is changed.
pub fn write_python_model(directory: &Path) -> Result<String, ScaffoldError> {
    let files = PYTHON.map(|(name, content)| (directory.join(name), content.to_owned()));
    write(&files)?;
    let [(model, _), (config, _)] = &files;
    Ok(format!(
        "wrote {} and {}\nto serve the model: inference-server --config {}\n",
        model.display(),
        config.display(),
        config.display()
    ))
}

/// Writes a plugin crate in Rust to a directory, which is created. Its last part is the name of the crate and of the model. The
/// crate is built with the SDK in the directory `sdk`, or else with the published one. Returns a text that says how to go on.
///
/// # Errors
/// If the name is not that of a crate, if there is no SDK in `sdk`, or if a file exists or cannot be written. No existing file is
/// changed.
pub fn write_plugin_crate(directory: &Path, sdk: Option<&Path>) -> Result<String, ScaffoldError> {
    let name = CrateName::of(directory)?;
    let patch = sdk.map(patch).transpose()?.unwrap_or_default();
    let files = RUST.map(|(file, content)| {
        let mut content = content
            .replace("my-model", name.as_str())
            .replace("my_model", &name.library());
        if file == "Cargo.toml" {
            content.push_str(&patch);
        }
        (directory.join(file), content)
    });
    write(&files)?;
    let source = match sdk {
        Some(_) => String::new(),
        None => "Cargo.toml names the published plugin-sdk; `new --sdk DIRECTORY` uses that of a checkout.\n"
            .to_owned(),
    };
    Ok(format!(
        "wrote the plugin crate `{}` with a model, a task, tests and models.toml\n{source}\nNext steps:\n  \
         cd {}\n  \
         cargo test                                # without a server\n  \
         cargo build --release\n  \
         inference-server --config models.toml     # the first lines of models.toml have a request\n\n\
         Then replace the model in src/lib.rs with yours. The guide for plugin authors: https://docs.rs/plugin-sdk\n",
        name.as_str(),
        directory.display(),
    ))
}

/// The lines of a manifest that replace the published SDK with that of a directory.
fn patch(sdk: &Path) -> Result<String, ScaffoldError> {
    let no_sdk = || ScaffoldError::NoSdk(sdk.to_owned());
    let manifest = fs::read_to_string(sdk.join("Cargo.toml")).map_err(|_| no_sdk())?;
    let manifest: toml::Table = manifest.parse().map_err(|_| no_sdk())?;
    let name = manifest.get("package").and_then(|package| package.get("name"));
    if name.and_then(toml::Value::as_str) != Some("plugin-sdk") {
        return Err(no_sdk());
    }
    let path = sdk.canonicalize().map_err(|_| no_sdk())?;
    // Formatted as TOML, since a path can contain quotes.
    let path = toml::Value::String(path.to_string_lossy().into_owned());
    Ok(format!("\n[patch.crates-io]\nplugin-sdk = {{ path = {path} }}\n"))
}

/// Writes new files and their directories.
fn write(files: &[(PathBuf, String)]) -> Result<(), ScaffoldError> {
    if let Some((file, _)) = files.iter().find(|(file, _)| file.symlink_metadata().is_ok()) {
        return Err(ScaffoldError::Exists(file.clone()));
    }
    for (file, content) in files {
        let failed = |error| ScaffoldError::Write(file.clone(), error);
        if let Some(directory) = file.parent() {
            fs::create_dir_all(directory).map_err(failed)?;
        }
        let written = File::create_new(file).and_then(|mut created| created.write_all(content.as_bytes()));
        written.map_err(failed)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_example_is_written_to_a_new_directory_and_never_overwrites_a_file() {
        let parent = tempfile::tempdir().expect("a temporary directory");
        let directory = parent.path().join("a/b");
        let text = write_python_model(&directory).expect("the directory is new");
        assert!(text.contains("a/b/models.toml"), "{text}");
        fs::write(directory.join("model.py"), "mine").expect("write the file");
        fs::remove_file(directory.join("models.toml")).expect("remove the file");
        let error = write_python_model(&directory).expect_err("the file exists");
        assert!(
            error
                .to_string()
                .ends_with("model.py exists already; choose another directory")
        );
        assert_eq!(
            fs::read_to_string(directory.join("model.py")).expect("read the file"),
            "mine"
        );
        assert!(!directory.join("models.toml").exists());
    }

    #[test]
    fn a_crate_has_the_name_of_its_directory_and_never_overwrites_a_file() {
        let parent = tempfile::tempdir().expect("a temporary directory");
        let directory = parent.path().join("word-moods");
        let text = write_plugin_crate(&directory, None).expect("the directory is new");
        assert!(text.contains("`word-moods`") && text.contains("--sdk"), "{text}");
        let read = |file: &str| fs::read_to_string(directory.join(file)).expect("it is written");
        let manifest: toml::Table = read("Cargo.toml").parse().expect("it is TOML");
        assert_eq!(manifest["package"]["name"].as_str(), Some("word-moods"));
        assert!(!manifest.contains_key("patch"));
        assert!(read("tests/model.rs").contains("use word_moods::Sentiment;"));
        assert!(read("models.toml").contains("plugin = \"target/release/libword_moods.so\""));
        let error = write_plugin_crate(&directory, None).expect_err("the files exist");
        assert!(
            error
                .to_string()
                .ends_with("Cargo.toml exists already; choose another directory")
        );
    }

    #[test]
    fn the_sdk_of_a_checkout_replaces_the_published_one() {
        let parent = tempfile::tempdir().expect("a temporary directory");
        let error = write_plugin_crate(&parent.path().join("words"), Some(parent.path()));
        let error = error.expect_err("there is no SDK").to_string();
        assert!(error.contains("does not contain the crate plugin-sdk"), "{error}");
        assert!(!parent.path().join("words").exists());

        let sdk = parent.path().join("a \"quoted\" path");
        fs::create_dir(&sdk).expect("create the directory");
        fs::write(sdk.join("Cargo.toml"), "[package]\nname = \"plugin-sdk\"\n").expect("write the file");
        write_plugin_crate(&parent.path().join("words"), Some(&sdk)).expect("it is written");
        let manifest = fs::read_to_string(parent.path().join("words/Cargo.toml")).expect("it is written");
        let manifest: toml::Table = manifest.parse().expect("it is TOML");
        let path = manifest["patch"]["crates-io"]["plugin-sdk"]["path"].as_str();
        assert!(
            path.is_some_and(|path| path.ends_with("a \"quoted\" path")),
            "{path:?}"
        );
    }

    /// The crate is built with the version that is published together with this server.
    #[test]
    fn the_manifest_names_the_version_of_the_sdk() {
        let (_, manifest) = RUST[0];
        let version = env!("CARGO_PKG_VERSION")
            .rsplit_once('.')
            .expect("a version has parts");
        assert!(
            manifest.contains(&format!("plugin-sdk = \"{}\"", version.0)),
            "{manifest}"
        );
    }
}
