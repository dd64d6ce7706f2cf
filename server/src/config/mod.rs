//! Configuration: resolves the file, the environment and the command line to the settings of the server.
//!
//! [`resolve`] returns either [`Settings`] or all errors at once, each with its place and a hint. It is pure: the application
//! reads the file and the environment. It does not know whether the file of a plugin exists, which tasks a plugin has, or
//! whether the plugin accepts its settings. For errors that are found later, the settings keep the places of their values.
//!
//! Keys are declared once, in `keys`. Precedence, highest first: command line, environment, configuration file, plugin
//! defaults, built-in defaults.

mod checks;
mod document;
mod env_table;
mod error;
mod features;
mod file;
mod key_file;
mod keys;
mod lints;
mod listeners;
mod otel;
mod overrides;
mod plugin_settings;
mod reference;
mod resolve;
mod restart;
mod rule;
mod secret_lines;
mod section;
mod settings;
mod units;

#[cfg(test)]
mod tests;

pub use error::{ConfigError, ConfigErrors, ConfigWarning, Location, Origin};
pub use key_file::{KeySettings, RateSettings, parse_keys, unmatched_models};
pub use overrides::{Flag, Overrides, flags};
pub use reference::{reference_markdown, reference_toml};
pub use resolve::{Examined, Facts, Source, examine, resolve};
pub use settings::{
    CalibrationSource, CollectorSettings, Dimensions, EmbeddingSettings, Isolation, JobSettings,
    JobStoreSetting, LogFormat, LoggingSettings, ModelSettings, OnCrash, OtlpProtocol, ProcessSettings,
    SamplingSettings, ServerSettings, Settings, SlowRequests, SpanBatchSettings, TaskSettings, TlsSettings,
    TokenIds, TracingSettings,
};
pub use units::size as parse_size;
