//! Searches for the shared library of ONNX Runtime: in environment variables, Python environments and the system's library
//! directories. Only reads files and directories; does not run an interpreter or open a library.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

/// Prefix of the library's file names, which may continue with a version.
const NAME: &str = "libonnxruntime.so";

/// A file that may be ONNX Runtime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) path: PathBuf,
    /// How it was found, for messages: a setting, a variable or a directory.
    pub(crate) origin: String,
    /// Key of the setting that names it, if one does.
    pub(crate) key: Option<&'static str>,
}

/// The environment that is searched, apart from the settings.
#[derive(Clone, Debug)]
pub(crate) struct Surroundings {
    /// Returns the value of an environment variable.
    variable: fn(&str) -> Option<OsString>,
    /// The root of the file system.
    root: PathBuf,
    /// The executable of the server.
    server: Option<PathBuf>,
}

impl Surroundings {
    /// The environment of this process.
    pub(crate) fn of_this_process() -> Self {
        Self {
            variable: |name| std::env::var_os(name),
            root: PathBuf::from("/"),
            server: std::env::current_exe().ok(),
        }
    }

    /// The libraries that exist, in order of precedence.
    pub(crate) fn libraries(&self) -> Vec<Candidate> {
        let places = [self.in_variable(), self.in_pythons(), self.in_system()];
        let mut seen = HashSet::new();
        let mut found = places.concat();
        found.retain(|candidate| {
            let path = &candidate.path;
            seen.insert(path.canonicalize().unwrap_or_else(|_| path.clone()))
        });
        found
    }

    fn value(&self, name: &str) -> Option<OsString> {
        (self.variable)(name).filter(|value| !value.is_empty())
    }

    /// The environment variable that other programs use for the same purpose.
    fn in_variable(&self) -> Vec<Candidate> {
        const NAME: &str = "ORT_DYLIB_PATH";
        let Some(path) = self.value(NAME).map(PathBuf::from) else {
            return Vec::new();
        };
        // A bare file name is searched for in the system's library directories.
        let paths = if path.components().count() > 1 {
            vec![path]
        } else {
            let directories = self.library_directories().into_iter();
            directories
                .map(|directory| directory.join(&path))
                .filter(|path| path.is_file())
                .collect()
        };
        let found = |path| Candidate {
            path,
            origin: NAME.to_owned(),
            key: None,
        };
        paths.into_iter().map(found).collect()
    }

    /// Libraries in the Python environment that the server is installed in, the active one, the environment of the interpreter `python3` on the `PATH`, and the user's own
    /// packages.
    fn in_pythons(&self) -> Vec<Candidate> {
        let installed = self.environment_of_server().into_iter().flat_map(|environment| {
            let origin = format!("`{}`", environment.display());
            let prefixes = prefixes_of(&environment.join("bin/python3")).into_iter();
            prefixes.map(move |prefix| (prefix, origin.clone()))
        });
        let active = ["VIRTUAL_ENV", "CONDA_PREFIX"]
            .into_iter()
            .filter_map(|name| Some((PathBuf::from(self.value(name)?), name.to_owned())));
        let interpreter = self.interpreter();
        let on_path = interpreter.iter().flat_map(|interpreter| {
            let origin = format!("`{}`", interpreter.display());
            let prefixes = prefixes_of(interpreter).into_iter();
            prefixes.map(move |prefix| (prefix, origin.clone()))
        });
        let home = self.value("HOME").map(|home| {
            let local = Path::new(&home).join(".local");
            (local, "~/.local".to_owned())
        });
        installed
            .chain(active)
            .chain(on_path)
            .chain(home)
            .flat_map(|(prefix, origin)| {
                in_python(&prefix).into_iter().map(move |path| Candidate {
                    path,
                    origin: format!("the Python environment of {origin}"),
                    key: None,
                })
            })
            .collect()
    }

    /// The virtual or conda environment that the server is installed in.
    fn environment_of_server(&self) -> Option<PathBuf> {
        let environment = self.server.as_deref()?.parent()?.parent()?;
        let is_environment =
            environment.join("pyvenv.cfg").is_file() || environment.join("conda-meta").is_dir();
        is_environment.then(|| environment.to_owned())
    }

