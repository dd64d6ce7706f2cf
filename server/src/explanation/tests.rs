//! Windows as data, and the sentences that explain them.

use std::num::NonZeroUsize;
use std::time::Duration;

use super::history::{Stage, TaskTotals};
use super::{Explanation, Figures, Limits, Window, batches, throughput};
use crate::batching::{DispatchReason, Policy, Slack, TaskBatching, WeightRule};
use crate::latency::LatencyCounts;
use crate::metrics::REJECTIONS;

const ADAPTIVE: Policy = Policy::Adaptive {
    max_delay: Duration::from_millis(50),
};
const FIXED: Policy = Policy::Fixed {
    max_delay: Duration::from_millis(50),
};

/// Limits of a model with one worker and one task.
fn limits(policy: Policy, max_batch_size: usize) -> Limits {
    Limits {
        workers: 1,
        prepare_threads: 4,
        memory_budget: None,
        tasks: vec![TaskBatching {
            policy,
            max_batch_size: NonZeroUsize::new(max_batch_size).expect("at least 1"),
            max_batch_weight: Some(512),
            weight_rule: WeightRule::Sum,
            background_slack: Slack::NONE,
        }],
    }
}

/// A minute with this many busy seconds of a model with one task.
fn minute(busy_seconds: f64, totals: TaskTotals) -> Window {
    Window {
        seconds: 60.0,
        active_seconds: 60.0,
        busy_seconds,
        queued: 0,
        tasks: vec![totals],
    }
}

fn stage(count: u64, seconds: f64) -> Stage {
    Stage { count, seconds }
}

/// 600 requests with one item each, in batches for these reasons. Stages take no time.
fn requests(in_flight: f64, reasons: &[(DispatchReason, u64)]) -> TaskTotals {
    let mut totals = TaskTotals {
        requests: stage(600, in_flight * 60.0),
        queue: stage(600, 0.0),
        encode: stage(600, 0.0),
        batched_items: 600,
        ..TaskTotals::default()
    };
    for (reason, count) in reasons {
        totals.reasons[*reason as usize] = *count;
        totals.inference.count += count;
        totals.batch_wait.count += count;
    }
    totals
}

fn sentence(found: Option<Explanation>) -> (&'static str, String) {
    found.map_or(("", String::new()), |found| (found.code, found.message))
}

