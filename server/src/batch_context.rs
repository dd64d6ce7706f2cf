//! The batch that the current thread works on, so that whatever is logged meanwhile names its model, task and requests.
//!
//! Set for the duration of a call into a model. Lines that a plugin logs from its own threads do not have it.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::sync::Arc;

use log::kv::{Error, Key, Source, ToValue, Value, VisitSource};

/// Requests of a batch that are named; of the others, only their number is given.
const MAX_REQUESTS: usize = 8;

/// What a batch is called in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchContext {
    /// Name of the model.
    pub model: Arc<str>,
    /// Name of the task.
    pub task: Arc<str>,
    /// Ids of the requests whose items are in the batch.
    pub requests: RequestIds,
}

/// Ids of requests, at most [`MAX_REQUESTS`] of them. Shown as `a,b,c`, or `a,b,c,+5` if there are five more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestIds {
    ids: Vec<Arc<str>>,
    more: usize,
}

impl<'a> FromIterator<&'a Arc<str>> for RequestIds {
    /// Items of one request follow each other; requests without an id are left out.
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
    /// Ids that another process shows like this.
    pub fn from_text(text: &str) -> Self {
        Self {
            ids: (!text.is_empty()).then(|| text.into()).into_iter().collect(),
            more: 0,
        }
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
    static ERRORS: Cell<u64> = const { Cell::new(0) };
}

impl BatchContext {
    /// Makes this the context of the current thread until what is returned is dropped.
    pub fn enter(self: Arc<Self>) -> Entered {
        Entered(CURRENT.replace(Some(self)))
    }

    /// The context of the current thread.
    pub fn current() -> Option<Arc<Self>> {
        CURRENT.with_borrow(Clone::clone)
    }
}

/// A context that is in force. The one before returns when this is dropped.
pub struct Entered(Option<Arc<BatchContext>>);

impl Drop for Entered {
    fn drop(&mut self) {
        CURRENT.set(self.0.take());
    }
}

impl Source for BatchContext {
    fn visit<'kvs>(&'kvs self, visitor: &mut dyn VisitSource<'kvs>) -> Result<(), Error> {
        visitor.visit_pair(Key::from_str("model"), self.model.as_ref().to_value())?;
        visitor.visit_pair(Key::from_str("task"), self.task.as_ref().to_value())?;
        let requests = self.requests.to_string();
        if requests.is_empty() {
            return Ok(());
        }
        visitor.visit_pair(Key::from_str("requests"), Value::from_display(&self.requests))
    }
}

/// Records that an error was written to the log on behalf of a plugin on the current thread.
pub fn error_logged() {
    ERRORS.set(ERRORS.get() + 1);
}

/// How many errors were written on behalf of plugins on the current thread. A failure that the plugin has logged itself
/// is not logged again.
pub fn errors_logged() -> u64 {
    ERRORS.get()
}

/// Logs a line about a batch, with its context as fields.
macro_rules! log_batch {
    ($level:ident, $context:expr, $($message:tt)+) => {{
        let context: &$crate::batch_context::BatchContext = &$context;
        let requests = context.requests.to_string();
        log::$level!(
            model = context.model.as_ref(),
            task = context.task.as_ref(),
            requests = requests.as_str();
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
    fn a_request_with_several_items_is_named_once_and_at_most_eight_are_named() {
        assert_eq!(requests(&["a", "a", "", "b"]), "a,b");
        assert_eq!(
            requests(&["1", "2", "3", "4", "5", "6", "7", "8", "9", "9", "10"]),
            "1,2,3,4,5,6,7,8,+2"
        );
        assert_eq!(requests(&[]), "");
    }

    #[test]
    fn the_context_before_returns() {
        let context = |model: &str| {
            Arc::new(BatchContext {
                model: model.into(),
                task: "t".into(),
                requests: RequestIds::default(),
            })
        };
        let outer = context("outer").enter();
        drop(context("inner").enter());
        assert_eq!(BatchContext::current(), Some(context("outer")));
        drop(outer);
        assert_eq!(BatchContext::current(), None);
    }
}
