//! Durable jobs: how many there are, and what happens to them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use prometheus::core::{Collector, Desc};
use prometheus::proto::{Gauge, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, Opts};

use super::{Metrics, register};

/// Upper bounds of the time of a submission, in seconds.
const SUBMIT_BUCKETS: [f64; 7] = [0.001, 0.002, 0.005, 0.01, 0.05, 0.25, 1.0];

/// Outcomes of submissions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubmissionOutcome {
    /// The job is stored.
    Created,
    /// The same request was stored before.
    Repeated,
    /// The job was rejected because of a limit.
    Rejected,
    /// The store failed.
    Error,
}

impl SubmissionOutcome {
    const ALL: [Self; 4] = [Self::Created, Self::Repeated, Self::Rejected, Self::Error];

    fn label(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Repeated => "repeated",
            Self::Rejected => "rejected",
            Self::Error => "error",
        }
    }
}

/// Outcomes of claimed jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimOutcome {
    /// The job has succeeded.
    Succeeded,
    /// The job has failed for good.
    Failed,
    /// The attempt ended without an outcome.
    Interrupted,
    /// The job was returned to the queue.
    Released,
    /// The job was cancelled or claimed by another server meanwhile.
    Lost,
}

impl ClaimOutcome {
    const ALL: [Self; 5] = [
        Self::Succeeded,
        Self::Failed,
        Self::Interrupted,
        Self::Released,
        Self::Lost,
    ];

    fn label(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Interrupted => "interrupted",
            Self::Released => "released",
            Self::Lost => "lost",
        }
    }
}

/// Outcomes of attempts to deliver webhooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WebhookOutcome {
    /// The receiver accepted the message.
    Delivered,
    /// The message will be sent again.
    Retried,
    /// The message was abandoned: its target is not allowed, its receiver does not want it, or a day has passed.
    Abandoned,
}

impl WebhookOutcome {
    const ALL: [Self; 3] = [Self::Delivered, Self::Retried, Self::Abandoned];

    fn label(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Retried => "retried",
            Self::Abandoned => "abandoned",
        }
    }
}

/// Number of jobs of a model in a state.
#[derive(Clone, Debug, PartialEq)]
pub struct JobDepth {
    /// Name of the model.
    pub model: String,
    /// Name of the state.
    pub state: &'static str,
    /// Number of jobs.
    pub jobs: u64,
    /// Time since the submission of the oldest, for states in which jobs wait or run.
    pub oldest_age: Option<Duration>,
}

/// Jobs of a model that wait or run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ModelJobs {
    /// Number of jobs that wait.
    pub queued: u64,
    /// Number of jobs that run.
    pub running: u64,
    /// Time since the submission of the oldest job that waits.
    pub oldest_queued: Option<Duration>,
    /// Time since the submission of the oldest job that runs.
    pub oldest_running: Option<Duration>,
}

/// The metrics of jobs.
#[derive(Clone)]
pub struct JobMetrics {
    submissions: IntCounterVec,
    claims: IntCounterVec,
    attempts: IntCounter,
    leases_lost: IntCounter,
    submit_seconds: Histogram,
    webhooks: IntCounterVec,
    contents: Arc<ArcSwap<Contents>>,
}

/// What the store held when it was last asked.
#[derive(Default)]
struct Contents {
    depths: Vec<JobDepth>,
    bytes: u64,
}

impl JobMetrics {
    /// Creates and registers the families.
    ///
    /// # Errors
    /// They are registered already.
    pub fn new(metrics: &Metrics) -> Result<Self, prometheus::Error> {
        let registry = metrics.registry();
        let family = |name: &str, help: &str| IntCounterVec::new(Opts::new(name, help), &["outcome"]);
        let submit_seconds = HistogramOpts::new(
            "inference_job_submit_seconds",
            "Time until the store confirmed a job.",
        );
        let created = Self {
            submissions: register(
                registry,
                family(
                    "inference_job_submissions_total",
                    "Submissions of jobs, by outcome.",
                )?,
            )?,
            claims: register(
                registry,
                family(
                    "inference_job_claims_total",
                    "Jobs that this server has claimed and that have ended or were returned, by outcome.",
                )?,
            )?,
            attempts: register(
                registry,
                IntCounter::new(
                    "inference_job_attempts_total",
                    "Attempts of jobs that have begun.",
                )?,
            )?,
            leases_lost: register(
                registry,
                IntCounter::new(
                    "inference_job_leases_lost_total",
                    "Claimed jobs whose lease was lost while they ran.",
                )?,
            )?,
            submit_seconds: register(
                registry,
                Histogram::with_opts(submit_seconds.buckets(SUBMIT_BUCKETS.to_vec()))?,
            )?,
            webhooks: register(
                registry,
                family(
                    "inference_job_webhooks_total",
                    "Attempts of this server to deliver webhooks, by outcome.",
                )?,
            )?,
            contents: Arc::default(),
        };
        for outcome in SubmissionOutcome::ALL {
            created.submissions.with_label_values(&[outcome.label()]);
        }
        for outcome in ClaimOutcome::ALL {
            created.claims.with_label_values(&[outcome.label()]);
        }
        for outcome in WebhookOutcome::ALL {
            created.webhooks.with_label_values(&[outcome.label()]);
        }
        registry.register(Box::new(ContentsCollector::new(created.contents.clone())?))?;
        Ok(created)
    }

    /// Counts a submission.
    pub fn count_submission(&self, outcome: SubmissionOutcome, took: Duration) {
        self.submissions.with_label_values(&[outcome.label()]).inc();
        if outcome == SubmissionOutcome::Created {
            self.submit_seconds.observe(took.as_secs_f64());
        }
    }

