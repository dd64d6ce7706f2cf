//! Keys that need a part of the server that can be omitted from a build.

use super::document::Document;
use super::error::{ConfigError, Origin};
use super::file::ModelTable;
use super::keys::{WrittenJobs, WrittenServer};
use super::section::Located;
use crate::resources::Sandbox;

/// The optional parts of the server: the features of the crate.
#[derive(Clone, Copy, Debug)]
pub(super) struct Features {
    pub(super) grpc: bool,
    pub(super) docs: bool,
    pub(super) jobs: bool,
    pub(super) sandbox: bool,
    pub(super) traces: bool,
    pub(super) ui: bool,
}

impl Features {
    /// The parts that this build has.
    pub(super) const BUILT: Self = Self {
        grpc: cfg!(feature = "grpc"),
        docs: cfg!(feature = "docs"),
        jobs: cfg!(feature = "jobs"),
        sandbox: cfg!(feature = "sandbox"),
        traces: cfg!(feature = "traces"),
        ui: cfg!(feature = "ui"),
    };

    /// Rejects values that need a missing part. `servers` and `jobs` are the values of each source, and `collector` is the
    /// endpoint of traces.
    pub(super) fn reject_missing(
        self,
        document: &Document<'_>,
        (servers, jobs): (&[&WrittenServer], &[&WrittenJobs]),
        collector: Option<&Located<String>>,
        models: &[ModelTable],
        errors: &mut Vec<ConfigError>,
    ) {
        let mut reject = |setting: &str, feature: &str, fix: &str, origin: &Origin| {
            let message =
                format!("{setting} requires the feature `{feature}`, which this build of the server omits");
            let hint = format!("use a build with the feature `{feature}`, or {fix}");
            errors.push(ConfigError {
                excerpt: document.line_of(origin),
                ..ConfigError::new(origin.clone(), message, Some(hint))
            });
        };
        for server in servers {
            if let Some(port) = server.grpc_port.as_ref().filter(|_| !self.grpc) {
                reject("`grpc_port`", "grpc", "remove `grpc_port`", &port.origin);
            }
            if let Some(docs) = server.docs.as_ref().filter(|docs| docs.value && !self.docs) {
                reject("`docs = true`", "docs", "remove `docs`", &docs.origin);
            }
            if let Some(ui) = server.ui.as_ref().filter(|ui| ui.value && !self.ui) {
                reject("`ui = true`", "ui", "remove `ui`", &ui.origin);
            }
        }
        for jobs in jobs {
            if let Some(enabled) = jobs
                .enabled
                .as_ref()
                .filter(|enabled| enabled.value && !self.jobs)
            {
                reject(
                    "`enabled = true` in [jobs]",
                    "jobs",
                    "remove `enabled`",
                    &enabled.origin,
                );
            }
        }
        if let Some(collector) = collector.filter(|_| !self.traces) {
            let fix = "remove the endpoint";
            reject("the export of traces", "traces", fix, &collector.origin);
        }
        for model in models {
            let sandbox = model.keys.sandbox.as_ref();
            if let Some(sandbox) = sandbox.filter(|sandbox| sandbox.value == Sandbox::On && !self.sandbox) {
                reject(
                    "`sandbox = \"on\"`",
                    "sandbox",
                    "set it to \"off\" or \"best-effort\"",
                    &sandbox.origin,
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::file;

    const EVERYTHING: &str = "[server]\ngrpc_port = 1\ndocs = true\nui = true\n[[models]]\nname = \"a\"\nplugin = \"a\"\n\
                              isolation = \"process\"\nsandbox = \"on\"\n[tracing]\nendpoint = \"http://a\"\n\
                              [jobs]\nenabled = true\n";

    fn errors(features: Features, text: &str) -> Vec<String> {
        let document = Document::new("models.toml", text);
        let mut errors = Vec::new();
        let written = file::read(&document, &mut errors);
        assert!(errors.is_empty(), "{errors:?}");
        let collector = written.tracing.endpoint.as_ref();
        features.reject_missing(
            &document,
            (&[&written.server], &[&written.jobs]),
            collector,
            &written.models,
            &mut errors,
        );
        errors
            .iter()
            .map(|error| format!("{}: {}", error.origin, error.message))
            .collect()
    }

    #[test]
    fn a_key_that_needs_an_omitted_feature_is_rejected_at_its_line() {
        let none = Features {
            grpc: false,
            docs: false,
            jobs: false,
            sandbox: false,
            traces: false,
            ui: false,
        };
        assert_eq!(
            errors(none, EVERYTHING),
            [
                "models.toml:2:13: `grpc_port` requires the feature `grpc`, which this build of the server omits",
                "models.toml:3:8: `docs = true` requires the feature `docs`, which this build of the server omits",
                "models.toml:4:6: `ui = true` requires the feature `ui`, which this build of the server omits",
                "models.toml:13:11: `enabled = true` in [jobs] requires the feature `jobs`, which this build of the server omits",
                "models.toml:11:12: the export of traces requires the feature `traces`, which this build of the server omits",
                "models.toml:9:11: `sandbox = \"on\"` requires the feature `sandbox`, which this build of the server omits",
            ]
        );
        let harmless = "[server]\ndocs = false\nui = false\n[[models]]\nname = \"a\"\nplugin = \"a\"\nisolation = \"process\"\n\
                        sandbox = \"best-effort\"\n";
        assert_eq!(errors(none, harmless), [""; 0]);
    }

    #[test]
    fn a_build_with_all_features_accepts_their_keys() {
        let all = Features {
            grpc: true,
            docs: true,
            jobs: true,
            sandbox: true,
            traces: true,
            ui: true,
        };
        assert_eq!(errors(all, EVERYTHING), [""; 0]);
    }
}
