//! A route: its paths, the access that it requires, and how a path is compared with it.

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
    pub(super) fn has(self, page: Page) -> bool {
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
    pub(super) const fn client(patterns: &'static [&'static str]) -> Self {
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

    pub(super) const fn task(task: TaskRoute, patterns: &'static [&'static str]) -> Self {
        Self {
            task: Some(task),
            ..Self::client(patterns).compressible()
        }
    }

    pub(super) const fn open(patterns: &'static [&'static str]) -> Self {
        Self {
            access: Access::Open,
            ..Self::client(patterns)
        }
    }

    pub(super) const fn probe(patterns: &'static [&'static str]) -> Self {
        Self {
            is_probe: true,
            ..Self::open(patterns)
        }
    }

    pub(super) const fn docs(patterns: &'static [&'static str]) -> Self {
        Self {
            page: Some(Page::Docs),
            ..Self::open(patterns).compressible()
        }
    }

    pub(super) const fn ui(access: Access, patterns: &'static [&'static str]) -> Self {
        Self {
            access,
            page: Some(Page::Ui),
            ..Self::client(patterns).compressible()
        }
    }

    pub(super) const fn admin(patterns: &'static [&'static str]) -> Self {
        Self {
            access: Access::Admin,
            ..Self::client(patterns)
        }
    }

    pub(super) const fn compressible(self) -> Self {
        Self {
            is_compressible: true,
            ..self
        }
    }

    pub(super) const fn below_models(self) -> Self {
        Self {
            is_below_models: true,
            ..self
        }
    }

    /// The paths of the route below the name of each model, without that name. Patterns that name a model themselves have none.
    pub fn paths_below_models(&self) -> impl Iterator<Item = &'static str> + Clone + use<> {
        let patterns: &'static [&'static str] = if self.is_below_models { self.patterns } else { &[] };
        patterns.iter().copied().filter(|pattern| !pattern.contains('{'))
    }

    /// The pattern of the route that matches `path`.
    pub fn pattern_of(&self, path: &str) -> Option<&'static str> {
        let mut patterns = self.patterns.iter().copied();
        patterns.find(|pattern| pattern_matches(pattern, path))
    }

    /// The placeholders of the pattern that matches `path`, as one of the route must, with their values, which are not decoded.
    /// There must be at most one placeholder in a segment.
    pub fn parameters<'a>(&self, path: &'a str) -> impl Iterator<Item = (&'static str, &'a str)> {
        let pattern = match self.patterns {
            [only] => Some(*only),
            _ => self.pattern_of(path),
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