    /// The first `python3` on the `PATH`.
    fn interpreter(&self) -> Option<PathBuf> {
        let path = self.value("PATH")?;
        std::env::split_paths(&path)
            .map(|directory| directory.join("python3"))
            .find(|interpreter| interpreter.is_file())
    }

    fn in_system(&self) -> Vec<Candidate> {
        let newest = |directory: PathBuf| {
            let path = newest_library(&directory)?;
            let origin = format!("`{}`", directory.display());
            let key = None;
            Some(Candidate { path, origin, key })
        };
        let directories = self.library_directories().into_iter();
        directories.filter_map(newest).collect()
    }

    /// The search path of the dynamic linker, in order.
    fn library_directories(&self) -> Vec<PathBuf> {
        let in_root = |directory: &str| self.root.join(directory.trim_start_matches('/'));
        let listed = self.value("LD_LIBRARY_PATH");
        let listed = listed.iter().flat_map(std::env::split_paths);
        let files = [in_root("etc/ld.so.conf")]
            .into_iter()
            .chain(entries(&in_root("etc/ld.so.conf.d")));
        let configured = files.flat_map(|file| {
            let text = fs::read_to_string(file).unwrap_or_default();
            let directories = text.lines().map(str::trim).filter(|line| line.starts_with('/'));
            directories.map(in_root).collect::<Vec<_>>()
        });
        let of_machine = format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH);
        let usual = [
            "usr/local/lib",
            &of_machine,
            "usr/lib64",
            "usr/lib",
            "lib64",
            "lib",
        ]
        .map(in_root);
        listed.chain(configured).chain(usual).collect()
    }
}

/// The library in the Python environment that the setting `python` names, by its directory or its interpreter.
pub(crate) fn in_python_setting(python: &Path) -> Option<PathBuf> {
    let prefixes = if python.is_file() {
        prefixes_of(python)
    } else {
        vec![python.to_owned()]
    };
    prefixes.iter().find_map(|prefix| in_python(prefix))
}

/// Prefixes under which an interpreter finds its packages: that of the environment, and, if the environment includes the system's
/// packages, that of the base installation.
fn prefixes_of(interpreter: &Path) -> Vec<PathBuf> {
    let prefix = |interpreter: &Path| Some(interpreter.parent()?.parent()?.to_owned());
    let mut prefixes: Vec<PathBuf> = prefix(interpreter).into_iter().collect();
    let configuration = prefixes
        .first()
        .and_then(|prefix| fs::read_to_string(prefix.join("pyvenv.cfg")).ok());
    let sees_system = configuration.is_none_or(|text| {
        let mut lines = text.lines().map(|line| line.replace(' ', ""));
        lines.any(|line| line.eq_ignore_ascii_case("include-system-site-packages=true"))
    });
    if sees_system {
        let real = interpreter.canonicalize().ok();
        prefixes.extend(real.as_deref().and_then(prefix));
    }
    prefixes.dedup();
    prefixes
}

/// The library in the package onnxruntime or onnxruntime-gpu, under a Python prefix.
fn in_python(prefix: &Path) -> Option<PathBuf> {
    let libraries = ["lib", "lib64", "local/lib"].map(|library| prefix.join(library));
    libraries
        .iter()
        .flat_map(|library| entries(library))
        .filter(|version| is_named(version, |name| name.starts_with("python3")))
        .flat_map(|version| ["site-packages", "dist-packages"].map(|packages| version.join(packages)))
        .find_map(|packages| newest_library(&packages.join("onnxruntime/capi")))
}

/// The library with the highest version in a directory.
fn newest_library(directory: &Path) -> Option<PathBuf> {
    let files = entries(directory).into_iter();
    let libraries = files.filter(|file| is_named(file, |name| name.starts_with(NAME)) && file.is_file());
    libraries.min_by_key(|file| Reverse(version_of(file)))
}

/// Version in the file name of a library, after following links: `1.32.0` for `libonnxruntime.so.1.32.0`.
pub(crate) fn version(library: &Path) -> Option<String> {
    let file = library.canonicalize().ok()?;
    let name = file.file_name()?.to_str()?;
    let version = name.strip_prefix(NAME)?.strip_prefix('.')?;
    Some(version.to_owned())
}

fn version_of(library: &Path) -> Vec<u32> {
    let version = version(library).unwrap_or_default();
    version.split('.').map_while(|part| part.parse().ok()).collect()
}