#[test]
fn what_limits_throughput_is_explained_in_a_sentence() {
    let one_by_one = [(DispatchReason::Idle, 600)];
    let with = |mut totals: TaskTotals, change: fn(&mut TaskTotals)| {
        change(&mut totals);
        totals
    };
    let memory = Limits {
        memory_budget: Some(1 << 30),
        ..limits(ADAPTIVE, 32)
    };
    let two_workers = Limits {
        workers: 2,
        ..limits(ADAPTIVE, 4)
    };
    for (window, limits, code, message) in [
        (Window::default(), limits(ADAPTIVE, 32), "", ""),
        (
            minute(0.0, TaskTotals::default()),
            limits(ADAPTIVE, 32),
            "idle",
            "no requests arrived in the last minute",
        ),
        (
            minute(
                0.0,
                with(TaskTotals::default(), |totals| totals.rejections[2] = 7),
            ),
            limits(ADAPTIVE, 32),
            "idle",
            "no request was admitted in the last minute: 7 were rejected",
        ),
        (
            minute(
                6.0,
                with(requests(0.5, &one_by_one), |totals| {
                    totals.inference.seconds = 6.0
                }),
            ),
            limits(ADAPTIVE, 32),
            "limit_client",
            "throughput is limited by the clients: the worker is idle 90% of the time, with 0.5 requests in flight on average. \
             More concurrent requests would be served faster",
        ),
        (
            minute(
                57.0,
                with(requests(1.0, &one_by_one), |totals| {
                    totals.inference.seconds = 57.0
                }),
            ),
            limits(ADAPTIVE, 32),
            "limit_client",
            "throughput is limited by the clients: its worker is busy 95% of the time with batches that are 3% full, because only \
             1.0 requests are in flight on average. More concurrent requests would fill the batches",
        ),
        (
            minute(
                118.0,
                with(requests(16.0, &[(DispatchReason::Full, 150)]), |totals| {
                    totals.inference.seconds = 118.0;
                    totals.queue.seconds = 600.0;
                }),
            ),
            two_workers,
            "limit_queue",
            "throughput is limited by the number of workers: items wait 1.0 s for a batch that takes 787 ms, and its 2 workers are \
             busy 98% of the time. Increase `workers` if CPU cores are idle; otherwise use more servers or a faster model",
        ),
        (
            minute(
                57.0,
                with(requests(1.0, &one_by_one), |totals| {
                    totals.inference.seconds = 57.0
                }),
            ),
            limits(ADAPTIVE, 1),
            "limit_model",
            "throughput is limited by the model: its worker is busy 95% of the time with batches that take 95 ms, and items hardly \
             wait",
        ),
        (
            minute(
                0.6,
                with(requests(1.0, &one_by_one), |totals| {
                    totals.inference.seconds = 0.6;
                    totals.prepare = stage(600, 54.0);
                }),
            ),
            limits(ADAPTIVE, 32),
            "limit_prepare",
            "throughput is limited by the preparation of items: it takes 90 ms, which is 99% of the time of an item, and the threads \
             that prepare are busy 22% of the time, while the worker is idle 99% of the time. Send smaller inputs, or increase \
             `prepare_threads` (4) if CPU cores are idle",
        ),
        (
            minute(
                6.0,
                with(requests(1.0, &one_by_one), |totals| {
                    totals.inference.seconds = 6.0;
                    totals.encode.seconds = 42.0;
                }),
            ),
            limits(ADAPTIVE, 32),
            "limit_encode",
            "throughput is limited by writing replies: it takes 70 ms, which is 88% of the time of an item, while the worker is idle \
             90% of the time. Request binary tensors instead of JSON, or fewer outputs",
        ),
        (
            minute(
                6.0,
                with(
                    requests(8.0, &[(DispatchReason::Memory, 200), (DispatchReason::Idle, 100)]),
                    |totals| {
                        totals.inference.seconds = 6.0;
                        totals.queue.seconds = 300.0;
                    },
                ),
            ),
            memory,
            "limit_memory",
            "throughput is limited by memory: items wait 500 ms until their batch fits into the memory budget, while the worker is \
             idle 90% of the time. Increase `memory_budget`, or use fewer workers",
        ),
        (
            minute(
                6.0,
                with(requests(1.0, &[(DispatchReason::Delay, 600)]), |totals| {
                    totals.inference.seconds = 6.0;
                    totals.queue.seconds = 30.0;
                    totals.batch_wait.seconds = 30.0;
                }),
            ),
            limits(FIXED, 32),
            "limit_policy",
            "throughput is limited by the batching policy: items wait 50 ms for a fuller batch, while the worker is idle 90% of the \
             time. Decrease `max_delay` (50 ms), or send more requests concurrently",
        ),
    ] {
        assert_eq!(sentence(throughput(&window, &limits)), (code, message.to_owned()));
    }
}

#[test]
fn a_batch_that_runs_since_the_start_limits_throughput_by_its_queue() {
    let window = Window {
        queued: 3,
        ..minute(60.0, TaskTotals::default())
    };
    let (code, message) = sentence(throughput(&window, &limits(ADAPTIVE, 32)));
    assert_eq!(code, "limit_queue");
    assert!(
        message.contains("3 items wait, and its worker is busy 100% of the time"),
        "{message}"
    );
    // Without a batch, something else keeps the model from running one, such as a lost process.
    let stuck = Window {
        busy_seconds: 0.0,
        ..window
    };
    assert_eq!(throughput(&stuck, &limits(ADAPTIVE, 32)), None);
}

