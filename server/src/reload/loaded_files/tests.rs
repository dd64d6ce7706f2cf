//! Edits files after a load and checks which content a later process gets.

use tempfile::TempDir;

use super::*;
use crate::clock;
use crate::config::{Facts, Overrides, Source, resolve};

const HOUR: Duration = Duration::from_secs(3600);

/// A configuration directory with the file `weights`, a package with a module, and a file that is not configured.
struct Scenario {
    dir: TempDir,
    scratch: TempDir,
}

impl Scenario {
    fn new() -> Self {
        let scenario = Self {
            dir: tempfile::tempdir().expect("the directory is writable"),
            scratch: tempfile::tempdir().expect("the directory is writable"),
        };
        fs::create_dir(scenario.path("package")).expect("the directory is writable");
        for file in ["weights", "package/module.py", "package/data", "unnamed"] {
            scenario.write(file, "old");
        }
        scenario
    }

    fn path(&self, file: &str) -> PathBuf {
        self.dir.path().join(file)
    }

    /// Overwrites a file in place.
    fn write(&self, file: &str, text: &str) {
        fs::write(self.path(file), text).expect("the directory is writable");
    }

    /// Replaces a file by a new one.
    fn replace(&self, file: &str, text: &str) {
        let new = self.path("new");
        fs::write(&new, text).expect("the directory is writable");
        fs::rename(new, self.path(file)).expect("the directory is writable");
    }

    fn load(&self, settings: &str, reported: &[&str]) -> LoadedFiles {
        let source = Source {
            file_name: "models.toml",
            text: &format!("[[models]]\nname = 'm'\nplugin = 'a'\n[models.settings]\n{settings}\n"),
            base_dir: self.dir.path(),
        };
        let facts = Facts {
            executable_dir: PathBuf::from("/opt"),
            cores: std::num::NonZeroUsize::MIN,
            temp_dir: PathBuf::from("/tmp"),
            memory: Some(8 << 30),
        };
        let settings = resolve(source, &BTreeMap::new(), &Overrides::none(), &facts);
        let settings = settings.expect("the configuration is valid").models.remove(0);
        let (directory, since) = (self.scratch.path().join("files"), clock::unix_time() + HOUR);
        let files = LoadedFiles::before_load(&settings, directory, Box::new(()), since);
        let base = fs::canonicalize(self.dir.path()).expect("the directory exists");
        let reported: Vec<PathBuf> = reported.iter().map(|file| base.join(file)).collect();
        files.loaded(&reported);
        files
    }
}

fn read(directory: &Path, file: &str) -> String {
    fs::read_to_string(directory.join(file)).expect("the file exists")
}

#[test]
fn unchanged_files_are_loaded_from_their_original_paths() {
    let scenario = Scenario::new();
    let files = scenario.load("file = 'weights'", &["package/module.py"]);
    scenario.write("unnamed", "new");
    assert_eq!(files.directory(), Ok(None));
}

#[test]
fn edited_files_are_restored_next_to_all_others() {
    let scenario = Scenario::new();
    let files = scenario.load("file = 'weights'", &["package/module.py"]);
    scenario.write("weights", "edited");
    scenario.replace("package/module.py", "edited");
    scenario.write("unnamed", "edited");
    let directory = files
        .directory()
        .expect("the files have copies")
        .expect("files have changed");
    assert_eq!(read(&directory, "weights"), "old");
    assert_eq!(read(&directory, "package/module.py"), "old");
    assert_eq!(read(&directory, "package/data"), "old");
    assert_eq!(read(&directory, "unnamed"), "edited");
    let module = fs::canonicalize(directory.join("package/module.py")).expect("the file exists");
    assert!(
        module.starts_with(fs::canonicalize(&directory).expect("the file exists")),
        "{module:?}"
    );
    assert_eq!(
        files.directory(),
        Ok(Some(directory.clone())),
        "the restored directory is reused"
    );
    assert_eq!(
        read(scenario.dir.path(), "weights"),
        "edited",
        "the original file keeps the edit"
    );
    assert_eq!(files.check(&[directory.join("package/module.py")]), Ok(()));
    let original = fs::canonicalize(scenario.path("package/module.py")).expect("the file exists");
    assert_eq!(
        files.check(&[original]),
        Err(ChangedFiles),
        "the process read the edited file"
    );
}

#[test]
fn a_file_in_a_configured_directory_is_restored() {
    let scenario = Scenario::new();
    let files = scenario.load("directory = 'package'", &[]);
    scenario.write("package/data", "edited");
    let directory = files
        .directory()
        .expect("the files have copies")
        .expect("a file has changed");
    assert_eq!(read(&directory, "package/data"), "old");
}

#[test]
fn a_file_with_an_absolute_path_cannot_be_restored() {
    let scenario = Scenario::new();
    let files = scenario.load(&format!("file = '{}'", scenario.path("weights").display()), &[]);
    assert_eq!(files.directory(), Ok(None));
    scenario.write("weights", "edited");
    assert_eq!(files.directory(), Err(ChangedFiles));
}

#[test]
fn an_edited_large_file_is_restored_if_the_file_system_can_clone_it_and_is_an_error_otherwise() {
    let scenario = Scenario::new();
    let weights = fs::File::create(scenario.path("weights")).expect("the directory is writable");
    weights.set_len(MAX_COPY + 1).expect("the file is sparse");
    let files = scenario.load("file = 'weights'", &[]);
    scenario.write("weights", "edited");
    match files.directory() {
        Ok(directory) => {
            let directory = directory.expect("the edit is detected");
            let restored = fs::metadata(directory.join("weights")).expect("the file exists");
            assert_eq!(restored.len(), MAX_COPY + 1);
        }
        Err(error) => assert_eq!(error, ChangedFiles),
    }
}

#[test]
fn a_deleted_file_is_left_for_the_load_to_report() {
    let scenario = Scenario::new();
    let files = scenario.load("file = 'weights'", &[]);
    fs::remove_file(scenario.path("weights")).expect("the file exists");
    assert_eq!(files.directory(), Ok(None));
}

#[test]
fn a_file_that_changed_during_the_load_is_not_compared() {
    let scenario = Scenario::new();
    let files = scenario.load("file = 'weights'", &[]);
    scenario.write("weights", "during the load");
    files.loaded(&[]);
    scenario.write("weights", "after the load");
    assert_eq!(files.directory(), Ok(None));
}
