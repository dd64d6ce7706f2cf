//! The admission of requests by their expected wait, with a learned service time that the test sets.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use crossbeam_channel::Receiver;

use crate::batcher::{BatchOutcome, Batcher, Item, ItemId, Next};
use crate::batching::{Policy, Priority, Slack, TaskBatching, WeightRule};
use crate::clock;
use crate::engine::admission::{Message, Queue};
use crate::engine::running_batches::RunningBatches;
use crate::engine::{Request, TaskLimits, Tracking};
use crate::error::Rejection;
use crate::metrics::{Buckets, Metrics};
use crate::values::{ItemInput, Value};

const RULES: TaskBatching = TaskBatching {
    policy: Policy::Greedy,
    max_batch_size: NonZeroUsize::MIN,
    max_batch_weight: None,
    weight_rule: WeightRule::Padded,
    background_slack: Slack::NONE,
};

/// The queue of a model with two tasks, each of which has run one batch, of one item in two seconds.
struct Scenario {
    queue: Arc<Queue>,
    _messages: Receiver<Message>,
}

impl Scenario {
    fn new(workers: usize, max_queue_size: usize) -> Self {
        let scenario = Self::without_estimates(workers, max_queue_size);
        let (mut batcher, now) = (Batcher::new(vec![RULES]), clock::now());
        batcher.push(Item {
            id: ItemId(0),
            task: 0,
            priority: Priority::Normal,
            weight: 1,
            group: 0,
            arrived: now,
            ready: now,
            deadline: None,
            payload: (),
        });
        let Next::Run(batch) = batcher.poll(now) else {
            panic!("a batch runs")
        };
        let outcome = BatchOutcome {
            started: now,
            finished: now + Duration::from_secs(2),
            succeeded: true,
        };
        batcher.complete(batch.token, outcome);
        for task in scenario.queue.tasks() {
            task.publish_service(batcher.service_estimate(0));
        }
        scenario
    }

    fn without_estimates(workers: usize, max_queue_size: usize) -> Self {
        let metrics = Metrics::new(Buckets::NONE).expect("the metrics are consistent");
        let limits = TaskLimits {
            batching: RULES,
            max_queue_size,
            max_queue_weight: None,
        };
        let tasks = ["text", "image"].map(|task| (task.to_owned(), false, metrics.task("m", task, &[])));
        let running = Arc::new(RunningBatches::new(workers));
        let (queue, messages) = Queue::new("m", tasks.into(), &[limits; 2], running, 1, Arc::default());
        Self {
            queue: Arc::new(queue),
            _messages: messages,
        }
    }

    /// Submits a request. Its items wait until what is returned is dropped.
    fn admit(
        &self,
        task: usize,
        items: usize,
        priority: Priority,
        seconds: u64,
    ) -> Result<impl Sized, Rejection> {
        let item = || {
            Ok(ItemInput {
                value: Value::Text(Bytes::new()),
                parameters: Bytes::new(),
            })
        };
        self.queue.admit(Request {
            task,
            items: std::iter::repeat_with(item).take(items).collect(),
            decoded: None,
            received: clock::now(),
            timeout: Duration::from_secs(seconds),
            priority,
            tracking: Tracking::default(),
        })
    }

    /// The `retry-after` of a rejected request of one item.
    fn retry_after(&self, task: usize, priority: Priority, seconds: u64) -> Duration {
        match self.admit(task, 1, priority, seconds).err() {
            Some(Rejection::Overloaded { retry_after, .. }) => retry_after,
            other => panic!("it is rejected as overloaded, got {other:?}"),
        }
    }
}

const NORMAL: Priority = Priority::Normal;

#[test]
fn a_request_that_cannot_be_answered_in_time_is_rejected_with_the_expected_wait() {
    let scenario = Scenario::new(1, 1000);
    let _ahead = scenario.admit(0, 10, NORMAL, 60).expect("there is time");
    // Ten batches of two seconds are ahead, its own one takes two, and the reserve is less than a second.
    let rejection = scenario.admit(0, 1, NORMAL, 21).err();
    assert_eq!(
        rejection,
        Some(Rejection::Overloaded {
            task: "text".to_owned(),
            timeout: Duration::from_secs(21),
            retry_after: Duration::from_secs(20),
        })
    );
    assert!(scenario.admit(0, 1, NORMAL, 24).is_ok());
    // Its last item would be late.
    assert!(scenario.admit(0, 2, NORMAL, 24).is_err());
}

#[test]
fn items_of_the_same_class_and_of_higher_ones_are_ahead() {
    let scenario = Scenario::new(1, 1000);
    let _low = scenario.admit(0, 4, Priority::Low, 60).expect("there is time");
    let _normal = scenario.admit(0, 3, NORMAL, 60).expect("there is time");
    let _high = scenario.admit(0, 2, Priority::High, 60).expect("there is time");
    let wait = |priority| scenario.retry_after(0, priority, 1).as_secs();
    assert_eq!(
        [wait(Priority::High), wait(NORMAL), wait(Priority::Low)],
        [4, 10, 18]
    );
}

#[test]
fn tasks_share_the_workers_and_workers_share_the_items() {
    for (workers, wait) in [(1, 16), (2, 8), (4, 4)] {
        let scenario = Scenario::new(workers, 1000);
        let _text = scenario.admit(0, 5, NORMAL, 60).expect("there is time");
        let _image = scenario.admit(1, 3, NORMAL, 60).expect("there is time");
        for task in [0, 1] {
            assert_eq!(scenario.retry_after(task, NORMAL, 1).as_secs(), wait);
        }
    }
}

#[test]
fn requests_are_admitted_up_to_the_limit_of_the_queue_if_there_is_time_and_until_anything_is_known() {
    for (scenario, wait) in [
        (Scenario::new(1, 10), 20),
        (Scenario::without_estimates(1, 10), 1),
    ] {
        let _ahead = scenario.admit(0, 10, NORMAL, 60).expect("there is room");
        let rejection = scenario.admit(0, 1, NORMAL, 60).err();
        let Some(Rejection::QueueFull { retry_after, .. }) = rejection else {
            panic!("the queue is full, got {rejection:?}");
        };
        assert_eq!(retry_after.as_secs(), wait);
    }
}

#[test]
fn requests_are_admitted_again_as_soon_as_the_items_ahead_are_cancelled() {
    let scenario = Scenario::new(1, 1000);
    let ahead = scenario.admit(0, 500, NORMAL, 6000).expect("there is time");
    assert_eq!(scenario.retry_after(0, NORMAL, 60).as_secs(), 1000);
    drop(ahead);
    assert!(scenario.admit(0, 1, NORMAL, 1).is_ok());
}
