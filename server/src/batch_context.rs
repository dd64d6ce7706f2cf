//! The batch that the current thread works on. Log lines that are written meanwhile name its model, task and requests.
//!
//! The context is set while a model is called. Lines that a plugin logs from its own threads carry only the model.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::sync::Arc;

use log::kv::{Error, Key, Source, ToValue, Value, VisitSource};

/// Maximum number of request ids to list. Further requests are only counted.
const MAX_REQUESTS: usize = 8;

/// The fields that identify a batch in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchContext {
    /// Name of the model.
    pub model: Arc<str>,
    /// Name of the task.
    pub task: Arc<str>,
    /// Ids of the requests whose items are in the batch.
    pub requests: RequestIds,
    /// Ids of their traces, if they have any.
    pub traces: RequestIds,
}

/// What identifies a request in the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestTag {
    /// Its id; empty if it has none.
    pub id: Arc<str>,
    /// The id of its trace, if it is part of one.
    pub trace: Option<Arc<str>>,
}

/// Ids of requests or of their traces, at most `MAX_REQUESTS` of them. Displayed as `a,b,c`, or as `a,b,c,+5` if there are five more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestIds {
    ids: Vec<Arc<str>>,
    more: usize,
}

impl<'a> FromIterator<&'a Arc<str>> for RequestIds {
    /// Expects the items of a request to be adjacent. Requests without an id are omitted.
    fn from_iter<I: IntoIterator<Item = &'a Arc<str>>>(ids: I) -> Self {
        let mut requests = Self::default();
        let mut last: Option<&Arc<str>> = None;
        for id in ids.into_iter().filter(|id| !id.is_empty()) {
            if last.is_some_and(|last| last == id) {
                continue;
            }
            last = Some(id);
            if requests.ids.len() < MAX_REQUESTS {
                requests.ids.push(id.clone());
            } else {
                requests.more += 1;
            }
        }
        requests
    }
}

impl RequestIds {
    /// Ids in the form in which another process displays them.
    pub fn from_text(text: &str) -> Self {
        Self {
            ids: (!text.is_empty()).then(|| text.into()).into_iter().collect(),
            more: 0,
        }
    }

    fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }
}

impl fmt::Display for RequestIds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, id) in self.ids.iter().enumerate() {
            let separator = if index > 0 { "," } else { "" };
            write!(f, "{separator}{id}")?;
        }
        if self.more > 0 {
            write!(f, ",+{}", self.more)?;
        }
        Ok(())
    }
}

thread_local! {
    static CURRENT: RefCell<Option<Arc<BatchContext>>> = const { RefCell::new(None) };
    static LOGGED_ERRORS: Cell<u64> = const { Cell::new(0) };
}

impl BatchContext {
    /// The context of a batch with items of these requests.
    pub fn new<'a>(
        model: Arc<str>,
        task: Arc<str>,
        requests: impl IntoIterator<Item = &'a RequestTag> + Clone,
    ) -> Self {
        let traces = requests.clone().into_iter().filter_map(|tag| tag.trace.as_ref());
        Self {
            model,
            task,
            traces: traces.collect(),
            requests: requests.into_iter().map(|tag| &tag.id).collect(),
        }
    }

    /// Makes this the context of the current thread until the guard is dropped.
    pub fn enter(self: Arc<Self>) -> ContextGuard {
        ContextGuard(CURRENT.replace(Some(self)))
    }

    /// The context of the current thread.
    pub fn current() -> Option<Arc<Self>> {
        CURRENT.with_borrow(Clone::clone)
    }
}

/// Keeps a context in effect. Dropping it restores the previous one.
pub struct ContextGuard(Option<Arc<BatchContext>>);

impl Drop for ContextGuard {
    fn drop(&mut self) {
        CURRENT.set(self.0.take());
    }
}

impl Source for BatchContext {
    fn visit<'kvs>(&'kvs self, visitor: &mut dyn VisitSource<'kvs>) -> Result<(), Error> {
        visitor.visit_pair(Key::from_str("model"), self.model.as_ref().to_value())?;
        visitor.visit_pair(Key::from_str("task"), self.task.as_ref().to_value())?;
        for (key, ids) in [("requests", &self.requests), ("traces", &self.traces)] {
            if !ids.is_empty() {
                visitor.visit_pair(Key::from_str(key), Value::from_display(ids))?;
            }
        }
        Ok(())
    }
}

/// Counts an error that was logged on behalf of a plugin on the current thread.
pub fn count_logged_error() {
    LOGGED_ERRORS.set(LOGGED_ERRORS.get() + 1);
}

/// Number of errors that were logged on behalf of plugins on the current thread. A failure that the plugin has already
/// logged is not logged again.
pub fn logged_error_count() -> u64 {
    LOGGED_ERRORS.get()
}

/// Logs a line about a batch, with the batch's context as fields.
macro_rules! log_batch {
    ($level:ident, $context:expr, $($message:tt)+) => {{
        let context: &$crate::batch_context::BatchContext = &$context;
        let requests = context.requests.to_string();
        let traces = context.traces.to_string();
        log::$level!(
            model = context.model.as_ref(),
            task = context.task.as_ref(),
            requests = requests.as_str(),
            traces = traces.as_str();
            $($message)+
        );
    }};
}
pub(crate) use log_batch;

#[cfg(test)]
mod tests {
    use super::*;

    fn requests(ids: &[&str]) -> String {
        let ids: Vec<Arc<str>> = ids.iter().map(|id| Arc::from(*id)).collect();
        ids.iter().collect::<RequestIds>().to_string()
    }

    #[test]
    fn a_request_with_several_items_is_listed_once_and_at_most_eight_are_listed() {
        assert_eq!(requests(&["a", "a", "", "b"]), "a,b");
        assert_eq!(
            requests(&["1", "2", "3", "4", "5", "6", "7", "8", "9", "9", "10"]),
            "1,2,3,4,5,6,7,8,+2"
        );
        assert_eq!(requests(&[]), "");
    }

    #[test]
    fn dropping_the_guard_restores_the_previous_context() {
        let context = |model: &str| {
            Arc::new(BatchContext {
                model: model.into(),
                task: "t".into(),
                requests: RequestIds::default(),
                traces: RequestIds::default(),
            })
        };
        let outer = context("outer").enter();
        drop(context("inner").enter());
        assert_eq!(BatchContext::current(), Some(context("outer")));
        drop(outer);
        assert_eq!(BatchContext::current(), None);
    }
}
