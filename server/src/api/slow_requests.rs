//! The log of slow requests: one line per request that took long, with the time of each of its stages.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use log::kv::{Error, Key, Source, Value, VisitSource};
use log::{Level, Record};

use super::request_record::Run;
use crate::clock;
use crate::config::SlowRequests;
use crate::metrics::RequestMetrics;
use crate::trace_context::TraceId;

/// Target of the lines.
const TARGET: &str = "slow_request";

/// Maximum number of lines per second.
const MAX_LINES: u64 = 10;

/// Bits of the number of lines, below those of the second.
const COUNT_BITS: u32 = 8;

/// Decides which requests are logged.
pub struct SlowRequestLog {
    rule: SlowRequests,
    start: Instant,
    /// The present second since the start, and the number of its lines.
    lines: AtomicU64,
    suppressed: AtomicU64,
}

impl SlowRequestLog {
    /// A log of the requests that are slow by this rule.
    pub fn new(rule: SlowRequests) -> Self {
        Self {
            rule,
            start: clock::now(),
            lines: AtomicU64::new(0),
            suppressed: AtomicU64::new(0),
        }
    }

    /// Whether any requests are logged.
    pub(super) fn is_enabled(&self) -> bool {
        self.rule != SlowRequests::Off
    }

    /// The limit that a request exceeded which took this long; `None` if it was not slow. Latencies of requests that
    /// `succeeded` count for the percentile.
    pub(super) fn exceeded(
        &self,
        task: &RequestMetrics,
        now: Instant,
        took: Duration,
        succeeded: bool,
    ) -> Option<Duration> {
        let limit = match self.rule {
            SlowRequests::Off => return None,
            SlowRequests::Above(limit) => limit,
            SlowRequests::Percentile(percent) => {
                let recent = task.recent_latencies();
                let limit = recent.percentile(now, percent);
                if succeeded {
                    recent.record(now, took);
                }
                limit?
            }
        };
        (took > limit).then_some(limit)
    }

    /// Whether another line can be logged now, and how many requests were suppressed before it.
    pub(super) fn admit(&self, now: Instant) -> Option<u64> {
        let second = self.second(now) << COUNT_BITS;
        let next = |lines: u64| match lines < second {
            true => Some(second + 1),
            false => (lines & ((1 << COUNT_BITS) - 1) < MAX_LINES).then_some(lines + 1),
        };
        let admitted = self.lines.fetch_update(Ordering::AcqRel, Ordering::Acquire, next);
        match admitted {
            Ok(_) => Some(self.suppressed.swap(0, Ordering::AcqRel)),
            Err(_) => {
                self.suppressed.fetch_add(1, Ordering::AcqRel);
                None
            }
        }
    }

    /// Logs how many requests were suppressed, if that is over and no line has reported them. Is called at regular intervals.
    pub fn report_suppressed(&self) {
        let second = self.second(clock::now()) << COUNT_BITS;
        if self.lines.load(Ordering::Acquire) >= second {
            return;
        }
        let suppressed = self.suppressed.swap(0, Ordering::AcqRel);
        if suppressed > 0 {
            log::info!(
                target: TARGET,
                suppressed;
                "{suppressed} slow requests were not logged: there were more than {MAX_LINES} in a second"
            );
        }
    }

    fn second(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.start).as_secs()
    }
}

/// A slow request, which is logged with its fields.
pub(super) struct SlowRequest<'a> {
    pub(super) model: &'a str,
    pub(super) task: &'a str,
    pub(super) protocol: &'a str,
    pub(super) id: &'a str,
    pub(super) trace: Option<TraceId>,
    /// The HTTP status, which gRPC statuses are mapped to.
    pub(super) status: u16,
    pub(super) total: Duration,
    /// The limit that it exceeded.
    pub(super) limit: Duration,
    pub(super) run: Option<&'a Run>,
    pub(super) encode: Option<Duration>,
    /// Number of slow requests before it that were not logged.
    pub(super) suppressed: u64,
}

impl SlowRequest<'_> {
    /// Logs the request.
    pub(super) fn log(&self) {
        let record = Record::builder()
            .level(Level::Info)
            .target(TARGET)
            .module_path_static(Some(module_path!()))
            .key_values(self)
            .args(format_args!("slow request"))
            .build();
        log::logger().log(&record);
    }
}

impl Source for SlowRequest<'_> {
    fn visit<'kvs>(&'kvs self, visitor: &mut dyn VisitSource<'kvs>) -> Result<(), Error> {
        let mut field = |key: &'static str, value: Value<'kvs>| visitor.visit_pair(Key::from_str(key), value);
        field("model", self.model.into())?;
        field("task", self.task.into())?;
        field("request_id", self.id.into())?;
        if let Some(trace) = &self.trace {
            field("trace_id", Value::from_display(trace))?;
        }
        field("protocol", self.protocol.into())?;
        field("status", self.status.into())?;
        field("total_ms", millis(self.total).into())?;
        field("limit_ms", millis(self.limit).into())?;
        if let Some(run) = self.run {
            field("prepare_ms", millis(run.timing.prepare).into())?;
            field("queue_ms", millis(run.timing.queue).into())?;
            field("inference_ms", millis(run.timing.inference).into())?;
            if let Some(encode) = self.encode {
                field("encode_ms", millis(encode).into())?;
            }
            field("items", run.items.into())?;
            field("batches", run.batches.count.into())?;
            // A request with several batches took as long as its longest one.
            if let Some(longest) = run.batches.first.iter().max_by_key(|batch| batch.batch.took) {
                let batch = &longest.batch;
                field("batch_size", batch.items.into())?;
                field("batch_weight", batch.weight.into())?;
                field("batch_reason", batch.reason.as_str().into())?;
                field("worker", batch.worker.into())?;
            }
        }
        match self.suppressed {
            0 => Ok(()),
            suppressed => field("suppressed", suppressed.into()),
        }
    }
}

/// Milliseconds with three decimals, as in the header `server-timing`.
fn millis(time: Duration) -> f64 {
    time.as_micros() as f64 / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_most_ten_lines_per_second_are_logged_and_the_others_are_counted() {
        let log = SlowRequestLog::new(SlowRequests::Above(Duration::ZERO));
        let at = |millis| log.start + Duration::from_millis(millis);
        for number in 0..10 {
            assert_eq!(log.admit(at(number * 90)), Some(0));
        }
        for number in 0..5 {
            assert_eq!(log.admit(at(900 + number)), None);
        }
        assert_eq!(log.admit(at(1000)), Some(5));
        assert_eq!(log.admit(at(1001)), Some(0));
        // The clock of another thread can be a moment behind.
        assert_eq!(log.admit(at(999)), Some(0));
    }
}
