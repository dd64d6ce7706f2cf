//! Plugins that depend on a library that is only known from the settings, such as an interpreter that is installed in several
//! versions.
//!
//! Such a plugin consists of two libraries. The server opens the *front*, which is not linked against the dependency. When a
//! model is loaded, the front finds the dependency that the settings name. The SDK then opens it, and after it the *back*: an
//! ordinary plugin, whose model is returned to the server. The front is not involved after that.

#![allow(
    unsafe_code,
    reason = "the compiler cannot check the constructors and types of a library that is opened at run time"
)]

use std::error::Error;
use std::ffi::OsStr;
use std::mem::ManuallyDrop;
use std::path::PathBuf;

use abi_stable::library::{AbiHeaderRef, ROOT_MODULE_LOADER_NAME_WITH_NUL};
use abi_stable::std_types::{RResult, RStr, RString};
use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_LOCAL, RTLD_NOW};
use plugin_abi::manifest::{self, Isolation, PluginManifest};
use plugin_abi::{Host, PluginModule_Ref, RawError};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::Value as Json;

use crate::contain::contain;
use crate::entry::{self, Package};
use crate::error::{LoadError, raw_panic};
use crate::model::LoadContext;
use crate::settings;

/// The first of the two libraries of such a plugin, exported with [`export_front!`](crate::export_front).
///
/// [`Back::plugin`] names the second one. It is found in the directory of the first if that was linked with the run path
/// `$ORIGIN`.
pub trait Front: 'static {
    /// Type that `[models.settings]` is deserialized into, as [`Model::Settings`](crate::Model::Settings).
    type Settings: DeserializeOwned + JsonSchema;

    /// Finds the libraries that the model needs. Called at each load. The log is not available yet, so the error should contain
    /// all information.
    ///
    /// # Errors
    /// A library cannot be found.
    fn find(settings: Self::Settings, context: &LoadContext) -> Result<Back, LoadError>;

    /// Same as [`Model::isolation`](crate::Model::isolation).
    fn isolation() -> Option<Isolation> {
        None
    }
}

/// Result of [`Front::find`].
#[derive(Clone, Debug, PartialEq)]
pub struct Back {
    /// Libraries to open first, in this order, each with the setting to report if opening fails. Their symbols are available to
    /// all libraries that are opened later.
    pub libraries: Vec<(PathBuf, &'static str)>,
    /// File name of the library with the model.
    pub plugin: &'static str,
    /// Settings that the model is loaded with.
    pub settings: Json,
}

pub(crate) fn describe<F: Front>(package: Package) -> RString {
    entry::describe_as(package, || PluginManifest {
        settings_schema: crate::schema::of_input::<F::Settings>(),
        isolation: F::isolation(),
        ..PluginManifest::default()
    })
}

pub(crate) fn load<F: Front>(context: RStr<'_>, host: Host) -> RResult<plugin_abi::Model, RawError> {
    match contain(|| open::<F>(context.as_str())) {
        Ok(Ok((back, context))) => back.load()(RStr::from(context.as_str()), host),
        Ok(Err(error)) => RResult::RErr(error.into()),
        Err(panic) => RResult::RErr(raw_panic(panic)),
    }
}

/// Opens the back. Returns its module and the context for loading its model.
fn open<F: Front>(context: &str) -> Result<(PluginModule_Ref, RString), LoadError> {
    let context = entry::read_context(context)?;
    let settings = settings::read::<F::Settings>(&context.settings)?;
    let back = F::find(settings, &LoadContext::new(&context))?;
    for (library, key) in &back.libraries {
        open_library(library.as_os_str(), RTLD_NOW | RTLD_GLOBAL).map_err(|error| error.at(key))?;
    }
    let module = open_plugin(back.plugin)?;
    let context = manifest::LoadContext {
        settings: back.settings,
        ..context
    };
    Ok((module, entry::to_json(&context)))
}

fn open_plugin(name: &str) -> Result<PluginModule_Ref, LoadError> {
    let library = open_library(OsStr::new(name), RTLD_NOW | RTLD_LOCAL)?;
    // SAFETY: plugins export a static `LibHeader` with this name, which starts with an `AbiHeader`. `AbiHeaderRef` is a
    // `repr(transparent)` reference to it, so the address of the symbol is a valid value. The library is never closed.
    let symbol = unsafe { library.get::<AbiHeaderRef>(ROOT_MODULE_LOADER_NAME_WITH_NUL.as_bytes()) };
    let header = *symbol.map_err(|_| LoadError::new(format_args!("{name} is not a plugin")))?;
    let module = header
        .upgrade()
        .and_then(|header| header.check_layout::<PluginModule_Ref>());
    module.map_err(|_| {
        LoadError::new(format_args!(
            "{name} was built with a different version of plugin-sdk, expected {}: build both libraries together",
            env!("CARGO_PKG_VERSION")
        ))
    })
}

/// Opens a library and never closes it, because its threads and function pointers can outlive any handle.
fn open_library(name: &OsStr, flags: i32) -> Result<ManuallyDrop<Library>, LoadError> {
    // SAFETY: the constructors of the library run here. Their soundness cannot be checked; the operator has configured this
    // library to be run.
    let library = unsafe { Library::open(Some(name), flags) }.map_err(|error| {
        // libloading's own message only says that `dlopen` failed. Its source is the linker's message.
        let reason = error
            .source()
            .map_or_else(|| error.to_string(), ToString::to_string);
        LoadError::new(format_args!(
            "cannot load the library {}: {reason}",
            name.display()
        ))
    })?;
    Ok(ManuallyDrop::new(library))
}
