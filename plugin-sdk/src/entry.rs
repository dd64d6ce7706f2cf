//! The functions of the C ABI. Each catches all panics and logs to the server that called it.

#![allow(unsafe_code, reason = "the server returns prepared items as handles")]

use abi_stable::sabi_trait::TD_Opaque;
use abi_stable::std_types::{RResult, RStr, RString};
use plugin_abi::check;
use plugin_abi::manifest::{self, ModelManifest, PluginManifest};
use plugin_abi::{
    Host, ModelAbi, ModelAbi_TO, OutputSink, RawBatch, RawError, RawItem, RawMemoryUsage, RawPrepared,
};

use crate::contain::{Contained, contain};
use crate::error::{BatchError, ItemError, LoadError, raw_panic};
use crate::logging::{self, LogScope, with_host};
use crate::model::{LoadContext, Model};
use crate::output::Emitter;
use crate::prepared;
use crate::settings;
use crate::task::Tasks;

/// The author's package, as known to the export macro.
#[derive(Clone, Copy, Debug)]
pub struct Package {
    /// Name.
    pub name: &'static str,
    /// Version.
    pub version: &'static str,
    /// Description. May be empty.
    pub description: &'static str,
    /// Whether the package is built with debug assertions.
    pub debug_build: bool,
}

pub(crate) fn describe<M: Model>(package: Package) -> RString {
    describe_as(package, || PluginManifest {
        settings_schema: crate::schema::of_input::<M::Settings>(),
        tasks: M::tasks().manifests(),
        isolation: M::isolation(),
        ..PluginManifest::default()
    })
}

/// Returns the manifest of a plugin with the fields of its package filled in.
pub(crate) fn describe_as(package: Package, describe: impl FnOnce() -> PluginManifest) -> RString {
    let described = contain(describe);
    // This function cannot fail and has no log, so a panic is reported in the description.
    let (described, description) = match described {
        Ok(described) => (described, package.description.to_owned()),
        Err(panic) => (
            PluginManifest::default(),
            format!("the plugin panicked while describing itself: {panic}"),
        ),
    };
    to_json(&PluginManifest {
        name: package.name.to_owned(),
        version: package.version.to_owned(),
        description,
        sdk_version: env!("CARGO_PKG_VERSION").to_owned(),
        debug_build: package.debug_build,
        ..described
    })
}

pub(crate) fn load<M: Model>(
    context: RStr<'_>,
    host: Host,
    scope: LogScope,
) -> RResult<plugin_abi::Model, RawError> {
    let loaded = contain(|| {
        let host = logging::install(host, scope);
        with_host(host, || LoadedModel::<M>::new(context.as_str(), host))
    });
    match loaded {
        Ok(Ok(loaded)) => RResult::ROk(ModelAbi_TO::from_value(loaded, TD_Opaque)),
        Ok(Err(error)) => RResult::RErr(error.into()),
        Err(panic) => RResult::RErr(raw_panic(panic)),
    }
}

/// Implements the C ABI for the author's model.
struct LoadedModel<M: Model> {
    model: Contained<M>,
    tasks: Contained<Tasks<M>>,
    manifest: String,
    host: &'static Host,
}

impl<M: Model> LoadedModel<M> {
    fn new(context: &str, host: &'static Host) -> Result<Self, LoadError> {
        let context = read_context(context)?;
        let settings = settings::read::<M::Settings>(&context.settings)?;
        let model = Contained::new(M::load(settings, &LoadContext::new(&context))?);
        let tasks = Contained::new(model.configured_tasks());
        let manifest = ModelManifest {
            platform: M::platform().to_owned(),
            tasks: tasks.manifests(),
            files: model.files(),
            details: model
                .details()
                .into_iter()
                .map(|(name, text)| (name, check::cut_text(text)))
                .collect(),
        };
        Ok(Self {
            model,
            tasks,
            manifest: to_json(&manifest).into_string(),
            host,
        })
    }

    /// Runs `call` with the model's host as the current one, and turns a panic into an error.
    fn guard<T, E: Into<RawError>>(&self, call: impl FnOnce() -> Result<T, E>) -> RResult<T, RawError> {
        match with_host(self.host, || contain(call)) {
            Ok(Ok(value)) => RResult::ROk(value),
            Ok(Err(error)) => RResult::RErr(error.into()),
            Err(panic) => RResult::RErr(raw_panic(panic)),
        }
    }
}

impl<M: Model> ModelAbi for LoadedModel<M> {
    fn manifest(&self) -> RString {
        RString::from(self.manifest.as_str())
    }

    fn prepare(&self, task: u32, item: RawItem<'_>) -> RResult<RawPrepared, RawError> {
        self.guard(|| match self.tasks.get(task) {
            Some(task) => task.prepare(&self.model, &item),
            None => Err(ItemError::fault(format_args!(
                "the model has no task with index {task}"
            ))),
        })
    }

    fn drop_prepared(&self, _task: u32, handle: usize) {
        with_host(self.host, || {
            // SAFETY: by the ABI's contract, each handle is returned exactly once and not used afterwards.
            let prepared = unsafe { prepared::from_handle(handle) };
            // The panic hook has already logged the panic.
            let _message = contain(|| drop(prepared));
        });
    }

    fn predict_batch(&self, batch: RawBatch<'_>, sink: OutputSink<'_>) -> RResult<(), RawError> {
        self.guard(|| match self.tasks.get(batch.task) {
            Some(task) => task.run(&self.model, &batch, &mut Emitter::new(sink)),
            None => Err(BatchError::failed(format_args!(
                "the model has no task with index {}",
                batch.task
            ))),
        })
    }

    fn sample(&self, task: u32, weight: u64) -> RResult<RString, RawError> {
        self.guard(|| match self.tasks.get(task) {
            Some(task) => Ok(task
                .sample(&self.model, weight)
                .map_or_else(RString::new, |item| RString::from(item.to_string()))),
            None => Err(ItemError::fault(format_args!(
                "the model has no task with index {task}"
            ))),
        })
    }

    fn memory_usage(&self) -> RawMemoryUsage {
        // The panic hook has already logged any panic.
        let usage = with_host(self.host, || contain(|| self.model.memory_usage()));
        match usage {
            Ok(Some(usage)) => RawMemoryUsage {
                is_reported: 1,
                current: usage.current,
                peak: usage.peak,
                ..RawMemoryUsage::NOT_REPORTED
            },
            Ok(None) | Err(_) => RawMemoryUsage::NOT_REPORTED,
        }
    }
}

impl<M: Model> Drop for LoadedModel<M> {
    fn drop(&mut self) {
        with_host(self.host, || {
            // The panic hook has already logged any panic.
            let _message = self.tasks.dispose();
            let _message = self.model.dispose();
        });
    }
}

pub(crate) fn read_context(context: &str) -> Result<manifest::LoadContext, LoadError> {
    serde_json::from_str(context)
        .map_err(|error| LoadError::new(format_args!("the server's load context is malformed: {error}")))
}

pub(crate) fn to_json<T: serde::Serialize>(manifest: &T) -> RString {
    RString::from(
        serde_json::to_string(manifest).expect("manifests have string keys and finite numbers only"),
    )
}
