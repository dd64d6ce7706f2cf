//! The table of the server's routes.
//!
//! The HTTP router, access control, the default exclusions of the access log, and the paths reserved from a task's
//! `route` all use this table, so they cannot disagree. It does not know handlers or methods. Paths are compared
//! segment by segment, never by prefix: `/docs-of-mine` does not match `/docs`.

/// The access that a request requires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// No key: health checks, metrics and documentation.
    Open,
    /// A client key or the admin key, if client keys are configured.
    Client,
    /// The admin key.
    Admin,
}

/// How a route that runs a task names the task, and in which protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskRoute {
    /// The native protocol; the path names the model and the task.
    Task,
    /// The native protocol, for the default task of the model.
    Default,
    /// KServe's V1 and TensorFlow Serving's protocol.
    V1,
    /// The Open Inference Protocol.
    V2,
    /// OpenAI's embeddings.
    Embeddings,
    /// Ranking in the protocols of Cohere, Jina, vLLM and text-embeddings-inference.
    Rerank,
    /// Scores of pairs in the protocol of vLLM.
    Score,
}

impl TaskRoute {
    /// Number of values.
    pub const COUNT: usize = 7;
}

/// A route of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Paths of the route in the syntax of the router: `{name}` matches one segment or part of one, `{name}*` at the
    /// end matches any suffix.
    pub patterns: &'static [&'static str],
    /// Required access.
    pub access: Access,
    /// Set if the route runs a task.
    pub task: Option<TaskRoute>,
    /// Whether the route is a probe, which monitoring calls every few seconds. Probes are not counted, and by default
    /// not logged.
    pub is_probe: bool,
    /// Whether the route is part of the documentation, which can be disabled.
    pub is_docs: bool,
    /// Whether replies are compressed for clients that accept it.
    pub is_compressible: bool,
}

impl Route {
    const fn client(patterns: &'static [&'static str]) -> Self {
        Self {
            patterns,
            access: Access::Client,
            task: None,
            is_probe: false,
            is_docs: false,
            is_compressible: false,
        }
    }

    const fn task(task: TaskRoute, patterns: &'static [&'static str]) -> Self {
        Self {
            task: Some(task),
            ..Self::client(patterns).compressible()
        }
    }

    const fn open(patterns: &'static [&'static str]) -> Self {
        Self {
            access: Access::Open,
            ..Self::client(patterns)
        }
    }

    const fn probe(patterns: &'static [&'static str]) -> Self {
        Self {
            is_probe: true,
            ..Self::open(patterns)
        }
    }

    const fn docs(patterns: &'static [&'static str]) -> Self {
        Self {
            is_docs: true,
            ..Self::open(patterns).compressible()
        }
    }

    const fn admin(patterns: &'static [&'static str]) -> Self {
        Self {
            access: Access::Admin,
            ..Self::client(patterns)
        }
    }

    const fn compressible(self) -> Self {
        Self {
            is_compressible: true,
            ..self
        }
    }

    fn matches(&self, path: &str) -> bool {
        self.patterns.iter().any(|pattern| pattern_matches(pattern, path))
    }

    /// The placeholders of the pattern that matches `path`, as one of the route must, with their values, which are not decoded. There must be at
    /// most one placeholder in a segment.
    pub fn parameters<'a>(&self, path: &'a str) -> impl Iterator<Item = (&'static str, &'a str)> {
        let pattern = match self.patterns {
            [only] => Some(only),
            several => several.iter().find(|pattern| pattern_matches(pattern, path)),
        };
        pattern.into_iter().flat_map(move |pattern| {
            let segments = pattern.split('/').zip(path.split('/'));
            segments.filter_map(|(expected, segment)| {
                let (name, suffix) = expected.strip_prefix('{')?.split_once('}')?;
                Some((name, segment.strip_suffix(suffix)?))
            })
        })
    }
}