fn is_named(path: &Path, is_right: impl Fn(&str) -> bool) -> bool {
    path.file_name()
        .and_then(|name| name.to_str())
        .is_some_and(is_right)
}

/// Entries of a directory, sorted by name; empty if it cannot be read.
fn entries(directory: &Path) -> Vec<PathBuf> {
    let mut entries: Vec<_> = fs::read_dir(directory)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    entries.sort();
    entries
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A directory that is removed when it is dropped.
    struct Root(PathBuf);

    impl Root {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("onnx-library-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).expect("a directory can be made");
            Self(path.canonicalize().expect("it is there"))
        }

        fn file(&self, path: &str, content: &str) -> PathBuf {
            let path = self.0.join(path);
            fs::create_dir_all(path.parent().expect("it is below the root"))
                .expect("a directory can be made");
            fs::write(&path, content).expect("a file can be written");
            path
        }

        fn surroundings(&self, variable: fn(&str) -> Option<OsString>) -> Surroundings {
            Surroundings {
                variable,
                root: self.0.clone(),
                server: Some(self.0.join("installed/bin/inference-server")),
            }
        }
    }

    impl Drop for Root {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn paths(found: Vec<Candidate>) -> Vec<PathBuf> {
        found.into_iter().map(|candidate| candidate.path).collect()
    }

    #[test]
    fn the_newest_library_of_each_directory_of_the_system_is_found() {
        let root = Root::new("system");
        root.file("etc/ld.so.conf", "include /etc/ld.so.conf.d/*.conf\n");
        root.file("etc/ld.so.conf.d/ort.conf", "# ONNX Runtime\n/opt/ort/lib\n");
        root.file("opt/ort/lib/libonnxruntime.so.1.9.0", "");
        let newest = root.file("opt/ort/lib/libonnxruntime.so.1.23.2", "");
        root.file("opt/ort/lib/libonnxruntime_providers_shared.so", "");
        let local = root.file("usr/local/lib/libonnxruntime.so.1.20.0", "");
        let link = root.0.join("usr/lib/libonnxruntime.so.1");
        fs::create_dir_all(root.0.join("usr/lib")).expect("a directory can be made");
        symlink(&local, &link).expect("a link can be made");
        let found = root.surroundings(|_| None).libraries();
        assert_eq!(version(&link).as_deref(), Some("1.20.0"));
        // The link is an alias of a library that was already found.
        assert_eq!(paths(found), [newest, local]);
    }

    #[test]
    fn the_environment_that_the_server_is_installed_in_is_searched() {
        let root = Root::new("installed");
        let library = root.file(
            "installed/lib/python3.11/site-packages/onnxruntime/capi/libonnxruntime.so.1.32.0",
            "",
        );
        let surroundings = root.surroundings(|_| None);
        assert_eq!(paths(surroundings.libraries()), Vec::<PathBuf>::new());
        root.file("installed/pyvenv.cfg", "include-system-site-packages = false\n");
        assert_eq!(paths(surroundings.libraries()), [library]);
    }

    #[test]
    fn an_environment_is_named_by_its_directory_or_its_interpreter() {
        let root = Root::new("python");
        let library = root.file(
            "venv/lib/python3.11/site-packages/onnxruntime/capi/libonnxruntime.so.1.32.0",
            "",
        );
        let system = root.file(
            "usr/lib/python3/dist-packages/onnxruntime/capi/libonnxruntime.so.1.20.0",
            "",
        );
        let real = root.file("usr/bin/python3.11", "");
        fs::create_dir_all(root.0.join("venv/bin")).expect("a directory can be made");
        let interpreter = root.0.join("venv/bin/python3");
        symlink(&real, &interpreter).expect("a link can be made");
        assert_eq!(in_python_setting(&root.0.join("venv")), Some(library.clone()));
        assert_eq!(in_python_setting(&interpreter), Some(library.clone()));
        fs::remove_file(&library).expect("it is there");
        // Without a `pyvenv.cfg`, the link is an alias of the system's interpreter.
        assert_eq!(in_python_setting(&interpreter), Some(system));
        root.file(
            "venv/pyvenv.cfg",
            "home = /usr/bin\ninclude-system-site-packages = false\n",
        );
        assert_eq!(in_python_setting(&interpreter), None);
        assert_eq!(in_python_setting(&root.0.join("absent")), None);
    }
}
