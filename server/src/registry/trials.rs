//! Whether a task has ever computed anything: the outcome of its trial while the model was loaded, and of requests since.

use plugin_abi::manifest::{TaskManifest, Trial};

use super::{Generation, ModelEntry};

/// The outcome of the first computation of a task while the model was loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TaskTrial {
    /// The task has computed an output.
    Succeeded,
    /// The task failed. The model serves nevertheless, because other input may succeed.
    Failed {
        /// The failure, for all clients.
        reason: String,
    },
    /// The task was not run.
    Untried {
        /// The reason, for all clients.
        reason: &'static str,
    },
}

impl TaskTrial {
    /// Combines the trial by the plugin with that of the warm-up. One success is enough.
    pub fn of(task: &TaskManifest, warm_up: Self) -> Self {
        match (&task.trial, warm_up) {
            (Some(Trial::Succeeded), _) | (_, Self::Succeeded) => Self::Succeeded,
            (Some(Trial::Failed { reason }), Self::Untried { .. }) => Self::Failed {
                reason: reason.clone(),
            },
            (_, warm_up) => warm_up,
        }
    }

    /// The outcome in the API.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed { .. } => "failed",
            Self::Untried { .. } => "untried",
        }
    }

    /// Why the task has not succeeded.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Succeeded => None,
            Self::Failed { reason } => Some(reason),
            Self::Untried { reason } => Some(reason),
        }
    }
}

impl Generation {
    /// Whether a task has computed anything while the model was loaded or since then.
    pub fn trial(&self, task: usize) -> TaskTrial {
        match self.trials.get(task) {
            Some(trial) if self.engine.totals(task).succeeded.count == 0 => trial.clone(),
            _ => TaskTrial::Succeeded,
        }
    }
}

impl ModelEntry {
    /// Whether the model is serving and none of its tasks has computed anything yet.
    pub fn is_untried(&self) -> bool {
        self.generation().is_some_and(|generation| {
            let mut tasks = 0..generation.manifest.tasks.len();
            tasks.all(|task| generation.trial(task) != TaskTrial::Succeeded)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_success_is_enough_and_a_failure_takes_precedence_over_no_trial() {
        let failed = |reason: &str| TaskTrial::Failed {
            reason: reason.to_owned(),
        };
        let untried = || TaskTrial::Untried { reason: "no example" };
        let plugin_failed = || {
            Some(Trial::Failed {
                reason: "plugin".to_owned(),
            })
        };
        for (plugin, warm_up, expected) in [
            (None, untried(), untried()),
            (None, failed("warm-up"), failed("warm-up")),
            (None, TaskTrial::Succeeded, TaskTrial::Succeeded),
            (plugin_failed(), untried(), failed("plugin")),
            (plugin_failed(), failed("warm-up"), failed("warm-up")),
            (plugin_failed(), TaskTrial::Succeeded, TaskTrial::Succeeded),
            (Some(Trial::Succeeded), untried(), TaskTrial::Succeeded),
            (Some(Trial::Succeeded), failed("warm-up"), TaskTrial::Succeeded),
        ] {
            let task = TaskManifest {
                trial: plugin.clone(),
                ..TaskManifest::default()
            };
            assert_eq!(TaskTrial::of(&task, warm_up), expected, "{plugin:?}");
        }
    }
}