/// Declares a constant for each route, and the table of all routes.
macro_rules! routes {
    ($($(#[doc = $doc:literal])+ $name:ident = $route:expr;)*) => {
        $($(#[doc = $doc])+ pub const $name: Route = $route;)*

        /// All routes. If several match a path, the first one applies.
        pub const ALL: &[Route] = &[$($name),*];
    };
}

routes! {
    /// Runs a task.
    PREDICT_TASK = Route::task(TaskRoute::Task, &["/v1/models/{model}/tasks/{task}/predict"]);
    /// Runs the default task of a model.
    PREDICT_DEFAULT = Route::task(TaskRoute::Default, &["/v1/models/{model}/predict"]);
    /// Runs a task in the Open Inference Protocol.
    V2_INFER = Route::task(TaskRoute::V2, &["/v2/models/{model}/infer", "/v2/models/{model}/versions/{version}/infer"]);
    /// Runs a task in KServe's V1 and TensorFlow Serving's protocol.
    V1_PREDICT = Route::task(TaskRoute::V1, &["/v1/models/{model}:predict", "/v1/models/{model}/versions/{version}:predict"]);
    /// OpenAI's embeddings, also at the paths of Azure, one of which names the model.
    EMBEDDINGS = Route::task(
        TaskRoute::Embeddings,
        &["/v1/embeddings", "/openai/v1/embeddings", "/openai/deployments/{model}/embeddings"]
    );
    /// Ranks documents.
    RERANK = Route::task(TaskRoute::Rerank, &["/rerank", "/v1/rerank", "/v2/rerank"]);
    /// Scores pairs of texts.
    SCORE = Route::task(TaskRoute::Score, &["/score", "/v1/score"]);
    /// The OpenAPI document.
    OPENAPI = Route::docs(&["/openapi.json"]);
    /// Redirects to the documentation pages.
    DOCS_ROOT = Route::docs(&["/docs"]);
    /// The documentation pages.
    DOCS = Route::docs(&["/docs/{file}*"]);
    /// Describes the server.
    ROOT = Route::open(&["/"]).compressible();
    /// The favicon.
    FAVICON = Route::open(&["/favicon.ico"]);
    /// State of the server and its models.
    HEALTH = Route::probe(&["/health"]);
    /// Liveness.
    LIVEZ = Route::probe(&["/livez"]);
    /// Readiness.
    READYZ = Route::probe(&["/readyz"]);
    /// Metrics for Prometheus.
    METRICS = Route::probe(&["/metrics"]).compressible();
    /// Lists the models.
    MODELS = Route::client(&["/v1/models"]).compressible();
    /// Other methods of that protocol, which are not supported.
    V1_OTHER = Route::client(&["/v1/models/{model}:{method}", "/v1/models/{model}/versions/{version}:{method}"]);
    /// Inputs and outputs of a model.
    V1_METADATA = Route::client(&["/v1/models/{model}/metadata", "/v1/models/{model}/versions/{version}/metadata"]);
    /// Describes a version of a model.
    V1_VERSION = Route::client(&["/v1/models/{model}/versions/{version}"]);
    /// Versions by label, which are not supported.
    V1_LABEL = Route::client(&["/v1/models/{model}/labels/{label}", "/v1/models/{model}/labels/{label}/metadata"]);
    /// Describes a model.
    MODEL = Route::client(&["/v1/models/{model}"]).compressible();
    /// Lists durable jobs.
    JOBS = Route::client(&["/v1/jobs"]).compressible();
    /// Describes, cancels or removes a job.
    JOB = Route::client(&["/v1/jobs/{job}"]);
    /// The result of a job.
    JOB_RESULT = Route::client(&["/v1/jobs/{job}/result"]).compressible();
    /// Queues a job again that has used all of its attempts.
    JOB_RETRY = Route::client(&["/v1/jobs/{job}/retry"]);
    /// Describes the server in the Open Inference Protocol.
    V2_SERVER = Route::client(&["/v2", "/v2/"]);
    /// Liveness in the Open Inference Protocol.
    V2_LIVE = Route::probe(&["/v2/health/live"]);
    /// Readiness in the Open Inference Protocol.
    V2_READY = Route::probe(&["/v2/health/ready"]);
    /// Statistics of all models.
    V2_ALL_STATISTICS = Route::client(&["/v2/models/stats"]);
    /// Statistics of a model.
    V2_STATISTICS = Route::client(&["/v2/models/{model}/stats", "/v2/models/{model}/versions/{version}/stats"]);
    /// Configuration of a model, in Triton's format.
    V2_CONFIG = Route::client(&["/v2/models/{model}/config", "/v2/models/{model}/versions/{version}/config"]);
    /// Readiness of a model.
    V2_MODEL_READY = Route::client(&["/v2/models/{model}/ready", "/v2/models/{model}/versions/{version}/ready"]);
    /// Inputs and outputs of a model.
    V2_MODEL = Route::client(&["/v2/models/{model}", "/v2/models/{model}/versions/{version}"]);
    /// Lists the models in Triton's format.
    V2_INDEX = Route::client(&["/v2/repository/index"]);
    /// Loads a model.
    V2_LOAD = Route::admin(&["/v2/repository/models/{model}/load"]);
    /// Unloads a model.
    V2_UNLOAD = Route::admin(&["/v2/repository/models/{model}/unload"]);
}

/// Returns the access that a request for `path` requires. Unknown paths require a client key. So does the
/// documentation if it is disabled.
pub fn required_access(path: &str, serves_docs: bool) -> Access {
    find(path)
        .filter(|route| serves_docs || !route.is_docs)
        .map_or(Access::Client, |route| route.access)
}

/// Whether `path` is that of a route which `management_only` moves to the management port: metrics, and the loading of
/// models.
pub fn is_management(path: &str) -> bool {
    find(path).is_some_and(|route| *route == METRICS || route.access == Access::Admin)
}

/// Returns the route that matches `path`.
pub fn find(path: &str) -> Option<&'static Route> {
    ALL.iter().find(|route| route.matches(path))
}

/// Returns all routes that run a task.
pub fn tasks() -> impl Iterator<Item = (&'static Route, TaskRoute)> {
    ALL.iter().filter_map(|route| Some((route, route.task?)))
}

/// Returns the patterns of all probes.
pub fn probes() -> impl Iterator<Item = &'static str> {
    let probes = ALL.iter().filter(|route| route.is_probe);
    probes.flat_map(|route| route.patterns.iter().copied())
}

/// Returns the first segment of `path`, with its slash, if the server reserves it and everything below it.
pub fn reserved_prefix(path: &str) -> Option<&'static str> {
    let patterns = ALL.iter().flat_map(|route| route.patterns.iter().copied());
    patterns
        .map(first_segment)
        .find(|root| *root == first_segment(path))
}

/// Returns `/docs` for `/docs/{file}*`.
fn first_segment(path: &str) -> &str {
    let rest = path.strip_prefix('/').unwrap_or(path);
    let length = rest.find('/').unwrap_or(rest.len());
    &path[..path.len() - rest.len() + length]
}

fn pattern_matches(pattern: &str, path: &str) -> bool {
    let mut segments = path.split('/');
    for expected in pattern.split('/') {
        let Some(segment) = segments.next() else {
            return false;
        };
        if expected.ends_with("}*") {
            return true;
        }
        if !segment_matches(expected, segment) {
            return false;
        }
    }
    segments.next().is_none()
}

fn segment_matches(expected: &str, segment: &str) -> bool {
    let Some((_, rest)) = expected.strip_prefix('{').and_then(|rest| rest.split_once('}')) else {
        return segment == expected;
    };
    match rest.split_once('{') {
        // Another placeholder after some text.
        Some((between, _)) => segment
            .split_once(between)
            .is_some_and(|(before, after)| !before.is_empty() && !after.is_empty()),
        None => segment.len() > rest.len() && segment.ends_with(rest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_paths_of_open_routes_are_open() {
        let open = [
            "/",
            "/favicon.ico",
            "/health",
            "/livez",
            "/readyz",
            "/metrics",
            "/docs",
            "/docs/",
            "/docs/index.css",
            "/openapi.json",
            "/v2/health/live",
            "/v2/health/ready",
        ];
        for path in open {
            assert_eq!(required_access(path, true), Access::Open, "{path}");
        }
        let closed = [
            "",
            "//",
            "/docs-of-mine",
            "/docsx/y",
            "/Docs/",
            "/health/",
            "/healthz",
            "//health",
            "/health/../v1/models",
            "/metrics2",
            "/metrics/x",
            "/openapi.json/x",
            "/openapi.jsonx",
            "/v2/health",
            "/v2/health/",
            "/v2/health/x",
            "/v2/health/live/x",
            "/v1/models",
            "/v2",
            "/anything",
            "*",
        ];
        for path in closed {
            assert_eq!(required_access(path, true), Access::Client, "{path}");
        }
    }

    #[test]
    fn disabled_documentation_is_not_open() {
        for path in ["/docs", "/docs/", "/docs/x", "/openapi.json"] {
            assert_eq!(required_access(path, false), Access::Client, "{path}");
        }
        assert_eq!(required_access("/health", false), Access::Open);
    }

    #[test]
    fn loading_and_unloading_models_requires_the_admin_key() {
        for path in ["/v2/repository/models/m/load", "/v2/repository/models/m/unload"] {
            assert_eq!(required_access(path, true), Access::Admin, "{path}");
        }
        assert_eq!(required_access("/v2/repository/index", true), Access::Client);
    }

    #[test]
    fn metrics_and_the_loading_of_models_belong_to_the_management_port() {
        for path in [
            "/metrics",
            "/v2/repository/models/m/load",
            "/v2/repository/models/m/unload",
        ] {
            assert!(is_management(path), "{path}");
        }
        for path in [
            "/",
            "/health",
            "/readyz",
            "/v1/models",
            "/v2/repository/index",
            "/metrics2",
        ] {
            assert!(!is_management(path), "{path}");
        }
    }

    #[test]
    fn everything_below_the_first_segment_of_a_route_is_reserved() {
        for (path, root) in [
            ("/v1", "/v1"),
            ("/v1/x/y", "/v1"),
            ("/v2/health/x", "/v2"),
            ("/docs/x", "/docs"),
            ("/metrics/x", "/metrics"),
            ("/", "/"),
        ] {
            assert_eq!(reserved_prefix(path), Some(root), "{path}");
        }
        for path in ["/docs-of-mine", "/v1x", "/metrics2", "/x/docs", "/x"] {
            assert_eq!(reserved_prefix(path), None, "{path}");
        }
    }

    #[test]
    fn the_values_of_placeholders_are_read_from_the_path() {
        let parameters = |path| {
            let route = find(path).expect("the path matches a route");
            route.parameters(path).collect::<Vec<_>>()
        };
        assert_eq!(
            parameters("/v1/models/m/tasks/t:predict/predict"),
            [("model", "m"), ("task", "t:predict")]
        );
        assert_eq!(parameters("/v1/models/a:b:predict"), [("model", "a:b")]);
        assert_eq!(
            parameters("/v1/models/m/versions/1:predict"),
            [("model", "m"), ("version", "1")]
        );
        assert_eq!(parameters("/v2/models/m.t/infer"), [("model", "m.t")]);
        assert!(parameters("/v1/embeddings").is_empty());
        assert_eq!(
            parameters("/openai/deployments/m.query/embeddings"),
            [("model", "m.query")]
        );
    }

    #[test]
    fn a_placeholder_matches_within_one_segment() {
        let route = |path| find(path).copied();
        assert_eq!(route("/v1/models/m"), Some(MODEL));
        assert_eq!(route("/v1/models/m:predict"), Some(V1_PREDICT));
        assert_eq!(route("/v1/models/m:explain"), Some(V1_OTHER));
        assert_eq!(route("/v1/models/m/versions/1:predict"), Some(V1_PREDICT));
        assert_eq!(route("/v1/models/a/b"), None);
        assert_eq!(route("/v1/models/"), None);
        assert_eq!(route("/v2/models/m/versions/1/infer"), Some(V2_INFER));
        assert_eq!(route("/v2/models/stats"), Some(V2_ALL_STATISTICS));
    }
}
