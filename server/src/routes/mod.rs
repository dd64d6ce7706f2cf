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
    /// Embeddings in the protocol of Cohere.
    CohereEmbed,
    /// Embeddings in the protocol of text-embeddings-inference.
    TeiEmbed,
    /// Vectors of all tokens.
    TeiEmbedAll,
    /// Sparse embeddings.
    TeiEmbedSparse,
    /// Similarities of sentences to a source sentence.
    TeiSimilarity,
    /// Scores of labels.
    TeiPredict,
    /// Tokens of texts.
    TeiTokenize,
    /// Texts of tokens.
    TeiDecode,
    /// What the model does: embeddings, scores of labels, or ranking.
    TeiRoot,
}

impl TaskRoute {
    /// Number of values.
    pub const COUNT: usize = 16;
}

/// Pages that can be disabled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    /// The documentation.
    Docs,
    /// The page for operators.
    Ui,
}

/// The pages that a server has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pages {
    /// The documentation.
    pub docs: bool,
    /// The page for operators.
    pub ui: bool,
}

impl Pages {
    fn has(self, page: Page) -> bool {
        match page {
            Page::Docs => self.docs,
            Page::Ui => self.ui,
        }
    }
}

/// A route of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Paths of the route in the syntax of the router: `{name}` matches one segment or part of one, `{name}*` at the
    /// end matches any suffix. A name of a model with a slash is `{namespace}/{model}`.
    pub patterns: &'static [&'static str],
    /// Required access.
    pub access: Access,
    /// Set if the route runs a task.
    pub task: Option<TaskRoute>,
    /// Whether the route is a probe, which monitoring calls every few seconds. Probes are not counted, and by default
    /// not logged.
    pub is_probe: bool,
    /// The pages that the route is part of, which can be disabled.
    pub page: Option<Page>,
    /// Whether replies are compressed for clients that accept it.
    pub is_compressible: bool,
    /// Whether the route is also available below the name of each model, such as `/{model}/embed`. The paths of all other
    /// routes, and the short routes of tasks, take precedence.
    pub is_below_models: bool,
}