    /// Counts the end of a claim.
    pub fn count_claim(&self, outcome: ClaimOutcome) {
        self.claims.with_label_values(&[outcome.label()]).inc();
    }

    /// Counts an attempt to deliver a webhook.
    pub fn count_webhook(&self, outcome: WebhookOutcome) {
        self.webhooks.with_label_values(&[outcome.label()]).inc();
    }

    /// Counts an attempt that begins.
    pub fn count_attempt(&self) {
        self.attempts.inc();
    }

    /// Counts leases that were lost.
    pub fn count_lost_leases(&self, count: usize) {
        self.leases_lost.inc_by(count as u64);
    }

    /// The jobs of a model, as the metrics report them.
    pub fn of_model(&self, model: &str) -> ModelJobs {
        let contents = self.contents.load();
        let in_state = |state| {
            let mut depths = contents.depths.iter();
            let depth = depths.find(|depth| depth.model == model && depth.state == state);
            depth.map_or((0, None), |depth| (depth.jobs, depth.oldest_age))
        };
        let ((queued, oldest_queued), (running, oldest_running)) = (in_state("queued"), in_state("running"));
        ModelJobs {
            queued,
            running,
            oldest_queued,
            oldest_running,
        }
    }

    /// Replaces what is reported about the content of the store.
    pub fn set_contents(&self, depths: Vec<JobDepth>, bytes: u64) {
        self.contents.store(Arc::new(Contents { depths, bytes }));
    }
}

/// Reports the content of the store, without asking it.
struct ContentsCollector {
    contents: Arc<ArcSwap<Contents>>,
    jobs: Desc,
    oldest: Desc,
    bytes: Desc,
}

impl ContentsCollector {
    fn new(contents: Arc<ArcSwap<Contents>>) -> Result<Self, prometheus::Error> {
        let desc = |name: &str, help: &str, labels: &[&str]| {
            let labels = labels.iter().map(|&label| label.to_owned()).collect();
            Desc::new(name.to_owned(), help.to_owned(), labels, HashMap::new())
        };
        let labels = ["model", "state"];
        Ok(Self {
            contents,
            jobs: desc(
                "inference_jobs",
                "Jobs in the store, by model and state. States without jobs are absent.",
                &labels,
            )?,
            oldest: desc(
                "inference_job_oldest_age_seconds",
                "Age of the oldest job of a model that waits or runs, by state.",
                &labels,
            )?,
            bytes: desc(
                "inference_job_store_bytes",
                "Size of the store of jobs on disk.",
                &[],
            )?,
        })
    }
}

impl Collector for ContentsCollector {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.jobs, &self.oldest, &self.bytes]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let contents = self.contents.load();
        let depths = contents.depths.iter();
        let jobs = depths
            .clone()
            .map(|depth| gauge(depth.labels(), depth.jobs as f64));
        let oldest = depths.filter_map(|depth| Some(gauge(depth.labels(), depth.oldest_age?.as_secs_f64())));
        [
            family(&self.jobs, jobs.collect()),
            family(&self.oldest, oldest.collect()),
            family(&self.bytes, vec![gauge(Vec::new(), contents.bytes as f64)]),
        ]
        .into_iter()
        .filter(|family| !family.get_metric().is_empty())
        .collect()
    }
}

impl JobDepth {
    fn labels(&self) -> Vec<LabelPair> {
        let label = |name: &str, value: &str| {
            let mut label = LabelPair::default();
            label.set_name(name.to_owned());
            label.set_value(value.to_owned());
            label
        };
        vec![label("model", &self.model), label("state", self.state)]
    }
}

fn family(desc: &Desc, metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(desc.fq_name.clone());
    family.set_help(desc.help.clone());
    family.set_field_type(MetricType::GAUGE);
    family.set_metric(metrics);
    family
}

fn gauge(labels: Vec<LabelPair>, value: f64) -> Metric {
    let mut gauge = Gauge::default();
    gauge.set_value(value);
    let mut metric = Metric::from_label(labels);
    metric.set_gauge(gauge);
    metric
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Buckets;

    #[test]
    fn the_contents_are_those_that_were_last_set() {
        let metrics = Metrics::new(Buckets::NONE).expect("the metrics are valid");
        let jobs = JobMetrics::new(&metrics).expect("they are registered once");
        let depth = |state, count, oldest_age| JobDepth {
            model: "m".to_owned(),
            state,
            jobs: count,
            oldest_age,
        };
        let waiting = depth("queued", 3, Some(Duration::from_secs(8)));
        jobs.set_contents(vec![waiting, depth("succeeded", 5, None)], 4096);
        let text = prometheus::TextEncoder::new()
            .encode_to_string(&metrics.registry().gather())
            .expect("they can be written");
        for line in [
            "inference_jobs{model=\"m\",state=\"queued\"} 3",
            "inference_jobs{model=\"m\",state=\"succeeded\"} 5",
            "inference_job_oldest_age_seconds{model=\"m\",state=\"queued\"} 8",
            "inference_job_store_bytes 4096",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
        let expected = ModelJobs {
            queued: 3,
            oldest_queued: Some(Duration::from_secs(8)),
            ..ModelJobs::default()
        };
        assert_eq!(jobs.of_model("m"), expected);
        assert_eq!(jobs.of_model("other"), ModelJobs::default());
        jobs.set_contents(Vec::new(), 0);
        let families = metrics.registry().gather();
        assert!(families.iter().all(|family| family.name() != "inference_jobs"));
    }
}
