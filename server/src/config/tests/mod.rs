//! Tests at the boundary of `config`: text in, settings or messages out.

mod errors;
mod key_file;
mod limits;
mod listeners;
mod memory;
mod overrides;
mod reference;
mod secrets;
mod settings;
mod structure;
mod syntax;
mod tracing;
mod warnings;

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use super::{ConfigErrors, Facts, ModelSettings, Overrides, Settings, Source, flags, resolve};

/// The configuration in all its sources.
pub(super) struct Scenario<'a> {
    text: &'a str,
    variables: &'a [(&'a str, &'a str)],
    flags: Overrides,
}

/// A scenario with this file and nothing else.
pub(super) fn file(text: &str) -> Scenario<'_> {
    Scenario {
        text,
        variables: &[],
        flags: Overrides::none(),
    }
}

impl<'a> Scenario<'a> {
    fn variables(self, variables: &'a [(&'a str, &'a str)]) -> Self {
        Self { variables, ..self }
    }

    fn flag(mut self, name: &str, text: &str) -> Self {
        let flag = flags().find(|flag| flag.name == name);
        self.flags.set(&flag.expect("there is such a flag"), text);
        self
    }

    /// Marks a variable as one that the command line reads.
    fn read_by_the_command_line(mut self, variable: &str) -> Self {
        self.flags.add_variable(variable);
        self
    }

    fn resolve(self) -> Result<Settings, ConfigErrors> {
        let env: BTreeMap<String, String> = self
            .variables
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_string()))
            .collect();
        let source = Source {
            file_name: "models.toml",
            text: self.text,
            base_dir: Path::new("/etc/inference"),
        };
        resolve(source, &env, &self.flags, &facts())
    }

    fn settings(self) -> Settings {
        self.resolve()
            .unwrap_or_else(|errors| panic!("the configuration has errors:\n{errors}"))
    }

    fn model(self) -> ModelSettings {
        self.settings()
            .models
            .into_iter()
            .next()
            .expect("the scenario has a model")
    }

    /// The errors of a configuration that is invalid.
    fn errors(self) -> String {
        self.resolve()
            .map(|_| ())
            .expect_err("the configuration is valid")
            .to_string()
    }

    /// The warnings of a configuration that is valid.
    fn warnings(self) -> String {
        let warnings: Vec<String> = self.settings().warnings.iter().map(ToString::to_string).collect();
        warnings.join("\n\n")
    }
}

fn facts() -> Facts {
    Facts {
        executable_dir: PathBuf::from("/opt/bin"),
        cores: NonZeroUsize::new(4).expect("4 is not 0"),
        temp_dir: PathBuf::from("/tmp"),
        memory: Some(8 << 30),
    }
}
