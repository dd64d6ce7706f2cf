//! Whether a task has ever computed anything: what loading the model has tried, and what its requests show since.

use plugin_abi::manifest::{TaskManifest, Trial};

use super::{Generation, ModelEntry};

/// The outcome of what loading a model has tried of one of its tasks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TaskTrial {
    /// The task has computed an outcome.
    Succeeded,
    /// It failed, and the model serves all the same: other input may succeed.
    Failed {
        /// What failed, for every client.
        reason: String,
    },
    /// Nothing was computed.
    Untried {
        /// Why not, for every client.
        reason: &'static str,
    },
}

impl TaskTrial {
    /// What the plugin has tried, together with the warm-up: a success of either is one.
    pub fn of(task: &TaskManifest, warm_up: Self) -> Self {
        match (&task.trial, warm_up) {
            (Some(Trial::Succeeded), _) | (_, Self::Succeeded) => Self::Succeeded,
            (Some(Trial::Failed { reason }), Self::Untried { .. }) => Self::Failed {
                reason: reason.clone(),
            },
            (_, warm_up) => warm_up,
        }
    }

    /// As clients know it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed { .. } => "failed",
            Self::Untried { .. } => "untried",
        }
    }

    /// Why it did not succeed.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Succeeded => None,
            Self::Failed { reason } => Some(reason),
            Self::Untried { reason } => Some(reason),
        }
    }
}

impl Generation {
    /// Whether a task has computed anything, while the model was loaded or since.
    pub fn trial(&self, task: usize) -> TaskTrial {
        match self.trials.get(task) {
            Some(trial) if self.engine.totals(task).succeeded.count == 0 => trial.clone(),
            _ => TaskTrial::Succeeded,
        }
    }
}

impl ModelEntry {
    /// Whether a generation serves of which no task has computed anything yet.
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
    fn a_success_of_the_plugin_or_of_the_warm_up_counts_and_a_failure_outweighs_no_trial() {
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
