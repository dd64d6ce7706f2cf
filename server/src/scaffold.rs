//! The command `new`: writes an example of a model that runs as it is.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// The files of the example in Python, with their names.
const PYTHON: [(&str, &str); 2] = [
    ("model.py", include_str!("scaffold/python/model.py")),
    ("models.toml", include_str!("scaffold/python/models.toml")),
];

/// Why the example was not written.
#[derive(Debug, thiserror::Error)]
pub enum ScaffoldError {
    /// A file has the name of one of the example's.
    #[error("{} exists already; choose another directory", .0.display())]
    Exists(PathBuf),
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
    let files = PYTHON.map(|(name, content)| (directory.join(name), content));
    if let Some((file, _)) = files.iter().find(|(file, _)| file.symlink_metadata().is_ok()) {
        return Err(ScaffoldError::Exists(file.clone()));
    }
    fs::create_dir_all(directory).map_err(|error| ScaffoldError::Write(directory.to_owned(), error))?;
    for (file, content) in &files {
        let written = File::create_new(file).and_then(|mut created| created.write_all(content.as_bytes()));
        written.map_err(|error| ScaffoldError::Write(file.clone(), error))?;
    }
    let [(model, _), (config, _)] = &files;
    Ok(format!(
        "wrote {} and {}\nto serve the model: inference-server --config {}\n",
        model.display(),
        config.display(),
        config.display()
    ))
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
}
