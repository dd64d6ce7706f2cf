//! What a model did recently, and why it is not ready, its batches are small or its throughput is limited, for all protocols.

use std::sync::Arc;

use crate::engine::{Engine, Recent};
use crate::explanation::{self, Explanation, Figures, Limits, Readiness};
use crate::model::Health;
use crate::registry::{ModelEntry, ModelState, TaskTrial};

/// The recent figures and the explanations of a model.
pub struct ModelExplanation {
    /// Why the model is not ready, why its last reload failed, and what limits its throughput.
    pub explanation: Vec<Explanation>,
    /// The recent figures; `None` if no generation is serving.
    pub recent: Option<Figures>,
    /// The same for each task, in the order of the manifest.
    pub tasks: Vec<TaskExplanation>,
}

/// The recent figures and the explanations of a task.
pub struct TaskExplanation {
    /// Why the batches are small, requests are rejected, or items fail.
    pub explanation: Vec<Explanation>,
    /// The recent figures.
    pub recent: Figures,
    /// Number of items that wait now.
    pub queued_items: usize,
}

/// Explains a model. Operators see the full reasons of failures; clients see the public form.
pub fn explain_model(entry: &ModelEntry, is_shutting_down: bool, operator: bool) -> ModelExplanation {
    let reload_error = entry.last_reload_error.as_ref().map(|error| error.text(operator));
    let reload_error = entry
        .generation()
        .zip(reload_error)
        .map(|(generation, error)| (generation.number, error));
    let mut explanation =
        explanation::readiness(&readiness_of(entry, operator), is_shutting_down, reload_error);
    let Some(generation) = entry.generation() else {
        return ModelExplanation {
            explanation,
            recent: None,
            tasks: Vec::new(),
        };
    };
    let engine = &generation.engine;
    let recent = engine.recent();
    let limits = engine.limits(entry.tasks.iter().map(|task| task.batching));
    explanation.extend(explanation::throughput(&recent.explained, &limits));
    ModelExplanation {
        explanation,
        recent: Some(Figures::of_model(&recent.summarized, &limits)),
        tasks: (0..entry.tasks.len())
            .map(|task| explain_task(engine, task, &recent, &limits))
            .collect(),
    }
}

fn explain_task(engine: &Engine, task: usize, recent: &Arc<Recent>, limits: &Limits) -> TaskExplanation {
    TaskExplanation {
        explanation: explanation::batches(&recent.explained, task, limits),
        recent: Figures::of_task(&recent.summarized, task, limits),
        queued_items: engine.queued_items(task),
    }
}

fn readiness_of(entry: &ModelEntry, operator: bool) -> Readiness {
    match (&entry.state, entry.health()) {
        (ModelState::Loading, _) => Readiness::Loading,
        (ModelState::Unloaded, _) => Readiness::Unloaded,
        (ModelState::Failed { reason }, _) => Readiness::LoadFailed {
            reason: reason.text(operator).to_owned(),
        },
        (ModelState::Ready(_), Some(Health::Recovering { reason })) => Readiness::Recovering { reason },
        (ModelState::Ready(_), Some(Health::CrashLoop { reason })) => Readiness::CrashLoop { reason },
        (ModelState::Ready(_), Some(Health::Failed { reason })) => Readiness::Failed { reason },
        (ModelState::Ready(generation), Some(Health::Ready) | None) if entry.is_untried() => {
            let tasks = generation.manifest.tasks.iter().enumerate();
            let reason = |trial: TaskTrial| trial.reason().unwrap_or_default().to_owned();
            Readiness::Untried {
                tasks: tasks
                    .map(|(task, manifest)| (manifest.name.clone(), reason(generation.trial(task))))
                    .collect(),
            }
        }
        (ModelState::Ready(_), Some(Health::Ready) | None) => Readiness::Ready,
    }
}