#[test]
fn seconds_without_requests_do_not_count() {
    let mut totals = requests(1.0, &[(DispatchReason::Idle, 600)]);
    totals.inference.seconds = 5.7;
    let window = Window {
        active_seconds: 6.0,
        ..minute(5.7, totals)
    };
    let (code, message) = sentence(throughput(&window, &limits(ADAPTIVE, 1)));
    assert_eq!(code, "limit_model");
    assert!(message.contains("busy 95% of the time"), "{message}");
}

#[test]
fn small_batches_are_explained_in_a_sentence() {
    let of = |in_flight, reasons: &[(DispatchReason, u64)]| minute(6.0, requests(in_flight, reasons));
    let memory = Limits {
        memory_budget: Some(1 << 30),
        ..limits(ADAPTIVE, 32)
    };
    for (window, limits, code, message) in [
        (
            of(1.0, &[(DispatchReason::Idle, 600)]),
            limits(ADAPTIVE, 32),
            "batches_concurrency",
            "batches have 1.0 of 32 items because clients send one request at a time. More concurrent requests, or more items per \
             request, would fill them",
        ),
        (
            of(4.0, &[(DispatchReason::Returns, 150)]),
            limits(ADAPTIVE, 32),
            "batches_concurrency",
            "batches have 4.0 of 32 items because only 4.0 items are in flight on average, of 4.0 requests. More concurrent requests, \
             or more items per request, would fill them",
        ),
        (
            of(64.0, &[(DispatchReason::Weight, 120), (DispatchReason::Idle, 80)]),
            limits(ADAPTIVE, 32),
            "batches_weight",
            "batches have 3.0 of 32 items: 60% of them are closed because no further item fits into `max_batch_weight` (512)",
        ),
        (
            of(64.0, &[(DispatchReason::Memory, 200)]),
            memory,
            "batches_memory",
            "batches have 3.0 of 32 items: 100% of them are closed because no further item fits into the memory budget (1.0 GiB)",
        ),
        (
            of(
                64.0,
                &[(DispatchReason::Deadline, 100), (DispatchReason::Full, 100)],
            ),
            limits(ADAPTIVE, 32),
            "batches_deadline",
            "batches have 3.0 of 32 items: 50% of them run early because the deadline of an item would pass otherwise. Clients that \
             can wait longer should send a longer `x-request-timeout`",
        ),
        (
            of(64.0, &[(DispatchReason::Enough, 300)]),
            limits(ADAPTIVE, 32),
            "batches_policy",
            "batches have 2.0 of 32 items because of the policy `adaptive`: batches of this size are the most efficient, and idle \
             workers share the items",
        ),
        (
            of(64.0, &[(DispatchReason::Idle, 300)]),
            limits(Policy::Greedy, 32),
            "batches_policy",
            "batches have 2.0 of 32 items because of the policy `greedy`: it never waits for a fuller batch",
        ),
        (
            of(64.0, &[(DispatchReason::Delay, 300)]),
            limits(FIXED, 32),
            "batches_policy",
            "batches have 2.0 of 32 items because of the policy `fixed`: no further item arrives within `max_delay` (50 ms)",
        ),
        (
            of(64.0, &[(DispatchReason::Burst, 300)]),
            limits(ADAPTIVE, 32),
            "batches_policy",
            "batches have 2.0 of 32 items because of the policy `adaptive`: waiting longer for the items that are expected would not \
             pay",
        ),
        (
            of(64.0, &[(DispatchReason::Off, 600)]),
            limits(Policy::Off, 32),
            "batches_off",
            "batches have one item because batching is off (`policy = \"off\"`)",
        ),
        (
            of(64.0, &[(DispatchReason::Full, 600)]),
            limits(ADAPTIVE, 1),
            "batches_size_one",
            "batches have one item because `max_batch_size` is 1",
        ),
    ] {
        let expected = Explanation::new(code, message);
        assert_eq!(batches(&window, 0, &limits), [expected]);
    }
}

