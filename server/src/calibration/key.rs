//! What was measured: a calibration is valid only for the same plugin, files, settings, device and threads.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use sha2::{Digest, Sha256};

/// Size of the blocks in which files are read.
const BLOCK: usize = 1 << 20;

/// Identifies what was measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CalibrationKey {
    /// SHA-256 of the plugin's file.
    plugin: String,
    /// SHA-256 of the names and the content of the files that the model was loaded from.
    files: String,
    /// SHA-256 of the settings of the plugin.
    settings: String,
    /// What the loaded model reports about itself, such as its runtime.
    details: BTreeMap<String, String>,
    /// Architecture and name of the processor.
    device: String,
    /// Number of threads that compute a batch.
    threads: u32,
}

/// What a key is computed from.
#[derive(Clone, Copy, Debug)]
pub struct Measured<'a> {
    /// The plugin's file.
    pub plugin: &'a Path,
    /// The files that the model was loaded from, without the plugin.
    pub files: &'a [&'a Path],
    /// The settings of the plugin.
    pub settings: &'a Json,
    /// What the loaded model reports about itself.
    pub details: &'a BTreeMap<String, String>,
    /// Number of threads that compute a batch.
    pub threads: u32,
}

impl CalibrationKey {
    /// The key of a loaded model on this machine. Reads all files.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn of(measured: Measured<'_>) -> io::Result<Self> {
        let mut plugin = Sha256::new();
        add_file(&mut plugin, measured.plugin)?;
        let mut files: Vec<&Path> = measured.files.to_vec();
        files.sort_unstable();
        files.dedup();
        let mut content = Sha256::new();
        for file in files {
            // Without its directory, so that a model can be moved.
            let name = file.file_name().unwrap_or_default().as_encoded_bytes();
            content.update((name.len() as u64).to_le_bytes());
            content.update(name);
            add_file(&mut content, file)?;
        }
        // Members of objects are sorted.
        let settings = Sha256::digest(measured.settings.to_string());
        Ok(Self {
            plugin: hexadecimal(&plugin.finalize()),
            files: hexadecimal(&content.finalize()),
            settings: hexadecimal(&settings),
            details: measured.details.clone(),
            device: device(),
            threads: measured.threads,
        })
    }

    /// What differs in `current`, in words. Empty if the keys are equal.
    pub fn differences(&self, current: &Self) -> Vec<String> {
        let mut differences = Vec::new();
        let mut check = |is_equal: bool, text: String| {
            if !is_equal {
                differences.push(text);
            }
        };
        check(self.plugin == current.plugin, "the plugin has changed".to_owned());
        check(
            self.files == current.files,
            "the files of the model have changed".to_owned(),
        );
        check(
            self.settings == current.settings,
            "the settings of the model have changed".to_owned(),
        );
        for name in self
            .details
            .keys()
            .chain(current.details.keys())
            .collect::<std::collections::BTreeSet<_>>()
        {
            let of = |key: &Self| {
                key.details
                    .get(name)
                    .cloned()
                    .unwrap_or_else(|| "none".to_owned())
            };
            let (old, new) = (of(self), of(current));
            check(
                old == new,
                format!("`{name}` of the model was \"{old}\" and is \"{new}\""),
            );
        }
        check(
            self.device == current.device,
            format!(
                "it was measured on \"{}\", and this is \"{}\"",
                self.device, current.device
            ),
        );
        check(
            self.threads == current.threads,
            format!(
                "it was measured with {} threads, and the model has {}",
                self.threads, current.threads
            ),
        );
        differences
    }

    /// Architecture and name of the processor.
    pub fn device(&self) -> &str {
        &self.device
    }

    /// Number of threads that compute a batch.
    pub fn threads(&self) -> u32 {
        self.threads
    }
}

/// Adds the length and the content of a file.
fn add_file(hash: &mut Sha256, path: &Path) -> io::Result<()> {
    let mut file = File::open(path)?;
    hash.update(file.metadata()?.len().to_le_bytes());
    let mut block = vec![0; BLOCK];
    loop {
        match file.read(&mut block)? {
            0 => return Ok(()),
            length => hash.update(&block[..length]),
        }
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Architecture and name of this machine's processor.
fn device() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let architecture = std::env::consts::ARCH;
    match processor(&text) {
        Some(name) => format!("{architecture}, {name}"),
        None => architecture.to_owned(),
    }
}

/// The name of the processor in the text of `/proc/cpuinfo`. ARM processors have only numbers.
fn processor(cpuinfo: &str) -> Option<String> {
    let field = |name: &str| {
        let line = cpuinfo.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let number = || Some(format!("{} {}", field("CPU implementer")?, field("CPU part")?));
    field("model name").or_else(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    struct Model {
        directory: tempfile::TempDir,
        settings: Json,
        details: BTreeMap<String, String>,
        threads: u32,
    }

    impl Model {
        fn new() -> Self {
            let directory = tempfile::tempdir().expect("a directory can be created");
            for name in ["libx.so", "weights", "vocabulary"] {
                fs::write(directory.path().join(name), name).expect("the file can be written");
            }
            Self {
                directory,
                settings: json!({"b": 1, "a": 2}),
                details: BTreeMap::from([("runtime".to_owned(), "one".to_owned())]),
                threads: 2,
            }
        }

        fn key(&self) -> CalibrationKey {
            let path = |name| self.directory.path().join(name);
            let (plugin, weights, vocabulary) = (path("libx.so"), path("weights"), path("vocabulary"));
            CalibrationKey::of(Measured {
                plugin: &plugin,
                files: &[&weights, &vocabulary],
                settings: &self.settings,
                details: &self.details,
                threads: self.threads,
            })
            .expect("the files can be read")
        }
    }

    #[test]
    fn the_same_model_in_another_directory_has_the_same_key() {
        assert_eq!(Model::new().key(), Model::new().key());
        let mut reordered = Model::new();
        reordered.settings = json!({"a": 2, "b": 1});
        assert_eq!(reordered.key(), Model::new().key());
    }

    #[test]
    fn every_difference_is_named() {
        let measured = Model::new().key();
        let differences = |change: fn(&mut Model)| {
            let mut model = Model::new();
            change(&mut model);
            measured.differences(&model.key())
        };
        assert_eq!(differences(|_| {}), Vec::<String>::new());
        assert_eq!(
            differences(|model| {
                fs::write(model.directory.path().join("libx.so"), "other").expect("it can be written");
            }),
            ["the plugin has changed"]
        );
        assert_eq!(
            differences(|model| {
                fs::write(model.directory.path().join("weights"), "weighty").expect("it can be written");
            }),
            ["the files of the model have changed"]
        );
        assert_eq!(
            differences(|model| model.settings = json!({})),
            ["the settings of the model have changed"]
        );
        assert_eq!(
            differences(|model| model.threads = 4),
            ["it was measured with 2 threads, and the model has 4"]
        );
        assert_eq!(
            differences(|model| drop(model.details.insert("runtime".to_owned(), "two".to_owned()))),
            ["`runtime` of the model was \"one\" and is \"two\""]
        );
    }

    #[test]
    fn the_processor_is_named() {
        assert_eq!(
            processor("processor\t: 0\nmodel name\t: X 9\n").as_deref(),
            Some("X 9")
        );
        let arm = "processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd0c\n";
        assert_eq!(processor(arm).as_deref(), Some("0x41 0xd0c"));
        assert_eq!(processor(""), None);
    }
}
