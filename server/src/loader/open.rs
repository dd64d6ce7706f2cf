//! Opening a plugin in this process.
//!
//! Expects a file that the header check has passed, at a path that was never opened before and that nobody writes to; see
//! `copy`. A library, once opened, stays mapped until the process ends: what it left behind (threads, thread-local
//! destructors, function pointers) makes closing it a crash, sooner or later.

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

/// Why a library could not be opened as a plugin. Plain data: the trial's child hands it to the server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OpenError {
    /// The process that tries it cannot be confined as it should.
    #[error("the process that tries the library {0}")]
    Confine(String),
    /// The dynamic linker refused it.
    #[error("the dynamic linker refuses the library: {reason}{hint}")]
    Linker {
        /// What the linker said: names the library or the symbol that is missing.
        reason: String,
        /// What to do: starts with `; ` or is empty.
        hint: String,
    },
    /// It does not export the symbol of a plugin.
    #[error("the library exports no model: add `export_model!(…)` to the plugin's source; {reason}")]
    NotAPlugin {
        /// What the linker said.
        reason: String,
    },
    /// It was built with another abi_stable.
    #[error(
        "rebuild the plugin with this server's plugin-sdk: it was built with abi_stable {got}, expected {expected}"
    )]
    AbiStable {
        /// Version of the plugin's, as far as its layout counts.
        got: String,
        /// Version of this server's.
        expected: String,
    },
    /// Its compiler passes arguments otherwise than ours.
    #[error("the plugin's compiler passes arguments in another way than this server's: {0}")]
    CallingConvention(String),
    /// It was built for another major version of the plugin ABI.
    #[error(
        "rebuild the plugin with this server's plugin-sdk: it was built for plugin ABI {got}, expected {expected}"
    )]
    AbiVersion {
        /// Of the plugin.
        got: String,
        /// Of this server.
        expected: String,
    },
    /// The version is right, but the types are not.
    #[error(
        "rebuild the plugin with this server's plugin-sdk: its types (plugin ABI {got}) differ from the server's (plugin ABI {expected}); the log lists them at level debug"
    )]
    Layout {
        /// ABI version of the plugin.
        got: String,
        /// ABI version of this server.
        expected: String,
        /// The first few, separated by `; `. For the log at level debug: they name types that no author has written.
        mismatches: String,
    },
    /// It was built so that its types cannot be checked.
    #[error("the plugin does not describe its types; was it exported by other means than `export_model!`?")]
    NoLayout,
    /// It failed before there was anything to ask.
    #[error("the plugin failed to initialise: {0}")]
    Initialise(String),
    /// What it says of itself cannot be read.
    #[error("the plugin's description of itself is no valid manifest: {0}")]
    Manifest(String),
}

/// A library that has been opened and checked. Copies stand for the same library, which stays until the process ends.
#[derive(Clone, Copy)]
pub(super) struct OpenedPlugin {
    module: PluginModule_Ref,
    header: &'static LibHeader,
}

impl OpenedPlugin {
    /// Opens the library at `file` and checks that it and this server mean the same by their types. Runs its constructors.
    pub(super) fn open(file: &Path) -> Result<Self, OpenError> {
        // SAFETY: running the constructors of a library is sound as far as the library is; nothing can check that, and it
        // is the operator's choice to run this plugin. That the file is complete and for this machine was checked by
        // `header::check`, that nobody else can write to it by `copy`, and that its constructors return by the trial.
        let library = unsafe { Library::open(Some(file), RTLD_NOW | RTLD_LOCAL) }.map_err(linker_error)?;
        // Never closed, also if it is refused below: its constructors have run.
        let library = ManuallyDrop::new(library);
        // SAFETY: plugins export a static `LibHeader` by this name, which starts with an `AbiHeader`; `AbiHeaderRef` is a
        // `repr(transparent)` reference to it, which is what a symbol's address is. What it points to lives as long as the
        // mapping, which is never removed.
        let symbol = unsafe { library.get::<AbiHeaderRef>(ROOT_MODULE_LOADER_NAME_WITH_NUL.as_bytes()) };
        let symbol = symbol.map_err(|error| OpenError::NotAPlugin {
            reason: innermost(&error),
        })?;
        // `upgrade` compares the magic string and the version before it reads any further.
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
            .map_err(|error| OpenError::Initialise(error.to_string().trim().to_owned()))?;
        Ok(Self { module, header })
    }

    /// Version of the plugin ABI that the plugin was built for.
    pub(super) fn abi_version(&self) -> &'static str {
        self.header.version_strings().version.as_str()
    }

    /// What the plugin says of itself.
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

/// libloading says only that `dlopen` failed; what the linker said is the innermost source.
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
        "; install it, put it beside the plugin and link the plugin with the run path $ORIGIN, or add its folder to LD_LIBRARY_PATH"
    } else if reason.contains("undefined symbol") {
        "; a library that defines it was not linked, or is of another version"
    } else if reason.contains("version `GLIBC") {
        "; the plugin was built on a newer system: build it on this one or on an older one"
    } else if reason.contains("failed to map segment") {
        "; is the folder for scratch files mounted `noexec`?"
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
            reason: "what it exports under the name of a plugin's module is something else".to_owned(),
        },
        other => OpenError::CallingConvention(one_line(&other.to_string())),
    }
}

/// The major versions are equal. Within one, both older and newer plugins are taken if their layouts allow it.
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
    fn major_versions_have_to_be_equal() {
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