impl Route {
    const fn client(patterns: &'static [&'static str]) -> Self {
        Self {
            patterns,
            access: Access::Client,
            task: None,
            is_probe: false,
            page: None,
            is_compressible: false,
            is_below_models: false,
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
            page: Some(Page::Docs),
            ..Self::open(patterns).compressible()
        }
    }

    const fn ui(access: Access, patterns: &'static [&'static str]) -> Self {
        Self {
            access,
            page: Some(Page::Ui),
            ..Self::client(patterns).compressible()
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

    const fn below_models(self) -> Self {
        Self {
            is_below_models: true,
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

/// Patterns with the name of a model between a prefix and a suffix: without a slash, and with one.
macro_rules! of_model {
    ($($prefix:literal $suffix:literal),+) => {
        &[
            $(concat!($prefix, "{model}", $suffix),)+
            $(concat!($prefix, "{namespace}/{model}", $suffix)),+
        ]
    };
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
    PREDICT_TASK = Route::task(TaskRoute::Task, of_model!("/v1/models/" "/tasks/{task}/predict"));
    /// Runs the default task of a model.
    PREDICT_DEFAULT = Route::task(TaskRoute::Default, of_model!("/v1/models/" "/predict"));
    /// Runs a task in the Open Inference Protocol.
    V2_INFER = Route::task(TaskRoute::V2, of_model!("/v2/models/" "/infer", "/v2/models/" "/versions/{version}/infer"));
    /// Runs a task in KServe's V1 and TensorFlow Serving's protocol.
    V1_PREDICT = Route::task(TaskRoute::V1, of_model!("/v1/models/" ":predict", "/v1/models/" "/versions/{version}:predict"));
    /// OpenAI's embeddings, also at the path of text-embeddings-inference, and at those of Azure, one of which names the model.
    EMBEDDINGS = Route::task(
        TaskRoute::Embeddings,
        &[
            "/v1/embeddings",
            "/embeddings",
            "/openai/v1/embeddings",
            "/openai/deployments/{model}/embeddings",
            "/openai/deployments/{namespace}/{model}/embeddings",
        ]
    )
    .below_models();
    /// Ranks documents.
    RERANK = Route::task(TaskRoute::Rerank, &["/rerank", "/v1/rerank", "/v2/rerank"]).below_models();
    /// Scores pairs of texts.
    SCORE = Route::task(TaskRoute::Score, &["/score", "/v1/score"]);
    /// Cohere's embeddings.
    COHERE_EMBED = Route::task(TaskRoute::CohereEmbed, &["/v1/embed", "/v2/embed"]);
    /// The embeddings of text-embeddings-inference.
    TEI_EMBED = Route::task(TaskRoute::TeiEmbed, &["/embed"]).below_models();
    /// Vectors of all tokens.
    TEI_EMBED_ALL = Route::task(TaskRoute::TeiEmbedAll, &["/embed_all"]).below_models();
    /// Sparse embeddings.
    TEI_EMBED_SPARSE = Route::task(TaskRoute::TeiEmbedSparse, &["/embed_sparse"]).below_models();
    /// Similarities of sentences.
    TEI_SIMILARITY = Route::task(TaskRoute::TeiSimilarity, &["/similarity"]).below_models();
    /// Scores of labels.
    TEI_PREDICT = Route::task(TaskRoute::TeiPredict, &["/predict"]).below_models();
    /// Tokens of texts.
    TEI_TOKENIZE = Route::task(TaskRoute::TeiTokenize, &["/tokenize"]).below_models();
    /// Texts of tokens.
    TEI_DECODE = Route::task(TaskRoute::TeiDecode, &["/decode"]).below_models();
    /// Describes a model to clients of text-embeddings-inference.
    TEI_INFO = Route::client(&["/info"]).below_models();
    /// The OpenAPI document.
    OPENAPI = Route::docs(&["/openapi.json"]);
    /// Redirects to the documentation pages.
    DOCS_ROOT = Route::docs(&["/docs"]);
    /// The documentation pages.
    DOCS = Route::docs(&["/docs/{file}*"]);
    /// Redirects to the page for operators.
    UI_ROOT = Route::ui(Access::Open, &["/ui"]);
    /// The overview of the page for operators, or a form that asks for a key.
    UI = Route::ui(Access::Open, &["/ui/"]);
    /// A model on the page for operators, or a form that asks for a key.
    UI_MODEL = Route::ui(Access::Open, &["/ui/models/{model}"]);
    /// The jobs on the page for operators, or a form that asks for a key; cancels and retries them.
    UI_JOBS = Route::ui(Access::Open, &["/ui/jobs"]);
    /// The changes of the jobs on a page that is open, as a stream of events.
    UI_JOB_EVENTS = Route { is_compressible: false, ..Route::ui(Access::Client, &["/ui/jobs/events"]) };
    /// The files of the page for operators.
    UI_FILE = Route::ui(Access::Open, &["/ui/static/{file}"]);
    /// Opens a session with a key.
    UI_LOGIN = Route::ui(Access::Open, &["/ui/login"]);
    /// Ends a session.
    UI_LOGOUT = Route::ui(Access::Open, &["/ui/logout"]);
    /// The changes of a page that is open, as a stream of events.
    UI_EVENTS = Route { is_compressible: false, ..Route::ui(Access::Client, &["/ui/events"]) };
    /// The last ten minutes of a task.
    UI_HISTORY = Route::ui(Access::Client, &["/ui/history/{model}"]);
    /// Describes the server.
    ROOT = Route::open(&["/"]).compressible();
    /// Runs the only model of text-embeddings-inference, for requests with `POST`; see [`find_for`].
    TEI_ROOT = Route::task(TaskRoute::TeiRoot, &["/"]);
    /// The favicon.
    FAVICON = Route::open(&["/favicon.ico"]);
    /// State of the server and its models.
    HEALTH = Route::probe(&["/health"]).below_models();
    /// Liveness.
    LIVEZ = Route::probe(&["/livez"]);
    /// Readiness.
    READYZ = Route::probe(&["/readyz"]);
    /// Metrics for Prometheus.
    METRICS = Route::probe(&["/metrics"]).compressible();
    /// Lists the models.
    MODELS = Route::client(&["/v1/models"]).compressible();
    /// Other methods of that protocol, which are not supported.
    V1_OTHER = Route::client(of_model!("/v1/models/" ":{method}", "/v1/models/" "/versions/{version}:{method}"));
    /// Inputs and outputs of a model.
    V1_METADATA = Route::client(of_model!("/v1/models/" "/metadata", "/v1/models/" "/versions/{version}/metadata"));
    /// Describes a version of a model.
    V1_VERSION = Route::client(of_model!("/v1/models/" "/versions/{version}"));
    /// Versions by label, which are not supported.
    V1_LABEL = Route::client(of_model!("/v1/models/" "/labels/{label}", "/v1/models/" "/labels/{label}/metadata"));
    /// Describes a model.
    MODEL = Route::client(of_model!("/v1/models/" "")).compressible();
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
    V2_STATISTICS = Route::client(of_model!("/v2/models/" "/stats", "/v2/models/" "/versions/{version}/stats"));
    /// Configuration of a model, in Triton's format.
    V2_CONFIG = Route::client(of_model!("/v2/models/" "/config", "/v2/models/" "/versions/{version}/config"));
    /// Readiness of a model.
    V2_MODEL_READY = Route::client(of_model!("/v2/models/" "/ready", "/v2/models/" "/versions/{version}/ready"));
    /// Inputs and outputs of a model.
    V2_MODEL = Route::client(of_model!("/v2/models/" "", "/v2/models/" "/versions/{version}"));
    /// Lists the models in Triton's format.
    V2_INDEX = Route::client(&["/v2/repository/index"]);
    /// Loads a model.
    V2_LOAD = Route::admin(of_model!("/v2/repository/models/" "/load"));
    /// Unloads a model.
    V2_UNLOAD = Route::admin(of_model!("/v2/repository/models/" "/unload"));
}

/// Returns the access that a request for `path` requires. Unknown paths require a client key. So do pages that are
/// disabled.
pub fn required_access(is_post: bool, path: &str, pages: Pages) -> Access {
    find_for(is_post, path)
        .filter(|route| route.page.is_none_or(|page| pages.has(page)))
        .map_or(Access::Client, |route| route.access)
}

/// Whether `path` is that of a route which `management_only` moves to the management port: metrics, the loading of
/// models, and the page for operators.
pub fn is_management(path: &str) -> bool {
    find(path).is_some_and(|route| {
        *route == METRICS || route.access == Access::Admin || route.page == Some(Page::Ui)
    })
}

/// Returns the route that matches `path`.
pub fn find(path: &str) -> Option<&'static Route> {
    ALL.iter().find(|route| route.matches(path))
}

/// Returns the route of a request for `path`. Only at `/` does it depend on the method.
pub fn find_for(is_post: bool, path: &str) -> Option<&'static Route> {
    match is_post && path == "/" {
        true => Some(&TEI_ROOT),
        false => find(path),
    }
}

/// Splits a path such as `/{model}/embed` into the name of the model and the route. `None` if no route matches. The model may
/// not exist.
pub fn below_model(path: &str) -> Option<(&str, &'static Route)> {
    let routes = ALL.iter().filter(|route| route.is_below_models);
    let patterns = routes.flat_map(|route| route.patterns.iter().map(move |pattern| (route, pattern)));
    let below = patterns.filter_map(|(route, pattern)| Some((path.strip_suffix(pattern)?, route)));
    let models = below.filter_map(|(model, route)| Some((model.strip_prefix('/')?, route)));
    // Of `/v1/rerank` and `/rerank`, the longer one.
    models
        .filter(|(model, _)| !model.is_empty() && !model.ends_with('/'))
        .min_by_key(|(model, _)| model.len())
}

/// Whether `word` is a segment after the name of a model in a path, so that it must not be the second part of a name with a
/// slash.
pub fn follows_models(word: &str) -> bool {
    let patterns = || ALL.iter().flat_map(|route| route.patterns.iter());
    let follows = |pattern: &&&str| {
        let mut segments = pattern
            .split('/')
            .skip_while(|segment| !segment.starts_with("{model}"));
        segments.nth(1) == Some(word)
    };
    let below = ALL.iter().filter(|route| route.is_below_models);
    let mut below = below.flat_map(|route| route.patterns.iter());
    patterns().any(|pattern| follows(&pattern))
        || below.any(|pattern| pattern.strip_prefix('/') == Some(word))
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

    const ALL_PAGES: Pages = Pages { docs: true, ui: true };

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
            "/ui",
            "/ui/",
            "/ui/login",
            "/ui/models/m",
            "/ui/jobs",
            "/ui/static/app.js",
            "/v2/health/live",
            "/v2/health/ready",
        ];
        for path in open {
            assert_eq!(required_access(false, path, ALL_PAGES), Access::Open, "{path}");
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
            "/ui/events",
            "/ui/history/m",
            "/ui/jobs/events",
            "/ui/jobs/x",
            "/ui/x",
            "/ui/models/m/x",
            "/v1/models",
            "/v2",
            "/anything",
            "*",
        ];
        for path in closed {
            assert_eq!(required_access(false, path, ALL_PAGES), Access::Client, "{path}");
        }
    }

    #[test]
    fn disabled_pages_are_not_open() {
        let none = Pages {
            docs: false,
            ui: false,
        };
        for path in [
            "/docs",
            "/docs/",
            "/docs/x",
            "/openapi.json",
            "/ui",
            "/ui/",
            "/ui/login",
        ] {
            assert_eq!(required_access(false, path, none), Access::Client, "{path}");
        }
        assert_eq!(required_access(false, "/health", none), Access::Open);
        let docs = Pages {
            docs: true,
            ui: false,
        };
        assert_eq!(
            (
                required_access(false, "/docs/", docs),
                required_access(false, "/ui/", docs)
            ),
            (Access::Open, Access::Client)
        );
    }

    #[test]
    fn loading_and_unloading_models_requires_the_admin_key() {
        for path in ["/v2/repository/models/m/load", "/v2/repository/models/m/unload"] {
            assert_eq!(required_access(false, path, ALL_PAGES), Access::Admin, "{path}");
        }
        assert_eq!(
            required_access(true, "/v2/repository/index", ALL_PAGES),
            Access::Client
        );
    }

    #[test]
    fn metrics_the_loading_of_models_and_the_page_for_operators_belong_to_the_management_port() {
        for path in [
            "/metrics",
            "/v2/repository/models/m/load",
            "/v2/repository/models/m/unload",
            "/ui",
            "/ui/",
            "/ui/models/m",
            "/ui/login",
            "/ui/events",
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
        assert_eq!(route("/v1/models/a/b"), Some(MODEL));
        assert_eq!(route("/v1/models/a/b/c"), None);
        assert_eq!(route("/v1/models/"), None);
        assert_eq!(route("/v2/models/m/versions/1/infer"), Some(V2_INFER));
        assert_eq!(route("/v2/models/stats"), Some(V2_ALL_STATISTICS));
    }

    #[test]
    fn a_name_with_a_slash_matches_two_segments() {
        let found = |path| {
            let route = find(path).expect("the path matches a route");
            (*route, route.parameters(path).collect::<Vec<_>>())
        };
        let name = [("namespace", "BAAI"), ("model", "bge")];
        for (path, route) in [
            ("/v1/models/BAAI/bge", MODEL),
            ("/v1/models/BAAI/bge/predict", PREDICT_DEFAULT),
            ("/v1/models/BAAI/bge:predict", V1_PREDICT),
            ("/v1/models/BAAI/bge/metadata", V1_METADATA),
            ("/v2/models/BAAI/bge", V2_MODEL),
            ("/v2/models/BAAI/bge/infer", V2_INFER),
            ("/v2/repository/models/BAAI/bge/load", V2_LOAD),
        ] {
            assert_eq!(found(path), (route, name.to_vec()), "{path}");
        }
        assert_eq!(
            found("/v1/models/BAAI/bge/tasks/query/predict"),
            (PREDICT_TASK, [&name[..], &[("task", "query")]].concat())
        );
        // The same paths as without names with a slash.
        assert_eq!(
            found("/v1/models/m/predict"),
            (PREDICT_DEFAULT, vec![("model", "m")])
        );
        assert_eq!(found("/v2/models/m/stats"), (V2_STATISTICS, vec![("model", "m")]));
        for word in [
            "predict", "tasks", "infer", "versions", "load", "embed", "rerank", "health",
        ] {
            assert!(follows_models(word), "{word}");
        }
        for word in ["bge-small-en", "v1", "models", "score"] {
            assert!(!follows_models(word), "{word}");
        }
    }

    #[test]
    fn routes_below_a_model_are_those_of_text_embeddings_inference() {
        let below = |path| below_model(path).map(|(model, route)| (model, *route));
        assert_eq!(below("/bge/embed"), Some(("bge", TEI_EMBED)));
        assert_eq!(below("/BAAI/bge/similarity"), Some(("BAAI/bge", TEI_SIMILARITY)));
        assert_eq!(below("/bge/rerank"), Some(("bge", RERANK)));
        assert_eq!(below("/bge/v2/rerank"), Some(("bge", RERANK)));
        assert_eq!(below("/BAAI/bge/v1/embeddings"), Some(("BAAI/bge", EMBEDDINGS)));
        assert_eq!(below("/bge/info"), Some(("bge", TEI_INFO)));
        for path in [
            "/embed",
            "/bge",
            "/bge/score",
            "/bge/metrics",
            "//embed",
            "/bge/embed/",
        ] {
            assert_eq!(below(path), None, "{path}");
        }
    }

    #[test]
    fn a_request_that_runs_a_model_at_the_root_requires_a_key() {
        assert_eq!(required_access(false, "/", ALL_PAGES), Access::Open);
        assert_eq!(required_access(true, "/", ALL_PAGES), Access::Client);
    }
}
