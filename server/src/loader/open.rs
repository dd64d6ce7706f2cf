//! Opens a plugin in this process.
//!
//! The file must have passed the header check, at a path that was never opened before and that nobody else writes to (see
//! `scratch`). An opened library stays mapped until the process exits: closing it would crash sooner or later, because it may
//! leave threads, thread-local destructors and function pointers behind.

use std::error::Error;
use std::mem::ManuallyDrop;
use std::path::Path;

use abi_stable::StableAbi;
use abi_stable::library::{
    AbiHeaderRef, LibHeader, LibraryError, ROOT_MODULE_LOADER_NAME_WITH_NUL, RootModule,
};
use abi_stable::std_types::{RResult, RStr};
use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use plugin_abi::manifest::PluginManifest;
use plugin_abi::{Host, Model, PluginModule_Ref, RawError};
use serde::{Deserialize, Serialize};

use super::layout::{check_layouts, one_line};
use crate::json;

/// Why a library cannot be opened as a plugin. The probe process sends this to the server as JSON.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OpenError {
    /// The probe process could not be confined.
    #[error("cannot confine the plugin probe: {0}")]
    Confine(String),
    /// The dynamic linker rejected it.
    #[error("the dynamic linker rejected the library: {reason}{hint}")]
    Linker {
        /// The linker's message, which names the missing library or symbol.
        reason: String,
        /// What to do. Starts with `; `, or is empty.
        hint: String,
    },
    /// It does not export a plugin's symbol.
    #[error("the library does not export a model: add `export_model!(…)` to the plugin's source; {reason}")]
    NotAPlugin {
        /// The linker's message.
        reason: String,
    },
    /// It was built with an incompatible version of abi_stable.
    #[error(
        "rebuild the plugin with this server's plugin-sdk: it was built with abi_stable {got}, expected {expected}"
    )]
    AbiStable {
        /// Version of abi_stable in the plugin, as far as it affects the layout.
        got: String,
        /// Version of abi_stable in this server.
        expected: String,
    },
    /// Its compiler uses another calling convention.
    #[error("the plugin and this server use different calling conventions: {0}")]
    CallingConvention(String),
    /// It was built for another major version of the plugin ABI.
    #[error(
        "rebuild the plugin with this server's plugin-sdk: it was built for plugin ABI {got}, expected {expected}"
    )]
    AbiVersion {
        /// ABI version of the plugin.
        got: String,
        /// ABI version of this server.
        expected: String,
    },
    /// The ABI version is compatible, but the types differ.
    #[error(
        "rebuild the plugin with this server's plugin-sdk: its types (plugin ABI {got}) differ from the server's (plugin ABI {expected}); the log lists them at level debug"
    )]
    Layout {
        /// ABI version of the plugin.
        got: String,
        /// ABI version of this server.
        expected: String,
        /// The first differences, separated by `; `. Logged at level debug only, because plugin authors do not know these types.
        mismatches: String,
    },
    /// It was built without the information that is needed to check its types.
    #[error("the plugin contains no type information: export it with `export_model!`")]
    NoLayout,
    /// Its initialization failed.
    #[error("the plugin failed to initialize: {0}")]
    Initialize(String),
    /// Its manifest cannot be parsed.
    #[error("the plugin's manifest is invalid: {0}")]
    Manifest(String),
}

/// A library that has been opened and checked. Copies refer to the same library, which is never unloaded.
#[derive(Clone, Copy)]
pub(super) struct OpenedPlugin {
    module: PluginModule_Ref,
    header: &'static LibHeader,
}

