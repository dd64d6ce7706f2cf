//! Implements `inference-server inspect FILE`: reports what a plugin file is, what it declares, and which problems it has.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use plugin_abi::PluginModule_Ref;
use plugin_abi::check::{self, Finding, Severity};
use plugin_abi::manifest::{Isolation, PluginManifest, TaskManifest, ValueManifest};
use serde::Serialize;

use super::{FileTrust, LibraryFacts, LoadError, Loader, ProbeProgram, ProbeReport, header, probe_library};
use crate::digest::Digest;

const STATIC_TLS: &str = "the library has static thread-local storage (DF_STATIC_TLS), often from a global allocator such as mimalloc; a process has room for about ten loads of it, including reloads: set `isolation = \"process\"` for a model that is reloaded often";

/// What is known about a plugin file without settings.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Inspection {
    /// ABI version that the plugin was built for.
    pub abi_version: String,
    /// ABI version of this server.
    pub server_abi_version: String,
    /// Size of the file in bytes.
    pub size: u64,
    /// SHA-256 of the file, for `sha256` of a model.
    pub sha256: String,
    /// The processor that it was built for.
    pub machine: String,
    /// The shared libraries that it depends on.
    pub needed: Vec<String>,
    /// Where the linker searches for them in addition to the system's directories.
    pub run_path: Option<String>,
    /// The plugin's manifest.
    pub manifest: PluginManifest,
    /// Problems that were found.
    pub findings: Vec<Finding>,
}

/// Checks that an example is valid input for a task.
pub type CheckExample<'a> = &'a dyn Fn(&TaskManifest, &serde_json::Value) -> Result<(), String>;

/// What probing a plugin file found.
#[derive(Clone, Debug)]
pub struct PluginProbe {
    /// Properties of the library from its header.
    pub library: LibraryFacts,
    /// The report of the probe process.
    pub report: ProbeReport,
}

/// Reads the file's header and opens it in a child process. `options` are passed to the probe program.
pub fn probe_plugin(
    program: &ProbeProgram,
    options: &[String],
    file: &Path,
    timeout: Duration,
) -> Result<PluginProbe, LoadError> {
    let library = header::check(file)?;
    // The linker searches its path for a name without a slash.
    let absolute = std::path::absolute(file).map_err(header::HeaderError::Unreadable)?;
    let report = probe_library(program, options, &absolute, timeout)?;
    Ok(PluginProbe { library, report })
}

/// Like [`probe_plugin`], if the file obeys `trust`. If its content is known, a copy in `scratch_parent` is compared and opened.
pub fn probe_trusted_plugin(
    program: &ProbeProgram,
    options: &[String],
    (file, trust): (&Path, &FileTrust),
    scratch_parent: &Path,
    timeout: Duration,
) -> Result<PluginProbe, LoadError> {
    if trust.sha256.is_none() {
        let (opened, _) = header::open(file)?;
        let metadata = opened.metadata().map_err(header::HeaderError::Unreadable)?;
        trust.check_writers(&metadata)?;
        return probe_plugin(program, options, file, timeout);
    }
    let loader = Loader::new(scratch_parent, program.clone())?;
    let staged = loader.stage(file, trust, options, timeout)?;
    Ok(PluginProbe {
        library: staged.facts,
        report: staged.report,
    })
}

/// Reads the file's header, opens it in a child process and checks what it declares. Does not open it in this process.
pub fn inspect(
    program: &ProbeProgram,
    file: &Path,
    timeout: Duration,
    check_example: CheckExample<'_>,
) -> Result<Inspection, LoadError> {
    use abi_stable::library::RootModule;
    let (opened, _) = header::open(file)?;
    let metadata = opened.metadata().map_err(header::HeaderError::Unreadable)?;
    let sha256 = Digest::of_reader(opened).map_err(header::HeaderError::Unreadable)?;
    let PluginProbe { library, report } = probe_plugin(program, &[], file, timeout)?;
    let mut findings = check::plugin(&report.manifest);
    for task in &report.manifest.tasks {
        findings.extend(check_examples(task, check_example));
    }
    if let Err(untrusted) = FileTrust::default().check_writers(&metadata) {
        findings.push(Finding::warning(None, untrusted.to_string()));
    }
    if library.static_tls && report.manifest.isolation != Some(Isolation::Process) {
        findings.push(Finding::warning(None, STATIC_TLS));
    }
    Ok(Inspection {
        abi_version: report.abi_version,
        server_abi_version: PluginModule_Ref::VERSION_STRINGS.version.as_str().to_owned(),
        size: library.size,
        sha256: sha256.to_string(),
        machine: library.machine,
        needed: library.needed,
        run_path: library.run_path,
        manifest: report.manifest,
        findings,
    })
}

