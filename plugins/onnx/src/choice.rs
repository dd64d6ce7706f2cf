//! Chooses the runtime of a model based on the settings, the verified operators and the installed libraries.

use std::path::PathBuf;

use plugin_sdk::{LoadContext, LoadError};

use crate::embedded::Embedded;
use crate::fallback::Fallback;
use crate::network::{Network, NotLoaded};
use crate::onnxruntime::OnnxRuntime;
use crate::runtime::Abilities;
use crate::settings::{OrtSettings, Provider, RuntimeChoice, Settings};

/// Instructions for installing ONNX Runtime from its Python package.
fn install(package: &str) -> String {
    format!(
        "install ONNX Runtime with `python3 -m venv /opt/onnxruntime` and `/opt/onnxruntime/bin/pip install {package}`, and \
         set `ort = {{ python = \"/opt/onnxruntime\" }}`"
    )
}

/// A loaded network, and how its runtime was chosen.
pub(crate) struct Chosen {
    pub(crate) network: Network,
    /// Name and version of the runtime, for display.
    pub(crate) runtime: String,
    /// Why it was chosen. Shown to clients, so it must not contain paths.
    pub(crate) reason: String,
    /// Whether the settings permit a fallback to ONNX Runtime if the trial run of the model fails.
    pub(crate) has_alternative: bool,
}

impl Chosen {
    fn new(network: Network, runtime: String, reason: impl Into<String>) -> Self {
        let reason = reason.into();
        Self {
            network,
            runtime,
            reason,
            has_alternative: false,
        }
    }
}

/// Loads the network in the configured runtime, or in the one chosen for `auto`, with `threads` threads for each batch.
pub(crate) fn load(settings: &Settings, context: &LoadContext, threads: usize) -> Result<Chosen, LoadError> {
    let loading = Loading::new(settings, context, threads);
    match settings.runtime {
        RuntimeChoice::Auto => loading.choose(),
        RuntimeChoice::Ort => {
            loading.onnx_runtime("runtime", "onnxruntime", "`runtime` is \"ort\"".to_owned())
        }
        RuntimeChoice::Rten if settings.ort.is_some() => {
            Err(LoadError::setting("ort", "is for the runtimes `auto` and `ort`"))
        }
        RuntimeChoice::Rten => {
            let network = loading
                .network(&Embedded::default())
                .map_err(NotLoaded::into_error)?;
            Ok(Chosen::new(network, EMBEDDED.to_owned(), "`runtime` is \"rten\""))
        }
    }
}

/// Loads the network in ONNX Runtime after its trial run in the embedded runtime failed. Returns `None` if ONNX Runtime is not
/// available or cannot load the model.
pub(crate) fn after_failed_trial(
    settings: &Settings,
    context: &LoadContext,
    threads: usize,
    failure: &str,
) -> Option<Chosen> {
    let loading = Loading::new(settings, context, threads);
    let runtime = OnnxRuntime::new(loading.ort, context).ok()?;
    let network = loading.network(&runtime).ok()?;
    let reason = format!("the embedded runtime cannot compute the trial: {failure}");
    Some(Chosen::new(network, runtime.name(), reason))
}

/// Display name of the embedded runtime.
const EMBEDDED: &str = "rten (embedded)";

struct Loading<'a> {
    path: PathBuf,
    ort: Option<&'a OrtSettings>,
    context: &'a LoadContext,
    threads: usize,
}

impl<'a> Loading<'a> {
    fn new(settings: &'a Settings, context: &'a LoadContext, threads: usize) -> Self {
        Self {
            path: context.path(&settings.model),
            ort: settings.ort.as_ref(),
            context,
            threads,
        }
    }

    fn network(&self, abilities: &dyn Abilities) -> Result<Network, NotLoaded> {
        Network::load(&self.path, abilities, self.context.workers, self.threads)
    }

    /// Loads the network in ONNX Runtime, which the setting `key` requires.
    fn onnx_runtime(&self, key: &str, package: &str, reason: String) -> Result<Chosen, LoadError> {
        let runtime = OnnxRuntime::new(self.ort, self.context).map_err(|error| match error.key() {
            Some(_) => error,
            None => LoadError::setting(key, format_args!("{}: {}", error.message(), install(package))),
        })?;
        let network = self.network(&runtime).map_err(NotLoaded::into_error)?;
        Ok(Chosen::new(network, runtime.name(), reason))
    }

    /// Loads the network in the embedded runtime if that is verified for the model, otherwise in ONNX Runtime.
    fn choose(&self) -> Result<Chosen, LoadError> {
        let providers = self.ort.map_or(&[][..], |ort| &ort.providers);
        // A model that requires a GPU never silently runs on the CPU.
        if providers.iter().any(|provider| *provider != Provider::Cpu) {
            let reason = "`ort.providers` requires a GPU".to_owned();
            return self.onnx_runtime("ort.providers", "onnxruntime-gpu", reason);
        }
        let refusal = match self.network(&Embedded::default()) {
            Ok(network) => {
                let reason = "it is verified for every operator of the model";
                let network = network.with_fallback(self.fallback());
                return Ok(Chosen {
                    has_alternative: true,
                    ..Chosen::new(network, EMBEDDED.to_owned(), reason)
                });
            }
            Err(NotLoaded::File(error)) => return Err(error),
            Err(NotLoaded::Runtime(error)) => error,
        };
        let runtime = OnnxRuntime::new(self.ort, self.context).map_err(|error| {
            let (refusal, missing) = (refusal.message(), error.message());
            // Report the setting that names an unusable library if there is one, otherwise the model.
            match error.key() {
                Some(key) => LoadError::setting(
                    key,
                    format_args!("{missing}; it is needed, since the embedded runtime does not run the model: {refusal}"),
                ),
                None => LoadError::setting("model", format_args!("{refusal}; {missing}: {}", install("onnxruntime"))),
            }
        })?;
        let network = self.network(&runtime).map_err(|failure| {
            let error = failure.into_error();
            let message = format!(
                "{}; the embedded runtime does not run it either: {}",
                error.message(),
                refusal.message()
            );
            match error.key() {
                Some(key) => LoadError::setting(key, message),
                None => LoadError::new(message),
            }
        })?;
        let reason = format!(
            "the embedded runtime does not run the model: {}",
            self.without_directory(refusal.message())
        );
        Ok(Chosen::new(network, runtime.name(), reason))
    }

    /// ONNX Runtime for items for which the embedded runtime is not verified, if a library is found. The library is not opened
    /// before it is needed.
    fn fallback(&self) -> Option<Fallback> {
        let name = OnnxRuntime::find(self.ort, &self.context.base_dir)?;
        let (path, ort) = (self.path.clone(), self.ort.cloned());
        let (context, threads) = (self.context.clone(), self.threads);
        let load = move || {
            let runtime =
                OnnxRuntime::new(ort.as_ref(), &context).map_err(|error| error.message().to_owned())?;
            let network = Network::load(&path, &runtime, 1, threads);
            network.map_err(|failure| failure.into_error().message().to_owned())
        };
        Some(Fallback::new(name, Box::new(load)))
    }

    /// Removes the directory of the file from a message, so that clients do not learn where the file is.
    fn without_directory(&self, message: &str) -> String {
        let name = self.path.file_name().unwrap_or_default();
        message.replace(&*self.path.to_string_lossy(), &name.to_string_lossy())
    }
}
