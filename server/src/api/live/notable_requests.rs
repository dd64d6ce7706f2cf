//! The recent slow and failed requests, with the time of each stage and without their inputs.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::engine::Timing;

/// Maximum number of requests of each kind and task.
const PER_TASK: usize = 20;

/// Maximum number of requests.
const CAPACITY: usize = 2000;

/// Maximum number of requests that are recorded in a second. Further requests are not recorded.
const PER_SECOND: u32 = 20;

/// Why a request is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotableKind {
    /// It took longer than 99% of the requests of its task in the last minute.
    Slow,
    /// It was answered with an error.
    Failed,
}

/// A request that was slow or failed.
#[derive(Clone, Debug, PartialEq)]
pub struct NotableRequest {
    /// Distinguishes it from other requests. Set when it is recorded.
    pub number: u64,
    /// Why it is recorded.
    pub kind: NotableKind,
    /// When it was answered, in Unix milliseconds.
    pub unix_millis: u64,
    /// Its model.
    pub model: String,
    /// Its task, if it named one that exists.
    pub task: Option<String>,
    /// Its protocol, as metrics name it.
    pub protocol: &'static str,
    /// Its id.
    pub id: Arc<str>,
    /// The HTTP status, which gRPC statuses are mapped to.
    pub status: u16,
    /// Time from its head to its reply.
    pub total: Duration,
    /// Where the time went, if it reached the model.
    pub timing: Option<Timing>,
    /// Time to write the reply.
    pub encode: Option<Duration>,
    /// Number of its items, if it reached the queue.
    pub items: Option<usize>,
    /// What failed, for operators. Never a message about the input, which could repeat parts of it.
    pub reason: Option<String>,
}

/// The recent slow and failed requests.
#[derive(Default)]
pub struct NotableRequests(Mutex<Recorded>);

#[derive(Default)]
struct Recorded {
    requests: VecDeque<NotableRequest>,
    /// The present second, and the number of requests recorded in it.
    second: (u64, u32),
    /// Number of all requests so far.
    count: u64,
}

impl NotableRequests {
    /// Records a request, unless there were too many in this second, or another thread is reading or recording: nothing waits
    /// for it.
    pub fn record(&self, request: NotableRequest) {
        let Ok(mut recorded) = self.0.try_lock() else {
            return;
        };
        let second = request.unix_millis / 1000;
        if recorded.second.0 != second {
            recorded.second = (second, 0);
        }
        recorded.second.1 += 1;
        if recorded.second.1 > PER_SECOND {
            return;
        }
        let requests = &mut recorded.requests;
        let is_alike = |other: &NotableRequest| {
            (other.kind, &other.model, &other.task) == (request.kind, &request.model, &request.task)
        };
        if requests.iter().filter(|other| is_alike(other)).count() >= PER_TASK
            && let Some(oldest) = requests.iter().position(is_alike)
        {
            requests.remove(oldest);
        }
        if requests.len() == CAPACITY {
            requests.pop_front();
        }
        recorded.count += 1;
        let number = recorded.count;
        recorded.requests.push_back(NotableRequest { number, ..request });
    }

    /// The requests of a task, latest first, and with them those of its model that do not name a task.
    pub fn of_task(&self, model: &str, task: &str) -> Vec<NotableRequest> {
        let recorded = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let is_of_task = |request: &&NotableRequest| {
            request.model == model && request.task.as_deref().is_none_or(|of| of == task)
        };
        recorded
            .requests
            .iter()
            .rev()
            .filter(is_of_task)
            .cloned()
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(kind: NotableKind, task: &str, second: u64) -> NotableRequest {
        NotableRequest {
            number: 0,
            kind,
            unix_millis: second * 1000,
            model: "m".to_owned(),
            task: Some(task.to_owned()),
            protocol: "native",
            id: "id".into(),
            status: 200,
            total: Duration::from_millis(second),
            timing: None,
            encode: None,
            items: None,
            reason: None,
        }
    }

    #[test]
    fn failures_of_one_task_displace_neither_slow_requests_nor_those_of_other_tasks() {
        let requests = NotableRequests::default();
        requests.record(request(NotableKind::Slow, "a", 1));
        requests.record(request(NotableKind::Failed, "b", 2));
        for second in 10..100 {
            requests.record(request(NotableKind::Failed, "a", second));
        }
        let of_a = requests.of_task("m", "a");
        let seconds: Vec<u64> = of_a.iter().map(|request| request.unix_millis / 1000).collect();
        let expected: Vec<u64> = (80..100).rev().chain([1]).collect();
        assert_eq!(seconds, expected);
        assert_eq!(requests.of_task("m", "b").len(), 1);
        assert!(requests.of_task("other", "a").is_empty());
    }

    #[test]
    fn a_flood_of_failures_is_not_recorded_completely() {
        let requests = NotableRequests::default();
        for task in 0..100 {
            requests.record(request(NotableKind::Failed, &format!("task {task}"), 5));
        }
        let recorded = (0..100)
            .map(|task| requests.of_task("m", &format!("task {task}")).len())
            .sum::<usize>();
        assert_eq!(recorded, PER_SECOND as usize);
    }
}
