//! The table of the server's routes.
//!
//! The HTTP router, access control, the default exclusions of the access log, and the paths reserved from a task's
//! `route` all use this table, so they cannot disagree. It does not know handlers or methods. Paths are compared
//! segment by segment, never by prefix: `/docs-of-mine` does not match `/docs`.

mod route;

#[cfg(test)]
mod tests;

pub use route::{Access, Page, Pages, Route, TaskRoute};

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
    ALL.iter().find(|route| route.pattern_of(path).is_some())
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
    let paths = ALL
        .iter()
        .flat_map(|route| route.paths_below_models().map(move |path| (route, path)));
    let below = paths.filter_map(|(route, pattern)| Some((path.strip_suffix(pattern)?, route)));
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
    let mut below = ALL.iter().flat_map(Route::paths_below_models);
    patterns().any(|pattern| follows(&pattern)) || below.any(|path| path.strip_prefix('/') == Some(word))
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