impl OpenedPlugin {
    /// Opens the library at `file` and checks that it agrees with this server on the types of the ABI. Runs its constructors.
    pub(super) fn open(file: &Path) -> Result<Self, OpenError> {
        // SAFETY: Running the constructors of a library is as sound as the library. This cannot be checked; the operator chose
        // to run this plugin. `header::check` has checked that the file is complete and built for this machine, `scratch` that
        // nobody else can write to it, and the probe that its constructors return.
        let library = unsafe { Library::open(Some(file), RTLD_NOW | RTLD_LOCAL) }.map_err(linker_error)?;
        // Never closed, even if it is rejected below, because its constructors have run.
        let library = ManuallyDrop::new(library);
        // SAFETY: Plugins export a static `LibHeader` under this name, which starts with an `AbiHeader`. `AbiHeaderRef` is a
        // `repr(transparent)` reference to it, and the address of a symbol is such a reference. Its target lives as long as the
        // mapping, which is never removed.
        let symbol = unsafe { library.get::<AbiHeaderRef>(ROOT_MODULE_LOADER_NAME_WITH_NUL.as_bytes()) };
        let symbol = symbol.map_err(|error| OpenError::NotAPlugin {
            reason: innermost(&error),
        })?;
        // `upgrade` compares the magic string and the version before it reads further.
        let header = (*symbol).upgrade().map_err(header_error)?;
        check_version(
            header.version_strings().version.as_str(),
            PluginModule_Ref::VERSION_STRINGS.version.as_str(),
        )?;
        let layout = header.layout().ok_or(OpenError::NoLayout)?;
        check_layouts(PluginModule_Ref::LAYOUT, layout).map_err(|mismatches| OpenError::Layout {
            got: header.version_strings().version.as_str().to_owned(),
            expected: PluginModule_Ref::VERSION_STRINGS.version.as_str().to_owned(),
            mismatches,
        })?;
        // SAFETY: `check_layouts` above has compared the layout of the plugin's module with that of `PluginModule_Ref`.
        let module = unsafe { header.unchecked_layout::<PluginModule_Ref>() }
            .map_err(|error| OpenError::Initialize(error.to_string().trim().to_owned()))?;
        Ok(Self { module, header })
    }

    /// Version of the plugin ABI that the plugin was built for.
    pub(super) fn abi_version(&self) -> &'static str {
        self.header.version_strings().version.as_str()
    }

    /// The plugin's manifest.
    pub(super) fn describe(&self) -> Result<PluginManifest, OpenError> {
        let described = (self.module.describe())();
        json::from_str(&described).map_err(|error| OpenError::Manifest(error.to_string()))
    }

    /// Loads a model. `context` is a `LoadContext` as JSON.
    pub(super) fn load(&self, context: &str, host: Host) -> Result<Model, RawError> {
        match (self.module.load())(RStr::from_str(context), host) {
            RResult::ROk(model) => Ok(model),
            RResult::RErr(error) => Err(error),
        }
    }
}

/// The innermost source of an error. libloading itself only reports that `dlopen` failed; the source is the linker's message.
fn innermost(error: &dyn Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

fn linker_error(error: libloading::Error) -> OpenError {
    let reason = innermost(&error);
    let hint = if reason.contains("cannot open shared object file") {
        "; install it, put it next to the plugin and link the plugin with the run path $ORIGIN, or add its directory to LD_LIBRARY_PATH"
    } else if reason.contains("undefined symbol") {
        "; a library that defines it is not linked or has another version"
    } else if reason.contains("version `GLIBC") {
        "; the plugin was built on a newer system: build it on this system or on an older one"
    } else if reason.contains("failed to map segment") {
        "; the scratch directory may be on a file system mounted `noexec`"
    } else if reason.contains("static TLS") {
        "; too many libraries with thread-local storage are loaded: restart the server, or use isolation = \"process\""
    } else {
        ""
    };
    OpenError::Linker {
        reason,
        hint: hint.to_owned(),
    }
}

fn header_error(error: LibraryError) -> OpenError {
    use abi_stable::library::AbiHeader;
    let version = |header: &AbiHeader| format!("{}.{}", header.abi_major, header.abi_minor);
    match error {
        LibraryError::InvalidAbiHeader(got) if got.magic_string == AbiHeader::VALUE.magic_string => {
            OpenError::AbiStable {
                got: version(&got),
                expected: version(&AbiHeader::VALUE),
            }
        }
        LibraryError::InvalidAbiHeader(_) => OpenError::NotAPlugin {
            reason: "the exported symbol of the plugin's module has another type".to_owned(),
        },
        other => OpenError::CallingConvention(one_line(&other.to_string())),
    }
}

/// Requires equal major versions. Older and newer minor versions are accepted if their layouts are compatible.
fn check_version(got: &str, expected: &str) -> Result<(), OpenError> {
    let major = |version: &str| {
        version
            .split('.')
            .next()
            .and_then(|part| part.parse::<u32>().ok())
    };
    if major(got).is_some() && major(got) == major(expected) {
        return Ok(());
    }
    Err(OpenError::AbiVersion {
        got: got.to_owned(),
        expected: expected.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn major_versions_must_be_equal() {
        for got in ["1.0.0", "1.7.2", "1.0.0-rc.1"] {
            assert_eq!(check_version(got, "1.0.0"), Ok(()), "{got}");
        }
        for got in ["0.9.0", "2.0.0", "", "x"] {
            let error = check_version(got, "1.0.0").expect_err(got).to_string();
            assert_eq!(
                error,
                format!(
                    "rebuild the plugin with this server's plugin-sdk: it was built for plugin ABI {got}, expected 1.0.0"
                )
            );
        }
    }
}