#[test]
fn batches_that_are_full_or_few_are_not_explained() {
    let full = minute(6.0, requests(64.0, &[(DispatchReason::Full, 20)]));
    assert_eq!(batches(&full, 0, &limits(ADAPTIVE, 32)), []);
    let few = minute(6.0, requests(0.1, &[(DispatchReason::Idle, 4)]));
    assert_eq!(batches(&few, 0, &limits(ADAPTIVE, 32)), []);
    assert_eq!(batches(&full, 1, &limits(ADAPTIVE, 32)), [], "no such task");
}

#[test]
fn memory_that_ran_out_rejections_and_failures_are_explained() {
    let mut totals = requests(64.0, &[(DispatchReason::Full, 20)]);
    totals.out_of_memory = 2;
    totals.failed_items = 1;
    totals.rejections = REJECTIONS.map(|reason| match reason {
        "queue_full" => 5,
        "expired" => 1,
        _ => 0,
    });
    let found = batches(&minute(6.0, totals.clone()), 0, &limits(ADAPTIVE, 32));
    let messages: Vec<(&str, &str)> = found.iter().map(|found| (found.code, &*found.message)).collect();
    assert_eq!(
        messages,
        [
            (
                "batches_out_of_memory",
                "2 batches ran out of memory in the last minute and ran in parts: batches are limited to a smaller weight until \
                 memory suffices again"
            ),
            (
                "rejections",
                "6 requests were rejected in the last minute, mostly because the queue was full (`max_queue_size`)"
            ),
            (
                "failures",
                "1 item failed in the last minute; `inference_items_total` counts them by outcome, and the log has faults of the \
                 model"
            ),
        ]
    );
    totals.rejections = [0, 0, 1, 0, 0, 0];
    let found = batches(&minute(6.0, totals), 0, &limits(ADAPTIVE, 32));
    assert_eq!(
        found[1].message,
        "1 request was rejected in the last minute, because the deadline could not be met"
    );
}

#[test]
fn figures_are_rates_means_and_percentiles_of_a_window() {
    let mut totals = requests(1.0, &[(DispatchReason::Idle, 300)]);
    totals.inference.seconds = 6.0;
    totals.failed_items = 30;
    let latencies = LatencyCounts::default();
    (0..100).for_each(|_| latencies.observe(Duration::from_millis(20)));
    totals.latencies = latencies.totals();
    let window = minute(6.0, totals);
    let limits = limits(ADAPTIVE, 4);
    let model = Figures::of_model(&window, &limits);
    let task = Figures::of_task(&window, 0, &limits);
    assert_eq!(model.worker_busy_share, Some(0.1));
    assert_eq!(
        Figures {
            worker_busy_share: None,
            ..model
        },
        task
    );
    assert_eq!(
        (
            task.requests_per_second,
            task.items_per_second,
            task.failed_items_per_second
        ),
        (10.0, 10.0, 0.5)
    );
    assert_eq!(
        (
            task.inference_seconds,
            task.batch_size,
            task.batch_fill,
            task.prepare_seconds
        ),
        (Some(0.02), Some(2.0), Some(0.5), None)
    );
    let near = |latency: Option<f64>| latency.is_some_and(|latency| (0.015..0.025).contains(&latency));
    assert!(
        near(task.latency_p50_seconds) && near(task.latency_p99_seconds),
        "{task:?}"
    );

    let nothing = Figures::of_model(&Window::default(), &limits);
    assert_eq!(
        (
            nothing.requests_per_second,
            nothing.batch_size,
            nothing.worker_busy_share
        ),
        (0.0, None, Some(0.0))
    );
}

#[test]
fn a_number_of_bytes_is_written_in_its_binary_unit() {
    assert_eq!(
        [12, 1536, 5 << 30].map(super::bytes),
        ["12 bytes", "1.5 KiB", "5.0 GiB"]
    );
}
