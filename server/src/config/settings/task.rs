//! Settings of a task, merged from all sources by precedence.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::time::Duration;

use super::model::ModelSettings;
use super::place::UncomparedLocation;
use super::written_value;
use crate::batching::{DeclaredLimits, Policy, Slack, TaskBatching};
use crate::config::error::Origin;
use crate::config::keys::{PolicyName, WrittenBatching};
use crate::config::section::{Located, Section as _};

/// Defaults of `max_delay`, under each policy that waits for more items.
const ADAPTIVE_MAX_DELAY: Duration = Duration::from_millis(10);
const FIXED_MAX_DELAY: Duration = Duration::from_millis(5);

/// Batching, queue and route of one task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskSettings {
    /// How batches are formed.
    pub batching: TaskBatching,
    /// Maximum number of items in the queue.
    pub max_queue_size: usize,
    /// Maximum total weight of the items in the queue.
    pub max_queue_weight: Option<u64>,
    /// Additional path that serves the task.
    pub route: Option<String>,
}

impl ModelSettings {
    /// The settings of one task. Precedence, highest first: command line, environment, configuration file, the limits that the
    /// plugin `declared` for the task, built-in defaults. Within the environment and the file, settings for this task take
    /// precedence over those for all tasks.
    pub fn task(&self, task: &str, declared: &DeclaredLimits) -> TaskSettings {
        let overrides = self.tasks.get(task);
        let layers = &self.batching;
        let nothing = WrittenBatching::empty();
        let written = layers
            .flags
            .clone()
            .or(layers
                .task_variables
                .get(&variable_suffix(task))
                .unwrap_or(&nothing))
            .or(&layers.environment)
            .or(overrides.map_or(&nothing, |overrides| &overrides.batching))
            .or(&layers.file)
            .or(&declared_batching(declared))
            .or(&layers.built_in);
        TaskSettings {
            batching: TaskBatching {
                policy: match written_value(written.policy) {
                    PolicyName::Adaptive => Policy::Adaptive {
                        max_delay: written.max_delay.map_or(ADAPTIVE_MAX_DELAY, |delay| delay.value),
                    },
                    PolicyName::Greedy => Policy::Greedy,
                    PolicyName::Off => Policy::Off,
                    PolicyName::Fixed => Policy::Fixed {
                        max_delay: written.max_delay.map_or(FIXED_MAX_DELAY, |delay| delay.value),
                    },
                },
                max_batch_size: written_value(written.max_batch_size),
                max_batch_weight: written_value(written.max_batch_weight),
                weight_rule: written_value(written.weight_rule),
                background_slack: Slack::of_share(written_value(written.background_slack)),
            },
            max_queue_size: written_value(written.max_queue_size).get(),
            max_queue_weight: written_value(written.max_queue_weight),
            route: overrides
                .and_then(|overrides| overrides.route.clone())
                .map(|route| route.value),
        }
    }
}

/// The written values for the batching of a model's tasks, by source. Highest precedence first.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::config) struct BatchingLayers {
    /// The command line.
    pub(in crate::config) flags: WrittenBatching,
    /// The environment, for single tasks, by the name of the task as variables spell it.
    pub(in crate::config) task_variables: BTreeMap<String, WrittenBatching>,
    /// The environment, for all tasks.
    pub(in crate::config) environment: WrittenBatching,
    /// The file, for this model and for all models.
    pub(in crate::config) file: WrittenBatching,
    /// Built-in defaults. Every key that has one is set.
    pub(in crate::config) built_in: WrittenBatching,
}

/// The written values for one task.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::config) struct TaskOverrides {
    pub(in crate::config) batching: WrittenBatching,
    pub(in crate::config) route: Option<Located<String>>,
    /// The header of its table.
    pub(in crate::config) header: UncomparedLocation,
}

/// How environment variables spell the name of a task: in upper case, with `_` for characters other than letters and digits.
pub(in crate::config) fn variable_suffix(task: &str) -> String {
    task.chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() {
                c.to_ascii_uppercase()
            } else {
                '_'
            }
        })
        .collect()
}

fn declared_batching(declared: &DeclaredLimits) -> WrittenBatching {
    fn located<T>(value: T) -> Located<T> {
        Located {
            value,
            origin: Origin::BuiltIn,
        }
    }
    WrittenBatching {
        max_batch_size: declared.max_batch_size.and_then(NonZeroUsize::new).map(located),
        max_batch_weight: declared.max_batch_weight.map(|weight| located(Some(weight))),
        weight_rule: declared.weight_rule.map(located),
        ..WrittenBatching::empty()
    }
}
