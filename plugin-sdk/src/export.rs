//! The export macros and the code that they expand to.

#![allow(
    unsafe_code,
    reason = "abi_stable creates its header from a function whose type it cannot check"
)]

use std::marker::PhantomData;

use abi_stable::library::{__call_root_module_loader, CheckTypeLayout, LibHeader, RootModuleResult};
use abi_stable::prefix_type::PrefixTypeTrait;
use abi_stable::std_types::{RResult, RStr, RString};
use plugin_abi::{Host, PluginModule, PluginModule_Ref, RawError};

use crate::entry::{self, Package};
#[cfg(feature = "front")]
use crate::front::{self, Front};
use crate::logging::LogScope;
use crate::model::Model;

/// Exports a [`Model`](crate::Model) from a `cdylib`, so that the server can load it. Call it once per crate.
///
/// The crate can use `#![forbid(unsafe_code)]`: the only unsafe attribute, which names the exported symbol, is part of this
/// macro and not of the author's code.
///
/// A test or another crate can also link the plugin as an `rlib`, but only one plugin at a time, since all plugins export the
/// same symbol.
#[macro_export]
macro_rules! export_model {
    ($model:ty) => {
        $crate::__export!($crate::__private::OfModel<$model>);
    };
}

/// Exports a `Front` from a `cdylib`, as [`export_model!`] exports a model.
#[cfg(feature = "front")]
#[macro_export]
macro_rules! export_front {
    ($front:ty) => {
        $crate::__export!($crate::__private::OfFront<$front>);
    };
}

/// The common part of both macros.
#[doc(hidden)]
#[macro_export]
macro_rules! __export {
    ($exports:ty) => {
        const _: () = {
            struct Plugin;

            impl $crate::__private::Plugin for Plugin {
                type Exports = $exports;
                const PACKAGE: $crate::__private::Package = $crate::__private::Package {
                    name: ::core::env!("CARGO_PKG_NAME"),
                    version: ::core::env!("CARGO_PKG_VERSION"),
                    description: ::core::env!("CARGO_PKG_DESCRIPTION"),
                    debug_build: ::core::cfg!(debug_assertions),
                };
            }

            // The name is `abi_stable::library::ROOT_MODULE_LOADER_NAME`. The attribute requires a literal.
            #[unsafe(export_name = "_1as_0lib_1header_0root_bmodule_bloader")]
            static HEADER: $crate::__private::LibHeader = $crate::__private::header::<Plugin>();
        };
    };
}

/// A plugin, as the macros describe it.
pub trait Plugin: 'static {
    /// The exported functions.
    type Exports: Exports;
    /// The author's package.
    const PACKAGE: Package;
}

/// Implementation of the exported functions.
pub trait Exports: 'static {
    /// Implements [`PluginModule::describe`].
    fn describe(package: Package) -> RString;
    /// Implements [`PluginModule::load`].
    fn load(context: RStr<'_>, host: Host) -> RResult<plugin_abi::Model, RawError>;
}

/// The functions of a plugin with the model `M`.
#[derive(Debug)]
pub struct OfModel<M>(PhantomData<fn() -> M>);

impl<M: Model> Exports for OfModel<M> {
    fn describe(package: Package) -> RString {
        entry::describe::<M>(package)
    }

    fn load(context: RStr<'_>, host: Host) -> RResult<plugin_abi::Model, RawError> {
        entry::load::<M>(context, host, LogScope::Library)
    }
}

/// The functions of a plugin with the front `F`.
#[cfg(feature = "front")]
#[derive(Debug)]
pub struct OfFront<F>(PhantomData<fn() -> F>);

#[cfg(feature = "front")]
impl<F: Front> Exports for OfFront<F> {
    fn describe(package: Package) -> RString {
        front::describe::<F>(package)
    }

    fn load(context: RStr<'_>, host: Host) -> RResult<plugin_abi::Model, RawError> {
        front::load::<F>(context, host)
    }
}

/// Creates the header that the server looks up.
pub const fn header<P: Plugin>() -> LibHeader {
    // SAFETY: `construct` returns an erased `PluginModule_Ref`.
    unsafe { LibHeader::from_constructor::<PluginModule_Ref>(construct::<P>, CheckTypeLayout::Yes) }
}

extern "C" fn construct<P: Plugin>() -> RootModuleResult {
    // This function catches panics.
    __call_root_module_loader(module::<P>)
}

fn module<P: Plugin>() -> PluginModule_Ref {
    PluginModule {
        describe: describe::<P>,
        load: load::<P>,
    }
    .leak_into_prefix()
}

extern "C" fn describe<P: Plugin>() -> RString {
    P::Exports::describe(P::PACKAGE)
}

extern "C" fn load<P: Plugin>(context: RStr<'_>, host: Host) -> RResult<plugin_abi::Model, RawError> {
    P::Exports::load(context, host)
}

#[cfg(test)]
mod tests {
    use abi_stable::library::ROOT_MODULE_LOADER_NAME;

    #[test]
    fn the_exported_symbol_is_the_one_that_the_server_looks_up() {
        let attribute = format!("#[unsafe(export_name = \"{ROOT_MODULE_LOADER_NAME}\")]");
        assert!(
            include_str!("export.rs").contains(&attribute),
            "expected {attribute} in the macro"
        );
    }
}
