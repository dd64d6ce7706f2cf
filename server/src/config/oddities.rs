//! Combinations that are legal and do not do what they seem to say. They are warnings.

use std::collections::BTreeMap;
use std::time::Duration;

use super::error::{ConfigWarning, Origin};
use super::keys::{IsolationName, PolicyName, Section, WrittenBatching, WrittenModel};
use super::settings::{BatchingLayers, ModelSettings};

/// What is odd about delays and queues. Variables for single tasks and what plugins declare are not known here.
pub(super) fn in_batching(shared: &BatchingLayers, models: &[ModelSettings]) -> Vec<ConfigWarning> {
    let mut scopes = vec![merged(shared, &WrittenBatching::empty())];
    for model in models {
        scopes.push(merged(&model.batching, &WrittenBatching::empty()));
        scopes.extend(
            model
                .tasks
                .values()
                .map(|task| merged(&model.batching, &task.batching)),
        );
    }
    let mut found = BTreeMap::new();
    unused_delays(&scopes, &mut found);
    for scope in &scopes {
        short_queue(scope, &mut found);
    }
    found
        .into_iter()
        .map(|(origin, (message, hint))| ConfigWarning {
            origin,
            message,
            hint: Some(hint),
        })
        .collect()
}

/// Keys about processes of a model that runs in a thread because `isolation` says so. What its plugin declares for a model
/// that does not set `isolation` is known only when it is loaded; see `ModelSettings::warnings_in_thread`.
pub(super) fn in_isolation(model: &WrittenModel) -> Vec<ConfigWarning> {
    let isolation = model.isolation.as_ref().map(|given| given.value);
    if isolation != Some(IsolationName::Thread) {
        return Vec::new();
    }
    let written = process_keys(model).into_iter();
    written
        .map(|(key, origin)| process_key_without_process(key, origin.clone()))
        .collect()
}

/// The keys of a model that mean something only if it runs in processes, with the place where each is written.
pub(super) fn process_keys(model: &WrittenModel) -> Vec<(&'static str, &Origin)> {
    let written = [
        ("on_crash", model.on_crash.as_ref().map(|given| &given.origin)),
        (
            "predict_timeout",
            model.predict_timeout.as_ref().map(|given| &given.origin),
        ),
        (
            "restart_delay",
            model.restart_delay.as_ref().map(|given| &given.origin),
        ),
        (
            "max_restart_delay",
            model.max_restart_delay.as_ref().map(|given| &given.origin),
        ),
    ];
    let written = written.into_iter();
    written.filter_map(|(key, origin)| Some((key, origin?))).collect()
}

/// A key that has no effect because the model runs in a thread.
pub(super) fn process_key_without_process(key: &str, origin: Origin) -> ConfigWarning {
    ConfigWarning {
        origin,
        message: format!("`{key}` has no effect on a model that runs in a thread of the server"),
        hint: Some(format!("set `isolation = \"process\"`, or remove `{key}`")),
    }
}

type Found = BTreeMap<Origin, (String, String)>;

fn merged(layers: &BatchingLayers, task: &WrittenBatching) -> WrittenBatching {
    layers
        .flags
        .clone()
        .or(&layers.environment)
        .or(task)
        .or(&layers.file)
        .or(&layers.built_in)
}

/// A delay is used by the policies that wait, and there it should be more than nothing.
fn unused_delays(scopes: &[WrittenBatching], found: &mut Found) {
    let mut written: BTreeMap<&Origin, (Duration, bool)> = BTreeMap::new();
    for scope in scopes {
        let (Some(delay), Some(policy)) = (&scope.max_delay, &scope.policy) else {
            continue;
        };
        if delay.origin != Origin::BuiltIn {
            let entry = written.entry(&delay.origin).or_insert((delay.value, false));
            entry.1 |= matches!(policy.value, PolicyName::Adaptive | PolicyName::Fixed);
        }
    }
    for (origin, (delay, used)) in written {
        if !used {
            let message =
                "`max_delay` does nothing here, because only the policies \"adaptive\" and \"fixed\" wait"
                    .to_owned();
            found.insert(
                origin.clone(),
                (
                    message,
                    "add `policy = \"adaptive\"`, or take `max_delay` out".to_owned(),
                ),
            );
        } else if delay.is_zero() {
            let message = "`max_delay` is zero, so batches never wait for company".to_owned();
            found.insert(
                origin.clone(),
                (
                    message,
                    "write `policy = \"greedy\"`, or a delay such as \"5ms\"".to_owned(),
                ),
            );
        }
    }
}

/// A queue that is shorter than a batch keeps batches from filling.
fn short_queue(scope: &WrittenBatching, found: &mut Found) {
    let (Some(queue), Some(batch), Some(policy)) =
        (&scope.max_queue_size, &scope.max_batch_size, &scope.policy)
    else {
        return;
    };
    let written = [&queue.origin, &batch.origin]
        .into_iter()
        .find(|origin| **origin != Origin::BuiltIn);
    let Some(origin) = written else {
        return;
    };
    if policy.value != PolicyName::Off && queue.value < batch.value {
        let message = format!(
            "`max_queue_size` is {}, less than `max_batch_size`, which is {}: no batch can fill",
            queue.value, batch.value
        );
        let hint = format!("raise `max_queue_size` to at least {}", batch.value);
        found.entry(origin.clone()).or_insert((message, hint));
    }
}