fn check_examples(task: &TaskManifest, check_example: CheckExample<'_>) -> Vec<Finding> {
    let name = task.name.as_str();
    let check = |(number, example): (usize, &serde_json::Value)| {
        let problem = check_example(task, example).err()?;
        let message = format!("example {number} of task `{name}` is not valid input for the task: {problem}");
        Some(Finding::error(Some(name), message))
    };
    (1..).zip(&task.examples).filter_map(check).collect()
}

impl fmt::Display for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let manifest = &self.manifest;
        writeln!(f, "plugin       {} {}", manifest.name, manifest.version)?;
        if !manifest.description.is_empty() {
            writeln!(f, "             {}", manifest.description)?;
        }
        writeln!(
            f,
            "plugin ABI   {} (this server: {})",
            self.abi_version, self.server_abi_version
        )?;
        writeln!(f, "plugin-sdk   {}", manifest.sdk_version)?;
        writeln!(f, "file         {} bytes, {}", self.size, self.machine)?;
        writeln!(f, "sha256       {}", self.sha256)?;
        writeln!(f, "requires     {}", self.needed.join(", "))?;
        if let Some(run_path) = &self.run_path {
            writeln!(f, "run path     {run_path}")?;
        }
        if let Some(isolation) = manifest.isolation {
            let isolation = match isolation {
                Isolation::Thread => "thread",
                Isolation::Process => "process",
            };
            writeln!(f, "isolation    {isolation}, unless configured")?;
        }
        write_settings(f, &manifest.settings_schema)?;
        let has_errors = self
            .findings
            .iter()
            .any(|finding| finding.severity == Severity::Error);
        if manifest.tasks.is_empty() && !has_errors {
            writeln!(
                f,
                "tasks        depend on the settings; `check --load` checks them"
            )?;
        }
        for task in &manifest.tasks {
            write_task(f, task)?;
        }
        for finding in &self.findings {
            let severity = match finding.severity {
                Severity::Error => "error",
                Severity::Warning => "warning",
            };
            writeln!(f, "{severity:<12} {finding}")?;
        }
        Ok(())
    }
}

/// Writes the keys of `[models.settings]` that the schema lists.
fn write_settings(f: &mut fmt::Formatter<'_>, schema: &serde_json::Value) -> fmt::Result {
    let Some(properties) = schema
        .get("properties")
        .and_then(|properties| properties.as_object())
    else {
        return Ok(());
    };
    let required = schema.get("required").and_then(|required| required.as_array());
    for (index, (key, property)) in properties.iter().enumerate() {
        let label = if index == 0 { "settings" } else { "" };
        let is_required = required.is_some_and(|required| required.iter().any(|name| name == key));
        let kind = property.get("type").map(|kind| match kind {
            serde_json::Value::String(kind) => kind.clone(),
            other => other.to_string(),
        });
        write!(f, "{label:<12} {key}")?;
        if let Some(kind) = kind {
            write!(f, ": {kind}")?;
        }
        if is_required {
            write!(f, ", required")?;
        }
        if let Some(default) = property.get("default") {
            write!(f, ", default {default}")?;
        }
        match property.get("description").and_then(|text| text.as_str()) {
            Some(text) => writeln!(f, " - {}", text.lines().next().unwrap_or_default())?,
            None => writeln!(f)?,
        }
    }
    Ok(())
}

fn write_task(f: &mut fmt::Formatter<'_>, task: &TaskManifest) -> fmt::Result {
    let first_line = task.description.lines().next().unwrap_or_default();
    writeln!(f, "task         {}: {first_line}", task.name)?;
    writeln!(f, "  input      {}", describe_value(&task.input))?;
    writeln!(f, "  output     {}", describe_value(&task.output))?;
    if task.prepares {
        writeln!(f, "  prepares   each item before it is batched")?;
    }
    if task.samples {
        writeln!(
            f,
            "  samples    creates items of a requested weight, for `calibrate`"
        )?;
    }
    if let Some(size) = task.limits.max_batch_size {
        writeln!(f, "  batches    up to {size} items")?;
    }
    Ok(())
}

/// Describes a value, for example `tensors (ids INT64 [-1])`, `bytes (image/png)` or `json or text`.
fn describe_value(value: &ValueManifest) -> String {
    let kinds: Vec<&str> = value.kinds.iter().map(|kind| kind.name()).collect();
    let mut details: Vec<String> = value.media_types.clone();
    details.extend(
        value
            .tensors
            .iter()
            .map(|tensor| format!("{} {} {:?}", tensor.name, tensor.dtype, tensor.shape)),
    );
    if details.is_empty() {
        kinds.join(" or ")
    } else {
        format!("{} ({})", kinds.join(" or "), details.join(", "))
    }
}
