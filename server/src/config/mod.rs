//! Configuration: from what the operator wrote to the settings that the server works with.
//!
//! [`resolve`] takes the text of the file, the environment and the flags, and gives either [`Settings`] or every fault
//! at once, each with its place and a hint. The application owns the result and does all reading: nothing here touches a
//! file, the process's environment or a clock. Whether a plugin's file exists, which tasks a plugin has and what it
//! makes of its settings is not known here; for errors found later, the settings keep the places of what they came from.
//!
//! The keys are declared once, in `keys`. What goes before what: the command line, the environment, the file, what a
//! plugin's manifest declares, what is built in.

mod checks;
mod document;
mod env_table;
mod error;
mod file;
mod keys;
mod oddities;
mod overrides;
mod plugin_settings;
mod reference;
mod resolve;
mod restart;
mod rule;
mod secret_lines;
mod settings;
mod suggest;
mod units;

#[cfg(test)]
mod tests;

pub use error::{ConfigError, ConfigErrors, ConfigWarning, Location, Origin};
pub use overrides::Overrides;
pub use reference::{reference_markdown, reference_toml};
pub use resolve::{Examined, Facts, Source, examine, resolve};
pub use settings::{
    Isolation, LogFormat, LoggingSettings, ModelSettings, OnCrash, ProcessSettings, ServerSettings, Settings,
    TaskSettings,
};
