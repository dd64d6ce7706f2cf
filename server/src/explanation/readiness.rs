//! Why a model is not ready.

use super::Explanation;

/// The state of a model. Reasons are those for the client that asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// It can run batches, and has done so.
    Ready,
    /// It can run batches, but none of its tasks has computed anything: why, by task.
    Untried {
        /// Each task, with the reason.
        tasks: Vec<(String, String)>,
    },
    /// It is being loaded for the first time.
    Loading,
    /// It could not be loaded.
    LoadFailed {
        /// The reason.
        reason: String,
    },
    /// A client has unloaded it.
    Unloaded,
    /// It lost its worker processes and is restarting them.
    Recovering {
        /// What happened.
        reason: String,
    },
    /// Its worker processes exit repeatedly.
    CrashLoop {
        /// What happened last.
        reason: String,
    },
    /// Its workers panicked repeatedly.
    Failed {
        /// What happened.
        reason: String,
    },
}

/// Explains why a model is not ready, and why the last reload failed, if it did. `generation` is the serving generation.
pub fn readiness(
    state: &Readiness,
    is_shutting_down: bool,
    reload_error: Option<(u64, &str)>,
) -> Vec<Explanation> {
    let mut found = Vec::new();
    if is_shutting_down {
        found.push(Explanation::new(
            "shutting_down",
            "the server is shutting down: it finishes accepted requests and rejects new ones",
        ));
    }
    found.extend(of_state(state));
    if let Some((generation, reason)) = reload_error {
        found.push(Explanation::new(
            "reload_failed",
            format!("the last reload failed, and generation {generation} keeps serving: {reason}"),
        ));
    }
    found
}

fn of_state(state: &Readiness) -> Option<Explanation> {
    let (code, message) = match state {
        Readiness::Ready => return None,
        Readiness::Untried { tasks } => {
            let tasks: Vec<String> = tasks
                .iter()
                .map(|(task, reason)| format!("task `{task}`: {reason}"))
                .collect();
            (
                "untried",
                format!(
                    "the model serves, but has not computed anything yet, in the warm-up or since: {}",
                    tasks.join("; ")
                ),
            )
        }
        Readiness::Loading => (
            "loading",
            "the model is being loaded: its plugin is opened, its files are read, and its tasks are warmed up; the log \
             reports when it is ready"
                .to_owned(),
        ),
        Readiness::LoadFailed { reason } => (
            "load_failed",
            format!("the model could not be loaded: {reason}. Fix the cause, then reload"),
        ),
        Readiness::Unloaded => (
            "unloaded",
            "a client has unloaded the model; a load request or the next reload loads it again".to_owned(),
        ),
        Readiness::Recovering { reason } => (
            "recovering",
            format!("the model lost its worker processes and is restarting them; items wait in the queue: {reason}"),
        ),
        Readiness::CrashLoop { reason } => (
            "crash_loop",
            format!(
                "the worker processes of the model exit repeatedly and are restarted with increasing delays; requests are \
                 rejected: {reason}"
            ),
        ),
        Readiness::Failed { reason } => ("panics", format!("the model has failed: {reason}")),
    };
    Some(Explanation::new(code, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_state_is_explained_with_its_reason() {
        let reason = || "why".to_owned();
        for (state, expected) in [
            (Readiness::Ready, None),
            (Readiness::Loading, Some(("loading", "is being loaded"))),
            (
                Readiness::LoadFailed { reason: reason() },
                Some((
                    "load_failed",
                    "could not be loaded: why. Fix the cause, then reload",
                )),
            ),
            (
                Readiness::Unloaded,
                Some(("unloaded", "a load request or the next reload")),
            ),
            (
                Readiness::Recovering { reason: reason() },
                Some(("recovering", "items wait in the queue: why")),
            ),
            (
                Readiness::CrashLoop { reason: reason() },
                Some(("crash_loop", "requests are rejected: why")),
            ),
            (
                Readiness::Failed { reason: reason() },
                Some(("panics", "has failed: why")),
            ),
            (
                Readiness::Untried {
                    tasks: vec![
                        ("a".to_owned(), "no example".to_owned()),
                        ("b".to_owned(), reason()),
                    ],
                },
                Some(("untried", "task `a`: no example; task `b`: why")),
            ),
        ] {
            let found = readiness(&state, false, None);
            let codes: Vec<&str> = found.iter().map(|found| found.code).collect();
            assert_eq!(codes, Vec::from_iter(expected.map(|(code, _)| code)), "{state:?}");
            if let Some((_, part)) = expected {
                assert!(found[0].message.contains(part), "{}", found[0].message);
            }
        }
    }

    #[test]
    fn a_failed_reload_and_a_shutdown_are_explained_next_to_the_state() {
        let found = readiness(&Readiness::Ready, true, Some((3, "no such file")));
        let codes: Vec<&str> = found.iter().map(|found| found.code).collect();
        assert_eq!(codes, ["shutting_down", "reload_failed"]);
        assert_eq!(
            found[1].message,
            "the last reload failed, and generation 3 keeps serving: no such file"
        );
    }
}
