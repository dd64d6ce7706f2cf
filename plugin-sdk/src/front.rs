//! A plugin that cannot be linked against a library that it needs, because only its settings name it: the library of an
//! interpreter, say, of which machines have several versions.
//!
//! Such a plugin is two libraries. The server opens the *front*, which is linked against nothing unusual. When a model is
//! loaded, the front finds what the settings name, and the SDK opens that, and then the *back*: a plugin like any other,
//! whose model the server is given. After that the front has no part in anything.

#![allow(
    unsafe_code,
    reason = "opening a library and believing its types cannot be checked by the compiler"
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

/// The first of the two libraries of such a plugin; exported with [`export_front!`](crate::export_front).
///
/// The second is named in [`Back::plugin`] and found beside the first, if that was linked with the run path `$ORIGIN`.
pub trait Front: 'static {
    /// What `[models.settings]` of the configuration is read into, as [`Model::Settings`](crate::Model::Settings).
    type Settings: DeserializeOwned + JsonSchema;

    /// Finds what the model needs. Runs at each load. There is no log yet: what is to be said belongs into the error.
    ///
    /// # Errors
    /// It cannot be found.
    fn find(settings: Self::Settings, context: &LoadContext) -> Result<Back, LoadError>;

    /// As [`Model::isolation`](crate::Model::isolation).
    fn isolation() -> Option<Isolation> {
        None
    }
}

/// What a [`Front`] has found.
#[derive(Clone, Debug, PartialEq)]
pub struct Back {
    /// Libraries to open first, in this order, each with the setting that is to blame if that fails. Their symbols are
    /// there for every library that is opened later.
    pub libraries: Vec<(PathBuf, &'static str)>,
    /// File name of the library with the model.
    pub plugin: &'static str,
    /// The settings that the model is loaded with.
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

/// Opens the back, and says with what it is to load its model.
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
    // SAFETY: plugins export a static `LibHeader` by this name, which starts with an `AbiHeader`; `AbiHeaderRef` is a
    // `repr(transparent)` reference to it, which is what a symbol's address is. The library is never closed.
    let symbol = unsafe { library.get::<AbiHeaderRef>(ROOT_MODULE_LOADER_NAME_WITH_NUL.as_bytes()) };
    let header = *symbol.map_err(|_| LoadError::new(format_args!("{name} is not a plugin")))?;
    let module = header
        .upgrade()
        .and_then(|header| header.check_layout::<PluginModule_Ref>());
    module.map_err(|_| {
        LoadError::new(format_args!(
            "{name} was built with another plugin-sdk than {}; build both together",
            env!("CARGO_PKG_VERSION")
        ))
    })
}

/// Opens a library for good: what it leaves behind (threads, function pointers) would make closing it a crash.
fn open_library(name: &OsStr, flags: i32) -> Result<ManuallyDrop<Library>, LoadError> {
    // SAFETY: running the constructors of a library is sound as far as the library is; nothing can check that, and it is
    // the operator's choice to run this one.
    let library = unsafe { Library::open(Some(name), flags) }.map_err(|error| {
        // libloading says only that `dlopen` failed; its source is what the linker said.
        let reason = error
            .source()
            .map_or_else(|| error.to_string(), ToString::to_string);
        LoadError::new(format_args!(
            "the dynamic linker refuses {}: {reason}",
            name.display()
        ))
    })?;
    Ok(ManuallyDrop::new(library))
}
